"""What the rest of millstream sees of a node: its tables, and references to read and write them.

``Tables`` is the router. Its map from names to ``TableRef`` is replaced entry by entry on the
loop, so a look-up is a dictionary access; the work behind a change of schema is ``Schema``'s.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import trio

from ..errors import ResourceInUse, ResourceNotFound, Unavailable
from ..host.clock import Clock
from ..limits import SCHEMA_GRACE_SECONDS
from ..model.schema import NewTable, Status, Table, TableChange
from ..storage.commands import Action, Command, Contended, Outcome, Refused, Written
from ..storage.rows import Bodies, Row
from .partition import PartitionActor

if TYPE_CHECKING:
    from .regions_view import Regions
    from .schema_changes import SchemaChanges
    from .transactions import Coordinator

#: The account in ARNs: the one of AWS's own examples, which nobody has.
ACCOUNT = "123456789012"
NOT_FOUND = "Requested resource not found"


class TransactionAction(msgspec.Struct, frozen=True):
    """One action of a transaction: what to do, and in which table."""

    table: TableRef
    command: Action


class Place(msgspec.Struct, frozen=True):
    """What a call touches of a table: ``low <= key < high``, or by a global index all of it.

    ``high`` None: the key ``low`` alone.
    """

    table: TableRef
    low: bytes
    high: bytes | None = None
    index: str | None = None


class TreeStatistics(msgspec.Struct, frozen=True):
    """How many items (or entries) there are, and their size as DynamoDB counts it, in bytes."""

    item_count: int
    size_bytes: int


class TableStatistics(msgspec.Struct, frozen=True):
    """Of a table and of each of its indexes, by name."""

    item_count: int
    size_bytes: int
    indexes: dict[str, TreeStatistics]


class Span:
    """The partitions of one table or global index, ordered by hash range."""

    __slots__ = ("_edges", "actors")

    def __init__(self, actors: Sequence[PartitionActor], lows: Sequence[int]) -> None:
        assert list(lows) == sorted(lows)
        self.actors = tuple(actors)
        self._edges = [low.to_bytes(8, "big") for low in lows]

    def of(self, key: bytes) -> PartitionActor:
        """The partition that holds ``key``."""
        if len(self.actors) == 1:
            return self.actors[0]
        return self.actors[bisect.bisect_right(self._edges, key[:8]) - 1]

    def order_of(self, low: bytes, high: bytes | None) -> range:
        """Which partitions ``[low, high)`` lies in, by their places in ``actors``."""
        edges = self._edges
        first = max(bisect.bisect_right(edges, low[:8].ljust(8, b"\0")) - 1, 0)
        last = len(edges) if high is None else bisect.bisect_left(edges, high)
        return range(first, last)

    def rows(
        self, tree: int, low: bytes, high: bytes | None, reverse: bool
    ) -> Iterator[tuple[bytes, Row]]:
        """Rows of all partitions in ``[low, high)``, in key order or reversed."""
        if len(self.actors) == 1:
            return self.actors[0].rows(tree, low, high, reverse)
        return self._rows_of_several(tree, low, high, reverse)

    def _rows_of_several(
        self, tree: int, low: bytes, high: bytes | None, reverse: bool
    ) -> Iterator[tuple[bytes, Row]]:
        edges = self._edges
        order = self.order_of(low, high)
        for number in reversed(order) if reverse else order:
            start = max(low, edges[number]) if number > order.start else low
            stop = high
            if number + 1 < len(edges):
                edge = edges[number + 1]
                stop = edge if high is None else min(high, edge)
            yield from self.actors[number].rows(tree, start, stop, reverse)

    def bodies(
        self,
        tree: int,
        low: bytes,
        high: bytes | None,
        reverse: bool,
        rows_max: int,
        bytes_max: int,
    ) -> Bodies:
        """Bodies of rows in ``[low, high)``, as ``PartitionActor.bodies`` takes them."""
        if len(self.actors) == 1:
            return self.actors[0].bodies(tree, low, high, reverse, rows_max, bytes_max)
        taken = Bodies([], 0, b"")
        for key, row in self._rows_of_several(tree, low, high, reverse):
            taken.bodies.append(row.body)
            taken.size_bytes += row.size_bytes
            taken.last = key
            if len(taken.bodies) == rows_max or taken.size_bytes >= bytes_max:
                break
        return taken

    def statistics(self, tree: int) -> TreeStatistics:
        """Totals over the partitions."""
        totals = [actor.machine.state.totals.get(tree) for actor in self.actors]
        return TreeStatistics(
            sum(total.count for total in totals if total is not None),
            sum(total.size_bytes for total in totals if total is not None),
        )


class TableRef:
    """A reference to one table. Reads are synchronous and see committed rows only."""

    __slots__ = ("_indexes", "_local_trees", "_span", "_tree", "table")

    def __init__(self, table: Table) -> None:
        #: The current schema; replaced as a whole.
        self.table = table
        self._tree = table.tree
        #: The table's partitions; None while it is being made or removed.
        self._span: Span | None = None
        #: Global index name -> (its partitions, its tree).
        self._indexes: dict[str, tuple[Span, int]] = {}
        self._local_trees = {index.name: index.tree for index in table.local_indexes}

    def attach(self, span: Span | None, indexes: dict[str, tuple[Span, int]]) -> None:
        """For ``SchemaChanges``: what serves the table from now on."""
        self._span = span
        self._indexes = indexes

    def partition_of(self, key: bytes) -> PartitionActor:
        """The partition that holds ``key``.

        Raises ResourceNotFound while the table is not there.
        """
        if self._span is None:
            raise ResourceNotFound(NOT_FOUND)
        return self._span.of(key)

    def partitions_of(
        self, low: bytes, high: bytes | None, *, everything: bool = False
    ) -> list[tuple[int, PartitionActor]]:
        """The partitions that ``low <= key < high`` lies in (None: ``low`` alone), numbered.

        Raises ResourceNotFound while the table is not there.
        """
        span = self._span
        if span is None:
            raise ResourceNotFound(NOT_FOUND)
        actors = span.actors
        if everything:
            order = range(len(actors))
        else:
            order = span.order_of(low, low + b"\0" if high is None else high)
        return [(number, actors[number]) for number in order]

    def index_actors(self, index: str) -> tuple[PartitionActor, ...]:
        """The partitions of a global index; none if there is no such index now."""
        place = self._indexes.get(index)
        return () if place is None else place[0].actors

    def get(self, key: bytes) -> Row | None:
        """The item's row under ``key``. Raises ResourceNotFound while the table is not there."""
        span = self._span
        if span is None:
            raise ResourceNotFound(NOT_FOUND)
        return span.of(key).get(self._tree, key)

    async def write(self, command: Command) -> Written | Refused:
        """Have ``command`` decided and made durable.

        Raises:
            InvalidRequest, Throttled, ResourceNotFound: nothing has changed.
            Unavailable: the node is stopping; nothing has changed.
            OutcomeUnknown: it may or may not take effect.
        """
        if self._span is None:
            raise ResourceNotFound(NOT_FOUND)
        result: Written | Refused = await self._span.of(command.key).write(command)
        return result

    async def write_many(
        self, commands: Sequence[Command]
    ) -> list[Written | Refused | Exception]:
        """``write`` for several commands, queued together; errors stand in their places."""
        if self._span is None:
            raise ResourceNotFound(NOT_FOUND)
        span = self._span
        if len(span.actors) == 1:
            return await span.actors[0].write_many(commands)
        results: list[Written | Refused | Exception] = [Exception()] * len(commands)
        by_actor: dict[str, tuple[PartitionActor, list[int]]] = {}
        for index, command in enumerate(commands):
            actor = span.of(command.key)
            by_actor.setdefault(actor.log_id, (actor, []))[1].append(index)

        async def write_part(actor: PartitionActor, indexes: list[int]) -> None:
            part = await actor.write_many([commands[index] for index in indexes])
            for index, result in zip(indexes, part, strict=True):
                results[index] = result

        async with trio.open_nursery() as nursery:
            for actor, indexes in by_actor.values():
                nursery.start_soon(write_part, actor, indexes)
        return results

    def rows(
        self, index: str | None, low: bytes, high: bytes | None, reverse: bool = False
    ) -> Iterator[tuple[bytes, Row]]:
        """Rows with ``low <= key < high`` of the table (None) or of an index, by its name.

        To be used up within one synchronous slice.
        """
        span, tree = self._place(index)
        return span.rows(tree, low, high, reverse)

    def bodies(
        self,
        index: str | None,
        low: bytes,
        high: bytes | None,
        reverse: bool,
        rows_max: int,
        bytes_max: int,
    ) -> Bodies:
        """``rows`` in one go, bodies only: at most ``rows_max``, up to ``bytes_max`` of size."""
        span, tree = self._place(index)
        return span.bodies(tree, low, high, reverse, rows_max, bytes_max)

    def _place(self, index: str | None) -> tuple[Span, int]:
        """Where the table's rows (None) or an index's entries are.

        Raises ResourceNotFound while the table is not there, and for an index that is gone.
        """
        if self._span is None:
            raise ResourceNotFound(NOT_FOUND)
        if index is None:
            return self._span, self._tree
        local_tree = self._local_trees.get(index)
        if local_tree is not None:
            return self._span, local_tree
        place = self._indexes.get(index)
        if place is None:
            raise ResourceNotFound(NOT_FOUND)
        return place

    def statistics(self) -> TableStatistics:
        """Counts and sizes; zero while the table is being made."""
        if self._span is None:
            return TableStatistics(0, 0, {})
        own = self._span.statistics(self._tree)
        indexes = {
            name: self._span.statistics(tree) for name, tree in self._local_trees.items()
        }
        indexes |= {
            name: span.statistics(tree) for name, (span, tree) in self._indexes.items()
        }
        return TableStatistics(own.item_count, own.size_bytes, indexes)


