"""Members of a global table: invited, filled, gone, invited again; and what they share."""

from __future__ import annotations

import msgspec
import pytest
import trio
import trio.testing

from millstream.actors.channel import Channel
from millstream.actors.link_out import LinkOut
from millstream.model.groups import Overrides, Stage
from millstream.model.schema import (
    KeyAttribute,
    KeySchema,
    NewIndex,
    NewTable,
    Projection,
    Status,
    TableChange,
)

from .conftest import NAMES, World, open_world, until

ONE, TWO, THREE = NAMES


def stage(world: World, seen_from: str, region: str) -> Stage:
    (group,) = world.regions(seen_from).store.all()
    return group.members[region].stage


async def test_a_region_that_is_removed_loses_its_table_and_the_others_go_on() -> None:
    async with open_world(*NAMES) as world:
        await world.make_global()
        await world.put(TWO, pk="a", v="of two")
        await world.regions(ONE).remove_replica(world.table(ONE).table, TWO, keep=False)
        await until(lambda: world[TWO].tables.find("", "t") is None)
        await until(lambda: stage(world, THREE, TWO) is Stage.GONE)
        # What it had written was sent before it went.
        assert world.get(ONE, "a") is not None
        await world.put(THREE, pk="b")
        await until(lambda: world.get(ONE, "b") is not None)


async def test_a_region_that_is_disassociated_keeps_its_table_as_one_of_its_own() -> None:
    async with open_world(*NAMES[:2]) as world:
        await world.make_global()
        await world.put(ONE, pk="a")
        await world.settled()
        await world.regions(ONE).remove_replica(world.table(ONE).table, TWO, keep=True)
        await until(lambda: stage(world, ONE, TWO) is Stage.GONE)
        assert world.table(TWO).table.group_id is None
        await world.put(ONE, pk="b")
        await world.put(TWO, pk="c")
        await trio.sleep(0.2)
        assert set(map(str, world.dump(ONE))) & set(map(str, world.dump(TWO)))
        assert world.get(TWO, "b") is None and world.get(ONE, "c") is None
        assert not world.table(TWO).table.tombstones


async def test_a_region_that_left_can_be_invited_again() -> None:
    async with open_world(*NAMES[:2]) as world:
        await world.make_global()
        await world.put(ONE, pk="a")
        await world.regions(ONE).remove_replica(world.table(ONE).table, TWO, keep=False)
        await until(lambda: stage(world, ONE, TWO) is Stage.GONE)
        await world.delete(ONE, "a")
        await world.put(ONE, pk="b")
        await world.regions(ONE).add_replica(world.table(ONE).table, TWO, Overrides())
        await world.until_active()
        await world.settled()
        assert len(world.equal()) == 1


async def test_a_table_of_that_name_is_not_overwritten() -> None:
    async with open_world(*NAMES[:2]) as world:
        key = KeySchema((KeyAttribute("pk", "S"),))
        for name in world.nodes:
            await world[name].tables.create(NewTable("", "t", key, {"pk": "S"}))
            await world[name].tables.wait_active("", "t")
        await world.put(TWO, pk="mine")
        await world.regions(ONE).add_replica(world.table(ONE).table, TWO, Overrides())
        await until(lambda: stage(world, ONE, TWO) is Stage.FAILED)
        assert world.get(TWO, "mine") is not None
        await world.regions(ONE).remove_replica(world.table(ONE).table, TWO, keep=False)
        assert stage(world, ONE, TWO) is Stage.GONE


async def test_an_index_that_is_made_in_one_region_is_made_in_all_and_removed_so() -> None:
    async with open_world(*NAMES) as world:
        await world.make_global()
        await world.put(ONE, pk="a", g="x")
        table = world.table(TWO).table
        kinds = {**table.attribute_kinds, "g": "S"}
        new = NewIndex("by_g", KeySchema((KeyAttribute("g", "S"),)), Projection("ALL"))
        edited = msgspec.structs.replace(table, attribute_kinds=kinds)
        await world[TWO].tables.change(TableChange(edited, create_index=new))

        def has_index(name: str) -> bool:
            index = world.table(name).table.global_index("by_g")
            return index is not None and index.status is Status.ACTIVE

        await until(lambda: all(has_index(name) for name in NAMES))
        assert len(list(world.table(THREE).rows("by_g", b"", None))) == 1
        table = world.table(ONE).table
        await world[ONE].tables.change(TableChange(table, delete_index="by_g"))
        await until(lambda: not any(has_index(name) for name in NAMES))


async def test_a_table_that_is_alone_in_its_group_is_deleted_like_any_other() -> None:
    async with open_world(*NAMES[:2]) as world:
        await world.make_global()
        await world.regions(ONE).remove_replica(world.table(ONE).table, TWO, keep=False)
        await until(lambda: stage(world, ONE, TWO) is Stage.GONE)
        await world[ONE].tables.delete("", "t")
        await world[ONE].tables.wait_gone("", "t")
        await until(lambda: stage(world, ONE, ONE) is Stage.GONE)


async def test_a_region_that_is_lost_can_be_given_up() -> None:
    async with open_world(*NAMES) as world:
        await world.make_global()
        for name in (ONE, TWO):
            world.network.cut(name, THREE)
        await world.put(ONE, pk="a")
        await world.regions(ONE).forget_replica(world.table(ONE).table, THREE)
        await until(lambda: stage(world, TWO, THREE) is Stage.GONE)
        await world.regions(ONE).remove_replica(world.table(ONE).table, TWO, keep=False)
        await until(lambda: stage(world, ONE, TWO) is Stage.GONE)


async def test_what_only_one_region_has_of_a_lost_one_reaches_the_others() -> None:
    async with open_world(*NAMES) as world:
        await world.make_global()
        world.network.cut(ONE, THREE)
        await world.put(THREE, pk="a", v="of three")
        await until(lambda: world.get(TWO, "a") is not None)
        world.network.cut(TWO, THREE)
        assert world.get(ONE, "a") is None
        await world.regions(ONE).forget_replica(world.table(ONE).table, THREE)
        await until(lambda: world.get(ONE, "a") is not None)
        assert world.dump(ONE) == world.dump(TWO)


async def test_a_change_while_groups_are_being_told_is_not_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tell_groups = LinkOut._tell_groups

    async with open_world(*NAMES[:2]) as world:
        first = world.regions(ONE)
        link = first.links[TWO]

        async def tell_slowly(self: LinkOut, channel: Channel) -> None:
            if self is link:
                await until(lambda: bool(first.store.all()))
            await tell_groups(self, channel)

        await until(lambda: link.is_linked)
        monkeypatch.setattr(LinkOut, "_tell_groups", tell_slowly)
        link.note_groups()
        first.note_changed()
        await trio.testing.wait_all_tasks_blocked()
        await world.make_global()
