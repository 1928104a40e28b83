"""The catalog: what tables there are, kept in a partition of its own like everything else.

Its commit decides every change of schema; what must then be made or removed (logs, trees, index
entries) follows from it, and is finished on the next start if a crash came in between. Rows are
``Table`` values under (namespace, name); one more row counts the trees given out; *entries* of
other kinds (streams, event source mappings, functions) are bytes under (kind, name).
"""

from __future__ import annotations

from base64 import b64decode, b64encode

import msgspec

from ..errors import Corrupt, WrongFormat
from ..model.keys import encode_component, prefix_end, table_key
from ..model.schema import (
    HASH_SPACE_END,
    TABLE_FORMAT,
    KeyAttribute,
    KeySchema,
    Partition,
    Status,
    Table,
)
from ..model.values import Item, decode_item, encode_item
from ..storage.commands import Delete, Put
from .partition import PartitionActor

CATALOG_LOG = "catalog"
#: Kinds of entries.
STREAM_ENTRY = "stream"
MAPPING_ENTRY = "mapping"
FAILED_ENTRY = "failed batch"
FUNCTION_ENTRY = "function"
GROUP_ENTRY = "group"
REGION_ENTRY = "region"
#: Names of entries of that kind: which region this is, and what its clock has reserved.
OWN_NAME = "own"
CLOCK_NAME = "clock"
CATALOG_TREE = 1
_ENTRY = "entry/"
# Tree 2 is the ledger's, 3 holds client tokens.
FIRST_TREE = 4

#: The catalog described as a table, so that an ordinary partition holds it.
CATALOG_TABLE = Table(
    namespace="",
    name="catalog",
    table_id="catalog",
    status=Status.ACTIVE,
    created_ms=0,
    key=KeySchema((KeyAttribute("namespace", "S"),), (KeyAttribute("name", "S"),)),
    attribute_kinds={"namespace": "S", "name": "S"},
    tree=CATALOG_TREE,
    partitions=(Partition(CATALOG_LOG, 0, HASH_SPACE_END - 1),),
)

_SEQUENCE_KEY = table_key(
    encode_component("S", {"S": "sequence"}), encode_component("S", {"S": "trees"})
)


class Catalog:
    """Reads and writes the catalog's rows. Owned by the node."""

    def __init__(self, partition: PartitionActor) -> None:
        self._partition = partition
        self.btree = partition.btree
        self._next_tree = FIRST_TREE
        row = partition.get(CATALOG_TREE, _SEQUENCE_KEY)
        if row is not None:
            self._next_tree = int(decode_item(row.body)["next"]["N"])

    def load(self) -> list[Table]:
        """Every table in the catalog.

        Raises:
            WrongFormat: a newer millstream wrote a row.
            Corrupt: a row cannot be read.
        """
        tables = []
        for key, row in self._partition.rows(CATALOG_TREE, b"", None):
            if key == _SEQUENCE_KEY:
                continue
            try:
                item = decode_item(row.body)
                if "entry" in item:
                    continue
                packed = b64decode(item["table"]["B"])
                table = msgspec.msgpack.decode(packed, type=Table)
            except (msgspec.DecodeError, KeyError) as error:
                raise Corrupt("a row of the catalog cannot be read") from error
            if table.format != TABLE_FORMAT:
                raise WrongFormat(f"table {table.name} has catalog format {table.format}")
            tables.append(table)
        return tables

    def take_trees(self, count: int) -> range:
        """``count`` tree numbers never used before; to be kept by ``save_sequence`` before use."""
        first = self._next_tree
        self._next_tree += count
        return range(first, first + count)

    async def save_sequence(self) -> None:
        """Make durable which tree numbers are taken."""
        await self._put(_SEQUENCE_KEY, {"next": {"N": str(self._next_tree)}})

    async def save(self, table: Table) -> None:
        """Make ``table`` what the catalog says; durable when this returns."""
        packed = b64encode(msgspec.msgpack.encode(table)).decode()
        await self._put(_row_key(table), {"table": {"B": packed}})

    async def remove(self, table: Table) -> None:
        """Forget ``table``; durable when this returns."""
        await self._partition.write(Delete(_row_key(table)))

    def entries(self, kind: str) -> dict[str, bytes]:
        """What ``save_entry`` has kept of this kind, by name."""
        low = table_key(encode_component("S", {"S": _ENTRY + kind}), None)
        found: dict[str, bytes] = {}
        for _, row in self._partition.rows(CATALOG_TREE, low, prefix_end(low)):
            item = decode_item(row.body)
            found[item["name"]["S"]] = b64decode(item["entry"]["B"])
        return found

    async def save_entry(self, kind: str, name: str, data: bytes) -> None:
        """Keep ``data`` as the entry ``name`` of its kind; durable when this returns.

        ``name`` has at most 1024 bytes of UTF-8, the sort key's limit; ``data`` is moderate.
        """
        item = {"name": {"S": name}, "entry": {"B": b64encode(data).decode()}}
        await self._put(_entry_key(kind, name), item)

    async def remove_entry(self, kind: str, name: str) -> None:
        """Forget an entry; durable when this returns. One that is not there is no error."""
        await self._partition.write(Delete(_entry_key(kind, name)))

    async def _put(self, key: bytes, item: Item) -> None:
        body = encode_item(item)
        await self._partition.write(Put(key, body, len(body)))


def _entry_key(kind: str, name: str) -> bytes:
    return table_key(
        encode_component("S", {"S": _ENTRY + kind}), encode_component("S", {"S": name})
    )


def _row_key(table: Table) -> bytes:
    return table_key(
        encode_component("S", {"S": "table/" + table.namespace}),
        encode_component("S", {"S": table.name}),
    )
