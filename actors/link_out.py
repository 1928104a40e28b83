"""The link on which this region sends its changes to one other region.

A poller that never gives up: dial, tell what groups there are, run a ``Replicator`` for every
partition of every table that both have, and a pulse; when the link is lost, again. What arrives on
it are answers, which go to the replicator of their stream.

Owned by ``Regions``. Invariant: a group's state is told before any closed timestamp that was taken
after it changed (``docs/global-tables.md``, "Collecting tombstones").
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

import trio

from ..errors import LinkError, MillstreamError, StorageError
from ..globaltables.faults import DRILL_PREFIX
from ..globaltables.messages import (
    Ack,
    Batch,
    Chunk,
    Gossip,
    Message,
    NotOpen,
    Opened,
    Pulse,
    PulseBack,
    Wanted,
)
from ..globaltables.peers import Peer
from ..limits import (
    LINK_RETRY_SECONDS,
    LINK_RETRY_SECONDS_MAX,
    LINK_STREAMS_MAX,
    PULSE_SECONDS,
    PULSE_WANTED_SECONDS,
    REPLICATION_REOPEN_SECONDS,
)
from .channel import Channel
from .replicator import Progress, Replicator, Source
from .stretches import Stretches
from .tasks import Tasks, acquire

logger = logging.getLogger(__name__)


class Home(Protocol):
    """What a link needs of the regions' owner."""

    def gossip(self) -> list[bytes]:
        """Every group, encoded."""
        ...

    async def merge(self, groups: Iterable[bytes]) -> None:
        """Learn of groups from another region."""
        ...

    def sources_for(self, peer: Peer) -> Mapping[tuple[str, int], tuple[Source, int]]:
        """What is to be sent to ``peer``: the sources, and its incarnation in their groups."""
        ...

    @property
    def changes(self) -> int:
        """How often groups or tables have changed."""
        ...

    async def wait_changed(self, seen: int) -> None:
        """Return when groups or tables may have changed since ``changes`` was ``seen``."""
        ...


