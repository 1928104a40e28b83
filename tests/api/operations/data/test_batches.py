"""BatchGetItem and BatchWriteItem, one behaviour a test."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.api.operations import batches
from millstream.model.keys import encode_component, table_key


def key(name: str) -> dict[str, Any]:
    return {"pk": {"S": name}}


def put(name: str, **attributes: Any) -> dict[str, Any]:
    return {"PutRequest": {"Item": key(name) | attributes}}


def delete(name: str) -> dict[str, Any]:
    return {"DeleteRequest": {"Key": key(name)}}


def write(db: Any, *writes: Any, **more: Any) -> Any:
    return db.call("BatchWriteItem", RequestItems={"plain": list(writes)}, **more)


def throttle(db: Any, *names: str) -> None:
    keys = {table_key(encode_component("S", {"S": name}), None) for name in names}
    db.tables.refs["plain"].throttled_keys = keys


def test_puts_and_deletes_over_several_tables(db: Any) -> None:
    write(db, put("a"), put("b"))
    rich = {"pk": {"S": "p"}, "sk": {"S": "s"}}
    answer = db.call(
        "BatchWriteItem",
        RequestItems={
            "plain": [delete("a"), put("c")],
            "rich": [{"PutRequest": {"Item": rich}}],
        },
    )
    assert answer == {"UnprocessedItems": {}}
    found = db.call(
        "BatchGetItem",
        RequestItems={
            "plain": {"Keys": [key("a"), key("b"), key("c")]},
            "rich": {"Keys": [rich], "ProjectionExpression": "sk"},
        },
    )
    assert found == {
        "Responses": {"plain": [key("b"), key("c")], "rich": [{"sk": {"S": "s"}}]},
        "UnprocessedKeys": {},
    }


def test_throttled_writes_come_back_unprocessed(db: Any) -> None:
    throttle(db, "b")
    answer = write(db, put("a"), put("b", n={"N": "1"}), ReturnConsumedCapacity="TOTAL")
    assert answer == {
        "UnprocessedItems": {"plain": [put("b", n={"N": "1"})]},
        "ConsumedCapacity": [{"TableName": "plain", "CapacityUnits": 1.0}],
    }


def test_a_batch_of_which_nothing_was_done_is_throttled(db: Any) -> None:
    throttle(db, "a", "b")
    message = db.refused("BatchWriteItem", RequestItems={"plain": [put("a"), delete("b")]})
    assert message.startswith("ProvisionedThroughputExceededException")


@pytest.mark.parametrize("second", [put("a", n={"N": "1"}), delete("a")])
def test_a_key_may_be_written_once(db: Any, second: Any) -> None:
    message = db.refused("BatchWriteItem", RequestItems={"plain": [put("a"), second]})
    assert message == "Provided list of item keys contains duplicates"


def test_a_key_may_be_read_once_however_it_is_spelled(db: Any) -> None:
    keys = [
        {"pk": {"S": "p"}, "sk": {"N": "1"}},
        {"sk": {"N": "1.0"}, "pk": {"S": "p"}},
    ]
    for table in ("counted", "nowhere"):
        message = db.refused("BatchGetItem", RequestItems={table: {"Keys": keys}})
        assert message == "Provided list of item keys contains duplicates"


def test_too_many(db: Any) -> None:
    keys = [key(str(number)) for number in range(101)]
    assert db.refused("BatchGetItem", RequestItems={"plain": {"Keys": keys}}) == (
        "1 validation error detected: Value at 'RequestItems.plain.member.Keys' failed to satisfy "
        "constraint: Member must have length less than or equal to 100"
    )
    parts = {"plain": {"Keys": keys[:60]}, "other": {"Keys": keys[:60]}}
    assert db.refused("BatchGetItem", RequestItems=parts) == (
        "Too many items requested for the BatchGetItem call"
    )
    writes = [put(str(number)) for number in range(26)]
    message = db.refused("BatchWriteItem", RequestItems={"plain": writes})
    assert message.startswith("1 validation error detected: Value '{plain=[")
    assert message.endswith(
        "at 'requestItems' failed to satisfy constraint: Map value must satisfy constraint: "
        "[Member must have length less than or equal to 25, "
        "Member must have length greater than or equal to 1]"
    )
    halves = {"plain": writes[:13], "rich": writes[:13]}
    assert db.refused("BatchWriteItem", RequestItems=halves) == (
        "Too many items requested for the BatchWriteItem call"
    )


@pytest.mark.parametrize("operation", ["BatchGetItem", "BatchWriteItem"])
def test_an_empty_request(db: Any, operation: str) -> None:
    message = db.refused(operation, RequestItems={})
    assert message == f"The requestItems parameter is required for {operation}"


def test_a_write_is_one_thing(db: Any) -> None:
    for each in ({}, put("a") | delete("a")):
        assert "more than one datatypes" in db.refused(
            "BatchWriteItem", RequestItems={"plain": [each]}
        )


def test_an_item_that_does_not_fit_refuses_the_batch(db: Any) -> None:
    wrong = {"PutRequest": {"Item": {"pk": {"N": "1"}}}}
    assert db.refused("BatchWriteItem", RequestItems={"plain": [put("a"), wrong]}) == (
        "The provided key element does not match the schema"
    )
    large = put("b", x={"S": "x" * 409_600})
    assert db.refused("BatchWriteItem", RequestItems={"nowhere": [large]}) == (
        "Item size has exceeded the maximum allowed size"
    )
    assert db.tables.refs["plain"].commands == []


def test_a_table_that_is_not_there(db: Any) -> None:
    for operation, part in (("BatchGetItem", {"Keys": [key("a")]}), ("BatchWriteItem", [put("a")])):
        assert db.refused(operation, RequestItems={"nowhere": part}) == (
            "ResourceNotFoundException: Requested resource not found"
        )


def test_reads_are_paid_for_item_by_item(db: Any) -> None:
    write(db, put("a"), put("b", x={"S": "x" * 5000}))
    answer = db.call(
        "BatchGetItem",
        RequestItems={"plain": {"Keys": [key("a"), key("b"), key("c")]}},
        ReturnConsumedCapacity="INDEXES",
    )
    assert answer["ConsumedCapacity"] == [
        {"TableName": "plain", "CapacityUnits": 2.0, "Table": {"CapacityUnits": 2.0}}
    ]


def test_what_is_beyond_16_mb_is_left_unprocessed(db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write(db, *[put(name, x={"S": "x" * 1000}) for name in "abcd"])
    db.put("rich", {"pk": {"S": "p"}, "sk": {"S": "s"}})
    monkeypatch.setattr(batches, "BATCH_BYTES_MAX", 2500)
    answer = db.call(
        "BatchGetItem",
        RequestItems={
            "plain": {
                "Keys": [key(name) for name in "abcd"],
                "ConsistentRead": True,
                "ProjectionExpression": "#pk",
                "ExpressionAttributeNames": {"#pk": "pk"},
            },
            "rich": {"Keys": [{"pk": {"S": "p"}, "sk": {"S": "s"}}]},
        },
    )
    assert answer["Responses"] == {"plain": [key("a"), key("b")], "rich": []}
    assert answer["UnprocessedKeys"] == {
        "plain": {
            "Keys": [key("c"), key("d")],
            "ConsistentRead": True,
            "ProjectionExpression": "#pk",
            "ExpressionAttributeNames": {"#pk": "pk"},
        },
        "rich": {"Keys": [{"pk": {"S": "p"}, "sk": {"S": "s"}}]},
    }


def test_old_and_new_projections_are_not_mixed_over_tables(db: Any) -> None:
    parts = {
        "plain": {"Keys": [key("a")], "AttributesToGet": ["pk"]},
        "rich": {"Keys": [key("a")], "ProjectionExpression": "pk"},
    }
    assert db.refused("BatchGetItem", RequestItems=parts) == (
        "Can not use both expression and non-expression parameters in the same request: "
        "Non-expression parameters: {AttributesToGet} "
        "Expression parameters: {ProjectionExpression}"
    )
    twice = {"plain": {"Keys": [key("a")], "AttributesToGet": ["pk", "pk"]}}
    assert "Duplicate value in attribute name: pk" in db.refused("BatchGetItem", RequestItems=twice)


def test_collections_written_to_are_told_once_each(db: Any) -> None:
    puts = [
        {"PutRequest": {"Item": {"pk": {"S": pk}, "sk": {"S": sk}}}} for pk in "pq" for sk in "12"
    ]
    answer = db.call(
        "BatchWriteItem", RequestItems={"rich": puts}, ReturnItemCollectionMetrics="SIZE"
    )
    assert answer["ItemCollectionMetrics"] == {
        "rich": [
            {"ItemCollectionKey": {"pk": {"S": pk}}, "SizeEstimateRangeGB": [0.0, 1.0]}
            for pk in "pq"
        ]
    }
