"""A node's lives on its machine: started, stopped, crashed, and started again.

Clients ask within ``within_life``: what they wait for ends with the life that it was begun in.
Owned by the world, which runs ``run``; an operator (``mishaps.py``) decides what befalls it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio

from ..actors.node import Node, NodeSettings, run_node
from ..actors.regions import RegionSettings
from ..errors import Ambiguous, OutcomeUnknown
from .history import History
from .machine import Machine


class NodeFailed(Exception):
    """A node ended although nobody stopped it and its machine had not crashed."""


class Gone(Exception):
    """The node crashed while the caller waited: the outcome is unknown."""


def _is_disk_failure(error: BaseException) -> bool:
    """Whether nothing but writes of unknown outcome is at the bottom of ``error``."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_disk_failure(inner) for inner in error.exceptions)
    return isinstance(error, (Ambiguous, OutcomeUnknown))


async def _nothing(node: Node) -> None:
    await trio.lowlevel.checkpoint()


class SimulatedNode:
    """See the module's text."""

    def __init__(
        self,
        name: str,
        machine: Machine,
        settings: NodeSettings,
        history: History,
        regions: RegionSettings | None = None,
    ) -> None:
        self.name = name
        self.machine = machine
        self.history = history
        self._settings = settings
        #: What it is told of other regions.
        self.regions = regions
        #: The running node; None while it is down, opening or closing.
        self.node: Node | None = None
        #: Set while ``node`` is; replaced for each life.
        self.up = trio.Event()
        #: Set when a life has wholly ended; replaced for each life.
        self.down = trio.Event()
        self._stop = trio.Event()
        self._scope = trio.CancelScope()
        #: Of clients who wait for an answer of this life.
        self._callers: list[trio.CancelScope] = []
        self._over = False
        #: Whether this life got as far as serving.
        self._opened = False
        #: Seconds that the machine stays off after its next crash or stop.
        self.pause_seconds = 0.0
        #: The next start crashes at its n-th disk operation.
        self.bomb_at_start: int | None = None
        #: Lives begun.
        self.lives = 0
        machine.on_crash = self._crashed
        #: Called in each life when the node is open, before anybody else reaches it.
        self.on_node: Callable[[Node], Awaitable[None]] = _nothing

    async def run(self) -> None:
        """Live, again and again, until ``end``."""
        while True:
            await self._live()
            self.history.end_life(self.machine.life)
            self.down.set()
            if self._over:
                return
            await trio.sleep(self.pause_seconds)

    async def _live(self) -> None:
        self._stop, self.down = trio.Event(), trio.Event()
        self._opened = False
        self._scope = trio.CancelScope()
        machine = self.machine
        engine, store = machine.boot()
        machine.bomb, self.bomb_at_start = self.bomb_at_start, None
        self.lives += 1
        machine.note("start", self.name, machine.life)
        try:
            with self._scope:
                async with run_node(
                    machine.host(), self._settings, engine, store, self.regions
                ) as node:
                    await self.on_node(node)
                    self.node = node
                    self._opened = True
                    self.up.set()
                    await self._stop.wait()
                    self._leave()
        except Exception as error:
            opened = self._opened
            self._leave()
            # What a node does after its machine has crashed, no machine would do; and a node that
            # meets a failing disk while it is being opened may say so and be started again.
            if not machine.crashed and (opened or not _is_disk_failure(error)):
                raise NodeFailed(f"{self.name} ended by itself") from error
        else:
            self._leave()
            assert machine.crashed or self._stop.is_set()
        machine.note("end", self.name, machine.life)

    def _leave(self) -> None:
        """Nobody reaches the node any more."""
        if self.node is not None:
            self.node = None
            self.up = trio.Event()

    def _crashed(self) -> None:
        self._leave()
        for scope in self._callers:
            scope.cancel()
        self._scope.cancel()

    def stop(self) -> None:
        """Begin to stop in good order. What clients wait for is still answered."""
        self._leave()
        self._stop.set()

    def end(self) -> None:
        """``stop``, and start no more."""
        self._over = True
        self.stop()

    async def ready(self) -> Node:
        """The node, once it is up."""
        while self.node is None:
            await self.up.wait()
        return self.node

    @contextmanager
    def within_life(self) -> Iterator[None]:
        """Run the block until it ends or the machine crashes. Raises Gone in that case."""
        with trio.CancelScope() as scope:
            self._callers.append(scope)
            try:
                yield
            finally:
                self._callers.remove(scope)
        if scope.cancelled_caught:
            raise Gone
