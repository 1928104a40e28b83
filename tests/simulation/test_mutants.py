"""Every deliberate defect is caught within a few worlds: the simulation is able to fail.

The same worlds pass without the defect (test_worlds.py), so what is caught is the defect.
"""

from __future__ import annotations

import pytest

from millstream.simulation.world import SimulationFailed, run_world

from .mutants import MUTANTS, applied
from .seeds import SEEDS


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str) -> None:
    with applied(name), pytest.raises(SimulationFailed):
        for seed in SEEDS:
            run_world(seed)
