"""The transaction coordinator: prepare everywhere, decide once, tell everybody.

It keeps nothing that matters: what is promised lies in the partitions' logs, what is decided in the
*ledger*, a system partition with one row for each transaction that is being ended. Whoever finds a
promise without a coordinator (after a crash: ``recover``) asks the ledger; if it says nothing, it
writes "aborted" there, on the condition that nothing is written yet, and so the first decision to
reach the ledger is the only one.

A transaction whose items all lie in one partition needs none of that: it is one log entry.

============  ===================================  ==============================================
step          made durable                         a crash after it
============  ===================================  ==============================================
prepare       Prepared in each partition's log     aborted by recovery
decide        a row in the ledger                  committed by recovery
commit        Committed and effects in each log    the rest is committed by recovery
forget        the row's removal                    nothing
============  ===================================  ==============================================

Callers wait through it all even when they are cancelled (it takes a few syncs); what they asked is
then not half known to themselves. One that is driven by hand (``host.by_hand``) is in no task while
a single partition decides, and is led into one where there is more to wait for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import trio

from ..errors import (
    IdempotentParameterMismatch,
    InvalidRequest,
    MillstreamError,
    OutcomeUnknown,
    Throttled,
    TransactionInProgress,
    Unavailable,
)
from ..expressions import compile_expressions
from ..host.buggify import buggify
from ..host.by_hand import is_driven
from ..limits import (
    TOKEN_MILLISECONDS_MAX,
    TOKEN_SWEEP_ROWS,
    TOKEN_SWEEP_SECONDS,
    TRANSACTION_ATTEMPTS,
    TRANSACTION_PAUSE_SECONDS,
    TRANSACTION_RECOVERY_SECONDS,
    TRANSACTION_RETRY_SECONDS,
)
from ..model.keys import successor
from ..model.values import decode_item, encode_item, item_size_bytes
from ..storage.commands import (
    Action,
    ActionResult,
    Contended,
    Decide,
    Delete,
    Outcome,
    Prepare,
    Promise,
    Put,
    Refused,
    Token,
    Transact,
    Untried,
)
from ..storage.rows import Row, decode_row
from ..storage.table_state import TOKEN_TREE, TableState
from ..storage.tree.btree import BTree
from .ledger import LEDGER_TREE, Decision, decision_of, ledger_item, ledger_key
from .mailbox import Reply
from .partition import PartitionActor

logger = logging.getLogger(__name__)

_NEW = compile_expressions(
    condition="attribute_not_exists(#t)", names={"#t": "transaction"}
).condition


class CoordinatorDied(Exception):
    """Raised by simulations at the coordinator's steps; recovery ends what it leaves."""


class _Part:
    """What one partition has to do in a transaction."""

    __slots__ = ("actions", "actor", "indexes", "result")

    def __init__(self, actor: PartitionActor) -> None:
        self.actor = actor
        #: Which of the transaction's actions these are.
        self.indexes: list[int] = []
        self.actions: list[Action] = []
        self.result: Promise | Outcome | MillstreamError | None = None


