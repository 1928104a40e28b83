"""Tasks in a nursery that can be stopped by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


class _Task:
    __slots__ = ("scope", "stopped")

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.stopped = trio.Event()


class Tasks:
    """One owner's tasks. A name is free again when its task has ended."""

    __slots__ = ("_nursery", "_tasks")

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._tasks: dict[str, _Task] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._tasks

    def start(self, name: str, function: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run ``function(*args)`` as ``name``, which must be free."""
        assert name not in self._tasks
        task = self._tasks[name] = _Task()
        self._nursery.start_soon(self._run, name, task, function, args)

    async def _run(
        self,
        name: str,
        task: _Task,
        function: Callable[..., Awaitable[None]],
        args: tuple[object, ...],
    ) -> None:
        try:
            with task.scope:
                await function(*args)
        finally:
            del self._tasks[name]
            task.stopped.set()

    async def stop(self, name: str) -> None:
        """Cancel the task, if it runs, and return when it has ended."""
        task = self._tasks.get(name)
        if task is not None:
            task.scope.cancel()
            await task.stopped.wait()

    async def stop_all(self, prefix: str) -> None:
        """``stop`` for every name that begins with ``prefix``."""
        for name in [name for name in self._tasks if name.startswith(prefix)]:
            await self.stop(name)


async def acquire(lock: trio.Lock) -> None:
    """Acquire a lock; nobody else runs if it is free, which ``lock.acquire`` lets them."""
    try:
        lock.acquire_nowait()
    except trio.WouldBlock:
        await lock.acquire()
