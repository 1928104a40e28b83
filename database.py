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
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from decimal import Decimal
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
from .errors import InvalidRequest, Throttled, TransactionConflict
from .handlers import start_triggers
from .host.clock import Clock
from .host.host import Host, real_host
from .lambdas.context import current_trace
from .lambdas.trigger import Trigger
from .limits import (
    BATCH_GET_KEYS_MAX,
    BATCH_WRITE_REQUESTS_MAX,
    REPLICA_LOOK_SECONDS,
    TRANSACTION_PAUSE_SECONDS,
)
from .model.python_values import from_item, to_attribute, to_item
from .streams.lineage import hops_of
from .transaction import Transaction
from .trigger_control import TriggerControl
from .triggers import make_trigger

if TYPE_CHECKING:
    from .actors.regions import RegionSettings

Plain: TypeAlias = dict[str, Any]
Result = TypeVar("Result")
KeyPart: TypeAlias = str | tuple[str, type]
StreamView: TypeAlias = Literal["KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES"]
Returns: TypeAlias = Literal["NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW"]
_Operation: TypeAlias = Callable[[Tables, Caller, bytes], Awaitable[bytes]]

_KINDS: dict[type, str] = {str: "S", int: "N", float: "N", Decimal: "N", bytes: "B"}
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Index(msgspec.Struct, frozen=True):
    """A secondary index to be made with a table or on one.

    Keys are attribute names (strings) or ``(name, type)`` pairs with type ``str``, ``int`` or
    ``bytes``; a sequence of them makes a multi-attribute key of up to four. Without
    ``partition_key`` the index is local: it shares the table's partition key, is read in step with
    the table, and can be made only together with it. ``projection`` is ``"ALL"``,
    ``"KEYS_ONLY"`` or the names of the attributes to hold besides the keys.
    """

    name: str
    partition_key: KeyPart | list[KeyPart] | None = None
    sort_key: KeyPart | list[KeyPart] | None = None
    projection: str | Sequence[str] = "ALL"


class Table:
    """One table of a ``Database``. Holds nothing but its name; cheap to make."""

    __slots__ = ("_database", "name")

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self.name = name

    def __repr__(self) -> str:
        return f"<Table {self.name}>"

    async def get(
        self,
        key: Plain,
        *,
        projection: str | None = None,
        names: Mapping[str, str] | None = None,
    ) -> Plain | None:
        """The item under ``key``, or None. Always sees the newest write.

        Raises:
            ResourceNotFound: no such table.
            InvalidRequest: the key does not fit the table, or the projection is malformed.
        """
        request = {"Key": to_item(key), **_expressions(names=names)}
        if projection is not None:
            request["ProjectionExpression"] = projection
        answer = await self._call(items.get_item, request)
        return from_item(answer["Item"]) if "Item" in answer else None

    async def put(
        self,
        item: Plain,
        *,
        condition: str | None = None,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
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
        request |= _expressions(condition=condition, names=names, values=values)
        return _attributes(await self._call(items.put_item, request))

    async def update(
        self,
        key: Plain,
        update: str,
        *,
        condition: str | None = None,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
        returns: Returns = "ALL_NEW",
    ) -> Plain | None:
        """Change the item under ``key`` by an update expression, creating it if absent.

        Returns what ``returns`` asks for, by default the whole new item. Raises as ``put`` does.
        """
        request = {"Key": to_item(key), "UpdateExpression": update, "ReturnValues": returns}
        request |= _expressions(condition=condition, names=names, values=values)
        return _attributes(await self._call(items.update_item, request))

    async def delete(
        self,
        key: Plain,
        *,
        condition: str | None = None,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> Plain | None:
        """Remove the item under ``key``; returns it, or None if there was none.

        Raises as ``put`` does.
        """
        request = {"Key": to_item(key), "ReturnValues": "ALL_OLD"}
        request |= _expressions(condition=condition, names=names, values=values)
        return _attributes(await self._call(items.delete_item, request))

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
    ) -> AsyncIterator[Plain]:
        """Items of one partition key, in the order of the sort key; pages are fetched as needed.

        ``limit`` bounds the items returned (after the filter). What is written while the iteration
        goes on may or may not be seen, as with DynamoDB's pages.
        """
        request: Plain = {"KeyConditionExpression": key_condition, "ScanIndexForward": not reverse}
        request |= _expressions(index, filter, projection, names=names, values=values)
        async for item in self._pages(queries.query, request, filter, limit):
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
    ) -> AsyncIterator[Plain]:
        """Every item of the table or index, in no meaningful order; pages as needed.

        ``segment`` ``(i, n)`` is the i-th (from 0) of n parts that together make the whole.
        """
        request = _expressions(index, filter, projection, names=names, values=values)
        if segment is not None:
            request["Segment"], request["TotalSegments"] = segment
        async for item in self._pages(scans.scan, request, filter, limit):
            yield item

    async def put_many(self, items: Iterable[Plain]) -> None:
        """Store many items: batches, not a transaction. Later ones win over earlier ones' keys.

        Each item is durable or an error is raised; after an error any part may be stored.
        """
        await self._write_many({"PutRequest": {"Item": to_item(item)}} for item in items)

    async def delete_many(self, keys: Iterable[Plain]) -> None:
        """Remove many items: batches, not a transaction."""
        await self._write_many({"DeleteRequest": {"Key": to_item(key)}} for key in keys)

    async def get_many(self, keys: Sequence[Plain]) -> list[Plain]:
        """The items under ``keys`` that exist, in no particular order."""
        found: list[Plain] = []
        pending = [to_item(key) for key in keys]
        while pending:
            part, pending = pending[:BATCH_GET_KEYS_MAX], pending[BATCH_GET_KEYS_MAX:]
            answer = await self._database._call(
                batches.batch_get_item, {"RequestItems": {self.name: {"Keys": part}}}
            )
            found += (from_item(item) for item in answer["Responses"].get(self.name, ()))
            pending += answer["UnprocessedKeys"].get(self.name, {"Keys": []})["Keys"]
        return found

    async def _write_many(self, requests: Iterable[Plain]) -> None:
        pending = list(requests)
        while pending:
            part, pending = pending[:BATCH_WRITE_REQUESTS_MAX], pending[BATCH_WRITE_REQUESTS_MAX:]
            answer = await self._database._call(
                batches.batch_write_item, {"RequestItems": {self.name: part}}
            )
            pending = answer["UnprocessedItems"].get(self.name, []) + pending

    async def _pages(
        self, operation: _Operation, request: Plain, filter: str | None, limit: int | None
    ) -> AsyncIterator[Plain]:
        if limit is not None and limit < 1:
            raise InvalidRequest("limit: at least 1")
        left = limit
        while True:
            if left is not None and filter is None:
                request["Limit"] = left
            answer = await self._call(operation, request)
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

    async def _call(self, operation: _Operation, request: Plain) -> Plain:
        return await self._database._call(operation, {"TableName": self.name, **request})


