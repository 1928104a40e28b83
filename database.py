"""The Python API: a database in your program, on plain Python values.

::

    async with millstream.open_database("orders-data") as db:
        await db.create_table("orders", partition_key="customer", sort_key=("number", int))
        orders = db.table("orders")
        await orders.put({"customer": "ada", "number": 1, "total": Decimal("9.50")})
        order = await orders.get({"customer": "ada", "number": 1})
        async for order in orders.query("customer = :c", values={":c": "ada"}):
            ...

Every call goes through the same operations as a request over HTTP, so whatever DynamoDB refuses is
refused here, in the same words, as a ``millstream.errors.RequestError``. Names and placeholders in
expressions are DynamoDB's. Values are those of ``model.python_values``: numbers come back as int
where integral and as Decimal otherwise, sets as sets, binaries as bytes.
"""

from __future__ import annotations

import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import msgspec

from .actors.data_directory import open_node
from .actors.mappings import Mappings
from .actors.node import NodeSettings
from .actors.tables import Tables
from .api.calls import Caller
from .api.credentials import NAMESPACE_DEFAULT
from .api.operations import batches, items, queries, scans
from .api.operations import tables as table_operations
from .changes import Change, Follower, Since
from .conflict_control import ConflictControl
from .definitions import (
    Index,
    KeyPart,
    attributes_of,
    definitions,
    expressions_of,
    index_request,
    key_schema,
)
from .errors import InvalidRequest, Throttled, TransactionConflict
from .handlers import start_triggers
from .host.clock import Clock
from .host.host import Host, real_host
from .lambdas.context import current_trace
from .lambdas.trigger import Trigger
from .limits import (
    BATCH_GET_KEYS_MAX,
    BATCH_WRITE_REQUESTS_MAX,
    TRANSACTION_PAUSE_SECONDS,
)
from .model.python_values import from_item, to_item
from .replica_control import ReplicaControl
from .sessions import Consistency, Session, note_shown, reading_of
from .streams.lineage import hops_of
from .transaction import Transaction
from .trigger_control import TriggerControl
from .triggers import make_trigger, resolvers_of

if TYPE_CHECKING:
    from .actors.regions import RegionSettings

