"""Requests for ``fuzz``: good ones for every operation, and heavy ones that are near the largest.

Each is made with the generator that is passed in; ``fuzz_mutations`` changes them.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from typing import Any

from ..streams.iterators import encode_iterator

TABLE = "fuzzed"
COUNTED = "fuzzed-numbers"
GLOBAL_INDEX = "by-group"
LOCAL_INDEX = "by-rank"


def tables() -> list[dict[str, Any]]:
    """CreateTable for the tables that the item requests are about."""
    everything = {"ProjectionType": "ALL"}
    return [
        {
            "TableName": TABLE,
            "BillingMode": "PAY_PER_REQUEST",
            "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
            "AttributeDefinitions": [
                {"AttributeName": name, "AttributeType": kind}
                for name, kind in (("pk", "S"), ("sk", "S"), ("group", "S"), ("rank", "N"))
            ],
            "KeySchema": _key_schema("pk", "sk"),
            "LocalSecondaryIndexes": [
                {
                    "IndexName": LOCAL_INDEX,
                    "KeySchema": _key_schema("pk", "rank"),
                    "Projection": everything,
                }
            ],
            "GlobalSecondaryIndexes": [
                {
                    "IndexName": GLOBAL_INDEX,
                    "KeySchema": _key_schema("group", "rank"),
                    "Projection": everything,
                }
            ],
        },
        {
            "TableName": COUNTED,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [
                {"AttributeName": "pk", "AttributeType": "N"},
                {"AttributeName": "sk", "AttributeType": "B"},
            ],
            "KeySchema": _key_schema("pk", "sk"),
        },
    ]


def _key_schema(hash_name: str, range_name: str) -> list[dict[str, str]]:
    return [
        {"AttributeName": hash_name, "KeyType": "HASH"},
        {"AttributeName": range_name, "KeyType": "RANGE"},
    ]


def _key(rng: random.Random) -> dict[str, Any]:
    return {"pk": {"S": f"p{rng.randrange(4)}"}, "sk": {"S": f"s{rng.randrange(4)}"}}


def _counted_key(rng: random.Random) -> dict[str, Any]:
    number = rng.choice(["0", "-1", "1.5", "1e100", "-9.99e-120"])
    return {"pk": {"N": number}, "sk": {"B": base64.b64encode(rng.randbytes(2)).decode()}}


def _item(rng: random.Random) -> dict[str, Any]:
    item: dict[str, Any] = {
        **_key(rng),
        "n": {"N": str(rng.randrange(-999, 999))},
        "text": {"S": rng.choice(["", "v", "é", "語", "🎵" * 3])},
        "bytes": {"B": base64.b64encode(rng.randbytes(rng.randrange(9))).decode()},
        "set": {"SS": ["a", "b", "é"]},
        "numbers": {"NS": ["1", "2.50", "-3e-7"]},
        "blobs": {"BS": ["AA==", "AQ=="]},
        "doc": {"M": {"list": {"L": [{"N": "1"}, {"BOOL": True}, {"NULL": True}]}}},
    }
    if rng.random() < 0.7:
        item["rank"] = {"N": str(rng.randrange(5))}
    if rng.random() < 0.7:
        item["group"] = {"S": f"g{rng.randrange(3)}"}
    return item


VALUE = {"S": "v"}
_READ_TAIL = {"ReturnConsumedCapacity": "INDEXES", "ConsistentRead": True}


def _puts(rng: random.Random) -> list[dict[str, Any]]:
    # A batch may not name a key twice.
    found = {
        json.dumps(item["pk"]) + json.dumps(item["sk"]): item for item in (_item(rng), _item(rng))
    }
    return [{"PutRequest": {"Item": item}} for item in found.values()]


def _stream_arn(rng: random.Random) -> str:
    return f"{_arn(_name(rng))}/stream/2026-11-23T07:27:26.123"


def _iterator(rng: random.Random) -> str:
    """One that could be: of a shard, and of a place, that there may not be."""
    shard = f"shardId-{rng.randrange(10**13):020d}-{rng.randrange(1 << 32):08x}"
    return encode_iterator(
        _name(rng), "2026-11-23T07:27:26.123", shard, rng.randrange(10**12), rng.randrange(10**13)
    )


_STREAMS = "DynamoDBStreams_20120810."
_OURS = "Millstream_20261123."

Maker = Callable[[random.Random], dict[str, Any]]

ITEM_REQUESTS: list[tuple[str, Maker]] = [
    ("PutItem", lambda rng: {"TableName": TABLE, "Item": _item(rng)}),
    (
        "PutItem",
        lambda rng: {
            "TableName": TABLE,
            "Item": _item(rng),
            "ConditionExpression": "attribute_not_exists(#a) OR (n BETWEEN :low AND :high "
            "AND NOT contains(text, :v)) OR size(bytes) IN (:low, :high)",
            "ExpressionAttributeNames": {"#a": "absent"},
            "ExpressionAttributeValues": {":low": {"N": "0"}, ":high": {"N": "9"}, ":v": VALUE},
            "ReturnValues": "ALL_OLD",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        },
    ),
    (
        "PutItem",
        lambda rng: {
            "TableName": TABLE,
            "Item": _item(rng),
            "Expected": {"n": {"ComparisonOperator": "NE", "AttributeValueList": [{"N": "5"}]}},
            "ConditionalOperator": "AND",
        },
    ),
    (
        "PutItem",
        lambda rng: {"TableName": COUNTED, "Item": {**_counted_key(rng), "x": {"N": "1e-9"}}},
    ),
    (
        "UpdateItem",
        lambda rng: {
            "TableName": TABLE,
            "Key": _key(rng),
            "UpdateExpression": "SET n = if_not_exists(n, :n) + :n, doc.list[0] = :v, "
            "log = list_append(if_not_exists(log, :none), :more) "
            "REMOVE doc.list[2] ADD counted :n DELETE #set :set",
            "ConditionExpression": "attribute_exists(doc) AND attribute_type(doc, :type)",
            "ExpressionAttributeNames": {"#set": "set"},
            "ExpressionAttributeValues": {
                ":n": {"N": "1"},
                ":v": VALUE,
                ":none": {"L": []},
                ":more": {"L": [VALUE]},
                ":set": {"SS": ["a"]},
                ":type": {"S": "M"},
            },
            "ReturnValues": rng.choice(["ALL_NEW", "UPDATED_NEW", "ALL_OLD", "NONE"]),
            "ReturnItemCollectionMetrics": "SIZE",
        },
    ),
    (
        "UpdateItem",
        lambda rng: {
            "TableName": TABLE,
            "Key": _key(rng),
            "AttributeUpdates": {
                "n": {"Action": "ADD", "Value": {"N": "1"}},
                "text": {"Action": "PUT", "Value": VALUE},
                "log": {"Action": "DELETE"},
            },
            "Expected": {"absent": {"Exists": False}},
        },
    ),
    (
        "UpdateItem",
        lambda rng: {
            "TableName": COUNTED,
            "Key": _counted_key(rng),
            "UpdateExpression": "SET n = if_not_exists(n, :n) - :n",
            "ExpressionAttributeValues": {":n": {"N": "0.1"}},
        },
    ),
    (
        "DeleteItem",
        lambda rng: {
            "TableName": TABLE,
            "Key": _key(rng),
            "ConditionExpression": "begins_with(pk, :v) AND n <> :n",
            "ExpressionAttributeValues": {":v": {"S": "p"}, ":n": {"N": "7"}},
            "ReturnValues": "ALL_OLD",
        },
    ),
    (
        "BatchWriteItem",
        lambda rng: {
            "RequestItems": {
                TABLE: _puts(rng),
                COUNTED: [{"DeleteRequest": {"Key": _counted_key(rng)}}],
            },
            "ReturnConsumedCapacity": "TOTAL",
        },
    ),
    (
        "GetItem",
        lambda rng: {
            "TableName": TABLE,
            "Key": _key(rng),
            "ProjectionExpression": "#t, doc.list[0], n",
            "ExpressionAttributeNames": {"#t": "text"},
            **_READ_TAIL,
        },
    ),
    ("GetItem", lambda rng: {"TableName": TABLE, "Key": _key(rng), "AttributesToGet": ["n"]}),
    (
        "BatchGetItem",
        lambda rng: {
            "RequestItems": {
                TABLE: {"Keys": [_key(rng)], "ConsistentRead": True, "ProjectionExpression": "pk"},
                COUNTED: {"Keys": [_counted_key(rng)], "AttributesToGet": ["x"]},
            }
        },
    ),
    (
        "Query",
        lambda rng: {
            "TableName": TABLE,
            "KeyConditionExpression": "pk = :p AND sk BETWEEN :a AND :b",
            "FilterExpression": "n < :n OR NOT attribute_exists(text)",
            "ExpressionAttributeValues": {
                ":p": {"S": "p1"},
                ":a": {"S": "s"},
                ":b": {"S": "t"},
                ":n": {"N": "1e3"},
            },
            "ExclusiveStartKey": _key(rng) | {"pk": {"S": "p1"}, "sk": {"S": "s1"}},
            "Limit": 3,
            "ScanIndexForward": rng.random() < 0.5,
            **_READ_TAIL,
        },
    ),
    (
        "Query",
        lambda rng: {
            "TableName": TABLE,
            "IndexName": GLOBAL_INDEX,
            "KeyConditions": {
                "group": {"ComparisonOperator": "EQ", "AttributeValueList": [{"S": "g1"}]},
                "rank": {"ComparisonOperator": "GE", "AttributeValueList": [{"N": "1"}]},
            },
            "QueryFilter": {
                "n": {"ComparisonOperator": "IN", "AttributeValueList": [{"N": "1"}]},
                "text": {"ComparisonOperator": "NOT_NULL"},
            },
            "ConditionalOperator": "OR",
            "Select": "ALL_ATTRIBUTES",
            "ExclusiveStartKey": _key(rng) | {"group": {"S": "g1"}, "rank": {"N": "1"}},
        },
    ),
    (
        "Query",
        lambda rng: {
            "TableName": TABLE,
            "IndexName": LOCAL_INDEX,
            "KeyConditionExpression": "pk = :p AND #r >= :n",
            "ExpressionAttributeNames": {"#r": "rank"},
            "ExpressionAttributeValues": {":p": {"S": "p2"}, ":n": {"N": "-1"}},
            "Select": "COUNT",
        },
    ),
    (
        "Scan",
        lambda rng: {
            "TableName": TABLE,
            "Segment": rng.randrange(3),
            "TotalSegments": 3,
            "Limit": 9,
            "FilterExpression": "size(text) >= :n AND attribute_type(doc, :type)",
            "ProjectionExpression": "pk, doc",
            "ExpressionAttributeValues": {":n": {"N": "0"}, ":type": {"S": "M"}},
            "ExclusiveStartKey": _key(rng),
        },
    ),
    (
        "Scan",
        lambda rng: {
            "TableName": TABLE,
            "IndexName": rng.choice([GLOBAL_INDEX, LOCAL_INDEX]),
            "ScanFilter": {"n": {"ComparisonOperator": "GT", "AttributeValueList": [{"N": "0"}]}},
            "AttributesToGet": ["n", "pk"],
        },
    ),
    ("DescribeTable", lambda rng: {"TableName": TABLE}),
    ("ListTables", lambda rng: {"Limit": 1, "ExclusiveStartTableName": "fuzz"}),
    ("DescribeLimits", lambda rng: {}),
    ("DescribeEndpoints", lambda rng: {}),
]


def _arn(name: str) -> str:
    return f"arn:aws:dynamodb:us-east-1:000000000000:table/{name}"


def _name(rng: random.Random) -> str:
    return f"table-{rng.randrange(4)}"


TABLE_REQUESTS: list[tuple[str, Maker]] = [
    (
        "CreateTable",
        lambda rng: {**tables()[0], "TableName": _name(rng), "Tags": [{"Key": "k", "Value": "v"}]},
    ),
    (
        "CreateTable",
        lambda rng: {
            **tables()[1],
            "TableName": _name(rng),
            "BillingMode": "PROVISIONED",
            "ProvisionedThroughput": {"ReadCapacityUnits": 5, "WriteCapacityUnits": 5},
            "TableClass": "STANDARD",
            "DeletionProtectionEnabled": False,
        },
    ),
    (
        "UpdateTable",
        lambda rng: {
            "TableName": _name(rng),
            "AttributeDefinitions": [{"AttributeName": "extra", "AttributeType": "S"}],
            "GlobalSecondaryIndexUpdates": [
                {
                    "Create": {
                        "IndexName": "by-extra",
                        "KeySchema": [{"AttributeName": "extra", "KeyType": "HASH"}],
                        "Projection": {
                            "ProjectionType": "INCLUDE",
                            "NonKeyAttributes": ["one", "two"],
                        },
                    }
                }
            ],
        },
    ),
    (
        "UpdateTable",
        lambda rng: {
            "TableName": _name(rng),
            "GlobalSecondaryIndexUpdates": [{"Delete": {"IndexName": "by-extra"}}],
        },
    ),
    (
        "UpdateTable",
        lambda rng: {
            "TableName": _name(rng),
            "BillingMode": "PROVISIONED",
            "ProvisionedThroughput": {"ReadCapacityUnits": 7, "WriteCapacityUnits": 8},
            "DeletionProtectionEnabled": False,
        },
    ),
    ("DeleteTable", lambda rng: {"TableName": _name(rng)}),
    ("DescribeTable", lambda rng: {"TableName": _name(rng)}),
    ("ListTables", lambda rng: {"Limit": 2}),
    (
        "TagResource",
        lambda rng: {"ResourceArn": _arn(_name(rng)), "Tags": [{"Key": "é", "Value": ""}]},
    ),
    ("UntagResource", lambda rng: {"ResourceArn": _arn(_name(rng)), "TagKeys": ["é"]}),
    ("ListTagsOfResource", lambda rng: {"ResourceArn": _arn(_name(rng))}),
    (
        "UpdateTable",
        lambda rng: {
            "TableName": _name(rng),
            "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "OLD_IMAGE"},
        },
    ),
    (
        "UpdateTable",
        lambda rng: {"TableName": _name(rng), "StreamSpecification": {"StreamEnabled": False}},
    ),
    (_STREAMS + "ListStreams", lambda rng: {"TableName": TABLE, "Limit": 5}),
    (_STREAMS + "DescribeStream", lambda rng: {"StreamArn": _stream_arn(rng), "Limit": 3}),
    (
        _STREAMS + "GetShardIterator",
        lambda rng: {
            "StreamArn": _stream_arn(rng),
            "ShardId": "shardId-00000001700000000000-cafecafe",
            "ShardIteratorType": "AFTER_SEQUENCE_NUMBER",
            "SequenceNumber": "100000000000001000000",
        },
    ),
    (
        _STREAMS + "GetShardIterator",
        lambda rng: {
            "StreamArn": _stream_arn(rng),
            "ShardId": "shardId-00000001700000000000-cafecafe",
            "ShardIteratorType": "AT_TIMESTAMP",
            "Timestamp": 1_700_000_000.5,
        },
    ),
    (_STREAMS + "GetRecords", lambda rng: {"ShardIterator": _iterator(rng), "Limit": 10}),
    (_OURS + "ListTriggers", lambda rng: {}),
    (_OURS + "ResetTrigger", lambda rng: {"Name": "none", "Position": rng.choice(["LATEST", 1.5])}),
    (_OURS + "RedriveTrigger", lambda rng: {"Name": "none", "BatchId": "none"}),
]


def huge(rng: random.Random) -> tuple[str, bytes]:
    """A request close to the largest body, of many or large parts."""
    kind = rng.randrange(5)
    item: dict[str, Any]
    if kind == 0:
        item = {**_item(rng), "big": {"S": "x" * rng.choice([409_000, 409_600, 5_000_000])}}
        return "PutItem", _dumps({"TableName": TABLE, "Item": item})
    if kind == 1:
        many = {f"a{number}": {"NULL": True} for number in range(rng.choice([20_000, 300_000]))}
        return "PutItem", _dumps({"TableName": TABLE, "Item": {**_item(rng), **many}})
    if kind == 2:
        element = rng.choice([{"N": "1"}, {"S": ""}, {"L": []}, {"M": {}}])
        item = {**_item(rng), "list": {"L": [element] * rng.choice([50_000, 400_000])}}
        return "PutItem", _dumps({"TableName": TABLE, "Item": item})
    if kind == 3:
        count = rng.choice([5_000, 200_000])
        item = {**_item(rng), "set": {"NS": [str(number) for number in range(count)]}}
        return "PutItem", _dumps({"TableName": TABLE, "Item": item})
    puts: list[Any] = [
        {"PutRequest": {"Item": {"pk": {"S": "big"}, "sk": {"S": str(number)}}}}
        for number in range(25)
    ]
    for put in puts:
        attributes = {f"a{number}": {"S": "v"} for number in range(rng.choice([100, 2000, 25_000]))}
        put["PutRequest"]["Item"].update(attributes)
    return "BatchWriteItem", _dumps({"RequestItems": {TABLE: puts}})


def _dumps(request: dict[str, Any]) -> bytes:
    return json.dumps(request).encode()
