"""What ``millstream.testing`` gives to tests of handlers is what real triggers give to handlers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import trio
import trio.testing

from millstream.database import open_database
from millstream.errors import InvalidRequest
from millstream.streams.sequence import parse_sequence
from millstream.testing import ManualClock, lambda_context, stream_event

VIEWS = ("KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES")
EVERY_TYPE = {
    "s": "text", "n": 1, "d": Decimal("1.5"), "b": b"\x00\xff", "t": True, "z": None,
    "l": [1, "x", []], "m": {"deep": {"er": 1}}, "ss": {"a", "b"}, "ns": {1, 2}, "bs": {b"a"},
}  # fmt: skip
OLD = {"customer": "ada", "number": 7, "v": 1}
NEW = {"customer": "ada", "number": 7, **EVERY_TYPE}


def without_identity(event: dict[str, Any]) -> dict[str, Any]:
    """The event but for what says which record of which shard each is."""
    for record in event["Records"]:
        assert isinstance(record.pop("eventID"), str)
        assert parse_sequence(record["dynamodb"].pop("SequenceNumber")) is not None
    if "shardId" in event:
        assert event.pop("shardId").startswith("shardId-")
    return event


async def real_events(clock: ManualClock, **options: Any) -> list[dict[str, Any]]:
    """What a trigger is given for an insertion, a change and a removal."""
    events = []

    async def see(event: Any, context: Any) -> dict[str, Any]:
        events.append(event)
        return {"state": {"seen": len(events)}}

    async with open_database(clock=clock) as db:
        orders = await db.create_table("orders", partition_key="customer", sort_key=("number", int))
        await db.add_trigger("orders", see, **options)
        await orders.put(OLD)
        await orders.put(NEW)
        await orders.delete({"customer": "ada", "number": 7})
        with clock.jumping():
            await db.drain()
    return events


@pytest.mark.parametrize("view", VIEWS)
async def test_an_event_is_the_one_that_a_trigger_gives(view: Any) -> None:
    at = datetime(2024, 5, 6, 7, 8, 9, 123_000, tzinfo=UTC)
    (real,) = await real_events(ManualClock(at), window=1, stream_view=view)
    made = stream_event(
        ("INSERT", OLD), ("MODIFY", OLD, NEW), ("REMOVE", NEW),
        key=("customer", "number"), table="orders", view=view, at=at,
    )  # fmt: skip
    assert [list(record["dynamodb"]) for record in made["Records"]] == [
        list(record["dynamodb"]) for record in real["Records"]
    ]
    assert without_identity(made) == without_identity(real)


async def test_events_of_a_tumbling_window_too() -> None:
    at = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    first, last = await real_events(ManualClock(at), tumbling_window=60, window=1)
    changes = (("INSERT", OLD), ("MODIFY", OLD, NEW), ("REMOVE", NEW))
    options: dict[str, Any] = {"key": ("customer", "number"), "table": "orders", "at": at}
    made = stream_event(*changes, state={}, **options)
    assert made["window"] == {"start": "2024-05-06T07:08:00Z", "end": "2024-05-06T07:09:00Z"}
    assert without_identity(made) == without_identity(first)
    made = stream_event(state={"seen": 1}, is_final=True, **options)
    assert without_identity(made) == without_identity(last)


def test_records_have_numbers_of_their_own_in_order() -> None:
    event = stream_event(*[("INSERT", {"id": str(number)}) for number in range(20)])
    numbers = [record["dynamodb"]["SequenceNumber"] for record in event["Records"]]
    assert numbers == sorted(set(numbers))
    assert len({record["eventID"] for record in event["Records"]}) == 20


def test_a_single_change_by_what_was_and_what_is() -> None:
    a, b = {"id": 1, "n": 1}, {"id": 1, "n": 2}
    assert stream_event(new=a) == stream_event(("INSERT", a))
    assert stream_event(old=a) == stream_event(("REMOVE", a))
    assert stream_event(old=a, new=b) == stream_event(("MODIFY", a, b))
    assert stream_event() == {"Records": []}


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ([("UPSERT", {"id": "a"})], {}, "is not"),
        ([("INSERT", {"id": "a"}, {"id": "a"})], {}, "is not"),
        ([("INSERT", {"no": "a"})], {}, "lacks its key 'id'"),
        ([("INSERT", {"id": [1]})], {}, "lacks its key 'id'"),
        ([("MODIFY", {"id": "a"}, {"id": "b"})], {}, "leaves an item's key"),
        ([("INSERT", {"id": "a"})], {"key": ()}, "one attribute or two"),
        ([("INSERT", {"id": object()})], {}, "no form in DynamoDB"),
        ([("INSERT", {"id": "a"})], {"view": "BOTH"}, "view is one of"),
    ],
)
def test_changes_that_cannot_be_are_refused(changes: Any, options: Any, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        stream_event(*changes, **options)


def test_a_context_is_lambdas(capsys: pytest.CaptureFixture[str]) -> None:
    clock = ManualClock()
    context = lambda_context("orders", timeout=3, memory_limit_mb=256, clock=clock)
    assert context.function_name == "orders"
    assert context.invoked_function_arn.endswith(":function:orders")
    assert context.memory_limit_in_mb == "256"
    assert context.get_remaining_time_in_millis() == 3000
    clock.advance(1.25)
    assert context.get_remaining_time_in_millis() == 1750
    context.log("said")
    assert capsys.readouterr().out == "said\n"


async def test_a_handlers_transaction_is_committed_by_the_test() -> None:
    async def count(event: Any, context: Any) -> None:
        context.transaction.put("counts", {"id": "all", "n": len(event["Records"])})

    async with open_database() as db:
        counts = await db.create_table("counts", partition_key="id")
        async with db.transaction() as transaction:
            event = stream_event(("INSERT", {"id": "a"}), ("INSERT", {"id": "b"}))
            await count(event, lambda_context(transaction=transaction))
        assert await counts.get({"id": "all"}) == {"id": "all", "n": 2}


def test_the_clock_moves_when_told() -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    clock = ManualClock(start)
    told = []
    stop = clock.when_moved(lambda: told.append(clock.now))
    clock.advance(0.5)
    clock.advance(timedelta(minutes=2))
    stop()
    clock.advance(1)
    assert told == [start + timedelta(seconds=0.5), start + timedelta(seconds=120.5)]
    assert clock.now == start + timedelta(seconds=121.5)
    assert clock.monotonic_seconds() == 121.5
    for wrong in (-1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="forwards"):
            clock.advance(wrong)


async def test_while_the_clock_jumps_nobody_waits() -> None:
    clock, attempts = ManualClock(), []

    async def flaky(event: Any, context: Any) -> None:
        attempts.append(clock.now)
        if len(attempts) < 5:
            raise ValueError

    async with open_database(clock=clock) as db:
        orders = await db.create_table("orders", partition_key="id")
        await db.add_trigger("orders", flaky, window=300)
        await orders.put({"id": "a"})
        with clock.jumping(), trio.fail_after(10):
            await db.drain()
        now = clock.now
        await orders.put({"id": "b"})
        await trio.testing.wait_all_tasks_blocked()
        assert clock.now == now
    assert attempts[0] - datetime(2024, 1, 1, tzinfo=UTC) == timedelta(seconds=300)
    assert attempts == sorted(set(attempts))
    assert len(attempts) == 5
