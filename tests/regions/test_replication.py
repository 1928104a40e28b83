"""Regions in step: what is written in one is in all, whoever wrote last wins, in order, once."""

from __future__ import annotations

import trio

from millstream.actors.node import NodeSettings
from millstream.actors.tables import TransactionAction
from millstream.model.values import encode_item, item_size_bytes
from millstream.storage.commands import Decide, Prepare, Promise, Put
from millstream.storage.indexes import primary_key

from .conftest import NAMES, open_world, put, until


async def test_a_write_in_any_region_is_in_all() -> None:
    async with open_world(*NAMES) as world:
        await world.make_global()
        for name in NAMES:
            await world.put(name, pk=name, v="1")
        await world.settled()
        assert len(world.equal()) == 3


async def test_a_new_region_is_filled_with_what_there_was() -> None:
    async with open_world(*NAMES[:2]) as world:
        await world.make_global(partitions=2)
        for number in range(50):
            await world.put(NAMES[0], pk=str(number))
        await world.settled()
        assert len(world.equal()) == 50


async def test_the_last_writer_wins_everywhere_after_a_partition() -> None:
    async with open_world(*NAMES) as world:
        await world.make_global()
        for name in NAMES[1:]:
            world.network.cut(NAMES[0], name)
        await world.put(NAMES[0], pk="a", v="first")
        await trio.sleep(0.01)
        await world.put(NAMES[1], pk="a", v="second")
        await world.put(NAMES[2], pk="b", v="elsewhere")
        # Each region goes on by itself meanwhile.
        assert world.get(NAMES[0], "a") == {"pk": {"S": "a"}, "v": {"S": "first"}}
        assert world.get(NAMES[0], "b") is None
        for name in NAMES[1:]:
            world.network.heal(NAMES[0], name)
        await world.settled()
        assert len(world.equal()) == 2
        assert world.get(NAMES[0], "a") == {"pk": {"S": "a"}, "v": {"S": "second"}}
        # The conflict is found once, where the write lost.
        conflicts = {
            name: sum(peer.conflicts for peer in world.regions(name).status()) for name in NAMES
        }
        assert conflicts == {NAMES[0]: 1, NAMES[1]: 0, NAMES[2]: 0}


async def test_a_deletion_beats_what_was_written_before_it_elsewhere() -> None:
    async with open_world(*NAMES[:2]) as world:
        await world.make_global()
        world.network.cut(*NAMES[:2])
        await world.put(NAMES[0], pk="a")
        await trio.sleep(0.01)
        # There is nothing to delete here, and yet the deletion is the last word.
        await world.delete(NAMES[1], "a")
        world.network.heal(*NAMES[:2])
        await world.settled()
        assert world.equal() == {}


async def test_tombstones_go_when_every_region_has_passed_them() -> None:
    async with open_world(*NAMES) as world:
        await world.make_global()
        await world.put(NAMES[0], pk="a")
        await world.settled()
        world.network.cut(NAMES[0], NAMES[2])
        world.network.cut(NAMES[1], NAMES[2])
        await world.delete(NAMES[0], "a")

        def tombstones(name: str) -> int:
            table = world.table(name).table
            return len(list(world[name].btree.range(table.tombstones, b"", None)))

        await until(lambda: tombstones(NAMES[1]) == 1)
        await trio.sleep(1.5)
        assert tombstones(NAMES[0]) == tombstones(NAMES[1]) == 1
        world.network.heal(NAMES[0], NAMES[2])
        world.network.heal(NAMES[1], NAMES[2])
        await until(lambda: not any(tombstones(name) for name in NAMES))
        assert world.equal() == {}


async def test_each_region_s_stream_shows_what_was_written_anywhere() -> None:
    async with open_world(*NAMES[:2]) as world:
        await world.make_global()
        await world.put(NAMES[0], pk="a", v="1")
        await world.put(NAMES[0], pk="a", v="2")
        await world.settled()
        await world.delete(NAMES[1], "a")
        await world.settled()
        for name in NAMES[:2]:
            streams = world[name].tables.streams
            (stream,) = streams.of_namespace("", "t")
            (shard,) = stream.shards
            page = streams.read(stream, shard, streams.first_sequence(shard), 100, 1 << 20)
            kinds = [change.kind for change in page.changes]
            assert kinds == ["INSERT", "MODIFY", "REMOVE"], name


