"""The transactions workload: clients that want a few items at once, and write down what they saw.

Lists, registers and accounts (``transaction_places.py``) in several partitions of two tables are
written by transactions of every kind and by single writes, on purpose in each other's way. What
clients are told goes into the history for ``serializability.py``; what must hold at once (a
snapshot of all accounts sums up, a token that was used is known) is judged at once.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

from ..actors.node import Node
from ..actors.tables import TableRef, TransactionAction
from ..errors import (
    IdempotentParameterMismatch,
    OutcomeUnknown,
    Throttled,
    TransactionConflict,
    TransactionInProgress,
    Unavailable,
)
from ..storage.commands import (
    Checked,
    Contended,
    Delete,
    Outcome,
    Put,
    Refused,
    UpdateItem,
    Written,
)
from ..storage.rows import Row
from .options import Options
from .simulated_node import Gone, SimulatedNode
from .transaction_history import Operation, Seen, Status, TransactionHistory
from .transaction_places import (
    INITIAL_BALANCE,
    Maker,
    Place,
    Places,
    balance_in,
    seen_in,
)
from .transaction_requests import Drawer, Wanted

R = TypeVar("R")

_ATTEMPTS_MAX = 6
#: Hashes of what a client asks for with its token, and of something else.
_REQUEST, _ANOTHER = b"h" * 16, b"o" * 16
#: Mean wait of a client that met somebody else's transaction.
_PATIENCE_SECONDS = 0.2


class TransactionTally:
    """What the clients of one world did, counted."""

    __slots__ = (
        "committed", "contended", "operations", "refused", "replayed", "snapshots",
        "transactions", "turned_away", "unknown",
    )

    def __init__(self) -> None:
        self.operations = 0
        self.transactions = 0
        self.committed = 0
        self.contended = 0
        self.refused = 0
        #: Throttled, unavailable, conflicts of single writes: nothing has changed.
        self.turned_away = 0
        self.unknown = 0
        #: Attempts answered by what an earlier one with the same token did.
        self.replayed = 0
        #: Consistent reads of all accounts.
        self.snapshots = 0


class TransactionClient:
    """One client."""

    def __init__(
        self,
        name: str,
        node: SimulatedNode,
        options: Options,
        rng: random.Random,
        tick: Callable[[], int],
        tally: TransactionTally,
        history: TransactionHistory,
    ) -> None:
        assert options.transactions is not None
        self.name = name
        self._sim = node
        self._options = options
        self._wanted = options.transactions
        self._rng = rng
        self._tick = tick
        self._tally = tally
        self._history = history
        self._places = Places(options)
        self._drawer = Drawer(name, options, rng)
        self._count = 0

    # The run.

    async def run(self) -> None:
        """All operations, one after the other."""
        kinds = {kind: weight for kind, weight in self._wanted.weights.items() if weight}
        for _ in range(self._options.operations):
            await trio.sleep(self._rng.expovariate(1 / self._options.think_seconds))
            (kind,) = self._rng.choices([*kinds, "read"], [*kinds.values(), 1])
            node = await self._sim.ready()
            self._tally.operations += 1
            self._count += 1
            await getattr(self, kind)(node)

    async def open_accounts(self) -> None:
        """Return when every account is there."""
        left = list(self._places.accounts)
        while left:
            left = [place for place in left if not await self._open(place)]
            await trio.sleep(0.01)

    async def _open(self, place: Place) -> bool:
        node = await self._sim.ready()
        put = self._maker(node, place).balance(place)
        status, _ = await self._ask(lambda: _table(node, place).write(put))
        # Refused is well, too: an attempt of unknown outcome did it.
        return status is Status.DONE

    async def write_until_answered(self, table_name: str) -> None:
        """A write to the probe that is taken at last: an index that lags may refuse it a while."""
        while True:
            node = await self._sim.ready()
            place = self._places.probe(table_name)
            ref = _table(node, place)
            try:
                await ref.write(Maker(ref.table, self._rng).put(place, self._drawer.value()))
            except Throttled:
                await trio.sleep(0.01)
            else:
                return

    async def audit(self, node: Node) -> None:
        """Read everything once more, when everything is at rest."""
        self._count += 1
        everything = [*self._places.lists, *self._places.registers]
        rows = await self._read_together(node, everything)
        assert rows, "somebody holds an item at rest"
        is_counted = await self.count_money(node)
        assert is_counted, "somebody holds an account at rest"

    # Transactions.

    async def write_anything(self, node: Node) -> None:
        """Appends, puts, deletions and checks on anything."""
        places = [*self._places.lists, *self._places.lists, *self._places.registers]
        wanted = [
            self._drawer.any_action(self._maker(node, place), place)
            for place in self._drawer.some(places)
        ]
        await self._transact(wanted)

    async def write_optimistically(self, node: Node) -> None:
        """Read together, then write if nothing has changed: by version, or by condition."""
        places = self._drawer.some(self._places.lists)
        rows = await self._read_together(node, places)
        if not rows:
            return
        await trio.sleep(self._rng.expovariate(1 / self._options.think_seconds))
        node = await self._sim.ready()
        wanted = [
            self._drawer.guarded(self._maker(node, place), place, row)
            for place, row in zip(places, rows, strict=True)
        ]
        await self._transact(wanted)

    async def write_askew(self, node: Node) -> None:
        """Two lists, one checked and the other appended to: what write skew is made of."""
        checked, written = self._rng.sample(self._places.lists[:2], 2)
        maker = self._maker(node, checked)
        seen = self._seen(checked, _table(node, checked).get(maker.key(checked)))
        assert isinstance(seen, tuple)
        check = Wanted(checked, maker.check(checked, seen), seen=seen, knows=True)
        append = self._drawer.append(self._maker(node, written), written)
        await self._transact([check, append])

    async def _transact(self, wanted: list[Wanted]) -> None:
        """Ask for a transaction, again and again while it has a token and is not known."""
        rng = self._rng
        self._rng.shuffle(wanted)
        token = None
        if rng.random() < self._wanted.tokens:
            token = f"{self.name}/{self._count}"
        name, invoked = self._new_name(), self._tick()
        self._tally.transactions += 1
        offset_ms = self._sim.machine.clock.offset_ms
        status, outcome = await self._attempt(wanted, token)
        unknown = status is Status.UNKNOWN
        for _ in range(_ATTEMPTS_MAX if token is not None else 0):
            if status is Status.DONE or (not unknown and rng.random() < 0.7):
                break
            await trio.sleep(rng.expovariate(4))
            status, outcome = await self._attempt(wanted, token, offset_ms)
            unknown = unknown or status is Status.UNKNOWN
        if status is Status.FAILED and unknown:
            # The last attempt changed nothing; an earlier one may have.
            status = Status.UNKNOWN
        self._record(name, invoked, status, wanted, outcome)
        if token is not None and status is Status.DONE and rng.random() < 0.3:
            await self._ask_once_more(wanted, token, offset_ms)

    async def _attempt(
        self, wanted: list[Wanted], token: str | None, offset_ms: int | None = None
    ) -> tuple[Status, Outcome | None]:
        """One attempt; DONE if it, or one before it, was committed.

        ``offset_ms`` is how the clock was set at an earlier attempt: after a jump of it the token
        may rightly be forgotten, so nothing is asked.
        """
        node = await self._sim.ready()
        if offset_ms is not None and self._sim.machine.clock.offset_ms != offset_ms:
            return Status.UNKNOWN, None
        actions = [TransactionAction(_table(node, one.place), one.command) for one in wanted]
        status, outcome = await self._ask(
            lambda: node.tables.transact_write(actions, token=token, request_hash=_REQUEST)
        )
        if outcome is None:
            return status, None
        if outcome.replayed:
            self._tally.replayed += 1
            return Status.DONE, outcome
        if outcome.committed:
            self._tally.committed += 1
            return Status.DONE, outcome
        if any(isinstance(result, Contended) for result in outcome.results):
            self._tally.contended += 1
            if self._rng.random() < 0.5:
                # Perhaps its coordinator is gone: recovery needs a while.
                await trio.sleep(self._rng.expovariate(1 / _PATIENCE_SECONDS))
        else:
            self._tally.refused += 1
        return Status.FAILED, outcome

    async def _ask_once_more(self, wanted: list[Wanted], token: str, offset_ms: int) -> None:
        """A token that was used is known: with the same request, and with another."""
        if self._rng.random() < 0.5:
            _, outcome = await self._attempt(wanted, token, offset_ms)
            # No outcome: the node is gone, or somebody holds an item, so it may be in progress.
            assert outcome is None or outcome.committed, "a token that was used is not known"
            assert outcome is None or outcome.replayed, "a token was used twice"
            return
        node = await self._sim.ready()
        if self._sim.machine.clock.offset_ms != offset_ms:
            return
        actions = [TransactionAction(_table(node, one.place), one.command) for one in wanted]
        try:
            with self._sim.within_life():
                await node.tables.transact_write(actions, token=token, request_hash=_ANOTHER)
        except (IdempotentParameterMismatch, Unavailable, Gone):
            return
        raise AssertionError("a token was taken for another request")

    def _record(
        self,
        name: str,
        invoked: int,
        status: Status,
        wanted: list[Wanted],
        outcome: Outcome | None,
    ) -> None:
        returned = self._tick()
        self._sim.machine.note(name, status.value)
        reads = {one.place.name: one.seen for one in wanted if one.knows}
        results = () if outcome is None else outcome.results
        if status is not Status.DONE:
            reads = {}
        for one, result in zip(wanted, results, strict=False):
            place = one.place
            if status is Status.DONE and one.tells_old:
                assert isinstance(result, (Written, Checked)), result
                row = result.old if isinstance(result, Written) else result.found
                seen = self._seen(place, row)
                known = reads.setdefault(place.name, seen)
                assert known == seen, f"{name} on {place.name}: {known} was guarded, {seen} found"
            elif isinstance(result, Refused):
                # What a refusal shows is a read of that item alone.
                read = {place.name: self._seen(place, result.found)}
                self._history.operations.append(
                    Operation(f"{name}!{place.name}", invoked, returned, reads=read, is_single=True)
                )
        self._history.operations.append(
            Operation(
                name,
                invoked,
                returned,
                status,
                reads,
                {one.place.name: one.append for one in wanted if one.append is not None},
                {one.place.name: one.put for one in wanted if one.is_put},
            )
        )

    # Reads together.

    async def read_several(self, node: Node) -> None:
        """Any items together."""
        await self._read_together(
            node, self._drawer.some([*self._places.lists, *self._places.registers])
        )

    async def _read_together(self, node: Node, places: list[Place]) -> list[Row | None]:
        """Rows of one moment, written down; none if somebody holds one of them."""
        name, invoked = self._new_name(), self._tick()
        self._tally.transactions += 1
        rows = await self._transact_get(node, places)
        if rows:
            reads = {
                place.name: self._seen(place, row) for place, row in zip(places, rows, strict=True)
            }
            self._history.operations.append(Operation(name, invoked, self._tick(), reads=reads))
        return rows

    async def _transact_get(self, node: Node, places: list[Place]) -> list[Row | None]:
        keys = [(_table(node, place), self._maker(node, place).key(place)) for place in places]
        found: list[Row | None] = []
        for row in await node.tables.transact_get(keys):
            if isinstance(row, Contended):
                self._tally.contended += 1
                await trio.sleep(self._rng.expovariate(1 / _PATIENCE_SECONDS))
                return []
            found.append(row)
        return found

    # Money.

    async def transfer(self, node: Node) -> None:
        """From one account to others, if it has as much."""
        accounts = self._drawer.some(self._places.accounts)
        if len(accounts) < 2:
            return
        self._tally.transactions += 1
        amount = self._rng.randint(1, 40)
        wanted = []
        for number, place in enumerate(accounts):
            change = amount if number else -amount * (len(accounts) - 1)
            wanted.append(Wanted(place, self._maker(node, place).add(place, change, "moved")))
        await self._attempt(wanted, None)

    async def count_money(self, node: Node) -> bool:
        """Whether all accounts could be read together; they must sum up."""
        rows = await self._transact_get(node, self._places.accounts)
        if not rows:
            return False
        total = sum(balance_in(row) for row in rows)
        assert total == INITIAL_BALANCE * len(rows), f"the accounts sum up to {total}"
        self._tally.snapshots += 1
        return True

    # One item at a time.

    async def append(self, node: Node) -> None:
        """To one list."""
        place = self._drawer.one(self._places.lists)
        await self._write(node, self._drawer.append(self._maker(node, place), place))

    async def append_guarded(self, node: Node) -> None:
        """Read a list, and append if it is still so."""
        place = self._drawer.one(self._places.lists)
        row = _table(node, place).get(self._maker(node, place).key(place))
        one = self._drawer.guarded(self._maker(node, place), place, row)
        if one.append is not None:
            await self._write(node, one)

    async def put_or_delete(self, node: Node) -> None:
        """One register."""
        place = self._drawer.one(self._places.registers)
        await self._write(node, self._drawer.any_action(self._maker(node, place), place))

    async def _write(self, node: Node, one: Wanted) -> None:
        place, command = one.place, one.command
        assert isinstance(command, (Put, UpdateItem, Delete))
        ref = _table(node, place)
        name, invoked = self._new_name(), self._tick()
        status, result = await self._ask(lambda: ref.write(command))
        reads: dict[str, Seen] = {}
        if isinstance(result, Written):
            reads[place.name] = self._seen(place, result.old)
            if one.knows:
                assert reads[place.name] == one.seen, f"{name}: a guard on {place.name} failed"
            if one.append is not None:
                seen = reads[place.name]
                assert isinstance(seen, tuple)
                after = self._seen(place, result.new)
                assert after == (*seen, one.append), "an update went wrong"
        elif isinstance(result, Refused):
            status = Status.FAILED
            self._tally.refused += 1
            read = {place.name: self._seen(place, result.found)}
            self._history.operations.append(
                Operation(f"{name}!", invoked, self._tick(), reads=read, is_single=True)
            )
        elif status is Status.DONE:
            # It is not of the version wanted.
            status = Status.FAILED
            self._tally.contended += 1
        appends = {} if one.append is None else {place.name: one.append}
        puts = {place.name: one.put} if one.is_put else {}
        self._sim.machine.note(name, status.value)
        self._history.operations.append(
            Operation(name, invoked, self._tick(), status, reads, appends, puts, is_single=True)
        )

    async def read(self, node: Node) -> None:
        """One item."""
        place = self._drawer.one([*self._places.lists, *self._places.registers])
        name, invoked = self._new_name(), self._tick()
        row = _table(node, place).get(self._maker(node, place).key(place))
        read = {place.name: self._seen(place, row)}
        self._history.operations.append(
            Operation(name, invoked, self._tick(), reads=read, is_single=True)
        )

    # Asking.

    async def _ask(self, ask: Callable[[], Awaitable[R]]) -> tuple[Status, R | None]:
        """What comes of an ask, whatever befalls the node, or the client, meanwhile."""
        rng, machine = self._rng, self._sim.machine
        life = machine.life
        give_up = trio.CancelScope()
        if rng.random() < self._options.faults.cancellation:
            give_up.deadline = trio.current_time() + rng.uniform(0, 0.004)
        result: Any = None
        try:
            with self._sim.within_life(), give_up:
                result = await ask()
        except (OutcomeUnknown, Gone):
            pass
        except (Throttled, TransactionConflict, TransactionInProgress, Unavailable):
            if not machine.crashed and machine.life == life:
                self._tally.turned_away += 1
                return Status.FAILED, None
        if result is None or machine.crashed or machine.life != life:
            # What the code of a crashed node says, nobody has heard.
            self._tally.unknown += 1
            return Status.UNKNOWN, None
        return Status.DONE, result

    # What rows show.

    def _seen(self, place: Place, row: Row | None) -> Seen:
        """What the row shows, and which version it is of, for the checker."""
        seen = seen_in(place, row)
        last = seen[-1] if isinstance(seen, tuple) and seen else seen
        if row is not None and isinstance(last, str):
            self._history.note_version(place.name, last, row.hlc)
        return seen

    # Names and places.

    def _new_name(self) -> str:
        self._count += 1
        return f"{self.name}.{self._count}"

    def _maker(self, node: Node, place: Place) -> Maker:
        return Maker(_table(node, place).table, self._rng)


def _table(node: Node, place: Place) -> TableRef:
    ref = node.tables.find("", place.table)
    assert ref is not None, "no table is removed in these worlds"
    return ref
