"""What an item must fulfil in one particular table: its keys, its index keys, its size.

Pure functions of a schema and canonical items. ``api/operations`` calls them at the edge for whole
items (PutItem, BatchWriteItem), the partition for the outcome of an update, which exists only
there. What they refuse is refused in DynamoDB's words, which differ between a put and an update.

DynamoDB counts an item's entries in the local indexes with the item: together they stay within
400 KB (developer guide, "Local secondary indexes", item size limit).
"""

from __future__ import annotations

from collections.abc import Collection

from ..errors import InvalidRequest
from ..limits import ITEM_SIZE_BYTES_MAX
from ..model.keys import check_index_keys, check_item_keys
from ..model.schema import GlobalIndex, LocalIndex, Table
from ..model.values import Item, item_size_bytes
from .indexes import entry_key, primary_key, projected

ITEM_TOO_LARGE = "Item size has exceeded the maximum allowed size"
UPDATE_TOO_LARGE = "Item size to update has exceeded the maximum allowed size"
_KEY_MISMATCH = "The provided key element does not match the schema"
# Of a type that only the item decides; DynamoDB words one that the request shows differently.
_UNSUPPORTED_TYPE = (
    "The update expression attempted to update the secondary index key to unsupported type"
)


def check_new_item(table: Table, item: Item) -> int:
    """Check a whole item for ``table``; its DynamoDB size in bytes.

    Raises InvalidRequest for a missing, mistyped, empty or oversized key attribute, for an invalid
    index key attribute and for an item above 400 KB.
    """
    size_bytes = item_size_bytes(item)
    check_put_item(table, item, size_bytes)
    return size_bytes


def check_put_item(table: Table, item: Item, size_bytes: int, *, batch: bool = False) -> None:
    """``check_new_item`` for an item whose size is known; ``batch`` has BatchWriteItem's words."""
    if batch and any(name not in item for name in table.key.names()):
        raise InvalidRequest(_KEY_MISMATCH)
    check_item_keys(item, table.key, batch=batch)
    check_index_keys(item, table)
    if _stored_bytes(table, item, size_bytes) > ITEM_SIZE_BYTES_MAX:
        raise InvalidRequest(ITEM_TOO_LARGE)


def check_updated_item(table: Table, item: Item, updated: Collection[str]) -> int:
    """Check ``item``, the outcome of an update; its size in bytes.

    ``updated`` are the top-level attributes that the update changes: index keys that it did not
    touch may be older than the index and are left alone. The table's own key cannot have changed.
    Raises InvalidRequest. What the request alone decides is checked at the edge: the types of
    literal index keys, and what UpdateItem charges besides the outcome (``Update.charge_bytes``).
    """
    indexes: list[LocalIndex | GlobalIndex] = [*table.local_indexes, *table.global_indexes]
    for index in indexes:
        for attribute in index.key.attributes():
            value = item.get(attribute.name)
            if value is not None and attribute.kind not in value and attribute.name in updated:
                raise InvalidRequest(_UNSUPPORTED_TYPE)
    check_index_keys(item, table, updated)
    size_bytes = item_size_bytes(item)
    if _stored_bytes(table, item, size_bytes) > ITEM_SIZE_BYTES_MAX:
        raise InvalidRequest(UPDATE_TOO_LARGE)
    return size_bytes


def _stored_bytes(table: Table, item: Item, size_bytes: int) -> int:
    """The item with its entries in the local indexes, in bytes."""
    local = table.local_indexes
    # An entry is never larger than its item, so most items need no closer look.
    if not local or size_bytes * (1 + len(local)) <= ITEM_SIZE_BYTES_MAX:
        return size_bytes
    key = primary_key(table, item)
    return size_bytes + sum(
        item_size_bytes(projected(table, index, item))
        for index in local
        if entry_key(table, index, item, key) is not None
    )
