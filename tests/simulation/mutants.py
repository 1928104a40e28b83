"""Deliberate defects, each a patch of the engine, to prove that the simulation can fail.

Every mutant is a bug that somebody could write. Nothing is asked of how a checker says it: a defect
may show in several ways, and which one comes first depends on the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from millstream.actors.flusher import Flusher
from millstream.actors.index_builder import IndexBuilder
from millstream.actors.ledger import Decision
from millstream.actors.log_writer import LogWriter
from millstream.actors.mapping_runner import MappingRunner
from millstream.actors.partition import PartitionActor
from millstream.actors.shard_poller import ShardPoller
from millstream.actors.streams import Streams
from millstream.actors.transactions import Coordinator
from millstream.lambdas.lane import Lane
from millstream.storage import transactions as storage_transactions
from millstream.storage.commands import Check, CheckVersion
from millstream.storage.partition import Partition
from millstream.storage.records import TokenUsed
from millstream.storage.table_state import TableState
from millstream.storage.totals import Totals
from millstream.storage.transactions import Transactions
from millstream.storage.tree.btree import BTree

#: A class or module, one of its names, and what that shall be.
Patch = tuple[Any, str, Any]
Make = Callable[[], list[Patch]]
MUTANTS: dict[str, Make] = {}
TRANSACTION_MUTANTS: dict[str, Make] = {}
TRIGGER_MUTANTS: dict[str, Make] = {}


def mutant(make: Make) -> Make:
    MUTANTS[make.__name__] = make
    return make


def transaction_mutant(make: Make) -> Make:
    TRANSACTION_MUTANTS[make.__name__] = make
    return make


def trigger_mutant(make: Make) -> Make:
    TRIGGER_MUTANTS[make.__name__] = make
    return make


@contextmanager
def applied(name: str) -> Iterator[None]:
    """The engine with one defect, until the block ends."""
    patches = {**MUTANTS, **TRANSACTION_MUTANTS, **TRIGGER_MUTANTS}[name]()
    before = [(owner, attribute, owner.__dict__[attribute]) for owner, attribute, _ in patches]
    for owner, attribute, value in patches:
        setattr(owner, attribute, value)
    try:
        yield
    finally:
        for owner, attribute, value in before:
            setattr(owner, attribute, value)


# The write path.


@mutant
def a_reply_is_given_before_the_commit() -> list[Patch]:
    ready = Partition.ready

    def hasty(self: Partition, now_ms: int) -> Any:
        append, answers = ready(self, now_ms)
        if append is not None:
            assert self._flight is not None
            answers = answers + self._flight.answers
            self._flight.answers = []
        return append, answers

    return [(Partition, "ready", hasty)]


@mutant
def effects_are_applied_before_they_are_durable() -> list[Patch]:
    ready, committed = Partition.ready, Partition.committed

    def hasty(self: Partition, now_ms: int) -> Any:
        append, answers = ready(self, now_ms)
        if append is not None:
            assert self._flight is not None
            for record in self._flight.records:
                self.state.apply(record)
        return append, answers

    def idle(self: Partition) -> Any:
        state = self.state
        apply = type(state).apply
        type(state).apply = lambda self, record: None
        try:
            return committed(self)
        finally:
            type(state).apply = apply

    return [(Partition, "ready", hasty), (Partition, "committed", idle)]


@mutant
def pending_rows_are_forgotten() -> list[Patch]:
    evaluate, applied_ = TableState.evaluate, TableState.applied

    def forgetful(self: TableState, command: Any, hlc: int) -> Any:
        self.pending.clear()
        return evaluate(self, command, hlc)

    def lenient(self: TableState, record: Any) -> None:
        if getattr(record, "key", None) in self.pending:
            applied_(self, record)

    return [(TableState, "evaluate", forgetful), (TableState, "applied", lenient)]


@mutant
def a_refusal_does_not_wait_for_what_it_read() -> list[Patch]:
    evaluate = TableState.evaluate

    def hasty(self: TableState, command: Any, hlc: int) -> Any:
        return msgspec.structs.replace(evaluate(self, command, hlc), waits=False)

    return [(TableState, "evaluate", hasty)]


@mutant
def an_unknown_outcome_is_told_as_success() -> list[Patch]:
    restart = PartitionActor._restart

    def optimistic(self: PartitionActor, error: Any) -> None:
        machine = self.machine
        if machine._flight is not None:
            for answer in machine._flight.answers:
                answer.ticket.resolve(answer.result)
            machine._flight.answers = []
        restart(self, error)

    return [(PartitionActor, "_restart", optimistic)]


# Recovery.


@mutant
def recovery_drops_the_last_entry() -> list[Patch]:
    recover = PartitionActor._recover

    def careless(self: PartitionActor, *args: Any) -> None:
        engine: Any = self._engine
        tail = engine.tail(self.log_id)
        if tail > engine.first(self.log_id):
            stored = self._make_machine(None).lsn
            if tail > stored:
                engine.truncate(self.log_id, tail - 1)
        recover(self, *args)

    return [(PartitionActor, "_recover", careless)]


@mutant
def a_failed_append_is_retried_without_rereading_the_log() -> list[Patch]:
    def careless(self: PartitionActor, error: Any) -> None:
        # The clients are answered as if the append had worked; nothing looks at the log again.
        for answer in self.machine.committed():
            answer.ticket.resolve(answer.result)

    return [(PartitionActor, "_restart", careless)]


# Flushing.


@mutant
def the_position_is_stored_before_its_rows() -> list[Patch]:
    def two_transactions(self: BTree, frozen: Any) -> None:
        layer = frozen._layer
        self._store.write({}, layer.meta, ())
        changes = {
            tree: [(key, rows.values[key]) for key in rows.keys]
            for tree, rows in layer.rows.items()
        }
        self._store.write(changes, {}, sorted(layer.dropped))

    return [(BTree, "flush", two_transactions)]


@mutant
def the_position_is_ahead_of_its_rows() -> list[Patch]:
    def short(self: BTree, frozen: Any) -> None:
        layer = frozen._layer
        changes = {
            tree: [(key, rows.values[key]) for key in rows.keys]
            for tree, rows in layer.rows.items()
        }
        if changes:
            changes[max(changes)].pop()
        self._store.write(changes, layer.meta, sorted(layer.dropped))

    return [(BTree, "flush", short)]


@mutant
def rows_are_stored_before_their_position() -> list[Patch]:
    # Replaying effects twice gives the same rows; what it breaks are the totals.
    def two_transactions(self: BTree, frozen: Any) -> None:
        layer = frozen._layer
        changes = {
            tree: [(key, rows.values[key]) for key in rows.keys]
            for tree, rows in layer.rows.items()
        }
        self._store.write(changes, {}, sorted(layer.dropped))
        self._store.write({}, layer.meta, ())

    return [(BTree, "flush", two_transactions)]


@mutant
def totals_are_not_kept_when_rows_go() -> list[Patch]:
    replace = Totals.replace

    def growing(self: Totals, old: Any, old_size: int, new: Any, new_size: int) -> None:
        if new is not None:
            replace(self, old, old_size, new, new_size)

    return [(Totals, "replace", growing)]


@mutant
def logs_are_trimmed_under_their_builders() -> list[Patch]:
    init = Flusher.__init__

    def unheld(self: Flusher, *args: Any) -> None:
        init(self, *args)
        self._holds = lambda log_id: None

    return [(Flusher, "__init__", unheld)]


# Indexes.


@mutant
def a_builder_skips_an_entry_on_restart() -> list[Patch]:
    init = IndexBuilder.__init__

    def skipping(self: IndexBuilder, *args: Any) -> None:
        init(self, *args)
        progress = self.progress
        if 0 < progress.lsn < self._base.lsn:
            self.progress = msgspec.structs.replace(progress, lsn=progress.lsn + 1)

    return [(IndexBuilder, "__init__", skipping)]


@mutant
def a_fill_does_not_skip_what_its_chunks_contain() -> list[Patch]:
    return [(IndexBuilder, "_contained", lambda self, lsn, key: False)]


@mutant
def a_fill_skips_everything_up_to_its_last_chunk() -> list[Patch]:
    def greedy(self: IndexBuilder, lsn: int, key: bytes) -> bool:
        return self.progress.cursor is not None or lsn <= self.progress.chunk_lsn

    return [(IndexBuilder, "_contained", greedy)]


@mutant
def old_index_keys_are_not_logged() -> list[Patch]:
    evaluate = TableState.evaluate

    def forgetful(self: TableState, command: Any, hlc: int) -> Any:
        evaluation = evaluate(self, command, hlc)
        records = tuple(
            msgspec.structs.replace(record, old_index_keys=None) for record in evaluation.records
        )
        return msgspec.structs.replace(evaluation, records=records)

    return [(TableState, "evaluate", forgetful)]


@mutant
def local_entries_are_never_removed() -> list[Patch]:
    from millstream.storage import table_state

    apply_local, replace_row = TableState._apply_local, table_state.replace_row

    def keeping(self: TableState, key: bytes, old: Any, new: Any) -> None:
        table_state.replace_row = lambda btree, tree, totals, key, row: (
            None if row is None else replace_row(btree, tree, totals, key, row)
        )
        try:
            apply_local(self, key, old, new)
        finally:
            table_state.replace_row = replace_row

    return [(TableState, "_apply_local", keeping)]


# Signing off.


@mutant
def a_failed_commit_is_taken_for_done() -> list[Patch]:
    async def blind(self: LogWriter, appends: Any, completions: Any) -> None:
        from millstream.errors import Ambiguous

        try:
            results = await self._threads.run(self.engine.commit, appends)
        except Ambiguous:
            await self._threads.run(self.engine.reopen)
            results = [None] * len(appends)
        for done, result in zip(completions, results, strict=True):
            done(result)

    return [(LogWriter, "_commit", blind)]


# Transactions: worlds of their own.


@transaction_mutant
def a_transaction_commits_without_the_ledger() -> list[Patch]:
    async def hasty(self: Coordinator, transaction: str, wanted: Decision) -> Decision:
        if wanted.timestamp is None:
            return await decide(self, transaction, wanted)
        return wanted

    decide = Coordinator._decide
    return [(Coordinator, "_decide", hasty)]


@transaction_mutant
def recovery_aborts_what_is_decided() -> list[Patch]:
    decide = Coordinator._decide

    async def deaf(self: Coordinator, transaction: str, wanted: Decision) -> Decision:
        decision = await decide(self, transaction, wanted)
        return wanted if wanted.timestamp is None else decision

    return [(Coordinator, "_decide", deaf)]


@transaction_mutant
def promises_are_lost_at_a_flush() -> list[Patch]:
    position = Partition.position

    def short(self: Partition) -> Any:
        return msgspec.structs.replace(position(self), promises=[])

    return [(Partition, "position", short)]


@transaction_mutant
def holding_is_forgotten_after_a_restart() -> list[Patch]:
    # At a proposal the items are held; what is read back from the log or a position is not.
    apply_promise = Transactions.apply_promise

    def forgetful(self: Transactions, promise: Any) -> None:
        is_replay = promise.transaction not in self.prepared
        before = dict(self._holders)
        apply_promise(self, promise)
        if is_replay:
            self._holders = before

    return [(Transactions, "apply_promise", forgetful), (Transactions, "_release", _lenient)]


def _lenient(self: Transactions, transaction: str) -> None:
    promise = self.prepared.pop(transaction, None)
    if promise is not None:
        for key in [*(intent.key for intent in promise.intents), *promise.checked]:
            if self._holders.get(key) == transaction:
                del self._holders[key]
                self._passed.pop(key, None)


@transaction_mutant
def only_one_partition_is_told() -> list[Patch]:
    tell = Coordinator._tell

    async def lazy(self: Coordinator, transaction: str, decision: Decision, actors: Any) -> bool:
        return await tell(self, transaction, decision, actors[:1])

    return [(Coordinator, "_tell", lazy)]


@transaction_mutant
def checked_items_are_not_held() -> list[Patch]:
    def intended(promise: Any) -> Iterator[bytes]:
        return (intent.key for intent in promise.intents)

    return [(storage_transactions, "_keys", intended)]


@transaction_mutant
def writes_pass_what_depends_on_their_item() -> list[Patch]:
    passing = Transactions.version_for_passing

    def pushing(self: Transactions, key: bytes, old_hlc: int) -> int | None:
        name = self._holders[key]
        promise = self.prepared[name]
        self.prepared[name] = msgspec.structs.replace(promise, passable=[key])
        try:
            return passing(self, key, old_hlc)
        finally:
            self.prepared[name] = promise

    return [(Transactions, "version_for_passing", pushing)]


@transaction_mutant
def tokens_are_not_remembered() -> list[Patch]:
    apply = TableState.apply

    def forgetful(self: TableState, record: Any) -> None:
        if not isinstance(record, TokenUsed):
            apply(self, record)

    return [(TableState, "apply", forgetful)]


@transaction_mutant
def reads_do_not_mind_transactions() -> list[Patch]:
    return [(TableState, "will_change", lambda self, key: False)]


@transaction_mutant
def conditions_are_not_decided_in_transactions() -> list[Patch]:
    views = TableState._views

    def trusting(self: TableState, actions: Any, hlc: int) -> Any:
        bare = tuple(
            action
            if isinstance(action, (Check, CheckVersion))
            else msgspec.structs.replace(action, condition=None, version=None)
            for action in actions
        )
        return views(self, bare, hlc)

    return [(TableState, "_views", trusting)]


@transaction_mutant
def a_failed_transaction_is_not_taken_back() -> list[Patch]:
    # Nobody tells those who promised, and recovery looks at nothing.
    async def idle(self: Coordinator) -> None:
        return None

    return [
        (Coordinator, "_tell_nowait", lambda self, transaction, parts: None),
        (Coordinator, "recover", idle),
    ]


# Triggers: worlds of their own.


@trigger_mutant
def a_checkpoint_is_stored_before_the_handler_has_run() -> list[Patch]:
    invoke = ShardPoller._invoke

    async def hasty(self: ShardPoller, call: Any) -> None:
        row = self._machine.preview(call.lane, call.batch_id, None)
        if row is not None:
            await self._tools.checkpoints.save(self._mapping_id, self._shard.shard_id, [row])
            self._learn_versions([call.lane])
        await invoke(self, call)

    return [(ShardPoller, "_invoke", hasty)]


@trigger_mutant
def writes_are_committed_before_their_checkpoint() -> list[Patch]:
    async def apart(self: ShardPoller, lane: int, transaction: Any, checkpoint: Any) -> None:
        await transaction.commit()
        await self._tools.checkpoints.save(self._mapping_id, self._shard.shard_id, [checkpoint])

    return [(ShardPoller, "_commit", apart)]


@trigger_mutant
def a_child_is_begun_before_its_parent_is_done() -> list[Patch]:
    return [(MappingRunner, "_follows_done", lambda self, stream, shard: True)]


@trigger_mutant
def a_parent_is_read_beyond_its_end() -> list[Patch]:
    last_lsn = Streams._last_lsn

    def beyond(self: Streams, shard: Any) -> int:
        self._ceilings.pop(shard.shard_id, None)
        return last_lsn(self, shard)

    return [(Streams, "_last_lsn", beyond)]


@trigger_mutant
def lanes_go_by_turns_rather_than_by_key() -> list[Patch]:
    from millstream.lambdas import shard

    turns = iter(range(1 << 40))
    return [(shard, "lane_of", lambda key, factor: next(turns) % factor)]


@trigger_mutant
def the_floor_does_not_wait_for_slow_lanes() -> list[Patch]:
    return [(Lane, "before", lambda self, done=0: None)]
