"""A global table as DescribeTable shows it: the other regions' replicas, and what goes with them.

Pure functions of the catalog's row and the group. What a replica has as the table has it is left
out, as DynamoDB does (DDB-TABLE-229, 250, 294 of ack-api-quirks' recordings); so are ``ReplicaArn``
and a ``MultiRegionConsistency`` that is not STRONG, which no recording shows.
"""

from __future__ import annotations

from typing import Any

from ...model.groups import Group, Member, Overrides, Stage
from ...model.schema import GlobalIndex, Status, Table, Throughput, UnitLimits
from .replicas_group import replicas
from .tables_settings import current_warm_units

VERSION = "2019.11.21"
#: What regions may override is the overrides; everything else is theirs in common.
_REPLICATION_MODE = "ENABLED_WITH_OVERRIDES"
_STATUS = {
    Stage.CREATING: "CREATING",
    Stage.FAILED: "CREATION_FAILED",
    Stage.ACTIVE: "ACTIVE",
    Stage.DISASSOCIATING: "UPDATING",  # Not recorded; there is no word of its own for it.
    Stage.DELETING: "DELETING",
    Stage.GONE: "DELETING",
}


def replica_status(member: Member) -> str:
    """ReplicaStatus."""
    return _STATUS[member.stage]


def describe_global(table: Table, group: Group | None, own: str) -> dict[str, Any]:
    """The members that a TableDescription has besides, for the replica in the region ``own``.

    None for a table that no other region has (any more): it is an ordinary one.
    """
    others = [] if group is None else replicas(group, own)
    if not others:
        return {}
    return {
        "GlobalTableVersion": VERSION,
        "Replicas": [describe_replica(member, table) for member in others],
        "GlobalTableSettingsReplicationMode": _REPLICATION_MODE,
        # Not recorded: where it is told is the service model's word.
        "DisassociationProtectionEnabled": table.disassociation_protection,
    }


def describe_replica(member: Member, table: Table) -> dict[str, Any]:
    """A ReplicaDescription. ``table`` is this region's, with which the replica's is compared."""
    own = member.overrides
    described: dict[str, Any] = {
        "RegionName": member.region,
        "ReplicaStatus": replica_status(member),
        "GlobalTableSettingsReplicationMode": _REPLICATION_MODE,
    }
    if member.reason:
        described["ReplicaStatusDescription"] = member.reason
    if member.stage is Stage.FAILED:
        return described
    described["WarmThroughput"] = _warm_units(table.throughput, own.read_units)
    described |= _overridden(
        table.throughput, own.read_units, table.unit_limits, own.read_units_max
    )
    indexes = [
        _index(index, own)
        for index in table.global_indexes
        if index.status is not Status.DELETING
    ]
    if indexes:
        described["GlobalSecondaryIndexes"] = indexes
    # STANDARD is told only where it was asked for.
    table_class = own.table_class or table.table_class
    if own.table_class is not None or table_class != "STANDARD":
        described["ReplicaTableClassSummary"] = {"TableClass": table_class}
    return described


def _index(index: GlobalIndex, own: Overrides) -> dict[str, Any]:
    units = own.index_read_units.get(index.name)
    limit = own.index_read_units_max.get(index.name)
    return {
        "IndexName": index.name,
        "WarmThroughput": _warm_units(index.throughput, units),
        **_overridden(index.throughput, units, index.unit_limits, limit),
    }


def _overridden(
    units: Throughput | None,
    read_units: int | None,
    limits: UnitLimits | None,
    read_units_max: int | None,
) -> dict[str, Any]:
    """What differs from the table here: an override that equals it is none (DDB-TABLE-250)."""
    described: dict[str, Any] = {}
    if read_units is not None and (units is None or units.read_units != read_units):
        described["ProvisionedThroughputOverride"] = {"ReadCapacityUnits": read_units}
    unlimited = (None, -1)
    here = None if limits is None else limits.read_units
    is_same = here == read_units_max or (here in unlimited and read_units_max in unlimited)
    if read_units_max is not None and not is_same:
        described["OnDemandThroughputOverride"] = {"MaxReadRequestUnits": read_units_max}
    return described


def _warm_units(units: Throughput | None, read_units: int | None) -> dict[str, Any]:
    """What a replica is warm for at least: WarmThroughput is asked for in each region."""
    if units is not None and read_units is not None:
        units = Throughput(read_units, units.write_units)
    warm = current_warm_units(None, units)
    return {
        "ReadUnitsPerSecond": warm.read_units,
        "WriteUnitsPerSecond": warm.write_units,
        "Status": "ACTIVE",
    }
