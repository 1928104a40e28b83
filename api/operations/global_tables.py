"""The operations of 2017's global tables, on what there is: version 2019.11.21.

DynamoDB itself still answers them and takes no new table (DDB-GLOBALTABLE-002 of ack-api-quirks'
recordings); here they are another spelling of ReplicaUpdates, for programs that use it. Two things
differ from UpdateTable: errors have classes of their own, and a region that is taken out keeps its
table, as it did in 2017. A region that is added must not have the table yet: it is made there.
Sentences without a note are not recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import InvalidRequest
from ...limits import LIST_GLOBAL_TABLES_MAX
from ...model.groups import Group, Overrides, Stage
from ...model.schema import Table
from ..errors import (
    GlobalTableAlreadyExistsException,
    GlobalTableNotFoundException,
    ReplicaAlreadyExistsException,
    ReplicaNotFoundException,
    TableNotFoundException,
)
from ..validation import read
from .replicas_description import describe_replica
from .replicas_group import (
    all_replicas,
    group_of,
    is_moving,
    living,
    own_member,
    replicas,
    require_known,
    require_regions,
    require_settled,
)
from .tables_keys import INVALID
from .tables_settings import require_active

if TYPE_CHECKING:
    from ...actors.tables import Tables
    from ..calls import Caller

_encode = msgspec.json.Encoder().encode


async def create_global_table(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """Have the other regions of ReplicationGroup make replicas of a table that is here."""
    request = read("CreateGlobalTable", body)
    name = request["GlobalTableName"]
    names = _regions_of(request["ReplicationGroup"])
    regions = require_regions(tables)
    for region in names:
        require_known(regions, region)
    if regions.own not in names or len(names) < 2:
        raise InvalidRequest(
            f"{INVALID}ReplicationGroup must name the Region of the request, {regions.own}, and at "
            "least one other"
        )
    ref = tables.find(caller.namespace, name)
    if ref is None:
        raise TableNotFoundException(f"Table not found: {name}")  # Of backups: DDB-TABLE-298.
    group = group_of(tables, ref.table)
    if group is not None and replicas(group, regions.own):
        raise GlobalTableAlreadyExistsException(f"Global table with name: '{name}' already exists.")
    require_active(ref.table)
    table = ref.table
    for region in names:
        if region != regions.own:
            table = await regions.add_replica(table, region, Overrides())
    group = group_of(tables, table)
    assert group is not None
    return _encode({"GlobalTableDescription": _describe(tables, table, group)})


async def update_global_table(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """Add regions, and take regions out, which keep their tables."""
    request = read("UpdateGlobalTable", body)
    if not request["ReplicaUpdates"]:
        raise InvalidRequest("One or more parameter values were invalid")  # DDB-GLOBALTABLE-004
    if any(len(update) != 1 for update in request["ReplicaUpdates"]):
        raise InvalidRequest(f"{INVALID}Exactly one of Create, Delete must be given of each update")
    actions = [next(iter(update.items())) for update in request["ReplicaUpdates"]]
    _regions_of([asked for _, asked in actions])
    table, group = find_global(tables, caller, request["GlobalTableName"])
    regions = require_regions(tables)
    for action, asked in actions:
        region = asked["RegionName"]
        member = group.member(region)
        is_member = member is not None and member.is_member
        if action == "Create":
            require_known(regions, region)
            if is_member:
                raise ReplicaAlreadyExistsException(
                    f"Replica in region: '{region}' is already part of the global table."
                )
        elif not (is_member or (member is not None and member.stage is Stage.FAILED)):
            raise ReplicaNotFoundException(
                f"Replica in region: '{region}' is not part of the global table."
            )
    require_active(table)
    require_settled(group)
    # This region goes last: once it has left it has no say in the others.
    for action, asked in sorted(actions, key=lambda each: each[1]["RegionName"] == regions.own):
        if action == "Create":
            table = await regions.add_replica(table, asked["RegionName"], Overrides())
        else:
            table = await regions.remove_replica(table, asked["RegionName"], keep=True)
    group = regions.group_of(table) or group
    return _encode({"GlobalTableDescription": _describe(tables, table, group)})


async def describe_global_table(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """All replicas, this region's included."""
    name = read("DescribeGlobalTable", body)["GlobalTableName"]
    # The doubled sentence is DynamoDB's, and of this operation only (DDB-GLOBALTABLE-004).
    table, group = find_global(tables, caller, name, "Global table not found: ")
    return _encode({"GlobalTableDescription": _describe(tables, table, group)})


async def list_global_tables(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """A page of the global tables of which this region has a replica, in the order of names."""
    request = read("ListGlobalTables", body)
    regions = tables.regions
    found = []
    if regions is not None:
        wanted = request.get("RegionName", regions.own)
        start = request.get("ExclusiveStartGlobalTableName", "")
        for known in regions.groups(caller.namespace):
            group = living(known, regions.own)
            if group is None or not replicas(group, regions.own) or group.table <= start:
                continue
            names = [name for name in sorted(group.members) if group.members[name].is_member]
            if wanted in names:
                found.append((group.table, names))
    found.sort()
    limit = min(request.get("Limit", LIST_GLOBAL_TABLES_MAX), LIST_GLOBAL_TABLES_MAX)
    answer: dict[str, Any] = {
        "GlobalTables": [
            {
                "GlobalTableName": table,
                "ReplicationGroup": [{"RegionName": region} for region in names],
            }
            for table, names in found[:limit]
        ]
    }
    if len(found) > limit:
        answer["LastEvaluatedGlobalTableName"] = found[limit - 1][0]
    return _encode(answer)


def find_global(
    tables: Tables, caller: Caller, name: str, before: str = ""
) -> tuple[Table, Group]:
    """The global table of that name.

    Raises GlobalTableNotFoundException, also for a table that no other region has.
    """
    ref = tables.find(caller.namespace, name)
    group = None if ref is None else group_of(tables, ref.table)
    if ref is None or group is None or not replicas(group, tables.region):
        raise GlobalTableNotFoundException(  # DDB-GLOBALTABLE-004
            f"{before}Global table with name: '{name}' does not exist."
        )
    return ref.table, group


def _regions_of(members: list[dict[str, str]]) -> list[str]:
    """The regions named, each once."""
    names: list[str] = []
    for member in members:
        region = member.get("RegionName")
        if region is None:
            raise InvalidRequest(f"{INVALID}RegionName must be specified for each replica")
        if region in names:
            raise InvalidRequest(f"{INVALID}Each Region may be named once: {region}")
        names.append(region)
    return names


def _describe(tables: Tables, table: Table, group: Group) -> dict[str, Any]:
    """A GlobalTableDescription: every replica, those that failed too."""
    return {
        "ReplicationGroup": [describe_replica(member, table) for member in all_replicas(group)],
        "GlobalTableArn": f"arn:aws:dynamodb::{tables.account}:global-table/{group.table}",
        "CreationDateTime": group.created_ms / 1000,
        "GlobalTableStatus": _status(group, tables.region),
        "GlobalTableName": group.table,
    }


def _status(group: Group, own: str) -> str:
    """GlobalTableStatus: CREATING until some second region has the table."""
    if own_member(group, own).stage in (Stage.DELETING, Stage.GONE):
        return "DELETING"
    others = group.others(own)
    if others and all(member.stage is Stage.CREATING for member in others):
        return "CREATING"
    return "UPDATING" if is_moving(group) else "ACTIVE"
