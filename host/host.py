"""Everything of the world that a node is given, in one value: real, or a simulation's twin."""

from __future__ import annotations

import msgspec

from .clock import Clock, RealClock
from .disk import Disk, RealDisk
from .entropy import Entropy, RealEntropy
from .threads import RealThreads, Threads


class Host(msgspec.Struct, frozen=True):
    """The doors to time, chance, files and threads."""

    clock: Clock
    entropy: Entropy
    disk: Disk
    threads: Threads


def real_host() -> Host:
    """This machine. To be called inside trio's loop."""
    return Host(RealClock(), RealEntropy(), RealDisk(), RealThreads())
