"""Every parameter of a mapping that says what a handler is given and when, at its boundaries.

Through the Python API, on a real database in memory, whose clock only the tests move. What happens
when handlers fail is in ``test_parameters_failures.py``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import trio

from millstream.database import Database, Table, open_database
from millstream.errors import InvalidRequest
from millstream.testing import ManualClock
from millstream.triggers import make_trigger

from .conftest import Calls, drain, ids, quiet, write

BOUNDS = [
    ("batch_size", 1, 10_000),
    ("window", 0, 300),
    ("parallelization_factor", 1, 10),
    ("maximum_retry_attempts", -1, 10_000),
    ("maximum_record_age", 60, 604_800),
    ("tumbling_window", 0, 900),
]


@pytest.mark.parametrize(("name", "lowest", "highest"), BOUNDS)
def test_numbers_are_taken_within_their_bounds(name: str, lowest: int, highest: int) -> None:
    handler = Calls().handler
    for value in (lowest, highest):
        make_trigger("orders", handler, **{name: value})
    for value in (lowest - 1, highest + 1, math.nan, "1", None):
        with pytest.raises(InvalidRequest):
            make_trigger("orders", handler, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"maximum_record_age": 0}, "MaximumRecordAgeInSeconds"),
        ({"starting_position": "AT_TIMESTAMP"}, "AT_TIMESTAMP"),
        ({"starting_position": "NEWEST"}, "startingPosition"),
        ({"tumbling_window": 60, "parallelization_factor": 2}, "ParallelizationFactor"),
        ({"filter": "{"}, "pattern"),
        ({"filter": [{"dynamodb": {}}] * 11}, "filters"),
        ({"isolation": "thread"}, "isolation"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": math.inf}, "timeout"),
        ({"timeout": math.nan}, "timeout"),
        ({"timeout": "1"}, "timeout"),
        ({"memory_limit_mb": 0}, "memory_limit_mb"),
        ({"memory_limit_mb": 0.5}, "memory_limit_mb"),
        ({"stream_view": "BOTH"}, "stream_view"),
        ({"name": "n" * 1000}, "name"),
        ({"name": 1}, "name"),
        ({"on_failure": 1}, "on_failure"),
        ({"filter": 1}, "filter"),
        ({"filter": [1]}, "filter"),
        ({"filter": {"a": object()}}, "filter"),
    ],
)
def test_what_makes_no_sense_is_refused(options: Any, said: str) -> None:
    with pytest.raises(InvalidRequest, match=f"(?i){said}"):
        make_trigger("orders", Calls().handler, **options)


# batch_size


@pytest.mark.parametrize(
    ("batch_size", "batches"),
    [(1, list("abcde")), (2, ["ab", "cd", "e"]), (5, ["abcde"]), (10_000, ["abcde"])],
)
async def test_batch_size(db: Database, orders: Table, batch_size: int, batches: list[str]) -> None:
    await write(orders, "abcde")
    calls = Calls()
    await db.add_trigger("orders", calls.handler, batch_size=batch_size)
    await db.drain()
    assert calls.batches == batches


# window


async def test_a_batch_waits_until_its_window_has_passed(
    db: Database, orders: Table, clock: ManualClock
) -> None:
    calls = Calls()
    await db.add_trigger("orders", calls.handler, window=10, batch_size=3)
    await write(orders, "a")
    clock.advance(9)
    await write(orders, "b")
    clock.advance(0.999)
    await quiet()
    assert calls.batches == []
    # Ten seconds after the first of them arrived.
    clock.advance(0.001)
    await db.drain()
    assert calls.batches == ["ab"]


async def test_a_batch_that_is_full_waits_no_longer(db: Database, orders: Table) -> None:
    calls = Calls()
    await db.add_trigger("orders", calls.handler, window=300, batch_size=3)
    await write(orders, "abcd")
    await quiet()
    assert calls.batches == ["abc"]


async def test_windows_of_a_fraction_of_a_second(
    db: Database, orders: Table, clock: ManualClock
) -> None:
    calls = Calls()
    await db.add_trigger("orders", calls.handler, window=0.25)
    await write(orders, "a")
    clock.advance(0.249)
    await quiet()
    assert calls.batches == []
    clock.advance(0.001)
    await db.drain()
    assert calls.batches == ["a"]


# parallelization_factor


@pytest.mark.parametrize("factor", [1, 2, 10])
async def test_batches_of_different_keys_run_at_once(
    db: Database, orders: Table, factor: int
) -> None:
    """As many as the factor says; all changes of one item one after the other."""
    items = [f"item {number}" for number in range(60)]
    for n in range(3):
        await orders.put_many({"id": item, "n": n} for item in items)
    running, most, enough = 0, 0, trio.Event()
    taken: dict[str, list[int]] = defaultdict(list)
    held: set[str] = set()

    async def slow(event: Any, context: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        images = [record["dynamodb"]["NewImage"] for record in event["Records"]]
        here = {image["id"]["S"] for image in images}
        assert not here & held
        held.update(here)
        if running == factor:
            enough.set()
        # Nobody goes on before as many run as there may be.
        with trio.fail_after(5):
            await enough.wait()
        await trio.lowlevel.checkpoint()
        for image in images:
            taken[image["id"]["S"]].append(int(image["n"]["N"]))
        held.difference_update(here)
        running -= 1

    await db.add_trigger("orders", slow, parallelization_factor=factor, batch_size=4)
    with trio.fail_after(10):
        await db.drain()
    assert most == factor
    assert taken == {item: [0, 1, 2] for item in items}


async def test_a_slow_key_does_not_hold_up_others(db: Database, orders: Table) -> None:
    go, done = trio.Event(), []

    async def handler(event: Any, context: Any) -> None:
        if ids(event) == "a":
            await go.wait()
        done.append(ids(event))

    await db.add_trigger("orders", handler, parallelization_factor=10, batch_size=1)
    await write(orders, "abcdefgha")
    await quiet()
    # Those that share a's lane wait with it.
    assert len(done) >= 5 and "a" not in done
    go.set()
    await db.drain()
    assert sorted(done) == sorted("abcdefgha")


# starting_position


@pytest.mark.parametrize(
    ("position", "seen"), [("TRIM_HORIZON", ["old", "new"]), ("LATEST", ["new"])]
)
async def test_starting_position(tmp_path: Path, position: Any, seen: list[str]) -> None:
    calls = Calls()
    async with open_database(tmp_path / "data") as db:
        orders = await db.create_table("orders", partition_key="id", stream="KEYS_ONLY")
        await orders.put({"id": "old"})
        await db.add_trigger("orders", calls.handler, name="h", starting_position=position)
        await orders.put({"id": "new"})
        await db.drain()
    assert calls.batches == seen
    # It counts once: later, neither position has anything skipped or repeated.
    for other in ("LATEST", "TRIM_HORIZON"):
        async with open_database(tmp_path / "data") as db:
            await db.table("orders").put({"id": other})
            await db.add_trigger("orders", calls.handler, name="h", starting_position=other)
            await db.drain()
        seen = [*seen, other]
        assert calls.batches == seen


async def test_latest_without_a_stream_or_a_table_begins_with_the_first_change() -> None:
    calls = Calls()
    async with open_database() as db:
        plain = await db.create_table("plain", partition_key="id")
        await plain.put({"id": "x"})
        for table in ("plain", "later"):
            await db.add_trigger(table, calls.handler, name=table, starting_position="LATEST")
        later = await db.create_table("later", partition_key="id")
        await plain.put({"id": "y"})
        await later.put({"id": "z"})
        await db.drain()
    assert sorted(calls.batches) == ["y", "z"]


# filter


MODIFY_OF_B = {"eventName": ["MODIFY"], "dynamodb": {"Keys": {"id": {"S": ["b"]}}}}


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({"eventName": ["INSERT"]}, "abc"),
        ('{"eventName": ["REMOVE"]}', "a"),
        ([{"eventName": ["REMOVE"]}, MODIFY_OF_B], "ba"),
        ({"dynamodb": {"NewImage": {"n": {"N": ["2", "3"]}}}}, "cb"),
        # Numbers travel as text, which is why AWS says that numeric matching is not for them.
        ({"dynamodb": {"NewImage": {"n": {"N": [{"numeric": [">=", 2]}]}}}}, ""),
        ({"dynamodb": {"OldImage": {"n": {"N": [{"exists": True}]}}}}, "ba"),
        ((), "abcba"),
    ],
)
async def test_filter(db: Database, orders: Table, filter: Any, expected: str) -> None:
    calls = Calls()
    await db.add_trigger("orders", calls.handler, filter=filter)
    await write(orders, "abcb")
    await orders.delete({"id": "a"})
    await db.drain()
    assert "".join(calls.batches) == expected


async def test_records_that_do_not_match_are_done(tmp_path: Path) -> None:
    """They neither run the handler nor are looked at again: the checkpoint is behind them."""
    async with open_database(tmp_path / "data") as db:
        orders = await db.create_table("orders", partition_key="id")
        calls = Calls()
        await db.add_trigger("orders", calls.handler, name="h", filter={"eventName": ["REMOVE"]})
        await write(orders, "abcde")
        await db.drain()
        assert calls.batches == []
    async with open_database(tmp_path / "data") as db:
        await db.add_trigger("orders", calls.handler, name="h")
        await db.drain()
        assert calls.batches == []
        await write(db.table("orders"), "f")
        await db.drain()
        assert calls.batches == ["f"]


async def test_a_batch_is_filled_with_records_that_match(db: Database, orders: Table) -> None:
    await write(orders, "axbxcxdx")
    calls = Calls()
    not_x = {"dynamodb": {"Keys": {"id": {"S": [{"anything-but": ["x"]}]}}}}
    await db.add_trigger("orders", calls.handler, filter=not_x, batch_size=2)
    await db.drain()
    assert calls.batches == ["ab", "cd"]


# tumbling_window


def counting(event: dict[str, Any]) -> dict[str, Any]:
    """Keeps the ids of a window's records in its state."""
    return {"state": {"ids": event["state"].get("ids", "") + ids(event)}}


