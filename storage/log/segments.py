"""The log engine over append-only segment files: the standard library only, through `host.disk`.

All logs of a node share the segments. With a file per log a round of commits would need a sync
per log; shared, it is one write and one fdatasync, whatever number of logs takes part. The price
is that a segment can be deleted only when no log needs it any more; so when a new segment is begun
and the oldest is nearly empty (idle logs keep their last entry), what is left there is copied
forward. Start-up reads what is kept, never what was trimmed: of closed segments the frames' tables
only, of the last one everything.

In doubt at open is the last frame alone (see `frames`). If it is torn, it is cut off: it was never
acknowledged. If it is whole, it may still be in the page cache only, after a crash of this process
or a failed sync, so it is written again and synced before anybody builds on it. Anything that does
not fit before that is Corrupt.

Invariant: every live entry's place lies in a segment of `_segments`, and each segment's
`live_bytes` is the sum of the entries whose places lie in it.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

from ...errors import Ambiguous, Conflict, Corrupt, StorageError, Trimmed
from ...host.disk import Disk, File
from ...limits import LOG_SEGMENT_BYTES
from .entry import Link, check_append, check_entry
from .frames import (
    CHANGES,
    CHECKPOINT,
    DELETE,
    ENTRY,
    HEADER_BYTES,
    MOVED,
    PLACE_OFFSET_BITS,
    PLACE_OFFSET_MASK,
    TRIM,
    TRUNCATE,
    Frame,
    Replay,
    create_record,
    encode_frame,
    entries_are_whole,
    frame_beyond,
    pack_record,
    read_frame,
    records_of,
    state_record,
)
from .interface import Append, Entries, Entry, Names, Outcomes, check_log_id

# Named here because `SegmentsLogEngine.list` hides the built-in inside the class.
Pieces = list[bytes]
Frames = list[Frame]
Numbers = list[int]

SUFFIX: Final = ".segment"
# The oldest segment is emptied by copying when at most this part of it is still needed: each byte
# is then copied by fewer than one in eight written.
_COPY_FRACTION: Final = 8


class _Segment:
    """One file. A reader may hold it after it was deleted; the file closes with its last holder."""

    __slots__ = ("begin", "end", "file", "live_bytes", "number")

    def __init__(self, number: int, file: File, begin: int, end: int) -> None:
        self.number = number
        self.file = file
        # Behind the checkpoint.
        self.begin = begin
        # Where the next frame goes.
        self.end = end
        self.live_bytes = 0


class _Log:
    """The index of one log. Replaced, not changed, when its beginning moves: readers keep one."""

    __slots__ = ("first", "last", "lengths", "name", "number", "passed", "places")

    def __init__(
        self,
        number: int,
        name: bytes,
        first: int,
        places: array[int],
        lengths: array[int],
        last: Link | None,
    ) -> None:
        # By which records name it.
        self.number = number
        self.name = name
        self.first = first
        # Of entry first + i: `places` grows after `lengths`, and readers go by `places`.
        self.places = places
        self.lengths = lengths
        # What the next entry must continue; None only while no entry is known.
        self.last = last
        # The last entry that a read returned, so that the next read need not fetch it again.
        self.passed: Link | None = None

    @property
    def tail(self) -> int:
        return self.first + len(self.places) - 1


# A log, and the index of one of its entries.
Moves = list[tuple[_Log, int]]


class SegmentsLogEngine:
    """A `LogEngine` in the directory `path` of `disk`.

    `create` makes the first segment if there is none; otherwise its absence is Corrupt. The
    directory is this object's alone: whoever makes it holds the lock.
    """

    __slots__ = (
        "_create",
        "_current",
        "_disk",
        "_logs",
        "_path",
        "_pending_trims",
        "_refusal",
        "_segment_bytes",
        "_segments",
        "_sequence",
    )

    def __init__(
        self, disk: Disk, path: str, *, create: bool, segment_bytes: int = LOG_SEGMENT_BYTES
    ) -> None:
        self._disk = disk
        self._path = path
        self._create = create
        self._segment_bytes = segment_bytes
        self._logs: dict[str, _Log] = {}
        # By number, oldest first; the last one is `_current`.
        self._segments: dict[int, _Segment] = {}
        self._current: _Segment | None = None
        # Of the last frame written.
        self._sequence = 0
        # Trims that no frame states yet: log id -> first LSN kept.
        self._pending_trims: dict[str, int] = {}
        # Why every call is refused; None while the engine serves.
        self._refusal: str | None = None
        self._open()

    def create(self, log_id: str, first_lsn: int) -> None:
        self._check_serving()
        name = check_log_id(log_id)
        assert first_lsn >= 1
        if log_id in self._logs:
            raise Conflict(f"log {log_id!r} exists", self._logs[log_id].tail)
        number = 1 + max((log.number for log in self._logs.values()), default=0)
        self._write([create_record(number, first_lsn, name)], [])
        self._logs[log_id] = _Log(number, name, first_lsn, array("Q"), array("I"), None)

    def delete(self, log_id: str) -> None:
        self._check_serving()
        log = self._logs.get(log_id)
        if log is None:
            return
        self._write([pack_record(DELETE, log.number, 0, 0)], [])
        del self._logs[log_id]
        self._release(log.places, log.lengths)
        self._reclaim()

    def list(self) -> Names:
        self._check_serving()
        return sorted(self._logs)

    def commit(self, appends: Sequence[Append]) -> Outcomes:
        self._check_serving()
        outcomes: Outcomes = []
        links: dict[str, Link] = {}
        table: Pieces = []
        body: Pieces = []
        written: list[_Log] = []
        for append in appends:
            log_id = append.log_id
            log = self._logs.get(log_id)
            if log is None:
                outcomes.append(StorageError(f"no log {log_id!r}"))
                continue
            last = links.get(log_id, log.last)
            tail = log.tail if last is None else last.lsn
            if tail != append.expected_last:
                outcomes.append(Conflict(f"log {log_id!r} ends at {tail}", tail))
                continue
            entry = append.entry
            links[log_id] = check_append(entry, tail, last)
            table.append(pack_record(ENTRY, log.number, tail + 1, len(entry)))
            body.append(entry)
            written.append(log)
            outcomes.append(None)
        if body:
            segment, offset = self._write(table, body)
            place = segment.number << PLACE_OFFSET_BITS | offset
            for log, entry in zip(written, body):
                length = len(entry)
                log.lengths.append(length)
                log.places.append(place)
                place += length
                segment.live_bytes += length
            for log_id, link in links.items():
                self._logs[log_id].last = link
        return outcomes

    def read(self, log_id: str, start: int, max_bytes: int) -> Entries:
        log = self._log(log_id)
        if start < log.first:
            raise Trimmed(f"log {log_id!r} begins at {log.first}, not {start}", log.first)
        entries: Entries = []
        index = start - log.first
        stop = len(log.places)
        if index >= stop:
            return entries
        link = log.passed
        if index == 0:
            link = None
        elif link is None or link.lsn != start - 1:
            link = check_entry(self._fetch(log_id, log, index - 1), None)
        size_bytes = 0
        for at in range(index, stop):
            size_bytes += log.lengths[at]
            if entries and size_bytes > max_bytes:
                break
            data = self._fetch(log_id, log, at)
            link = check_entry(data, link)
            if link.lsn != log.first + at:
                raise Corrupt(f"log {log_id!r} holds {link.lsn} in place of {log.first + at}")
            entries.append(Entry(link.lsn, data))
        log.passed = link
        return entries

    def tail(self, log_id: str) -> int:
        return self._log(log_id).tail

    def first(self, log_id: str) -> int:
        return self._log(log_id).first

    def trim(self, log_id: str, before: int) -> None:
        log = self._log(log_id)
        before = min(before, log.tail)
        cut = before - log.first
        if cut <= 0:
            return
        self._logs[log_id] = _Log(
            log.number, log.name, before, log.places[cut:], log.lengths[cut:], log.last
        )
        self._pending_trims[log_id] = before
        self._release(log.places[:cut], log.lengths[:cut])
        self._reclaim()

    def truncate(self, log_id: str, after: int) -> None:
        """Remove the entries above `after`, durably: see `interface.CopyEngine`."""
        log = self._log(log_id)
        kept = after - log.first + 1
        assert kept >= 0
        if kept >= len(log.places):
            return
        last = check_entry(self._fetch(log_id, log, kept - 1), None) if kept else None
        self._write([pack_record(TRUNCATE, log.number, after, 0)], [])
        self._logs[log_id] = _Log(
            log.number, log.name, log.first, log.places[:kept], log.lengths[:kept], last
        )
        self._release(log.places[kept:], log.lengths[kept:])
        self._reclaim()

    def reopen(self) -> None:
        self.close()
        self._open()

    def close(self) -> None:
        # The files close with their last holder, which may be a reader on another thread.
        self._segments = {}
        self._current = None
        self._logs = {}
        self._pending_trims = {}
        self._refusal = "the log engine is closed"

    # Writing.

    def _write(self, records: Pieces, entries: Pieces) -> tuple[_Segment, int]:
        """One durable frame: its segment, and the offset of its body. Raises Ambiguous."""
        try:
            return self._write_frame(records, entries)
        except OSError as error:
            self._refusal = f"a segment could not be written: {error}"
            raise Ambiguous(self._refusal) from error

    def _write_frame(self, records: Pieces, entries: Pieces) -> tuple[_Segment, int]:
        segment = self._current
        assert segment is not None
        size_bytes = HEADER_BYTES + sum(map(len, records)) + sum(map(len, entries))
        if segment.end + size_bytes > self._segment_bytes and segment.end > segment.begin:
            segment = self._roll()
        return self._put_frame(segment, records, entries)

    def _put_frame(
        self, segment: _Segment, records: Pieces, entries: Pieces
    ) -> tuple[_Segment, int]:
        if self._pending_trims:
            records = [*self._take_trims(), *records]
        table = b"".join(records)
        offset = segment.end
        frame = encode_frame(
            CHANGES, segment.number, self._sequence + 1, offset, table, b"".join(entries)
        )
        # Only a group larger than a segment, or what was copied into a new one, grows the file.
        if offset + len(frame) > self._segment_bytes:
            segment.file.preallocate(offset + len(frame))
        segment.file.pwrite(offset, frame)
        segment.file.fdatasync()
        self._sequence += 1
        segment.end = offset + len(frame)
        return segment, offset + HEADER_BYTES + len(table)

    def _take_trims(self) -> Pieces:
        """The pending trims as records. If the write fails, `reopen` forgets the trims anyway."""
        trims = [
            pack_record(TRIM, self._logs[log_id].number, before, 0)
            for log_id, before in self._pending_trims.items()
            if log_id in self._logs
        ]
        self._pending_trims.clear()
        return trims

    def _roll(self) -> _Segment:
        """Begin a segment, and free the oldest if little of it is left."""
        number = 1 if self._current is None else self._current.number + 1
        records = [
            state_record(log.number, log.first, log.tail, log.name) for log in self._logs.values()
        ]
        frame = encode_frame(CHECKPOINT, number, self._sequence + 1, 0, b"".join(records), b"")
        file = self._disk.open(self._file_path(number), create=True)
        file.preallocate(max(self._segment_bytes, len(frame)))
        file.pwrite(0, frame)
        file.fdatasync()
        self._disk.fsync_dir(self._path)
        self._sequence += 1
        # The checkpoint states every first LSN, so it has made the trims durable.
        self._pending_trims.clear()
        segment = self._segments[number] = self._current = _Segment(
            number, file, len(frame), len(frame)
        )
        oldest = next(iter(self._segments.values()))
        if oldest is not segment and oldest.live_bytes <= self._segment_bytes // _COPY_FRACTION:
            self._copy_forward(oldest)
            self._remove_empty()
        return segment

    def _copy_forward(self, oldest: _Segment) -> None:
        """Write the entries that are still needed of a segment again, into the current one.

        Not if any of them is damaged: the segment stays, and its reader learns of the damage.
        """
        try:
            moved, table, body = self._needed(oldest)
        except Corrupt:
            return
        segment = self._current
        if not body or segment is None:
            return
        segment, offset = self._put_frame(segment, table, body)
        place = segment.number << PLACE_OFFSET_BITS | offset
        for (log, index), data in zip(moved, body):
            log.places[index] = place
            place += len(data)
            oldest.live_bytes -= len(data)
            segment.live_bytes += len(data)

    def _needed(self, oldest: _Segment) -> tuple[Moves, Pieces, Pieces]:
        """The entries that live in a segment: whose they are, their records, their bytes."""
        by_number = {log.number: (log_id, log) for log_id, log in self._logs.items()}
        moved: Moves = []
        table: Pieces = []
        body: Pieces = []
        for frame in self._frames(oldest):
            for record in records_of(frame):
                if record.kind not in (ENTRY, MOVED) or record.log not in by_number:
                    continue
                log_id, log = by_number[record.log]
                index = record.lsn - log.first
                place = oldest.number << PLACE_OFFSET_BITS | record.offset
                if 0 <= index < len(log.places) and log.places[index] == place:
                    data = self._fetch(log_id, log, index)
                    if check_entry(data, None).lsn != record.lsn:
                        raise Corrupt(f"log {log_id!r} has another entry at {record.lsn}")
                    moved.append((log, index))
                    table.append(pack_record(MOVED, log.number, record.lsn, len(data)))
                    body.append(data)
        return moved, table, body

    def _frames(self, segment: _Segment) -> Frames:
        frames: list[Frame] = []
        offset = 0
        while offset < segment.end:
            frame = read_frame(segment.file, segment.number, offset)
            if frame is None:
                raise Corrupt(f"segment {segment.number:x} is damaged at {offset}")
            frames.append(frame)
            offset = frame.end
        return frames

    # Freeing.

    def _release(self, places: array[int], lengths: array[int]) -> None:
        for place, length in zip(places, lengths):
            self._segments[place >> PLACE_OFFSET_BITS].live_bytes -= length

    def _reclaim(self) -> None:
        """Delete the oldest segments that nobody needs, once it is durable that nobody does."""
        oldest = next(iter(self._segments.values()))
        if oldest is self._current or oldest.live_bytes:
            return
        if self._pending_trims:
            self._write([], [])
        try:
            self._remove_empty()
        except OSError as error:
            self._refusal = f"a segment could not be deleted: {error}"
            raise Ambiguous(self._refusal) from error

    def _remove_empty(self) -> None:
        """One by one from the oldest, each durably: a crash must not leave a gap in the numbers."""
        while True:
            oldest = next(iter(self._segments.values()))
            if oldest is self._current or oldest.live_bytes:
                return
            del self._segments[oldest.number]
            self._disk.remove(self._file_path(oldest.number))
            self._disk.fsync_dir(self._path)

    # Opening.

    def _open(self) -> None:
        self._refusal = None
        try:
            self._load()
        except OSError as error:
            self.close()
            raise StorageError(f"the segments in {self._path} cannot be read: {error}") from error
        except StorageError:
            self.close()
            raise
        # From now on the absence of segments is a loss, also for `reopen`.
        self._create = False

    def _load(self) -> None:
        if self._create:
            self._disk.make_directory(self._path)
        numbers = self._numbers()
        replay = Replay()
        for number in numbers:
            file = self._disk.open(self._file_path(number))
            is_last = number == numbers[-1]
            segment = self._replay_segment(replay, number, file, is_last=is_last)
            if segment is None:
                self._disk.remove(self._file_path(number))
                self._disk.fsync_dir(self._path)
                # Now the one before is the last, and is looked at as such.
                self._segments = {}
                self._load()
                return
            self._segments[number] = self._current = segment
        self._sequence = replay.sequence or 0
        for number, replayed in replay.logs.items():
            places, lengths = replayed.index()
            log_id = replayed.name.decode()
            log = _Log(number, replayed.name, replayed.first, places, lengths, None)
            self._logs[log_id] = log
            for place, length in zip(places, lengths):
                self._segments[place >> PLACE_OFFSET_BITS].live_bytes += length
            if places:
                log.last = check_entry(self._fetch(log_id, log, len(places) - 1), None)
                if log.last.lsn != replayed.tail:
                    raise Corrupt(f"log {log_id!r} holds {log.last.lsn} at its tail")
        if self._current is None:
            self._roll()

    def _numbers(self) -> Numbers:
        names = [name for name in self._disk.list(self._path) if name.endswith(SUFFIX)]
        numbers = [int(name.removesuffix(SUFFIX), 16) for name in names]
        if not numbers and not self._create:
            raise Corrupt(f"{self._path} has no segment left")
        if numbers and numbers[-1] - numbers[0] + 1 != len(numbers):
            raise Corrupt(f"segments are missing in {self._path}")
        return numbers

    def _replay_segment(
        self, replay: Replay, number: int, file: File, *, is_last: bool
    ) -> _Segment | None:
        """Apply a segment's frames. None if it is the last one and was never begun durably."""
        offset = 0
        begin = 0
        last: Frame | None = None
        size_bytes = file.size()
        while offset < size_bytes:
            frame = read_frame(file, number, offset)
            if frame is None or (is_last and not entries_are_whole(file, frame)):
                break
            if (offset == 0) != (frame.kind == CHECKPOINT):
                raise Corrupt(f"segment {number:x} has its checkpoint elsewhere than in front")
            replay.apply(number, frame)
            if last is None:
                begin = frame.end
            last = frame
            offset = frame.end
        if not is_last:
            if last is None:
                raise Corrupt(f"segment {number:x} is damaged in front")
            return _Segment(number, file, begin, offset)
        if frame_beyond(file, number, offset):
            raise Corrupt(f"segment {number:x} is damaged at {offset}: more was written behind it")
        if last is None:
            if replay.sequence is None and not self._create:
                raise Corrupt(f"segment {number:x}, the only one, is damaged in front")
            return None
        self._settle(file, last)
        return _Segment(number, file, begin, offset)

    def _settle(self, file: File, last: Frame) -> None:
        """End the doubt about the last frame: nothing torn behind it, and itself on the disk."""
        file.truncate(last.end)
        file.pwrite(last.offset, file.pread(last.offset, last.end - last.offset))
        file.preallocate(self._segment_bytes)
        file.fdatasync()
        self._disk.fsync_dir(self._path)

    # Reading.

    def _fetch(self, log_id: str, log: _Log, index: int) -> bytes:
        """The bytes of one entry, unchecked."""
        while True:
            place = log.places[index]
            segment = self._segments.get(place >> PLACE_OFFSET_BITS)
            if segment is not None:
                break
            # The segment went while this thread was reading: its entries were copied forward, so
            # the place is another by now, or they were trimmed.
            if log.places[index] == place:
                now = self._log(log_id)
                raise Trimmed(f"log {log_id!r} begins at {now.first}", now.first)
        try:
            return segment.file.pread(place & PLACE_OFFSET_MASK, log.lengths[index])
        except OSError as error:
            raise StorageError(f"log {log_id!r} cannot be read: {error}") from error

    # Refusing.

    def _log(self, log_id: str) -> _Log:
        self._check_serving()
        try:
            return self._logs[log_id]
        except KeyError:
            raise StorageError(f"no log {log_id!r}") from None

    def _check_serving(self) -> None:
        if self._refusal is not None:
            raise Ambiguous(self._refusal)

    def _file_path(self, number: int) -> str:
        return f"{self._path}/{number:016x}{SUFFIX}"
