"""What ``bench.regions`` measures: each function starts regions of its own and measures one thing.

Regions are processes with data directories on a disk, each write fsynced, signatures not verified.
Items have 1,000 bytes in ten attributes of random letters, keys are new, tables have streams with
both images.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ..tools.load import keyed_by
from ..tools.region_nodes import NAMES, RegionNodes
from .client import Outcome, Server, measure
from .processes import cpu_seconds
from .signing import Signer
from .workloads import BATCH_ITEMS, Operation

TABLE = "items"
CONNECTIONS = 32
BATCH_CONNECTIONS = 8
ARRIVE_SECONDS_MAX = 120.0
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_FIELDS = 9
_FIELD_BYTES = 105


class Maker:
    """Requests with items that nobody else has made."""

    def __init__(self, seed: int = 1) -> None:
        self._signer = Signer()
        draw = random.Random(seed)
        self._draw = draw
        self._text = "".join(draw.choices(_LETTERS, k=1 << 16))
        self._numbers = itertools.count()

    def key(self, number: int) -> str:
        return f'{{"pk":{{"S":"item{number:010}"}}}}'

    def _item(self) -> str:
        fields = "".join(f',"f{n}":{{"S":"{self._value()}"}}' for n in range(_FIELDS))
        return f'{{"pk":{{"S":"item{next(self._numbers):010}"}}{fields}}}'

    def _value(self) -> str:
        at = self._draw.randrange(len(self._text) - _FIELD_BYTES)
        return self._text[at : at + _FIELD_BYTES]

    def put(self, table: str = TABLE) -> Operation:
        body = f'{{"TableName":"{table}","Item":{self._item()}}}'
        return ((self._signer.request("PutItem", body.encode()), 2),)

    def puts(self, count: int, table: str = TABLE) -> list[Operation]:
        return [self.put(table) for _ in range(count)]

    def get(self, number: int, table: str = TABLE) -> Operation:
        body = f'{{"TableName":"{table}","Key":{self.key(number)}}}'
        return ((self._signer.request("GetItem", body.encode()), 2),)

    def batches(self, items: int, table: str = TABLE) -> Iterator[Operation]:
        """BatchWriteItem of 25 each."""
        for _ in range(items // BATCH_ITEMS):
            puts = ",".join(
                f'{{"PutRequest":{{"Item":{self._item()}}}}}' for _ in range(BATCH_ITEMS)
            )
            body = f'{{"RequestItems":{{"{table}":[{puts}]}}}}'
            yield ((self._signer.request("BatchWriteItem", body.encode()), 2),)


class Pair:
    """Two regions, or three, with a global table; ``origin`` is written to."""

    def __init__(self, nodes: RegionNodes) -> None:
        self.nodes = nodes
        self._marks = itertools.count()
        self._connections = {name: nodes.connection(name) for name in nodes.names}

    def server(self, name: str) -> Server:
        server = self.nodes.servers[name]
        return Server(name, int(server.endpoint.rpartition(":")[2]), server.process_id)

    @property
    def origin(self) -> Server:
        return self.server(self.nodes.names[0])

    def cpu_seconds(self) -> dict[str, float]:
        """Of each region's process until now."""
        return {
            name: cpu_seconds(server.process_id) for name, server in self.nodes.servers.items()
        }

    def mark(self, table: str = TABLE) -> str:
        """Write an item in the origin that comes behind everything acknowledged; its key."""
        key = f"mark{next(self._marks)}"
        item = {"pk": {"S": key}}
        connection = self._connections[self.nodes.names[0]]
        connection.get("PutItem", {"TableName": table, "Item": item})
        return key

    def wait_arrived(
        self, mark: str, table: str = TABLE, names: Sequence[str] | None = None
    ) -> None:
        """Return when the mark is in these regions; in all others, if none are named."""
        give_up = time.perf_counter() + ARRIVE_SECONDS_MAX
        members = {"TableName": table, "Key": {"pk": {"S": mark}}}
        for name in self.nodes.names[1:] if names is None else names:
            while "Item" not in self._connections[name].get("GetItem", members):
                assert time.perf_counter() < give_up, f"{name} does not receive {mark}"
                time.sleep(0.005)

    def settle(self) -> None:
        self.wait_arrived(self.mark())


