"""A node: one data directory (or memory), everything that runs on it, opened and closed in order.

``open_node`` is the only way in. Opening: lock the directory, open log and tree, recover the
catalog, then every table. Closing, also when cancelled: stop taking requests, let what is under
way finish, flush, say so in the logs, release the lock. A crash skips all of that and loses
nothing: the log is the database.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import trio

from ..errors import ConfigurationError, Corrupt, StorageError
from ..host.host import Host
from ..limits import (
    CLOSE_SECONDS_MAX,
    HEAL_STEP_SECONDS,
    HEAL_WATCH_SECONDS,
    MEMTABLE_BYTES_DEFAULT,
    STORAGE_RETRY_SECONDS,
    STREAM_RETENTION_SECONDS,
    STREAM_SHARD_SECONDS,
)
from ..model.schema import GlobalIndex, Table
from ..model.schema import Partition as PartitionRange
from ..model.values import Item
from ..model.versions import HybridClock, hlc_at
from ..storage.index_state import IndexState
from ..storage.log.interface import LogEngine
from ..storage.log.replicated import ReplicatedLogEngine
from ..storage.partition import Partition, Position, decode_position
from ..storage.table_state import TableState
from ..storage.totals import Totals
from ..storage.tree.btree import BTree
from ..storage.tree.interface import TreeStore
from ..storage.tree.mirrored_store import MirroredStore
from .catalog import (
    CATALOG_TABLE,
    CLOCK_NAME,
    MAPPING_ENTRY,
    OWN_NAME,
    REGION_ENTRY,
    Catalog,
)
from .checkpoints import CHECKPOINTS_TABLE
from .flusher import POSITION_PREFIX, Flusher, position_key
from .index_builder import IndexBuilder
from .ledger import LEDGER_LOG, LEDGER_TABLE
from .log_writer import LogWriter
from .partition import PartitionActor
from .schema_changes import SchemaChanges
from .streams import Streams
from .system_tables import SYSTEM_LOGS, SYSTEM_TREES
from .tables import Tables
from .transactions import Coordinator

if TYPE_CHECKING:
    from ..globaltables.policies import Resolver
    from .regions import Regions, RegionSettings

logger = logging.getLogger(__name__)


class NodeSettings(msgspec.Struct, frozen=True):
    """What a node can be told. Sizes in bytes, times in seconds."""

    region: str = "us-east-1"
    memtable_bytes: int = MEMTABLE_BYTES_DEFAULT
    flush_interval_seconds: float = 5.0
    partitions_per_table: int = 1
    #: How long a stream's records are kept, and when its shards roll over.
    stream_retention_seconds: float = STREAM_RETENTION_SECONDS
    stream_shard_seconds: float = STREAM_SHARD_SECONDS
    #: An artificial lag of global indexes, for tests of programs that must live with one.
    index_delay_seconds: float = 0.0


class Node:
    """What runs on one data directory. Made by ``open_node``."""

    def __init__(
        self,
        host: Host,
        settings: NodeSettings,
        engine: LogEngine,
        store: TreeStore,
        regions: RegionSettings | None = None,
        resolvers: Mapping[tuple[str, str], Resolver] | None = None,
    ) -> None:
        self.host = host
        #: What decides conflicts between regions where a table's policy says so, by (namespace,
        #: table).
        self.resolvers = dict(resolvers or {})
        self._region_settings = regions
        #: The region's number in versions; 0 for a node that was never one of several.
        self.region_number = 0 if regions is None else regions.peers.own.number
        self.settings = settings
        self._store = store
        self.btree = BTree(store)
        self.log_writer = LogWriter(engine, host.threads)
        token = host.entropy.token_bytes(16)
        self._nonce = int.from_bytes(token[:8], "big")
        #: Names this start of this node in its claims.
        self.name = token[8:].hex()
        #: One clock for every version and log timestamp on this node.
        self._clock = HybridClock()
        self._next_id = 0
        self.flusher = Flusher(
            self.btree,
            self.log_writer,
            host.threads,
            self._partitions,
            lambda: self._changes.holds(),
            settings.memtable_bytes,
            settings.flush_interval_seconds,
            self._may_trim,
        )
        self._catalog_actor: PartitionActor
        self._ledger_actor: PartitionActor
        self.checkpoints_partition: PartitionActor
        self.catalog: Catalog
        #: Where whatever belongs to this node may run its tasks.
        self.nursery: trio.Nursery
        #: What is to be stopped before the node closes, in reverse order.
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self.coordinator: Coordinator | None = None
        self._changes: SchemaChanges
        #: Other regions, for a node that is one of several.
        self.regions: Regions | None = None
        self.tables: Tables

    # Opening and closing.

    async def _open(self, nursery: trio.Nursery) -> None:
        engine = self.log_writer.engine
        self.nursery = nursery
        nursery.start_soon(self.log_writer.run)
        self._ledger_actor = await self._open_system_partition(LEDGER_TABLE, nursery)
        self._catalog_actor = await self._open_system_partition(CATALOG_TABLE, nursery)
        catalog = self.catalog = Catalog(self._catalog_actor)
        await self._settle_region(catalog)
        self.checkpoints_partition = await self._open_system_partition(
            CHECKPOINTS_TABLE, nursery, may_be_new=not catalog.entries(MAPPING_ENTRY)
        )
        self._changes = SchemaChanges(
            catalog,
            self.log_writer,
            lambda changes: self._make_streams(catalog, changes),
            self._make_actor,
            nursery,
            self.new_id,
            self.host.clock.now_ms,
            self.flusher.note_commit,
            self.settings.partitions_per_table,
            self.settings.index_delay_seconds,
        )
        tables = catalog.load()
        self._drop_orphans(tables)
        await self._changes.resume(tables)
        coordinator = self.coordinator = Coordinator(
            self._ledger_actor,
            lambda: [*self._changes.actors, self.checkpoints_partition],
            self.btree,
            self.host.clock.now_ms,
            self.name,
        )
        await coordinator.recover()
        await coordinator.clean_ledger()
        self.tables = Tables(self._changes, coordinator, self.host.clock, self.settings.region)
        nursery.start_soon(coordinator.run)
        nursery.start_soon(self._abandon_at_the_end)
        nursery.start_soon(self._changes.streams.run)
        nursery.start_soon(self.flusher.run)
        if self._region_settings is not None:
            await self._join_regions(nursery, self._region_settings)
        if isinstance(engine, ReplicatedLogEngine):
            nursery.start_soon(self._heal_log, engine)

    def _make_streams(self, catalog: Catalog, changes: SchemaChanges) -> Streams:
        return Streams(
            catalog,
            self.log_writer.engine,
            changes.actors_by_log,
            self.host.clock.now_ms,
            lambda: self.host.entropy.token_bytes(4).hex(),
            self.log_writer.delete,
            self.flusher.note_commit,
            self.settings.stream_retention_seconds,
            self.settings.stream_shard_seconds,
        )

    async def _open_system_partition(
        self, table: Table, nursery: trio.Nursery, *, may_be_new: bool = False
    ) -> PartitionActor:
        """The one partition of a table that belongs to the node itself, made at the first start.

        ``may_be_new``: an older millstream may have made the directory, without this partition.
        """
        engine = self.log_writer.engine
        log_id = table.partitions[0].log_id
        existing = engine.list()
        if log_id not in existing:
            # The ledger is made first, the catalog second, all others after.
            others = set(existing) - {LEDGER_LOG}
            known = self.btree.get_meta(position_key(log_id)) is not None
            if known or (others and not may_be_new):
                raise Corrupt(f"the log of the {table.name} is gone")
            await self.log_writer.change(lambda: engine.create(log_id, 1))
        actor = self._make_actor(table.partitions[0], lambda: table, None)
        nursery.start_soon(actor.run)
        await actor.serving.wait()
        return actor

    async def _heal_log(self, engine: ReplicatedLogEngine) -> None:
        """Bring log copies that missed something level again, step by step, while there are any."""
        while True:
            left = False

            def step() -> None:
                nonlocal left
                left = engine.heal()

            try:
                await self.log_writer.change(step)
            except StorageError as error:
                logger.error("healing the log's copies: %s", error)
            await trio.sleep(HEAL_STEP_SECONDS if left else HEAL_WATCH_SECONDS)

    def _drop_orphans(self, tables: list[Table]) -> None:
        """Remove trees and positions that a crash has left behind a removed table or index."""
        logs = {log_id for table in tables for log_id in table.log_ids()}
        logs |= SYSTEM_LOGS
        for key, _ in self.btree.meta_range(POSITION_PREFIX):
            if key.removeprefix(POSITION_PREFIX).decode() not in logs:
                self.btree.set_meta(key, None)
        known = {tree for table in tables for tree in table.trees()}
        known |= SYSTEM_TREES
        for tree in self.btree.trees():
            if tree not in known:
                logger.info("dropping tree %d, which belongs to no table", tree)
                self.btree.drop_tree(tree)

    @property
    def schema_changes(self) -> SchemaChanges:
        """What makes, changes and removes tables."""
        return self._changes

    def tick(self) -> int:
        """The clock's next value."""
        return self._clock.next(self.host.clock.now_ms())

    def has_passed(self, hlc: int) -> bool:
        """Whether the clock's next value is above ``hlc``."""
        return max(self._clock.last, hlc_at(self.host.clock.now_ms())) >= hlc

    async def _settle_region(self, catalog: Catalog) -> None:
        """Have the data be this region's, for good: versions name it by its number.

        Raises ConfigurationError if it is another's.
        """
        entries = catalog.entries(REGION_ENTRY)
        found = entries.get(OWN_NAME)
        if CLOCK_NAME in entries:
            self._clock.observe(msgspec.msgpack.decode(entries[CLOCK_NAME], type=int))
        if found is not None:
            region, self.region_number = msgspec.msgpack.decode(found, type=tuple[str, int])
        if self._region_settings is None:
            return
        own = self._region_settings.peers.own
        if found is None:
            packed = msgspec.msgpack.encode((own.region, own.number))
            await catalog.save_entry(REGION_ENTRY, OWN_NAME, packed)
        elif (region, self.region_number) != (own.region, own.number):
            raise ConfigurationError(
                f"regions: this data is that of {region}, number {self.region_number}, and cannot "
                f"be that of {own.region}, number {own.number}"
            )

    async def _join_regions(self, nursery: trio.Nursery, settings: RegionSettings) -> None:
        from .regions import Regions  # Most nodes are alone.

        regions = self.regions = self.tables.regions = Regions(self, settings)
        self.before_closing(regions.close)
        await nursery.start(regions.run)

    def before_closing(self, close: Callable[[], Awaitable[None]]) -> None:
        """Have ``close`` called when the node is about to close."""
        self._closers.append(close)

    async def _close(self) -> None:
        for close in reversed(self._closers):
            await close()
        await self._changes.close()
        await self.checkpoints_partition.close()
        await self._catalog_actor.close()
        await self._ledger_actor.close()
        while self.btree.frozen is not None or self._dirty():
            try:
                await self.flusher.flush()
            except StorageError as error:
                # The log holds everything, so closing may end without it.
                logger.error("the tree could not be written while closing: %s", error)
                await trio.sleep(STORAGE_RETRY_SECONDS)

    async def _abandon_at_the_end(self) -> None:
        # Those who run in this nursery and wait through their own cancellation would wait for
        # actors that are cancelled too.
        try:
            await trio.sleep_forever()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """However the node has ended: nobody shall wait for it any more."""
        if self.coordinator is not None:
            self.coordinator.abandon()
            self._changes.abandon()

    def _dirty(self) -> bool:
        return any(actor.machine.dirty for actor in self._partitions())

    def index_builders(self) -> Iterator[IndexBuilder]:
        """Every index builder, to wait until indexes have caught up."""
        yield from self._changes.builders

    # What the actors need.

    def _partitions(self) -> Iterator[PartitionActor]:
        yield self._catalog_actor
        yield self._ledger_actor
        yield self.checkpoints_partition
        yield from self._changes.actors

    def _may_trim(self) -> bool:
        """Whether every configured tree holds what was flushed."""
        return not isinstance(self._store, MirroredStore) or self._store.complete

    def new_id(self) -> str:
        """An identifier that no other start of any node gives out."""
        return _as_uuid(self.host.entropy.token_bytes(16))

    def _resolve(
        self, table: Callable[[], Table], loser: Item | None, winner: Item | None
    ) -> Item | None:
        """What the table's policy, as it is now, makes of a conflict."""
        if self.regions is None:
            return winner
        return self.regions.conflicts.resolve(table(), loser, winner)

    def _make_actor(
        self, partition: PartitionRange, table: Callable[[], Table], index: GlobalIndex | None
    ) -> PartitionActor:
        """The actor of one partition, recovered from its stored position and its log.

        ``table`` gives the schema as the catalog has it whenever the machine is built anew.
        """

        def make_machine(position: Position | None) -> Partition:
            if position is None:
                stored = self.btree.get_meta(position_key(partition.log_id))
                position = None if stored is None else decode_position(stored)
            totals = {} if position is None else position.totals
            held = {tree: Totals(*total) for tree, total in totals.items()}
            state: TableState | IndexState
            if index is None:
                promises = () if position is None else position.promises
                replica = None if position is None else position.replica
                state = TableState(
                    table(),
                    self.btree,
                    self.region_number,
                    held,
                    promises,
                    replica,
                    partial(self._resolve, table),
                )
            else:
                progress = {} if position is None else dict(position.progress)
                state = IndexState(index, self.btree, held, progress)
            return Partition(partition.log_id, state, self._clock, self._nonce, position)

        return PartitionActor(
            partition.log_id,
            make_machine,
            self.btree,
            self.log_writer.engine,
            self.log_writer,
            self.host.clock.now_ms,
            self.name,
            self.flusher.note_commit,
            lambda: self.flusher.crowded,
            self._store.get_copy if isinstance(self._store, MirroredStore) else None,
        )


