"""The table operations end to end, over tables in memory: states, answers, pages."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.actors.tables import TableStatistics, TreeStatistics
from millstream.api.operations.service import describe_endpoints, describe_limits
from millstream.api.operations.tables import (
    create_table,
    delete_table,
    describe_table,
    list_tables,
    update_table,
)
from millstream.errors import InvalidRequest, ResourceInUse, ResourceNotFound
from millstream.model.schema import Status

NOW = 1_700_000_000.0
ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/things"
PLAIN: dict[str, Any] = {
    "TableName": "things",
    "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
    "BillingMode": "PAY_PER_REQUEST",
}
INDEXED: dict[str, Any] = {
    "TableName": "things",
    "AttributeDefinitions": [
        {"AttributeName": "pk", "AttributeType": "S"},
        {"AttributeName": "sk", "AttributeType": "S"},
    ],
    "KeySchema": [
        {"AttributeName": "pk", "KeyType": "HASH"},
        {"AttributeName": "sk", "KeyType": "RANGE"},
    ],
    "ProvisionedThroughput": {"ReadCapacityUnits": 5, "WriteCapacityUnits": 6},
    "LocalSecondaryIndexes": [
        {
            "IndexName": "lsi",
            "KeySchema": [
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }
    ],
    "GlobalSecondaryIndexes": [
        {
            "IndexName": "gsi",
            "KeySchema": [{"AttributeName": "sk", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["x"]},
            "ProvisionedThroughput": {"ReadCapacityUnits": 7, "WriteCapacityUnits": 8},
        }
    ],
}
NOT_FOUND = "Requested resource not found: Table: things not found"


async def test_the_answer_to_a_creation(call: Any) -> None:
    assert await call(create_table, **PLAIN) == {
        "TableDescription": {
            "AttributeDefinitions": PLAIN["AttributeDefinitions"],
            "TableName": "things",
            "KeySchema": PLAIN["KeySchema"],
            "TableStatus": "CREATING",
            "CreationDateTime": NOW,
            "ProvisionedThroughput": {
                "NumberOfDecreasesToday": 0,
                "ReadCapacityUnits": 0,
                "WriteCapacityUnits": 0,
            },
            "TableSizeBytes": 0,
            "ItemCount": 0,
            "TableArn": ARN,
            "TableId": "id-of-things",
            "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
            "TableThroughputModeSummary": {"TableThroughputMode": "PAY_PER_REQUEST"},
            "DeletionProtectionEnabled": False,
            "WarmThroughput": {
                "ReadUnitsPerSecond": 12_000,
                "WriteUnitsPerSecond": 4_000,
                "Status": "UPDATING",
            },
        }
    }


async def test_a_table_with_indexes_described(call: Any, tables: Any) -> None:
    await call(create_table, **INDEXED)
    tables.refs["default", "things"].counted = TableStatistics(
        3, 300, {"lsi": TreeStatistics(2, 20), "gsi": TreeStatistics(1, 10)}
    )
    assert await call(describe_table, TableName=ARN) == {
        "Table": {
            "AttributeDefinitions": INDEXED["AttributeDefinitions"],
            "TableName": "things",
            "KeySchema": INDEXED["KeySchema"],
            "TableStatus": "ACTIVE",
            "CreationDateTime": NOW,
            "ProvisionedThroughput": {
                "NumberOfDecreasesToday": 0,
                "ReadCapacityUnits": 5,
                "WriteCapacityUnits": 6,
            },
            "TableSizeBytes": 300,
            "ItemCount": 3,
            "TableArn": ARN,
            "TableId": "id-of-things",
            "DeletionProtectionEnabled": False,
            "LocalSecondaryIndexes": [
                {
                    **INDEXED["LocalSecondaryIndexes"][0],
                    "IndexArn": ARN + "/index/lsi",
                    "IndexSizeBytes": 20,
                    "ItemCount": 2,
                }
            ],
            "GlobalSecondaryIndexes": [
                {
                    **INDEXED["GlobalSecondaryIndexes"][0],
                    "IndexStatus": "ACTIVE",
                    "IndexArn": ARN + "/index/gsi",
                    "IndexSizeBytes": 10,
                    "ItemCount": 1,
                    "ProvisionedThroughput": {
                        "NumberOfDecreasesToday": 0,
                        "ReadCapacityUnits": 7,
                        "WriteCapacityUnits": 8,
                    },
                    "WarmThroughput": {
                        "ReadUnitsPerSecond": 7,
                        "WriteUnitsPerSecond": 8,
                        "Status": "ACTIVE",
                    },
                }
            ],
            "WarmThroughput": {
                "ReadUnitsPerSecond": 5,
                "WriteUnitsPerSecond": 6,
                "Status": "ACTIVE",
            },
        }
    }


async def test_an_active_on_demand_table_tells_since_when(call: Any) -> None:
    await call(create_table, **PLAIN)
    table = (await call(describe_table, TableName="things"))["Table"]
    assert table["BillingModeSummary"] == {
        "BillingMode": "PAY_PER_REQUEST",
        "LastUpdateToPayPerRequestDateTime": NOW,
    }


async def test_settings_are_described(call: Any) -> None:
    await call(
        create_table,
        **PLAIN,
        OnDemandThroughput={"MaxReadRequestUnits": 5},
        TableClass="STANDARD_INFREQUENT_ACCESS",
        DeletionProtectionEnabled=True,
    )
    table = (await call(describe_table, TableName="things"))["Table"]
    assert table["OnDemandThroughput"] == {"MaxReadRequestUnits": 5}
    assert table["TableClassSummary"] == {"TableClass": "STANDARD_INFREQUENT_ACCESS"}
    assert table["DeletionProtectionEnabled"] is True


async def test_a_tables_name_is_taken(call: Any) -> None:
    await call(create_table, **PLAIN)
    with pytest.raises(ResourceInUse, match="Table already exists: things"):
        await call(create_table, **PLAIN)


@pytest.mark.parametrize("operation", [describe_table, delete_table])
async def test_no_such_table(call: Any, operation: Any) -> None:
    with pytest.raises(ResourceNotFound, match=NOT_FOUND):
        await call(operation, TableName="things")


async def test_updating_no_such_table(call: Any) -> None:
    with pytest.raises(ResourceNotFound, match=NOT_FOUND):
        await call(update_table, TableName="things", DeletionProtectionEnabled=True)


async def test_an_update_is_described(call: Any) -> None:
    await call(create_table, **INDEXED)
    answer = await call(
        update_table,
        TableName="things",
        ProvisionedThroughput={"ReadCapacityUnits": 9, "WriteCapacityUnits": 1},
    )
    assert answer["TableDescription"]["ProvisionedThroughput"] == {
        "NumberOfDecreasesToday": 1,
        "ReadCapacityUnits": 9,
        "WriteCapacityUnits": 1,
        "LastIncreaseDateTime": NOW,
        "LastDecreaseDateTime": NOW,
    }


async def test_the_decreases_of_another_day_are_not_todays(call: Any, tables: Any) -> None:
    await call(create_table, **INDEXED)
    units = {"ReadCapacityUnits": 1, "WriteCapacityUnits": 1}
    await call(update_table, TableName="things", ProvisionedThroughput=units)
    tables.now += 86_400_000
    table = (await call(describe_table, TableName="things"))["Table"]
    assert table["ProvisionedThroughput"]["NumberOfDecreasesToday"] == 0


async def test_an_index_being_built_is_described(call: Any) -> None:
    await call(create_table, **PLAIN)
    answer = await call(
        update_table,
        TableName="things",
        AttributeDefinitions=[{"AttributeName": "x", "AttributeType": "S"}],
        GlobalSecondaryIndexUpdates=[
            {
                "Create": {
                    "IndexName": "gsi",
                    "KeySchema": [{"AttributeName": "x", "KeyType": "HASH"}],
                    "Projection": {"ProjectionType": "ALL"},
                }
            }
        ],
    )
    description = answer["TableDescription"]
    assert description["TableStatus"] == "UPDATING"
    (index,) = description["GlobalSecondaryIndexes"]
    assert index["IndexStatus"] == "CREATING"
    assert index["Backfilling"] is True


async def test_an_index_being_deleted_is_described(call: Any) -> None:
    await call(create_table, **INDEXED)
    answer = await call(
        update_table,
        TableName="things",
        GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": "gsi"}}],
    )
    (index,) = answer["TableDescription"]["GlobalSecondaryIndexes"]
    assert index["IndexStatus"] == "DELETING"
    assert "Backfilling" not in index


@pytest.mark.parametrize(
    ("status", "word"),
    [(Status.CREATING, "created"), (Status.UPDATING, "updated"), (Status.DELETING, "deleted")],
)
async def test_only_an_active_table_is_changed(
    call: Any, tables: Any, status: Status, word: str
) -> None:
    await call(create_table, **PLAIN)
    tables.become("things", status=status)
    with pytest.raises(ResourceInUse, match=f"Table is being {word}: things"):
        await call(update_table, TableName="things", DeletionProtectionEnabled=True)


@pytest.mark.parametrize(
    ("status", "word"), [(Status.CREATING, "created"), (Status.UPDATING, "updated")]
)
async def test_a_table_in_the_making_is_not_deleted(
    call: Any, tables: Any, status: Status, word: str
) -> None:
    await call(create_table, **PLAIN)
    tables.become("things", status=status)
    with pytest.raises(ResourceInUse, match=f"Table is being {word}: things"):
        await call(delete_table, TableName="things")


async def test_the_answer_to_a_deletion(call: Any) -> None:
    await call(create_table, **INDEXED)
    description = (await call(delete_table, TableName="things"))["TableDescription"]
    assert description["TableStatus"] == "DELETING"
    assert "GlobalSecondaryIndexes" not in description


async def test_deleting_twice_is_no_error(call: Any) -> None:
    await call(create_table, **PLAIN)
    await call(delete_table, TableName="things")
    answer = await call(delete_table, TableName="things")
    assert answer["TableDescription"]["TableStatus"] == "DELETING"


async def test_a_protected_table_is_not_deleted(call: Any) -> None:
    await call(create_table, **PLAIN, DeletionProtectionEnabled=True)
    with pytest.raises(InvalidRequest, match="currently protected against deletion"):
        await call(delete_table, TableName="things")


async def test_tables_are_listed_in_pages(call: Any) -> None:
    for name in ("b-2", "A_1", "c.3"):
        await call(create_table, **{**PLAIN, "TableName": name})
    assert await call(list_tables) == {"TableNames": ["A_1", "b-2", "c.3"]}
    assert await call(list_tables, Limit=2) == {
        "TableNames": ["A_1", "b-2"],
        "LastEvaluatedTableName": "b-2",
    }
    assert await call(list_tables, Limit=2, ExclusiveStartTableName="b-2") == {
        "TableNames": ["c.3"]
    }
    # The start need not exist.
    assert await call(list_tables, ExclusiveStartTableName="b-1") == {"TableNames": ["b-2", "c.3"]}


async def test_a_page_that_ends_with_the_last_table_is_the_last(call: Any) -> None:
    await call(create_table, **PLAIN)
    assert await call(list_tables, Limit=1) == {"TableNames": ["things"]}


async def test_tables_of_other_namespaces_are_not_seen(call: Any, tables: Any) -> None:
    await call(create_table, **PLAIN)
    tables.refs["other", "theirs"] = tables.refs.pop(("default", "things"))
    assert await call(list_tables) == {"TableNames": []}
    with pytest.raises(ResourceNotFound):
        await call(describe_table, TableName="theirs")


async def test_limits(call: Any) -> None:
    assert await call(describe_limits) == {
        "AccountMaxReadCapacityUnits": 80_000,
        "AccountMaxWriteCapacityUnits": 80_000,
        "TableMaxReadCapacityUnits": 40_000,
        "TableMaxWriteCapacityUnits": 40_000,
    }


async def test_the_endpoint_never_leaves_the_machine(call: Any) -> None:
    assert await call(describe_endpoints) == {
        "Endpoints": [{"Address": "dynamodb.us-east-1.localhost", "CachePeriodInMinutes": 1440}]
    }
