"""What updates make of an item, example by example."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest

from millstream.errors import InvalidRequest
from millstream.expressions import Compiled, Update, UpdateOutcome, compile_expressions

KEY = {"pk": {"S": "k"}}


def update_of(text: str, **values: Any) -> Update:
    given = {f":{name}": value for name, value in values.items()}
    update = compile_expressions(update=text, values=given or None).update
    assert update is not None
    return update


def outcome(text: str, item: dict[str, Any] | None, **values: Any) -> UpdateOutcome:
    given = {f":{name}": value for name, value in values.items()}
    before = copy.deepcopy((item, KEY, given))
    try:
        return update_of(text, **values).apply(item, KEY, given)
    finally:
        assert (item, KEY, given) == before, "nothing that came in may change"


def apply(text: str, item: dict[str, Any], **values: Any) -> dict[str, Any]:
    """The new item without its key."""
    new_item = outcome(text, {**KEY, **item}, **values).new_item
    assert new_item is not None
    assert new_item["pk"] == KEY["pk"]
    return {name: value for name, value in new_item.items() if name != "pk"}


def error(text: str, item: dict[str, Any] | None, **values: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        outcome(text, item, **values)
    return str(caught.value)


def N(number: int) -> dict[str, str]:
    return {"N": str(number)}


def L(*numbers: int) -> dict[str, Any]:
    return {"L": [N(number) for number in numbers]}


ABSENT = "The provided expression refers to an attribute that does not exist in the item"
PATH = "The document path provided in the update expression is invalid for update"
TYPE = "An operand in the update expression has an incorrect data type"


# SET ---------------------------------------------------------------------------------------------


def test_set_puts_and_replaces() -> None:
    assert apply("SET a = :v, c = :v", {"a": {"S": "old"}, "b": N(1)}, v=N(2)) == {
        "a": N(2),
        "b": N(1),
        "c": N(2),
    }


def test_sections_in_any_order_and_case() -> None:
    item = {"a": N(1), "b": N(2), "s": {"SS": ["x", "y"]}}
    new = apply("delete s :s remove a sEt c = b ADD d :n", item, s={"SS": ["x"]}, n=N(9))
    assert new == {"b": N(2), "c": N(2), "s": {"SS": ["y"]}, "d": N(9)}


def test_everything_is_read_from_the_old_item() -> None:
    assert apply("SET a = b, b = a", {"a": N(1), "b": N(2)}) == {"a": N(2), "b": N(1)}
    assert apply("REMOVE a SET b = a", {"a": N(1)}) == {"b": N(1)}
    assert error("SET x = :v, y = x", KEY, v=N(1)) == ABSENT


def test_arithmetic() -> None:
    item = {"n": N(10), "m": {"M": {"n": N(1)}}}
    assert apply("SET n = n + :v", item, v=N(5))["n"] == N(15)
    assert apply("SET n = :v - n", item, v=N(5))["n"] == N(-5)
    assert apply("SET n = (n - (m.n))", item)["n"] == N(9)
    assert apply("SET m.n = m.n + :v", item, v={"N": "0.5"})["m"] == {"M": {"n": {"N": "1.5"}}}
    assert apply("SET x = if_not_exists(x, :z) + :v", item, v=N(5), z=N(0))["x"] == N(5)
    assert error("SET n = s + :v", {"s": {"S": "1"}}, v=N(1)) == TYPE
    assert error("SET n = q + :v", {"s": {"S": "1"}}, v=N(1)) == ABSENT


def test_arithmetic_keeps_38_digits_and_refuses_more() -> None:
    big = {"N": "9" * 38}
    assert apply("SET n = n - :v", {"n": big}, v=N(9))["n"] == {"N": "9" * 37 + "0"}
    assert "38 significant digits" in error("SET n = n + :v", {"n": big}, v={"N": "0.1"})
    assert "Number overflow" in error(
        "SET n = n + :v", {"n": {"N": "9" + "0" * 125}}, v={"N": "9" + "0" * 125}
    )


def test_if_not_exists() -> None:
    text = "SET a = if_not_exists(a, :v), b = if_not_exists(c, :v), d = if_not_exists(d, a)"
    assert apply(text, {"a": N(1)}, v=N(2)) == {"a": N(1), "b": N(2), "d": N(1)}
    # The alternative is not read where it is not needed.
    assert apply("SET a = if_not_exists(a, q)", {"a": N(1)}) == {"a": N(1)}
    assert error("SET a = if_not_exists(b, q)", KEY) == ABSENT


def test_list_append() -> None:
    assert apply("SET a = list_append(a, :v)", {"a": L(1)}, v=L(2, 3))["a"] == L(1, 2, 3)
    assert apply("SET a = list_append(:v, a)", {"a": L(1)}, v=L(2))["a"] == L(2, 1)
    text = "SET a = list_append(if_not_exists(a, :e), :v)"
    assert apply(text, {}, v=L(2), e=L())["a"] == L(2)
    assert error("SET a = list_append(n, :v)", {"n": N(1)}, v=L(2)) == TYPE
    assert error("SET a = list_append(q, :v)", KEY, v=L(2)) == ABSENT


def test_nested_paths() -> None:
    item = {"a": {"M": {"x": N(3), "y": N(4), "c": {"M": {"y": N(3)}}}}, "b": {"M": {"y": N(2)}}}
    text = "SET a.b = :v, a.c.d = :v REMOVE a.x, b.y"
    assert apply(text, item, v=N(9)) == {
        "a": {"M": {"y": N(4), "b": N(9), "c": {"M": {"y": N(3), "d": N(9)}}}},
        "b": {"M": {}},
    }


def test_deep_path_through_lists_and_maps() -> None:
    item = {"a": {"M": {"c": {"L": [N(1), {"M": {"y": L(3, 5, 7)}}]}}}}
    new = apply("SET a.c[1].y[1] = :v, a.z = a.c[1].y[2]", item, v=N(9))
    assert new == {"a": {"M": {"c": {"L": [N(1), {"M": {"y": L(3, 9, 7)}}]}, "z": N(7)}}}


def test_list_elements_beyond_the_end_are_appended_in_order_of_index() -> None:
    assert apply("SET a[5] = :v", {"a": L(1, 2, 3)}, v=N(9))["a"] == L(1, 2, 3, 9)
    assert apply("SET a[0] = :v", {"a": L()}, v=N(9))["a"] == L(9)
    text = "SET a[84] = :a, a[37] = :b, a[17] = :c, a[50] = :d"
    new = apply(text, {"a": L(0)}, a=N(1), b=N(2), c=N(3), d=N(4))
    assert new["a"] == L(0, 3, 2, 4, 1)


def test_indexes_mean_the_old_list() -> None:
    item = {"a": L(2, 3, 4, 5, 6, 7)}
    wanted = L(2, 4, 17, 6, 7)
    assert apply("REMOVE a[1] SET a[3] = :v", item, v=N(17))["a"] == wanted
    assert apply("SET a[3] = :v REMOVE a[1]", item, v=N(17))["a"] == wanted
    assert apply("REMOVE a[0], a[1], a[9] SET a[8] = :v", item, v=N(1))["a"] == L(4, 5, 6, 7, 1)


@pytest.mark.parametrize(
    "text",
    [
        "SET a.c = :v",
        "SET b.c = :v",
        "SET q.c = :v",
        "SET a[0] = :v",
        "SET m[0] = :v",
        "SET m.q.r = :v",
        "SET b[7].x = :v",
        "ADD q.c :v",
    ],
)
def test_a_path_without_its_container(text: str) -> None:
    item = {**KEY, "a": {"S": "x"}, "b": L(1), "m": {"M": {}}}
    assert error(text, item, v=N(1)) == PATH
    assert error(text, None, v=N(1)) == PATH


def test_nesting_beyond_32_levels() -> None:
    value: dict[str, Any] = {"M": {"x": N(1)}}
    for _ in range(29):
        value = {"M": {"x": value}}
    # Thirty levels in the value, and the map that it goes into: 31 are allowed.
    apply("SET a.b = :v", {"a": {"M": {}}}, v=value)
    found = error("SET a.b.c = :v", {"a": {"M": {"b": {"M": {}}}}}, v=value)
    assert found.startswith("Nesting Levels have exceeded supported limits")


# REMOVE, ADD, DELETE -----------------------------------------------------------------------------


def test_remove() -> None:
    assert apply("REMOVE a, q", {"a": N(1), "b": N(2)}) == {"b": N(2)}
    assert apply("REMOVE a[1]", {"a": L(1, 2, 3, 4)})["a"] == L(1, 3, 4)
    assert apply("REMOVE a[0]", {"a": L(1)})["a"] == L()
    assert apply("REMOVE m.q, a[17]", {"a": L(1), "m": {"M": {"x": N(1)}}}) == {
        "a": L(1),
        "m": {"M": {"x": N(1)}},
    }


@pytest.mark.parametrize("text", ["REMOVE a.c", "REMOVE q.c", "REMOVE a[0]", "REMOVE q[0]"])
def test_remove_below_what_is_not_there(text: str) -> None:
    assert error(text, {**KEY, "a": {"S": "x"}}) == PATH
    # Observed on AWS: without an item it is ignored.
    assert outcome(text, None).new_item is None


def test_add() -> None:
    item = {"n": N(1), "s": {"SS": ["b"]}, "m": {"M": {"n": N(1)}}, "l": L(1)}
    assert apply("ADD n :v, q :v, m.n :v, m.q :v, l[7] :v", item, v=N(3)) == {
        "n": N(4),
        "s": {"SS": ["b"]},
        "q": N(3),
        "m": {"M": {"n": N(4), "q": N(3)}},
        "l": L(1, 3),
    }
    assert apply("ADD s :v, t :v", item, v={"SS": ["a", "b", "ä"]})["s"] == {"SS": ["a", "b", "ä"]}
    assert apply("ADD s :v", {"s": {"NS": ["2", "10"]}}, v={"NS": ["-3", "9", "2"]})["s"] == {
        "NS": ["-3", "2", "9", "10"]
    }
    # By the bytes, not by their base64: ff sorts behind 00 though "/" is below "A".
    assert apply("ADD s :v", {"s": {"BS": ["AA=="]}}, v={"BS": ["/w=="]})["s"] == {
        "BS": ["AA==", "/w=="]
    }
    assert error("ADD s :v", {**KEY, **item}, v=N(1)) == TYPE
    assert error("ADD s :v", {**KEY, **item}, v={"NS": ["1"]}) == TYPE


def test_delete() -> None:
    item = {"s": {"SS": ["a", "b", "c"]}, "m": {"M": {"s": {"NS": ["1"]}}}}
    assert apply("DELETE s :v", item, v={"SS": ["b", "x"]})["s"] == {"SS": ["a", "c"]}
    assert "s" not in apply("DELETE s :v", item, v={"SS": ["a", "b", "c"]})
    assert apply("DELETE m.s :v", item, v={"NS": ["1"]})["m"] == {"M": {}}
    assert apply("DELETE q :v", item, v={"SS": ["a"]}) == item
    assert error("DELETE s :v", {**KEY, **item}, v={"NS": ["1"]}) == TYPE


# Without an item ---------------------------------------------------------------------------------


def test_an_update_creates_the_item() -> None:
    assert outcome("SET a = :v", None, v=N(1)).new_item == {**KEY, "a": N(1)}
    assert outcome("ADD a :v", None, v=N(1)).new_item == {**KEY, "a": N(1)}
    assert outcome("SET a = :v REMOVE b.c", None, v=N(1)).new_item == {**KEY, "a": N(1)}
    # The key of an item that does not exist can be read (AWS, recorded by dynalite).
    assert outcome("SET a = pk", None).new_item == {**KEY, "a": KEY["pk"]}


def test_an_update_that_only_takes_away_creates_nothing() -> None:
    assert outcome("REMOVE a", None).new_item is None
    assert outcome("DELETE a :v", None, v={"SS": ["x"]}).new_item is None


# What it tells about itself ----------------------------------------------------------------------


def returned(text: str, item: dict[str, Any] | None, **values: Any) -> tuple[Any, Any]:
    """UPDATED_OLD and UPDATED_NEW."""
    update = update_of(text, **values)
    return update.updated_old(item), update.updated_new(outcome(text, item, **values).new_item)


def test_updated_values_are_the_touched_paths_only() -> None:
    item = {**KEY, "a": {"M": {"b": N(1), "c": L(1, 2, 3)}}, "d": N(4)}
    assert returned("SET a.b = :v", item, v=N(9)) == (
        {"a": {"M": {"b": N(1)}}},
        {"a": {"M": {"b": N(9)}}},
    )
    assert returned("SET a.c[1] = :v, a.b = :w", item, v=N(8), w=N(9)) == (
        {"a": {"M": {"b": N(1), "c": L(2)}}},
        {"a": {"M": {"b": N(9), "c": L(8)}}},
    )
    assert returned("SET d = d + :v", item, v=N(1)) == ({"d": N(4)}, {"d": N(5)})
    assert returned("REMOVE d SET q = :v", item, v=N(1)) == ({"d": N(4)}, {"q": N(1)})
    assert returned("SET q = :v", None, v=N(1)) == ({}, {"q": N(1)})
    assert returned("REMOVE q", None) == ({}, {})


def test_updated_values_go_by_the_path_as_written() -> None:
    item = {**KEY, "a": L(1, 2, 3)}
    assert returned("SET a[100] = :v", item, v=N(9)) == ({}, {})
    assert returned("REMOVE a[1], a[3]", item) == ({"a": L(2)}, {"a": L(3)})


def test_names_and_types() -> None:
    update = update_of(
        "SET a = :s, b.c = :s, d = e.f, g = if_not_exists(g, :s), h = h + :n, i = list_append(i, i)"
        " ADD j :n REMOVE k",
        s={"S": "x"},
        n=N(1),
    )
    assert update.names == ("a", "b", "d", "g", "h", "i", "j", "k")
    assert update.nested == ("b", "e")
    types = update.assigned_types({":s": {"S": "x"}, ":n": N(1)})
    assert types == {"a": "S", "g": "S", "h": "N", "i": "L", "j": "N"}
    assert update.top_level_names == frozenset("abdghijk")


@pytest.mark.parametrize(
    ("text", "charge"),
    [
        # Conformance suite, limits/itemSizeBySurface: 3 for the statement, and for each clause:
        ("SET b = :ten", 19 + 1 + 10),
        ("SET b = :ten, c = :ten", 19 + 1 + 10 + 19 + 1 + 10),
        ("SET d.leaf = :ten", 19 + 1 + 4 + 4 + 10),
        ("SET d[0] = :ten", 19 + 1 + 4 + 1 + 10),
        ("SET c = abcdefghij", 19 + 1 + 1 + 14 + 10),
        ("SET c = m.a.z", 19 + 1 + 1 + 3 * 15),
        ("SET c = l[10]", 19 + 1 + 1 + 15 + 16),
        ("SET n = n + :one", 19 + 1 + 34 + 16 + 2),
        ("SET n = n - :one", 19 + 1 + 37 + 16 + 2),
        ("SET c = if_not_exists(c, :ten)", 19 + 1 + 39 + 16 + 10),
        ("SET l = list_append(l, :list)", 19 + 1 + 37 + 16 + 14),
        ("ADD abcdefghij :one", 19 + 10 + 2),
        ("ADD ss :set", 19 + 2 + 10),
        ("REMOVE r", 2),
        ("REMOVE m.yy", 1 + 1 + 4 + 2),
        ("REMOVE l[10]", 1 + 1 + 4 + 2),
        ("DELETE ss :set", 1 + 2),
    ],
)
def test_what_update_item_counts_against_400_kb(text: str, charge: int) -> None:
    every: dict[str, Any] = {
        "ten": {"S": "y" * 10},
        "one": N(1),
        "list": {"L": [{"S": "y" * 10}]},
        "set": {"SS": ["y" * 10]},
    }
    values = {name: value for name, value in every.items() if f":{name}" in text}
    update = update_of(text, **values)
    assert update.charge_bytes({f":{name}": value for name, value in values.items()}) == 3 + charge


def test_an_update_travels_in_messagepack() -> None:
    compiled = compile_expressions(
        update="SET a = list_append(if_not_exists(a, :l), :l), n[1].x = n[2] - :n REMOVE r "
        "ADD s :n DELETE t :s",
        values={":l": L(), ":n": N(1), ":s": {"SS": ["a"]}},
    )
    packed = msgspec.msgpack.encode(compiled)
    assert msgspec.msgpack.decode(packed, type=Compiled) == compiled
