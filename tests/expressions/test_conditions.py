"""What conditions decide, example by example."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import msgspec
import pytest

from millstream.expressions import Compiled, compile_expressions

ITEM: dict[str, Any] = {
    "s": {"S": "hello"},
    "n": {"N": "5"},
    "b": {"B": b64encode(b"hi there").decode()},
    "t": {"BOOL": True},
    "z": {"NULL": True},
    "ss": {"SS": ["a", "b"]},
    "ns": {"NS": ["2", "4", "7"]},
    "bs": {"BS": [b64encode(b"x").decode()]},
    "l": {"L": [{"S": "hi"}, {"NS": ["1", "2"]}, {"L": [{"N": "3"}, {"N": "4"}]}]},
    "m": {"M": {"x": {"N": "1"}, "y": {"L": [{"N": "-1"}, {"N": "2"}]}}},
    "five": {"N": "5"},
}


def matches(text: str, item: dict[str, Any] | None = ITEM, **values: Any) -> bool:
    given = {f":{name}": value for name, value in values.items()}
    condition = compile_expressions(condition=text, values=given or None).condition
    assert condition is not None
    return condition.matches(item, given)


@pytest.mark.parametrize("name", sorted(set(ITEM) - {"five"}))
def test_equality_of_every_type(name: str) -> None:
    assert matches(f"{name} = :v", v=ITEM[name])
    assert not matches(f"{name} <> :v", v=ITEM[name])
    assert matches(f"{name} IN (:w, :v)", v=ITEM[name], w={"S": "no"})
    for other in set(ITEM) - {name, "five", "n"}:
        assert not matches(f"{name} = {other}")
        assert matches(f"{name} <> {other}")


def test_a_missing_attribute_equals_nothing_and_differs_from_everything() -> None:
    assert not matches("q = :v", v={"N": "1"})
    assert matches("q <> :v", v={"N": "1"})
    assert not matches("q = r")
    assert matches("q <> r")
    assert matches("n <> q")
    for operator in ("<", "<=", ">", ">="):
        assert not matches(f"q {operator} r")
        assert not matches(f"q {operator} n")
        assert not matches(f"n {operator} q")
    assert not matches("q BETWEEN r AND five")
    assert not matches("n BETWEEN q AND five")
    assert not matches("q IN (r)")
    assert not matches("contains(q, :v)", v={"S": "a"})
    assert not matches("begins_with(q, :v)", v={"S": "a"})
    assert not matches("attribute_type(q, :v)", v={"S": "S"})
    assert matches("NOT q = r")


def test_no_item_is_an_item_without_attributes() -> None:
    assert matches("attribute_not_exists(pk)", None)
    assert matches("a <> :v", None, v={"S": "x"})
    assert not matches("a = :v", None, v={"S": "x"})


@pytest.mark.parametrize(
    ("name", "below", "above"),
    [
        ("n", {"N": "4.99999999999999999999"}, {"N": "10"}),
        ("s", {"S": "hellO"}, {"S": "hello "}),
        ("b", {"B": b64encode(b"h\xff").decode()}, {"B": b64encode(b"i").decode()}),
    ],
)
def test_order(name: str, below: dict[str, str], above: dict[str, str]) -> None:
    if name == "b":
        # Bytes are unsigned, and it is not the base64 that is ordered.
        below, above = {"B": b64encode(b"h").decode()}, {"B": b64encode(b"h\xff").decode()}
    same = ITEM[name]
    assert matches(f"{name} > :v", v=below)
    assert matches(f"{name} >= :v", v=same)
    assert matches(f"{name} < :v", v=above)
    assert matches(f"{name} <= :v", v=same)
    assert matches(f":v < {name}", v=below)
    assert not matches(f"{name} < :v", v=same)
    assert not matches(f"{name} > :v", v=same)
    assert matches(f"{name} BETWEEN :low AND :high", low=below, high=above)
    assert matches(f"{name} between :low and :high", low=same, high=same)
    assert not matches(f"{name} BETWEEN :low AND :high", low=above, high=above)


def test_types_that_do_not_compare_are_false_and_no_error() -> None:
    assert not matches("n < :v", v={"S": "9"})
    assert not matches("l < :v", v={"N": "9"})
    assert not matches("t < z")
    assert not matches("n BETWEEN l AND m")
    # Reversed bounds are an error only where the request gives both.
    assert not matches("n BETWEEN five AND :v", v={"N": "1"})


def test_existence() -> None:
    assert matches("attribute_exists(m.y[1])")
    assert matches("attribute_not_exists(m.y[2])")
    assert matches("attribute_not_exists(m.y.z)")
    assert matches("attribute_not_exists(s.x)")
    assert matches("attribute_not_exists(m[0])")
    assert matches("attribute_exists(z)")


def test_types() -> None:
    for name, value in ITEM.items():
        (tag,) = value
        assert matches(f"attribute_type({name}, :t)", t={"S": tag})
        assert not matches(f"attribute_type({name}, :t)", t={"S": "S" if tag != "S" else "N"})
    assert matches("attribute_type(:v, :t)", v={"N": "1"}, t={"S": "N"})


def test_begins_with() -> None:
    assert matches("begins_with(s, :v)", v={"S": "hell"})
    assert matches("begins_with(b, :v)", v={"B": b64encode(b"hi").decode()})
    assert not matches("begins_with(s, :v)", v={"S": "ell"})
    assert not matches("begins_with(n, :v)", v={"S": "5"})
    assert not matches("begins_with(five, n)")
    assert matches("begins_with(:v, s)", v={"S": "hello you"})


def test_contains() -> None:
    assert matches("contains(s, :v)", v={"S": "ell"})
    assert matches("contains(b, :v)", v={"B": b64encode(b"the").decode()})
    assert matches("contains(ss, :v)", v={"S": "b"})
    assert matches("contains(ns, :v)", v={"N": "4"})
    assert matches("contains(bs, :v)", v={"B": b64encode(b"x").decode()})
    assert matches("contains(l, :v)", v={"S": "hi"})
    assert matches("contains(l, :v)", v={"NS": ["1", "2"]})
    assert matches("contains(l, :v)", v={"L": [{"N": "3"}, {"N": "4"}]})
    assert not matches("contains(s, :v)", v={"N": "1"})
    assert not matches("contains(ss, :v)", v={"N": "1"})
    assert not matches("contains(m, :v)", v={"S": "x"})
    assert not matches("contains(b, :v)", v={"NS": ["1"]})
    # Not a substring of the base64.
    assert not matches("contains(b, :v)", v={"B": b64encode(b"i\0").decode()})


@pytest.mark.parametrize(
    ("name", "size"), [("s", 5), ("b", 8), ("ss", 2), ("ns", 3), ("bs", 1), ("l", 3), ("m", 2)]
)
def test_size(name: str, size: int) -> None:
    assert matches(f"size({name}) = :v", v={"N": str(size)})
    assert matches(f"size({name}) < :v", v={"N": "100"})
    assert matches(f":v > (size({name}))", v={"N": "100"})


def test_size_of_a_string_counts_utf16_units() -> None:
    assert matches("size(s) = :v", {"s": {"S": "ä😀"}}, v={"N": "3"})


def test_what_has_no_size() -> None:
    for name in ("n", "t", "z", "q"):
        assert not matches(f"size({name}) >= :v", v={"N": "0"})
        assert matches(f"size({name}) <> :v", v={"N": "0"})
    assert not matches("size(s) = :v", v={"S": "5"})
    assert matches("size(s) = five")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("n = five AND s = q", False),
        ("n = five OR s = q", True),
        ("NOT s = q", True),
        ("nOt s = q aNd n = five", True),
        ("NOT n = five AND s = q", False),
        ("NOT (n = five AND s = q)", True),
        ("NOT NOT NOT NOT n = five", True),
        ("NOT NOT NOT n = five", False),
        ("n = five OR s = q AND s = r", True),
        ("(n = five OR s = q) AND s = r", False),
        ("n BETWEEN five AND five AND attribute_exists(s)", True),
        ("((n) = (five)) AND (NOT (s = q))", True),
        ("(attribute_exists(s) AND (attribute_exists(n)))", True),
        ("( ( ( size ( ss )) < five ) AND ( n = five ) )", True),
    ],
)
def test_logic(text: str, wanted: bool) -> None:
    assert matches(text) is wanted


def test_paths() -> None:
    assert matches("m.x < m.y[1]")
    assert not matches("m.x < m.y[0]")
    assert not matches("m.q < m.y[100]")
    assert matches("l[2][0] = :v", v={"N": "3"})


def test_names_that_only_placeholders_can_spell() -> None:
    names = {"#a": "a.b", "#c": "and", "#d": "or"}
    condition = compile_expressions(condition="#a = #c.#d", names=names).condition
    assert condition is not None
    assert condition.matches({"a.b": {"N": "1"}, "and": {"M": {"or": {"N": "1"}}}}, {})
    assert condition.names == ("a.b", "and")
    assert condition.nested == ("and",)
    assert condition.top_level_names == {"a.b", "and"}


def test_a_tree_travels_in_messagepack() -> None:
    text = (
        "NOT (a.b[1] = :v OR a <> :v) AND size(a) BETWEEN :v AND :v AND a IN (:v, b) AND "
        "attribute_exists(a) AND attribute_not_exists(a) AND contains(a, :s) AND a < :v "
        "AND begins_with(a, :s) AND attribute_type(a, :t)"
    )
    values = {":v": {"N": "1"}, ":s": {"S": "x"}, ":t": {"S": "SS"}}
    compiled = compile_expressions(condition=text, projection="a.b[3], c", values=values)
    packed = msgspec.msgpack.encode(compiled)
    assert msgspec.msgpack.decode(packed, type=Compiled) == compiled
