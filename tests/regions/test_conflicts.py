"""Writes that lost: found once, where they were made; decided by policy; kept where asked for."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from millstream.actors.data_directory import open_node
from millstream.actors.node import NodeSettings
from millstream.errors import InvalidRequest
from millstream.globaltables.conflict_rows import CONFLICTS_KEY
from millstream.globaltables.policies import by_attribute
from millstream.host.memory_links import MemoryNetwork
from millstream.model.python_values import from_item, to_item
from millstream.model.schema import KeyAttribute, KeySchema, NewTable, Status
from millstream.model.values import decode_item, encode_item, item_size_bytes
from millstream.storage.commands import Delete, Put
from millstream.storage.indexes import primary_key

from .conftest import NAMES, World, open_world, region_settings, until

WEST, EAST = NAMES[1], NAMES[0]
PAIR = NAMES[:2]
LOST = "t_conflicts"


async def write(world: World, name: str, table: str = "t", **attributes: Any) -> None:
    ref = world.table(name, table)
    item = to_item(attributes)
    await ref.write(Put(primary_key(ref.table, item), encode_item(item), item_size_bytes(item)))


def read(world: World, name: str, pk: str = "a") -> dict[str, Any] | None:
    item = world.get(name, pk)
    return None if item is None else from_item(item)


def rows(world: World, name: str, table: str = LOST) -> list[dict[str, Any]]:
    """The conflicts table of a region, in the order of its items."""
    ref = world.nodes[name].tables.find("", table)
    if ref is None or ref.table.status is not Status.ACTIVE:
        return []
    found = [from_item(decode_item(row.body)) for _, row in ref.rows(None, b"", None)]
    return sorted(found, key=lambda row: (row["item"], row["at"]))


def found(world: World) -> dict[str, int]:
    """Region -> how many of its writes have lost."""
    counts = {}
    for name in world.nodes:
        status = world.regions(name).conflicts.status(world.table(name).table)
        assert status is not None
        counts[name] = status.conflicts
    return counts


def cut(world: World) -> None:
    for name in world.nodes:
        for other in world.nodes:
            if name < other:
                world.network.cut(name, other)


async def heal(world: World) -> None:
    for name in world.nodes:
        for other in world.nodes:
            if name < other:
                world.network.heal(name, other)
    await world.settled()


async def set_policy(world: World, policy: Any, conflicts_table: str | None = None) -> None:
    """Set it in the first region, and wait until all have heard."""
    first = next(iter(world.nodes))
    regions = world.regions(first)
    group = await regions.set_policy(world.table(first).table, policy, conflicts_table)

    def is_known(name: str) -> bool:
        known = world.regions(name).group_of(world.table(name).table)
        return known is not None and known.shared == group.shared

    await until(lambda: all(is_known(name) for name in world.nodes))


async def test_a_conflict_is_found_once_where_the_write_lost() -> None:
    async with open_world(*PAIR) as world:
        await world.make_global()
        await write(world, EAST, pk="a", v=0)
        await world.settled()
        cut(world)
        await write(world, EAST, pk="a", v=1)
        await write(world, WEST, pk="a", v=2)
        await write(world, WEST, pk="b", v=2)
        await heal(world)
        world.equal()
        assert read(world, EAST) == {"pk": "a", "v": 2}
        assert found(world) == {EAST: 1, WEST: 0}


async def test_writes_that_have_seen_each_other_do_not_conflict() -> None:
    async with open_world(*PAIR) as world:
        await world.make_global()
        for number in range(6):
            await write(world, PAIR[number % 2], pk="a", v=number)
            await world.settled()
        assert found(world) == {EAST: 0, WEST: 0}


async def test_the_higher_value_wins_whenever_it_was_written() -> None:
    async with open_world(*PAIR) as world:
        await world.make_global()
        await set_policy(world, by_attribute("price"))
        cut(world)
        await write(world, EAST, pk="a", price=10)
        await write(world, EAST, pk="b", price=1)
        await write(world, WEST, pk="a", price=9)
        await write(world, WEST, pk="b", price=2)
        await heal(world)
        world.equal()
        assert read(world, WEST, "a") == {"pk": "a", "price": 10}
        assert read(world, WEST, "b") == {"pk": "b", "price": 2}
        assert found(world) == {EAST: 2, WEST: 0}


async def test_a_policy_is_changed_at_once() -> None:
    async with open_world(*PAIR) as world:
        await world.make_global()
        await set_policy(world, "attribute price")
        await set_policy(world, "last_writer_wins")
        cut(world)
        await write(world, EAST, pk="a", price=10)
        await write(world, WEST, pk="a", price=9)
        await heal(world)
        assert read(world, EAST) == {"pk": "a", "price": 9}


def union(local: dict[str, Any] | None, remote: dict[str, Any] | None) -> dict[str, Any] | None:
    """A cart to which things are only added; a deletion loses against whatever there is."""
    if local is None or remote is None:
        return local if remote is None else remote
    return {**remote, "cart": local["cart"] | remote["cart"]}


UNION = {("", "t"): union}


async def test_a_resolver_merges_what_three_regions_wrote() -> None:
    async with open_world(*NAMES, resolvers=UNION) as world:
        await world.make_global()
        await set_policy(world, "resolver")
        cut(world)
        for number, name in enumerate(NAMES):
            await write(world, name, pk="a", cart={number})
        await heal(world)
        await until(lambda: len({str(world.dump(name)) for name in NAMES}) == 1)
        await world.settled()
        world.equal()
        assert read(world, EAST) == {"pk": "a", "cart": {0, 1, 2}}


@pytest.mark.parametrize("deletes", PAIR)
async def test_a_resolver_is_asked_about_a_deletion_too(deletes: str) -> None:
    async with open_world(*PAIR, resolvers=UNION) as world:
        await world.make_global()
        await write(world, EAST, pk="a", cart={0})
        await world.settled()
        await set_policy(world, "resolver")
        cut(world)
        for name in PAIR:
            if name == deletes:
                await world.delete(name, "a")
            else:
                await write(world, name, pk="a", cart={1})
        await heal(world)
        world.equal()
        assert read(world, WEST) == {"pk": "a", "cart": {1}}


async def test_a_resolver_can_delete() -> None:
    async with open_world(*PAIR, resolvers={("", "t"): lambda local, remote: None}) as world:
        await world.make_global()
        await set_policy(world, "resolver")
        cut(world)
        await write(world, EAST, pk="a", v=1)
        await write(world, WEST, pk="a", v=2)
        await heal(world)
        assert not world.equal()


async def test_a_resolver_that_raises_leaves_the_later_version(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(local: Any, remote: Any) -> Any:
        raise ValueError(local["v"])

    async with open_world(*PAIR, resolvers={("", "t"): fail}) as world:
        await world.make_global()
        await set_policy(world, "resolver")
        cut(world)
        for pk in ("a", "b"):
            await write(world, EAST, pk=pk, v="secret")
            await write(world, WEST, pk=pk, v="later")
        await heal(world)
        world.equal()
        assert read(world, EAST) == {"pk": "a", "v": "later"}
        status = world.regions(EAST).conflicts.status(world.table(EAST).table)
        assert status is not None
        assert (status.conflicts, status.failures, status.changed) == (2, 2, 0)
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(said) == 1
    assert "ValueError" in said[0]
    assert "secret" not in said[0]


async def test_without_a_resolver_the_last_writer_wins_and_it_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_world(*PAIR) as world:
        await world.make_global()
        await set_policy(world, "resolver")
        assert sum("no resolver" in record.getMessage() for record in caplog.records) == 2
        cut(world)
        await write(world, EAST, pk="a", v=1)
        await write(world, WEST, pk="a", v=2)
        await heal(world)
        assert read(world, EAST) == {"pk": "a", "v": 2}
        status = world.regions(EAST).conflicts.status(world.table(EAST).table)
        assert status is not None
        assert status.policy == "resolver"
        assert (status.has_resolver, status.unanswered) == (False, 1)


async def test_what_cannot_be_a_policy_is_refused() -> None:
    async with open_world(*PAIR) as world:
        await world.make_global()
        await world.make_global(table="other")
        regions, table = world.regions(EAST), world.table(EAST).table
        key = KeySchema((KeyAttribute("pk", "S"),))
        await world[EAST].tables.create(NewTable("", "plain", key, {"pk": "S"}))
        plain = world.table(EAST, "plain").table
        before = regions.group_of(table)
        with pytest.raises(InvalidRequest, match="no global table"):
            await regions.set_policy(plain, "resolver", None)
        for policy, conflicts_table in (
            ("newest", None),
            ("attribute ", None),
            ("", "t"),
            ("", "other"),
            ("", "plain"),
            ("", "no"),
        ):
            with pytest.raises(InvalidRequest):
                await regions.set_policy(table, policy, conflicts_table)
        assert regions.group_of(table) == before


# The table of what was lost.


async def test_what_was_lost_is_kept_in_the_region_that_lost_it() -> None:
    async with open_world(*PAIR, resolvers=UNION) as world:
        await world.make_global(partitions=2)
        await set_policy(world, "resolver", LOST)
        await write(world, EAST, pk="gone", cart={0})
        await world.settled()
        cut(world)
        await write(world, EAST, pk="a", cart={1})
        await world.delete(EAST, "gone")
        await write(world, EAST, pk="more", cart={1, 2})
        await write(world, WEST, pk="a", cart={2})
        await write(world, WEST, pk="gone", cart={3})
        await write(world, WEST, pk="more", cart={2})
        await heal(world)
        await until(lambda: len(rows(world, EAST)) == 3)
        first, gone, more = rows(world, EAST)
        assert world.table(EAST, LOST).table.key == CONFLICTS_KEY
        assert first["item"] == '{"pk":{"S":"a"}}'
        assert first["at"].endswith(" 00001 t")
        assert first["at"].startswith(first["lost_at"])
        assert first["lost_at"] <= first["won_at"]
        assert (first["lost_region"], first["won_region"]) == (EAST, WEST)
        assert (first["table"], first["key"]) == ("t", {"pk": "a"})
        assert first["lost"] == {"pk": "a", "cart": {1}}
        assert first["won"] == {"pk": "a", "cart": {2}}
        assert first["outcome"] == "resolved"
        assert first["resolved"] == {"pk": "a", "cart": {1, 2}}
        assert "lost" not in gone
        assert (gone["won"], gone["outcome"]) == ({"pk": "gone", "cart": {3}}, "winner")
        assert more["outcome"] == "kept"
        assert "resolved" not in more
        assert rows(world, WEST) == []


async def test_conflicts_from_before_are_kept_too() -> None:
    async with open_world(*PAIR) as world:
        await world.make_global()
        cut(world)
        await write(world, EAST, pk="a", v=1)
        await write(world, WEST, pk="a", v=2)
        await heal(world)
        await set_policy(world, "", LOST)
        await until(lambda: len(rows(world, EAST)) == 1)
        assert rows(world, EAST)[0]["outcome"] == "winner"


async def test_of_images_that_do_not_fit_what_fits_is_kept() -> None:
    async with open_world(*PAIR) as world:
        await world.make_global()
        await set_policy(world, "", LOST)
        cut(world)
        await write(world, EAST, pk="a", large="l" * 390_000, small=1)
        await write(world, WEST, pk="a", large="w" * 390_000, small=2)
        await heal(world)
        await until(lambda: len(rows(world, EAST)) == 1)
        (row,) = rows(world, EAST)
        assert row["lost"]["small"] == 1
        assert row["lost"]["large"] == "l" * 390_000
        assert row["won"] == {"pk": "a", "small": 2}
        assert row["left_out"] == ["won.large"]


async def test_a_table_in_the_way_is_waited_for_to_go() -> None:
    async with open_world(*PAIR) as world:
        await world.make_global()
        key = KeySchema((KeyAttribute("pk", "S"),))
        await world[WEST].tables.create(NewTable("", LOST, key, {"pk": "S"}))
        await set_policy(world, "", LOST)
        cut(world)
        await write(world, WEST, pk="a", v=1)
        await write(world, EAST, pk="a", v=2)
        await heal(world)

        def trouble() -> str:
            status = world.regions(WEST).conflicts.status(world.table(WEST).table)
            assert status is not None
            return status.trouble

        await until(lambda: "cannot keep conflicts" in trouble())
        await world[WEST].tables.delete("", LOST)
        await until(lambda: any("lost" in row for row in rows(world, WEST)))
        await until(lambda: not trouble())


async def test_what_was_lost_survives_a_restart(tmp_path: Path) -> None:
    network = MemoryNetwork(random.Random(7))
    world = World(network)

    @asynccontextmanager
    async def east() -> AsyncIterator[None]:
        settings, regions = NodeSettings(region=EAST), region_settings(network, EAST, PAIR)
        async with open_node(str(tmp_path), settings, regions=regions) as node:
            world.nodes = {EAST: node, WEST: west}
            yield

    async def conflict(pk: str) -> None:
        cut(world)
        await write(world, EAST, pk=pk, v=1)
        # The later one, although a clock that was restarted is ahead.
        world[WEST]._clock.observe(world[EAST].tick())
        await write(world, WEST, pk=pk, v=2)
        await heal(world)

    async with open_node(
        None, NodeSettings(region=WEST), regions=region_settings(network, WEST, PAIR)
    ) as west:
        async with east():
            await world.make_global()
            await set_policy(world, "", LOST)
            for pk in ("a", "b"):
                await conflict(pk)
            await until(lambda: len(rows(world, EAST)) == 2)
            before = rows(world, EAST)
        async with east():
            await world.settled()
            assert rows(world, EAST) == before
            # What somebody has dealt with does not come back.
            ref = world.table(EAST, LOST)
            key = to_item({name: before[0][name] for name in ("item", "at")})
            await ref.write(Delete(primary_key(ref.table, key)))
            await conflict("c")
            await until(lambda: len(rows(world, EAST)) == 2)
            # Now the recorder cannot put anything, and is down besides.
            await world[EAST].tables.delete("", LOST)
            await world[EAST].tables.wait_gone("", LOST)
            other = KeySchema((KeyAttribute("pk", "S"),))
            await world[EAST].tables.create(NewTable("", LOST, other, {"pk": "S"}))
            await conflict("d")
        async with east():
            await world[EAST].tables.delete("", LOST)
            await until(lambda: any("lost" in row for row in rows(world, EAST)))
            assert [row["key"] for row in rows(world, EAST)] == [{"pk": "d"}]


# Histories.


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_regions_end_equal(seed: int) -> None:
    chance = random.Random(seed)

    def odd(local: Any, remote: Any) -> Any:
        """A resolver that keeps no promise at all."""
        match chance.randrange(6):
            case 0:
                return None
            case 1:
                raise ValueError("odd")
            case 2:
                return {**(local or remote or {"pk": "z"}), "n": chance.randrange(100)}
            case 3:
                return local
            case _:
                return remote

    async with open_world(*NAMES, resolvers={("", "t"): odd}) as world:
        await world.make_global()
        await set_policy(world, "resolver", LOST)
        for _ in range(12):
            for _ in range(10):
                name, pk = chance.choice(NAMES), chance.choice("abc")
                if chance.random() < 0.2:
                    await world.delete(name, pk)
                else:
                    await write(world, name, pk=pk, n=chance.randrange(100))
            await trio.sleep(chance.choice([0, 0.002, 0.01]))
        await until(
            lambda: len({str(sorted(world.dump(name).items())) for name in NAMES}) == 1, 30
        )
        await world.settled()
        world.equal()
        for name, lost in found(world).items():
            await until(lambda name=name, lost=lost: len(rows(world, name)) == lost)  # type: ignore[misc]
        assert sum(found(world).values()) > 5
