"""Operations of our own on conflicts between regions: what AWS's API has no call for.

``X-Amz-Target: Millstream_20261123.SetConflictPolicy`` and ``DescribeConflictPolicy``, signed and
answered like DynamoDB's. A policy is said as text: ``last_writer_wins``, ``attribute NAME`` or
``resolver``. Setting one runs no code that is not registered in the node's own program already, so
it takes no right besides those of UpdateTable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ...errors import InvalidRequest, MalformedRequest
from ..calls import Caller
from .inputs import find_table
from .replicas_group import require_regions
from .triggers import PREFIX

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ...actors.tables import Tables

_encode = msgspec.json.Encoder().encode


class _Request(msgspec.Struct, rename="pascal", forbid_unknown_fields=True):
    """What both take. Without ``conflicts_table`` nothing is kept of what is lost."""

    table_name: str | None = None
    policy: str | None = None
    conflicts_table: str | None = None


_decode = msgspec.json.Decoder(_Request).decode


async def set_conflict_policy(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """Set policy and conflicts table, both, in every region."""
    request = _read(body)
    if request.policy is None:
        raise InvalidRequest("Policy is missing: last_writer_wins, attribute NAME or resolver")
    name = _table_name(request)
    regions = require_regions(tables)
    table = find_table(tables, caller, name).table
    await regions.set_policy(table, request.policy, request.conflicts_table)
    return _described(tables, caller, name)


async def describe_conflict_policy(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """The policy, and what it has done in this region since the start."""
    request = _read(body)
    if request.policy is not None or request.conflicts_table is not None:
        raise InvalidRequest("DescribeConflictPolicy takes TableName and nothing else")
    return _described(tables, caller, _table_name(request))


CONFLICT_OPERATIONS: dict[str, Callable[[Tables, Caller, bytes], Awaitable[bytes]]] = {
    PREFIX + "DescribeConflictPolicy": describe_conflict_policy,
    PREFIX + "SetConflictPolicy": set_conflict_policy,
}


def _read(body: bytes) -> _Request:
    try:
        return _decode(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequest(f"The request cannot be read: {error}") from None


def _table_name(request: _Request) -> str:
    if request.table_name is None:
        raise InvalidRequest("TableName is missing")
    return request.table_name


def _described(tables: Tables, caller: Caller, name: str) -> bytes:
    regions = require_regions(tables)
    table = find_table(tables, caller, name).table
    status = regions.conflicts.status(table)
    if status is None:
        raise InvalidRequest(
            f"Table {table.name} is no global table: it has no conflicts between regions"
        )
    answer: dict[str, object] = {
        "TableName": status.table,
        "Policy": status.policy,
        "Region": regions.own,
        "HasResolver": status.has_resolver,
        "Conflicts": status.conflicts,
        "Changed": status.changed,
        "ResolverFailures": status.failures,
        "Unanswered": status.unanswered,
    }
    if status.conflicts_table is not None:
        answer["ConflictsTable"] = status.conflicts_table
        answer["Recorded"] = status.recorded
        answer["Trouble"] = status.trouble
    return _encode({"ConflictPolicy": answer})
