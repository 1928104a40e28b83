"""Regions in one program: nodes in memory on a network in memory, and what tests ask of them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

from millstream.actors.data_directory import open_node
from millstream.actors.node import Node, NodeSettings
from millstream.actors.regions import Regions, RegionSettings
from millstream.actors.tables import TableRef
from millstream.globaltables.faults import LinkFaults
from millstream.globaltables.peers import Peer, Peers
from millstream.globaltables.policies import Resolver
from millstream.host.memory_links import MemoryNetwork
from millstream.model.groups import Overrides, Stage
from millstream.model.schema import KeyAttribute, KeySchema, NewTable, Status
from millstream.model.values import Item, decode_item, encode_item, item_size_bytes
from millstream.storage.commands import Delete, Put
from millstream.storage.indexes import primary_key

NAMES = ("us-east-1", "eu-west-1", "ap-south-1")
SECRET = b"the secret of the tests"
Dump = dict[bytes, tuple[int, int, bytes]]


def region_settings(network: MemoryNetwork, own: str, names: tuple[str, ...]) -> RegionSettings:
    peers = {name: Peer(name, number + 1, f"link:{name}") for number, name in enumerate(names)}
    others = tuple(peers[name] for name in sorted(names) if name != own)
    return RegionSettings(
        Peers(peers[own], others, SECRET),
        network.of(own),
        LinkFaults(random.Random(1).random),
        collect_seconds=0.2,
    )


class World:
    """Some regions, by name."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.nodes: dict[str, Node] = {}

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def regions(self, name: str) -> Regions:
        regions = self.nodes[name].regions
        assert regions is not None
        return regions

    def table(self, name: str, table: str = "t") -> TableRef:
        ref = self.nodes[name].tables.find("", table)
        assert ref is not None
        return ref

    async def make_global(self, *, partitions: int = 1, table: str = "t", **more: Any) -> None:
        """A table in the first region with replicas in all others, filled."""
        first, *others = self.nodes
        key = KeySchema((KeyAttribute("pk", "S"),))
        new = NewTable("", table, key, {"pk": "S"}, partition_count=partitions, **more)
        await self.nodes[first].tables.create(new)
        await self.nodes[first].tables.wait_active("", table)
        for name in others:
            await self.regions(first).add_replica(self.table(first, table).table, name, Overrides())
        await self.until_active(table)

    async def until_active(self, table: str = "t") -> None:
        def is_active(name: str) -> bool:
            ref = self.nodes[name].tables.find("", table)
            if ref is None or ref.table.status is not Status.ACTIVE or ref.table.is_shut:
                return False
            group = self.regions(name).group_of(ref.table)
            return group is not None and all(
                member.stage is Stage.ACTIVE for member in group.members.values()
            )

        await until(lambda: all(is_active(name) for name in self.nodes))

    async def settled(self) -> None:
        """Return when every region has what every other has written."""

        def behind() -> int:
            return sum(
                lag.entries + (lag.state != "following")
                for name in self.nodes
                for lag in self.regions(name).lags()
            )

        await until(lambda: not behind())

    def dump(self, name: str, table: str = "t") -> Dump:
        """Key -> version and body."""
        ref, number = self.table(name, table), self.regions(name).number
        return {
            key: (row.hlc, row.region or number, row.body)
            for key, row in ref.rows(None, b"", None)
        }

    def equal(self, table: str = "t") -> Dump:
        """What all regions have; asserts that it is the same."""
        dumps = [self.dump(name, table) for name in self.nodes]
        for dump in dumps[1:]:
            assert dump == dumps[0]
        return dumps[0]

    async def put(self, name: str, table: str = "t", **attributes: str) -> None:
        await self.table(name, table).write(put(self.table(name, table), **attributes))

    async def delete(self, name: str, pk: str, table: str = "t") -> None:
        ref = self.table(name, table)
        await ref.write(Delete(primary_key(ref.table, {"pk": {"S": pk}})))

    def get(self, name: str, pk: str, table: str = "t") -> Item | None:
        ref = self.table(name, table)
        row = ref.get(primary_key(ref.table, {"pk": {"S": pk}}))
        return None if row is None else decode_item(row.body)


def put(ref: TableRef, **attributes: str) -> Put:
    item: Item = {name: {"S": text} for name, text in attributes.items()}
    return Put(primary_key(ref.table, item), encode_item(item), item_size_bytes(item))


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await trio.sleep(0.01)


@asynccontextmanager
async def open_world(
    *names: str,
    settings: NodeSettings | None = None,
    resolvers: Mapping[tuple[str, str], Resolver] | None = None,
) -> AsyncIterator[World]:
    """Nodes in memory, one a region."""
    network = MemoryNetwork(random.Random(7))
    world = World(network)
    async with AsyncExitStack() as stack:
        for name in names:
            node = await stack.enter_async_context(
                open_node(
                    None,
                    settings or NodeSettings(region=name),
                    regions=region_settings(network, name, names),
                    resolvers=resolvers,
                )
            )
            world.nodes[name] = node
        yield world
