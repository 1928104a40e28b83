"""Keeps what was lost to other regions in the tables that were asked for (``conflicts_table``).

A poller for each partition of such a table: read the log behind where it was, put a row for each
conflict (``globaltables/conflict_rows.py``), note how far it has got. The log is the truth, so a
crash, a conflicts table that is not there, or one that is throttled loses nothing for as long as
the log is kept (the retention of streams); a row that is put twice is the same row. Whoever asks
for a conflicts table gets the conflicts that the log still has, from before as well.

Owned by ``Conflicts``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec
import trio

from ..errors import (
    Ambiguous,
    MillstreamError,
    OutcomeUnknown,
    RequestError,
    ResourceInUse,
    StorageError,
    Throttled,
    Trimmed,
    Unavailable,
)
from ..globaltables.conflict_rows import CONFLICTS_KEY, CONFLICTS_KINDS, conflicts_of, row_of
from ..limits import (
    CONFLICTS_NOTE_ENTRIES,
    CONFLICTS_NOTE_SECONDS,
    CONFLICTS_PACE_SECONDS,
    CONFLICTS_PUT_ROWS,
    CONFLICTS_READ_ENTRIES,
    LOG_RETRY_SECONDS,
    SCHEMA_RETRY_SECONDS,
)
from ..model.groups import Group
from ..model.schema import NewTable, Status, Table
from ..model.values import Item, encode_item
from ..storage.checks import check_new_item
from ..storage.commands import Put
from ..storage.indexes import primary_key
from .catalog import CONFLICTS_ENTRY
from .partition import PartitionActor
from .tasks import Tasks

if TYPE_CHECKING:
    from .node import Node
    from .regions import Regions
    from .tables import TableRef

logger = logging.getLogger(__name__)


class _Place(msgspec.Struct, frozen=True):
    """Where one poller reads and writes: a partition's log, and the name of a table."""

    group_id: str
    log_id: str
    target: str

    @property
    def name(self) -> str:
        """The name of its position's entry in the catalog, and of its task."""
        return f"{self.log_id} {self.target}"


class _Progress(msgspec.Struct):
    """Of one group: rows put since this start, and why none are at the moment."""

    recorded: int = 0
    trouble: str = ""


