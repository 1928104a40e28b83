"""Sends one partition's own changes to one other region: a stream of a link.

A poller: read the log behind what was sent, pack, send, and wait for room in the window or for the
log to grow. It keeps no position of its own: the receiver says from where to send, and a new link
asks again. Where the log does not reach back far enough the receiver is *filled* first, with rows
and tombstones, chunk by chunk. See ``docs/global-tables.md``.

Owned by a ``LinkOut``, which runs ``run``, and gives it the answers to its messages.
"""

from __future__ import annotations

import heapq
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator

import msgspec
import trio

from ..errors import Ambiguous, Trimmed
from ..globaltables.messages import Ack, Batch, Chunk, Message, NotOpen, Open, Opened
from ..globaltables.packing import pack_arrivals
from ..globaltables.watermarks import Watermarks
from ..limits import (
    LOG_RETRY_SECONDS,
    REPLICATION_BUSY_CHANGES,
    REPLICATION_BUSY_FACTOR,
    REPLICATION_CHUNK_BYTES,
    REPLICATION_CHUNK_ROWS,
    REPLICATION_NOTE_ENTRIES,
    REPLICATION_PACE_SECONDS,
    REPLICATION_REOPEN_SECONDS,
    REPLICATION_WINDOW,
)
from ..model.keys import successor
from ..model.schema import Table
from ..model.versions import milliseconds_of
from ..storage.arrivals import Arrival
from ..storage.rows import Row
from ..storage.table_state import TableState
from .partition import PartitionActor
from .stretches import Stretches

logger = logging.getLogger(__name__)


class Source(msgspec.Struct, frozen=True):
    """One partition of a global table here. ``high`` None: to the end of all keys."""

    group_id: str
    partition: int
    low: bytes
    high: bytes | None
    table: Callable[[], Table]
    actor: PartitionActor
    marks: Watermarks
    #: Everything that this region will ever write there at or below it is committed.
    close: Callable[[], int]
    #: The group's count of lost members.
    round: int = 0
    #: The receiver was a member before this region was.
    was_known: bool = False


class Progress:
    """How far one other region has one partition's changes, as known here; outlives links."""

    __slots__ = ("acked_lsn", "bytes_sent", "changes_sent", "state")

    def __init__(self) -> None:
        #: Everything up to there is durable in the other region; 0: it has not said.
        self.acked_lsn = 0
        #: "waiting", "filling" or "following".
        self.state = "waiting"
        self.changes_sent = 0
        self.bytes_sent = 0


class _Sent(msgspec.Struct, frozen=True):
    """A message that is not acknowledged. ``is_part``: it does not finish what it names."""

    lsn: int
    cursor: bytes | None
    is_part: bool


