"""The records of one lane that are in no batch yet, and how many of them the next batch takes.

A batch closes at its number of records, at the bytes of its payload (a single record always fits),
at the end of its tumbling window, and where a long chain of handlers begins or ends; these are
counted as records arrive, not by looking at all that wait. What closes it besides (time, the
shard's end) is the lane's business.

Which record of a batch a handler's write comes from cannot be told, so it counts one hop more
than any of them. Were chains of all lengths mixed, they would lend each other their counts, and
under load a handler that writes to its own table now and then would be taken for a loop. So records
of more than ``MIXED_HOPS_MAX`` hops share a batch with their like only.
"""

from __future__ import annotations

from collections import deque

from ..limits import (
    INVOCATION_ENVELOPE_BYTES,
    INVOCATION_PAYLOAD_BYTES_MAX,
    MIXED_HOPS_MAX,
    RECORD_AGE_MARGIN_MS,
    WINDOW_STATE_BYTES_MAX,
)
from .batches import Pulled
from .settings import MappingSettings


class Entry:
    """A matching record, with the positions around it that it answers for."""

    __slots__ = ("before", "record", "through")

    def __init__(self, record: Pulled, before: int) -> None:
        self.record = record
        #: The shard's last position before it: all that is behind, if this is the first undone.
        self.before = before
        #: It and the filtered records of its lane that follow it: done when it is done.
        self.through = record.position


class Waiting:
    """A queue of entries whose head is the next batch."""

    __slots__ = ("_bytes", "_count", "_entries", "_settings", "is_closed")

    def __init__(self, settings: MappingSettings) -> None:
        self._settings = settings
        self._entries: deque[Entry] = deque()
        #: Of the next batch, as far as it is counted.
        self._count = 0
        self._bytes = 0
        #: Nothing more fits into the next batch.
        self.is_closed = False

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Entry:
        return self._entries[index]

    def append(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._measure(entry.record)

    def adopt(self, settings: MappingSettings) -> None:
        self._settings = settings
        self._measure_all()

    def take(self) -> list[Entry]:
        """The next batch leaves."""
        assert self._count > 0
        taken = [self._entries.popleft() for _ in range(self._count)]
        self._measure_all()
        return taken

    def window(self) -> tuple[int, int]:
        """The tumbling window of the first record, aligned to the epoch."""
        length_ms = self._settings.tumbling_window_seconds * 1000
        arrived_ms = self._entries[0].record.arrived_ms
        start_ms = arrived_ms - arrived_ms % length_ms
        return start_ms, start_ms + length_ms

    def closes_ms(self) -> int:
        """When the next batch waits no longer for company."""
        settings = self._settings
        arrived_ms = self._entries[0].record.arrived_ms
        closes_ms = arrived_ms + int(settings.window_seconds * 1000)
        if settings.maximum_record_age_seconds >= 0:
            # Waiting must not be what makes a record too old.
            age_ms = settings.maximum_record_age_seconds * 1000
            closes_ms = min(closes_ms, arrived_ms + age_ms - RECORD_AGE_MARGIN_MS)
        if settings.tumbling_window_seconds > 0:
            closes_ms = min(closes_ms, self.window()[1])
        return closes_ms

    def _measure_all(self) -> None:
        self._count = 0
        self._bytes = 0
        self.is_closed = False
        for entry in self._entries:
            self._measure(entry.record)
            if self.is_closed:
                break

    def _measure(self, record: Pulled) -> None:
        """Counts the record that follows those counted, if it still fits."""
        if self.is_closed:
            return
        settings = self._settings
        # One more byte for the comma.
        size_bytes = self._bytes + record.size_bytes + 1
        if self._count > 0:
            room_bytes = INVOCATION_PAYLOAD_BYTES_MAX - INVOCATION_ENVELOPE_BYTES
            is_beyond = _generation(record) != _generation(self._entries[0].record)
            if settings.tumbling_window_seconds > 0:
                room_bytes -= WINDOW_STATE_BYTES_MAX
                is_beyond = is_beyond or record.arrived_ms >= self.window()[1]
            if is_beyond or size_bytes > room_bytes:
                self.is_closed = True
                return
        self._count += 1
        self._bytes = size_bytes
        self.is_closed = self._count >= settings.batch_size


def _generation(record: Pulled) -> int:
    """Records of one generation may share a batch."""
    return max(record.hops, MIXED_HOPS_MAX)
