"""What a table or an index that is to be made will be: rows of the catalog, from requests. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from ..model.schema import (
    GlobalIndex,
    LocalIndex,
    NewIndex,
    NewTable,
    Partition,
    Status,
    StreamSettings,
    Table,
    hash_ranges,
)

NewId = Callable[[], str]


def new_table(
    new: NewTable,
    trees: Iterator[int],
    count: int,
    label: str | None,
    new_id: NewId,
    now_ms: int,
) -> Table:
    """The table, CREATING, in ``count`` partitions; ``label`` is that of its stream, if any."""
    stream = None
    if new.stream_view is not None:
        assert label is not None
        stream = StreamSettings(new.stream_view, label)
    return Table(
        namespace=new.namespace,
        name=new.name,
        table_id=new_id(),
        status=Status.CREATING,
        created_ms=now_ms,
        key=new.key,
        attribute_kinds=new.attribute_kinds,
        tree=next(trees),
        partitions=_partitions(count, new_id),
        local_indexes=tuple(
            LocalIndex(index.name, index.key, index.projection, next(trees))
            for index in new.local_indexes
        ),
        global_indexes=tuple(
            new_index(index, next(trees), count, False, new_id) for index in new.global_indexes
        ),
        billing_mode=new.billing_mode,
        billing_changed_ms=now_ms if new.billing_mode == "PAY_PER_REQUEST" else None,
        throughput=new.throughput,
        unit_limits=new.unit_limits,
        warm_units=new.warm_units,
        table_class=new.table_class,
        deletion_protection=new.deletion_protection,
        tags=new.tags,
        stream=stream,
        stream_label=label,
        group_id=new.group_id,
        tombstones=0 if new.group_id is None else next(trees),
        global_since=0 if new.group_id is None else 1,
        is_shut=new.group_id is not None,
    )


def new_index(
    index: NewIndex, tree: int, count: int, backfilling: bool, new_id: NewId
) -> GlobalIndex:
    """The global index, CREATING; ``backfilling``: on a table that is there already."""
    return GlobalIndex(
        index.name,
        index.key,
        index.projection,
        tree,
        _partitions(count, new_id),
        Status.CREATING,
        backfilling,
        index.throughput,
        index.unit_limits,
        index.warm_units,
    )


def _partitions(count: int, new_id: NewId) -> tuple[Partition, ...]:
    return tuple(Partition(new_id(), low, last) for low, last in hash_ranges(count))


def stream_label(now_ms: int, last: str | None) -> str:
    """A stream's label, the time of enabling; above ``last``, the table's label before."""
    label = _label(datetime.fromtimestamp(now_ms / 1000, UTC))
    if last is None or label > last:
        return label
    return _label(datetime.fromisoformat(last) + timedelta(milliseconds=1))


def _label(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}"