Plain: TypeAlias = dict[str, Any]
Result = TypeVar("Result")
StreamView: TypeAlias = Literal["KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES"]
Returns: TypeAlias = Literal["NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW"]
_Operation: TypeAlias = Callable[[Tables, Caller, bytes], Awaitable[bytes]]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Table(ConflictControl):
    """One table of a ``Database``. Holds nothing but its name; cheap to make.

    ``consistency`` of a call, or else of the table, matters in a global table only (``sessions``);
    a write heeds nothing but a session. A call for which it cannot be had raises StaleReplica.
    """

    __slots__ = ("_consistency", "_database", "name")

    def __init__(
        self, database: Database, name: str, consistency: Consistency | None = None
    ) -> None:
        self._database = database
        self.name = name
        self._consistency = consistency

    def __repr__(self) -> str:
        return f"<Table {self.name}>"

    async def get(
        self,
        key: Plain,
        *,
        projection: str | None = None,
        names: Mapping[str, str] | None = None,
        consistency: Consistency | None = None,
    ) -> Plain | None:
        """The item under ``key``, or None. Sees the newest write, in a global table of this region.

        Raises:
            ResourceNotFound: no such table.
            InvalidRequest: the key does not fit the table, or the projection is malformed.
        """
        request = {"Key": to_item(key), **expressions_of(names=names)}
        if projection is not None:
            request["ProjectionExpression"] = projection
        answer = await self._call(items.get_item, request, consistency)
        return from_item(answer["Item"]) if "Item" in answer else None

    async def put(
        self,
        item: Plain,
        *,
        condition: str | None = None,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
        consistency: Consistency | None = None,
    ) -> Plain | None:
        """Store ``item`` in the place of whatever was under its key; returns what was there.

        Durable when this returns.

        Raises:
            ConditionFailed: ``condition`` was false (its ``item`` is the one found).
            InvalidRequest: DynamoDB would not take it.
            Throttled: too much is waiting; nothing has changed.
            OutcomeUnknown: it may or may not have taken effect.
        """
        request = {"Item": to_item(item), "ReturnValues": "ALL_OLD"}
        request |= expressions_of(condition=condition, names=names, values=values)
        return attributes_of(await self._call(items.put_item, request, consistency))

    async def update(
        self,
        key: Plain,
        update: str,
        *,
        condition: str | None = None,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
        returns: Returns = "ALL_NEW",
        consistency: Consistency | None = None,
    ) -> Plain | None:
        """Change the item under ``key`` by an update expression, creating it if absent.

        Returns what ``returns`` asks for, by default the whole new item. Raises as ``put`` does.
        """
        request = {"Key": to_item(key), "UpdateExpression": update, "ReturnValues": returns}
        request |= expressions_of(condition=condition, names=names, values=values)
        return attributes_of(await self._call(items.update_item, request, consistency))

    async def delete(
        self,
        key: Plain,
        *,
        condition: str | None = None,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
        consistency: Consistency | None = None,
    ) -> Plain | None:
        """Remove the item under ``key``; returns it, or None if there was none.

        Raises as ``put`` does.
        """
        request = {"Key": to_item(key), "ReturnValues": "ALL_OLD"}
        request |= expressions_of(condition=condition, names=names, values=values)
        return attributes_of(await self._call(items.delete_item, request, consistency))

    async def query(
        self,
        key_condition: str,
        *,
        index: str | None = None,
        filter: str | None = None,
        projection: str | None = None,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
        reverse: bool = False,
        limit: int | None = None,
        consistency: Consistency | None = None,
    ) -> AsyncIterator[Plain]:
        """Items of one partition key, in the order of the sort key; pages are fetched as needed.

        ``limit`` bounds the items returned (after the filter). What is written while the iteration
        goes on may or may not be seen, as with DynamoDB's pages.
        """
        request: Plain = {"KeyConditionExpression": key_condition, "ScanIndexForward": not reverse}
        request |= expressions_of(index, filter, projection, names=names, values=values)
        async for item in self._pages(queries.query, request, filter, limit, consistency):
            yield item

    async def scan(
        self,
        *,
        index: str | None = None,
        filter: str | None = None,
        projection: str | None = None,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
        segment: tuple[int, int] | None = None,
        limit: int | None = None,
        consistency: Consistency | None = None,
    ) -> AsyncIterator[Plain]:
        """Every item of the table or index, in no meaningful order; pages as needed.

        ``segment`` ``(i, n)`` is the i-th (from 0) of n parts that together make the whole.
        """
        request = expressions_of(index, filter, projection, names=names, values=values)
        if segment is not None:
            request["Segment"], request["TotalSegments"] = segment
        async for item in self._pages(scans.scan, request, filter, limit, consistency):
            yield item

    async def put_many(
        self, items: Iterable[Plain], *, consistency: Consistency | None = None
    ) -> None:
        """Store many items: batches, not a transaction. Later ones win over earlier ones' keys.

        Each item is durable or an error is raised; after an error any part may be stored.
        """
        requests = [{"PutRequest": {"Item": to_item(item)}} for item in items]
        await self._write_many(requests, consistency)

    async def delete_many(
        self, keys: Iterable[Plain], *, consistency: Consistency | None = None
    ) -> None:
        """Remove many items: batches, not a transaction."""
        requests = [{"DeleteRequest": {"Key": to_item(key)}} for key in keys]
        await self._write_many(requests, consistency)

    async def get_many(
        self, keys: Sequence[Plain], *, consistency: Consistency | None = None
    ) -> list[Plain]:
        """The items under ``keys`` that exist, in no particular order."""
        found: list[Plain] = []
        pending = [to_item(key) for key in keys]
        while pending:
            part, pending = pending[:BATCH_GET_KEYS_MAX], pending[BATCH_GET_KEYS_MAX:]
            answer = await self._database._call(
                batches.batch_get_item,
                {"RequestItems": {self.name: {"Keys": part}}},
                consistency or self._consistency,
            )
            found += (from_item(item) for item in answer["Responses"].get(self.name, ()))
            pending += answer["UnprocessedKeys"].get(self.name, {"Keys": []})["Keys"]
        return found

    async def _write_many(
        self, pending: list[Plain], consistency: Consistency | None
    ) -> None:
        while pending:
            part, pending = pending[:BATCH_WRITE_REQUESTS_MAX], pending[BATCH_WRITE_REQUESTS_MAX:]
            answer = await self._database._call(
                batches.batch_write_item,
                {"RequestItems": {self.name: part}},
                consistency or self._consistency,
            )
            pending = answer["UnprocessedItems"].get(self.name, []) + pending

    async def _pages(
        self,
        operation: _Operation,
        request: Plain,
        filter: str | None,
        limit: int | None,
        consistency: Consistency | None,
    ) -> AsyncIterator[Plain]:
        if limit is not None and limit < 1:
            raise InvalidRequest("limit: at least 1")
        left = limit
        while True:
            if left is not None and filter is None:
                request["Limit"] = left
            answer = await self._call(operation, request, consistency)
            for item in answer["Items"]:
                yield from_item(item)
                if left is not None:
                    left -= 1
                    if left == 0:
                        return
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def changes(self, *, since: Since = "now") -> AsyncGenerator[Change, None]:
        """Follow the table: what changes, as it changes, for ever.

        ``since`` is "now", "start" (the oldest change kept), a datetime, the ``position`` of a
        change, or "snapshot": every item as it is, then what happens to it, with no gap and no
        duplicate. The table must have a stream, which keeps changes for a day. Waiting costs
        nothing, and ends with the scope of the loop.

        Raises, at the first step: ResourceNotFound; InvalidRequest for a table without a stream or
        a ``since`` that is none; Trimmed for a position that is no longer kept. Later on:
        Unavailable when the database is closed.
        """
        database = self._database
        return Follower(database._tables, database._caller.namespace, self.name).run(since)

    async def _call(
        self, operation: _Operation, request: Plain, consistency: Consistency | None = None
    ) -> Plain:
        request = {"TableName": self.name, **request}
        return await self._database._call(operation, request, consistency or self._consistency)


