"""Versions: one order for everything that ever happened to an item, in all regions.

A hybrid logical clock value ("hlc") is a 64-bit integer: milliseconds since the epoch in the upper
48 bits, a counter in the lower 16. It is close to wall time when clocks agree and strictly
increasing whatever they do. A version is (hlc, region number); regions break ties, so versions are
totally ordered and the last writer wins the same way everywhere. Source: Kulkarni et al., "Logical
Physical Clocks" (2014), with the two clock parts folded into one integer.

The clock is a pure machine: its owner tells it the time.
"""

from __future__ import annotations

import msgspec

from ..limits import HLC_BITS, HLC_COUNTER_BITS, REMOTE_CLOCK_SKEW_MS_MAX


class Version(msgspec.Struct, frozen=True, order=True):
    """When and where an item was written. Compares by ``hlc``, then by ``region``."""

    hlc: int
    region: int


#: The version of what is not there and never was.
NO_VERSION = Version(0, 0)


def hlc_at(milliseconds: int) -> int:
    """The lowest hlc of a millisecond since the epoch."""
    return milliseconds << HLC_COUNTER_BITS


def milliseconds_of(hlc: int) -> int:
    """The millisecond since the epoch that an hlc lies in."""
    return hlc >> HLC_COUNTER_BITS


def admissible(hlc: int, now_ms: int, skew_ms_max: int = REMOTE_CLOCK_SKEW_MS_MAX) -> bool:
    """Whether a remote hlc is well-formed and at most ``skew_ms_max`` ahead of the wall clock.

    Judged against the wall clock alone: against the hybrid clock, which follows what it admits,
    every admitted value would widen the limit for the next.
    """
    return 0 <= hlc < 1 << HLC_BITS and milliseconds_of(hlc) <= now_ms + skew_ms_max


class HybridClock:
    """Gives out strictly increasing hlc values. One per node, owned by it."""

    __slots__ = ("last",)

    def __init__(self, last: int = 0) -> None:
        assert 0 <= last < 1 << HLC_BITS
        #: The highest value given out or observed; never falls.
        self.last = last

    def next(self, now_ms: int) -> int:
        """A value above every earlier and every observed one, at ``now_ms`` or later."""
        now = now_ms << HLC_COUNTER_BITS
        # When the wall clock stands still or steps back, the counter goes on and may carry into
        # the milliseconds: order is kept, the clock is ahead for a while.
        last = self.last + 1
        if now > last:
            last = now
        assert last < 1 << HLC_BITS
        self.last = last
        return last

    def observe(self, hlc: int) -> None:
        """Never give out ``hlc`` or anything below it again.

        Without limit: for values from this node's own logs. What comes from elsewhere must be
        ``admissible`` first, or one wrong clock drags every other along.
        """
        assert 0 <= hlc < 1 << HLC_BITS
        if hlc > self.last:
            self.last = hlc
