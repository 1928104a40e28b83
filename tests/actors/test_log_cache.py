"""Entries that were read a moment ago."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from millstream.actors.data_directory import open_node
from millstream.actors.log_cache import LogCache
from millstream.actors.node import NodeSettings
from millstream.limits import STREAM_NEWEST_BYTES
from millstream.storage.log.segments import SegmentsLogEngine
from millstream.streams.records import changes_of
from millstream.streams.sequence import lsn_of

from .conftest import make_table, put


def test_what_came_first_goes_first() -> None:
    cache = LogCache(10)
    for lsn in range(1, 5):
        cache.keep("a", lsn, b"1234")
    cache.keep("a", 4, b"1234")
    assert [cache.get("a", lsn) for lsn in range(1, 5)] == [None, None, b"1234", b"1234"]
    assert cache.get("b", 4) is None
    cache.keep("b", 4, b"12345678901")
    assert cache.get("a", 4) is None
    assert cache.get("b", 4) is None


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where the log engine was read from."""
    read, starts = SegmentsLogEngine.read, []

    def counted(engine: Any, log_id: str, start: int, max_bytes: int) -> Any:
        starts.append(start)
        return read(engine, log_id, start, max_bytes)

    monkeypatch.setattr(SegmentsLogEngine, "read", counted)
    return starts


async def test_a_page_that_ends_in_the_middle_of_what_was_read_is_gone_on_with(
    tmp_path: Path, reads: list[int]
) -> None:
    async with open_node(
        str(tmp_path / "data"), NodeSettings(), log_engine="segments"
    ) as node:
        ref = await make_table(node, stream_view="KEYS_ONLY")
        for number in range(10):
            await ref.write_many([put(ref, pk=f"item{number}")])
        streams = node.tables.streams
        (stream,) = streams.of_namespace("", ref.table.name)
        (shard,) = stream.shards
        first = streams.first_sequence(shard)
        for _ in range(2):
            place, found = first, 0
            reads.clear()
            while found < 10:
                page = streams.read(stream, shard, place, 3, 1 << 20)
                place, found = page.next, found + len(page.changes)
        assert reads == []


async def test_who_waits_for_the_next_entry_need_not_read_it(
    tmp_path: Path, reads: list[int]
) -> None:
    async with open_node(
        str(tmp_path / "data"), NodeSettings(), log_engine="segments"
    ) as node:
        ref = await make_table(node, stream_view="NEW_IMAGE")
        streams = node.tables.streams
        (stream,) = streams.of_namespace("", ref.table.name)
        (shard,) = stream.shards
        for text, is_read in (("short", False), ("x" * STREAM_NEWEST_BYTES, True)):
            place = streams.end_sequence(shard)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(streams.wait_growth, shard)
                await trio.testing.wait_all_tasks_blocked()
                await ref.write_many([put(ref, pk="a", text=text)])
            # Where retention ends is looked for once in a while.
            streams.horizon(shard.log_id)
            reads.clear()
            (change,) = streams.read(stream, shard, place, 10, 1 << 20).changes
            assert bool(reads) == is_read
            (entry,) = node.log_writer.engine.read(shard.log_id, lsn_of(place), 1)
            assert changes_of(stream, entry.data, entry.lsn, 0) == [change]