class ConflictRecorder:
    """See the module's text."""

    def __init__(self, regions: Regions, node: Node) -> None:
        self._regions = regions
        self._node = node
        self._progress: dict[str, _Progress] = {}

    def progress(self, group_id: str) -> tuple[int, str]:
        """How many rows were put since this start, and why none are at the moment."""
        progress = self._progress.get(group_id, _Progress())
        return progress.recorded, progress.trouble

    async def run(self) -> None:
        """Have a task follow each log whose conflicts are wanted, until cancelled."""
        await self._sweep()
        async with trio.open_nursery() as nursery:
            tasks = Tasks(nursery)
            while True:
                seen = self._regions.changes
                for place in self._places():
                    if place.name not in tasks:
                        tasks.start(place.name, self._follow, place)
                with trio.move_on_after(SCHEMA_RETRY_SECONDS * 10):
                    await self._regions.wait_changed(seen)

    def _places(self) -> list[_Place]:
        return [
            _Place(group.group_id, partition.log_id, group.shared.conflicts_table)
            for group, ref in self._regions.tables()
            if group.shared.conflicts_table is not None
            for partition in ref.table.partitions
            if partition.log_id in self._node.schema_changes.actors_by_log
        ]

    async def _sweep(self) -> None:
        """Forget how far was read for tables that are gone, or not wanted any more."""
        known = {place.name for place in self._places()}
        for name in self._node.catalog.entries(CONFLICTS_ENTRY):
            if name not in known:
                try:
                    await self._node.catalog.remove_entry(CONFLICTS_ENTRY, name)
                except (OutcomeUnknown, Throttled, Unavailable) as error:
                    logger.warning("a position is forgotten at the next start: %s", error)

    def _wanted(self, place: _Place) -> tuple[Group, Table, PartitionActor] | None:
        """What the place is about, while its conflicts are wanted."""
        actor = self._node.schema_changes.actors_by_log.get(place.log_id)
        group = self._regions.store.find(place.group_id)
        if actor is None or group is None or group.shared.conflicts_table != place.target:
            return None
        ref = self._node.schema_changes.refs.get((group.namespace, group.table))
        if ref is None or ref.table.group_id != place.group_id:
            return None
        return group, ref.table, actor

    # One log.

    async def _follow(self, place: _Place) -> None:
        saved = self._position(place)
        lsn = saved
        while (wanted := self._wanted(place)) is not None:
            group, table, actor = wanted
            if lsn >= actor.lsn:
                with trio.move_on_after(CONFLICTS_NOTE_SECONDS) as scope:
                    await actor.wait_beyond(lsn)
                    # What comes within moments is put together.
                    await trio.sleep(CONFLICTS_PACE_SECONDS)
                if scope.cancelled_caught and lsn > saved:
                    saved = await self._note(place, lsn, saved)
                continue
            try:
                rows, read_lsn = self._read(place, group, table, actor, lsn)
                if rows:
                    await self._put(group, place.target, rows)
            except Trimmed as error:
                lsn = self._missed(group, lsn, error.first_lsn)
                continue
            except Ambiguous:
                await trio.sleep(LOG_RETRY_SECONDS)  # The log is being reopened.
                continue
            except MillstreamError as error:
                await self._wait_after(group, error)
                continue
            progress = self._progress.setdefault(group.group_id, _Progress())
            progress.recorded += len(rows)
            progress.trouble = ""
            lsn = read_lsn
            if rows or lsn - saved >= CONFLICTS_NOTE_ENTRIES:
                saved = await self._note(place, lsn, saved)
            await trio.lowlevel.checkpoint()

    def _read(
        self, place: _Place, group: Group, table: Table, actor: PartitionActor, lsn: int
    ) -> tuple[list[Item], int]:
        """The rows for the next entries behind ``lsn``, and how far that is."""
        streams = self._node.tables.streams
        first = streams.first_kept(place.log_id)
        if first > lsn + 1:
            raise Trimmed(f"log {place.log_id} begins at {first}", first)

        def region_name(number: int) -> str:
            if not number:
                return self._regions.own
            names = (each.region for each in group.members.values() if each.number == number)
            return next(names, str(number))

        rows: list[Item] = []
        end = min(actor.lsn, lsn + CONFLICTS_READ_ENTRIES)
        while lsn < end and not rows:
            lsn += 1
            entry = streams.entry(place.log_id, lsn)
            rows = [row_of(conflict, table, region_name) for conflict in conflicts_of(entry)]
        return rows, lsn

    def _missed(self, group: Group, lsn: int, first: int) -> int:
        """The log no longer reaches back: from where to go on."""
        if lsn:
            logger.error(
                "conflicts of table %s were not recorded in time: its log begins behind them",
                group.table,
            )
        return max(lsn, first - 1)

    async def _put(self, group: Group, name: str, rows: list[Item]) -> None:
        """Put these rows into the table of that name, made if absent.

        Raises RequestError, OutcomeUnknown or Unavailable; doing it again is harmless.
        """
        ref = await self._target(group, name)
        puts = [
            Put(primary_key(ref.table, row), encode_item(row), check_new_item(ref.table, row))
            for row in rows
        ]
        for begin in range(0, len(puts), CONFLICTS_PUT_ROWS):
            for result in await ref.write_many(puts[begin : begin + CONFLICTS_PUT_ROWS]):
                if isinstance(result, Exception):
                    raise result

    async def _target(self, group: Group, name: str) -> TableRef:
        tables = self._node.tables
        if tables.find(group.namespace, name) is None:
            logger.info("making table %s for the conflicts of table %s", name, group.table)
            new = NewTable(
                group.namespace,
                name,
                CONFLICTS_KEY,
                CONFLICTS_KINDS,
                billing_mode="PAY_PER_REQUEST",
            )
            try:
                await tables.create(new)
            except ResourceInUse:
                pass  # Another partition's poller was quicker.
        ref = tables.find(group.namespace, name)
        if ref is not None and ref.table.status not in (Status.ACTIVE, Status.UPDATING):
            await tables.wait_active(group.namespace, name)
            ref = tables.find(group.namespace, name)
        if ref is None or ref.table.key != CONFLICTS_KEY or ref.table.group_id is not None:
            raise ResourceInUse(
                f"table {name} cannot keep conflicts: its key is another than item (S), at (S), or "
                "it is a global table"
            )
        return ref

    async def _wait_after(self, group: Group, error: MillstreamError) -> None:
        progress = self._progress.setdefault(group.group_id, _Progress())
        if progress.trouble != str(error):
            progress.trouble = str(error)
            logger.warning("conflicts of table %s are recorded later: %s", group.table, error)
        is_passing = isinstance(error, Throttled | OutcomeUnknown | Unavailable)
        await trio.sleep(SCHEMA_RETRY_SECONDS * (1 if is_passing else 20))

    # How far it is.

    def _position(self, place: _Place) -> int:
        """The last LSN whose conflicts are in the table; 0: none of what the log has."""
        data = self._node.catalog.entries(CONFLICTS_ENTRY).get(place.name)
        return 0 if data is None else int(data)

    async def _note(self, place: _Place, lsn: int, saved: int) -> int:
        """Store how far it is; what is stored then. Doing it later is harmless."""
        try:
            await self._node.catalog.save_entry(CONFLICTS_ENTRY, place.name, b"%d" % lsn)
        except (RequestError, OutcomeUnknown, Unavailable, StorageError) as error:
            logger.warning("how far conflicts are recorded is noted later: %s", error)
            return saved
        return lsn
