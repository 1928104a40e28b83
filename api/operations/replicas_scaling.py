"""DescribeTableReplicaAutoScaling and UpdateTableReplicaAutoScaling: there is no auto scaling.

Described as DynamoDB describes a global table for which none was configured (DDB-TABLE-232, 289 of
ack-api-quirks' recordings); an update may switch it off, which it is, and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import InvalidRequest, ResourceNotFound
from ...model.groups import Group, Member
from ...model.schema import Table
from ..validation import read, table_name_of
from .replicas_description import replica_status
from .replicas_group import all_replicas, group_of, replicas, require_settled, table_status
from .tables_settings import not_built, require_active

if TYPE_CHECKING:
    from ...actors.tables import Tables
    from ..calls import Caller

_encode = msgspec.json.Encoder().encode
_SCALED = frozenset(
    {
        "ProvisionedWriteCapacityAutoScalingUpdate",
        "ReplicaProvisionedReadCapacityAutoScalingUpdate",
        "ProvisionedReadCapacityAutoScalingUpdate",
    }
)


async def describe_table_replica_auto_scaling(
    tables: Tables, caller: Caller, body: bytes
) -> bytes:
    """Every replica, this region's included, each without auto scaling."""
    request = read("DescribeTableReplicaAutoScaling", body)
    table, group = _find(tables, caller, request)
    return _encode({"TableAutoScalingDescription": _describe(tables, table, group)})


async def update_table_replica_auto_scaling(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """Nothing changes: whatever is more than switching auto scaling off is refused."""
    request = read("UpdateTableReplicaAutoScaling", body)
    table, group = _find(tables, caller, request)
    _check(request, table, group)
    require_active(table)
    require_settled(group)
    return _encode({"TableAutoScalingDescription": _describe(tables, table, group)})


def refuse_auto_scaling(member: str, settings: dict[str, Any] | None) -> None:
    """Raise InvalidRequest for auto scaling settings that would do something."""
    if settings is not None and settings != {"AutoScalingDisabled": True}:
        raise not_built(member, "auto scaling")


def require_something(name: str, asked: bool, region: str | None = None) -> None:
    """Raise InvalidRequest for an update that names nothing to update (DDB-TABLE-255)."""
    if not asked:
        where = "" if region is None else f" for region: ‘{region}’"
        raise InvalidRequest(
            f"Failed to update settings for global table with name: ‘{name}’ because at least one "
            f"update parameter must be specified{where}."
        )


def refuse_repeated(name: str, named: list[str]) -> None:
    """Raise InvalidRequest where a region is named twice (DDB-TABLE-255)."""
    twice = sorted(region for region in dict.fromkeys(named) if named.count(region) > 1)
    if twice:
        raise InvalidRequest(
            f"Failed to update settings for global table with name: ‘{name}’ because the regions: "
            f"‘[{', '.join(twice)}]’ were specified more than once."
        )


def _check(request: dict[str, Any], table: Table, group: Group) -> None:
    _refuse_scaling(request)
    for each in request.get("GlobalSecondaryIndexUpdates", ()):
        _refuse_scaling(each)
        _require_index(table, each)
    updates = request.get("ReplicaUpdates", [])
    refuse_repeated(table.name, [update["RegionName"] for update in updates])
    for update in updates:
        region = update["RegionName"]
        member = group.member(region)
        if member is None or not member.is_member:  # The class is recorded, the sentence is not.
            raise ResourceNotFound(f"Replica in region: '{region}' does not exist.")
        require_something(table.name, len(update) > 1, region)
        _refuse_scaling(update)
        for each in update.get("ReplicaGlobalSecondaryIndexUpdates", ()):
            _refuse_scaling(each)
            _require_index(table, each)
    require_something(table.name, len(request) > 1)


def _refuse_scaling(asked: dict[str, Any]) -> None:
    for member in sorted(_SCALED & asked.keys()):
        refuse_auto_scaling(member, asked[member])


def _require_index(table: Table, asked: dict[str, Any]) -> None:
    name = asked.get("IndexName")
    if name is None or table.global_index(name) is None:
        raise ResourceNotFound("Requested resource not found")


def _find(tables: Tables, caller: Caller, request: dict[str, Any]) -> tuple[Table, Group]:
    name = table_name_of(request["TableName"])
    ref = tables.find(caller.namespace, name)
    group = None if ref is None else group_of(tables, ref.table)
    if ref is None or group is None or not replicas(group, tables.region):
        # DDB-TABLE-187, 254: also of a table that no other region has.
        raise ResourceNotFound(f"Global table with name: '{name}' does not exist.")
    return ref.table, group


def _describe(tables: Tables, table: Table, group: Group) -> dict[str, Any]:
    return {
        "TableName": table.name,
        "TableStatus": table_status(table, group, tables.region).value,
        "Replicas": [_replica(member, table) for member in all_replicas(group)],
    }


def _replica(member: Member, table: Table) -> dict[str, Any]:
    return {
        "RegionName": member.region,
        "GlobalSecondaryIndexes": [
            {
                "IndexName": index.name,
                "IndexStatus": index.status.value,
                "ProvisionedReadCapacityAutoScalingSettings": _no_scaling(),
                "ProvisionedWriteCapacityAutoScalingSettings": _no_scaling(),
            }
            for index in table.global_indexes
        ],
        "ReplicaProvisionedReadCapacityAutoScalingSettings": _no_scaling(),
        "ReplicaProvisionedWriteCapacityAutoScalingSettings": _no_scaling(),
        "ReplicaStatus": replica_status(member),
    }


def _no_scaling() -> dict[str, Any]:
    return {"AutoScalingDisabled": True, "ScalingPolicies": []}
