"""A directory names its engine; another engine, a newer format or damage is refused."""

from __future__ import annotations

import builtins
import random
from pathlib import Path
from typing import Any

import pytest

from millstream.errors import ConfigurationError, Corrupt, DirectoryInUse, WrongFormat
from millstream.host.disk import RealDisk
from millstream.host.memory_disk import MemoryDisk
from millstream.storage.log import open_log_engine
from millstream.storage.log.entry import crc32c
from millstream.storage.log.identity import (
    CopyIdentity,
    EngineIdentity,
    read_copy_identity,
    read_engine_identity,
    write_identity,
)
from millstream.storage.log.leveldb import LevelDbLogEngine

GOLDEN = Path(__file__).parents[2] / "testdata" / "golden" / "log"


@pytest.mark.parametrize("kind", ["leveldb", "segments"])
def test_a_directory_is_made_and_opened_again(tmp_path: Path, kind: str) -> None:
    engine = open_log_engine(RealDisk(), str(tmp_path / "data"), kind)
    engine.create("a", 3)
    engine.close()
    engine = open_log_engine(RealDisk(), str(tmp_path / "data"), kind)
    assert engine.list() == ["a"]
    engine.close()


def test_another_engine_is_refused(tmp_path: Path) -> None:
    engine = open_log_engine(RealDisk(), str(tmp_path), "segments")
    engine.create("a", 1)
    engine.close()
    with pytest.raises(WrongFormat):
        open_log_engine(RealDisk(), str(tmp_path), "leveldb")
    # Also if the file that says so is lost.
    (tmp_path / "log-engine").unlink()
    with pytest.raises(WrongFormat):
        open_log_engine(RealDisk(), str(tmp_path), "leveldb")


def test_an_unknown_engine_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError):
        open_log_engine(MemoryDisk(random.Random(0)), "/data", "papyrus")


def test_an_engine_whose_files_are_gone_is_not_made_anew() -> None:
    disk = MemoryDisk(random.Random(0))
    open_log_engine(disk, "/data", "segments").close()
    for name in disk.list("/data/segments"):
        disk.remove(f"/data/segments/{name}")
    with pytest.raises(Corrupt):
        open_log_engine(disk, "/data", "segments")


def test_plyvel_missing_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_plyvel(name: str, *rest: Any) -> Any:
        if name == "plyvel":
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_plyvel)
    with pytest.raises(ConfigurationError, match="segments"):
        LevelDbLogEngine(RealDisk(), str(tmp_path / "db"), create=True)


def test_a_second_opener_of_a_leveldb_is_told(tmp_path: Path) -> None:
    engine = LevelDbLogEngine(RealDisk(), str(tmp_path / "db"), create=True)
    with pytest.raises(DirectoryInUse):
        LevelDbLogEngine(RealDisk(), str(tmp_path / "db"), create=True)
    engine.close()


def test_identities_come_back_and_every_flipped_bit_is_noticed() -> None:
    disk = MemoryDisk(random.Random(0))
    identity = CopyIdentity("set", 2, (0, 1, 2), 7)
    write_identity(disk, "/id", identity)
    assert read_copy_identity(disk, "/id") == identity
    assert read_copy_identity(disk, "/other") is None
    for bit in range(8 * len(disk.read_file("/id"))):
        disk.flip_bit("/id", bit)
        # The format's digit may turn into another digit; a newer one is refused as such.
        with pytest.raises((Corrupt, WrongFormat)):
            read_copy_identity(disk, "/id")
        disk.flip_bit("/id", bit)
    for length in range(len(disk.read_file("/id"))):
        disk.write_file_atomic("/cut", disk.read_file("/id")[:length])
        with pytest.raises(Corrupt):
            read_copy_identity(disk, "/cut")


def test_a_newer_identity_is_refused() -> None:
    disk = MemoryDisk(random.Random(0))
    disk.write_file_atomic("/id", b"2 %08x {}\n" % crc32c(b"{}"))
    with pytest.raises(WrongFormat):
        read_engine_identity(disk, "/id")


def test_golden_files_of_format_1_stay_readable() -> None:
    # Written by the release that introduced the format; never rewritten.
    disk = RealDisk()
    assert read_engine_identity(disk, str(GOLDEN / "log-engine-format-1")) == EngineIdentity(
        "segments"
    )
    assert read_copy_identity(disk, str(GOLDEN / "log-copy-format-1")) == CopyIdentity(
        "golden", 1, (0, 1, 3), 2
    )
    memory = MemoryDisk(random.Random(0))
    memory.make_directory("/log")
    memory.write_file_atomic(
        "/log/0000000000000001.segment", (GOLDEN / "segment-format-1.bin").read_bytes()
    )
    from millstream.storage.log.segments import SegmentsLogEngine

    engine = SegmentsLogEngine(memory, "/log", create=False, segment_bytes=4096)
    assert engine.list() == ["customers", "orders"]
    assert (engine.first("orders"), engine.tail("orders")) == (2, 4)
    assert [entry.data[50:-4] for entry in engine.read("orders", 2, 1000)] == [
        b"order 2",
        b"order 3",
        b"order 4",
    ]
    assert (engine.first("customers"), engine.tail("customers")) == (7, 7)
