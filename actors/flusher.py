"""Moves committed rows from the memtable into the tree, and lets the logs go behind them.

A poller owned by the node: wait until there is enough, or it has waited long enough; freeze, write
in a worker thread, settle; then trim each log below what is now in the tree and what its followers
(index builders) have read. Dropped trees are removed here too, step by step, since the store takes
one writer at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import trio

from ..errors import StorageError
from ..host.threads import Threads
from ..limits import DROP_STEP_ROWS, STORAGE_RETRY_SECONDS
from ..storage.partition import encode_position
from ..storage.tree.btree import BTree
from .log_writer import LogWriter
from .partition import PartitionActor

logger = logging.getLogger(__name__)

POSITION_PREFIX = b"position/"


def position_key(log_id: str) -> bytes:
    """Where a partition's position is stored, beside its rows."""
    return POSITION_PREFIX + log_id.encode()


class Flusher:
    """Actor of the second kind: pull, work, checkpoint."""

    def __init__(
        self,
        btree: BTree,
        log_writer: LogWriter,
        threads: Threads,
        partitions: Callable[[], Iterable[PartitionActor]],
        holds: Callable[[], dict[str, int]],
        memtable_bytes: int,
        interval_seconds: float,
        may_trim: Callable[[], bool],
    ) -> None:
        self._btree = btree
        self._log_writer = log_writer
        self._threads = threads
        self._partitions = partitions
        #: Log -> the lowest LSN that some follower still has to read.
        self._holds = holds
        self._memtable_bytes = memtable_bytes
        self._interval_seconds = interval_seconds
        #: Whether every copy of the tree holds what was flushed.
        self._may_trim = may_trim
        self._work = trio.Event()
        self._urgent = trio.Event()
        self._lock = trio.Lock()
        #: Flushes done, for statistics.
        self.flushes = 0

    def note_commit(self) -> None:
        """Something was applied: it wants flushing some time, or soon if there is much of it."""
        if not self._work.is_set():
            self._work.set()
        if self._btree.mutable_bytes >= self._memtable_bytes and not self._urgent.is_set():
            self._urgent.set()

    @property
    def crowded(self) -> bool:
        """Whether partitions must wait: both layers are full."""
        return self._btree.frozen_bytes > 0 and (
            self._btree.mutable_bytes >= self._memtable_bytes
        )

    async def run(self) -> None:
        """Flush when it is time, until cancelled."""
        while True:
            await self._work.wait()
            with trio.move_on_after(self._interval_seconds):
                await self._urgent.wait()
            try:
                await self.flush()
            except StorageError as error:
                logger.error("the tree could not be written: %s; trying again", error)
                await trio.sleep(STORAGE_RETRY_SECONDS)

    async def flush(self) -> None:
        """Bring everything committed so far into the tree, synced; then trim the logs."""
        async with self._lock:
            #: Up to where each log's effects will be in the tree.
            flushed: list[tuple[PartitionActor, int]] = []
            frozen = self._btree.frozen
            if frozen is None:
                self._work, self._urgent = trio.Event(), trio.Event()
                for partition in self._partitions():
                    machine = partition.machine
                    if machine.dirty:
                        self._btree.set_meta(
                            position_key(partition.log_id), encode_position(machine.position())
                        )
                        machine.dirty = False
                    flushed.append((partition, machine.lsn))
                frozen = self._btree.freeze()
            if frozen is not None:
                try:
                    await self._threads.run(self._btree.flush, frozen)
                except StorageError:
                    self._btree.flush_failed(frozen)
                    self._work.set()
                    raise
                self._btree.settle(frozen)
                self.flushes += 1
                for partition in self._partitions():
                    partition.nudge()
            if self._may_trim():
                await self._trim(flushed)
            await self._drop()

    async def _trim(self, flushed: list[tuple[PartitionActor, int]]) -> None:
        engine = self._log_writer.engine
        holds = self._holds()
        known = set(engine.list())
        cuts = []
        for partition, lsn in flushed:
            log_id = partition.log_id
            # A log keeps its last entry in any case.
            before = min(lsn, holds.get(log_id, lsn))
            if log_id in known and before > engine.first(log_id):
                cuts.append((log_id, min(lsn + 1, holds.get(log_id, lsn + 1))))

        def trim() -> None:
            known = set(engine.list())
            for log_id, before in cuts:
                if log_id in known and before > engine.first(log_id):
                    engine.trim(log_id, before)

        if cuts:
            await self._log_writer.change(trim)

    async def _drop(self) -> None:
        for tree in self._btree.dropping():
            finished = False
            while not finished:
                try:
                    finished = await self._threads.run(
                        self._btree.drop_step, tree, DROP_STEP_ROWS
                    )
                finally:
                    self._btree.settle_drop(tree, finished)
