"""What a partition sends to other regions, read from its log.

Pure. Each region sends what was written in it and nothing else: what came from another region is
sent by that one. Silent writes are sent too: they change the version, and versions decide.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..storage.arrivals import Arrival
from ..storage.log.entry import decode_entry
from ..storage.records import Effect, Record, decode_records


def arrivals_of(entry: bytes, number: int) -> list[Arrival]:
    """The changes in a log entry that are of the region ``number``, in their order.

    What a filling removed is not among them: it is a deletion at the version of the row itself (its
    own base), and none where the row still is would heed it. An effect that does not say what it
    replaced (``base_hlc`` -1) is from before the table was a global one, or was decided while it
    became that; only then is it read here, and the filling may not have seen it.

    Raises:
        Corrupt: the entry is damaged.
        WrongFormat: a newer millstream wrote it.
    """
    _, payload = decode_entry(entry)
    return arrivals_among(decode_records(payload), number)


def arrivals_among(records: Sequence[Record], number: int) -> list[Arrival]:
    """``arrivals_of`` for an entry's records."""
    arrivals = []
    for record in records:
        if type(record) is not Effect:
            continue
        if record.region not in (0, number):
            continue
        is_removal = record.body is None and record.base_hlc == record.hlc
        if is_removal and record.base_region in (0, number):
            continue
        arrivals.append(
            Arrival(
                record.key,
                record.body,
                record.size_bytes,
                record.hlc,
                number,
                record.transaction,
                record.base_hlc,
                record.base_region,
                record.hops,
            )
        )
    return arrivals
