"""PutItem, GetItem, UpdateItem and DeleteItem.

Each function reads in DynamoDB's order of checks: what the request alone decides, then the table,
then what needs the table. A GetItem of a whole item neither decodes nor encodes it; a PutItem
encodes it once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ...errors import ConditionFailed, InvalidRequest
from ...expressions import (
    Condition,
    Update,
    check_not_mixed,
    check_update_keys,
    legacy_condition,
    legacy_update,
)
from ...limits import ITEM_SIZE_BYTES_MAX
from ...model.capacity import Consumption, read_units
from ...model.values import Item, check_item, decode_item, encode_item
from ...storage.checks import ITEM_TOO_LARGE, UPDATE_TOO_LARGE, check_put_item
from ...storage.commands import Command, Delete, Put, Refused, UpdateItem, Written
from ...storage.rows import Row
from ..calls import Caller
from ..requests import (
    DeleteItemRequest,
    GetItemRequest,
    PutItemRequest,
    UpdateItemRequest,
    WriteRequest,
)
from .consumed import add_write, capacity_member, collection_metrics
from .inputs import (
    check_assigned_types,
    check_scalar,
    compile_request,
    find_table,
    item_key,
    plain,
    projection_of,
    reader,
    refuse_idle_placeholders,
    tree_key,
)
from .levels import Place, meet, meet_write

if TYPE_CHECKING:
    from ...actors.tables import TableRef, Tables

_read_get = reader("GetItem", GetItemRequest)
_read_put = reader("PutItem", PutItemRequest)
_read_update = reader("UpdateItem", UpdateItemRequest)
_read_delete = reader("DeleteItem", DeleteItemRequest)

_ONLY_OLD = "ReturnValues can only be ALL_OLD or NONE"
_NOTHING = b"{}"


# -- GetItem -------------------------------------------------------------------------------------


async def get_item(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """GetItem. ConsistentRead changes only the price: every read sees what is committed."""
    request = _read_get(body)
    if request.attributes_to_get is not None:
        check_not_mixed(
            {"ProjectionExpression": request.projection_expression},
            {"AttributesToGet": request.attributes_to_get},
        )
    refuse_idle_placeholders(
        request.expression_attribute_names, None, {}, request.projection_expression
    )
    check_item(request.key)
    projection = projection_of(request)
    ref = find_table(tables, caller, request.table_name)
    table = ref.table
    key = item_key(table, request.key)
    check_scalar(table, projection)
    if caller.reading is not None:
        await meet(tables, caller.reading, [Place(ref, key)])
    row = ref.get(key)
    parts = []
    if row is not None:
        found = row.body
        if projection is not None:
            found = encode_item(projection.project(decode_item(found)))
        parts.append(b'"Item":' + found)
    mode = request.return_consumed_capacity
    if mode is not None and mode != "NONE":
        consumption = Consumption()
        size_bytes = 0 if row is None else row.size_bytes
        consumption.add_table(read=read_units(size_bytes, bool(request.consistent_read)))
        parts.append(capacity_member(consumption, request.table_name, mode))
    return b"{" + b",".join(parts) + b"}"


# -- Writes --------------------------------------------------------------------------------------


async def put_item(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """PutItem: replace the whole item, if the condition holds."""
    request = _read_put(body)
    _check_parameters(request)
    item = request.item
    size_bytes = check_item(item)
    if request.return_values not in (None, "NONE", "ALL_OLD"):
        raise InvalidRequest(_ONLY_OLD)
    if size_bytes > ITEM_SIZE_BYTES_MAX:
        raise InvalidRequest(ITEM_TOO_LARGE)
    condition, _ = _compile(request)
    ref = find_table(tables, caller, request.table_name)
    table = ref.table
    check_put_item(table, item, size_bytes)
    check_scalar(table, condition)
    command = Put(
        tree_key(table, item),
        encode_item(item),
        size_bytes,
        condition,
        request.expression_attribute_values or {},
        hops=caller.hops,
    )
    # A write waits for its sync together with many others. What was decoded goes before: its memory
    # serves the next request while it is in the processor's cache (an eighth of a PutItem's price).
    key = item if request.return_item_collection_metrics == "SIZE" else {}
    request.item = item = {}
    return await _write(tables, caller, ref, request, command, key, None)


async def delete_item(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """DeleteItem: remove the item, if the condition holds; nothing to remove is success."""
    request = _read_delete(body)
    _check_parameters(request)
    check_item(request.key)
    if request.return_values not in (None, "NONE", "ALL_OLD"):
        raise InvalidRequest(_ONLY_OLD)
    condition, _ = _compile(request)
    ref = find_table(tables, caller, request.table_name)
    key = item_key(ref.table, request.key)
    check_scalar(ref.table, condition)
    values = request.expression_attribute_values or {}
    command = Delete(key, condition, values, hops=caller.hops)
    return await _write(tables, caller, ref, request, command, request.key, None)


async def update_item(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """UpdateItem: change the item, or make one from the key, if the condition holds."""
    request = _read_update(body)
    check_not_mixed(
        {
            "UpdateExpression": request.update_expression,
            "ConditionExpression": request.condition_expression,
        },
        {
            "AttributeUpdates": request.attribute_updates,
            "Expected": request.expected,
            "ConditionalOperator": request.conditional_operator,
        },
    )
    refuse_idle_placeholders(
        request.expression_attribute_names,
        request.expression_attribute_values,
        {
            "UpdateExpression": request.update_expression,
            "ConditionExpression": request.condition_expression,
        },
    )
    check_item(request.key)
    legacy = None
    if request.attribute_updates is not None:
        legacy = legacy_update(plain(request.attribute_updates))
    condition, update = _compile(request, request.update_expression, update_item=True)
    if legacy is not None:
        update = legacy
    values = request.expression_attribute_values or {}
    if update is not None and update.charge_bytes(values) > ITEM_SIZE_BYTES_MAX:
        raise InvalidRequest(UPDATE_TOO_LARGE)
    ref = find_table(tables, caller, request.table_name)
    table = ref.table
    key = item_key(table, request.key)
    if update is not None:
        check_update_keys(update, table.key.names())
        check_assigned_types(table, update, values)
        check_scalar(table, update)
    check_scalar(table, condition)
    command = UpdateItem(key, request.key, update, condition, values, hops=caller.hops)
    return await _write(tables, caller, ref, request, command, request.key, update)


def _check_parameters(request: WriteRequest) -> None:
    """Which parameters of a put or a delete go together."""
    if request.expected is not None or request.conditional_operator is not None:
        check_not_mixed(
            {"ConditionExpression": request.condition_expression},
            {"Expected": request.expected, "ConditionalOperator": request.conditional_operator},
        )
    refuse_idle_placeholders(
        request.expression_attribute_names,
        request.expression_attribute_values,
        {"ConditionExpression": request.condition_expression},
    )


def _compile(
    request: WriteRequest, update_text: str | None = None, *, update_item: bool = False
) -> tuple[Condition | None, Update | None]:
    """The condition and the update of a write, from expressions or from Expected."""
    names, values = request.expression_attribute_names, request.expression_attribute_values
    condition_text = request.condition_expression
    if condition_text is None and update_text is None and names is None and values is None:
        if request.expected is None and request.conditional_operator is None:
            return None, None
        return legacy_condition(plain(request.expected), request.conditional_operator), None
    able = ("UpdateExpression", "ConditionExpression") if update_item else ("ConditionExpression",)
    compiled = compile_request(
        names=names,
        values=values,
        value_expressions=able,
        condition=condition_text,
        update=update_text,
    )
    return compiled.condition, compiled.update


async def _write(
    tables: Tables,
    caller: Caller,
    ref: TableRef,
    request: WriteRequest,
    command: Command,
    key: Item,
    update: Update | None,
) -> bytes:
    """Have ``command`` done and answer.

    ``key`` holds at least the item's key attributes, where collection metrics are asked for.
    """
    if caller.reading is not None:
        reads = (
            isinstance(command, UpdateItem)
            or command.condition is not None
            or request.return_values == "ALL_OLD"
        )
        await meet_write(tables, caller.reading, [Place(ref, command.key)], reads=reads)
    result = await ref.write(command)
    if isinstance(result, Refused):
        found = result.found
        wanted = request.return_values_on_condition_check_failure == "ALL_OLD"
        raise ConditionFailed(found.body if wanted and found is not None else None)
    parts = []
    if request.return_values is not None:
        attributes = _returned(request.return_values, result, update)
        if attributes is not None:
            parts.append(b'"Attributes":' + attributes)
    mode = request.return_consumed_capacity
    if mode is not None and mode != "NONE":
        consumption = Consumption()
        add_write(consumption, ref.table, result)
        parts.append(capacity_member(consumption, request.table_name, mode))
    if request.return_item_collection_metrics == "SIZE":
        metrics = await collection_metrics(tables, ref, key)
        if metrics is not None:
            parts.append(b'"ItemCollectionMetrics":' + msgspec.json.encode(metrics))
    if not parts:
        return _NOTHING
    return b"{" + b",".join(parts) + b"}"


def _returned(kind: str, result: Written, update: Update | None) -> bytes | None:
    """The Attributes that ReturnValues asks for; None when there is nothing to tell."""
    match kind:
        case "ALL_OLD":
            return _body(result.old)
        case "ALL_NEW":
            return _body(result.new)
        case "UPDATED_OLD" if update is not None and result.old is not None:
            attributes = update.updated_old(decode_item(result.old.body))
        case "UPDATED_NEW" if update is not None and result.new is not None:
            attributes = update.updated_new(decode_item(result.new.body))
        case _:
            return None
    return encode_item(attributes) if attributes else None


def _body(row: Row | None) -> bytes | None:
    return None if row is None else row.body
