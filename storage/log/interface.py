"""What a log engine is: the contract behind which the replicated log's bytes are kept.

A log is a dense run of entries, each written by a conditional append: "after entry N, and only
if N is still the last". That condition is the fence between an old and a new owner. One engine
holds all logs of a node, so that one sync makes a whole round of appends durable.

The protocol is synchronous. An actor runs `commit` in a worker thread and receives the result as
a message; reads are direct calls. An engine over the network (JetStream, with its
Nats-Expected-Last-Sequence) takes the same shape: `commit` publishes the appends together and
waits for every acknowledgement, a refused expectation is that element's Conflict, a lost
acknowledgement is Ambiguous. So the caller never knows which engine it has.

Threads: calls that change something (`create`, `delete`, `commit`, `trim`, `reopen`, `close`)
are made one at a time, from any thread. The others (`list`, `read`, `tail`, `first`) may run beside
them on another thread and see what is committed. A log's reads are made by one thread at a time.

Durability: `create`, `delete` and `commit` are durable when they return. `trim` is advice: after
a crash entries may be readable that were trimmed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from ...errors import StorageError

LOG_ID_BYTES_MAX: Final = 255


class Append(msgspec.Struct, frozen=True):
    """Write `entry` at `expected_last` + 1 of the log, if `expected_last` is still its tail."""

    log_id: str
    expected_last: int
    entry: bytes


class Entry(msgspec.Struct, frozen=True):
    """One entry as it was appended: `data` is what `entry.encode_entry` made."""

    lsn: int
    data: bytes


# Named here because `LogEngine.list` hides the built-in inside the class.
Names = list[str]
Entries = list[Entry]
Outcomes = list[StorageError | None]


class LogEngine(Protocol):
    """All logs of one node. Every method may raise StorageError for a log that does not exist."""

    def create(self, log_id: str, first_lsn: int) -> None:
        """Make an empty log whose first entry will be `first_lsn` (at least 1); durable.

        Raises Conflict if the log exists. `log_id` has 1 to 255 bytes of UTF-8.
        """
        ...

    def delete(self, log_id: str) -> None:
        """Remove the log and its entries; durable. A log that does not exist is no error."""
        ...

    def list(self) -> Names:
        """The identifiers of all logs, sorted."""
        ...

    def commit(self, appends: Sequence[Append]) -> Outcomes:
        """Append entries to any number of logs with one sync; durable.

        Answers in order, None for an entry that is durable. Conflict: the log's tail was not
        `expected_last` and nothing was written for this element; the others are not touched by it.
        StorageError: no such log. Two appends to one log count one after the other.

        Raises Ambiguous if the write or the sync failed midway: each element may or may not be
        durable, and the engine refuses every call but `reopen` and `close` (Ambiguous again),
        until `reopen` has found out what is there.

        An entry that does not fit its place (LSN, previous hash) is the caller's bug: asserted.
        """
        ...

    def read(self, log_id: str, start: int, max_bytes: int) -> Entries:
        """Consecutive entries from `start`, as many as fit in `max_bytes`, but at least one.

        Empty if `start` is beyond the tail. Raises Trimmed if `start` is below the first entry.
        Raises Corrupt if an entry is missing, damaged, or does not continue the one before it;
        nothing is ever skipped. Damage is raised as soon as any entry of the answer has it.
        """
        ...

    def tail(self, log_id: str) -> int:
        """The LSN of the last entry; first LSN - 1 if there is none yet."""
        ...

    def first(self, log_id: str) -> int:
        """The LSN of the first readable entry, or of the first to come."""
        ...

    def trim(self, log_id: str, before: int) -> None:
        """Forget entries below `before`, but never the last one of the log.

        The last entry stays because it carries what the next continues: epoch, timestamp, hash.
        A `before` at or below the first entry changes nothing.
        """
        ...

    def reopen(self) -> None:
        """Forget everything held in memory and read the storage again. Raises as opening does."""
        ...

    def close(self) -> None:
        """Release files and memory. Closing twice is no error."""
        ...


class CopyEngine(LogEngine, Protocol):
    """A log engine on this machine that can also be one copy of a replicated set."""

    def truncate(self, log_id: str, after: int) -> None:
        """Remove the entries above `after` (at least first LSN - 1); durable.

        For recovery alone: what is removed was never acknowledged by a majority.
        """
        ...


def check_log_id(log_id: str) -> bytes:
    """The identifier as UTF-8; asserted, because identifiers are made by millstream."""
    encoded = log_id.encode()
    assert 1 <= len(encoded) <= LOG_ID_BYTES_MAX, f"a log id of {len(encoded)} bytes"
    return encoded
