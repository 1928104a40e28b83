"""Sessions and bounds over regions with wrong clocks and cut links: from the outside, by histories.

Every kind of mistake that the levels guard against is made on purpose once, and must be caught.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from millstream.actors.levels import Levels
from millstream.actors.tables import TableRef
from millstream.errors import StaleReplica
from millstream.globaltables.consistency import Token
from millstream.globaltables.watermarks import Watermarks
from millstream.model.versions import milliseconds_of
from millstream.sessions import BoundedStaleness, Consistency, Session

from .conftest import NAMES
from .histories import (
    EPOCH_MS,
    Client,
    History,
    broken_sessions,
    database,
    disturb,
    new_session,
    open_timed_world,
    too_stale,
    versions,
)

SKEWS_MS = dict(zip(NAMES, (0, 1_500, -1_200), strict=True))
KEYS = tuple("abcdef")


async def run_clients(
    seed: int, consistencies: Sequence[Callable[[], Consistency]], calls: int = 60
) -> tuple[History, dict[str, Any]]:
    history = History()
    chance = random.Random(seed)
    async with open_timed_world(SKEWS_MS) as world:
        await world.make_global(partitions=3)
        for one, other in ((0, 1), (1, 2), (0, 2)):
            world.network.set_latency(NAMES[one], NAMES[other], chance.choice((0.01, 0.08, 0.15)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(disturb, world, random.Random(chance.random()), 4)
            for number, consistency in enumerate(consistencies):
                own = random.Random(chance.random())
                client = Client(number, world, history, KEYS, own, consistency)
                nursery.start_soon(client.run, calls)
        await world.settled()
        world.equal()
        return history, versions(world)


@pytest.mark.parametrize("seed", range(4))
async def test_sessions_keep_their_guarantees(seed: int, autojump_clock: MockClock) -> None:
    history, known = await run_clients(seed, [new_session() for _ in range(4)])
    assert broken_sessions(history, known) == []
    assert len(history.done) > 150


@pytest.mark.parametrize("seed", range(4))
async def test_nothing_is_staler_than_the_bound(seed: int, autojump_clock: MockClock) -> None:
    bounds = [BoundedStaleness(seconds=bound) for bound in (0.5, 1.5, 3)]
    history, known = await run_clients(seed, [lambda bound=bound: bound for bound in bounds])
    assert too_stale(history, known) == []
    assert sum(done.kind == "read" for done in history.done) > 50


async def test_without_sessions_the_guarantees_do_not_hold(autojump_clock: MockClock) -> None:
    kinds: set[str] = set()
    for seed in range(4):
        history, known = await run_clients(seed, [lambda: "eventual" for _ in range(4)])
        kinds |= {broken.partition(":")[0] for broken in broken_sessions(history, known)}
    assert kinds == {
        "monotonic reads",
        "monotonic writes",
        "read your writes",
        "writes follow reads",
    }


async def found_with(make_consistency: Callable[[], Callable[[], Consistency]]) -> str:
    """What the checks find in a few histories."""
    for seed in range(4):
        history, known = await run_clients(seed, [make_consistency() for _ in range(4)])
        is_session = make_consistency is new_session
        broken = broken_sessions(history, known) if is_session else too_stale(history, known)
        if broken:
            return broken[0]
    return ""


async def test_a_token_that_is_ignored_is_noticed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Token, "needed", lambda _self, _number: {})
    assert await found_with(new_session)


async def test_looking_at_one_partition_only_is_noticed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = TableRef.partitions_of

    def first_of(
        self: TableRef, low: bytes, high: bytes | None, *, everything: bool = False
    ) -> Any:
        return whole(self, low, high, everything=everything)[:1]

    monkeypatch.setattr(TableRef, "partitions_of", first_of)
    assert await found_with(new_session)


async def test_believing_another_region_s_clock_is_noticed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_its_clock(self: Watermarks, number: int, closed: int) -> None:
        self.received[number] = max(self.received.get(number, 0), closed)
        self.as_of_ms[number] = milliseconds_of(self.received[number]) - EPOCH_MS

    monkeypatch.setattr(Watermarks, "note_received", by_its_clock)
    monkeypatch.setattr(Watermarks, "note_as_of", lambda _self, _number, _moment: None)
    assert await found_with(lambda: lambda: BoundedStaleness(seconds=0.5))


async def test_a_bound_that_is_ignored_is_noticed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Levels, "_lack", lambda *_: None)
    assert await found_with(lambda: lambda: BoundedStaleness(seconds=0.5))


async def test_a_write_is_later_than_what_its_session_has_seen(
    autojump_clock: MockClock,
) -> None:
    # The region's clock is behind, and nothing from the other has come that would move it.
    async with open_timed_world({NAMES[0]: 5_000, NAMES[1]: 0}) as world:
        await world.make_global()
        await world.settled()
        await trio.sleep(20)
        world.network.cut(*NAMES[:2])
        session = Session()
        first = database(world, NAMES[0]).table("t", consistency=session)
        second = database(world, NAMES[1]).table("t", consistency=session)
        await first.put({"pk": "a", "v": 1})
        with pytest.raises(StaleReplica):
            # Not within the two seconds that a call waits.
            await second.put({"pk": "a", "v": 2})
        world.network.heal(*NAMES[:2])
        await world.settled()
        await second.put({"pk": "a", "v": 2})
        await world.settled()
        assert world.get(NAMES[0], "a") == {"pk": {"S": "a"}, "v": {"N": "2"}}
