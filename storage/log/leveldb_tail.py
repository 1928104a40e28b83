"""Where LevelDB's own log ends after a power cut: told from its bytes, before LevelDB reads them.

LevelDB takes a record that is cut short at the end of a file for a crash, but one whose later
sectors reached the disk and whose earlier ones did not for damage, and refuses the whole database.
Of a database that syncs every write, the last write can be torn so; it was never acknowledged.
Without `paranoid_checks` LevelDB would drop what follows in the block instead, acknowledged or not.

The format (doc/log_format.md of LevelDB): blocks of 32 KB; in them physical records::

    crc u32   CRC32C over type and data, masked
    length u16
    type u8   1 full; 2 first, 3 middle, 4 last part of a group that crosses blocks
    data

Little-endian; none begins in a block's last 6 bytes, which are zeros. So a first part ends with its
block, and a middle or last part begins its block. A group is what was written by one call, here a
batch or, in the manifest, one edit.

The rule: every group but the last was synced before the next was begun. So what follows the first
record that is not whole is the torn last group if two things hold. It may be the remains of *one*
group: no whole record in it begins another; lengths there are not to be trusted, so every offset is
tried. And something of it did not arrive: the file is too short, or a sector is empty, since what
lies beyond the end of a file reads as zeros until it is written. Anything else is damage to bytes
that were whole once, and the database is refused. Where the last group itself was emptied or cut by
damage it looks torn: that shows only to a caller that remembers a position beyond it.

Bounds: memory for one block, whatever the file. The file has at most one group more than LevelDB's
write buffer, or the edits of one opening, and is read once. Behind the torn place an offset is
looked at only if type and length allow a record there, which costs one checksum within the block:
4 ms for a megabyte of whole records, 10 ms of random bytes, 1.2 s of bytes chosen to cost the most.
"""

from __future__ import annotations

import posixpath
import re
from typing import Final

import msgspec

from ...errors import Corrupt
from ...host.disk import SECTOR_BYTES, Disk, File
from .entry import crc32c

BLOCK_BYTES: Final = 32 * 1024
HEADER_BYTES: Final = 7
FULL: Final = 1
FIRST: Final = 2
MIDDLE: Final = 3
LAST: Final = 4

# Where the type stands in a record's header.
_TYPE: Final = HEADER_BYTES - 1
_ZEROS: Final = bytes(SECTOR_BYTES)
_BEGINNING: Final = re.compile(rb"[\x01\x02]")
_LOG_NAME: Final = re.compile(r"(\d+)\.log")
_MANIFEST_NAME: Final = re.compile(rb"(MANIFEST-\d+)\n")


class TornTail(msgspec.Struct, frozen=True):
    """The file at `path` is whole up to `end`; behind it are the remains of one group."""

    path: str
    end: int


class TailScan:
    """Finds the end of the last whole group. Feed it the blocks of a file in order.

    `end` is the offset behind the last group before which everything is whole.
    """

    __slots__ = (
        "_group_follows",
        "_in_group",
        "_is_incomplete",
        "_is_over",
        "_is_torn",
        "_offset",
        "end",
    )

    def __init__(self) -> None:
        self.end = 0
        # Of the next block.
        self._offset = 0
        # A first part was whole, its last part is awaited.
        self._in_group = False
        # Something was not whole: `end` stays where it is.
        self._is_torn = False
        # Of what is torn, something never arrived.
        self._is_incomplete = False
        # The last part of the torn group was found: behind it nothing may be.
        self._is_over = False
        # Another group was begun behind it.
        self._group_follows = False

    @property
    def is_damaged(self) -> bool:
        """What stands at `end` is not a torn write: it was whole once."""
        return self._group_follows or (self._is_torn and not self._is_incomplete)

    def feed(self, block: bytes) -> None:
        """Take the next block; every one but the last has `BLOCK_BYTES` bytes."""
        at = 0
        while len(block) - at >= HEADER_BYTES:
            stop = whole_record_end(block, at)
            if stop is None:
                self._tear(block, at)
                break
            self._take(block[at + _TYPE], self._offset + stop)
            at = stop
        self._offset += len(block)

    def _take(self, kind: int, stop: int) -> None:
        """Note a whole record that ends at the file's offset `stop`."""
        begins = kind in (FULL, FIRST)
        if begins == self._in_group:
            # A group without its end or its beginning.
            self._is_torn = True
        if self._is_torn:
            self._group_follows |= begins or self._is_over
            self._is_over |= kind == LAST
            return
        self._in_group = kind in (FIRST, MIDDLE)
        if not self._in_group:
            self.end = stop

    def _tear(self, block: bytes, at: int) -> None:
        """Note that what stands at `at` is no whole record; look through the rest of the block."""
        is_short = len(block) < BLOCK_BYTES and _claimed_end(block, at) > len(block)
        self._is_incomplete |= (is_short and not self._is_torn) or has_empty_sector(block, at)
        self._is_torn = True
        self._group_follows |= group_begins_within(block, at + 1)


