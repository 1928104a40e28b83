"""Every deliberate defect is caught within a few worlds: the simulation is able to fail.

The same worlds pass without the defect (test_worlds.py), so what is caught is the defect.
``SIM_WORLDS=100`` and more tries the rare ones too.
"""

from __future__ import annotations

import pytest

from millstream.simulation.world import SimulationFailed, run_world

from .mutants import MUTANTS, TRANSACTION_MUTANTS, TRIGGER_MUTANTS, applied
from .seeds import MANY, SEEDS

#: Defects that show only when a fill, a write and a look meet: seldom, so not in every test run.
RARE = {
    "a_fill_does_not_skip_what_its_chunks_contain",
    "a_fill_skips_everything_up_to_its_last_chunk",
}


#: Defect -> a world that showed it when this was written: it is tried first.
SHOWN_BY = {
    "effects_are_applied_before_they_are_durable": 4,
    "a_refusal_does_not_wait_for_what_it_read": 5,
    "an_unknown_outcome_is_told_as_success": 10,
    "a_failed_append_is_retried_without_rereading_the_log": 4,
    "the_position_is_stored_before_its_rows": 10,
    "rows_are_stored_before_their_position": 10,
    "local_entries_are_never_removed": 2,
    "a_failed_commit_is_taken_for_done": 3,
    "a_transaction_commits_without_the_ledger": 3,
    "recovery_aborts_what_is_decided": 2,
    "promises_are_lost_at_a_flush": 3,
    "holding_is_forgotten_after_a_restart": 6,
    "only_one_partition_is_told": 2,
    "checked_items_are_not_held": 67,
    "writes_pass_what_depends_on_their_item": 2,
    "tokens_are_not_remembered": 2,
    "reads_do_not_mind_transactions": 6,
    "conditions_are_not_decided_in_transactions": 1,
    "a_failed_transaction_is_not_taken_back": 2,
}


@pytest.mark.parametrize("name", [name for name in MUTANTS if MANY or name not in RARE])
def test_mutant_is_caught(name: str) -> None:
    with applied(name), pytest.raises(SimulationFailed):
        for seed in [SHOWN_BY.get(name, 1), *SEEDS]:
            run_world(seed)


@pytest.mark.parametrize("name", TRANSACTION_MUTANTS)
def test_transaction_mutant_is_caught(name: str) -> None:
    with applied(name), pytest.raises(SimulationFailed):
        for seed in [SHOWN_BY.get(name, 1), *SEEDS]:
            run_world(seed, "transactions")


@pytest.mark.parametrize("name", TRIGGER_MUTANTS)
def test_trigger_mutant_is_caught(name: str) -> None:
    with applied(name), pytest.raises(SimulationFailed):
        for seed in [SHOWN_BY.get(name, 1), *SEEDS]:
            run_world(seed, "triggers")
