"""Every parameter of a mapping that says what happens when its handler fails, at its boundaries."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from millstream.actors.destinations import FailedBatch
from millstream.database import Database, Table, open_database
from millstream.testing import ManualClock

from .conftest import Calls, drain, ids, quiet, write


def failing(*letters: str, times: int = 10**9) -> Calls:
    """Fails for a batch with any of these letters, the first ``times`` times."""
    failures = 0

    def act(event: dict[str, Any]) -> None:
        nonlocal failures
        if failures < times and any(letter in ids(event) for letter in letters):
            failures += 1
            raise ValueError("poisoned")

    return Calls(act)


def given_up(db: Database) -> list[tuple[str, int]]:
    """(condition, invocations) of each batch that was given up."""
    return [(batch.condition, batch.attempts) for batch in db.triggers.failed_batches("h")]


# bisect_batch_on_function_error


async def test_a_batch_that_failed_is_bisected(
    db: Database, orders: Table, clock: ManualClock
) -> None:
    await write(orders, "abcdefgh")
    calls = failing("f")
    await db.add_trigger(
        "orders", calls.handler, name="h", bisect_batch_on_function_error=True,
        maximum_retry_attempts=0,
    )  # fmt: skip
    await drain(db, clock)
    assert calls.batches == ["abcdefgh", "abcd", "efgh", "ef", "e", "f", "gh"]
    # Halving is no attempt: a batch of one record has those that are configured.
    assert given_up(db) == [("RetryAttemptsExhausted", 1)]


async def test_two_poisoned_records_are_found(
    db: Database, orders: Table, clock: ManualClock
) -> None:
    await write(orders, "abcde")
    calls = failing("a", "e")
    await db.add_trigger(
        "orders", calls.handler, name="h", bisect_batch_on_function_error=True,
        maximum_retry_attempts=1,
    )  # fmt: skip
    await drain(db, clock)
    assert calls.batches == ["abcde", "ab", "a", "a", "b", "cde", "c", "de", "d", "e", "e"]
    assert given_up(db) == [("RetryAttemptsExhausted", 2)] * 2


async def test_without_bisecting_a_batch_stays_whole(
    db: Database, orders: Table, clock: ManualClock
) -> None:
    await write(orders, "abc")
    calls = failing("b", times=2)
    await db.add_trigger("orders", calls.handler, name="h")
    await drain(db, clock)
    assert calls.batches == ["abc", "abc", "abc"]


# maximum_retry_attempts


@pytest.mark.parametrize(("attempts", "invocations"), [(0, 1), (1, 2), (3, 4)])
async def test_maximum_retry_attempts(
    db: Database, orders: Table, clock: ManualClock, attempts: int, invocations: int
) -> None:
    await write(orders, "abc")
    calls = failing("b")
    await db.add_trigger(
        "orders", calls.handler, name="h", batch_size=1, maximum_retry_attempts=attempts
    )
    await drain(db, clock)
    assert "".join(calls.batches) == "a" + "b" * invocations + "c"
    assert given_up(db) == [("RetryAttemptsExhausted", invocations)]


async def test_retries_for_ever_end_when_the_handler_is_well(
    db: Database, orders: Table, clock: ManualClock
) -> None:
    await write(orders, "a")
    calls = failing("a", times=100)
    await db.add_trigger("orders", calls.handler, name="h")
    await drain(db, clock)
    assert calls.batches == ["a"] * 101
    assert given_up(db) == []


async def test_retries_wait_longer_and_longer(
    db: Database, orders: Table, clock: ManualClock
) -> None:
    await write(orders, "a")
    calls = failing("a", times=3)
    await db.add_trigger("orders", calls.handler, name="h")
    for seconds in (0.1, 0.2, 0.4):
        await quiet()
        before = len(calls.batches)
        clock.advance(seconds - 0.001)
        await quiet()
        assert len(calls.batches) == before
        clock.advance(0.001)
        await quiet()
        assert len(calls.batches) == before + 1
    await db.drain()


# maximum_record_age


async def test_records_are_given_up_when_they_are_too_old(
    db: Database, orders: Table, clock: ManualClock
) -> None:
    calls = failing("a")
    await db.add_trigger("orders", calls.handler, name="h", maximum_record_age=60, batch_size=1)
    await write(orders, "a")
    await quiet()
    clock.advance(60)
    await quiet()
    # At sixty seconds to the millisecond it is old enough, and tried.
    assert calls.batches == ["a", "a"]
    await write(orders, "b")
    clock.advance(0.001)
    with trio.fail_after(5):
        await db.drain()
    assert calls.batches == ["a", "a", "b"]
    assert given_up(db) == [("RecordAgeExceeded", 2)]


async def test_records_that_were_too_old_from_the_start_are_never_tried(
    db: Database, orders: Table, clock: ManualClock
) -> None:
    await write(orders, "ab")
    clock.advance(60.001)
    await write(orders, "c")
    calls = Calls()
    await db.add_trigger("orders", calls.handler, name="h", maximum_record_age=60)
    await db.drain()
    assert calls.batches == ["c"]
    assert given_up(db) == [("RecordAgeExceeded", 0)]
    (batch,) = db.triggers.failed_batches("h")
    assert len(batch.sequences) == 2


async def test_without_an_age_records_do_not_expire(
    db: Database, orders: Table, clock: ManualClock
) -> None:
    await write(orders, "a")
    clock.advance(23 * 3600)
    calls = Calls()
    await db.add_trigger("orders", calls.handler)
    await db.drain()
    assert calls.batches == ["a"]


# report_batch_item_failures


def number_of(event: dict[str, Any], letter: str) -> str:
    """The sequence number of a letter's record; "" if the batch has none."""
    for record in event["Records"]:
        if record["dynamodb"]["Keys"]["id"]["S"] == letter:
            number: str = record["dynamodb"]["SequenceNumber"]
            return number
    return ""


