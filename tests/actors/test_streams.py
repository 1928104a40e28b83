"""Streams as projections of the log: what they show, what survives a restart, what is let go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from millstream.actors.data_directory import open_node
from millstream.actors.log_writer import LogWriter
from millstream.actors.node import Node, NodeSettings
from millstream.actors.schema_changes import SchemaChanges
from millstream.actors.streams import Page
from millstream.actors.tables import TableRef, TransactionAction
from millstream.errors import Trimmed
from millstream.host.clock import ManualClock
from millstream.host.host import real_host
from millstream.model.schema import KeyAttribute, KeySchema, NewTable, TableChange
from millstream.streams.definition import Shard, Stream
from millstream.streams.records import key_item
from millstream.streams.sequence import lsn_of, parse_sequence, sequence_text

from .conftest import delete, index, make_table, put, until_active

HOUR_MS = 3600 * 1000


def stream_of(node: Node, name: str = "t") -> Stream:
    """The table's newest stream."""
    return node.tables.streams.of_namespace("", name)[-1]


def read_all(node: Node, stream: Stream, shard: Shard, start: int | None = None) -> Page:
    streams = node.tables.streams
    first = streams.first_sequence(shard) if start is None else start
    return streams.read(stream, shard, first, 10_000, 1 << 30)


def shown(node: Node, name: str = "t") -> list[tuple[str, str]]:
    """(kind, pk) of everything in the newest stream, shard by shard."""
    stream = stream_of(node, name)
    return [
        (change.kind, key_item(stream, change.key)["pk"]["S"])
        for shard in stream.shards
        for change in read_all(node, stream, shard).changes
    ]


@pytest.fixture
async def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def aged(clock: ManualClock) -> AsyncIterator[Node]:
    """A node in memory whose time is the test's."""
    host = msgspec.structs.replace(real_host(), clock=clock)
    async with open_node(None, NodeSettings(), host=host) as node:
        yield node


async def change(node: Node, ref: TableRef, **how: Any) -> TableRef:
    await node.tables.change(TableChange(ref.table, **how))
    return await until_active(node, ref.table.name)


def test_sequence_numbers_compare_as_texts() -> None:
    sequences = [0, 1, 999_999, 1_000_000, 10**13, 10**19]
    texts = [sequence_text(sequence) for sequence in sequences]
    assert texts == sorted(texts)
    assert [parse_sequence(text) for text in texts] == sequences
    assert {len(text) for text in texts} == {21}
    for nonsense in ("", "1", "2" + "0" * 20, "1" * 22, "1" + "x" * 20, "1" + "٣" * 20):
        assert parse_sequence(nonsense) is None


async def test_a_stream_shows_each_change_once_in_commit_order(node: Node) -> None:
    ref = await make_table(node, stream_view="NEW_AND_OLD_IMAGES", partition_count=3)
    await ref.write_many([put(ref, pk=str(n)) for n in range(100)])
    await ref.write_many([put(ref, pk=str(n)) for n in range(100)])
    await ref.write_many([delete(ref, str(n)) for n in range(0, 100, 2)])
    found = shown(node)
    assert len(found) == 150
    assert len(set(found)) == 150
    stream = stream_of(node)
    for shard in stream.shards:
        sequences = [change.sequence for change in read_all(node, stream, shard).changes]
        assert sequences == sorted(set(sequences))