async def test_a_region_behind_what_the_log_keeps_is_filled_again() -> None:
    settings = NodeSettings(stream_retention_seconds=0.2, flush_interval_seconds=0.1)
    async with open_world(*NAMES[:2], settings=settings) as world:
        await world.make_global(partitions=2)
        for number in range(20):
            await world.put(NAMES[0], pk=str(number), v="old")
        await world.settled()
        world.network.cut(*NAMES[:2])
        for number in range(10):
            await world.delete(NAMES[0], str(number))
        for number in range(15, 30):
            await world.put(NAMES[0], pk=str(number), v="new")
        await world.put(NAMES[1], pk="of two")
        sources = world.regions(NAMES[0])
        ((_, ref),) = sources.tables()
        log = ref.table.partitions[0].log_id
        streams = world[NAMES[0]].tables.streams
        received = streams.first_kept(log)
        with trio.fail_after(20):
            while streams.first_kept(log) <= received + 10:
                await world.put(NAMES[0], pk="again", v=str(trio.current_time()))
                await trio.sleep(0.02)
                world[NAMES[0]].flusher.note_commit()
        world.network.heal(*NAMES[:2])
        await world.settled()
        assert len(world.equal()) == 22


async def test_a_log_trimmed_of_what_others_had_sent_needs_no_filling() -> None:
    # Worlds of regions, seeds 117 and 144: each filling made the other direction fill, for ever.
    settings = NodeSettings(stream_retention_seconds=0.2, flush_interval_seconds=0.1)
    async with open_world(*NAMES[:2], settings=settings) as world:
        await world.make_global()
        idle = world.regions(NAMES[1])
        await world.put(NAMES[1], pk="of two")
        await world.settled()
        link = idle.links[NAMES[0]]
        (progress,) = link.progress.values()
        log = world.table(NAMES[1]).table.partitions[0].log_id
        streams = world[NAMES[1]].tables.streams
        known = world.table(NAMES[1]).partition_of(b"").lsn
        with trio.fail_after(20):
            while streams.first_kept(log) <= known + 2:
                await world.put(NAMES[0], pk="of one", v=str(trio.current_time()))
                await trio.sleep(0.02)
                world[NAMES[1]].flusher.note_commit()
        await world.settled()
        sent = progress.changes_sent
        world.network.cut(*NAMES[:2])
        await until(lambda: not link.is_linked)
        world.network.heal(*NAMES[:2])
        await until(lambda: link.is_linked and progress.state == "following")
        await world.put(NAMES[1], pk="of two", v="again")
        await world.settled()
        assert len(world.equal()) == 2
        assert progress.changes_sent - sent == 1


async def test_a_transaction_larger_than_a_message_arrives_whole() -> None:
    async with open_world(*NAMES[:2]) as world:
        await world.make_global()
        ref = world.table(NAMES[0])
        # Nulls take seven times their size as JSON.
        nulls = {"L": [{"NULL": True}] * 19_000}
        actions = []
        for number in range(40):
            item = {"pk": {"S": str(number)}, "nulls": nulls}
            command = Put(primary_key(ref.table, item), encode_item(item), item_size_bytes(item))
            actions.append(TransactionAction(ref, command))
        outcome = await world[NAMES[0]].tables.transact_write(actions)
        assert outcome.committed
        await world.settled()
        assert len(world.equal()) == 40


async def test_a_write_to_an_item_that_a_transaction_holds_waits_for_its_end() -> None:
    async with open_world(*NAMES[:2]) as world:
        await world.make_global()
        await world.put(NAMES[0], pk="a", v="1")
        await world.settled()
        ref = world.table(NAMES[1])
        key = primary_key(ref.table, {"pk": {"S": "a"}})
        actor = ref.partition_of(key)
        promise = await actor.write(Prepare("t", (put(ref, pk="a", v="of the transaction"),)))
        assert isinstance(promise, Promise)
        await world.put(NAMES[0], pk="a", v="2")
        await trio.sleep(0.1)
        assert world.get(NAMES[1], "a") == {"pk": {"S": "a"}, "v": {"S": "1"}}
        await actor.write(Decide("t", None))
        await world.settled()
        assert world.get(NAMES[1], "a") == {"pk": {"S": "a"}, "v": {"S": "2"}}
