"""The door to time. Everything that needs the time is given a ``Clock``.

The wall clock dates versions, log entries and signatures, and may jump either way; the monotonic
clock times leases and waits, never goes back, and means nothing outside the process.
``ManualClock`` is the twin for tests and simulation: it moves only when told to.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What time it is."""

    def now_ms(self) -> int:
        """The wall clock: milliseconds since the Unix epoch, UTC."""
        ...

    def now_seconds(self) -> float:
        """The wall clock: seconds since the Unix epoch, UTC."""
        ...

    def monotonic_seconds(self) -> float:
        """Seconds since some moment; never decreases."""
        ...


class RealClock:
    """The machine's clocks."""

    __slots__ = ()

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def now_seconds(self) -> float:
        return time.time()

    def monotonic_seconds(self) -> float:
        return time.monotonic()


class ManualClock:
    """Stands still until ``advance`` (time passes) or ``set_wall`` (somebody adjusts it)."""

    __slots__ = ("_monotonic_ms", "_wall_ms")

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        #: Milliseconds since the epoch; may be set to anything from 0 up.
        self._wall_ms = now_ms
        #: Milliseconds that have passed since the clock was made; never decreases.
        self._monotonic_ms = 0

    def now_ms(self) -> int:
        return self._wall_ms

    def now_seconds(self) -> float:
        return self._wall_ms / 1000

    def monotonic_seconds(self) -> float:
        return self._monotonic_ms / 1000

    def advance(self, milliseconds: int) -> None:
        """Let time pass on both clocks."""
        assert milliseconds >= 0
        self._wall_ms += milliseconds
        self._monotonic_ms += milliseconds

    def set_wall(self, now_ms: int) -> None:
        """Adjust the wall clock, backwards too, as an administrator or NTP does."""
        assert now_ms >= 0
        self._wall_ms = now_ms
