"""The end of LevelDB's log after a power cut: what is torn is cut off, what is damaged is refused.

The scanner is tested on bytes alone; then on files of a real LevelDB, torn sector by sector.
"""

from __future__ import annotations

import random
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import Corrupt, DirectoryInUse
from millstream.host.disk import SECTOR_BYTES, RealDisk
from millstream.host.memory_disk import MemoryDisk
from millstream.storage.log.leveldb import LevelDbLogEngine
from millstream.storage.log.leveldb_tail import (
    BLOCK_BYTES,
    FIRST,
    FULL,
    HEADER_BYTES,
    LAST,
    MIDDLE,
    TailScan,
    TornTail,
    cut_off,
    masked_crc,
    torn_tails,
)

GOLDEN = Path(__file__).parents[2] / "testdata" / "golden" / "log"
BOUNDS = settings(max_examples=150, derandomize=True, deadline=None)


def record(kind: int, data: bytes) -> bytes:
    body = bytes((kind,)) + data
    return masked_crc(body).to_bytes(4, "little") + len(data).to_bytes(2, "little") + body


def group(offset: int, data: bytes) -> bytes:
    """What LevelDB writes at `offset` of its log for one batch."""
    pieces: list[bytes] = []
    begins = True
    while True:
        left = BLOCK_BYTES - offset % BLOCK_BYTES
        if left < HEADER_BYTES:
            pieces.append(bytes(left))
            offset += left
            left = BLOCK_BYTES
        part, data = data[: left - HEADER_BYTES], data[left - HEADER_BYTES :]
        kind = (FULL if begins else LAST) if not data else (FIRST if begins else MIDDLE)
        pieces.append(record(kind, part))
        offset += HEADER_BYTES + len(part)
        begins = False
        if not data:
            return b"".join(pieces)


def log_of(groups: list[bytes]) -> tuple[bytes, list[int]]:
    """A log and the offset behind each of its groups."""
    log = b""
    ends = []
    for data in groups:
        log += group(len(log), data)
        ends.append(len(log))
    return log, ends


def scan(data: bytes) -> TailScan:
    made = TailScan()
    for offset in range(0, len(data), BLOCK_BYTES):
        made.feed(data[offset : offset + BLOCK_BYTES])
    return made


def torn(data: bytes, start: int, size: int, lost: set[int]) -> bytes:
    """What stands on the disk if nothing from `start` on was synced, and some sectors are lost."""
    image = bytearray(data[:size])
    for sector in lost:
        begin, end = sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES
        begin, end = max(begin, start), min(end, size)
        image[begin:end] = bytes(max(0, end - begin))
    return bytes(image)


# Fillings that look like headers, like nothing, and like chance.
fillings = st.sampled_from((b"\x01", b"\x02", b"\x00", b"\x07\x00\x01", b"x", b"\x01\x00\x00"))
sizes = st.one_of(
    st.integers(1, 700),
    st.integers(1, 3 * BLOCK_BYTES),
    # Ends around the border of a block, where a trailer or an empty first part stands.
    st.integers(-9, 9).map(lambda shift: BLOCK_BYTES - HEADER_BYTES + shift),
)


@st.composite
def batches(draw: st.DrawFn, at_least: int = 1) -> list[bytes]:
    made = []
    for number, size in enumerate(draw(st.lists(sizes, min_size=at_least, max_size=6))):
        if draw(st.booleans()):
            made.append(random.Random(size + number).randbytes(size))
        else:
            made.append((draw(fillings) * size)[:size])
    return made


@BOUNDS
@given(batches(0))
def test_a_whole_log_ends_where_it_ends(groups: list[bytes]) -> None:
    log, _ = log_of(groups)
    found = scan(log)
    assert (found.end, found.is_damaged) == (len(log), False)


