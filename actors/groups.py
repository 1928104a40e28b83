"""The groups of global tables that a region knows: in the catalog, merged with what others say.

Owned by ``Regions``. Reads are synchronous; a change is durable when its call returns, and told to
other regions by whoever is told of it here (``note_changed``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import msgspec
import trio

from ..errors import LinkError, OutcomeUnknown, StorageError, Throttled
from ..limits import GROUPS_MAX, SCHEMA_RETRY_SECONDS
from ..model.groups import Group, Stage, decode_group, encode_group, merged
from ..model.schema import Table
from .catalog import GROUP_ENTRY, Catalog

logger = logging.getLogger(__name__)


class Groups:
    """See the module's text. ``note_changed`` gets what a group was, and what it is."""

    def __init__(
        self, catalog: Catalog, own: str, note_changed: Callable[[Group | None, Group], None]
    ) -> None:
        self._catalog = catalog
        self._own = own
        self._note_changed = note_changed
        self._groups: dict[str, Group] = {}
        for data in catalog.entries(GROUP_ENTRY).values():
            group = decode_group(data)
            self._groups[group.group_id] = group
        #: Changes go one after another, each from what the one before has left.
        self._changing = trio.Lock()

    def find(self, group_id: str) -> Group | None:
        """The group of that id."""
        return self._groups.get(group_id)

    def of(self, table: Table) -> Group | None:
        """The group that a table here belongs to."""
        return None if table.group_id is None else self._groups.get(table.group_id)

    def of_namespace(self, namespace: str) -> list[Group]:
        """The groups that this region is a member of, by their tables' names."""
        return sorted(
            (
                group
                for group in self._groups.values()
                if group.namespace == namespace
                and (member := group.member(self._own)) is not None
                and member.is_member
            ),
            key=lambda group: group.table,
        )

    def all(self) -> list[Group]:
        """Every group that was ever heard of."""
        return list(self._groups.values())

    def gossip(self) -> list[bytes]:
        """Every group, encoded."""
        return [encode_group(group) for group in self._groups.values()]

    async def merge(self, groups: Iterable[bytes]) -> None:
        """Learn of groups from another region. Raises LinkError for what are none."""
        for data in groups:
            try:
                group = decode_group(data)
            except StorageError as error:
                raise LinkError(f"gossip that cannot be read: {error}") from None
            async with self._changing:
                known = self._groups.get(group.group_id)
                if known is None and len(self._groups) >= GROUPS_MAX:
                    raise LinkError("too many groups are known")
                now = group if known is None else merged(known, group)
                if now != known:
                    await self._save(now)

    async def change(self, group: Group) -> Group:
        """Make a change of this region's durable and known; the group as it is then."""
        async with self._changing:
            known = self._groups.get(group.group_id)
            now = group if known is None else merged(known, group)
            await self._save(now)
            return now

    async def set_stage(self, group_id: str, stage: Stage, reason: str = "") -> None:
        """This region's membership has got to ``stage``."""
        group = self._groups[group_id]
        member = group.members[self._own]
        if member.stage < stage:
            await self.change(
                group.with_member(msgspec.structs.replace(member, stage=stage, reason=reason))
            )

    async def _save(self, group: Group) -> None:
        while True:
            try:
                await self._catalog.save_entry(GROUP_ENTRY, group.group_id, encode_group(group))
                break
            except (OutcomeUnknown, Throttled) as error:
                logger.warning("group %s is stored again: %s", group.table, error)
                await trio.sleep(SCHEMA_RETRY_SECONDS)
        before = self._groups.get(group.group_id)
        self._groups[group.group_id] = group
        self._note_changed(before, group)
