"""Makes, changes and removes tables: what follows from each commit of the catalog.

The catalog's commit decides; what it implies is then carried out step by step. Every step is
harmless if done twice, so a step that meets a passing fault is simply repeated, and a start after a
crash takes up whatever the catalog says is unfinished. The commit itself belongs to the same task:
a client that is cancelled abandons its reply, never the work.

===========  =============================================================================
status       what is still to do
===========  =============================================================================
CREATING     make the logs, start the partitions, begin the stream; then ACTIVE
UPDATING     begin a new stream; for an index CREATING: make its logs, start and fill its
             partitions; for an index DELETING: stop them, remove logs and tree; a barrier; end a
             stream that is disabled; then ACTIVE
DELETING     stop everything, end the stream, remove trees and the logs that no stream needs;
             then the row itself
===========  =============================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping

import msgspec
import trio

from ..errors import (
    Corrupt,
    LimitExceeded,
    OutcomeUnknown,
    ResourceInUse,
    StorageError,
    Throttled,
    Unavailable,
    WrongFormat,
)
from ..limits import SCHEMA_RETRY_SECONDS, STREAMS_PER_TABLE_MAX
from ..model.schema import (
    GlobalIndex,
    NewTable,
    Partition,
    Status,
    StreamSettings,
    Table,
    TableChange,
)
from .catalog import Catalog
from .flusher import position_key
from .group_values import GROUP_STREAM_VIEW
from .index_builder import IndexBuilder
from .log_writer import LogWriter
from .mailbox import Reply
from .partition import PartitionActor
from .schema_designs import new_index, new_table, stream_label
from .streams import Streams
from .system_tables import SYSTEM_LOGS
from .tables import Span, TableRef
from .tasks import Tasks

logger = logging.getLogger(__name__)

MakeActor = Callable[[Partition, Callable[[], Table], GlobalIndex | None], PartitionActor]

# Names of tasks: what they are, then whose.
_STEPS = "steps "
_BUILDER = "builder "
_PARTITION = "partition "


class SchemaChanges:
    """Owns which partitions and builders run. One per node."""

    def __init__(
        self,
        catalog: Catalog,
        log_writer: LogWriter,
        make_streams: Callable[[SchemaChanges], Streams],
        make_actor: MakeActor,
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
        self._tasks = Tasks(nursery)
        self._new_id = new_id
        self._now_ms = now_ms
        self._note_commit = note_commit
        self._partitions_per_table = partitions_per_table
        self._index_delay_seconds = index_delay_seconds
        #: (namespace, name) -> reference.
        self.refs: dict[tuple[str, str], TableRef] = {}
        #: Those who wait for a table to change its status; see ``wait_moved``.
        self._moved = trio.lowlevel.ParkingLot()
        self._is_over = False
        self._actors: dict[str, PartitionActor] = {}
        self.streams = make_streams(self)
        #: (base log, index log) -> builder.
        self._builders: dict[tuple[str, str], IndexBuilder] = {}

    # For the node.

    @property
    def actors(self) -> Iterable[PartitionActor]:
        """Every partition that runs."""
        return self._actors.values()

    @property
    def actors_by_log(self) -> Mapping[str, PartitionActor]:
        """The same by their logs; a view that follows."""
        return self._actors

    @property
    def builders(self) -> Iterable[IndexBuilder]:
        """Every index builder that runs."""
        return self._builders.values()

    def holds(self) -> dict[str, int]:
        """Log -> the lowest LSN that some index or stream still has to read there.

        Counts builders, and the progress that index partitions have stored: after a start there
        is progress before there is a builder again. Streams hold what is within retention.
        """
        holds = self.streams.holds()
        for (base, _), builder in self._builders.items():
            holds[base] = min(holds.get(base, builder.lsn + 1), builder.lsn + 1)
        for actor in self._actors.values():
            for base, progress in actor.machine.state.progress.items():
                holds[base] = min(holds.get(base, progress.lsn + 1), progress.lsn + 1)
        return holds

    async def resume(self, tables: Iterable[Table]) -> None:
        """Serve what the catalog holds, and take up what a crash left unfinished."""
        tables = list(tables)
        for table in tables:
            self.refs[table.namespace, table.name] = TableRef(table)
        await self._remove_orphans(tables)
        for table in tables:
            ref = self.refs[table.namespace, table.name]
            if table.status in (Status.ACTIVE, Status.UPDATING):
                self._serve(ref)
            if table.status is Status.UPDATING and table.stream is None:
                self.streams.will_end(table, table.schema_version - 1)
            if table.status is not Status.ACTIVE:
                self._tasks.start(_STEPS + table.table_id, self._carry_out, ref)
        # Claims of all partitions share their syncs: wait only now.
        for actor in list(self._actors.values()):
            await actor.serving.wait()

    async def close(self) -> None:
        """Stop schema changes and builders, then partitions, each after what is under way."""
        self.abandon()
        await self._tasks.stop_all(_STEPS)
        await self._tasks.stop_all(_BUILDER)
        async with trio.open_nursery() as nursery:
            for actor in self._actors.values():
                nursery.start_soon(actor.close)

    def abandon(self) -> None:
        """No table changes here any more: nobody shall wait for one, nor for its streams."""
        self._is_over = True
        self._moved.unpark_all()
        self.streams.abandon()

    async def wait_moved(self) -> None:
        """Return when some table may have changed its status. Raises Unavailable at the end."""
        if not self._is_over:
            await self._moved.park()
        if self._is_over:
            raise Unavailable("The node is stopping")

    async def _remove_orphans(self, tables: list[Table]) -> None:
        known = {log_id for table in tables for log_id in table.log_ids()}
        known |= SYSTEM_LOGS | self.streams.logs()
        orphans = [log_id for log_id in self._log_writer.engine.list() if log_id not in known]
        if orphans:
            logger.info("removing %d logs that belong to no table", len(orphans))
            await self._log_writer.delete(orphans)

    # What is asked: decide, commit, answer; then carry out.

    async def create(self, new: NewTable) -> Table:
        """Commit a new table as CREATING and begin to make it."""
        key = (new.namespace, new.name)
        assert key not in self.refs
        count = 1 + len(new.local_indexes) + len(new.global_indexes)
        count += new.group_id is not None
        table = self._design(new, self._catalog.take_trees(count))
        ref = self.refs[key] = TableRef(table)
        return await self._decide(ref, table)

    async def change(self, ref: TableRef, change: TableChange) -> Table:
        """Commit a change of a table that is ACTIVE, and begin to carry it out."""
        self._idle(ref)
        wanted = change.table
        fields: dict[str, object] = {}
        if change.create_index is not None:
            tree = self._catalog.take_trees(1)[0]
            index = new_index(
                change.create_index, tree, len(wanted.partitions), True, self._new_id
            )
            fields["global_indexes"] = (*wanted.global_indexes, index)
        elif change.delete_index is not None:
            fields["global_indexes"] = tuple(
                msgspec.structs.replace(index, status=Status.DELETING)
                if index.name == change.delete_index
                else index
                for index in wanted.global_indexes
            )
        if change.enable_stream is not None:
            label = self._new_label(wanted.namespace, wanted.name, wanted.stream_label)
            fields["stream"] = StreamSettings(change.enable_stream, label)
            fields["stream_label"] = label
        elif change.disable_stream:
            fields["stream"] = None
        if fields:
            fields["status"] = Status.UPDATING
        version = ref.table.schema_version + 1
        return await self._decide(
            ref, msgspec.structs.replace(wanted, **fields, schema_version=version)
        )

    async def join_group(self, ref: TableRef, group_id: str) -> None:
        """Make a table a global one; returns when all its effects say what they replace."""
        table = self._idle(ref)
        fields: dict[str, object] = {"group_id": group_id, "status": Status.UPDATING}
        fields["tombstones"] = self._catalog.take_trees(1)[0]
        if table.stream is None:
            label = self._new_label(table.namespace, table.name, table.stream_label)
            fields["stream"] = StreamSettings(GROUP_STREAM_VIEW, label)
            fields["stream_label"] = label
        version = fields["global_since"] = table.schema_version + 1
        await self._decide(ref, msgspec.structs.replace(table, **fields, schema_version=version))
        await self.wait_settled(ref)

    async def leave_group(self, ref: TableRef) -> None:
        """Make a replica an ordinary table."""
        table = self._idle(ref)
        left = msgspec.structs.replace(
            table,
            group_id=None,
            status=Status.UPDATING,
            schema_version=table.schema_version + 1,
        )
        await self._decide(ref, left)
        await self.wait_settled(ref)

    async def wait_settled(self, ref: TableRef) -> None:
        """Return when a table is not being changed any more. Raises Unavailable at the end."""
        while ref.table.status is Status.UPDATING:
            await self.wait_moved()

    async def open_replica(self, ref: TableRef) -> None:
        """A replica is filled: it serves from now on."""
        await self._set_shut(ref, False)

    async def shut(self, ref: TableRef) -> None:
        """A replica is about to go: it serves nobody from now on, but its changes are sent.

        What was asked for before is in the logs when this returns, or never will be.
        """
        await self._set_shut(ref, True)
        await self._barrier(ref)

    async def _set_shut(self, ref: TableRef, is_shut: bool) -> None:
        table = self._idle(ref)
        if table.is_shut != is_shut:
            await self._decide(ref, msgspec.structs.replace(table, is_shut=is_shut))
            self._serve(ref)

    def _idle(self, ref: TableRef) -> Table:
        if ref.table.status is not Status.ACTIVE:
            raise ResourceInUse(
                "Attempt to change a resource which is still in use: Table is being"
                f" {ref.table.status.value.lower()}: {ref.table.name}"
            )
        return ref.table

    async def delete(self, ref: TableRef) -> Table:
        """Commit that a table is DELETING, and begin to remove it."""
        return await self._decide(ref, msgspec.structs.replace(ref.table, status=Status.DELETING))

    async def _decide(self, ref: TableRef, table: Table) -> Table:
        """Have ``table`` committed and carried out by a task of the node's; return it committed.

        The new status is seen at once, so that nobody else begins a change meanwhile.
        """
        task = _STEPS + table.table_id
        if task in self._tasks:
            raise ResourceInUse(
                "Attempt to change a resource which is still in use: Table is being updated:"
                f" {table.name}"
            )
        before, ref.table = ref.table, table
        reply = Reply()
        self._tasks.start(task, self._commit_and_carry_out, ref, before, reply)
        committed: Table = await reply.wait()
        return committed

    async def _commit_and_carry_out(self, ref: TableRef, before: Table, reply: Reply) -> None:
        table = ref.table
        try:
            await self._persist(self._catalog.save_sequence)
            await self._persist(lambda: self._catalog.save(table))
            reply.resolve(table)
        except Unavailable as error:
            # The node is stopping. What the catalog says then is what the next start sees.
            ref.table = before
            reply.fail(error)
            return
        finally:
            if not reply.is_given:
                # The node stops this task; the row may have been saved.
                reply.fail(OutcomeUnknown("The node is stopping"))
        self._moved.unpark_all()
        await self._carry_out(ref)

    async def _persist(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do a step that may be done twice until its outcome is known to be success.

        Raises Unavailable if the node is stopping, and whatever tells of damage.
        """
        while True:
            try:
                await step()
                return
            except (Corrupt, WrongFormat):
                raise
            except (StorageError, OutcomeUnknown, Throttled) as error:
                logger.warning("a schema change meets a fault and tries again: %s", error)
                await trio.sleep(SCHEMA_RETRY_SECONDS)

    async def _carry_out(self, ref: TableRef) -> None:
        """Do what the table's status leaves to do."""
        finish = {
            Status.CREATING: self._finish_create,
            Status.UPDATING: self._finish_change,
            Status.DELETING: self._finish_delete,
        }.get(ref.table.status)
        if finish is None:
            return
        try:
            await self._persist(lambda: finish(ref))
        except Unavailable:
            logger.info("table %s: the change goes on at the next start", ref.table.name)
        except (Corrupt, WrongFormat) as error:
            logger.critical("table %s: the change cannot go on: %s", ref.table.name, error)

    async def _commit(self, ref: TableRef, **fields: object) -> None:
        table = msgspec.structs.replace(ref.table, **fields)
        await self._catalog.save(table)
        ref.table = table
        self._moved.unpark_all()

    # Designing.

    def _design(self, new: NewTable, trees: Iterable[int]) -> Table:
        count = new.partition_count or self._partitions_per_table
        label = None
        if new.stream_view is not None:
            label = self._new_label(new.namespace, new.name, None)
        return new_table(new, iter(trees), count, label, self._new_id, self._now_ms())

    def _new_label(self, namespace: str, name: str, last: str | None) -> str:
        """A label above all that the table had, and removed tables of its name."""
        labels = [stream.label for stream in self.streams.of_namespace(namespace, name)]
        if len(labels) >= STREAMS_PER_TABLE_MAX:
            raise LimitExceeded(
                f"Subscriber limit exceeded: {STREAMS_PER_TABLE_MAX} streams of table {name} are "
                "kept already"
            )
        labels += [] if last is None else [last]
        return stream_label(self._now_ms(), max(labels, default=None))

    # Steps. Each may be done twice.

    async def _finish_create(self, ref: TableRef) -> None:
        await self._log_writer.create(ref.table.log_ids())
        self._serve(ref)
        for log_id in ref.table.log_ids():
            await self._actors[log_id].serving.wait()
        if ref.table.stream is not None:
            await self.streams.begin(ref.table)
        indexes = tuple(
            msgspec.structs.replace(index, status=Status.ACTIVE)
            for index in ref.table.global_indexes
        )
        await self._commit(ref, status=Status.ACTIVE, global_indexes=indexes)

    async def _finish_change(self, ref: TableRef) -> None:
        filled = False
        if ref.table.stream is not None:
            # Before the barrier, from which on there are effects that belong to it.
            await self.streams.begin(ref.table)
        for index in ref.table.global_indexes:
            if index.status is Status.CREATING:
                await self._fill_index(ref, index)
                filled = True
            elif index.status is Status.DELETING:
                await self._remove_index(ref, index)
        if ref.table.stream is None:
            self.streams.will_end(ref.table, ref.table.schema_version - 1)
        if not filled:
            await self._barrier(ref)
        if ref.table.stream is None:
            lsns = {base.log_id: self._actors[base.log_id].lsn for base in ref.table.partitions}
            await self.streams.end(ref.table, lsns, ref.table.schema_version - 1)
        if ref.table.group_id is None and ref.table.tombstones:
            # It was a global table: behind the barrier nothing leaves tombstones.
            await self._remove_storage([], [ref.table.tombstones])
            await self._commit(ref, tombstones=0)
        indexes = tuple(
            msgspec.structs.replace(index, status=Status.ACTIVE, backfilling=False)
            for index in ref.table.global_indexes
            if index.status is not Status.DELETING
        )
        await self._commit(ref, status=Status.ACTIVE, global_indexes=indexes)

    async def _fill_index(self, ref: TableRef, index: GlobalIndex) -> None:
        await self._log_writer.create(partition.log_id for partition in index.partitions)
        self._serve(ref)
        for partition in index.partitions:
            await self._actors[partition.log_id].serving.wait()
        pairs = [(base, target) for base in ref.table.partitions for target in index.partitions]
        # Before the barrier, because from then on the builders hold the base logs.
        builders = [self._builder(ref, index.name, base, target) for base, target in pairs]
        lsns = await self._barrier(ref)
        for (base, target), builder in zip(pairs, builders, strict=True):
            await builder.begin(lsns[base.log_id])
            self._start_builder(base, target)
        for builder in builders:
            await builder.filled.wait()

    async def _barrier(self, ref: TableRef) -> dict[str, int]:
        """Have every partition follow the current schema; each one's LSN from where it does."""
        return {
            partition.log_id: await self._actors[partition.log_id].barrier(ref.table)
            for partition in ref.table.partitions
        }

    async def _remove_index(self, ref: TableRef, index: GlobalIndex) -> None:
        await self._stop_builders(ref.table, index)
        for base in ref.table.partitions:
            self._actors[base.log_id].throttled_by.discard(index.name)
        self._serve(ref)
        log_ids = [partition.log_id for partition in index.partitions]
        await self._remove_storage(log_ids, [index.tree])

    async def _finish_delete(self, ref: TableRef) -> None:
        table = ref.table
        ref.attach(None, {})
        for index in table.global_indexes:
            await self._stop_builders(table, index)
        log_ids = list(table.log_ids())
        await self._stop_actors(log_ids)
        # Nobody writes these any more.
        tails = await self._log_writer.tails(partition.log_id for partition in table.partitions)
        await self.streams.end(table, tails, table.schema_version)
        await self._remove_storage(log_ids, list(table.trees()))
        await self._catalog.remove(table)
        del self.refs[table.namespace, table.name]
        self._moved.unpark_all()

    async def _stop_actors(self, log_ids: Iterable[str]) -> None:
        for log_id in log_ids:
            actor = self._actors.pop(log_id, None)
            if actor is not None:
                actor.refuse(Unavailable("The table is being removed"))
                actor.growth.unpark_all()
                await self._tasks.stop(_PARTITION + log_id)

    async def _remove_storage(self, log_ids: list[str], trees: list[int]) -> None:
        await self._stop_actors(log_ids)
        btree = self._catalog.btree
        for tree in trees:
            btree.drop_tree(tree)
        for log_id in log_ids:
            btree.set_meta(position_key(log_id), None)
        self._note_commit()
        needed = self.streams.logs()
        await self._log_writer.delete([log_id for log_id in log_ids if log_id not in needed])

    # What runs.

    def _serve(self, ref: TableRef) -> None:
        """Start whatever of the table's partitions and builders does not run yet."""
        table = ref.table
        span = self._start_span(ref, None, table.partitions)
        indexes: dict[str, tuple[Span, int]] = {}
        for index in table.global_indexes:
            if index.status is Status.DELETING or not self._has_logs(index):
                continue
            indexes[index.name] = (self._start_span(ref, index, index.partitions), index.tree)
        if table.is_shut:
            ref.attach(None, {})
        else:
            ref.attach(span, indexes)
        self.streams.note_served()
        for index in table.global_indexes:
            # One that is being filled gets its builders when it has a barrier to begin at.
            if index.name in indexes and not index.backfilling:
                for base in table.partitions:
                    for target in index.partitions:
                        self._builder(ref, index.name, base, target)
                        self._start_builder(base, target)

    def _has_logs(self, index: GlobalIndex) -> bool:
        if not index.backfilling:
            return True
        existing = set(self._log_writer.engine.list())
        return all(partition.log_id in existing for partition in index.partitions)

    def _start_span(
        self, ref: TableRef, index: GlobalIndex | None, partitions: tuple[Partition, ...]
    ) -> Span:
        actors = []
        for partition in partitions:
            actor = self._actors.get(partition.log_id)
            if actor is None:
                actor = self._make_actor(partition, lambda: ref.table, index)
                self._actors[partition.log_id] = actor
                self._tasks.start(_PARTITION + actor.log_id, self._run_partition, actor)
            actors.append(actor)
        return Span(actors, [partition.low for partition in partitions])

    def _builder(
        self, ref: TableRef, index_name: str, base: Partition, target: Partition
    ) -> IndexBuilder:
        """The builder for this pair of partitions, made if there is none."""
        pair = (base.log_id, target.log_id)
        if pair not in self._builders:
            self._builders[pair] = IndexBuilder(
                lambda: ref.table,
                index_name,
                self._actors[base.log_id],
                self._actors[target.log_id],
                target,
                self._index_delay_seconds,
            )
        return self._builders[pair]

    def _start_builder(self, base: Partition, target: Partition) -> None:
        name = _builder_task(base, target)
        if name not in self._tasks:
            builder = self._builders[base.log_id, target.log_id]
            self._tasks.start(name, self._run_builder, builder, base)

    async def _stop_builders(self, table: Table, index: GlobalIndex) -> None:
        for base in table.partitions:
            for target in index.partitions:
                await self._tasks.stop(_builder_task(base, target))
                self._builders.pop((base.log_id, target.log_id), None)

    async def _run_partition(self, actor: PartitionActor) -> None:
        try:
            await actor.run()
        except StorageError as error:
            logger.critical("log %s is not served any more: %s", actor.log_id, error)
            actor.refuse(Unavailable("The partition is damaged and is not served"))

    async def _run_builder(self, builder: IndexBuilder, base: Partition) -> None:
        try:
            await builder.run()
        except Unavailable:
            logger.info("the index builder from log %s has ended with the node", base.log_id)
        except StorageError as error:
            # The index would fall behind without a word: rather no writes than wrong answers.
            logger.critical("the index builder of log %s has stopped: %s", base.log_id, error)
            self._actors[base.log_id].throttled_by.add(builder.index_name)


def _builder_task(base: Partition, target: Partition) -> str:
    return f"{_BUILDER}{base.log_id} {target.log_id}"
