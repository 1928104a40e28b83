"""Walks a tree and says whether it is whole: the structural checker behind ``millstream scrub``.

LMDB has no page checksums, so damage below our row checksums shows only here: as a broken order, a
layer that nothing leads to, a row that a scan finds and a search does not, or a row too few. The
last is what the sums are for: per hash range they are compared by the caller with those that the
partition keeps beside its rows.

Following damaged pages through LMDB may crash a process, so a scrub runs this in one of its own,
on a store opened read-only. Nothing is repaired here; a damaged tree is copied from another or
replaced by a replay.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import msgspec

from ..errors import Corrupt, StorageError, WrongFormat
from ..limits import TREE_FAULTS_REPORTED_MAX
from .tree.interface import Row, TreeReader

KeyRange = tuple[bytes, bytes | None]
"""The keys with low <= key < high; None is no upper bound."""

Measure = Callable[[bytes, bytes], tuple[int, int]]
"""Of a key and its value: the size in bytes and the checksum that count in the sums. Raises
``Corrupt`` or ``WrongFormat`` for a damaged value."""

_MODULUS = 1 << 64


class RangeSums(msgspec.Struct, frozen=True):
    """What a key range holds; ``checksum`` is the sum of the rows' checksums modulo 2**64."""

    low: bytes
    high: bytes | None
    rows: int
    size_bytes: int
    checksum: int


class TreeReport(msgspec.Struct, frozen=True):
    """What ``check_tree`` found. ``faults`` are sentences, the first ones if there are very many;
    ``sums`` are in the order of the ranges given, and mean nothing when ``complete`` is false."""

    tree: int
    rows: int
    sums: tuple[RangeSums, ...]
    faults: tuple[str, ...]
    complete: bool

    @property
    def is_sound(self) -> bool:
        """No fault, and everything was read."""
        return self.complete and not self.faults


class _Sums:
    """A ``RangeSums`` in the making."""

    __slots__ = ("checksum", "high", "low", "rows", "size_bytes")

    def __init__(self, low: bytes, high: bytes | None) -> None:
        self.low = low
        self.high = high
        self.rows = 0
        self.size_bytes = 0
        self.checksum = 0

    def add(self, key: bytes, size_bytes: int, checksum: int) -> bool:
        """False if a key at or above ``low`` is not below ``high``."""
        if self.high is not None and key >= self.high:
            return False
        self.rows += 1
        self.size_bytes += size_bytes
        self.checksum += checksum
        return True

    def freeze(self) -> RangeSums:
        return RangeSums(self.low, self.high, self.rows, self.size_bytes, self.checksum % _MODULUS)


class _Faults:
    """Collects faults up to the limit."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, fault: str) -> None:
        if len(self.found) < TREE_FAULTS_REPORTED_MAX:
            self.found.append(fault)


def check_tree(
    reader: TreeReader, tree: int, ranges: Sequence[KeyRange], measure: Measure
) -> TreeReport:
    """Walks all rows of ``tree`` in one committed state, about 3 us a row.

    Checks that keys strictly increase, that each row is found by its key too, that each lies in one
    of ``ranges`` (ascending, disjoint), that ``measure`` accepts it, and the layout underneath.
    ``reader`` must not be renewed meanwhile.
    """
    _assert_ascending(ranges)
    faults = _Faults()
    sums = [_Sums(low, high) for low, high in ranges]
    lows = [low for low, _ in ranges]
    rows = 0
    complete = True
    try:
        for key, value in _in_order(reader, tree, faults):
            rows += 1
            if reader.get(tree, key) != value:
                faults.add(f"the row {_short(key)} is in a scan, but not found by its key")
            try:
                size_bytes, checksum = measure(key, value)
            except (Corrupt, WrongFormat) as error:
                faults.add(f"the row {_short(key)}: {error}")
                size_bytes = checksum = 0
            at = bisect_right(lows, key) - 1
            if at < 0 or not sums[at].add(key, size_bytes, checksum):
                faults.add(f"the row {_short(key)} lies in no range of this tree")
    except StorageError as error:
        faults.add(f"reading the rows stopped: {error}")
        complete = False
    try:
        for fault in reader.structure(tree):
            faults.add(fault)
    except StorageError as error:
        faults.add(f"reading the layout stopped: {error}")
        complete = False
    return TreeReport(
        tree, rows, tuple(one.freeze() for one in sums), tuple(faults.found), complete
    )


def _in_order(reader: TreeReader, tree: int, faults: _Faults) -> Iterator[Row]:
    before: bytes | None = None
    for row in reader.range(tree, b"", None):
        if before is not None and row[0] <= before:
            faults.add(f"the row {_short(row[0])} does not come after {_short(before)}")
        before = row[0]
        yield row


def _assert_ascending(ranges: Sequence[KeyRange]) -> None:
    for (_, high), (low, _) in pairwise(ranges):
        assert high is not None and high <= low, "ranges are ascending and disjoint"


def _short(key: bytes) -> str:
    """Enough of a key to find it: the hash is in front."""
    return key.hex() if len(key) <= 32 else f"{key[:32].hex()}... ({len(key)} bytes)"
