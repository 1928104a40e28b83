"""Two of the kinds of workload that a node's world can have: single items, transactions.

Each knows its tables and clients, what rest means for them, and how to judge what they saw. The
world (``world.py``) does what is the same for both: faults, healing, and the checks of storage.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Protocol

import trio

from ..actors.node import Node
from .clients import Client, Tally
from .convergence import promises, references
from .linearizability import TooHard, check_calls
from .options import Options
from .schema_changes import SchemaWorkload
from .serializability import check_history
from .simulated_node import SimulatedNode
from .tables import MAIN, Keys
from .transaction_clients import TransactionClient, TransactionTally
from .transaction_history import TransactionHistory
from .transaction_places import TABLES

Stream = Callable[[str], random.Random]
Tick = Callable[[], int]
#: Within which every promise without a coordinator must have been ended.
_REST_SECONDS = 3.0


class Workload(Protocol):
    """What the world asks of either."""

    async def work(self) -> None:
        """Everything, among faults, until the clients are done."""
        ...

    async def rest(self, node: Node) -> None:
        """Return when nothing is under way, and the node answers writes."""
        ...

    async def audit(self, node: Node) -> None:
        """Read everything once more, at rest."""
        ...

    def judge(self) -> dict[str, int]:
        """Raise unless what clients saw can be explained; counts for the report."""
        ...


class ItemWorkload:
    """Single reads and writes, while indexes and tables come and go."""

    __slots__ = ("_clients", "_options", "_schema", "_scratch", "_sim", "_tally")

    def __init__(self, sim: SimulatedNode, options: Options, stream: Stream, tick: Tick) -> None:
        self._sim = sim
        self._options = options
        self._schema = SchemaWorkload(sim, options, stream("schema"))
        self._tally = Tally()

        def client(name: str) -> Client:
            return Client(name, sim, options, stream(name), tick, self._tally)

        self._clients = [client(f"{sim.name}c{index}") for index in range(options.clients)]
        self._scratch = client(f"{sim.name}s")

    async def work(self) -> None:
        await self._schema.set_up(MAIN)
        async with trio.open_nursery() as changes:
            if self._options.index_changes:
                changes.start_soon(self._schema.change_indexes)
            if self._options.scratch_table:
                changes.start_soon(self._schema.make_and_remove, self._scratch)
            async with trio.open_nursery() as clients:
                for client in self._clients:
                    clients.start_soon(client.run)
            changes.cancel_scope.cancel()

    async def rest(self, node: Node) -> None:
        await self._schema.rest(node)
        for name in node.tables.names(""):
            await self._scratch.write_until_answered(name)

    async def audit(self, node: Node) -> None:
        for ref in references(node):
            for key in Keys(self._options).all():
                self._scratch.read(ref, key)

    def judge(self) -> dict[str, int]:
        checked = too_hard = 0
        for place, calls in sorted(self._sim.history.complete().items()):
            try:
                violation = check_calls(calls)
            except TooHard:
                too_hard += 1
                continue
            checked += 1
            assert violation is None, f"{place} is not linearizable: {violation}"
        return {
            "operations": self._tally.operations,
            "reads": self._tally.reads,
            "unknown": self._tally.unknown,
            "schema_changes": self._schema.changes,
            "histories": checked,
            "histories_too_hard": too_hard,
        }


class TransactionWorkload:
    """Transactions over two tables, and single reads and writes in their way."""

    __slots__ = (
        "_auditor", "_clients", "_history", "_options", "_schema", "_settled", "_tally", "_tick",
    )

    def __init__(self, sim: SimulatedNode, options: Options, stream: Stream, tick: Tick) -> None:
        self._options = options
        self._tick = tick
        self._schema = SchemaWorkload(sim, options, stream("schema"))
        self._tally = TransactionTally()
        self._history = TransactionHistory()
        #: When everything was at rest for the first time.
        self._settled: int | None = None

        def client(name: str) -> TransactionClient:
            return TransactionClient(
                name, sim, options, stream(name), tick, self._tally, self._history
            )

        self._clients = [client(f"{sim.name}c{index}") for index in range(options.clients)]
        self._auditor = client(f"{sim.name}a")

    async def work(self) -> None:
        await self._schema.set_up(*TABLES)
        await self._auditor.open_accounts()
        async with trio.open_nursery() as changes:
            if self._options.index_changes:
                changes.start_soon(self._schema.change_indexes)
            async with trio.open_nursery() as clients:
                for client in self._clients:
                    clients.start_soon(client.run)
            changes.cancel_scope.cancel()

    async def rest(self, node: Node) -> None:
        await self._schema.rest(node)
        for name in node.tables.names(""):
            await self._auditor.write_until_answered(name)
        await trio.sleep(_REST_SECONDS)
        stuck = promises(node)
        assert not stuck, f"nobody ends these transactions: {sorted(stuck)}"
        if self._settled is None:
            self._settled = self._tick()

    async def audit(self, node: Node) -> None:
        await self._auditor.audit(node)

    def judge(self) -> dict[str, int]:
        verdict = check_history(
            self._history.operations, self._settled, self._history.versions
        )
        tally = self._tally
        counts: Iterable[str] = tally.__slots__
        return {
            **{name: getattr(tally, name) for name in counts if name != "turned_away"},
            "schema_changes": self._schema.changes,
            "histories": 1,
            "happened": verdict.operations,
            "edges": verdict.edges,
        }
