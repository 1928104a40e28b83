"""What ``bench.triggers`` measures: each function opens its own database and measures one thing.

In process, so that CPU time is this process's; the data is on a disk and each write fsynced. Items
have 900 bytes in ten attributes.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio

from ..actors.data_directory import open_node
from ..actors.node import NodeSettings
from ..api.calls import Caller
from ..api.dispatch import Dispatcher
from ..database import Database, Table, open_database
from .client import percentile

ATTRIBUTES = 9
ATTRIBUTE_BYTES = 95
BATCH_SIZE = 100
WRITERS = 32
TABLE = "orders"
TRIGGER = "bench"
CALLER = Caller(namespace="", access_key="", region="us-east-1", request_id="")

Plain = dict[str, Any]


class Spent(msgspec.Struct, frozen=True):
    """What something took: how often it was done, and in what time."""

    count: int
    elapsed_seconds: float
    cpu_seconds: float

    @property
    def per_second(self) -> float:
        return self.count / self.elapsed_seconds

    @property
    def cpu_us(self) -> float:
        """CPU microseconds each."""
        return self.cpu_seconds / self.count * 1e6


class Stopwatch:
    """Time and CPU time from its making on."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._cpu = time.process_time()

    def spent(self, count: int) -> Spent:
        return Spent(count, time.perf_counter() - self._began, time.process_time() - self._cpu)


def items(first: int, count: int) -> Iterator[Plain]:
    """Items of 900 bytes with keys of their own."""
    for number in range(first, first + count):
        item: Plain = {"pk": f"order{number:09}"}
        for attribute in range(ATTRIBUTES):
            item[f"f{attribute}"] = f"{number:012}" + "x" * (ATTRIBUTE_BYTES - 12)
        yield item


@asynccontextmanager
async def _database(directory: Path, stream: str | None) -> AsyncIterator[tuple[Database, Table]]:
    async with open_database(directory) as db:
        table = await db.create_table(TABLE, partition_key="pk", stream=stream)  # type: ignore[arg-type]
        yield db, table


async def _fill(table: Table, count: int) -> None:
    """Put items, many to a log entry."""
    source = items(0, count)

    async def write() -> None:
        while part := list(itertools.islice(source, 250)):
            await table.put_many(part)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(write)


async def _put_all(table: Table, source: Iterable[Plain], writers: int) -> list[float]:
    """Put items one by one, by so many tasks; what each put took in seconds."""
    shared, took = iter(source), []

    async def write() -> None:
        for item in shared:
            began = time.perf_counter()
            await table.put(item)
            took.append(time.perf_counter() - began)

    async with trio.open_nursery() as nursery:
        for _ in range(writers):
            nursery.start_soon(write)
    return took


# From a write to its handler.


class Latency(msgspec.Struct, frozen=True):
    """From the call of ``put``, and from its answer, to the handler's first line; in seconds."""

    from_call: list[float]
    from_answer: list[float]


def note_time(path: str, event: Plain, context: Any) -> None:
    """A handler in a worker process: what time it is goes into a file."""
    now = time.monotonic()
    with open(path, "a", encoding="ascii") as file:
        file.write(f"{now!r}\n")


async def latency(directory: Path, isolation: str, count: int) -> Latency:
    """One put at a time on an idle node. ``isolation``: ``loop`` or ``process``."""
    seen: list[float] = []
    path = directory / "times"

    async def note(event: Plain, context: Any) -> None:
        seen.append(time.monotonic())

    calls: list[tuple[float, float]] = []
    async with _database(directory / "data", "NEW_AND_OLD_IMAGES") as (db, table):
        if isolation == "process":
            handler: Callable[..., Any] = partial(note_time, str(path))
            await db.add_trigger(TABLE, handler, name=TRIGGER, isolation="process")
        else:
            await db.add_trigger(TABLE, note, name=TRIGGER)
        # The first ones start the worker and warm everything.
        for number, item in enumerate(items(0, count + 20)):
            began = time.monotonic()
            await table.put(item)
            calls.append((began, time.monotonic()))
            await db.drain()
            await trio.sleep(0.005)
            assert number < 20 or len(calls) == number + 1
    if isolation == "process":
        seen = [float(line) for line in path.read_text(encoding="ascii").split()]
    assert len(seen) == len(calls), "a put and an invocation belong together"
    pairs = list(zip(calls, seen))[20:]
    return Latency(
        sorted(at - began for (began, _), at in pairs),
        sorted(at - answered for (_, answered), at in pairs),
    )


