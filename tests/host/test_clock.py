"""Clocks: the real one tells the time, the manual one only what it was told."""

import time

from millstream.host.clock import Clock, ManualClock, RealClock


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
