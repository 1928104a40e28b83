"""PutItem, GetItem, UpdateItem and DeleteItem, one behaviour a test."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.api.operations import items
from millstream.model.schema import Status

THING = {"pk": {"S": "a"}, "n": {"N": "1"}, "tags": {"L": [{"S": "x"}]}}
KEY = {"pk": {"S": "a"}}


def get(db: Any, key: Any = KEY, table: str = "plain", **more: Any) -> Any:
    return db.call("GetItem", TableName=table, Key=key, **more).get("Item")


def test_what_was_put_is_got(db: Any) -> None:
    assert db.call("PutItem", TableName="plain", Item=THING) == {}
    assert get(db) == THING


def test_an_absent_item_has_no_item_member(db: Any) -> None:
    assert db.call("GetItem", TableName="plain", Key=KEY) == {}


def test_a_table_may_be_named_by_its_arn(db: Any) -> None:
    arn = "arn:aws:dynamodb:us-east-1:000000000000:table/plain"
    db.call("PutItem", TableName=arn, Item=THING)
    answer = db.call("GetItem", TableName=arn, Key=KEY, ReturnConsumedCapacity="TOTAL")
    assert answer["Item"] == THING
    assert answer["ConsumedCapacity"]["TableName"] == arn


def test_numbers_are_stored_canonically(db: Any) -> None:
    db.put("plain", {"pk": {"S": "a"}, "n": {"N": "+1.50e1"}})
    assert get(db) == {"pk": {"S": "a"}, "n": {"N": "15"}}


def test_a_projection_selects_and_one_that_matches_nothing_is_an_empty_item(db: Any) -> None:
    db.put("plain", THING)
    assert get(db, ProjectionExpression="tags[0], n") == {"n": {"N": "1"}, "tags": THING["tags"]}
    assert get(db, ProjectionExpression="gone") == {}
    assert get(db, AttributesToGet=["n", "gone"]) == {"n": {"N": "1"}}


def test_put_returns_the_old_item_when_asked(db: Any) -> None:
    assert db.call("PutItem", TableName="plain", Item=THING, ReturnValues="ALL_OLD") == {}
    again = db.call("PutItem", TableName="plain", Item=KEY, ReturnValues="ALL_OLD")
    assert again == {"Attributes": THING}


@pytest.mark.parametrize("operation", ["PutItem", "DeleteItem"])
def test_put_and_delete_return_only_old_values(db: Any, operation: str) -> None:
    member = {"Item": KEY} if operation == "PutItem" else {"Key": KEY}
    message = db.refused(operation, TableName="plain", ReturnValues="ALL_NEW", **member)
    assert message == "ReturnValues can only be ALL_OLD or NONE"


def test_delete_is_idempotent_and_returns_the_old_item(db: Any) -> None:
    db.put("plain", THING)
    ask = {"TableName": "plain", "Key": KEY, "ReturnValues": "ALL_OLD"}
    assert db.call("DeleteItem", **ask) == {"Attributes": THING}
    assert db.call("DeleteItem", **ask) == {}
    assert get(db) is None


def test_a_false_condition_changes_nothing_and_shows_the_item_when_asked(db: Any) -> None:
    db.put("plain", THING)
    ask = {
        "TableName": "plain",
        "Item": KEY,
        "ConditionExpression": "attribute_not_exists(pk)",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    told = db.refused("PutItem", **ask)
    assert told == "ConditionalCheckFailedException: The conditional request failed"
    with pytest.raises(Exception) as caught:
        db.call("PutItem", **ask)
    assert caught.value.body["Item"] == THING
    assert get(db) == THING


def test_expected_is_a_condition_too(db: Any) -> None:
    ask: dict[str, Any] = {"TableName": "plain", "Item": THING}
    db.call("PutItem", **ask, Expected={"pk": {"Exists": False}})
    assert "ConditionalCheckFailed" in db.refused(
        "PutItem", **ask, Expected={"pk": {"Exists": False}}
    )
    listed = {"n": {"ComparisonOperator": "GE", "AttributeValueList": [{"N": "1.0"}]}}
    db.call("PutItem", **ask, Expected=listed)


def test_legacy_and_expressions_are_not_mixed(db: Any) -> None:
    assert db.refused(
        "PutItem",
        TableName="nowhere",
        Item=KEY,
        Expected={"pk": {"Exists": False}},
        ConditionExpression="attribute_not_exists(pk)",
    ) == (
        "Can not use both expression and non-expression parameters in the same request: "
        "Non-expression parameters: {Expected} Expression parameters: {ConditionExpression}"
    )


def test_update_makes_an_item_from_its_key(db: Any) -> None:
    answer = db.call(
        "UpdateItem",
        TableName="plain",
        Key=KEY,
        UpdateExpression="SET #n = :n",
        ExpressionAttributeNames={"#n": "n"},
        ExpressionAttributeValues={":n": {"N": "7"}},
        ReturnValues="ALL_NEW",
    )
    assert answer == {"Attributes": {"pk": {"S": "a"}, "n": {"N": "7"}}}


def test_update_without_any_change_makes_an_item_of_just_the_key(db: Any) -> None:
    db.call("UpdateItem", TableName="plain", Key=KEY)
    assert get(db) == KEY


def test_an_update_that_only_removes_makes_no_item(db: Any) -> None:
    db.call("UpdateItem", TableName="plain", Key=KEY, UpdateExpression="REMOVE n")
    assert get(db) is None


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("NONE", None),
        ("ALL_OLD", THING),
        ("UPDATED_OLD", {"n": {"N": "1"}}),
        ("UPDATED_NEW", {"n": {"N": "3"}, "fresh": {"S": "!"}}),
        ("ALL_NEW", THING | {"n": {"N": "3"}, "fresh": {"S": "!"}}),
    ],
)
def test_update_returns_what_was_asked_for(db: Any, kind: str, expected: Any) -> None:
    db.put("plain", THING)
    answer = db.call(
        "UpdateItem",
        TableName="plain",
        Key=KEY,
        UpdateExpression="SET n = n + :two, fresh = :f",
        ExpressionAttributeValues={":two": {"N": "2"}, ":f": {"S": "!"}},
        ReturnValues=kind,
    )
    assert answer.get("Attributes") == expected


def test_attribute_updates(db: Any) -> None:
    db.put("plain", THING)
    db.call(
        "UpdateItem",
        TableName="plain",
        Key=KEY,
        AttributeUpdates={
            "n": {"Action": "ADD", "Value": {"N": "4"}},
            "tags": {"Action": "DELETE"},
            "s": {"Value": {"S": "put"}},
        },
    )
    assert get(db) == {"pk": {"S": "a"}, "n": {"N": "5"}, "s": {"S": "put"}}


def test_key_attributes_cannot_be_updated(db: Any) -> None:
    message = (
        "One or more parameter values were invalid: Cannot update attribute pk. "
        "This attribute is part of the key"
    )
    ask = {"TableName": "plain", "Key": KEY}
    values = {":v": {"S": "b"}}
    expression = {"UpdateExpression": "SET pk = :v", "ExpressionAttributeValues": values}
    assert db.refused("UpdateItem", **ask, **expression) == message
    legacy = {"pk": {"Action": "PUT", "Value": {"S": "b"}}}
    assert db.refused("UpdateItem", **ask, AttributeUpdates=legacy) == message


def test_a_refused_update_changes_nothing(db: Any) -> None:
    db.put("plain", THING)
    message = db.refused(
        "UpdateItem",
        TableName="plain",
        Key=KEY,
        UpdateExpression="SET n = gone",
    )
    assert message == (
        "The provided expression refers to an attribute that does not exist in the item"
    )
    assert get(db) == THING


def test_an_update_whose_outcome_is_too_large(db: Any) -> None:
    db.put("plain", {"pk": {"S": "a"}, "x": {"S": "x" * 300_000}})
    ask = {"TableName": "plain", "Key": KEY, "UpdateExpression": "SET y = :y"}
    values = {":y": {"S": "y" * 200_000}}
    assert db.refused("UpdateItem", **ask, ExpressionAttributeValues=values) == (
        "Item size to update has exceeded the maximum allowed size"
    )


def test_update_is_charged_for_its_statement(db: Any) -> None:
    """An item that PutItem accepts can be out of UpdateItem's reach."""
    size = 409_600 - 3 - 1
    db.put("plain", {"pk": {"S": "a"}, "y": {"S": "y" * size}})
    ask = {"TableName": "plain", "Key": KEY, "UpdateExpression": "SET y = :y"}
    values = {":y": {"S": "z" * size}}
    assert "Item size to update" in db.refused(
        "UpdateItem", **ask, ExpressionAttributeValues=values
    )


