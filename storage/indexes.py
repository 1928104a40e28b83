"""Which entries an item has in its table's secondary indexes.

An index is sparse: an item that lacks one of the index's key attributes has no entry. An entry is
identified by index key *and* table key, so items that share an index key never hide each other.
Local entries live under the table's own partition key, so they share its partition; global entries
live wherever the hash of their own key says.

Pure functions of a schema and an item; the partition applies local entries itself, an index
builder carries global ones over.
"""

from __future__ import annotations

from ..model.keys import encode_component, index_key, table_key
from ..model.schema import GlobalIndex, LocalIndex, Table
from ..model.values import Item, encode_item, item_size_bytes


def primary_key(table: Table, item: Item) -> bytes:
    """The tree key of ``item``, whose key attributes have been checked."""
    hash_attribute = table.key.hash[0]
    hash_component = encode_component(hash_attribute.kind, item[hash_attribute.name])
    if not table.key.range:
        return table_key(hash_component, None)
    range_attribute = table.key.range[0]
    return table_key(
        hash_component, encode_component(range_attribute.kind, item[range_attribute.name])
    )


def entry_key(
    table: Table, index: LocalIndex | GlobalIndex, item: Item, item_key: bytes
) -> bytes | None:
    """The key of the item's entry in ``index``; None if it has none.

    An attribute of another type than the index's counts as absent: such items can exist when the
    index was added later.
    """
    components: list[bytes] = []
    for attribute in index.key.attributes():
        value = item.get(attribute.name)
        if value is None or attribute.kind not in value:
            return None
        text = value[attribute.kind]
        if text == "":
            return None
        components.append(encode_component(attribute.kind, value))
    if isinstance(index, LocalIndex):
        range_attribute = table.key.range[0]
        components.append(encode_component(range_attribute.kind, item[range_attribute.name]))
        return item_key[:8] + b"".join(components)
    hash_count = len(index.key.hash)
    return index_key(components[:hash_count], components[hash_count:], item_key)


def projected(table: Table, index: LocalIndex | GlobalIndex, item: Item) -> Item:
    """What ``index`` holds of ``item``."""
    if index.projection.kind == "ALL":
        return item
    names = {*table.key.names(), *index.key.names(), *index.projection.attributes}
    return {name: value for name, value in item.items() if name in names}


def entry_body(table: Table, index: LocalIndex | GlobalIndex, item: Item) -> tuple[bytes, int]:
    """The body of the item's entry and its size as DynamoDB counts it, in bytes."""
    held = projected(table, index, item)
    return encode_item(held), item_size_bytes(held)
