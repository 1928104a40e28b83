"""boto3's client: every operation that is served, as its users call it."""

from __future__ import annotations

import itertools
import time

import pytest

SMALL = {
    "BillingMode": "PAY_PER_REQUEST",
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
}
ALL_TYPES = {
    "string": {"S": "語 🎵 \x00 é"},
    "empty": {"S": ""},
    "number": {"N": "-12345678901234567890.123456789012345678"},
    "binary": {"B": bytes(range(256))},
    "no bytes": {"B": b""},
    "true": {"BOOL": True},
    "false": {"BOOL": False},
    "null": {"NULL": True},
    "strings": {"SS": ["a", "é"]},
    "numbers": {"NS": ["-1", "2.5"]},
    "binaries": {"BS": [b"\x00", b"\xff"]},
    "list": {"L": [{"N": "1"}, {"L": []}, {"S": "x"}]},
    "map": {"M": {"a.b": {"M": {}}, "語": {"L": [{"NULL": True}]}}},
}


def test_all_types_come_back_as_they_went(client, table, key):
    # botocore parses each type by itself, bytes through base64.
    item = {**key, **ALL_TYPES}
    client.put_item(TableName=table, Item=item)
    found = client.get_item(TableName=table, Key=key, ConsistentRead=True)["Item"]
    assert found == item


def test_an_absent_item_has_no_item_member(client, table, key):
    # Applications write `if "Item" in answer`.
    assert "Item" not in client.get_item(TableName=table, Key=key)


def test_put_tells_the_old_item_and_the_capacity(client, table, key):
    client.put_item(TableName=table, Item={**key, "n": {"N": "1"}})
    answer = client.put_item(
        TableName=table,
        Item={**key, "n": {"N": "2"}},
        ReturnValues="ALL_OLD",
        ReturnConsumedCapacity="TOTAL",
    )
    assert answer["Attributes"] == {**key, "n": {"N": "1"}}
    assert answer["ConsumedCapacity"] == {"TableName": table, "CapacityUnits": 1.0}


def test_update_by_expression(client, table, key):
    answer = client.update_item(
        TableName=table,
        Key=key,
        UpdateExpression="SET #n = if_not_exists(#n, :zero) + :one ADD tags :tags",
        ExpressionAttributeNames={"#n": "count"},
        ExpressionAttributeValues={
            ":zero": {"N": "0"},
            ":one": {"N": "1"},
            ":tags": {"SS": ["new"]},
        },
        ReturnValues="UPDATED_NEW",
    )
    assert answer["Attributes"] == {"count": {"N": "1"}, "tags": {"SS": ["new"]}}


def test_update_by_the_legacy_members(client, table, key):
    # boto3 still offers them, and code from before 2014 still uses them.
    answer = client.update_item(
        TableName=table,
        Key=key,
        AttributeUpdates={"n": {"Action": "ADD", "Value": {"N": "5"}}},
        Expected={"n": {"Exists": False}},
        ReturnValues="ALL_NEW",
    )
    assert answer["Attributes"] == {**key, "n": {"N": "5"}}


def test_delete_tells_what_was_there(client, table, key):
    client.put_item(TableName=table, Item=key)
    gone = client.delete_item(TableName=table, Key=key, ReturnValues="ALL_OLD")
    assert gone["Attributes"] == key
    assert "Attributes" not in client.delete_item(TableName=table, Key=key, ReturnValues="ALL_OLD")


def test_query_a_range_backwards(client, table, fresh):
    pk = {"S": fresh()}
    for number in range(5):
        client.put_item(TableName=table, Item={"pk": pk, "sk": {"S": str(number)}})
    answer = client.query(
        TableName=table,
        KeyConditionExpression="pk = :p AND sk BETWEEN :low AND :high",
        ExpressionAttributeValues={":p": pk, ":low": {"S": "1"}, ":high": {"S": "3"}},
        ScanIndexForward=False,
    )
    assert [item["sk"]["S"] for item in answer["Items"]] == ["3", "2", "1"]
    assert (answer["Count"], answer["ScannedCount"]) == (3, 3)


