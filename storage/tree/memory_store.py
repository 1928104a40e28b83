"""The in-memory twin of the LMDB store: ``:memory:`` databases and simulation stand on it.

Owned by ``BTree``; see ``interface`` for the contract, which it keeps exactly, also where that is
inconvenient: what ``write`` makes durable is not seen before ``renew``, and a snapshot stays at its
state. It models what was measured of the real engine:

- a transaction is atomic, and durable when ``write`` has returned; a crash *during* ``write``
  leaves all of it or nothing (``crash``);
- a failed sync leaves the outcome open until the write is made again (``on_commit`` may raise);
- a bit may flip in a stored value unnoticed (``flip_bit``): LMDB has no page checksums.

How it works. ``write`` only appends to a queue of committed transactions, which is safe beside a
reader in another thread; ``renew`` applies the queue, so its cost on the loop is that of the rows
written, about 2 us each: a node in memory flushes small layers. An open snapshot keeps the old
values of the rows changed since it was opened, in an overlay.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import takewhile
from typing import Protocol

import msgspec

from ...errors import StorageError
from ...limits import TREE_KEY_BYTES_MAX
from .interface import META_KEY_BYTES_MAX, TREE_ID_MAX, Change, Row, TreeStatistics
from .sorted_rows import SortedRows, shadow

_META_TREE = 0


class Coin(Protocol):
    """What ``crash`` needs of a random generator; ``random.Random`` has it."""

    def random(self) -> float:
        """A number in [0, 1)."""


class _Transaction(msgspec.Struct, frozen=True):
    """What one ``write`` made durable; or, with ``drop_rows``, one step of dropping."""

    changes: dict[int, tuple[Change, ...]]
    dropped: tuple[int, ...] = ()
    drop_rows: int = 0
    finished: bool = False


class MemorySnapshot:
    """The store's rows at one moment. ``_overlay`` holds, per tree, the values that rows had then
    and have no more (None: the row was absent)."""

    __slots__ = ("_overlay", "_store")

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._overlay: dict[int, SortedRows] = {}
        store._snapshots.append(self)

    def _keep(self, tree: int, key: bytes, value: bytes | None) -> None:
        rows = self._overlay.get(tree)
        if rows is None:
            rows = self._overlay[tree] = SortedRows()
        if key not in rows.values:
            rows.put(key, value)

    def get(self, tree: int, key: bytes) -> bytes | None:
        kept = self._overlay.get(tree)
        if kept is not None and key in kept.values:
            return kept.values[key]
        return self._store.get(tree, key)

    def range(
        self, tree: int, low: bytes, high: bytes | None, reverse: bool = False
    ) -> Iterator[Row]:
        below = self._store.range(tree, low, high, reverse)
        kept = self._overlay.get(tree)
        if kept is None or (high is not None and high <= low):
            return below
        merged = shadow(kept.range(low, high, reverse), below, reverse)
        return ((key, value) for key, value in merged if value is not None)

    def meta_get(self, key: bytes) -> bytes | None:
        return self.get(_META_TREE, key)

    def meta_range(self, prefix: bytes) -> list[Row]:
        rows = self.range(_META_TREE, prefix, None)
        return list(takewhile(lambda row: row[0].startswith(prefix), rows))

    def structure(self, tree: int) -> Iterator[str]:
        return iter(())

    def close(self) -> None:
        if self in self._store._snapshots:
            self._store._snapshots.remove(self)


class MemoryStore:
    """See the module's text. A new one is empty; ``crash`` gives the one found after a restart."""

    __slots__ = (
        "_dropped",
        "_in_flight",
        "_next",
        "_queue",
        "_rows_left",
        "_snapshots",
        "_trees",
        "on_commit",
    )

    def __init__(self) -> None:
        self._trees: dict[int, SortedRows] = {}  # What is seen; tree 0 is meta. No empty trees.
        self._dropped: set[int] = set()  # Marked trees, as seen.
        self._queue: list[_Transaction] = []  # Durable, not yet adopted by renew.
        self._in_flight: _Transaction | None = None  # Begun, and not known to be durable.
        self._rows_left: dict[int, int] = {}  # Upper bounds for trees being dropped.
        self._snapshots: list[MemorySnapshot] = []
        # Called between the beginning and the end of each commit; what it raises, write raises.
        self.on_commit: Callable[[], None] | None = None

    def get(self, tree: int, key: bytes) -> bytes | None:
        rows = self._trees.get(tree)
        return None if rows is None else rows.values.get(key)

    def range(
        self, tree: int, low: bytes, high: bytes | None, reverse: bool = False
    ) -> Iterator[Row]:
        rows = self._trees.get(tree)
        if rows is None or (high is not None and high <= low):
            return iter(())
        return ((key, value) for key, value in rows.range(low, high, reverse) if value is not None)

    def meta_get(self, key: bytes) -> bytes | None:
        return self.get(_META_TREE, key)

    def meta_range(self, prefix: bytes) -> list[Row]:
        rows = self.range(_META_TREE, prefix, None)
        return list(takewhile(lambda row: row[0].startswith(prefix), rows))

    def structure(self, tree: int) -> Iterator[str]:
        return iter(())

    def write(
        self,
        changes: Mapping[int, Iterable[Change]],
        meta: Mapping[bytes, bytes | None],
        dropped: Collection[int] = (),
    ) -> None:
        copied = {tree: tuple(rows) for tree, rows in changes.items()}
        for tree, rows in copied.items():
            assert 0 < tree <= TREE_ID_MAX, "a tree id is a positive 32-bit integer"
            assert tree not in dropped, "a dropped tree is not written"
            assert all(len(key) <= TREE_KEY_BYTES_MAX for key, _ in rows)
            ordered = all(rows[i][0] < rows[i + 1][0] for i in range(len(rows) - 1))
            assert ordered, "changes come in strictly increasing key order"
        assert all(len(key) <= META_KEY_BYTES_MAX for key in meta)
        copied[_META_TREE] = tuple(meta.items())
        self._commit(_Transaction(copied, tuple(dropped)))

    def _commit(self, transaction: _Transaction) -> None:
        self._in_flight = transaction
        if self.on_commit is not None:
            self.on_commit()
        self._queue.append(transaction)
        self._in_flight = None

    def renew(self) -> None:
        while self._queue:
            self._apply(self._queue.pop(0))

    def _apply(self, transaction: _Transaction) -> None:
        for tree, changes in transaction.changes.items():
            for key, value in changes:
                self._set(tree, key, value)
        for tree in transaction.dropped:
            if not transaction.drop_rows:
                self._dropped.add(tree)
                continue
            rows = self._trees.get(tree)
            doomed = [] if rows is None else list(rows.keys)
            for key in doomed if transaction.finished else doomed[: transaction.drop_rows]:
                self._set(tree, key, None)
            if transaction.finished:
                self._dropped.discard(tree)

    def _set(self, tree: int, key: bytes, value: bytes | None) -> None:
        rows = self._trees.get(tree)
        if rows is None:
            rows = self._trees[tree] = SortedRows()
        for snapshot in self._snapshots:
            snapshot._keep(tree, key, rows.values.get(key))
        if value is not None:
            rows.put(key, value)
            return
        rows.remove(key)
        if not rows:
            del self._trees[tree]

    def drop_step(self, tree: int, rows_max: int) -> bool:
        assert rows_max > 0
        marked = tree in self._dropped or any(tree in queued.dropped for queued in self._queue)
        assert marked, "only a dropped tree is taken away"
        left = self._rows_left.get(tree)
        if left is None:
            rows = self._trees.get(tree)
            left = 0 if rows is None else len(rows)
            left += sum(len(queued.changes.get(tree, ())) for queued in list(self._queue))
        finished = left <= rows_max
        self._commit(_Transaction({}, (tree,), rows_max, finished))
        self._rows_left[tree] = left - rows_max
        if finished:
            del self._rows_left[tree]
        return finished

    def dropping(self) -> list[int]:
        return sorted(self._dropped)

    def trees(self) -> list[int]:
        return sorted(self._trees.keys() - self._dropped - {_META_TREE})

    def snapshot(self) -> MemorySnapshot:
        return MemorySnapshot(self)

    def copy_to(self, path: str) -> None:
        raise StorageError("a tree in memory has no copy on disk")

    def statistics(self) -> TreeStatistics:
        rows = sum(len(rows) for rows in self._trees.values())
        return TreeStatistics(rows=rows, depth=0, file_bytes=0, map_bytes=0)

    def close(self) -> None:
        self._snapshots.clear()

    def crash(self, rng: Coin) -> MemoryStore:
        """The store that a restart finds: all that ``write`` made durable, and of a write that was
        interrupted, by the toss of a coin, all or nothing. This store must not be used again."""
        found = MemoryStore()
        found._trees, found._dropped = self._trees, self._dropped
        found._queue = self._queue
        if self._in_flight is not None and rng.random() < 0.5:
            found._queue.append(self._in_flight)
        found.renew()
        return found

    def flip_bit(self, tree: int, key: bytes, bit: int) -> None:
        """Damages a durable value: bit 0 is the lowest bit of the first byte."""
        self.renew()
        value = self.get(tree, key)
        assert value is not None and bit < 8 * len(value), "there is no such bit"
        damaged = bytearray(value)
        damaged[bit // 8] ^= 1 << bit % 8
        self._trees[tree].put(key, bytes(damaged))
