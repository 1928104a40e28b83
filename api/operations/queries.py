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
from ...model.keys import encode_component, partition_hash, range_bounds
from ...model.schema import GlobalIndex, KeyAttribute, KeySchema, LocalIndex, Table
from ...model.values import AttributeValue, Item
from ..calls import Caller
from ..requests import QueryRequest
from .inputs import (
    check_scalar,
    compile_request,
    find_table,
    plain,
    reader,
    refuse_idle_placeholders,
)
from .pages import Plan, serve_page
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
    ref = find_table(tables, caller, request.table_name)
    plan = _plan(request, ref.table, compiled, legacy_keep)
    return await serve_page(
        tables, caller, ref, plan, request.table_name, request.return_consumed_capacity
    )


def _plan(
    request: QueryRequest, table: Table, compiled: Compiled, legacy_keep: Condition | None
) -> Plan:
    """What to read. Everything that DynamoDB checks once it knows the table."""
    values = request.expression_attribute_values or {}
    index = find_index(table, request.index_name, bool(request.consistent_read))
    schema = table.key if index is None else index.key
    start = request.exclusive_start_key
    if start is not None:
        check_start_key_count(table, index, start, START_INVALID)
        check_start_key(schema.hash, start)
    assert compiled.key_condition is not None, "checked by _compile"
    wanted = compiled.key_condition.resolve(
        [attribute.name for attribute in schema.hash],
        [attribute.name for attribute in schema.range],
        table.attribute_kinds,
        values,
    )
    _refuse_empty(schema, index, wanted)
    low, high = key_interval(schema, wanted)
    if start is not None:
        check_start_key(schema.range, start)
        check_start_table_key(table, index, start)
        _check_start_wanted(schema, wanted, start, start_key(table, index, start))
    check_scalar(table, compiled.projection)
    keep = compiled.filter if legacy_keep is None else legacy_keep
    if keep is not None:
        parameter = "Filter Expression" if legacy_keep is None else "QueryFilter"
        check_filter_keys(keep, schema.names(), parameter)
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
    if start is not None:
        plan.go_on_behind(start_key(table, index, start))
    read_attributes(plan, request.select, compiled.projection)
    if keep is not None:
        check_scalar(table, keep)
        if index is not None:
            check_filter_projected(table, index, keep)
        plan.keep = lambda item: keep.matches(item, values)
    return plan


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
    refuse_idle_placeholders(
        request.expression_attribute_names,
        request.expression_attribute_values,
        {
            "FilterExpression": request.filter_expression,
            "KeyConditionExpression": request.key_condition_expression,
        },
        request.projection_expression,
    )
    if has_legacy:
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


def key_interval(schema: KeySchema, wanted: KeyRange) -> tuple[bytes, bytes]:
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


def _check_start_wanted(
    schema: KeySchema, wanted: KeyRange, start: Item, start_at: bytes
) -> None:
    """Refuse to start outside of what the key condition asks for; ``start_at`` is the tree key.

    The three complaints are DynamoDB's: which of them it makes depends on whether there is a
    condition on a RANGE attribute and whether the start fulfils that.
    """
    own_hash = tuple([start[attribute.name] for attribute in schema.hash])
    has_range = wanted.operator is not None or wanted.range_equal
    if has_range:
        # The RANGE attributes are judged as if the start's own HASH attributes were asked for.
        own = KeyRange(own_hash, wanted.range_equal, wanted.operator, wanted.operands)
        low, high = key_interval(schema, own)
        if not low <= start_at < high:
            raise InvalidRequest(_NOT_MATCHING)
    if own_hash != wanted.hash_values:
        raise InvalidRequest(_ONE_ROW if has_range else _OUTSIDE)
