"""The item workload: clients that write, read, query and give up, and write down what they saw.

Each client is a straight line of operations on one node's main table; what it is told goes into
the node's history, which the checkers read afterwards. What can be judged at once, because reads
are atomic (an order of rows, a local index beside its table), is judged at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import trio

from ..actors.tables import TableRef
from ..errors import OutcomeUnknown, RequestError, Throttled, Unavailable
from ..model.keys import prefix_end
from ..model.values import Item, decode_item
from ..storage.commands import Refused, Written
from ..storage.indexes import primary_key
from ..storage.rows import Row
from .history import Action, Call, History, Outcome, image_of
from .options import Options
from .recount import expected_entries
from .simulated_node import Gone, SimulatedNode
from .tables import MAIN, Keys, collection_prefix, command_of, draw_action

READ = Action("read")


class Tally:
    """What the clients of one world did, counted."""

    __slots__ = ("operations", "reads", "refused", "unknown", "turned_away", "written")

    def __init__(self) -> None:
        self.operations = 0
        self.written = 0
        self.refused = 0
        self.unknown = 0
        #: Throttled, unavailable, no such table: nothing has changed.
        self.turned_away = 0
        self.reads = 0


class Client:
    """One client of one node."""

    def __init__(
        self,
        name: str,
        node: SimulatedNode,
        options: Options,
        rng: random.Random,
        tick: Callable[[], int],
        tally: Tally,
    ) -> None:
        self.name = name
        self._sim = node
        self._options = options
        self._rng = rng
        self._tick = tick
        self._tally = tally
        self._keys = Keys(options)
        self._history: History = node.history
        self._tokens = 0
        #: Probability of giving an operation up.
        self.cancellation = options.faults.cancellation
        #: Place -> the value read there last, for conditional writes.
        self._seen: dict[str, str] = {}

    async def run(self) -> None:
        """All operations, one after the other."""
        rng = self._rng
        for _ in range(self._options.operations):
            await trio.sleep(rng.expovariate(1 / self._options.think_seconds))
            await self.operate(MAIN)

    async def operate(self, table_name: str) -> None:
        """One operation on a table, whatever comes of it."""
        node = await self._sim.ready()
        ref = node.tables.find("", table_name)
        if ref is None:
            return
        self._tally.operations += 1
        rng = self._rng
        choice = rng.random()
        try:
            if choice < 0.5:
                await self._write(ref)
            elif choice < 0.6:
                await self._write_several(ref)
            elif choice < 0.8:
                self.read(ref, self._keys.draw(rng))
            elif choice < 0.92:
                self._query(ref, rng.choice(self._keys.hash_values))
            else:
                self._scan(ref)
        except (RequestError, Unavailable):
            self._tally.turned_away += 1

    # Writes.

    async def write_until_answered(self, table_name: str) -> None:
        """A write that is taken at last: an index that lags may refuse it for a while."""
        self.cancellation = 0.0
        while True:
            ref = (await self._sim.ready()).tables.find("", table_name)
            assert ref is not None
            try:
                await self._write(ref)
            except Throttled:
                await trio.sleep(0.01)
            else:
                return

    async def _write(self, ref: TableRef) -> None:
        key, action, place = self._draw(ref)
        command = command_of(ref.table, key, action)
        life, invoked = self._sim.machine.life, self._tick()
        give_up = trio.CancelScope()
        if self.cancellation and self._rng.random() < self.cancellation:
            give_up.deadline = trio.current_time() + self._rng.uniform(0, 0.004)
        result: Written | Refused | None = None
        try:
            with self._sim.within_life(), give_up:
                result = await ref.write(command)
        except (OutcomeUnknown, Gone):
            pass
        except (RequestError, Unavailable):
            raise
        except BaseException:
            # The world goes on without this client; what it asked may still happen.
            self._record(place, action, invoked, life, None)
            raise
        self._record(place, action, invoked, life, result)

    async def _write_several(self, ref: TableRef) -> None:
        drawn = [self._draw(ref) for _ in range(self._rng.randint(2, 6))]
        commands = [command_of(ref.table, key, action) for key, action, _ in drawn]
        life, invoked = self._sim.machine.life, self._tick()
        results: list[Written | Refused | Exception] = [OutcomeUnknown() for _ in drawn]
        try:
            with self._sim.within_life():
                results = await ref.write_many(commands)
        except Gone:
            pass
        except (RequestError, Unavailable):
            raise
        except BaseException:
            for _, action, place in drawn:
                self._record(place, action, invoked, life, None)
            raise
        for (_, action, place), result in zip(drawn, results, strict=True):
            if isinstance(result, OutcomeUnknown):
                self._record(place, action, invoked, life, None)
            elif isinstance(result, Exception):
                if not isinstance(result, (RequestError, Unavailable)):
                    raise result
                self._tally.turned_away += 1
            else:
                self._record(place, action, invoked, life, result)

    def _draw(self, ref: TableRef) -> tuple[Item, Action, str]:
        key = self._keys.draw(self._rng)
        place = self._place(ref, key)
        self._tokens += 1
        token = f"{self.name}.{self._tokens}"
        filler = self._options.filler_bytes_max
        return key, draw_action(self._rng, key, token, filler, self._seen.get(place)), place

    def _record(
        self,
        place: str,
        action: Action,
        invoked: int,
        life: int,
        result: Written | Refused | None,
    ) -> None:
        returned = self._tick()
        old = new = None
        if isinstance(result, Written):
            outcome = Outcome.DONE
            old, new = _image(result.old), _image(result.new)
            if result.old is not None and result.new is not None:
                assert result.new.hlc > result.old.hlc, "versions grow"
            self._tally.written += 1
        elif isinstance(result, Refused):
            outcome = Outcome.REFUSED
            old = _image(result.found)
            self._tally.refused += 1
        else:
            outcome = Outcome.UNKNOWN
            self._tally.unknown += 1
        self._sim.machine.note(self.name, action.kind, place[-12:], outcome.value)
        call = Call(self.name, action, invoked, returned, outcome, old, new)
        self._history.record(place, call, life)

    # Reads. All of these are synchronous: the world stands still meanwhile.

    def read(self, ref: TableRef, key: Item) -> None:
        """One item."""
        self._saw(self._place(ref, key), ref.get(primary_key(ref.table, key)))

    def _query(self, ref: TableRef, hash_value: str) -> None:
        prefix = collection_prefix(hash_value)
        reverse = self._rng.random() < 0.5
        found = dict(self._ordered(ref, None, prefix, prefix_end(prefix), reverse))
        for range_value in self._keys.range_values:
            key = self._keys.of(hash_value, range_value)
            row = found.pop(primary_key(ref.table, key), None)
            self._saw(self._place(ref, key), row)
        assert not found, "a query found an item that nobody can have written"

    def _scan(self, ref: TableRef) -> None:
        rows = self._ordered(ref, None, b"", None, self._rng.random() < 0.5)
        found = dict(rows)
        for key in self._keys.all():
            tree_key = primary_key(ref.table, key)
            row = found.pop(tree_key, None)
            if row is not None or self._rng.random() < 0.1:
                self._saw(self._place(ref, key), row)
        assert not found, "a scan found an item that nobody can have written"
        for index in ref.table.local_indexes:
            wanted = expected_entries(ref.table, index, rows)
            entries = self._ordered(ref, index.name, b"", None, False)
            assert {key: row.body for key, row in entries} == wanted, "a local index differs"

    def _ordered(
        self, ref: TableRef, index: str | None, low: bytes, high: bytes | None, reverse: bool
    ) -> list[tuple[bytes, Row]]:
        rows = list(ref.rows(index, low, high, reverse))
        keys = [key for key, _ in rows]
        assert keys == sorted(set(keys), reverse=reverse), "rows come in order, and once"
        return rows

    def _saw(self, place: str, row: Row | None) -> None:
        invoked = self._tick()
        seen = _image(row)
        call = Call(self.name, READ, invoked, self._tick(), Outcome.DONE, seen)
        self._history.record(place, call, self._sim.machine.life)
        self._tally.reads += 1
        if row is not None:
            self._seen[place] = decode_item(row.body)["v"]["S"]

    def _place(self, ref: TableRef, key: Item) -> str:
        return f"{ref.table.table_id}/{msgspec.json.encode(key).decode()}"


def _image(row: Row | None) -> bytes | None:
    return None if row is None else image_of(row.body)
