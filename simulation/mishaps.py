"""What befalls a node while clients work: crashes, orderly stops, clocks that jump.

The operator draws from a stream of its own and acts on one ``SimulatedNode`` until it is cancelled;
then the world heals.
"""

from __future__ import annotations

import random

import trio

from .options import Faults, TransactionOptions
from .simulated_node import SimulatedNode

_BOMB_OPERATIONS_MAX = 60
_BOMB_AT_START_MAX = 25
_BOMB_AT_CLOSE_MAX = 8


class Operator:
    """See the module's text."""

    def __init__(self, node: SimulatedNode, faults: Faults, rng: random.Random) -> None:
        self._sim = node
        self._faults = faults
        self._rng = rng
        # What happened, for the report; the machine counts crashes.
        self.stops = 0
        self.clock_jumps = 0

    async def run(self) -> None:
        """Cause mishaps until cancelled."""
        faults, rng = self._faults, self._rng
        kinds = {
            self._crash: faults.crash_weight,
            self._crash_soon: faults.bomb_weight,
            self._stop: faults.stop_weight,
            self._jump: faults.clock_weight,
        }
        if not any(kinds.values()):
            return
        while True:
            await trio.sleep(rng.expovariate(1 / faults.mishap_interval_seconds))
            (mishap,) = rng.choices(list(kinds), list(kinds.values()))
            mishap()

    def _crash(self) -> None:
        self._prepare_restart()
        self._sim.machine.crash()

    def _crash_soon(self) -> None:
        """At some disk operation to come, in the middle of whatever it belongs to."""
        self._prepare_restart()
        self._sim.machine.bomb = self._rng.randint(1, _BOMB_OPERATIONS_MAX)

    def _stop(self) -> None:
        if self._sim.node is None:
            return
        self.stops += 1
        self._prepare_restart()
        if self._rng.random() < self._faults.crash_in_close:
            self._sim.machine.bomb = self._rng.randint(1, _BOMB_AT_CLOSE_MAX)
        self._sim.machine.note("stop")
        self._sim.stop()

    def _prepare_restart(self) -> None:
        rng = self._rng
        self._sim.pause_seconds = rng.expovariate(20)
        if rng.random() < self._faults.crash_in_recovery:
            self._sim.bomb_at_start = rng.randint(1, _BOMB_AT_START_MAX)

    def _jump(self) -> None:
        self.clock_jumps += 1
        furthest_ms = self._faults.clock_jump_ms_max
        by_ms = self._rng.randint(-furthest_ms, furthest_ms)
        self._sim.machine.clock.offset_ms += by_ms
        self._sim.machine.note("clock", by_ms)


class Fate:
    """What befalls coordinators at their steps: who ``host/buggify.py`` asks."""

    def __init__(self, sim: SimulatedNode, options: TransactionOptions, rng: random.Random) -> None:
        self._sim = sim
        self._options = options
        self._rng = rng
        #: Whether anything happens; not any more when the world heals.
        self.armed = True
        #: How often a coordinator died, and how often its machine with it.
        self.deaths = 0
        self.crashes = 0

    def decide(self, place: str) -> bool:
        """Whether the coordinator dies at ``place`` now."""
        rng, options = self._rng, self._options
        if not self.armed:
            return False
        if rng.random() < options.crashes[place]:
            self.crashes += 1
            self._sim.machine.crash()
        dies = rng.random() < options.deaths[place]
        self.deaths += dies
        return dies