async def test_enabling_and_disabling_cut_to_the_record(node: Node) -> None:
    ref = await make_table(node)
    await ref.write(put(ref, pk="before"))

    async def write_on() -> None:
        for n in range(200):
            await ref.write(put(ref, pk=f"{n:03}"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_on)
        ref = await change(node, ref, enable_stream="KEYS_ONLY")
        await ref.write(put(ref, pk="within"))
        ref = await change(node, ref, disable_stream=True)
    await ref.write(put(ref, pk="after"))
    found = [pk for _, pk in shown(node)]
    assert "before" not in found and "after" not in found
    assert "within" in found
    numbers = [int(pk) for pk in found if pk.isdigit()]
    assert numbers == list(range(numbers[0], numbers[-1] + 1)) if numbers else True
    (shard,) = stream_of(node).shards
    assert read_all(node, stream_of(node), shard).is_end


async def test_other_changes_of_the_table_leave_the_stream_alone(node: Node) -> None:
    ref = await make_table(node, stream_view="KEYS_ONLY")
    label = stream_of(node).label
    await ref.write(put(ref, pk="a", a="x"))
    ref = await change(node, ref, create_index=index("g", "a"))
    await ref.write(put(ref, pk="b", a="x"))
    assert stream_of(node).label == label == ref.table.stream_label
    assert shown(node) == [("INSERT", "a"), ("INSERT", "b")]


async def test_a_restart_changes_neither_names_nor_numbers(tmp_path: Path) -> None:
    path = str(tmp_path / "data")
    async with open_node(path, NodeSettings()) as node:
        ref = await make_table(node, stream_view="NEW_IMAGE")
        await ref.write_many([put(ref, pk=str(n)) for n in range(20)])
        stream = stream_of(node)
        (shard,) = stream.shards
        before = read_all(node, stream, shard).changes
        await node.flusher.flush()
    async with open_node(path, NodeSettings()) as node:
        assert stream_of(node) == stream
        assert read_all(node, stream, shard).changes == before
        found = await until_active(node)
        await found.write(put(found, pk="new"))
        assert read_all(node, stream, shard).changes[:-1] == before


async def test_flushing_leaves_the_log_to_its_stream(node: Node) -> None:
    ref = await make_table(node, stream_view="NEW_IMAGE")
    for n in range(30):
        await ref.write(put(ref, pk=str(n)))
        await node.flusher.flush()
    assert len(shown(node)) == 30


async def test_what_is_older_than_retention_is_gone(aged: Node, clock: ManualClock) -> None:
    ref = await make_table(aged, stream_view="KEYS_ONLY")
    await ref.write(put(ref, pk="old"))
    stream = stream_of(aged)
    (shard,) = stream.shards
    first = aged.tables.streams.first_sequence(shard)
    clock.advance(23 * HOUR_MS)
    await ref.write(put(ref, pk="young"))
    assert shown(aged) == [("INSERT", "old"), ("INSERT", "young")]
    clock.advance(2 * HOUR_MS)
    # Gone for readers at once, before anything is trimmed.
    assert shown(aged) == [("INSERT", "young")]
    with pytest.raises(Trimmed):
        read_all(aged, stream, shard, first)
    await ref.write(put(ref, pk="dirty"))
    await aged.flusher.flush()
    engine = aged.log_writer.engine
    assert engine.first(shard.log_id) == lsn_of(aged.tables.streams.first_sequence(shard)) > 1
    assert shown(aged) == [("INSERT", "young"), ("INSERT", "dirty")]


async def test_an_idle_log_is_trimmed_too(aged: Node, clock: ManualClock) -> None:
    ref = await make_table(aged, stream_view="KEYS_ONLY")
    for n in range(5):
        await ref.write(put(ref, pk=str(n)))
    await aged.flusher.flush()
    (shard,) = stream_of(aged).shards
    before = aged.log_writer.engine.first(shard.log_id)
    clock.advance(25 * HOUR_MS)
    await aged.flusher.flush()
    # All but the last entry, which carries what the next one continues.
    assert aged.log_writer.engine.first(shard.log_id) == ref.partition_of(b"\0" * 8).lsn > before


async def test_a_shard_that_rolls_over_continues_in_its_child(node: Node) -> None:
    ref = await make_table(node, stream_view="KEYS_ONLY")
    streams = node.tables.streams
    await ref.write(put(ref, pk="a"))
    parent = stream_of(node).shards[0]

    async def write_on() -> None:
        for n in range(100):
            await ref.write(put(ref, pk=f"{n:03}"))

    seen: list[str] = []
    place = streams.first_sequence(parent)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_on)
        nursery.start_soon(streams.roll, stream_of(node), [parent.shard_id])
        # A consumer that reads the parent all the while sees nothing of the child there.
        while True:
            stream = stream_of(node)
            page = streams.read(stream, stream.shards[0], place, 10, 1 << 20)
            seen += [key_item(stream, change.key)["pk"]["S"] for change in page.changes]
            place = page.next
            if page.is_end:
                break
            await trio.lowlevel.checkpoint()
    stream = stream_of(node)
    first, child = stream.shards
    assert (first.shard_id, child.parent) == (parent.shard_id, parent.shard_id)
    assert list(stream.children(parent.shard_id)) == [child]
    assert child.first_lsn == (first.last_lsn or 0) + 1
    rest = [
        key_item(stream, change.key)["pk"]["S"]
        for change in read_all(node, stream, child).changes
    ]
    assert seen + rest == ["a", *(f"{n:03}" for n in range(100))]


async def test_shards_roll_over_by_age_and_expire(aged: Node, clock: ManualClock) -> None:
    ref = await make_table(aged, stream_view="KEYS_ONLY")
    await ref.write(put(ref, pk="a"))
    clock.advance(5 * HOUR_MS)
    await aged.tables.streams.tend()
    first, second = stream_of(aged).shards
    assert second.parent == first.shard_id
    # An empty shard has no reason to roll over.
    clock.advance(5 * HOUR_MS)
    await aged.tables.streams.tend()
    assert stream_of(aged).shards == (first, second)
    clock.advance(25 * HOUR_MS)
    await aged.tables.streams.tend()
    assert stream_of(aged).shards == (second,)


