"""How long a write takes to be seen in another region: from its answer here to GetRecords there.

One program with one clock: writers send PutItem over HTTP at a steady rate and note when each
answer came, a reader follows the other region's stream with GetRecords, a millisecond between an
answer and the next request, and notes when the answer with a key came. So up to a millisecond and
what an HTTP request takes is the reader's.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import trio

from ..tools.load import Connection
from .client import RequestFailed, Server, answer_end, joined
from .region_runs import TABLE, Maker, regions
from .signing import STREAMS, Signer
from .workloads import Operation

WRITERS = 32
READ_PAUSE_SECONDS = 0.001
SETTLE_SECONDS = 2.0
_KEY = re.compile(rb'"Keys":\{"pk":\{"S":"(item\d+)"')
_NEXT = re.compile(rb'"NextShardIterator":"([^"]+)"')
_PUT = re.compile(rb'"pk":\{"S":"(item\d+)"')


class Lag(msgspec.Struct, frozen=True):
    """In seconds, sorted: from each write's answer until it was seen; and what the writes took."""

    seen: list[float]
    writes: list[float]
    per_second: float


class _Http:
    """One connection, one request at a time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    async def ask(self, request: bytes) -> bytes:
        """The body of the answer, which must be a 200."""
        await self._stream.send_all(request)
        answer = bytearray()
        while True:
            piece = await self._stream.receive_some(1 << 20)
            if not piece:
                raise RequestFailed("the connection was closed without an answer")
            answer += piece
            start, end = answer_end(answer)
            if end:
                break
        if answer[9:12] != b"200":
            raise RequestFailed(f"{bytes(answer[:500])!r}")
        body = bytes(answer[start:end])
        return joined(body) if b"chunked" in answer[:start].lower() else body


def measure_lag(directory: Path, per_second: float, seconds: float) -> Lag:
    """At so many puts a second for so long; the first second is not counted."""
    with regions(directory, has_proxy=False) as pair:
        origin, receiver = pair.nodes.names
        iterator = _latest(pair.nodes.connection(receiver))
        maker = Maker()
        ready = maker.puts(int(per_second * (seconds + 1)))
        return trio.run(
            _run, pair.server(origin), pair.server(receiver), iterator, ready, per_second
        )


def _latest(connection: Connection) -> str:
    def call(operation: str, members: dict[str, Any]) -> Any:
        return connection.get(operation, members, service=STREAMS)

    (stream,) = call("ListStreams", {"TableName": TABLE})["Streams"]
    arn = stream["StreamArn"]
    (shard,) = call("DescribeStream", {"StreamArn": arn})["StreamDescription"]["Shards"]
    where = {"StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "LATEST"}
    iterator: str = call("GetShardIterator", where)["ShardIterator"]
    connection.close()
    return iterator


async def _run(
    origin: Server, receiver: Server, iterator: str, ready: list[Operation], per_second: float
) -> Lag:
    answered: dict[bytes, float] = {}
    seen: dict[bytes, float] = {}
    took: list[float] = []
    signer = Signer()

    async def write(numbered: Iterator[tuple[int, Operation]], began: float) -> None:
        http = _Http(await trio.open_tcp_stream("127.0.0.1", origin.port))
        for number, operation in numbered:
            due = began + number / per_second
            await trio.sleep(max(0.0, due - time.perf_counter()))
            request = operation[0][0]
            sent = time.perf_counter()
            await http.ask(request)
            now = time.perf_counter()
            found = _PUT.search(request)
            assert found is not None
            if number >= per_second:
                answered[found[1]] = now
                took.append(now - sent)

    async def read() -> None:
        nonlocal iterator
        http = _Http(await trio.open_tcp_stream("127.0.0.1", receiver.port))
        while True:
            body = json.dumps({"ShardIterator": iterator}).encode()
            page = await http.ask(signer.request("GetRecords", body, STREAMS))
            now = time.perf_counter()
            for key in _KEY.findall(page):
                seen.setdefault(key, now)
            found = _NEXT.search(page)
            assert found is not None
            iterator = found[1].decode()
            await trio.sleep(READ_PAUSE_SECONDS)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.sleep(0.2)
        began = time.perf_counter()
        numbered = iter(list(enumerate(ready)))
        async with trio.open_nursery() as writers:
            for _ in range(WRITERS):
                writers.start_soon(write, numbered, began)
        elapsed = time.perf_counter() - began
        with trio.move_on_after(SETTLE_SECONDS):
            while len(answered.keys() - seen.keys()):  # noqa: ASYNC110 - it has no event
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    if missing := len(answered.keys() - seen.keys()):
        raise RequestFailed(f"{missing} writes were not seen within {SETTLE_SECONDS} s")
    lags = sorted(seen[key] - at for key, at in answered.items())
    return Lag(lags, sorted(took), len(ready) / elapsed)


