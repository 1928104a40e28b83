"""One layer of the memtable, how layers are read over a store, and snapshots of them.

``BTree`` owns the layers: one mutable, at most one frozen. A row in an upper layer hides the same
key further down, and a tombstone (None) hides it for good.
"""

from __future__ import annotations

from collections.abc import Iterator

from .interface import Change, Row, StoreSnapshot, TreeReader
from .sorted_rows import SortedRows, shadow


class Layer:
    """One layer of the memtable.

    The invariant: a tree in ``dropped`` has no rows here, and everything of it below is void.
    """

    __slots__ = ("dropped", "meta", "rows", "size_bytes")

    def __init__(self) -> None:
        self.rows: dict[int, SortedRows] = {}
        self.meta: dict[bytes, bytes | None] = {}
        self.dropped: set[int] = set()
        self.size_bytes = 0  # Of keys, values and MEMTABLE_ROW_OVERHEAD_BYTES for each row.

    def is_empty(self) -> bool:
        return not (self.rows or self.meta or self.dropped)


def merged_rows(
    layers: list[Layer],
    reader: TreeReader,
    tree: int,
    low: bytes,
    high: bytes | None,
    reverse: bool,
) -> Iterator[Row]:
    """The rows of a range; the reader's own iterator if no layer has anything in it."""
    if high is not None and high <= low:
        return iter(())
    below = reader.range(tree, low, high, reverse)
    merged: Iterator[Change] | None = None
    for layer in reversed(layers):
        rows = layer.rows.get(tree)
        if rows is not None and rows.touches(low, high):
            above = rows.range(low, high, reverse)
            merged = shadow(above, below if merged is None else merged, reverse)
    if merged is None:
        return below
    return ((key, value) for key, value in merged if value is not None)


def merged_meta(layers: list[Layer], reader: TreeReader, prefix: bytes) -> list[Row]:
    found: dict[bytes, bytes | None] = dict(reader.meta_range(prefix))
    for layer in reversed(layers):
        found.update((key, value) for key, value in layer.meta.items() if key.startswith(prefix))
    return [(key, value) for key, value in sorted(found.items()) if value is not None]


class Snapshot:
    """All trees of a ``BTree`` at one moment, whatever happens to it afterwards.

    Holds a read transaction of the store, which keeps every page replaced meanwhile: the holder
    bounds the time. Used on the loop's thread; an iterator ends before the next await, and a longer
    scan goes on from the last key.
    """

    __slots__ = ("_dropped", "_layers", "_reader", "_trees")

    def __init__(
        self,
        layers: list[Layer],
        reader: StoreSnapshot,
        dropped: frozenset[int],
        trees: frozenset[int] | None,
    ) -> None:
        self._layers = layers  # From above; never changed.
        self._reader = reader
        self._dropped = dropped  # Trees that were dropped then, whatever the reader still has.
        self._trees = trees  # The trees that may be asked for; None: all.

    def get(self, tree: int, key: bytes) -> bytes | None:
        """The value under ``key``, or None."""
        assert self._trees is None or tree in self._trees, "the snapshot is not of this tree"
        if tree in self._dropped:
            return None
        for layer in self._layers:
            rows = layer.rows.get(tree)
            if rows is not None and key in rows.values:
                return rows.values[key]
        return self._reader.get(tree, key)

    def range(
        self, tree: int, low: bytes, high: bytes | None, reverse: bool = False
    ) -> Iterator[Row]:
        """Like ``BTree.range``."""
        assert self._trees is None or tree in self._trees, "the snapshot is not of this tree"
        if tree in self._dropped:
            return iter(())
        return merged_rows(self._layers, self._reader, tree, low, high, reverse)

    def get_meta(self, key: bytes) -> bytes | None:
        """The meta value under ``key``, or None."""
        for layer in self._layers:
            if key in layer.meta:
                return layer.meta[key]
        return self._reader.meta_get(key)

    def meta_range(self, prefix: bytes) -> list[Row]:
        """Like ``BTree.meta_range``."""
        return merged_meta(self._layers, self._reader, prefix)

    def close(self) -> None:
        """Releases the store's read transaction. Closing twice is allowed."""
        self._reader.close()
