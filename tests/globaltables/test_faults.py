"""The faults of a drill, as values."""

from __future__ import annotations

import pytest

from millstream.errors import LinkRefused
from millstream.globaltables.faults import HEALTHY, Fault, LinkFaults


def test_faults_are_of_one_region_until_they_are_healed() -> None:
    faults = LinkFaults(lambda: 0.5)
    assert faults.of("eu-west-1") == HEALTHY
    faults.set("eu-west-1", Fault(is_partitioned=True))
    faults.check_link("us-east-1")
    with pytest.raises(LinkRefused, match="a drill has cut the links with eu-west-1"):
        faults.check_link("eu-west-1")
    assert faults.all() == {"eu-west-1": Fault(is_partitioned=True)}
    faults.set("eu-west-1", HEALTHY)
    assert faults.all() == {}
    faults.set("eu-west-1", Fault(drop=1.0))
    faults.heal()
    faults.check_link("eu-west-1")
    assert faults.all() == {}


def test_chance_is_asked_only_where_it_decides() -> None:
    asked = []

    def chance() -> float:
        asked.append(0.5)
        return 0.5

    faults = LinkFaults(chance)
    assert not faults.drops("eu-west-1")
    assert asked == []
    faults.set("eu-west-1", Fault(drop=0.5))
    assert not faults.drops("eu-west-1")
    faults.set("eu-west-1", Fault(drop=0.6))
    assert faults.drops("eu-west-1")
    assert len(asked) == 2


def test_who_asked_to_be_told_is_told_until_it_stops() -> None:
    faults = LinkFaults(lambda: 0.5)
    told: list[str] = []
    stop = faults.when_changed(lambda: told.append("one"))
    faults.when_changed(lambda: told.append("other"))
    faults.set("eu-west-1", Fault(is_paused=True))
    stop()
    faults.when_changed(lambda: told.append("third"))
    stop()
    faults.heal()
    assert told == ["one", "other", "other", "third"]


def test_who_stops_while_it_is_told_keeps_nobody_from_being_told() -> None:
    faults = LinkFaults(lambda: 0.5)
    told: list[str] = []
    stop = faults.when_changed(lambda: stop())
    faults.when_changed(lambda: told.append("other"))
    faults.heal()
    assert told == ["other"]


@pytest.mark.parametrize("wrong", [{"drop": 1.1}, {"drop": -0.1}, {"latency_seconds": -1.0}])
def test_faults_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Fault(**wrong)
    for latency in (float("inf"), float("nan")):
        with pytest.raises(ValueError):
            Fault(latency_seconds=latency)