# Many records through a handler.


class Sink:
    """A handler that counts. ``full`` is set when ``expected`` records have come."""

    def __init__(self) -> None:
        self.count = 0
        self.expected = 0
        self.full = trio.Event()

    def expect(self, count: int) -> None:
        self.count, self.expected, self.full = 0, count, trio.Event()

    async def handle(self, event: Plain, context: Any) -> None:
        self.count += len(event["Records"])
        if self.count >= self.expected:
            self.full.set()


async def replay(
    directory: Path, records: int, rounds: int, view: str = "NEW_AND_OLD_IMAGES"
) -> list[Spent]:
    """A shard that is there already, from its beginning to its end, again and again."""
    sink = Sink()
    found = []
    async with _database(directory / "data", view) as (db, table):
        await _fill(table, records)
        sink.expect(records)
        await db.add_trigger(TABLE, sink.handle, name=TRIGGER, batch_size=BATCH_SIZE)
        await db.drain()
        for _ in range(rounds):
            sink.expect(records)
            watch = Stopwatch()
            await db.triggers.reset(TRIGGER, "TRIM_HORIZON")
            await sink.full.wait()
            found.append(watch.spent(records))
            await db.drain()
            assert sink.count == records
    return found


class Live(msgspec.Struct, frozen=True):
    """Puts with the handler of their records, and the same puts on a table without one."""

    handled: list[Spent]
    alone: list[Spent]


async def live(directory: Path, records: int, rounds: int) -> Live:
    """Writers and the handler together, until both are done; in turn with writers alone."""
    sink = Sink()
    found = Live([], [])
    async with _database(directory / "data", "NEW_AND_OLD_IMAGES") as (db, table):
        await db.add_trigger(TABLE, sink.handle, name=TRIGGER, batch_size=BATCH_SIZE)
        other = await db.create_table("other", partition_key="pk", stream="NEW_AND_OLD_IMAGES")
        for number in range(rounds):
            ready = list(items(number * records, records))
            sink.expect(records)
            watch = Stopwatch()
            await _put_all(table, ready, WRITERS)
            await sink.full.wait()
            found.handled.append(watch.spent(records))
            watch = Stopwatch()
            await _put_all(other, ready, WRITERS)
            found.alone.append(watch.spent(records))
    return found


async def transactional(directory: Path, records: int) -> Spent:
    """A handler that writes through ``context.transaction``: one item for each batch."""
    sink = Sink()

    async def keep(event: Plain, context: Any) -> None:
        first = event["Records"][0]["dynamodb"]
        context.transaction.update(
            "totals",
            {"pk": "all"},
            "ADD records :n SET newest = :s",
            values={":n": len(event["Records"]), ":s": first["SequenceNumber"]},
        )
        await sink.handle(event, context)

    async with _database(directory / "data", "NEW_AND_OLD_IMAGES") as (db, table):
        await db.create_table("totals", partition_key="pk")
        await _fill(table, records)
        sink.expect(records)
        watch = Stopwatch()
        await db.add_trigger(TABLE, keep, name=TRIGGER, batch_size=BATCH_SIZE)
        await db.drain()
        spent = watch.spent(records)
        total = await db.table("totals").get({"pk": "all"})
        assert total is not None
        assert total["records"] == records, "each record counts once"
        return spent


async def changes(directory: Path, records: int, rounds: int) -> list[Spent]:
    """``table.changes`` from the start to the end."""
    found = []
    async with _database(directory / "data", "NEW_AND_OLD_IMAGES") as (_, table):
        await _fill(table, records)
        for _ in range(rounds):
            count = 0
            watch = Stopwatch()
            async for _ in table.changes(since="start"):
                count += 1
                if count == records:
                    break
            found.append(watch.spent(records))
    return found


# What others notice of it.


class SlowHandler(msgspec.Struct, frozen=True):
    """p99 of puts in seconds, one for each round, with the slow handler and without it."""

    alone: list[float]
    beside: list[float]