def test_index_keys_are_checked_before_and_after_an_update(db: Any) -> None:
    key = {"pk": {"S": "p"}, "sk": {"S": "s"}}
    db.put("rich", key | {"n": {"N": "1"}})
    ask = {"TableName": "rich", "Key": key}
    message = (
        "One or more parameter values were invalid: Type mismatch for Index Key gk Expected: S "
        "Actual: N IndexName: global-all"
    )
    values = {":v": {"N": "1"}}
    seen = len(db.tables.refs["rich"].commands)
    assert message == db.refused(
        "UpdateItem", **ask, UpdateExpression="SET gk = :v", ExpressionAttributeValues=values
    )
    assert len(db.tables.refs["rich"].commands) == seen  # The partition was not asked.
    assert db.refused("UpdateItem", **ask, UpdateExpression="SET gk = n") == (
        "The update expression attempted to update the secondary index key to unsupported type"
    )


def test_put_refuses_a_bad_index_key(db: Any) -> None:
    item = {"pk": {"S": "p"}, "sk": {"S": "s"}, "lk": {"S": ""}}
    message = db.refused("PutItem", TableName="rich", Item=item)
    assert message.endswith("IndexName: local-all, IndexKey: lk")


@pytest.mark.parametrize("operation", ["GetItem", "UpdateItem", "DeleteItem"])
@pytest.mark.parametrize("key", [{}, {"pk": {"N": "1"}}, {"pk": {"S": "a"}, "x": {"S": "b"}}])
def test_a_key_must_match_the_schema(db: Any, operation: str, key: Any) -> None:
    assert db.refused(operation, TableName="plain", Key=key) == (
        "The provided key element does not match the schema"
    )


