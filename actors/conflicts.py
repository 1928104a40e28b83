"""What becomes of writes that lost to another region's: policies, resolvers, and who looks at them.

Owned by ``Regions``. A partition that finds a conflict asks ``resolve``, which goes by the group as
it is known at that moment, so that a new policy takes effect at once. What a policy is, and why
regions end equal whatever it says, is in ``globaltables/policies.py``. ``ConflictRecorder`` fills
the tables that keep what was lost.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from ..errors import InvalidRequest
from ..globaltables.conflict_rows import CONFLICTS_KEY
from ..globaltables.policies import (
    RESOLVER,
    ByAttribute,
    ResolverFailed,
    attribute_of,
    check_conflicts_table,
    policy_text,
    resolved,
    shown,
)
from ..model.groups import Group
from ..model.schema import Table
from ..model.values import Item
from .conflict_recorder import ConflictRecorder

if TYPE_CHECKING:
    from .node import Node
    from .regions import Regions

logger = logging.getLogger(__name__)


class ConflictStatus(msgspec.Struct, frozen=True):
    """How conflicts of one table are dealt with here. Counts are since this start.

    ``conflicts`` is how many writes of this region have lost, ``changed`` how often the policy made
    something else of it than the winner. ``failures`` counts answers of the resolver's that could
    not be taken, ``unanswered`` conflicts for which there was none. ``recorded`` rows have been put
    into the conflicts table; ``trouble`` says why none are at the moment.
    """

    table: str
    policy: str
    conflicts_table: str | None
    has_resolver: bool
    conflicts: int
    changed: int
    failures: int
    unanswered: int
    recorded: int
    trouble: str


class _Counts(msgspec.Struct):
    conflicts: int = 0
    changed: int = 0
    failures: int = 0
    unanswered: int = 0


class Conflicts:
    """See the module's text."""

    def __init__(self, regions: Regions, node: Node) -> None:
        self._regions = regions
        self._node = node
        self._recorder = ConflictRecorder(regions, node)
        #: Group -> what has happened since this start.
        self._counts: dict[str, _Counts] = {}
        #: (group, policy) of which it was said that it cannot be followed here.
        self._warned: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Keep what was lost where that is asked for, until cancelled."""
        for group in self._regions.store.all():
            self.note_group(group)
        await self._recorder.run()

    # For partitions.

    def resolve(self, table: Table, loser: Item | None, winner: Item | None) -> Item | None:
        """What is to be where a write of this region's has lost; ``winner`` itself: as it is."""
        group = self._regions.group_of(table)
        if group is None:
            return winner
        counts = self._counts.setdefault(group.group_id, _Counts())
        counts.conflicts += 1
        item = self._decided(group, table, loser, winner, counts)
        counts.changed += item is not winner
        return item

    def _decided(
        self,
        group: Group,
        table: Table,
        loser: Item | None,
        winner: Item | None,
        counts: _Counts,
    ) -> Item | None:
        policy = group.shared.policy
        by_attribute = attribute_of(policy)
        if by_attribute is not None:
            return by_attribute(loser, winner)
        if not policy:
            return winner
        resolver = self._node.resolvers.get((group.namespace, group.table))
        if policy != RESOLVER or resolver is None:
            counts.unanswered += 1
            self.note_group(group)
            return winner
        try:
            return resolved(resolver, table, loser, winner)
        except ResolverFailed as failure:
            counts.failures += 1
            if counts.failures == 1:
                logger.error(
                    "the resolver of table %s has failed and the later version stays: %s; "
                    "further failures are counted only",
                    group.table,
                    failure,
                )
            return winner

    def note_group(self, group: Group) -> None:
        """A group has changed: say so, once, if its policy cannot be followed here."""
        policy, own = group.shared.policy, group.member(self._regions.own)
        key = (group.group_id, policy)
        if (
            own is None
            or not own.is_member
            or self._can_follow(group)
            or key in self._warned
        ):
            return
        self._warned.add(key)
        logger.warning(
            "table %s has the conflict policy %r, which this region cannot follow: %s. Until it "
            "can, the later version wins here",
            group.table,
            shown(policy),
            "no resolver is registered for the table"
            if policy == RESOLVER
            else "this millstream does not know it",
        )

    def _can_follow(self, group: Group) -> bool:
        policy = group.shared.policy
        if policy == RESOLVER:
            return (group.namespace, group.table) in self._node.resolvers
        return not policy or attribute_of(policy) is not None

    # For users.

    async def set_policy(
        self, table: Table, policy: str | ByAttribute | None, conflicts_table: str | None
    ) -> Group:
        """Set what becomes of writes that lose, and where they are kept (None: nowhere).

        For every region, as soon as it hears of it. Raises InvalidRequest; nothing has changed.
        """
        text = policy_text(policy)
        group = self._regions.group_of(table)
        if group is None:
            raise InvalidRequest(
                f"Table {table.name} is no global table: it has no conflicts between regions"
            )
        if conflicts_table is not None:
            self._check_conflicts_table(group, conflicts_table)
        shared = msgspec.structs.replace(
            group.shared,
            stamp=self._regions.membership.stamp(),
            policy=text,
            conflicts_table=conflicts_table,
        )
        return await self._regions.store.change(msgspec.structs.replace(group, shared=shared))

    def _check_conflicts_table(self, group: Group, name: str) -> None:
        check_conflicts_table(name, group.table)
        namespace = group.namespace
        if any(other.table == name for other in self._regions.groups(namespace)):
            raise InvalidRequest(
                f"Table {name} is a global table: conflicts are kept in a table of each region"
            )
        ref = self._node.tables.find(namespace, name)
        if ref is not None and ref.table.key != CONFLICTS_KEY:
            raise InvalidRequest(
                f"Table {name} is there already, and its key is not that of a conflicts table: "
                "item (S), at (S)"
            )

    def status(self, table: Table) -> ConflictStatus | None:
        """How conflicts of ``table`` are dealt with here; None if it is no global one."""
        group = self._regions.group_of(table)
        return None if group is None else self._status(group)

    def all(self) -> list[ConflictStatus]:
        """``status`` of every global table that this region has."""
        return [self._status(group) for group, _ in self._regions.tables()]

    def _status(self, group: Group) -> ConflictStatus:
        counts = self._counts.get(group.group_id, _Counts())
        recorded, trouble = self._recorder.progress(group.group_id)
        return ConflictStatus(
            group.table,
            shown(group.shared.policy),
            group.shared.conflicts_table,
            (group.namespace, group.table) in self._node.resolvers,
            counts.conflicts,
            counts.changed,
            counts.failures,
            counts.unanswered,
            recorded,
            trouble,
        )
