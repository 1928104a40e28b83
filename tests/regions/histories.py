"""Histories of clients that move between regions, and what must be true of them.

The world runs on one clock of trio's, which jumps; each region's wall clock is wrong by some
milliseconds of its own. Clients write values that are all different, so that a value tells which
write it is; when all is over, the logs tell every write's version. The checks know nothing of
tokens, watermarks or stamps: only who did what when, and what was answered.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import msgspec
import trio

from millstream.actors.data_directory import open_node
from millstream.actors.node import NodeSettings
from millstream.database import Database
from millstream.errors import StaleReplica
from millstream.host.host import real_host
from millstream.host.memory_links import MemoryNetwork
from millstream.model.values import decode_item
from millstream.model.versions import Version
from millstream.sessions import BoundedStaleness, Consistency, Session
from millstream.storage.log.entry import decode_entry
from millstream.storage.records import Effect, decode_records

from .conftest import World, region_settings

EPOCH_MS = 1_700_000_000_000


class SkewedClock:
    """Trio's time as a wall clock that is wrong by ``skew_ms``."""

    def __init__(self, skew_ms: int) -> None:
        self.skew_ms = skew_ms

    def now_ms(self) -> int:
        return EPOCH_MS + self.skew_ms + int(trio.current_time() * 1000)

    def now_seconds(self) -> float:
        return self.now_ms() / 1000

    def monotonic_seconds(self) -> float:
        return trio.current_time()

    def seconds_until(self, at_ms: int) -> float:
        return max(0.0, (at_ms - self.now_ms()) / 1000)

    def when_moved(self, tell: Callable[[], None]) -> Callable[[], None]:
        return lambda: None


class NoThreads:
    """Everything is done at once."""

    async def run(self, function: Callable[..., Any], *args: object) -> Any:
        await trio.lowlevel.checkpoint()
        return function(*args)


@asynccontextmanager
async def open_timed_world(skews_ms: Mapping[str, int]) -> AsyncIterator[World]:
    """Regions in memory on trio's clock, which is to be a ``MockClock`` that jumps."""
    network = MemoryNetwork(random.Random(7))
    world = World(network)
    names = tuple(skews_ms)
    async with AsyncExitStack() as stack:
        for name, skew_ms in skews_ms.items():
            host = msgspec.structs.replace(
                real_host(), clock=SkewedClock(skew_ms), threads=NoThreads()
            )
            world.nodes[name] = await stack.enter_async_context(
                open_node(
                    None,
                    NodeSettings(region=name),
                    host=host,
                    regions=region_settings(network, name, names),
                )
            )
        yield world


def database(world: World, name: str) -> Database:
    """A region's tables in Python."""
    return Database(world[name].tables, cast(Any, None), "")


class Done(msgspec.Struct, frozen=True):
    """One call that was answered. ``values`` by key: what was written, or seen (None: nothing)."""

    client: int
    kind: str
    region: str
    values: dict[str, str | None]
    began: float
    ended: float
    bound_seconds: float | None = None


class History:
    """What clients did, in the order of the answers."""

    def __init__(self) -> None:
        self.done: list[Done] = []
        self.refused = 0
        self._values = 0

    def new_value(self) -> str:
        self._values += 1
        return str(self._values)


