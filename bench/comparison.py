"""Runs the workloads against several servers, interleaved, and collects the samples.

For each workload and number of connections there are several rounds, and each round visits every
server in turn, so that what else the machine does hits all of them alike.

CPU time is charged until the *same* server's next run begins, not until the last answer: flushing,
compacting and collecting garbage belong to the operations that caused them. What a server uses when
idle is thereby charged too.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import msgspec

from . import wrk
from .client import Job, Outcome, RequestFailed, Server
from .processes import usage
from .servers import prepare
from .transfers import check_total, open_accounts, why_not
from .workloads import FIELD_BYTES, STANDARD, TRANSFER_CONNECTIONS, WORKLOADS, Maker, Plan

FILL_CONNECTIONS = 16
# A node flushes at the latest five seconds after a commit (NodeSettings).
SETTLE_SECONDS = 6.0


class Options(msgspec.Struct, frozen=True):
    """What to run. ``operations`` bounds one run, whatever ``seconds`` says: requests are made
    beforehand and never sent twice by the Python client."""

    workloads: tuple[str, ...] = STANDARD
    connections: tuple[int, ...] = (1, 8, 32)
    rounds: int = 3
    seconds: float = 2.0
    operations: int = 20_000
    records: int = 10_000
    seed: int = 1
    warm_up_seconds: float = 2.0
    settle_seconds: float = SETTLE_SECONDS
    uniform: bool = False
    field_bytes: int = FIELD_BYTES
    wrk: str | None = None


class Sample(msgspec.Struct, frozen=True):
    """One run of one workload against one server."""

    server: str
    workload: str
    connections: int
    operations: int
    operations_per_second: float
    p50_seconds: float
    p99_seconds: float
    cpu_seconds: float
    rss_bytes: int
    rss_anonymous_bytes: int | None
    throttled: int
    others_share: float | None
    refused: int = 0

    @property
    def cpu_us(self) -> float:
        """CPU microseconds per operation."""
        return self.cpu_seconds / self.operations * 1e6 if self.operations else 0.0


def run_job(job: Job) -> list[Outcome]:
    """Run the job in a client process. Raises RequestFailed with the client's last words."""
    result = subprocess.run(
        [sys.executable, "-m", "millstream.bench.client"],
        input=msgspec.json.encode(job),
        capture_output=True,
    )
    if result.returncode:
        words = result.stderr.decode(errors="replace").strip()
        raise RequestFailed(f"{job.plan.workload}: {words[-2000:]}")
    return msgspec.json.decode(result.stdout, type=list[Outcome])


def fill(
    server: Server, first: int, records: int, seed: int, field_bytes: int = FIELD_BYTES
) -> Outcome:
    """Put the records from ``first`` to ``records`` into the tables, which are made when ``first``
    is 0."""
    plan = Plan("fill", records, seed, first, field_bytes=field_bytes)
    if first == 0:
        maker = Maker(plan)
        prepare(server, maker.create_tables(), maker.describe_tables())
    (outcome,) = run_job(Job(plan, (server,), FILL_CONNECTIONS, None, None))
    return outcome


class Comparison:
    """One run of everything. ``say`` receives a line about each thing that is begun."""

    def __init__(
        self, options: Options, servers: Sequence[Server], say: Callable[[str], None]
    ) -> None:
        self._options = options
        self._servers = tuple(servers)
        self._say = say
        self._first = options.records
        #: Per server, the run whose deferred work is still being done.
        self._open: dict[str, tuple[str, int, Outcome]] = {}
        #: Workload -> the servers that know its operation.
        self._able: dict[str, tuple[Server, ...]] = {}
        self.samples: list[Sample] = []

    def run(self) -> list[Sample]:
        """Fill, warm up, measure."""
        options = self._options
        for server in self._servers:
            self._say(f"filling {server.name} with {options.records:,} items of 1 KB")
            fill(server, 0, options.records, options.seed)
        return self.measure()

    def _prepare(self) -> None:
        """Find out who knows what, and open the accounts that money is transferred between."""
        optional = [n for n in self._options.workloads if WORKLOADS[n].is_optional]
        able = self._servers
        for server in self._servers if optional else ():
            reason = why_not(server)
            if reason:
                able = tuple(other for other in able if other is not server)
                self._say(f"{', '.join(optional)}: without {server.name}, which {reason}")
        for name in self._options.workloads:
            self._able[name] = able if name in optional else self._servers
        transfers = [n for n in self._options.workloads if WORKLOADS[n].accounts is not None]
        for server in self._able[transfers[0]] if transfers else ():
            open_accounts(server)

    def measure(self) -> list[Sample]:
        """Warm up and measure, on tables that are full."""
        options = self._options
        self._prepare()
        if options.warm_up_seconds:
            self._say("warming up")
            for workload in options.workloads:
                self._job(workload, max(self._connections(workload)), options.warm_up_seconds)
        for workload in options.workloads:
            for connections in self._connections(workload):
                self._say(f"{WORKLOADS[workload].title}; connections: {connections}")
                for _ in range(options.rounds):
                    outcomes = self._job(workload, connections, options.seconds)
                    for server, outcome in zip(self._able[workload], outcomes, strict=True):
                        self._close(server, outcome.cpu_before_seconds)
                        self._open[server.name] = (workload, connections, outcome)
        time.sleep(options.settle_seconds)
        for server in self._servers:
            self._close(server, usage(server.pid).cpu_seconds)
        return self.samples

    def _connections(self, workload: str) -> tuple[int, ...]:
        """How many there are is part of what transfers measure."""
        is_transfer = WORKLOADS[workload].accounts is not None
        return (TRANSFER_CONNECTIONS,) if is_transfer else self._options.connections

    def _job(self, workload: str, connections: int, seconds: float) -> list[Outcome]:
        options = self._options
        servers = self._able[workload]
        plan = Plan(
            workload,
            options.records,
            options.seed,
            self._first,
            options.uniform,
            options.field_bytes,
        )
        # New keys every time: an insert must insert, a repeated request might meet a cache.
        self._first += options.operations
        job = Job(plan, servers, connections, options.operations, seconds)
        if WORKLOADS[workload].accounts is None:
            return wrk.work(job, options.wrk) if options.wrk is not None else run_job(job)
        # wrk takes a refusal for an error.
        outcomes = run_job(job)
        for server in servers:
            check_total(server)
        return outcomes

    def _close(self, server: Server, cpu_seconds: float) -> None:
        if server.name not in self._open:
            return
        workload, connections, outcome = self._open.pop(server.name)
        self.samples.append(
            Sample(
                server=server.name,
                workload=workload,
                connections=connections,
                operations=outcome.operations,
                operations_per_second=outcome.operations / outcome.elapsed_seconds,
                p50_seconds=outcome.p50_seconds,
                p99_seconds=outcome.p99_seconds,
                cpu_seconds=cpu_seconds - outcome.cpu_before_seconds,
                rss_bytes=outcome.rss_bytes,
                rss_anonymous_bytes=outcome.rss_anonymous_bytes,
                throttled=outcome.throttled,
                others_share=outcome.others_share,
                refused=outcome.refused,
            )
        )