@contextmanager
def regions(directory: Path, count: int = 2, *, has_proxy: bool = True) -> Iterator[Pair]:
    """So many regions, running, with the table in all of them."""
    arguments = ("--log-level", "warning")
    nodes = RegionNodes(directory, NAMES[:count], arguments, has_proxy=has_proxy)
    try:
        nodes.start()
        nodes.make_global(keyed_by("pk", TABLE))
        yield Pair(nodes)
    finally:
        nodes.close()


class Flow(msgspec.Struct, frozen=True):
    """So many items went into the other region, in so long; CPU seconds of both processes."""

    items: int
    elapsed_seconds: float
    origin_seconds: float
    receiver_seconds: float

    @property
    def per_second(self) -> float:
        return self.items / self.elapsed_seconds


@contextmanager
def _flow(pair: Pair, items: int, found: list[Flow]) -> Iterator[None]:
    before, began = pair.cpu_seconds(), time.perf_counter()
    yield
    elapsed, after = time.perf_counter() - began, pair.cpu_seconds()
    origin, receiver = pair.nodes.names[:2]
    found.append(
        Flow(items, elapsed, after[origin] - before[origin], after[receiver] - before[receiver])
    )


def _fall_behind(pair: Pair, maker: Maker, items: int) -> str:
    """Write items in the origin while the link is cut; the mark behind them."""
    pair.nodes.link("cut", *pair.nodes.names)
    measure(pair.origin, maker.batches(items), BATCH_CONNECTIONS, None)
    # What the origin still has to do for them is not the link's.
    time.sleep(1.0)
    return pair.mark()


def catch_up(directory: Path, items: int) -> Flow:
    """From healing until everything is there, nobody else asking."""
    found: list[Flow] = []
    with regions(directory) as pair:
        mark = _fall_behind(pair, Maker(), items)
        pair.nodes.heal()
        _wait_linked(pair)
        with _flow(pair, items, found):
            pair.wait_arrived(mark)
    return found[0]


def _wait_linked(pair: Pair) -> None:
    """Return when the first of what was held has come: redialling is no part of the flow."""
    members = {"TableName": TABLE, "Key": {"pk": {"S": f"item{0:010}"}}}
    connection = pair.nodes.connection(pair.nodes.names[1])
    try:
        while "Item" not in connection.get("GetItem", members):
            time.sleep(0.002)
    finally:
        connection.close()


def live(directory: Path, items: int) -> Flow:
    """From the first write to the arrival of the last, written as fast as the origin takes them."""
    found: list[Flow] = []
    with regions(directory) as pair:
        maker = Maker()
        # The first ones warm everything.
        measure(pair.origin, maker.batches(2000), BATCH_CONNECTIONS, None)
        pair.settle()
        ready = list(maker.batches(items))
        with _flow(pair, items, found):
            measure(pair.origin, iter(ready), BATCH_CONNECTIONS, None)
            pair.settle()
    return found[0]


class Load(threading.Thread):
    """So many requests a second to one server, one after the other on a few connections."""

    def __init__(self, server: Server, source: Iterator[Operation], per_second: float) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._source = source
        self._per_second = per_second
        self._over = threading.Event()
        self.outcome: Outcome | None = None

    def run(self) -> None:
        self.outcome = measure(self._server, self._paced(), 8, None)

    def _paced(self) -> Iterator[Operation]:
        due = time.perf_counter()
        while not self._over.is_set():
            yield next(self._source)
            due += 1 / self._per_second
            time.sleep(max(0.0, due - time.perf_counter()))

    def stop(self) -> Outcome:
        self._over.set()
        self.join()
        assert self.outcome is not None
        return self.outcome