def _as_uuid(token: bytes) -> str:
    text = token.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@asynccontextmanager
async def run_node(
    host: Host,
    settings: NodeSettings,
    engine: LogEngine,
    store: TreeStore,
    regions: RegionSettings | None = None,
    resolvers: Mapping[tuple[str, str], Resolver] | None = None,
) -> AsyncIterator[Node]:
    """A running node on an opened log engine and tree store, which it closes at the end.

    Leaving the block closes in good order, within ``CLOSE_SECONDS_MAX``.
    """
    node = Node(host, settings, engine, store, regions, resolvers)
    stop, stopped = trio.Event(), trio.Event()

    async def keep(task_status: trio.TaskStatus[None]) -> None:
        # Once open, nobody's cancellation but our own reaches the actors: they are needed to close.
        try:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    await node._open(nursery)
                    scope.shield = True
                    task_status.started()
                    await stop.wait()
                    with trio.move_on_after(CLOSE_SECONDS_MAX):
                        await node._close()
                    nursery.cancel_scope.cancel()
        finally:
            node.abandon()
            engine.close()
            store.close()
            stopped.set()

    with _lone_errors_unwrapped():
        async with trio.open_nursery() as outer:
            await outer.start(keep)
            try:
                yield node
            finally:
                stop.set()
                with trio.CancelScope(shield=True):
                    await stopped.wait()


@contextmanager
def _lone_errors_unwrapped() -> Iterator[None]:
    """Raise an error that nurseries have wrapped alone in groups as itself."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if isinstance(error, BaseExceptionGroup):
            raise
        raise error from error.__cause__
