"""What one world is like, drawn from its seed: the swarm.

Worlds that are all alike find the same bugs; each world therefore leaves some things out and
exaggerates others (Groce et al., "Swarm Testing", ISSTA 2012). ``knobs`` sets the engine's own
internal sizes for the length of one world, so that chunks, batches and reads end in the middle of
things with a few dozen items.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType

import msgspec

from ..actors import (
    collector,
    flusher,
    index_builder,
    link_out,
    replicator,
    stretches,
    transactions,
)
from ..actors import partition as partition_actor
from ..actors.node import NodeSettings
from ..storage import arriving
from ..storage import partition as partition_machine

#: (module, name of one of its limits) -> values to draw from; the first is the real one's order.
_KNOBS: dict[str, tuple[ModuleType, tuple[int, ...]]] = {
    "INDEX_CHUNK_ROWS": (index_builder, (250, 20, 3, 1)),
    "INDEX_READ_BYTES": (index_builder, (512 * 1024, 2000, 1)),
    "INDEX_LAG_ENTRIES_MAX": (index_builder, (10_000, 10_000, 20, 3)),
    "RECOVERY_READ_BYTES": (partition_actor, (1024 * 1024, 1000, 1)),
    "BATCH_RECORDS_MAX": (partition_machine, (4096, 8, 2, 1)),
    "DROP_STEP_ROWS": (flusher, (5000, 7)),
}
#: More of them, in worlds of transactions.
_TRANSACTION_KNOBS: dict[str, tuple[ModuleType, tuple[float, ...]]] = {
    "TRANSACTION_RECOVERY_SECONDS": (transactions, (1.0, 0.1, 0.02)),
}
#: More of them, in worlds of regions. Notes with three regions: each entry makes two, and one note
#: for fewer than three entries would have idle regions keep each other busy for ever.
_REGION_KNOBS: dict[str, tuple[ModuleType, tuple[float, ...]]] = {
    "COLLECT_ROWS": (collector, (1000, 2, 1)),
    "PULSE_SECONDS": (link_out, (1.0, 0.2)),
    "REPLICATION_ENTRY_BYTES": (arriving, (8 * 1024 * 1024, 8 * 1024 * 1024, 300, 1)),
    "REPLICATION_FILL_ROWS": (arriving, (2000, 2000, 3, 1)),
    "REPLICATION_BATCH_BYTES": (stretches, (256 * 1024, 2000, 1)),
    "REPLICATION_BATCH_ENTRIES": (stretches, (256, 3, 1)),
    "REPLICATION_PART_BYTES": (stretches, (1024 * 1024, 300, 1)),
    "REPLICATION_CHUNK_BYTES": (replicator, (256 * 1024, 300)),
    "REPLICATION_CHUNK_ROWS": (replicator, (512, 3, 1)),
    "REPLICATION_WINDOW": (replicator, (4, 2, 1)),
    "REPLICATION_PACE_SECONDS": (replicator, (0.004, 0.05, 0.5)),
    "REPLICATION_NOTE_ENTRIES": (replicator, (256, 20, 5)),
}


class Faults(msgspec.Struct, frozen=True):
    """How often what goes wrong. Rates are probabilities per operation."""

    log_sync_failure: float = 0.0
    tree_sync_failure: float = 0.0
    #: Of a call in a thread: usual latency, and how often it takes a hundred times as long.
    latency_seconds: float = 0.0005
    slow_call: float = 0.0
    #: Mean seconds between two things that happen to a node (crash, stop, clock jump).
    mishap_interval_seconds: float = 1.0
    crash_weight: float = 0.0
    bomb_weight: float = 0.0
    stop_weight: float = 0.0
    clock_weight: float = 0.0
    #: How far a clock jumps at most, either way.
    clock_jump_ms_max: int = 1_000_000
    #: How often a crash also happens while the node is being opened, or closed.
    crash_in_recovery: float = 0.0
    crash_in_close: float = 0.0
    #: How often a client gives an operation up in the middle.
    cancellation: float = 0.0


NO_FAULTS = Faults()


class TransactionOptions(msgspec.Struct, frozen=True):
    """What a world of transactions adds. ``deaths`` and ``crashes`` are probabilities by place in
    the code: that the coordinator dies there, and that the whole machine crashes there.
    """

    lists: int
    registers: int
    accounts: int
    actions_max: int
    #: How often a transaction has a token, and is then asked for again when it is not known.
    tokens: float
    deaths: dict[str, float]
    crashes: dict[str, float]
    #: Kind of operation -> how often, relatively.
    weights: dict[str, int]


class TriggerOptions(msgspec.Struct, frozen=True):
    """What a world of triggers adds. ``failures`` is how often a handler fails, twice a call."""

    items: int
    batch_size: int
    lanes: int
    bisects: bool
    failures: float


class RegionOptions(msgspec.Struct, frozen=True):
    """What a world of regions adds; ``nodes`` is how many there are.

    ``invites_late``: replicas are added while clients write. ``departures`` is how often a region
    leaves, and mostly comes back. ``wander`` and ``rewrite`` are how often a client goes to another
    region than its own, and writes what is there already; ``pauses`` how often it takes seconds.
    """

    skew_ms_max: int
    collect_seconds: float
    invites_late: bool
    departures: int
    keeps: float
    wander: float
    rewrite: float
    delete: float
    transact: float
    pauses: float
    latency_seconds: float
    #: Mean seconds between two things that happen to the network.
    network_interval_seconds: float
    #: What happens to it -> how often, relatively. Each is a method of ``Weather``.
    weather: dict[str, float]


class Options(msgspec.Struct, frozen=True):
    """One world."""

    seed: int
    nodes: int
    clients: int
    operations: int
    log_engine: str
    segment_bytes: int
    settings: NodeSettings
    faults: Faults
    knobs: dict[str, float]
    # Tables.
    has_range: bool
    local_index: str | None
    global_index: str | None
    second_index: str | None
    partitions: int
    # Keys and items.
    hash_keys: int
    range_keys: int
    hot: float
    filler_bytes_max: int
    think_seconds: float
    # Workloads.
    index_changes: bool
    scratch_table: bool
    #: None: a world of items.
    transactions: TransactionOptions | None = None
    triggers: TriggerOptions | None = None
    regions: RegionOptions | None = None

    @property
    def kind(self) -> str:
        """Which kind of world it is."""
        if self.regions is not None:
            return "regions"
        if self.triggers is not None:
            return "triggers"
        return "items" if self.transactions is None else "transactions"


def draw_options(seed: int, rng: random.Random) -> Options:
    """The world of ``seed``."""

    def sometimes(chance: float, low: float, high: float) -> float:
        return rng.uniform(low, high) if rng.random() < chance else 0.0

    has_range = rng.random() < 0.6
    projections = ("ALL", "KEYS_ONLY", "INCLUDE")
    return Options(
        seed=seed,
        nodes=rng.choice((1, 1, 2)),
        clients=rng.randint(2, 4),
        operations=rng.randint(15, 45),
        log_engine=rng.choice(("memory", "memory", "segments")),
        segment_bytes=rng.choice((4096, 20_000, 1024 * 1024)),
        settings=NodeSettings(
            memtable_bytes=rng.choice((1500, 8000, 60_000, 16 * 1024 * 1024)),
            flush_interval_seconds=rng.choice((0.005, 0.05, 0.5, 5.0)),
            index_delay_seconds=rng.choice((0.0, 0.0, 0.03)),
        ),
        faults=Faults(
            log_sync_failure=sometimes(0.4, 0.002, 0.05),
            tree_sync_failure=sometimes(0.4, 0.01, 0.3),
            latency_seconds=rng.choice((0.0001, 0.0005, 0.003)),
            slow_call=sometimes(0.5, 0.01, 0.1),
            mishap_interval_seconds=rng.choice((0.1, 0.3, 1.0)),
            crash_weight=sometimes(0.8, 0.2, 1.0),
            bomb_weight=sometimes(0.7, 0.2, 1.0),
            stop_weight=sometimes(0.5, 0.1, 0.5),
            clock_weight=sometimes(0.4, 0.1, 0.5),
            crash_in_recovery=sometimes(0.5, 0.1, 0.5),
            crash_in_close=sometimes(0.5, 0.1, 0.6),
            cancellation=sometimes(0.6, 0.02, 0.2),
        ),
        knobs={name: rng.choice(values) for name, (_, values) in sorted(_KNOBS.items())},
        has_range=has_range,
        local_index=rng.choice(projections) if has_range and rng.random() < 0.5 else None,
        global_index=rng.choice(projections) if rng.random() < 0.6 else None,
        second_index=rng.choice(projections) if rng.random() < 0.2 else None,
        partitions=rng.choice((1, 1, 2, 4)),
        hash_keys=rng.choice((1, 4, 12)) if has_range else rng.choice((3, 12)),
        range_keys=rng.choice((1, 4, 8)) if has_range else 1,
        hot=sometimes(0.5, 0.3, 0.9),
        filler_bytes_max=rng.choice((0, 0, 60, 2000)),
        think_seconds=rng.choice((0.002, 0.02, 0.1)),
        index_changes=rng.random() < 0.6,
        scratch_table=rng.random() < 0.4,
    )


#: Where ``host/buggify.py`` is asked.
COORDINATOR_STEPS = (
    "coordinator dies after prepare",
    "coordinator dies after the decision",
    "coordinator dies between commits",
)


#: What clients of transactions do, and how often in most worlds. Each has a method by that name.
_OPERATIONS = {
    "write_anything": 35,
    "write_optimistically": 12,
    "write_askew": 8,
    "read_several": 8,
    "append": 10,
    "read": 10,
    "append_guarded": 6,
    "put_or_delete": 8,
    "transfer": 8,
    "count_money": 6,
}


def draw_transaction_options(seed: int, rng: random.Random) -> Options:
    """The world of transactions of ``seed``: few items, many who want them."""
    world = draw_options(seed, rng)

    def sometimes(chance: float, low: float, high: float) -> float:
        return rng.uniform(low, high) if rng.random() < chance else 0.0

    failure = rng.choice((0.0, 0.0, 0.02, 0.1, 0.25))
    return msgspec.structs.replace(
        world,
        nodes=1,
        clients=rng.randint(3, 7),
        operations=rng.randint(20, 60),
        partitions=rng.choice((1, 2, 2, 4)),
        think_seconds=rng.choice((0.0005, 0.002, 0.02)),
        knobs={
            **world.knobs,
            **{name: rng.choice(values) for name, (_, values) in _TRANSACTION_KNOBS.items()},
        },
        # Clients wait for recoveries, so there is more time for mishaps; and partitions restart
        # (a failed sync) while promises are open.
        faults=msgspec.structs.replace(
            world.faults,
            # Where a quarter of all syncs fail, a node needs a while to start at all.
            mishap_interval_seconds=max(rng.choice((0.2, 0.7, 2.0)), 8 * failure),
            log_sync_failure=failure,
        ),
        scratch_table=False,
        index_changes=rng.random() < 0.3,
        transactions=TransactionOptions(
            lists=rng.choice((2, 4, 8)),
            registers=rng.choice((2, 4)),
            accounts=rng.choice((2, 4, 6)),
            actions_max=rng.choice((2, 4, 6)),
            tokens=rng.choice((0.0, 0.3, 0.8)),
            deaths={step: sometimes(0.5, 0.02, 0.2) for step in COORDINATOR_STEPS},
            crashes={step: sometimes(0.3, 0.005, 0.05) for step in COORDINATOR_STEPS},
            weights={
                kind: usual * rng.choice((0, 1, 1, 6)) for kind, usual in _OPERATIONS.items()
            },
        ),
    )


def draw_trigger_options(seed: int, rng: random.Random) -> Options:
    """The world of triggers of ``seed``: few items, shards that roll over all the time."""
    world = draw_options(seed, rng)
    failure = rng.choice((0.0, 0.0, 0.01, 0.05))
    settings = msgspec.structs.replace(
        world.settings, stream_shard_seconds=rng.choice((0.05, 0.3, 2.0, 3600.0))
    )
    return msgspec.structs.replace(
        world,
        nodes=1,
        clients=rng.randint(2, 5),
        operations=rng.randint(15, 50),
        settings=settings,
        think_seconds=rng.choice((0.0005, 0.002, 0.02)),
        faults=msgspec.structs.replace(
            world.faults,
            mishap_interval_seconds=max(rng.choice((0.1, 0.3, 1.0)), 8 * failure),
            log_sync_failure=failure,
            # Streams go by the clock: one that jumps may have them expire, or stand still.
            clock_weight=0.0,
        ),
        scratch_table=False,
        index_changes=False,
        triggers=TriggerOptions(
            items=rng.choice((1, 3, 8)),
            batch_size=rng.choice((1, 3, 10)),
            lanes=rng.choice((1, 2, 4, 10)),
            bisects=rng.random() < 0.3,
            failures=rng.choice((0.0, 0.0, 0.05, 0.2)),
        ),
    )


def draw_region_options(seed: int, rng: random.Random) -> Options:
    """The world of regions of ``seed``: few keys, logs that are soon too short."""
    world = draw_options(seed, rng)

    def sometimes(chance: float, low: float, high: float) -> float:
        return rng.uniform(low, high) if rng.random() < chance else 0.0

    failure = rng.choice((0.0, 0.0, 0.01, 0.05))
    latency_seconds = rng.choice((0.0, 0.005, 0.03))
    knobs = {name: rng.choice(values) for name, (_, values) in sorted(_REGION_KNOBS.items())}
    kinds = ("cut", "cut_silently", "cut_one_way", "slow", "drop", "pause", "forbid")
    return msgspec.structs.replace(
        world,
        nodes=rng.choice((2, 2, 3)),
        clients=rng.randint(1, 3),
        operations=rng.randint(15, 40),
        settings=msgspec.structs.replace(
            world.settings,
            stream_retention_seconds=rng.choice((0.05, 0.5, 3.0, 20.0)),
            stream_shard_seconds=rng.choice((0.3, 3.0, 3600.0)),
        ),
        knobs={**world.knobs, **knobs},
        faults=msgspec.structs.replace(
            world.faults,
            mishap_interval_seconds=max(rng.choice((0.5, 2.0, 6.0)), 12 * failure),
            log_sync_failure=failure,
            clock_jump_ms_max=rng.choice((1000, 20_000, 20_000, 100_000)),
        ),
        # Few keys, so that regions write the same.
        hash_keys=min(world.hash_keys, 4),
        range_keys=min(world.range_keys, 4),
        think_seconds=rng.choice((0.005, 0.02, 0.1)),
        index_changes=False,
        scratch_table=False,
        regions=RegionOptions(
            skew_ms_max=rng.choice((0, 1000, 25_000, 25_000, 100_000)),
            collect_seconds=rng.choice((0.1, 0.5, 3.0)),
            invites_late=rng.random() < 0.5,
            departures=rng.choice((0, 0, 1, 2)),
            keeps=rng.choice((0.0, 0.3)),
            wander=rng.choice((0.0, 0.0, 0.2)),
            rewrite=rng.choice((0.0, 0.1, 0.3)),
            delete=rng.choice((0.0, 0.2, 0.5)),
            transact=rng.choice((0.0, 0.1, 0.3)),
            pauses=rng.choice((0.0, 0.05, 0.2)),
            latency_seconds=latency_seconds,
            network_interval_seconds=rng.choice((0.2, 1.0, 4.0)),
            weather={kind: sometimes(0.5, 0.2, 1.0) for kind in kinds},
        ),
    )


@contextmanager
def turned(knobs: Mapping[str, float]) -> Iterator[None]:
    """The engine with ``knobs`` set, until the block ends."""
    known = {**_KNOBS, **_TRANSACTION_KNOBS, **_REGION_KNOBS}
    modules = {name: module for name, (module, _) in known.items()}
    before = {name: getattr(modules[name], name) for name in knobs}
    for name, value in knobs.items():
        setattr(modules[name], name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(modules[name], name, value)