class Database(ReplicaControl):
    """An open database. Made by ``open_database``."""

    def __init__(
        self, tables: Tables, mappings: Mappings, namespace: str = NAMESPACE_DEFAULT
    ) -> None:
        self._tables = tables
        self._mappings = mappings
        #: Counts conflicts, to spread the pauses after them.
        self._conflicts = 0
        self._as_program = Caller(namespace, "python", tables.region, "python")

    @property
    def _caller(self) -> Caller:
        """Who calls: the program, or a handler of changes whose hops are counted."""
        trace = current_trace.get()
        if not trace:
            return self._as_program
        return msgspec.structs.replace(self._as_program, hops=hops_of(trace))

    def table(self, name: str, *, consistency: Consistency | None = None) -> Table:
        """The table called ``name``; whether it exists shows when it is used.

        ``consistency`` is for its calls that name none.
        """
        return Table(self, name, consistency)

    def session(self) -> Session:
        """A new session, for the calls of one client here and in other regions' databases."""
        return Session()

    @asynccontextmanager
    async def transaction(
        self, *, consistency: Consistency | None = None
    ) -> AsyncIterator[Transaction]:
        """A transaction that is committed when the block ends well; see ``Transaction``.

        Raises at the end of the block what ``Transaction.commit`` raises.
        """
        with self._calling(consistency) as caller:
            transaction = Transaction(self._tables, caller)
            yield transaction
            await transaction.commit()

    async def transact(
        self, work: Callable[[Transaction], Awaitable[Result]], *, attempts: int = 10
    ) -> Result:
        """Run ``work`` in a transaction, again when it meets another one; its result.

        ``work`` may run several times, so it must do nothing but read and write through the
        transaction that it is given. Between attempts it waits, a little longer each time.

        Raises TransactionConflict (or Throttled) if the last attempt met one too.
        """
        for attempt in range(1, attempts + 1):
            try:
                async with self.transaction() as transaction:
                    result = await work(transaction)
            except (TransactionConflict, Throttled):
                if attempt == attempts:
                    raise
                self._conflicts += 1
                # Different pauses for those who met: they would only meet again.
                share = 1 + self._conflicts % 7
                await self._tables.pause(TRANSACTION_PAUSE_SECONDS * share * attempt)
            else:
                return result
        raise InvalidRequest("attempts: at least 1")

    async def create_table(
        self,
        name: str,
        *,
        partition_key: KeyPart,
        sort_key: KeyPart | None = None,
        indexes: Sequence[Index] = (),
        stream: StreamView | None = None,
    ) -> Table:
        """Make a table and wait until it can be used.

        Key attributes are strings unless a pair says otherwise: ``sort_key=("number", int)``.
        ``stream`` is what the records of its stream show; without it the table has none, unless a
        trigger waits for the table.

        Raises:
            ResourceInUse: it exists.
            InvalidRequest: a name or a key that DynamoDB refuses.
        """
        kinds: dict[str, str] = {}
        request: Plain = {
            "TableName": name,
            "BillingMode": "PAY_PER_REQUEST",
            "KeySchema": key_schema(kinds, partition_key, sort_key),
        }
        for index in indexes:
            is_local = index.partition_key is None
            member = "LocalSecondaryIndexes" if is_local else "GlobalSecondaryIndexes"
            leading = partition_key if index.partition_key is None else index.partition_key
            request.setdefault(member, []).append(index_request(kinds, index, leading))
        request["AttributeDefinitions"] = definitions(kinds)
        if stream is not None:
            request["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": stream}
        await self._call(table_operations.create_table, request)
        await self._tables.wait_active(self._caller.namespace, name)
        return self.table(name)

    async def create_index(self, table: str, index: Index) -> None:
        """Make a global index on a table and wait until it holds what the table holds."""
        if index.partition_key is None:
            raise InvalidRequest("A local index is made together with its table")
        kinds: dict[str, str] = {}
        created = index_request(kinds, index, index.partition_key)
        await self._call(
            table_operations.update_table,
            {
                "TableName": table,
                "AttributeDefinitions": definitions(kinds),
                "GlobalSecondaryIndexUpdates": [{"Create": created}],
            },
        )
        await self._tables.wait_active(self._caller.namespace, table)

    async def delete_index(self, table: str, name: str) -> None:
        """Remove a global index and wait until it is gone."""
        await self._call(
            table_operations.update_table,
            {
                "TableName": table,
                "GlobalSecondaryIndexUpdates": [{"Delete": {"IndexName": name}}],
            },
        )
        await self._tables.wait_active(self._caller.namespace, table)

    async def delete_table(self, name: str) -> None:
        """Remove a table with everything in it, and wait until it is gone."""
        await self._call(table_operations.delete_table, {"TableName": name})
        await self._tables.wait_gone(self._caller.namespace, name)

    async def enable_stream(self, table: str, view: StreamView = "NEW_AND_OLD_IMAGES") -> None:
        """Give a table a stream, and wait until changes are in it."""
        await self._change_stream(table, {"StreamEnabled": True, "StreamViewType": view})

    async def disable_stream(self, table: str) -> None:
        """End a table's stream. Its records can be read for as long as they are kept."""
        await self._change_stream(table, {"StreamEnabled": False})

    async def _change_stream(self, table: str, specification: Plain) -> None:
        request = {"TableName": table, "StreamSpecification": specification}
        await self._call(table_operations.update_table, request)
        await self._tables.wait_active(self._caller.namespace, table)

    # Triggers.

    async def add_trigger(
        self, table: str, handler: Callable[..., Any], *, name: str | None = None, **options: Any
    ) -> None:
        """Have ``handler`` called for the changes of ``table`` from now on.

        What ``Triggers.on_change`` does for handlers that are known when the database is opened;
        see there for the name and the options (``triggers.make_trigger``).
        """
        trigger = make_trigger(table, handler, name=name, **options)
        await self._mappings.add(self._caller.namespace, trigger)

    @property
    def triggers(self) -> TriggerControl:
        """Pause, resume, replay, inspect and redrive triggers."""
        return TriggerControl(self._mappings, self._caller.namespace)

    async def drain(self) -> None:
        """Return when every trigger has handled everything that is committed.

        What handlers write meanwhile counts too. One that fails for ever keeps this waiting.
        Raises Unavailable when the database is closed meanwhile, Corrupt if a stream is damaged.
        """
        await self._mappings.drain(self._caller.namespace)

    async def describe_table(self, name: str) -> Plain:
        """DynamoDB's TableDescription, in DynamoDB's spelling."""
        answer = await self._call(table_operations.describe_table, {"TableName": name})
        description: Plain = answer["Table"]
        return description

    def table_names(self) -> list[str]:
        """The names of all tables, sorted."""
        return self._tables.names(self._caller.namespace)

    async def _call(
        self, operation: _Operation, request: Plain, consistency: Consistency | None = None
    ) -> Plain:
        with self._calling(consistency) as caller:
            answer: Plain = _decode(await operation(self._tables, caller, _encode(request)))
        return answer

    @contextmanager
    def _calling(self, consistency: Consistency | None) -> Iterator[Caller]:
        """Who calls, and how consistently; what it was shown goes into its session."""
        if consistency is None:
            yield self._caller
            return
        reading = reading_of(consistency, self._tables.now_ms())
        try:
            yield msgspec.structs.replace(self._caller, reading=reading)
        finally:
            note_shown(consistency, reading)


