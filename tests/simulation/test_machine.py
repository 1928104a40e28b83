"""The simulated computer: what a crash keeps, loses and stops."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import trio

from millstream.errors import Ambiguous, StorageError
from millstream.simulation.determinism import run_seeded
from millstream.simulation.doors import PowerCut
from millstream.simulation.machine import Machine, SimulatedThreads
from millstream.simulation.options import Faults
from millstream.storage.log.entry import ZERO_HASH, EntryHeader, encode_entry
from millstream.storage.log.interface import Append

T = TypeVar("T")


def machine(kind: str = "memory", seed: int = 1) -> Machine:
    return Machine(random.Random(seed), kind, 1024 * 1024, lambda *what: None)


def first_entry(timestamp: int = 1) -> bytes:
    return encode_entry(EntryHeader(1, 1, 1, timestamp, ZERO_HASH), b"payload")


@pytest.mark.parametrize("kind", ["memory", "segments"])
def test_what_was_committed_survives_a_crash(kind: str) -> None:
    computer = machine(kind)
    log, tree = computer.boot()
    log.create("a", 1)
    assert log.commit([Append("a", 0, first_entry())]) == [None]
    tree.write({5: [(b"k", b"v")]}, {b"m": b"1"})
    computer.crash()
    log, tree = computer.boot()
    assert log.tail("a") == 1
    assert tree.get(5, b"k") == b"v"
    assert tree.meta_get(b"m") == b"1"


@pytest.mark.parametrize("kind", ["memory", "segments"])
def test_a_shut_door_lets_nothing_through(kind: str) -> None:
    computer = machine(kind)
    old_log, old_tree = computer.boot()
    old_log.create("a", 1)
    computer.crash()
    new_log, _ = computer.boot()
    for attempt in (
        lambda: old_log.commit([Append("a", 0, first_entry())]),
        lambda: old_log.reopen(),
        lambda: old_log.read("a", 1, 100),
        lambda: old_tree.write({5: [(b"k", b"v")]}, {}),
    ):
        with pytest.raises(PowerCut):
            attempt()
    assert new_log.tail("a") == 0


def crash_during(call: Callable[[Any, Any], Callable[[], object]], kind: str, seed: int) -> Machine:
    """A machine that has crashed while ``call`` waited for its thread."""
    computer = machine(kind, seed)
    log, tree = computer.boot()
    log.create("a", 1)

    async def main() -> None:
        computer.faults = Faults(latency_seconds=1.0)
        async with trio.open_nursery() as nursery:

            async def work() -> None:
                with pytest.raises(PowerCut):
                    await SimulatedThreads(computer).run(call(log, tree))

            nursery.start_soon(work)
            await trio.testing.wait_all_tasks_blocked()
            computer.crash()

    run_seeded(seed, main)
    return computer


@pytest.mark.parametrize("kind", ["memory", "segments"])
def test_a_commit_under_way_is_kept_or_lost(kind: str) -> None:
    tails = set()
    for seed in range(12):
        crashed = crash_during(
            lambda log, tree: lambda: log.commit([Append("a", 0, first_entry())]), kind, seed
        )
        tails.add(crashed.boot()[0].tail("a"))
    assert tails == {0, 1}


def test_a_flush_under_way_is_kept_or_lost_as_a_whole() -> None:
    found = set()
    rows = [(b"a", b"1"), (b"b", b"2")]
    for seed in range(16):
        crashed = crash_during(
            lambda log, tree: lambda: tree.write({5: rows}, {b"m": b"1"}), "memory", seed
        )
        tree = crashed.boot()[1]
        found.add((tree.get(5, b"a"), tree.get(5, b"b"), tree.meta_get(b"m")))
    assert found == {(None, None, None), (b"1", b"2", b"1")}


def test_a_bomb_crashes_the_machine_at_the_nth_operation() -> None:
    computer = machine()
    log, _ = computer.boot()
    told: list[bool] = []
    computer.on_crash = lambda: told.append(True)
    computer.bomb = 3
    log.list()
    log.list()
    with pytest.raises(PowerCut):
        log.create("a", 1)
    assert told == [True]
    assert computer.crashed
    with pytest.raises(PowerCut):
        log.list()


def test_a_call_in_a_thread_is_not_abandoned() -> None:
    async def main() -> list[str]:
        computer = machine()
        computer.faults = Faults(latency_seconds=1.0)
        done: list[str] = []
        with trio.move_on_after(0.0001):
            await SimulatedThreads(computer).run(done.append, "ran")
        return done

    assert run_seeded(1, main) == ["ran"]


def test_failed_syncs_are_reported_and_undone_by_a_reopen() -> None:
    computer = machine()
    log, tree = computer.boot()
    log.create("a", 1)
    computer.faults = Faults(log_sync_failure=1.0, tree_sync_failure=1.0)
    with pytest.raises(Ambiguous):
        log.commit([Append("a", 0, first_entry())])
    with pytest.raises(Ambiguous):
        log.read("a", 1, 100)
    log.reopen()
    assert log.tail("a") in (0, 1)
    with pytest.raises(StorageError):
        tree.write({5: [(b"k", b"v")]}, {})
    assert computer.failed_syncs == 2


def test_a_trimmed_entry_stays_known_to_the_checkers() -> None:
    computer = machine()
    log, _ = computer.boot()
    log.create("a", 1)
    entry = first_entry()
    log.commit([Append("a", 0, entry)])
    header = EntryHeader(1, 1, 2, 2, b"\0" * 16)
    from millstream.storage.log.entry import chain_hash

    second = encode_entry(EntryHeader(1, 1, 2, header.timestamp, chain_hash(entry)), b"more")
    log.commit([Append("a", 1, second)])
    log.trim("a", 2)
    assert log.first("a") == 2
    assert computer.archive["a"] == {1: entry}


def test_the_clock_is_off_and_jumps() -> None:
    async def main() -> tuple[int, int]:
        computer = machine()
        before = computer.clock.now_ms()
        await trio.sleep(100)
        passed = computer.clock.now_ms() - before
        computer.clock.offset_ms -= 50_000
        return passed, computer.clock.now_ms() - before

    passed, after_jump = run_seeded(1, main)
    assert 99_000 < passed < 101_000
    assert after_jump == passed - 50_000
