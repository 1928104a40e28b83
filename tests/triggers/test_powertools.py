"""Handlers written for AWS with Powertools run as they are: its event classes, its batch processor.

What is here between the imports and the tests is what somebody would deploy to Lambda.
"""

from __future__ import annotations

from base64 import b64encode
from decimal import Decimal
from typing import Any

import pytest
import trio
from aws_lambda_powertools.utilities.batch import (
    BatchProcessor,
    EventType,
    process_partial_response,
)
from aws_lambda_powertools.utilities.batch.exceptions import BatchProcessingError
from aws_lambda_powertools.utilities.data_classes import DynamoDBStreamEvent, event_source
from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import (
    DynamoDBRecord,
    DynamoDBRecordEventName,
    StreamViewType,
)

from millstream.database import open_database
from millstream.testing import ManualClock, lambda_context, stream_event

EVERY_TYPE = {
    "s": "text ☃", "n": -12, "d": Decimal("1.5"), "big": 10**37 + 1, "b": b"\x00\xff", "t": True,
    "f": False, "z": None, "l": [1, "x", []], "m": {"deep": {"er": Decimal("0.1")}},
    "ss": {"a", "b"}, "ns": {1, Decimal("2.5")}, "bs": {b"a", b"b"},
}  # fmt: skip
OLD = {"id": "a", "v": 1}
NEW = {"id": "a", **EVERY_TYPE}


def as_powertools_reads(item: dict[str, Any]) -> dict[str, Any]:
    """Its deserializer leaves binaries in the base64 that Lambda's events have, and likewise
    numbers of sets as text."""
    return {
        **item,
        "b": b64encode(b"\x00\xff").decode(),
        "ns": {Decimal(1), Decimal("2.5")},
        "bs": {b64encode(b"a").decode(), b64encode(b"b").decode()},
    }


@pytest.mark.parametrize("view", list(StreamViewType))
async def test_its_event_class_reads_our_events(view: StreamViewType) -> None:
    found: list[DynamoDBRecord] = []
    events: list[DynamoDBStreamEvent] = []

    @event_source(data_class=DynamoDBStreamEvent)
    def handler(event: DynamoDBStreamEvent, context: Any) -> None:
        events.append(event)
        found.extend(event.records)

    clock = ManualClock()
    async with open_database(clock=clock) as db:
        table = await db.create_table("items", partition_key="id")
        await db.add_trigger("items", handler, stream_view=view.name)
        await table.put(OLD)
        await table.put(NEW)
        await table.delete({"id": "a"})
        await db.drain()
    has_new = view in (StreamViewType.NEW_IMAGE, StreamViewType.NEW_AND_OLD_IMAGES)
    has_old = view in (StreamViewType.OLD_IMAGE, StreamViewType.NEW_AND_OLD_IMAGES)
    read = as_powertools_reads(NEW)
    for record, name, old, new in zip(
        found, DynamoDBRecordEventName, ({}, OLD, read), (OLD, read, {}), strict=True
    ):
        assert record.event_name is name
        assert record.event_source == "aws:dynamodb"
        assert record.event_version == "1.1"
        assert record.aws_region == "us-east-1"
        assert record.event_source_arn is not None and "/stream/" in record.event_source_arn
        assert record.event_id
        assert record.user_identity == {}
        inner = record.dynamodb
        assert inner is not None
        assert inner.keys == {"id": "a"}
        assert inner.new_image == (new if has_new else {})
        assert inner.old_image == (old if has_old else {})
        assert inner.stream_view_type is view
        assert inner.approximate_creation_date_time == int(clock.now_seconds())
        assert inner.size_bytes is not None and inner.size_bytes >= 3
        assert inner.sequence_number is not None and len(inner.sequence_number) == 21


async def test_its_event_class_reads_tumbling_windows() -> None:
    events: list[DynamoDBStreamEvent] = []

    @event_source(data_class=DynamoDBStreamEvent)
    def handler(event: DynamoDBStreamEvent, context: Any) -> dict[str, Any]:
        events.append(event)
        return {"state": {"count": event.state.get("count", 0) + len(list(event.records))}}

    clock = ManualClock()
    async with open_database(clock=clock) as db:
        table = await db.create_table("items", partition_key="id")
        await db.add_trigger("items", handler, tumbling_window=60)
        await table.put(OLD)
        with clock.jumping(), trio.fail_after(10):
            await db.drain()
            # An open window does not keep ``drain``; it ends when the clock has jumped there.
            while len(events) < 2:
                await trio.lowlevel.checkpoint()
    first, last = events
    assert first.state == {} and last.state == {"count": 1}
    assert (first.is_final_invoke_for_window, last.is_final_invoke_for_window) == (False, True)
    assert last.is_window_terminated_early is False
    assert last.window is not None
    assert (last.window.start, last.window.end) == ("2024-01-01T00:00:00Z", "2024-01-01T00:01:00Z")
    assert last.shard_id is not None and last.shard_id.startswith("shardId-")
    assert last.event_source_arn is not None and "/stream/" in last.event_source_arn


