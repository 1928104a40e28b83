"""One page of a Query or a Scan: rows in, answer out.

A page ends after ``limit`` rows, after the row with which the rows looked at reach 1 MB (measured
as stored, before filter and projection), or with the interval. The rows are read in slices of about
2 ms; between two slices other tasks run, and reading goes on behind the last key, so a page is not
one moment of the table, as it is not in DynamoDB.

Without filter and projection no row is decoded: the stored JSON is spliced into the answer, and
only the last row is looked into, for LastEvaluatedKey.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from ...errors import InvalidRequest
from ...limits import (
    PAGE_BYTES_MAX,
    SLICE_DECODED_BYTES_MAX,
    SLICE_DECODED_ROWS_MAX,
    SLICE_ROWS_MAX,
)
from ...model.capacity import Consumption, read_units
from ...model.keys import successor
from ...model.schema import GlobalIndex, LocalIndex, Table
from ...model.values import Item, decode_item, encode_item
from ...storage.indexes import primary_key
from ..calls import Caller
from ..requests import Capacity
from .consumed import capacity_member
from .levels import Place, meet

if TYPE_CHECKING:
    from ...actors.tables import TableRef, Tables

_ROWS_UNLIMITED = 1 << 62


class Plan(msgspec.Struct):
    """What a page reads. ``low`` and ``high`` are an interval ``[low, high)`` of tree keys.

    ``keep`` is the filter and ``shape`` the projection, both None when there is none. ``fetch``
    says that a local index does not hold all that is asked for: whole items then come from the
    table.
    """

    table: Table
    index: LocalIndex | GlobalIndex | None
    low: bytes
    high: bytes
    reverse: bool = False
    limit: int | None = None
    consistent: bool = False
    counting: bool = False
    keep: Callable[[Item], bool] | None = None
    shape: Callable[[Item], Item] | None = None
    fetch: bool = False

    def go_on_behind(self, key: bytes) -> None:
        """Leave out ``key``, which lies in the interval, and everything before it."""
        if self.reverse:
            self.high = key
        else:
            self.low = successor(key)


class Page:
    """What was read so far."""

    __slots__ = (
        "bodies",
        "count",
        "fetched_bytes",
        "last",
        "rows_bytes",
        "scanned",
        "size_bytes",
    )

    def __init__(self) -> None:
        #: The answer's items, encoded.
        self.bodies: list[bytes] = []
        #: Rows that passed the filter.
        self.count = 0
        #: Rows looked at.
        self.scanned = 0
        #: The size of the rows looked at: what a page is billed by.
        self.rows_bytes = 0
        #: The same, but of the whole items where those were fetched: what a page ends by.
        self.size_bytes = 0
        #: The sizes of the items fetched from the table, each of which is paid for itself.
        self.fetched_bytes: list[int] = []
        #: The body that the page ended with; None when the interval was exhausted.
        self.last: bytes | None = None


async def serve_page(
    tables: Tables,
    caller: Caller,
    ref: TableRef,
    plan: Plan,
    table_name: str,
    mode: Capacity | None,
) -> bytes:
    """Read the page that ``plan`` describes; the answer. ``mode`` is ReturnConsumedCapacity."""
    if caller.reading is not None:
        await meet(tables, caller.reading, [_place(ref, plan)])
    page = await _read_page(tables, ref, plan)
    capacity = None
    if mode is not None and mode != "NONE":
        capacity = capacity_member(_consumption(plan, page), table_name, mode)
    return _answer(plan, page, capacity)


def _place(ref: TableRef, plan: Plan) -> Place:
    """What the page reads. Entries of a local index lie with their items."""
    if isinstance(plan.index, GlobalIndex):
        return Place(ref, b"", None, plan.index.name)
    return Place(ref, plan.low, plan.high)


async def _read_page(tables: Tables, ref: TableRef, plan: Plan) -> Page:
    page = Page()
    decoding = plan.keep is not None or plan.shape is not None or plan.fetch
    read_slice = _read_decoded if decoding else _read_bodies
    while True:
        key = read_slice(ref, plan, page)
        if key is None:
            return page
        plan.go_on_behind(key)
        await tables.breathe()
        index = plan.index
        if index is not None and not _has_index(ref.table, index.name):
            raise InvalidRequest(f"The table does not have the specified index: {index.name}")


def _has_index(table: Table, name: str) -> bool:
    """Whether the index is still there: others ran, and one of them may have deleted it."""
    return table.local_index(name) is not None or table.global_index(name) is not None


def _read_bodies(ref: TableRef, plan: Plan, page: Page) -> bytes | None:
    """Read one slice without decoding; the key to go on behind, or None when the page is done."""
    index = plan.index
    limit = _ROWS_UNLIMITED if plan.limit is None else plan.limit
    rows_max = min(limit - page.count, SLICE_ROWS_MAX)
    bytes_max = PAGE_BYTES_MAX - page.size_bytes
    taken = ref.bodies(
        None if index is None else index.name,
        plan.low,
        plan.high,
        plan.reverse,
        rows_max,
        bytes_max,
    )
    bodies = taken.bodies
    page.bodies = bodies if not page.bodies else page.bodies + bodies
    page.count = page.scanned = len(page.bodies)
    page.size_bytes = page.rows_bytes = page.size_bytes + taken.size_bytes
    if page.count == limit or taken.size_bytes >= bytes_max:
        page.last = bodies[-1]
        return None
    return taken.last if len(bodies) == rows_max else None


def _read_decoded(ref: TableRef, plan: Plan, page: Page) -> bytes | None:
    """``_read_bodies`` with a filter, a projection or items fetched from the table."""
    index, keep, shape = plan.index, plan.keep, plan.shape
    rows_left, bytes_left = SLICE_DECODED_ROWS_MAX, SLICE_DECODED_BYTES_MAX
    for key, row in ref.rows(
        None if index is None else index.name, plan.low, plan.high, plan.reverse
    ):
        item = decode_item(row.body)
        found = row
        if plan.fetch:
            whole = ref.get(primary_key(plan.table, item))
            assert whole is not None, "a local index entry without its item"
            found, item = whole, decode_item(whole.body)
            page.fetched_bytes.append(whole.size_bytes)
        page.scanned += 1
        page.rows_bytes += row.size_bytes
        page.size_bytes += found.size_bytes
        if keep is None or keep(item):
            page.count += 1
            if not plan.counting:
                page.bodies.append(found.body if shape is None else encode_item(shape(item)))
        if page.scanned == plan.limit or page.size_bytes >= PAGE_BYTES_MAX:
            page.last = row.body
            return None
        rows_left -= 1
        bytes_left -= found.size_bytes
        if rows_left <= 0 or bytes_left <= 0:
            return key
    return None


def _answer(plan: Plan, page: Page, capacity: bytes | None) -> bytes:
    """The JSON answer. ``capacity`` is the ConsumedCapacity member, if asked for."""
    before = b'{"Count":%d,"ScannedCount":%d' % (page.count, page.scanned)
    after = b"}"
    if capacity is not None:
        after = b"," + capacity + after
    if page.last is not None:
        after = b',"LastEvaluatedKey":' + encode_item(_last_key(plan, page.last)) + after
    if plan.counting:
        return before + after
    before += b',"Items":['
    after = b"]" + after
    bodies = page.bodies
    if not bodies:
        return before + after
    # One join with the first and the last spliced: joining the whole once more would copy it again.
    first = bodies[0]
    bodies[0] = before + first
    bodies[-1] += after
    return b",".join(bodies)


def _last_key(plan: Plan, last: bytes) -> Item:
    item = decode_item(last)
    return {name: item[name] for name in start_key_names(plan.table, plan.index)}


def start_key_names(table: Table, index: LocalIndex | GlobalIndex | None) -> list[str]:
    """The attributes of LastEvaluatedKey and ExclusiveStartKey: the index's and the table's key."""
    names = list(table.key.names())
    if index is not None:
        names += [name for name in index.key.names() if name not in names]
    return names


def _consumption(plan: Plan, page: Page) -> Consumption:
    """The units of a page: its rows together, and each item fetched from the table for itself."""
    consumption = Consumption()
    units = read_units(page.rows_bytes, plan.consistent)
    match plan.index:
        case None:
            consumption.add_table(read=units)
        case LocalIndex(name=name):
            consumption.add_local_index(name, read=units)
        case GlobalIndex(name=name):
            consumption.add_global_index(name, read=units)
    for size_bytes in page.fetched_bytes:
        consumption.add_table(read=read_units(size_bytes, plan.consistent))
    return consumption
