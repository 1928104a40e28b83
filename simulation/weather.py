"""What befalls the network between regions: cuts of every kind, delays, connections that drop.

Draws from a stream of its own and acts on the network and on the nodes' own link faults until it is
cancelled; then ``clear`` undoes everything. Owned by a ``GlobalTable``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import trio

from ..globaltables.faults import Fault, LinkFaults
from ..host.memory_links import MemoryNetwork
from .options import RegionOptions

#: Now and then something lasts longer than a peer may be silent.
_LONG, _LONG_SECONDS = 0.05, 20.0


class Weather:
    """See the module's text."""

    def __init__(
        self,
        network: MemoryNetwork,
        faults: Mapping[str, LinkFaults],
        options: RegionOptions,
        rng: random.Random,
        note: Callable[..., None],
    ) -> None:
        self._network = network
        self._faults = faults
        self._options = options
        self._rng = rng
        self._note = note
        #: What happened, for the report.
        self.events = 0

    async def run(self) -> None:
        """Make weather until cancelled."""
        rng, options = self._rng, self._options
        kinds = {kind: weight for kind, weight in options.weather.items() if weight}
        self.clear()
        if not kinds:
            return
        while True:
            await trio.sleep(rng.expovariate(1 / options.network_interval_seconds))
            if rng.random() < 0.4:
                self.clear()
                continue
            (kind,) = rng.choices(list(kinds), list(kinds.values()))
            one, other = rng.sample(sorted(self._faults), 2)
            self.events += 1
            self._note("weather", kind, one, other)
            getattr(self, kind)(one, other)
            if rng.random() < _LONG:
                await trio.sleep(_LONG_SECONDS)

    def clear(self) -> None:
        """Nothing is wrong any more."""
        self._note("weather", "clear")
        names = sorted(self._faults)
        for one in names:
            self._faults[one].heal()
            for other in names:
                if one < other:
                    self._network.heal(one, other)
                    self._network.set_latency(one, other, self._options.latency_seconds)

    # Kinds.

    def cut(self, one: str, other: str) -> None:
        """Connections break, and there are no new ones."""
        self._network.cut(one, other)

    def cut_silently(self, one: str, other: str) -> None:
        """Nothing arrives, and nobody is told."""
        self._network.cut(one, other, silently=True)

    def cut_one_way(self, one: str, other: str) -> None:
        """Nothing arrives in one direction."""
        self._network.cut(one, other, silently=self._rng.random() < 0.5, one_way=True)

    def slow(self, one: str, other: str) -> None:
        """One direction takes its time."""
        seconds = self._rng.choice((0.05, 0.5, 2.0))
        self._network.set_latency(one, other, seconds, one_way=True)

    def drop(self, one: str, other: str) -> None:
        """Frames end their connection."""
        self._faults[one].set(other, Fault(drop=self._rng.choice((0.02, 0.1, 0.5))))

    def pause(self, one: str, other: str) -> None:
        """Frames wait, on one side."""
        self._faults[one].set(other, Fault(is_paused=True))

    def forbid(self, one: str, other: str) -> None:
        """No links, as a drill does it."""
        self._faults[one].set(other, Fault(is_partitioned=True))
