"""DescribeGlobalTableSettings and UpdateGlobalTableSettings."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.model.groups import Overrides, Stage
from millstream.model.schema import Status, Throughput

from .conftest import FakeRegions, FakeTables, Wire
from .test_global_tables import MISSING
from .test_replica_updates import IN_USE

OFF = {"AutoScalingDisabled": True}
WRITES = "GlobalTableProvisionedWriteCapacityUnits"
READS = "ReplicaProvisionedReadCapacityUnits"
INDEX_WRITES = "GlobalTableGlobalSecondaryIndexSettingsUpdate"
INDEX_READS = "ReplicaGlobalSecondaryIndexSettingsUpdate"


def of_region(region: str, **members: Any) -> dict[str, Any]:
    return {"RegionName": region, **members}


def writes_of_index(units: int, name: str = "gsi") -> dict[str, Any]:
    return {INDEX_WRITES: [{"IndexName": name, "ProvisionedWriteCapacityUnits": units}]}


def reads_of_index(units: int, name: str = "gsi") -> dict[str, Any]:
    return {INDEX_READS: [{"IndexName": name, "ProvisionedReadCapacityUnits": units}]}


async def change(call: Wire, table: str, *replicas: Any, **members: Any) -> Any:
    """The ReplicaSettings afterwards, by region."""
    if replicas:
        members["ReplicaSettingsUpdate"] = list(replicas)
    answer = await call("UpdateGlobalTableSettings", GlobalTableName=table, **members)
    return {each["RegionName"]: each for each in answer["ReplicaSettings"]}


async def refused(call: Wire, table: str, *replicas: Any, **members: Any) -> tuple[str, str]:
    if replicas:
        members["ReplicaSettingsUpdate"] = list(replicas)
    return await call.refusal("UpdateGlobalTableSettings", GlobalTableName=table, **members)


# -- Described -------------------------------------------------------------------------------------


async def test_settings_of_an_on_demand_table(call: Wire, replica: str) -> None:
    answer = await call("DescribeGlobalTableSettings", GlobalTableName=replica)
    assert answer["GlobalTableName"] == "things"
    assert [each["RegionName"] for each in answer["ReplicaSettings"]] == ["eu-west-1", "us-east-1"]
    assert answer["ReplicaSettings"][0] == {
        "RegionName": "eu-west-1",
        "ReplicaStatus": "ACTIVE",
        "ReplicaBillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
        "ReplicaProvisionedReadCapacityUnits": 0,
        "ReplicaProvisionedReadCapacityAutoScalingSettings": OFF,
        "ReplicaProvisionedWriteCapacityUnits": 0,
        "ReplicaProvisionedWriteCapacityAutoScalingSettings": OFF,
    }


async def test_settings_of_a_provisioned_table(
    call: Wire, tables: FakeTables, regions: FakeRegions, provisioned_replica: str
) -> None:
    regions.become(
        tables.refs["default", provisioned_replica].table,
        "eu-west-1",
        overrides=Overrides(
            read_units=20,
            index_read_units={"gsi": 30},
            table_class="STANDARD_INFREQUENT_ACCESS",
        ),
    )
    answer = await call("DescribeGlobalTableSettings", GlobalTableName=provisioned_replica)
    europe, here = answer["ReplicaSettings"]
    assert europe[READS] == 20
    assert europe["ReplicaProvisionedWriteCapacityUnits"] == 6
    assert europe["ReplicaTableClassSummary"] == {"TableClass": "STANDARD_INFREQUENT_ACCESS"}
    assert "ReplicaBillingModeSummary" not in europe
    (index,) = europe["ReplicaGlobalSecondaryIndexSettings"]
    assert (index["ProvisionedReadCapacityUnits"], index["ProvisionedWriteCapacityUnits"]) == (
        30,
        8,
    )
    assert here[READS] == 5
    (index,) = here["ReplicaGlobalSecondaryIndexSettings"]
    assert index == {
        "IndexName": "gsi",
        "IndexStatus": "ACTIVE",
        "ProvisionedReadCapacityUnits": 7,
        "ProvisionedReadCapacityAutoScalingSettings": OFF,
        "ProvisionedWriteCapacityUnits": 8,
        "ProvisionedWriteCapacityAutoScalingSettings": OFF,
    }


@pytest.mark.parametrize(
    "operation", ["DescribeGlobalTableSettings", "UpdateGlobalTableSettings"]
)
async def test_only_a_global_table_has_settings(call: Wire, things: str, operation: str) -> None:
    assert await call.refusal(operation, GlobalTableName=things) == MISSING


# -- Changed ---------------------------------------------------------------------------------------


async def test_write_units_are_of_all_regions(
    call: Wire, tables: FakeTables, regions: FakeRegions, provisioned_replica: str
) -> None:
    settings = await change(call, provisioned_replica, **{WRITES: 60}, **writes_of_index(80))
    for region in ("eu-west-1", "us-east-1"):
        assert settings[region]["ReplicaProvisionedWriteCapacityUnits"] == 60
    row = tables.refs["default", provisioned_replica].table
    assert row.throughput is not None
    assert (row.throughput.read_units, row.throughput.write_units) == (5, 60)
    assert row.global_indexes[0].throughput is not None
    assert row.global_indexes[0].throughput.write_units == 80
    assert regions.asked == []


async def test_read_units_are_each_replicas_own(
    call: Wire, tables: FakeTables, regions: FakeRegions, provisioned_replica: str
) -> None:
    await change(
        call,
        provisioned_replica,
        of_region("eu-west-1", **{READS: 20}, **reads_of_index(30)),
        of_region("us-east-1", **{READS: 50}, **reads_of_index(70)),
    )
    wanted = Overrides(read_units=20, index_read_units={"gsi": 30})
    assert regions.asked == [("update", "eu-west-1", wanted)]
    row = tables.refs["default", provisioned_replica].table
    assert row.throughput is not None
    assert (row.throughput.read_units, row.throughput.write_units) == (50, 6)
    assert row.global_indexes[0].throughput == Throughput(
        70, 8, last_increase_ms=tables.now
    )


async def test_a_table_class_is_each_replicas_own(
    call: Wire, tables: FakeTables, regions: FakeRegions, replica: str
) -> None:
    cold = {"ReplicaTableClass": "STANDARD_INFREQUENT_ACCESS"}
    await change(call, replica, of_region("eu-west-1", **cold))
    wanted = Overrides(table_class="STANDARD_INFREQUENT_ACCESS")
    assert regions.asked == [("update", "eu-west-1", wanted)]
    assert tables.refs["default", replica].table.table_class == "STANDARD"
    await change(call, replica, of_region("us-east-1", **cold))
    assert tables.refs["default", replica].table.table_class == "STANDARD_INFREQUENT_ACCESS"


async def test_what_is_so_already_changes_nothing(
    call: Wire, tables: FakeTables, regions: FakeRegions, provisioned_replica: str
) -> None:
    await change(
        call,
        provisioned_replica,
        of_region("us-east-1", **{READS: 5}),
        of_region("eu-west-1", ReplicaProvisionedReadCapacityAutoScalingSettingsUpdate=OFF),
        GlobalTableBillingMode="PROVISIONED",
        GlobalTableProvisionedWriteCapacityAutoScalingSettingsUpdate=OFF,
        **{WRITES: 6},
        **writes_of_index(8),
    )
    assert tables.changes == []
    assert regions.asked == []


async def test_the_billing_mode_is_of_all_regions(
    call: Wire, tables: FakeTables, provisioned_replica: str
) -> None:
    await change(call, provisioned_replica, GlobalTableBillingMode="PAY_PER_REQUEST")
    assert tables.refs["default", provisioned_replica].table.billing_mode == "PAY_PER_REQUEST"
    settings = await change(
        call,
        provisioned_replica,
        of_region("us-east-1", **{READS: 3}, **reads_of_index(4)),
        of_region("eu-west-1", **{READS: 30}),
        GlobalTableBillingMode="PROVISIONED",
        **{WRITES: 5},
        **writes_of_index(6),
    )
    row = tables.refs["default", provisioned_replica].table
    assert row.throughput is not None
    assert (row.throughput.read_units, row.throughput.write_units) == (3, 5)
    assert settings["eu-west-1"][READS] == 30


# -- Refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "members",
    [
        {WRITES: 5},
        {WRITES: 5, "ReplicaSettingsUpdate": [of_region("us-east-1", **{READS: 3})]},
    ],
)
async def test_a_provisioned_table_needs_all_units(
    call: Wire, tables: FakeTables, provisioned_replica: str, members: dict[str, Any]
) -> None:
    await change(call, provisioned_replica, GlobalTableBillingMode="PAY_PER_REQUEST")
    code, message = await refused(
        call, provisioned_replica, GlobalTableBillingMode="PROVISIONED", **members
    )
    assert code == "ValidationException"
    assert "must be specified for" in message
    assert len(tables.changes) == 1


async def test_a_provisioned_table_needs_some_units(call: Wire, replica: str) -> None:
    code, message = await refused(call, replica, GlobalTableBillingMode="PROVISIONED")
    assert code == "ValidationException"
    assert "must be specified for: things" in message


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({WRITES: 5}, f"'{WRITES}'"),
        (writes_of_index(5), f"'{INDEX_WRITES}'"),
        ({"ReplicaSettingsUpdate": [of_region("eu-west-1", **{READS: 5})]}, f"'{READS}'"),
        (
            {"ReplicaSettingsUpdate": [of_region("eu-west-1", **reads_of_index(5))]},
            f"'{INDEX_READS}'",
        ),
    ],
)
async def test_units_are_for_a_provisioned_table(
    call: Wire, provisioned_replica: str, members: dict[str, Any], named: str
) -> None:
    assert await refused(
        call, provisioned_replica, GlobalTableBillingMode="PAY_PER_REQUEST", **members
    ) == (
        "ValidationException",
        "Failed to update global table with name ‘provisioned‘. Replicas 'EU-WEST-1', 'US-EAST-1' "
        "BillingMode is PayPerRequest. You must convert table's BillingMode to PROVISIONED to set "
        f"parameters: {named}.",
    )


SCALING = {"MinimumUnits": 1, "MaximumUnits": 5}


@pytest.mark.parametrize(
    ("member", "members"),
    [
        (
            "GlobalTableProvisionedWriteCapacityAutoScalingSettingsUpdate",
            {"GlobalTableProvisionedWriteCapacityAutoScalingSettingsUpdate": SCALING},
        ),
        (
            "ProvisionedWriteCapacityAutoScalingSettingsUpdate",
            {
                INDEX_WRITES: [
                    {
                        "IndexName": "gsi",
                        "ProvisionedWriteCapacityAutoScalingSettingsUpdate": SCALING,
                    }
                ]
            },
        ),
        (
            "ReplicaProvisionedReadCapacityAutoScalingSettingsUpdate",
            {
                "ReplicaSettingsUpdate": [
                    of_region(
                        "eu-west-1",
                        ReplicaProvisionedReadCapacityAutoScalingSettingsUpdate=SCALING,
                    )
                ]
            },
        ),
        (
            "ProvisionedReadCapacityAutoScalingSettingsUpdate",
            {
                "ReplicaSettingsUpdate": [
                    of_region(
                        "eu-west-1",
                        ReplicaGlobalSecondaryIndexSettingsUpdate=[
                            {
                                "IndexName": "gsi",
                                "ProvisionedReadCapacityAutoScalingSettingsUpdate": SCALING,
                            }
                        ],
                    )
                ]
            },
        ),
    ],
)
async def test_auto_scaling_is_refused_in_so_many_words(
    call: Wire, provisioned_replica: str, member: str, members: dict[str, Any]
) -> None:
    code, message = await refused(call, provisioned_replica, **members)
    assert code == "ValidationException"
    assert f"{member} is not supported: millstream has no auto scaling" in message


async def test_a_replica_is_one_of_the_group(call: Wire, provisioned_replica: str) -> None:
    code, message = await refused(
        call, provisioned_replica, of_region("ap-south-1", **{READS: 5})
    )
    assert code == "ReplicaNotFoundException"
    assert "ap-south-1" in message


@pytest.mark.parametrize("place", ["here", "there", "everywhere"])
async def test_an_index_is_one_of_the_table(
    call: Wire, provisioned_replica: str, place: str
) -> None:
    region = {"here": "us-east-1", "there": "eu-west-1"}.get(place)
    if region is None:
        code, message = await refused(call, provisioned_replica, **writes_of_index(5, "nope"))
    else:
        code, message = await refused(
            call, provisioned_replica, of_region(region, **reads_of_index(5, "nope"))
        )
    assert code == "IndexNotFoundException"
    assert "nope" in message


async def test_something_is_asked_of_each_once(call: Wire, provisioned_replica: str) -> None:
    code, message = await refused(call, provisioned_replica)
    assert code == "ValidationException"
    assert message.endswith("because at least one update parameter must be specified.")
    _, message = await refused(call, provisioned_replica, of_region("eu-west-1"))
    assert message.endswith("parameter must be specified for region: ‘eu-west-1’.")
    twice = [of_region("eu-west-1", **{READS: 5})] * 2
    _, message = await refused(call, provisioned_replica, *twice)
    assert message.endswith("‘[eu-west-1]’ were specified more than once.")
    index = {"IndexName": "gsi", "ProvisionedWriteCapacityUnits": 5}
    _, message = await refused(call, provisioned_replica, **{INDEX_WRITES: [index, index]})
    assert "'gsi' was specified more than once" in message


async def test_units_have_bounds(call: Wire, tables: FakeTables, provisioned_replica: str) -> None:
    much = 10**12 + 1
    for replicas, members in (
        ([], {WRITES: much}),
        ([of_region("us-east-1", **{READS: much})], {}),
        ([of_region("eu-west-1", **{READS: much})], {WRITES: 7}),
        ([of_region("eu-west-1", **reads_of_index(much))], {}),
    ):
        code, message = await refused(call, provisioned_replica, *replicas, **members)
        assert code == "ValidationException"
        assert "out of bounds" in message
    assert tables.changes == []


async def test_one_thing_after_the_other(
    call: Wire, tables: FakeTables, regions: FakeRegions, provisioned_replica: str
) -> None:
    row = tables.refs["default", provisioned_replica].table
    regions.become(row, "eu-west-1", stage=Stage.DELETING)
    assert await refused(call, provisioned_replica, **{WRITES: 7}) == IN_USE
    regions.become(row, "eu-west-1", stage=Stage.ACTIVE)
    tables.become(provisioned_replica, status=Status.UPDATING)
    code, _ = await refused(call, provisioned_replica, **{WRITES: 7})
    assert code == "ResourceInUseException"
