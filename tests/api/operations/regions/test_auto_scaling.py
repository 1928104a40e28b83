"""DescribeTableReplicaAutoScaling and UpdateTableReplicaAutoScaling: there is none to configure."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.model.groups import Stage
from millstream.model.schema import Status

from .conftest import FakeRegions, FakeTables, Wire
from .test_replica_updates import IN_USE

OFF = {"AutoScalingDisabled": True}
NONE = {"AutoScalingDisabled": True, "ScalingPolicies": []}
POLICY = {
    "MinimumUnits": 1,
    "MaximumUnits": 10,
    "ScalingPolicyUpdate": {"TargetTrackingScalingPolicyConfiguration": {"TargetValue": 70.5}},
}
WRITES = "ProvisionedWriteCapacityAutoScalingUpdate"
READS = "ReplicaProvisionedReadCapacityAutoScalingUpdate"
INDEX_READS = "ProvisionedReadCapacityAutoScalingUpdate"


def of_region(region: str, **members: Any) -> dict[str, Any]:
    return {"ReplicaUpdates": [{"RegionName": region, **members}]}


async def refused(call: Wire, table: str, **members: Any) -> tuple[str, str]:
    return await call.refusal("UpdateTableReplicaAutoScaling", TableName=table, **members)


async def test_every_replica_is_without(call: Wire, replica: str) -> None:
    answer = await call("DescribeTableReplicaAutoScaling", TableName=replica)
    region = {
        "GlobalSecondaryIndexes": [],
        "ReplicaProvisionedReadCapacityAutoScalingSettings": NONE,
        "ReplicaProvisionedWriteCapacityAutoScalingSettings": NONE,
        "ReplicaStatus": "ACTIVE",
    }
    assert answer["TableAutoScalingDescription"] == {
        "TableName": "things",
        "TableStatus": "ACTIVE",
        "Replicas": [
            {"RegionName": "eu-west-1", **region},
            {"RegionName": "us-east-1", **region},
        ],
    }


async def test_every_index_is_without(call: Wire, provisioned_replica: str) -> None:
    arn = f"arn:aws:dynamodb:us-east-1:000000000000:table/{provisioned_replica}"
    answer = await call("DescribeTableReplicaAutoScaling", TableName=arn)
    for region in answer["TableAutoScalingDescription"]["Replicas"]:
        assert region["GlobalSecondaryIndexes"] == [
            {
                "IndexName": "gsi",
                "IndexStatus": "ACTIVE",
                "ProvisionedReadCapacityAutoScalingSettings": NONE,
                "ProvisionedWriteCapacityAutoScalingSettings": NONE,
            }
        ]


@pytest.mark.parametrize(
    "operation", ["DescribeTableReplicaAutoScaling", "UpdateTableReplicaAutoScaling"]
)
async def test_a_table_of_one_region_has_none(call: Wire, things: str, operation: str) -> None:
    for name in (things, "nothing"):
        assert await call.refusal(operation, TableName=name) == (
            "ResourceNotFoundException", f"Global table with name: '{name}' does not exist.",
        )  # fmt: skip


@pytest.mark.parametrize(
    "members",
    [
        {WRITES: OFF},
        {"GlobalSecondaryIndexUpdates": [{"IndexName": "gsi", WRITES: OFF}]},
        of_region("eu-west-1", **{READS: OFF}),
        of_region(
            "us-east-1",
            ReplicaGlobalSecondaryIndexUpdates=[{"IndexName": "gsi", INDEX_READS: OFF}],
        ),
    ],
)
async def test_what_is_off_may_be_switched_off(
    call: Wire, provisioned_replica: str, members: dict[str, Any]
) -> None:
    answer = await call("UpdateTableReplicaAutoScaling", TableName=provisioned_replica, **members)
    description = answer["TableAutoScalingDescription"]
    assert [each["RegionName"] for each in description["Replicas"]] == ["eu-west-1", "us-east-1"]


@pytest.mark.parametrize(
    "settings", [POLICY, {}, {**OFF, **POLICY}, {"AutoScalingDisabled": False}]
)
@pytest.mark.parametrize(
    ("member", "place"),
    [
        (WRITES, lambda asked: asked),
        (WRITES, lambda asked: {"GlobalSecondaryIndexUpdates": [{"IndexName": "gsi", **asked}]}),
        (READS, lambda asked: of_region("eu-west-1", **asked)),
        (
            INDEX_READS,
            lambda asked: of_region(
                "eu-west-1", ReplicaGlobalSecondaryIndexUpdates=[{"IndexName": "gsi", **asked}]
            ),
        ),
    ],
)
async def test_auto_scaling_is_refused_in_so_many_words(
    call: Wire, provisioned_replica: str, settings: Any, member: str, place: Any
) -> None:
    assert await refused(call, provisioned_replica, **place({member: settings})) == (
        "ValidationException",
        f"One or more parameter values were invalid: {member} is not supported: millstream has no "
        "auto scaling yet",
    )


async def test_an_update_asks_for_something(call: Wire, replica: str) -> None:
    sentence = (
        "Failed to update settings for global table with name: ‘things’ because at least one "
        "update parameter must be specified"
    )
    assert await refused(call, replica) == ("ValidationException", f"{sentence}.")
    assert await refused(call, replica, **of_region("eu-west-1")) == (
        "ValidationException", f"{sentence} for region: ‘eu-west-1’.",
    )  # fmt: skip


async def test_a_region_is_named_once(call: Wire, replica: str) -> None:
    updates = [{"RegionName": "eu-west-1", READS: OFF}] * 2
    assert await refused(call, replica, ReplicaUpdates=updates) == (
        "ValidationException",
        "Failed to update settings for global table with name: ‘things’ because the regions: "
        "‘[eu-west-1]’ were specified more than once.",
    )


async def test_a_region_is_a_replica(call: Wire, replica: str) -> None:
    code, _ = await refused(call, replica, **of_region("ap-south-1", **{READS: OFF}))
    assert code == "ResourceNotFoundException"


@pytest.mark.parametrize(
    "members",
    [
        {"GlobalSecondaryIndexUpdates": [{"IndexName": "gsi", WRITES: OFF}]},
        {"GlobalSecondaryIndexUpdates": [{WRITES: OFF}]},
        of_region(
            "eu-west-1",
            ReplicaGlobalSecondaryIndexUpdates=[{"IndexName": "gsi", INDEX_READS: OFF}],
        ),
    ],
)
async def test_an_index_is_the_tables(
    call: Wire, replica: str, members: dict[str, Any]
) -> None:
    code, _ = await refused(call, replica, **members)
    assert code == "ResourceNotFoundException"


async def test_one_thing_after_the_other(
    call: Wire, tables: FakeTables, regions: FakeRegions, replica: str
) -> None:
    regions.become(tables.refs["default", replica].table, "eu-west-1", stage=Stage.CREATING)
    assert await refused(call, replica, **{WRITES: OFF}) == IN_USE
    regions.settle()
    tables.become(replica, status=Status.UPDATING)
    code, _ = await refused(call, replica, **{WRITES: OFF})
    assert code == "ResourceInUseException"


async def test_a_target_value_is_a_number(call: Wire, replica: str) -> None:
    tracking = {"TargetTrackingScalingPolicyConfiguration": {"TargetValue": "70"}}
    code, message = await refused(call, replica, **{WRITES: {"ScalingPolicyUpdate": tracking}})
    assert code == "SerializationException"
    assert "Double" in message
