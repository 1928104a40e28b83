"""The load generator: raw sockets, one selector, requests that were signed beforehand.

Runs as a process of its own (``python -m millstream.bench.client``), with a ``Job`` on its standard
input and a list of ``Outcome`` on its standard output, as JSON. The operations of a job are made
once, before any clock runs, and then sent to each of its servers in turn, so that all of them get
the same bytes within seconds of each other. Per connection one request is under way at a time.

Every answer is checked to be a 200 of at least the right length. A throttled request, or a batch
that was taken in part, is sent again and counted; a transfer of money that is refused because of a
conflict is counted and not sent again; any other answer ends the run.
"""

from __future__ import annotations

import gc
import itertools
import os
import selectors
import socket
import sys
import time
from collections.abc import Iterator

import msgspec

from .processes import busy_seconds, usage
from .workloads import WORKLOADS, Operation, Plan, operations

SILENCE_SECONDS_MAX = 60.0
THROTTLED_PAUSE_SECONDS = 0.005
_RECEIVE_BYTES = 1 << 18


class RequestFailed(Exception):
    """A server answered with something else than what was asked for, or not at all."""


class Server(msgspec.Struct, frozen=True):
    """Where to send requests, and whose CPU time to read."""

    name: str
    port: int
    pid: int


class Job(msgspec.Struct, frozen=True):
    """``seconds`` None: until ``count`` operations are done (None: until they end)."""

    plan: Plan
    servers: tuple[Server, ...]
    connections: int
    count: int | None
    seconds: float | None


class Outcome(msgspec.Struct, frozen=True):
    """One server's run. ``cpu_before_seconds`` and ``cpu_after_seconds`` are readings of the
    process tree's clock; latencies are in seconds, of whole operations. ``others_share`` is the
    share of all cores that went to neither server nor client, which is noise: None if unknown.
    ``refused`` of the operations met a conflict, and did nothing; latencies are without them."""

    operations: int
    elapsed_seconds: float
    cpu_before_seconds: float
    cpu_after_seconds: float
    rss_bytes: int
    rss_anonymous_bytes: int | None
    p50_seconds: float
    p99_seconds: float
    throttled: int
    others_share: float | None = None
    refused: int = 0


def answer_end(data: bytes | bytearray) -> tuple[int, int]:
    """Where the first answer's body begins and where it ends; (0, 0) while it is incomplete."""
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        return 0, 0
    head = bytes(data[:head_end]).lower()
    start = head_end + 4
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        line_end = head.find(b"\r\n", at + 2)
        length = int(head[at + 17 : line_end if line_end >= 0 else None])
        return (start, start + length) if len(data) >= start + length else (0, 0)
    if b"\r\ntransfer-encoding: chunked" not in head:
        raise RequestFailed(f"an answer without length: {head[:200]!r}")
    at = start
    while True:
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            return 0, 0
        size = int(bytes(data[at:line_end]).partition(b";")[0], 16)
        at = line_end + 2 + size + 2
        if len(data) < at:
            return 0, 0
        if size == 0:
            return start, at


def joined(chunks: bytes) -> bytes:
    """What a chunked body says."""
    parts: list[bytes] = []
    at = 0
    while True:
        line_end = chunks.index(b"\r\n", at)
        size = int(chunks[at:line_end].partition(b";")[0], 16)
        if size == 0:
            return b"".join(parts)
        at = line_end + 2 + size + 2
        parts.append(chunks[line_end + 2 : at - 2])


def exchange(port: int, request: bytes) -> tuple[int, bytes]:
    """Send one request on a connection of its own: (status, body)."""
    with socket.create_connection(("127.0.0.1", port), timeout=SILENCE_SECONDS_MAX) as connection:
        connection.sendall(request)
        data = b""
        while True:
            received = connection.recv(_RECEIVE_BYTES)
            if not received:
                raise RequestFailed("the connection was closed without an answer")
            data += received
            start, end = answer_end(data)
            if end:
                is_chunked = b"transfer-encoding: chunked" in data[:start].lower()
                body = data[start:end]
                return int(data[9:12]), joined(body) if is_chunked else body


class _Connection:
    """One socket and the operation that is under way on it."""

    __slots__ = ("answer", "began", "operation", "socket", "step")

    def __init__(self) -> None:
        self.socket: socket.socket
        self.answer = bytearray()
        self.operation: Operation = ()
        self.step = 0
        self.began = 0.0


