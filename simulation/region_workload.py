"""The workload of one region of a global table: its clients, its rest, and its own audit.

What concerns several regions is ``global_table.py``'s and ``region_checks.py``'s.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from ..actors.node import Node
from .convergence import references
from .global_table import GlobalTable
from .options import Options
from .region_clients import RegionClient, RegionTally
from .simulated_node import SimulatedNode
from .workloads import Stream

_LOOK_SECONDS = 0.2
_PAGE = 1 << 30


class RegionWorkload:
    """See the module's text."""

    def __init__(
        self,
        sim: SimulatedNode,
        table: GlobalTable,
        options: Options,
        stream: Stream,
        tick: Callable[[], int],
    ) -> None:
        self._sim = sim
        self._table = table
        self.tally = RegionTally()
        self._clients = [
            RegionClient(name, sim, table, options, stream(name), tick, self.tally)
            for name in (f"{sim.name}c{number}" for number in range(options.clients))
        ]
        self._changes = 0

    async def work(self) -> None:
        async with trio.open_nursery() as clients:
            for client in self._clients:
                clients.start_soon(client.run)

    async def rest(self, node: Node) -> None:
        # Logs of tables that left are kept while their streams are.
        while node.tables.streams.logs() - _logs(node):  # noqa: ASYNC110 - there is no event
            await trio.sleep(_LOOK_SECONDS)

    async def audit(self, node: Node) -> None:
        """What a stream shows of an item is in the order of its versions."""
        await trio.lowlevel.checkpoint()
        streams = node.tables.streams
        for stream in streams.of_namespace(""):
            newest: dict[bytes, int] = {}
            for shard in stream.shards:
                page = streams.read(stream, shard, streams.first_sequence(shard), _PAGE, _PAGE)
                for change in page.changes:
                    self._changes += 1
                    before = newest.get(change.key, 0)
                    assert change.version >= before, (
                        f"a stream shows version {change.version} after {before}"
                    )
                    newest[change.key] = change.version

    def judge(self) -> dict[str, int]:
        return {
            "operations": self.tally.operations,
            "unknown": self.tally.unknown,
            "changes": self._changes,
        }


def _logs(node: Node) -> set[str]:
    return {log_id for ref in references(node) for log_id in ref.table.log_ids()}
