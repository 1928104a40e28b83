"""Several regions in one program: global tables in Python, for tests, drills and demonstrations.

::

    places = {"us-east-1": "data/us", "eu-west-1": "data/eu", "ap-southeast-1": None}
    async with millstream.open_regions(places) as regions:
        await regions["us-east-1"].create_table("orders", partition_key="id")
        await regions.replicate("orders")
        regions.partition("us-east-1", "eu-west-1")
        ...
        regions.heal()
        await regions.settled()

Each region is a ``Database`` with its own data and its own clock. They are linked as nodes of
``millstream serve --peers`` are, over a network in memory.

The data name regions by numbers, which therefore stay. Every directory keeps the numbers of all
regions that it was ever opened with, in its ``regions.toml``; a region that none of them knows gets
the next number, in the order of names. So it does not matter which regions are opened together, or
in which order they are given. A region in memory keeps its number too, and is empty whenever it is
opened: the others then give up the replicas that it had.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from .actors.node import NodeSettings
from .actors.regions import PeerStatus, RegionSettings
from .actors.regions_view import Regions as NodeRegions
from .api.credentials import NAMESPACE_DEFAULT
from .config import DEFAULTS, SETTINGS
from .database import Database, open_on
from .errors import ConfigurationError, InvalidRequest, ResourceNotFound
from .globaltables.faults import HEALTHY, Fault, LinkFaults
from .globaltables.peers import REGION_NUMBER_MAX, Peer, Peers
from .host.clock import Clock, SkewedClock
from .host.disk import Disk
from .host.entropy import EntropyChance
from .host.host import real_host
from .host.memory_links import MemoryNetwork
from .lambdas.trigger import Trigger
from .limits import REGIONS_MAX, REPLICA_LOOK_SECONDS

NUMBERS_FILE = "regions.toml"
_SECRET_BYTES = 32


class ReplicationLag(msgspec.Struct, frozen=True):
    """How far ``region`` is behind what ``source`` has written to a table.

    ``state`` is "waiting" (there is no link), "filling" or "following"; ``entries`` and ``seconds``
    are of the log.
    """

    table: str
    source: str
    region: str
    state: str
    entries: int
    seconds: float
    changes_sent: int
    bytes_sent: int

    @property
    def is_level(self) -> bool:
        """Whether the region has everything."""
        return self.state == "following" and not self.entries


class RegionStatus(msgspec.Struct, frozen=True):
    """A region and how the others look from it. ``faults`` are what drills do to its links."""

    region: str
    number: int
    clock_skew_seconds: float
    peers: tuple[PeerStatus, ...]
    faults: dict[str, Fault]


class Regions(Mapping[str, Database]):
    """Open regions, by name. Made by ``open_regions``.

    What a drill does holds until it is undone, or the block ends. All drills raise InvalidRequest
    for a region that is not open.
    """

    def __init__(self, databases: Mapping[str, Database], namespace: str) -> None:
        self._databases = dict(databases)
        self._namespace = namespace

    def __getitem__(self, region: str) -> Database:
        return self._databases[region]

    def __iter__(self) -> Iterator[str]:
        return iter(self._databases)

    def __len__(self) -> int:
        return len(self._databases)

    def __repr__(self) -> str:
        return f"<Regions {', '.join(self)}>"

    # Tables.

    async def replicate(self, table: str, regions: Iterable[str] | None = None) -> None:
        """Give a table replicas in ``regions`` (all), from where it is; return when all are ACTIVE.

        Raises:
            ResourceNotFound: no region has it.
            InvalidRequest: a region is not open, or has a table of that name already.
        """
        wanted = list(self if regions is None else regions)
        for region in wanted:
            self._node(region)
        having = [name for name in self if table in self[name].table_names()]
        if not having:
            raise ResourceNotFound(f"No region has a table {table}")
        source, database = having[0], self[having[0]]
        for region in wanted:
            if region == source:
                continue
            if region in await database.replicas(table):
                await database._wait_replica(table, region)
            else:
                await database.add_replica(table, region)
        # The others hear of it a moment later.
        for region in dict.fromkeys((source, *wanted)):
            for other in wanted:
                if other != region:
                    await self[region]._wait_replica(table, other)

    async def settled(self, table: str | None = None, *, seconds: float = 30.0) -> None:
        """Return when every region has what every other one has written, to ``table`` or at all.

        Raises TimeoutError, which says who lacks what, after so many seconds.
        """
        waited = 0.0
        while True:
            late = [lag for lag in self.lag(table) if not lag.is_level]
            if not late:
                return
            if waited >= seconds:
                raise TimeoutError(f"after {seconds:g} seconds: {_in_words(late)}")
            await next(iter(self.values()))._tables.pause(REPLICA_LOOK_SECONDS)
            waited += REPLICA_LOOK_SECONDS

    def lag(self, table: str | None = None) -> list[ReplicationLag]:
        """How far each region is behind each other one, for each global table (or this one)."""
        return [
            _lag_of(source, together)
            for source in self
            for together in _by_table(self._node(source), self._namespace)
            if table is None or together[0].table == table
        ]

    def status(self) -> dict[str, RegionStatus]:
        """Every region, with its links as they look from it."""
        return {name: self._status(name) for name in self}

    def _status(self, name: str) -> RegionStatus:
        node = self._node(name)
        return RegionStatus(
            name, node.number, node.clock_skew_ms / 1000, tuple(node.status()), node.faults.all()
        )

    # Drills. What is done to a link is done at both ends, and holds for both ways.

    def partition(self, one: str, other: str) -> None:
        """Cut the links between two regions."""
        self._change(one, other, is_partitioned=True)

    def heal(self, one: str | None = None, other: str | None = None) -> None:
        """Undo what was done to the links of two regions, or of all."""
        if (one is None) != (other is None):
            raise InvalidRequest("Two regions are healed, or all of them")
        if one is None or other is None:
            for name in self:
                self._node(name).faults.heal()
        else:
            for node, name in self._ends(one, other):
                node.faults.set(name, HEALTHY)

    def pause(self, one: str, other: str) -> None:
        """Hold back what two regions send each other."""
        self._change(one, other, is_paused=True)

    def resume(self, one: str, other: str) -> None:
        """Send what was held back."""
        self._change(one, other, is_paused=False)

    def delay(self, one: str, other: str, seconds: float) -> None:
        """Have everything between two regions arrive later. Raises ValueError below 0."""
        self._change(one, other, latency_seconds=seconds)

    def drop(self, one: str, other: str, probability: float) -> None:
        """Lose the connection instead of a message, so often. Raises ValueError outside 0 to 1."""
        self._change(one, other, drop=probability)

    def skew(self, region: str, seconds: float) -> None:
        """Set a region's clock wrong by so much; 0 sets it right."""
        self._node(region).set_clock_skew(round(seconds * 1000))

    def _change(self, one: str, other: str, **members: float) -> None:
        ends = self._ends(one, other)
        changed = [
            msgspec.structs.replace(node.faults.of(name), **members) for node, name in ends
        ]
        for (node, name), fault in zip(ends, changed):
            node.faults.set(name, fault)

    def _ends(self, one: str, other: str) -> list[tuple[NodeRegions, str]]:
        ends = [(self._node(one), other), (self._node(other), one)]
        if one == other:
            raise InvalidRequest(f"{one} and itself have no link")
        return ends

    def _node(self, region: str) -> NodeRegions:
        database = self._databases.get(region)
        if database is None:
            raise InvalidRequest(f"{region} is not open; {', '.join(self)} are")
        found = database._tables.regions
        assert found is not None
        return found

    async def _forget(self, region: str) -> None:
        """A region that was in memory begins with nothing: the others wait for it no longer."""
        for name, database in self.items():
            if name == region:
                continue
            for group in self._node(name).groups(self._namespace):
                member = group.member(region)
                ref = database._tables.find(group.namespace, group.table)
                if ref is not None and member is not None and member.is_member:
                    await self._node(name).forget_replica(ref.table, region)

    def _stop(self) -> None:
        for name in self:
            self._node(name).stop()