class Coordinator:
    """Runs transactions. One per node; each runs in its caller's task."""

    def __init__(
        self,
        ledger: PartitionActor,
        actors: Callable[[], Iterable[PartitionActor]],
        btree: BTree,
        now_ms: Callable[[], int],
        name: str,
    ) -> None:
        self._ledger = ledger
        self._actors = actors
        self._btree = btree
        self._now_ms = now_ms
        #: Begins the names of this start's transactions.
        self._name = name
        self._count = 0
        #: Transactions that a task is working on; recovery leaves them alone.
        self._active: set[str] = set()
        #: What keeps callers waiting although they are cancelled.
        self._shields: dict[trio.CancelScope, None] = {}
        #: Client token -> the hash of the request that is under way with it.
        self._running: dict[str, bytes] = {}
        #: Tokens of transactions that are decided, while not all partitions have been told.
        self._untold: set[str] = set()
        #: Counts meetings with other transactions, to spread the pauses after them.
        self._meetings = 0
        #: Set when transactions run that recovery may have to end.
        self._used = trio.Event()

    # Writing.

    async def write(
        self,
        actions: Sequence[tuple[PartitionActor, Action]],
        token: str | None,
        request_hash: bytes,
        hops: int = 0,
    ) -> Outcome:
        """Have all actions take effect, or none.

        Raises:
            TransactionInProgress, IdempotentParameterMismatch: what became of the token.
            Throttled, Unavailable: nothing has changed.
            OutcomeUnknown: it will be wholly there or wholly not.
        """
        used = None
        if token is not None:
            if self._is_replay(token, request_hash):
                if token in self._untold:
                    # Not all partitions have been told yet: what is committed is not all seen.
                    raise TransactionInProgress("Transaction is in progress")
                return Outcome(True, (), replayed=True)
            used = Token(token, request_hash, self._now_ms())
            self._running[token] = request_hash
        try:
            if is_driven():
                outcome = await self._write_at_once(actions, used, hops)
                if outcome is not None:
                    return outcome
            return await self._write_shielded(actions, used, hops)
        finally:
            if token is not None:
                del self._running[token]

    async def _write_at_once(
        self,
        actions: Sequence[tuple[PartitionActor, Action]],
        token: Token | None,
        hops: int,
    ) -> Outcome | None:
        """The first attempt for a caller that is driven by hand, if one partition decides alone.

        Nobody can cancel such a caller, so that no shield is needed. None: nothing has been done
        yet, and from here on the caller is in a task, where it may wait in all of trio's ways.
        """
        parts = _parts(actions)
        if len(parts) == 1:
            outcome = await self._attempt(parts, len(actions), token, hops)
            if not _has_only_met_others(outcome, actions):
                return outcome
        await trio.lowlevel.checkpoint()
        return None

    async def _write_shielded(
        self,
        actions: Sequence[tuple[PartitionActor, Action]],
        token: Token | None,
        hops: int,
    ) -> Outcome:
        shield = trio.CancelScope(shield=True)
        self._shields[shield] = None
        try:
            with shield:
                return await self._write(actions, token, hops)
        finally:
            del self._shields[shield]
        raise OutcomeUnknown("The node has ended")

    def abandon(self) -> None:
        """The node has ended, and nobody will answer those who wait here."""
        for shield in self._shields:
            shield.cancel()

    def _is_replay(self, token: str, request_hash: bytes) -> bool:
        """Whether the same request has succeeded with this token in the last ten minutes."""
        running = self._running.get(token)
        if running is not None:
            if running != request_hash:
                raise IdempotentParameterMismatch(_MISMATCH)
            raise TransactionInProgress("Transaction is in progress")
        return self._was_used(token, request_hash)

    def _was_used(self, token: str, request_hash: bytes) -> bool:
        """Whether some partition remembers the token, for the same request."""
        key = token.encode()
        data = self._btree.get(TOKEN_TREE, key)
        if data is None:
            return False
        row = decode_row(key, data)
        if row.hlc + TOKEN_MILLISECONDS_MAX < self._now_ms():
            return False
        if row.body != request_hash:
            raise IdempotentParameterMismatch(_MISMATCH)
        return True

    async def _write(
        self,
        actions: Sequence[tuple[PartitionActor, Action]],
        token: Token | None,
        hops: int,
    ) -> Outcome:
        """Try until it ends otherwise than by meeting another transaction, or a few times.

        A transaction holds its items for a few syncs; who meets it had better come again soon than
        be refused. An attempt that can see that it would be refused is not made, but for the last
        one, which tells the reasons: it would hold items for nothing and so be met by others.
        """
        for attempt in range(1, TRANSACTION_ATTEMPTS + 1):
            is_last = attempt == TRANSACTION_ATTEMPTS
            if is_last or not any(_holds(actor, action.key) for actor, action in actions):
                outcome = await self._attempt(_parts(actions), len(actions), token, hops)
                if is_last or not _has_only_met_others(outcome, actions):
                    return outcome
            self._meetings += 1
            share = 1 + self._meetings % 5
            await trio.sleep(TRANSACTION_PAUSE_SECONDS * share * attempt)
        raise AssertionError("the last attempt returns")

    async def _attempt(
        self, parts: list[_Part], count: int, token: Token | None, hops: int
    ) -> Outcome:
        if len(parts) == 1:
            outcome: Outcome = await parts[0].actor.write(
                Transact(tuple(parts[0].actions), token, hops)
            )
            return outcome
        self._count += 1
        transaction = f"{self._name}-{self._count}"
        self._active.add(transaction)
        self._used.set()
        try:
            return await self._two_phases(transaction, parts, count, token, hops)
        except CoordinatorDied:
            raise OutcomeUnknown("The transaction's coordinator has ended") from None
        finally:
            self._active.discard(transaction)

    async def _two_phases(
        self, transaction: str, parts: list[_Part], count: int, token: Token | None, hops: int
    ) -> Outcome:
        await self._prepare(transaction, parts, hops)
        if buggify("coordinator dies after prepare"):
            raise CoordinatorDied
        promises = [part.result for part in parts if isinstance(part.result, Promise)]
        if len(promises) < len(parts):
            self._tell_nowait(transaction, parts)
            for part in parts:
                if isinstance(part.result, MillstreamError):
                    raise _nothing_changed(part.result)
            return Outcome(False, _gathered(parts, count))
        if token is not None and self._was_used(token.token, token.request_hash):
            # An earlier attempt was left in the middle, and recovery has committed it meanwhile:
            # its end lies before our promise in each partition's log, so it is known by now.
            self._tell_nowait(transaction, parts)
            return Outcome(True, (), replayed=True)
        timestamp = max(promise.bound for promise in promises)
        decision = await self._decide(transaction, Decision(timestamp, token))
        if token is not None:
            self._untold.add(token.token)
        if buggify("coordinator dies after the decision"):
            raise CoordinatorDied
        if not await self._tell(transaction, decision, [part.actor for part in parts]):
            raise OutcomeUnknown("A partition stopped before it could be told")
        assert decision.timestamp is not None, "recovery leaves active transactions alone"
        self._forget(transaction)
        return Outcome(True, _gathered(parts, count))

    async def _prepare(self, transaction: str, parts: list[_Part], hops: int) -> None:
        """Ask every partition for its promise, all at once; the answers are in the parts."""
        asked: list[tuple[_Part, Reply]] = []
        for part in parts:
            try:
                reply = part.actor.ask(Prepare(transaction, tuple(part.actions), hops))
            except MillstreamError as error:
                part.result = error
            else:
                asked.append((part, reply))
        for part, reply in asked:
            try:
                part.result = await reply.wait()
            except MillstreamError as error:
                part.result = error

    def _tell_nowait(self, transaction: str, parts: list[_Part]) -> None:
        """Have a transaction that could not be promised everywhere forgotten; nobody waits."""
        for part in parts:
            if not isinstance(part.result, Outcome):
                try:
                    part.actor.ask(Decide(transaction, None))
                except MillstreamError as error:
                    logger.info("transaction %s is left to recovery: %s", transaction, error)

    async def _decide(self, transaction: str, wanted: Decision) -> Decision:
        """Make ``wanted`` the ledger's word, unless it has given another; what it says then.

        Raises OutcomeUnknown if the node stops meanwhile.
        """
        item = ledger_item(transaction, wanted)
        put = Put(ledger_key(transaction), encode_item(item), item_size_bytes(item), _NEW)
        while True:
            try:
                result = await self._ledger.write(put)
            except (OutcomeUnknown, Throttled):
                # The ledger's partition reads its log again; then it knows.
                await trio.sleep(TRANSACTION_RETRY_SECONDS)
                continue
            except Unavailable:
                raise OutcomeUnknown("The node is stopping; recovery will end it") from None
            if isinstance(result, Refused):
                assert result.found is not None
                return decision_of(decode_item(result.found.body))
            return wanted

    async def _tell(
        self, transaction: str, decision: Decision, actors: Sequence[PartitionActor]
    ) -> bool:
        """Tell every partition, until each has it in its log or is no more.

        False if one is not served and will have to be told at the next start: then the ledger
        must not forget the decision.
        """
        left = list(actors)
        told = True
        while left:
            asked: list[tuple[PartitionActor, Reply]] = []
            again: list[PartitionActor] = []
            for actor in left:
                token = decision.token if actor is actors[0] else None
                try:
                    reply = actor.ask(Decide(transaction, decision.timestamp, token))
                except Unavailable:
                    told = told and self._is_removed(actor)
                except MillstreamError:
                    again.append(actor)
                else:
                    asked.append((actor, reply))
                if buggify("coordinator dies between commits"):
                    raise CoordinatorDied
            for actor, reply in asked:
                try:
                    await reply.wait()
                except Unavailable:
                    told = told and self._is_removed(actor)
                except MillstreamError:
                    again.append(actor)
            left = again
            if left:
                await trio.sleep(TRANSACTION_RETRY_SECONDS)
        if told and decision.token is not None:
            self._untold.discard(decision.token.token)
        return told

    def _is_removed(self, actor: PartitionActor) -> bool:
        """Whether the partition went with its table, rather than with the node or its disk."""
        return all(actor is not other for other in self._actors())

    def _forget(self, transaction: str) -> None:
        """Remove the ledger's row; if that fails, recovery does it at the next start."""
        try:
            self._ledger.ask(Delete(ledger_key(transaction)))
        except MillstreamError as error:
            logger.info("transaction %s stays in the ledger: %s", transaction, error)

    # Reading.

    def read(
        self, reads: Sequence[tuple[PartitionActor, int, bytes]]
    ) -> list[Row | Contended | None]:
        """Rows as they were together at one moment; ``Contended`` for what is being changed.

        In the paper this takes two rounds, the second to see that no version has moved. Here all
        partitions are read without a checkpoint between, which is one moment by construction; an
        item that a prepared transaction is about to write may already be changed elsewhere, so
        that it cannot be told.
        """
        found: list[Row | Contended | None] = []
        for actor, tree, key in reads:
            if _will_change(actor, key):
                found.append(Contended())
            else:
                found.append(actor.get(tree, key))
        return found

    # Recovery.

    async def recover(self) -> None:
        """End every transaction that is promised somewhere and has no coordinator."""
        holders: dict[str, list[PartitionActor]] = {}
        for actor in self._actors():
            for transaction in actor.machine.state.promises:
                if transaction not in self._active:
                    holders.setdefault(transaction, []).append(actor)
        for transaction, actors in holders.items():
            self._active.add(transaction)
            try:
                decision = await self._decide(transaction, Decision(None, None))
                if decision.token is not None:
                    self._untold.add(decision.token.token)
                if await self._tell(transaction, decision, actors):
                    self._forget(transaction)
            except CoordinatorDied:
                self._used.set()
                continue
            finally:
                self._active.discard(transaction)
            logger.info(
                "transaction %s was found without a coordinator and %s",
                transaction,
                "aborted" if decision.timestamp is None else "committed",
            )

    async def clean_ledger(self) -> None:
        """Remove the rows of transactions that nobody has to be told of any more."""
        waiting = {name for actor in self._actors() for name in actor.machine.state.promises}
        done = [
            key
            for key, row in self._ledger.rows(LEDGER_TREE, b"", None)
            if decode_item(row.body)["transaction"]["S"] not in waiting | self._active
        ]
        for key in done:
            await self._ledger.write(Delete(key))

    async def run(self) -> None:
        """Recover what coordinators leave, and forget old client tokens, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            nursery.start_soon(self._sweep_tokens)

    async def _watch(self) -> None:
        # What the start's recovery has left, if anything.
        self._used.set()
        while True:
            await self._used.wait()
            self._used = trio.Event()
            await trio.sleep(TRANSACTION_RECOVERY_SECONDS)
            try:
                await self.recover()
            except (OutcomeUnknown, Unavailable) as error:
                logger.warning("recovering transactions: %s", error)
            if self._active or any(actor.machine.state.promises for actor in self._actors()):
                self._used.set()

    async def _sweep_tokens(self) -> None:
        """Walk over the tokens round and round, a part at a time, and drop those that are old."""
        low = b""
        while True:
            await trio.sleep(TOKEN_SWEEP_SECONDS)
            now_ms = self._now_ms()
            old: list[bytes] = []
            seen = 0
            last = b""
            for key, data in self._btree.range(TOKEN_TREE, low, None):
                seen, last = seen + 1, key
                if decode_row(key, data).hlc + TOKEN_MILLISECONDS_MAX < now_ms:
                    old.append(key)
                if seen == TOKEN_SWEEP_ROWS:
                    break
            low = successor(last) if seen == TOKEN_SWEEP_ROWS else b""
            for key in old:
                self._btree.delete(TOKEN_TREE, key)


_MISMATCH = (
    "The request uses the same client token as a previous, but non-identical request. "
    "Do not reuse a client token with different requests, unless the requests are identical"
)


def _will_change(actor: PartitionActor, key: bytes) -> bool:
    """Whether a transaction under way intends to write ``key``."""
    state = actor.machine.state
    return isinstance(state, TableState) and state.will_change(key)


def _holds(actor: PartitionActor, key: bytes) -> bool:
    """Whether a transaction under way holds ``key``."""
    state = actor.machine.state
    return isinstance(state, TableState) and state.holds(key)


def _has_only_met_others(
    outcome: Outcome, actions: Sequence[tuple[PartitionActor, Action]]
) -> bool:
    """Whether trying again may help: nothing but other transactions stood in the way."""
    if outcome.committed or any(action.version is not None for _, action in actions):
        return False
    stood = [r for r in outcome.results if isinstance(r, Contended | Refused | InvalidRequest)]
    return all(isinstance(result, Contended) for result in stood)


def _parts(actions: Sequence[tuple[PartitionActor, Action]]) -> list[_Part]:
    parts: dict[str, _Part] = {}
    for index, (actor, action) in enumerate(actions):
        part = parts.get(actor.log_id)
        if part is None:
            part = parts[actor.log_id] = _Part(actor)
        part.indexes.append(index)
        part.actions.append(action)
    return list(parts.values())


def _gathered(parts: Iterable[_Part], count: int) -> tuple[ActionResult, ...]:
    """The results of all parts in the order of the actions."""
    results: list[ActionResult] = [Untried()] * count
    for part in parts:
        if isinstance(part.result, Promise | Outcome):
            for index, result in zip(part.indexes, part.result.results, strict=True):
                results[index] = result
    return tuple(results)


def _nothing_changed(error: MillstreamError) -> MillstreamError:
    """What a failed prepare comes to: it is being aborted, so its outcome is known."""
    if isinstance(error, OutcomeUnknown):
        return Unavailable("A partition could not be asked; nothing has changed")
    return error
