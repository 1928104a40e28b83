"""Plain Python values there and back."""

from __future__ import annotations

import copy
import enum
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import InvalidRequest
from millstream.model.python_values import from_attribute, from_item, to_attribute, to_item
from millstream.model.values import check_item

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4)
texts = st.text(st.characters(codec="utf-8"), max_size=5)
integers = st.integers(-(10**37), 10**37)
fractions = st.decimals(-1000, 1000, places=5)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    integers,
    fractions,
    texts,
    st.binary(max_size=5),
    st.sets(texts, min_size=1, max_size=3),
    st.sets(integers | fractions, min_size=1, max_size=3),
    st.sets(st.binary(max_size=3), min_size=1, max_size=3),
)
plain = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)
)


@given(st.dictionaries(names, plain, max_size=4))
def test_round_trip_and_canonical(mapping: dict[str, Any]) -> None:
    item = to_item(mapping)
    assert from_item(item) == mapping
    checked = copy.deepcopy(item)
    check_item(checked)
    assert checked == item


in_range = st.floats(1e-100, 1e100)


@given(in_range | in_range.map(lambda value: -value) | st.just(0.0) | st.just(-0.0))
def test_a_float_is_the_number_that_it_shows(value: float) -> None:
    back = from_attribute(to_attribute(value))
    assert Decimal(back) == Decimal(repr(value))
    assert float(back) == value


class Colour(enum.StrEnum):
    RED = "red"


class Size(enum.IntEnum):
    BIG = 3


@pytest.mark.parametrize(
    ("value", "attribute", "back"),
    [
        (0.1, {"N": "0.1"}, Decimal("0.1")),
        (2.0, {"N": "2"}, 2),
        (Decimal("1E+3"), {"N": "1000"}, 1000),
        (Size.BIG, {"N": "3"}, 3),
        (Colour.RED, {"S": "red"}, "red"),
        (True, {"BOOL": True}, True),
        (None, {"NULL": True}, None),
        (bytearray(b"A"), {"B": "QQ=="}, b"A"),
        (memoryview(b"AxB")[::2], {"B": "QUI="}, b"AB"),
        ((1, "a"), {"L": [{"N": "1"}, {"S": "a"}]}, [1, "a"]),
        ({10, 9}, {"NS": ["9", "10"]}, {9, 10}),
        ({0.1, Decimal("0.1")}, {"NS": ["0.1"]}, {Decimal("0.1")}),
        (frozenset({b"\xff", b"\x00"}), {"BS": ["AA==", "/w=="]}, {b"\xff", b"\x00"}),
    ],
)
def test_forms(value: Any, attribute: Any, back: Any) -> None:
    assert to_attribute(value) == attribute
    result = from_attribute(to_attribute(value))
    assert result == back
    assert type(result) is type(back)


OVERFLOW = (
    "Number overflow. Attempting to store a number with magnitude larger than supported range"
)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ([], "item: a dict is needed, not list"),
        ({"a": object()}, "item.a: object has no form in DynamoDB"),
        ({"a": [1, {"b c": {"d": 1j}}]}, "item.a[1]['b c'].d: complex has no form in DynamoDB"),
        ({"a": {1: "x"}}, "item.a: an attribute name is a str, not int"),
        ({"": 1}, "item: Empty attribute name"),
        ({"a": float("nan")}, "item.a: The parameter cannot be converted to a numeric value: nan"),
        (
            {"a": Decimal("Infinity")},
            "item.a: The parameter cannot be converted to a numeric value",
        ),
        ({"a": 10**126}, f"item.a: {OVERFLOW}"),
        ({"a": -(10**10_000)}, f"item.a: {OVERFLOW}"),
        ({"a": int("1" * 39)}, "item.a: Attempting to store more than 38 significant digits"),
        ({"a": set()}, "item.a: the members of a set are none, so that it has no type"),
        ({"a": {1, "b"}}, "item.a: the members of a set are of several kinds"),
        ({"a": {(1, 2)}}, "item.a: a set holds str, numbers or bytes"),
        ({"a": {True}}, "item.a: a set holds str, numbers or bytes"),
        ({"a": "\ud800"}, "item.a: the string is not valid Unicode"),
    ],
)
def test_refusals_name_the_place(mapping: Any, message: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        to_item(mapping)
    assert str(refusal.value).startswith(message)


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}])
def test_nesting_limit(wrap: Any) -> None:
    value: Any = 1
    for _ in range(31):
        value = wrap(value)
    item = to_item({"a": value})
    check_item(item)
    assert from_item(item) == {"a": value}
    with pytest.raises(InvalidRequest, match="nested more than 32 levels deep"):
        to_item({"a": wrap(value)})


def test_a_cycle_is_refused() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(InvalidRequest, match="nested more than"):
        to_item({"a": cycle})
