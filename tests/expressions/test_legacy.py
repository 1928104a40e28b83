"""The parameters from before expressions."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from millstream.errors import InvalidRequest
from millstream.expressions import (
    Condition,
    KeyRange,
    Update,
    check_not_mixed,
    legacy_condition,
    legacy_filter,
    legacy_key_conditions,
    legacy_projection,
    legacy_update,
)

ITEM: dict[str, Any] = {
    "pk": {"S": "k"},
    "s": {"S": "hello"},
    "n": {"N": "5"},
    "ss": {"SS": ["a", "b"]},
    "l": {"L": [{"N": "1"}]},
}


def matches(operator: str, *values: Any, name: str = "s", item: Any = ITEM) -> bool:
    condition = {"ComparisonOperator": operator, "AttributeValueList": list(values)}
    tree = legacy_filter({name: condition})
    assert tree is not None
    assert legacy_condition({name: condition}) == tree
    return tree.matches(item, {})


@pytest.mark.parametrize(
    ("operator", "values", "wanted"),
    [
        ("EQ", [{"S": "hello"}], True),
        ("NE", [{"S": "hello"}], False),
        ("NE", [{"N": "1"}], True),
        ("LT", [{"S": "i"}], True),
        ("LE", [{"S": "hello"}], True),
        ("GT", [{"S": "hello"}], False),
        ("GE", [{"S": "hello"}], True),
        ("GE", [{"N": "1"}], False),
        ("NULL", [], False),
        ("NOT_NULL", [], True),
        ("CONTAINS", [{"S": "ell"}], True),
        ("NOT_CONTAINS", [{"S": "ell"}], False),
        ("NOT_CONTAINS", [{"N": "1"}], True),
        ("BEGINS_WITH", [{"S": "hell"}], True),
        ("IN", [{"S": "x"}, {"S": "hello"}], True),
        ("BETWEEN", [{"S": "a"}, {"S": "z"}], True),
    ],
)
def test_operators(operator: str, values: list[Any], wanted: bool) -> None:
    assert matches(operator, *values) is wanted


def test_a_missing_attribute() -> None:
    value = {"S": "x"}
    assert matches("NULL", name="q")
    assert not matches("NOT_NULL", name="q")
    assert matches("NE", value, name="q")
    # Both are false: NOT_CONTAINS is not the negation.
    assert not matches("CONTAINS", value, name="q")
    assert not matches("NOT_CONTAINS", value, name="q")
    assert matches("NULL", name="s", item=None)


def test_values_are_normalised() -> None:
    assert matches("EQ", {"N": "+5.0"}, name="n")
    assert matches("EQ", {"SS": ["b", "a"]}, name="ss")


def test_exists_and_value() -> None:
    def decide(expected: Any, item: Any = ITEM) -> bool:
        tree = legacy_condition(expected)
        assert tree is not None
        return tree.matches(item, {})

    assert decide({"pk": {"Exists": False}}, None)
    assert not decide({"pk": {"Exists": False}})
    assert decide({"s": {"Exists": True, "Value": {"S": "hello"}}})
    assert decide({"s": {"Value": {"S": "hello"}}})
    assert not decide({"s": {"Value": {"S": "other"}}})
    assert decide({"n": {"ComparisonOperator": "GT", "Value": {"N": "4"}}})


def test_conditional_operator() -> None:
    expected = {"s": {"Value": {"S": "hello"}}, "n": {"Value": {"N": "6"}}}
    for operator, wanted in ((None, False), ("AND", False), ("OR", True)):
        tree = legacy_condition(msgspec.json.decode(msgspec.json.encode(expected)), operator)
        assert tree is not None
        assert tree.matches(ITEM, {}) is wanted
        assert tree.names == ("n", "s")


def test_no_condition() -> None:
    assert legacy_condition(None) is None
    assert legacy_condition({}) is None
    assert legacy_filter({}) is None


INVALID = "One or more parameter values were invalid: "


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        (
            {"Value": {"S": "x"}, "AttributeValueList": [{"S": "x"}]},
            "Value and AttributeValueList cannot be used together for Attribute: a",
        ),
        (
            {"Exists": True, "ComparisonOperator": "EQ", "Value": {"S": "x"}},
            "Exists and ComparisonOperator cannot be used together for Attribute: a",
        ),
        (
            {"ComparisonOperator": "EQ"},
            "Value or AttributeValueList must be used with ComparisonOperator: EQ for Attribute: a",
        ),
        (
            {"AttributeValueList": [{"S": "x"}]},
            "AttributeValueList can only be used with a ComparisonOperator for Attribute: a",
        ),
        ({}, "Value must be provided when Exists is null for Attribute: a"),
        ({"Exists": True}, "Value must be provided when Exists is true for Attribute: a"),
        (
            {"Exists": False, "Value": {"S": "x"}},
            "Value cannot be used when Exists is false for Attribute: a",
        ),
        (
            {"ComparisonOperator": "NULL", "AttributeValueList": [{"S": "x"}]},
            "Invalid number of argument(s) for the NULL ComparisonOperator",
        ),
    ],
)
def test_expected_refused(condition: Any, wanted: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        legacy_condition({"a": condition})
    assert str(caught.value) == INVALID + wanted


@pytest.mark.parametrize(
    ("operator", "values", "wanted"),
    [
        ("EQ", [], INVALID + "Invalid number of argument(s) for the EQ ComparisonOperator"),
        ("IN", [], INVALID + "Invalid number of argument(s) for the IN ComparisonOperator"),
        (
            "BETWEEN",
            [{"N": "1"}],
            INVALID + "Invalid number of argument(s) for the BETWEEN ComparisonOperator",
        ),
        (
            "IN",
            [{"N": "1"}, {"S": "1"}],
            INVALID + "AttributeValues inside AttributeValueList must be of same type",
        ),
        (
            "BEGINS_WITH",
            [{"N": "1"}],
            INVALID + "ComparisonOperator BEGINS_WITH is not valid for N AttributeValue type",
        ),
        (
            "CONTAINS",
            [{"L": []}],
            INVALID + "ComparisonOperator CONTAINS is not valid for L AttributeValue type",
        ),
        (
            "BETWEEN",
            [{"N": "2"}, {"N": "1"}],
            "The BETWEEN condition was provided a range where the lower bound is greater than "
            "the upper bound",
        ),
    ],
)
def test_comparison_refused(operator: str, values: list[Any], wanted: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        legacy_filter({"a": {"ComparisonOperator": operator, "AttributeValueList": values}})
    assert str(caught.value) == wanted


def test_conditional_operator_refused() -> None:
    with pytest.raises(InvalidRequest, match="cannot be used without Filter or Expected"):
        legacy_filter(None, "AND")
    with pytest.raises(InvalidRequest, match="two or more elements"):
        legacy_filter({"a": {"ComparisonOperator": "NULL"}}, "AND")


# Updates -----------------------------------------------------------------------------------------


def apply(updates: Any, item: Any = ITEM) -> Any:
    return legacy_update(updates).apply(item, {"pk": {"S": "k"}}, {}).new_item


def test_put_add_delete() -> None:
    new = apply(
        {
            "s": {"Action": "PUT", "Value": {"S": "new"}},
            "n": {"Action": "ADD", "Value": {"N": "9"}},
            "ss": {"Action": "DELETE", "Value": {"SS": ["a"]}},
            "l": {"Action": "ADD", "Value": {"L": [{"N": "2"}]}},
            "x": {"Value": {"BOOL": True}},
            "q": {"Action": "DELETE"},
        }
    )
    assert new == {
        "pk": {"S": "k"},
        "s": {"S": "new"},
        "n": {"N": "14"},
        "ss": {"SS": ["b"]},
        "l": {"L": [{"N": "1"}, {"N": "2"}]},
        "x": {"BOOL": True},
    }
    assert "s" not in apply({"s": {"Action": "DELETE"}})
    assert "ss" not in apply({"ss": {"Action": "DELETE", "Value": {"SS": ["a", "b"]}}})


def test_without_an_item() -> None:
    assert apply({"n": {"Action": "ADD", "Value": {"N": "1"}}}, None)["n"] == {"N": "1"}
    assert apply({}, None) == {"pk": {"S": "k"}}
    assert apply({"n": {"Action": "DELETE"}}, None) is None


def test_type_mismatch() -> None:
    with pytest.raises(InvalidRequest) as caught:
        apply({"s": {"Action": "ADD", "Value": {"N": "1"}}})
    assert str(caught.value) == "Type mismatch for attribute to update"


@pytest.mark.parametrize(
    ("update", "wanted"),
    [
        (
            {"Action": "PUT"},
            "Only DELETE action is allowed when no attribute value is specified",
        ),
        (
            {"Action": "DELETE", "Value": {"S": "x"}},
            "DELETE action with value is not supported for the type S",
        ),
        (
            {"Action": "ADD", "Value": {"S": "x"}},
            "ADD action is not supported for the type S",
        ),
    ],
)
def test_update_refused(update: Any, wanted: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        legacy_update({"a": update})
    assert str(caught.value) == INVALID + wanted


def test_the_statement_is_not_charged() -> None:
    assert legacy_update({"a": {"Value": {"S": "x"}}}).charge_bytes({}) == 0


# Keys, projections, mixing -----------------------------------------------------------------------


def keys(conditions: Any) -> KeyRange:
    tree = legacy_key_conditions(conditions)
    return tree.resolve(("pk",), ("sk",), {"pk": "S", "sk": "N"}, {})


def compared(operator: str, *values: Any) -> dict[str, Any]:
    return {"ComparisonOperator": operator, "AttributeValueList": list(values)}


def test_key_conditions() -> None:
    pk, one, two = {"S": "k"}, {"N": "1"}, {"N": "2"}
    assert keys({"pk": compared("EQ", pk)}) == KeyRange((pk,), ())
    found = keys({"sk": compared("EQ", {"N": "01"}), "pk": compared("EQ", pk)})
    assert found == KeyRange((pk,), (one,))
    found = keys({"pk": compared("EQ", pk), "sk": compared("BETWEEN", one, two)})
    assert found == KeyRange((pk,), (), "BETWEEN", (one, two))


@pytest.mark.parametrize(
    ("conditions", "wanted"),
    [
        (
            {"pk": compared("EQ", {"S": "k"}), "sk": compared("NE", {"N": "1"})},
            "Attempted conditional constraint is not an indexable operation",
        ),
        ({"pk": compared("GT", {"S": "k"})}, "Query key condition not supported"),
        ({"sk": compared("EQ", {"N": "1"})}, "Query condition missed key schema element: pk"),
        ({}, "Conditions can be of length 1 or 2 only"),
    ],
)
def test_key_conditions_refused(conditions: Any, wanted: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        keys(conditions)
    assert str(caught.value) == wanted


def test_projection() -> None:
    projection = legacy_projection(["n", "a.b", "q"])
    assert projection.project({**ITEM, "a.b": {"S": "x"}}) == {"n": {"N": "5"}, "a.b": {"S": "x"}}
    with pytest.raises(InvalidRequest) as caught:
        legacy_projection(["a", "b", "a"])
    assert str(caught.value) == INVALID + "Duplicate value in attribute name: a"


def test_mixing() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_not_mixed(
            {"UpdateExpression": "SET a = :v", "ConditionExpression": None},
            {"AttributeUpdates": {"a": {}}, "Expected": None},
        )
    assert str(caught.value) == (
        "Can not use both expression and non-expression parameters in the same request: "
        "Non-expression parameters: {AttributeUpdates} Expression parameters: {UpdateExpression}"
    )
    check_not_mixed({"FilterExpression": "a = b"}, {"KeyConditions": {}})
    with pytest.raises(InvalidRequest):
        check_not_mixed({"KeyConditionExpression": "a = :b"}, {"KeyConditions": {}})


def test_legacy_trees_travel_in_messagepack() -> None:
    condition = legacy_condition({"a": {"Value": {"SS": ["x"]}}, "b": {"Exists": False}})
    packed = msgspec.msgpack.encode(condition)
    assert msgspec.msgpack.decode(packed, type=Condition) == condition
    update = legacy_update({"a": {"Action": "ADD", "Value": {"N": "1"}}})
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(update), type=Update) == update
