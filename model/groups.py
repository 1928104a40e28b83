"""What the regions of a global table agree on: members, stages, settings that they share.

A ``Group`` is gossiped between regions and *merged*: members by (incarnation, stage, stamp), shared
settings by their stamp. Merging is idempotent, commutative and associative, so whatever order
messages come in, a decision is never undone by an older one. Values only; the catalog of every
region keeps one entry a group, which outlives the table there. See ``docs/global-tables.md``.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from ..errors import Corrupt, WrongFormat
from .schema import KeySchema, NewIndex, UnitLimits

GROUP_FORMAT = 1


class Stage(IntEnum):
    """How far a member's life in the group has got; it only grows within an incarnation."""

    CREATING = 1
    #: It could not be made (a table of that name is there): ends here.
    FAILED = 2
    ACTIVE = 3
    DISASSOCIATING = 4
    DELETING = 5
    GONE = 6


class Stamp(msgspec.Struct, frozen=True, order=True):
    """When and where a setting was made, as versions of items are."""

    hlc: int = 0
    number: int = 0


class Overrides(msgspec.Struct, frozen=True):
    """What a replica has for itself: read units (None: as the table), indexes' by name, a class."""

    read_units: int | None = None
    read_units_max: int | None = None
    index_read_units: dict[str, int] = {}
    index_read_units_max: dict[str, int] = {}
    table_class: str | None = None
    kms_key: str | None = None
    stamp: Stamp = Stamp()


class Member(msgspec.Struct, frozen=True):
    """One region of a group. ``invited_by`` is the number of the region that fills it.

    ``after`` are the regions, with their incarnations, that were members before it: they miss
    nothing of what it wrote but what its log has.
    """

    region: str
    number: int
    stage: Stage
    incarnation: int
    invited_by: int
    overrides: Overrides = Overrides()
    reason: str = ""
    after: dict[str, int] = {}

    @property
    def is_member(self) -> bool:
        """Whether changes are sent to it and awaited from it."""
        return self.stage not in (Stage.FAILED, Stage.GONE)


class Shared(msgspec.Struct, frozen=True):
    """Settings that are the same in every region; the last change of them wins as a whole.

    ``policy`` says what becomes of a write that lost: ``""`` nothing, ``"attribute NAME"`` the one
    with the higher value wins, ``"resolver"`` a function registered in Python decides.
    ``conflicts_table`` is where losing images are kept, if anywhere.
    """

    stamp: Stamp
    attribute_kinds: dict[str, str]
    indexes: tuple[NewIndex, ...]
    billing_mode: str
    write_units: int | None = None
    index_write_units: dict[str, int] = {}
    unit_limits: UnitLimits | None = None
    policy: str = ""
    conflicts_table: str | None = None


class Group(msgspec.Struct, frozen=True):
    """A global table: what all regions know of it.

    ``group_id`` is the table id of the founding table; ``key`` and the local indexes never change.
    ``partitions`` is how many each region cuts it into, at the same places. ``rounds`` counts
    members that were lost: after each everybody fills everybody else, since what a lost region
    wrote may have reached only some of them.
    """

    group_id: str
    namespace: str
    table: str
    created_ms: int
    key: KeySchema
    local_indexes: tuple[NewIndex, ...]
    partitions: int
    members: dict[str, Member]
    shared: Shared
    rounds: int = 0
    format: int = GROUP_FORMAT

    def member(self, region: str) -> Member | None:
        """The member of that region, whatever its stage."""
        return self.members.get(region)

    def others(self, region: str) -> list[Member]:
        """All members but the one of ``region``, in the order of their names."""
        return [
            self.members[name]
            for name in sorted(self.members)
            if name != region and self.members[name].is_member
        ]

    def with_member(self, member: Member) -> Group:
        """The group with this member in the place of what it was."""
        return msgspec.structs.replace(self, members={**self.members, member.region: member})


def merged(one: Group, other: Group) -> Group:
    """What two regions know together. Both are the same group."""
    assert one.group_id == other.group_id
    members = dict(one.members)
    for region, member in other.members.items():
        known = members.get(region)
        members[region] = member if known is None else _merged_member(known, member)
    shared = max(one.shared, other.shared, key=lambda shared: shared.stamp)
    return msgspec.structs.replace(
        one,
        members=dict(sorted(members.items())),
        shared=shared,
        rounds=max(one.rounds, other.rounds),
    )


def _merged_member(one: Member, other: Member) -> Member:
    further = max(one, other, key=lambda member: (member.incarnation, member.stage))
    if one.incarnation != other.incarnation:
        return further
    overrides = max(one.overrides, other.overrides, key=lambda overrides: overrides.stamp)
    return msgspec.structs.replace(further, overrides=overrides)


def encode_group(group: Group) -> bytes:
    """The catalog's entry, and what is gossiped."""
    return msgspec.msgpack.encode(group)


def decode_group(data: bytes) -> Group:
    """The group that the catalog has kept. Raises Corrupt or WrongFormat."""
    try:
        group = msgspec.msgpack.decode(data, type=Group)
    except msgspec.DecodeError as error:
        raise Corrupt("a group in the catalog cannot be read") from error
    if group.format != GROUP_FORMAT:
        raise WrongFormat(f"group {group.table} has catalog format {group.format}")
    return group