def test_query_both_kinds_of_index(client, table, fresh):
    owner, pk = {"S": fresh()}, {"S": fresh()}
    for rank in (2, 1):
        item = {"pk": pk, "sk": {"S": str(rank)}, "owner": owner, "rank": {"N": str(rank)}}
        client.put_item(TableName=table, Item=item)
    local = client.query(
        TableName=table,
        IndexName="by-rank",
        KeyConditionExpression="pk = :p AND #r >= :r",
        ExpressionAttributeNames={"#r": "rank"},
        ExpressionAttributeValues={":p": pk, ":r": {"N": "0"}},
        ConsistentRead=True,
    )
    assert [item["rank"]["N"] for item in local["Items"]] == ["1", "2"]
    # A global index follows its table; applications ask again.
    for _ in range(100):
        found = client.query(
            TableName=table,
            IndexName="by-owner",
            KeyConditionExpression="#o = :o",
            ExpressionAttributeNames={"#o": "owner"},
            ExpressionAttributeValues={":o": owner},
            Select="COUNT",
        )
        if found["Count"] == 2:
            break
        time.sleep(0.01)
    assert found["Count"] == 2


def test_parallel_scan_finds_each_item_once(client, table, fresh):
    mark = {"S": fresh()}
    for number in range(12):
        item = {"pk": {"S": fresh()}, "sk": {"S": str(number)}, "mark": mark}
        client.put_item(TableName=table, Item=item)
    found = [
        item["sk"]["S"]
        for segment in range(3)
        for page in client.get_paginator("scan").paginate(
            TableName=table,
            Segment=segment,
            TotalSegments=3,
            FilterExpression="mark = :m",
            ExpressionAttributeValues={":m": mark},
            ConsistentRead=True,
        )
        for item in page["Items"]
    ]
    assert sorted(found) == sorted(map(str, range(12)))


def test_batches_write_and_read(client, table, fresh):
    keys = [{"pk": {"S": fresh()}, "sk": {"S": "s"}} for _ in range(25)]
    answer = client.batch_write_item(
        RequestItems={table: [{"PutRequest": {"Item": {**key, "v": {"S": "v"}}}} for key in keys]}
    )
    assert answer["UnprocessedItems"] == {}
    answer = client.batch_get_item(
        RequestItems={table: {"Keys": keys, "ProjectionExpression": "pk, v"}}
    )
    assert answer["UnprocessedKeys"] == {}
    found = answer["Responses"][table]
    assert sorted(item["pk"]["S"] for item in found) == sorted(key["pk"]["S"] for key in keys)
    assert all(item["v"] == {"S": "v"} for item in found)


def test_what_a_batch_left_over_can_be_sent_again(client, table, fresh):
    # An answer holds 16 MB: the rest comes back as UnprocessedKeys, in the form of a request.
    pk = {"S": fresh()}
    keys = [{"pk": pk, "sk": {"S": str(number)}} for number in range(44)]
    for key in keys:
        client.put_item(TableName=table, Item={**key, "big": {"S": "x" * 400_000}})
    asked, rounds, found = {table: {"Keys": keys}}, 0, []
    while asked:
        answer = client.batch_get_item(RequestItems=asked)
        found += [item["sk"]["S"] for item in answer["Responses"][table]]
        asked = answer["UnprocessedKeys"]
        rounds += 1
        assert rounds < 10
    assert rounds > 1
    assert sorted(found) == sorted(key["sk"]["S"] for key in keys)
    for key in keys:
        client.delete_item(TableName=table, Key=key)


def test_an_item_of_400_kb_is_kept_and_one_byte_more_refused(client, table, key):
    room = (
        400 * 1024
        - sum(len(name) + len(value["S"].encode()) for name, value in key.items())
        - len("big")
    )
    item = {**key, "big": {"S": "x" * room}}
    client.put_item(TableName=table, Item=item)
    assert client.get_item(TableName=table, Key=key)["Item"] == item
    item["big"]["S"] += "x"
    with pytest.raises(client.exceptions.ClientError, match="Item size has exceeded"):
        client.put_item(TableName=table, Item=item)
    client.delete_item(TableName=table, Key=key)