async def test_its_batch_processor_has_failures_retried_from_there_on() -> None:
    processor = BatchProcessor(event_type=EventType.DynamoDBStreams)
    handled: list[str] = []
    broken = {"c", "e"}

    def record_handler(record: DynamoDBRecord) -> None:
        assert record.dynamodb is not None
        key = record.dynamodb.keys["id"]
        handled.append(key)
        if key in broken:
            broken.remove(key)
            raise ValueError("not yet")

    def handler(event: dict[str, Any], context: Any) -> Any:
        handled.append("|")
        return process_partial_response(
            event=event, record_handler=record_handler, processor=processor, context=context
        )

    clock = ManualClock()
    async with open_database(clock=clock) as db:
        table = await db.create_table("items", partition_key="id")
        await db.add_trigger("items", handler, name="h", window=1, report_batch_item_failures=True)
        for key in "abcdef":
            await table.put({"id": key})
        with clock.jumping(), trio.fail_after(10):
            await db.drain()
        (statistics,) = db.triggers.statistics()
        assert statistics.discarded == 0
    # From the first that failed, what comes after it included; what was before it, never again.
    assert "".join(handled) == "|abcdef|cdef"


async def test_a_record_that_always_fails_is_given_up_alone() -> None:
    processor = BatchProcessor(event_type=EventType.DynamoDBStreams)
    given_up: list[dict[str, Any]] = []
    done: list[str] = []

    def record_handler(record: DynamoDBRecord) -> None:
        assert record.dynamodb is not None
        if record.dynamodb.keys["id"] == "bad":
            raise ValueError("never")
        done.append(record.dynamodb.keys["id"])

    def handler(event: dict[str, Any], context: Any) -> Any:
        return process_partial_response(
            event=event, record_handler=record_handler, processor=processor, context=context
        )

    clock = ManualClock()
    async with open_database(clock=clock) as db:
        table = await db.create_table("items", partition_key="id")
        await db.add_trigger(
            "items", handler, name="h", window=1, report_batch_item_failures=True,
            bisect_batch_on_function_error=True, maximum_retry_attempts=2,
            on_failure=given_up.append,
        )  # fmt: skip
        for key in ("a", "b", "bad", "c", "d"):
            await table.put({"id": key})
        with clock.jumping(), trio.fail_after(10):
            await db.drain()
    (document,) = given_up
    (record,) = document["event"]["Records"]
    assert record["dynamodb"]["Keys"] == {"id": {"S": "bad"}}
    assert sorted(set(done)) == ["a", "b", "c", "d"]


async def test_a_batch_of_which_all_failed_is_retried_whole() -> None:
    """It raises then, by its own choice, instead of naming every record."""
    processor = BatchProcessor(event_type=EventType.DynamoDBStreams)
    attempts: list[int] = []

    def record_handler(record: DynamoDBRecord) -> None:
        if len(attempts) == 1:
            raise ValueError

    def handler(event: dict[str, Any], context: Any) -> Any:
        attempts.append(len(event["Records"]))
        return process_partial_response(
            event=event, record_handler=record_handler, processor=processor, context=context
        )

    clock = ManualClock()
    async with open_database(clock=clock) as db:
        table = await db.create_table("items", partition_key="id")
        await db.add_trigger("items", handler, window=1, report_batch_item_failures=True)
        for key in "abc":
            await table.put({"id": key})
        with clock.jumping(), trio.fail_after(10):
            await db.drain()
    assert attempts == [3, 3]


def test_events_made_for_unit_tests_go_through_it_too() -> None:
    processor = BatchProcessor(event_type=EventType.DynamoDBStreams)

    def record_handler(record: DynamoDBRecord) -> None:
        assert record.dynamodb is not None
        if record.dynamodb.new_image["v"] == 2:
            raise ValueError

    def handler(event: dict[str, Any]) -> Any:
        return process_partial_response(
            event=event, record_handler=record_handler, processor=processor,
            context=lambda_context(),
        )  # fmt: skip

    event = stream_event(*[("INSERT", {"id": str(n), "v": n}) for n in range(4)])
    number = event["Records"][2]["dynamodb"]["SequenceNumber"]
    assert handler(event) == {"batchItemFailures": [{"itemIdentifier": number}]}
    with pytest.raises(BatchProcessingError):
        handler(stream_event(new={"id": "a", "v": 2}))
