"""The engine without HTTP: CPU per operation from the operation's JSON to the answer's JSON.

``python -m millstream.bench.engine`` (``make bench BENCH=engine``) drives the dispatcher of a node
on a real directory within one process: GetItem, PutItem by 32 tasks, Query of 50 items. With
``--profile`` it also tells where the time of one of them went.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

import trio

from ..actors.data_directory import open_node
from ..actors.node import Node, NodeSettings
from ..api.calls import Caller
from ..api.dispatch import Dispatcher
from .__main__ import machine
from .workloads import CREATE_TABLES, Maker, Operation, Plan

CALLER = Caller(namespace="", access_key="", region="us-east-1", request_id="")
WRITERS = 32

Call = tuple[str, bytes]
"""X-Amz-Target and body."""


def call_of(operation: Operation) -> Call:
    """What the HTTP door hands on of a request."""
    head, _, body = operation[0][0].partition(b"\r\n\r\n")
    target = head.partition(b"X-Amz-Target: ")[2].partition(b"\r\n")[0]
    return target.decode(), body


class Bench:
    """One node and its dispatcher."""

    def __init__(self, node: Node, records: int) -> None:
        self._node = node
        self._dispatcher = Dispatcher(node.tables)
        self._maker = Maker(Plan("C", records, 1, 0))
        self._filler = Maker(Plan("fill", records, 1, 0))

    async def fill(self) -> None:
        """Tables and items, all in the tree."""
        for request in self._filler.create_tables():
            await self._dispatcher.dispatch(*call_of(((request, 0),)), CALLER)
        for members in CREATE_TABLES:
            await self._node.tables.wait_active("", members["TableName"])
        for source in (self._filler.fill(), self._filler.fill_scans()):
            await self.by_many([call_of(operation) for operation in source])
        await self._node.flusher.flush()

    def calls(self, make: Callable[[Maker], Operation], count: int) -> list[Call]:
        return [call_of(make(self._maker)) for _ in range(count)]

    async def one_by_one(self, calls: Iterable[Call]) -> None:
        for target, body in calls:
            await self._dispatcher.dispatch(target, body, CALLER)

    async def by_many(self, calls: Iterable[Call]) -> None:
        """By 32 tasks, whose writes share log entries."""
        shared = iter(calls)
        async with trio.open_nursery() as nursery:
            for _ in range(WRITERS):
                nursery.start_soon(self.one_by_one, shared)


async def _measure(
    run: Callable[[Iterable[Call]], Awaitable[None]], calls: list[Call], rounds: int
) -> float:
    """The median of CPU microseconds per call."""
    found = []
    for _ in range(rounds):
        began = time.process_time()
        await run(calls)
        found.append((time.process_time() - began) / len(calls) * 1e6)
    return statistics.median(found)


async def _main(where: Path, records: int, count: int, rounds: int, profile: str | None) -> None:
    with tempfile.TemporaryDirectory(dir=where) as directory:
        async with open_node(str(Path(directory) / "data"), NodeSettings()) as node:
            bench = Bench(node, records)
            await bench.fill()
            plan = {
                "get": (bench.one_by_one, bench.calls(Maker.read, count)),
                "put": (bench.by_many, bench.calls(Maker.overwrite, count)),
                "query": (bench.one_by_one, bench.calls(Maker.query, max(1, count // 5))),
            }
            print(machine())
            for name, (run, calls) in plan.items():
                before = node.log_writer.rounds
                cpu_us = await _measure(run, calls, rounds)
                batches = node.log_writer.rounds - before
                batch = f", {len(calls) * rounds / batches:.1f} to a sync" if batches else ""
                print(f"{name}: {cpu_us:.1f} us{batch}")
            if profile is not None:
                run, calls = plan[profile]
                profiler = cProfile.Profile()
                profiler.enable()
                await run(calls)
                profiler.disable()
                pstats.Stats(profiler).sort_stats("tottime").print_stats(40)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print and leave."""
    parser = argparse.ArgumentParser(prog="python -m millstream.bench.engine", description=__doc__)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--count", type=int, default=10_000, help="calls in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=Path("build/bench"))
    parser.add_argument("--profile", choices=("get", "put", "query"))
    given = parser.parse_args(arguments)
    given.directory.mkdir(parents=True, exist_ok=True)
    trio.run(_main, given.directory, given.records, given.count, given.rounds, given.profile)
    return 0


if __name__ == "__main__":
    sys.exit(main())
