"""Transactions of any shape are answered by a clear refusal, never by an internal error."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

KEY = {"pk": {"S": "p"}, "sk": {"S": "s"}}
WRITES = {
    "ClientRequestToken": "token",
    "ReturnConsumedCapacity": "INDEXES",
    "ReturnItemCollectionMetrics": "SIZE",
    "TransactItems": [
        {"Put": {"TableName": "rich", "Item": KEY | {"gk": {"S": "g"}}}},
        {"Delete": {"TableName": "plain", "Key": {"pk": {"S": "d"}}}},
        {
            "ConditionCheck": {
                "TableName": "plain",
                "Key": {"pk": {"S": "c"}},
                "ConditionExpression": "attribute_not_exists(#n)",
                "ExpressionAttributeNames": {"#n": "pk"},
            }
        },
        {
            "Update": {
                "TableName": "plain",
                "Key": {"pk": {"S": "u"}},
                "UpdateExpression": "SET v = if_not_exists(v, :v) + :v",
                "ExpressionAttributeValues": {":v": {"N": "1"}},
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        },
    ],
}
READS = {
    "TransactItems": [
        {"Get": {"TableName": "rich", "Key": KEY, "ProjectionExpression": "gk"}},
        {"Get": {"TableName": "plain", "Key": {"pk": {"S": "p"}}}},
    ]
}
GOOD = [("TransactWriteItems", WRITES), ("TransactGetItems", READS)]
JUNK = st.recursive(
    st.sampled_from(
        [None, True, 7, 1.5, "", "x", {}, {"S": ""}, {"N": "x"}, {"B": "!"}, {"SS": []}, {"X": "a"}]
        + [{"NULL": False}, {"S": "a", "N": "1"}, {"M": {"": {"S": "a"}}}, {"L": None}]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything in ``node``, its own left out."""
    found = [path] if path else []
    if isinstance(node, dict | list):
        for name, each in node.items() if isinstance(node, dict) else enumerate(node):
            found += places(each, (*path, name))
    return found


def test_the_requests_are_good(db: Any) -> None:
    for operation, request in GOOD:
        db.call(operation, **request)


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_one_wrong_part_is_never_an_internal_error(db: Any, data: st.DataObject) -> None:
    operation, good = data.draw(st.sampled_from(GOOD))
    request = json.loads(json.dumps(good))
    path = data.draw(st.sampled_from(places(request)))
    holder = request
    for step in path[:-1]:
        holder = holder[step]
    if data.draw(st.booleans()):
        holder[path[-1]] = data.draw(JUNK)
    else:
        del holder[path[-1]]
    assert db.kind_of(operation, request) != "InternalServerError"


@given(request=st.dictionaries(st.sampled_from(["TransactItems", "x"]), JUNK))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_object_is_answered(db: Any, request: dict[str, Any]) -> None:
    for operation, _ in GOOD:
        assert db.kind_of(operation, request) not in ("", "InternalServerError")
