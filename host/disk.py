"""The door to files: the `Disk` protocol, the real disk, and a twin in memory that can crash.

Machines take a `Disk` through their constructor and never call `open`. Paths are POSIX strings.
Operations raise OSError as the operating system does (FileNotFoundError, ENOSPC, EIO); whoever
knows what the file means turns that into a domain error.

What is durable, and when, is POSIX at its strictest, and `MemoryDisk` models just that: bytes
after `File.fdatasync`; a created, renamed or removed name after `fsync_dir` of its directory; after
a failed fdatasync nothing, not even by another fdatasync that succeeds, until the bytes are
written again (Linux marks the pages clean; see "Can Applications Recover from fsync Failures?",
USENIX ATC 2020).
"""

from __future__ import annotations

import errno
import fcntl
import os
import posixpath
import sys
from typing import Final, Protocol

from ..errors import DirectoryInUse

# What a disk writes as a whole. A torn write keeps some sectors and loses others.
SECTOR_BYTES: Final = 512


class Lock(Protocol):
    """An exclusive lock of a directory by this process."""

    def release(self) -> None:
        """Let another process have it. Releasing twice is no error; nothing is removed."""
        ...


class File(Protocol):
    """An open file. Reads may run beside writes from another thread."""

    def pread(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end of the file."""
        ...

    def pwrite(self, offset: int, data: bytes) -> None:
        """Write all of `data` at `offset`, growing the file if need be."""
        ...

    def append(self, data: bytes) -> None:
        """Write all of `data` at the end."""
        ...

    def fdatasync(self) -> None:
        """Make every byte written so far, and the size, durable."""
        ...

    def preallocate(self, size_bytes: int) -> None:
        """Reserve space and grow the file to at least `size_bytes`; what is new reads as zeros."""
        ...

    def truncate(self, size_bytes: int) -> None:
        """Cut or grow (with zeros) to exactly `size_bytes`."""
        ...

    def size(self) -> int:
        """In bytes."""
        ...

    def close(self) -> None:
        """Never fails, and closing twice is no error. A file that is dropped closes itself."""
        ...


class Disk(Protocol):
    """Names and files under one root."""

    def open(self, path: str, *, create: bool = False) -> File:
        """For reading and writing. `create` makes a new file and demands that there is none."""
        ...

    def make_directory(self, path: str) -> None:
        """With its parents, durable; existing is no error."""
        ...

    def exists(self, path: str) -> bool:
        """Whether a file or a directory has this name."""
        ...

    def list(self, path: str) -> Names:
        """The names in a directory, sorted."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Replace `target` by `source`, at once for every reader; durable after fsync_dir."""
        ...

    def remove(self, path: str) -> None:
        """Take away a file's name; durable after fsync_dir."""
        ...

    def fsync_dir(self, path: str) -> None:
        """Make names created, renamed and removed in this directory durable."""
        ...

    def read_file(self, path: str) -> bytes:
        """All of a small file."""
        ...

    def write_file_atomic(self, path: str, data: bytes) -> None:
        """Replace a small file durably: after a crash it has the old bytes or the new."""
        ...

    def lock(self, path: str) -> Lock:
        """Lock by the file at `path` (made if missing). Raises DirectoryInUse if it is taken."""
        ...


# Named here because `Disk.list` hides the built-in inside the classes.
Names = list[str]


class RealFile:
    """A `File` of the operating system."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        # -1 once closed.
        self._descriptor = descriptor

    def pread(self, offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, offset)
        if len(data) in (0, size):
            return data
        pieces = [data]
        missing = size - len(data)
        while missing and (data := os.pread(self._descriptor, missing, offset + size - missing)):
            pieces.append(data)
            missing -= len(data)
        return b"".join(pieces)

    def pwrite(self, offset: int, data: bytes) -> None:
        written = os.pwrite(self._descriptor, data, offset)
        while written < len(data):
            written += os.pwrite(self._descriptor, data[written:], offset + written)

    def append(self, data: bytes) -> None:
        self.pwrite(self.size(), data)

    def fdatasync(self) -> None:
        if sys.platform == "darwin":
            # There fsync stops at the drive's cache, and fdatasync is missing.
            fcntl.fcntl(self._descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(self._descriptor)

    def preallocate(self, size_bytes: int) -> None:
        if size_bytes <= self.size():
            return
        if sys.platform == "darwin":
            os.ftruncate(self._descriptor, size_bytes)
        else:
            os.posix_fallocate(self._descriptor, 0, size_bytes)

    def truncate(self, size_bytes: int) -> None:
        os.ftruncate(self._descriptor, size_bytes)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        # A reader on another thread may be the last to hold a file that was trimmed away: closing
        # it under the reader would give its descriptor to some other file.
        self.close()


class RealLock:
    """A `Lock` by flock(2): the kernel gives it back when the process ends, however it ends."""

    __slots__ = ("_file",)

    def __init__(self, file: RealFile) -> None:
        self._file = file

    def release(self) -> None:
        self._file.close()


class RealDisk:
    """A `Disk` of the operating system."""

    __slots__ = ()

    def open(self, path: str, *, create: bool = False) -> RealFile:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0)
        return RealFile(os.open(path, flags, 0o600))

    def make_directory(self, path: str) -> None:
        if os.path.isdir(path):
            return
        parent = os.path.dirname(os.path.abspath(path))
        self.make_directory(parent)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
        self.fsync_dir(parent)

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def list(self, path: str) -> Names:
        return sorted(os.listdir(path))

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def fsync_dir(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read_file(self, path: str) -> bytes:
        file = self.open(path)
        try:
            return file.pread(0, file.size())
        finally:
            file.close()

    def write_file_atomic(self, path: str, data: bytes) -> None:
        write_file_atomic(self, path, data)

    def lock(self, path: str) -> RealLock:
        file = RealFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            fcntl.flock(file._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise DirectoryInUse(f"another process holds {os.path.dirname(path)}") from None
        except OSError:
            file.close()
            raise
        return RealLock(file)


def write_file_atomic(disk: Disk, path: str, data: bytes) -> None:
    """`Disk.write_file_atomic` by the other operations: write aside, sync, rename, sync names."""
    aside = path + ".new"
    if disk.exists(aside):
        disk.remove(aside)
    file = disk.open(aside, create=True)
    try:
        file.pwrite(0, data)
        file.fdatasync()
    finally:
        file.close()
    disk.rename(aside, path)
    disk.fsync_dir(posixpath.dirname(path) or ".")


def io_error(message: str) -> OSError:
    """What a broken disk raises."""
    return OSError(errno.EIO, message)