def windows(calls: Calls) -> list[tuple[str, str, str, bool]]:
    """(start of the window, records, state before, is it the final call) of each invocation."""
    return [
        (
            event["window"]["start"][14:19],
            ids(event),
            event["state"].get("ids", ""),
            event["isFinalInvokeForWindow"],
        )
        for event in calls.events
    ]


async def test_a_tumbling_window_has_state_and_an_end(
    db: Database, orders: Table, clock: ManualClock
) -> None:
    calls = Calls(counting)
    await db.add_trigger("orders", calls.handler, tumbling_window=60)
    await write(orders, "ab")
    await db.drain()
    clock.advance(59.999)
    await write(orders, "c")
    await quiet()
    assert not any(is_final for *_, is_final in windows(calls))
    clock.advance(0.001)
    await quiet()
    assert windows(calls)[-1] == ("00:00", "", "abc", True)
    clock.advance(60)
    await write(orders, "d")
    await quiet()
    assert windows(calls)[-1] == ("02:00", "d", "", False)
    assert [call[0] for call in windows(calls)] == ["00:00"] * (len(calls.events) - 1) + ["02:00"]


async def test_a_batch_does_not_span_two_windows(
    db: Database, orders: Table, clock: ManualClock
) -> None:
    await write(orders, "ab")
    clock.advance(60)
    await write(orders, "cd")
    calls = Calls(counting)
    await db.add_trigger("orders", calls.handler, tumbling_window=60)
    await db.drain()
    assert windows(calls) == [
        ("00:00", "ab", "", False),
        ("00:00", "", "ab", True),
        ("01:00", "cd", "", False),
    ]