def failures(event: dict[str, Any], letters: str) -> dict[str, Any]:
    """The answer that names these letters' records as failed."""
    return {
        "batchItemFailures": [{"itemIdentifier": number_of(event, letter)} for letter in letters]
    }


@pytest.mark.parametrize(
    "answer",
    [
        None, {}, [], "", {"batchItemFailures": []}, {"batchItemFailures": None},
        {"somethingElse": 1},
    ],
)  # fmt: skip
async def test_answers_that_mean_success(db: Database, orders: Table, answer: Any) -> None:
    await write(orders, "abc")
    calls = Calls(lambda event: answer)
    await db.add_trigger("orders", calls.handler, report_batch_item_failures=True)
    with trio.fail_after(5):
        await db.drain()
    assert calls.batches == ["abc"]


@pytest.mark.parametrize(
    "answer",
    [
        {"batchItemFailures": [{"itemIdentifier": ""}]},
        {"batchItemFailures": [{"itemIdentifier": None}]},
        {"batchItemFailures": [{"itemIdentifier": 7}]},
        {"batchItemFailures": [{"itemIdentifier": "1" + "0" * 20}]},
        {"batchItemFailures": [{"badKey": "1"}]},
        {"batchItemFailures": [None]},
        {"batchItemFailures": "b"},
        "text",
        7,
        [1],
    ],
)
async def test_answers_that_mean_failure_of_all(
    db: Database, orders: Table, clock: ManualClock, answer: Any
) -> None:
    await write(orders, "abc")
    calls = Calls(lambda event: answer if len(calls.events) == 1 else None)
    await db.add_trigger("orders", calls.handler, report_batch_item_failures=True)
    await drain(db, clock)
    assert calls.batches == ["abc", "abc"]


@pytest.mark.parametrize(
    ("letters", "batches"),
    [
        ("a", ["abcd", "abcd"]),
        ("b", ["abcd", "bcd"]),
        ("d", ["abcd", "d"]),
        ("db", ["abcd", "bcd"]),
        ("bb", ["abcd", "bcd"]),
        ("dcba", ["abcd", "abcd"]),
    ],
)
async def test_what_comes_before_the_first_failed_record_is_done(
    db: Database, orders: Table, clock: ManualClock, letters: str, batches: list[str]
) -> None:
    await write(orders, "abcd")
    calls = Calls(lambda event: failures(event, letters) if len(calls.events) == 1 else None)
    await db.add_trigger("orders", calls.handler, report_batch_item_failures=True)
    await drain(db, clock)
    assert calls.batches == batches


async def test_progress_begins_attempts_anew(
    db: Database, orders: Table, clock: ManualClock
) -> None:
    await write(orders, "abc")
    calls = Calls(lambda event: failures(event, "c"))
    await db.add_trigger(
        "orders", calls.handler, name="h", report_batch_item_failures=True,
        maximum_retry_attempts=1,
    )  # fmt: skip
    await drain(db, clock)
    assert calls.batches == ["abc", "c", "c"]
    assert given_up(db) == [("RetryAttemptsExhausted", 2)]


async def test_bisecting_begins_where_the_failure_was_reported(
    db: Database, orders: Table, clock: ManualClock
) -> None:
    await write(orders, "abcdef")
    calls = Calls(lambda event: failures(event, "c") if "c" in ids(event) else None)
    await db.add_trigger(
        "orders", calls.handler, name="h", report_batch_item_failures=True,
        bisect_batch_on_function_error=True, maximum_retry_attempts=0,
    )  # fmt: skip
    await drain(db, clock)
    assert calls.batches == ["abcdef", "cdef", "cd", "c", "d", "ef"]
    assert given_up(db) == [("RetryAttemptsExhausted", 1)]


async def test_without_the_parameter_answers_are_not_looked_at(db: Database, orders: Table) -> None:
    await write(orders, "abc")
    calls = Calls(lambda event: failures(event, "b"))
    await db.add_trigger("orders", calls.handler)
    with trio.fail_after(5):
        await db.drain()
    assert calls.batches == ["abc"]


