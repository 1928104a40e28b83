"""Which of many sockets have something to read, at the price of one wait for all of them.

A task that waits for its own socket costs a system call to say so, and being parked and woken, for
every request. Here sockets are watched from their opening on (edge triggered: each is reported once
for whatever arrives), and one task waits for the set. On Linux only; elsewhere ``open_readiness``
gives None, and whoever asks waits for each socket.
"""

from __future__ import annotations

import select
from collections.abc import Callable

import trio

Ready = Callable[[bool], None]
_EVENTS_MAX = 256
_ARRIVALS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET if hasattr(select, "epoll") else 0


class Readiness:
    """The watched sockets. ``run`` is its one task."""

    __slots__ = ("_epoll", "_watched")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        #: File descriptor -> whom to tell.
        self._watched: dict[int, Ready] = {}

    def watch(self, fileno: int, ready: Ready) -> None:
        """Call ``ready`` whenever something has arrived since the last call, also at once if it
        has already. Its argument says whether the peer has closed its side, or the connection is
        broken, so that there is an end to be read behind the bytes."""
        self._watched[fileno] = ready
        if not self._epoll.closed:
            self._epoll.register(fileno, _ARRIVALS)

    def forget(self, fileno: int) -> None:
        """Watch it no more; to be called before it is closed."""
        del self._watched[fileno]
        if not self._epoll.closed:
            self._epoll.unregister(fileno)

    async def run(self) -> None:
        """Tell who is ready, in batches with a checkpoint between, until cancelled."""
        epoll, watched = self._epoll, self._watched
        ended = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
        fileno = epoll.fileno()
        try:
            while True:
                await trio.lowlevel.wait_readable(fileno)
                for ready, events in epoll.poll(0, _EVENTS_MAX):
                    tell = watched.get(ready)
                    if tell is not None:
                        tell(events & ended != 0)
        finally:
            epoll.close()


def open_readiness() -> Readiness | None:
    """A set to watch sockets with, where the platform has one."""
    return Readiness() if hasattr(select, "epoll") else None
