"""Damaged files: whatever is read is what was written, and nothing is missing in the middle."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millstream.errors import Corrupt, StorageError, WrongFormat
from millstream.host.disk import RealDisk
from millstream.host.memory_disk import MemoryDisk
from millstream.storage.log.entry import EntryHeader, chain_hash, decode_entry, encode_entry
from millstream.storage.log.interface import Append, LogEngine
from millstream.storage.log.leveldb import LevelDbLogEngine
from millstream.storage.log.segments import SegmentsLogEngine

SEGMENT_BYTES = 1500
LOGS = ("a", "b")


def written_entries(engine: LogEngine, make_writer: Any, rounds: int) -> dict[str, list[bytes]]:
    writers = [make_writer(name) for name in LOGS]
    entries: dict[str, list[bytes]] = {name: [] for name in LOGS}
    for writer in writers:
        engine.create(writer.log_id, 1)
    for number in range(rounds):
        appends = [writer.append(b"%d payload" % number) for writer in writers]
        assert engine.commit(appends) == [None, None]
        for append in appends:
            entries[append.log_id].append(append.entry)
    return entries


def check(open_engine: Callable[[], LogEngine], entries: dict[str, list[bytes]]) -> str:
    """Open and read everything: "corrupt", "exact" or "short"; anything else fails the test."""
    try:
        engine = open_engine()
    except Corrupt:
        return "corrupt"
    try:
        found: dict[str, list[bytes]] = {}
        for name in engine.list():
            # One entry per read, so that what stands before the damage is looked at too.
            found[name] = []
            for lsn in range(engine.first(name), engine.tail(name) + 1):
                found[name] += [entry.data for entry in engine.read(name, lsn, 1)]
    except Corrupt:
        return "corrupt"
    finally:
        engine.close()
    for name, seen in found.items():
        assert seen == entries[name][: len(seen)]
    return "exact" if found == entries else "short"


class Segments:
    """Segment files in memory, damaged one at a time."""

    def __init__(self, make_writer: Any) -> None:
        self.disk = MemoryDisk(random.Random(0))
        engine = SegmentsLogEngine(self.disk, "/log", create=True, segment_bytes=SEGMENT_BYTES)
        self.entries = written_entries(engine, make_writer, 30)
        engine.close()
        self.names = self.disk.list("/log")
        self.files = {name: self.disk.read_file(f"/log/{name}") for name in self.names}

    def check(self, name: str, data: bytes | None) -> str:
        """With one file changed, or gone."""
        disk = MemoryDisk(random.Random(0))
        disk.make_directory("/log")
        for other, whole in self.files.items():
            content = data if other == name else whole
            if content is not None:
                file = disk.open(f"/log/{other}", create=True)
                file.pwrite(0, content)
        return check(
            lambda: SegmentsLogEngine(disk, "/log", create=False, segment_bytes=SEGMENT_BYTES),
            self.entries,
        )

    def last_frame(self) -> tuple[int, int]:
        """Where the last frame of the last segment begins and ends."""
        data = self.files[self.names[-1]]
        return data.rindex(b"mSlG"), len(data.rstrip(b"\x00"))


@pytest.fixture
def segments(make_writer: Any) -> Segments:
    return Segments(make_writer)


def used(data: bytes) -> int:
    return len(data.rstrip(b"\x00"))


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_flipped_bit_in_a_closed_segment_is_corrupt(segments: Segments) -> None:
    chance = random.Random(1)
    assert len(segments.names) > 3
    for name in segments.names[:-1]:
        data = segments.files[name]
        for bit in chance.sample(range(8 * used(data)), 120):
            assert segments.check(name, flipped(data, bit)) == "corrupt"


def test_a_flipped_bit_in_the_last_segment_is_corrupt_or_cuts_the_last_frame(
    segments: Segments,
) -> None:
    name = segments.names[-1]
    data = segments.files[name]
    last, end = segments.last_frame()
    for bit in range(0, 8 * end, 5):
        expected = "corrupt" if bit // 8 < last else "short"
        assert segments.check(name, flipped(data, bit)) == expected, bit


def test_bits_in_the_empty_space_change_nothing(segments: Segments) -> None:
    for name in segments.names:
        data = segments.files[name]
        for at in range(used(data) + 8, len(data), 97):
            assert segments.check(name, flipped(data, 8 * at)) == "exact"


def test_a_cut_closed_segment_is_corrupt(segments: Segments) -> None:
    for name in segments.names[:-1]:
        data = segments.files[name]
        for length in range(0, used(data), 29):
            assert segments.check(name, data[:length]) == "corrupt"
        assert segments.check(name, None) == "corrupt"


def test_a_cut_last_segment_is_a_shorter_log(segments: Segments) -> None:
    name = segments.names[-1]
    data = segments.files[name]
    for length in range(0, used(data), 13):
        assert segments.check(name, data[:length]) == "short"


def test_a_frame_elsewhere_than_it_was_written_is_damage(segments: Segments) -> None:
    name = segments.names[0]
    data = segments.files[name]
    second = data.index(b"mSlG", 1)
    third = data.index(b"mSlG", second + 1)
    assert segments.check(name, data[:second] + data[third:]) == "corrupt"
    assert segments.check(segments.names[1], data) == "corrupt"


def test_trimmed_segments_are_deleted_and_start_up_does_not_read_them(make_writer: Any) -> None:
    disk = MemoryDisk(random.Random(0))
    engine = SegmentsLogEngine(disk, "/log", create=True, segment_bytes=SEGMENT_BYTES)
    busy, idle = make_writer("busy"), make_writer("idle")
    engine.create("busy", 1)
    engine.create("idle", 1)
    assert engine.commit([idle.append(b"the only one")]) == [None]
    for number in range(1, 200):
        assert engine.commit([busy.append()]) == [None]
        engine.trim("busy", number - 3)
    # The idle log's entry was copied forward again and again; it holds no segment.
    assert len(disk.list("/log")) <= 3
    engine.reopen()
    assert engine.read("idle", 1, 1000)[0].data.count(b"the only one") == 1
    assert [entry.lsn for entry in engine.read("busy", engine.first("busy"), 10**6)][-1] == 199
    engine.delete("idle")
    engine.reopen()
    assert engine.list() == ["busy"]


def test_a_crash_between_two_deletions_leaves_no_gap(make_writer: Any) -> None:
    # One trim frees many segments; the crash may undo any removal that was not synced by name.
    for seed in range(30):
        disk = MemoryDisk(random.Random(seed))
        engine = SegmentsLogEngine(disk, "/log", create=True, segment_bytes=SEGMENT_BYTES)
        written_entries(engine, make_writer, 40)
        engine.trim("a", 40)
        engine.trim("b", 40)
        disk.freeze()
        engine.close()
        disk.crash()
        again = SegmentsLogEngine(disk, "/log", create=False, segment_bytes=SEGMENT_BYTES)
        assert (again.tail("a"), again.tail("b")) == (40, 40)


def test_a_new_segment_survives_the_crash_after_it(make_writer: Any) -> None:
    # Its name must be synced before anything in it is acknowledged.
    for seed in range(30):
        disk = MemoryDisk(random.Random(seed))
        engine = SegmentsLogEngine(disk, "/log", create=True, segment_bytes=SEGMENT_BYTES)
        entries = written_entries(engine, make_writer, 12)
        disk.crash()
        again = SegmentsLogEngine(disk, "/log", create=False, segment_bytes=SEGMENT_BYTES)
        for name in LOGS:
            assert [entry.data for entry in again.read(name, 1, 10**6)] == entries[name]


def test_an_error_on_reading_is_a_storage_error(make_writer: Any) -> None:
    disk = MemoryDisk(random.Random(0))
    engine = SegmentsLogEngine(disk, "/log", create=True)
    written_entries(engine, make_writer, 2)
    disk.freeze()
    with pytest.raises(StorageError):
        engine.read("a", 1, 100)


# LevelDB: entries in its own log, then in table files.


def leveldb_files(path: Path, make_writer: Any, *, tables: bool) -> dict[str, list[bytes]]:
    engine = LevelDbLogEngine(RealDisk(), str(path), create=True)
    entries = written_entries(engine, make_writer, 60)
    if tables:
        engine._db.compact_range()
    engine.close()
    return entries


@pytest.mark.parametrize("tables", [False, True])
def test_leveldb_never_loses_an_entry_in_the_middle(
    tmp_path: Path, make_writer: Any, tables: bool
) -> None:
    original = tmp_path / "original"
    entries = leveldb_files(original, make_writer, tables=tables)
    chance = random.Random(2)
    suffix = ".ldb" if tables else ".log"
    seen = []
    for number in range(60):
        copy = tmp_path / f"copy-{number}"
        shutil.copytree(original, copy)
        (file,) = [each for each in copy.iterdir() if each.suffix == suffix and each.stat().st_size]
        data = file.read_bytes()
        file.write_bytes(flipped(data, chance.randrange(8 * len(data))))
        seen.append(
            check(lambda path=str(copy): LevelDbLogEngine(RealDisk(), path, create=False), entries)
        )
        shutil.rmtree(copy)
    # "exact": the bit lay in bytes that nobody needs, such as the padding of a table's footer.
    assert seen.count("corrupt") > 40
    # "short" is an end that is missing: in LevelDB's own log a damaged length that points beyond
    # the file passes for a torn write. In a table it would be entries hidden by an iterator.
    assert seen.count("short") <= (0 if tables else 5)


def test_leveldb_cut_at_its_end_is_a_shorter_log_or_corrupt(
    tmp_path: Path, make_writer: Any
) -> None:
    original = tmp_path / "original"
    entries = leveldb_files(original, make_writer, tables=False)
    for number, length in enumerate(range(50, 9000, 700)):
        copy = tmp_path / f"copy-{number}"
        shutil.copytree(original, copy)
        (file,) = [each for each in copy.iterdir() if each.suffix == ".log"]
        data = file.read_bytes()
        assert length < len(data)
        file.write_bytes(data[:-length])
        assert check(
            lambda path=str(copy): LevelDbLogEngine(RealDisk(), path, create=False), entries
        ) in (
            "short",
            "corrupt",
        )


@pytest.mark.parametrize(
    ("lost", "found_at"), [(1, "open"), (30, "read"), (31, "read"), (60, "never")]
)
def test_leveldb_rows_that_vanish_are_noticed(
    tmp_path: Path, make_writer: Any, lost: int, found_at: str
) -> None:
    leveldb_files(tmp_path / "db", make_writer, tables=False)
    import plyvel

    database = plyvel.DB(str(tmp_path / "db"))
    database.delete(b"e\x01a" + lost.to_bytes(8, "big"))
    database.close()
    if found_at == "open":
        with pytest.raises(Corrupt):
            LevelDbLogEngine(RealDisk(), str(tmp_path / "db"), create=False)
        return
    engine = LevelDbLogEngine(RealDisk(), str(tmp_path / "db"), create=False)
    if found_at == "read":
        with pytest.raises(Corrupt):
            engine.read("a", 1, 10**6)
        with pytest.raises(Corrupt):
            engine.read("a", lost, 1)
        # What stands before it can be read.
        assert engine.read("a", lost - 1, 1)[0].lsn == lost - 1
    else:
        # A lost end shows to whoever remembers a position beyond it, and to nobody else.
        assert engine.tail("a") == lost - 1
    engine.close()


def test_leveldb_goes_on_with_a_trim_and_a_deletion_that_were_interrupted(
    tmp_path: Path, make_writer: Any
) -> None:
    entries = leveldb_files(tmp_path / "db", make_writer, tables=False)
    import plyvel

    database = plyvel.DB(str(tmp_path / "db"))
    database.put(b"ma", (10).to_bytes(8, "big"))
    database.put(b"r", b"\x01" + (1).to_bytes(8, "big"))
    database.delete(b"mb")
    database.put(b"db", b"")
    database.close()
    engine = LevelDbLogEngine(RealDisk(), str(tmp_path / "db"), create=False)
    assert engine.list() == ["a"]
    assert (engine.first("a"), engine.tail("a")) == (10, 60)
    # They ride in the next commit.
    last = decode_entry(entries["a"][-1])[0]
    header = EntryHeader(last.epoch, 7, 61, last.timestamp + 1, chain_hash(entries["a"][-1]))
    assert engine.commit([Append("a", 60, encode_entry(header, b""))]) == [None]
    assert len(list(engine._db)) == 2 + 52
    engine.close()


def test_leveldb_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    LevelDbLogEngine(RealDisk(), str(tmp_path / "db"), create=True).close()
    import plyvel

    database = plyvel.DB(str(tmp_path / "db"))
    database.put(b"r", b"\x02" + bytes(8))
    database.close()
    with pytest.raises(WrongFormat):
        LevelDbLogEngine(RealDisk(), str(tmp_path / "db"), create=False)


def test_files_of_leveldb_and_segments_are_refused_when_gone(tmp_path: Path) -> None:
    with pytest.raises(Corrupt):
        LevelDbLogEngine(RealDisk(), str(tmp_path / "nothing"), create=False)
    (tmp_path / "log").mkdir()
    with pytest.raises(Corrupt):
        SegmentsLogEngine(RealDisk(), str(tmp_path / "log"), create=False)


def test_behind_a_torn_new_segment_the_one_before_is_the_last(segments: Segments) -> None:
    # A crash while a segment was begun leaves a file without a checkpoint; it holds nothing.
    number = int(segments.names[-1].removesuffix(".segment"), 16) + 1
    torn = f"{number:016x}.segment"
    assert segments.check(segments.names[0], segments.files[segments.names[0]]) == "exact"
    segments.files[torn] = bytes(SEGMENT_BYTES)
    assert segments.check(torn, bytes(SEGMENT_BYTES)) == "exact"
    # It does not make the segment before it a closed one, whose end nobody questions.
    name = segments.names[-1]
    second = segments.files[name].index(b"mSlG", 1)
    assert segments.check(name, flipped(segments.files[name], 8 * second)) == "corrupt"


def test_leveldb_that_hides_a_log_is_corrupt(tmp_path: Path, make_writer: Any) -> None:
    leveldb_files(tmp_path / "db", make_writer, tables=False)
    import plyvel

    database = plyvel.DB(str(tmp_path / "db"))
    database.delete(b"mb")
    database.close()
    with pytest.raises(Corrupt):
        LevelDbLogEngine(RealDisk(), str(tmp_path / "db"), create=False)


def test_leveldb_that_hides_a_tail_is_corrupt(tmp_path: Path, make_writer: Any) -> None:
    # The block with the last entries of "a" is unreadable; a reverse iterator skips it in silence.
    leveldb_files(tmp_path / "db", make_writer, tables=True)
    (file,) = [each for each in (tmp_path / "db").iterdir() if each.suffix == ".ldb"]
    data = file.read_bytes()
    at = data.index(b"59 payload")
    file.write_bytes(flipped(data, 8 * at))
    with pytest.raises(Corrupt):
        LevelDbLogEngine(RealDisk(), str(tmp_path / "db"), create=False)
