"""The door to worker threads: blocking calls leave the loop through here and nowhere else."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import outcome
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
    """Worker threads of the process: as many as there ever were calls at a time.

    trio's own ``to_thread`` carries contexts and cancellation across, which a call that is never
    abandoned has no use for; here a hand-over and back costs half of that.
    """

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        #: Threads that wait for work, the last one used on top.
        self._idle: list[_Worker] = []

    async def run(self, function: Callable[..., R], *args: object) -> R:
        await trio.lowlevel.checkpoint_if_cancelled()
        worker = self._idle.pop() if self._idle else _Worker(self._token)
        task = trio.lowlevel.current_task()

        def done(result: outcome.Outcome[R]) -> None:
            self._idle.append(worker)
            trio.lowlevel.reschedule(task, result)

        worker.work.put((function, args, done))
        result: R = await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        return result


class _Worker:
    """One thread, and the queue of its work, which holds one call at most."""

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self.work: queue.SimpleQueue[tuple[Callable[..., Any], Any, Callable[[Any], None]]]
        self.work = queue.SimpleQueue()
        self._token = token
        threading.Thread(target=self._serve, name="millstream worker", daemon=True).start()

    def _serve(self) -> None:
        while True:
            function, args, done = self.work.get()
            result = outcome.capture(function, *args)
            try:
                self._token.run_sync_soon(done, result)
            except trio.RunFinishedError:
                return
            # Else the arguments would live until the next call.
            del function, args, done, result
