"""Conflict policies as users meet them: in Python, over HTTP, and resolvers in a registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

import millstream
from millstream.actors.data_directory import open_node
from millstream.actors.node import NodeSettings
from millstream.api.calls import Caller
from millstream.api.dispatch import Dispatcher
from millstream.database import Database, open_database
from millstream.errors import InvalidRequest, MalformedRequest, ResourceNotFound
from millstream.triggers import Triggers, resolvers_of

from .conftest import NAMES, World, open_world, until

PAIR = NAMES[:2]
CALLER = Caller("", "test", PAIR[0], "request")


def database(world: World, name: str) -> Database:
    return Database(world[name].tables, None, "")  # type: ignore[arg-type]


async def call(world: World, operation: str, **request: Any) -> Any:
    dispatcher = Dispatcher(world[PAIR[0]].tables)
    target = f"Millstream_20261123.{operation}"
    return json.loads(await dispatcher.dispatch(target, json.dumps(request).encode(), CALLER))


async def test_a_policy_set_in_python_holds_in_every_region() -> None:
    async with open_world(*PAIR) as world:
        await world.make_global()
        here, there = (database(world, name).table("t") for name in PAIR)
        assert (await here.conflict_policy())["Policy"] == "last_writer_wins"
        await here.set_conflict_policy(millstream.by_attribute("price"), conflicts_table="lost")

        def is_known() -> bool:
            status = world.regions(PAIR[1]).conflicts.status(world.table(PAIR[1]).table)
            return status is not None and status.policy == "attribute price"

        await until(is_known)
        world.network.cut(*PAIR)
        await here.put({"pk": "a", "price": 3})
        await there.put({"pk": "a", "price": 2})
        world.network.heal(*PAIR)
        await world.settled()
        assert await there.get({"pk": "a"}) == {"pk": "a", "price": 3}
        await until(lambda: "lost" in database(world, PAIR[0]).table_names())
        await world[PAIR[0]].tables.wait_active("", "lost")

        async def kept() -> list[Any]:
            return [row async for row in database(world, PAIR[0]).table("lost").scan()]

        rows: list[Any] = []
        while not rows:
            await trio.sleep(0.01)
            rows = await kept()
        assert [(row["outcome"], row["won"]["price"]) for row in rows] == [("kept", 2)]
        described = await here.conflict_policy()
        assert described["ConflictsTable"] == "lost"
        assert (described["Conflicts"], described["Changed"]) == (1, 1)
        await here.set_conflict_policy("last_writer_wins")
        assert "ConflictsTable" not in await here.conflict_policy()
        with pytest.raises(InvalidRequest):
            await here.set_conflict_policy("newest")


async def test_the_operations_over_http() -> None:
    async with open_world(*PAIR) as world:
        await world.make_global()
        answer = await call(
            world, "SetConflictPolicy", TableName="t", Policy="attribute a b", ConflictsTable="lost"
        )
        assert answer["ConflictPolicy"] == {
            "TableName": "t",
            "Policy": "attribute a b",
            "Region": PAIR[0],
            "HasResolver": False,
            "Conflicts": 0,
            "Changed": 0,
            "ResolverFailures": 0,
            "Unanswered": 0,
            "ConflictsTable": "lost",
            "Recorded": 0,
            "Trouble": "",
        }
        assert await call(world, "DescribeConflictPolicy", TableName="t") == answer
        for wrong in (
            {},
            {"TableName": "t"},
            {"TableName": "t", "Policy": "newest"},
            {"TableName": "t", "Policy": "resolver", "ConflictsTable": "t"},
        ):
            with pytest.raises(InvalidRequest):
                await call(world, "SetConflictPolicy", **wrong)
        with pytest.raises(ResourceNotFound):
            await call(world, "SetConflictPolicy", TableName="nothing", Policy="resolver")
        with pytest.raises(MalformedRequest):
            await call(world, "DescribeConflictPolicy", TableName="t", More=1)
        with pytest.raises(InvalidRequest):
            await call(world, "DescribeConflictPolicy", TableName="t", Policy="resolver")
        assert await call(world, "DescribeConflictPolicy", TableName="t") == answer


async def test_a_database_that_is_alone_has_no_policies() -> None:
    async with open_database() as db:
        table = await db.create_table("orders", partition_key="id")
        with pytest.raises(InvalidRequest, match="--peers"):
            await table.set_conflict_policy("last_writer_wins")
        with pytest.raises(InvalidRequest, match="--peers"):
            await table.conflict_policy()


# Resolvers in a registry.


def test_resolvers_are_registered_by_table() -> None:
    triggers = Triggers()

    @triggers.resolver("orders")
    def merge(local: Any, remote: Any) -> Any:
        return remote

    assert resolvers_of(triggers, "mine") == {("mine", "orders"): merge}
    assert resolvers_of([], "mine") == {}
    assert len(triggers) == 0


def test_what_cannot_be_a_resolver_is_refused() -> None:
    triggers = Triggers()
    triggers.resolver("orders")(lambda local, remote: remote)
    with pytest.raises(InvalidRequest, match="already"):
        triggers.resolver("orders")(lambda local, remote: local)

    async def asleep(local: Any, remote: Any) -> Any:
        return remote

    with pytest.raises(InvalidRequest, match="async"):
        triggers.resolver("others")(asleep)
    with pytest.raises(InvalidRequest):
        triggers.resolver("others")(5)  # type: ignore[type-var]


async def test_a_node_has_the_resolvers_it_was_opened_with(tmp_path: Path) -> None:
    resolvers = {("", "t"): max}
    async with open_node(str(tmp_path), NodeSettings(), resolvers=resolvers) as node:
        assert node.resolvers == resolvers
