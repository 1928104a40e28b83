"""A table's partition as a state machine: commands become effects, effects become rows.

``evaluate`` decides against the tree *plus what is proposed and not yet committed* (``pending``),
so that writes arriving during an append see each other in order; readers see committed rows only.
``apply`` cannot fail and changes nothing but the tree and the totals; recovery is ``apply`` over
the log.

Owned by one ``Partition``. Invariant: a key is in ``pending`` exactly while an effect on it is
proposed and not yet applied, with the newest row proposed.
"""

from __future__ import annotations

import msgspec

from ..errors import InvalidRequest
from ..model.schema import GlobalIndex, LocalIndex, Table
from ..model.values import Item, decode_item, encode_item, item_size_bytes
from .checks import check_updated_item
from .commands import Command, Delete, Put, Refused, UpdateItem, Written
from .indexes import entry_body, entry_key
from .records import Barrier, Effect, IndexProgress, Record
from .rows import Row, decode_row, encode_row, row_size_bytes
from .totals import Totals
from .tree.btree import BTree


class Evaluation(msgspec.Struct, frozen=True):
    """What a command comes to.

    ``records`` go into the log; none means nothing changes. ``result`` is the answer once
    everything that was looked at is committed: ``waits`` says whether something was not yet.
    """

    result: Written | Refused | InvalidRequest
    records: tuple[Record, ...] = ()
    waits: bool = False


class TableState:
    """Rows and local index entries of one hash range of a table."""

    __slots__ = (
        "_btree",
        "_global",
        "_local",
        "_pending",
        "_region",
        "_seen",
        "progress",
        "table",
        "totals",
    )

    def __init__(self, table: Table, btree: BTree, region: int, totals: dict[int, Totals]) -> None:
        #: The schema that effects follow from now on; replaced by a barrier.
        self.table = table
        self._btree = btree
        #: The region's number in versions (0 until global tables exist).
        self._region = region
        #: Key -> newest proposed row (None: removed) and how many proposals touch the key.
        self._pending: dict[bytes, tuple[Row | None, int]] = {}
        #: Key -> the stored row that its first pending effect was decided against, so that
        #: applying it need not look again. Only for keys in ``pending``.
        self._seen: dict[bytes, bytes | None] = {}
        #: Tree -> what this partition holds of it.
        self.totals = totals
        #: A table is fed by nobody's log.
        self.progress: dict[str, IndexProgress] = {}
        self._local: tuple[LocalIndex, ...] = ()
        self._global: tuple[GlobalIndex, ...] = ()
        self.adopt(table)

    def adopt(self, table: Table) -> None:
        """Follow ``table``'s schema from now on."""
        self.table = table
        self._local = table.local_indexes
        self._global = table.global_indexes
        for tree in (table.tree, *(index.tree for index in self._local)):
            self.totals.setdefault(tree, Totals())

    @property
    def schema(self) -> int:
        """The schema version that effects follow."""
        return self.table.schema_version

    # Reading: committed rows only.

    def get(self, key: bytes) -> Row | None:
        """The committed row under ``key``."""
        data = self._btree.get(self.table.tree, key)
        return None if data is None else decode_row(key, data)

    # Deciding.

    def evaluate(self, command: Command, hlc: int) -> Evaluation:
        """Decide ``command`` at version ``hlc``, against committed and pending rows."""
        key = command.key
        pending = self._pending.get(key)
        if pending is None:
            data = self._btree.get(self.table.tree, key)
            old = None if data is None else decode_row(key, data)
        else:
            old = pending[0]
        condition = command.condition
        old_item = None
        if old is not None and (
            condition is not None or self._global or isinstance(command, UpdateItem)
        ):
            old_item = decode_item(old.body)
        if condition is not None and not condition.matches(old_item, command.values):
            return Evaluation(Refused(old), waits=pending is not None)
        new: Row | None
        match command:
            case Put():
                body, size_bytes = command.body, command.size_bytes
                new = Row(body, size_bytes, hlc, self._region)
            case Delete():
                new = None
            case UpdateItem():
                try:
                    new = self._updated(command, old_item, hlc)
                except InvalidRequest as error:
                    return Evaluation(error, waits=pending is not None)
        if pending is None:
            self._seen[key] = data
        return self._effect(key, old, old_item, new, hlc)

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
        return Row(encode_item(item), size_bytes, hlc, self._region)

    def _effect(
        self,
        key: bytes,
        old: Row | None,
        old_item: Item | None,
        new: Row | None,
        hlc: int,
    ) -> Evaluation:
        old_index_keys = None
        if old_item is not None and self._global:
            old_index_keys = {
                index.tree: entry
                for index in self._global
                if (entry := entry_key(self.table, index, old_item, key)) is not None
            }
        effect = Effect(
            self.table.schema_version,
            key,
            None if new is None else new.body,
            0 if new is None else new.size_bytes,
            hlc,
            self._region,
            0,
            _same(old, new),
            old_index_keys,
        )
        count = self._pending[key][1] if key in self._pending else 0
        self._pending[key] = (new, count + 1)
        return Evaluation(Written(old, new), (effect,), True)

    # Applying.

    def apply(self, record: Record) -> None:
        """Carry one committed record into the tree."""
        match record:
            case Effect():
                self._apply_effect(record)
            case Barrier():
                self.adopt(msgspec.msgpack.decode(record.table, type=Table))
            case _:
                pass

    def applied(self, record: Record) -> None:
        """Forget what was pending for a record that was proposed here and is now in the tree."""
        if isinstance(record, Effect):
            row, count = self._pending[record.key]
            if count == 1:
                del self._pending[record.key]
            else:
                self._pending[record.key] = (row, count - 1)

    def _apply_effect(self, effect: Effect) -> None:
        key, row, tree = effect.key, effect.row(), self.table.tree
        if key in self._seen:
            old_data = self._seen.pop(key)
        else:
            old_data = self._btree.get(tree, key)
        new_data = None if row is None else encode_row(key, row)
        if new_data is not None:
            self._btree.put(tree, key, new_data)
        elif old_data is not None:
            self._btree.delete(tree, key)
        self.totals[tree].replace(
            old_data,
            0 if old_data is None else row_size_bytes(old_data),
            new_data,
            effect.size_bytes,
        )
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
                replace_row(self._btree, index.tree, self.totals[index.tree], old_entry, None)
            if new_entry is not None:
                assert new_item is not None and new is not None
                body, size_bytes = entry_body(self.table, index, new_item)
                row = Row(body, size_bytes, new.hlc, new.region)
                replace_row(self._btree, index.tree, self.totals[index.tree], new_entry, row)


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


def _same(old: Row | None, new: Row | None) -> bool:
    """Whether a write changes nothing but the version."""
    if old is None or new is None:
        return old is new
    if old.size_bytes != new.size_bytes:
        return False
    return old.body == new.body or decode_item(old.body) == decode_item(new.body)
