"""Worlds of regions hold every promise; and mistakes in what keeps regions in step are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from millstream.actors import stretches
from millstream.simulation.world import Report, SimulationFailed, run_world
from millstream.storage.arrivals import Arrival
from millstream.storage.records import Effect
from millstream.storage.replica import Replica

from .seeds import REGION_SEEDS

#: Worlds in which mistakes are looked for, cheap ones first.
MUTANT_SEEDS = (3, 21, 7, 19, 6, 18, 24)


@pytest.fixture(scope="module")
def reports() -> list[Report]:
    return []


@pytest.mark.parametrize("seed", REGION_SEEDS)
def test_world_of_regions(seed: int, reports: list[Report]) -> None:
    reports.append(run_world(seed, "regions"))


def test_the_worlds_of_regions_were_eventful(reports: list[Report]) -> None:
    assert sum(report.crashes for report in reports) > len(reports)
    assert sum(report.faults for report in reports) > len(reports)
    assert sum(report.unknown for report in reports) > 0
    assert sum(report.entries_replayed for report in reports) > 100 * len(reports)


def test_a_world_of_regions_is_the_same_again() -> None:
    assert run_world(REGION_SEEDS[0], "regions") == run_world(REGION_SEEDS[0], "regions")


def echo(records: Any, number: int) -> list[Arrival]:
    """Everything is sent on as one's own."""
    return [arrival_of(record, number) for record in records if type(record) is Effect]


def without_silent(records: Any, number: int) -> list[Arrival]:
    """Writes that change nothing but the version are not sent."""
    return [
        arrival_of(record, number)
        for record in records
        if type(record) is Effect and record.region in (0, number) and not record.silent
    ]


def arrival_of(effect: Effect, number: int) -> Arrival:
    return Arrival(
        effect.key,
        effect.body,
        effect.size_bytes,
        effect.hlc,
        number,
        effect.transaction,
        effect.base_hlc,
        effect.base_region,
        effect.hops,
    )


def of_entry(among: Callable[[Any, int], list[Arrival]]) -> Callable[[bytes, int], list[Arrival]]:
    from millstream.storage.log.entry import payload_of
    from millstream.storage.records import decode_records

    return lambda entry, number: among(decode_records(payload_of(entry)), number)


def is_found() -> bool:
    for seed in MUTANT_SEEDS:
        try:
            run_world(seed, "regions")
        except SimulationFailed:
            return True
    return False


@pytest.mark.parametrize("among", [echo, without_silent])
def test_what_is_sent_wrongly_is_found(
    among: Callable[[Any, int], list[Arrival]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stretches, "arrivals_among", among)
    monkeypatch.setattr(stretches, "arrivals_of", of_entry(among))
    assert is_found()


def test_changes_that_are_taken_whatever_their_version_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Replica, "is_news", lambda _self, _arrival, _known: True)
    assert is_found()


def test_deletions_that_leave_nothing_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    apply_effect = Replica.apply_effect

    def forgetful(self: Replica, effect: Effect) -> None:
        if effect.body is None:
            effect = msgspec.structs.replace(effect, body=b"")
        apply_effect(self, effect)

    monkeypatch.setattr(Replica, "apply_effect", forgetful)
    assert is_found()
