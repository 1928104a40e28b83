"""Two tree stores kept alike, so that a tree that is lost or damaged is healed from the other.

Every flush goes to both; reads go to the first. A crash between the two leaves one of them a flush
behind. ``flushes_of`` tells how many each has seen, and the opener puts the one behind *first*: its
positions are then where the logs are replayed from, and the next flush, which holds everything
replayed, brings both to the same state (logs are trimmed only behind what both hold).

A store that fails a flush is *lost* for this run: it is written no more, ``complete`` turns false
and logs are trimmed no more, so that after a restart it can catch up or be replaced by a copy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from ...errors import StorageError
from .interface import Change, Row, StoreSnapshot, TreeStatistics, TreeStore

logger = logging.getLogger(__name__)

_FLUSHES = b"mirror/flushes"


def flushes_of(store: TreeStore) -> int:
    """How many flushes a store has seen as part of a pair."""
    stored = store.meta_get(_FLUSHES)
    return 0 if stored is None else int.from_bytes(stored, "big")


class MirroredStore:
    """A ``TreeStore`` over two. ``first`` is read; it must not be ahead of ``second``."""

    __slots__ = ("_dropping", "_first", "_flushes", "_second", "_stores")

    def __init__(self, first: TreeStore, second: TreeStore) -> None:
        assert flushes_of(first) <= flushes_of(second)
        self._first = first
        self._second = second
        #: Those that are still written.
        self._stores = [first, second]
        self._flushes = flushes_of(second)
        #: What each still has to drop, as the worker thread knows it.
        self._dropping = {id(store): set(store.dropping()) for store in self._stores}

    @property
    def complete(self) -> bool:
        """Whether both hold every flush."""
        return len(self._stores) == 2

    # Reading.

    def get(self, tree: int, key: bytes) -> bytes | None:
        return self._first.get(tree, key)

    def get_copy(self, tree: int, key: bytes) -> bytes | None:
        """What the second store holds under ``key``, for a row that is damaged in the first."""
        return self._second.get(tree, key) if self.complete else None

    def range(
        self, tree: int, low: bytes, high: bytes | None, reverse: bool = False
    ) -> Iterator[Row]:
        return self._first.range(tree, low, high, reverse)

    def meta_get(self, key: bytes) -> bytes | None:
        return self._first.meta_get(key)

    def meta_range(self, prefix: bytes) -> list[Row]:
        return self._first.meta_range(prefix)

    def structure(self, tree: int) -> Iterator[str]:
        return self._first.structure(tree)

    def dropping(self) -> list[int]:
        return sorted({tree for store in self._stores for tree in store.dropping()})

    def trees(self) -> list[int]:
        return sorted({tree for store in self._stores for tree in store.trees()})

    def snapshot(self) -> StoreSnapshot:
        return self._first.snapshot()

    def statistics(self) -> TreeStatistics:
        return self._first.statistics()

    # Writing.

    def write(
        self,
        changes: Mapping[int, Iterable[Change]],
        meta: Mapping[bytes, bytes | None],
        dropped: Collection[int] = (),
    ) -> None:
        kept = {tree: list(rows) for tree, rows in changes.items()}
        flushes = self._flushes + 1
        counted = {**meta, _FLUSHES: flushes.to_bytes(8, "big")}

        def write(store: TreeStore) -> None:
            store.write(kept, counted, dropped)
            self._dropping[id(store)].update(dropped)

        self._each(write)
        self._flushes = flushes

    def drop_step(self, tree: int, rows_max: int) -> bool:
        finished: list[bool] = []

        def step(store: TreeStore) -> None:
            marked = self._dropping[id(store)]
            if tree not in marked:
                finished.append(True)
            elif store.drop_step(tree, rows_max):
                marked.discard(tree)
                finished.append(True)
            else:
                finished.append(False)

        self._each(step)
        return all(finished)

    def _each(self, act: Callable[[TreeStore], None]) -> None:
        """Do it to both. One that fails is lost; if the last one fails, that is the caller's."""
        for store in list(self._stores):
            try:
                act(store)
            except StorageError as error:
                # The one that is read cannot be given up: its state is what everybody sees.
                if store is self._first or len(self._stores) == 1:
                    raise
                logger.error("the second tree is lost until the next start: %s", error)
                self._stores.remove(store)

    def renew(self) -> None:
        for store in self._stores:
            store.renew()

    def copy_to(self, path: str) -> None:
        self._first.copy_to(path)

    def close(self) -> None:
        self._first.close()
        self._second.close()
