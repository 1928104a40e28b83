"""The regions of a node: groups of global tables, links to other regions, what follows from both.

Owned by the node, when it was started with a file of regions. It keeps the groups (entries of the
catalog), merges what other regions say of them, runs a link to every region and answers theirs,
collects tombstones, and has a ``GroupKeeper`` carry out what groups decide. See
``docs/global-tables.md``.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import trio

from ..errors import (
    InvalidRequest,
    MillstreamError,
)
from ..globaltables.faults import LinkFaults
from ..globaltables.messages import Open
from ..globaltables.peers import Identity, Peer, Peers
from ..globaltables.policies import ByAttribute
from ..globaltables.watermarks import Watermarks
from ..host.clock import SkewedClock
from ..host.links import AnsweredStream, Links
from ..limits import DRILL_SKEW_MS_MAX
from ..model.groups import (
    Group,
    Overrides,
    Stage,
)
from ..model.keys import hash_prefix
from ..model.schema import HASH_SPACE_END, Table
from ..storage.commands import Replicated
from .channel import Channel, answer_channel, dial_channel
from .clock_reserve import ClockReserve
from .collector import Collector
from .conflicts import Conflicts
from .group_keeper import GroupKeeper
from .groups import Groups
from .levels import Levels
from .link_in import LinkIn, Sink
from .link_out import LinkOut, first_reason, severity
from .membership import Membership
from .partition import PartitionActor
from .replicator import Progress, Source, behind, replica_of
from .stretches import Stretches

if TYPE_CHECKING:
    from .node import Node
    from .tables import TableRef

logger = logging.getLogger(__name__)


class RegionSettings(msgspec.Struct, frozen=True):
    """What a node needs to be one region of several."""

    peers: Peers
    links: Links
    faults: LinkFaults
    collect_seconds: float = 10.0


class _Counts(msgspec.Struct):
    """Of what one region has sent here, since this start."""

    applied: int = 0
    conflicts: int = 0
    resolved: int = 0


class Lag(msgspec.Struct, frozen=True):
    """How far ``region`` is behind this one in one partition of a table."""

    namespace: str
    table: str
    partition: int
    region: str
    state: str
    entries: int
    seconds: float
    changes_sent: int
    bytes_sent: int


class PeerStatus(msgspec.Struct, frozen=True):
    """One other region, as seen from here. Times in milliseconds."""

    region: str
    is_linked: bool
    trouble: str
    skew_ms: float | None
    round_trip_ms: float | None
    last_heard_ms: int | None
    applied: int
    conflicts: int
    resolved: int


class Regions:
    """See the module's text."""

    def __init__(self, node: Node, settings: RegionSettings) -> None:
        self._node = node
        self._settings = settings
        self._peers = settings.peers
        #: This node's region.
        self.own = settings.peers.own.region
        self.number = settings.peers.own.number
        self.faults = settings.faults
        self.store = Groups(node.catalog, self.own, self._note_group)
        self._changed = trio.lowlevel.ParkingLot()
        #: How often groups or tables have changed: who looks at them notes it before.
        self.changes = 0
        self._marks: dict[tuple[str, int], Watermarks] = {}
        #: Those who wait for a watermark to move.
        self.marked = trio.lowlevel.ParkingLot()
        self.levels = Levels(self)
        #: (group, region number) -> its partitions that hold everything that region had.
        self._filled: dict[tuple[str, int], set[int]] = {}
        self._counts: dict[int, _Counts] = {
            peer.number: _Counts() for peer in settings.peers.others
        }
        self.stretches = Stretches(node.tables.streams, self.number)
        self.links: dict[str, LinkOut] = {
            peer.region: LinkOut(
                peer, self, self._dialler(peer), self.stretches, node.host.clock.now_ms
            )
            for peer in settings.peers.others
        }
        #: Links that were answered, by the origin's number.
        self._incoming: dict[int, LinkIn] = {}
        self._keeper = GroupKeeper(self, node)
        self.membership = Membership(self, node)
        #: What becomes of writes that lost.
        self.conflicts = Conflicts(self, node)
        #: Where other regions reach this one; set when it listens.
        self.address = settings.peers.own.address
        #: Log -> up to when it was last told to be closed.
        self._closed: dict[str, int] = {}
        self._reserve = ClockReserve(node.catalog, node.tick)
        self._collector = Collector(self._collectible, settings.collect_seconds)
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    # Running.

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Link and be linked, until ``close``."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self.address = await nursery.start(
                        self._settings.links.serve, self._peers.own.address, self._answer
                    )
                    for link in self.links.values():
                        nursery.start_soon(link.run)
                    nursery.start_soon(self._keeper.run)
                    nursery.start_soon(self._collector.run)
                    nursery.start_soon(self._reserve.run)
                    nursery.start_soon(self.conflicts.run)
                    task_status.started()
        finally:
            self._ended.set()

    def stop(self) -> None:
        """Begin to end all links."""
        self._scope.cancel()

    async def close(self) -> None:
        """End all links. Peers see the connection close."""
        self.stop()
        await self._ended.wait()
        await self._reserve.close()

    def _dialler(self, peer: Peer) -> Callable[[trio.Nursery], Awaitable[Channel]]:
        async def dial(nursery: trio.Nursery) -> Channel:
            settings = self._settings
            return await dial_channel(
                nursery,
                settings.links,
                peer,
                self._identity,
                self._peers.secret,
                self._node.host.entropy,
                settings.faults,
            )

        return dial

    @property
    def _identity(self) -> Identity:
        return Identity(self.own, self.number)

    async def _answer(self, stream: AnsweredStream) -> None:
        """Somebody has dialled."""
        try:
            async with trio.open_nursery() as nursery:
                channel = await answer_channel(
                    nursery,
                    stream,
                    self._identity,
                    self._peers.secret,
                    [peer.identity for peer in self._peers.others],
                    self._node.host.entropy,
                    self._settings.faults,
                )
                try:
                    await self._receive(channel)
                finally:
                    with trio.CancelScope(shield=True):
                        await channel.aclose()
        except* (MillstreamError, OSError) as group:
            reason = first_reason(group)
            logger.log(severity(reason), "a link to this region has ended: %s", reason)

    async def _receive(self, channel: Channel) -> None:
        """Take what one region sends, until the link is lost or the region has made another."""
        number = channel.peer.number
        older = self._incoming.get(number)
        link = self._incoming[number] = LinkIn(
            channel, number, self, self._node.host.clock.now_ms
        )
        try:
            if older is not None:
                older.scope.cancel()
                await older.ended.wait()
            await link.run()
        finally:
            link.ended.set()
            if self._incoming.get(number) is link:
                del self._incoming[number]

    # Groups.

    def known(self) -> list[str]:
        """The regions of the file, this one included."""
        return sorted((self.own, *(peer.region for peer in self._peers.others)))

    def peer(self, region: str) -> Peer | None:
        """Another region of the file."""
        return next((peer for peer in self._peers.others if peer.region == region), None)

    def group_of(self, table: Table) -> Group | None:
        """The group that a table here belongs to."""
        return self.store.of(table)

    def groups(self, namespace: str) -> list[Group]:
        """The groups that this region is a member of, by their tables' names."""
        return self.store.of_namespace(namespace)

    def gossip(self) -> list[bytes]:
        """Every group, encoded."""
        return self.store.gossip()

    async def merge(self, groups: Iterable[bytes]) -> None:
        """Learn of groups from another region."""
        await self.store.merge(groups)

    def _note_group(self, before: Group | None, now: Group) -> None:
        """What was known of how far a region has got is not true of its next incarnation."""
        for region, member in ({} if before is None else before.members).items():
            later = now.members[region]
            if later.incarnation != member.incarnation or later.stage is Stage.GONE:
                # A table of this region's that is made anew knows nothing of anybody.
                is_own = region == self.own
                for other in now.members.values() if is_own else (member,):
                    self._forget(now.group_id, other.number)
        self.conflicts.note_group(now)
        for link in self.links.values():
            link.note_groups()
        for incoming in self._incoming.values():
            incoming.note_groups()
        self.note_changed()

    def _forget(self, group_id: str, number: int) -> None:
        self._filled.pop((group_id, number), None)
        for (marked, _), marks in self._marks.items():
            if marked == group_id:
                marks.forget(number)

    def note_changed(self) -> None:
        """Groups or tables have changed."""
        self.changes += 1
        self._changed.unpark_all()

    async def wait_changed(self, seen: int) -> None:
        """Return when groups or tables may have changed since ``changes`` was ``seen``."""
        if self.changes == seen:
            await self._changed.park()

    # What users ask for: see ``Membership``.

    async def add_replica(self, table: Table, region: str, overrides: Overrides) -> Table:
        """Invite a region: it makes the table and is filled, while this one serves on."""
        return await self.membership.add(table, region, overrides)

    async def update_replica(self, table: Table, region: str, overrides: Overrides) -> Table:
        """Change what a replica has for itself."""
        return await self.membership.update(table, region, overrides)

    async def remove_replica(self, table: Table, region: str, *, keep: bool) -> Table:
        """Have a region leave: its table goes with it, or stays (``keep``) as one of its own."""
        return await self.membership.remove(table, region, keep=keep)

    async def forget_replica(self, table: Table, region: str) -> Table:
        """Give a region up that is lost for good: nobody waits for it any more."""
        return await self.membership.forget(table, region)

    async def share(self, table: Table) -> None:
        """Settings of a global table were changed here: they are to be the same everywhere."""
        await self.membership.share(table)

    async def set_policy(
        self, table: Table, policy: str | ByAttribute | None, conflicts_table: str | None
    ) -> Group:
        """Set what becomes of writes that lose conflicts, in every region; see ``Conflicts``."""
        return await self.conflicts.set_policy(table, policy, conflicts_table)

    # For links: what goes out, what comes in.

    def marks(self, group_id: str, partition: int) -> Watermarks:
        """What is known of how far regions have got in a partition."""
        return self._marks.setdefault((group_id, partition), Watermarks())

    def tables(self) -> list[tuple[Group, TableRef]]:
        """Every global table that this region has, with its group."""
        found = []
        for ref in self._node.schema_changes.refs.values():
            group = self.group_of(ref.table)
            if group is not None:
                found.append((group, ref))
        return found

    def sources_for(self, peer: Peer) -> Mapping[tuple[str, int], tuple[Source, int]]:
        """What is to be sent to ``peer``: the sources, and its incarnation in their groups."""
        wanted: dict[tuple[str, int], tuple[Source, int]] = {}
        for group, ref in self.tables():
            own, member = group.member(self.own), group.member(peer.region)
            if own is None or member is None or not own.is_member or not member.is_member:
                continue
            if own.stage < Stage.ACTIVE:
                # It has written nothing yet, and what it wrote when it was a member before is not
                # here yet: a filling from here would say that it is gone.
                continue
            for index, source in enumerate(self._sources(group, ref)):
                source = msgspec.structs.replace(
                    source,
                    round=group.rounds,
                    was_known=own.after.get(member.region) == member.incarnation,
                )
                wanted[group.group_id, index] = (source, member.incarnation)
        return wanted

    def _sources(self, group: Group, ref: TableRef) -> list[Source]:
        actors = self._node.schema_changes.actors_by_log
        sources = []
        for index, partition in enumerate(ref.table.partitions):
            actor = actors.get(partition.log_id)
            # While it joins, effects do not say yet what they replace.
            if actor is None or not replica_of(actor).replica.tree:
                return []
            is_last = partition.last == HASH_SPACE_END - 1
            high = None if is_last else hash_prefix(partition.last + 1)
            marks = self.marks(group.group_id, index)
            sources.append(
                Source(
                    group.group_id,
                    index,
                    hash_prefix(partition.low),
                    high,
                    partial(getattr, ref, "table"),
                    actor,
                    marks,
                    partial(self._close_timestamp, actor),
                )
            )
        return sources

    def _close_timestamp(self, actor: PartitionActor) -> int:
        """Never less than what was told before."""
        closed = max(
            self._closed.get(actor.log_id, 0),
            actor.machine.close_timestamp(self._node.host.clock.now_ms(), self._reserve.limit),
        )
        self._closed[actor.log_id] = closed
        return closed

    def sink_of(self, opening: Open, number: int) -> Sink | str:
        """Where a stream goes, or why it cannot be received now."""
        group = self.store.find(opening.group_id)
        own = None if group is None else group.member(self.own)
        if group is None or own is None or not own.is_member:
            return "this region is no member of the group"
        if own.incarnation != opening.incarnation:
            return "another incarnation is meant"
        if not any(member.number == number for member in group.others(self.own)):
            return "the origin is no member of the group"
        for found, ref in self.tables():
            if found is not group:
                continue
            sources = self._sources(group, ref)
            if opening.partition < len(sources):
                actor = sources[opening.partition].actor
                received = replica_of(actor).replica.received.get(opening.log_id)
                marks = self.marks(group.group_id, opening.partition)
                return Sink(
                    group.group_id, opening.partition, opening.log_id, actor, received, marks
                )
        return "the table is not there yet"

    def is_current(self, sink: Sink) -> bool:
        """Whether it still is where such changes go."""
        found = self._node.schema_changes.actors_by_log.get(sink.actor.log_id)
        return found is sink.actor and replica_of(found).replica.tree != 0

    def want(self, group_id: str, partitions: Collection[int]) -> None:
        """Have all other regions tell at once how far these partitions are."""
        for link in self._incoming.values():
            link.want(group_id, partitions)

    def has_passed(self, hlc: int) -> bool:
        """Whether the next version given out here is above ``hlc``."""
        return self._node.has_passed(hlc)

    def note_filled(self, group_id: str, number: int, partition: int) -> None:
        """The partition holds everything that region ``number`` had."""
        self._filled.setdefault((group_id, number), set()).add(partition)
        self.note_changed()

    def is_filled(self, group: Group) -> bool:
        """Whether the table here holds everything that the region which invited it had.

        If that has left meanwhile, what any other had will do.
        """
        invited_by = group.members[self.own].invited_by
        others = [member.number for member in group.others(self.own)]
        return any(
            len(self._filled.get((group.group_id, number), ())) >= group.partitions
            for number in ([invited_by] if invited_by in others else others)
        )

    def note_arrived(self, sink: Sink, number: int, result: Replicated) -> None:
        """Changes of region ``number`` are durable here."""
        counts = self._counts.get(number)
        if counts is not None:
            counts.applied += result.applied
            counts.conflicts += result.conflicts
            counts.resolved += result.resolved

    def note_closed(self, sink: Sink, number: int) -> None:
        """A watermark has moved."""
        self.marked.unpark_all()

    def is_drained(self, group: Group, ref: TableRef) -> bool:
        """Whether every other region has all that was written here."""
        for member in group.others(self.own):
            link = self.links.get(member.region)
            if link is None:
                continue
            for index, source in enumerate(self._sources(group, ref)):
                progress = link.progress.get((group.group_id, index))
                if progress is None or progress.acked_lsn < source.actor.lsn:
                    return False
                if source.actor.machine.state.promises:
                    # A transaction is still to take effect.
                    return False
        return True

    def _collectible(self) -> list[tuple[Group, list[int], list[Source]]]:
        return [
            (
                group,
                [member.number for member in group.others(self.own)],
                self._sources(group, ref),
            )
            for group, ref in self.tables()
        ]

    # Drills.

    @property
    def clock_skew_ms(self) -> int:
        """How far a drill has set this region's clock ahead."""
        clock = self._node.host.clock
        return clock.offset_ms if isinstance(clock, SkewedClock) else 0

    def set_clock_skew(self, milliseconds: int) -> None:
        """Have this region's clock be ahead by so much, or behind, for a drill.

        Raises InvalidRequest on a host whose clock cannot be set.
        """
        clock = self._node.host.clock
        if not isinstance(clock, SkewedClock):
            raise InvalidRequest("This node's clock cannot be set")
        if abs(milliseconds) > DRILL_SKEW_MS_MAX:
            raise InvalidRequest(
                f"A clock is set wrong by at most {DRILL_SKEW_MS_MAX // 1000} seconds"
            )
        logger.warning("a drill has set this region's clock %+d ms", milliseconds)
        clock.offset_ms = milliseconds

    # For those who look.

    def lags(self) -> list[Lag]:
        """How far every other region is behind this one, partition by partition."""
        now_ms = self._node.host.clock.now_ms()
        found = []
        for group, ref in self.tables():
            sources = self._sources(group, ref)
            for member in group.others(self.own):
                link = self.links.get(member.region)
                if link is None:
                    continue
                for index, source in enumerate(sources):
                    progress = link.progress.get((group.group_id, index), Progress())
                    entries, seconds = behind(source, progress, self.stretches, now_ms)
                    found.append(
                        Lag(
                            group.namespace,
                            group.table,
                            index,
                            member.region,
                            progress.state,
                            entries,
                            seconds,
                            progress.changes_sent,
                            progress.bytes_sent,
                        )
                    )
        return found

    def status(self) -> list[PeerStatus]:
        """Every other region, as seen from here."""
        found = []
        for peer in self._peers.others:
            link, counts = self.links[peer.region], self._counts[peer.number]
            found.append(
                PeerStatus(
                    peer.region,
                    link.is_linked,
                    link.trouble,
                    link.skew_ms,
                    link.round_trip_ms,
                    link.last_heard_ms,
                    counts.applied,
                    counts.conflicts,
                    counts.resolved,
                )
            )
        return found

