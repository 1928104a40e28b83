"""The door to worker threads: blocking calls leave the loop through here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import trio

R = TypeVar("R")


class Threads(Protocol):
    """Runs a blocking call away from the loop.

    Once started, a call is never abandoned: cancelling the caller takes effect after it returns,
    because what it does to the disk happens in any case.
    """

    async def run(self, function: Callable[..., R], *args: object) -> R: ...


def run_all(functions: Sequence[Callable[[], R]]) -> list[R]:
    """Call every function in a thread of its own; their results, in order.

    For a worker thread that has several disks to write at once. The functions do not raise.
    """
    if len(functions) == 1:
        return [functions[0]()]
    with ThreadPoolExecutor(max_workers=len(functions)) as pool:
        return list(pool.map(lambda function: function(), functions))


class RealThreads:
    """Worker threads of the process, at most ``count`` at a time."""

    def __init__(self, count: int = 16) -> None:
        self._limiter = trio.CapacityLimiter(count)

    async def run(self, function: Callable[..., R], *args: object) -> R:
        return await trio.to_thread.run_sync(function, *args, limiter=self._limiter)