def test_keys_of_bytes_and_numbers(dynamodb, fresh):
    # Order is that of unsigned bytes and of numbers, not that of their base64 or decimal text.
    name = fresh()
    dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[
            {"AttributeName": "h", "KeyType": "HASH"},
            {"AttributeName": "r", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "h", "AttributeType": "N"},
            {"AttributeName": "r", "AttributeType": "B"},
        ],
    )
    dynamodb.get_waiter("table_exists").wait(TableName=name)
    keys = [b"\x00", b"\x00\x00", b"\x7f", b"\x80", b"\xff", b"\xff\x00"]
    for each in reversed(keys):
        dynamodb.put_item(TableName=name, Item={"h": {"N": "1.50"}, "r": {"B": each}})
    answer = dynamodb.query(
        TableName=name,
        KeyConditionExpression="h = :h AND r > :r",
        ExpressionAttributeValues={":h": {"N": "15e-1"}, ":r": {"B": b"\x00"}},
    )
    assert [item["r"]["B"] for item in answer["Items"]] == keys[1:]


def test_describe_table(client, table):
    # boto3 makes dates of numbers; tools print these members.
    described = client.describe_table(TableName=table)["Table"]
    assert described["TableStatus"] == "ACTIVE"
    assert described["CreationDateTime"].timestamp() == pytest.approx(time.time(), abs=3600)
    assert described["TableArn"].startswith("arn:aws:dynamodb:us-east-1:")
    assert [index["IndexName"] for index in described["GlobalSecondaryIndexes"]] == ["by-owner"]
    assert [index["IndexName"] for index in described["LocalSecondaryIndexes"]] == ["by-rank"]


def test_a_table_may_be_named_by_its_arn(client, table, key):
    # SDKs accept an ARN wherever a name is.
    arn = client.describe_table(TableName=table)["Table"]["TableArn"]
    client.put_item(TableName=arn, Item=key)
    assert client.get_item(TableName=table, Key=key)["Item"] == key


def test_update_table_makes_and_drops_an_index(dynamodb, fresh):
    name = fresh()
    dynamodb.create_table(TableName=name, **SMALL)
    dynamodb.get_waiter("table_exists").wait(TableName=name)
    dynamodb.put_item(TableName=name, Item={"id": {"S": "1"}, "colour": {"S": "red"}})
    dynamodb.update_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "colour", "AttributeType": "S"}],
        GlobalSecondaryIndexUpdates=[
            {
                "Create": {
                    "IndexName": "by-colour",
                    "KeySchema": [{"AttributeName": "colour", "KeyType": "HASH"}],
                    "Projection": {"ProjectionType": "ALL"},
                }
            }
        ],
    )

    def indexes():
        return dynamodb.describe_table(TableName=name)["Table"].get("GlobalSecondaryIndexes", [])

    wait_until(lambda: [index["IndexStatus"] for index in indexes()] == ["ACTIVE"])
    found = dynamodb.scan(TableName=name, IndexName="by-colour")["Items"]
    assert [item["id"]["S"] for item in found] == ["1"]
    dynamodb.update_table(
        TableName=name, GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": "by-colour"}}]
    )
    wait_until(lambda: not indexes())


def wait_until(done):
    """Ask until it is so; there is no waiter for it in boto3."""
    for _ in range(300):
        if done():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to pass")


def test_deletion_protection(dynamodb, fresh):
    name = fresh()
    dynamodb.create_table(TableName=name, DeletionProtectionEnabled=True, **SMALL)
    dynamodb.get_waiter("table_exists").wait(TableName=name)
    with pytest.raises(dynamodb.exceptions.ClientError, match="protected against deletion"):
        dynamodb.delete_table(TableName=name)
    dynamodb.update_table(TableName=name, DeletionProtectionEnabled=False)
    dynamodb.delete_table(TableName=name)


