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
from collections.abc import Callable, Collection, Iterable
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
    Wanted,
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


class _Told(msgspec.Struct, frozen=True):
    """What pulses say of one stream: how far it is closed (0: not said), and what is missing.

    Each with the moment that it was true after, if that is known.
    """

    closed: int = 0
    as_of_ms: int | None = None
    missing: int = 0
    counted_ms: int | None = None


_Item = Batch | Chunk | _Told


def moment_ms() -> int:
    """Now, on a clock of this process that only goes forward."""
    return int(trio.current_time() * 1000)


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
        #: Whether groups have changed since they were last told on this link.
        self._owes_gossip = False
        self._sending = trio.Lock()

        #: Streams of which a read waits to hear; the values mean nothing.
        self._wanted: dict[int, None] = {}
        self._waited_for = trio.lowlevel.ParkingLot()


    def note_groups(self) -> None:
        """Groups have changed: they are told before anything else that is closed."""
        self._owes_gossip = True

    async def _acknowledge(self, ack: Ack) -> None:
        async with self._sending:
            if self._owes_gossip and ack.closed:
                self._owes_gossip, is_told = False, False
                try:
                    await self._channel.send(Gossip(self._home.gossip()))
                    is_told = True
                finally:
                    if not is_told:
                        # This stream is stopped: whoever is next tells.
                        self._owes_gossip = True
            await self._channel.send(ack)

    def want(self, group_id: str, partitions: Collection[int]) -> None:
        """Have the origin tell at once how far these partitions are."""
        for number, stream in self._streams.items():
            if stream.sink.group_id == group_id and stream.sink.partition in partitions:
                self._wanted[number] = None
        if self._wanted:
            self._waited_for.unpark_all()

    async def run(self) -> None:
        """Receive until the link is lost, or superseded."""
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._ask)
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
                        self._put_told(stream, _Told(closed, message.echo))
                    for stream, missing in message.missing:
                        self._put_told(stream, _Told(0, None, missing, message.echo))
                    back = PulseBack(message.number, self._now_ms(), moment_ms())
                    await self._channel.send(back)
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
        if received is None:
            opened = Opened(opening.stream, 0, None)
        else:
            opened = Opened(opening.stream, received.lsn, received.cursor, received.round)
        if received is not None and received.cursor is None:
            self._home.note_filled(sink.group_id, self._number, sink.partition)
        tasks.start(str(opening.stream), self._apply, opening.stream, stream)
        await self._channel.send(opened)

    def _put(self, message: Batch | Chunk) -> None:
        stream = self._streams.get(message.stream)
        if stream is None:
            return
        if stream.batches >= REPLICATION_WINDOW:
            raise LinkError("an origin sends more than its window")
        stream.batches += 1
        stream.items.append(message)
        stream.ready.unpark_all()

    def _put_told(self, number: int, told: _Told) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        last = stream.items[-1] if stream.items else None
        if isinstance(last, _Told):
            # Nothing came in between: it is as if both had been said at once.
            if not told.closed:
                told = msgspec.structs.replace(told, closed=last.closed, as_of_ms=last.as_of_ms)
            stream.items[-1] = told
        else:
            stream.items.append(told)
        stream.ready.unpark_all()

    async def _ask(self) -> None:
        """Send what ``want`` has gathered."""
        while True:
            while not self._wanted:
                await self._waited_for.park()
            wanted, self._wanted = self._wanted, {}
            await self._channel.send(Wanted(moment_ms(), list(wanted)))

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
            lsn, cursor, echo = 0, None, None
            match item:
                case Batch():
                    applied = (await self._take_batch(sink, item)).applied
                    lsn, closed, echo = item.lsn, item.closed, item.echo
                case Chunk():
                    applied = (await self._take_chunk(sink, item)).applied
                    lsn, cursor = item.lsn, item.cursor
                    if cursor is None:
                        self._home.note_filled(sink.group_id, self._number, sink.partition)
                case _Told():
                    closed, echo = item.closed, item.as_of_ms
            items.popleft()
            if not isinstance(item, _Told):
                stream.batches -= 1
            elif item.counted_ms is not None:
                sink.marks.note_missing(self._number, item.missing, item.counted_ms)
                self._home.note_closed(sink, self._number)
                if not closed:
                    continue
            if closed:
                sink.marks.note_received(self._number, closed)
                if echo is not None:
                    sink.marks.note_as_of(self._number, echo)
                self._home.note_closed(sink, self._number)
            await self._acknowledge(Ack(number, lsn, cursor, closed, applied))

    async def _take_batch(self, sink: Sink, batch: Batch) -> Replicated:
        arrivals = tuple(unpack_arrivals(batch.arrivals)) if batch.arrivals else ()
        await self._until_admissible(max((arrival.hlc for arrival in arrivals), default=0))
        applied = 0
        while True:
            command = Replicate(
                sink.source, batch.lsn, arrivals, notes=not arrivals, is_part=batch.is_part
            )
            result = await self._write(sink, command)
            applied += result.applied
            if not result.left:
                return Replicated(applied)
            arrivals = arrivals[-result.left :]

    async def _take_chunk(self, sink: Sink, chunk: Chunk) -> Replicated:
        arrivals = tuple(unpack_arrivals(chunk.arrivals))
        newest = max((arrival.hlc for arrival in arrivals), default=0)
        await self._until_admissible(max(newest, *chunk.covered.values(), 0))
        low: bytes | None = chunk.low
        applied = 0
        while low is not None:
            command = Fill(
                sink.source,
                chunk.lsn,
                chunk.cursor,
                low,
                chunk.high,
                chunk.covered,
                arrivals,
                chunk.round,
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
                    # A transaction holds one of the items, for moments; or the table has left.
                    if not self._home.is_current(sink):
                        raise _NotHere
                    await trio.sleep(REPLICATION_HELD_SECONDS)
                    continue
                assert isinstance(result, Replicated)
                self._home.note_arrived(sink, self._number, result)
                return result
