"""Stretches of logs, read and packed for other regions: several that are level share the work.

Owned by ``Regions``. Reads are synchronous. The log's entries come through the streams' cache,
which holds what was written a moment ago.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ..errors import Trimmed
from ..globaltables.packing import pack_arrivals
from ..globaltables.sending import arrivals_of
from ..limits import (
    REPLICATION_BATCH_BYTES,
    REPLICATION_BATCH_ENTRIES,
    REPLICATION_PART_BYTES,
)
from ..storage.arrivals import Arrival
from .partition import PartitionActor
from .streams import Streams


class Stretch(msgspec.Struct, frozen=True):
    """The changes of this region in a log behind some LSN, up to ``lsn``.

    Packed in ``parts``: nearly always one, several for a large transaction, none for no changes.
    """

    lsn: int
    changes: int
    parts: tuple[bytes, ...]


class Stretches:
    """See the module's text. ``number`` is this region's."""

    __slots__ = ("_last", "_streams", "number")

    def __init__(self, streams: Streams, number: int) -> None:
        self._streams = streams
        self.number = number
        #: Log -> (behind which LSN, the stretch) that was read last.
        self._last: dict[str, tuple[int, Stretch]] = {}

    def region_of(self, region: int) -> int:
        """A stored region number: 0 is this region, before it had one."""
        return region or self.number

    def first(self, actor: PartitionActor) -> int:
        """The first LSN that the log still has."""
        return self._streams.first_kept(actor.log_id)

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
        lsn = behind
        end = min(actor.lsn, behind + REPLICATION_BATCH_ENTRIES)
        while lsn < end and size_bytes < REPLICATION_BATCH_BYTES:
            lsn += 1
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
