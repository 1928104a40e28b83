"""A disk in memory that crashes as real ones do: for tests and for simulation.

Every file has two images, sector by sector: what a read sees (the page cache) and what is on the
platter. A crash decides for every sector that was written and not synced which of its versions
since the last sync it keeps, for every size change whether it took place, and for every change of a
name not followed by `fsync_dir` whether it is kept; all by an injected source of randomness, in a
fixed order, so that a seed replays it. `fail_next_sync` models Linux: the bytes stay readable, are
in doubt until they are written again, and a later sync that succeeds says nothing about them.

Invariant: for a sector in neither `dirty` nor `doubtful`, both images are equal.
"""

from __future__ import annotations

import posixpath
from typing import Final, Protocol

from ..errors import DirectoryInUse
from .disk import SECTOR_BYTES, File, Names, io_error, write_file_atomic

_ZEROS: Final = bytes(SECTOR_BYTES)


class Chance(Protocol):
    """The part of `random.Random` that decides what a crash keeps."""

    def randrange(self, stop: int, /) -> int:
        """A number from 0 to `stop` - 1."""
        ...


class _Node:
    """A file's content, whatever names it has."""

    __slots__ = ("dirty", "doubtful", "durable", "durable_size", "sectors", "size", "sizes")

    def __init__(self) -> None:
        # Sector number -> its 512 bytes; one that is missing is all zeros.
        self.sectors: dict[int, bytes] = {}
        self.durable: dict[int, bytes] = {}
        self.size = 0
        self.durable_size = 0
        # Versions since the last sync, oldest first: of a sector, and of the size.
        self.dirty: dict[int, list[bytes]] = {}
        self.sizes: list[int] = []
        # Versions that a failed sync has left in doubt.
        self.doubtful: dict[int, list[bytes]] = {}

    def set_sector(self, number: int, data: bytes) -> None:
        self.sectors[number] = data
        versions = self.doubtful.pop(number, None)
        self.dirty.setdefault(number, versions or []).append(data)

    def set_size(self, size: int) -> None:
        if size != self.size:
            self.size = size
            self.sizes.append(size)

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        position = offset
        while position < end:
            number, start = divmod(position, SECTOR_BYTES)
            stop = min(SECTOR_BYTES, start + end - position)
            piece = data[position - offset : position - offset + stop - start]
            old = self.sectors.get(number, _ZEROS)
            self.set_sector(number, old[:start] + piece + old[stop:])
            position += stop - start
        self.set_size(max(self.size, end))

    def read(self, offset: int, size: int) -> bytes:
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        first, last = offset // SECTOR_BYTES, (end - 1) // SECTOR_BYTES
        if last - first > 2 * len(self.sectors):
            # Preallocated space, mostly: do not look for sectors that are not there.
            image = bytearray((last - first + 1) * SECTOR_BYTES)
            for number, data in self.sectors.items():
                if first <= number <= last:
                    at = (number - first) * SECTOR_BYTES
                    image[at : at + SECTOR_BYTES] = data
            return bytes(image[offset - first * SECTOR_BYTES : end - first * SECTOR_BYTES])
        whole = b"".join(self.sectors.get(number, _ZEROS) for number in range(first, last + 1))
        return whole[offset - first * SECTOR_BYTES : end - first * SECTOR_BYTES]

    def truncate(self, size: int) -> None:
        # What lies beyond the cut must read as zeros if the file grows again.
        number, start = divmod(size, SECTOR_BYTES)
        if start and number in self.sectors:
            self.set_sector(number, self.sectors[number][:start] + _ZEROS[start:])
        for beyond in sorted(self.sectors):
            if beyond * SECTOR_BYTES >= size and self.sectors[beyond] != _ZEROS:
                self.set_sector(beyond, _ZEROS)
        self.set_size(size)

    def sync(self) -> None:
        for number in self.dirty:
            self.durable[number] = self.sectors[number]
        self.dirty.clear()
        self.durable_size = self.size
        self.sizes.clear()

    def fail_sync(self) -> None:
        self.doubtful.update(self.dirty)
        self.dirty.clear()

    def crash(self, chance: Chance) -> None:
        sizes = [self.durable_size, *self.sizes]
        self.durable_size = sizes[chance.randrange(len(sizes))]
        for number, versions in sorted((self.doubtful | self.dirty).items()):
            kept = chance.randrange(len(versions) + 1)
            if kept:
                self.durable[number] = versions[kept - 1]
        self.dirty.clear()
        self.doubtful.clear()
        self.sizes.clear()
        self.size = self.durable_size
        self.durable = _cut(self.durable, self.size)
        self.sectors = dict(self.durable)