@asynccontextmanager
async def open_database(
    path: str | os.PathLike[str] | None = None,
    *,
    region: str = "us-east-1",
    namespace: str = NAMESPACE_DEFAULT,
    log_engine: str = "auto",
    log_directories: Sequence[str] = (),
    memtable_bytes: int = NodeSettings().memtable_bytes,
    triggers: Iterable[Trigger] = (),
    clock: Clock | None = None,
) -> AsyncIterator[Database]:
    """The database in the directory ``path``, made if absent; None keeps everything in memory.

    ``namespace`` is that of the credentials by which the same tables are seen over HTTP; those
    that name none share the default one.

    It is closed in good order when the block ends; a process that dies loses nothing that was
    acknowledged. ``log_directories`` keeps a copy of the log in each (see the README).
    ``triggers`` is a ``Triggers`` registry whose handlers run from now on. ``clock`` is for tests
    (``millstream.testing.ManualClock``).

    Raises:
        InvalidRequest: a trigger cannot be registered.
        DirectoryInUse: another process has it open.
        WrongFormat: not a millstream directory, or a newer one's.
        Corrupt: it is damaged and no copy heals it.
    """
    if not __debug__:
        raise RuntimeError("millstream refuses to run under python -O or PYTHONOPTIMIZE")
    host = real_host()
    if clock is not None:
        host = msgspec.structs.replace(host, clock=clock)
    async with open_on(
        host,
        None if path is None else os.fspath(path),
        NodeSettings(region=region, memtable_bytes=memtable_bytes),
        namespace=namespace,
        log_engine=log_engine,
        log_directories=tuple(log_directories),
        triggers=triggers,
    ) as database:
        yield database


@asynccontextmanager
async def open_on(
    host: Host,
    path: str | None,
    settings: NodeSettings,
    *,
    namespace: str,
    log_engine: str = "auto",
    log_directories: Sequence[str] = (),
    triggers: Iterable[Trigger] = (),
    regions: RegionSettings | None = None,
) -> AsyncIterator[Database]:
    """``open_database`` on a given host, and as one region of several."""
    async with open_node(
        path,
        settings,
        log_engine=log_engine,
        log_directories=log_directories,
        host=host,
        resolvers=resolvers_of(triggers, namespace),
        regions=regions,
    ) as node:
        mappings = await start_triggers(node, triggers, namespace=namespace)
        yield Database(node.tables, mappings, namespace)
