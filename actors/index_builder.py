"""Carries one base partition's changes into one partition of a global index.

A poller: pull from the base log, derive, ask the index partition, repeat; its checkpoint is the
progress that the index partition stores in the same entry as the effects. What leaves an index
comes from the logged old index keys, never from the tree, so the builder may be arbitrarily late.

Filling an index on an existing table interleaves with following the log, as one sequence:

1. follow the log to its end; effects on keys at or above ``cursor`` are skipped (a later chunk
   will read their outcome);
2. read a chunk of rows from ``cursor`` on, at the base's last LSN p, and send it with the new
   cursor; effects up to p on the chunk's keys are contained in it and are skipped from then on.

Each step's outcome is one batch, so a crash between any two repeats at most one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from ..errors import Ambiguous, OutcomeUnknown, Throttled
from ..limits import (
    INDEX_CHUNK_BYTES,
    INDEX_CHUNK_ROWS,
    INDEX_LAG_ENTRIES_MAX,
    INDEX_READ_BYTES,
    INDEX_RETRY_SECONDS,
)
from ..model.keys import hash_prefix, successor
from ..model.schema import GlobalIndex, Partition, Table
from ..model.values import decode_item
from ..storage.index_state import IndexBatch
from ..storage.indexes import entry_body, entry_key
from ..storage.log.entry import decode_entry, lsn_of
from ..storage.records import Effect, IndexEffect, IndexProgress, decode_records
from .partition import PartitionActor

logger = logging.getLogger(__name__)


class IndexBuilder:
    """One (base partition, index partition) pair."""

    def __init__(
        self,
        table: Callable[[], Table],
        index_name: str,
        base: PartitionActor,
        target: PartitionActor,
        target_range: Partition,
        delay_seconds: float = 0.0,
    ) -> None:
        self._table = table
        self._name = index_name
        self._base = base
        self._target = target
        self._range = target_range
        #: An artificial lag, for tests of programs that must live with one.
        self._delay_seconds = delay_seconds
        state = target.machine.state
        self.progress = state.progress.get(base.log_id) or IndexProgress(base.log_id, 0)
        #: Those who wait for the index to catch up.
        self._growth = trio.lowlevel.ParkingLot()
        #: Set when the index holds everything that the table held when this builder began.
        self.filled = trio.Event()

    @property
    def index_name(self) -> str:
        """The index that this builder fills."""
        return self._name

    @property
    def lsn(self) -> int:
        """Base entries up to here are carried over; the base log keeps what is above."""
        return self.progress.lsn

    async def begin(self, barrier_lsn: int) -> None:
        """For an index made on an existing table: start to fill it, from the barrier on."""
        if self.progress.lsn == 0:
            progress = IndexProgress(self._base.log_id, barrier_lsn, cursor=b"")
            await self._send(IndexBatch((), progress))

    async def caught_up(self) -> None:
        """Return when what the base had committed at the time of the call is in the index."""
        lsn = self._base.lsn
        while self.progress.lsn < lsn:
            await self._growth.park()

    async def run(self) -> None:
        """Follow, and fill while there is something to fill, until cancelled."""
        while self.progress.cursor is not None:
            await self._follow(self._base.lsn)
            await self._fill_chunk()
        await self._follow(self._base.lsn)
        self.filled.set()
        while True:
            await self._base.wait_beyond(self.progress.lsn)
            if self._delay_seconds:
                await trio.sleep(self._delay_seconds)
            await self._follow(self._base.lsn)

    def _index(self) -> GlobalIndex:
        index = self._table().global_index(self._name)
        assert index is not None, "a builder ends before its index does"
        return index

    async def _follow(self, until: int) -> None:
        """Carry over the base log up to LSN ``until``."""
        while self.progress.lsn < until:
            try:
                entries = self._base.read_log(self.progress.lsn + 1, INDEX_READ_BYTES)
            except Ambiguous:
                # The log is being reopened after a doubtful sync.
                await trio.sleep(INDEX_RETRY_SECONDS)
                continue
            assert entries, "the log is held for its builders"
            effects: list[tuple[int, IndexEffect]] = []
            lsn = self.progress.lsn
            for entry in entries:
                lsn = lsn_of(entry)
                for record in decode_records(decode_entry(entry)[1]):
                    if isinstance(record, Effect) and not self._contained(lsn, record.key):
                        effects.extend((lsn, effect) for effect in self._derive(record))
            self._throttle(until - lsn)
            progress = IndexProgress(
                self._base.log_id,
                lsn,
                self.progress.cursor,
                self.progress.chunk_low,
                self.progress.chunk_lsn,
            )
            await self._send(IndexBatch(tuple(effects), progress))
        self._throttle(0)

    def _contained(self, lsn: int, key: bytes) -> bool:
        """Whether a chunk, read or still to come, tells the outcome of this effect."""
        progress = self.progress
        if progress.cursor is not None and key >= progress.cursor:
            return True
        return lsn <= progress.chunk_lsn and key >= progress.chunk_low

    def _derive(self, effect: Effect) -> list[IndexEffect]:
        index = self._index()
        old_entry = (effect.old_index_keys or {}).get(index.tree)
        new_entry = None
        if effect.body is not None:
            item = decode_item(effect.body)
            new_entry = entry_key(self._table(), index, item, effect.key)
        effects: list[IndexEffect] = []
        if old_entry is not None and old_entry != new_entry and self._here(old_entry):
            effects.append(IndexEffect(old_entry, None, 0, effect.hlc, effect.region))
        if new_entry is not None and self._here(new_entry):
            body, size_bytes = entry_body(self._table(), index, item)
            effects.append(IndexEffect(new_entry, body, size_bytes, effect.hlc, effect.region))
        return effects

    def _here(self, entry: bytes) -> bool:
        return self._range.low <= int.from_bytes(entry[:8], "big") <= self._range.last

    async def _fill_chunk(self) -> None:
        """Carry over the next chunk of rows, as they are at this moment."""
        progress, table, index = self.progress, self._table(), self._index()
        cursor = progress.cursor
        assert cursor is not None
        low, high = self._base_bounds()
        at_lsn = self._base.lsn
        rows: list[IndexEffect] = []
        last, read_bytes, read_rows = b"", 0, 0
        for key, row in self._base.rows(table.tree, max(cursor, low), high):
            last, read_bytes, read_rows = key, read_bytes + len(row.body), read_rows + 1
            item = decode_item(row.body)
            entry = entry_key(table, index, item, key)
            if entry is not None and self._here(entry):
                body, size_bytes = entry_body(table, index, item)
                rows.append(IndexEffect(entry, body, size_bytes, row.hlc, row.region))
            if read_rows >= INDEX_CHUNK_ROWS or read_bytes >= INDEX_CHUNK_BYTES:
                break
        else:
            last = b""
        done = IndexProgress(
            self._base.log_id,
            progress.lsn,
            cursor=successor(last) if last else None,
            chunk_low=cursor,
            chunk_lsn=at_lsn,
        )
        await self._send(IndexBatch((), done, tuple(rows)))

    def _base_bounds(self) -> tuple[bytes, bytes]:
        for partition in self._table().partitions:
            if partition.log_id == self._base.log_id:
                return hash_prefix(partition.low), hash_prefix(partition.last + 1)
        raise AssertionError("the base partition is one of its table's")

    def _throttle(self, behind: int) -> None:
        """Let the base refuse writes while this index is too far behind."""
        if behind > INDEX_LAG_ENTRIES_MAX:
            self._base.throttled_by.add(self._name)
        else:
            self._base.throttled_by.discard(self._name)

    async def _send(self, batch: IndexBatch) -> None:
        while True:
            try:
                await self._target.write(batch)
            except (Throttled, OutcomeUnknown):
                # The same batch again: the target takes what it does not hold yet.
                await trio.sleep(INDEX_RETRY_SECONDS)
            else:
                self.progress = batch.progress
                self._growth.unpark_all()
                return
