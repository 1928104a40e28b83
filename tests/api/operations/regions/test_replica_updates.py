"""UpdateTable's ReplicaUpdates: one test for each rule, in the words that AWS was recorded with."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.limits import CAPACITY_UNITS_MAX
from millstream.model.groups import Overrides, Stage
from millstream.model.schema import Status

from .conftest import FakeRegions, FakeTables, Wire, refused, update

EUROPE = {"RegionName": "eu-west-1"}
INDIA = {"RegionName": "ap-south-1"}
HERE = {"RegionName": "us-east-1"}
DISASSOCIATE = {**HERE, "DisassociationMode": "WAIT_FOR_REPLICATION"}
IN_USE = (
    "ResourceInUseException",
    "The resource which you are attempting to change is in use.",
)
NOTHING = "There are no actions specified in the Replica Update Action of the request."
EXISTS = (
    "Failed to create a the new replica of table with name: ‘things’ because one or more replicas "
    "already existed as tables."
)


def read_units(units: int) -> dict[str, Any]:
    return {"ProvisionedThroughputOverride": {"ReadCapacityUnits": units}}


def read_units_max(units: int) -> dict[str, Any]:
    return {"OnDemandThroughputOverride": {"MaxReadRequestUnits": units}}


# -- What is done ----------------------------------------------------------------------------------


async def test_a_replica_is_made(call: Wire, regions: FakeRegions, things: str) -> None:
    description = await update(call, things, Create=EUROPE)
    assert regions.asked == [("add", "eu-west-1", Overrides())]
    assert description["TableStatus"] == "UPDATING"
    assert [each["ReplicaStatus"] for each in description["Replicas"]] == ["CREATING"]


async def test_a_provisioned_table_may_have_replicas(
    call: Wire, regions: FakeRegions, provisioned: str
) -> None:
    # AWS asks for auto scaling of the writes first, which cannot be configured here.
    await update(call, provisioned, Create=EUROPE)
    assert regions.asked == [("add", "eu-west-1", Overrides())]


async def test_consistency_may_be_spelled_out(call: Wire, things: str) -> None:
    answer = await call(
        "UpdateTable",
        TableName=things,
        ReplicaUpdates=[{"Create": EUROPE}],
        MultiRegionConsistency="EVENTUAL",
    )
    assert "MultiRegionConsistency" not in answer["TableDescription"]


async def test_the_same_creation_twice_is_one(
    call: Wire, regions: FakeRegions, things: str
) -> None:
    await call("UpdateTable", TableName=things, ReplicaUpdates=[{"Create": EUROPE}] * 2)
    assert regions.asked == [("add", "eu-west-1", Overrides())]


async def test_a_replica_is_made_with_overrides(
    call: Wire, regions: FakeRegions, provisioned: str
) -> None:
    index = {"IndexName": "gsi", **read_units(30)}
    create = {
        **EUROPE,
        **read_units(20),
        "GlobalSecondaryIndexes": [index],
        "TableClassOverride": "STANDARD_INFREQUENT_ACCESS",
    }
    await update(call, provisioned, Create=create)
    wanted = Overrides(
        read_units=20, index_read_units={"gsi": 30}, table_class="STANDARD_INFREQUENT_ACCESS"
    )
    assert regions.asked == [("add", "eu-west-1", wanted)]


async def test_a_replica_may_be_made_with_units_that_do_not_count_yet(
    call: Wire, regions: FakeRegions, things: str
) -> None:
    await update(call, things, Create={**EUROPE, **read_units(9), **read_units_max(50)})
    assert regions.asked == [("add", "eu-west-1", Overrides(read_units=9, read_units_max=50))]


async def test_an_update_keeps_what_it_does_not_name(
    call: Wire, regions: FakeRegions, provisioned_replica: str
) -> None:
    await update(call, provisioned_replica, Update={**EUROPE, **read_units(20)})
    index = {"IndexName": "gsi", **read_units(30)}
    await update(
        call, provisioned_replica, Update={**EUROPE, "GlobalSecondaryIndexes": [index]}
    )
    assert regions.asked[-1] == (
        "update", "eu-west-1", Overrides(read_units=20, index_read_units={"gsi": 30}),
    )  # fmt: skip


async def test_an_on_demand_limit_is_overridden(
    call: Wire, regions: FakeRegions, replica: str
) -> None:
    await update(call, replica, Update={**EUROPE, **read_units_max(100)})
    assert regions.asked == [("update", "eu-west-1", Overrides(read_units_max=100))]
    await update(call, replica, Update={**EUROPE, **read_units_max(-1)})
    assert regions.asked[-1] == ("update", "eu-west-1", Overrides(read_units_max=-1))


async def test_an_indexs_on_demand_limit_is_overridden(
    call: Wire, tables: FakeTables, regions: FakeRegions, provisioned_replica: str
) -> None:
    await call("UpdateTable", TableName=provisioned_replica, BillingMode="PAY_PER_REQUEST")
    index = {"IndexName": "gsi", **read_units_max(40)}
    await update(
        call, provisioned_replica, Update={**EUROPE, "GlobalSecondaryIndexes": [index]}
    )
    assert regions.asked == [("update", "eu-west-1", Overrides(index_read_units_max={"gsi": 40}))]
    (told,) = (await call("DescribeTable", TableName=provisioned_replica))["Table"]["Replicas"]
    (index,) = told["GlobalSecondaryIndexes"]
    assert index["OnDemandThroughputOverride"] == {"MaxReadRequestUnits": 40}


async def test_a_replica_is_deleted(call: Wire, regions: FakeRegions, replica: str) -> None:
    description = await update(call, replica, Delete=EUROPE)
    assert regions.asked == [("remove", "eu-west-1", False)]
    assert description["Replicas"][0]["ReplicaStatus"] == "DELETING"
    regions.settle()
    table = (await call("DescribeTable", TableName=replica))["Table"]
    assert "Replicas" not in table
    assert "GlobalTableVersion" not in table


async def test_a_deleted_replica_may_come_back(
    call: Wire, regions: FakeRegions, replica: str
) -> None:
    await update(call, replica, Delete=EUROPE)
    regions.settle()
    await update(call, replica, Create=EUROPE)
    assert regions.asked[-1][:2] == ("add", "eu-west-1")


async def test_a_replica_that_could_not_be_made_is_deleted_or_tried_again(
    call: Wire, tables: FakeTables, regions: FakeRegions, replica: str
) -> None:
    table = tables.refs["default", replica].table
    regions.become(table, "eu-west-1", stage=Stage.FAILED)
    await update(call, replica, Delete=EUROPE)
    regions.become(table, "eu-west-1", stage=Stage.FAILED)
    await update(call, replica, Create=EUROPE)
    assert [asked[0] for asked in regions.asked] == ["remove", "add"]


async def test_this_region_leaves_and_keeps_its_table(
    call: Wire, regions: FakeRegions, replica: str
) -> None:
    await call("UpdateTable", TableName=replica, DisassociationProtectionEnabled=False)
    description = await update(call, replica, Disassociate=DISASSOCIATE)
    assert regions.asked == [("remove", "us-east-1", True)]
    assert description["TableStatus"] == "UPDATING"
    regions.settle()
    table = (await call("DescribeTable", TableName=replica))["Table"]
    assert table["TableStatus"] == "ACTIVE"
    assert "Replicas" not in table


# -- What is refused without a table ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("BillingMode", "PAY_PER_REQUEST"),
        ("StreamSpecification", {"StreamEnabled": False}),
        ("TableClass", "STANDARD"),
        ("DeletionProtectionEnabled", True),
        ("OnDemandThroughput", {"MaxReadRequestUnits": 5}),
        ("GlobalSecondaryIndexUpdates", [{"Delete": {"IndexName": "gsi"}}]),
        ("AttributeDefinitions", [{"AttributeName": "pk", "AttributeType": "S"}]),
    ],
)
async def test_replicas_are_changed_alone(
    call: Wire, things: str, member: str, value: Any
) -> None:
    assert await refused(call, things, {"Create": EUROPE}, **{member: value}) == (
        "One or more parameter values were invalid: Replica modification must be the only "
        "operation in the request"
    )


@pytest.mark.parametrize("update_of", [{}, {"Update": EUROPE}])
async def test_an_update_asks_for_something(
    call: Wire, replica: str, update_of: dict[str, Any]
) -> None:
    assert await refused(call, replica, update_of) == NOTHING


async def test_an_index_without_an_override_is_nothing(
    call: Wire, provisioned_replica: str
) -> None:
    nothing = {**EUROPE, "GlobalSecondaryIndexes": [{"IndexName": "gsi"}]}
    assert await refused(call, provisioned_replica, {"Update": nothing}) == NOTHING


async def test_actions_are_of_one_type(call: Wire, replica: str) -> None:
    sentence = "Update table operation with more than one type of replica actions not allowed."
    both = {"Create": INDIA, "Delete": EUROPE}
    assert await refused(call, replica, both) == sentence
    assert await refused(call, replica, {"Create": INDIA}, {"Delete": EUROPE}) == sentence
    assert await refused(call, replica, {"Disassociate": DISASSOCIATE}, {"Delete": EUROPE}) == (
        sentence
    )


@pytest.mark.parametrize("action", ["Create", "Delete"])
async def test_one_replica_comes_or_goes_at_a_time(call: Wire, things: str, action: str) -> None:
    assert await refused(call, things, {action: EUROPE}, {action: INDIA}) == (
        "Update table operation with more than one create or delete replica actions not allowed"
    )


async def test_one_replica_is_updated_at_a_time(call: Wire, replica: str) -> None:
    updates = [
        {"Update": {**EUROPE, "TableClassOverride": "STANDARD"}},
        {"Update": {**INDIA, "TableClassOverride": "STANDARD"}},
    ]
    assert await refused(call, replica, *updates) == (
        "Cannot target multiple regions with the same action"
    )


async def test_no_update_is_a_violation_of_the_shape(call: Wire, things: str) -> None:
    assert "length greater than or equal to 1" in await refused(call, things)


async def test_the_consistency_is_given_when_replicas_are_made(call: Wire, replica: str) -> None:
    sentence = (
        "Only Replica Create actions are supported when MultiRegionConsistency parameter is "
        "provided."
    )
    eventual = {"MultiRegionConsistency": "EVENTUAL"}
    assert await refused(call, replica, {"Delete": EUROPE}, **eventual) == sentence
    _, message = await call.refusal(
        "UpdateTable", TableName=replica, TableClass="STANDARD", **eventual
    )
    assert message == sentence
    _, message = await call.refusal("UpdateTable", TableName=replica, **eventual)
    assert message.startswith("At least one of")


@pytest.mark.parametrize("action", ["Create", "Update"])
async def test_a_key_of_yours_is_refused(call: Wire, replica: str, action: str) -> None:
    message = await refused(call, replica, {action: {**EUROPE, "KMSMasterKeyId": "alias/mine"}})
    assert "KMSMasterKeyId is not supported" in message


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("MultiRegionConsistency", "STRONG"),
        ("GlobalTableWitnessUpdates", [{"Create": {"RegionName": "eu-west-1"}}]),
        ("GlobalTableSettingsReplicationMode", "ENABLED"),
    ],
)
async def test_what_is_not_built_is_refused_by_name(
    call: Wire, things: str, member: str, value: Any
) -> None:
    message = await refused(call, things, {"Create": EUROPE}, **{member: value})
    assert f"{member} is not supported" in message


async def test_units_have_bounds(call: Wire, provisioned: str, things: str) -> None:
    create = {**EUROPE, **read_units(CAPACITY_UNITS_MAX + 1)}
    assert "out of bounds" in await refused(call, provisioned, {"Create": create})
    create = {**EUROPE, **read_units_max(0)}
    assert "out of bounds" in await refused(call, things, {"Create": create})
    create = {**EUROPE, **read_units(0)}
    assert "greater than or equal to 1" in await refused(call, provisioned, {"Create": create})


async def test_an_index_is_named_once(call: Wire, provisioned: str) -> None:
    index = {"IndexName": "gsi", **read_units(3)}
    create = {**EUROPE, "GlobalSecondaryIndexes": [index, index]}
    assert "Only one global secondary index update per index" in await refused(
        call, provisioned, {"Create": create}
    )


# -- What is refused for the table -----------------------------------------------------------------


async def test_without_a_regions_file_there_is_one_region(
    call: Wire, tables: FakeTables, things: str
) -> None:
    tables.regions = None
    for action in ({"Create": EUROPE}, {"Delete": EUROPE}, {"Disassociate": DISASSOCIATE}):
        assert "start it with --peers FILE" in await refused(call, things, action)


async def test_a_region_is_one_of_the_regions_file(call: Wire, things: str) -> None:
    for region in ("eu-north-1", "EU-WEST-1", ""):
        message = await refused(call, things, {"Create": {"RegionName": region}})
        assert message.startswith(
            f"Region {region} is not supported. The latest version of global tables are only "
            "supported in the following regions: [ap-south-1, eu-west-1, us-east-1]."
        )
        assert "--peers" in message


async def test_a_replica_is_deleted_though_the_regions_file_has_lost_its_region(
    call: Wire, regions: FakeRegions, replica: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regions, "known", lambda: ["us-east-1"])
    await update(call, replica, Delete=EUROPE)
    assert regions.asked == [("remove", "eu-west-1", False)]


@pytest.mark.parametrize(
    ("action", "what"),
    [
        ("Create", "add or delete"),
        ("Delete", "add or delete"),
        ("Update", "add, delete, or update"),
    ],
)
async def test_the_own_region_is_not_a_replica(
    call: Wire, replica: str, action: str, what: str
) -> None:
    asked = {**HERE, "TableClassOverride": "STANDARD"} if action == "Update" else HERE
    assert await refused(call, replica, {action: asked}) == (
        f"Cannot {what} the local region through ReplicaUpdates. Use CreateTable, DeleteTable, or "
        "UpdateTable as required."
    )


async def test_a_region_has_one_replica(call: Wire, replica: str) -> None:
    assert await refused(call, replica, {"Create": EUROPE}) == EXISTS


async def test_a_replica_that_is_being_deleted_is_there(call: Wire, replica: str) -> None:
    await update(call, replica, Delete=EUROPE)
    assert await refused(call, replica, {"Create": EUROPE}) == EXISTS


@pytest.mark.parametrize("action", ["Update", "Delete"])
async def test_only_a_replica_is_updated_or_deleted(
    call: Wire, replica: str, action: str
) -> None:
    asked = {**INDIA, "TableClassOverride": "STANDARD"} if action == "Update" else INDIA
    assert await refused(call, replica, {action: asked}) == (
        "Update global table operation failed because one or more replicas were not part of the "
        "global table. Please retry the request without these replicas: [ap-south-1]."
    )


async def test_a_table_without_replicas_has_none_to_delete(call: Wire, things: str) -> None:
    assert "not part of the global table" in await refused(call, things, {"Delete": EUROPE})
    assert "not part of the global table" in await refused(
        call, things, {"Disassociate": DISASSOCIATE}
    )


async def test_a_replica_that_could_not_be_made_is_not_updated(
    call: Wire, tables: FakeTables, regions: FakeRegions, replica: str
) -> None:
    table = tables.refs["default", replica].table
    regions.become(table, "eu-west-1", stage=Stage.FAILED)
    asked = {**EUROPE, "TableClassOverride": "STANDARD"}
    assert "not part of the global table" in await refused(call, replica, {"Update": asked})


async def test_the_consistency_of_a_group_stays(call: Wire, replica: str) -> None:
    assert await refused(
        call, replica, {"Create": INDIA}, MultiRegionConsistency="EVENTUAL"
    ) == "MultiRegionConsistency parameter is unsupported on existing global table"


async def test_units_of_an_on_demand_replica_are_not_updated(call: Wire, replica: str) -> None:
    asked = {**EUROPE, **read_units(5)}
    assert await refused(call, replica, {"Update": asked}) == (
        "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is "
        "PAY_PER_REQUEST"
    )


@pytest.mark.parametrize("action", ["Create", "Update"])
async def test_a_provisioned_replica_has_no_on_demand_limit(
    call: Wire, provisioned_replica: str, action: str
) -> None:
    region = INDIA if action == "Create" else EUROPE
    asked = {**region, **read_units_max(100)}
    assert await refused(call, provisioned_replica, {action: asked}) == (
        "MaxReadRequestUnits for OnDemandThroughput cannot be specified when the table BillingMode "
        "is PROVISIONED"
    )


@pytest.mark.parametrize("action", ["Create", "Update"])
async def test_an_unknown_index_is_refused(
    call: Wire, provisioned_replica: str, action: str
) -> None:
    # AWS passes over it; here nothing is accepted and ignored.
    region = INDIA if action == "Create" else EUROPE
    asked = {**region, "GlobalSecondaryIndexes": [{"IndexName": "nope", **read_units(3)}]}
    assert "no global secondary index to override: nope" in await refused(
        call, provisioned_replica, {action: asked}
    )


async def test_a_region_leaves_by_itself_only(call: Wire, replica: str) -> None:
    asked = {**EUROPE, "DisassociationMode": "WAIT_FOR_REPLICATION"}
    assert "must be requested in the Region of the replica" in await refused(
        call, replica, {"Disassociate": asked}
    )


async def test_leaving_is_protected_from_the_start(call: Wire, replica: str) -> None:
    assert "protected against disassociation" in await refused(
        call, replica, {"Disassociate": DISASSOCIATE}
    )


async def test_how_to_leave_must_be_said(call: Wire, replica: str) -> None:
    assert "disassociationMode" in await refused(call, replica, {"Disassociate": HERE})


# -- What must end first ---------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [Stage.CREATING, Stage.DISASSOCIATING, Stage.DELETING])
async def test_one_region_after_the_other(
    call: Wire, tables: FakeTables, regions: FakeRegions, replica: str, stage: Stage
) -> None:
    regions.become(tables.refs["default", replica].table, "eu-west-1", stage=stage)
    for action in (
        {"Create": INDIA},
        {"Delete": EUROPE},
        {"Update": {**EUROPE, "TableClassOverride": "STANDARD"}},
    ):
        asked = {"TableName": replica, "ReplicaUpdates": [action]}
        assert await call.refusal("UpdateTable", **asked) == IN_USE


async def test_the_table_itself_is_not_being_changed(
    call: Wire, tables: FakeTables, replica: str
) -> None:
    tables.become(replica, status=Status.UPDATING)
    code, message = await call.refusal(
        "UpdateTable", TableName=replica, ReplicaUpdates=[{"Create": INDIA}]
    )
    assert code == "ResourceInUseException"
    assert "Table is being updated" in message


async def test_a_replica_that_is_being_filled_invites_nobody(
    call: Wire, tables: FakeTables, regions: FakeRegions, replica: str
) -> None:
    regions.become(tables.refs["default", replica].table, "us-east-1", stage=Stage.CREATING)
    assert await refused(call, replica, {"Create": INDIA}) == (
        "Create/Update/Delete of replica is not allowed while the replica is being added to table "
        "with name: ‘things’ in region: ‘us-east-1’."
    )
