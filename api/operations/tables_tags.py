"""TagResource, UntagResource and ListTagsOfResource: a table's tags, by the table's ARN.

Tags are part of the table's row, so a change of them is a change of the table. The wording of a
bad ARN is DynamoDB's, mistakes included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import InvalidRequest, ResourceNotFound
from ...model.schema import Table, TableChange
from ..constraints import TABLE_ARN
from ..errors import AccessDeniedException
from ..validation import read, table_name_of
from .tables_settings import refuse_too_many_tags, require_active, tags

if TYPE_CHECKING:
    from ...actors.tables import TableRef, Tables
    from ..calls import Caller

_encode = msgspec.json.Encoder().encode


async def tag_resource(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """Add tags, replacing those of the same keys. The answer is empty, as DynamoDB's."""
    request = read("TagResource", body)
    arn = _table_arn(request)
    if not request["Tags"]:
        raise InvalidRequest("Atleast one Tag needs to be provided as Input.")
    added = tags(request["Tags"])
    table = _find(tables, caller, arn, "TagResource").table
    wanted = {**table.tags, **added}
    refuse_too_many_tags(wanted)
    await _set_tags(tables, table, wanted)
    return b""


async def untag_resource(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """Remove tags by their keys; a key that is not there is no error. The answer is empty."""
    request = read("UntagResource", body)
    arn = _table_arn(request)
    if not request["TagKeys"]:
        raise InvalidRequest("Atleast one Tag Key needs to be provided as Input.")
    removed = frozenset(request["TagKeys"])
    table = _find(tables, caller, arn, "UntagResource").table
    wanted = {key: value for key, value in table.tags.items() if key not in removed}
    await _set_tags(tables, table, wanted)
    return b""


async def list_tags_of_resource(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """All tags, in one page: there are never more than fifty."""
    request = read("ListTagsOfResource", body)
    arn = _table_arn(request)
    if "NextToken" in request:
        raise InvalidRequest("Invalid NextToken")  # None is ever given out.
    table = _find(tables, caller, arn, "ListTagsOfResource").table
    return _encode({"Tags": [{"Key": key, "Value": table.tags[key]} for key in table.tags]})


async def _set_tags(tables: Tables, table: Table, wanted: dict[str, str]) -> None:
    require_active(table)
    if wanted != table.tags:
        await tables.change(TableChange(msgspec.structs.replace(table, tags=wanted)))


def _table_arn(request: dict[str, Any]) -> str:
    arn: str = request["ResourceArn"]
    if TABLE_ARN.fullmatch(arn) is None:
        raise InvalidRequest(f"Invalid TableArn: Invalid ResourceArn provided as input {arn}")
    return arn


def _find(tables: Tables, caller: Caller, arn: str, operation: str) -> TableRef:
    ref = tables.find(caller.namespace, table_name_of(arn))
    if ref is not None:
        return ref
    found = TABLE_ARN.fullmatch(arn)
    assert found is not None
    if (found["region"], found["account"]) != (tables.region, tables.account):
        # Another account's table: DynamoDB does not tell whether it exists.
        raise AccessDeniedException(
            f"User: arn:aws:iam::{tables.account}:user/{caller.access_key} is not authorized to "
            f"perform: dynamodb:{operation} on resource: {arn}"
        )
    raise ResourceNotFound(f"Requested resource not found: ResourcArn: {arn} not found")
