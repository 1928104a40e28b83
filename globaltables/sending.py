"""What of a log's entry is sent to other regions. Pure."""

from __future__ import annotations

from ..storage.arrivals import Arrival
from ..storage.log.entry import payload_of
from ..storage.records import Effect, decode_records


def arrivals_of(entry: bytes, number: int) -> list[Arrival]:
    """The changes in ``entry`` (trusted bytes) that region ``number``, whose log it is, made.

    What it received itself is not sent on (no echo), nor what was done before the table was a
    global one: the filling brought it.
    """
    return [
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
        for record in decode_records(payload_of(entry))
        if type(record) is Effect
        and record.base_hlc >= 0
        and (record.region == number or not record.region)
    ]
