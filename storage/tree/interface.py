"""What a tree store is: an ordered map of bytes to bytes per tree, many trees in one store.

Owned by ``BTree``; implemented by ``lmdb_store`` and by its in-memory twin ``memory_store``, which
pass one contract suite. A tree is a table or an index; its id is a positive integer that the caller
gives and does not use again before the tree is wholly dropped. Beside the trees lies a small map,
*meta*, written by the same transactions: positions such as a partition's applied LSN must become
durable together with the rows that they speak of.

Two threads touch a store. The *loop's* thread reads, always through one cached read transaction,
and calls ``renew``, ``snapshot`` and ``close``. One *worker* thread at a time calls ``write``,
``drop_step`` or ``copy_to``. Reads see the state of the last ``renew`` (or of the opening) whatever
the worker commits meanwhile; so the invariant is: **what is read changes only in ``renew``**.

Keys are compared as unsigned bytes and may have any length from zero to ``TREE_KEY_BYTES_MAX``;
values any length, zero included.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Protocol

import msgspec

Row = tuple[bytes, bytes]
"""A key and its value."""

Change = tuple[bytes, bytes | None]
"""A key and its new value; None deletes the key, and deleting an absent key is no error."""

TREE_ID_MAX = 2**32 - 1
META_KEY_BYTES_MAX = 479


class TreeStatistics(msgspec.Struct, frozen=True):
    """What a store holds. Bytes and counts are of the state last adopted by ``renew``.

    ``rows`` counts physical rows: also meta rows and the pointer rows of long keys. ``file_bytes``
    is what the data file needs, ``map_bytes`` what it may grow to; both are zero in memory.
    """

    rows: int
    depth: int
    file_bytes: int
    map_bytes: int


class TreeReader(Protocol):
    """One committed state. Every method may raise ``Corrupt``."""

    def get(self, tree: int, key: bytes) -> bytes | None:
        """The value under ``key``, or None."""

    def range(
        self, tree: int, low: bytes, high: bytes | None, reverse: bool = False
    ) -> Iterator[Row]:
        """The rows with ``low <= key < high`` (no upper bound if None), in key order or reversed.

        The iterator must be used up or dropped within one synchronous slice of the loop, that is
        before the next ``renew`` or ``close``.
        """

    def meta_get(self, key: bytes) -> bytes | None:
        """The meta value under ``key``, or None."""

    def meta_range(self, prefix: bytes) -> list[Row]:
        """The meta rows whose keys begin with ``prefix``, in key order."""

    def structure(self, tree: int) -> Iterator[str]:
        """Walks the physical rows of ``tree``; one sentence for every fault of the layout."""


class StoreSnapshot(TreeReader, Protocol):
    """A ``TreeReader`` that stays at its state until it is closed; held for a limited time."""

    def close(self) -> None:
        """Releases the state. Closing twice is allowed."""


class TreeStore(TreeReader, Protocol):
    """See the module's text for which thread may call what."""

    def write(
        self,
        changes: Mapping[int, Iterable[Change]],
        meta: Mapping[bytes, bytes | None],
        dropped: Collection[int] = (),
    ) -> None:
        """One atomic transaction, durable when this returns. For the worker thread.

        ``changes`` holds per tree its changes in strictly increasing key order. The trees in
        ``dropped`` are marked: from now on they are listed by ``dropping`` and no more by
        ``trees``, their rows stay until ``drop_step`` has removed them, and nobody may read or
        write them. Raises ``StorageError`` if nothing is known to be written (the same call may
        be made again after ``renew``: it has the same effect once or twice).
        """

    def renew(self) -> None:
        """Adopts the newest committed state. On the loop, after every ``write`` and ``drop_step``,
        a failed one included: a store that was full grows here."""

    def drop_step(self, tree: int, rows_max: int) -> bool:
        """Removes up to ``rows_max`` physical rows of a dropped tree, durably. True when nothing
        is left and the mark is gone too. For the worker thread; raises like ``write``."""

    def dropping(self) -> list[int]:
        """The dropped trees that still have their mark, in order."""

    def trees(self) -> list[int]:
        """The trees that hold a row and are not dropped, in order."""

    def snapshot(self) -> StoreSnapshot:
        """A committed state: the one that ``get`` reads, or a newer one. On the loop."""

    def copy_to(self, path: str) -> None:
        """A compact copy of the newest committed state in the new directory ``path``, durable when
        this returns. For the worker thread; writes may go on meanwhile. A power cut during the copy
        can leave a file that looks whole: copy to another name and rename afterwards."""

    def statistics(self) -> TreeStatistics:
        """Sizes, of the state last adopted."""

    def close(self) -> None:
        """Ends everything; no thread may be inside another method. Closing twice is allowed."""
