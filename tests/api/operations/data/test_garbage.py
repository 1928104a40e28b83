"""Requests of any shape are answered by a clear refusal, never by an internal error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

VALUE = {"S": "v"}
KEY = {"pk": {"S": "p"}, "sk": {"S": "s"}}
GOOD: list[tuple[str, dict[str, Any]]] = [
    (
        "PutItem",
        {
            "TableName": "rich",
            "Item": KEY | {"gk": VALUE, "m": {"M": {"a": {"L": [{"N": "1"}, {"BOOL": True}]}}}},
            "ConditionExpression": "attribute_exists(pk) OR #a = :v",
            "ExpressionAttributeNames": {"#a": "a"},
            "ExpressionAttributeValues": {":v": VALUE},
            "ReturnValues": "ALL_OLD",
        },
    ),
    ("GetItem", {"TableName": "rich", "Key": KEY, "ProjectionExpression": "m.a[0]"}),
    (
        "UpdateItem",
        {
            "TableName": "rich",
            "Key": KEY,
            "UpdateExpression": "SET n = if_not_exists(n, :n) + :n REMOVE m.a[1]",
            "ExpressionAttributeValues": {":n": {"N": "1"}},
            "ReturnValues": "UPDATED_NEW",
            "ReturnConsumedCapacity": "INDEXES",
        },
    ),
    (
        "UpdateItem",
        {
            "TableName": "rich",
            "Key": KEY,
            "AttributeUpdates": {"a": {"Action": "ADD", "Value": {"NS": ["1"]}}},
            "Expected": {"b": {"Exists": False}},
        },
    ),
    ("DeleteItem", {"TableName": "rich", "Key": KEY, "Expected": {"a": {"Value": VALUE}}}),
    (
        "Query",
        {
            "TableName": "rich",
            "IndexName": "global-some",
            "KeyConditionExpression": "gk = :g AND gs > :g",
            "FilterExpression": "contains(pk, :g)",
            "ExpressionAttributeValues": {":g": {"S": "g"}},
            "ExclusiveStartKey": KEY | {"gk": {"S": "g"}, "gs": {"S": "z"}},
            "Limit": 3,
            "ScanIndexForward": False,
        },
    ),
    (
        "Query",
        {
            "TableName": "rich",
            "KeyConditions": {
                "pk": {"ComparisonOperator": "EQ", "AttributeValueList": [VALUE]},
            },
            "QueryFilter": {"a": {"ComparisonOperator": "IN", "AttributeValueList": [VALUE]}},
            "Select": "COUNT",
        },
    ),
    (
        "Scan",
        {
            "TableName": "rich",
            "Segment": 0,
            "TotalSegments": 1,
            "ExclusiveStartKey": KEY,
            "FilterExpression": "size(pk) > :n",
            "ExpressionAttributeValues": {":n": {"N": "0"}},
        },
    ),
    ("BatchGetItem", {"RequestItems": {"rich": {"Keys": [KEY], "AttributesToGet": ["a"]}}}),
    (
        "BatchWriteItem",
        {
            "RequestItems": {
                "rich": [{"PutRequest": {"Item": KEY}}],
                "plain": [{"DeleteRequest": {"Key": {"pk": VALUE}}}],
            },
            "ReturnItemCollectionMetrics": "SIZE",
        },
    ),
]

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(
    max_size=5
)
VALUES = st.sampled_from(
    [
        {},
        {"S": ""},
        {"S": 1},
        {"N": "x"},
        {"N": "1e400"},
        {"B": "!"},
        {"B": ""},
        {"SS": []},
        {"NS": ["1", "1.0"]},
        {"L": None},
        {"M": {"": {"S": "a"}}},
        {"NULL": False},
        {"S": "a", "N": "1"},
        {"X": "a"},
        {"S": "x" * 3000},
    ]
)
JUNK = st.recursive(
    SCALARS | VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(node, dict):
        for name, each in node.items():
            found += places(each, (*path, name))
    elif isinstance(node, list):
        for index, each in enumerate(node):
            found += places(each, (*path, index))
    return found


@pytest.mark.parametrize(("operation", "request_"), GOOD)
def test_the_requests_are_good(db: Any, operation: str, request_: dict[str, Any]) -> None:
    db.put("rich", KEY | {"m": {"M": {"a": {"L": [{"N": "1"}, {"N": "2"}]}}}})
    if operation == "DeleteItem":
        db.put("rich", KEY | {"a": VALUE})
    db.call(operation, **request_)


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
def test_one_wrong_part_is_never_an_internal_error(db: Any, data: st.DataObject) -> None:
    operation, good = data.draw(st.sampled_from(GOOD))
    request = json.loads(json.dumps(good))
    for _ in range(data.draw(st.integers(1, 2))):
        if not request:
            break
        path = data.draw(st.sampled_from(places(request)))
        holder = request
        try:
            for step in path[:-1]:
                holder = holder[step]
            if data.draw(st.booleans()):
                # A copy: the second change must not reach into what is drawn again.
                holder[path[-1]] = json.loads(json.dumps(data.draw(JUNK)))
            else:
                del holder[path[-1]]
        except (KeyError, IndexError, TypeError):
            pass  # The first change took the place of the second away.
    db.answered(operation, json.dumps(request).encode())


@given(body=st.binary(max_size=50) | JUNK.map(lambda junk: json.dumps(junk).encode()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_body_is_answered(db: Any, body: bytes) -> None:
    for operation, _ in GOOD:
        db.answered(operation, body)


def test_deep_nesting_is_refused(db: Any) -> None:
    deep = '{"M":{"a":' * 5000 + '{"S":"x"}' + "}}" * 5000
    body = '{"TableName":"plain","Item":{"pk":{"S":"a"},"x":' + deep + "}}"
    assert not db.answered("PutItem", body.encode())
