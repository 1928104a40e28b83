"""The schema workload: tables and indexes come and go while clients write.

One loop per table, which looks at what is there, takes the next step, and remembers what was
acknowledged: a table or an index that was once said to be there (or gone) must be, after any crash.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import trio

from ..actors.node import Node
from ..errors import OutcomeUnknown, RequestError, Unavailable
from ..model.schema import Status, TableChange
from .clients import Client
from .options import Options
from .simulated_node import Gone, SimulatedNode
from .tables import CHANGING_INDEX, MAIN, SCRATCH, changing_index, new_table

_Step = Callable[[str, Node], Awaitable[None]]
_SETBACKS = (RequestError, Unavailable, OutcomeUnknown, Gone)


class SchemaWorkload:
    """What happens to one node's tables."""

    def __init__(self, node: SimulatedNode, options: Options, rng: random.Random) -> None:
        self._sim = node
        self._options = options
        self._rng = rng
        #: Name -> whether it was acknowledged to be there; None while that is open.
        self._acknowledged: dict[str, bool | None] = {}
        #: Steps that were carried out wholly.
        self.changes = 0

    async def set_up(self, *names: str) -> None:
        """Return when these tables are ACTIVE."""
        for name in names:
            while not await self._attempt(name, self._create):
                pass

    async def rest(self, node: Node) -> None:
        """Return when no table is being made, changed or removed; what was acknowledged is so."""
        self.check(node)
        # What cancelled clients asked for may still be on its way.
        await trio.sleep(1.0)
        for name in node.tables.names(""):
            ref = node.tables.find("", name)
            if ref is None:
                continue
            if ref.table.status is Status.DELETING:
                await node.tables.wait_gone("", name)
            else:
                await node.tables.wait_active("", name)

    async def change_indexes(self) -> None:
        """Add the changing index to the main table and remove it, until cancelled."""
        while True:
            await self._pause()
            await self._attempt(MAIN, self._toggle_index)

    async def make_and_remove(self, client: Client) -> None:
        """Make the scratch table, let ``client`` use it, remove it, until cancelled."""
        while True:
            await self._pause()
            await self._attempt(SCRATCH, self._create)
            for _ in range(self._rng.randrange(15)):
                await trio.sleep(self._rng.expovariate(200))
                await client.operate(SCRATCH)
            await self._attempt(SCRATCH, self._delete)

    def check(self, node: Node) -> None:
        """What was acknowledged is so."""
        for name, there in self._acknowledged.items():
            if there is not None:
                assert (self._find(node, name) is not None) == there, (
                    f"{name} was acknowledged to be {'there' if there else 'gone'}"
                )

    def _find(self, node: Node, name: str) -> object | None:
        if name == CHANGING_INDEX:
            ref = node.tables.find("", MAIN)
            assert ref is not None
            return ref.table.global_index(name)
        return node.tables.find("", name)

    async def _pause(self) -> None:
        await trio.sleep(self._rng.expovariate(1 / (10 * self._options.think_seconds)))

    async def _attempt(self, name: str, step: _Step) -> bool:
        """Whether the step was carried out wholly."""
        node = await self._sim.ready()
        self.check(node)
        try:
            with self._sim.within_life():
                await step(name, node)
                self.changes += 1
        except _SETBACKS as error:
            self._sim.machine.note("schema", name, type(error).__name__)
            await trio.sleep(0.01)
            return False
        return True

    async def _create(self, name: str, node: Node) -> None:
        if node.tables.find("", name) is None:
            self._acknowledged[name] = None
            await node.tables.create(new_table(self._options, name))
            self._acknowledged[name] = True
        await node.tables.wait_active("", name)
        self._acknowledged[name] = True
        self._sim.machine.note("schema", name, "made")

    async def _delete(self, name: str, node: Node) -> None:
        if node.tables.find("", name) is not None:
            self._acknowledged[name] = None
            await node.tables.delete("", name)
        await node.tables.wait_gone("", name)
        self._acknowledged[name] = False
        self._sim.machine.note("schema", name, "removed")

    async def _toggle_index(self, name: str, node: Node) -> None:
        await node.tables.wait_active("", name)
        ref = node.tables.find("", name)
        assert ref is not None
        there = ref.table.global_index(CHANGING_INDEX) is not None
        self._acknowledged[CHANGING_INDEX] = None
        if there:
            change = TableChange(ref.table, delete_index=CHANGING_INDEX)
        else:
            projection = self._rng.choice(("ALL", "KEYS_ONLY", "INCLUDE"))
            change = TableChange(ref.table, create_index=changing_index(projection))
        await node.tables.change(change)
        await node.tables.wait_active("", name)
        assert ref.table.status is Status.ACTIVE
        self._acknowledged[CHANGING_INDEX] = not there
        self._sim.machine.note("schema", name, "index", not there)
