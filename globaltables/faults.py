"""What a drill has done to the links: delays, pauses, partitions, dropped connections.

One value a region that is linked. Both ends of what this node does consult it: who dials and who
answers, and every channel. A change takes effect at once: channels ask to be told.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ..errors import LinkRefused


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with this node's link to one region, on this side.

    ``latency_seconds``: frames are sent that much later, in their order, and as many a second.
    ``is_paused``: frames wait. ``is_partitioned``: channels end, and none are made. ``drop``: how
    likely it is that a frame ends its connection instead of being sent.
    """

    latency_seconds: float = 0.0
    is_paused: bool = False
    is_partitioned: bool = False
    drop: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.latency_seconds < float("inf"):
            raise ValueError("a latency is a number of seconds from 0")
        if not 0.0 <= self.drop <= 1.0:
            raise ValueError("a probability is 0 to 1")


HEALTHY = Fault()
#: How what a drill does is told of.
DRILL_PREFIX = "a drill"


class LinkFaults:
    """The faults of all links of a node. ``chance`` gives numbers from 0 up to, not with, 1."""

    __slots__ = ("_chance", "_faults", "_last", "_told")

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        #: By region; one that is healthy is not in it.
        self._faults: dict[str, Fault] = {}
        #: Whom to tell of a change, each under a number of its own, never used again.
        self._told: dict[int, Callable[[], None]] = {}
        self._last = 0

    def of(self, region: str) -> Fault:
        """What is wrong with the link to a region."""
        return self._faults.get(region, HEALTHY)

    def all(self) -> dict[str, Fault]:
        """By region, whatever is not healthy."""
        return dict(sorted(self._faults.items()))

    def set(self, region: str, fault: Fault) -> None:
        """From now on this is wrong with it, and nothing else."""
        if fault == HEALTHY:
            self._faults.pop(region, None)
        else:
            self._faults[region] = fault
        self._tell()

    def heal(self) -> None:
        """From now on nothing is wrong."""
        self._faults.clear()
        self._tell()

    def drops(self, region: str) -> bool:
        """Whether the next frame to it ends its connection; to be asked once a frame."""
        drop = self.of(region).drop
        return drop > 0.0 and self._chance() < drop

    def check_link(self, region: str) -> None:
        """Raises LinkRefused if a drill forbids links with the region."""
        if self.of(region).is_partitioned:
            raise LinkRefused(f"{DRILL_PREFIX} has cut the links with {region}")

    def when_changed(self, tell: Callable[[], None]) -> Callable[[], None]:
        """Have ``tell`` called after every change; how to stop that."""
        self._last += 1
        number = self._last
        self._told[number] = tell

        def stop() -> None:
            self._told.pop(number, None)

        return stop

    def _tell(self) -> None:
        for tell in list(self._told.values()):
            tell()
