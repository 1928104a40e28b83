"""A table's group, as the operations look at it: whose replica it is, what moves, what is refused.

Synchronous looks at ``Tables.regions``. A node without a regions file, a table that never had a
replica, and one that has left its group are all the same here: there is no group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import InvalidRequest, ResourceInUse, ResourceNotFound
from ...model.groups import Group, Member, Stage
from ...model.schema import Status, Table
from .tables_keys import INVALID

if TYPE_CHECKING:
    from ...actors.regions_view import Regions
    from ...actors.tables import Tables

#: Stages of a member that DynamoDB waits for before anything else is changed.
MOVING = (Stage.CREATING, Stage.DISASSOCIATING, Stage.DELETING)


def group_of(tables: Tables, table: Table) -> Group | None:
    """The group that ``table`` is a replica of; None if it is on its own."""
    regions = tables.regions
    return None if regions is None else living(regions.group_of(table), regions.own)


def living(group: Group | None, own: str) -> Group | None:
    """``group`` if the region ``own`` is still, or already, one of its members."""
    if group is None:
        return None
    member = group.member(own)
    return group if member is not None and member.is_member else None


def own_member(group: Group, own: str) -> Member:
    """The member of this node's region, of a group that ``living`` let pass."""
    member = group.member(own)
    assert member is not None
    return member


def replicas(group: Group, own: str) -> list[Member]:
    """The other regions that DescribeTable lists: those that failed too, those gone not."""
    return [member for member in all_replicas(group) if member.region != own]


def all_replicas(group: Group) -> list[Member]:
    """``replicas`` and this region's, in the order of their names."""
    members = [group.members[name] for name in sorted(group.members)]
    return [member for member in members if member.stage is not Stage.GONE]


def is_moving(group: Group) -> bool:
    """Whether some region is just joining or leaving."""
    return any(member.stage in MOVING for member in group.members.values())


def require_settled(group: Group | None) -> None:
    """Raise ResourceInUse while a region joins or leaves. The sentence is recorded from AWS."""
    if group is not None and is_moving(group):
        raise ResourceInUse("The resource which you are attempting to change is in use.")


def require_regions(tables: Tables) -> Regions:
    """What knows the regions. Raises InvalidRequest, saying what to do, where nothing does."""
    if tables.regions is None:
        raise InvalidRequest(
            f"{INVALID}this node knows no other region: start it with --peers FILE, the "
            "regions.toml that names all regions, to have global tables"
        )
    return tables.regions


def require_known(regions: Regions, region: str) -> None:
    """Raise InvalidRequest for a region that the regions file lacks."""
    known = regions.known()
    if region not in known:
        # The first two sentences are AWS's, recorded (ack-api-quirks, DDB-TABLE-223).
        raise InvalidRequest(
            f"Region {region} is not supported. The latest version of global tables are only "
            f"supported in the following regions: [{', '.join(known)}]. Regions are added in the "
            "regions file (--peers) of every region."
        )


def table_status(table: Table, group: Group | None, own: str) -> Status:
    """TableStatus: a replica's own stage, and that others join or leave, are told in it.

    DynamoDB itself is ACTIVE again for most of the time that a replica takes to be deleted
    (DDB-TABLE-204); here UPDATING lasts as long as other changes are refused.
    """
    if group is None or table.status in (Status.CREATING, Status.DELETING):
        return table.status
    stage = own_member(group, own).stage
    if stage is Stage.CREATING:
        return Status.CREATING
    if stage is Stage.DELETING:
        return Status.DELETING
    return Status.UPDATING if is_moving(group) else table.status


def check_change(tables: Tables, table: Table, request: dict[str, Any]) -> None:
    """What a replica's UpdateTable may not ask, whatever it is that it changes.

    Raises:
        InvalidRequest: its stream is to be disabled; or it is no replica, and a replica's setting
            is asked for.
        ResourceNotFound: the table is still being filled.
        ResourceInUse: a region is joining or leaving.
    """
    group = group_of(tables, table)
    if group is None:
        if "DisassociationProtectionEnabled" in request:
            raise InvalidRequest(  # Not recorded.
                f"{INVALID}DisassociationProtectionEnabled can only be specified for a Global "
                "Table replica."
            )
        return
    own = require_regions(tables).own
    stream = request.get("StreamSpecification")
    # Recorded, also while a region joins (DDB-TABLE-222, 227): the state is looked at later.
    if stream is not None and not stream["StreamEnabled"] and group.others(own):
        raise InvalidRequest(
            f"{INVALID}Disabling Stream is not allowed for a Global Table replica."
        )
    if own_member(group, own).stage is Stage.CREATING:
        # Until it is filled a replica can be described and nothing else (DDB-TABLE-298).
        raise ResourceNotFound(f"Requested resource not found: Table: {table.name} not found")
    require_settled(group)
