"""The contract of a disk, held by the real one and its twin; then the twin's crashes."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from millstream.errors import DirectoryInUse
from millstream.host.disk import SECTOR_BYTES, Disk, RealDisk
from millstream.host.memory_disk import MemoryDisk


@pytest.fixture(params=["real", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Disk, str]:
    if request.param == "real":
        return RealDisk(), str(tmp_path)
    disk = MemoryDisk(random.Random(1))
    disk.make_directory("/data")
    return disk, "/data"


def test_bytes_come_back(place: tuple[Disk, str]) -> None:
    disk, root = place
    file = disk.open(f"{root}/a", create=True)
    file.append(b"hello ")
    file.append(b"world")
    file.pwrite(0, b"J")
    file.fdatasync()
    assert file.pread(0, 100) == b"Jello world"
    assert file.pread(6, 3) == b"wor"
    assert file.pread(11, 5) == b""
    assert file.size() == 11
    file.close()
    file.close()
    assert disk.read_file(f"{root}/a") == b"Jello world"


def test_writes_across_sectors_and_beyond_the_end(place: tuple[Disk, str]) -> None:
    disk, root = place
    file = disk.open(f"{root}/a", create=True)
    data = bytes(range(256)) * 10
    file.pwrite(700, data)
    assert file.size() == 700 + len(data)
    assert file.pread(0, 10_000) == bytes(700) + data


def test_preallocated_and_truncated_space_reads_as_zeros(place: tuple[Disk, str]) -> None:
    disk, root = place
    file = disk.open(f"{root}/a", create=True)
    file.pwrite(0, b"x" * 2000)
    file.preallocate(5000)
    assert file.size() == 5000
    assert file.pread(1999, 4000) == b"x" + bytes(3000)
    file.preallocate(100)
    assert file.size() == 5000
    file.truncate(1000)
    file.truncate(3000)
    assert file.pread(0, 5000) == b"x" * 1000 + bytes(2000)


def test_creating_demands_absence_and_opening_presence(place: tuple[Disk, str]) -> None:
    disk, root = place
    with pytest.raises(FileNotFoundError):
        disk.open(f"{root}/a")
    disk.open(f"{root}/a", create=True).close()
    with pytest.raises(FileExistsError):
        disk.open(f"{root}/a", create=True)
    with pytest.raises(FileNotFoundError):
        disk.open(f"{root}/missing/a", create=True)


def test_names(place: tuple[Disk, str]) -> None:
    disk, root = place
    disk.make_directory(f"{root}/deep/deeper")
    disk.make_directory(f"{root}/deep/deeper")
    assert disk.exists(f"{root}/deep")
    disk.open(f"{root}/deep/b", create=True).close()
    disk.open(f"{root}/deep/a", create=True).close()
    assert disk.list(f"{root}/deep") == ["a", "b", "deeper"]
    disk.rename(f"{root}/deep/b", f"{root}/deep/c")
    disk.remove(f"{root}/deep/a")
    disk.fsync_dir(f"{root}/deep")
    assert disk.list(f"{root}/deep") == ["c", "deeper"]
    assert not disk.exists(f"{root}/deep/a")
    for call in (disk.remove, disk.list, disk.fsync_dir, disk.read_file):
        with pytest.raises(FileNotFoundError):
            call(f"{root}/nothing")
    with pytest.raises(FileNotFoundError):
        disk.rename(f"{root}/nothing", f"{root}/x")


def test_atomic_replacement(place: tuple[Disk, str]) -> None:
    disk, root = place
    disk.write_file_atomic(f"{root}/id", b"one")
    disk.write_file_atomic(f"{root}/id", b"two")
    assert disk.read_file(f"{root}/id") == b"two"
    assert disk.list(root) == ["id"]


def test_a_removed_file_stays_readable_while_open(place: tuple[Disk, str]) -> None:
    disk, root = place
    file = disk.open(f"{root}/a", create=True)
    file.append(b"kept")
    disk.remove(f"{root}/a")
    assert file.pread(0, 10) == b"kept"


def test_a_lock_excludes_and_is_given_back(place: tuple[Disk, str]) -> None:
    disk, root = place
    lock = disk.lock(f"{root}/lock")
    with pytest.raises(DirectoryInUse):
        disk.lock(f"{root}/lock")
    lock.release()
    again = disk.lock(f"{root}/lock")
    lock.release()
    with pytest.raises(DirectoryInUse):
        disk.lock(f"{root}/lock")
    again.release()


# The twin's crashes.


def outcomes(act: Callable[[MemoryDisk], None], seeds: int = 60) -> set[bytes | None]:
    """What /d/f may hold after `act` and a crash; None for no such file."""
    seen: set[bytes | None] = set()
    for seed in range(seeds):
        disk = MemoryDisk(random.Random(seed))
        disk.make_directory("/d")
        act(disk)
        disk.crash()
        seen.add(disk.read_file("/d/f") if disk.exists("/d/f") else None)
    return seen


def create(disk: MemoryDisk, data: bytes = b"") -> None:
    file = disk.open("/d/f", create=True)
    file.append(data)
    file.fdatasync()
    disk.fsync_dir("/d")


def test_synced_bytes_under_a_synced_name_survive() -> None:
    assert outcomes(lambda disk: create(disk, b"safe")) == {b"safe"}


def test_a_name_without_fsync_dir_may_be_lost() -> None:
    def act(disk: MemoryDisk) -> None:
        file = disk.open("/d/f", create=True)
        file.append(b"safe")
        file.fdatasync()

    assert outcomes(act) == {None, b"safe"}


def test_unsynced_bytes_are_kept_lost_or_torn_by_sectors() -> None:
    def act(disk: MemoryDisk) -> None:
        create(disk, b"a" * 2 * SECTOR_BYTES)
        disk.open("/d/f").pwrite(0, b"b" * 2 * SECTOR_BYTES)

    old, new = b"a" * SECTOR_BYTES, b"b" * SECTOR_BYTES
    assert outcomes(act) == {old + old, old + new, new + old, new + new}


def test_growth_may_be_kept_without_the_bytes() -> None:
    def act(disk: MemoryDisk) -> None:
        create(disk, b"a")
        disk.open("/d/f").append(b"b")

    assert outcomes(act) == {b"a", b"ab", b"a\x00"}


def test_removal_and_rename_may_be_undone() -> None:
    def remove(disk: MemoryDisk) -> None:
        create(disk, b"x")
        disk.remove("/d/f")

    def rename(disk: MemoryDisk) -> None:
        create(disk, b"x")
        disk.rename("/d/f", "/d/g")

    assert outcomes(remove) == {None, b"x"}
    assert outcomes(rename) == {None, b"x"}


def test_a_failed_sync_leaves_bytes_in_doubt_until_they_are_written_again() -> None:
    def act(disk: MemoryDisk) -> None:
        create(disk, b"a")
        file = disk.open("/d/f")
        file.pwrite(0, b"b")
        disk.fail_next_sync()
        with pytest.raises(OSError):
            file.fdatasync()
        assert file.pread(0, 1) == b"b"
        file.fdatasync()

    def again(disk: MemoryDisk) -> None:
        act(disk)
        file = disk.open("/d/f")
        file.pwrite(0, b"b")
        file.fdatasync()

    assert outcomes(act) == {b"a", b"b"}
    assert outcomes(again) == {b"b"}


def test_atomic_replacement_is_atomic() -> None:
    def act(disk: MemoryDisk) -> None:
        disk.write_file_atomic("/d/f", b"old")
        disk.fail_writes_after(1)
        with pytest.raises(OSError):
            disk.write_file_atomic("/d/f", b"new")

    assert outcomes(act) == {b"old"}
    assert outcomes(lambda disk: disk.write_file_atomic("/d/f", b"new")) == {b"new"}


def test_a_frozen_disk_refuses_until_the_crash_and_old_files_after_it() -> None:
    disk = MemoryDisk(random.Random(0))
    disk.make_directory("/d")
    create(disk, b"x")
    file = disk.open("/d/f")
    lock = disk.lock("/d/lock")
    disk.freeze()
    for call in (
        lambda: file.pwrite(0, b"y"),
        file.fdatasync,
        lambda: disk.open("/d/f"),
        lambda: disk.remove("/d/f"),
    ):
        with pytest.raises(OSError):
            call()
    disk.crash()
    with pytest.raises(ValueError):
        file.pread(0, 1)
    disk.lock("/d/lock")
    lock.release()
    with pytest.raises(DirectoryInUse):
        disk.lock("/d/lock")
    assert disk.read_file("/d/f") == b"x"


def test_a_flipped_bit_stays_flipped() -> None:
    def act(disk: MemoryDisk) -> None:
        create(disk, b"\x00\x00")
        disk.flip_bit("/d/f", 9)
        assert disk.read_file("/d/f") == b"\x00\x02"

    assert outcomes(act, 5) == {b"\x00\x02"}


def test_a_seed_replays_a_crash() -> None:
    def run(seed: int) -> bytes:
        disk = MemoryDisk(random.Random(seed))
        disk.make_directory("/d")
        create(disk, b"a" * 5000)
        disk.open("/d/f").pwrite(0, b"b" * 5000)
        disk.crash()
        return disk.read_file("/d/f")

    assert run(3) == run(3)
    assert run(3) != run(4)
