"""Following a table: what comes after what, from where, and what a snapshot leaves out."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from millstream.changes import Change, changes_of
from millstream.database import Database, Table, open_database
from millstream.errors import InvalidRequest, ResourceNotFound, Unavailable
from millstream.limits import SNAPSHOT_SLICE_ROWS
from millstream.testing import stream_event


async def make(db: Database, **more: Any) -> Table:
    options = {"stream": "NEW_AND_OLD_IMAGES"} | more
    return await db.create_table("things", partition_key="id", **options)


async def take(changes: AsyncGenerator[Change, None], count: int) -> list[Change]:
    """The next ``count`` changes."""
    found: list[Change] = []
    with trio.fail_after(10):
        while len(found) < count:
            found.append(await anext(changes))
    return found


async def test_changes_come_as_they_happen() -> None:
    async with open_database() as db:
        table = await make(db)
        await table.put({"id": "before"})
        async with aclosing(table.changes()) as changes, trio.open_nursery() as nursery:

            async def write() -> None:
                await table.put({"id": "a", "n": 1})
                await table.put({"id": "a", "n": 2})
                await table.delete({"id": "a"})

            nursery.start_soon(write)
            found = await take(changes, 3)
        assert [change.kind for change in found] == ["INSERT", "MODIFY", "REMOVE"]
        assert [change.new for change in found] == [{"id": "a", "n": 1}, {"id": "a", "n": 2}, None]
        assert [change.old for change in found] == [None, {"id": "a", "n": 1}, {"id": "a", "n": 2}]
        assert {change.key["id"] for change in found} == {"a"}


async def test_a_position_goes_on_behind_its_change(tmp_path: Path) -> None:
    async with open_database(tmp_path / "data") as db:
        table = await make(db)
        for number in range(6):
            await table.put({"id": str(number)})
        async with aclosing(table.changes(since="start")) as changes:
            found = await take(changes, 3)
    async with open_database(tmp_path / "data") as db:
        position = found[-1].position
        assert position is not None
        async with aclosing(db.table("things").changes(since=position)) as changes:
            rest = await take(changes, 3)
    assert [change.key["id"] for change in found + rest] == [str(n) for n in range(6)]


async def test_following_goes_through_shards_and_streams() -> None:
    async with open_database() as db:
        table = await make(db)
        streams = db._tables.streams
        async with aclosing(table.changes(since="start")) as changes:
            await table.put({"id": "a"})
            (stream,) = streams.of_namespace(db._caller.namespace)
            await streams.roll(stream, [stream.shards[0].shard_id])
            await table.put({"id": "b"})
            await db.disable_stream("things")
            await db.enable_stream("things", "KEYS_ONLY")
            await table.put({"id": "c"})
            found = await take(changes, 3)
        assert [change.key["id"] for change in found] == ["a", "b", "c"]
        assert [change.new is None for change in found] == [False, False, True]


async def test_a_time_is_a_place() -> None:
    async with open_database() as db:
        table = await make(db)
        await table.put({"id": "a"})
        async with aclosing(table.changes(since=datetime(2020, 1, 1, tzinfo=UTC))) as changes:
            assert [change.key["id"] for change in await take(changes, 1)] == ["a"]
        later = datetime.now(UTC) + timedelta(hours=1)
        async with aclosing(table.changes(since=later)) as changes:
            with trio.move_on_after(0.05) as scope:
                await anext(changes)
            assert scope.cancelled_caught


@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_snapshot_and_its_tail_are_the_table(
    partitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is written while the snapshot is taken: a view made of it equals the table."""
    monkeypatch.setattr("millstream.changes.SNAPSHOT_SLICE_ROWS", 7)
    rng = random.Random(partitions)
    async with open_database() as db:
        db._tables._changes._partitions_per_table = partitions
        table = await make(db)
        for number in range(200):
            await table.put({"id": f"{number:03}", "n": 0})
        view: dict[str, Any] = {}
        applied: list[tuple[str, str]] = []
        finished = trio.Event()

        async def follow() -> None:
            async with aclosing(table.changes(since="snapshot")) as changes:
                async for change in changes:
                    key = change.key["id"]
                    if change.kind == "REMOVE":
                        assert view.pop(key) == change.old, "a change of what the view has not"
                    else:
                        assert change.kind in ("SNAPSHOT", "INSERT") or view[key] == change.old
                        assert change.kind == "MODIFY" or key not in view
                        view[key] = change.new
                    applied.append((change.kind, key))
                    if key == "last":
                        finished.set()
                        return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            for step in range(600):
                key = f"{rng.randrange(260):03}"
                if rng.random() < 0.3:
                    await table.delete({"id": key})
                else:
                    await table.put({"id": key, "n": step})
            await table.put({"id": "last"})
            with trio.fail_after(10):
                await finished.wait()
        if partitions == 1:
            assert view == {item["id"]: item async for item in table.scan()}
        assert sum(kind == "SNAPSHOT" for kind, _ in applied) > SNAPSHOT_SLICE_ROWS // 4


async def test_what_cannot_be_followed_is_told() -> None:
    async with open_database() as db:
        with pytest.raises(ResourceNotFound):
            await anext(db.table("things").changes())
        table = await make(db, stream=None)
        with pytest.raises(InvalidRequest, match="has no stream"):
            await anext(table.changes())
        for nonsense in ("yesterday", "", "AAAA"):
            with pytest.raises(InvalidRequest):
                await anext(table.changes(since=nonsense))


def test_a_handler_may_have_its_event_in_plain_values() -> None:
    event = stream_event(("INSERT", {"id": "a", "n": 1}), ("REMOVE", {"id": "b"}))
    first, second = changes_of(event)
    assert (first.kind, first.key, first.new, first.old) == (
        "INSERT", {"id": "a"}, {"id": "a", "n": 1}, None,
    )  # fmt: skip
    assert (second.kind, second.key, second.new, second.old) == (
        "REMOVE", {"id": "b"}, None, {"id": "b"},
    )  # fmt: skip
    assert first.at is not None and first.at.tzinfo is UTC


async def test_who_follows_hears_that_the_database_is_closed() -> None:
    async with trio.open_nursery() as nursery:
        with trio.fail_after(10):
            async with open_database() as db:
                table = await make(db)

                async def follow() -> None:
                    with pytest.raises(Unavailable):
                        await anext(table.changes())

                nursery.start_soon(follow)
                await trio.testing.wait_all_tasks_blocked()
            while nursery.child_tasks:
                await trio.lowlevel.checkpoint()
