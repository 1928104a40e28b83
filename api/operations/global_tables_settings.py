"""DescribeGlobalTableSettings and UpdateGlobalTableSettings, of 2017's global tables.

What all regions share (billing mode, write units) is changed as UpdateTable changes it, by the same
rules; what a replica has for itself (read units, a table class) is an override of it, or, in this
region, the table's own. Everything is refused before anything is changed. Sentences without a note
are not recorded; the numbers are findings of ack-api-quirks' recordings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import InvalidRequest
from ...model.groups import Group, Member, Overrides
from ...model.schema import GlobalIndex, Table, Throughput
from ..errors import IndexNotFoundException, ReplicaNotFoundException
from ..validation import read
from .global_tables import find_global
from .replicas import overrides
from .replicas_description import replica_status
from .replicas_group import all_replicas, require_regions, require_settled
from .replicas_scaling import refuse_auto_scaling, refuse_repeated, require_something
from .tables_changes import change, check_request
from .tables_settings import ON_DEMAND, PROVISIONED, require_active

if TYPE_CHECKING:
    from ...actors.tables import Tables
    from ..calls import Caller

_encode = msgspec.json.Encoder().encode
_WRITE_SCALING = "GlobalTableProvisionedWriteCapacityAutoScalingSettingsUpdate"
_READ_SCALING = "ReplicaProvisionedReadCapacityAutoScalingSettingsUpdate"
_INDEX_WRITE_SCALING = "ProvisionedWriteCapacityAutoScalingSettingsUpdate"
_INDEX_READ_SCALING = "ProvisionedReadCapacityAutoScalingSettingsUpdate"


async def describe_global_table_settings(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """The capacity settings of every replica, this region's included."""
    name = read("DescribeGlobalTableSettings", body)["GlobalTableName"]
    return _encode(_describe(tables, *find_global(tables, caller, name)))


