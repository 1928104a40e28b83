"""The first stage of every request: is it JSON of the right shape, within the modelled constraints?

DynamoDB does this in three steps, and the first that finds something answers:

1. the body is decoded and every member checked against its JSON type, in the body's order: one
   SerializationException (``MalformedRequest`` here; ``json_types``);
2. the table's name alone: a ValidationException about nothing else (``InvalidRequest``);
3. every other constraint, all violations in one ValidationException, at most ten
   (``constraints``).

What the members mean together is the operations' business and comes after. The item operations
decode by typed structures and come here only when that fails, or when they refuse a request, since
what is found here comes first: ``read`` either raises the exact complaint or returns the request in
plain form, since a few oddities are accepted (nulls count as absent, ``"true"`` as a boolean).
Members that the service does not model are refused, where AWS skips them: what a client asks for is
never ignored. Tables are rarely created, so their operations always come through ``read``.

Pure functions over decoded JSON, which is changed in place. Wording: the conformance suite's
recordings of AWS, and dynalite's for what they do not reach.
"""

from __future__ import annotations

from typing import Any

from ..errors import InvalidRequest
from .constraints import TABLE_ARN, Violations
from .json_types import decode, decode_uncollected, read_structure
from .shape_kinds import PLAIN_TABLE_NAME
from .shapes import OPERATIONS

# The control plane says this of a missing table's name; the item operations use the constraint.
_NAME_REQUIRED = "The parameter 'TableName' is required but was not present in the request"
_CONTROL_PLANE = frozenset({"CreateTable", "UpdateTable", "DeleteTable", "DescribeTable"})
_TAGGING = frozenset({"TagResource", "UntagResource", "ListTagsOfResource"})


def read(operation: str, body: bytes) -> dict[str, Any]:
    """The request in ``body``, checked: only modelled members, no nulls, constraints met.

    Attribute values are of the right JSON types and otherwise as they came: ``model.values``
    judges and normalises them.

    Raises:
        MalformedRequest: not UTF-8, not JSON, not an object, or a member of the wrong type.
        InvalidRequest: a constraint is violated; the message is DynamoDB's.
    """
    def checked(body: bytes) -> dict[str, Any]:
        request = decode(body)
        check(operation, request)
        return request

    return decode_uncollected(checked, body)


def check(operation: str, request: dict[str, Any]) -> None:
    """Check decoded JSON against ``operation``'s shape; drop nulls from it.

    Raises:
        MalformedRequest: a member has the wrong JSON type.
        InvalidRequest: a constraint is violated; the message is DynamoDB's.
    """
    shape = OPERATIONS[operation]
    read_structure(shape, request)
    _check_table_name(operation, request)
    if operation in _TAGGING and request.get("ResourceArn") is None:
        raise InvalidRequest("Invalid TableArn")
    violations = Violations()
    violations.check_members(shape, request, "", "")
    violations.finish()
    if request.get("RequestItems") == {}:
        raise InvalidRequest(f"The requestItems parameter is required for {operation}")


def table_name_of(value: str) -> str:
    """The table's name in ``value``, which is a name or a table's ARN.

    Account and region in an ARN are not compared with the node's: a node is one account's and one
    region's whole world. A text that is neither is returned as it is, and names no table.
    """
    if value.startswith("arn:"):
        found = TABLE_ARN.fullmatch(value)
        if found is not None:
            return found["table"]
    return value


def _check_table_name(operation: str, request: dict[str, Any]) -> None:
    """A bad table name is told before and without everything else."""
    shape = OPERATIONS[operation].members.get("TableName")
    if shape is None:
        return
    name = request.get("TableName")
    if name is None:
        if operation in _CONTROL_PLANE:
            raise InvalidRequest(_NAME_REQUIRED)
        return  # Listed with the other missing members.
    violations = Violations()
    violations.check(shape, name, "tableName", "TableName")
    if not violations.found and TABLE_ARN.fullmatch(name) is None:
        violations.check(PLAIN_TABLE_NAME, name, "tableName", "TableName")
    violations.finish()