@BOUNDS
@given(st.data(), batches())
def test_a_torn_last_group_is_cut_off_whatever_of_it_arrived(
    data: st.DataObject, groups: list[bytes]
) -> None:
    log, ends = log_of(groups)
    start = ends[-2] if len(ends) > 1 else 0
    size = data.draw(st.one_of(st.just(len(log)), st.integers(start, len(log))))
    sectors = range(start // SECTOR_BYTES, -(-size // SECTOR_BYTES))
    lost = data.draw(st.sets(st.sampled_from(sectors))) if sectors and start < size else set[int]()
    image = torn(log, start, size, lost)
    found = scan(image)
    assert not found.is_damaged
    # A sector that is all zeros anyway cannot be lost.
    assert found.end == (len(log) if image == log else start)


@BOUNDS
@given(st.data(), batches(2))
def test_a_group_that_another_follows_is_never_cut_off(
    data: st.DataObject, groups: list[bytes]
) -> None:
    log, ends = log_of(groups)
    last = ends[-2]
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, last - 1))
        image = log[:at] + bytes((log[at] ^ data.draw(st.integers(1, 255)),)) + log[at + 1 :]
    else:
        lost = data.draw(st.sets(st.integers(0, last // SECTOR_BYTES), min_size=1))
        image = torn(log[:last], 0, last, lost) + log[last:]
    found = scan(image)
    # What may change unseen: zeros to zeros, and the zeros that end a block.
    assert found.is_damaged or found.end == len(log)


@BOUNDS
@given(st.data(), batches())
def test_a_flipped_bit_in_the_last_group_is_damage_or_cut_off_never_read(
    data: st.DataObject, groups: list[bytes]
) -> None:
    log, ends = log_of(groups)
    start = ends[-2] if len(ends) > 1 else 0
    bit = data.draw(st.integers(8 * start, 8 * len(log) - 1))
    image = bytearray(log)
    image[bit // 8] ^= 1 << bit % 8
    found = scan(bytes(image))
    assert found.is_damaged or found.end in (start, len(log))


@BOUNDS
@given(batches(0), st.binary(max_size=2000))
def test_garbage_at_the_end_never_counts(groups: list[bytes], garbage: bytes) -> None:
    log, _ = log_of(groups)
    found = scan(log + garbage)
    assert found.end == len(log)


def test_a_flipped_bit_in_a_last_group_without_empty_sectors_is_damage() -> None:
    # Every sector of a torn write is as written or as before, empty. This one is neither.
    log, ends = log_of([b"first", b"second" * 300])
    for at in range(ends[0] + HEADER_BYTES, len(log), 50):
        image = bytearray(log)
        image[at] ^= 4
        assert scan(bytes(image)).is_damaged


def test_a_group_behind_a_torn_one_shows_at_any_offset_of_its_block() -> None:
    log, ends = log_of([b"a" * 600, b"b" * 2000, b"c" * 30])
    image = torn(log, ends[0], ends[1], set(range(2, 5))) + log[ends[1] :]
    assert scan(image).is_damaged
    assert not scan(image[:-1]).is_damaged
    assert scan(image[:-1]).end == ends[0]


def test_the_remains_of_two_groups_are_damage() -> None:
    # Both have lost their beginning, but the one is at its end before the other goes on.
    log, ends = log_of([b"a" * 50, b"b" * 40_000, b"c" * 60_000])
    behind = ends[1] // SECTOR_BYTES + 1
    assert scan(torn(log, ends[0], len(log), {0, behind})).is_damaged
    assert not scan(torn(log[: ends[1]], ends[0], ends[1], {0})).is_damaged


def test_golden_log_of_leveldb_is_read_as_leveldb_wrote_it() -> None:
    # LevelDB 1.22: small, across two blocks, a first part without data, a trailer of zeros.
    log = (GOLDEN / "leveldb-log-1.22.bin").read_bytes()
    ends = [28, 40060, 65529, 65575, 98301, 98343]
    assert log[65529 + 4 : 65529 + HEADER_BYTES] == bytes((0, 0, FIRST))
    assert log[98301:98304] == bytes(3)
    assert len(log) == ends[-1]
    for start, end in pairwise([0, *ends]):
        assert (scan(log[:end]).end, scan(log[:end]).is_damaged) == (end, False)
        assert scan(log[: end - 1]).end == start
    # The writer above makes the same of the same batches.
    assert (
        b"".join(group(start, batch_at(log, start, end)) for start, end in pairwise([0, *ends]))
        == log
    )


def batch_at(log: bytes, start: int, end: int) -> bytes:
    """The batch of a group, out of its records."""
    data = b""
    at = start
    while at < end:
        if BLOCK_BYTES - at % BLOCK_BYTES < HEADER_BYTES:
            at += BLOCK_BYTES - at % BLOCK_BYTES
        length = int.from_bytes(log[at + 4 : at + 6], "little")
        data += log[at + HEADER_BYTES : at + HEADER_BYTES + length]
        at += HEADER_BYTES + length
    return data


def test_files_are_scanned_and_cut_through_the_disk() -> None:
    disk = MemoryDisk(random.Random(0))
    disk.make_directory("/db")
    log, ends = log_of([b"kept" * 9000, b"torn" * 9000])
    files = {
        "000007.log": b"older, and none of our business",
        "000012.log": torn(log, ends[0], len(log), {90}),
        "000011.ldb": b"a table",
        "MANIFEST-000010": b"an older one",
        "MANIFEST-000013": record(FULL, b"edits") + record(FULL, b"torn")[:-1],
        "CURRENT": b"MANIFEST-000013\n",
    }
    for name, data in files.items():
        disk.write_file_atomic(f"/db/{name}", data)
    edits = len(record(FULL, b"edits"))
    tails = torn_tails(disk, "/db")
    assert tails == [TornTail("/db/000012.log", ends[0]), TornTail("/db/MANIFEST-000013", edits)]
    for tail in tails:
        cut_off(disk, tail)
    disk.crash()
    assert torn_tails(disk, "/db") == []
    assert disk.read_file("/db/000012.log") == log[: ends[0]]
    assert disk.read_file("/db/000007.log") == files["000007.log"]


def test_a_manifest_that_is_torn_from_its_beginning_is_damaged() -> None:
    # Its first edits were synced before CURRENT named it.
    disk = MemoryDisk(random.Random(0))
    disk.make_directory("/db")
    disk.write_file_atomic("/db/CURRENT", b"MANIFEST-000002\n")
    disk.write_file_atomic("/db/MANIFEST-000002", record(FULL, b"edits")[:-1])
    with pytest.raises(Corrupt):
        torn_tails(disk, "/db")
    assert torn_tails(disk, "/nothing") == []


# A real LevelDB.


def open_leveldb(path: Path, *, create: bool = False) -> LevelDbLogEngine:
    return LevelDbLogEngine(RealDisk(), str(path), create=create)


def newest(path: Path, pattern: str) -> Path:
    return max(path.glob(pattern))


def test_leveldb_opens_whatever_of_its_last_commit_arrived(
    tmp_path: Path, make_writer: Any
) -> None:
    chance = random.Random(3)
    engine = open_leveldb(tmp_path / "db", create=True)
    writer = make_writer("a")
    engine.create("a", 1)
    for size in (100, 40_000, 700, 3000):
        assert engine.commit([writer.append(chance.randbytes(size))]) == [None]
    acknowledged = engine.tail("a")
    log = newest(tmp_path / "db", "*.log")
    start = log.stat().st_size
    last = writer.append(chance.randbytes(50_000))
    assert engine.commit([last]) == [None]
    shutil.copytree(tmp_path / "db", tmp_path / "killed")
    engine.close()
    data = (tmp_path / "killed" / log.name).read_bytes()
    sectors = range(start // SECTOR_BYTES, -(-len(data) // SECTOR_BYTES))
    cut = 0
    for number in range(40):
        image = tmp_path / f"image-{number}"
        shutil.copytree(tmp_path / "killed", image)
        lost = {each for each in sectors if chance.random() < (0.02, 0.5, 0.98)[number % 3]}
        size = chance.choice([len(data), chance.randrange(start, len(data))])
        (image / log.name).write_bytes(torn(data, start, size, lost))
        cut += bool(torn_tails(RealDisk(), str(image)))
        engine = open_leveldb(image)
        assert engine.tail("a") in (acknowledged, acknowledged + 1)
        assert len(engine.read("a", 1, 10**6)) == engine.tail("a")
        engine.close()
        shutil.rmtree(image)
    assert cut > 20


def test_leveldb_opens_whatever_of_its_last_manifest_edit_arrived(
    tmp_path: Path, make_writer: Any
) -> None:
    engine = open_leveldb(tmp_path / "db", create=True)
    writer = make_writer("a")
    engine.create("a", 1)
    across = 0
    for number in range(12):
        assert engine.commit([writer.append(b"x" * 500)]) == [None]
        manifest = newest(tmp_path / "db", "MANIFEST-*")
        start = manifest.stat().st_size
        before = tmp_path / f"before-{number}"
        shutil.copytree(tmp_path / "db", before)
        engine._db.compact_range()
        data = manifest.read_bytes()
        end = start + HEADER_BYTES + int.from_bytes(data[start + 4 : start + 6], "little")
        sectors = range(start // SECTOR_BYTES, -(-end // SECTOR_BYTES))
        across += len(sectors) > 1
        for lost in sectors:
            # What an edit makes superfluous is removed behind its sync.
            image = tmp_path / f"image-{number}-{lost}"
            shutil.copytree(before, image)
            (image / manifest.name).write_bytes(torn(data, start, end, {lost}))
            assert [tail.end for tail in torn_tails(RealDisk(), str(image))] == [start]
            opened = open_leveldb(image)
            assert opened.tail("a") == number + 1
            opened.close()
    engine.close()
    assert across


def test_leveldb_with_damage_before_its_last_commit_is_refused(
    tmp_path: Path, make_writer: Any
) -> None:
    engine = open_leveldb(tmp_path / "db", create=True)
    writer = make_writer("a")
    engine.create("a", 1)
    log = newest(tmp_path / "db", "*.log")
    start = log.stat().st_size
    for _ in range(2):
        assert engine.commit([writer.append(b"x" * 700)]) == [None]
    engine.close()
    data = log.read_bytes()
    # An empty header LevelDB takes for empty space: by itself it would drop both, and open.
    image = data[:start] + bytes(HEADER_BYTES) + data[start + HEADER_BYTES :]
    log.write_bytes(image)
    with pytest.raises(Corrupt, match="damaged at"):
        open_leveldb(tmp_path / "db")
    assert log.read_bytes() == image


def test_leveldb_that_another_has_open_is_not_cut(tmp_path: Path, make_writer: Any) -> None:
    engine = open_leveldb(tmp_path / "db", create=True)
    engine.create("a", 1)
    log = newest(tmp_path / "db", "*.log")
    with log.open("ab") as file:
        file.write(record(FULL, b"being written")[:-1])
    size = log.stat().st_size
    with pytest.raises(DirectoryInUse):
        open_leveldb(tmp_path / "db")
    assert log.stat().st_size == size
    engine.close()


# Trims ride in commits.


def test_leveldb_trims_with_the_next_commits(tmp_path: Path, make_writer: Any) -> None:
    engine = open_leveldb(tmp_path / "db", create=True)
    writers = [make_writer(name) for name in ("a", "b")]
    for writer in writers:
        engine.create(writer.log_id, 1)
        assert engine.commit([writer.append() for _ in range(2500)]) == [None] * 2500
    written = newest(tmp_path / "db", "*.log").stat().st_size
    engine.trim("a", 2400)
    engine.trim("a", 2500)
    engine.delete("b")
    marked = newest(tmp_path / "db", "*.log").stat().st_size
    # A trim writes nothing; a deletion its mark alone.
    assert marked - written < 100
    rows = []
    for _ in range(7):
        assert engine.commit([writers[0].append()]) == [None]
        rows.append(len(list(engine._db)))
    # Two rows besides the entries of "a": the root and its own; until the end the mark of "b".
    assert rows[-1] == 2 + 1 + 7
    assert all(before - after <= 1001 for before, after in pairwise(rows))
    engine.reopen()
    assert (engine.list(), engine.first("a")) == (["a"], 2500)
    engine.close()


def test_leveldb_begins_a_log_whose_namesake_is_still_being_removed(
    tmp_path: Path, make_writer: Any
) -> None:
    engine = open_leveldb(tmp_path / "db", create=True)
    writer = make_writer("a")
    engine.create("a", 1)
    assert engine.commit([writer.append() for _ in range(2500)]) == [None] * 2500
    engine.trim("a", 100)
    engine.delete("a")
    engine.create("a", 2000)
    assert engine.read("a", 2000, 1000) == []
    new = make_writer("a", first_lsn=2000)
    assert engine.commit([new.append(b"new")]) == [None]
    engine.reopen()
    assert (engine.first("a"), engine.tail("a")) == (2000, 2000)
    assert len(list(engine._db)) == 3
    engine.close()