class Tables:
    """The tables of one node, by namespace and name."""

    def __init__(
        self,
        changes: SchemaChanges,
        coordinator: Coordinator,
        clock: Clock,
        region: str,
        account: str = ACCOUNT,
    ) -> None:
        self._changes = changes
        self._coordinator = coordinator
        self._clock = clock
        self.streams = changes.streams
        #: Tells the stream that a new table needs for triggers that wait for it.
        self.view_wanted: Callable[[str, str], str | None] | None = None
        self.region = region
        self.account = account
        #: Global tables; None on a node that was started without a regions file.
        self.regions: Regions | None = None

    def find(self, namespace: str, name: str) -> TableRef | None:
        """The table of that name, in whatever state it is."""
        return self._changes.refs.get((namespace, name))

    def names(self, namespace: str) -> list[str]:
        """Table names, sorted by their bytes."""
        found = [name for space, name in self._changes.refs if space == namespace]
        return sorted(found, key=str.encode)

    async def create(self, new: NewTable) -> Table:
        """Begin to make a table; returns it as CREATING. Raises ResourceInUse if it exists.

        Nearly always the table is ACTIVE by the time that this returns: SDKs' waiters look at
        once, and then not again for twenty seconds. ``delete`` is alike.
        """
        if (new.namespace, new.name) in self._changes.refs:
            raise ResourceInUse(f"Table already exists: {new.name}")
        if new.stream_view is None and self.view_wanted is not None:
            view = self.view_wanted(new.namespace, new.name)
            new = msgspec.structs.replace(new, stream_view=view)
        table = await self._changes.create(new)
        with trio.move_on_after(SCHEMA_GRACE_SECONDS), suppress(Unavailable):
            await self.wait_active(new.namespace, new.name)
        return table

    async def change(self, change: TableChange) -> Table:
        """Begin to change a table; returns it as the catalog now has it.

        Raises:
            ResourceNotFound: no such table.
            ResourceInUse: it is being made, changed or removed, or changed meanwhile.
        """
        wanted = change.table
        ref = self.find(wanted.namespace, wanted.name)
        if ref is None:
            raise ResourceNotFound(f"Requested resource not found: Table: {wanted.name} not found")
        if ref.table.schema_version != wanted.schema_version:
            raise ResourceInUse(f"Attempt to change a resource which is still in use: Table is"
                                f" being updated: {wanted.name}")
        table = await self._changes.change(ref, change)
        if self.regions is not None:
            await self.regions.share(table)
        return table

    async def delete(self, namespace: str, name: str) -> Table:
        """Begin to remove a table; returns it as DELETING.

        Raises:
            ResourceNotFound: no such table.
            ResourceInUse: it is being made, changed or removed.
        """
        ref = self.find(namespace, name)
        if ref is None:
            raise ResourceNotFound(f"Requested resource not found: Table: {name} not found")
        if ref.table.status is not Status.ACTIVE:
            state = {
                Status.CREATING: "created",
                Status.UPDATING: "updated",
                Status.DELETING: "deleted",
            }[ref.table.status]
            raise ResourceInUse(
                f"Attempt to change a resource which is still in use: Table is being {state}:"
                f" {name}"
            )
        table = await self._changes.delete(ref)
        with trio.move_on_after(SCHEMA_GRACE_SECONDS), suppress(Unavailable):
            await self.wait_gone(namespace, name)
        return table

    async def wait_active(self, namespace: str, name: str) -> None:
        """Return when a table is ACTIVE.

        Raises:
            ResourceNotFound: there is none of that name, or no more.
            Unavailable: the node is stopping.
        """
        while True:
            ref = self.find(namespace, name)
            if ref is None:
                raise ResourceNotFound(NOT_FOUND)
            if ref.table.status is Status.ACTIVE:
                return
            await self._changes.wait_moved()

    async def wait_gone(self, namespace: str, name: str) -> None:
        """Return when there is no table of that name. Raises Unavailable if the node stops."""
        while self.find(namespace, name) is not None:
            await self._changes.wait_moved()

    async def transact_write(
        self,
        actions: Sequence[TransactionAction],
        *,
        token: str | None = None,
        request_hash: bytes = b"",
        hops: int = 0,
        more: Sequence[tuple[PartitionActor, Action]] = (),
    ) -> Outcome:
        """Have all actions take effect at one moment, or none.

        No two actions are on the same item. ``token``, qualified by the caller's namespace, makes
        the request idempotent for ten minutes; ``request_hash`` is the same for equal requests.
        ``hops`` is what the effects will carry; ``more`` are actions on the node's own partitions.

        Raises:
            TransactionInProgress, IdempotentParameterMismatch: what became of the token.
            ResourceNotFound, Throttled, Unavailable: nothing has changed.
            OutcomeUnknown: it will be wholly there or wholly not.
        """
        placed = [
            (action.table.partition_of(action.command.key), action.command) for action in actions
        ]
        return await self._coordinator.write([*placed, *more], token, request_hash, hops)

    async def transact_get(
        self, reads: Sequence[tuple[TableRef, bytes]]
    ) -> list[Row | Contended | None]:
        """The rows under these keys as they were at one moment.

        ``Contended`` stands for an item that a transaction under way is about to write.
        """
        return self._coordinator.read(
            [(table.partition_of(key), table.table.tree, key) for table, key in reads]
        )

    async def pause(self, seconds: float) -> None:
        """Wait for ``seconds``."""
        await trio.sleep(seconds)

    async def breathe(self) -> None:
        """A checkpoint: whoever is ready runs now."""
        await trio.lowlevel.checkpoint()

    def now_ms(self) -> int:
        """The node's wall clock, milliseconds since the epoch."""
        return self._clock.now_ms()
