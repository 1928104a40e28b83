"""One global table in several simulated regions: who is a member, which logs it has had, its rest.

Shared by the sites of a world of regions. Owned by the world, which runs ``lead`` before and
``change_members`` beside the clients, and ``settle`` when everything is healed;
``region_checks.py`` judges what is left.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator

import msgspec
import trio

from ..actors.node import Node
from ..actors.regions import Regions, RegionSettings
from ..actors.tables import TableRef
from ..errors import OutcomeUnknown, RequestError, StorageError, Unavailable
from ..globaltables.faults import LinkFaults
from ..globaltables.peers import Peer, Peers
from ..host.memory_links import MemoryNetwork
from ..model.groups import Group, Member, Overrides, Stage
from ..model.schema import Status, Table
from ..model.versions import milliseconds_of
from .machine import START_MS
from .options import Options
from .simulated_node import Gone, SimulatedNode
from .tables import MAIN, is_served, new_table
from .weather import Weather

NAMES = ("us-east-1", "eu-west-1", "ap-south-1")
_SECRET = b"the secret of the simulation"
_SETBACKS = (RequestError, Unavailable, OutcomeUnknown, StorageError, Gone)
_Ask = Callable[[Regions, TableRef, Member | None], Awaitable[bool]]
_LOOK_SECONDS = 0.05
#: How long a world waits for a region to come, or to leave, before it goes on.
_MEMBERS_SECONDS = 15.0
_MARKS_SECONDS = 0.1


class Place(msgspec.Struct, frozen=True):
    """Whose log it is. ``joined``: the table was a global one when it was made."""

    region: str
    number: int
    table_id: str
    partition: int
    joined: bool


class Mark(msgspec.Struct, frozen=True):
    """At ``lsn`` of its log a region believed to have all of ``number``'s up to ``closed``."""

    log_id: str
    lsn: int
    number: int
    closed: int


