"""Clients of a global table: each writes in its region, among few keys that all regions write.

What a client is told goes into the list of ``Told``, which ``region_judgement.py`` compares with
what the region's log says; an operation of unknown outcome needs no remembering, the logs tell.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import trio

from ..actors.tables import TableRef, TransactionAction
from ..errors import OutcomeUnknown, RequestError, Unavailable
from ..model.values import Item, decode_item
from ..storage.commands import Outcome, Put, Refused, Written
from ..storage.indexes import primary_key
from .global_table import GlobalTable
from .history import Action
from .options import Options
from .simulated_node import Gone, SimulatedNode
from .tables import MAIN, Keys, command_of, draw_action, is_served

#: How long, and how often, a client waits for a table that its region does not have.
_ABSENT_SECONDS, _ABSENT_MAX = 0.3, 30


class Told(msgspec.Struct, frozen=True):
    """One write, as its client knows it. ``log_id`` is the partition's that was asked."""

    client: str
    log_id: str
    key: bytes
    action: Action
    result: Written | Refused
    is_transaction: bool = False


class RegionTally:
    """What the clients of one region did."""

    __slots__ = ("operations", "told", "turned_away", "unknown")

    def __init__(self) -> None:
        self.operations = 0
        self.unknown = 0
        self.turned_away = 0
        self.told: list[Told] = []


class RegionClient:
    """One client, at home in one region."""

    def __init__(
        self,
        name: str,
        home: SimulatedNode,
        table: GlobalTable,
        options: Options,
        rng: random.Random,
        tick: Callable[[], int],
        tally: RegionTally,
    ) -> None:
        assert options.regions is not None
        self.name = name
        self._home = home
        self._table = table
        self._options = options
        self._more = options.regions
        self._rng = rng
        self._tick = tick
        self._tally = tally
        self._keys = Keys(options)
        self._tokens = 0
        #: The values read last, by key, for conditional writes.
        self._seen: dict[bytes, str] = {}

    async def run(self) -> None:
        """All operations, one after the other, unless the table stays away."""
        rng, absent = self._rng, 0
        done = 0
        while done < self._options.operations and absent < _ABSENT_MAX:
            if rng.random() < self._more.pauses:
                await trio.sleep(rng.expovariate(0.7))
            await trio.sleep(rng.expovariate(1 / self._options.think_seconds))
            sim = self._home
            if rng.random() < self._more.wander:
                sim = rng.choice(list(self._table.sims.values()))
            node = await sim.ready()
            ref = node.tables.find("", MAIN)
            if ref is None or not is_served(ref):
                absent += 1
                await trio.sleep(_ABSENT_SECONDS)
                continue
            done, absent = done + 1, 0
            await self._operate(sim, ref)

    async def _operate(self, sim: SimulatedNode, ref: TableRef) -> None:
        self._tally.operations += 1
        self._table.note_logs(sim.name, ref.table)
        rng = self._rng
        try:
            choice = rng.random()
            if choice < self._more.transact:
                await self._transact(sim, ref)
            elif choice < self._more.transact + 0.2:
                self._read(ref, self._keys.draw(rng))
            else:
                await self._write(sim, ref)
        except (OutcomeUnknown, Gone):
            self._tally.unknown += 1
        except (RequestError, Unavailable):
            self._tally.turned_away += 1

    def _read(self, ref: TableRef, key: Item) -> None:
        place = primary_key(ref.table, key)
        row = ref.get(place)
        if row is not None:
            self._seen[place] = decode_item(row.body)["v"]["S"]

    # Writes.

    def _draw(self, ref: TableRef, key: Item) -> tuple[bytes, Action]:
        place = primary_key(ref.table, key)
        if self._rng.random() < self._more.delete:
            return place, Action("delete")
        self._tokens += 1
        token = f"{self.name}.{self._tokens}"
        filler = self._options.filler_bytes_max
        return place, draw_action(self._rng, key, token, filler, self._seen.get(place))

    async def _write(self, sim: SimulatedNode, ref: TableRef) -> None:
        rng = self._rng
        key = self._keys.draw(rng)
        place, action = self._draw(ref, key)
        command = command_of(ref.table, key, action)
        row = ref.get(place)
        if row is not None and rng.random() < self._more.rewrite:
            # What is there already, if it is there still.
            action = Action("put", item=decode_item(row.body))
            command = Put(place, row.body, row.size_bytes)
        log_id = ref.partition_of(place).log_id
        give_up = trio.CancelScope()
        if rng.random() < self._options.faults.cancellation:
            give_up.deadline = trio.current_time() + rng.uniform(0, 0.004)
        result: Written | Refused | None = None
        with sim.within_life(), give_up:
            result = await ref.write(command)
        if result is None:
            raise OutcomeUnknown("The client has gone")
        self._tell(sim, Told(self.name, log_id, place, action, result))

    async def _transact(self, sim: SimulatedNode, ref: TableRef) -> None:
        rng = self._rng
        drawn: dict[bytes, tuple[Item, Action]] = {}
        for _ in range(rng.randint(2, 4)):
            key = self._keys.draw(rng)
            place, action = self._draw(ref, key)
            drawn[place] = (key, action)
        logs = {place: ref.partition_of(place).log_id for place in drawn}
        actions = [
            TransactionAction(ref, command_of(ref.table, key, action))
            for key, action in drawn.values()
        ]
        node = sim.node
        outcome: Outcome | None = None
        with sim.within_life():
            if node is not None:
                outcome = await node.tables.transact_write(actions)
        if outcome is None or not outcome.committed:
            return
        for (place, (_, action)), result in zip(drawn.items(), outcome.results, strict=True):
            assert isinstance(result, Written), result
            self._tell(sim, Told(self.name, logs[place], place, action, result, True))

    def _tell(self, sim: SimulatedNode, told: Told) -> None:
        self._tick()
        self._tally.told.append(told)
        sim.machine.note(told.client, told.action.kind, told.key[-12:], type(told.result).__name__)
