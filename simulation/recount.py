"""What indexes and totals must be, counted again from the table's rows."""

from __future__ import annotations

from collections.abc import Iterable

from ..model.schema import GlobalIndex, LocalIndex, Table
from ..model.values import decode_item
from ..storage.indexes import entry_body, entry_key
from ..storage.rows import Row, decode_row
from ..storage.totals import Totals


def expected_entries(
    table: Table, index: LocalIndex | GlobalIndex, rows: Iterable[tuple[bytes, Row]]
) -> dict[bytes, bytes]:
    """Entry key -> body, for every entry that ``rows`` have in ``index``."""
    entries: dict[bytes, bytes] = {}
    for key, row in rows:
        item = decode_item(row.body)
        entry = entry_key(table, index, item, key)
        if entry is not None:
            assert entry not in entries
            entries[entry] = entry_body(table, index, item)[0]
    return entries


def counted(rows: Iterable[tuple[bytes, bytes]]) -> tuple[int, int, int]:
    """The totals of stored rows: count, size in bytes, checksum sum."""
    totals = Totals()
    for key, data in rows:
        totals.replace(None, 0, data, decode_row(key, data).size_bytes)
    return totals.as_tuple()
