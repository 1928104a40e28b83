"""Versions and the hybrid clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from millstream.model.versions import (
    HybridClock,
    Version,
    admissible,
    hlc_at,
    milliseconds_of,
)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2000))))
def test_strictly_increasing_whatever_time_does(steps: list[tuple[bool, int]]) -> None:
    clock = HybridClock()
    last = 0
    for observe, milliseconds in steps:
        if observe:
            clock.observe(hlc_at(milliseconds) + 7)
            last = max(last, hlc_at(milliseconds) + 7)
        else:
            value = clock.next(milliseconds)
            assert value > last
            assert milliseconds_of(value) >= milliseconds
            last = value


def test_close_to_wall_time() -> None:
    clock = HybridClock()
    assert clock.next(1000) == hlc_at(1000)
    assert clock.next(1000) == hlc_at(1000) + 1
    assert clock.next(999) == hlc_at(1000) + 2
    assert clock.next(1001) == hlc_at(1001)


def test_a_full_counter_carries() -> None:
    clock = HybridClock(hlc_at(1000) + 0xFFFF)
    assert clock.next(1000) == hlc_at(1001)
    assert clock.next(1001) == hlc_at(1001) + 1


def test_observing_the_past_changes_nothing() -> None:
    clock = HybridClock(hlc_at(5))
    clock.observe(hlc_at(4))
    assert clock.last == hlc_at(5)


def test_versions_order_by_time_then_region() -> None:
    assert Version(1, 9) < Version(2, 0) < Version(2, 1)
    assert max(Version(2, 1), Version(2, 0)) == Version(2, 1)


def test_skew_is_bounded_and_does_not_ratchet() -> None:
    assert admissible(hlc_at(1500), now_ms=1000, skew_ms_max=500)
    assert not admissible(hlc_at(1501), now_ms=1000, skew_ms_max=500)
    assert not admissible(1 << 64, now_ms=1 << 60)
    assert not admissible(-1, now_ms=0)
