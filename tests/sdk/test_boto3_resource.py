"""boto3's resource: Python values instead of attribute values, conditions as objects, batches."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest
from boto3.dynamodb.conditions import Attr, Key
from boto3.dynamodb.types import Binary


@pytest.fixture
def shared(resource, table):
    """The shared table as a resource."""
    return resource.Table(table)


def test_python_values_come_back(shared, fresh):
    item = {
        "pk": fresh(),
        "sk": "s",
        "whole": Decimal(7),
        "exact": Decimal("0.1234567890123456789012345678901234567"),
        "tiny": Decimal("1E-130"),
        "flag": True,
        "nothing": None,
        "words": {"a", "b"},
        "figures": {Decimal(1), Decimal("2.5")},
        "raw": Binary(b"\x00\xff"),
        "doc": {"list": [Decimal(1), "x", {"deep": []}]},
    }
    shared.put_item(Item=item)
    found = shared.get_item(Key={"pk": item["pk"], "sk": "s"}, ConsistentRead=True)["Item"]
    assert found == item


def test_floats_are_refused_before_they_are_sent(shared, fresh):
    # boto3's own rule; the test says that we need none.
    with pytest.raises(TypeError, match="Float types are not supported"):
        shared.put_item(Item={"pk": fresh(), "sk": "s", "n": 0.5})


def test_query_by_condition_objects(shared, fresh):
    pk = fresh()
    for number in range(6):
        item = {
            "pk": pk,
            "sk": f"{number}",
            "n": number,
            "tags": {"even"} if number % 2 == 0 else {"odd"},
        }
        shared.put_item(Item=item)
    answer = shared.query(
        KeyConditionExpression=Key("pk").eq(pk) & Key("sk").between("1", "5"),
        FilterExpression=Attr("tags").contains("odd") & Attr("n").gt(1) | Attr("n").is_in([2]),
        ProjectionExpression="sk",
    )
    assert [item["sk"] for item in answer["Items"]] == ["2", "3", "5"]


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (Attr("n").eq(1), True),
        (Attr("n").ne(1), False),
        (Attr("n").lt(2) & Attr("n").lte(1) & Attr("n").gte(1), True),
        (Attr("doc.list[1]").eq("x"), True),
        (Attr("doc").attribute_type("M"), True),
        (Attr("absent").not_exists() & Attr("n").exists(), True),
        (~Attr("text").begins_with("he"), False),
        (Attr("text").size().between(4, 6), True),
        (Attr("words").contains("b"), True),
    ],
)
def test_conditions_of_every_kind(shared, fresh, condition, holds):
    pk = fresh()
    shared.put_item(
        Item={
            "pk": pk,
            "sk": "s",
            "n": 1,
            "text": "hello",
            "words": {"b"},
            "doc": {"list": [0, "x"]},
        }
    )
    changed = True
    try:
        shared.update_item(
            Key={"pk": pk, "sk": "s"},
            UpdateExpression="SET seen = :yes",
            ConditionExpression=condition,
            ExpressionAttributeValues={":yes": True},
        )
    except shared.meta.client.exceptions.ConditionalCheckFailedException:
        changed = False
    assert changed is holds
    assert ("seen" in shared.get_item(Key={"pk": pk, "sk": "s"})["Item"]) is holds


def test_batch_writer_writes_more_than_a_batch(shared, fresh):
    pk = fresh()
    with shared.batch_writer() as batch:
        for number in range(60):
            batch.put_item(Item={"pk": pk, "sk": f"{number:02}"})
        batch.delete_item(Key={"pk": pk, "sk": "nothing there"})
    answer = shared.query(KeyConditionExpression=Key("pk").eq(pk), Select="COUNT")
    assert answer["Count"] == 60


def test_batch_writer_keeps_the_last_of_a_key(shared, fresh):
    # A request with a key twice is refused; overwrite_by_pkeys avoids it.
    pk = fresh()
    with shared.batch_writer(overwrite_by_pkeys=["pk", "sk"]) as batch:
        for number in range(30):
            batch.put_item(Item={"pk": pk, "sk": "s", "n": number})
    assert shared.get_item(Key={"pk": pk, "sk": "s"})["Item"]["n"] == 29
    with pytest.raises(shared.meta.client.exceptions.ClientError, match="contains duplicates"):
        with shared.batch_writer() as batch:
            for number in range(2):
                batch.put_item(Item={"pk": pk, "sk": "s", "n": number})


def test_batch_writer_sends_again_what_was_left(shared, fresh):
    # The server leaves nothing over while it keeps up, so the answer is made to say it once.
    pk, rounds = fresh(), []

    def leave_one(parsed, **_):
        rounds.append(parsed)
        if len(rounds) == 1:
            put = {"PutRequest": {"Item": {"pk": {"S": pk}, "sk": {"S": "left"}}}}
            parsed["UnprocessedItems"] = {shared.name: [put]}

    events = shared.meta.client.meta.events
    events.register_first("after-call.dynamodb.BatchWriteItem", leave_one, "leave")
    try:
        with shared.batch_writer() as batch:
            batch.put_item(Item={"pk": pk, "sk": "done"})
    finally:
        events.unregister("after-call.dynamodb.BatchWriteItem", None, "leave")
    found = shared.query(KeyConditionExpression=Key("pk").eq(pk))["Items"]
    assert [item["sk"] for item in found] == ["done", "left"]
    assert len(rounds) == 2


def test_batch_get_through_the_service(resource, shared, fresh):
    keys = [{"pk": fresh(), "sk": "s"} for _ in range(3)]
    for key in keys:
        shared.put_item(Item=key)
    found = resource.batch_get_item(RequestItems={shared.name: {"Keys": keys}})["Responses"]
    assert sorted(item["pk"] for item in found[shared.name]) == sorted(key["pk"] for key in keys)


def test_a_table_from_made_to_deleted(aws, fresh):
    # wait_until_exists looks at once and then after 20 s: the table must be there at once.
    began = time.monotonic()
    resource = aws("resource")
    made = resource.create_table(
        TableName=fresh(),
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
        ProvisionedThroughput={"ReadCapacityUnits": 3, "WriteCapacityUnits": 4},
    )
    made.wait_until_exists()
    assert time.monotonic() - began < 5
    made.load()
    assert (made.table_status, made.item_count) == ("ACTIVE", 0)
    assert made.provisioned_throughput["WriteCapacityUnits"] == 4
    assert [table.name for table in resource.tables.all()] == [made.name]
    made.update(ProvisionedThroughput={"ReadCapacityUnits": 5, "WriteCapacityUnits": 6})
    made.reload()
    assert made.provisioned_throughput["ReadCapacityUnits"] == 5
    made.delete()
    made.wait_until_not_exists()
    assert list(resource.tables.all()) == []
    assert time.monotonic() - began < 15


def test_what_the_table_knows_of_itself(shared):
    # Lazy attributes come from one DescribeTable.
    assert shared.key_schema[0] == {"AttributeName": "pk", "KeyType": "HASH"}
    assert shared.global_secondary_indexes[0]["IndexStatus"] == "ACTIVE"
    assert shared.meta.client.meta.service_model.service_name == "dynamodb"
    assert shared.table_arn.endswith(f"table/{shared.name}")
