"""A node in a few lines: the partition's own machine over memory, without log, actor or server.

``db`` answers requests through the real dispatcher. Global indexes are written at once, which the
real ones never are; everything that operations decide is decided by the code under test.
"""

from __future__ import annotations

import json
from collections.abc import Coroutine, Iterator
from typing import Any

import msgspec
import pytest

from millstream.actors.tables import TableStatistics
from millstream.api.calls import Caller
from millstream.api.dispatch import Dispatcher
from millstream.api.errors import to_wire
from millstream.errors import InvalidRequest, MillstreamError, Throttled
from millstream.model.schema import (
    GlobalIndex,
    KeyAttribute,
    KeySchema,
    LocalIndex,
    Projection,
    Status,
    Table,
)
from millstream.model.values import decode_item
from millstream.storage.commands import Command, Refused, Written
from millstream.storage.indexes import entry_body, entry_key
from millstream.storage.rows import Bodies, Row, decode_row
from millstream.storage.table_state import TableState, replace_row
from millstream.storage.totals import Totals
from millstream.storage.tree.btree import BTree
from millstream.storage.tree.memory_store import MemoryStore

CALLER = Caller("", "key", "us-east-1", "1")


class FakeRef:
    """One table in one partition."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.btree = BTree(MemoryStore())
        self.state = TableState(table, self.btree, 0, {})
        self.hlc = 0
        self.throttled_keys: set[bytes] = set()
        self.commands: list[Command] = []
        self.totals: dict[int, Totals] = {}

    def get(self, key: bytes) -> Row | None:
        return self.state.get(key)

    async def write(self, command: Command) -> Written | Refused:
        self.commands.append(command)
        if command.key in self.throttled_keys:
            raise Throttled("slow down")
        self.hlc += 1
        evaluation = self.state.evaluate(command, self.hlc)
        for record in evaluation.records:
            self.state.apply(record)
            self.state.applied(record)
        result = evaluation.result
        if isinstance(result, InvalidRequest):
            raise result
        if isinstance(result, Written):
            for index in self.table.global_indexes:
                self._follow(index, command.key, result)
        return result

    async def write_many(self, commands: list[Command]) -> list[Any]:
        results: list[Any] = []
        for command in commands:
            try:
                results.append(await self.write(command))
            except Throttled as error:
                results.append(error)
        return results

    def _follow(self, index: GlobalIndex, key: bytes, written: Written) -> None:
        totals = self.totals.setdefault(index.tree, Totals())
        for row, keep in ((written.old, False), (written.new, True)):
            if row is None:
                continue
            item = decode_item(row.body)
            entry = entry_key(self.table, index, item, key)
            if entry is None:
                continue
            body, size_bytes = entry_body(self.table, index, item)
            new = Row(body, size_bytes, self.hlc) if keep else None
            replace_row(self.btree, index.tree, totals, entry, new)

    def rows(
        self, index: str | None, low: bytes, high: bytes | None, reverse: bool = False
    ) -> Iterator[tuple[bytes, Row]]:
        tree = self.table.tree
        if index is not None:
            found = self.table.local_index(index) or self.table.global_index(index)
            assert found is not None
            tree = found.tree
        for key, data in self.btree.range(tree, low, high, reverse):
            yield key, decode_row(key, data)

    def bodies(
        self,
        index: str | None,
        low: bytes,
        high: bytes | None,
        reverse: bool,
        rows_max: int,
        bytes_max: int,
    ) -> Bodies:
        taken = Bodies([], 0, b"")
        for key, row in self.rows(index, low, high, reverse):
            taken.bodies.append(row.body)
            taken.size_bytes += row.size_bytes
            taken.last = key
            if len(taken.bodies) == rows_max or taken.size_bytes >= bytes_max:
                break
        return taken

    def statistics(self) -> TableStatistics:
        totals = self.state.totals[self.table.tree]
        return TableStatistics(totals.count, totals.size_bytes, {})


class FakeTables:
    def __init__(self) -> None:
        self.refs: dict[str, FakeRef] = {}
        self.breaths = 0

    def find(self, namespace: str, name: str) -> FakeRef | None:
        return self.refs.get(name)

    async def breathe(self) -> None:
        self.breaths += 1


class Refusal(Exception):
    """What the wire would say."""

    def __init__(self, kind: str, message: str | None, body: dict[str, Any]) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message
        self.body = body


class Db:
    """Requests as keyword arguments, answers as decoded JSON."""

    def __init__(self) -> None:
        self.tables = FakeTables()
        self.dispatcher = Dispatcher(self.tables)  # type: ignore[arg-type]

    def call(self, operation: str, **request: Any) -> Any:
        return self.send(operation, json.dumps(request).encode())

    def send(self, operation: str, body: bytes) -> Any:
        """Raises Refusal for an error answer."""
        try:
            return json.loads(
                drive(self.dispatcher.dispatch(f"DynamoDB_20120810.{operation}", body, CALLER))
            )
        except MillstreamError as error:
            told = json.loads(to_wire(error).body())
            kind = told["__type"].rpartition("#")[2]
            raise Refusal(kind, told.get("message", told.get("Message")), told) from error

    def refused(self, operation: str, **request: Any) -> str:
        """The message of the refusal that must come; ``Kind: message`` unless a validation."""
        with pytest.raises(Refusal) as caught:
            self.call(operation, **request)
        if caught.value.kind == "ValidationException":
            return str(caught.value.message)
        return str(caught.value)

    def answered(self, operation: str, body: bytes) -> bool:
        """True for success, False for a refusal, which must not be an internal error."""
        kind = ""
        try:
            self.send(operation, body)
        except Refusal as refusal:
            kind = refusal.kind
        assert kind != "InternalServerError", (operation, body)
        return not kind

    def put(self, table: str, *items: dict[str, Any]) -> None:
        for item in items:
            self.call("PutItem", TableName=table, Item=item)

    def change(self, name: str, **changes: Any) -> None:
        """Give a table another schema row."""
        ref = self.tables.refs[name]
        ref.table = msgspec.structs.replace(ref.table, **changes)


def drive(coroutine: Coroutine[Any, Any, bytes]) -> bytes:
    """Run what never really waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        answer: bytes = stop.value
        return answer
    raise AssertionError("the fake engine never waits")


