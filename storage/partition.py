"""One partition's side of its replicated log: propose, append, commit, apply, in that order.

Theory of operation. Commands are evaluated at once, in order, each seeing what earlier ones
proposed. Their records gather in the *batch being built*. ``ready`` closes it into one entry and
asks for its append; while that append is in flight nothing else is appended, and what arrives
gathers in the next batch. ``committed`` applies the entry and releases the answers. That one
append in flight is what makes the conditional append a fence: a writer that was deposed loses the
condition and can have slipped nothing in behind it.

An answer is released only when everything that it looked at is committed: a refused condition
that read a pending row waits for that row's entry.

============  =======================  ====================================
state         leaves by                to
============  =======================  ====================================
recovering    ``start`` (Claim)        serving, with the Claim in flight
serving       ``failed``               failed: discard and recover again
============  =======================  ====================================

What a partition says about itself (``position``) is stored with the rows it speaks of, in the same
transaction; recovery begins there and replays the log beyond.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from ..errors import Corrupt, WrongFormat
from ..limits import BATCH_PAYLOAD_BYTES, BATCH_RECORDS_MAX
from ..model.versions import HybridClock
from .commands import Fill, Promise, Replicate
from .log.entry import ZERO_HASH, EntryHeader, Link, check_entry, decode_entry, encode_entry
from .log.interface import Append
from .records import (
    Barrier,
    Claim,
    Effect,
    IndexProgress,
    Prepared,
    Record,
    decode_records,
    encode_records,
)
from .replica import ReplicaPosition
from .totals import Totals
from .views import Evaluation

POSITION_FORMAT = 1


class Position(msgspec.Struct, frozen=True):
    """Where a partition stands, as stored beside its rows.

    ``lsn``, ``epoch``, ``timestamp`` and ``hash`` are those of the last applied entry; ``schema``
    the version that effects followed; ``totals`` by tree; ``progress`` by base log, for an index;
    ``promises`` what is prepared and undecided; ``replica`` what a global table adds.
    """

    lsn: int
    epoch: int
    timestamp: int
    hash: bytes
    totals: dict[int, tuple[int, int, int]]
    progress: dict[str, IndexProgress] = {}
    schema: int = 0
    promises: list[Prepared] = []
    replica: ReplicaPosition | None = None
    format: int = POSITION_FORMAT


def encode_position(position: Position) -> bytes:
    """The bytes stored beside the rows."""
    return msgspec.msgpack.encode(position)


def decode_position(data: bytes) -> Position:
    """A stored position. Raises WrongFormat or Corrupt."""
    try:
        position = msgspec.msgpack.decode(data, type=Position)
    except msgspec.DecodeError as error:
        raise Corrupt("a partition's stored position cannot be read") from error
    if position.format != POSITION_FORMAT:
        raise WrongFormat(f"a partition position of format {position.format}")
    return position


class State(Protocol):
    """What a partition holds: a table's rows or a global index's entries."""

    totals: dict[int, Totals]
    #: Base log -> how far it is carried over; empty for a table.
    progress: dict[str, IndexProgress]

    @property
    def schema(self) -> int:
        """The schema version that effects follow; 0 where there is none."""
        ...

    @property
    def promises(self) -> dict[str, Prepared]:
        """Transactions that are prepared here, durably."""
        ...

    @property
    def closed_below(self) -> int | None:
        """Nothing prepared here will write at or below this; None if nothing is prepared."""
        ...

    def replica_position(self) -> ReplicaPosition | None:
        """What a global table's partition knows besides; None for all others."""
        ...

    def evaluate(self, command: Any, hlc: int) -> Evaluation: ...

    def apply(self, record: Record) -> None: ...

    def applied_entry(self, lsn: int) -> None: ...

    def applied(self, record: Record) -> None: ...


class Ticket(Protocol):
    """Somebody who waits for an answer."""

    def resolve(self, value: Any) -> None: ...

    def fail(self, error: Exception) -> None: ...


class Answer(msgspec.Struct, frozen=True):
    """The result that ``ticket``'s holder now may see."""

    ticket: Ticket
    result: object


class _Batch:
    """Records gathered for one entry, and the answers that wait for it."""

    __slots__ = ("answers", "payload_bytes", "records")

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.answers: list[Answer] = []
        self.payload_bytes = 0


