"""Triggers where things happen at once: tables go, streams end, logs fail, handlers stop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import millstream
from millstream.actors import destinations, node, shard_poller
from millstream.actors.catalog import Catalog
from millstream.actors.streams import Streams
from millstream.actors.transactions import Coordinator
from millstream.database import Database, open_database
from millstream.errors import Ambiguous, OutcomeUnknown, Throttled, Unavailable
from millstream.host.clock import ManualClock
from millstream.streams.definition import Stream

HOUR_MS = 3600 * 1000


def keys(event: dict[str, Any]) -> list[str]:
    return [record["dynamodb"]["Keys"]["id"]["S"] for record in event["Records"]]


class Seen(list[str]):
    """A handler that remembers keys."""

    async def __call__(self, event: Any, context: Any) -> None:
        self.extend(keys(event))


async def table(db: Database, name: str = "orders", **more: Any) -> millstream.Table:
    return await db.create_table(name, partition_key="id", **more)


def streams_of(db: Database) -> Streams:
    return db._tables.streams


def stream_of(db: Database) -> Stream:
    return streams_of(db).of_namespace(db._caller.namespace, "orders")[-1]


async def roll(db: Database) -> None:
    stream = stream_of(db)
    await streams_of(db).roll(stream, [shard.shard_id for shard in stream.shards if shard.is_open])


async def add(db: Database, handler: Any, **more: Any) -> None:
    async def call(event: Any, context: Any) -> Any:
        return await handler(event, context)

    await db.add_trigger("orders", call, name="h", **more)


@pytest.fixture
async def db() -> AsyncIterator[Database]:
    with trio.fail_after(30):
        async with open_database() as db:
            yield db


# Shards roll over.


async def test_order_holds_over_rollovers(db: Database) -> None:
    seen = Seen()
    orders = await table(db)
    await add(db, seen, batch_size=3)
    for number in range(30):
        await orders.put({"id": f"{number:02}"})
        if number % 5 == 0:
            await roll(db)
    await db.drain()
    assert seen == [f"{number:02}" for number in range(30)]


async def test_a_child_waits_for_its_parent(db: Database) -> None:
    seen, go = Seen(), trio.Event()

    async def slow(event: Any, context: Any) -> None:
        await go.wait()
        await seen(event, context)

    orders = await table(db)
    await add(db, slow, batch_size=1)
    await orders.put({"id": "a"})
    await roll(db)
    await orders.put({"id": "b"})
    await trio.testing.wait_all_tasks_blocked()
    assert seen == []
    go.set()
    await db.drain()
    assert seen == ["a", "b"]


async def test_latest_on_a_table_with_closed_shards(db: Database) -> None:
    seen = Seen()
    orders = await table(db, stream="KEYS_ONLY")
    for key in ("a", "b", "c"):
        await orders.put({"id": key})
        await roll(db)
    await add(db, seen, starting_position="LATEST")
    await orders.put({"id": "d"})
    await roll(db)
    await orders.put({"id": "e"})
    await db.drain()
    assert seen == ["d", "e"]


# Streams and tables end.


async def test_a_rollover_and_the_end_of_a_stream_take_turns(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both replace the catalog's entry of the stream; the later must know of the earlier."""
    orders = await table(db, stream="KEYS_ONLY")
    await orders.put({"id": "a"})
    ref = db._tables.find(db._caller.namespace, "orders")
    assert ref is not None
    lsns = {shard.log_id: shard.first_lsn for shard in stream_of(db).shards}
    real, go = Catalog.save_entry, trio.Event()

    async def save_entry(self: Catalog, *args: Any) -> None:
        await go.wait()
        await real(self, *args)

    monkeypatch.setattr(Catalog, "save_entry", save_entry)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(roll, db)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(streams_of(db).end, ref.table, lsns, ref.table.schema_version)
        nursery.start_soon(roll, db)
        await trio.testing.wait_all_tasks_blocked()
        go.set()
    stream = stream_of(db)
    assert not stream.is_enabled
    assert not any(shard.is_open for shard in stream.shards)
    parent, child, *_ = stream.shards
    assert (child.parent, child.first_lsn) == (parent.shard_id, (parent.last_lsn or 0) + 1)