class Replicator:
    """See the module's text."""

    def __init__(
        self,
        stream: int,
        source: Source,
        incarnation: int,
        number: int,
        stretches: Stretches,
        send: Callable[[Message], Awaitable[None]],
        progress: Progress,
        now_ms: Callable[[], int],
        echo: Callable[[], int | None] = lambda: None,
    ) -> None:
        #: Its number on this link.
        self.stream = stream
        self.source = source
        self._incarnation = incarnation
        #: The other region's.
        self._number = number
        self._stretches = stretches
        self._send = send
        self.progress = progress
        self._now_ms = now_ms
        #: The last stamp that the other region has sent.
        self._echo = echo
        #: The machine, and how many changes it had counted, when all of them had been sent last.
        self._level: tuple[object, int] | None = None
        #: How many were sent since.
        self._sent_changes = 0
        self._answer: Opened | NotOpen | None = None
        #: Everything of this region's up to there was sent, or there was nothing in it.
        self._sent_lsn = 0
        #: The last LSN that a batch has named.
        self._named_lsn = 0
        #: What was sent and is not acknowledged.
        self._flight: deque[_Sent] = deque()
        #: Everything acknowledged has been told of; ``closed`` may be.
        self.is_following = False
        #: Woken by answers.
        self._answered = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()

    # Answers, from the link.

    def on_opened(self, answer: Opened | NotOpen) -> None:
        """Whether, and from where, the other side wants it; or that it does so no longer."""
        if self._answer is not None and isinstance(answer, NotOpen):
            self._scope.cancel()
        self._answer = answer
        self._answered.unpark_all()

    def on_ack(self, ack: Ack) -> None:
        """The oldest message in flight is durable there, or a closed timestamp is."""
        if ack.closed:
            self.source.marks.note_acknowledged(self._number, ack.closed)
        flight = self._flight
        if flight and (ack.lsn, ack.cursor) == (flight[0].lsn, flight[0].cursor):
            sent = flight.popleft()
            if not sent.is_part:
                self.progress.acked_lsn = max(self.progress.acked_lsn, sent.lsn)
        if not flight and self.is_following and self.progress.acked_lsn < self._sent_lsn:
            # Behind the last batch there was nothing to send.
            self.progress.acked_lsn = self._sent_lsn
        self._answered.unpark_all()

    def closed(self) -> int:
        """Everything of this region's at or below it was sent; 0 if that cannot be said now."""
        machine = self.source.actor.machine
        if not self.is_following or self._sent_lsn != machine.lsn:
            return 0
        self._note_level()
        return self.source.close()

    def missing(self) -> int | None:
        """How many of this region's changes are not sent yet; None if that is not known."""
        actor = self.source.actor
        if not self.is_following or self._level is None or self._level[0] is not actor.machine:
            return None
        return replica_of(actor).replica.changes - self._level[1] - self._sent_changes

    def _note_level(self) -> None:
        """Everything that is committed here was sent."""
        actor = self.source.actor
        self._level = (actor.machine, replica_of(actor).replica.changes)
        self._sent_changes = 0

    # Its own task.

    async def run(self) -> None:
        """Send, until the other side does not take it any more; then there is a pause."""
        with self._scope, self._stretches.following(self.source.actor):
            await self._run()
        self.progress.state = "waiting"
        await trio.sleep(REPLICATION_REOPEN_SECONDS)

    async def _run(self) -> None:
        """Open the stream, fill where that is needed, follow; again if the log is lost."""
        self.progress.state = "waiting"
        await self._send(
            Open(
                self.stream,
                self.source.group_id,
                self.source.partition,
                self.source.actor.log_id,
                self._incarnation,
            )
        )
        while self._answer is None:
            await self._answered.park()
        if isinstance(self._answer, NotOpen):
            logger.info("a stream is not opened yet: %s", self._answer.reason)
            return
        lsn, cursor = self._answer.lsn, self._answer.cursor
        filled_round = self._answer.round
        while True:
            first = self._stretches.first(self.source.actor)
            if filled_round < self.source.round:
                filled_round = self.source.round
                lsn = await self._fill(0, None, first)
            elif not self._reaches(lsn, cursor, first):
                lsn = await self._fill(lsn, cursor, first)
            else:
                lsn = max(lsn, first - 1)
                if not self._flight:
                    self.progress.acked_lsn = max(self.progress.acked_lsn, lsn)
            self._sent_lsn = self._named_lsn = lsn
            self.progress.state = "following"
            self.is_following = True
            try:
                await self._follow()
            except Trimmed:
                logger.info("log %s no longer reaches back", self.source.actor.log_id)
            self.is_following = False
            lsn, cursor = self._sent_lsn, None

    def _reaches(self, lsn: int, cursor: bytes | None, first: int) -> bool:
        """Whether the log from ``first`` on is all that somebody lacks who has it up to ``lsn``."""
        own_lsn = replica_of(self.source.actor).replica.own_lsn
        # What was trimmed may have been nothing but what other regions had sent.
        is_there = first <= lsn + 1 or (own_lsn is not None and own_lsn <= lsn)
        if cursor is not None or not is_there:
            return False
        # A table that was made as a replica had nothing of its own before its log; and who was
        # there before misses nothing else of it. For others tombstones may have gone already.
        is_all = self.source.was_known and self.source.table().global_since == 1
        return lsn > 0 or is_all

    async def _room(self) -> None:
        while len(self._flight) >= REPLICATION_WINDOW:
            await self._answered.park()

    async def _follow(self) -> None:
        actor = self.source.actor
        while True:
            await self._room()
            if self._sent_lsn >= actor.lsn:
                await actor.wait_beyond(self._sent_lsn)
            try:
                stretch = self._stretches.read(actor, self._sent_lsn)
            except Ambiguous:
                # The log is being reopened after a doubtful sync.
                await trio.sleep(LOG_RETRY_SECONDS)
                continue
            is_due = stretch.lsn - self._named_lsn >= REPLICATION_NOTE_ENTRIES
            if not stretch.changes and not is_due:
                self._sent_lsn = stretch.lsn
                if not self._flight:
                    self.progress.acked_lsn = stretch.lsn
                await trio.lowlevel.checkpoint()
                continue
            # In the same moment: nothing was committed since the log was read.
            machine = actor.machine
            closed, echo = 0, None
            self._sent_changes += stretch.changes
            if machine.lsn == stretch.lsn:
                closed, echo = machine.closed_timestamp, self._echo()
                self._note_level()
            self._named_lsn = stretch.lsn
            self.progress.changes_sent += stretch.changes
            parts = stretch.parts or (b"",)
            for part in parts[:-1]:
                await self._send_batch(Batch(self.stream, stretch.lsn, 0, part, True))
            await self._send_batch(
                Batch(self.stream, stretch.lsn, closed, parts[-1], False, echo)
            )
            # Not before: a pulse, or an acknowledgement of what went before, would count it in.
            self._sent_lsn = stretch.lsn
            # What comes within moments shares the next batch: the more comes, the longer they are.
            is_busy = stretch.changes >= REPLICATION_BUSY_CHANGES
            factor = REPLICATION_BUSY_FACTOR if is_busy else 1
            await trio.sleep(REPLICATION_PACE_SECONDS * factor)

    async def _send_batch(self, batch: Batch) -> None:
        await self._room()
        self._flight.append(_Sent(batch.lsn, None, batch.is_part))
        self.progress.bytes_sent += len(batch.arrivals)
        await self._send(batch)

    async def _fill(self, lsn: int, cursor: bytes | None, first: int) -> int:
        """Send everything that is here; the LSN from which to follow."""
        source = self.source
        self.progress.state = "filling"
        if cursor is None or first > lsn + 1:
            lsn, cursor = source.actor.lsn, source.low
        logger.info(
            "filling partition %d of table %s in region %d",
            source.partition,
            source.table().name,
            self._number,
        )
        while cursor is not None:
            await self._room()
            chunk, changes = self._chunk(lsn, cursor)
            cursor = chunk.cursor
            self._flight.append(_Sent(lsn, cursor, cursor is not None))
            self.progress.changes_sent += changes
            self.progress.bytes_sent += len(chunk.arrivals)
            await self._send(chunk)
        return lsn

    def _chunk(self, lsn: int, low: bytes) -> tuple[Chunk, int]:
        """The next rows and tombstones, as they are at this moment."""
        source = self.source
        arrivals: list[Arrival] = []
        size_bytes = 0
        cursor: bytes | None = None
        for key, row, is_gone in self._rows(low):
            if len(arrivals) >= REPLICATION_CHUNK_ROWS or size_bytes >= REPLICATION_CHUNK_BYTES:
                cursor = successor(arrivals[-1].key)
                break
            body = None if is_gone else row.body
            region = self._stretches.region_of(row.region)
            arrivals.append(
                Arrival(key, body, row.size_bytes, row.hlc, region, row.transaction)
            )
            size_bytes += len(row.body) + len(key) + 32
        covered = dict(source.marks.received)
        covered[self._stretches.number] = source.close()
        high = source.high if cursor is None else cursor
        packed = pack_arrivals(arrivals)
        chunk = Chunk(self.stream, lsn, low, high, cursor, covered, packed, source.round)
        return chunk, len(arrivals)

    def _rows(self, low: bytes) -> Iterator[tuple[bytes, Row, bool]]:
        """Rows and tombstones from ``low`` on, in the order of their keys."""
        source, table = self.source, self.source.table()
        actor = source.actor
        rows = (
            (key, row, False) for key, row in actor.rows(table.tree, low, source.high)
        )
        gone = (
            (key, row, True) for key, row in actor.rows(table.tombstones, low, source.high)
        )
        return heapq.merge(rows, gone, key=lambda found: found[0])

    # For those who look.

    def behind(self) -> tuple[int, float]:
        """How many log entries, and seconds, the other region is behind."""
        return behind(self.source, self.progress, self._stretches, self._now_ms())


def behind(
    source: Source, progress: Progress, stretches: Stretches, now_ms: int
) -> tuple[int, float]:
    """How many log entries, and seconds, a region is behind, as far as it has told."""
    entries = max(0, source.actor.lsn - progress.acked_lsn)
    if not entries:
        return 0, 0.0
    timestamp = stretches.timestamp(source.actor, progress.acked_lsn + 1)
    return entries, max(0.0, (now_ms - milliseconds_of(timestamp)) / 1000)


def replica_of(actor: PartitionActor) -> TableState:
    """The state of a table's partition."""
    state = actor.machine.state
    assert isinstance(state, TableState)
    return state
