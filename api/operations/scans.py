"""Scan: every item of a table, or every entry of an index, in the order of their hashes.

A parallel Scan's segment is an interval of the hash space, so segments never overlap and stay what
they are while the table changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import InvalidRequest
from ...expressions import Compiled, check_not_mixed, legacy_filter, legacy_projection
from ...model.keys import hash_prefix
from ...model.schema import HASH_SPACE_END, Table
from ..calls import Caller
from ..requests import ScanRequest
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
    START_MISMATCH,
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

_read = reader("Scan", ScanRequest)


async def scan(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """Scan a table or an index, or one segment of it."""
    request = _read(body)
    compiled = _compile(request)
    ref = find_table(tables, caller, request.table_name)
    plan = _plan(request, ref.table, compiled)
    return await serve_page(
        tables, caller, ref, plan, request.table_name, request.return_consumed_capacity
    )


def _plan(request: ScanRequest, table: Table, compiled: Compiled) -> Plan:
    """What to read. Everything that DynamoDB checks once it knows the table."""
    values = request.expression_attribute_values or {}
    index = find_index(table, request.index_name, bool(request.consistent_read))
    start = request.exclusive_start_key
    if start is not None:
        message = START_MISMATCH if index is None else START_INVALID
        check_start_key_count(table, index, start, message)
        if index is not None:
            check_start_key(index.key.attributes(), start)
    low, high = _segment(request)
    plan = Plan(
        table,
        index,
        low,
        high,
        limit=request.limit,
        consistent=bool(request.consistent_read),
        counting=request.select == "COUNT",
    )
    read_attributes(plan, request.select, compiled.projection)
    if start is not None:
        check_start_table_key(table, index, start)
        key = start_key(table, index, start)
        if not low <= key < high:
            raise InvalidRequest(
                f"{START_INVALID}: Invalid ExclusiveStartKey. Please use ExclusiveStartKey with "
                f"correct Segment. TotalSegments: {request.total_segments} "
                f"Segment: {request.segment}"
            )
        plan.go_on_behind(key)
    check_scalar(table, compiled.projection)
    keep = compiled.filter
    if keep is not None:
        check_scalar(table, keep)
        plan.keep = lambda item: keep.matches(item, values)
    return plan


def _compile(request: ScanRequest) -> Compiled:
    """The request's expressions, legacy ones included.

    Everything that DynamoDB checks before it looks for the table.
    """
    legacy_keep = legacy_shape = None
    has_legacy = (
        request.attributes_to_get is not None
        or request.scan_filter is not None
        or request.conditional_operator is not None
    )
    if has_legacy:
        check_not_mixed(
            {
                "ProjectionExpression": request.projection_expression,
                "FilterExpression": request.filter_expression,
            },
            {
                "AttributesToGet": request.attributes_to_get,
                "ScanFilter": request.scan_filter,
                "ConditionalOperator": request.conditional_operator,
            },
        )
    refuse_idle_placeholders(
        request.expression_attribute_names,
        request.expression_attribute_values,
        {"FilterExpression": request.filter_expression},
        request.projection_expression,
    )
    if has_legacy:
        if request.attributes_to_get is not None:
            legacy_shape = legacy_projection(request.attributes_to_get)
        legacy_keep = legacy_filter(plain(request.scan_filter), request.conditional_operator)
    if request.exclusive_start_key is not None:
        check_start_values(request.exclusive_start_key)
    _check_segment(request)
    compiled = compile_request(
        names=request.expression_attribute_names,
        values=request.expression_attribute_values,
        value_expressions=("FilterExpression",),
        filter_=request.filter_expression,
        projection=request.projection_expression,
    )
    check_select(request, "")
    if legacy_keep is None and legacy_shape is None:
        return compiled
    return Compiled(filter=legacy_keep, projection=legacy_shape)


def _check_segment(request: ScanRequest) -> None:
    segment, total = request.segment, request.total_segments
    if segment is not None and total is None:
        raise InvalidRequest(
            "The TotalSegments parameter is required but was not present in the request when "
            "Segment parameter is present"
        )
    if total is None:
        return
    if segment is None:
        raise InvalidRequest(
            "The Segment parameter is required but was not present in the request when parameter "
            "TotalSegments is present"
        )
    if segment >= total:
        raise InvalidRequest(
            "The Segment parameter is zero-based and must be less than parameter TotalSegments: "
            f"Segment: {segment} is not less than TotalSegments: {total}"
        )


def _segment(request: ScanRequest) -> tuple[bytes, bytes]:
    """The interval of tree keys of the request's segment; of everything without one."""
    total = request.total_segments or 1
    segment = request.segment or 0
    return (
        hash_prefix(HASH_SPACE_END * segment // total),
        hash_prefix(HASH_SPACE_END * (segment + 1) // total),
    )
