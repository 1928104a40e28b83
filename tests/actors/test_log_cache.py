"""Entries that were read a moment ago."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from millstream.actors.data_directory import open_node
from millstream.actors.log_cache import LogCache
from millstream.actors.node import NodeSettings

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


async def test_a_page_that_ends_in_the_middle_of_what_was_read_is_gone_on_with(
    tmp_path: Path, monkeypatch: Any
) -> None:
    async with open_node(str(tmp_path / "data"), NodeSettings()) as node:
        ref = await make_table(node, stream_view="KEYS_ONLY")
        for number in range(10):
            await ref.write_many([put(ref, pk=f"item{number}")])
        kind, reads = type(node.log_writer.engine), []
        read = kind.read

        def counted(engine: Any, log_id: str, start: int, max_bytes: int) -> Any:
            reads.append(start)
            return read(engine, log_id, start, max_bytes)

        monkeypatch.setattr(kind, "read", counted)
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
