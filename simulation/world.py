"""One world: nodes, clients and mishaps from a seed, then healing, then judgement.

::

    faults     clients work, tables change, machines crash, until the clients are done
    healing    nothing fails any more; everything must come to rest within LIVENESS_SECONDS
               (regions: the network is well, clocks are level, and all members agree)
    judgement  indexes, totals, trees, logs (convergence.py); one more start finds the same;
               the clients' histories are linearizable (linearizability.py), or in a world of
               transactions serializable (serializability.py); what regions have is what their
               logs make of it (region_checks.py)

Whatever goes wrong ends as ``SimulationFailed`` with the seed in it. The trace is a hash over
everything that happened, with its time: two runs of one seed have the same one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec
import trio

from ..host.buggify import set_buggify
from .convergence import check_running, check_stopped, dump, references
from .determinism import Streams, run_seeded
from .global_table import NAMES, GlobalTable
from .history import History
from .machine import Machine
from .mishaps import Fate, Operator
from .observer import Observer
from .options import (
    NO_FAULTS,
    Options,
    draw_options,
    draw_region_options,
    draw_transaction_options,
    draw_trigger_options,
    turned,
)
from .region_checks import Rows, check_all, equal_rows
from .region_workload import RegionWorkload
from .simulated_node import SimulatedNode
from .trigger_workload import TriggerWorkload
from .workloads import ItemWorkload, Stream, TransactionWorkload, Workload

#: Simulated seconds that a world may take to come to rest after the last fault.
LIVENESS_SECONDS = 120.0
#: Simulated seconds that clients may take for all their operations, among faults.
WORKLOAD_SECONDS = 3600.0
#: The kinds of world: single items and schema changes; transactions; handlers of changes; a table
#: in several regions.
KINDS = ("items", "transactions", "triggers", "regions")


class SimulationFailed(Exception):
    """A world broke a promise. The message ends with the command that shows it again."""

    def __init__(self, seed: int, kind: str, problem: str) -> None:
        again = f"make sim SEED={seed} WORLDS=1 KIND={kind}"
        super().__init__(f"seed {seed} of {kind}: {problem}\n  again: {again}")
        self.seed = seed
        self.problem = problem


class Report(msgspec.Struct, frozen=True):
    """What a world did. All but the first three are counts."""

    seed: int
    kind: str
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
    transactions: int = 0
    committed: int = 0
    contended: int = 0
    refused: int = 0
    replayed: int = 0
    snapshots: int = 0
    coordinator_deaths: int = 0
    crashes_at_a_step: int = 0
    happened: int = 0
    edges: int = 0
    changes: int = 0
    shards: int = 0
    repeats: int = 0
    invocations: int = 0
    handler_failures: int = 0
    members: int = 0
    departures: int = 0
    weather: int = 0
    acknowledged: int = 0
    beliefs: int = 0
    arrived: int = 0
    collected: int = 0

    def __str__(self) -> str:
        return f"seed {self.seed} of {self.kind}: {self.summary()}, trace {self.trace[:12]}"

    def summary(self) -> str:
        """The counts, in words."""
        if self.kind == "transactions":
            return self._summary_of_transactions()
        if self.kind == "triggers":
            return (
                f"{self.operations} operations ({self.unknown} of unknown outcome),"
                f" {self.changes} changes in {self.shards} shards, {self.invocations} invocations,"
                f" {self.handler_failures} of them failed, {self.repeats} changes seen again,"
                f" {self.crashes} crashes, {self.stops} stops, {self.faults} other faults"
            )
        if self.kind == "regions":
            return self._summary_of_regions()
        hard = f" ({self.histories_too_hard} too hard)" if self.histories_too_hard else ""
        return (
            f"{self.operations} operations ({self.unknown} of unknown outcome),"
            f" {self.crashes} crashes, {self.stops} stops, {self.faults} other faults,"
            f" {self.schema_changes} schema changes, {self.histories} histories checked{hard},"
            f" {self.rows_compared} rows compared, {self.entries_replayed} log entries replayed"
        )

    def _summary_of_transactions(self) -> str:
        return (
            f"{self.operations} operations, {self.transactions} transactions"
            f" ({self.committed} committed, {self.contended} contended, {self.refused} refused,"
            f" {self.unknown} of unknown outcome, {self.replayed} replayed by token),"
            f" {self.coordinator_deaths} coordinators died, {self.crashes} crashes"
            f" ({self.crashes_at_a_step} at a coordinator's step), {self.stops} stops,"
            f" {self.faults} other faults, {self.snapshots} snapshots of all accounts,"
            f" {self.histories} histories of {self.happened} operations searched for cycles over"
            f" {self.edges} edges, {self.rows_compared} rows compared,"
            f" {self.entries_replayed} log entries replayed"
        )

    def _summary_of_regions(self) -> str:
        return (
            f"{self.members} regions, {self.operations} operations ({self.acknowledged} writes"
            f" acknowledged, {self.unknown} of unknown outcome), {self.arrived} effects of other"
            f" regions, {self.collected} tombstones collected, {self.departures} departures,"
            f" {self.weather} faults of the network, {self.crashes} crashes, {self.stops} stops,"
            f" {self.faults} other faults, {self.beliefs} positions and watermarks checked,"
            f" {self.changes} changes in streams, {self.rows_compared} rows compared,"
            f" {self.entries_replayed} log entries replayed"
        )


class _Site:
    """One node with everything that goes with it."""

    __slots__ = ("fate", "machine", "node", "observer", "operator", "workload")

    def __init__(self, number: int, world: World, stream: Stream) -> None:
        options = world.options
        self.machine = Machine(
            stream("machine"), options.log_engine, options.segment_bytes, world.note
        )
        table = world.table
        name, settings, regions = f"n{number}", options.settings, None
        if table is not None:
            name = NAMES[number]
            settings = msgspec.structs.replace(settings, region=name)
            regions = table.settings_of(name)
        self.node = SimulatedNode(name, self.machine, settings, History(world.now), regions)
        self.operator = Operator(self.node, options.faults, stream("mishaps"))
        self.observer = Observer(self.node, options.think_seconds)
        self.fate: Fate | None = None
        self.workload: Workload
        if table is not None:
            table.add(self.node, stream("skew"))
            self.workload = RegionWorkload(self.node, table, options, stream, world.tick)
        elif options.triggers is not None:
            self.workload = TriggerWorkload(self.node, options, stream, world.tick)
        elif options.transactions is None:
            self.workload = ItemWorkload(self.node, options, stream, world.tick)
        else:
            self.fate = Fate(self.node, options.transactions, stream("fate"))
            self.workload = TransactionWorkload(self.node, options, stream, world.tick)


class World:
    """See the module's text."""

    def __init__(self, options: Options, streams: Streams) -> None:
        self.options = options
        self._events = 0
        self._trace = hashlib.blake2b(digest_size=16)

        def stream(number: int) -> Stream:
            return lambda purpose: streams.stream(f"node {number}/{purpose}")

        #: In a world of regions.
        self.table: GlobalTable | None = None
        if options.regions is not None:
            self.table = GlobalTable(
                options, lambda purpose: streams.stream(f"regions/{purpose}"), self.note
            )
        self.sites = [_Site(number, self, stream(number)) for number in range(options.nodes)]
        self._rows_compared = 0
        self._entries_replayed = 0

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
            rows = None
            if self.table is not None:
                with trio.fail_after(LIVENESS_SECONDS):
                    rows = await self._settle(self.table)
            with trio.fail_after(LIVENESS_SECONDS):
                for site in self.sites:
                    await self._heal(site)
        counts = [site.workload.judge() for site in self.sites]
        if self.table is not None:
            counts.append(self._judge_regions(self.table, rows))
        return self._report(counts)

    def buggify(self, place: str) -> bool:
        """Who decides at the places that ``host/buggify.py`` knows."""
        return any(site.fate is not None and site.fate.decide(place) for site in self.sites)

    async def _work(self) -> None:
        async with trio.open_nursery() as disturbers:
            for site in self.sites:
                disturbers.start_soon(site.operator.run)
                disturbers.start_soon(site.observer.run)
            if self.table is not None:
                disturbers.start_soon(self.table.watch)
                disturbers.start_soon(self.table.weather.run)
                await self.table.lead()
            async with trio.open_nursery() as workers:
                for site in self.sites:
                    workers.start_soon(site.workload.work)
                if self.table is not None:
                    workers.start_soon(self.table.change_members)
            disturbers.cancel_scope.cancel()

    async def _settle(self, table: GlobalTable) -> Rows | None:
        """No more faults anywhere: all regions come to have the same, which is returned."""
        for site in self.sites:
            self._calm(site)
        for site in self.sites:
            await site.node.ready()
        table.heal()
        # What cancelled clients asked for may still be on its way.
        await trio.sleep(1.0)
        await table.settle()
        return equal_rows(table)

    def _judge_regions(self, table: GlobalTable, rows: Rows | None) -> dict[str, int]:
        told = [
            one
            for site in self.sites
            if isinstance(site.workload, RegionWorkload)
            for one in site.workload.tally.told
        ]
        return dict(check_all(table, rows, told))

    def _calm(self, site: _Site) -> None:
        """No more faults."""
        machine, sim = site.machine, site.node
        machine.faults, machine.bomb = NO_FAULTS, None
        sim.bomb_at_start, sim.pause_seconds = None, 0.0
        if site.fate is not None:
            site.fate.armed = False
        machine.note("healed")

    async def _heal(self, site: _Site) -> None:
        """No more faults: the node comes to rest, and a restart finds everything again."""
        machine, sim = site.machine, site.node
        self._calm(site)
        await self._rest(site)
        node = await sim.ready()
        self._rows_compared += check_running(node)
        before = dump(node)
        await site.workload.audit(node)
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
        self._entries_replayed += check_stopped(machine, tables, node.region_number)

    async def _rest(self, site: _Site) -> None:
        """Return when nothing is under way, and the node answers."""
        node = await site.node.ready()
        await site.workload.rest(node)
        for builder in node.index_builders():
            await builder.caught_up()
        await node.flusher.flush()

    # The report.

    def _report(self, counts: list[dict[str, int]]) -> Report:
        summed: dict[str, int] = {}
        for name in (name for site_counts in counts for name in site_counts):
            summed[name] = sum(site_counts.get(name, 0) for site_counts in counts)
        self.note(sorted(summed.items()), self._rows_compared, self._entries_replayed)
        machines = [site.machine for site in self.sites]
        fates = [site.fate for site in self.sites if site.fate is not None]
        return Report(
            self.options.seed,
            self.options.kind,
            self._trace.hexdigest(),
            crashes=sum(machine.crashes for machine in machines),
            stops=sum(site.operator.stops for site in self.sites),
            faults=sum(
                site.machine.failed_syncs + site.machine.slow_calls + site.operator.clock_jumps
                for site in self.sites
            ),
            entries_observed=sum(site.observer.looked_at for site in self.sites),
            rows_compared=self._rows_compared,
            entries_replayed=self._entries_replayed,
            coordinator_deaths=sum(fate.deaths for fate in fates),
            crashes_at_a_step=sum(fate.crashes for fate in fates),
            **summed,
        )


def run_world(seed: int, kind: str = "items") -> Report:
    """The world of ``seed`` and of one of ``KINDS``. Raises SimulationFailed."""
    streams = Streams(seed)
    if kind == "items":
        options = draw_options(seed, streams.stream("options"))
    elif kind == "transactions":
        options = draw_transaction_options(seed, streams.stream("transaction options"))
    elif kind == "triggers":
        options = draw_trigger_options(seed, streams.stream("trigger options"))
    else:
        options = draw_region_options(seed, streams.stream("region options"))
    world = World(options, streams)
    set_buggify(world.buggify)
    try:
        with turned(options.knobs):
            return run_seeded(seed, world.run)
    except Exception as error:
        causes = "; ".join(dict.fromkeys(_causes(error)))
        raise SimulationFailed(seed, kind, causes) from error
    finally:
        set_buggify(None)


def _causes(error: BaseException) -> Iterator[str]:
    """What is at the bottom of groups and chains."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
        return
    yield f"{type(error).__name__}: {error}".rstrip(": ")
    if error.__cause__ is not None:
        yield from _causes(error.__cause__)
