"""The bytes of a segment file: frames, and the replay that rebuilds the index from them.

A segment is a preallocated file of frames, then zeros. A frame is one write of the segments engine
and was synced before the next was begun, so at most one frame on the disk is in doubt, the last.
Little-endian::

    offset  size  field
         0     4  magic
         4     1  format, now 1
         5     1  kind: 0 changes, 1 checkpoint
         6     2  zero
         8     8  segment number, the one in the file's name
        16     8  sequence: dense over all frames of all segments
        24     4  table length t
        28     4  body length b
        32     4  CRC32C over this header, the table, and the offset of the frame in its file
        36     t  table: records of (kind u8, log number u32, lsn u64, length u32)
      36+t     b  body: the entries of the table's records, in order, nothing between

Entries carry their own CRC, so the frame's covers header and table only, and no byte is summed
twice. The table of a checkpoint, the first frame of every segment, holds every log with its first
LSN and tail; so older segments can be deleted, and a frame missing at a segment's end is noticed.

Invariant of the replay: sequences and each log's LSNs are dense; whatever is not is Corrupt.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from typing import Final

import msgspec

from ...errors import Corrupt, StorageError, WrongFormat
from ...host.disk import File
from .entry import check_entry, crc32c

FORMAT: Final = 1
MAGIC: Final = b"mSlG"
CHANGES: Final = 0
CHECKPOINT: Final = 1

# Kinds of records. ENTRY and MOVED have their bytes in the body, CREATE and STATE in the table.
ENTRY: Final = 1  # appended here: the log's tail + 1
MOVED: Final = 2  # copied here from a segment that is about to be deleted
CREATE: Final = 3  # lsn: the first; then the name
DELETE: Final = 4
TRIM: Final = 5  # lsn: the first that is kept
TRUNCATE: Final = 6  # lsn: the last that is kept
STATE: Final = 7  # lsn: the first that is kept; then the tail (u64) and the name

_HEADER: Final = struct.Struct("<4sBBHQQIII")
HEADER_BYTES: Final = _HEADER.size
_RECORD: Final = struct.Struct("<BIQI")
_UINT64: Final = struct.Struct("<Q")
pack_record = _RECORD.pack

# One read fetches the header and, for all but the largest groups, the table.
_PROBE_BYTES: Final = 4096
_SEARCH_BYTES: Final = 256 * 1024
_ZEROS: Final = bytes(_SEARCH_BYTES)

# A place packs segment number and offset of an entry into one integer for the index's arrays.
PLACE_OFFSET_BITS: Final = 40
PLACE_OFFSET_MASK: Final = (1 << PLACE_OFFSET_BITS) - 1


class Frame(msgspec.Struct, frozen=True):
    """A frame whose header and table are whole. `body` and `end` are offsets in the file."""

    kind: int
    sequence: int
    offset: int
    table: bytes
    body: int
    end: int


class Record(msgspec.Struct, frozen=True):
    """One line of a table. `offset` is where an entry's bytes are; `extra` what the table adds."""

    kind: int
    log: int
    lsn: int
    length: int
    offset: int
    extra: bytes


def encode_frame(
    kind: int, segment: int, sequence: int, offset: int, table: bytes, body: bytes
) -> bytes:
    head = _HEADER.pack(MAGIC, FORMAT, kind, 0, segment, sequence, len(table), len(body), 0)[:-4]
    checksum = crc32c(head + table + _UINT64.pack(offset))
    return b"".join((head, checksum.to_bytes(4, "little"), table, body))


def create_record(log: int, first: int, name: bytes) -> bytes:
    return pack_record(CREATE, log, first, len(name)) + name


def state_record(log: int, first: int, tail: int, name: bytes) -> bytes:
    return pack_record(STATE, log, first, 8 + len(name)) + _UINT64.pack(tail) + name


def read_frame(file: File, segment: int, offset: int) -> Frame | None:
    """The frame at `offset`, or None if none stands there whole. Raises WrongFormat."""
    data = file.pread(offset, _PROBE_BYTES)
    if len(data) < HEADER_BYTES or not data.startswith(MAGIC):
        return None
    _, format_, kind, _, number, sequence, table_bytes, body_bytes, crc = _HEADER.unpack_from(data)
    body = HEADER_BYTES + table_bytes
    if offset + body + body_bytes > file.size():
        return None
    if body > len(data):
        data = file.pread(offset, body)
    table = data[HEADER_BYTES:body]
    if crc32c(data[: HEADER_BYTES - 4] + table + _UINT64.pack(offset)) != crc:
        return None
    if format_ != FORMAT:
        raise WrongFormat(f"a segment has format {format_}; this millstream reads {FORMAT}")
    if number != segment:
        raise Corrupt(f"segment {segment:x} holds a frame of segment {number:x}")
    return Frame(kind, sequence, offset, table, offset + body, offset + body + body_bytes)


def records_of(frame: Frame) -> Iterator[Record]:
    """The records of a frame's table, entries with their offsets."""
    table = frame.table
    at = 0
    offset = frame.body
    while at < len(table):
        if at + _RECORD.size > len(table):
            raise Corrupt("a frame's table ends within a record")
        kind, log, lsn, length = _RECORD.unpack_from(table, at)
        at += _RECORD.size
        if kind in (ENTRY, MOVED):
            yield Record(kind, log, lsn, length, offset, b"")
            offset += length
        elif kind in (CREATE, STATE):
            yield Record(kind, log, lsn, length, 0, table[at : at + length])
            at += length
        else:
            yield Record(kind, log, lsn, length, 0, b"")
    if offset != frame.end:
        raise Corrupt("a frame's body is not as long as its table says")


