"""Triggers through the Python API: what a handler gets, and what happens when it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import millstream
from millstream.database import Database, open_database
from millstream.errors import InvalidRequest, ResourceInUse
from millstream.lambdas.shard import Shard
from millstream.streams.records import Renderer
from millstream.triggers import Triggers


def names(event: dict[str, Any]) -> list[tuple[str, str]]:
    """(eventName, partition key) of each record."""
    return [
        (record["eventName"], record["dynamodb"]["Keys"]["id"]["S"])
        for record in event["Records"]
    ]


async def table(db: Database, name: str = "orders") -> millstream.Table:
    return await db.create_table(name, partition_key="id")


async def test_a_handler_gets_every_change_in_order() -> None:
    triggers, seen = Triggers(), []

    @triggers.on_change("orders")
    async def see(event: Any, context: Any) -> None:
        seen.extend(names(event))

    async with open_database(triggers=triggers) as db:
        orders = await table(db)
        await orders.put({"id": "a", "v": 1})
        await orders.put({"id": "a", "v": 2})
        await orders.delete({"id": "a"})
        await db.drain()
        assert seen == [("INSERT", "a"), ("MODIFY", "a"), ("REMOVE", "a")]


async def test_the_event_is_lambdas() -> None:
    triggers, events = Triggers(), []

    @triggers.on_change("orders")
    async def see(event: Any, context: Any) -> None:
        events.append((event, context))

    async with open_database(triggers=triggers) as db:
        await (await table(db)).put({"id": "a", "v": 1, "b": b"x"})
        await db.drain()
    ((event, context),) = events
    (record,) = event["Records"]
    assert record.keys() == {
        "eventID", "eventName", "eventVersion", "eventSource", "awsRegion", "dynamodb",
        "eventSourceARN",
    }  # fmt: skip
    inner = record["dynamodb"]
    assert inner["NewImage"] == {"id": {"S": "a"}, "v": {"N": "1"}, "b": {"B": "eA=="}}
    assert inner["Keys"] == {"id": {"S": "a"}}
    assert isinstance(inner["ApproximateCreationDateTime"], float)
    assert record["eventSourceARN"].startswith("arn:aws:dynamodb:us-east-1:")
    assert context.function_name.endswith("see")
    assert context.get_remaining_time_in_millis() > 0


async def test_a_plain_function_runs_in_a_thread() -> None:
    triggers, seen = Triggers(), []

    @triggers.on_change("orders")
    def see(event: Any, context: Any) -> None:
        seen.extend(names(event))

    async with open_database(triggers=triggers) as db:
        await (await table(db)).put({"id": "a"})
        await db.drain()
    assert seen == [("INSERT", "a")]


def write_to_file(event: Any, context: Any) -> None:
    record = event["Records"][0]
    path = record["dynamodb"]["NewImage"]["path"]["S"]
    Path(path).write_text(record["eventName"])


async def test_a_handler_in_a_process(tmp_path: Path) -> None:
    async with open_database() as db:
        orders = await table(db)
        await db.add_trigger("orders", write_to_file, isolation="process")
        await orders.put({"id": "a", "path": str(tmp_path / "out")})
        await db.drain()
    assert (tmp_path / "out").read_text() == "INSERT"


async def test_a_failing_batch_is_tried_again_and_then_given_up(tmp_path: Path) -> None:
    attempts: list[list[tuple[str, str]]] = []
    documents: list[dict[str, Any]] = []

    async def fail(event: Any, context: Any) -> None:
        attempts.append(names(event))
        if any(key == "bad" for _, key in names(event)):
            raise ValueError("poisoned")

    async with open_database() as db:
        orders = await table(db)
        await db.add_trigger(
            "orders", fail, name="fail", maximum_retry_attempts=1, batch_size=1,
            on_failure=documents.append,
        )  # fmt: skip
        for key in ("a", "bad", "c"):
            await orders.put({"id": key})
        await db.drain()
        (failed,) = db.triggers.failed_batches("fail")
        assert (failed.condition, failed.attempts) == ("RetryAttemptsExhausted", 2)
        assert (failed.error_type, failed.message) == ("ValueError", "poisoned")
        (statistics,) = db.triggers.statistics()
        assert (statistics.records, statistics.failures, statistics.discarded) == (2, 2, 1)
    assert [key for batch in attempts for _, key in batch] == ["a", "bad", "bad", "c"]
    (document,) = documents
    assert document["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert names(document["event"]) == [("INSERT", "bad")]


async def test_failed_batches_go_to_a_table_or_a_directory(tmp_path: Path) -> None:
    async def fail(event: Any, context: Any) -> None:
        raise ValueError

    async with open_database() as db:
        orders = await table(db)
        failures = await db.create_table("failures", partition_key="id", sort_key=("at", int))
        for name, place in (("one", "failures"), ("two", tmp_path / "failed")):
            await db.add_trigger(
                "orders", fail, name=name, maximum_retry_attempts=0, on_failure=place
            )
        await orders.put({"id": "a"})
        await db.drain()
        (item,) = [item async for item in failures.scan()]
        assert item["failure"]["DDBStreamBatchInfo"]["batchSize"] == 1
        assert names(json.loads(item["event"])) == [("INSERT", "a")]
    (path,) = (tmp_path / "failed").rglob("*.json")
    assert json.loads(path.read_text())["DDBStreamBatchInfo"]["batchSize"] == 1


async def test_a_redriven_batch_is_off_the_list() -> None:
    broken, taken = [True], []

    async def handler(event: Any, context: Any) -> None:
        if broken[0]:
            raise ValueError
        taken.extend(names(event))

    async with open_database() as db:
        orders = await table(db)
        await db.add_trigger("orders", handler, name="h", maximum_retry_attempts=0)
        await orders.put({"id": "a"})
        await db.drain()
        assert await db.triggers.redrive("h") == 0
        assert len(db.triggers.failed_batches("h")) == 1
        broken[0] = False
        assert await db.triggers.redrive("h") == 1
        assert db.triggers.failed_batches("h") == []
    assert taken == [("INSERT", "a")]


async def test_filters_choose_records() -> None:
    triggers, seen = Triggers(), []

    @triggers.on_change("orders", filter={"dynamodb": {"NewImage": {"v": {"N": ["2"]}}}})
    async def see(event: Any, context: Any) -> None:
        seen.extend(names(event))

    async with open_database(triggers=triggers) as db:
        orders = await table(db)
        for number in range(4):
            await orders.put({"id": str(number), "v": number})
        await db.drain()
    assert seen == [("INSERT", "2")]


async def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    async def see(event: Any, context: Any) -> None:
        seen.extend(names(event))

    for round_ in range(3):
        triggers = Triggers()
        triggers.on_change("orders", name="see", batch_size=2 + round_)(see)
        async with open_database(tmp_path / "data", triggers=triggers) as db:
            if round_ == 0:
                await table(db)
            await db.table("orders").put({"id": str(round_)})
            await db.drain()
            (mapping,) = db.triggers.list()
            assert mapping.settings.batch_size == 2 + round_
    assert seen == [("INSERT", "0"), ("INSERT", "1"), ("INSERT", "2")]


async def test_without_its_handler_a_mapping_waits(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    async def see(event: Any, context: Any) -> None:
        seen.extend(names(event))

    async with open_database(tmp_path / "data") as db:
        await table(db)
        await db.add_trigger("orders", see, name="see")
        await db.drain()
    async with open_database(tmp_path / "data") as db:
        (mapping,) = db.triggers.list()
        assert mapping.state == "WAITING_FOR_HANDLER"
        await db.table("orders").put({"id": "a"})
        await db.drain()
        assert seen == []
        await db.add_trigger("orders", see, name="see")
        assert db.triggers.list()[0].state == "Enabled"
        await db.drain()
    assert seen == [("INSERT", "a")]


async def test_latest_begins_with_what_comes() -> None:
    seen: list[tuple[str, str]] = []

    async def see(event: Any, context: Any) -> None:
        seen.extend(names(event))

    async with open_database() as db:
        orders = await db.create_table("orders", partition_key="id", stream="KEYS_ONLY")
        await orders.put({"id": "old"})
        await db.add_trigger("orders", see, starting_position="LATEST")
        await orders.put({"id": "new"})
        await db.drain()
    assert seen == [("INSERT", "new")]


async def test_pause_and_resume_and_replay() -> None:
    seen: list[tuple[str, str]] = []

    async def see(event: Any, context: Any) -> None:
        seen.extend(names(event))

    async with open_database() as db:
        orders = await table(db)
        await db.add_trigger("orders", see, name="see")
        await orders.put({"id": "a"})
        await db.drain()
        await db.triggers.pause("see")
        await orders.put({"id": "b"})
        await db.drain()
        assert seen == [("INSERT", "a")]
        assert db.triggers.list()[0].state == "Disabled"
        await db.triggers.resume("see")
        await db.drain()
        assert seen == [("INSERT", "a"), ("INSERT", "b")]
        await db.triggers.reset("see", "TRIM_HORIZON")
        await db.drain()
        assert seen == [("INSERT", "a"), ("INSERT", "b")] * 2
        await db.triggers.reset("see", "LATEST")
        await db.drain()
        assert len(seen) == 4


async def test_writes_of_a_transaction_are_committed_with_the_checkpoint(tmp_path: Path) -> None:
    async def count(event: Any, context: Any) -> None:
        tx = context.transaction
        found = await tx.get("counts", {"id": "all"}) or {"id": "all", "n": 0}
        tx.put("counts", {**found, "n": found["n"] + len(event["Records"])})

    for round_ in range(3):
        async with open_database(tmp_path / "data") as db:
            if round_ == 0:
                await table(db)
                await table(db, "counts")
            await db.add_trigger("orders", count, name="count")
            for number in range(10):
                await db.table("orders").put({"id": f"{round_}-{number}"})
            await db.drain()
            counted = await db.table("counts").get({"id": "all"})
            assert counted is not None and counted["n"] == 10 * (round_ + 1)


async def test_a_failed_handlers_writes_do_not_happen() -> None:
    attempts = []

    async def flaky(event: Any, context: Any) -> None:
        attempts.append(1)
        context.transaction.put("counts", {"id": f"attempt {len(attempts)}"})
        if len(attempts) < 3:
            raise ValueError

    async with open_database() as db:
        orders = await table(db)
        counts = await table(db, "counts")
        await db.add_trigger("orders", flaky)
        await orders.put({"id": "a"})
        await db.drain()
        assert [item["id"] async for item in counts.scan()] == ["attempt 3"]


async def test_a_loop_is_capped() -> None:
    depths = []

    async def again(event: Any, context: Any) -> None:
        depths.append(len(depths))
        context.transaction.put("orders", {"id": "a", "n": len(depths)})

    async with open_database() as db:
        orders = await table(db)
        await db.add_trigger("orders", again, name="again")
        await orders.put({"id": "a", "n": -1})
        with trio.fail_after(20):
            await db.drain()
        (failed,) = db.triggers.failed_batches("again")
        assert failed.condition == "RecursiveLoopDetected"
    assert len(depths) == 16


async def test_a_loop_through_the_python_api_is_capped_too() -> None:
    depths = []

    async with open_database() as db:
        orders = await table(db)

        async def again(event: Any, context: Any) -> None:
            depths.append(len(depths))
            await orders.put({"id": "a", "n": len(depths)})

        await db.add_trigger("orders", again, name="again")
        await orders.put({"id": "a", "n": -1})
        with trio.fail_after(20):
            await db.drain()
    assert len(depths) == 16


async def test_a_failing_handler_leaves_others_alone() -> None:
    seen: list[tuple[str, str]] = []

    async def bad(event: Any, context: Any) -> None:
        raise ValueError

    all_seen = trio.Event()

    async def good(event: Any, context: Any) -> None:
        seen.extend(names(event))
        if len(seen) == 20:
            all_seen.set()

    async with open_database() as db:
        orders = await table(db)
        await db.add_trigger("orders", bad, name="bad")
        await db.add_trigger("orders", good, name="good")
        for number in range(20):
            await orders.put({"id": str(number)})
        with trio.fail_after(10):
            await all_seen.wait()
        await db.triggers.delete("bad")
        await db.drain()


async def test_a_stream_that_is_enabled_again_goes_on() -> None:
    seen: list[tuple[str, str]] = []

    async def see(event: Any, context: Any) -> None:
        seen.extend(names(event))

    async with open_database() as db:
        orders = await table(db)
        await db.add_trigger("orders", see)
        await orders.put({"id": "a"})
        await db.disable_stream("orders")
        await orders.put({"id": "unseen"})
        await db.enable_stream("orders", "KEYS_ONLY")
        await orders.put({"id": "b"})
        await db.drain()
    assert seen == [("INSERT", "a"), ("INSERT", "b")]


async def test_names_are_taken_once() -> None:
    triggers = Triggers()

    async def handler(event: Any, context: Any) -> None: ...

    triggers.on_change("orders", name="x")(handler)
    with pytest.raises(InvalidRequest, match="registered already"):
        triggers.on_change("orders", name="x")(handler)
    async with open_database(triggers=triggers) as db:
        with pytest.raises(ResourceInUse, match="registered already"):
            await db.add_trigger("orders", handler, name="x")
        with pytest.raises(InvalidRequest, match="BatchSize|batchSize"):
            await db.add_trigger("orders", handler, name="y", batch_size=0)


async def test_the_decorated_function_stays_what_it_is() -> None:
    triggers = Triggers()

    @triggers.on_change("orders")
    def handler(event: Any, context: Any) -> str:
        return "plain"

    assert handler({}, None) == "plain"
    (trigger,) = triggers
    assert trigger.name.endswith("handler")


async def test_a_table_that_is_gone_is_an_error_like_any_other() -> None:
    """A handler that writes to it fails and is tried again; its mapping goes on."""
    attempts = []

    async def copy(event: Any, context: Any) -> None:
        attempts.append(1)
        context.transaction.put("copies", {"id": "a"})

    async with open_database() as db:
        orders = await table(db)
        await db.add_trigger("orders", copy, name="copy", maximum_retry_attempts=1)
        await orders.put({"id": "a"})
        await db.drain()
        (failed,) = db.triggers.failed_batches("copy")
        assert failed.error_type == "ResourceNotFound"
        copies = await table(db, "copies")
        await orders.put({"id": "b"})
        await db.drain()
        assert await copies.get({"id": "a"}) == {"id": "a"}
    assert len(attempts) == 3


async def test_checkpoints_of_what_is_no_more_are_removed(tmp_path: Path) -> None:
    async def see(event: Any, context: Any) -> None: ...

    async with open_database(tmp_path / "data") as db:
        orders = await table(db)
        await db.add_trigger("orders", see, name="see")
        await orders.put({"id": "a"})
        await db.drain()
        checkpoints = db._mappings._tools.checkpoints
        rows = len(list(checkpoints._partition.rows(checkpoints_tree(), b"", None)))
        assert rows == 1
        # As if a crash had come between the mapping's removal and its rows'.
        await db._mappings._catalog.remove_entry("mapping", db.triggers.list()[0].uuid)
    async with open_database(tmp_path / "data") as db:
        checkpoints = db._mappings._tools.checkpoints
        assert not list(checkpoints._partition.rows(checkpoints_tree(), b"", None))


def checkpoints_tree() -> int:
    from millstream.actors.checkpoints import CHECKPOINTS_TREE

    return CHECKPOINTS_TREE


async def test_chains_that_end_are_no_loop_however_many_share_a_batch() -> None:
    """A handler that writes to its own table three times an item, for many items at once."""

    async def age(event: Any, context: Any) -> None:
        for record in event["Records"]:
            image = record["dynamodb"]["NewImage"]
            version = int(image["v"]["N"])
            if version < 3:
                key = f"{image['id']['S'].partition(' ')[0]} {version + 1}"
                await things.put({"id": key, "v": version + 1})

    async with open_database() as db:
        things = await table(db, "things")
        await db.add_trigger("things", age, name="age", batch_size=20)
        for number in range(200):
            await things.put({"id": str(number), "v": 1})
        with trio.fail_after(30):
            await db.drain()
        assert db.triggers.failed_batches("age") == []
        assert len([item async for item in things.scan()]) == 600


async def test_writers_do_not_wake_a_trigger_that_has_no_room(monkeypatch: Any) -> None:
    # Each commit would cost the writers a look at everything that waits.
    seen: list[tuple[str, str]] = []
    may_go_on = trio.Event()

    async def wait(event: Any, context: Any) -> None:
        await may_go_on.wait()
        seen.extend(names(event))

    looks = []
    ready = Shard.ready

    def counted(shard: Shard, *arguments: Any) -> Any:
        looks.append(shard)
        return ready(shard, *arguments)

    monkeypatch.setattr(Shard, "ready", counted)
    async with open_database() as db:
        orders = await table(db)
        await db.add_trigger("orders", wait, name="wait")
        await orders.put_many({"id": f"{number:04}"} for number in range(1200))
        await trio.testing.wait_all_tasks_blocked()
        assert looks
        looks.clear()
        for number in range(1200, 1210):
            await orders.put({"id": f"{number:04}"})
            await trio.testing.wait_all_tasks_blocked()
        assert looks == []
        may_go_on.set()
        await db.drain()
    assert len(seen) == 1210




async def test_others_have_their_turn_while_a_large_batch_is_made(monkeypatch: Any) -> None:
    turns, made_at = 0, []
    made = Renderer.event_record

    def noted(renderer: Renderer, change: Any) -> Any:
        made_at.append(turns)
        return made(renderer, change)

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async def see(event: Any, context: Any) -> None:
        assert len(event["Records"]) == 1000

    monkeypatch.setattr(Renderer, "event_record", noted)
    async with open_database() as db:
        orders = await table(db)
        await db.enable_stream("orders")
        await orders.put_many({"id": f"{number:04}"} for number in range(1000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_turns)
            await db.add_trigger("orders", see, batch_size=1000, maximum_retry_attempts=0)
            await db.drain()
            nursery.cancel_scope.cancel()
        assert [statistics.batches for statistics in db.triggers.statistics()] == [1]
    assert len(made_at) == 1000
    assert made_at[-1] - made_at[0] >= 5
