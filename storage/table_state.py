"""A table's partition as a state machine: commands become effects, effects become rows.

``evaluate`` decides against the tree *plus what is proposed and not yet committed* (``pending``),
so that writes arriving during an append see each other in order; readers see committed rows only.
``apply`` cannot fail and changes nothing but the tree and the totals; recovery is ``apply`` over
the log.

Owned by one ``Partition``. Invariant: a key is in ``pending`` exactly while an effect on it is
proposed and not yet applied, with the newest row proposed.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ..errors import InvalidRequest, TransactionConflict
from ..limits import TRANSACTION_GAP
from ..model.schema import GlobalIndex, LocalIndex, StreamSettings, Table
from ..model.values import Item, decode_item, encode_item, item_size_bytes
from ..model.versions import NO_VERSION, Version
from .arriving import evaluate_replication
from .checks import check_updated_item
from .commands import (
    Action,
    Check,
    Checked,
    CheckVersion,
    Collect,
    Command,
    Contended,
    Decide,
    Delete,
    Fill,
    Outcome,
    Prepare,
    Promise,
    Put,
    Refused,
    Replicate,
    Token,
    Transact,
    UpdateItem,
    Written,
)
from .indexes import entry_body, entry_key
from .records import (
    Aborted,
    Barrier,
    Committed,
    Effect,
    IndexProgress,
    Intent,
    Prepared,
    Received,
    Record,
    TokenUsed,
    TombstonesDropped,
)
from .replica import Replica, ReplicaPosition, Resolve
from .rows import Row, decode_row, encode_row, row_size_bytes
from .totals import Totals
from .transactions import Transactions
from .tree.btree import BTree
from .views import Evaluation, View

#: The tree of client tokens, shared by all partitions of a node. Its rows are not counted in any
#: totals: each says what it has to say for ten minutes.
TOKEN_TREE = 3
CONFLICT = "Transaction is ongoing for the item"


_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
# How a value begins that has one spelling only.
_PLAIN = (b'{"S":', b'{"N":', b'{"B":')


Request = Command | Transact | Prepare | Decide | Replicate | Fill | Collect


class TableState:
    """Rows and local index entries of one hash range of a table."""

    __slots__ = (
        "btree",
        "_global",
        "_local",
        "pending",
        "region",
        "_seen",
        "_stream",
        "_transactions",
        "progress",
        "replica",
        "resolve",
        "table",
        "totals",
    )

    def __init__(
        self,
        table: Table,
        btree: BTree,
        region: int,
        totals: dict[int, Totals],
        promises: Iterable[Prepared] = (),
        replica: ReplicaPosition | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        #: The schema that effects follow from now on; replaced by a barrier.
        self.table = table
        self.btree = btree
        #: The region's number in versions; 0 for a node that has none.
        self.region = region
        #: What it knows as a part of a global table.
        self.replica = Replica(btree, region, replica)
        #: Decides conflicts between regions; None: versions do.
        self.resolve = resolve
        #: Key -> newest proposed row (None: removed) and how many proposals touch the key.
        self.pending: dict[bytes, tuple[Row | None, int]] = {}
        #: Key -> the stored row that its first pending effect was decided against, so that
        #: applying it need not look again. Only for keys in ``pending``.
        self._seen: dict[bytes, bytes | None] = {}
        #: Tree -> what this partition holds of it.
        self.totals = totals
        #: A table is fed by nobody's log.
        self.progress: dict[str, IndexProgress] = {}
        self._transactions = Transactions()
        for promise in promises:
            self._transactions.apply_promise(promise)
        self._local: tuple[LocalIndex, ...] = ()
        self._global: tuple[GlobalIndex, ...] = ()
        self._stream: StreamSettings | None = None
        self.adopt(table)

    def adopt(self, table: Table) -> None:
        """Follow ``table``'s schema from now on."""
        self.table = table
        self._local = table.local_indexes
        self._global = table.global_indexes
        self._stream = table.stream
        for tree in (table.tree, *(index.tree for index in self._local)):
            self.totals.setdefault(tree, Totals())
        self.replica.tree = 0 if table.group_id is None else table.tombstones
        if self.replica.tree:
            self.replica.totals = self.totals.setdefault(table.tombstones, Totals())

    @property
    def schema(self) -> int:
        """The schema version that effects follow."""
        return self.table.schema_version

    @property
    def promises(self) -> dict[str, Prepared]:
        """Transactions that are prepared here, durably."""
        return self._transactions.durable

    def replica_position(self) -> ReplicaPosition | None:
        """What a global table's partition knows besides; None for all others."""
        return self.replica.position()

    @property
    def closed_below(self) -> int | None:
        """Nothing prepared here will write at or below this; None if nothing is prepared."""
        return self._transactions.closed_below()

    def holds(self, key: bytes) -> bool:
        """Whether a transaction under way holds ``key``, for writing or for a condition."""
        return self._transactions.holds(key)

    def will_change(self, key: bytes) -> bool:
        """Whether a transaction under way intends to write ``key``."""
        return self._transactions.will_write(key)

    # Reading: committed rows only.

    def get(self, key: bytes) -> Row | None:
        """The committed row under ``key``."""
        data = self.btree.get(self.table.tree, key)
        return None if data is None else decode_row(key, data)

    # Deciding.

    def evaluate(self, command: Request, hlc: int) -> Evaluation:
        """Decide ``command`` at version ``hlc``, against committed and pending rows."""
        if isinstance(command, Transact | Prepare | Decide):
            return self._evaluate_transaction(command, hlc)
        if isinstance(command, Replicate | Fill | Collect):
            return evaluate_replication(self, command, hlc)
        view = self._look(command, hlc)
        if self._transactions.holds(command.key):
            # A deletion that passed before has a version too, where it leaves a tombstone.
            known = self.replica.version_of(command.key, view.old)
            version = self._transactions.version_for_passing(command.key, known.hlc)
            if version is None:
                return Evaluation(TransactionConflict(CONFLICT), waits=view.is_pending)
            view = self._look(command, version)
            hlc = version
        if not isinstance(view.result, Written):
            return Evaluation(view.result, waits=view.is_pending)
        effect = self._effect(command.key, view, hlc, 0, command.hops)
        return Evaluation(view.result, (effect,), True)

    def _look(self, command: Action, hlc: int) -> View:
        """What ``command`` would do now, at version ``hlc``. Changes nothing."""
        key = command.key
        pending = self.pending.get(key)
        data = None
        if pending is None:
            data = self.btree.get(self.table.tree, key)
            old = None if data is None else decode_row(key, data)
        else:
            old = pending[0]
        view = View(data, old, pending is not None)
        version = command.version
        if version is not None and version != (NO_VERSION if old is None else old.version):
            return view
        if isinstance(command, CheckVersion):
            view.result = Checked(old)
            return view
        condition = command.condition
        if old is not None and (
            condition is not None or self._global or isinstance(command, UpdateItem)
        ):
            view.old_item = decode_item(old.body)
        if condition is not None and not condition.matches(view.old_item, command.values):
            view.result = Refused(old)
            return view
        if isinstance(command, Put):
            view.new = Row(command.body, command.size_bytes, hlc, self.region)
        elif isinstance(command, UpdateItem):
            try:
                view.new = self._updated(command, view.old_item, hlc)
            except InvalidRequest as error:
                view.result = error
                return view
        elif isinstance(command, Check):
            view.result = Checked(old)
            return view
        view.result = Written(old, view.new)
        return view

    def sight(self, key: bytes) -> View:
        """What is under ``key`` now, proposals included."""
        return self._look(Delete(key), 0)

    # Transactions: see ``transactions.py``.

    def _evaluate_transaction(
        self, command: Transact | Prepare | Decide, hlc: int
    ) -> Evaluation:
        match command:
            case Transact():
                return self._transact(command, hlc)
            case Prepare():
                return self._prepare(command, hlc)
            case Decide():
                return self._end(command)

    def _views(self, actions: tuple[Action, ...], hlc: int) -> tuple[list[View], bool, bool]:
        """Every action's view; whether all are well; whether something seen is not committed."""
        views = []
        for action in actions:
            view = self._look(action, hlc)
            if self._transactions.holds(action.key):
                view.result = Contended()
            views.append(view)
        well = all(isinstance(view.result, Written | Checked) for view in views)
        return views, well, any(view.is_pending for view in views)

    def _transact(self, command: Transact, hlc: int) -> Evaluation:
        views, well, waits = self._views(command.actions, hlc)
        outcome = Outcome(well, tuple(view.result for view in views))
        if not well:
            return Evaluation(outcome, waits=waits)
        records: list[Record] = [
            self._effect(action.key, view, hlc, hlc, command.hops)
            for action, view in zip(command.actions, views, strict=True)
            if isinstance(view.result, Written)
        ]
        if command.token is not None:
            records.append(_token_used(command.token))
        # A transaction that only checks waits for what it saw, like a refusal.
        return Evaluation(outcome, tuple(records), waits or bool(records))

    def _prepare(self, command: Prepare, hlc: int) -> Evaluation:
        views, well, waits = self._views(command.actions, hlc)
        results = tuple(view.result for view in views)
        if not well:
            return Evaluation(Outcome(False, results), waits=waits)
        intents, checked, passable = [], [], []
        for action, view in zip(command.actions, views, strict=True):
            if isinstance(view.result, Checked):
                checked.append(action.key)
                continue
            body, size_bytes = (None, 0) if view.new is None else (
                view.new.body,
                view.new.size_bytes,
            )
            intents.append(Intent(action.key, body, size_bytes))
            if (
                isinstance(action, Put | Delete)
                and action.condition is None
                and action.version is None
            ):
                passable.append(action.key)
        bound = hlc + TRANSACTION_GAP
        promise = Prepared(
            command.transaction, bound, intents, checked, passable, command.hops
        )
        self._transactions.hold(promise)
        return Evaluation(Promise(bound, results), (promise,), True)

    def _end(self, command: Decide) -> Evaluation:
        transactions, name = self._transactions, command.transaction
        promise = transactions.prepared.get(name)
        outcome = Outcome(command.timestamp is not None, ())
        if promise is None:
            return Evaluation(outcome, waits=transactions.is_ending(name))
        transactions.end(name)
        if command.timestamp is None:
            return Evaluation(outcome, (Aborted(name),), True)
        timestamp = command.timestamp
        assert timestamp >= promise.bound
        records: list[Record] = [Committed(name, timestamp)]
        for intent in promise.intents:
            view = self._look(Delete(intent.key), timestamp)
            if intent.body is not None:
                view.new = Row(
                    intent.body, intent.size_bytes, timestamp, self.region, timestamp
                )
            records.append(
                self._effect(intent.key, view, timestamp, timestamp, promise.hops)
            )
        if command.token is not None:
            records.append(_token_used(command.token))
        return Evaluation(outcome, tuple(records), True)

    def _updated(self, command: UpdateItem, old_item: Item | None, hlc: int) -> Row | None:
        update = command.update
        if update is None:
            item = command.key_item if old_item is None else old_item
            size_bytes = item_size_bytes(item)
        else:
            outcome = update.apply(old_item, command.key_item, command.values)
            if outcome.new_item is None:
                return None
            item = outcome.new_item
            size_bytes = check_updated_item(self.table, item, update.names)
        return Row(encode_item(item), size_bytes, hlc, self.region)

    def _effect(
        self, key: bytes, view: View, hlc: int, transaction: int, hops: int
    ) -> Effect:
        """The effect of what ``view`` says, which is pending from now on."""
        if view.new is not None and transaction:
            new = view.new
            view.new = Row(new.body, new.size_bytes, hlc, self.region, transaction)
        base = None
        if self.replica.tree:
            base = self.replica.version_of(key, view.old)
        return self.effect_at(key, view, Version(hlc, self.region), transaction, hops, base)

    def effect_at(
        self,
        key: bytes,
        view: View,
        version: Version,
        transaction: int,
        hops: int,
        base: Version | None,
        beats: bool = False,
        resolves: bool = False,
    ) -> Effect:
        """The effect at ``version``, which replaces the version ``base`` of a global table."""
        old, old_item, new = view.old, view.old_item, view.new
        old_index_keys = None
        if old_item is not None and self._global:
            old_index_keys = {
                index.tree: entry
                for index in self._global
                if (entry := entry_key(self.table, index, old_item, key)) is not None
            }
        pending = self.pending.get(key)
        if pending is None:
            self._seen[key] = view.data
            self.pending[key] = (new, 1)
        else:
            self.pending[key] = (new, pending[1] + 1)
        if base is not None:
            self.replica.propose(key, version)
        return Effect(
            self.table.schema_version,
            key,
            None if new is None else new.body,
            0 if new is None else new.size_bytes,
            version.hlc,
            version.region,
            transaction,
            _same(old, new),
            old_index_keys,
            None if old is None or self._stream is None else self._kept(old),
            hops,
            -1 if base is None else base.hlc,
            0 if base is None else base.region,
            beats,
            resolves,
        )

    def _kept(self, old: Row) -> bytes:
        """What the stream needs of the old body: to show it, or to know that there was one."""
        assert self._stream is not None
        return old.body if self._stream.shows_old else b""

    # Applying.

    def apply(self, record: Record) -> None:
        """Carry one committed record into the tree."""
        match record:
            case Effect():
                self._apply_effect(record)
            case Barrier():
                self.adopt(msgspec.msgpack.decode(record.table, type=Table))
                self.replica.apply_barrier()
            case Prepared():
                self._transactions.apply_promise(record)
            case Committed() | Aborted():
                self._transactions.apply_end(record.transaction)
            case Received():
                self.replica.received[record.source] = record
            case TombstonesDropped():
                self.replica.apply_dropped(record)
            case TokenUsed():
                key = record.token.encode()
                row = Row(record.request_hash, 0, record.used_ms)
                self.btree.put(TOKEN_TREE, key, encode_row(key, row))
            case _:
                pass

    def applied_entry(self, lsn: int) -> None:
        """All records of an entry are carried into the tree."""
        self.replica.applied_entry(lsn)

    def applied(self, record: Record) -> None:
        """Forget what was pending for a record that was proposed here and is now in the tree."""
        if isinstance(record, Effect):
            row, count = self.pending[record.key]
            if count == 1:
                del self.pending[record.key]
            else:
                self.pending[record.key] = (row, count - 1)
            if record.base_hlc >= 0:
                self.replica.applied_effect(record.key)
        elif isinstance(record, Received):
            self.replica.applied_received(record)

    def _apply_effect(self, effect: Effect) -> None:
        key, row, tree = effect.key, effect.row(), self.table.tree
        if key in self._seen:
            old_data = self._seen.pop(key)
        else:
            old_data = self.btree.get(tree, key)
        new_data = None if row is None else encode_row(key, row)
        if new_data is not None:
            self.btree.put(tree, key, new_data)
        elif old_data is not None:
            self.btree.delete(tree, key)
        self.totals[tree].replace(
            old_data,
            0 if old_data is None else row_size_bytes(old_data),
            new_data,
            effect.size_bytes,
        )
        if effect.base_hlc >= 0 and self.replica.tree:
            self.replica.apply_effect(effect)
        if self._local:
            old = None if old_data is None else decode_row(key, old_data)
            self._apply_local(key, old, row)

    def _apply_local(self, key: bytes, old: Row | None, new: Row | None) -> None:
        old_item = None if old is None else decode_item(old.body)
        new_item = None if new is None else decode_item(new.body)
        for index in self._local:
            old_entry = None if old_item is None else entry_key(self.table, index, old_item, key)
            new_entry = None if new_item is None else entry_key(self.table, index, new_item, key)
            if old_entry is not None and old_entry != new_entry:
                replace_row(self.btree, index.tree, self.totals[index.tree], old_entry, None)
            if new_entry is not None:
                assert new_item is not None and new is not None
                body, size_bytes = entry_body(self.table, index, new_item)
                row = Row(body, size_bytes, new.hlc, new.region)
                replace_row(self.btree, index.tree, self.totals[index.tree], new_entry, row)