def test_a_malformed_item_is_told_before_a_missing_table(db: Any) -> None:
    bad = {"pk": {"S": "a"}, "bad": {"SS": []}}
    assert db.refused("PutItem", TableName="nowhere", Item=bad) == (
        "One or more parameter values were invalid: An string set  may not be empty"
    )
    assert db.refused("PutItem", TableName="nowhere", Item=KEY) == (
        "ResourceNotFoundException: Requested resource not found"
    )


def test_constraints_are_told_before_what_the_operation_saw(db: Any) -> None:
    message = db.refused("PutItem", TableName="x!", Item={"bad": {"SS": []}})
    assert "'tableName'" in message
    together = db.refused("PutItem", TableName="abc", Item=KEY, ReturnValues="A", Expected={})
    assert "returnValues" in together


def test_a_table_that_is_not_yet_or_no_more_there_is_not_found(db: Any) -> None:
    for status in (Status.CREATING, Status.DELETING):
        db.change("plain", status=status)
        assert "ResourceNotFound" in db.refused("GetItem", TableName="plain", Key=KEY)


def test_unused_and_idle_placeholders_are_refused(db: Any) -> None:
    ask = {"TableName": "plain", "Item": KEY}
    assert db.refused("PutItem", **ask, ExpressionAttributeValues={":v": {"S": "x"}}) == (
        "ExpressionAttributeValues can only be specified when using expressions: "
        "ConditionExpression is null"
    )
    idle = "ExpressionAttributeNames can only be specified when using expressions"
    names = {"ExpressionAttributeNames": {"#a": "a"}}
    # Told before any value is looked at, and for a Query before anything legacy.
    bad = {"pk": {"S": "a"}, "bad": {"SS": []}}
    assert db.refused("PutItem", TableName="plain", Item=bad, **names) == idle
    assert db.refused("GetItem", TableName="plain", Key=KEY, **names) == idle
    twice = {"TableName": "plain", "AttributesToGet": ["a", "a"]}
    assert db.refused("Query", KeyConditions={}, **twice, **names) == idle
    assert db.refused("Scan", **twice, **names) == idle
    keys = {"Keys": [KEY], "AttributesToGet": ["a", "a"], **names}
    assert db.refused("BatchGetItem", RequestItems={"plain": keys}) == idle
    assert db.refused(
        "PutItem",
        **ask,
        ConditionExpression="a = :v",
        ExpressionAttributeValues={":v": {"NS": []}},
    ) == (
        "ExpressionAttributeValues contains invalid value: One or more parameter values were "
        "invalid: An number set  may not be empty for key :v"
    )


def test_key_attributes_are_scalars(db: Any) -> None:
    message = db.refused(
        "GetItem",
        TableName="rich",
        Key=KEY | {"sk": {"S": "s"}},
        ProjectionExpression="gk.x",
    )
    assert message.endswith("are not allowed: IndexKey: gk")


def test_a_whole_item_read_decodes_nothing(db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    db.put("plain", THING)
    monkeypatch.setattr(items, "decode_item", None)
    assert get(db) == THING


def test_nulls_count_as_absent_members(db: Any) -> None:
    db.put("plain", THING)
    assert get(db, ProjectionExpression=None, ConsistentRead=None) == THING


def test_an_oversized_item_is_told_before_a_missing_table(db: Any) -> None:
    item = {"pk": {"S": "a"}, "x": {"S": "x" * 409_600}}
    assert db.refused("PutItem", TableName="nowhere", Item=item) == (
        "Item size has exceeded the maximum allowed size"
    )


def test_unknown_operations(db: Any) -> None:
    assert "UnknownOperationException" in db.refused("Frobnicate")
