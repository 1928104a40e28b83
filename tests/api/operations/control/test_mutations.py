"""Requests that were valid and then damaged: refused in an orderly way, or understood."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from millstream.api.operations.tables_changes import change, check_request
from millstream.api.operations.tables_creation import new_table
from millstream.api.operations.tables_settings import tags
from millstream.api.validation import read
from millstream.errors import RequestError
from millstream.model.schema import GlobalIndex, KeyAttribute, KeySchema, Projection, Status, Table

CREATE: dict[str, Any] = {
    "TableName": "things",
    "AttributeDefinitions": [
        {"AttributeName": "pk", "AttributeType": "S"},
        {"AttributeName": "sk", "AttributeType": "N"},
    ],
    "KeySchema": [
        {"AttributeName": "pk", "KeyType": "HASH"},
        {"AttributeName": "sk", "KeyType": "RANGE"},
    ],
    "BillingMode": "PROVISIONED",
    "ProvisionedThroughput": {"ReadCapacityUnits": 1, "WriteCapacityUnits": 1},
    "LocalSecondaryIndexes": [
        {
            "IndexName": "lsi",
            "KeySchema": [
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["x"]},
        }
    ],
    "GlobalSecondaryIndexes": [
        {
            "IndexName": "gsi",
            "KeySchema": [{"AttributeName": "sk", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "ALL"},
            "ProvisionedThroughput": {"ReadCapacityUnits": 1, "WriteCapacityUnits": 1},
            "WarmThroughput": {"ReadUnitsPerSecond": 5},
        }
    ],
    "StreamSpecification": {"StreamEnabled": False},
    "SSESpecification": {"Enabled": False},
    "OnDemandThroughput": None,
    "WarmThroughput": {"ReadUnitsPerSecond": 5, "WriteUnitsPerSecond": 5},
    "Tags": [{"Key": "a", "Value": "b"}],
}
UPDATE: dict[str, Any] = {
    "TableName": "things",
    "AttributeDefinitions": [{"AttributeName": "x", "AttributeType": "S"}],
    "BillingMode": "PROVISIONED",
    "ProvisionedThroughput": {"ReadCapacityUnits": 2, "WriteCapacityUnits": 1},
    "GlobalSecondaryIndexUpdates": [
        {
            "Create": {
                "IndexName": "new",
                "KeySchema": [{"AttributeName": "x", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
                "ProvisionedThroughput": {"ReadCapacityUnits": 1, "WriteCapacityUnits": 1},
            }
        },
        {
            "Update": {
                "IndexName": "gsi",
                "ProvisionedThroughput": {"ReadCapacityUnits": 2, "WriteCapacityUnits": 1},
            }
        },
    ],
    "TableClass": "STANDARD",
    "DeletionProtectionEnabled": True,
    "WarmThroughput": {"ReadUnitsPerSecond": 12_000},
}
SK = KeyAttribute("sk", "N")
TABLE = Table(
    namespace="default",
    name="things",
    table_id="id",
    status=Status.ACTIVE,
    created_ms=0,
    key=KeySchema((KeyAttribute("pk", "S"),), (SK,)),
    attribute_kinds={"pk": "S", "sk": "N"},
    tree=1,
    partitions=(),
    global_indexes=(
        GlobalIndex("gsi", KeySchema((SK,)), Projection("ALL"), 2, (), Status.ACTIVE),
    ),
    billing_mode="PAY_PER_REQUEST",
)

odd = st.sampled_from(
    [None, True, 0, -1, 1 << 40, 1 << 65, 1.5, "", "x", "pk", "sk", "gsi", "HASH", [], {}, [None],
     [{}], {"x": 1}, "PAY_PER_REQUEST", "KEYS_ONLY", "aws:x"]
)  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    found: list[tuple[Any, Any]] = []
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in entries:
        found.append((value, key))
        if isinstance(inner, dict | list):
            found += places(inner)
    return found


@st.composite
def damaged(draw: st.DrawFn, original: dict[str, Any]) -> bytes:
    """``original`` with one to three members removed, repeated or replaced."""
    request = copy.deepcopy(original)
    for _ in range(draw(st.integers(1, 3))):
        container, key = draw(st.sampled_from(places(request)))
        match draw(st.sampled_from(["replace", "remove", "repeat"])):
            case "remove":
                del container[key]
            case "repeat" if isinstance(container, list):
                container.append(copy.deepcopy(container[key]))
            case _:
                container[key] = copy.deepcopy(draw(odd))
        if not request:
            break
    return msgspec.json.encode(request)


@given(damaged(CREATE))
def test_a_damaged_creation_is_understood_or_refused(body: bytes) -> None:
    try:
        made = new_table(read("CreateTable", body), "default")
    except RequestError:
        return
    # What was understood holds together.
    names = {name for key in [made.key, *(each.key for each in made.global_indexes)]
             for name in key.names()}  # fmt: skip
    assert names <= made.attribute_kinds.keys()
    assert (made.throughput is None) == (made.billing_mode == "PAY_PER_REQUEST")


@given(damaged(UPDATE))
def test_a_damaged_update_is_understood_or_refused(body: bytes) -> None:
    try:
        request = read("UpdateTable", body)
        check_request(request)
        made = change(request, TABLE, 1_000_000)
    except RequestError:
        return
    assert (made.table.throughput is None) == (made.table.billing_mode == "PAY_PER_REQUEST")
    assert made.create_index is None or made.delete_index is None


@given(damaged({"ResourceArn": "arn", "Tags": CREATE["Tags"]}))
def test_damaged_tags_are_understood_or_refused(body: bytes) -> None:
    try:
        request = read("TagResource", body)
        tags(request["Tags"])
    except RequestError:
        return


def test_the_originals_are_valid() -> None:
    made = new_table(read("CreateTable", msgspec.json.encode(CREATE)), "default")
    assert made.name == "things"
    request = read("UpdateTable", msgspec.json.encode(UPDATE))
    check_request(request)
    assert change(request, TABLE, 1_000_000).create_index is not None
