"""Shared by the log tests: a writer of valid chains, and every engine behind one fixture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from millstream.host.disk import RealDisk
from millstream.storage.log import open_replicated_log_engine
from millstream.storage.log.entry import ZERO_HASH, EntryHeader, chain_hash, encode_entry
from millstream.storage.log.interface import Append, LogEngine
from millstream.storage.log.leveldb import LevelDbLogEngine
from millstream.storage.log.memory import MemoryLogEngine
from millstream.storage.log.segments import SegmentsLogEngine


class Writer:
    """Makes the entries of one log, each continuing the one before."""

    def __init__(self, log_id: str = "orders", first_lsn: int = 1, epoch: int = 1) -> None:
        self.log_id = log_id
        self.epoch = epoch
        self.last_lsn = first_lsn - 1
        self.previous_hash = ZERO_HASH

    def entry(self, payload: bytes = b"payload") -> bytes:
        lsn = self.last_lsn + 1
        header = EntryHeader(self.epoch, 7, lsn, lsn * 10, self.previous_hash)
        data = encode_entry(header, payload)
        self.last_lsn = lsn
        self.previous_hash = chain_hash(data)
        return data

    def append(self, payload: bytes = b"payload") -> Append:
        expected_last = self.last_lsn
        return Append(self.log_id, expected_last, self.entry(payload))


@pytest.fixture
def make_writer() -> type[Writer]:
    return Writer


@pytest.fixture(autouse=True)
def leveldb_is_there_or_the_test_is_skipped(request: pytest.FixtureRequest) -> None:
    """A test or case with LevelDB in its name needs plyvel, which has no wheel everywhere."""
    if "leveldb" in request.node.name:
        pytest.importorskip("plyvel")


OpenEngine = Callable[[Path], LogEngine]
ENGINES: dict[str, OpenEngine] = {
    "memory": lambda path: MemoryLogEngine(),
    "segments": lambda path: SegmentsLogEngine(RealDisk(), str(path / "log"), create=True),
    # Segments so small that every test rolls, copies forward and deletes files.
    "small segments": lambda path: SegmentsLogEngine(
        RealDisk(), str(path / "log"), create=True, segment_bytes=600
    ),
    "leveldb": lambda path: LevelDbLogEngine(RealDisk(), str(path / "leveldb"), create=True),
    "replicated": lambda path: open_replicated_log_engine(
        RealDisk(),
        [str(path / name) for name in "xyz"],
        "segments",
        run_all=lambda calls: [call() for call in calls],
        new_set_id="set",
    ),
}


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LogEngine]:
    opened = ENGINES[request.param](tmp_path)
    yield opened
    opened.close()