class GlobalTable:
    """See the module's text."""

    def __init__(
        self,
        options: Options,
        stream: Callable[[str], random.Random],
        note: Callable[..., None],
    ) -> None:
        assert options.regions is not None
        self._options = options
        self._more = options.regions
        self._rng = stream("members")
        self._note = note
        self.names = NAMES[: options.nodes]
        self._network = MemoryNetwork(stream("network"))
        self._faults = {name: LinkFaults(stream(f"drops {name}").random) for name in self.names}
        self.weather = Weather(self._network, self._faults, self._more, stream("weather"), note)
        #: By region; filled in by the world.
        self.sims: dict[str, SimulatedNode] = {}
        #: Every log that the table ever had, in any region.
        self.logs: dict[str, Place] = {}
        #: Log of a table that left and stayed -> the last LSN that the others must have.
        self.owed: dict[str, int] = {}
        self.marks: dict[Mark, None] = {}
        self.departures = 0
        self._is_founded = False

    def settings_of(self, name: str) -> RegionSettings:
        """What the node of a region is told of the others."""
        peers = {
            name: Peer(name, number + 1, f"link:{name}") for number, name in enumerate(self.names)
        }
        others = tuple(peers[other] for other in sorted(self.names) if other != name)
        return RegionSettings(
            Peers(peers[name], others, _SECRET),
            self._network.of(name),
            self._faults[name],
            self._more.collect_seconds,
        )

    def add(self, sim: SimulatedNode, rng: random.Random) -> None:
        """A region's node; its clock is off by so much."""
        self.sims[sim.name] = sim
        skew_ms = self._more.skew_ms_max
        sim.machine.clock.offset_ms = rng.randint(-skew_ms, skew_ms)

    # Looking.

    def running(self) -> Iterator[tuple[str, Node, Regions]]:
        """Every region whose node is up."""
        for name, sim in self.sims.items():
            if sim.node is not None and sim.node.regions is not None:
                yield name, sim.node, sim.node.regions

    def note_logs(self, region: str, table: Table) -> None:
        """Remember which logs a table has."""
        number = self.names.index(region) + 1
        for index, partition in enumerate(table.partitions):
            joined = table.group_id is not None
            place = Place(region, number, table.table_id, index, joined)
            self.logs.setdefault(partition.log_id, place)

    async def watch(self) -> None:
        """Look, all the time, until cancelled."""
        while True:
            await trio.sleep(_MARKS_SECONDS)
            self.look()

    def look(self) -> None:
        """Remember logs, and what regions believe to have of each other."""
        for name, node, regions in self.running():
            ref = node.tables.find("", MAIN)
            if ref is None:
                continue
            self.note_logs(name, ref.table)
            group = regions.group_of(ref.table)
            if group is None or ref.table.group_id is None:
                continue
            for index, partition in enumerate(ref.table.partitions):
                actor = node.schema_changes.actors_by_log.get(partition.log_id)
                if actor is None:
                    continue
                received = regions.marks(group.group_id, index).received
                for number, closed in received.items():
                    self.marks[Mark(partition.log_id, actor.lsn, number, closed)] = None

    # Members.

    async def lead(self) -> None:
        """Make the table, and invite the other regions unless that is to be later."""
        first, *others = self.names
        await self._found(first)
        if not self._more.invites_late:
            await self._invite_all(first, others)

    async def change_members(self) -> None:
        """Invite regions late, have some leave and come back, as this world wants it."""
        rng = self._rng
        if self._more.invites_late:
            first, *others = self.names
            with trio.move_on_after(_MEMBERS_SECONDS):
                async with trio.open_nursery() as nursery:
                    for name in others:
                        nursery.start_soon(self._invite_late, first, name)
        for _ in range(self._more.departures):
            await trio.sleep(rng.expovariate(0.5))
            leaver = rng.choice(self.names)
            keep = rng.random() < self._more.keeps
            with trio.move_on_after(_MEMBERS_SECONDS):
                await self._leave(leaver, keep)
                await trio.sleep(rng.expovariate(2))
                if rng.random() < 0.9:
                    if keep:
                        await self._delete(leaver)
                    inviter = rng.choice([name for name in self.names if name != leaver])
                    await self._invite(inviter, leaver)

    async def _found(self, name: str) -> None:
        new = new_table(self._options, MAIN)
        if self._rng.random() < 0.5:
            new = msgspec.structs.replace(new, stream_view="NEW_AND_OLD_IMAGES")
        sim = self.sims[name]
        while True:
            node = await sim.ready()
            try:
                with sim.within_life():
                    if node.tables.find("", MAIN) is None:
                        await node.tables.create(new)
                    await node.tables.wait_active("", MAIN)
                    return
            except _SETBACKS:
                await trio.sleep(_LOOK_SECONDS)

    async def _invite_all(self, first: str, others: list[str]) -> None:
        # Clients begin when everybody is there, if that is soon.
        with trio.move_on_after(_MEMBERS_SECONDS):
            for name in others:
                await self._invite(first, name)
            while not all(map(self._is_served, self.names)):  # noqa: ASYNC110 - there is no event
                await trio.sleep(_LOOK_SECONDS)

    async def _invite_late(self, first: str, name: str) -> None:
        await trio.sleep(self._rng.expovariate(1))
        await self._invite(first, name)

    def _is_served(self, name: str) -> bool:
        node = self.sims[name].node
        ref = None if node is None else node.tables.find("", MAIN)
        return ref is not None and is_served(ref)

    async def _invite(self, inviter: str, name: str) -> None:
        """Have a region invited; returns when that is durable."""

        async def ask(regions: Regions, ref: TableRef, member: Member | None) -> bool:
            if member is not None and member.is_member:
                return True
            await regions.add_replica(ref.table, name, Overrides())
            self._is_founded = True
            self._note("invited", inviter, name)
            return True

        await self._insist(inviter, name, ask)

    async def _leave(self, name: str, keep: bool) -> None:
        """Have a region leave, and wait until it is gone."""
        asker = self._rng.choice(self.names)
        stage = Stage.DISASSOCIATING if keep else Stage.DELETING

        async def ask(regions: Regions, ref: TableRef, member: Member | None) -> bool:
            if member is None or (member.is_member and member.stage < Stage.ACTIVE):
                return False
            if member.stage is Stage.GONE:
                return True
            if member.stage < stage:
                if keep and not self._note_owed(name):
                    return False
                self.departures += 1
                await regions.remove_replica(ref.table, name, keep=keep)
                self._note("leaves", name, keep)
            return False

        await self._insist(asker, name, ask)

    def _note_owed(self, name: str) -> bool:
        """What a region has written so far it must still send, also if its table stays."""
        node = self.sims[name].node
        ref = None if node is None else node.tables.find("", MAIN)
        if node is None or ref is None:
            return False
        for partition in ref.table.partitions:
            actor = node.schema_changes.actors_by_log.get(partition.log_id)
            if actor is not None:
                self.owed.setdefault(partition.log_id, actor.lsn)
        return True

    async def _insist(self, asker: str, name: str, ask: _Ask) -> None:
        """Ask in one region about the member ``name`` until it is as wanted."""
        sim = self.sims[asker]
        while True:
            node = await sim.ready()
            ref = node.tables.find("", MAIN)
            try:
                if ref is not None and node.regions is not None:
                    group = node.regions.group_of(ref.table)
                    if group is None and self._is_founded:
                        return  # It has left itself.
                    member = None if group is None else group.member(name)
                    with sim.within_life():
                        if await ask(node.regions, ref, member):
                            return
                elif asker == name:
                    return
            except _SETBACKS:
                pass
            await trio.sleep(_LOOK_SECONDS)

    async def _delete(self, name: str) -> None:
        """Remove the table that a region kept."""
        sim = self.sims[name]
        while True:
            node = await sim.ready()
            try:
                with sim.within_life():
                    ref = node.tables.find("", MAIN)
                    if ref is None or ref.table.group_id is not None:
                        return
                    await node.tables.delete("", MAIN)
                    await node.tables.wait_gone("", MAIN)
                    return
            except _SETBACKS:
                await trio.sleep(_LOOK_SECONDS)

    # Rest.

    def heal(self) -> None:
        """The network is well, and every clock shows what the furthest clock does."""
        self.weather.clear()
        now_ms = max(sim.machine.clock.now_ms() for sim in self.sims.values())
        for _, node, _ in self.running():
            now_ms = max(now_ms, milliseconds_of(node.tick()))
        for sim in self.sims.values():
            clock = sim.machine.clock
            since_ms = int(trio.current_time() * 1000 * clock.rate)
            clock.offset_ms = now_ms - START_MS - since_ms

    async def settle(self) -> None:
        """Return when all regions agree and have everything; how that must be is asserted."""
        while not self._is_settled():  # noqa: ASYNC110 - there is no event
            await trio.sleep(_LOOK_SECONDS)
        self.look()

    def _is_settled(self) -> bool:
        groups: list[Group | None] = []
        for name in self.names:
            node = self.sims[name].node
            if node is None or node.regions is None:
                return False
            ref, regions = node.tables.find("", MAIN), node.regions
            if ref is not None and ref.table.status is not Status.ACTIVE:
                return False
            group = self._group(regions)
            groups.append(group)
            own = None if group is None else group.member(name)
            if own is None or own.stage is Stage.FAILED or own.stage is Stage.GONE:
                continue
            if own.stage is not Stage.ACTIVE or ref is None or not is_served(ref):
                return False
            if any(lag.entries or lag.state != "following" for lag in regions.lags()):
                return False
            if self._tombstones(node, ref.table):
                return False
        return all(group == groups[0] for group in groups)

    def _group(self, regions: Regions) -> Group | None:
        """The table's group: the one in which there is another region."""
        found = [group for group in regions.store.all() if len(group.members) > 1]
        assert len(found) <= 1, "one table has two groups"
        return found[0] if found else None

    def _tombstones(self, node: Node, table: Table) -> int:
        if not table.tombstones:
            return 0
        return sum(1 for _ in node.btree.range(table.tombstones, b"", None))

    def members(self) -> dict[str, tuple[Node, TableRef]]:
        """The regions that have the table, at rest."""
        found = {}
        for name, node, regions in self.running():
            ref = node.tables.find("", MAIN)
            if ref is not None and regions.group_of(ref.table) is not None:
                found[name] = (node, ref)
        return found
