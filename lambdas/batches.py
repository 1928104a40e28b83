"""What goes into the machine of a shard and what comes out of it: records, effects, checkpoints.

Plain values, shared by ``lane.py``, ``shard.py`` and whoever carries the effects out.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

RETRY_ATTEMPTS_EXHAUSTED = "RetryAttemptsExhausted"
RECORD_AGE_EXCEEDED = "RecordAgeExceeded"
RECURSIVE_LOOP_DETECTED = "RecursiveLoopDetected"


class Pulled(msgspec.Struct, frozen=True):
    """One record as read from the shard.

    ``position`` is its sequence number, ``key`` its item's key, ``arrived_ms`` the commit's time,
    ``size_bytes`` the size of its JSON in the event, ``matches`` what the mapping's filters say,
    ``hops`` how many handlers led to it. ``record`` is the owner's.
    """

    position: int
    key: bytes
    arrived_ms: int
    size_bytes: int
    matches: bool
    hops: int
    record: Any


class WindowState(msgspec.Struct, frozen=True):
    """A tumbling window that is open: [start, end) by arrival, and what the handler keeps of it.

    ``is_terminated_early``: it takes no more records, its final call is due.
    """

    start_ms: int
    end_ms: int
    state: dict[str, Any]
    is_terminated_early: bool = False


class WindowCall(msgspec.Struct, frozen=True):
    """What an invocation is told about its tumbling window."""

    start_ms: int
    end_ms: int
    state: dict[str, Any]
    is_final: bool
    is_terminated_early: bool


class Earlier(msgspec.Struct, frozen=True):
    """A lane of an earlier parallelization factor: its records up to ``position`` are done."""

    factor: int
    lane: int
    position: int


class LaneCheckpoint(msgspec.Struct, frozen=True):
    """What is durable of one lane.

    The lane's records up to ``position`` are done, and *all* lanes' records up to ``floor``: thus
    a lane without records needs no row of its own. ``windows`` are the lane's tumbling windows
    (those to be terminated first), ``earlier`` what lanes of other factors did beyond the floor.
    """

    lane: int
    factor: int
    position: int
    floor: int
    windows: tuple[WindowState, ...] = ()
    earlier: tuple[Earlier, ...] = ()


class Success(msgspec.Struct, frozen=True):
    """The handler returned ``payload``. It may still mean failure: the machine decides."""

    payload: Any = None


class Failure(msgspec.Struct, frozen=True):
    """The handler raised, timed out or died."""


Result = Success | Failure


class Invoke(msgspec.Struct, frozen=True):
    """Call the handler, then tell ``finished``. ``attempt`` counts from 1 for this batch."""

    lane: int
    batch_id: int
    records: tuple[Pulled, ...]
    attempt: int
    window: WindowCall | None


class Discard(msgspec.Struct, frozen=True):
    """Given up after ``attempts`` invocations. Must be durable where the mapping wants it before
    ``discarded`` is called; the lane waits. A final call that failed has no records.
    """

    lane: int
    batch_id: int
    records: tuple[Pulled, ...]
    condition: str
    attempts: int


class Checkpoint(msgspec.Struct, frozen=True):
    """Store this as the lane's row. The rows of one ``ready`` become durable in its order or
    together, and before anything that ``preview`` answers later.
    """

    lane: int
    checkpoint: LaneCheckpoint


class Replace(msgspec.Struct, frozen=True):
    """The parallelization factor changed: in one transaction, all rows of this shard are removed
    and these stored, before any effect that comes after it.
    """

    checkpoints: tuple[LaneCheckpoint, ...]


Effect = Invoke | Discard | Checkpoint | Replace


def checkpoints_at(position: int, factor: int = 1) -> tuple[LaneCheckpoint, ...]:
    """A reset: the rows, replacing all others, with which a shard goes on behind ``position``."""
    return (LaneCheckpoint(0, factor, position, position),)


def iso_seconds(ms: int) -> str:
    """The second of a time, as Lambda writes it in a window."""
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def window_members(call: WindowCall) -> dict[str, Any]:
    """What an event of a tumbling window has besides Records, shardId and eventSourceARN.

    The state is a copy: a handler may change what it is given, and then fail.
    """
    return {
        "window": {"start": iso_seconds(call.start_ms), "end": iso_seconds(call.end_ms)},
        "state": msgspec.json.decode(msgspec.json.encode(call.state)),
        "isFinalInvokeForWindow": call.is_final,
        "isWindowTerminatedEarly": call.is_terminated_early,
    }