async def slow_handler(directory: Path, rounds: int, seconds: float) -> SlowHandler:
    """Puts to a table whose handler takes a second for each batch, and with it paused, in turn."""
    found: dict[bool, list[float]] = {False: [], True: []}

    async def sleep(event: Plain, context: Any) -> None:
        await trio.sleep(1)

    async with _database(directory / "data", "NEW_AND_OLD_IMAGES") as (db, table):
        await db.add_trigger(TABLE, sleep, name=TRIGGER, batch_size=BATCH_SIZE)
        source = items(0, 1 << 40)
        for number in range(-1, rounds):
            # Whoever is first in a round is second in the next.
            for is_beside in (True, False) if number % 2 else (False, True):
                await (db.triggers.resume if is_beside else db.triggers.pause)(TRIGGER)
                await trio.sleep(0.2)
                took = sorted(await _put_for(table, source, seconds))
                if number >= 0:
                    found[is_beside].append(percentile(took, 0.99))
    return SlowHandler(found[False], found[True])


async def _put_for(table: Table, source: Iterator[Plain], seconds: float) -> list[float]:
    """Put items one by one, by eight tasks, for so long; what each put took in seconds."""
    end = time.perf_counter() + seconds
    return await _put_all(
        table, itertools.takewhile(lambda _: time.perf_counter() < end, source), 8
    )


async def idle(directory: Path, mappings: int, seconds: float) -> Spent:
    """So many mappings of ten tables, and nothing to do."""
    sink = Sink()
    async with open_database(directory / "data") as db:
        for number in range(10):
            name = f"{TABLE}{number}"
            table = await db.create_table(name, partition_key="pk", stream="NEW_IMAGE")
            await table.put_many(items(0, 100))
        for number in range(mappings):
            name = f"{TRIGGER}{number}"
            await db.add_trigger(f"{TABLE}{number % 10}", sink.handle, name=name)
        await db.drain()
        await trio.sleep(2)
        watch = Stopwatch()
        await trio.sleep(seconds)
        return watch.spent(1)


VIEWS: Mapping[str, str | None] = {
    "none": None,
    "keys": "KEYS_ONLY",
    "new": "NEW_IMAGE",
    "old": "NEW_AND_OLD_IMAGES",
}


async def puts(directory: Path, slices: int, count: int) -> dict[str, dict[str, list[float]]]:
    """CPU microseconds of a PutItem, from JSON to JSON, on tables with streams and without.

    ``insert`` and ``overwrite``, then by ``VIEWS``, then a figure for each slice of ``count`` puts.
    Slices are short and take turns: what the flusher and other processes do to one of them is
    gone before the next.
    """
    found: dict[str, dict[str, list[float]]] = {
        kind: {view: [] for view in VIEWS} for kind in ("insert", "overwrite")
    }
    async with open_node(str(directory / "data"), NodeSettings()) as node:
        dispatcher = Dispatcher(node.tables)
        turns = random.Random(slices)

        async def call(operation: str, body: bytes) -> None:
            await dispatcher.dispatch(f"DynamoDB_20120810.{operation}", body, CALLER)

        for table, view in VIEWS.items():
            await call("CreateTable", create_table(f"table-{table}", view))
            await node.tables.wait_active("", f"table-{table}")
        for number in range(-1, slices):
            for kind in found:
                # In any order, so that nobody always follows the same other.
                for view in turns.sample(list(VIEWS), len(VIEWS)):
                    bodies = [_put(f"table-{view}", item) for item in items(number * count, count)]
                    cpu_us = await _by_many(partial(call, "PutItem"), bodies)
                    if number >= 0:
                        found[kind][view].append(cpu_us)
    return found


async def _by_many(call: Callable[[bytes], Awaitable[None]], bodies: list[bytes]) -> float:
    shared = iter(bodies)

    async def work() -> None:
        for body in shared:
            await call(body)

    began = time.process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(WRITERS):
            nursery.start_soon(work)
    return (time.process_time() - began) / len(bodies) * 1e6


def create_table(name: str, view: str | None) -> bytes:
    request: Plain = {
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
    }
    if view is not None:
        request["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": view}
    return json.dumps(request).encode()


def _put(table: str, item: Plain) -> bytes:
    typed = {name: {"S": value} for name, value in item.items()}
    return json.dumps({"TableName": table, "Item": typed}).encode()
