"""Regions in step: what is written in one is in all, whoever wrote last wins, in order, once."""

from __future__ import annotations

from .conftest import NAMES, open_world


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