class Partition:
    """The machine. Owned by one actor; reads of ``state`` may be made by anyone in between."""

    __slots__ = (
        "_building",
        "_clock",
        "_flight",
        "_flight_entry",
        "_link",
        "_nonce",
        "_released",
        "dirty",
        "epoch",
        "failed",
        "log_id",
        "newest_records",
        "schema_in_log",
        "serving",
        "state",
    )

    def __init__(
        self, log_id: str, state: State, clock: HybridClock, nonce: int, position: Position | None
    ) -> None:
        self.log_id = log_id
        self.state = state
        #: The node's clock: every version and every entry takes the next value.
        self._clock = clock
        #: Identifies this writer in its entries.
        self._nonce = nonce
        #: The last applied entry; None while the log is empty.
        self._link: Link | None = None
        #: The leadership term that this owner's entries carry.
        self.epoch = 0
        #: The schema version at the position or in the last barrier replayed; 0 if unknown.
        self.schema_in_log = 0
        if position is not None:
            self.schema_in_log = position.schema
            self.epoch = position.epoch
            if position.lsn:
                self._link = Link(
                    position.lsn, position.epoch, position.timestamp, position.hash
                )
            clock.observe(position.timestamp)
        self._building = _Batch()
        #: Those of the last entry that was written here.
        self.newest_records: Sequence[Record] = ()
        self._flight: _Batch | None = None
        self._flight_entry = b""
        #: Answers that wait for nothing any more.
        self._released: list[Answer] = []
        #: Whether something was applied that the tree store does not hold yet.
        self.dirty = False
        self.serving = False
        self.failed = False

    # Where it stands.

    @property
    def lsn(self) -> int:
        """The last applied LSN; 0 if there is none."""
        return 0 if self._link is None else self._link.lsn

    @property
    def closed_timestamp(self) -> int:
        """At or below this, this region will write nothing here any more: a consistent cut.

        Everything applied lies at or below the last entry's timestamp, everything proposed later
        above it, except what prepared transactions (and writes that pass them) may still do. It is
        in the log, so that a start after a crash knows of it, whatever its wall clock says.
        """
        applied = 0 if self._link is None else self._link.timestamp
        below = self.state.closed_below
        return applied if below is None else min(applied, below)

    def close_timestamp(self, now_ms: int, limit: int) -> int:
        """``closed_timestamp``, brought up to this moment if nothing is under way here.

        The log does not tell of that, so not beyond ``limit``: a restart begins above it.
        """
        closed = self.closed_timestamp
        if self._flight is None and not self._building.records and self.state.closed_below is None:
            closed = max(closed, min(self._clock.next(now_ms), limit))
        return closed

    @property
    def queued_bytes(self) -> int:
        """Payload gathered for the next entry, roughly."""
        return self._building.payload_bytes

    @property
    def idle(self) -> bool:
        """Whether nothing is proposed, in flight or waiting."""
        return self._flight is None and not self._building.records and not self._released

    def position(self) -> Position:
        """What is stored beside the rows when they are flushed."""
        link = self._link
        return Position(
            lsn=self.lsn,
            # Not the term that has begun: its Claim may never have become durable.
            epoch=0 if link is None else link.epoch,
            timestamp=0 if link is None else link.timestamp,
            hash=ZERO_HASH if link is None else link.hash,
            totals={tree: totals.as_tuple() for tree, totals in self.state.totals.items()},
            progress=dict(self.state.progress),
            schema=self.state.schema,
            promises=list(self.state.promises.values()),
            replica=self.state.replica_position(),
        )

    # Recovery.

    def replay(self, entry: bytes) -> None:
        """Apply one entry read back from the log.

        Raises:
            Corrupt: it is damaged or does not continue the one before.
            WrongFormat: a newer millstream wrote it.
        """
        assert not self.serving
        link = check_entry(entry, self._link)
        _, payload = decode_entry(entry)
        for record in decode_records(payload):
            if isinstance(record, Claim):
                assert record.epoch > self.epoch, "epochs grow with each claim"
                self.epoch = record.epoch
            elif isinstance(record, Barrier):
                self.schema_in_log = record.schema
            self.state.apply(record)
        self.state.applied_entry(link.lsn)
        self._link = link
        self._clock.observe(link.timestamp)
        self.dirty = True

    def start(self, owner: str) -> None:
        """Begin to serve: the first thing appended is a Claim with a new epoch."""
        assert not self.serving
        assert self._flight is None
        self.epoch += 1
        self.serving = True
        self._building.records.append(Claim(self.epoch, owner))

    # Writing.

    def propose(self, ticket: Ticket, command: Any, now_ms: int) -> None:
        """Decide ``command`` and gather its records; its answer comes with a later ``ready``."""
        assert self.serving
        assert not self.failed
        if isinstance(command, Replicate | Fill):
            # The entry, and whatever is written here afterwards, is later than what it brings.
            newest = max((arrival.hlc for arrival in command.arrivals), default=0)
            if isinstance(command, Fill):
                # A region that is new writes above what others have passed already.
                newest = max(newest, 0, *command.covered.values())
            self._clock.observe(newest)
        evaluation = self.state.evaluate(command, self._clock.next(now_ms))
        if isinstance(evaluation.result, Promise):
            # The transaction may take effect at its bound; what comes after it must be later.
            self._clock.observe(evaluation.result.bound)
        answer = Answer(ticket, evaluation.result)
        if evaluation.records:
            building = self._building
            building.records.extend(evaluation.records)
            building.answers.append(answer)
            for record in evaluation.records:
                building.payload_bytes += _weight(record)
        elif not evaluation.waits:
            self._released.append(answer)
        elif self._building.records or self._flight is None:
            self._building.answers.append(answer)
        else:
            self._flight.answers.append(answer)

    def propose_record(self, ticket: Ticket, record: Record) -> None:
        """Gather a record that is decided already (a barrier); answered by its own LSN's commit."""
        self._building.records.append(record)
        self._building.answers.append(Answer(ticket, None))

    @property
    def may_append(self) -> bool:
        """Whether ``ready`` would ask for an append now."""
        return self._flight is None and bool(self._building.records) and not self.failed

    @property
    def full(self) -> bool:
        """Whether the batch being built has reached the size of one entry."""
        building = self._building
        return (
            building.payload_bytes >= BATCH_PAYLOAD_BYTES
            or len(building.records) >= BATCH_RECORDS_MAX
        )

    def ready(self, now_ms: int) -> tuple[Append | None, list[Answer]]:
        """The append to make now, if any, and the answers that may be given.

        The append must be durable before ``committed`` is called; answers may be given at once.
        """
        released, self._released = self._released, []
        building = self._building
        if not self.may_append:
            return None, released
        link = self._link
        lsn = 0 if link is None else link.lsn
        header = EntryHeader(
            epoch=self.epoch,
            writer_nonce=self._nonce,
            lsn=lsn + 1,
            timestamp=self._clock.next(now_ms),
            previous_hash=ZERO_HASH if link is None else link.hash,
        )
        self._flight_entry = encode_entry(header, encode_records(building.records))
        self._flight = building
        self._building = _Batch()
        return Append(self.log_id, lsn, self._flight_entry), released

    def committed(self) -> list[Answer]:
        """The append in flight is durable: apply it and release what waited for it."""
        flight = self._flight
        assert flight is not None
        assert not self.failed
        state = self.state
        for record in flight.records:
            state.apply(record)
            state.applied(record)
        self._link = check_entry(self._flight_entry, self._link)
        state.applied_entry(self._link.lsn)
        self._flight = None
        self._flight_entry = b""
        self.dirty = True
        self.newest_records = flight.records
        return flight.answers

    def fail(self) -> list[Ticket]:
        """The append failed or its outcome is unknown: nothing more is decided here.

        Returns every ticket that waits; what they asked may or may not be in the log.
        """
        self.failed = True
        answers = list(self._building.answers)
        if self._flight is not None:
            answers += self._flight.answers
        return [answer.ticket for answer in answers + self._released]


def _weight(record: Record) -> int:
    if type(record) is Effect:
        return (
            64
            + len(record.key)
            + (0 if record.body is None else len(record.body))
            + (0 if record.old is None else len(record.old))
        )
    body = getattr(record, "body", None)
    return 64 + (0 if body is None else len(body)) + len(getattr(record, "key", b""))
