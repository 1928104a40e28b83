"""LMDB's data file as the operating system sees it, read before LMDB maps it.

Used by ``lmdb_store`` only, at opening. LMDB trusts its file: a page that the file does not reach
is a SIGBUS when it is touched, which no program survives. So the file is read here by ordinary
reads, as far as is needed to know that nothing was cut off.

A healthy file may be shorter than its last page number says. A page that was taken at the end of
the file and given back within one transaction is never written; it is listed as free, and LMDB does
not read it before it has written it. (Measured: one state in a hundred of workloads that delete
ranges; ``mdb_env_copyfd`` allows for it too.) So of a short file the free list is read as well, and
the file is whole if every page beyond its end is free.

These are the only places in ``storage/`` that touch the file system themselves. They belong to the
C library that they guard, whose paths go past ``host.disk`` too. The layout is that of LMDB 0.9 on
64-bit machines, in the machine's own byte order (mdb.c: MDB_page, MDB_meta, MDB_db, MDB_node).
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable, Iterator

import msgspec

from ...errors import Corrupt, StorageError, WrongFormat

_MAGIC = 0xBEEFC0DE
_VERSION = 1
_NO_PAGE = 2**64 - 1
_PAGE_SIZES = tuple(1 << power for power in range(8, 17))
_BRANCH, _LEAF, _META = 0x01, 0x02, 0x08  # Flags of a page.
_BIG = 0x01  # Flag of a leaf's node: its value lies in overflow pages.
_HEADER = struct.Struct("=QHHHH")  # Page number, pad, flags, end of offsets, start of nodes.
_META_PAGE = struct.Struct("=QHHHH IIQQ IHHQQQQQ IHHQQQQQ QQ")
_NODE = struct.Struct("=HHHH")  # Two halves of a size or page number, flags, size of the key.
_DEPTH_MAX = 32  # LMDB's own limit of a cursor's stack.
_TAIL_PAGES_MAX = 1 << 20  # More than one transaction can ever leave unwritten.

ReadAt = Callable[[int, int], bytes]
"""Offset and length in bytes; the answer is shorter at the file's end."""


class Meta(msgspec.Struct, frozen=True):
    """One of the two meta pages: the roots of a committed state. A root may be ``_NO_PAGE``."""

    page_bytes: int
    free_root: int
    main_root: int
    last_page: int
    transaction: int


def parse_meta(data: bytes) -> Meta:
    """Raises ``Corrupt`` or ``WrongFormat``; ``data`` is at least the start of a meta page."""
    if len(data) < _META_PAGE.size:
        raise Corrupt("the tree's file is cut inside of its meta pages")
    fields = _META_PAGE.unpack_from(data)
    flags, magic, version, page_bytes = fields[2], fields[5], fields[6], fields[9]
    free_root, main_root, last_page, transaction = fields[16], fields[24], fields[25], fields[26]
    if magic != _MAGIC or not flags & _META:
        raise Corrupt("a meta page of the tree is damaged")
    if version != _VERSION:
        raise WrongFormat(f"the tree's file has LMDB's data version {version}, not {_VERSION}")
    roots = [root for root in (free_root, main_root) if root != _NO_PAGE]
    if page_bytes not in _PAGE_SIZES or last_page < 1:
        raise Corrupt("a meta page of the tree is damaged")
    if any(not 2 <= root <= last_page for root in roots):
        raise Corrupt("a meta page of the tree names a root outside of the file")
    return Meta(page_bytes, free_root, main_root, last_page, transaction)


def check_file(path: str, absent_is_fine: bool) -> int:
    """The size of the data file ``path`` in bytes, 0 for an absent or an empty one.

    Raises ``Corrupt`` if its meta pages are damaged or a page in use was cut off.
    """
    if struct.calcsize("P") != 8:
        raise StorageError("the LMDB tree needs a 64-bit machine")
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError as error:
        if absent_is_fine:
            return 0
        raise Corrupt("the tree's file is missing") from error
    except OSError as error:
        raise StorageError(f"the tree's file cannot be opened: {error}") from error
    try:
        if os.fstat(file).st_size > 0 or not absent_is_fine:
            check_pages(
                lambda offset, length: os.pread(file, length, offset),
                lambda: os.fstat(file).st_size,
            )
        return os.fstat(file).st_size
    except OSError as error:
        raise StorageError(f"the tree's file cannot be read: {error}") from error
    finally:
        os.close(file)