def _cut(sectors: dict[int, bytes], size: int) -> dict[int, bytes]:
    number, start = divmod(size, SECTOR_BYTES)
    kept = {at: data for at, data in sectors.items() if at < number}
    if start and number in sectors:
        kept[number] = sectors[number][:start] + _ZEROS[start:]
    return kept


# One change of a directory: name -> the node it has from now on, or None. A rename has two names.
_Change = dict[str, _Node | None]


class _Directory:
    """Names, as they are seen and as they are durable."""

    __slots__ = ("changes", "durable", "names")

    def __init__(self) -> None:
        self.names: dict[str, _Node] = {}
        self.durable: dict[str, _Node] = {}
        # Since the last fsync_dir, oldest first.
        self.changes: list[_Change] = []

    def change(self, change: _Change) -> None:
        self.changes.append(change)
        _apply(self.names, change)

    def sync(self) -> None:
        self.durable = dict(self.names)
        self.changes.clear()

    def crash(self, chance: Chance) -> None:
        for change in self.changes:
            if chance.randrange(2):
                _apply(self.durable, change)
        self.changes.clear()
        self.names = dict(self.durable)


def _apply(names: dict[str, _Node], change: _Change) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class MemoryFile:
    """A `File` on a `MemoryDisk`. After a crash of its disk every call fails."""

    __slots__ = ("_disk", "_life", "_node")

    def __init__(self, disk: MemoryDisk, node: _Node) -> None:
        self._disk = disk
        self._node = node
        # In which of the disk's lives, between crashes, it was opened.
        self._life = disk.life

    def pread(self, offset: int, size: int) -> bytes:
        self._check()
        return self._node.read(offset, size)

    def pwrite(self, offset: int, data: bytes) -> None:
        self._check()
        self._disk.spend(len(data))
        self._node.write(offset, data)

    def append(self, data: bytes) -> None:
        self.pwrite(self._node.size, data)

    def fdatasync(self) -> None:
        self._check()
        if self._disk.take_sync_failure():
            self._node.fail_sync()
            raise io_error("the sync failed, as was asked for")
        self._node.sync()

    def preallocate(self, size_bytes: int) -> None:
        self._check()
        self._node.set_size(max(self._node.size, size_bytes))

    def truncate(self, size_bytes: int) -> None:
        self._check()
        self._node.truncate(size_bytes)

    def size(self) -> int:
        self._check()
        return self._node.size

    def close(self) -> None:
        # From now on it is of no life.
        self._life = -1

    def _check(self) -> None:
        self._disk.check_running()
        if self._life != self._disk.life:
            raise ValueError("the file is closed, or its disk has crashed since")


class MemoryLock:
    """A `Lock` on a `MemoryDisk`."""

    __slots__ = ("_disk", "_life", "_path")

    def __init__(self, disk: MemoryDisk, path: str) -> None:
        self._disk = disk
        self._path = path
        self._life = disk.life

    def release(self) -> None:
        # A lock from before a crash must not open the one that was taken after it.
        if self._life == self._disk.life:
            self._disk.locks.discard(self._path)
            self._life = -1


