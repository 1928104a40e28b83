"""What the model of regions would notice: each mutant takes one safeguard away.

A history of ``test_regions_model.World`` must then go wrong, within a few seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
import pytest

from millstream.model.versions import Version
from millstream.storage import arriving
from millstream.storage.arrivals import Arrival
from millstream.storage.commands import Collect, Collected, Fill
from millstream.storage.records import Effect, TombstonesDropped
from millstream.storage.replica import Replica
from millstream.storage.table_state import TableState
from millstream.storage.transactions import Transactions
from millstream.storage.views import Evaluation
from millstream.tests.storage.regions import TOMBSTONES, Region
from millstream.tests.storage.test_regions_model import World

NO_LIMIT = (1 << 63) - 1
Patch = pytest.MonkeyPatch
Mutant = Callable[[Patch], type[World]]


def tombstones_are_not_written(patch: Patch) -> type[World]:
    apply_effect = Replica.apply_effect

    def apply(self: Replica, effect: Effect) -> None:
        if effect.body is not None:
            apply_effect(self, effect)

    patch.setattr(Replica, "apply_effect", apply)
    return World


def collecting_does_not_look_at_versions(patch: Patch) -> type[World]:
    def collect(state: TableState, command: Collect) -> Evaluation:
        keys = [key for key, _ in state.btree.range(TOMBSTONES, b"", None)]
        dropped = TombstonesDropped(command.horizon, keys)
        return Evaluation(Collected(len(keys), None), (dropped,), True)

    def apply(self: Replica, record: TombstonesDropped) -> None:
        self.horizon = max(self.horizon, record.horizon)
        for key in record.keys:
            self._put(key, None)

    patch.setattr(arriving, "_collect", collect)
    patch.setattr(Replica, "apply_dropped", apply)
    return World


def horizons_mind_received_only(_patch: Patch) -> type[World]:
    class Careless(World):
        def horizon(self, region: Region) -> int:
            pairs = [(region.number, other.number) for other in self.others(region)]
            return min((self.received.get(pair, 0) for pair in pairs), default=0)

    return Careless


def horizons_mind_acknowledged_only(_patch: Patch) -> type[World]:
    class Careless(World):
        def horizon(self, region: Region) -> int:
            pairs = [(region.number, other.number) for other in self.others(region)]
            return min((self.acked.get(pair, 0) for pair in pairs), default=0)

    return Careless


def versions_are_not_compared(patch: Patch) -> type[World]:
    def is_news(self: Replica, arrival: Arrival, known: Version) -> bool:
        return Version(arrival.hlc, arrival.region) != known and arrival.hlc > self.horizon

    patch.setattr(Replica, "is_news", is_news)
    return World


def the_horizon_lets_everything_pass(patch: Patch) -> type[World]:
    def is_news(_self: Replica, arrival: Arrival, known: Version) -> bool:
        return Version(arrival.hlc, arrival.region) > known

    patch.setattr(Replica, "is_news", is_news)
    return World


def silent_writes_are_not_sent(_patch: Patch) -> type[World]:
    class Quiet(World):
        def sent(self, origin: Region, first_lsn: int, last_lsn: int) -> tuple[Arrival, ...]:
            silent = {
                (effect.key, effect.hlc) for effect in origin.effects(first_lsn) if effect.silent
            }
            arrivals = super().sent(origin, first_lsn, last_lsn)
            return tuple(each for each in arrivals if (each.key, each.hlc) not in silent)

    return Quiet


def filling_removes_what_is_not_covered(patch: Patch) -> type[World]:
    fill = arriving._fill

    def remove_all(state: TableState, command: Fill, hlc: int) -> Evaluation:
        covered = dict.fromkeys(range(1, 4), NO_LIMIT)
        return fill(state, msgspec.structs.replace(command, covered=covered), hlc)

    patch.setattr(arriving, "_fill", remove_all)
    return World


def deletions_that_are_missing_are_not_made_good(patch: Patch) -> type[World]:
    """Tombstones are collected before all have them, and a filling removes nothing.

    Each alone is made good by the other, unless a new member comes between.
    """
    fill = arriving._fill

    def remove_none(state: TableState, command: Fill, hlc: int) -> Evaluation:
        return fill(state, msgspec.structs.replace(command, covered={}), hlc)

    patch.setattr(arriving, "_fill", remove_none)
    return horizons_mind_received_only(patch)


def the_horizon_is_forgotten_by_a_crash(_patch: Patch) -> type[World]:
    class Forgetful(World):
        def lost_memory(self, region: Region) -> None:
            super().lost_memory(region)
            region.state.replica.horizon = 0

    return Forgetful


def held_items_are_overwritten(patch: Patch) -> type[World]:
    patch.setattr(TableState, "holds", lambda _self, _key: False)
    return World


def a_passing_write_looks_at_the_row_only(patch: Patch) -> type[World]:
    passing = Transactions.version_for_passing

    def version(self: Transactions, key: bytes, _old_hlc: int) -> int | None:
        return passing(self, key, 0)

    patch.setattr(Transactions, "version_for_passing", version)
    return World


#: Each with the seed at which to begin to look: some need a rare coincidence.
MUTANTS: list[tuple[Mutant, int]] = [
    (tombstones_are_not_written, 0),
    (collecting_does_not_look_at_versions, 0),
    (horizons_mind_received_only, 450),
    (horizons_mind_acknowledged_only, 0),
    (versions_are_not_compared, 0),
    (the_horizon_lets_everything_pass, 90),
    (silent_writes_are_not_sent, 0),
    (filling_removes_what_is_not_covered, 0),
    (deletions_that_are_missing_are_not_made_good, 310),
    (the_horizon_is_forgotten_by_a_crash, 90),
    (held_items_are_overwritten, 0),
    (a_passing_write_looks_at_the_row_only, 100),
]
SEEDS_MAX = 30


def killer_of(world_type: type[World], seeds: Iterable[int]) -> int | None:
    """The first of ``seeds`` whose history notices that something is wrong."""
    for seed in seeds:
        try:
            world_type(seed).run()
        except AssertionError:
            return seed
    return None


@pytest.mark.parametrize("mutant, first_seed", MUTANTS)
def test_a_mutant_is_found(
    mutant: Mutant, first_seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = range(first_seed, first_seed + SEEDS_MAX)
    assert killer_of(World, seeds[:3]) is None
    assert killer_of(mutant(monkeypatch), seeds) is not None