@pytest.mark.parametrize("seconds", [1, 900])
async def test_the_shortest_and_the_longest_window(
    db: Database, orders: Table, clock: ManualClock, seconds: int
) -> None:
    calls = Calls(counting)
    await db.add_trigger("orders", calls.handler, tumbling_window=seconds)
    await write(orders, "a")
    clock.advance(seconds - 0.001)
    await quiet()
    assert windows(calls) == [("00:00", "a", "", False)]
    clock.advance(0.001)
    await quiet()
    assert windows(calls)[1:] == [("00:00", "", "a", True)]


async def test_the_state_of_a_window_survives_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    calls = Calls(counting)
    for letter in "abc":
        async with open_database(tmp_path / "data", clock=clock) as db:
            if letter == "a":
                await db.create_table("orders", partition_key="id")
            await db.add_trigger("orders", calls.handler, name="h", tumbling_window=60)
            await write(db.table("orders"), letter)
            await db.drain()
    # It may end while nobody runs.
    clock.advance(60)
    async with open_database(tmp_path / "data", clock=clock) as db:
        await db.add_trigger("orders", calls.handler, name="h", tumbling_window=60)
        await quiet()
    assert windows(calls) == [
        ("00:00", "a", "", False),
        ("00:00", "b", "a", False),
        ("00:00", "c", "ab", False),
        ("00:00", "", "abc", True),
    ]