async def update_global_table_settings(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """Change what all regions share, and what replicas have for themselves."""
    request = read("UpdateGlobalTableSettings", body)
    table, group = find_global(tables, caller, request["GlobalTableName"])
    _check(request, table, group)
    require_active(table)
    require_settled(group)
    regions = require_regions(tables)
    replicas = {each["RegionName"]: each for each in request.get("ReplicaSettingsUpdate", ())}
    update = _update_of_table(request, replicas.pop(regions.own, {}), table)
    wanted = None
    if update.keys() - {"TableName"}:
        check_request(update)
        wanted = change(update, table, tables.now_ms())
    after = table if wanted is None else wanted.table
    changes = {region: _overrides(replicas[region], group, after) for region in replicas}
    if wanted is not None:
        table = await tables.change(wanted)
    for region, replaced in changes.items():
        if replaced != group.members[region].overrides:
            table = await regions.update_replica(table, region, replaced)
    return _encode(_describe(tables, *find_global(tables, caller, request["GlobalTableName"])))


# -- What is refused ------------------------------------------------------------------------------


def _check(request: dict[str, Any], table: Table, group: Group) -> None:
    """Every rule that is not one of UpdateTable's."""
    indexes = request.get("GlobalTableGlobalSecondaryIndexSettingsUpdate", ())
    replicas = request.get("ReplicaSettingsUpdate", ())
    refuse_auto_scaling(_WRITE_SCALING, request.get(_WRITE_SCALING))
    _check_indexes(indexes, table, _INDEX_WRITE_SCALING)
    refuse_repeated(table.name, [each["RegionName"] for each in replicas])
    for each in replicas:
        region = each["RegionName"]
        member = group.member(region)
        if member is None or not member.is_member:
            raise ReplicaNotFoundException(
                f"Replica in region: '{region}' is not part of the global table."
            )
        require_something(table.name, len(each) > 1, region)
        refuse_auto_scaling(_READ_SCALING, each.get(_READ_SCALING))
        of_replica = each.get("ReplicaGlobalSecondaryIndexSettingsUpdate", ())
        _check_indexes(of_replica, table, _INDEX_READ_SCALING)
    require_something(table.name, len(request) > 1)
    if request.get("GlobalTableBillingMode", table.billing_mode) == ON_DEMAND:
        _refuse_units(request, table, group)


def _check_indexes(updates: Any, table: Table, scaling: str) -> None:
    names = [update["IndexName"] for update in updates]
    for update in updates:
        name = update["IndexName"]
        if table.global_index(name) is None:
            raise IndexNotFoundException(f"Index: '{name}' does not exist.")
        if names.count(name) > 1:
            raise InvalidRequest(f"The index '{name}' was specified more than once.")
        refuse_auto_scaling(scaling, update.get(scaling))


def _refuse_units(request: dict[str, Any], table: Table, group: Group) -> None:
    """Units are for a provisioned table. The sentence is on record for others: DDB-TABLE-190."""
    replicas = request.get("ReplicaSettingsUpdate", ())
    asked = []
    if "GlobalTableProvisionedWriteCapacityUnits" in request:
        asked.append("GlobalTableProvisionedWriteCapacityUnits")
    if _gives_units(request, "GlobalTableGlobalSecondaryIndexSettingsUpdate"):
        asked.append("GlobalTableGlobalSecondaryIndexSettingsUpdate")
    if any("ReplicaProvisionedReadCapacityUnits" in each for each in replicas):
        asked.append("ReplicaProvisionedReadCapacityUnits")
    if any(_gives_units(each, "ReplicaGlobalSecondaryIndexSettingsUpdate") for each in replicas):
        asked.append("ReplicaGlobalSecondaryIndexSettingsUpdate")
    if asked:
        names = ", ".join(f"'{member.region.upper()}'" for member in all_replicas(group))
        parameters = ", ".join(f"'{name}'" for name in asked)
        raise InvalidRequest(
            f"Failed to update global table with name ‘{table.name}‘. Replicas {names} BillingMode "
            "is PayPerRequest. You must convert table's BillingMode to PROVISIONED to set "
            f"parameters: {parameters}."
        )


def _gives_units(asked: dict[str, Any], member: str) -> bool:
    units = {"ProvisionedReadCapacityUnits", "ProvisionedWriteCapacityUnits"}
    return any(each.keys() & units for each in asked.get(member, ()))


# -- What is changed ------------------------------------------------------------------------------


def _update_of_table(
    request: dict[str, Any], own: dict[str, Any], table: Table
) -> dict[str, Any]:
    """The UpdateTable request that does what is asked of the table here."""
    update: dict[str, Any] = {"TableName": table.name}
    mode = request.get("GlobalTableBillingMode", table.billing_mode)
    if mode != table.billing_mode:
        update["BillingMode"] = mode
    if "ReplicaTableClass" in own:
        update["TableClass"] = own["ReplicaTableClass"]
    if mode != PROVISIONED:
        return update
    units = _units(
        table.throughput,
        own.get("ReplicaProvisionedReadCapacityUnits"),
        request.get("GlobalTableProvisionedWriteCapacityUnits"),
        table.name,
    )
    if units is not None:
        update["ProvisionedThroughput"] = units
    elif "BillingMode" in update:
        raise _units_missing(table.name)
    writes = _by_name(request.get("GlobalTableGlobalSecondaryIndexSettingsUpdate", ()))
    reads = _by_name(own.get("ReplicaGlobalSecondaryIndexSettingsUpdate", ()))
    updates = []
    for index in table.global_indexes:
        units = _units(
            index.throughput,
            reads.get(index.name, {}).get("ProvisionedReadCapacityUnits"),
            writes.get(index.name, {}).get("ProvisionedWriteCapacityUnits"),
            index.name,
        )
        if units is not None:
            updates.append({"Update": {"IndexName": index.name, "ProvisionedThroughput": units}})
    if updates:
        update["GlobalSecondaryIndexUpdates"] = updates
    return update


def _units(
    now: Throughput | None, reads: int | None, writes: int | None, of: str
) -> dict[str, int] | None:
    """``now`` with these units; None where nothing would change."""
    if reads is None and writes is None:
        return None
    if now is None and (reads is None or writes is None):
        raise _units_missing(of)
    if now is not None:
        reads = now.read_units if reads is None else reads
        writes = now.write_units if writes is None else writes
        if (reads, writes) == (now.read_units, now.write_units):
            return None
    assert reads is not None
    assert writes is not None
    return {"ReadCapacityUnits": reads, "WriteCapacityUnits": writes}


def _units_missing(of: str) -> InvalidRequest:
    return InvalidRequest(
        "To change the BillingMode to PROVISIONED, write units of the global table and read units "
        f"of the replica in the Region of the request must be specified for: {of}"
    )


def _overrides(asked: dict[str, Any], group: Group, table: Table) -> Overrides:
    """What the replica in another region has for itself from now on, in UpdateTable's words."""
    region = asked["RegionName"]
    update: dict[str, Any] = {"RegionName": region}
    units = asked.get("ReplicaProvisionedReadCapacityUnits")
    if units is not None:
        update["ProvisionedThroughputOverride"] = {"ReadCapacityUnits": units}
    if "ReplicaTableClass" in asked:
        update["TableClassOverride"] = asked["ReplicaTableClass"]
    indexes = [
        {
            "IndexName": each["IndexName"],
            "ProvisionedThroughputOverride": {
                "ReadCapacityUnits": each["ProvisionedReadCapacityUnits"]
            },
        }
        for each in asked.get("ReplicaGlobalSecondaryIndexSettingsUpdate", ())
        if "ProvisionedReadCapacityUnits" in each
    ]
    if indexes:
        update["GlobalSecondaryIndexes"] = indexes
    if len(update) == 1:
        return group.members[region].overrides
    check_request({"TableName": table.name, "ReplicaUpdates": [{"Update": update}]})
    return overrides(update, group.members[region].overrides, table)


def _by_name(updates: Any) -> dict[str, dict[str, Any]]:
    return {update["IndexName"]: update for update in updates}


# -- What is told ---------------------------------------------------------------------------------


def _describe(tables: Tables, table: Table, group: Group) -> dict[str, Any]:
    return {
        "GlobalTableName": table.name,
        "ReplicaSettings": [
            _replica(member, table, is_own=member.region == tables.region)
            for member in all_replicas(group)
        ],
    }


def _replica(member: Member, table: Table, *, is_own: bool) -> dict[str, Any]:
    own = Overrides() if is_own else member.overrides  # The table here has its own already.
    described: dict[str, Any] = {
        "RegionName": member.region,
        "ReplicaStatus": replica_status(member),
        "ReplicaProvisionedReadCapacityUnits": 0,
        "ReplicaProvisionedReadCapacityAutoScalingSettings": {"AutoScalingDisabled": True},
        "ReplicaProvisionedWriteCapacityUnits": 0,
        "ReplicaProvisionedWriteCapacityAutoScalingSettings": {"AutoScalingDisabled": True},
    }
    if table.billing_mode == ON_DEMAND:
        described["ReplicaBillingModeSummary"] = {"BillingMode": ON_DEMAND}
    if table.throughput is not None:
        units = table.throughput.read_units if own.read_units is None else own.read_units
        described["ReplicaProvisionedReadCapacityUnits"] = units
        described["ReplicaProvisionedWriteCapacityUnits"] = table.throughput.write_units
    if table.global_indexes:
        described["ReplicaGlobalSecondaryIndexSettings"] = [
            _index(index, own.index_read_units.get(index.name)) for index in table.global_indexes
        ]
    table_class = own.table_class or table.table_class
    if table_class != "STANDARD":
        described["ReplicaTableClassSummary"] = {"TableClass": table_class}
    return described


def _index(index: GlobalIndex, read_units: int | None) -> dict[str, Any]:
    described: dict[str, Any] = {
        "IndexName": index.name,
        "IndexStatus": index.status.value,
        "ProvisionedReadCapacityAutoScalingSettings": {"AutoScalingDisabled": True},
        "ProvisionedWriteCapacityAutoScalingSettings": {"AutoScalingDisabled": True},
    }
    if index.throughput is not None:
        units = index.throughput.read_units if read_units is None else read_units
        described["ProvisionedReadCapacityUnits"] = units
        described["ProvisionedWriteCapacityUnits"] = index.throughput.write_units
    return described