async def test_a_removed_table_leaves_its_log_until_the_stream_expires(
    aged: Node, clock: ManualClock
) -> None:
    ref = await make_table(aged, stream_view="KEYS_ONLY")
    await ref.write(put(ref, pk="a"))
    log_id = stream_of(aged).shards[0].log_id
    await aged.tables.delete("", "t")
    await aged.tables.wait_gone("", "t")
    assert shown(aged) == [("INSERT", "a")]
    clock.advance(25 * HOUR_MS)
    await aged.tables.streams.tend()
    assert aged.tables.streams.of_namespace("") == []
    assert log_id not in aged.log_writer.engine.list()


async def test_a_removed_tables_stream_survives_a_restart(tmp_path: Path) -> None:
    path = str(tmp_path / "data")
    async with open_node(path, NodeSettings()) as node:
        ref = await make_table(node, stream_view="KEYS_ONLY")
        await ref.write(put(ref, pk="a"))
        await node.tables.delete("", "t")
        await node.tables.wait_gone("", "t")
    async with open_node(path, NodeSettings()) as node:
        assert shown(node) == [("INSERT", "a")]


async def test_records_of_a_time_are_found(aged: Node, clock: ManualClock) -> None:
    ref = await make_table(aged, stream_view="KEYS_ONLY")
    moments = []
    for n in range(20):
        clock.advance(1000)
        moments.append(clock.now_ms())
        await ref.write(put(ref, pk=f"{n:02}"))
    stream = stream_of(aged)
    (shard,) = stream.shards
    for n, moment in enumerate(moments):
        place = aged.tables.streams.sequence_at(shard, moment)
        found = read_all(aged, stream, shard, place).changes
        assert len(found) == 20 - n
    assert read_all(aged, stream, shard, aged.tables.streams.sequence_at(shard, 0)).changes


async def test_who_waits_for_growth_is_woken(node: Node) -> None:
    ref = await make_table(node, stream_view="KEYS_ONLY")
    streams, stream = node.tables.streams, stream_of(node)
    (shard,) = stream.shards
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(streams.wait_growth, shard)
            await trio.testing.wait_all_tasks_blocked()
            await ref.write(put(ref, pk="a"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(streams.wait_growth, shard)
            await trio.testing.wait_all_tasks_blocked()
            await streams.roll(stream, [shard.shard_id])


async def test_who_waits_is_woken_when_the_table_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 264 of the simulated triggers: the crash came between a table's stream and the table."""
    gate = trio.Event()
    real = LogWriter.create

    async def hold(*_: Any, **__: Any) -> None:
        await trio.sleep_forever()

    async def create_later(writer: LogWriter, log_ids: Iterable[str]) -> None:
        await gate.wait()
        await real(writer, log_ids)

    with monkeypatch.context() as patch:
        patch.setattr(SchemaChanges, "_commit", hold)
        patch.setattr("millstream.actors.tables.SCHEMA_GRACE_SECONDS", 0.05)
        async with open_node(tmp_path, NodeSettings()) as node:
            key = KeySchema((KeyAttribute("pk", "S"),))
            await node.tables.create(NewTable("", "t", key, {"pk": "S"}, stream_view="KEYS_ONLY"))
            while not node.tables.streams.of_namespace("", "t"):
                await trio.lowlevel.checkpoint()
    monkeypatch.setattr(LogWriter, "create", create_later)
    async with open_node(tmp_path, NodeSettings()) as node:
        (stream,) = node.tables.streams.of_namespace("", "t")
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.tables.streams.wait_growth, stream.shards[0])
                await trio.testing.wait_all_tasks_blocked()
                gate.set()


async def test_an_effect_carries_the_hops_of_its_command(node: Node) -> None:
    ref = await make_table(node, stream_view="KEYS_ONLY", partition_count=2)
    await ref.write(msgspec.structs.replace(put(ref, pk="a"), hops=3))
    # One partition, then two: Transact and Prepare.
    actions = [TransactionAction(ref, put(ref, pk=str(n))) for n in range(20)]
    await node.tables.transact_write(actions[:1], hops=4)
    await node.tables.transact_write(actions[1:], hops=5)
    await ref.write(put(ref, pk="z"))
    stream = stream_of(node)
    hops = sorted(
        change.hops for shard in stream.shards for change in read_all(node, stream, shard).changes
    )
    assert hops == [0, 3, 4, *[5] * 19]
