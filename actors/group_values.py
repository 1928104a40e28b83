"""Between a table here and the group that it belongs to: pure translations."""

from __future__ import annotations

import msgspec

from ..model.groups import Group, Member, Shared, Stage, Stamp
from ..model.schema import (
    GlobalIndex,
    LocalIndex,
    NewIndex,
    NewTable,
    Status,
    Table,
    TableChange,
    Throughput,
)

#: What the stream of a global table shows, as DynamoDB demands.
GROUP_STREAM_VIEW = "NEW_AND_OLD_IMAGES"
READ_UNITS_DEFAULT = 5


def founded(group_id: str, table: Table, region: str, number: int, stamp: Stamp) -> Group:
    """The group of a table that becomes a global one, with this region alone."""
    empty = Shared(stamp, {}, (), table.billing_mode)
    return Group(
        group_id=group_id,
        namespace=table.namespace,
        table=table.name,
        created_ms=table.created_ms,
        key=table.key,
        local_indexes=tuple(_new_index(index) for index in table.local_indexes),
        partitions=len(table.partitions),
        members={region: Member(region, number, Stage.ACTIVE, 1, number)},
        shared=shared_of(table, empty, stamp),
    )


def shared_of(table: Table, before: Shared, stamp: Stamp) -> Shared:
    """The settings of ``table`` that every region shall have; policies stay as they were."""
    indexes = [index for index in table.global_indexes if index.status is not Status.DELETING]
    return msgspec.structs.replace(
        before,
        stamp=stamp,
        attribute_kinds=table.attribute_kinds,
        indexes=tuple(_new_index(index) for index in indexes),
        billing_mode=table.billing_mode,
        write_units=None if table.throughput is None else table.throughput.write_units,
        index_write_units={
            index.name: index.throughput.write_units
            for index in indexes
            if index.throughput is not None
        },
        unit_limits=table.unit_limits,
    )


def _new_index(index: GlobalIndex | LocalIndex) -> NewIndex:
    if isinstance(index, LocalIndex):
        return NewIndex(index.name, index.key, index.projection)
    return NewIndex(
        index.name, index.key, index.projection, None, index.unit_limits, index.warm_units
    )


def new_table_of(group: Group, region: str) -> NewTable:
    """The table that a region makes when it is invited."""
    shared, overrides = group.shared, group.members[region].overrides
    throughput = None
    if shared.write_units is not None:
        read_units = overrides.read_units or READ_UNITS_DEFAULT
        throughput = Throughput(read_units, shared.write_units)
    return NewTable(
        namespace=group.namespace,
        name=group.table,
        key=group.key,
        attribute_kinds=shared.attribute_kinds,
        local_indexes=group.local_indexes,
        global_indexes=tuple(_with_units(index, group, region) for index in shared.indexes),
        billing_mode=shared.billing_mode,
        throughput=throughput,
        unit_limits=shared.unit_limits,
        table_class=overrides.table_class or "STANDARD",
        partition_count=group.partitions,
        stream_view=GROUP_STREAM_VIEW,
        group_id=group.group_id,
    )


def _with_units(index: NewIndex, group: Group, region: str) -> NewIndex:
    write_units = group.shared.index_write_units.get(index.name)
    if write_units is None:
        return msgspec.structs.replace(index, throughput=None)
    read_units = group.members[region].overrides.index_read_units.get(
        index.name, READ_UNITS_DEFAULT
    )
    return msgspec.structs.replace(index, throughput=Throughput(read_units, write_units))


def next_change(table: Table, group: Group, region: str) -> TableChange | None:
    """The next step that brings ``table``, which is ACTIVE, to what the group says; None: it is."""
    shared = group.shared
    wanted = {index.name for index in shared.indexes}
    for index in table.global_indexes:
        if index.name not in wanted:
            kinds = {
                name: kind
                for name, kind in table.attribute_kinds.items()
                if name in shared.attribute_kinds or name in table.key.names()
            }
            edited = msgspec.structs.replace(table, attribute_kinds=kinds)
            return TableChange(edited, delete_index=index.name)
    for new in shared.indexes:
        if table.global_index(new.name) is None:
            kinds = {**table.attribute_kinds, **shared.attribute_kinds}
            edited = msgspec.structs.replace(table, attribute_kinds=kinds)
            return TableChange(edited, create_index=_with_units(new, group, region))
    overrides = group.members[region].overrides
    throughput = None
    if shared.write_units is not None:
        read_units = overrides.read_units
        if read_units is None:
            known = table.throughput
            read_units = READ_UNITS_DEFAULT if known is None else known.read_units
        throughput = msgspec.structs.replace(
            table.throughput or Throughput(read_units, shared.write_units),
            read_units=read_units,
            write_units=shared.write_units,
        )
    edited = msgspec.structs.replace(
        table,
        billing_mode=shared.billing_mode,
        throughput=throughput,
        unit_limits=shared.unit_limits,
        table_class=overrides.table_class or table.table_class,
        global_indexes=tuple(
            msgspec.structs.replace(
                index, throughput=_with_units(_new_index(index), group, region).throughput
            )
            for index in table.global_indexes
        ),
    )
    return None if edited == table else TableChange(edited)
