"""What the Python API says of keys and indexes, as DynamoDB's requests say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

import msgspec

from .errors import InvalidRequest
from .model.python_values import from_item, to_attribute

Plain: TypeAlias = dict[str, Any]
KeyPart: TypeAlias = str | tuple[str, type]

_KINDS: dict[type, str] = {str: "S", int: "N", float: "N", Decimal: "N", bytes: "B"}


class Index(msgspec.Struct, frozen=True):
    """A secondary index to be made with a table or on one.

    Keys are attribute names (strings) or ``(name, type)`` pairs with type ``str``, ``int`` or
    ``bytes``; a sequence of them makes a multi-attribute key of up to four. Without
    ``partition_key`` the index is local: it shares the table's partition key, is read in step with
    the table, and can be made only together with it. ``projection`` is ``"ALL"``,
    ``"KEYS_ONLY"`` or the names of the attributes to hold besides the keys.
    """

    name: str
    partition_key: KeyPart | list[KeyPart] | None = None
    sort_key: KeyPart | list[KeyPart] | None = None
    projection: str | Sequence[str] = "ALL"


def _parts(part: KeyPart | list[KeyPart] | None) -> list[tuple[str, type]]:
    if part is None:
        return []
    parts = part if isinstance(part, list) else [part]
    return [(entry, str) if isinstance(entry, str) else entry for entry in parts]


def key_schema(
    kinds: dict[str, str],
    partition_key: KeyPart | list[KeyPart],
    sort_key: KeyPart | list[KeyPart] | None,
) -> list[Plain]:
    """KeySchema; the kinds of its attributes are added to ``kinds``. Raises InvalidRequest."""
    schema = []
    for role, parts in (("HASH", _parts(partition_key)), ("RANGE", _parts(sort_key))):
        for name, kind in parts:
            if kind not in _KINDS:
                raise InvalidRequest(f"{name}: a key is str, int, float, Decimal or bytes")
            kinds[name] = _KINDS[kind]
            schema.append({"AttributeName": name, "KeyType": role})
    return schema


def index_request(kinds: dict[str, str], index: Index, leading: KeyPart | list[KeyPart]) -> Plain:
    """A secondary index with the partition key ``leading``. Raises InvalidRequest."""
    projection: Plain
    if index.projection in ("ALL", "KEYS_ONLY"):
        projection = {"ProjectionType": index.projection}
    else:
        attributes = index.projection
        if isinstance(attributes, str):
            raise InvalidRequest(f"{index.name}: a projection is ALL, KEYS_ONLY or a list of names")
        projection = {"ProjectionType": "INCLUDE", "NonKeyAttributes": list(attributes)}
    return {
        "IndexName": index.name,
        "KeySchema": key_schema(kinds, leading, index.sort_key),
        "Projection": projection,
    }


def definitions(kinds: dict[str, str]) -> list[Plain]:
    """AttributeDefinitions."""
    return [{"AttributeName": name, "AttributeType": kind} for name, kind in kinds.items()]


def expressions_of(
    index: str | None = None,
    filter: str | None = None,
    projection: str | None = None,
    *,
    condition: str | None = None,
    names: Mapping[str, str] | None = None,
    values: Mapping[str, Any] | None = None,
) -> Plain:
    """The members of a request for whatever is given."""
    request: Plain = {}
    if index is not None:
        request["IndexName"] = index
    if filter is not None:
        request["FilterExpression"] = filter
    if projection is not None:
        request["ProjectionExpression"] = projection
    if condition is not None:
        request["ConditionExpression"] = condition
        request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    if names is not None:
        request["ExpressionAttributeNames"] = dict(names)
    if values is not None:
        request["ExpressionAttributeValues"] = {
            name: to_attribute(value, name) for name, value in values.items()
        }
    return request


def attributes_of(answer: Plain) -> Plain | None:
    """The item that an answer shows, if it shows one."""
    attributes = answer.get("Attributes")
    return None if attributes is None else from_item(attributes)
