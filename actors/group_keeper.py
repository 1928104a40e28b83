"""Carries out what groups decide about this region: makes, fills, changes and removes its tables.

A poller over the groups that this region belongs to: look, do the next step, until there is none;
then wait until something changes. Every step may be done twice, so a start after a crash takes up
what is unfinished. ``model.groups.Stage`` says what each stage leaves to do.

Owned by ``Regions``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from ..errors import MillstreamError
from ..limits import SCHEMA_RETRY_SECONDS
from ..model.groups import Group, Stage
from ..model.schema import Status
from .group_values import new_table_of, next_change
from .tasks import Tasks

if TYPE_CHECKING:
    from .node import Node
    from .regions import Regions
    from .tables import TableRef

logger = logging.getLogger(__name__)


class GroupKeeper:
    """See the module's text."""

    def __init__(self, regions: Regions, node: Node) -> None:
        self._regions = regions
        self._node = node

    async def run(self) -> None:
        """Have a task look after each group that has something left to do, until cancelled."""
        async with trio.open_nursery() as nursery:
            tasks = Tasks(nursery)
            while True:
                seen = self._regions.changes
                for group in self._regions.store.all():
                    if group.group_id not in tasks and self._has_more(group):
                        tasks.start(group.group_id, self._tend, group.group_id)
                with trio.move_on_after(SCHEMA_RETRY_SECONDS * 10):
                    await self._regions.wait_changed(seen)

    def _has_more(self, group: Group) -> bool:
        own = group.member(self._regions.own)
        if own is None or own.stage in (Stage.FAILED, Stage.GONE):
            return False
        if own.stage is Stage.ACTIVE:
            ref = self._ref(group)
            return ref is None or (
                ref.table.status is Status.ACTIVE
                and next_change(ref.table, group, own.region) is not None
            )
        return True

    def _ref(self, group: Group) -> TableRef | None:
        """The table of the group here, if there is one."""
        ref = self._node.schema_changes.refs.get((group.namespace, group.table))
        return ref if ref is not None and ref.table.group_id == group.group_id else None

    async def _tend(self, group_id: str) -> None:
        while True:
            group = self._regions.store.find(group_id)
            assert group is not None
            if not self._has_more(group):
                return
            try:
                if not await self._step(group):
                    return
            except MillstreamError as error:
                logger.warning("table %s follows its group later: %s", group.table, error)
                await trio.sleep(SCHEMA_RETRY_SECONDS)

    async def _step(self, group: Group) -> bool:
        """The next thing to do; False if there is something to wait for first."""
        ref = self._ref(group)
        match group.members[self._regions.own].stage:
            case Stage.CREATING:
                return await self._create(group, ref)
            case Stage.ACTIVE:
                return await self._change(group, ref)
            case Stage.DISASSOCIATING:
                return await self._leave(group, ref)
            case Stage.DELETING:
                return await self._delete(group, ref)
        return False

    async def _create(self, group: Group, ref: TableRef | None) -> bool:
        changes = self._node.schema_changes
        if ref is None:
            if (group.namespace, group.table) in changes.refs:
                reason = f"{self._regions.own} has a table of that name already"
                await self._regions.store.set_stage(group.group_id, Stage.FAILED, reason)
                return False
            logger.info("making a replica of table %s", group.table)
            await changes.create(new_table_of(group, self._regions.own))
            return True
        if ref.table.status is not Status.ACTIVE:
            with trio.move_on_after(SCHEMA_RETRY_SECONDS):
                await changes.wait_moved()
            self._regions.note_changed()
            return True
        if not self._regions.is_filled(group):
            return False
        await changes.open_replica(ref)
        await self._regions.store.set_stage(group.group_id, Stage.ACTIVE)
        logger.info("the replica of table %s is filled", group.table)
        return True

    async def _change(self, group: Group, ref: TableRef | None) -> bool:
        if ref is None:
            # It was alone in its group, and its table was deleted.
            await self._regions.store.set_stage(group.group_id, Stage.GONE)
            return False
        if ref.table.status is not Status.ACTIVE:
            return False
        change = next_change(ref.table, group, self._regions.own)
        if change is None:
            return False
        changes = self._node.schema_changes
        await changes.change(ref, change)
        await changes.wait_settled(ref)
        return True

    def _is_needed(self, group: Group) -> bool:
        """Whether a region that this one has invited is still being filled from here."""
        return any(
            member.stage is Stage.CREATING and member.invited_by == self._regions.number
            for member in group.others(self._regions.own)
        )

    async def _leave(self, group: Group, ref: TableRef | None) -> bool:
        if ref is not None:
            if self._is_needed(group):
                await trio.sleep(SCHEMA_RETRY_SECONDS)
                return True
            if ref.table.status is not Status.ACTIVE or not self._regions.is_drained(group, ref):
                await trio.sleep(SCHEMA_RETRY_SECONDS)
                return True
            await self._node.schema_changes.leave_group(ref)
        await self._regions.store.set_stage(group.group_id, Stage.GONE)
        return False

    async def _delete(self, group: Group, ref: TableRef | None) -> bool:
        changes = self._node.schema_changes
        if ref is not None:
            if ref.table.status is Status.ACTIVE and not ref.table.is_shut:
                await changes.shut(ref)
                return True
            if self._is_needed(group):
                await trio.sleep(SCHEMA_RETRY_SECONDS)
                return True
            if ref.table.status is not Status.DELETING:
                if ref.table.status is not Status.ACTIVE or not self._regions.is_drained(
                    group, ref
                ):
                    await trio.sleep(SCHEMA_RETRY_SECONDS)
                    return True
                await changes.delete(ref)
            while self._ref(group) is not None:
                with trio.move_on_after(SCHEMA_RETRY_SECONDS):
                    await changes.wait_moved()
        await self._regions.store.set_stage(group.group_id, Stage.GONE)
        return False
