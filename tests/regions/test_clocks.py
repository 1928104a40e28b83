"""Clocks of regions: what is promised about the future survives restarts, whatever clocks do."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
import trio

from millstream.actors.data_directory import open_node
from millstream.actors.node import NodeSettings
from millstream.errors import ConfigurationError
from millstream.host.clock import ManualClock
from millstream.host.host import real_host
from millstream.host.memory_links import MemoryNetwork
from millstream.model.schema import KeyAttribute, KeySchema, NewTable

from .conftest import NAMES, put, region_settings

SETTINGS = NodeSettings(region=NAMES[0])


async def test_a_clock_put_back_while_the_node_is_away_goes_on_above_its_promises(
    tmp_path: Path,
) -> None:
    # An idle partition tells other regions that it is closed up to now, which no log remembers.
    clock = ManualClock()
    host = msgspec.structs.replace(real_host(), clock=clock)
    regions = region_settings(MemoryNetwork(random.Random(1)), NAMES[0], NAMES)
    key = KeySchema((KeyAttribute("pk", "S"),))
    async with open_node(str(tmp_path), SETTINGS, host=host, regions=regions) as node:
        await node.tables.create(NewTable("", "t", key, {"pk": "S"}))
        await node.tables.wait_active("", "t")
        ref = node.tables.find("", "t")
        assert ref is not None and node.regions is not None
        actor = ref.partition_of(b"\0" * 8)
        closed = 0
        while not closed:
            await trio.sleep(0.01)
            closed = node.regions._close_timestamp(actor)
    clock.set_wall(clock.now_ms() - 500_000)
    async with open_node(str(tmp_path), SETTINGS, host=host, regions=regions) as node:
        ref = node.tables.find("", "t")
        assert ref is not None
        command = put(ref, pk="a")
        await ref.write(command)
        row = ref.get(command.key)
        assert row is not None and row.hlc > closed


async def test_a_directory_is_one_region_s_for_good(tmp_path: Path) -> None:
    network = MemoryNetwork(random.Random(1))
    first = region_settings(network, NAMES[0], NAMES)
    async with open_node(str(tmp_path), SETTINGS, regions=first):
        pass
    other = region_settings(network, NAMES[1], NAMES)
    with pytest.raises(ConfigurationError, match="this data is that of us-east-1, number 1"):
        async with open_node(str(tmp_path), SETTINGS, regions=other):
            pass
    # Without regions it writes on under its number: others know its versions by that.
    async with open_node(str(tmp_path), SETTINGS) as node:
        assert node.region_number == 1
