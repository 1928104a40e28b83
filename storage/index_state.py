"""A global index's partition as a state machine, fed from the logs of the base table.

Index builders send batches: everything that one base log says up to some LSN, for this partition's
hash range. A batch is decided against the progress stored for that log, so a batch sent twice (a
builder restarted) changes nothing the second time, and its effects and the new progress share one
log entry: after a crash neither is there without the other.

Owned by one ``Partition``. Effects are put and remove of whole entries, so there is nothing to
read back before deciding; ``pending`` holds only the progress proposed.
"""

from __future__ import annotations

import msgspec

from ..model.schema import GlobalIndex
from .commands import Written
from .records import IndexEffect, IndexProgress, Prepared, Record
from .rows import Row, decode_row
from .table_state import replace_row
from .totals import Totals
from .tree.btree import BTree
from .views import Evaluation


class IndexBatch(msgspec.Struct, frozen=True, tag=True):
    """Effects of ``progress.base_log`` on this partition, in order.

    ``effects`` pairs each with the LSN of the base entry that it comes from; those at or below the
    progress already stored are skipped. ``rows`` come from a backfill's chunk, which
    ``progress.cursor`` says is done.
    """

    effects: tuple[tuple[int, IndexEffect], ...]
    progress: IndexProgress
    rows: tuple[IndexEffect, ...] = ()


class IndexState:
    """Entries of one hash range of a global index."""

    __slots__ = (
        "_btree",
        "_pending",
        "closed_below",
        "index",
        "progress",
        "promises",
        "schema",
        "totals",
    )

    def __init__(
        self,
        index: GlobalIndex,
        btree: BTree,
        totals: dict[int, Totals],
        progress: dict[str, IndexProgress],
    ) -> None:
        self.index = index
        self._btree = btree
        self.totals = totals
        self.totals.setdefault(index.tree, Totals())
        #: An index partition follows no schema of its own.
        self.schema = 0
        #: Base log -> what is committed here of it.
        self.progress = progress
        #: No transaction is prepared in an index.
        self.promises: dict[str, Prepared] = {}
        self.closed_below: int | None = None
        #: Base log -> what is proposed here of it.
        self._pending: dict[str, IndexProgress] = {}

    def replica_position(self) -> None:
        """Indexes are each region's own."""
        return None

    def get(self, key: bytes) -> Row | None:
        """The committed entry under ``key``."""
        data = self._btree.get(self.index.tree, key)
        return None if data is None else decode_row(key, data)

    def evaluate(self, batch: IndexBatch, hlc: int) -> Evaluation:
        """Take from ``batch`` what is not here yet."""
        base_log = batch.progress.base_log
        known = self._pending.get(base_log) or self.progress.get(base_log)
        done = 0 if known is None else known.lsn
        if known == batch.progress or (known is not None and batch.progress.lsn < done):
            return Evaluation(Written(None, None), waits=base_log in self._pending)
        self._pending[base_log] = batch.progress
        records: list[Record] = [effect for lsn, effect in batch.effects if lsn > done]
        records.extend(batch.rows)
        records.append(batch.progress)
        return Evaluation(Written(None, None), tuple(records), True)

    def apply(self, record: Record) -> None:
        """Carry one committed record into the tree."""
        match record:
            case IndexEffect():
                tree = self.index.tree
                replace_row(self._btree, tree, self.totals[tree], record.key, record.row())
            case IndexProgress():
                self.progress[record.base_log] = record
            case _:
                pass

    def applied_entry(self, lsn: int) -> None:
        """All records of an entry are carried into the tree."""

    def applied(self, record: Record) -> None:
        """Forget what was pending for a record proposed here that is now applied."""
        if isinstance(record, IndexProgress) and self._pending.get(record.base_log) is record:
            del self._pending[record.base_log]
