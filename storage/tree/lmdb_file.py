"""LMDB's data file as the operating system sees it, looked at before LMDB maps it.

Used by ``lmdb_store`` only, while nothing has the file open for writing. LMDB trusts its file: a
page that the file does not reach is a SIGBUS when it is touched, which no program survives. So a
file is read here, with ordinary reads, as far as is needed to know that it was not cut. These are
the only places in ``storage/`` that touch the file system themselves; they belong to the C library
which they guard, whose paths go past ``host.disk`` too.

The layout is that of LMDB 0.9 on 64-bit machines, in the machine's own byte order (mdb.c,
``MDB_page``, ``MDB_meta``, ``MDB_db``).
"""

from __future__ import annotations

import os
import struct

import msgspec

from ...errors import Corrupt, StorageError, WrongFormat

_MAGIC = 0xBEEFC0DE
_VERSION = 1
_NO_PAGE = 2**64 - 1
_META_FLAG = 0x08
_PAGE_SIZES = tuple(1 << power for power in range(8, 17))
_META = struct.Struct("=QHHHH IIQQ IHHQQQQQ IHHQQQQQ QQ")


class Meta(msgspec.Struct, frozen=True):
    """One of the two meta pages: the roots of a committed state."""

    page_bytes: int
    free_root: int
    main_root: int
    last_page: int
    transaction: int


def parse_meta(data: bytes) -> Meta:
    """Raises ``Corrupt`` or ``WrongFormat``; ``data`` is at least the start of a meta page."""
    if len(data) < _META.size:
        raise Corrupt("the tree's file is cut inside of its meta pages")
    (_, _, flags, _, _, magic, version, _, _, page_bytes, *numbers) = _META.unpack_from(data)
    if magic != _MAGIC or not flags & _META_FLAG:
        raise Corrupt("a meta page of the tree is damaged")
    if version != _VERSION:
        raise WrongFormat(f"the tree's file has LMDB's data version {version}, not {_VERSION}")
    free_root, main_root, last_page, transaction = numbers[6], numbers[14], numbers[15], numbers[16]
    roots = [root for root in (free_root, main_root) if root != _NO_PAGE]
    if page_bytes not in _PAGE_SIZES or last_page < 1 or any(root > last_page for root in roots):
        raise Corrupt("a meta page of the tree names impossible pages")
    return Meta(page_bytes, free_root, main_root, last_page, transaction)


def check_file(path: str, absent_is_fine: bool) -> int:
    """The size of the data file ``path`` in bytes, 0 for an absent or an empty one.

    Raises ``Corrupt`` if its meta pages are damaged or it is shorter than the committed state.
    """
    if struct.calcsize("P") != 8:
        raise StorageError("the LMDB tree needs a 64-bit machine")
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        if absent_is_fine:
            return 0
        raise Corrupt("the tree's file is missing") from error
    except OSError as error:
        raise StorageError(f"the tree's file cannot be opened: {error}") from error
    try:
        size_bytes = os.fstat(descriptor).st_size
        if size_bytes == 0 and absent_is_fine:
            return 0
        first = parse_meta(_read(descriptor, 0, _META.size))
        second = parse_meta(_read(descriptor, first.page_bytes, _META.size))
        meta = second if second.transaction > first.transaction else first
        if second.page_bytes != first.page_bytes:
            raise Corrupt("the tree's meta pages contradict each other")
        if (meta.last_page + 1) * meta.page_bytes > size_bytes:
            raise Corrupt(
                f"the tree's file has {size_bytes} bytes; its last page ends at "
                f"{(meta.last_page + 1) * meta.page_bytes}"
            )
        return size_bytes
    except OSError as error:
        raise StorageError(f"the tree's file cannot be read: {error}") from error
    finally:
        os.close(descriptor)


def _read(descriptor: int, offset: int, size_bytes: int) -> bytes:
    return os.pread(descriptor, size_bytes, offset)


def create_directory(path: str) -> None:
    """Makes the directory durably if it is absent. Its parent must exist."""
    try:
        os.mkdir(path)
    except FileExistsError:
        return
    except OSError as error:
        raise StorageError(f"the tree's directory cannot be made: {error}") from error
    sync_directory(os.path.dirname(os.path.abspath(path)))


def sync_directory(path: str) -> None:
    """Makes the names in a directory durable: LMDB syncs its file, but never the file's name."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(f"the directory of the tree cannot be synced: {error}") from error