class Database:
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

    def table(self, name: str) -> Table:
        """The table called ``name``; whether it exists shows when it is used."""
        return Table(self, name)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A transaction that is committed when the block ends well; see ``Transaction``.

        Raises at the end of the block what ``Transaction.commit`` raises.
        """
        transaction = Transaction(self._tables, self._caller)
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
            "KeySchema": _key_schema(kinds, partition_key, sort_key),
        }
        for index in indexes:
            is_local = index.partition_key is None
            member = "LocalSecondaryIndexes" if is_local else "GlobalSecondaryIndexes"
            leading = partition_key if index.partition_key is None else index.partition_key
            request.setdefault(member, []).append(_index(kinds, index, leading))
        request["AttributeDefinitions"] = _definitions(kinds)
        if stream is not None:
            request["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": stream}
        await self._call(table_operations.create_table, request)
        await self._wait_active(name)
        return self.table(name)

    async def create_index(self, table: str, index: Index) -> None:
        """Make a global index on a table and wait until it holds what the table holds."""
        if index.partition_key is None:
            raise InvalidRequest("A local index is made together with its table")
        kinds: dict[str, str] = {}
        created = _index(kinds, index, index.partition_key)
        await self._call(
            table_operations.update_table,
            {
                "TableName": table,
                "AttributeDefinitions": _definitions(kinds),
                "GlobalSecondaryIndexUpdates": [{"Create": created}],
            },
        )
        await self._wait_active(table)

    async def delete_index(self, table: str, name: str) -> None:
        """Remove a global index and wait until it is gone."""
        await self._call(
            table_operations.update_table,
            {
                "TableName": table,
                "GlobalSecondaryIndexUpdates": [{"Delete": {"IndexName": name}}],
            },
        )
        await self._wait_active(table)

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
        await self._wait_active(table)

    # Other regions, for a database of ``open_regions``.

    async def add_replica(self, table: str, region: str) -> None:
        """Give a table a replica in another region, and wait until it is ACTIVE.

        Raises:
            ResourceNotFound: there is no such table here.
            ResourceInUse: another region joins or leaves just now.
            InvalidRequest: the region is none of this database's, or has the table already.
        """
        await self._update_replica(table, {"Create": {"RegionName": region}})
        await self._wait_replica(table, region)

    async def remove_replica(self, table: str, region: str, *, keep: bool = False) -> None:
        """Remove a table's replica in another region, and wait until it is gone.

        With ``keep`` its table stays there, as one of that region alone. Raises as ``add_replica``.
        """
        action = "Disassociate" if keep else "Delete"
        await self._update_replica(table, {action: {"RegionName": region}})
        while region in await self.replicas(table):
            await self._tables.pause(REPLICA_LOOK_SECONDS)

    async def replicas(self, table: str) -> dict[str, str]:
        """The other regions that have the table, with the status of each."""
        found = (await self.describe_table(table)).get("Replicas", ())
        return {replica["RegionName"]: replica["ReplicaStatus"] for replica in found}

    async def _update_replica(self, table: str, update: Plain) -> None:
        request = {"TableName": table, "ReplicaUpdates": [update]}
        await self._call(table_operations.update_table, request)

    async def _wait_replica(self, name: str, region: str) -> None:
        while True:
            table = await self.describe_table(name)
            replicas = {each["RegionName"]: each for each in table.get("Replicas", ())}
            replica = replicas.get(region, {"ReplicaStatus": "CREATION_FAILED"})
            if replica["ReplicaStatus"] == "CREATION_FAILED":
                reason = replica.get("ReplicaStatusDescription", "it was removed meanwhile")
                raise InvalidRequest(f"{region} has no replica of {name}: {reason}")
            if (table["TableStatus"], replica["ReplicaStatus"]) == ("ACTIVE", "ACTIVE"):
                return
            await self._tables.pause(REPLICA_LOOK_SECONDS)

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

    async def _wait_active(self, name: str) -> None:
        await self._tables.wait_active(self._caller.namespace, name)

    async def _call(self, operation: _Operation, request: Plain) -> Plain:
        answer: Plain = _decode(await operation(self._tables, self._caller, _encode(request)))
        return answer


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
    settings = NodeSettings(region=region, memtable_bytes=memtable_bytes)
    host = real_host()
    if clock is not None:
        host = msgspec.structs.replace(host, clock=clock)
    async with open_on(
        host,
        None if path is None else os.fspath(path),
        settings,
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
        regions=regions,
    ) as node:
        mappings = await start_triggers(node, triggers, namespace=namespace)
        yield Database(node.tables, mappings, namespace)


def _expressions(
    index: str | None = None,
    filter: str | None = None,
    projection: str | None = None,
    *,
    condition: str | None = None,
    names: Mapping[str, str] | None = None,
    values: Mapping[str, Any] | None = None,
) -> Plain:
    """The members of a request for whatever is given."""
    request: Plain = {}
    if index is not None:
        request["IndexName"] = index
    if filter is not None:
        request["FilterExpression"] = filter
    if projection is not None:
        request["ProjectionExpression"] = projection
    if condition is not None:
        request["ConditionExpression"] = condition
        request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    if names is not None:
        request["ExpressionAttributeNames"] = dict(names)
    if values is not None:
        request["ExpressionAttributeValues"] = {
            name: to_attribute(value, name) for name, value in values.items()
        }
    return request


def _attributes(answer: Plain) -> Plain | None:
    attributes = answer.get("Attributes")
    return None if attributes is None else from_item(attributes)


def _parts(part: KeyPart | list[KeyPart] | None) -> list[tuple[str, type]]:
    if part is None:
        return []
    parts = part if isinstance(part, list) else [part]
    return [(entry, str) if isinstance(entry, str) else entry for entry in parts]


def _key_schema(
    kinds: dict[str, str],
    partition_key: KeyPart | list[KeyPart],
    sort_key: KeyPart | list[KeyPart] | None,
) -> list[Plain]:
    schema = []
    for role, parts in (("HASH", _parts(partition_key)), ("RANGE", _parts(sort_key))):
        for name, kind in parts:
            if kind not in _KINDS:
                raise InvalidRequest(f"{name}: a key is str, int, float, Decimal or bytes")
            kinds[name] = _KINDS[kind]
            schema.append({"AttributeName": name, "KeyType": role})
    return schema


def _index(kinds: dict[str, str], index: Index, leading: KeyPart | list[KeyPart]) -> Plain:
    projection: Plain
    if index.projection in ("ALL", "KEYS_ONLY"):
        projection = {"ProjectionType": index.projection}
    else:
        attributes = index.projection
        if isinstance(attributes, str):
            raise InvalidRequest(f"{index.name}: a projection is ALL, KEYS_ONLY or a list of names")
        projection = {"ProjectionType": "INCLUDE", "NonKeyAttributes": list(attributes)}
    return {
        "IndexName": index.name,
        "KeySchema": _key_schema(kinds, leading, index.sort_key),
        "Projection": projection,
    }


def _definitions(kinds: dict[str, str]) -> list[Plain]:
    return [{"AttributeName": name, "AttributeType": kind} for name, kind in kinds.items()]