async def test_a_handler_may_change_the_state_that_it_is_given(
    db: Database, orders: Table, clock: ManualClock
) -> None:
    """And fail afterwards: the next attempt is given what the last success has returned."""
    counts: list[int] = []

    def count(event: dict[str, Any]) -> dict[str, Any]:
        state = event["state"]
        for record in event["Records"]:
            letter = record["dynamodb"]["Keys"]["id"]["S"]
            state.setdefault("seen", []).append(letter)
        counts.append(len(state.get("seen", [])))
        if len(counts) in (2, 4):
            raise ValueError
        return {"state": state}

    calls = Calls(count)
    await db.add_trigger("orders", calls.handler, tumbling_window=60, batch_size=1)
    await write(orders, "ab")
    await drain(db, clock)
    clock.advance(60)
    await quiet()
    clock.advance(1)
    await quiet()
    # a, b and again, the final call and again.
    assert counts == [1, 2, 2, 2, 2]


async def test_an_answer_without_state_is_a_failure(
    db: Database, orders: Table, clock: ManualClock
) -> None:
    calls = Calls(lambda event: None if len(calls.events) == 1 else counting(event))
    await db.add_trigger("orders", calls.handler, tumbling_window=60)
    await write(orders, "a")
    await drain(db, clock)
    assert windows(calls)[:2] == [("00:00", "a", "", False)] * 2


# enabled


async def test_a_mapping_that_is_not_enabled_waits(db: Database, orders: Table) -> None:
    calls = Calls()
    await db.add_trigger("orders", calls.handler, name="h", enabled=False)
    await write(orders, "ab")
    await db.drain()
    assert calls.batches == []
    assert db.triggers.list()[0].state == "Disabled"
    await db.triggers.resume("h")
    await db.drain()
    assert "".join(calls.batches) == "ab"
    assert db.triggers.list()[0].state == "Enabled"


# stream_view


@pytest.mark.parametrize(
    ("view", "images"),
    [
        ("KEYS_ONLY", []),
        ("NEW_IMAGE", ["NewImage"]),
        ("OLD_IMAGE", ["OldImage"]),
        ("NEW_AND_OLD_IMAGES", ["NewImage", "OldImage"]),
    ],
)
@pytest.mark.parametrize("is_there", [True, False])
async def test_stream_view_is_that_of_the_stream_which_is_made(
    db: Database, view: str, images: list[str], is_there: bool
) -> None:
    calls = Calls()
    if is_there:
        await db.create_table("plain", partition_key="id")
    await db.add_trigger("plain", calls.handler, stream_view=view)
    if not is_there:
        await db.create_table("plain", partition_key="id")
    await write(db.table("plain"), "aa")
    await db.drain()
    inner = calls.events[-1]["Records"][-1]["dynamodb"]
    assert inner["StreamViewType"] == view
    assert [name for name in inner if name.endswith("Image")] == images


async def test_a_stream_that_the_table_has_stays_as_it_is(db: Database, orders: Table) -> None:
    calls = Calls()
    await db.add_trigger("orders", calls.handler, stream_view="KEYS_ONLY")
    await write(orders, "a")
    await db.drain()
    assert calls.events[0]["Records"][0]["dynamodb"]["StreamViewType"] == "NEW_AND_OLD_IMAGES"
