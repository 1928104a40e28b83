"""What operations cost in capacity units, and the ConsumedCapacity that tells it.

Pure arithmetic on sizes as ``values.item_size_bytes`` counts them. Rounding is up and per what the
caller passes: per item for GetItem, BatchGetItem and transactions, per page for Query and Scan.
Sources: "DynamoDB read and write operations" (units), and for index writes the figures measured on
AWS that reference 2.6 cites (dynoxide, captures of August 2026).
"""

from __future__ import annotations

from typing import Any

from ..limits import READ_UNIT_BYTES, TRANSACTIONAL_UNITS_FACTOR, WRITE_UNIT_BYTES


def read_units(size_bytes: int, consistent: bool, *, transactional: bool = False) -> float:
    """Units of reading ``size_bytes``: 1 for each 4 KB begun and at least 1, also for no item.

    An eventually consistent read costs half; a transactional one twice a consistent one.
    """
    units = float(max(1, -(-size_bytes // READ_UNIT_BYTES)))
    if transactional:
        return units * TRANSACTIONAL_UNITS_FACTOR
    return units if consistent else units / 2


def write_units(size_bytes: int, *, transactional: bool = False) -> float:
    """Units of one write: 1 for each KB begun, at least 1; twice that in a transaction.

    ``size_bytes`` is the larger of the item before and the item after; 0 for neither. A failed
    condition, a ConditionCheck and a delete of nothing cost the same.
    """
    units = float(max(1, -(-size_bytes // WRITE_UNIT_BYTES)))
    return units * TRANSACTIONAL_UNITS_FACTOR if transactional else units


def index_write_units(
    before_bytes: int | None, after_bytes: int | None, *, moved: bool, changed: bool
) -> float:
    """Units that a write costs one secondary index; 0 means it leaves no arm in the answer.

    The sizes are those of the index's entry, None where the item has none. ``moved`` tells that the
    entry's key differs: a delete and an insert, each rounded for itself; else ``changed`` tells
    that what the index holds differs. Transactions do not double these units.
    """
    before = 0.0 if before_bytes is None else write_units(before_bytes)
    after = 0.0 if after_bytes is None else write_units(after_bytes)
    if moved or before_bytes is None or after_bytes is None:
        return before + after
    return max(before, after) if changed else 0.0


class _Units:
    """Read and write units of a table or an index."""

    __slots__ = ("read", "write")

    def __init__(self) -> None:
        self.read = 0.0
        self.write = 0.0

    def render(self, split: bool) -> dict[str, float]:
        answer = {"CapacityUnits": self.read + self.write}
        if split:
            if self.read:
                answer["ReadCapacityUnits"] = self.read
            if self.write:
                answer["WriteCapacityUnits"] = self.write
        return answer


class Consumption:
    """The units of one request on one table, gathered by the operation that serves it.

    An index appears once it has consumed something: DynamoDB leaves untouched indexes out, while
    the table is always there, if need be with 0.
    """

    __slots__ = ("_global", "_local", "_table")

    def __init__(self) -> None:
        self._table = _Units()
        #: By index name. Names are unique across both kinds.
        self._local: dict[str, _Units] = {}
        self._global: dict[str, _Units] = {}

    @property
    def units(self) -> float:
        """All units together, of the table and its indexes."""
        arms = (self._table, *self._local.values(), *self._global.values())
        return sum(arm.read + arm.write for arm in arms)

    def add_table(self, *, read: float = 0.0, write: float = 0.0) -> None:
        """Count units of the table itself."""
        self._table.read += read
        self._table.write += write

    def add_local_index(self, name: str, *, read: float = 0.0, write: float = 0.0) -> None:
        """Count units of a local secondary index."""
        self._add(self._local, name, read, write)

    def add_global_index(self, name: str, *, read: float = 0.0, write: float = 0.0) -> None:
        """Count units of a global secondary index."""
        self._add(self._global, name, read, write)

    @staticmethod
    def _add(arms: dict[str, _Units], name: str, read: float, write: float) -> None:
        if not read and not write:
            return
        arm = arms.setdefault(name, _Units())
        arm.read += read
        arm.write += write

    def add(self, other: Consumption) -> None:
        """Count what ``other`` gathered for the same table, as batches do."""
        self.add_table(read=other._table.read, write=other._table.write)
        for name, arm in other._local.items():
            self._add(self._local, name, arm.read, arm.write)
        for name, arm in other._global.items():
            self._add(self._global, name, arm.read, arm.write)

    def render(self, table_name: str, mode: str, *, split: bool = False) -> dict[str, Any]:
        """The ConsumedCapacity structure for ``mode`` TOTAL or INDEXES.

        ``table_name`` is what the request said. ``split`` adds ReadCapacityUnits and
        WriteCapacityUnits, which AWS tells for transactional operations only.
        """
        assert mode in ("TOTAL", "INDEXES"), "with NONE there is nothing to render"
        total = _Units()
        for arm in (self._table, *self._local.values(), *self._global.values()):
            total.read += arm.read
            total.write += arm.write
        answer: dict[str, Any] = {"TableName": table_name, **total.render(split)}
        if mode == "INDEXES":
            answer["Table"] = self._table.render(split)
            for member, arms in (
                ("LocalSecondaryIndexes", self._local),
                ("GlobalSecondaryIndexes", self._global),
            ):
                if arms:
                    answer[member] = {name: arm.render(split) for name, arm in arms.items()}
        return answer