def whole_record_end(block: bytes, at: int) -> int | None:
    """Where the record at `at` ends, None if none stands there whole."""
    stop = _claimed_end(block, at)
    kind = block[at + _TYPE]
    if stop > len(block) or not FULL <= kind <= LAST:
        return None
    # Where its neighbours in the group make it begin and end.
    if kind in (FIRST, MIDDLE) and stop != BLOCK_BYTES:
        return None
    if kind in (MIDDLE, LAST) and at != 0:
        return None
    checksum = int.from_bytes(block[at : at + 4], "little")
    return stop if masked_crc(block[at + _TYPE : stop]) == checksum else None


def group_begins_within(block: bytes, start: int) -> bool:
    """Whether a whole record that begins a group stands anywhere from `start` on."""
    for found in _BEGINNING.finditer(block, start + _TYPE):
        if whole_record_end(block, found.start() - _TYPE) is not None:
            return True
    return False


def has_empty_sector(block: bytes, start: int) -> bool:
    """Whether a sector, or what lies of the first one behind `start`, holds nothing but zeros."""
    while start < len(block):
        stop = min(len(block), (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
        if block[start:stop] == _ZEROS[: stop - start]:
            return True
        start = stop
    return False


def masked_crc(data: bytes) -> int:
    """LevelDB's checksum: rotated and shifted, so that a checksum of checksums is not weak."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _claimed_end(block: bytes, at: int) -> int:
    return at + HEADER_BYTES + (block[at + 4] | block[at + 5] << 8)


def torn_tails(disk: Disk, path: str) -> list[TornTail]:
    """What a power cut has torn in the database at `path`: its newest log, its manifest, or both.

    Changes nothing. Raises Corrupt if something is damaged that a power cut does not explain.
    """
    if not disk.exists(path):
        return []
    tails = []
    for name in _growing_files(disk, path):
        file_path = posixpath.join(path, name)
        file = disk.open(file_path)
        try:
            # The size first: whoever appends meanwhile makes the file look cut short, not damaged.
            size = file.size()
            scan = _scan(file, size)
        finally:
            file.close()
        # A manifest is named once its first edits are synced; it is never all tail.
        if scan.is_damaged or (scan.end == 0 and size and not name.endswith(".log")):
            raise Corrupt(f"{file_path} is damaged at {scan.end}")
        if scan.end < size:
            tails.append(TornTail(file_path, scan.end))
    return tails


def cut_off(disk: Disk, tail: TornTail) -> None:
    """Remove a torn tail, durably. Nobody may have the database open."""
    file = disk.open(tail.path)
    try:
        file.truncate(tail.end)
        file.fdatasync()
    finally:
        file.close()


def _growing_files(disk: Disk, path: str) -> list[str]:
    """The files that LevelDB appends to: the newest log, the manifest that CURRENT names."""
    names = disk.list(path)
    logs = [found for found in map(_LOG_NAME.fullmatch, names) if found]
    growing = [max(logs, key=lambda found: int(found[1]))[0]] if logs else []
    if "CURRENT" in names:
        found = _MANIFEST_NAME.fullmatch(disk.read_file(posixpath.join(path, "CURRENT")))
        if found and found[1].decode() in names:
            growing.append(found[1].decode())
    return growing


def _scan(file: File, size: int) -> TailScan:
    scan = TailScan()
    for offset in range(0, size, BLOCK_BYTES):
        scan.feed(file.pread(offset, min(BLOCK_BYTES, size - offset)))
    return scan