def replace_row(btree: BTree, tree: int, totals: Totals, key: bytes, row: Row | None) -> None:
    """Put ``row`` under ``key`` (None: remove it) and keep ``totals`` in step."""
    old_data = btree.get(tree, key)
    old_size_bytes = 0 if old_data is None else row_size_bytes(old_data)
    if row is None:
        if old_data is not None:
            btree.delete(tree, key)
            totals.replace(old_data, old_size_bytes, None, 0)
        return
    data = encode_row(key, row)
    btree.put(tree, key, data)
    totals.replace(old_data, old_size_bytes, data, row.size_bytes)


def _token_used(token: Token) -> TokenUsed:
    return TokenUsed(token.token, token.request_hash, token.used_ms)


def _same(old: Row | None, new: Row | None) -> bool:
    """Whether a write changes nothing but the version."""
    if old is None or new is None:
        return old is new
    if old.body == new.body:
        return True
    # Equal items may be written in another order, but then at the same length.
    if old.size_bytes != new.size_bytes or len(old.body) != len(new.body):
        return False
    before, after = _decode_members(old.body), _decode_members(new.body)
    for name, value in after.items():
        was = before.get(name)
        if was is None:
            return False
        is_now, has_been = bytes(value), bytes(was)
        if is_now != has_been and is_now[:5] in _PLAIN:
            return False
    return decode_item(old.body) == decode_item(new.body)
