"""What a data directory must fulfil, tree by tree and log by log: behind ``millstream scrub``.

Pure functions over an open tree store and log engine, which the caller opens and closes; nothing is
changed or repaired. A tree is compared, for each partition's hash range, with the count, size and
checksum sum that the partition keeps beside its rows (same transaction, so exactly equal); a log is
read from end to end and compared with the position in the tree: it must reach it, continue it, and
say the same at the place where both know the hash.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from ..errors import StorageError
from ..limits import RECOVERY_READ_BYTES
from ..model.schema import HASH_SPACE_END, Partition, Table
from .check import KeyRange, check_tree
from .log.entry import Link, check_entry, decode_entry
from .log.interface import LogEngine
from .partition import Position
from .records import decode_records
from .rows import decode_row, row_checksum
from .tree.interface import TreeReader


class Subject(msgspec.Struct, frozen=True):
    """A tree to look at, and the partitions that share it."""

    name: str
    tree: int
    partitions: tuple[Partition, ...]


class Report(msgspec.Struct, frozen=True):
    """What was found of one tree or log: ``count`` rows or entries; ``faults`` are sentences."""

    name: str
    count: int
    faults: tuple[str, ...]


def subjects_of(tables: Iterable[Table], dropping: Iterable[int]) -> Iterator[Subject]:
    """Every tree of ``tables``, but those that are being dropped."""
    gone = frozenset(dropping)
    for table in tables:
        name = f"{table.namespace}/{table.name}" if table.namespace else table.name
        found = [Subject(name, table.tree, table.partitions)]
        if table.tombstones:
            found.append(Subject(f"{name} (deleted)", table.tombstones, table.partitions))
        for local in table.local_indexes:
            found.append(Subject(f"{name} {local.name}", local.tree, table.partitions))
        for index in table.global_indexes:
            found.append(Subject(f"{name} {index.name}", index.tree, index.partitions))
        yield from (subject for subject in found if subject.tree not in gone)


def scrub_tree(reader: TreeReader, subject: Subject, positions: Mapping[str, Position]) -> Report:
    """Walk one tree: every row, the structure, and the sums of each partition."""
    partitions = sorted(subject.partitions, key=lambda partition: partition.low)
    ranges = [_key_range(partition) for partition in partitions]
    found = check_tree(reader, subject.tree, ranges, _measure)
    faults = list(found.faults)
    if found.complete:
        for partition, sums in zip(partitions, found.sums, strict=True):
            position = positions.get(partition.log_id)
            totals = (0, 0, 0) if position is None else position.totals.get(subject.tree, (0, 0, 0))
            held = (sums.rows, sums.size_bytes, sums.checksum)
            if held != totals:
                faults.append(
                    f"partition {partition.log_id} holds {held[0]} rows of {held[1]} bytes with"
                    f" checksum {held[2]:x}; it has counted {totals[0]}, {totals[1]}, {totals[2]:x}"
                )
    return Report(subject.name, found.rows, tuple(faults))


def scrub_uncounted_tree(reader: TreeReader, name: str, tree: int) -> Report:
    """Walk a tree whose rows nobody counts, or of which nothing is known."""
    found = check_tree(reader, tree, [(b"", None)], _measure)
    return Report(name, found.rows, found.faults)


def scrub_log(
    engine: LogEngine, log_id: str, position: Position | None, *, holds_records: bool = True
) -> Report:
    """Read a log from its first entry to its last.

    ``position`` is the one in the tree, if any. The payloads are decoded too, unless they are
    something else than a partition's records (a replicated log's own control log).
    """
    faults: list[str] = []
    count = 0
    try:
        first, tail = engine.first(log_id), engine.tail(log_id)
        if position is not None:
            faults += _compare_ends(first, tail, position)
        link: Link | None = None
        lsn = first
        while lsn <= tail:
            for entry in engine.read(log_id, lsn, RECOVERY_READ_BYTES):
                link = check_entry(entry.data, link)
                if holds_records:
                    decode_records(decode_entry(entry.data)[1])
                count += 1
                lsn = entry.lsn + 1
                if position is not None and entry.lsn == position.lsn:
                    if link.hash != position.hash:
                        faults.append(
                            f"entry {entry.lsn} is not the one that the tree was made from"
                        )
    except StorageError as error:
        faults.append(f"reading it stopped after {count} entries: {error}")
    return Report(log_id, count, tuple(faults))


def _compare_ends(first: int, tail: int, position: Position) -> list[str]:
    if tail < position.lsn:
        return [
            f"it ends at {tail}, below {position.lsn}, which the tree holds: acknowledged writes"
            " are missing"
        ]
    if first > position.lsn + 1:
        return [f"it begins at {first}, but the tree holds only what lies up to {position.lsn}"]
    return []


def _measure(key: bytes, value: bytes) -> tuple[int, int]:
    return decode_row(key, value).size_bytes, row_checksum(value)


def _key_range(partition: Partition) -> KeyRange:
    end = partition.last + 1
    return (
        b"" if partition.low == 0 else partition.low.to_bytes(8, "big"),
        None if end == HASH_SPACE_END else end.to_bytes(8, "big"),
    )