async def test_a_handler_sees_what_the_ended_stream_has(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the commit of the end and the end of the shard effects are written, too."""
    seen, end = Seen(), Streams.end
    orders = await table(db)
    await add(db, seen)
    await orders.put({"id": "within"})

    async def late(self: Streams, *args: Any) -> None:
        await orders.put({"id": "after"})
        await trio.testing.wait_all_tasks_blocked()
        await end(self, *args)

    monkeypatch.setattr(Streams, "end", late)
    await db.disable_stream("orders")
    await db.drain()
    assert seen == ["within"]


async def test_a_stream_ends_while_a_batch_is_in_flight(db: Database) -> None:
    seen, go = Seen(), trio.Event()

    async def slow(event: Any, context: Any) -> None:
        await go.wait()
        await seen(event, context)

    orders = await table(db)
    await add(db, slow, batch_size=1)
    for key in ("a", "b"):
        await orders.put({"id": key})
    await db.disable_stream("orders")
    await db.enable_stream("orders")
    await orders.put({"id": "c"})
    await trio.testing.wait_all_tasks_blocked()
    go.set()
    await db.drain()
    assert seen == ["a", "b", "c"]


async def test_a_table_is_removed_while_its_trigger_runs(db: Database) -> None:
    seen, go = Seen(), trio.Event()

    async def slow(event: Any, context: Any) -> None:
        await go.wait()
        await seen(event, context)

    orders = await table(db)
    await add(db, slow, batch_size=1)
    for key in ("a", "b"):
        await orders.put({"id": key})
    await db.delete_table("orders")
    await table(db)
    await orders.put({"id": "c"})
    go.set()
    await db.drain()
    assert seen == ["a", "b", "c"]
    assert db.triggers.list()[0].state == "Enabled"


async def test_a_new_trigger_does_not_get_the_changes_of_a_removed_table(db: Database) -> None:
    seen = Seen()
    orders = await table(db, stream="KEYS_ONLY")
    await orders.put({"id": "of the old table"})
    await db.delete_table("orders")
    await add(db, seen)
    await table(db)
    await orders.put({"id": "new"})
    await db.drain()
    assert seen == ["new"]


async def test_a_table_is_made_again_before_its_stream_was_labelled() -> None:
    """The clock may stand still: labels do not."""
    seen, clock = Seen(), ManualClock()
    async with open_database(clock=clock) as db:
        orders = await table(db)
        await add(db, seen)
        await orders.put({"id": "old"})
        await db.delete_table("orders")
        await table(db)
        await orders.put({"id": "new"})
        with trio.fail_after(10):
            await db.drain()
    assert seen == ["old", "new"]


# Positions are changed.


async def test_a_reset_while_a_batch_is_in_flight(db: Database) -> None:
    seen, started = Seen(), trio.Event()

    async def slow_once(event: Any, context: Any) -> None:
        if not started.is_set():
            started.set()
            await trio.sleep_forever()
        await seen(event, context)

    orders = await table(db)
    await add(db, slow_once)
    await orders.put({"id": "a"})
    await started.wait()
    await db.triggers.reset("h", "LATEST")
    await orders.put({"id": "b"})
    await db.drain()
    assert seen == ["b"]
    await db.triggers.reset("h", "TRIM_HORIZON")
    await db.drain()
    assert seen == ["b", "a", "b"]


async def test_records_expire_while_a_mapping_is_paused() -> None:
    seen, clock = Seen(), ManualClock()
    async with open_database(clock=clock) as db:
        orders = await table(db)
        await add(db, seen)
        await orders.put({"id": "a"})
        await db.drain()
        await db.triggers.pause("h")
        await orders.put({"id": "expires"})
        clock.advance(25 * HOUR_MS)
        await orders.put({"id": "kept"})
        await roll(db)
        await streams_of(db).tend()
        await db.triggers.resume("h")
        with trio.fail_after(10):
            await db.drain()
    assert seen == ["a", "kept"]


async def test_all_that_a_paused_mapping_had_to_read_is_gone() -> None:
    seen, clock = Seen(), ManualClock()
    async with open_database(clock=clock) as db:
        orders = await table(db)
        await add(db, seen, enabled=False)
        await orders.put({"id": "expires"})
        await db.delete_table("orders")
        clock.advance(25 * HOUR_MS)
        await streams_of(db).tend()
        await db.triggers.resume("h")
        await table(db)
        await orders.put({"id": "new"})
        with trio.fail_after(10):
            await db.drain()
    assert seen == ["new"]


# The node.


async def test_closing_during_an_invocation(tmp_path: Path) -> None:
    """What was not done is given again; writes of a handler that was stopped do not happen."""
    seen, started = Seen(), trio.Event()

    async def stopped(event: Any, context: Any) -> None:
        context.transaction.put("orders", {"id": "never"})
        started.set()
        await trio.sleep_forever()

    async with open_database(tmp_path / "data") as db:
        await table(db)
        await add(db, stopped)
        await db.table("orders").put({"id": "a"})
        await started.wait()
    async with open_database(tmp_path / "data") as db:
        await add(db, seen)
        await db.drain()
    assert seen == ["a"]


async def test_a_node_that_ends_does_not_wait_for_a_commit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who commits waits even when cancelled; but not for partitions that are gone."""
    committing = trio.Event()

    async def hang(self: Coordinator, *args: Any) -> None:
        committing.set()
        await trio.sleep_forever()

    monkeypatch.setattr(node, "CLOSE_SECONDS_MAX", 0.05)
    with trio.fail_after(20):
        async with open_database() as db:
            orders = await table(db)
            await table(db, "counts")
            await add(db, counting)
            monkeypatch.setattr(Coordinator, "_write", hang)
            await orders.put({"id": "a"})
            await committing.wait()


async def test_a_handler_that_fails_over_being_cancelled(db: Database) -> None:
    """Its own tasks' errors come together with the cancellation; they are not the node's."""
    started = trio.Event()

    async def sulk() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("not now")

    async def group(event: Any, context: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sulk)
            nursery.start_soon(trio.sleep_forever)
            await trio.testing.wait_all_tasks_blocked()
            started.set()

    orders = await table(db)
    await add(db, group)
    await orders.put({"id": "a"})
    await started.wait()
    await db.triggers.delete("h")
    await orders.put({"id": "b"})
    assert await orders.get({"id": "b"})


# Faults.


class Sometimes:
    """Stands before a method: raises these first, one at each call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> None:
        self.errors: list[Exception] = []
        real = getattr(where, name)

        async def method(*args: Any, **more: Any) -> Any:
            if self.errors:
                raise self.errors.pop(0)
            return await real(*args, **more)

        monkeypatch.setattr(where, name, method)


async def counting(event: Any, context: Any) -> None:
    found = await context.transaction.get("counts", {"id": "all"}) or {"id": "all", "n": 0}
    context.transaction.put("counts", {**found, "n": found["n"] + len(event["Records"])})


@pytest.mark.parametrize(
    "error",
    [Unavailable("A partition could not be asked"), Throttled("full"), OutcomeUnknown("who knows")],
)
async def test_a_commit_that_does_not_come_about_is_not_the_handlers_failure(
    db: Database, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(shard_poller, "INVOKER_RETRY_SECONDS", 0.001)
    orders, counts = await table(db), await table(db, "counts")
    given_up: list[Any] = []
    await add(db, counting, maximum_retry_attempts=0, on_failure=given_up.append)
    faults = Sometimes(monkeypatch, Coordinator, "write")
    faults.errors = [error]
    await orders.put({"id": "a"})
    with trio.fail_after(30):
        await db.drain()
    assert await counts.get({"id": "all"}) == {"id": "all", "n": 1}
    assert given_up == []
    assert faults.errors == []


async def test_a_handler_that_meets_a_transaction_has_not_failed(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders, counts = await table(db), await table(db, "counts")
    met = [True]

    async def meeting(event: Any, context: Any) -> None:
        if met and met.pop():
            raise millstream.errors.TransactionConflict("changing an item that was read")
        await counting(event, context)

    await add(db, meeting, maximum_retry_attempts=0)
    await orders.put({"id": "a"})
    await db.drain()
    assert await counts.get({"id": "all"}) == {"id": "all", "n": 1}
    assert db.triggers.failed_batches("h") == []


async def test_the_list_of_failed_batches_survives_a_failing_log(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(event: Any, context: Any) -> None:
        raise ValueError

    monkeypatch.setattr(destinations, "DESTINATION_RETRY_SECONDS", 0.001)
    orders = await table(db)
    await add(db, fail, maximum_retry_attempts=0)
    faults = Sometimes(monkeypatch, Catalog, "save_entry")
    faults.errors = [OutcomeUnknown("who knows"), Throttled("full")]
    await orders.put({"id": "a"})
    with trio.fail_after(30):
        await db.drain()
    assert len(db.triggers.failed_batches("h")) == 1


async def test_a_rollover_of_unknown_outcome_is_made_sure_of(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the catalog has a child that begins where the parent is still read on."""
    orders = await table(db, stream="KEYS_ONLY")
    await orders.put({"id": "a"})
    real, saved = Catalog.save_entry, []

    async def save_entry(self: Catalog, kind: str, name: str, data: bytes) -> None:
        await real(self, kind, name, data)
        saved.append(data)
        if len(saved) == 1:
            await orders.put({"id": "b"})
            raise OutcomeUnknown("who knows")

    monkeypatch.setattr(Catalog, "save_entry", save_entry)
    await roll(db)
    assert len(saved) == 2
    assert saved[0] == saved[1]




async def test_drain_ends_with_the_database() -> None:
    """Not as if everything were done."""

    async def wait(event: Any, context: Any) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        with trio.fail_after(10):
            async with open_database() as db:
                orders = await table(db, stream="KEYS_ONLY")
                await db.add_trigger("orders", wait, name="w")
                await orders.put({"id": "a"})

                async def drain() -> None:
                    with pytest.raises(Unavailable):
                        await db.drain()

                nursery.start_soon(drain)
                await trio.testing.wait_all_tasks_blocked()
            while nursery.child_tasks:
                await trio.lowlevel.checkpoint()


async def test_a_log_that_is_being_reopened_is_read_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed 614 of the simulated triggers: the shard was taken for damaged, for good."""
    refused = []

    def refusing(what: str) -> None:
        real = getattr(Streams, what)

        def once(self: Streams, *arguments: Any) -> Any:
            if what not in refused:
                refused.append(what)
                raise Ambiguous("the sync failed")
            return real(self, *arguments)

        monkeypatch.setattr(Streams, what, once)

    seen = Seen()
    async with open_database() as db:
        orders = await table(db, stream="NEW_IMAGE")
        await orders.put({"id": "a"})
        refusing("first_sequence")
        refusing("read")
        await db.add_trigger("orders", seen, name="s")
        with trio.fail_after(10):
            await db.drain()
        assert seen == ["a"]
        assert sorted(refused) == ["first_sequence", "read"]
        refused.clear()
        with trio.fail_after(10):
            async with aclosing(orders.changes(since="start")) as changes:
                followed = (await anext(changes)).new
    assert followed == {"id": "a"}
    assert sorted(refused) == ["first_sequence", "read"]
