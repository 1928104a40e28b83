"""A node in memory, and helpers that write and read items through it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from millstream.actors.data_directory import open_node
from millstream.actors.node import Node, NodeSettings
from millstream.actors.tables import TableRef
from millstream.model.schema import (
    KeyAttribute,
    KeySchema,
    NewIndex,
    NewTable,
    Projection,
)
from millstream.model.values import Item, encode_item, item_size_bytes
from millstream.storage.commands import Delete, Put
from millstream.storage.indexes import primary_key

ALL = Projection("ALL")


def index(name: str, attribute: str, projection: Projection = ALL) -> NewIndex:
    return NewIndex(name, KeySchema((KeyAttribute(attribute, "S"),)), projection)


async def make_table(node: Node, *indexes: NewIndex, name: str = "t", **more: Any) -> TableRef:
    key = KeySchema((KeyAttribute("pk", "S"),))
    kinds = {"pk": "S"} | {entry.key.hash[0].name: "S" for entry in indexes}
    await node.tables.create(NewTable("", name, key, kinds, global_indexes=indexes, **more))
    return await until_active(node, name)


async def until_active(node: Node, name: str = "t") -> TableRef:
    with trio.fail_after(10):
        await node.tables.wait_active("", name)
    ref = node.tables.find("", name)
    assert ref is not None
    return ref


def put(ref: TableRef, **attributes: str) -> Put:
    item: Item = {name: {"S": text} for name, text in attributes.items()}
    return Put(primary_key(ref.table, item), encode_item(item), item_size_bytes(item))


def delete(ref: TableRef, pk: str) -> Delete:
    return Delete(primary_key(ref.table, {"pk": {"S": pk}}))


async def caught_up(node: Node) -> None:
    """Return when every index holds what its table holds."""
    with trio.fail_after(10):
        for builder in node.index_builders():
            await builder.caught_up()


def bodies(ref: TableRef, index_name: str | None = None) -> list[bytes]:
    return sorted(row.body for _, row in ref.rows(index_name, b"", None))


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with open_node(None, NodeSettings()) as node:
        yield node
