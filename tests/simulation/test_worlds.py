"""The worlds of the first seeds hold every promise; and a world that does not says so."""

from __future__ import annotations

import pytest

from millstream.simulation import options as world_options
from millstream.simulation.__main__ import main
from millstream.simulation.determinism import Streams
from millstream.simulation.options import draw_options, draw_transaction_options, turned
from millstream.simulation.transaction_clients import TransactionClient
from millstream.simulation.world import Report, SimulationFailed, run_world

from .mutants import applied
from .seeds import SEEDS, TRANSACTION_SEEDS, TRIGGER_SEEDS


@pytest.fixture(scope="module")
def reports() -> list[Report]:
    return []


@pytest.mark.parametrize("seed", SEEDS)
def test_world(seed: int, reports: list[Report]) -> None:
    reports.append(run_world(seed))


def test_the_worlds_were_eventful(reports: list[Report]) -> None:
    """Without crashes, unknown outcomes and schema changes nothing above means much."""
    assert sum(report.crashes for report in reports) > len(reports)
    assert sum(report.stops for report in reports) > 0
    assert sum(report.faults for report in reports) > len(reports)
    assert sum(report.unknown for report in reports) > 0
    assert sum(report.schema_changes for report in reports) > len(reports)
    assert sum(report.histories for report in reports) > 10 * len(reports)
    assert sum(report.histories_too_hard for report in reports) == 0
    assert sum(report.entries_replayed for report in reports) > 10 * len(reports)
    assert sum(report.entries_observed for report in reports) > 0


@pytest.fixture(scope="module")
def transaction_reports() -> list[Report]:
    return []


@pytest.mark.parametrize("seed", TRANSACTION_SEEDS)
def test_world_of_transactions(seed: int, transaction_reports: list[Report]) -> None:
    transaction_reports.append(run_world(seed, "transactions"))


def test_the_worlds_of_transactions_were_eventful(transaction_reports: list[Report]) -> None:
    reports = transaction_reports
    assert sum(report.transactions for report in reports) > 50 * len(reports)
    assert sum(report.committed for report in reports) > 10 * len(reports)
    assert sum(report.contended for report in reports) > 5 * len(reports)
    assert sum(report.refused for report in reports) > len(reports)
    assert sum(report.unknown for report in reports) > len(reports)
    assert sum(report.replayed for report in reports) > 0
    assert sum(report.snapshots for report in reports) > len(reports)
    assert sum(report.coordinator_deaths for report in reports) > len(reports)
    assert sum(report.crashes for report in reports) > len(reports)
    assert sum(report.crashes_at_a_step for report in reports) > 0
    assert sum(report.edges for report in reports) > 100 * len(reports)


@pytest.fixture(scope="module")
def trigger_reports() -> list[Report]:
    return []


@pytest.mark.parametrize("seed", TRIGGER_SEEDS)
def test_world_of_triggers(seed: int, trigger_reports: list[Report]) -> None:
    trigger_reports.append(run_world(seed, "triggers"))


def test_the_worlds_of_triggers_were_eventful(trigger_reports: list[Report]) -> None:
    reports = trigger_reports
    assert sum(report.changes for report in reports) > 20 * len(reports)
    assert sum(report.shards for report in reports) > 2 * len(reports)
    assert sum(report.repeats for report in reports) > len(reports)
    assert sum(report.crashes for report in reports) > len(reports)
    assert sum(report.stops for report in reports) > 0
    assert sum(report.unknown for report in reports) > 0
    assert sum(report.handler_failures for report in reports) > 0


def test_worlds_differ() -> None:
    drawn = [draw_options(seed, Streams(seed).stream("options")) for seed in range(200)]
    assert {options.log_engine for options in drawn} == {"memory", "segments"}
    assert {options.nodes for options in drawn} == {1, 2}
    assert {options.has_range for options in drawn} == {True, False}
    assert {options.partitions for options in drawn} == {1, 2, 4}
    assert {options.local_index for options in drawn} == {None, "ALL", "KEYS_ONLY", "INCLUDE"}
    assert len({options.knobs["INDEX_CHUNK_ROWS"] for options in drawn}) > 2


def test_worlds_of_transactions_differ() -> None:
    drawn = [draw_transaction_options(seed, Streams(seed).stream("t")) for seed in range(100)]
    wanted = [options.transactions for options in drawn]
    assert all(options is not None for options in wanted)
    assert {options.actions_max for options in wanted if options is not None} == {2, 4, 6}
    assert {options.tokens for options in wanted if options is not None} == {0.0, 0.3, 0.8}
    for kind in wanted[0].weights if wanted[0] is not None else ():
        assert hasattr(TransactionClient, kind)


def test_knobs_are_turned_for_one_world_only() -> None:
    module = world_options._KNOBS["INDEX_CHUNK_ROWS"][0]
    before = module.INDEX_CHUNK_ROWS
    with turned({"INDEX_CHUNK_ROWS": 3}):
        assert module.INDEX_CHUNK_ROWS == 3
    assert before == module.INDEX_CHUNK_ROWS


def test_the_first_value_of_a_knob_is_the_engines_own() -> None:
    knobs = {**world_options._KNOBS, **world_options._TRANSACTION_KNOBS}
    for name, (module, values) in knobs.items():
        assert getattr(module, name) == values[0]


def test_a_run_prints_one_line_a_world_and_a_sum(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "8", "--worlds", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "seed 8 of items",
        "seed 8 of transactions",
        "seed 8 of triggers",
        "seed 8 of regions",
        "seed 9 of items",
        "seed 9 of transactions",
        "seed 9 of triggers",
        "seed 9 of regions",
        "2 worlds of items, 0 failed",
        "2 worlds of transactions, 0 failed",
        "2 worlds of triggers, 0 failed",
        "2 worlds of regions, 0 failed",
    ]


def test_a_failure_says_the_seed_and_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with applied("old_index_keys_are_not_logged"):
        with pytest.raises(SimulationFailed) as caught:
            run_world(1)
        assert main(["--seed", "1", "--worlds", "5", "--kind", "items"]) == 1
    assert caught.value.seed == 1
    said = capsys.readouterr().out
    assert "seed 1 of items: " in said
    assert "again: make sim SEED=1 WORLDS=1 KIND=items" in said
    assert "1 worlds of items, 1 failed" in said
