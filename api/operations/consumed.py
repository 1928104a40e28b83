"""What a request cost, as its answer tells: ConsumedCapacity and ItemCollectionMetrics.

The arithmetic is ``model.capacity``'s; here stored rows become its figures. Nothing here runs
unless the request asked for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...limits import SLICE_ROWS_MAX
from ...model.capacity import Consumption, index_write_units, write_units
from ...model.keys import encode_component, prefix_end, table_key
from ...model.schema import GlobalIndex, LocalIndex, Table
from ...model.values import Item, decode_item, item_size_bytes
from ...storage.commands import Checked, Refused, Written
from ...storage.indexes import entry_key, primary_key, projected

if TYPE_CHECKING:
    from ...actors.tables import TableRef, Tables

_GIGABYTE = 1 << 30


def add_write(
    consumption: Consumption,
    table: Table,
    result: Written | Refused | Checked,
    *,
    transactional: bool = False,
) -> None:
    """Count one write of the table and of its indexes.

    A condition without a write, failed or checked, costs what it read. A transaction doubles the
    table's units and leaves the indexes' as they are (reference 2.5).
    """
    if not isinstance(result, Written):
        found = result.found
        size_bytes = 0 if found is None else found.size_bytes
        consumption.add_table(write=write_units(size_bytes, transactional=transactional))
        return
    old, new = result.old, result.new
    before = 0 if old is None else old.size_bytes
    after = 0 if new is None else new.size_bytes
    consumption.add_table(write=write_units(max(before, after), transactional=transactional))
    if not table.local_indexes and not table.global_indexes:
        return
    old_item = None if old is None else decode_item(old.body)
    new_item = None if new is None else decode_item(new.body)
    for local in table.local_indexes:
        units = _index_units(table, local, old_item, new_item)
        consumption.add_local_index(local.name, write=units)
    for index in table.global_indexes:
        units = _index_units(table, index, old_item, new_item)
        consumption.add_global_index(index.name, write=units)


def _index_units(
    table: Table, index: LocalIndex | GlobalIndex, old: Item | None, new: Item | None
) -> float:
    """What the change from ``old`` to ``new`` costs one index."""
    old_key, old_entry = _entry(table, index, old)
    new_key, new_entry = _entry(table, index, new)
    return index_write_units(
        None if old_entry is None else item_size_bytes(old_entry),
        None if new_entry is None else item_size_bytes(new_entry),
        moved=old_key != new_key,
        changed=old_entry != new_entry,
    )


def _entry(
    table: Table, index: LocalIndex | GlobalIndex, item: Item | None
) -> tuple[bytes | None, Item | None]:
    """The key and the content of the item's entry; None twice if it has none."""
    if item is None:
        return None, None
    key = entry_key(table, index, item, primary_key(table, item))
    return key, None if key is None else projected(table, index, item)


def capacity_member(consumption: Consumption, table_name: str, mode: str) -> bytes:
    """The ConsumedCapacity member of an answer about one table, as JSON."""
    return b'"ConsumedCapacity":' + msgspec.json.encode(consumption.render(table_name, mode))


async def collection_metrics(tables: Tables, ref: TableRef, key: Item) -> dict[str, Any] | None:
    """ItemCollectionMetrics of the collection that ``key`` is in; None without local indexes.

    The estimate is the whole gigabytes below and above the size of the items with their entries in
    the local indexes.
    """
    table = ref.table
    if not table.local_indexes:
        return None
    attribute = table.key.hash[0]
    value = key[attribute.name]
    gigabytes = 0
    # Most tables cannot hold a collection of a gigabyte, because all of it is smaller.
    if ref.statistics().size_bytes * (1 + len(table.local_indexes)) >= _GIGABYTE:
        prefix = table_key(encode_component(attribute.kind, value), None)
        size_bytes = await _size_bytes(tables, ref, None, prefix)
        for index in table.local_indexes:
            size_bytes += await _size_bytes(tables, ref, index.name, prefix)
        gigabytes = size_bytes // _GIGABYTE
    return {
        "ItemCollectionKey": {attribute.name: value},
        "SizeEstimateRangeGB": [float(gigabytes), float(gigabytes + 1)],
    }


async def _size_bytes(tables: Tables, ref: TableRef, index: str | None, prefix: bytes) -> int:
    """The size of all rows under ``prefix``, counted in slices."""
    size_bytes = 0
    low: bytes | None = prefix
    while low is not None:
        start, low = low, None
        for count, (key, row) in enumerate(ref.rows(index, start, prefix_end(prefix))):
            if count == SLICE_ROWS_MAX:
                low = key
                break
            size_bytes += row.size_bytes
        if low is not None:
            await tables.breathe()
    return size_bytes