class LinkOut:
    """See the module's text."""

    def __init__(
        self,
        peer: Peer,
        home: Home,
        dial: Callable[[trio.Nursery], Awaitable[Channel]],
        stretches: Stretches,
        now_ms: Callable[[], int],
    ) -> None:
        self.peer = peer
        self._home = home
        self._dial = dial
        self._stretches = stretches
        self._now_ms = now_ms
        #: (group, partition) -> how far the peer has it; outlives links.
        self.progress: dict[tuple[str, int], Progress] = {}
        self._channel: Channel | None = None
        self._sending = trio.Lock()
        #: Whether groups have changed since they were last told on this link.
        self._owes_gossip = False
        self._replicators: dict[int, Replicator] = {}
        self._next_stream = 0
        self._pulses: dict[int, int] = {}
        self._last_pulse = 0
        #: The last stamp of the peer on this link.
        self._echo: int | None = None
        #: Streams that somebody there waits for; the values mean nothing.
        self._wanted: dict[int, None] = {}
        self._asked = trio.lowlevel.ParkingLot()
        #: How far the peer's wall clock is ahead of ours, when last measured; and when, in ms.
        self.skew_ms: float | None = None
        self.round_trip_ms: float | None = None
        self.last_heard_ms: int | None = None
        #: Why there is no link, if there is none.
        self.trouble = "not linked yet"

    @property
    def is_linked(self) -> bool:
        """Whether there is a link now."""
        return self._channel is not None

    def note_groups(self) -> None:
        """Groups have changed: they are told before anything else."""
        self._owes_gossip = True

    async def run(self) -> None:
        """Link, again and again, until cancelled."""
        pause = LINK_RETRY_SECONDS
        while True:
            if await self._link():
                pause = LINK_RETRY_SECONDS
            await trio.sleep(pause)
            pause = min(pause * 2, LINK_RETRY_SECONDS_MAX)

    def _note_trouble(self, reason: str) -> None:
        if reason != self.trouble:
            logger.log(severity(reason), "no link to %s: %s", self.peer.region, reason)
        self.trouble = reason

    async def _link(self) -> bool:
        """Link, and send until the link is lost; whether there was one."""
        was_linked = False
        try:
            async with trio.open_nursery() as nursery:
                channel = await self._dial(nursery)
                was_linked = True
                try:
                    await self._serve(channel)
                finally:
                    with trio.CancelScope(shield=True):
                        await channel.aclose()
        except* (MillstreamError, OSError) as group:
            self._note_trouble(first_reason(group))
        finally:
            self._channel = None
            for progress in self.progress.values():
                progress.state = "waiting"
        return was_linked

    async def _serve(self, channel: Channel) -> None:
        logger.info("linked to %s", self.peer.region)
        self._channel, self._owes_gossip, self.trouble = channel, True, ""
        self._replicators, self._pulses = {}, {}
        self._echo, self._wanted = None, {}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pulse)
            nursery.start_soon(self._pulse_when_wanted)
            nursery.start_soon(self._keep_streams)
            nursery.start_soon(self._receive, channel)

    # Sending.

    async def _send(self, message: Message) -> None:
        await acquire(self._sending)
        try:
            channel = self._channel
            assert channel is not None
            if self._owes_gossip and isinstance(message, Batch | Chunk | Pulse):
                await self._tell_groups(channel)
            await channel.send(message)
        finally:
            self._sending.release()

    async def _pulse(self) -> None:
        while True:
            await self._send_pulse(*self._told_of(self._replicators))
            await trio.sleep(PULSE_SECONDS)

    async def _pulse_when_wanted(self) -> None:
        """Tell at once of streams that are waited for."""
        while True:
            while not self._wanted:
                await self._asked.park()
            wanted, self._wanted = self._wanted, {}
            closed, missing = self._told_of(wanted)
            if closed or missing:
                await self._send_pulse(closed, missing)
            level = dict(closed)
            for stream in wanted:
                replicator = self._replicators.get(stream)
                # One that is not level now will be in a moment.
                if stream not in level and replicator is not None and replicator.is_following:
                    self._wanted[stream] = None
            await trio.sleep(PULSE_WANTED_SECONDS)

    def _told_of(
        self, streams: Iterable[int]
    ) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Closed timestamps of the streams that are level, and how much the others lack."""
        closed, missing = [], []
        for stream in streams:
            replicator = self._replicators.get(stream)
            if replicator is None:
                continue
            timestamp = replicator.closed()
            changes = None if timestamp else replicator.missing()
            if timestamp:
                closed.append((stream, timestamp))
            elif changes is not None:
                missing.append((stream, changes))
        return closed, missing

    async def _send_pulse(
        self, closed: list[tuple[int, int]], missing: list[tuple[int, int]]
    ) -> None:
        self._last_pulse = number = self._last_pulse + 1
        now_ms = self._now_ms()
        self._pulses[number] = now_ms
        await self._send(Pulse(number, now_ms, closed, self._echo, missing))

    async def _keep_streams(self) -> None:
        """Have one replicator for each partition that the peer shall have."""
        async with trio.open_nursery() as nursery:
            tasks = Tasks(nursery)
            running: dict[tuple[str, int], tuple[str, int, int]] = {}
            while True:
                # A change while something is awaited here is one to look at again.
                seen = self._home.changes
                wanted = {
                    place: (source.actor.log_id, incarnation, source.round)
                    for place, (source, incarnation) in self._home.sources_for(self.peer).items()
                }
                for place, what in list(running.items()):
                    if wanted.get(place) != what:
                        await tasks.stop(_task_name(place))
                        del running[place]
                        self.progress.pop(place, None)
                # Others may have changed while tasks were stopped.
                for place, (source, incarnation) in self._home.sources_for(self.peer).items():
                    if place not in running:
                        running[place] = (source.actor.log_id, incarnation, source.round)
                        tasks.start(_task_name(place), self._replicate, source, incarnation)
                if self._owes_gossip:
                    # Nothing else may be under way that would take it along.
                    async with self._sending:
                        if self._owes_gossip and self._channel is not None:
                            await self._tell_groups(self._channel)
                await self._home.wait_changed(seen)

    async def _tell_groups(self, channel: Channel) -> None:
        """To be called with ``_sending``."""
        self._owes_gossip, is_told = False, False
        try:
            await channel.send(Gossip(self._home.gossip()))
            is_told = True
        finally:
            if not is_told:
                # Who was about to tell is stopped: whoever is next does.
                self._owes_gossip = True

    async def _replicate(self, source: Source, incarnation: int) -> None:
        progress = self.progress.setdefault((source.group_id, source.partition), Progress())
        while True:
            self._next_stream += 1
            replicator = Replicator(
                self._next_stream,
                source,
                incarnation,
                self.peer.number,
                self._stretches,
                self._send,
                progress,
                self._now_ms,
                lambda: self._echo,
            )
            self._replicators[replicator.stream] = replicator
            try:
                await replicator.run()
            except StorageError as error:
                # The log is being reopened, or damaged, or gone: the link lives on.
                logger.error("partition %d is sent later: %s", source.partition, error)
                await trio.sleep(REPLICATION_REOPEN_SECONDS)
            finally:
                del self._replicators[replicator.stream]

    # Receiving: answers.

    async def _receive(self, channel: Channel) -> None:
        while True:
            message = await channel.receive()
            self.last_heard_ms = self._now_ms()
            match message:
                case Ack():
                    replicator = self._replicators.get(message.stream)
                    if replicator is not None:
                        replicator.on_ack(message)
                case Opened() | NotOpen():
                    replicator = self._replicators.get(message.stream)
                    if replicator is not None:
                        replicator.on_opened(message)
                case PulseBack():
                    self._measure(message)
                    self._echo = message.stamp
                case Wanted():
                    self._echo = message.stamp
                    self._wanted |= dict.fromkeys(message.streams[:LINK_STREAMS_MAX])
                    self._asked.unpark_all()
                case Gossip():
                    await self._home.merge(message.groups)
                case _:
                    raise LinkError(f"{self.peer.region} sent what an origin sends")

    def _measure(self, back: PulseBack) -> None:
        sent_ms = self._pulses.pop(back.number, None)
        if sent_ms is None:
            return
        now_ms = self._now_ms()
        self.round_trip_ms = float(now_ms - sent_ms)
        self.skew_ms = back.now_ms - (sent_ms + now_ms) / 2
        for number in [number for number in self._pulses if number < back.number]:
            del self._pulses[number]


def severity(reason: str) -> int:
    """How loudly the end of a link is told: what a drill does is no surprise to anybody."""
    return logging.INFO if reason.startswith(DRILL_PREFIX) else logging.WARNING


def _task_name(place: tuple[str, int]) -> str:
    group, partition = place
    return f"{group} {partition}"


def first_reason(group: BaseExceptionGroup[BaseException]) -> str:
    """Why, in words."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
