"""Makes, changes and removes tables: what follows from each commit of the catalog.

The catalog's commit decides; what it implies is then carried out step by step, each step harmless
if done twice, and a start after a crash takes up whatever the catalog says is unfinished.

===========  =============================================================================
status       what is still to do
===========  =============================================================================
CREATING     make the logs, start the partitions; then ACTIVE
UPDATING     for an index CREATING: make its logs, start and fill its partitions; for an
             index DELETING: stop them, remove logs and tree; a barrier; then ACTIVE
DELETING     stop everything, remove logs and trees; then the row itself
===========  =============================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

import msgspec
import trio

from ..errors import ResourceInUse, StorageError, Unavailable
from ..model.schema import (
    GlobalIndex,
    LocalIndex,
    NewIndex,
    NewTable,
    Partition,
    Status,
    Table,
    TableChange,
    hash_ranges,
)
from .catalog import CATALOG_LOG, Catalog
from .flusher import position_key
from .index_builder import IndexBuilder
from .log_writer import LogWriter
from .partition import PartitionActor
from .tables import Span, TableRef

logger = logging.getLogger(__name__)

StartPartition = Callable[[Partition, Table, GlobalIndex | None], PartitionActor]


class _Running:
    """A partition or builder in the nursery, and the scope that stops it."""

    __slots__ = ("scope", "stopped")

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.stopped = trio.Event()


class SchemaChanges:
    """Owns which partitions and builders run. One per node."""

    def __init__(
        self,
        catalog: Catalog,
        log_writer: LogWriter,
        make_actor: StartPartition,
        nursery: trio.Nursery,
        new_id: Callable[[], str],
        now_ms: Callable[[], int],
        note_commit: Callable[[], None],
        partitions_per_table: int,
        index_delay_seconds: float,
    ) -> None:
        self._catalog = catalog
        self._log_writer = log_writer
        self._make_actor = make_actor
        self._nursery = nursery
        self._new_id = new_id
        self._now_ms = now_ms
        self._note_commit = note_commit
        self._partitions_per_table = partitions_per_table
        self._index_delay_seconds = index_delay_seconds
        #: (namespace, name) -> reference.
        self.refs: dict[tuple[str, str], TableRef] = {}
        #: Those who wait for a table to change its status.
        self.moved = trio.lowlevel.ParkingLot()
        self._actors: dict[str, PartitionActor] = {}
        self._running: dict[str, _Running] = {}
        #: (base log, index log) -> builder.
        self._builders: dict[tuple[str, str], IndexBuilder] = {}

    # For the node.

    @property
    def actors(self) -> Iterable[PartitionActor]:
        """Every partition that runs."""
        return self._actors.values()

    def hold(self, log_id: str) -> int | None:
        """The lowest LSN of a log that some builder still has to read; None without builders."""
        lsns = [
            builder.lsn + 1 for (base, _), builder in self._builders.items() if base == log_id
        ]
        return min(lsns, default=None)

    async def resume(self, tables: Iterable[Table]) -> None:
        """Serve what the catalog holds, and take up what a crash left unfinished."""
        tables = list(tables)
        for table in tables:
            self.refs[table.namespace, table.name] = TableRef(table)
        await self._remove_orphans(tables)
        for table in tables:
            ref = self.refs[table.namespace, table.name]
            if table.status is Status.CREATING:
                self._nursery.start_soon(self._finish_create, ref)
            elif table.status is Status.DELETING:
                self._nursery.start_soon(self._finish_delete, ref)
            else:
                await self._serve(ref)
                if table.status is Status.UPDATING:
                    self._nursery.start_soon(self._finish_change, ref)
        # Claims of all partitions share their syncs: wait only now.
        for actor in self._actors.values():
            await actor.serving.wait()

    async def close(self) -> None:
        """Stop builders, then partitions, each after what it has under way."""
        for key in list(self._running):
            if "|" in key:
                await self._stop(key)
        async with trio.open_nursery() as nursery:
            for actor in self._actors.values():
                nursery.start_soon(actor.close)

    async def _remove_orphans(self, tables: list[Table]) -> None:
        known = {log_id for table in tables for log_id in table.log_ids()}
        engine = self._log_writer.engine
        orphans = [
            log_id for log_id in engine.list() if log_id not in known and log_id != CATALOG_LOG
        ]

        def delete() -> None:
            for log_id in orphans:
                engine.delete(log_id)

        if orphans:
            logger.info("removing %d logs that belong to no table", len(orphans))
            await self._log_writer.change(delete)

    # Making.

    async def create(self, new: NewTable) -> Table:
        """Commit a new table as CREATING and begin to make it."""
        key = (new.namespace, new.name)
        placeholder = self._design(new, range(1, 2 + len(new.local_indexes + new.global_indexes)))
        ref = self.refs[key] = TableRef(placeholder)
        try:
            count = 1 + len(new.local_indexes) + len(new.global_indexes)
            trees = await self._catalog.allocate_trees(count)
            table = self._design(new, trees)
            await self._catalog.save(table)
        except BaseException:
            if self.refs.get(key) is ref:
                del self.refs[key]
            raise
        ref = self.refs[key] = TableRef(table)
        self._nursery.start_soon(self._finish_create, ref)
        return table

    def _design(self, new: NewTable, trees: Iterable[int]) -> Table:
        tree = iter(trees)
        count = new.partition_count or self._partitions_per_table
        return Table(
            namespace=new.namespace,
            name=new.name,
            table_id=self._new_id(),
            status=Status.CREATING,
            created_ms=self._now_ms(),
            key=new.key,
            attribute_kinds=new.attribute_kinds,
            tree=next(tree),
            partitions=self._partitions(count),
            local_indexes=tuple(
                LocalIndex(index.name, index.key, index.projection, next(tree))
                for index in new.local_indexes
            ),
            global_indexes=tuple(
                self._design_index(index, next(tree), count, Status.CREATING, False)
                for index in new.global_indexes
            ),
            billing_mode=new.billing_mode,
            billing_changed_ms=self._now_ms() if new.billing_mode == "PAY_PER_REQUEST" else None,
            throughput=new.throughput,
            unit_limits=new.unit_limits,
            warm_units=new.warm_units,
            table_class=new.table_class,
            deletion_protection=new.deletion_protection,
            tags=new.tags,
        )

    def _partitions(self, count: int) -> tuple[Partition, ...]:
        return tuple(Partition(self._new_id(), low, last) for low, last in hash_ranges(count))

    def _design_index(
        self, index: NewIndex, tree: int, count: int, status: Status, backfilling: bool
    ) -> GlobalIndex:
        return GlobalIndex(
            index.name,
            index.key,
            index.projection,
            tree,
            self._partitions(count),
            status,
            backfilling,
            index.throughput,
            index.unit_limits,
            index.warm_units,
        )

    async def _finish_create(self, ref: TableRef) -> None:
        await self._make_logs(ref.table.log_ids())
        await self._serve(ref)
        for log_id in ref.table.log_ids():
            await self._actors[log_id].serving.wait()
        indexes = tuple(
            msgspec.structs.replace(index, status=Status.ACTIVE)
            for index in ref.table.global_indexes
        )
        await self._commit(ref, status=Status.ACTIVE, global_indexes=indexes)

    async def _make_logs(self, log_ids: Iterable[str]) -> None:
        engine = self._log_writer.engine
        wanted = list(log_ids)

        def create() -> None:
            existing = set(engine.list())
            for log_id in wanted:
                if log_id not in existing:
                    engine.create(log_id, 1)

        await self._log_writer.change(create)

    async def _serve(self, ref: TableRef) -> None:
        """Start whatever of the table's partitions and builders does not run yet."""
        table = ref.table
        span = self._start_span(table, None, table.partitions)
        indexes: dict[str, tuple[Span, int]] = {}
        for index in table.global_indexes:
            if index.status is Status.DELETING or (
                index.backfilling and not self._has_logs(index)
            ):
                continue
            indexes[index.name] = (self._start_span(table, index, index.partitions), index.tree)
        ref.attach(span, indexes)
        for index in table.global_indexes:
            if index.name in indexes and not index.backfilling:
                for base in table.partitions:
                    for target in index.partitions:
                        if (base.log_id, target.log_id) not in self._builders:
                            self._make_builder(ref, index.name, base, target)
                            self._nursery.start_soon(
                                self._run_builder, (base.log_id, target.log_id)
                            )

    def _has_logs(self, index: GlobalIndex) -> bool:
        existing = set(self._log_writer.engine.list())
        return all(partition.log_id in existing for partition in index.partitions)

    def _start_span(
        self, table: Table, index: GlobalIndex | None, partitions: tuple[Partition, ...]
    ) -> Span:
        actors = []
        for partition in partitions:
            actor = self._actors.get(partition.log_id)
            if actor is None:
                actor = self._make_actor(partition, table, index)
                self._actors[partition.log_id] = actor
                self._nursery.start_soon(self._run_partition, actor, self._track(actor.log_id))
            actors.append(actor)
        return Span(actors, [partition.low for partition in partitions])

    def _make_builder(
        self, ref: TableRef, index_name: str, base: Partition, target: Partition
    ) -> IndexBuilder:
        builder = IndexBuilder(
            lambda: ref.table,
            index_name,
            self._actors[base.log_id],
            self._actors[target.log_id],
            target,
            self._index_delay_seconds,
        )
        self._builders[base.log_id, target.log_id] = builder
        return builder

    # Changing.

    async def change(self, ref: TableRef, change: TableChange) -> Table:
        """Commit a change of a table that is ACTIVE, and begin to carry it out."""
        if ref.table.status is not Status.ACTIVE:
            raise ResourceInUse(
                "Attempt to change a resource which is still in use: Table is being"
                f" {ref.table.status.value.lower()}: {ref.table.name}"
            )
        wanted = change.table
        version = ref.table.schema_version
        fields: dict[str, object] = {}
        if change.create_index is not None:
            trees = await self._catalog.allocate_trees(1)
            if ref.table.schema_version != version or ref.table.status is not Status.ACTIVE:
                raise ResourceInUse(
                    "Attempt to change a resource which is still in use: Table is being"
                    f" updated: {ref.table.name}"
                )
            index = self._design_index(
                change.create_index, trees[0], len(wanted.partitions), Status.CREATING, True
            )
            fields["global_indexes"] = (*wanted.global_indexes, index)
        elif change.delete_index is not None:
            fields["global_indexes"] = tuple(
                msgspec.structs.replace(index, status=Status.DELETING)
                if index.name == change.delete_index
                else index
                for index in wanted.global_indexes
            )
        if fields:
            fields["status"] = Status.UPDATING
        table = msgspec.structs.replace(wanted, **fields, schema_version=version + 1)
        before = ref.table
        ref.table = table
        try:
            await self._catalog.save(table)
        except Unavailable:
            ref.table = before
            raise
        if table.status is Status.UPDATING:
            self._nursery.start_soon(self._finish_change, ref)
        return table

    async def _finish_change(self, ref: TableRef) -> None:
        for index in ref.table.global_indexes:
            if index.status is Status.CREATING:
                await self._fill_index(ref, index)
            elif index.status is Status.DELETING:
                await self._remove_index(ref, index)
        barrier = [index for index in ref.table.global_indexes if index.status is Status.CREATING]
        if not barrier:
            await self._barrier(ref)
        indexes = tuple(
            msgspec.structs.replace(index, status=Status.ACTIVE, backfilling=False)
            for index in ref.table.global_indexes
            if index.status is not Status.DELETING
        )
        await self._commit(ref, status=Status.ACTIVE, global_indexes=indexes)

    async def _barrier(self, ref: TableRef) -> dict[str, int]:
        """Have every partition follow the current schema; each one's LSN from where it does."""
        return {
            partition.log_id: await self._actors[partition.log_id].barrier(ref.table)
            for partition in ref.table.partitions
        }

    async def _fill_index(self, ref: TableRef, index: GlobalIndex) -> None:
        await self._make_logs(partition.log_id for partition in index.partitions)
        await self._serve(ref)
        for partition in index.partitions:
            await self._actors[partition.log_id].serving.wait()
        pairs = [
            (base, target) for base in ref.table.partitions for target in index.partitions
        ]
        builders = [self._make_builder(ref, index.name, base, target) for base, target in pairs]
        lsns = await self._barrier(ref)
        for (base, target), builder in zip(pairs, builders, strict=True):
            await builder.begin(lsns[base.log_id])
            self._nursery.start_soon(self._run_builder, (base.log_id, target.log_id))
        for builder in builders:
            await builder.filled.wait()

    async def _remove_index(self, ref: TableRef, index: GlobalIndex) -> None:
        for base in ref.table.partitions:
            for target in index.partitions:
                await self._stop(f"{base.log_id}|{target.log_id}")
                self._builders.pop((base.log_id, target.log_id), None)
        for base in ref.table.partitions:
            self._actors[base.log_id].throttled_by.discard(index.name)
        await self._serve(ref)
        log_ids = [partition.log_id for partition in index.partitions]
        await self._remove_storage(log_ids, [index.tree])

    # Removing.

    async def delete(self, ref: TableRef) -> Table:
        """Commit that a table is DELETING, and begin to remove it."""
        await self._commit(ref, status=Status.DELETING)
        self._nursery.start_soon(self._finish_delete, ref)
        return ref.table

    async def _finish_delete(self, ref: TableRef) -> None:
        table = ref.table
        ref.attach(None, {})
        for base in table.partitions:
            for index in table.global_indexes:
                for target in index.partitions:
                    await self._stop(f"{base.log_id}|{target.log_id}")
                    self._builders.pop((base.log_id, target.log_id), None)
        await self._remove_storage(list(table.log_ids()), list(table.trees()))
        await self._catalog.remove(table)
        del self.refs[table.namespace, table.name]
        self.moved.unpark_all()

    async def _remove_storage(self, log_ids: list[str], trees: list[int]) -> None:
        for log_id in log_ids:
            actor = self._actors.get(log_id)
            if actor is not None:
                actor.refuse(Unavailable("The table is being removed"))
            await self._stop(log_id)
            self._actors.pop(log_id, None)
        btree = self._catalog.btree
        engine = self._log_writer.engine
        for tree in trees:
            btree.drop_tree(tree)
        for log_id in log_ids:
            btree.set_meta(position_key(log_id), None)
        self._note_commit()

        def delete() -> None:
            for log_id in log_ids:
                engine.delete(log_id)

        await self._log_writer.change(delete)

    # What runs.

    async def _commit(self, ref: TableRef, **fields: object) -> None:
        table = msgspec.structs.replace(ref.table, **fields)
        await self._catalog.save(table)
        ref.table = table
        self.moved.unpark_all()

    def _track(self, key: str) -> _Running:
        running = self._running[key] = _Running()
        return running

    async def _stop(self, key: str) -> None:
        running = self._running.get(key)
        if running is not None:
            running.scope.cancel()
            await running.stopped.wait()

    async def _run_partition(self, actor: PartitionActor, running: _Running) -> None:
        try:
            with running.scope:
                await actor.run()
        except StorageError as error:
            logger.critical("log %s is not served any more: %s", actor.log_id, error)
            actor.refuse(Unavailable("The partition is damaged and is not served"))
        finally:
            running.stopped.set()
            self._running.pop(actor.log_id, None)

    async def _run_builder(self, pair: tuple[str, str]) -> None:
        key = "|".join(pair)
        running = self._track(key)
        try:
            with running.scope:
                await self._builders[pair].run()
        except StorageError as error:
            logger.critical("the index builder of log %s has stopped: %s", pair[0], error)
            self._actors[pair[0]].throttled_by.add(pair[1])
        finally:
            running.stopped.set()
            self._running.pop(key, None)

    def builders(self) -> Iterator[IndexBuilder]:
        """Every builder, for statistics and for waiting until indexes have caught up."""
        yield from self._builders.values()