class Client:
    """Does things at random. ``consistency`` makes that of each call."""

    def __init__(
        self,
        number: int,
        world: World,
        history: History,
        keys: tuple[str, ...],
        chance: random.Random,
        consistency: Callable[[], Consistency],
    ) -> None:
        self._number = number
        self._world = world
        self._history = history
        self._keys = keys
        self._chance = chance
        self._consistency = consistency

    async def run(self, calls: int) -> None:
        for _ in range(calls):
            await trio.sleep(self._chance.uniform(0.0, 0.2))
            region = self._chance.choice(list(self._world.nodes))
            kind = self._chance.choice(("put", "put_many", "update", "get", "get", "scan", "batch"))
            await self.call(kind, region, self._chance.choice(self._keys))

    async def call(self, kind: str, region: str, key: str) -> None:
        history, began = self._history, trio.current_time()
        consistency = self._consistency()
        table = database(self._world, region).table("t", consistency=consistency)
        values: dict[str, str | None] = {}
        try:
            match kind:
                case "put":
                    values[key] = history.new_value()
                    await table.put({"pk": key, "v": values[key]})
                case "put_many":
                    values[key] = history.new_value()
                    await table.put_many([{"pk": key, "v": values[key]}])
                case "update":
                    values[key] = history.new_value()
                    await table.update({"pk": key}, "SET v = :v", values={":v": values[key]})
                case "get":
                    item = await table.get({"pk": key})
                    values[key] = None if item is None else item["v"]
                case _:
                    values = dict.fromkeys(self._keys)
                    if kind == "scan":
                        found = [item async for item in table.scan()]
                    else:
                        found = await table.get_many([{"pk": key} for key in self._keys])
                    values |= {item["pk"]: item["v"] for item in found}
        except StaleReplica:
            history.refused += 1
            return
        bound = consistency.seconds if isinstance(consistency, BoundedStaleness) else None
        is_write = kind in ("put", "put_many", "update")
        history.done.append(
            Done(
                self._number,
                "write" if is_write else "read",
                region,
                values,
                began,
                trio.current_time(),
                bound,
            )
        )


async def disturb(world: World, chance: random.Random, times: int) -> None:
    """Cut ways between regions, some silently, and heal them, for ever a little."""
    names = list(world.nodes)
    for _ in range(times):
        one, other = chance.sample(names, 2)
        await trio.sleep(chance.uniform(0.1, 1.0))
        world.network.cut(one, other, silently=chance.random() < 0.5)
        await trio.sleep(chance.uniform(0.1, 3.0))
        world.network.heal(one, other)


def versions(world: World) -> dict[str, Version]:
    """Value -> the version that it was written at, by the logs of all regions."""
    found: dict[str, Version] = {}
    for name, node in world.nodes.items():
        number = world.regions(name).number
        streams = node.tables.streams
        for partition in world.table(name).table.partitions:
            actor = node.schema_changes.actors_by_log[partition.log_id]
            for lsn in range(streams.first_kept(actor.log_id), actor.lsn + 1):
                entry = streams.entry(actor.log_id, lsn)
                for record in decode_records(decode_entry(entry)[1]):
                    if isinstance(record, Effect) and record.body is not None:
                        value = decode_item(record.body)["v"]["S"]
                        found[value] = Version(record.hlc, record.region or number)
    return found


# -- Checks --------------------------------------------------------------------------------------

NEVER = Version(0, 0)


def broken_sessions(history: History, known: Mapping[str, Version]) -> list[str]:
    """Where a client's calls, each a session's next, break one of the four guarantees."""
    broken: list[str] = []
    written: dict[tuple[int, str], Version] = {}
    seen: dict[tuple[int, str], Version] = {}
    for done in history.done:
        for key, value in done.values.items():
            version = NEVER if value is None else known[value]
            place = done.client, key
            own, read = written.get(place, NEVER), seen.get(place, NEVER)
            where = f"client {done.client}, {key} in {done.region} at {done.ended:.3f}"
            if done.kind == "write":
                if version <= own:
                    broken.append(f"monotonic writes: {where}")
                if version <= read:
                    broken.append(f"writes follow reads: {where}")
                written[place] = max(own, version)
            else:
                if version < own:
                    broken.append(f"read your writes: {where}")
                if version < read:
                    broken.append(f"monotonic reads: {where}")
                seen[place] = max(read, version)
    return broken


def too_stale(history: History, known: Mapping[str, Version]) -> list[str]:
    """Reads with a bound that do not show what had been answered before it."""
    broken: list[str] = []
    writes = [done for done in history.done if done.kind == "write"]
    for done in history.done:
        if done.kind != "read" or done.bound_seconds is None:
            continue
        for key, value in done.values.items():
            version = NEVER if value is None else known[value]
            for write in writes:
                if key in write.values and write.ended < done.began - done.bound_seconds:
                    other = known[cast(str, write.values[key])]
                    if other > version:
                        broken.append(
                            f"{key} in {done.region} at {done.began:.3f}: lacks what was "
                            f"written at {write.ended:.3f} in {write.region}"
                        )
    return broken


def new_session(wait_seconds: float = 2.0) -> Callable[[], Session]:
    """One session for all calls of a client."""
    session = Session(wait_seconds=wait_seconds)
    return lambda: session
