"""Pollers and what happens beside them at the wrong moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from millstream.actors.checkpoints import Checkpoints
from millstream.actors.mapping_runner import MappingRunner
from millstream.actors.shard_poller import ShardPoller
from millstream.database import Database, open_database
from millstream.host.clock import ManualClock


@pytest.mark.parametrize("watcher", [ShardPoller, MappingRunner])
async def test_what_happens_before_the_watcher_is_there_is_not_missed(
    watcher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that is started runs some time later: as late as this, in the worst case."""
    seen: list[str] = []
    opened: list[Database] = []

    async def see(event: Any, context: Any) -> None:
        seen.extend(record["dynamodb"]["Keys"]["id"]["S"] for record in event["Records"])

    watch = watcher._watch

    async def late(self: Any) -> None:
        (db,) = opened
        if watcher is MappingRunner:
            await db.disable_stream("orders")
            await db.enable_stream("orders")
        await db.table("orders").put({"id": "early"})
        monkeypatch.undo()
        await watch(self)

    monkeypatch.setattr(watcher, "_watch", late)
    async with open_database() as db:
        opened.append(db)
        await db.create_table("orders", partition_key="id", stream="NEW_IMAGE")
        await db.add_trigger("orders", see)
        with trio.fail_after(5):
            while "early" not in seen:
                await trio.testing.wait_all_tasks_blocked()
                await db.drain()


async def test_lag_tells_how_far_a_mapping_is_behind(tmp_path: Path) -> None:
    broken = [False]

    async def handler(event: Any, context: Any) -> None:
        if broken[0]:
            raise ValueError

    def lag(db: Database) -> int:
        (statistics,) = db.triggers.statistics()
        return statistics.lag

    for start in range(2):
        async with open_database(tmp_path / "data") as db:
            if start == 0:
                await db.create_table("orders", partition_key="id")
            await db.add_trigger("orders", handler, name="h")
            await db.drain()
            # After a restart the log has entries that no handler is ever told of.
            assert lag(db) == 0
            await db.table("orders").put({"id": str(start)})
            await db.drain()
            assert lag(db) == 0
    async with open_database() as db:
        broken[0] = True
        orders = await db.create_table("orders", partition_key="id")
        await db.add_trigger("orders", handler, name="h")
        await db.drain()
        for number in range(3):
            await orders.put({"id": str(number)})
        assert lag(db) >= 3
        await db.triggers.pause("h")
        assert lag(db) >= 3
        await db.triggers.reset("h", "LATEST")
        assert lag(db) == 0


@pytest.mark.parametrize("seconds_back", [0, 3600])
async def test_a_table_that_is_made_again_has_a_stream_of_its_own(seconds_back: int) -> None:
    """Wherever the clock has been meanwhile: it may stand still, or be set back."""
    seen: list[str] = []

    async def see(event: Any, context: Any) -> None:
        seen.extend(record["dynamodb"]["Keys"]["id"]["S"] for record in event["Records"])

    clock = ManualClock(now_ms=1_700_000_000_000)
    async with open_database(clock=clock) as db:
        await db.add_trigger("orders", see)
        for number in range(3):
            orders = await db.create_table("orders", partition_key="id")
            await orders.put({"id": str(number)})
            with trio.fail_after(5):
                await db.drain()
            await db.delete_table("orders")
            clock.set_wall(clock.now_ms() - 1000 * seconds_back)
    assert seen == ["0", "1", "2"]


@pytest.mark.parametrize("window", [0, 10])
async def test_a_clock_that_was_set_back_keeps_no_batch_waiting(window: int) -> None:
    """Versions never go back, so commits are dated by the time that the clock had been at."""
    batches: list[int] = []

    async def see(event: Any, context: Any) -> None:
        batches.append(len(event["Records"]))

    clock = ManualClock(now_ms=1_700_000_000_000)
    async with open_database(clock=clock) as db:
        orders = await db.create_table("orders", partition_key="id")
        await db.add_trigger("orders", see, window=window)
        await orders.put({"id": "before"})
        clock.advance(window * 1000)
        with trio.fail_after(5):
            await db.drain()
        clock.set_wall(clock.now_ms() - 3_600_000)
        await orders.put({"id": "after"})
        await trio.testing.wait_all_tasks_blocked()
        clock.advance(window * 1000)
        with trio.fail_after(5):
            await db.drain()
    assert batches == [1, 1]


async def test_drain_waits_for_the_rows_of_another_factor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are stored before anything else, and then comes what was skipped meanwhile."""
    gate, drained = trio.Event(), []
    replace = Checkpoints.replace

    async def late(self: Checkpoints, *arguments: Any) -> None:
        await gate.wait()
        await replace(self, *arguments)

    async def see(event: Any, context: Any) -> None: ...

    async with open_database(tmp_path / "data") as db:
        await db.create_table("orders", partition_key="id")
        await db.add_trigger("orders", see, name="h")
        await db.table("orders").put({"id": "a"})
        await db.drain()
    async with open_database(tmp_path / "data") as db:
        await db.table("orders").put({"id": "b"})
        monkeypatch.setattr(Checkpoints, "replace", late)
        none = {"eventName": ["REMOVE"]}
        await db.add_trigger("orders", see, name="h", parallelization_factor=2, filter=none)

        async def drain() -> None:
            await db.drain()
            drained.append(True)

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drain)
                await trio.testing.wait_all_tasks_blocked()
                assert not drained
                gate.set()