@asynccontextmanager
async def open_regions(
    places: Mapping[str, str | os.PathLike[str] | None],
    *,
    triggers: Mapping[str, Iterable[Trigger]] | None = None,
    namespace: str = NAMESPACE_DEFAULT,
    log_engine: str = "auto",
    clock: Clock | None = None,
) -> AsyncIterator[Regions]:
    """Open a database for each region, at its path or in memory (None), and link them all.

    ``triggers`` has a registry for any region: its handlers are called there for whatever changes
    there, wherever it was written. ``clock`` is for tests; each region has its own skew on it.

    Raises:
        ConfigurationError: names that are none; directories that know other numbers.
        DirectoryInUse, WrongFormat, Corrupt: as ``open_database``.
    """
    registries = {} if triggers is None else dict(triggers)
    paths = {name: None if path is None else os.fspath(path) for name, path in places.items()}
    _check_names(paths, registries)
    host = real_host()
    if clock is not None:
        host = msgspec.structs.replace(host, clock=clock)
    numbers = _settle_numbers(host.disk, paths)
    chance = EntropyChance(host.entropy)
    network = MemoryNetwork(chance)
    secret = host.entropy.token_bytes(_SECRET_BYTES)
    peers = {name: Peer(name, numbers[name], f"memory:{name}") for name in sorted(paths)}
    for peer in peers.values():
        network.expect(peer.address)
    databases: dict[str, Database] = {}
    async with AsyncExitStack() as stack:
        for name, path in paths.items():
            others = tuple(peer for peer in peers.values() if peer.region != name)
            databases[name] = await stack.enter_async_context(
                open_on(
                    msgspec.structs.replace(host, clock=SkewedClock(host.clock)),
                    path,
                    NodeSettings(region=name),
                    namespace=namespace,
                    log_engine="auto" if path is None else log_engine,
                    triggers=registries.get(name, ()),
                    regions=RegionSettings(
                        Peers(peers[name], others, secret),
                        network.of(name),
                        LinkFaults(chance.random),
                    ),
                )
            )
        regions = Regions(databases, namespace)
        for name, path in paths.items():
            if path is None:
                await regions._forget(name)
        try:
            yield regions
        finally:
            # All at once: or each would complain of the one that was closed before it.
            regions._stop()


