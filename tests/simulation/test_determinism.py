"""One seed, one run; and the canary for trio's private switch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio._core._run as trio_internals

from millstream.simulation.determinism import Streams, run_seeded
from millstream.simulation.world import run_world

from .seeds import SEEDS

ROOT = Path(__file__).resolve().parents[2]


def order_of_tasks(seed: int) -> list[int]:
    seen: list[int] = []

    async def main() -> None:
        async def task(number: int) -> None:
            for _ in range(3):
                await trio.lowlevel.checkpoint()
                seen.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(task, number)

    run_seeded(seed, main)
    return seen


def test_the_canary_trio_still_has_the_private_switch() -> None:
    assert trio_internals._ALLOW_DETERMINISTIC_SCHEDULING in (True, False)
    assert callable(trio_internals._r.shuffle)


def test_the_seed_decides_the_order_of_tasks() -> None:
    orders = {seed: order_of_tasks(seed) for seed in range(6)}
    assert all(order_of_tasks(seed) == order for seed, order in orders.items())
    assert len({tuple(order) for order in orders.values()}) > 1


def test_the_switch_is_put_back() -> None:
    was = trio_internals._ALLOW_DETERMINISTIC_SCHEDULING
    state = trio_internals._r.getstate()
    order_of_tasks(1)
    assert was == trio_internals._ALLOW_DETERMINISTIC_SCHEDULING
    assert trio_internals._r.getstate() == state


def test_time_jumps_when_nobody_can_run() -> None:
    async def main() -> float:
        await trio.sleep(10_000)
        return trio.current_time()

    assert run_seeded(1, main) == 10_000


def test_streams_do_not_disturb_each_other() -> None:
    first, second = Streams(1).stream("a"), Streams(1).stream("b")
    wanted = Streams(1).stream("b").random()
    first.random()
    assert second.random() == wanted
    assert Streams(2).stream("b").random() != wanted


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_one_seed_gives_one_trace(seed: int) -> None:
    assert run_world(seed) == run_world(seed)


def test_one_seed_gives_one_trace_of_transactions() -> None:
    assert run_world(6, "transactions") == run_world(6, "transactions")


def test_another_process_with_other_string_hashes_gives_the_same_traces() -> None:
    seeds = SEEDS[:2]
    program = (
        "from millstream.simulation.world import run_world\n"
        f"for seed in {seeds}: print(run_world(seed).trace)\n"
        "print(run_world(6, 'transactions').trace)"
    )
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    traces = [run_world(seed).trace for seed in seeds]
    assert said.split() == [*traces, run_world(6, "transactions").trace]
