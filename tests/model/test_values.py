"""Attribute values at the door: canonical form, sizes, and DynamoDB's words for what it refuses."""

from __future__ import annotations

import copy
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import InvalidRequest, MalformedRequest, RequestError
from millstream.model.values import (
    TAGS,
    binary_size_bytes,
    check_item,
    check_value,
    decode_item,
    encode_item,
    item_size_bytes,
    type_of,
    value_size_bytes,
)

EMPTY = "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
SEVERAL = (
    "Supplied AttributeValue has more than one datatypes set, "
    "must contain exactly one of the supported datatypes"
)
INVALID = "One or more parameter values were invalid: "


def base64(data: bytes) -> str:
    return b64encode(data).decode()


texts = st.text(st.characters(codec="utf-8"), max_size=6)
number_texts = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.decimals(-1000, 1000, places=3).map(str),
    st.sampled_from(["+5", "1E5", "00.50", "-0", "1e-20"]),
)
binaries = st.binary(max_size=5).map(base64)
scalars = st.one_of(
    st.fixed_dictionaries({"S": texts}),
    st.fixed_dictionaries({"N": number_texts}),
    st.fixed_dictionaries({"B": binaries}),
    st.fixed_dictionaries({"BOOL": st.booleans()}),
    st.just({"NULL": True}),
    st.fixed_dictionaries({"SS": st.lists(texts, min_size=1, max_size=4, unique=True)}),
    st.fixed_dictionaries({"NS": st.lists(st.integers().map(str), min_size=1, unique=True)}),
    st.fixed_dictionaries({"BS": st.lists(binaries, min_size=1, max_size=4, unique=True)}),
).map(copy.deepcopy)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"L": st.lists(inner, max_size=4)}),
        st.fixed_dictionaries({"M": st.dictionaries(names, inner, max_size=4)}),
    ),
    max_leaves=12,
)
items = st.dictionaries(names, values, max_size=5)

json_texts = st.one_of(texts, st.sampled_from([*TAGS, "true", "QQ==", "1", "="]))
any_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), json_texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["", "a", *TAGS]), inner)
    ),
    max_leaves=15,
)


@given(items)
def test_checking_is_idempotent_and_agrees_on_size(item: dict[str, Any]) -> None:
    size = check_item(item)
    assert size == item_size_bytes(item)
    again = copy.deepcopy(item)
    assert check_item(again) == size
    assert again == item
    assert decode_item(encode_item(item)) == item


@given(any_json)
def test_any_json_is_checked_or_refused(document: Any) -> None:
    for check in (check_item, check_value):
        candidate = copy.deepcopy(document)
        try:
            size = check(candidate)
        except (InvalidRequest, MalformedRequest):
            continue
        assert size == check(candidate)


@pytest.mark.parametrize(
    ("value", "canonical", "size"),
    [
        ({"S": ""}, {"S": ""}, 0),
        ({"S": "h\u00e9"}, {"S": "h\u00e9"}, 3),
        ({"N": "+01.50"}, {"N": "1.5"}, 3),
        ({"B": ""}, {"B": ""}, 0),
        ({"B": "QUI="}, {"B": "QUI="}, 2),
        ({"BOOL": False}, {"BOOL": False}, 1),
        ({"BOOL": "yes"}, {"BOOL": True}, 1),
        ({"NULL": True}, {"NULL": True}, 1),
        ({"SS": ["b", "", "\U0001f600", "\ue000"]}, {"SS": ["", "b", "\ue000", "\U0001f600"]}, 8),
        ({"NS": ["10", "9", "-1.0"]}, {"NS": ["-1", "9", "10"]}, 7),
        # "/w==" is FF, "AA==" is 00: sorted by what they stand for, not by their letters.
        ({"BS": ["/w==", "AA=="]}, {"BS": ["AA==", "/w=="]}, 2),
        ({"L": []}, {"L": []}, 3),
        ({"L": [{"S": "abc"}, {"N": "1"}]}, {"L": [{"S": "abc"}, {"N": "1"}]}, 3 + 2 + 3 + 2),
        ({"M": {"ab": {"S": "c"}}}, {"M": {"ab": {"S": "c"}}}, 3 + 1 + 2 + 1),
        # Members that AWS's parser does not know, and nulls, count for nothing.
        ({"S": "a", "X": 1}, {"S": "a"}, 1),
        ({"S": None, "N": "1"}, {"N": "1"}, 2),
    ],
)
def test_canonical_form_and_size(value: Any, canonical: Any, size: int) -> None:
    assert check_value(value) == size
    assert value == canonical
    assert value_size_bytes(value) == size
    assert type_of(value) == next(iter(canonical))