def _check_names(paths: Mapping[str, str | None], registries: Mapping[str, object]) -> None:
    (parse,) = (setting.parse for setting in SETTINGS if setting.name == "region")
    if not paths:
        raise ConfigurationError(f"regions: none is named, like {DEFAULTS.region}")
    if len(paths) > REGIONS_MAX:
        raise ConfigurationError(f"regions: {len(paths)} regions; at most {REGIONS_MAX} can be")
    for name in paths:
        try:
            parse(name)
        except ValueError as error:
            raise ConfigurationError(f"regions: {name!r} {error}") from None
    taken = [path for path in paths.values() if path is not None]
    if len(set(map(os.path.abspath, taken))) < len(taken):
        raise ConfigurationError("regions: two regions have the same directory")
    for name in registries:
        if name not in paths:
            raise ConfigurationError(f"regions: there are triggers for {name}, which is not opened")


# Numbers.


def _settle_numbers(disk: Disk, paths: Mapping[str, str | None]) -> dict[str, int]:
    """Every region's number, which from now on every directory knows.

    Written before a region is opened: a number that is in the data is in the files.
    """
    folders = [path for path in paths.values() if path is not None]
    known: dict[str, int] = {}
    before = {folder: _read_numbers(disk, folder) for folder in folders}
    for folder, numbers in before.items():
        for name, number in numbers.items():
            if known.setdefault(name, number) != number:
                raise ConfigurationError(
                    f"regions: {folder} knows {name} as number {number}, and another directory as "
                    f"number {known[name]}"
                )
    owners = {number: name for name, number in known.items()}
    if len(owners) < len(known):
        raise ConfigurationError("regions: the directories were opened with different regions")
    last = max(known.values(), default=0)
    for name in sorted(paths):
        if name not in known:
            last += 1
            known[name] = last
    if last > REGION_NUMBER_MAX:
        raise ConfigurationError("regions: there are no numbers left")
    for folder, numbers in before.items():
        if numbers != known:
            disk.make_directory(folder)
            disk.write_file_atomic(f"{folder}/{NUMBERS_FILE}", _encode_numbers(known))
    return known


def _read_numbers(disk: Disk, folder: str) -> dict[str, int]:
    path = f"{folder}/{NUMBERS_FILE}"
    if not disk.exists(path):
        return {}
    try:
        content = tomllib.loads(disk.read_file(path).decode())
        regions = msgspec.convert(content["regions"], type=dict[str, dict[str, int]])
        return {name: each["number"] for name, each in regions.items()}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, msgspec.ValidationError):
        raise ConfigurationError(f"regions: {path} is not what open_regions writes") from None


def _encode_numbers(numbers: Mapping[str, int]) -> bytes:
    lines = ["# Numbers of regions, by which the data name them. They stay."]
    for name, number in sorted(numbers.items(), key=lambda entry: entry[1]):
        lines += ["", f"[regions.{name}]", f"number = {number}"]
    return ("\n".join(lines) + "\n").encode()


# Lags.


def _by_table(node: NodeRegions, namespace: str) -> list[list[ReplicationLag]]:
    """A region's lags, those of a table's partitions together."""
    found: dict[tuple[str, str], list[ReplicationLag]] = {}
    for lag in node.lags():
        if lag.namespace == namespace:
            found.setdefault((lag.table, lag.region), []).append(
                ReplicationLag(
                    lag.table,
                    node.own,
                    lag.region,
                    lag.state,
                    lag.entries,
                    lag.seconds,
                    lag.changes_sent,
                    lag.bytes_sent,
                )
            )
    return [found[place] for place in sorted(found)]


def _lag_of(source: str, together: Sequence[ReplicationLag]) -> ReplicationLag:
    """A table's lag: the worst of its partitions, and their sums."""
    states = [lag.state for lag in together if lag.state != "following"]
    return ReplicationLag(
        together[0].table,
        source,
        together[0].region,
        states[0] if states else "following",
        sum(lag.entries for lag in together),
        max(lag.seconds for lag in together),
        sum(lag.changes_sent for lag in together),
        sum(lag.bytes_sent for lag in together),
    )


def _in_words(late: Iterable[ReplicationLag]) -> str:
    return "; ".join(
        f"{lag.table}: {lag.region} is {lag.state}, {lag.entries} records behind {lag.source}"
        for lag in late
    )
