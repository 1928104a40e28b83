"""Clocks: the real one tells the time, the manual one only what it was told."""

import math
import time

from millstream.host.clock import Clock, ManualClock, RealClock, SkewedClock


def test_the_real_clock_tells_the_machines_time():
    clock: Clock = RealClock()
    before = time.time_ns() // 1_000_000
    assert before <= clock.now_ms() <= time.time_ns() // 1_000_000
    assert abs(clock.now_seconds() - time.time()) < 60
    assert clock.monotonic_seconds() <= clock.monotonic_seconds()


def test_the_manual_clock_stands_still_until_it_is_advanced():
    clock: Clock = ManualClock(now_ms=5_000)
    assert (clock.now_ms(), clock.now_seconds(), clock.monotonic_seconds()) == (5_000, 5.0, 0.0)
    clock.advance(250)
    assert (clock.now_ms(), clock.now_seconds(), clock.monotonic_seconds()) == (5_250, 5.25, 0.25)


def test_adjusting_the_wall_clock_leaves_the_monotonic_one_alone():
    clock = ManualClock(now_ms=5_000)
    clock.advance(100)
    clock.set_wall(1_000)
    assert (clock.now_ms(), clock.monotonic_seconds()) == (1_000, 0.1)


def test_a_skewed_clock_is_wrong_by_what_it_is_told():
    inner = ManualClock(now_ms=5_000)
    clock = SkewedClock(inner)
    assert (clock.now_ms(), clock.offset_ms) == (5_000, 0)
    clock.offset_ms = 2_000
    inner.advance(100)
    assert (clock.now_ms(), clock.now_seconds()) == (7_100, 7.1)
    assert clock.monotonic_seconds() == 0.1
    assert (clock.seconds_until(7_100), inner.seconds_until(7_100)) == (0.0, math.inf)
    clock.offset_ms = -10_000
    assert clock.now_ms() == 0


def test_whoever_waits_is_told_that_a_clock_was_skewed():
    inner = ManualClock()
    clock: Clock = SkewedClock(inner)
    told = []
    stops = [clock.when_moved(lambda name=name: told.append(name)) for name in ("a", "b")]
    clock.offset_ms = 5
    assert told == ["a", "b"]
    stops[0]()
    inner.advance(1)
    clock.offset_ms = 0
    assert told == ["a", "b", "b", "b"]
