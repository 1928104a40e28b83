"""The table operations: CreateTable, UpdateTable, DeleteTable, DescribeTable, ListTables, tags.

Each reads its request through ``validation``, has the rules of its sibling module make of it what
the node understands, and renders the answer. Nothing is changed before everything that can be
refused has been refused. Between looking a table up and asking for its change nothing is awaited,
so a change is always made to the table that the rules have seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import InvalidRequest, ResourceNotFound
from ...limits import LIST_TABLES_MAX
from ...model.schema import Status, Table
from ..validation import read, table_name_of
from .replicas import delete_replica, update_replicas
from .replicas_description import describe_global
from .replicas_group import check_change, group_of, table_status
from .tables_changes import change, check_request
from .tables_creation import new_table
from .tables_description import describe
from .tables_settings import require_active

if TYPE_CHECKING:
    from ...actors.tables import TableRef, Tables
    from ..calls import Caller

_encode = msgspec.json.Encoder().encode


async def create_table(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """Begin to make a table. Raises ResourceInUse if there is one of that name."""
    request = read("CreateTable", body)
    table = await tables.create(new_table(request, caller.namespace))
    return _encode({"TableDescription": _description(tables, table)})


async def update_table(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """Begin to change a table; it must be ACTIVE."""
    request = read("UpdateTable", body)
    check_request(request)
    table = _find(tables, caller, request).table
    if "ReplicaUpdates" in request:
        changed = await update_replicas(tables, table, request)
    else:
        check_change(tables, table, request)
        require_active(table)
        changed = await tables.change(change(request, table, tables.now_ms()))
    return _encode({"TableDescription": _description(tables, changed)})


async def delete_table(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """Begin to remove a table, unless it is protected. Once begun, asking again is no error.

    A table with replicas in other regions is removed from this one alone.
    """
    table = _find(tables, caller, read("DeleteTable", body)).table
    if table.deletion_protection:
        raise InvalidRequest(
            "Resource cannot be deleted as it is currently protected against deletion. "
            "Disable deletion protection first."
        )
    group = group_of(tables, table)
    if table.status is Status.DELETING:
        pass
    elif group is not None and group.others(tables.region):
        table = await delete_replica(tables, table, group)
    else:
        require_active(table)
        table = await tables.delete(table.namespace, table.name)
    return _encode({"TableDescription": _description(tables, table)})


async def describe_table(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """The table as it is at this moment."""
    ref = _find(tables, caller, read("DescribeTable", body))
    return _encode({"Table": _description(tables, ref.table)})


async def list_tables(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """A page of table names, in the order of their bytes."""
    request = read("ListTables", body)
    names = tables.names(caller.namespace)
    start = request.get("ExclusiveStartTableName")
    if start is not None:
        # Table names are ASCII, so comparing texts compares their bytes.
        names = [name for name in names if name > start]
    limit = request.get("Limit", LIST_TABLES_MAX)
    answer: dict[str, Any] = {"TableNames": names[:limit]}
    if len(names) > limit:
        answer["LastEvaluatedTableName"] = names[limit - 1]
    return _encode(answer)


def _find(tables: Tables, caller: Caller, request: dict[str, Any]) -> TableRef:
    name = table_name_of(request["TableName"])
    ref = tables.find(caller.namespace, name)
    if ref is None:
        raise ResourceNotFound(f"Requested resource not found: Table: {name} not found")
    return ref


def _description(tables: Tables, table: Table) -> dict[str, Any]:
    # A table that is gone by now (deleting takes no time when it is empty) counts as empty.
    ref = tables.find(table.namespace, table.name)
    group = group_of(tables, table)
    table = msgspec.structs.replace(table, status=table_status(table, group, tables.region))
    return describe(
        table,
        None if ref is None else ref.statistics(),
        region=tables.region,
        account=tables.account,
        now_ms=tables.now_ms(),
    ) | describe_global(table, group, tables.region)