class MemoryDisk:
    """A `Disk` in memory; `crash`, `freeze`, `flip_bit` and the `fail_*` methods break it."""

    __slots__ = (
        "_chance",
        "_directories",
        "_fail_next_sync",
        "_frozen",
        "_write_budget_bytes",
        "life",
        "locks",
    )

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._directories: dict[str, _Directory] = {"/": _Directory(), ".": _Directory()}
        self._fail_next_sync = False
        self._frozen = False
        # Bytes that may still be written before every write fails; None for no end.
        self._write_budget_bytes: int | None = None
        self.locks: set[str] = set()
        # Counts crashes, so that files and locks from before one are known.
        self.life = 0

    # The protocol.

    def open(self, path: str, *, create: bool = False) -> File:
        self.check_running()
        directory, name = self._parent(path)
        node = directory.names.get(name)
        if create:
            if node is not None or path in self._directories:
                raise FileExistsError(path)
            node = _Node()
            directory.change({name: node})
        elif node is None:
            raise FileNotFoundError(path)
        return MemoryFile(self, node)

    def make_directory(self, path: str) -> None:
        self.check_running()
        while path not in self._directories:
            self._directories[path] = _Directory()
            path = posixpath.dirname(path) or "."

    def exists(self, path: str) -> bool:
        self.check_running()
        if path in self._directories:
            return True
        parent = self._directories.get(posixpath.dirname(path) or ".")
        return parent is not None and posixpath.basename(path) in parent.names

    def list(self, path: str) -> Names:
        self.check_running()
        if path not in self._directories:
            raise FileNotFoundError(path)
        below = {
            posixpath.basename(other)
            for other in self._directories
            if other not in ("/", ".") and (posixpath.dirname(other) or ".") == path
        }
        return sorted(below | self._directories[path].names.keys())

    def rename(self, source: str, target: str) -> None:
        self.check_running()
        directory, name = self._parent(source)
        target_directory, target_name = self._parent(target)
        assert directory is target_directory, "files are renamed within their directory only"
        if name not in directory.names:
            raise FileNotFoundError(source)
        directory.change({name: None, target_name: directory.names[name]})

    def remove(self, path: str) -> None:
        self.check_running()
        directory, name = self._parent(path)
        if name not in directory.names:
            raise FileNotFoundError(path)
        directory.change({name: None})

    def fsync_dir(self, path: str) -> None:
        self.check_running()
        if path not in self._directories:
            raise FileNotFoundError(path)
        if self.take_sync_failure():
            raise io_error("the sync failed, as was asked for")
        self._directories[path].sync()

    def read_file(self, path: str) -> bytes:
        file = self.open(path)
        return file.pread(0, file.size())

    def write_file_atomic(self, path: str, data: bytes) -> None:
        write_file_atomic(self, path, data)

    def lock(self, path: str) -> MemoryLock:
        self.check_running()
        self._parent(path)
        if path in self.locks:
            raise DirectoryInUse(f"another process holds {posixpath.dirname(path)}")
        if not self.exists(path):
            self.open(path, create=True)
        self.locks.add(path)
        return MemoryLock(self, path)

    # Faults.

    def freeze(self) -> None:
        """Let nothing reach the disk any more: every operation fails until `crash`.

        A crash runs no `finally` block, cancellation does; so freeze first, then cancel.
        """
        self._frozen = True

    def crash(self) -> None:
        """Lose, keep or tear what was not synced; then run again, with no file open."""
        nodes: dict[int, _Node] = {}
        for _, directory in sorted(self._directories.items()):
            directory.crash(self._chance)
            for _, node in sorted(directory.names.items()):
                nodes.setdefault(id(node), node)
        for node in nodes.values():
            node.crash(self._chance)
        self._frozen = False
        self._fail_next_sync = False
        self._write_budget_bytes = None
        self.locks.clear()
        self.life += 1

    def fail_next_sync(self) -> None:
        """Let the next fdatasync or fsync_dir fail with EIO."""
        self._fail_next_sync = True

    def fail_writes_after(self, size_bytes: int) -> None:
        """Let every write fail with EIO once this many bytes have been written; until a crash."""
        self._write_budget_bytes = size_bytes

    def flip_bit(self, path: str, bit: int) -> None:
        """Damage a stored bit: bit 0 is the lowest of the file's first byte."""
        directory, name = self._parent(path)
        node = directory.names[name]
        number, within = divmod(bit, 8 * SECTOR_BYTES)
        for image in (node.sectors, node.durable):
            sector = bytearray(image.get(number, _ZEROS))
            sector[within // 8] ^= 1 << within % 8
            image[number] = bytes(sector)

    # For files and locks.

    def check_running(self) -> None:
        if self._frozen:
            raise io_error("the disk is frozen")

    def take_sync_failure(self) -> bool:
        failure, self._fail_next_sync = self._fail_next_sync, False
        return failure

    def spend(self, size_bytes: int) -> None:
        if self._write_budget_bytes is not None:
            if size_bytes > self._write_budget_bytes:
                raise io_error("the disk is broken, as was asked for")
            self._write_budget_bytes -= size_bytes

    def _parent(self, path: str) -> tuple[_Directory, str]:
        parent = posixpath.dirname(path) or "."
        if parent not in self._directories:
            raise FileNotFoundError(parent)
        return self._directories[parent], posixpath.basename(path)
