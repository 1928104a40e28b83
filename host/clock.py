"""The door to time. Everything that needs the time is given a ``Clock``.

The wall clock dates versions, log entries and signatures, and may jump either way; the monotonic
clock times leases and waits, never goes back, and means nothing outside the process.
``ManualClock`` is the twin for tests and simulation: it moves only when told to. ``SkewedClock`` is
another clock that somebody has set wrong, for drills.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
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

    def seconds_until(self, at_ms: int) -> float:
        """How long to wait until the wall clock says ``at_ms``, unless ``when_moved`` tells."""
        ...

    def when_moved(self, tell: Callable[[], None]) -> Callable[[], None]:
        """Have ``tell`` called whenever the clock has been moved by hand; how to stop that."""
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

    def seconds_until(self, at_ms: int) -> float:
        return max(0.0, at_ms / 1000 - time.time())

    def when_moved(self, tell: Callable[[], None]) -> Callable[[], None]:
        return lambda: None


class ManualClock:
    """Stands still until ``advance`` (time passes) or ``set_wall`` (somebody adjusts it)."""

    __slots__ = ("_monotonic_ms", "_told", "_wall_ms")

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        #: Milliseconds since the epoch; may be set to anything from 0 up.
        self._wall_ms = now_ms
        #: Milliseconds that have passed since the clock was made; never decreases.
        self._monotonic_ms = 0
        #: Whom to tell of a move, each under a key of its own.
        self._told: dict[int, Callable[[], None]] = {}

    def now_ms(self) -> int:
        return self._wall_ms

    def now_seconds(self) -> float:
        return self._wall_ms / 1000

    def monotonic_seconds(self) -> float:
        return self._monotonic_ms / 1000

    def seconds_until(self, at_ms: int) -> float:
        return 0.0 if at_ms <= self._wall_ms else math.inf

    def when_moved(self, tell: Callable[[], None]) -> Callable[[], None]:
        key = id(tell)
        self._told[key] = tell

        def stop() -> None:
            self._told.pop(key, None)

        return stop

    def advance(self, milliseconds: int) -> None:
        """Let time pass on both clocks."""
        assert milliseconds >= 0
        self._wall_ms += milliseconds
        self._monotonic_ms += milliseconds
        self._tell()

    def set_wall(self, now_ms: int) -> None:
        """Adjust the wall clock, backwards too, as an administrator or NTP does."""
        assert now_ms >= 0
        self._wall_ms = now_ms
        self._tell()

    def _tell(self) -> None:
        for tell in list(self._told.values()):
            tell()


class SkewedClock:
    """Another clock, whose wall time is ahead of it (or behind) by so much as it is told."""

    __slots__ = ("_clock", "_last", "_offset_ms", "_told")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_ms = 0
        #: Whom to tell of a change, each under a number of its own, never used again.
        self._last = 0
        self._told: dict[int, Callable[[], None]] = {}

    @property
    def offset_ms(self) -> int:
        """How far it is ahead; less than nothing where it is behind. May be set at any time."""
        return self._offset_ms

    @offset_ms.setter
    def offset_ms(self, offset_ms: int) -> None:
        self._offset_ms = offset_ms
        for tell in list(self._told.values()):
            tell()

    def now_ms(self) -> int:
        # Nothing is dated before the epoch.
        return max(0, self._clock.now_ms() + self._offset_ms)

    def now_seconds(self) -> float:
        return max(0.0, self._clock.now_seconds() + self._offset_ms / 1000)

    def monotonic_seconds(self) -> float:
        return self._clock.monotonic_seconds()

    def seconds_until(self, at_ms: int) -> float:
        return self._clock.seconds_until(at_ms - self._offset_ms)

    def when_moved(self, tell: Callable[[], None]) -> Callable[[], None]:
        self._last += 1
        number = self._last
        self._told[number] = tell
        stop_clock = self._clock.when_moved(tell)

        def stop() -> None:
            self._told.pop(number, None)
            stop_clock()

        return stop
