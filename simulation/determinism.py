"""The one file that touches trio's private switch for a repeatable order of tasks.

trio shuffles the tasks that are ready together. With the switch on it sorts them first and
shuffles with a generator that can be seeded, so the order of everything follows from the seed; time
is a mock clock that jumps whenever nobody can run. The switch is private:
``tests/simulation/test_determinism.py`` is the canary that notices when a trio release moves it.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio
import trio._core._run as trio_internals
from trio.testing import MockClock

T = TypeVar("T")

# Typed as anything, because neither name is trio's promise.
_internals: Any = trio_internals


def run_seeded(seed: int, main: Callable[[], Awaitable[T]]) -> T:
    """Run ``main`` to its end in a loop whose order and time depend on ``seed`` alone."""
    scheduler = _internals._r
    was_on, was_at = _internals._ALLOW_DETERMINISTIC_SCHEDULING, scheduler.getstate()
    _internals._ALLOW_DETERMINISTIC_SCHEDULING = True
    scheduler.seed(seed)
    try:
        return trio.run(main, clock=MockClock(autojump_threshold=0))
    finally:
        _internals._ALLOW_DETERMINISTIC_SCHEDULING = was_on
        scheduler.setstate(was_at)


class Streams:
    """Independent random streams, one per purpose, so that a draw added for one moves no other."""

    __slots__ = ("_seed",)

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def stream(self, purpose: str) -> random.Random:
        """The stream called ``purpose``, from its beginning."""
        # Seeding with a string hashes it with SHA-512, the same in every process.
        return random.Random(f"{self._seed}/{purpose}")
