"""The B+tree of a node: committed rows, in two layers of memory over a store.

Owned by the node, used by its partition machines; everything here runs on the loop's thread but
``flush`` and ``drop_step``. Theory of operation::

    put, delete, set_meta          mutable layer      what was applied since the last freeze
          freeze()  (loop)              |
                                   frozen layer       at most one; read-only
    flush(frozen)  (thread)             |
                                      store           one synced transaction holds all of the layer
    settle(frozen) (loop)          frozen dropped, the store's read transaction renewed

A read looks into the three from above; a tombstone shadows what is below it. Since a layer's meta
(applied LSNs, counts, hashes) is in the transaction of its rows, what a restart finds in the store
is always the state at exactly the LSNs found beside it. A flush that failed changes nothing: the
frozen layer stays readable, and after ``flush_failed`` the same ``flush`` may be tried again; the
store's write has the same effect once or twice.

Rows handed in are applied, that is committed in the log. Evaluation sees its own pending effects
elsewhere (the partition machine), never here.

The invariant: get and range equal those of one ordered map to which all puts, deletes and drops
were applied in order. Iterators are used up within one synchronous slice, with no mutation and no
``settle`` meanwhile: each step asserts it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from enum import Enum
from typing import Final

from ...limits import MEMTABLE_ROW_OVERHEAD_BYTES, TREE_KEY_BYTES_MAX
from .interface import META_KEY_BYTES_MAX, TREE_ID_MAX, Row, TreeStatistics, TreeStore
from .layers import Layer, Snapshot, merged_meta, merged_rows
from .sorted_rows import SortedRows


class _Absent(Enum):
    """Not in this layer; None is a tombstone."""

    ABSENT = 0


_ABSENT: Final = _Absent.ABSENT


class Frozen:
    """A frozen layer on its way to the store. Read-only: a thread may read it too."""

    __slots__ = ("_layer",)

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    @property
    def rows(self) -> int:
        """How many rows and tombstones it holds."""
        return sum(len(rows) for rows in self._layer.rows.values())

    @property
    def size_bytes(self) -> int:
        """Its share of ``BTree.frozen_bytes``."""
        return self._layer.size_bytes


class BTree:
    """See the module's text."""

    __slots__ = ("_dropped", "_frozen", "_lower", "_mutable", "_store", "_version")

    def __init__(self, store: TreeStore) -> None:
        self._store = store
        self._mutable = Layer()
        self._lower: Layer | None = None  # The frozen layer, if there is one, and
        self._frozen: Frozen | None = None  # what the owner holds of it.
        self._dropped = set(store.dropping())  # All trees dropped and not yet wholly gone.
        self._version = 0  # Changes with all that an open iterator must not live through.

    # Reads.

    def get(self, tree: int, key: bytes) -> bytes | None:
        """The value under ``key``, or None."""
        rows = self._mutable.rows.get(tree)
        if rows is not None:
            value = rows.values.get(key, _ABSENT)
            if value is not _ABSENT:
                return value
        if tree in self._dropped:
            return None
        if self._lower is not None:
            rows = self._lower.rows.get(tree)
            if rows is not None:
                value = rows.values.get(key, _ABSENT)
                if value is not _ABSENT:
                    return value
        return self._store.get(tree, key)

    def range(
        self, tree: int, low: bytes, high: bytes | None, reverse: bool = False
    ) -> Iterator[Row]:
        """The rows with ``low <= key < high`` (no upper bound if None), in key order or reversed.

        To be used up or dropped before the next mutation, ``settle`` or await.
        """
        return self._guard(self.unguarded_range(tree, low, high, reverse), self._version)

    def unguarded_range(
        self, tree: int, low: bytes, high: bytes | None, reverse: bool = False
    ) -> Iterator[Row]:
        """``range`` for a caller that itself asserts at each step that ``version`` stands still."""
        if tree in self._dropped:
            return iter(())
        layers = [self._mutable] if self._lower is None else [self._mutable, self._lower]
        return merged_rows(layers, self._store, tree, low, high, reverse)

    @property
    def version(self) -> int:
        """Changes with everything that an open iterator must not live through."""
        return self._version

    def _guard(self, rows: Iterator[Row], version: int) -> Iterator[Row]:
        for row in rows:
            assert self._version == version, "an iterator outlived its synchronous slice"
            yield row

    def get_meta(self, key: bytes) -> bytes | None:
        """The meta value under ``key``, or None."""
        if key in self._mutable.meta:
            return self._mutable.meta[key]
        if self._lower is not None and key in self._lower.meta:
            return self._lower.meta[key]
        return self._store.meta_get(key)

    def meta_range(self, prefix: bytes) -> list[Row]:
        """The meta rows whose keys begin with ``prefix``, in key order."""
        layers = [self._mutable] if self._lower is None else [self._mutable, self._lower]
        return merged_meta(layers, self._store, prefix)

    def trees(self) -> list[int]:
        """The trees that hold a row in the store or a row or tombstone in memory, in order;
        without the dropped ones."""
        found = set(self._store.trees()) | self._mutable.rows.keys()
        if self._lower is not None:
            found |= self._lower.rows.keys()
        return sorted(found - self._dropped)

    # Mutations: of applied effects only.

    def put(self, tree: int, key: bytes, value: bytes) -> None:
        """Sets the value under ``key``."""
        layer = self._mutable
        rows = layer.rows.get(tree)
        if rows is None:
            rows = self._new_rows(tree)
        values = rows.values
        old = values.get(key, _ABSENT)
        if old is _ABSENT:
            assert len(key) <= TREE_KEY_BYTES_MAX, "the key is longer than the tree allows"
            rows.keys.add(key)
            layer.size_bytes += len(key) + len(value) + MEMTABLE_ROW_OVERHEAD_BYTES
        else:
            layer.size_bytes += len(value) - (len(old) if old is not None else 0)
        values[key] = value
        self._version += 1

    def delete(self, tree: int, key: bytes) -> None:
        """Removes ``key``; an absent one is no error."""
        layer = self._mutable
        rows = layer.rows.get(tree)
        if rows is None:
            rows = self._new_rows(tree)
        values = rows.values
        old = values.get(key, _ABSENT)
        if old is _ABSENT:
            assert len(key) <= TREE_KEY_BYTES_MAX, "the key is longer than the tree allows"
            rows.keys.add(key)
            layer.size_bytes += len(key) + MEMTABLE_ROW_OVERHEAD_BYTES
        elif old is not None:
            layer.size_bytes -= len(old)
        values[key] = None
        self._version += 1

    def _new_rows(self, tree: int) -> SortedRows:
        assert 0 < tree <= TREE_ID_MAX, "a tree id is a positive 32-bit integer"
        assert tree not in self._dropped, "a dropped tree is not written"
        rows = self._mutable.rows[tree] = SortedRows()
        return rows

    def set_meta(self, key: bytes, value: bytes | None) -> None:
        """Sets a meta value, or deletes it (None), in the flush of the rows put around it."""
        assert len(key) <= META_KEY_BYTES_MAX, "the meta key is too long"
        meta = self._mutable.meta
        size_bytes = 0 if value is None else len(value)
        if key in meta:
            size_bytes -= len(meta[key] or b"")
        else:
            size_bytes += len(key) + MEMTABLE_ROW_OVERHEAD_BYTES
        self._mutable.size_bytes += size_bytes
        meta[key] = value

    def drop_tree(self, tree: int) -> None:
        """Removes a tree with all its rows. At once for reads; the store learns it with this
        layer's flush, and its rows go by ``drop_step``. Dropping an unknown tree is no error."""
        assert 0 < tree <= TREE_ID_MAX, "a tree id is a positive 32-bit integer"
        if tree in self._dropped:
            return
        rows = self._mutable.rows.pop(tree, None)
        if rows is not None:
            self._mutable.size_bytes -= sum(
                len(key) + len(value or b"") + MEMTABLE_ROW_OVERHEAD_BYTES
                for key, value in rows.values.items()
            )
        self._mutable.dropped.add(tree)
        self._dropped.add(tree)
        self._version += 1

    # Layers: freeze -> flush (thread) -> settle.

    @property
    def mutable_bytes(self) -> int:
        """Memory of the mutable layer, in bytes: keys, values, and a flat sum for each row."""
        return self._mutable.size_bytes

    @property
    def frozen_bytes(self) -> int:
        """Memory of the frozen layer, in bytes; 0 without one."""
        return 0 if self._lower is None else self._lower.size_bytes

    @property
    def memtable_rows(self) -> int:
        """Rows and tombstones in both layers."""
        layers = [self._mutable] if self._lower is None else [self._mutable, self._lower]
        return sum(len(rows) for layer in layers for rows in layer.rows.values())

    @property
    def frozen(self) -> Frozen | None:
        """The layer being flushed, or waiting for its flush to be tried again."""
        return self._frozen

    def freeze(self) -> Frozen | None:
        """Makes the mutable layer the frozen one, in constant time. None if there is nothing to
        freeze, or if a frozen layer is still there."""
        if self._lower is not None or self._mutable.is_empty():
            return None
        self._lower = self._mutable
        self._frozen = Frozen(self._lower)
        self._mutable = Layer()
        return self._frozen

    def flush(self, frozen: Frozen) -> None:
        """Writes the frozen layer to the store, synced. For a worker thread; one at a time with
        ``drop_step``. Raises ``StorageError``: then call ``flush_failed`` on the loop."""
        layer = frozen._layer
        changes = {tree: rows.range(b"", None, reverse=False) for tree, rows in layer.rows.items()}
        self._store.write(changes, layer.meta, sorted(layer.dropped))

    def settle(self, frozen: Frozen) -> None:
        """After a flush that succeeded, on the loop: the store is read at its new state, and the
        frozen layer is gone."""
        assert frozen is self._frozen, "only the frozen layer is settled"
        self._store.renew()
        self._lower = None
        self._frozen = None
        self._version += 1

    def flush_failed(self, frozen: Frozen) -> None:
        """After a flush that raised, on the loop: the frozen layer stays, ``flush`` may be tried
        again (a store that was full has grown by then)."""
        assert frozen is self._frozen, "only the frozen layer is flushed"
        self._store.renew()
        self._version += 1

    # Dropped trees.

    def dropping(self) -> list[int]:
        """The dropped trees that the store knows of and has still to remove, in order."""
        return self._store.dropping()

    def drop_step(self, tree: int, rows_max: int) -> bool:
        """Removes up to ``rows_max`` rows of a tree in ``dropping`` from the store, synced; True
        when none is left. For a worker thread. Call ``settle_drop`` on the loop afterwards."""
        return self._store.drop_step(tree, rows_max)

    def settle_drop(self, tree: int, finished: bool) -> None:
        """After ``drop_step``, on the loop; ``finished`` is what it returned (False if it raised).
        A tree id may be used again when its drop is finished."""
        assert tree in self._dropped
        self._store.renew()
        # A flush to be tried again would leave the mark a second time.
        marked_again = self._lower is not None and tree in self._lower.dropped
        if finished and not marked_again:
            self._dropped.discard(tree)
        self._version += 1

    # Snapshots and the rest.

    def snapshot(self, trees: Collection[int] | None = None) -> Snapshot:
        """``trees`` (None: all) and the meta at this moment; see ``Snapshot``.

        Copies their rows of the mutable layer: 25 ns a row, measured. Other trees must not be asked
        for.
        """
        only = None if trees is None else frozenset(trees)
        layer = Layer()
        layer.rows = {
            tree: rows.copy()
            for tree, rows in self._mutable.rows.items()
            if only is None or tree in only
        }
        layer.meta = dict(self._mutable.meta)
        layers = [layer] if self._lower is None else [layer, self._lower]
        return Snapshot(layers, self._store.snapshot(), frozenset(self._dropped), only)

    def statistics(self) -> TreeStatistics:
        """The store's."""
        return self._store.statistics()