def check_pages(read_at: ReadAt, size_bytes_now: Callable[[], int]) -> None:
    """Raises ``Corrupt`` unless the file holds every page that is in use.

    Its size is asked for after the meta pages were read: another process may be writing when a
    scrub opens the file, and a state's pages are in the file before its meta page is.
    """
    first = parse_meta(read_at(0, _META_PAGE.size))
    second = parse_meta(read_at(first.page_bytes, _META_PAGE.size))
    if second.page_bytes != first.page_bytes:
        raise Corrupt("the tree's meta pages contradict each other")
    meta = second if second.transaction > first.transaction else first
    pages = size_bytes_now() // meta.page_bytes
    missing = meta.last_page + 1 - pages
    if missing <= 0:
        return
    cut = Corrupt(f"the tree's file was cut: it holds {pages} of {meta.last_page + 1} pages")
    if missing > pages + _TAIL_PAGES_MAX:  # A damaged number: not worth a set of that size.
        raise cut

    def read_page(page: int, count: int = 1) -> bytes:
        if page < 2 or page + count > pages:
            raise cut
        return read_at(page * meta.page_bytes, count * meta.page_bytes)

    free = {page for page in _free_pages(read_page, meta.free_root) if page >= pages}
    if not free.issuperset(range(pages, meta.last_page + 1)):
        raise cut


def _free_pages(read_page: Callable[..., bytes], root: int) -> Iterator[int]:
    """All page numbers in the free list, which is a tree of its own: transaction -> pages."""
    level = [] if root == _NO_PAGE else [root]
    for _ in range(_DEPTH_MAX):
        below: list[int] = []
        for page in level:
            data = read_page(page)
            for branch, number, start, big in _nodes(page, data):
                if branch:
                    below.append(number)
                elif big:
                    first = int.from_bytes(data[start : start + 8], sys.byteorder)
                    count = -(-(_HEADER.size + number) // len(data))
                    yield from _numbers(read_page(first, count)[_HEADER.size :])
                else:
                    yield from _numbers(data[start : start + number])
        if not below:
            return
        level = below
    raise Corrupt("the tree's free list is damaged")


def _nodes(page: int, data: bytes) -> Iterator[tuple[bool, int, int, bool]]:
    """Of each node: whether it is a branch's; the page under it, or its value's length in bytes;
    where the value starts; whether only the number of the value's first page stands there."""
    stored, _, flags, offsets_end, _ = _HEADER.unpack_from(data)
    if stored != page or not flags & (_BRANCH | _LEAF) or offsets_end > len(data):
        raise Corrupt("the tree's free list is damaged")
    for at in struct.unpack_from(f"={(offsets_end - _HEADER.size) // 2}H", data, _HEADER.size):
        if at + _NODE.size > len(data):
            raise Corrupt("the tree's free list is damaged")
        one, two, node_flags, key_bytes = _NODE.unpack_from(data, at)
        low, high = (one, two) if sys.byteorder == "little" else (two, one)
        branch = bool(flags & _BRANCH)
        number = low | high << 16 | (node_flags << 32 if branch else 0)
        yield branch, number, at + _NODE.size + key_bytes, bool(node_flags & _BIG)


def _numbers(value: bytes) -> tuple[int, ...]:
    """A list of page numbers as the free list keeps it: their count, then the numbers."""
    count = int.from_bytes(value[:8], sys.byteorder)
    if 8 * (count + 1) > len(value):
        raise Corrupt("the tree's free list is damaged")
    return struct.unpack_from(f"={count}Q", value, 8)


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
