"""One world: nodes, clients and mishaps from a seed, then healing, then judgement.

::

    faults     clients work, tables change, machines crash, until the clients are done
    healing    nothing fails any more; everything must come to rest within LIVENESS_SECONDS
    judgement  indexes, totals, trees, logs (convergence.py); one more start finds the same;
               the clients' histories are linearizable (linearizability.py)

Whatever goes wrong ends as ``SimulationFailed`` with the seed in it. The trace is a hash over
everything that happened, with its time: two runs of one seed have the same one.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

import msgspec
import trio

from ..actors.node import Node
from ..model.schema import Status
from .clients import Client, Tally
from .convergence import check_running, check_stopped, dump, references
from .determinism import Streams, run_seeded
from .history import History
from .linearizability import TooHard, check_calls
from .machine import Machine
from .mishaps import Operator
from .observer import Observer
from .options import NO_FAULTS, Options, draw_options, turned
from .schema_changes import SchemaWorkload
from .simulated_node import SimulatedNode
from .tables import Keys

#: Simulated seconds that a world may take to come to rest after the last fault.
LIVENESS_SECONDS = 120.0
#: Simulated seconds that clients may take for all their operations, among faults.
WORKLOAD_SECONDS = 3600.0


class SimulationFailed(Exception):
    """A world broke a promise. The message ends with the command that shows it again."""

    def __init__(self, seed: int, problem: str) -> None:
        super().__init__(f"seed {seed}: {problem}\n  again: make sim SEED={seed} WORLDS=1")
        self.seed = seed
        self.problem = problem


class Report(msgspec.Struct, frozen=True):
    """What a world did. All but the first two are counts."""

    seed: int
    trace: str
    operations: int = 0
    reads: int = 0
    unknown: int = 0
    crashes: int = 0
    stops: int = 0
    faults: int = 0
    schema_changes: int = 0
    entries_observed: int = 0
    rows_compared: int = 0
    entries_replayed: int = 0
    histories: int = 0
    histories_too_hard: int = 0

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.summary()}, trace {self.trace[:12]}"

    def summary(self) -> str:
        """The counts, in words."""
        hard = f" ({self.histories_too_hard} too hard)" if self.histories_too_hard else ""
        return (
            f"{self.operations} operations ({self.unknown} of unknown outcome),"
            f" {self.crashes} crashes, {self.stops} stops, {self.faults} other faults,"
            f" {self.schema_changes} schema changes, {self.histories} histories checked{hard},"
            f" {self.rows_compared} rows compared, {self.entries_replayed} log entries replayed"
        )


class _Site:
    """One node with everything that goes with it."""

    __slots__ = ("clients", "machine", "node", "observer", "operator", "scratch", "workload")

    def __init__(
        self,
        number: int,
        world: World,
        streams: Streams,
    ) -> None:
        options = world.options

        def stream(purpose: str) -> random.Random:
            return streams.stream(f"node {number}/{purpose}")

        self.machine = Machine(
            stream("machine"), options.log_engine, options.segment_bytes, world.note
        )
        history = History(world.now)
        self.node = SimulatedNode(f"n{number}", self.machine, options.settings, history)
        self.operator = Operator(self.node, options.faults, stream("mishaps"))
        self.observer = Observer(self.node, options.think_seconds)
        self.workload = SchemaWorkload(self.node, options, stream("schema"))

        def client(name: str) -> Client:
            return Client(name, self.node, options, stream(name), world.tick, world.tally)

        self.clients = [client(f"n{number}c{index}") for index in range(options.clients)]
        self.scratch = client(f"n{number}s")


class World:
    """See the module's text."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.tally = Tally()
        self._events = 0
        self._trace = hashlib.blake2b(digest_size=16)
        streams = Streams(options.seed)
        self.sites = [_Site(number, self, streams) for number in range(options.nodes)]
        self._rows_compared = 0
        self._entries_replayed = 0
        self._histories = 0
        self._too_hard = 0

    # Time and trace, for everybody.

    def now(self) -> int:
        """The number of the last event."""
        return self._events

    def tick(self) -> int:
        """The number of a new event."""
        self._events += 1
        return self._events

    def note(self, *what: object) -> None:
        """Add to the trace."""
        self._trace.update(repr((self._events, trio.current_time(), what)).encode())

    # The run.

    async def run(self) -> Report:
        """The whole of it. Raises whatever goes wrong, plainly or in groups."""
        async with trio.open_nursery() as nursery:
            for site in self.sites:
                site.machine.faults = self.options.faults
                nursery.start_soon(site.node.run)
            with trio.fail_after(WORKLOAD_SECONDS):
                await self._work()
            with trio.fail_after(LIVENESS_SECONDS):
                for site in self.sites:
                    await self._heal(site)
        for site in self.sites:
            self._judge(site)
        return self._report()

    async def _work(self) -> None:
        async with trio.open_nursery() as disturbers:
            for site in self.sites:
                disturbers.start_soon(site.operator.run)
                disturbers.start_soon(site.observer.run)
            async with trio.open_nursery() as workers:
                for site in self.sites:
                    workers.start_soon(self._work_at, site)
            disturbers.cancel_scope.cancel()

    async def _work_at(self, site: _Site) -> None:
        await site.workload.set_up()
        async with trio.open_nursery() as changes:
            if self.options.index_changes:
                changes.start_soon(site.workload.change_indexes)
            if self.options.scratch_table:
                changes.start_soon(site.workload.make_and_remove, site.scratch)
            async with trio.open_nursery() as clients:
                for client in site.clients:
                    clients.start_soon(client.run)
            changes.cancel_scope.cancel()

    async def _heal(self, site: _Site) -> None:
        """No more faults: the node comes to rest, and a restart finds everything again."""
        machine, sim = site.machine, site.node
        machine.faults, machine.bomb = NO_FAULTS, None
        sim.bomb_at_start, sim.pause_seconds = None, 0.0
        machine.note("healed")
        await self._rest(site)
        node = await sim.ready()
        self._rows_compared += check_running(node)
        before = dump(node)
        self._audit(site, node)
        # Once more from what is on the disk: half of the worlds by a crash.
        if self.options.seed % 2:
            machine.crash()
        else:
            sim.stop()
        await sim.down.wait()
        node = await sim.ready()
        assert dump(node) == before, "a restart found other rows"
        await self._rest(site)
        tables = [ref.table for ref in references(node)]
        await node.flusher.flush()
        sim.end()
        await sim.down.wait()
        machine.boot()
        self._entries_replayed += check_stopped(machine, tables)

    async def _rest(self, site: _Site) -> None:
        """Return when nothing is under way, and the node answers."""
        node = await site.node.ready()
        site.workload.check(node)
        # What cancelled clients asked for may still be on its way.
        await trio.sleep(1.0)
        for ref in list(references(node)):
            if ref.table.status is Status.DELETING:
                await node.tables.wait_gone("", ref.table.name)
            else:
                await node.tables.wait_active("", ref.table.name)
        for name in node.tables.names(""):
            await site.scratch.write_until_answered(name)
        for builder in node.index_builders():
            await builder.caught_up()
        await node.flusher.flush()

    def _audit(self, site: _Site, node: Node) -> None:
        """Read every item once more."""
        for ref in references(node):
            for key in Keys(self.options).all():
                site.scratch.read(ref, key)

    # Judgement.

    def _judge(self, site: _Site) -> None:
        for place, calls in sorted(site.node.history.complete().items()):
            try:
                violation = check_calls(calls)
            except TooHard:
                self._too_hard += 1
                continue
            self._histories += 1
            assert violation is None, f"{place} is not linearizable: {violation}"

    def _report(self) -> Report:
        self.note(self.tally.operations, self._rows_compared, self._entries_replayed)
        machines = [site.machine for site in self.sites]
        return Report(
            self.options.seed,
            self._trace.hexdigest(),
            operations=self.tally.operations,
            reads=self.tally.reads,
            unknown=self.tally.unknown,
            crashes=sum(machine.crashes for machine in machines),
            stops=sum(site.operator.stops for site in self.sites),
            faults=sum(
                site.machine.failed_syncs + site.machine.slow_calls + site.operator.clock_jumps
                for site in self.sites
            ),
            schema_changes=sum(site.workload.changes for site in self.sites),
            entries_observed=sum(site.observer.looked_at for site in self.sites),
            rows_compared=self._rows_compared,
            entries_replayed=self._entries_replayed,
            histories=self._histories,
            histories_too_hard=self._too_hard,
        )


def run_world(seed: int) -> Report:
    """The world of ``seed``. Raises SimulationFailed."""
    options = draw_options(seed, Streams(seed).stream("options"))
    try:
        with turned(options.knobs):
            return run_seeded(seed, World(options).run)
    except Exception as error:
        causes = "; ".join(dict.fromkeys(_causes(error)))
        raise SimulationFailed(seed, causes) from error


def _causes(error: BaseException) -> Iterator[str]:
    """What is at the bottom of groups and chains."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
        return
    yield f"{type(error).__name__}: {error}".rstrip(": ")
    if error.__cause__ is not None:
        yield from _causes(error.__cause__)
