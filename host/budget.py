"""A number of bytes that many may hold together; who wants more than there is waits."""

from __future__ import annotations

from collections import deque

import trio


class Budget:
    """Bytes that may be held for clients; who wants more than there is waits, first come first.

    Only what is large asks (a body that did not come in one piece) and only what is stuck is
    added without asking (an answer), so the common request costs one comparison.
    """

    __slots__ = ("_queue", "maximum", "used")

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        # May be above the maximum by answers, which were not asked for.
        self.used = 0
        self._queue: deque[tuple[int, trio.Event]] = deque()

    def take(self, size_bytes: int) -> bool:
        """Take at once, if there is as much and nobody waits."""
        if self._queue or self.used + size_bytes > self.maximum:
            return False
        self.used += size_bytes
        return True

    async def wait(self, size_bytes: int) -> None:
        """Take as soon as there is as much."""
        if self.take(size_bytes):
            return
        ticket = (size_bytes, trio.Event())
        self._queue.append(ticket)
        granted = False
        try:
            await ticket[1].wait()
            granted = True
        finally:
            if not granted:
                if ticket[1].is_set():
                    self.give_back(size_bytes)
                else:
                    self._queue.remove(ticket)
                    self.give_back(0)

    def add(self, size_bytes: int) -> None:
        """Take what is held already."""
        self.used += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Give back, and serve who waits."""
        self.used -= size_bytes
        assert self.used >= 0
        while self._queue and self.used + self._queue[0][0] <= self.maximum:
            wanted, granted = self._queue.popleft()
            self.used += wanted
            granted.set()
