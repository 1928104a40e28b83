"""Query: one partition key's items, or index entries, in the order of their sort key.

The key condition becomes one interval of tree keys; ``pages`` reads it. The order of checks is
DynamoDB's, as recorded from it by the conformance suite and by dynalite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import InvalidRequest
from ...expressions import (
    Compiled,
    Condition,
    KeyRange,
    Projection,
    check_filter_keys,
    check_not_mixed,
    legacy_filter,
    legacy_key_conditions,
    legacy_projection,
)
from ...model.keys import encode_component, partition_hash, range_bounds, successor
from ...model.schema import GlobalIndex, KeyAttribute, KeySchema, LocalIndex, Table
from ...model.values import AttributeValue, Item
from ..calls import Caller
from ..requests import QueryRequest
from .consumed import capacity_member
from .inputs import check_scalar, compile_request, find_table, plain, reader
from .pages import Plan, answer_page, page_consumption, read_page
from .selecting import (
    START_INVALID,
    check_filter_projected,
    check_select,
    check_start_key,
    check_start_key_count,
    check_start_table_key,
    check_start_values,
    find_index,
    read_attributes,
    start_key,
)

if TYPE_CHECKING:
    from ...actors.tables import Tables

_read = reader("Query", QueryRequest)

_OUTSIDE = (
    "The provided starting key is outside query boundaries based on provided conditions"
)
_NOT_MATCHING = "The provided starting key does not match the range key predicate"
_ONE_ROW = "The query can return at most one row and cannot be restarted"
_VALUE_EXPRESSIONS = ("FilterExpression", "KeyConditionExpression")
_EMPTY_WORDS = {"S": "string", "B": "binary"}


async def query(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """Query a table or an index."""
    request = _read(body)
    compiled, legacy_keep = _compile(request)
    values = request.expression_attribute_values or {}
    ref = find_table(tables, caller, request.table_name)
    table = ref.table
    index = find_index(table, request.index_name, bool(request.consistent_read))
    schema = table.key if index is None else index.key
    start = request.exclusive_start_key
    if start is not None:
        check_start_key_count(table, index, start, START_INVALID)
        check_start_key(schema, start)
    assert compiled.key_condition is not None, "checked by _compile"
    wanted = compiled.key_condition.resolve(
        [attribute.name for attribute in schema.hash],
        [attribute.name for attribute in schema.range],
        table.attribute_kinds,
        values,
    )
    _refuse_empty(schema, index, wanted)
    low, high = key_interval(schema, index, wanted)
    if start is not None:
        check_start_table_key(table, index, start)
        low, high = _restart(table, index, schema, wanted, start, low, high, request)
    keep, keep_name = compiled.filter, "Filter Expression"
    if legacy_keep is not None:
        keep, keep_name = legacy_keep, "QueryFilter"
    check_scalar(table, compiled.projection)
    if keep is not None:
        check_filter_keys(keep, schema.names(), keep_name)
    plan = Plan(
        table,
        index,
        low,
        high,
        reverse=request.scan_index_forward is False,
        limit=request.limit,
        consistent=bool(request.consistent_read),
        counting=request.select == "COUNT",
    )
    read_attributes(plan, request.select, compiled.projection)
    if keep is not None:
        check_scalar(table, keep)
        if index is not None:
            check_filter_projected(table, index, keep)
        plan.keep = lambda item: keep.matches(item, values)
    page = await read_page(tables, ref, plan)
    mode = request.return_consumed_capacity
    capacity = None
    if mode is not None and mode != "NONE":
        capacity = capacity_member(page_consumption(plan, page), request.table_name, mode)
    return answer_page(plan, page, capacity)


def _compile(request: QueryRequest) -> tuple[Compiled, Condition | None]:
    """The request's expressions, legacy ones included; the legacy filter for itself.

    Everything that DynamoDB checks before it looks for the table.
    """
    legacy_keep: Condition | None = None
    legacy_shape: Projection | None = None
    has_legacy = (
        request.attributes_to_get is not None
        or request.query_filter is not None
        or request.conditional_operator is not None
        or request.key_conditions is not None
    )
    if has_legacy:
        check_not_mixed(
            {
                "ProjectionExpression": request.projection_expression,
                "FilterExpression": request.filter_expression,
                "KeyConditionExpression": request.key_condition_expression,
            },
            {
                "AttributesToGet": request.attributes_to_get,
                "QueryFilter": request.query_filter,
                "ConditionalOperator": request.conditional_operator,
                "KeyConditions": request.key_conditions,
            },
        )
        legacy_keep = legacy_filter(plain(request.query_filter), request.conditional_operator)
        if request.attributes_to_get is not None:
            legacy_shape = legacy_projection(request.attributes_to_get)
    if request.exclusive_start_key is not None:
        check_start_values(request.exclusive_start_key)
    if request.key_conditions is None and request.key_condition_expression is None:
        raise InvalidRequest(
            "Either the KeyConditions or KeyConditionExpression parameter must be specified in "
            "the request."
        )
    compiled = compile_request(
        names=request.expression_attribute_names,
        values=request.expression_attribute_values,
        value_expressions=_VALUE_EXPRESSIONS,
        key_condition=request.key_condition_expression,
        filter_=request.filter_expression,
        projection=request.projection_expression,
    )
    if has_legacy:
        condition = compiled.key_condition
        if request.key_conditions is not None:
            condition = legacy_key_conditions(plain(request.key_conditions))
        compiled = Compiled(
            filter=compiled.filter,
            projection=compiled.projection if legacy_shape is None else legacy_shape,
            key_condition=condition,
        )
    check_select(request, "1 validation error detected: ")
    return compiled, legacy_keep


def _refuse_empty(
    schema: KeySchema, index: LocalIndex | GlobalIndex | None, wanted: KeyRange
) -> None:
    """No key attribute is ever empty, and DynamoDB refuses to look for one that is."""
    equal = zip(schema.range, wanted.range_equal, strict=False)
    pairs = [*zip(schema.hash, wanted.hash_values, strict=True), *equal]
    if wanted.operator is not None:
        limited = schema.range[len(wanted.range_equal)]
        pairs += [(limited, operand) for operand in wanted.operands]
    for attribute, value in pairs:
        if value[attribute.kind]:
            continue
        empty = (
            "The AttributeValue for a key attribute cannot contain an empty "
            f"{_EMPTY_WORDS[attribute.kind]} value."
        )
        if index is None:
            raise InvalidRequest(
                f"One or more parameter values are not valid. {empty} Key: {attribute.name}"
            )
        raise InvalidRequest(
            "One or more parameter values are not valid. A value specified for a secondary index "
            f"key is not supported. {empty} IndexName: {index.name}, IndexKey: {attribute.name}"
        )


def key_interval(
    schema: KeySchema, index: LocalIndex | GlobalIndex | None, wanted: KeyRange
) -> tuple[bytes, bytes]:
    """The interval ``[low, high)`` of tree keys that a key condition asks for."""
    hashed = b"".join(_components(schema.hash, wanted.hash_values))
    prefix = partition_hash(hashed) + hashed
    equal = len(wanted.range_equal)
    prefix += b"".join(_components(schema.range[:equal], wanted.range_equal))
    kind = schema.range[equal].kind if wanted.operator is not None else "S"
    return range_bounds(prefix, kind, wanted.operator, wanted.operands)


def _components(
    attributes: tuple[KeyAttribute, ...], values: tuple[AttributeValue, ...]
) -> list[bytes]:
    return [
        encode_component(attribute.kind, value)
        for attribute, value in zip(attributes, values, strict=True)
    ]


def _restart(
    table: Table,
    index: LocalIndex | GlobalIndex | None,
    schema: KeySchema,
    wanted: KeyRange,
    start: Item,
    low: bytes,
    high: bytes,
    request: QueryRequest,
) -> tuple[bytes, bytes]:
    """The part of the interval behind ``start``, which must lie within what is asked for.

    The three complaints are DynamoDB's: which of them it makes depends on which half of the key is
    outside, not on which half is wrong.
    """
    same_hash = all(
        start[attribute.name] == value
        for attribute, value in zip(schema.hash, wanted.hash_values, strict=True)
    )
    if wanted.operator is None and not wanted.range_equal:
        if not same_hash:
            raise InvalidRequest(_OUTSIDE)
    else:
        # Judged by the range attributes alone: the start's own hash put in place of the wanted one.
        own_hash = tuple([start[attribute.name] for attribute in schema.hash])
        moved = KeyRange(own_hash, wanted.range_equal, wanted.operator, wanted.operands)
        own_low, own_high = key_interval(schema, index, moved)
        if not own_low <= start_key(table, index, start) < own_high:
            raise InvalidRequest(_NOT_MATCHING)
        if not same_hash:
            raise InvalidRequest(_ONE_ROW)
    key = start_key(table, index, start)
    if request.scan_index_forward is False:
        return low, min(key, high)
    return max(low, successor(key)), high