def test_item_size_counts_names_in_utf8() -> None:
    assert check_item({"pk": {"S": "a"}, "\u00e9": {"N": "1"}}) == 2 + 1 + 2 + 2


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, EMPTY),
        ({"S": None}, EMPTY),
        ({"X": "a"}, EMPTY),
        ({"S": "a", "N": "1"}, SEVERAL),
        ({"S": "a", "NULL": True, "Y": 1}, SEVERAL),
        ({"S": "a", "N": "x"}, "The parameter cannot be converted to a numeric value: x"),
        ({"N": ""}, "The parameter cannot be converted to a numeric value"),
        ({"NULL": False}, INVALID + "Null attribute value types must have the value of true"),
        ({"SS": []}, INVALID + "An string set  may not be empty"),
        ({"NS": []}, INVALID + "An number set  may not be empty"),
        ({"BS": []}, INVALID + "Binary sets should not be empty"),
        ({"SS": ["a", "a"]}, INVALID + "Input collection [a, a] contains duplicates."),
        ({"NS": ["1", "1.0"]}, "Input collection contains duplicates"),
        ({"NS": ["1", "y"]}, "The parameter cannot be converted to a numeric value: y"),
        (
            {"BS": ["QQ==", "QQ=="]},
            INVALID + "Input collection [QQ==, QQ==]of type BS contains duplicates.",
        ),
        ({"L": [{"SS": []}]}, INVALID + "An string set  may not be empty"),
        ({"M": {"a": {}}}, EMPTY),
        ({"M": {"": {"S": "a"}}}, "Empty attribute name"),
        ({"L": [None]}, "The supplied Item contains a null AttributeValue"),
    ],
)
def test_refused_in_dynamodbs_words(value: Any, message: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        check_item({"pk": {"S": "a"}, "attribute": value})
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("text", "Unexpected value type in payload"),
        (1, "Unexpected value type in payload"),
        (
            [],
            "Unrecognized collection type class com.amazonaws.dynamodb.v20120810.AttributeValue",
        ),
        ({"S": 1}, "NUMBER_VALUE cannot be converted to String"),
        ({"S": 1.5}, "DECIMAL_VALUE cannot be converted to String"),
        ({"N": 1}, "NUMBER_VALUE cannot be converted to String"),
        ({"N": True}, "TRUE_VALUE cannot be converted to String"),
        ({"S": False}, "FALSE_VALUE cannot be converted to String"),
        ({"S": []}, "Unrecognized collection type class java.lang.String"),
        ({"S": {}}, "Start of structure or map found where not expected"),
        ({"BOOL": 1}, "NUMBER_VALUE cannot be converted to Boolean"),
        ({"BOOL": "x"}, "Unexpected token received from parser"),
        ({"NULL": []}, "Unrecognized collection type class java.lang.Boolean"),
        ({"B": 1}, "only base-64-encoded strings are convertible to bytes"),
        ({"B": []}, "Unrecognized collection type class java.nio.ByteBuffer"),
        ({"B": {}}, "Start of structure or map found where not expected"),
        ({"B": "23456"}, "Base64 encoded length is expected a multiple of 4 bytes but found: 5"),
        ({"B": "=+/="}, "Invalid last non-pad Base64 character dectected"),
        ({"B": "+/+="}, "Invalid last non-pad Base64 character dectected"),
        ({"B": "QR=="}, "Invalid last non-pad Base64 character dectected"),
        ({"B": "\u00e9AAA"}, "Invalid last non-pad Base64 character dectected"),
        ({"SS": "a"}, "Unexpected field type"),
        ({"SS": {}}, "Start of structure or map found where not expected"),
        ({"SS": ["a", 1]}, "NUMBER_VALUE cannot be converted to String"),
        ({"BS": [1]}, "only base-64-encoded strings are convertible to bytes"),
        ({"L": {}}, "Start of structure or map found where not expected"),
        ({"L": 1}, "Unexpected field type"),
        ({"M": 1}, "Unexpected field type"),
        (
            {"M": []},
            "Unrecognized collection type java.util.Map<java.lang.String, "
            "com.amazonaws.dynamodb.v20120810.AttributeValue>",
        ),
        ({"S": "\ud800"}, "A string is not valid Unicode"),
    ],
)
def test_wrong_json_types(value: Any, message: str) -> None:
    with pytest.raises(MalformedRequest) as refusal:
        check_item({"attribute": value})
    assert str(refusal.value) == message


def test_json_types_are_judged_before_rules() -> None:
    """AWS parses the whole request before it validates any of it."""
    with pytest.raises(MalformedRequest, match="NUMBER_VALUE"):
        check_item({"a": {"SS": []}, "b": {"M": {"c": {"L": [{"NS": [1]}]}}}})
    with pytest.raises(MalformedRequest, match="NUMBER_VALUE"):
        check_value({"L": [{}, {"S": 1}]})


@pytest.mark.parametrize("item", [None, "a", 1, True])
def test_an_item_is_a_map(item: object) -> None:
    with pytest.raises(MalformedRequest, match="Unexpected field type"):
        check_item(item)


def nested(levels: int, tag: str, leaf: Any) -> Any:
    for _ in range(levels):
        leaf = {"L": [leaf]} if tag == "L" else {"M": {"a": leaf}}
    return leaf


@pytest.mark.parametrize("tag", ["L", "M"])
def test_nesting_limit(tag: str) -> None:
    assert check_value(nested(31, tag, {"S": "a"})) > 0
    for levels in (32, 400):
        with pytest.raises(InvalidRequest) as refusal:
            check_value(nested(levels, tag, {"S": "a"}))
        assert str(refusal.value) == (
            "Nesting Levels have exceeded supported limits: "
            "Attributes in the item have nested levels beyond supported limit"
        )


def test_name_limit() -> None:
    assert check_item({"a" * 65_535: {"S": ""}}) == 65_535
    for item in ({"a" * 65_536: {"S": ""}}, {"m": {"M": {"\u00e9" * 32_768: {"S": ""}}}}):
        with pytest.raises(RequestError, match="Attribute name is too large, must be less than "):
            check_item(item)


@given(st.binary(max_size=40))
def test_binary_size(data: bytes) -> None:
    assert binary_size_bytes(base64(data)) == len(data)
    assert check_value({"B": base64(data)}) == len(data)
