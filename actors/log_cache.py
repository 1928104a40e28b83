"""Log entries that were read a moment ago, for whoever reads the same.

Several mappings read one stream, and a page ends in the middle of what was read for it. Owned by
``Streams``. Only committed entries are kept: what a log holds at an LSN is then the same for ever,
so that nothing in here is ever wrong. Whether an entry may still be shown is not decided here.
"""

from __future__ import annotations

from collections import deque


class LogCache:
    """Entries by log and LSN; the first to come are the first to go, beyond ``bytes_max``."""

    __slots__ = ("_bytes", "_bytes_max", "_entries", "_order")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        #: The sum of the entries' lengths.
        self._bytes = 0
        self._entries: dict[tuple[str, int], bytes] = {}
        #: The same keys, in the order in which they came.
        self._order: deque[tuple[str, int]] = deque()

    def get(self, log_id: str, lsn: int) -> bytes | None:
        """The entry's bytes, if they are here."""
        return self._entries.get((log_id, lsn))

    def keep(self, log_id: str, lsn: int, data: bytes) -> None:
        """Have a committed entry here for a while."""
        key = (log_id, lsn)
        if key in self._entries:
            return
        self._entries[key] = data
        self._order.append(key)
        self._bytes += len(data)
        while self._bytes > self._bytes_max:
            self._bytes -= len(self._entries.pop(self._order.popleft()))
