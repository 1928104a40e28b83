"""A table that is a replica: how it is described, what else it refuses, and how it is deleted."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.model.groups import Overrides, Stage
from millstream.model.schema import StreamSettings, UnitLimits

from .conftest import IS_RECENT, FakeRegions, FakeTables, Wire, update
from .test_replica_updates import EUROPE, IN_USE, INDIA

DISABLED = {"StreamEnabled": False}
WARM = {"ReadUnitsPerSecond": 12000, "WriteUnitsPerSecond": 4000, "Status": "ACTIVE"}


async def describe(call: Wire, table: str) -> Any:
    return (await call("DescribeTable", TableName=table))["Table"]


class Replica:
    """The row of a table, and its member in a region, to be changed by hand."""

    def __init__(self, tables: FakeTables, regions: FakeRegions, name: str) -> None:
        self._tables = tables
        self._regions = regions
        self._name = name

    def table(self, **fields: Any) -> None:
        self._tables.become(self._name, **fields)

    def member(self, region: str, **fields: Any) -> None:
        row = self._tables.refs["default", self._name].table
        self._regions.become(row, region, **fields)


@pytest.fixture
def hand(tables: FakeTables, regions: FakeRegions, replica: str) -> Replica:
    return Replica(tables, regions, replica)


@pytest.fixture
def provisioned_hand(
    tables: FakeTables, regions: FakeRegions, provisioned_replica: str
) -> Replica:
    return Replica(tables, regions, provisioned_replica)


# -- Described -------------------------------------------------------------------------------------


async def test_a_table_on_its_own_is_described_as_ever(call: Wire, things: str) -> None:
    table = await describe(call, things)
    for member in ("GlobalTableVersion", "Replicas", "GlobalTableSettingsReplicationMode"):
        assert member not in table
    assert "DisassociationProtectionEnabled" not in table


async def test_the_other_replicas_are_listed(call: Wire, replica: str) -> None:
    table = await describe(call, replica)
    assert table["TableStatus"] == "ACTIVE"
    assert table["GlobalTableVersion"] == "2019.11.21"
    assert table["GlobalTableSettingsReplicationMode"] == "ENABLED_WITH_OVERRIDES"
    # What is as here is absent: so AWS was recorded, without ReplicaArn.
    assert table["Replicas"] == [
        {
            "RegionName": "eu-west-1",
            "ReplicaStatus": "ACTIVE",
            "GlobalTableSettingsReplicationMode": "ENABLED_WITH_OVERRIDES",
            "WarmThroughput": WARM,
        }
    ]
    if IS_RECENT:
        assert table["DisassociationProtectionEnabled"] is True


async def test_three_regions(call: Wire, regions: FakeRegions, replica: str) -> None:
    await update(call, replica, Create=INDIA)
    table = await describe(call, replica)
    told = [(each["RegionName"], each["ReplicaStatus"]) for each in table["Replicas"]]
    assert told == [("ap-south-1", "CREATING"), ("eu-west-1", "ACTIVE")]
    assert table["TableStatus"] == "UPDATING"
    regions.settle()
    assert (await describe(call, replica))["TableStatus"] == "ACTIVE"


@pytest.mark.parametrize(
    ("stage", "replica_status", "table_status"),
    [
        (Stage.CREATING, "CREATING", "UPDATING"),
        (Stage.FAILED, "CREATION_FAILED", "ACTIVE"),
        (Stage.ACTIVE, "ACTIVE", "ACTIVE"),
        (Stage.DISASSOCIATING, "UPDATING", "UPDATING"),
        (Stage.DELETING, "DELETING", "UPDATING"),
    ],
)
async def test_the_stage_of_a_replica(
    call: Wire, hand: Replica, stage: Stage, replica_status: str, table_status: str
) -> None:
    hand.member("eu-west-1", stage=stage)
    table = await describe(call, "things")
    assert table["Replicas"][0]["ReplicaStatus"] == replica_status
    assert table["TableStatus"] == table_status


async def test_why_a_replica_could_not_be_made(call: Wire, hand: Replica) -> None:
    hand.member("eu-west-1", stage=Stage.FAILED, reason="A table of that name is there.")
    assert (await describe(call, "things"))["Replicas"] == [
        {
            "RegionName": "eu-west-1",
            "ReplicaStatus": "CREATION_FAILED",
            "ReplicaStatusDescription": "A table of that name is there.",
            "GlobalTableSettingsReplicationMode": "ENABLED_WITH_OVERRIDES",
        }
    ]


@pytest.mark.parametrize(
    ("stage", "status"),
    [
        (Stage.CREATING, "CREATING"),
        (Stage.DISASSOCIATING, "UPDATING"),
        (Stage.DELETING, "DELETING"),
    ],
)
async def test_the_stage_of_this_region(
    call: Wire, hand: Replica, stage: Stage, status: str
) -> None:
    hand.member("us-east-1", stage=stage)
    table = await describe(call, "things")
    assert table["TableStatus"] == status
    assert [each["RegionName"] for each in table["Replicas"]] == ["eu-west-1"]


@pytest.mark.parametrize("stage", [Stage.FAILED, Stage.GONE])
async def test_who_is_no_member_sees_no_group(call: Wire, hand: Replica, stage: Stage) -> None:
    # FAILED: the table of that name which was there before, and has nothing to do with it.
    hand.member("us-east-1", stage=stage)
    table = await describe(call, "things")
    assert table["TableStatus"] == "ACTIVE"
    assert "Replicas" not in table


async def test_overrides_of_a_provisioned_replica(
    call: Wire, provisioned_replica: str, provisioned_hand: Replica
) -> None:
    provisioned_hand.member(
        "eu-west-1", overrides=Overrides(read_units=20, index_read_units={"gsi": 30})
    )
    (told,) = (await describe(call, provisioned_replica))["Replicas"]
    assert told["ProvisionedThroughputOverride"] == {"ReadCapacityUnits": 20}
    assert told["WarmThroughput"]["ReadUnitsPerSecond"] == 20
    (index,) = told["GlobalSecondaryIndexes"]
    assert index["IndexName"] == "gsi"
    assert index["ProvisionedThroughputOverride"] == {"ReadCapacityUnits": 30}
    assert index["WarmThroughput"]["WriteUnitsPerSecond"] == 8


async def test_an_override_that_equals_the_table_is_none(
    call: Wire, provisioned_replica: str, provisioned_hand: Replica
) -> None:
    provisioned_hand.member(
        "eu-west-1", overrides=Overrides(read_units=5, index_read_units={"gsi": 7})
    )
    (told,) = (await describe(call, provisioned_replica))["Replicas"]
    assert "ProvisionedThroughputOverride" not in told
    assert set(told["GlobalSecondaryIndexes"][0]) == {"IndexName", "WarmThroughput"}


async def test_on_demand_limits_of_a_replica(call: Wire, hand: Replica) -> None:
    async def told() -> Any:
        (replica,) = (await describe(call, "things"))["Replicas"]
        return replica.get("OnDemandThroughputOverride")

    hand.member("eu-west-1", overrides=Overrides(read_units_max=100))
    assert await told() == {"MaxReadRequestUnits": 100}
    hand.member("eu-west-1", overrides=Overrides(read_units_max=-1))
    assert await told() is None
    hand.table(unit_limits=UnitLimits(100, None))
    assert await told() == {"MaxReadRequestUnits": -1}
    hand.member("eu-west-1", overrides=Overrides(read_units_max=100))
    assert await told() is None


async def test_the_class_of_a_replica(call: Wire, hand: Replica) -> None:
    async def told() -> Any:
        (replica,) = (await describe(call, "things"))["Replicas"]
        return replica.get("ReplicaTableClassSummary")

    assert await told() is None
    hand.member("eu-west-1", overrides=Overrides(table_class="STANDARD"))
    assert await told() == {"TableClass": "STANDARD"}
    hand.member("eu-west-1", overrides=Overrides())
    hand.table(table_class="STANDARD_INFREQUENT_ACCESS")
    assert await told() == {"TableClass": "STANDARD_INFREQUENT_ACCESS"}


# -- Changed ---------------------------------------------------------------------------------------


async def test_other_settings_are_changed_as_ever(
    call: Wire, tables: FakeTables, replica: str
) -> None:
    await call("UpdateTable", TableName=replica, DeletionProtectionEnabled=True)
    assert tables.refs["default", replica].table.deletion_protection


async def test_the_stream_of_a_replica_stays(
    call: Wire, tables: FakeTables, regions: FakeRegions, replica: str
) -> None:
    tables.become(replica, stream=StreamSettings("NEW_AND_OLD_IMAGES", "label"))
    asked = {"TableName": replica, "StreamSpecification": DISABLED}
    sentence = (
        "ValidationException",
        "One or more parameter values were invalid: Disabling Stream is not allowed for a Global "
        "Table replica.",
    )
    assert await call.refusal("UpdateTable", **asked) == sentence
    await update(call, replica, Delete=EUROPE)
    assert await call.refusal("UpdateTable", **asked) == sentence
    regions.settle()
    await call("UpdateTable", **asked)
    assert tables.changes[-1].disable_stream


async def test_the_view_of_a_replicas_stream_stays(
    call: Wire, tables: FakeTables, replica: str
) -> None:
    tables.become(replica, stream=StreamSettings("NEW_AND_OLD_IMAGES", "label"))
    stream = {"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}
    assert await call.refusal("UpdateTable", TableName=replica, StreamSpecification=stream) == (
        "ValidationException", "Table already has an enabled stream: TableName: things",
    )  # fmt: skip


@pytest.mark.parametrize("stage", [Stage.CREATING, Stage.DISASSOCIATING, Stage.DELETING])
async def test_a_table_is_not_changed_while_a_region_comes_or_goes(
    call: Wire, hand: Replica, stage: Stage
) -> None:
    hand.member("eu-west-1", stage=stage)
    asked = {"TableName": "things", "DeletionProtectionEnabled": True}
    assert await call.refusal("UpdateTable", **asked) == IN_USE


async def test_a_replica_that_is_being_filled_is_not_there_to_change(
    call: Wire, hand: Replica
) -> None:
    hand.member("us-east-1", stage=Stage.CREATING)
    asked = {"TableName": "things", "DeletionProtectionEnabled": True}
    assert await call.refusal("UpdateTable", **asked) == (
        "ResourceNotFoundException", "Requested resource not found: Table: things not found",
    )  # fmt: skip


async def test_the_protection_against_leaving_is_each_replicas_own(
    call: Wire, replica: str
) -> None:
    for wanted in (False, True):
        await call("UpdateTable", TableName=replica, DisassociationProtectionEnabled=wanted)
        table = await describe(call, replica)
        assert table.get("DisassociationProtectionEnabled", wanted) is wanted


async def test_the_protection_against_leaving_is_changed_alone(call: Wire, replica: str) -> None:
    code, message = await call.refusal(
        "UpdateTable",
        TableName=replica,
        DisassociationProtectionEnabled=False,
        TableClass="STANDARD",
    )
    assert code == "ValidationException"
    assert "must be the only operation" in message


async def test_only_a_replica_is_protected_against_leaving(call: Wire, things: str) -> None:
    code, message = await call.refusal(
        "UpdateTable", TableName=things, DisassociationProtectionEnabled=False
    )
    assert code == "ValidationException"
    assert "for a Global Table replica" in message


async def test_several_accounts_are_refused_at_creation(call: Wire) -> None:
    for member, value in (
        ("GlobalTableSourceArn", "arn:aws:dynamodb:us-east-1:000000000000:table/source"),
        ("GlobalTableSettingsReplicationMode", "ENABLED"),
    ):
        _, message = await call.refusal(
            "CreateTable",
            TableName="things",
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
            **{member: value},
        )
        assert f"{member} is not supported" in message


# -- Deleted ---------------------------------------------------------------------------------------


async def test_a_replica_is_deleted_from_its_own_region(
    call: Wire, regions: FakeRegions, replica: str
) -> None:
    answer = await call("DeleteTable", TableName=replica)
    assert regions.asked == [("remove", "us-east-1", False)]
    description = answer["TableDescription"]
    assert description["TableStatus"] == "DELETING"
    assert [each["ReplicaStatus"] for each in description["Replicas"]] == ["ACTIVE"]


async def test_a_replica_that_is_being_deleted_may_be_deleted(
    call: Wire, regions: FakeRegions, replica: str
) -> None:
    await call("DeleteTable", TableName=replica)
    answer = await call("DeleteTable", TableName=replica)
    assert answer["TableDescription"]["TableStatus"] == "DELETING"
    assert len(regions.asked) == 1


async def test_the_last_replica_is_an_ordinary_table(
    call: Wire, tables: FakeTables, regions: FakeRegions, replica: str
) -> None:
    await update(call, replica, Delete=EUROPE)
    regions.settle()
    regions.asked.clear()
    await call("DeleteTable", TableName=replica)
    assert regions.asked == []
    assert tables.refs["default", replica].table.status.value == "DELETING"


async def test_a_protected_replica_stays(call: Wire, replica: str) -> None:
    await call("UpdateTable", TableName=replica, DeletionProtectionEnabled=True)
    code, message = await call.refusal("DeleteTable", TableName=replica)
    assert code == "ValidationException"
    assert "protected against deletion" in message


@pytest.mark.parametrize("stage", [Stage.CREATING, Stage.DISASSOCIATING, Stage.DELETING])
async def test_a_replica_is_not_deleted_while_another_comes_or_goes(
    call: Wire, hand: Replica, stage: Stage
) -> None:
    hand.member("eu-west-1", stage=stage)
    assert await call.refusal("DeleteTable", TableName="things") == IN_USE


async def test_a_replica_is_not_deleted_while_it_is_filled(call: Wire, hand: Replica) -> None:
    hand.member("us-east-1", stage=Stage.CREATING)
    assert await call.refusal("DeleteTable", TableName="things") == (
        "ResourceInUseException",
        "Attempt to change a resource which is still in use: Table: things is being used.",
    )
