"""A node's tables in memory, so that the table operations can be tested without a node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from millstream.actors.tables import TableStatistics
from millstream.api.calls import Caller
from millstream.errors import ResourceInUse
from millstream.model.schema import (
    GlobalIndex,
    LocalIndex,
    NewTable,
    Status,
    Table,
    TableChange,
)

NOW_MS = 1_700_000_000_000
CALLER = Caller("default", "AKID", "us-east-1", "request")


class FakeRef:
    """What the operations use of a ``TableRef``."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.counted = TableStatistics(0, 0, {})

    def statistics(self) -> TableStatistics:
        return self.counted


class FakeTables:
    """What the operations use of ``Tables``: every change is done at once."""

    region = "us-east-1"
    account = "000000000000"
    regions = None

    def __init__(self) -> None:
        self.refs: dict[tuple[str, str], FakeRef] = {}
        self.now = NOW_MS
        self.changes: list[TableChange] = []

    def find(self, namespace: str, name: str) -> FakeRef | None:
        return self.refs.get((namespace, name))

    def names(self, namespace: str) -> list[str]:
        return sorted(name for space, name in self.refs if space == namespace)

    def now_ms(self) -> int:
        return self.now

    async def create(self, new: NewTable) -> Table:
        if (new.namespace, new.name) in self.refs:
            raise ResourceInUse(f"Table already exists: {new.name}")
        creating = self.row(new, Status.CREATING)
        self.refs[new.namespace, new.name] = FakeRef(self.row(new, Status.ACTIVE))
        return creating

    def row(self, new: NewTable, status: Status) -> Table:
        return Table(
            namespace=new.namespace,
            name=new.name,
            table_id="id-of-" + new.name,
            status=status,
            created_ms=self.now,
            key=new.key,
            attribute_kinds=new.attribute_kinds,
            tree=1,
            partitions=(),
            local_indexes=tuple(
                LocalIndex(each.name, each.key, each.projection, 2) for each in new.local_indexes
            ),
            global_indexes=tuple(
                GlobalIndex(
                    each.name,
                    each.key,
                    each.projection,
                    3,
                    (),
                    status,
                    throughput=each.throughput,
                    unit_limits=each.unit_limits,
                    warm_units=each.warm_units,
                )
                for each in new.global_indexes
            ),
            billing_mode=new.billing_mode,
            throughput=new.throughput,
            unit_limits=new.unit_limits,
            warm_units=new.warm_units,
            table_class=new.table_class,
            deletion_protection=new.deletion_protection,
            tags=new.tags,
        )

    async def change(self, change: TableChange) -> Table:
        wanted = change.table
        ref = self.refs[wanted.namespace, wanted.name]
        assert ref.table.schema_version == wanted.schema_version
        self.changes.append(change)
        indexes = list(wanted.global_indexes)
        if change.create_index is not None:
            new = change.create_index
            indexes.append(
                GlobalIndex(
                    new.name,
                    new.key,
                    new.projection,
                    9,
                    (),
                    Status.CREATING,
                    backfilling=True,
                    throughput=new.throughput,
                )
            )
        indexes = [
            msgspec.structs.replace(each, status=Status.DELETING)
            if each.name == change.delete_index
            else each
            for each in indexes
        ]
        updating = change.create_index is not None or change.delete_index is not None
        ref.table = msgspec.structs.replace(
            wanted,
            schema_version=wanted.schema_version + 1,
            global_indexes=tuple(indexes),
            status=Status.UPDATING if updating else Status.ACTIVE,
        )
        return ref.table

    async def delete(self, namespace: str, name: str) -> Table:
        ref = self.refs[namespace, name]
        ref.table = msgspec.structs.replace(ref.table, status=Status.DELETING)
        return ref.table

    def become(self, name: str, **fields: Any) -> None:
        """Change the row of a table of the default namespace."""
        ref = self.refs["default", name]
        ref.table = msgspec.structs.replace(ref.table, **fields)


Operation = Callable[[Any, Caller, bytes], Awaitable[bytes]]


class Client:
    """Calls operations with members, and decodes the answer."""

    def __init__(self, tables: FakeTables) -> None:
        self.tables = tables

    async def __call__(self, operation: Operation, /, **members: Any) -> Any:
        answer = await operation(self.tables, CALLER, msgspec.json.encode(members))
        return msgspec.json.decode(answer) if answer else None


@pytest.fixture
def tables() -> FakeTables:
    return FakeTables()


@pytest.fixture
def call(tables: FakeTables) -> Client:
    return Client(tables)