def entries_are_whole(file: File, frame: Frame) -> bool:
    """Whether every entry in the frame's body passes its own check and stands where it should."""
    body = file.pread(frame.body, frame.end - frame.body)
    for record in records_of(frame):
        if record.kind in (ENTRY, MOVED):
            start = record.offset - frame.body
            try:
                link = check_entry(body[start : start + record.length], None)
            except WrongFormat:
                raise
            except StorageError:
                return False
            if link.lsn != record.lsn:
                return False
    return True


def frame_beyond(file: File, segment: int, offset: int) -> bool:
    """Whether a whole frame's header stands anywhere behind `offset`.

    Frames are synced one by one, so behind a torn frame there is never another. One that is there
    proves that what stands at `offset` was whole once and is damaged now.
    """
    size = file.size()
    at = offset + 1
    while at < size:
        chunk = file.pread(at, _SEARCH_BYTES)
        # Nearly always all zeros, which is compared faster than it is searched.
        found = -1 if chunk == _ZEROS[: len(chunk)] else chunk.find(MAGIC)
        while found >= 0:
            if _header_is_whole(file, segment, at + found):
                return True
            found = chunk.find(MAGIC, found + 1)
        # Chunks overlap, or a magic across their border would be missed.
        at += max(1, len(chunk) - len(MAGIC) + 1)
    return False


def _header_is_whole(file: File, segment: int, offset: int) -> bool:
    try:
        return read_frame(file, segment, offset) is not None
    except StorageError:
        return True


class ReplayedLog:
    """A log while frames are replayed."""

    __slots__ = ("first", "name", "places", "tail")

    def __init__(self, name: bytes, first: int, tail: int) -> None:
        self.name = name
        self.first = first
        self.tail = tail
        # LSN -> (place, length). Those of segments deleted since are missing: trimmed, or moved.
        self.places: dict[int, tuple[int, int]] = {}

    def index(self) -> tuple[array[int], array[int]]:
        """Places and lengths from first to tail. Raises Corrupt if one is missing."""
        places, lengths = array("Q"), array("I")
        for lsn in range(self.first, self.tail + 1):
            found = self.places.get(lsn)
            if found is None:
                raise Corrupt(f"log {self.name!r}: the segment that held entry {lsn} is gone")
            places.append(found[0])
            lengths.append(found[1])
        return places, lengths


class Replay:
    """Rebuilds what the engine knows by applying every frame in order."""

    __slots__ = ("logs", "sequence")

    def __init__(self) -> None:
        self.logs: dict[int, ReplayedLog] = {}
        # Of the last frame applied; None before the first.
        self.sequence: int | None = None

    def apply(self, segment: int, frame: Frame) -> None:
        if self.sequence is not None and frame.sequence != self.sequence + 1:
            raise Corrupt(
                f"segment {segment:x} holds frame {frame.sequence} after {self.sequence}:"
                " frames are missing"
            )
        if frame.kind == CHECKPOINT:
            self._apply_checkpoint(segment, frame)
        else:
            if self.sequence is None:
                raise Corrupt(f"segment {segment:x} does not begin with a checkpoint")
            for record in records_of(frame):
                self._apply_record(segment, record)
        self.sequence = frame.sequence

    def _apply_checkpoint(self, segment: int, frame: Frame) -> None:
        states: dict[int, ReplayedLog] = {}
        for record in records_of(frame):
            tail = _UINT64.unpack_from(record.extra)[0]
            states[record.log] = ReplayedLog(record.extra[8:], record.lsn, tail)
        if self.sequence is not None:
            known = {number: (log.name, log.tail) for number, log in self.logs.items()}
            stated = {number: (log.name, log.tail) for number, log in states.items()}
            if known != stated:
                raise Corrupt(f"the checkpoint of segment {segment:x} contradicts the one before")
            for number, log in states.items():
                # A trim may have become durable by this checkpoint alone.
                log.places = self.logs[number].places
        self.logs = states

    def _apply_record(self, segment: int, record: Record) -> None:
        if record.kind == CREATE:
            if record.log in self.logs:
                raise Corrupt(f"log number {record.log} is created twice")
            self.logs[record.log] = ReplayedLog(record.extra, record.lsn, record.lsn - 1)
            return
        log = self.logs.get(record.log)
        if log is None:
            raise Corrupt(f"segment {segment:x} writes to log number {record.log}, which is not")
        place = segment << PLACE_OFFSET_BITS | record.offset
        if record.kind == ENTRY:
            if record.lsn != log.tail + 1:
                raise Corrupt(f"log {log.name!r} has entry {record.lsn} after {log.tail}")
            log.tail = record.lsn
            log.places[record.lsn] = (place, record.length)
        elif record.kind == MOVED:
            log.places[record.lsn] = (place, record.length)
        elif record.kind == TRIM:
            for lsn in range(log.first, record.lsn):
                log.places.pop(lsn, None)
            log.first = max(log.first, record.lsn)
        elif record.kind == TRUNCATE:
            for lsn in range(record.lsn + 1, log.tail + 1):
                log.places.pop(lsn, None)
            log.tail = record.lsn
        elif record.kind == DELETE:
            del self.logs[record.log]
        else:
            raise Corrupt(f"segment {segment:x} has a record of kind {record.kind}")
