"""DynamoDB Streams through boto3: what a consumer of a stream relies on, one behaviour a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError


@pytest.fixture(scope="session")
def streams(endpoint: str, shared_key: str) -> Iterator[Any]:
    """A client of the stream operations, in the same namespace and on the same port."""
    made = boto3.session.Session(
        aws_access_key_id=shared_key, aws_secret_access_key="secret", region_name="us-east-1"
    ).client("dynamodbstreams", endpoint_url=endpoint)
    yield made
    made.close()


def make(client: Any, name: str, view: str | None = "NEW_AND_OLD_IMAGES") -> str | None:
    """A table with a stream; the stream's ARN."""
    stream = {} if view is None else {
        "StreamSpecification": {"StreamEnabled": True, "StreamViewType": view}
    }
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        **stream,
    )
    arn: str | None = client.describe_table(TableName=name)["Table"].get("LatestStreamArn")
    return arn


def item(pk: str, **more: str) -> dict[str, Any]:
    return {"pk": {"S": pk}} | {name: {"S": value} for name, value in more.items()}


def shards_of(streams: Any, arn: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = streams.describe_stream(StreamArn=arn)["StreamDescription"][
        "Shards"
    ]
    return found


def iterator(streams: Any, arn: str, kind: str = "TRIM_HORIZON", **more: Any) -> str:
    shard = shards_of(streams, arn)[0]["ShardId"]
    answer = streams.get_shard_iterator(
        StreamArn=arn, ShardId=shard, ShardIteratorType=kind, **more
    )
    place: str = answer["ShardIterator"]
    return place


def records(streams: Any, arn: str) -> list[dict[str, Any]]:
    """Everything that every shard of the stream holds."""
    found = []
    for shard in shards_of(streams, arn):
        place = streams.get_shard_iterator(
            StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while place is not None:
            page = streams.get_records(ShardIterator=place)
            found += page["Records"]
            place = page.get("NextShardIterator") if page["Records"] else None
    return found


@pytest.fixture
def stream(client: Any, fresh: Callable[..., str]) -> tuple[str, str]:
    """A table with a stream of whole images: (name, ARN)."""
    name = fresh()
    arn = make(client, name)
    assert arn is not None
    return name, arn


def test_records_tell_what_happened_in_order(client, streams, stream):
    name, arn = stream
    client.put_item(TableName=name, Item=item("a", v="1"))
    client.put_item(TableName=name, Item=item("a", v="2"))
    client.delete_item(TableName=name, Key=item("a"))
    found = records(streams, arn)
    assert [record["eventName"] for record in found] == ["INSERT", "MODIFY", "REMOVE"]
    inner = [record["dynamodb"] for record in found]
    assert [each.get("NewImage") for each in inner] == [item("a", v="1"), item("a", v="2"), None]
    assert [each.get("OldImage") for each in inner] == [None, item("a", v="1"), item("a", v="2")]
    assert all(each["Keys"] == item("a") for each in inner)
    assert all(each["StreamViewType"] == "NEW_AND_OLD_IMAGES" for each in inner)
    # pk + a = 3 bytes of keys; each image adds pk, a, v and its value.
    assert [each["SizeBytes"] for each in inner] == [8, 13, 8]
    numbers = [each["SequenceNumber"] for each in inner]
    assert numbers == sorted(set(numbers))
    assert all(len(number) == 21 for number in numbers)
    assert found[0]["eventSource"] == "aws:dynamodb"
    assert found[0]["eventVersion"] == "1.1"
    assert found[0]["awsRegion"] == "us-east-1"
    assert len({record["eventID"] for record in found}) == 3


def test_a_write_that_changes_nothing_leaves_no_record(client, streams, stream):
    name, arn = stream
    client.put_item(TableName=name, Item=item("a", v="1"))
    client.put_item(TableName=name, Item=item("a", v="1"))
    client.delete_item(TableName=name, Key=item("missing"))
    client.update_item(
        TableName=name,
        Key=item("a"),
        UpdateExpression="SET v = :v",
        ExpressionAttributeValues={":v": {"S": "1"}},
    )
    assert [record["eventName"] for record in records(streams, arn)] == ["INSERT"]


def test_an_update_that_creates_the_item_is_an_insert(client, streams, stream):
    name, arn = stream
    client.update_item(
        TableName=name,
        Key=item("a"),
        UpdateExpression="SET v = :v",
        ExpressionAttributeValues={":v": {"S": "1"}},
    )
    (record,) = records(streams, arn)
    assert record["eventName"] == "INSERT"
    assert "OldImage" not in record["dynamodb"]


def test_batches_and_transactions_feed_the_stream(client, streams, stream):
    name, arn = stream
    client.batch_write_item(
        RequestItems={name: [{"PutRequest": {"Item": item(pk)}} for pk in ("a", "b")]}
    )
    client.transact_write_items(
        TransactItems=[
            {"Put": {"TableName": name, "Item": item("c")}},
            {"Delete": {"TableName": name, "Key": item("a")}},
        ]
    )
    with pytest.raises(ClientError):
        client.transact_write_items(
            TransactItems=[
                {"Put": {"TableName": name, "Item": item("never")}},
                {
                    "ConditionCheck": {
                        "TableName": name,
                        "Key": item("b"),
                        "ConditionExpression": "attribute_not_exists(pk)",
                    }
                },
            ]
        )
    found = [(r["eventName"], r["dynamodb"]["Keys"]["pk"]["S"]) for r in records(streams, arn)]
    assert sorted(found[:2]) == [("INSERT", "a"), ("INSERT", "b")]
    assert sorted(found[2:]) == [("INSERT", "c"), ("REMOVE", "a")]


@pytest.mark.parametrize(
    ("view", "shows"),
    [
        ("KEYS_ONLY", set()),
        ("NEW_IMAGE", {"NewImage"}),
        ("OLD_IMAGE", {"OldImage"}),
        ("NEW_AND_OLD_IMAGES", {"NewImage", "OldImage"}),
    ],
)
def test_each_view_shows_what_it_says(client, streams, fresh, view, shows):
    name = fresh()
    arn = make(client, name, view)
    client.put_item(TableName=name, Item=item("a", v="1"))
    client.put_item(TableName=name, Item=item("a", v="2"))
    client.delete_item(TableName=name, Key=item("a"))
    insert, modify, remove = records(streams, arn)
    images = {"NewImage", "OldImage"}
    assert insert["dynamodb"].keys() & images == shows - {"OldImage"}
    assert modify["dynamodb"].keys() & images == shows
    assert remove["dynamodb"].keys() & images == shows - {"NewImage"}
    names = [record["eventName"] for record in (insert, modify, remove)]
    assert names == ["INSERT", "MODIFY", "REMOVE"]


def test_iterators_begin_where_they_say(client, streams, stream):
    name, arn = stream
    for pk in ("a", "b", "c"):
        client.put_item(TableName=name, Item=item(pk))
    second = records(streams, arn)[1]["dynamodb"]["SequenceNumber"]

    def keys(place: str) -> list[str]:
        found = streams.get_records(ShardIterator=place)["Records"]
        return [record["dynamodb"]["Keys"]["pk"]["S"] for record in found]

    assert keys(iterator(streams, arn)) == ["a", "b", "c"]
    assert keys(iterator(streams, arn, "AT_SEQUENCE_NUMBER", SequenceNumber=second)) == ["b", "c"]
    assert keys(iterator(streams, arn, "AFTER_SEQUENCE_NUMBER", SequenceNumber=second)) == ["c"]
    latest = iterator(streams, arn, "LATEST")
    assert keys(latest) == []
    client.put_item(TableName=name, Item=item("d"))
    assert keys(latest) == ["d"]
    assert keys(iterator(streams, arn, "AT_TIMESTAMP", Timestamp=0)) == ["a", "b", "c", "d"]


def test_pages_go_on_where_the_last_one_ended(client, streams, stream):
    name, arn = stream
    for number in range(7):
        client.put_item(TableName=name, Item=item(f"k{number}"))
    place, found = iterator(streams, arn), []
    for _ in range(4):
        page = streams.get_records(ShardIterator=place, Limit=2)
        assert len(page["Records"]) <= 2
        found += [record["dynamodb"]["Keys"]["pk"]["S"] for record in page["Records"]]
        place = page["NextShardIterator"]
    assert found == [f"k{number}" for number in range(7)]


def test_a_disabled_stream_stays_readable_and_a_new_one_has_a_new_name(client, streams, stream):
    name, arn = stream
    client.put_item(TableName=name, Item=item("a"))
    client.update_table(TableName=name, StreamSpecification={"StreamEnabled": False})
    client.get_waiter("table_exists").wait(TableName=name)
    client.put_item(TableName=name, Item=item("unseen"))
    table = client.describe_table(TableName=name)["Table"]
    assert "StreamSpecification" not in table
    assert table["LatestStreamArn"] == arn
    described = streams.describe_stream(StreamArn=arn)["StreamDescription"]
    assert described["StreamStatus"] == "DISABLED"
    assert "EndingSequenceNumber" in described["Shards"][0]["SequenceNumberRange"]
    page = streams.get_records(ShardIterator=iterator(streams, arn))
    assert [record["dynamodb"]["Keys"] for record in page["Records"]] == [item("a")]
    assert "NextShardIterator" not in page
    client.update_table(
        TableName=name,
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"},
    )
    client.get_waiter("table_exists").wait(TableName=name)
    client.put_item(TableName=name, Item=item("b"))
    second = client.describe_table(TableName=name)["Table"]["LatestStreamArn"]
    assert second > arn
    assert [r["dynamodb"]["Keys"] for r in records(streams, second)] == [item("b")]
    listed = [each["StreamArn"] for each in streams.list_streams(TableName=name)["Streams"]]
    assert listed == [arn, second]


def test_a_removed_tables_stream_stays_readable(client, streams, stream):
    name, arn = stream
    client.put_item(TableName=name, Item=item("a"))
    client.delete_table(TableName=name)
    client.get_waiter("table_not_exists").wait(TableName=name)
    assert [r["dynamodb"]["Keys"] for r in records(streams, arn)] == [item("a")]
    assert streams.describe_stream(StreamArn=arn)["StreamDescription"]["StreamStatus"] == "DISABLED"
    # A new table of that name has nothing to do with it.
    second = make(client, name)
    assert second != arn
    assert records(streams, second) == []


@pytest.mark.parametrize("given", [True, False])
def test_enabling_twice_and_disabling_nothing_are_refused(client, fresh, given):
    name = fresh()
    make(client, name, "KEYS_ONLY" if given else None)
    wanted = {"StreamEnabled": given} | ({"StreamViewType": "KEYS_ONLY"} if given else {})
    with pytest.raises(ClientError, match="already"):
        client.update_table(TableName=name, StreamSpecification=wanted)


def test_streams_are_listed_page_by_page(client, streams, fresh):
    arns = [make(client, fresh("list")) for _ in range(3)]
    found, more = [], {}
    while True:
        page = streams.list_streams(Limit=1, **more)
        found += [each["StreamArn"] for each in page["Streams"]]
        if "LastEvaluatedStreamArn" not in page:
            break
        more = {"ExclusiveStartStreamArn": page["LastEvaluatedStreamArn"]}
    assert set(arns) <= set(found)
    assert len(found) == len(set(found))


def test_describe_table_tells_the_stream(client, stream):
    name, arn = stream
    table = client.describe_table(TableName=name)["Table"]
    assert table["StreamSpecification"] == {
        "StreamEnabled": True,
        "StreamViewType": "NEW_AND_OLD_IMAGES",
    }
    assert arn.endswith(f"table/{name}/stream/{table['LatestStreamLabel']}")


@pytest.mark.parametrize(
    ("operation", "arguments", "code"),
    [
        ("describe_stream", {"StreamArn": "{arn}x"}, "ResourceNotFoundException"),
        ("describe_stream", {"StreamArn": "arn:aws:dynamodb:us-east-1:1:table/t-----"},
         "ValidationException"),
        ("get_shard_iterator", {"StreamArn": "{arn}", "ShardId": "shardId-" + "0" * 20 + "-cafe",
         "ShardIteratorType": "LATEST"}, "ResourceNotFoundException"),
        ("get_shard_iterator", {"StreamArn": "{arn}", "ShardId": "{shard}",
         "ShardIteratorType": "AT_SEQUENCE_NUMBER"}, "ValidationException"),
        ("get_shard_iterator", {"StreamArn": "{arn}", "ShardId": "{shard}",
         "ShardIteratorType": "LATEST", "SequenceNumber": "1" * 21}, "ValidationException"),
        ("get_shard_iterator", {"StreamArn": "{arn}", "ShardId": "{shard}",
         "ShardIteratorType": "AT_SEQUENCE_NUMBER", "SequenceNumber": "9" * 21},
         "ValidationException"),
        ("get_shard_iterator", {"StreamArn": "{arn}", "ShardId": "{shard}",
         "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 99_999_999_999}, "ValidationException"),
        ("get_records", {"ShardIterator": "nonsense"}, "ValidationException"),
        ("get_records", {"ShardIterator": "bm9uc2Vuc2U="}, "ValidationException"),
    ],
)  # fmt: skip
def test_what_is_refused(streams, stream, operation, arguments, code):
    _, arn = stream
    shard = shards_of(streams, arn)[0]["ShardId"]
    given = {
        name: value.format(arn=arn, shard=shard) if isinstance(value, str) else value
        for name, value in arguments.items()
    }
    with pytest.raises(ClientError) as refusal:
        getattr(streams, operation)(**given)
    assert refusal.value.response["Error"]["Code"] == code


def test_a_limit_beyond_the_most_is_refused(streams, stream):
    _, arn = stream
    with pytest.raises(ClientError, match="less than or equal to 1000"):
        streams.get_records(ShardIterator=iterator(streams, arn), Limit=1001)
