"""A power cut while a log is made: the next start makes it again, and never over logs."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millstream.errors import Corrupt, StorageError, WrongFormat
from millstream.host.disk import RealDisk
from millstream.host.memory_disk import MemoryDisk
from millstream.storage.log import open_log_engine, open_replicated_log_engine
from millstream.storage.log.interface import LogEngine
from millstream.storage.log.replicated import ReplicatedLogEngine
from millstream.storage.log.segments import SegmentsLogEngine

COPIES = ["/a", "/b", "/c"]


class FadingDisk(MemoryDisk):
    """Freezes after so many operations."""

    left: int | None = None

    def check_running(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.freeze()
        super().check_running()


def open_one(disk: MemoryDisk) -> LogEngine:
    return open_log_engine(disk, "/a", "segments")


def open_copies(disk: MemoryDisk) -> ReplicatedLogEngine:
    return open_replicated_log_engine(
        disk,
        COPIES,
        "segments",
        run_all=lambda calls: [call() for call in calls],
        new_set_id=f"set {disk.life}",
    )


def cut_power_while(disk: FadingDisk, act: Callable[[MemoryDisk], LogEngine], left: int) -> bool:
    """Whether it came to that: `act` is begun, and the power fails after `left` operations."""
    disk.left = left
    try:
        act(disk)
    except (StorageError, OSError):
        pass
    assert disk.left is not None
    came = disk.left < 0
    disk.left = None
    disk.crash()
    return came


@pytest.mark.parametrize("act", [open_one, open_copies])
def test_a_log_of_segments_is_made_again_wherever_the_power_failed(
    act: Callable[[MemoryDisk], LogEngine], make_writer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The twin of a disk is slow with files of many sectors.
    defaults = SegmentsLogEngine.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "segment_bytes", 4096)
    chance = random.Random(4)
    for operations in itertools.count():
        for _ in range(6):
            disk = FadingDisk(chance)
            if not cut_power_while(disk, act, operations):
                assert operations > (40 if act is open_copies else 10)
                return
            # And once more, while it is made again.
            cut_power_while(disk, act, chance.randrange(operations + 1))
            engine = act(disk)
            assert engine.list() == []
            engine.create("orders", 1)
            assert engine.commit([make_writer().append()]) == [None]
            disk.crash()
            engine = act(disk)
            assert engine.tail("orders") == 1
            if isinstance(engine, ReplicatedLogEngine):
                assert [copy.logs_behind for copy in engine.statistics()] == [0, 0, 0]


def damaged_leveldbs(original: Path, tmp_path: Path) -> list[Path]:
    """Copies in which some files are empty or absent, as if their bytes or names were lost."""
    made = []
    names = [file.name for file in original.iterdir() if file.name not in ("LOCK", "LOG")]
    for number, fates in enumerate(itertools.product(("kept", "empty", "gone"), repeat=len(names))):
        copy = tmp_path / f"made-{number}"
        shutil.copytree(original, copy / "leveldb")
        for name, fate in zip(names, fates, strict=True):
            if fate == "empty":
                (copy / "leveldb" / name).write_bytes(b"")
            elif fate == "gone":
                (copy / "leveldb" / name).unlink()
        made.append(copy)
    return made


def test_a_leveldb_is_made_again_whatever_of_it_arrived(tmp_path: Path) -> None:
    open_log_engine(RealDisk(), str(tmp_path / "whole"), "leveldb").close()
    copies = damaged_leveldbs(tmp_path / "whole" / "leveldb", tmp_path)
    assert len(copies) == 27
    for copy in copies:
        engine = open_log_engine(RealDisk(), str(copy), "leveldb")
        assert engine.list() == []
        engine.create("a", 1)
        engine.close()
        engine = open_log_engine(RealDisk(), str(copy), "leveldb")
        assert engine.list() == ["a"]
        engine.close()


def test_copies_in_leveldb_are_made_again(tmp_path: Path) -> None:
    open_log_engine(RealDisk(), str(tmp_path / "x"), "leveldb").close()
    # CURRENT arrived, what it names did not.
    (tmp_path / "x" / "log-engine").unlink()
    for manifest in (tmp_path / "x" / "leveldb").glob("MANIFEST-*"):
        manifest.write_bytes(b"")
    engine = open_replicated_log_engine(
        RealDisk(),
        [str(tmp_path / name) for name in "xyz"],
        "leveldb",
        run_all=lambda calls: [call() for call in calls],
        new_set_id="set",
    )
    assert [copy.open for copy in engine.statistics()] == [True] * 3
    engine.close()


def test_a_leveldb_whose_name_is_lost_keeps_its_logs(tmp_path: Path, make_writer: Any) -> None:
    engine = open_log_engine(RealDisk(), str(tmp_path), "leveldb")
    engine.create("orders", 1)
    assert engine.commit([make_writer().append(b"x" * 10_000)]) == [None]
    engine.close()
    (tmp_path / "log-engine").unlink()
    engine = open_log_engine(RealDisk(), str(tmp_path), "leveldb")
    assert engine.tail("orders") == 1
    engine.close()
    # Damaged besides, it is more than a making leaves, and stays as it is.
    (tmp_path / "log-engine").unlink()
    (table,) = (tmp_path / "leveldb").glob("*.ldb")
    for manifest in (tmp_path / "leveldb").glob("MANIFEST-*"):
        manifest.write_bytes(b"")
    for kind, refusal in (("leveldb", Corrupt), ("segments", WrongFormat)):
        with pytest.raises(refusal):
            open_log_engine(RealDisk(), str(tmp_path), kind)
    assert table.exists()


@pytest.mark.parametrize(("first", "second"), [("leveldb", "segments"), ("segments", "leveldb")])
def test_an_engine_that_was_never_finished_gives_way_to_another_leveldb_or_segments(
    tmp_path: Path, first: str, second: str
) -> None:
    open_log_engine(RealDisk(), str(tmp_path), first).close()
    (tmp_path / "log-engine").unlink()
    for _ in range(2):
        engine = open_log_engine(RealDisk(), str(tmp_path), second)
        assert engine.list() == []
        engine.close()
    assert list((tmp_path / first).iterdir()) == []


def test_a_copy_that_has_lost_its_engine_is_not_an_empty_one() -> None:
    # It would count for the majority that has seen everything.
    disk = MemoryDisk(random.Random(0))
    open_copies(disk).close()
    disk.remove("/a/log-engine")
    with pytest.raises(Corrupt, match="is gone"):
        open_log_engine(disk, "/a", "segments")
    engine = open_copies(disk)
    assert [copy.open for copy in engine.statistics()] == [False, True, True]


def test_a_set_that_was_in_use_is_never_made_again() -> None:
    # Two directories were lost: what is left is no majority, and no unfinished set either.
    disk = MemoryDisk(random.Random(0))
    engine = open_copies(disk)
    engine.create("orders", 1)
    engine.close()
    for path in COPIES[1:]:
        disk.remove(f"{path}/log-copy")
    with pytest.raises(StorageError, match="1 of 3 copies"):
        open_copies(disk)
