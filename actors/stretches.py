"""Stretches of logs, read and packed for other regions: several that are level share the work.

Owned by ``Regions``. Reads are synchronous. The log's entries come through the streams' cache,
which holds what was written a moment ago.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from ..errors import Trimmed
from ..globaltables.packing import pack_arrivals
from ..globaltables.sending import arrivals_among, arrivals_of
from ..limits import (
    FOLLOWED_BYTES_MAX,
    REPLICATION_BATCH_BYTES,
    REPLICATION_BATCH_ENTRIES,
    REPLICATION_PART_BYTES,
)
from ..storage.arrivals import Arrival
from ..storage.records import Record
from .partition import PartitionActor
from .streams import Streams


class Stretch(msgspec.Struct, frozen=True):
    """The changes of this region in a log behind some LSN, up to ``lsn``.

    Packed in ``parts``: nearly always one, several for a large transaction, none for no changes.
    """

    lsn: int
    changes: int
    parts: tuple[bytes, ...]


class _Recent:
    """The last entries of one log, as records, which need not be read and decoded again."""

    __slots__ = ("_bytes", "entries", "followers")

    def __init__(self) -> None:
        #: LSN -> its length and its records, oldest first.
        self.entries: dict[int, tuple[int, Sequence[Record]]] = {}
        self._bytes = 0
        self.followers = 0

    def keep(self, lsn: int, size_bytes: int, records: Sequence[Record]) -> None:
        entries = self.entries
        entries[lsn] = (size_bytes, records)
        self._bytes += size_bytes
        while self._bytes > FOLLOWED_BYTES_MAX:
            self._bytes -= entries.pop(next(iter(entries)))[0]


class Stretches:
    """See the module's text. ``number`` is this region's."""

    __slots__ = ("_last", "_recent", "_streams", "number")

    def __init__(self, streams: Streams, number: int) -> None:
        self._streams = streams
        self.number = number
        #: Log -> (behind which LSN, the stretch) that was read last.
        self._last: dict[str, tuple[int, Stretch]] = {}
        #: Log -> what was written there a moment ago, while somebody follows it.
        self._recent: dict[str, _Recent] = {}

    def region_of(self, region: int) -> int:
        """A stored region number: 0 is this region, before it had one."""
        return region or self.number

    def first(self, actor: PartitionActor) -> int:
        """The first LSN that the log still has."""
        return self._streams.first_kept(actor.log_id)

    @contextmanager
    def following(self, actor: PartitionActor) -> Iterator[None]:
        """While this is open, what the partition writes is kept in memory for a while."""
        recent = self._recent.setdefault(actor.log_id, _Recent())
        recent.followers += 1
        actor.keep = self._keep
        try:
            yield
        finally:
            recent.followers -= 1
            if not recent.followers:
                actor.keep = None
                del self._recent[actor.log_id]

    def _keep(self, log_id: str, lsn: int, size_bytes: int, records: Sequence[Record]) -> None:
        self._recent[log_id].keep(lsn, size_bytes, records)

    def timestamp(self, actor: PartitionActor, lsn: int) -> int:
        """The timestamp of an entry, or of the first that is still there behind it."""
        return self._streams.timestamp_of(actor.log_id, max(lsn, self.first(actor)))

    def read(self, actor: PartitionActor, behind: int) -> Stretch:
        """What follows ``behind``, which is below the log's end.

        Raises Trimmed, Corrupt, or Ambiguous while the log is being reopened.
        """
        last = self._last.get(actor.log_id)
        if last is not None and last[0] == behind:
            return last[1]
        if self.first(actor) > behind + 1:
            raise Trimmed(f"log {actor.log_id} begins behind {behind}", self.first(actor))
        arrivals: list[Arrival] = []
        size_bytes = 0
        recent = self._recent.get(actor.log_id)
        lsn = behind
        end = min(actor.lsn, behind + REPLICATION_BATCH_ENTRIES)
        while lsn < end and size_bytes < REPLICATION_BATCH_BYTES:
            lsn += 1
            known = None if recent is None else recent.entries.get(lsn)
            if known is not None:
                arrivals += arrivals_among(known[1], self.number)
                size_bytes += known[0]
            else:
                entry = self._streams.entry(actor.log_id, lsn)
                arrivals += arrivals_of(entry, self.number)
                size_bytes += len(entry)
        parts = tuple(pack_arrivals(part) for part in _parts(arrivals))
        stretch = Stretch(lsn, len(arrivals), parts)
        self._last[actor.log_id] = (behind, stretch)
        return stretch

    def forget(self, log_id: str) -> None:
        """The log is nobody's any more."""
        self._last.pop(log_id, None)


def _parts(arrivals: list[Arrival]) -> Iterator[list[Arrival]]:
    """The same, cut where they are more than one message should hold."""
    part: list[Arrival] = []
    size_bytes = 0
    for arrival in arrivals:
        part.append(arrival)
        size_bytes += len(arrival.key) + len(arrival.body or b"")
        if size_bytes >= REPLICATION_PART_BYTES:
            yield part
            part, size_bytes = [], 0
    if part:
        yield part
