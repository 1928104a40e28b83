"""The stream operations on a node whose time and shards are the test's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from millstream.actors.data_directory import open_node
from millstream.actors.node import Node, NodeSettings
from millstream.api.calls import Caller
from millstream.api.errors import ExpiredIteratorException, TrimmedDataAccessException
from millstream.api.operations.items import put_item
from millstream.api.operations.streams import (
    describe_stream,
    get_records,
    get_shard_iterator,
    list_streams,
)
from millstream.api.operations.tables import create_table
from millstream.errors import InvalidRequest, ResourceNotFound
from millstream.host.clock import ManualClock
from millstream.host.host import real_host
from millstream.limits import ITERATOR_MILLISECONDS_MAX

CALLER = Caller("", "key", "us-east-1", "request")
HOUR_MS = 3600 * 1000


class World:
    """A node with a table ``things`` that has a stream."""

    def __init__(self, node: Node, clock: ManualClock) -> None:
        self.node = node
        self.clock = clock

    async def call(self, operation: Any, **members: Any) -> dict[str, Any]:
        answer = await operation(self.node.tables, CALLER, json.dumps(members).encode())
        found: dict[str, Any] = json.loads(answer)
        return found

    async def put(self, *keys: str) -> None:
        for key in keys:
            await self.call(put_item, TableName="things", Item={"pk": {"S": key}})

    async def arn(self) -> str:
        (stream,) = (await self.call(list_streams))["Streams"]
        return str(stream["StreamArn"])

    async def shards(self, **more: Any) -> list[dict[str, Any]]:
        answer = await self.call(describe_stream, StreamArn=await self.arn(), **more)
        found: list[dict[str, Any]] = answer["StreamDescription"]["Shards"]
        return found

    async def iterator(self, kind: str, shard: int = 0, **more: Any) -> str:
        shard_id = (await self.shards())[shard]["ShardId"]
        answer = await self.call(
            get_shard_iterator,
            StreamArn=await self.arn(),
            ShardId=shard_id,
            ShardIteratorType=kind,
            **more,
        )
        return str(answer["ShardIterator"])

    async def records(self, place: str, **more: Any) -> dict[str, Any]:
        return await self.call(get_records, ShardIterator=place, **more)

    async def roll(self) -> None:
        streams = self.node.tables.streams
        (stream,) = streams.of_namespace("")
        await streams.roll(stream, [shard.shard_id for shard in stream.shards if shard.is_open])


@pytest.fixture
async def world() -> AsyncIterator[World]:
    clock = ManualClock()
    host = msgspec.structs.replace(real_host(), clock=clock)
    async with open_node(None, NodeSettings(), host=host) as node:
        world = World(node, clock)
        await world.call(
            create_table,
            TableName="things",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"},
        )
        await node.tables.wait_active("", "things")
        yield world


def keys(page: dict[str, Any]) -> list[str]:
    return [record["dynamodb"]["Keys"]["pk"]["S"] for record in page["Records"]]


async def test_an_iterator_is_good_for_fifteen_minutes(world: World) -> None:
    place = await world.iterator("TRIM_HORIZON")
    world.clock.advance(ITERATOR_MILLISECONDS_MAX)
    place = (await world.records(place))["NextShardIterator"]
    world.clock.advance(ITERATOR_MILLISECONDS_MAX + 1)
    with pytest.raises(ExpiredIteratorException):
        await world.records(place)


async def test_what_is_older_than_a_day_cannot_be_read(world: World) -> None:
    await world.put("old")
    (old,) = (await world.records(await world.iterator("TRIM_HORIZON")))["Records"]
    number = old["dynamodb"]["SequenceNumber"]
    world.clock.advance(24 * HOUR_MS - 10)
    place = await world.iterator("AT_SEQUENCE_NUMBER", SequenceNumber=number)
    await world.put("young")
    assert keys(await world.records(place)) == ["old", "young"]
    world.clock.advance(11)
    with pytest.raises(TrimmedDataAccessException):
        await world.records(place)
    with pytest.raises(TrimmedDataAccessException):
        await world.iterator("AFTER_SEQUENCE_NUMBER", SequenceNumber=number)
    assert keys(await world.records(await world.iterator("TRIM_HORIZON"))) == ["young"]
    # A time before the horizon means the horizon.
    assert keys(await world.records(await world.iterator("AT_TIMESTAMP", Timestamp=0))) == ["young"]


async def test_a_time_that_has_not_come_is_refused(world: World) -> None:
    now = world.clock.now_ms() / 1000
    await world.iterator("AT_TIMESTAMP", Timestamp=now)
    with pytest.raises(InvalidRequest, match="future"):
        await world.iterator("AT_TIMESTAMP", Timestamp=now + 1)


async def test_a_closed_shard_ends_and_names_its_child(world: World) -> None:
    await world.put("a")
    await world.roll()
    await world.put("b")
    await world.roll()
    first, second, third = await world.shards()
    assert "ParentShardId" not in first
    assert second["ParentShardId"] == first["ShardId"]
    assert third["ParentShardId"] == second["ShardId"]
    assert "EndingSequenceNumber" not in third["SequenceNumberRange"]
    ranges = [shard["SequenceNumberRange"] for shard in (first, second)]
    assert all(each["StartingSequenceNumber"] < each["EndingSequenceNumber"] for each in ranges)
    assert ranges[0]["EndingSequenceNumber"] < ranges[1]["StartingSequenceNumber"]
    page = await world.records(await world.iterator("TRIM_HORIZON"))
    assert keys(page) == ["a"]
    assert "NextShardIterator" not in page
    page = await world.records(await world.iterator("LATEST"))
    assert page == {"Records": []}
    page = await world.records(await world.iterator("TRIM_HORIZON", shard=2))
    assert page["Records"] == [] and "NextShardIterator" in page


async def test_an_iterator_outlives_the_rolling_of_its_shard(world: World) -> None:
    place = await world.iterator("LATEST")
    await world.put("a")
    await world.roll()
    await world.put("b")
    page = await world.records(place)
    assert keys(page) == ["a"]
    assert "NextShardIterator" not in page


async def test_shards_are_described_page_by_page(world: World) -> None:
    for key in "abc":
        await world.put(key)
        await world.roll()
    all_shards = await world.shards()
    assert len(all_shards) == 4
    found: list[dict[str, Any]] = []
    more: dict[str, Any] = {}
    while True:
        answer = await world.call(
            describe_stream, StreamArn=await world.arn(), Limit=3, **more
        )
        found += answer["StreamDescription"]["Shards"]
        last = answer["StreamDescription"].get("LastEvaluatedShardId")
        if last is None:
            break
        more = {"ExclusiveStartShardId": last}
    assert found == all_shards


async def test_children_are_found_by_their_parent(world: World) -> None:
    await world.put("a")
    await world.roll()
    parent, child = await world.shards()
    wanted = {"Type": "CHILD_SHARDS", "ShardId": parent["ShardId"]}
    assert await world.shards(ShardFilter=wanted) == [child]
    wanted["ShardId"] = child["ShardId"]
    assert await world.shards(ShardFilter=wanted) == []
    with pytest.raises(InvalidRequest, match="ShardFilter"):
        await world.shards(ShardFilter={"ShardId": child["ShardId"]})
    with pytest.raises(ResourceNotFound):
        await world.shards(
            ShardFilter={"Type": "CHILD_SHARDS", "ShardId": "shardId-" + "0" * 20 + "-cafe"}
        )


async def test_a_page_ends_at_its_limits(world: World) -> None:
    body = "x" * 100_000
    for number in range(30):
        await world.call(
            put_item, TableName="things", Item={"pk": {"S": str(number)}, "b": {"S": body}}
        )
    place = await world.iterator("TRIM_HORIZON")
    assert len((await world.records(place, Limit=7))["Records"]) == 7
    # Keys only: the images do not count.
    assert len((await world.records(place))["Records"]) == 30


async def test_a_megabyte_of_images_is_a_page(world: World) -> None:
    await world.call(
        create_table,
        TableName="images",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )
    await world.node.tables.wait_active("", "images")
    for number in range(30):
        await world.call(
            put_item, TableName="images", Item={"pk": {"S": str(number)}, "b": {"S": "x" * 100_000}}
        )
    (stream,) = world.node.tables.streams.of_namespace("", "images")
    answer = await world.call(list_streams, TableName="images")
    place = await world.call(
        get_shard_iterator,
        StreamArn=answer["Streams"][0]["StreamArn"],
        ShardId=stream.shards[0].shard_id,
        ShardIteratorType="TRIM_HORIZON",
    )
    counts = []
    iterator = place["ShardIterator"]
    while True:
        page = await world.records(iterator)
        if not page["Records"]:
            break
        counts.append(len(page["Records"]))
        iterator = page["NextShardIterator"]
    assert sum(counts) == 30
    assert max(counts) == 11