def key(hash_name: str, range_name: str | None = None, *, kinds: str = "SS") -> KeySchema:
    range_ = () if range_name is None else (KeyAttribute(range_name, kinds[1]),)
    return KeySchema((KeyAttribute(hash_name, kinds[0]),), range_)


def new_table(name: str, schema: KeySchema, **members: Any) -> Table:
    kinds = {attribute.name: attribute.kind for attribute in schema.attributes()}
    for index in (*members.get("local_indexes", ()), *members.get("global_indexes", ())):
        kinds |= {attribute.name: attribute.kind for attribute in index.key.attributes()}
    return Table(
        namespace="",
        name=name,
        table_id=name,
        status=Status.ACTIVE,
        created_ms=0,
        key=schema,
        attribute_kinds=kinds,
        tree=1,
        partitions=(),
        **members,
    )


def local(name: str, range_name: str, tree: int, projection: Projection) -> LocalIndex:
    return LocalIndex(name, key("pk", range_name), projection, tree)


def global_(name: str, schema: KeySchema, tree: int, projection: Projection) -> GlobalIndex:
    return GlobalIndex(name, schema, projection, tree, (), Status.ACTIVE)


@pytest.fixture
def db() -> Db:
    """``plain`` (hash key pk) and ``rich`` (pk, sk; two local and three global indexes)."""
    made = Db()
    everything, keys = Projection("ALL"), Projection("KEYS_ONLY")
    several = KeySchema(
        (KeyAttribute("h1", "S"), KeyAttribute("h2", "S")),
        (KeyAttribute("r1", "S"), KeyAttribute("r2", "N")),
    )
    for table in (
        new_table("plain", key("pk")),
        new_table("counted", key("pk", "sk", kinds="SN")),
        new_table(
            "rich",
            key("pk", "sk"),
            local_indexes=(
                local("local-all", "lk", 2, everything),
                local("local-keys", "lk", 3, keys),
            ),
            global_indexes=(
                global_("global-all", key("gk"), 4, everything),
                global_("global-some", key("gk", "gs"), 5, Projection("INCLUDE", ("data",))),
                global_("global-many", several, 6, everything),
            ),
        ),
    ):
        made.tables.refs[table.name] = FakeRef(table)
    return made
