"""The door to worker threads: blocking calls leave the loop through here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import trio

R = TypeVar("R")


class Threads(Protocol):
    """Runs a blocking call away from the loop.

    Once started, a call is never abandoned: cancelling the caller takes effect after it returns,
    because what it does to the disk happens in any case.
    """

    async def run(self, function: Callable[..., R], *args: object) -> R: ...


class RealThreads:
    """Worker threads of the process, at most ``count`` at a time."""

    def __init__(self, count: int = 16) -> None:
        self._limiter = trio.CapacityLimiter(count)

    async def run(self, function: Callable[..., R], *args: object) -> R:
        return await trio.to_thread.run_sync(function, *args, limiter=self._limiter)