def catch_up_serving(directory: Path, items: int, rate: float) -> tuple[Flow, Outcome, Outcome]:
    """The same while both regions serve: the origin puts and gets, half and half, the other gets.

    ``rate``: requests a second to each of them. The outcomes of their clients.
    """
    found: list[Flow] = []
    with regions(directory) as pair:
        maker = Maker()
        mark = _fall_behind(pair, maker, items)
        draw, others = random.Random(2), Maker(3)

        def mixed() -> Iterator[Operation]:
            while True:
                yield maker.put()
                yield maker.get(draw.randrange(items))

        def reads() -> Iterator[Operation]:
            while True:
                yield others.get(draw.randrange(items))

        loads = [
            Load(pair.origin, mixed(), rate),
            Load(pair.server(pair.nodes.names[1]), reads(), rate),
        ]
        for load in loads:
            load.start()
        time.sleep(0.5)
        pair.nodes.heal()
        # Redialling is a part of it.
        with _flow(pair, items, found):
            pair.wait_arrived(mark)
        first, second = (load.stop() for load in loads)
    return found[0], first, second


# What a put costs.


def puts(directory: Path, rounds: int, count: int) -> dict[str, list[float]]:
    """CPU microseconds of a put at its origin, on tables in one, two and three regions.

    A figure for each slice, which ends when its changes have arrived. Slices take turns in any
    order.
    """
    found: dict[str, list[float]] = {"alone": [], "one peer": [], "two peers": []}
    tables = dict(zip(found, ("alone", "onepeer", TABLE)))
    turns = random.Random(rounds)
    with regions(directory, 3, has_proxy=False) as pair:
        nodes, maker = pair.nodes, Maker()
        members = {"alone": NAMES[:1], "one peer": NAMES[:2], "two peers": NAMES}
        for kind in ("alone", "one peer"):
            nodes.make_global(keyed_by("pk", tables[kind]), members[kind])
        name = nodes.names[0]
        for number in range(-1, rounds):
            for kind in turns.sample(list(found), len(found)):
                ready = maker.puts(count, tables[kind])
                before = pair.cpu_seconds()[name]
                measure(pair.origin, iter(ready), CONNECTIONS, None)
                pair.wait_arrived(pair.mark(tables[kind]), tables[kind], members[kind][1:])
                # Acknowledgements, and as long for all kinds.
                time.sleep(0.1)
                spent = pair.cpu_seconds()[name] - before
                if number >= 0:
                    found[kind].append(spent / count * 1e6)
    return found


class Partitioned(msgspec.Struct, frozen=True):
    """CPU microseconds and p99 in seconds, a figure for each slice."""

    cpu_us: list[float]
    p99_seconds: list[float]


def partition(directory: Path, rounds: int, count: int) -> dict[str, dict[bool, Partitioned]]:
    """Puts and gets in one region while the other can be reached, and not, in turn.

    By kind, and whether the regions are partitioned. Partitions are cut and stalled in turn.
    """
    found = {
        kind: {cut: Partitioned([], []) for cut in (False, True)} for kind in ("PutItem", "GetItem")
    }
    turns = random.Random(rounds)
    with regions(directory) as pair:
        nodes, maker = pair.nodes, Maker()
        measure(pair.origin, iter(maker.puts(2000)), CONNECTIONS, None)
        for number in range(-1, rounds):
            for is_cut in (True, False) if number % 2 else (False, True):
                nodes.heal()
                pair.settle()
                if is_cut:
                    nodes.link("cut" if number % 4 < 2 else "stall", *nodes.names)
                time.sleep(0.2)
                for kind, ready in (
                    ("PutItem", maker.puts(count)),
                    ("GetItem", [maker.get(turns.randrange(2000)) for _ in range(count)]),
                ):
                    before = cpu_seconds(pair.origin.pid)
                    outcome = measure(pair.origin, iter(ready), CONNECTIONS, None)
                    spent = cpu_seconds(pair.origin.pid) - before
                    if number >= 0:
                        found[kind][is_cut].cpu_us.append(spent / count * 1e6)
                        found[kind][is_cut].p99_seconds.append(outcome.p99_seconds)
    return found
