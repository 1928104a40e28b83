"""Who belongs to a global table, and what its replicas share: what users ask of regions.

Every call changes the group, durably, and returns; what follows is the ``GroupKeeper``'s, in every
region. Owned by ``Regions``; tables are looked up by the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..errors import InvalidRequest, ResourceInUse
from ..model.groups import Group, Member, Overrides, Stage, Stamp
from ..model.schema import Table
from .group_values import founded, shared_of

if TYPE_CHECKING:
    from .node import Node
    from .regions import Regions
    from .tables import TableRef


class Membership:
    """See the module's text."""

    def __init__(self, regions: Regions, node: Node) -> None:
        self._regions = regions
        self._node = node

    async def add(self, table: Table, region: str, overrides: Overrides) -> Table:
        """Invite a region: it makes the table and is filled, while this one serves on.

        Raises InvalidRequest or ResourceInUse; nothing has changed then.
        """
        peer = self._regions.peer(region)
        if peer is None:
            raise InvalidRequest(f"Region {region} is not in this node's file of regions")
        group = self._regions.group_of(table)
        if group is None:
            group = await self._found(table)
        if group.members[self._regions.own].stage is not Stage.ACTIVE:
            raise ResourceInUse(f"The replica of {table.name} here is being made, or is leaving")
        member = group.member(region)
        if member is not None and member.is_member:
            raise InvalidRequest(
                f"Failed to create a the new replica of table with name: '{table.name}' because "
                f"one or more replicas already existed as tables."
            )
        incarnation = 1 if member is None else member.incarnation + 1
        invited = Member(
            region,
            peer.number,
            Stage.CREATING,
            incarnation,
            self._regions.number,
            msgspec.structs.replace(overrides, stamp=self.stamp()),
            after={
                name: known.incarnation
                for name, known in group.members.items()
                if known.is_member and name != region
            },
        )
        await self._regions.store.change(group.with_member(invited))
        return self._table(table)

    async def _found(self, table: Table) -> Group:
        """Make a table a global one, with this region alone."""
        ref = self._ref(table)
        # The group comes last: who sees it may rely on the table. A crash in between leaves a table
        # that names a group which nobody knows; it is founded the next time.
        group_id = ref.table.group_id
        if group_id is None:
            group_id = self._node.new_id()
            await self._node.schema_changes.join_group(ref, group_id)
        return await self._regions.store.change(
            founded(group_id, ref.table, self._regions.own, self._regions.number, self.stamp())
        )

    async def update(self, table: Table, region: str, overrides: Overrides) -> Table:
        """Change what a replica has for itself."""
        group = self._regions.group_of(table)
        member = None if group is None else group.member(region)
        if group is None or member is None or not member.is_member:
            raise InvalidRequest(f"Table {table.name} has no replica in {region}")
        overrides = msgspec.structs.replace(overrides, stamp=self.stamp())
        await self._regions.store.change(
            group.with_member(msgspec.structs.replace(member, overrides=overrides))
        )
        return self._table(table)

    async def remove(self, table: Table, region: str, *, keep: bool) -> Table:
        """Have a region leave: its table goes with it, or stays (``keep``) as one of its own."""
        group = self._regions.group_of(table)
        member = None if group is None else group.member(region)
        if group is None or member is None or member.stage is Stage.GONE:
            raise InvalidRequest(f"Table {table.name} has no replica in {region}")
        if member.stage is Stage.FAILED:
            await self._regions.store.change(
                group.with_member(msgspec.structs.replace(member, stage=Stage.GONE))
            )
            return self._table(table)
        stage = Stage.DISASSOCIATING if keep else Stage.DELETING
        if member.stage >= stage:
            raise ResourceInUse(f"The replica of {table.name} in {region} is leaving already")
        await self._regions.store.change(
            group.with_member(msgspec.structs.replace(member, stage=stage))
        )
        return self._table(table)

    async def forget(self, table: Table, region: str) -> Table:
        """Give a region up that is lost for good: nobody waits for it any more.

        What it had written and nobody received is lost with it. What only some have received they
        pass on: all fill each other once more.
        """
        group = self._regions.group_of(table)
        member = None if group is None else group.member(region)
        own = self._regions.own
        if group is None or member is None or not member.is_member or region == own:
            raise InvalidRequest(f"Table {table.name} has no replica in {region} to be given up")
        gone = msgspec.structs.replace(member, stage=Stage.GONE, reason=f"given up by {own}")
        group = msgspec.structs.replace(group.with_member(gone), rounds=group.rounds + 1)
        await self._regions.store.change(group)
        return self._table(table)

    async def share(self, table: Table) -> None:
        """Settings of a global table were changed here: they are to be the same everywhere."""
        group = self._regions.group_of(table)
        if group is None:
            return
        shared = shared_of(table, group.shared, self.stamp())
        if msgspec.structs.replace(shared, stamp=group.shared.stamp) != group.shared:
            await self._regions.store.change(msgspec.structs.replace(group, shared=shared))

    def stamp(self) -> Stamp:
        """A stamp above every other of this region."""
        return Stamp(self._node.tick(), self._regions.number)

    def _ref(self, table: Table) -> TableRef:
        ref = self._node.tables.find(table.namespace, table.name)
        if ref is None:
            raise InvalidRequest(f"Table {table.name} is gone")
        return ref

    def _table(self, table: Table) -> Table:
        return self._ref(table).table
