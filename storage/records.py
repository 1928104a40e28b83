"""What a log entry's payload holds: effects, not requests.

A payload is a MessagePack array of records; a record is an array that begins with its kind's
number. Numbers are never reused. An unknown kind is refused, never skipped, because every reader
of the log must agree on what it says.

====  =================  =====================================================================
kind  record             written by
====  =================  =====================================================================
1     Effect             the partition, for each item changed (or rewritten alike: *silent*)
2     Barrier            the partition, when its table's schema changed: later effects name it
3     Claim              a new owner, before it serves
4     Release            an owner that stops in good order
5     IndexProgress      a global index's partition: how far a base log has been carried over
6     IndexEffect        a global index's partition: one entry put or removed
7     Prepared           the partition: a part of a transaction that it has promised
8     Committed          the partition: that part is over; its effects follow in this entry
9     Aborted            the partition: that part is over without effects
10    (Split)            reserved
11    TokenUsed          the partition that remembers a transaction's client token
12    Received           a global table's partition: how far another region's log has come in
13    TombstonesDropped  a global table's partition, when every region has passed the deletions
====  =================  =====================================================================
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..errors import Corrupt, WrongFormat
from .rows import Row


class Effect(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """The item under ``key`` is now ``body`` (None: absent), at version ``(hlc, region)``.

    ``old_index_keys`` maps a global index's tree to the entry key that the item had there before,
    for the indexes of schema version ``schema`` that had one; readers of the log need no tree.
    ``old`` is the whole old body, kept only for readers that need it; ``b""`` says that there was
    one which nobody needs. ``silent`` marks a write that changed nothing but the version: no
    stream shows it. ``transaction`` is the timestamp of the transaction that wrote it (0: none).
    ``hops`` counts the handlers of changes one behind the other that led to this write.
    ``(base_hlc, base_region)`` is the version that it replaced, (0, 0) for none; -1 says that the
    table was no global one. ``beat`` marks one that replaced a write of this region's which its
    writer had not seen; ``resolves`` what a policy made of that, in the same entry right behind.
    """

    schema: int
    key: bytes
    body: bytes | None
    size_bytes: int
    hlc: int
    region: int = 0
    transaction: int = 0
    silent: bool = False
    old_index_keys: dict[int, bytes] | None = None
    old: bytes | None = None
    hops: int = 0
    base_hlc: int = -1
    base_region: int = 0
    beat: bool = False
    resolves: bool = False

    def row(self) -> Row | None:
        """The row that the table's tree holds after this effect."""
        if self.body is None:
            return None
        return Row(self.body, self.size_bytes, self.hlc, self.region, self.transaction)


class Barrier(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """From here on, effects follow ``schema``; ``table`` is that schema as the catalog has it."""

    schema: int
    table: bytes


class Claim(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """A new owner with a new epoch; its success proves the tail and fences the owner before."""

    epoch: int
    owner: str


class Release(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The owner of ``epoch`` appends nothing more."""

    epoch: int


class IndexProgress(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Everything in ``base_log`` up to ``lsn`` is in this index partition.

    While the index is being filled, ``cursor`` is the first key not yet carried over (b"" at the
    start), and effects up to ``chunk_lsn`` on keys at or above ``chunk_low`` are already contained
    in the chunk that was read last. ``cursor`` None: filled.
    """

    base_log: str
    lsn: int
    cursor: bytes | None = None
    chunk_low: bytes = b""
    chunk_lsn: int = 0


class IndexEffect(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """The entry under ``key`` (index key then table key) is now ``body`` (None: removed)."""

    key: bytes
    body: bytes | None
    size_bytes: int
    hlc: int
    region: int = 0

    def row(self) -> Row | None:
        """The row that the index's tree holds after this effect."""
        if self.body is None:
            return None
        return Row(self.body, self.size_bytes, self.hlc, self.region)


class Intent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a prepared transaction will make of the item under ``key`` (``body`` None: absent)."""

    key: bytes
    body: bytes | None
    size_bytes: int


class Prepared(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """A part of a transaction that this partition can commit at any timestamp from ``bound`` on.

    Its keys are held until Committed or Aborted: those of ``intents``, and ``checked``, on which
    it only has conditions. On keys in ``passable`` it depends on nothing, so that single writes
    may go before it.
    """

    transaction: str
    bound: int
    intents: list[Intent]
    checked: list[bytes]
    passable: list[bytes]
    hops: int = 0


class Committed(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """The prepared part has taken effect at ``timestamp``; its effects are in the same entry."""

    transaction: str
    timestamp: int


class Aborted(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """The prepared part has no effect."""

    transaction: str


class TokenUsed(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """A client token and the hash of its request, remembered for ten minutes from ``used_ms``."""

    token: str
    request_hash: bytes
    used_ms: int


class Received(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """Everything in another region's log ``source`` up to ``lsn`` is in this partition.

    While the partition is being filled from there, ``cursor`` is the key to go on from. ``round``
    is the group's when the last filling began.
    """

    source: str
    lsn: int
    cursor: bytes | None = None
    round: int = 0


class TombstonesDropped(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """Nothing new at or below ``horizon`` will come; the tombstones of ``keys`` are not needed."""

    horizon: int
    keys: list[bytes]


Record = (
    Effect
    | Barrier
    | Claim
    | Release
    | IndexProgress
    | IndexEffect
    | Prepared
    | Committed
    | Aborted
    | TokenUsed
    | Received
    | TombstonesDropped
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Record])
_KINDS = frozenset((*range(1, 10), 11, 12, 13))


def encode_records(records: Sequence[Record]) -> bytes:
    """The payload of one log entry."""
    return _encoder.encode(records)


def decode_records(payload: bytes) -> list[Record]:
    """The records of one log entry.

    Raises:
        WrongFormat: a kind that this millstream does not know.
        Corrupt: not records at all, though the entry's checksum held.
    """
    try:
        return _decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise _diagnose(payload) from error


def _diagnose(payload: bytes) -> Corrupt | WrongFormat:
    try:
        records = msgspec.msgpack.decode(payload, type=list[list[object]])
    except msgspec.DecodeError:
        return Corrupt("a log entry's payload is not a list of records")
    for record in records:
        if record and isinstance(record[0], int) and record[0] not in _KINDS:
            return WrongFormat(f"log record kind {record[0]} is unknown to this millstream")
    return Corrupt("a log entry's payload is not a list of records")
