"""Rows in memory, in key order: the building block of the memtable and of the in-memory store.

A dictionary for the values and a ``SortedList`` for the order, kept beside each other. A get is one
dictionary access; a put of a known key does not touch the order; a new key costs a bisection and an
insertion into a short list. ``sortedcontainers`` is a dependency because it is the well-kept pure
Python answer to exactly this (no compiler, 1-2 us an insertion at 100,000 keys); its ``SortedDict``
is not used since it pays a key function's indirection and a subclass's method calls on each put.

The invariant: ``keys`` holds exactly the keys of ``values``. A value of None is a tombstone, where
the owner uses them.
"""

from __future__ import annotations

from collections.abc import Iterator

from sortedcontainers import SortedList

from .interface import Change


class SortedRows:
    """One tree's rows. ``BTree.put`` reaches for the two fields itself: it is the hottest path."""

    __slots__ = ("keys", "values")

    def __init__(self) -> None:
        self.values: dict[bytes, bytes | None] = {}
        self.keys: SortedList = SortedList()

    def put(self, key: bytes, value: bytes | None) -> None:
        if key not in self.values:
            self.keys.add(key)
        self.values[key] = value

    def remove(self, key: bytes) -> None:
        """Forgets a key; an absent one is no error."""
        if key in self.values:
            del self.values[key]
            self.keys.remove(key)

    def touches(self, low: bytes, high: bytes | None) -> bool:
        """Whether any row lies in [low, high)."""
        at = self.keys.bisect_left(low)
        return at < len(self.keys) and (high is None or self.keys[at] < high)

    def range(self, low: bytes, high: bytes | None, reverse: bool) -> Iterator[Change]:
        """The rows in [low, high), in key order or reversed."""
        values = self.values
        for key in self.keys.irange(low, high, (True, False), reverse):
            yield key, values[key]

    def copy(self) -> SortedRows:
        copied = SortedRows()
        copied.values = dict(self.values)
        copied.keys = self.keys.copy()  # Three times as fast as sorting them anew.
        return copied

    def __len__(self) -> int:
        return len(self.values)


def shadow(upper: Iterator[Change], lower: Iterator[Change], reverse: bool) -> Iterator[Change]:
    """Merges two ordered iterators; where both have a key, the upper one's row is taken.

    Tombstones come through: they must shadow whatever lies still lower.
    """
    above = next(upper, None)
    below = next(lower, None)
    while above is not None and below is not None:
        if above[0] == below[0]:
            yield above
            above, below = next(upper, None), next(lower, None)
        elif (above[0] < below[0]) != reverse:
            yield above
            above = next(upper, None)
        else:
            yield below
            below = next(lower, None)
    if above is not None:
        yield above
        yield from upper
    if below is not None:
        yield below
        yield from lower
