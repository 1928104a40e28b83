"""A link on which another region sends its changes here.

One task reads the link, one task for each stream applies what came on it, in its order, through the
partition's actor and its log; what is durable is acknowledged. A stream's queue is bounded by the
origin's window: more is a broken protocol. Nothing is decided here: last writer wins in the
partition's machine.

Owned by ``Regions``, which makes one for each link that is answered.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec
import trio

from ..errors import LinkError, OutcomeUnknown, Throttled, Unavailable
from ..globaltables.messages import (
    Ack,
    Batch,
    Chunk,
    Gossip,
    NotOpen,
    Open,
    Opened,
    Pulse,
    PulseBack,
)
from ..globaltables.packing import unpack_arrivals
from ..globaltables.watermarks import Watermarks
from ..limits import (
    LINK_STREAMS_MAX,
    REMOTE_CLOCK_SKEW_MS_MAX,
    REPLICATION_HELD_SECONDS,
    REPLICATION_RETRY_SECONDS,
    REPLICATION_WINDOW,
)
from ..model.versions import admissible, milliseconds_of
from ..storage.commands import Contended, Fill, Replicate, Replicated
from ..storage.records import Received
from .channel import Channel
from .partition import PartitionActor
from .tasks import Tasks

logger = logging.getLogger(__name__)


class Sink(msgspec.Struct, frozen=True):
    """Where a stream's changes go: one partition of a global table here."""

    group_id: str
    partition: int
    source: str
    actor: PartitionActor
    received: Received | None
    marks: Watermarks


class Home(Protocol):
    """What a link needs of the regions' owner."""

    def gossip(self) -> list[bytes]:
        """Every group, encoded."""
        ...

    async def merge(self, groups: Iterable[bytes]) -> None:
        """Learn of groups from another region."""
        ...

    def sink_of(self, opening: Open, number: int) -> Sink | str:
        """Where a stream goes, or why it cannot be received now."""
        ...

    def note_filled(self, group_id: str, number: int, partition: int) -> None:
        """The partition holds everything that region ``number`` had."""
        ...

    def note_arrived(self, sink: Sink, number: int, result: Replicated) -> None:
        """Changes of region ``number`` are durable here."""
        ...

    def is_current(self, sink: Sink) -> bool:
        """Whether it still is where such changes go."""
        ...

    def note_closed(self, sink: Sink, number: int) -> None:
        """A watermark has moved."""
        ...


_Item = Batch | Chunk | int


class _NotHere(Exception):
    """The partition that a stream goes to is not served any more."""


class _Stream:
    """What has come on one stream and is not applied."""

    __slots__ = ("batches", "items", "ready", "sink")

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.items: deque[_Item] = deque()
        #: How many of them are batches or chunks.
        self.batches = 0
        self.ready = trio.lowlevel.ParkingLot()