class _Run:
    """One server's run over one list or stream of operations."""

    def __init__(
        self,
        port: int,
        source: Iterator[Operation],
        seconds: float | None,
        may_be_refused: bool = False,
    ) -> None:
        self._port = port
        self._may_be_refused = may_be_refused
        self._source = source
        self._seconds = seconds
        self._selector = selectors.DefaultSelector()
        self._active = 0
        self._deadline = 0.0
        self.latencies: list[float] = []
        self.throttled = 0
        self.refused = 0

    def run(self, connections: int) -> float:
        """Seconds from the first request to the last answer."""
        every = [_Connection() for _ in range(connections)]
        try:
            for connection in every:
                self._connect(connection)
            began = time.perf_counter()
            self._deadline = began + self._seconds if self._seconds is not None else float("inf")
            for connection in every:
                self._next(connection)
            while self._active:
                events = self._selector.select(SILENCE_SECONDS_MAX)
                if not events:
                    raise RequestFailed(f"no answer for {SILENCE_SECONDS_MAX:.0f} s")
                for key, _ in events:
                    self._receive(key.data)
            return time.perf_counter() - began
        finally:
            for key in list(self._selector.get_map().values()):
                key.data.socket.close()
            self._selector.close()

    def _connect(self, connection: _Connection) -> None:
        connection.socket = socket.create_connection(("127.0.0.1", self._port))
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def _next(self, connection: _Connection) -> None:
        """Begin another operation, unless it is over."""
        now = time.perf_counter()
        operation = next(self._source, None) if now < self._deadline else None
        if operation is None:
            return
        self._active += 1
        connection.operation, connection.step, connection.began = operation, 0, now
        connection.socket.sendall(operation[0][0])

    def _receive(self, connection: _Connection) -> None:
        answer = connection.answer
        received = connection.socket.recv(_RECEIVE_BYTES)
        if not received:
            raise RequestFailed(f"the connection was closed after {bytes(answer[:300])!r}")
        answer += received
        start, end = answer_end(answer)
        if not end:
            return
        request, bytes_min = connection.operation[connection.step]
        if self._may_be_refused and _is_conflict(answer, start, end):
            self.refused += 1
            again, is_done = False, False
        else:
            again, is_done = _must_be_sent_again(answer, start, end, bytes_min), True
        if b"\r\nconnection: close" in bytes(answer[:start]).lower():
            self._selector.unregister(connection.socket)
            connection.socket.close()
            self._connect(connection)
        answer.clear()
        if again:
            self.throttled += 1
            time.sleep(THROTTLED_PAUSE_SECONDS)
            connection.socket.sendall(request)
            return
        connection.step += 1
        if connection.step < len(connection.operation):
            connection.socket.sendall(connection.operation[connection.step][0])
            return
        self._active -= 1
        if is_done:
            self.latencies.append(time.perf_counter() - connection.began)
        self._next(connection)


def _is_conflict(answer: bytearray, start: int, end: int) -> bool:
    """Whether a transaction was cancelled for no other reason than another transaction."""
    if answer[9:12] != b"400":
        return False
    body = bytes(answer[start:end])
    return b"TransactionConflict" in body and b"ConditionalCheckFailed" not in body


def _must_be_sent_again(answer: bytearray, start: int, end: int, bytes_min: int) -> bool:
    """Whether the server asks for that. Raises RequestFailed for an answer that is wrong."""
    status = answer[9:12]
    if status == b"200":
        if end - start < bytes_min:
            raise RequestFailed(f"{end - start} bytes where {bytes_min} are the least")
        # A batch that was taken in part says so first; a chunk's length may stand before it.
        return answer.find(b'{"UnprocessedItems":{"', start, start + 32) >= 0
    body = bytes(answer[start:end])
    if b"ThroughputExceeded" in body or b"Throttling" in body:
        return True
    raise RequestFailed(f"{status.decode('latin-1')}: {body[:300]!r}")


def percentile(ordered: list[float], share: float) -> float:
    """The nearest rank; 0 of nothing."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class Noise:
    """Watches, from its making on, what the machine does besides the measurement."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._own = _own_seconds()
        self._busy = busy_seconds()

    def others_share(self, server_seconds: float) -> float | None:
        """The share of all cores that others had, if the server had ``server_seconds``."""
        busy = busy_seconds()
        if busy is None or self._busy is None:
            return None
        others = busy - self._busy - server_seconds - (_own_seconds() - self._own)
        elapsed = time.perf_counter() - self._began
        return max(0.0, others / elapsed / (os.cpu_count() or 1))


def _own_seconds() -> float:
    """CPU time of this process and of the children that it has waited for."""
    return sum(os.times()[:4])


def measure(
    server: Server,
    source: Iterator[Operation],
    connections: int,
    seconds: float | None,
    *,
    may_be_refused: bool = False,
) -> Outcome:
    """Run ``source`` against one server."""
    run = _Run(server.port, source, seconds, may_be_refused)
    noise = Noise()
    before = usage(server.pid)
    elapsed = run.run(connections)
    after = usage(server.pid)
    others_share = noise.others_share(after.cpu_seconds - before.cpu_seconds)
    run.latencies.sort()
    return Outcome(
        operations=len(run.latencies) + run.refused,
        elapsed_seconds=elapsed,
        cpu_before_seconds=before.cpu_seconds,
        cpu_after_seconds=after.cpu_seconds,
        rss_bytes=after.rss_bytes,
        rss_anonymous_bytes=after.rss_anonymous_bytes,
        p50_seconds=percentile(run.latencies, 0.50),
        p99_seconds=percentile(run.latencies, 0.99),
        throttled=run.throttled,
        others_share=others_share,
        refused=run.refused,
    )


def work(job: Job) -> list[Outcome]:
    """The outcomes, in the order of the job's servers."""
    source = itertools.islice(operations(job.plan), job.count)
    if len(job.servers) == 1 and job.seconds is None:
        # Filling tables: more than fits in memory, and nobody looks at the latency.
        return [measure(job.servers[0], source, job.connections, None)]
    ready = list(source)
    gc.freeze()
    workload = WORKLOADS.get(job.plan.workload)
    may_be_refused = workload is not None and workload.accounts is not None
    return [
        measure(server, iter(ready), job.connections, job.seconds, may_be_refused=may_be_refused)
        for server in job.servers
    ]


def main() -> int:
    """Standard input to standard output."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    try:
        outcomes = work(job)
    except (RequestFailed, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(outcomes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
