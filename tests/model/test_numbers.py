"""Numbers against DynamoDB's recorded behaviour, and against Decimal as the oracle."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import InvalidRequest
from millstream.model.numbers import (
    add,
    compare,
    decode_ordered,
    decode_ordered_at,
    encode_ordered,
    normalise,
    size_bytes,
    sort_key,
    subtract,
)

MAX = "9.9999999999999999999999999999999999999E+125"

decimals = st.builds(
    lambda negative, digits, exponent: Decimal((int(negative), tuple(map(int, digits)), exponent)),
    st.booleans(),
    st.text("0123456789", min_size=1, max_size=38),
    st.integers(-130, 88),
)
numbers = decimals.map(lambda value: normalise(str(value)))


# Pairs recorded on AWS by the conformance suite (numberPrecision) and by dynoxide.
@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0", "0"),
        ("-0", "0"),
        ("+0.0", "0"),
        ("0e999999999999999", "0"),
        ("00042", "42"),
        ("1.0", "1"),
        ("3.1400", "3.14"),
        ("1.5E2", "150"),
        ("1E2", "100"),
        ("+5", "5"),
        ("+1e2", "100"),
        ("+.5", "0.5"),
        ("5.", "5"),
        ("1.e5", "100000"),
        (".5", "0.5"),
        ("-00.50", "-0.5"),
        ("1E-130", "0." + "0" * 129 + "1"),
        ("1E125", "1" + "0" * 125),
        (MAX, "9" * 38 + "0" * 88),
        ("-" + MAX, "-" + "9" * 38 + "0" * 88),
        ("0." + "0" * 200 + "1e150", "0." + "0" * 50 + "1"),
    ],
)
def test_normalises_as_dynamodb_stores(text: str, canonical: str) -> None:
    assert normalise(text) == canonical
    assert normalise(canonical) == canonical


@pytest.mark.parametrize(
    "text",
    ["+e2", "1+2", "+1+2", "1.2.3", "++5", "1e", "NaN", "Infinity", ".", "-", "+", "e5", "1_0"]
    + ["0x1", "\u0661", "\u00b2", "1\n", " 5", "5 ", "\t5"],
)
def test_refuses_what_is_no_number(text: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        normalise(text)
    assert str(refusal.value) == f"The parameter cannot be converted to a numeric value: {text}"


def test_refuses_an_empty_number() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        normalise("")
    assert str(refusal.value) == "The parameter cannot be converted to a numeric value"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1E126", "Number overflow. Attempting to store a number with magnitude larger than "),
        ("-1E126", "Number overflow. Attempting to store a number with magnitude larger than "),
        ("1E-131", "Number underflow. Attempting to store a number with magnitude smaller than "),
        ("1e" + "9" * 50, "Number overflow. "),
        ("1e-" + "9" * 50, "Number underflow. "),
        ("1" * 39, "Attempting to store more than 38 significant digits in a Number"),
        ("0." + "1" * 39, "Attempting to store more than 38 significant digits in a Number"),
    ],
)
def test_refuses_out_of_range(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        normalise(text)
    assert str(refusal.value).startswith(message)


@pytest.mark.parametrize(
    "text",
    [
        "1" * 1_000_000,
        "0" * 1_000_000 + "x",
        "1e" + "1" * 1_000_000,
        "1e-" + "0" * 1_000_000 + "9x",
        "0." + "0" * 1_000_000 + "1",
        "9" * 500_000 + "." + "9" * 500_000 + "e-500000",
        "." * 1_000_000,
    ],
)
def test_a_hostile_text_costs_bounded_time(text: str) -> None:
    began = process_time()
    with pytest.raises(InvalidRequest):
        normalise(text)
    assert process_time() - began < 0.5


@given(decimals)
def test_agrees_with_decimal(value: Decimal) -> None:
    text = normalise(str(value))
    assert Decimal(text) == value
    assert "E" not in text
    assert normalise(format(value, "f")) == text


@given(st.text("0123456789.eE+- ", max_size=12))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    try:
        canonical = normalise(text)
    except InvalidRequest:
        return
    assert Decimal(canonical) == Decimal(text)
    assert normalise(canonical) == canonical


@given(numbers, numbers)
def test_bytes_order_as_numbers(a: str, b: str) -> None:
    x, y = Decimal(a), Decimal(b)
    expected = (x > y) - (x < y)
    left, right = encode_ordered(a), encode_ordered(b)
    assert (left > right) - (left < right) == expected
    assert compare(a, b) == expected
    assert (sort_key(a) < sort_key(b)) == (expected < 0)


@given(numbers, st.binary(max_size=3), st.binary(max_size=3))
def test_bytes_round_trip_and_delimit_themselves(text: str, before: bytes, after: bytes) -> None:
    data = encode_ordered(text)
    assert decode_ordered(data) == text
    assert decode_ordered_at(before + data + after, len(before)) == (text, len(before + data))
    assert len(data) <= 22


def test_bytes_order_at_the_edges() -> None:
    ladder = ["-" + MAX, "-1", "-0.11", "-0.1", "-1E-130", "0", "1E-130", "1E-129", "0.1", "1"]
    ladder += ["1.01", "1.0101", "1.1", "9", "10", "11", "99", "100", "1E125", MAX]
    encoded = [encode_ordered(normalise(text)) for text in ladder]
    assert encoded == sorted(encoded)
    assert len(set(encoded)) == len(ladder)
    assert encode_ordered(normalise("-" + MAX))[:2] == b"\x00\x00"
    assert encode_ordered(normalise(MAX))[:2] == b"\x02\x00"


@given(numbers, numbers)
def test_sum_and_difference_are_exact_or_refused(a: str, b: str) -> None:
    for operation, expected in (
        (add, Fraction(a) + Fraction(b)),
        (subtract, Fraction(a) - Fraction(b)),
    ):
        try:
            result = operation(a, b)
        except InvalidRequest:
            continue
        assert Fraction(result) == expected


def test_arithmetic() -> None:
    assert add("0.1", "0.2") == "0.3"
    assert subtract("1", "1") == "0"
    assert add("99999999999999999999999999999999999999", "1") == "1" + "0" * 38
    with pytest.raises(InvalidRequest, match="Number overflow"):
        add(normalise(MAX), normalise(MAX))
    with pytest.raises(InvalidRequest, match="38 significant digits"):
        add(normalise("1E100"), "1")
    with pytest.raises(InvalidRequest, match="Number underflow"):
        subtract(normalise("1.1E-130"), normalise("1E-130"))


# Sizes measured on AWS by bisecting the 400 KB gate (dynoxide's record).
@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 2),
        ("12", 2),
        ("123", 3),
        ("12345", 4),
        ("1234567890123456789", 11),
        ("1" * 38, 20),
        ("0042", 2),
        ("100", 2),
        ("1010", 3),
        ("0.0000001", 2),
        ("0", 1),
        ("1E125", 2),
        ("1E-100", 2),
        ("1.5", 3),
        ("1.200", 3),
        ("1.234", 4),
        ("3.14159", 5),
        ("100.5", 4),
        ("0.15", 2),
        ("-42", 3),
        ("-1E125", 3),
        ("-0.15", 3),
        ("-0", 1),
    ],
)
def test_size_as_measured_on_aws(text: str, size: int) -> None:
    assert size_bytes(normalise(text)) == size