class LinkIn:
    """See the module's text. ``number`` is the origin's."""

    def __init__(
        self, channel: Channel, number: int, home: Home, now_ms: Callable[[], int]
    ) -> None:
        self._channel = channel
        self._number = number
        self._home = home
        self._now_ms = now_ms
        self._streams: dict[int, _Stream] = {}
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self._is_held = False

    async def run(self) -> None:
        """Receive until the link is lost, or superseded."""
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    await self._receive(Tasks(nursery))
        finally:
            self.ended.set()

    async def _receive(self, tasks: Tasks) -> None:
        await self._channel.send(Gossip(self._home.gossip()))
        while True:
            message = await self._channel.receive()
            match message:
                case Batch() | Chunk():
                    self._put(message)
                case Pulse():
                    for stream, closed in message.closed:
                        self._put_closed(stream, closed)
                    await self._channel.send(PulseBack(message.number, self._now_ms()))
                case Open():
                    await self._open(message, tasks)
                case Gossip():
                    await self._home.merge(message.groups)
                case _:
                    raise LinkError("an origin sent what a receiver sends")

    async def _open(self, opening: Open, tasks: Tasks) -> None:
        if opening.stream in self._streams or len(self._streams) >= LINK_STREAMS_MAX:
            raise LinkError("a stream is opened twice, or one too many")
        sink = self._home.sink_of(opening, self._number)
        if isinstance(sink, str):
            await self._channel.send(NotOpen(opening.stream, sink))
            return
        # Of the same source there is one stream: a later one replaces it.
        for number, stream in list(self._streams.items()):
            if stream.sink.source == sink.source:
                await tasks.stop(str(number))
                del self._streams[number]
        self._streams[opening.stream] = stream = _Stream(sink)
        received = sink.received
        lsn, cursor = (0, None) if received is None else (received.lsn, received.cursor)
        if received is not None and cursor is None:
            self._home.note_filled(sink.group_id, self._number, sink.partition)
        tasks.start(str(opening.stream), self._apply, opening.stream, stream)
        await self._channel.send(Opened(opening.stream, lsn, cursor))

    def _put(self, message: Batch | Chunk) -> None:
        stream = self._streams.get(message.stream)
        if stream is None:
            return
        if stream.batches >= REPLICATION_WINDOW:
            raise LinkError("an origin sends more than its window")
        stream.batches += 1
        stream.items.append(message)
        stream.ready.unpark_all()

    def _put_closed(self, number: int, closed: int) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        if stream.items and isinstance(stream.items[-1], int):
            stream.items[-1] = closed
        else:
            stream.items.append(closed)
        stream.ready.unpark_all()

    # One stream's task.

    async def _apply(self, number: int, stream: _Stream) -> None:
        try:
            await self._apply_all(number, stream)
        except _NotHere:
            del self._streams[number]
            await self._channel.send(NotOpen(number, "the table is no longer here"))

    async def _apply_all(self, number: int, stream: _Stream) -> None:
        sink, items = stream.sink, stream.items
        while True:
            while not items:
                await stream.ready.park()
            item = items[0]
            closed = applied = 0
            lsn, cursor = 0, None
            match item:
                case Batch():
                    applied = (await self._take_batch(sink, item)).applied
                    lsn, closed = item.lsn, item.closed
                case Chunk():
                    applied = (await self._take_chunk(sink, item)).applied
                    lsn, cursor = item.lsn, item.cursor
                    if cursor is None:
                        self._home.note_filled(sink.group_id, self._number, sink.partition)
                case _:
                    closed = item
            items.popleft()
            if not isinstance(item, int):
                stream.batches -= 1
            if closed:
                sink.marks.note_received(self._number, closed)
                self._home.note_closed(sink, self._number)
            await self._channel.send(Ack(number, lsn, cursor, closed, applied))

    async def _take_batch(self, sink: Sink, batch: Batch) -> Replicated:
        arrivals = tuple(unpack_arrivals(batch.arrivals)) if batch.arrivals else ()
        await self._until_admissible(max((arrival.hlc for arrival in arrivals), default=0))
        command = Replicate(
            sink.source, batch.lsn, arrivals, notes=not arrivals, is_part=batch.is_part
        )
        return await self._write(sink, command)

    async def _take_chunk(self, sink: Sink, chunk: Chunk) -> Replicated:
        arrivals = tuple(unpack_arrivals(chunk.arrivals))
        newest = max((arrival.hlc for arrival in arrivals), default=0)
        await self._until_admissible(max(newest, *chunk.covered.values(), 0))
        low: bytes | None = chunk.low
        applied = 0
        while low is not None:
            command = Fill(
                sink.source, chunk.lsn, chunk.cursor, low, chunk.high, chunk.covered, arrivals
            )
            result = await self._write(sink, command)
            applied += result.applied
            low = result.cursor
            arrivals = tuple(arrival for arrival in arrivals if low and arrival.key >= low)
        return Replicated(applied)

    async def _until_admissible(self, hlc: int) -> None:
        """Hold what is too far ahead of this node's wall clock."""
        while not admissible(hlc, self._now_ms()):
            ahead_ms = milliseconds_of(hlc) - self._now_ms()
            if not self._is_held:
                self._is_held = True
                logger.warning(
                    "changes of region %d are %.1f s ahead of this clock and wait",
                    self._number,
                    ahead_ms / 1000,
                )
            await trio.sleep(max(0.05, min(1.0, (ahead_ms - REMOTE_CLOCK_SKEW_MS_MAX) / 1000)))
        self._is_held = False

    async def _write(self, sink: Sink, command: Replicate | Fill) -> Replicated:
        """Have it decided and durable, however often that must be tried: twice does no harm."""
        while True:
            try:
                result = await sink.actor.write(command)
            except (Throttled, OutcomeUnknown):
                await trio.sleep(REPLICATION_RETRY_SECONDS)
            except Unavailable:
                # The table is going, or the node is stopping, or a partition is damaged.
                if not self._home.is_current(sink):
                    raise _NotHere from None
                await trio.sleep(REPLICATION_RETRY_SECONDS)
            else:
                if isinstance(result, Contended):
                    # A transaction holds one of the items, for moments.
                    await trio.sleep(REPLICATION_HELD_SECONDS)
                    continue
                assert isinstance(result, Replicated)
                self._home.note_arrived(sink, self._number, result)
                return result
