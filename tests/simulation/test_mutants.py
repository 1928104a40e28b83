"""Every deliberate defect is caught within a few worlds: the simulation is able to fail.

The same worlds pass without the defect (test_worlds.py), so what is caught is the defect.
``SIM_WORLDS=100`` and more tries the rare ones too.
"""

from __future__ import annotations

import pytest

from millstream.simulation.world import SimulationFailed, run_world

from .mutants import MUTANTS, applied
from .seeds import MANY, SEEDS

#: Defects that show only when a fill, a write and a look meet: seldom, so not in every test run.
RARE = {
    "a_fill_does_not_skip_what_its_chunks_contain",
    "a_fill_skips_everything_up_to_its_last_chunk",
}


@pytest.mark.parametrize("name", [name for name in MUTANTS if MANY or name not in RARE])
def test_mutant_is_caught(name: str) -> None:
    with applied(name), pytest.raises(SimulationFailed):
        for seed in SEEDS:
            run_world(seed)