async def test_an_answer_that_json_cannot_say_is_a_failure(
    db: Database, orders: Table, clock: ManualClock
) -> None:
    await write(orders, "a")
    calls = Calls(lambda event: object())
    await db.add_trigger("orders", calls.handler, name="h", maximum_retry_attempts=0)
    await drain(db, clock)
    (batch,) = db.triggers.failed_batches("h")
    assert batch.error_type == "Runtime.MarshalError"


# on_failure


async def test_what_is_given_up_goes_where_on_failure_says(tmp_path: Path) -> None:
    documents: list[Any] = []

    def note(document: dict[str, Any]) -> None:
        documents.append(document)

    async def note_later(document: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        documents.append(document)

    places: list[Any] = [note, note_later, "failures", tmp_path / "failed", None]
    calls = failing("a")
    async with open_database() as db:
        orders = await db.create_table("orders", partition_key="id")
        table = await db.create_table("failures", partition_key="any", sort_key=("at", bytes))
        for number, place in enumerate(places):
            await db.add_trigger(
                "orders", calls.handler, name=f"h{number}", maximum_retry_attempts=0,
                on_failure=place,
            )  # fmt: skip
        await write(orders, "a")
        await db.drain()
        for number in range(len(places)):
            assert len(db.triggers.failed_batches(f"h{number}")) == 1
        items = [item async for item in table.scan()]
    (path,) = (tmp_path / "failed").rglob("*.json")
    events = [document["event"] for document in [*documents, json.loads(path.read_text())]]
    events += [json.loads(item["event"]) for item in items]
    assert [ids(event) for event in events] == ["a"] * 4
    for document in documents:
        assert document["requestContext"]["condition"] == "RetryAttemptsExhausted"
        assert document["responsePayload"] == {
            "errorType": "ValueError",
            "errorMessage": "poisoned",
        }


async def test_final_calls_that_are_given_up_are_listed_one_by_one(
    tmp_path: Path, clock: ManualClock
) -> None:
    """Also those of different starts, which number their batches alike."""

    def act(event: dict[str, Any]) -> dict[str, Any]:
        if event["isFinalInvokeForWindow"]:
            raise ValueError("poisoned")
        return {"state": {}}

    calls = Calls(act)
    for start in range(2):
        async with open_database(tmp_path / "data", clock=clock) as db:
            if start == 0:
                await db.create_table("orders", partition_key="id")
            await db.add_trigger(
                "orders", calls.handler, name="h", tumbling_window=60, maximum_retry_attempts=0
            )
            await write(db.table("orders"), "ab"[start])
            await db.drain()
            clock.advance(60)
            await quiet()
            await db.drain()
            assert given_up(db) == [("RetryAttemptsExhausted", 1)] * (start + 1)


# timeout


async def only_failure(db: Database, handler: Callable[..., Any], **options: Any) -> FailedBatch:
    """What becomes of one record whose handler fails once and for all."""
    orders = await db.create_table("orders", partition_key="id")
    await db.add_trigger("orders", handler, name="h", maximum_retry_attempts=0, **options)
    await write(orders, "a")
    with trio.fail_after(20):
        await db.drain()
    (batch,) = db.triggers.failed_batches("h")
    return batch


async def test_a_handler_on_the_loop_that_takes_too_long(db: Database) -> None:
    async def handler(event: Any, context: Any) -> None:
        assert context.get_remaining_time_in_millis() <= 10
        await trio.sleep_forever()

    batch = await only_failure(db, handler, timeout=0.01)
    assert batch.error_type == "Sandbox.Timedout"
    assert "timed out after 0.01 seconds" in batch.message


async def test_a_handler_in_a_thread_that_takes_too_long(db: Database) -> None:
    go, ended = threading.Event(), threading.Event()

    def handler(event: Any, context: Any) -> None:
        go.wait(20)
        ended.set()

    batch = await only_failure(db, handler, timeout=0.01)
    assert batch.error_type == "Sandbox.Timedout"
    assert "its thread cannot be stopped" in batch.message
    go.set()
    assert await trio.to_thread.run_sync(ended.wait, 20)


def hang(event: Any, context: Any) -> None:
    threading.Event().wait()


def allocate(event: Any, context: Any) -> int:
    return len(bytearray(300 * 1024 * 1024))


async def test_a_handler_in_a_process_that_takes_too_long(db: Database) -> None:
    batch = await only_failure(db, hang, isolation="process", timeout=0.1)
    assert batch.error_type == "Sandbox.Timedout"


# memory_limit_mb


async def test_a_handler_in_a_process_that_wants_more_than_its_memory(db: Database) -> None:
    batch = await only_failure(db, allocate, isolation="process", memory_limit_mb=200)
    assert batch.error_type == "Runtime.OutOfMemory"


async def test_a_handler_in_a_process_that_has_enough_memory(db: Database) -> None:
    orders = await db.create_table("orders", partition_key="id")
    await db.add_trigger(
        "orders", allocate, name="h", isolation="process", memory_limit_mb=1000,
        maximum_retry_attempts=0,
    )  # fmt: skip
    await write(orders, "a")
    with trio.fail_after(20):
        await db.drain()
    assert db.triggers.failed_batches("h") == []