def test_waiters_see_a_table_come_and_go(dynamodb, fresh):
    # Their first look is at once, the second after 20 s: a table must be ready when it is told.
    name = fresh()
    began = time.monotonic()
    dynamodb.create_table(TableName=name, **SMALL)
    dynamodb.get_waiter("table_exists").wait(TableName=name)
    dynamodb.delete_table(TableName=name)
    dynamodb.get_waiter("table_not_exists").wait(
        TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 10}
    )
    assert time.monotonic() - began < 10
    with pytest.raises(dynamodb.exceptions.ResourceNotFoundException):
        dynamodb.describe_table(TableName=name)


def test_tags(dynamodb, fresh):
    name = fresh()
    arn = dynamodb.create_table(TableName=name, Tags=[{"Key": "team", "Value": "blue"}], **SMALL)[
        "TableDescription"
    ]["TableArn"]
    dynamodb.tag_resource(ResourceArn=arn, Tags=[{"Key": "stage", "Value": "test"}])
    dynamodb.untag_resource(ResourceArn=arn, TagKeys=["team"])
    tags = dynamodb.list_tags_of_resource(ResourceArn=arn)["Tags"]
    assert tags == [{"Key": "stage", "Value": "test"}]


def test_limits_and_endpoints(client):
    # Endpoint discovery calls the second one; its address must lead back here.
    assert client.describe_limits()["TableMaxReadCapacityUnits"] > 0
    (found,) = client.describe_endpoints()["Endpoints"]
    assert found["CachePeriodInMinutes"] > 0


# Paginators: each asks on until the server says that there is no more.


def test_paginator_of_list_tables(dynamodb, fresh):
    names = sorted(fresh() for _ in range(5))
    for name in names:
        dynamodb.create_table(TableName=name, **SMALL)
    pages = dynamodb.get_paginator("list_tables").paginate(PaginationConfig={"PageSize": 2})
    listed = [page["TableNames"] for page in pages]
    assert list(itertools.chain(*listed)) == names
    assert len(listed) == 3


def test_paginator_of_query(client, table, fresh):
    pk = {"S": fresh()}
    for number in range(7):
        client.put_item(TableName=table, Item={"pk": pk, "sk": {"S": str(number)}})
    pages = list(
        client.get_paginator("query").paginate(
            TableName=table,
            KeyConditionExpression="pk = :p",
            ExpressionAttributeValues={":p": pk},
            PaginationConfig={"PageSize": 3},
        )
    )
    assert [page["Count"] for page in pages] == [3, 3, 1]
    assert [item["sk"]["S"] for page in pages for item in page["Items"]] == list("0123456")


def test_paginator_of_scan_resumes_from_its_token(client, table, fresh):
    # The token holds LastEvaluatedKey and a place within the page.
    mark = {"S": fresh()}
    for number in range(6):
        client.put_item(
            TableName=table, Item={"pk": {"S": fresh()}, "sk": {"S": str(number)}, "mark": mark}
        )
    paginator = client.get_paginator("scan")
    request = {
        "TableName": table,
        "FilterExpression": "mark = :m",
        "ExpressionAttributeValues": {":m": mark},
    }
    found, token = [], None
    while True:
        pages = paginator.paginate(
            **request, PaginationConfig={"MaxItems": 4, "StartingToken": token, "PageSize": 50}
        )
        page = pages.build_full_result()
        found += [item["sk"]["S"] for item in page["Items"]]
        token = page.get("NextToken")
        if token is None:
            break
    assert sorted(found) == list("012345")


def test_paginator_of_tags(dynamodb, fresh):
    tags = [{"Key": f"key-{number:02}", "Value": "v"} for number in range(30)]
    arn = dynamodb.create_table(TableName=fresh(), Tags=tags, **SMALL)["TableDescription"][
        "TableArn"
    ]
    pages = dynamodb.get_paginator("list_tags_of_resource").paginate(ResourceArn=arn)
    assert sorted(pages.build_full_result()["Tags"], key=lambda tag: tag["Key"]) == tags
