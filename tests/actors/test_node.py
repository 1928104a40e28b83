"""A node's promises as its users see them: writes, indexes, schema changes, restarts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from millstream.actors.data_directory import open_node
from millstream.actors.node import Node, NodeSettings
from millstream.errors import (
    Corrupt,
    DirectoryInUse,
    ResourceInUse,
    ResourceNotFound,
    Throttled,
    Unavailable,
)
from millstream.model.schema import Projection, Status, TableChange
from millstream.storage.commands import Refused, Written
from millstream.storage.log import ReplicatedLogEngine

from .conftest import bodies, caught_up, delete, index, make_table, put, until_active


async def test_a_write_is_seen_by_the_next_read(node: Node) -> None:
    ref = await make_table(node)
    command = put(ref, pk="a", v="1")
    result = await ref.write(command)
    assert isinstance(result, Written)
    assert result.old is None
    row = ref.get(command.key)
    assert row is not None and row.body == command.body


async def test_writes_to_one_key_see_each_other_in_order(node: Node) -> None:
    ref = await make_table(node)
    commands = [put(ref, pk="a", v=str(number)) for number in range(50)]
    results = await ref.write_many(commands)
    olds = [result.old.body for result in results[1:]]  # type: ignore[union-attr]
    assert olds == [command.body for command in commands[:-1]]


async def test_versions_grow(node: Node) -> None:
    ref = await make_table(node)
    results = await ref.write_many([put(ref, pk="a", v=str(number)) for number in range(10)])
    versions = [result.new.hlc for result in results]  # type: ignore[union-attr]
    assert versions == sorted(set(versions))


async def test_a_global_index_follows_its_table(node: Node) -> None:
    ref = await make_table(node, index("g", "a"))
    await ref.write(put(ref, pk="1", a="x"))
    await ref.write(put(ref, pk="2", a="x"))
    await ref.write(put(ref, pk="3"))
    await ref.write(put(ref, pk="1", a="y"))
    await ref.write(delete(ref, "2"))
    await caught_up(node)
    assert bodies(ref, "g") == [put(ref, pk="1", a="y").body]


async def test_an_index_made_on_a_full_table_is_filled_while_writes_go_on(node: Node) -> None:
    ref = await make_table(node)
    await ref.write_many([put(ref, pk=f"{n:04}", a=str(n % 7)) for n in range(1000)])

    async def write_on() -> None:
        for n in range(0, 1200, 3):
            await ref.write(put(ref, pk=f"{n:04}", a="changed"))
            await ref.write(delete(ref, f"{n + 1:04}"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_on)
        await node.tables.change(TableChange(ref.table, create_index=index("g", "a")))
        ref = await until_active(node)
    await caught_up(node)
    assert bodies(ref, "g") == bodies(ref)
    assert ref.table.global_indexes[0].status is Status.ACTIVE
    assert not ref.table.global_indexes[0].backfilling


async def test_an_index_is_removed_with_its_entries(node: Node) -> None:
    ref = await make_table(node, index("g", "a"), index("h", "b", Projection("KEYS_ONLY")))
    await ref.write(put(ref, pk="1", a="x", b="y"))
    await node.tables.change(TableChange(ref.table, delete_index="g"))
    ref = await until_active(node)
    assert [entry.name for entry in ref.table.global_indexes] == ["h"]
    assert set(ref.statistics().indexes) == {"h"}
    await ref.write(put(ref, pk="2", a="x", b="y"))
    await caught_up(node)
    assert len(bodies(ref, "h")) == 2


async def test_several_partitions_hold_one_ordered_table(node: Node) -> None:
    ref = await make_table(node, index("g", "a"), partition_count=5)
    await ref.write_many([put(ref, pk=str(n), a=str(n % 3)) for n in range(200)])
    await caught_up(node)
    keys = [key for key, _ in ref.rows(None, b"", None)]
    assert keys == sorted(keys) and len(keys) == 200
    assert [key for key, _ in ref.rows(None, b"", None, reverse=True)] == keys[::-1]
    assert [key for key, _ in ref.rows(None, keys[20], keys[180])] == keys[20:180]
    assert bodies(ref, "g") == bodies(ref)
    assert ref.statistics().item_count == 200
    assert ref.statistics().indexes["g"].item_count == 200


async def test_a_table_being_made_is_not_found_yet(node: Node) -> None:
    ref = await make_table(node)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.tables.delete, "", "t")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises((ResourceInUse, ResourceNotFound)):
            await node.tables.delete("", "t")
    with trio.fail_after(5):
        await node.tables.wait_gone("", "t")
    with pytest.raises((ResourceNotFound, Unavailable)):
        await ref.write(put(ref, pk="a"))


async def test_a_change_based_on_an_old_schema_is_refused(node: Node) -> None:
    ref = await make_table(node)
    old = ref.table
    await node.tables.change(TableChange(msgspec.structs.replace(old, tags={"a": "b"})))
    with pytest.raises(ResourceInUse):
        await node.tables.change(TableChange(msgspec.structs.replace(old, tags={"c": "d"})))
    assert ref.table.tags == {"a": "b"}


@pytest.mark.parametrize("engine", ["leveldb", "segments"])
async def test_a_second_start_finds_everything(tmp_path: Path, engine: str) -> None:
    if engine == "leveldb":
        pytest.importorskip("plyvel")
    path = str(tmp_path / "data")
    async with open_node(path, NodeSettings(), log_engine=engine) as node:
        ref = await make_table(node, index("g", "a"))
        await ref.write_many([put(ref, pk=str(n), a="x") for n in range(100)])
        await ref.write(delete(ref, "50"))
        await caught_up(node)
        before = bodies(ref)
    async with open_node(path, NodeSettings(), log_engine=engine) as node:
        found = node.tables.find("", "t")
        assert found is not None
        assert bodies(found) == before
        assert bodies(found, "g") == before
        assert found.statistics().item_count == 99
        assert isinstance(await found.write(put(found, pk="new", a="x")), Written)
        await caught_up(node)
        assert len(bodies(found, "g")) == 100


async def test_a_directory_is_served_by_one(tmp_path: Path) -> None:
    path = str(tmp_path / "data")
    async with open_node(path, NodeSettings()):
        with pytest.raises(DirectoryInUse):
            async with open_node(path, NodeSettings()):
                pass


async def test_a_full_memtable_is_flushed_while_writes_go_on(tmp_path: Path) -> None:
    settings = NodeSettings(memtable_bytes=64 * 1024)
    async with open_node(str(tmp_path / "data"), settings) as node:
        ref = await make_table(node, index("g", "a"))
        for start in range(0, 1000, 100):
            await ref.write_many(
                [put(ref, pk=str(start + n), a="x", filler="f" * 500) for n in range(100)]
            )
        assert node.flusher.flushes > 0
        await caught_up(node)
        assert len(bodies(ref)) == 1000
        assert bodies(ref, "g") == bodies(ref)


async def test_a_condition_is_decided_against_pending_writes(node: Node) -> None:
    from millstream.expressions import compile_expressions

    ref = await make_table(node)
    condition = compile_expressions(condition="attribute_not_exists(pk)").condition
    commands = [
        msgspec.structs.replace(put(ref, pk="a", v=str(n)), condition=condition) for n in range(5)
    ]
    results = await ref.write_many(commands)
    assert [type(result) for result in results] == [Written, *[Refused] * 4]
    refused = results[-1]
    assert isinstance(refused, Refused)
    assert refused.found is not None and refused.found.body == commands[0].body


async def test_a_lost_tree_and_a_lost_log_copy_are_made_again(tmp_path: Path) -> None:
    path = str(tmp_path / "data")
    copies = tuple(str(tmp_path / name) for name in "abc")
    options = {"log_engine": "segments", "log_directories": copies}
    async with open_node(path, NodeSettings(), **options) as node:  # type: ignore[arg-type]
        ref = await make_table(node, index("g", "a"))
        await ref.write_many([put(ref, pk=str(n), a="x") for n in range(100)])
        before = bodies(ref)
    for lost in ("a", "b"):
        shutil.rmtree(tmp_path / lost / "tree")
        shutil.rmtree(tmp_path / "c" / "log", ignore_errors=True)
        async with open_node(path, NodeSettings(), **options) as node:  # type: ignore[arg-type]
            found = node.tables.find("", "t")
            assert found is not None
            assert bodies(found) == before
            await caught_up(node)
            assert bodies(found, "g") == before


async def test_a_damaged_row_is_read_from_the_other_copy(tmp_path: Path) -> None:
    path = str(tmp_path / "data")
    copies = tuple(str(tmp_path / name) for name in "abc")
    options = {"log_engine": "segments", "log_directories": copies}
    async with open_node(path, NodeSettings(), **options) as node:  # type: ignore[arg-type]
        ref = await make_table(node)
        await ref.write(put(ref, pk="a", v="precious"))
    tree = tmp_path / "a" / "tree" / "data.mdb"
    tree.write_bytes(tree.read_bytes().replace(b"precious", b"Precious"))
    async with open_node(path, NodeSettings(), **options) as node:  # type: ignore[arg-type]
        found = node.tables.find("", "t")
        assert found is not None
        assert bodies(found) == [put(found, pk="a", v="precious").body]
        row = found.get(put(found, pk="a").key)
        assert row is not None and row.body == put(found, pk="a", v="precious").body


async def test_a_damaged_row_without_a_copy_is_an_error_not_an_answer(tmp_path: Path) -> None:
    path = str(tmp_path / "data")
    async with open_node(path, NodeSettings()) as node:
        ref = await make_table(node)
        await ref.write(put(ref, pk="a", v="precious"))
    tree = tmp_path / "data" / "tree" / "data.mdb"
    tree.write_bytes(tree.read_bytes().replace(b"precious", b"Precious"))
    async with open_node(path, NodeSettings()) as node:
        found = node.tables.find("", "t")
        assert found is not None
        with pytest.raises(Corrupt):
            found.get(put(found, pk="a").key)


async def test_a_client_that_leaves_does_not_stop_a_schema_change(node: Node) -> None:
    ref = await make_table(node)
    with trio.CancelScope() as scope:
        scope.cancel()
        await node.tables.change(TableChange(ref.table, create_index=index("g", "a")))
    ref = await until_active(node)
    assert [entry.name for entry in ref.table.global_indexes] == ["g"]


async def test_two_changes_at_once_are_refused(node: Node) -> None:
    ref = await make_table(node)
    refused = 0

    async def tag(name: str) -> None:
        nonlocal refused
        try:
            tagged = msgspec.structs.replace(ref.table, tags={name: name})
            await node.tables.change(TableChange(tagged))
        except ResourceInUse:
            refused += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tag, "a")
        nursery.start_soon(tag, "b")
    assert refused == 1
    assert len(ref.table.tags) == 1


async def test_a_tree_that_was_away_for_long_is_made_again(tmp_path: Path) -> None:
    path = str(tmp_path / "data")
    copies = tuple(str(tmp_path / name) for name in "abc")
    options = {"log_engine": "auto", "log_directories": copies}
    async with open_node(path, NodeSettings(), **options) as node:  # type: ignore[arg-type]
        ref = await make_table(node)
        await ref.write(put(ref, pk="first"))
    shutil.copytree(tmp_path / "a" / "tree", tmp_path / "kept")
    for number in range(3):
        shutil.rmtree(tmp_path / "a" / "tree", ignore_errors=True)
        async with open_node(path, NodeSettings(), **options) as node:  # type: ignore[arg-type]
            found = node.tables.find("", "t")
            assert found is not None
            await found.write(put(found, pk=str(number)))
    shutil.rmtree(tmp_path / "a" / "tree")
    shutil.copytree(tmp_path / "kept", tmp_path / "a" / "tree")
    async with open_node(path, NodeSettings(), **options) as node:  # type: ignore[arg-type]
        found = node.tables.find("", "t")
        assert found is not None
        assert len(bodies(found)) == 4


async def test_a_lost_log_directory_is_replaced_when_the_operator_says_so(tmp_path: Path) -> None:
    path = str(tmp_path / "data")
    copies = tuple(str(tmp_path / name) for name in "abc")
    options: dict[str, Any] = {"log_engine": "segments", "log_directories": copies}
    async with open_node(path, NodeSettings(), **options) as node:
        ref = await make_table(node)
        await ref.write(put(ref, pk="kept"))
    for lost in "abc":
        shutil.rmtree(tmp_path / lost)
        async with open_node(path, NodeSettings(), adopt_empty=True, **options) as node:
            found = node.tables.find("", "t")
            assert found is not None
            assert len(bodies(found)) == 1
            engine = node.log_writer.engine
            assert isinstance(engine, ReplicatedLogEngine)
            await node.log_writer.change(lambda engine=engine: list(iter(engine.heal, False)))  # type: ignore[misc]


async def test_an_unfinished_tree_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "data" / "tree").mkdir(parents=True)
    (tmp_path / "data" / "tree" / "data.mdb").write_bytes(b"\xff" * 16384)
    async with open_node(str(tmp_path / "data"), NodeSettings()) as node:
        await make_table(node)


async def test_a_tree_that_was_away_before_its_first_flush_is_made_again(tmp_path: Path) -> None:
    """Found by make crash: it had no position at all, and so seemed to reach every log."""
    path = str(tmp_path / "data")
    copies = tuple(str(tmp_path / name) for name in "abc")
    options: dict[str, Any] = {"log_engine": "auto", "log_directories": copies}
    settings = NodeSettings(flush_interval_seconds=1e9)
    async with open_node(path, settings, **options) as node:
        ref = await make_table(node)
        await ref.write(put(ref, pk="0"))
        shutil.copytree(tmp_path / "b" / "tree", tmp_path / "kept")
    for number in range(1, 4):
        async with open_node(path, settings, **options) as node:
            found = node.tables.find("", "t")
            assert found is not None
            await found.write(put(found, pk=str(number)))
    shutil.rmtree(tmp_path / "b" / "tree")
    shutil.copytree(tmp_path / "kept", tmp_path / "b" / "tree")
    async with open_node(path, settings, **options) as node:
        found = node.tables.find("", "t")
        assert found is not None
        assert len(bodies(found)) == 4


async def test_an_index_that_is_removed_lifts_its_throttle(node: Node) -> None:
    """A builder that has stopped for good holds writes up until its index goes."""
    ref = await make_table(node, index("g", "a"))
    command = put(ref, pk="1", a="x")
    ref.partition_of(command.key).throttled_by.add("g")
    with pytest.raises(Throttled, match="cannot keep up with the table: g"):
        await ref.write(command)
    await node.tables.change(TableChange(ref.table, delete_index="g"))
    ref = await until_active(node)
    await ref.write(command)
    assert bodies(ref) == [command.body]


async def test_nobody_waits_for_a_node_that_has_ended() -> None:
    """Seed 946 of the simulated transactions: a client waited for a table there for ever."""
    async with trio.open_nursery() as nursery:
        with trio.fail_after(10):
            async with open_node(None, NodeSettings()) as node:
                await make_table(node)

                async def wait() -> None:
                    with pytest.raises(Unavailable):
                        await node.tables.wait_gone("", "t")

                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
            while nursery.child_tasks:
                await trio.lowlevel.checkpoint()
            with pytest.raises(Unavailable):
                await node.tables.wait_gone("", "t")
