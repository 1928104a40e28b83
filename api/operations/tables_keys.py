"""Key schemas, attribute definitions and projections: from a request to the model, with the rules.

Used by CreateTable and by UpdateTable's new indexes. The input has passed ``validation``: members
have their types and lengths, key types are HASH or RANGE. Pure functions; every refusal is an
``InvalidRequest`` in DynamoDB's words and in DynamoDB's order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...errors import InvalidRequest
from ...limits import (
    INDEX_HASH_ATTRIBUTES_MAX,
    INDEX_RANGE_ATTRIBUTES_MAX,
    PROJECTED_ATTRIBUTES_MAX,
)
from ...model.schema import KeyAttribute, KeySchema, Projection

INVALID = "One or more parameter values were invalid: "


def attribute_kinds(definitions: list[dict[str, Any]]) -> dict[str, str]:
    """Attribute name -> ``S``, ``N`` or ``B``, in the order given; the last of a name counts."""
    return {each["AttributeName"]: each["AttributeType"] for each in definitions}


def refuse_repeated_definitions(definitions: list[dict[str, Any]]) -> None:
    """An attribute may be defined once only."""
    seen: set[str] = set()
    for definition in definitions:
        name = definition["AttributeName"]
        if name in seen:
            raise InvalidRequest(
                f"{INVALID}Duplicate attribute definition in AttributeDefinitions: {name}"
            )
        seen.add(name)


def table_key(elements: list[dict[str, Any]], kinds: dict[str, str], defined: int) -> KeySchema:
    """A table's key. ``defined`` is the number of AttributeDefinitions, repetitions included."""
    if len(elements) > defined:
        raise InvalidRequest("Invalid KeySchema: Some index key attribute have no definition")
    return plain_key(elements, kinds)


def plain_key(elements: list[dict[str, Any]], kinds: dict[str, str]) -> KeySchema:
    """A key of one HASH and at most one RANGE attribute: a table's or a local index's."""
    _refuse_undefined(elements, kinds)
    _refuse_repeated(elements)
    _refuse_range_first(elements)
    if len(elements) > 1 and elements[1]["KeyType"] != "RANGE":
        raise InvalidRequest(
            "Invalid KeySchema: The second KeySchemaElement is not a RANGE key type"
        )
    return _schema(elements, kinds)


def global_key(elements: list[dict[str, Any]], kinds: dict[str, str]) -> KeySchema:
    """A global index's key: up to four HASH attributes, then up to four RANGE attributes."""
    _refuse_undefined(elements, kinds)
    _refuse_repeated(elements)
    _refuse_range_first(elements)
    types = [each["KeyType"] for each in elements]
    if types != sorted(types):  # "HASH" sorts before "RANGE".
        raise InvalidRequest(
            "Invalid KeySchema: All HASH key type elements must come before the RANGE key type "
            "elements"
        )
    for key_type, most in (
        ("HASH", INDEX_HASH_ATTRIBUTES_MAX),
        ("RANGE", INDEX_RANGE_ATTRIBUTES_MAX),
    ):
        if types.count(key_type) > most:
            raise InvalidRequest(
                f"Invalid KeySchema: The number of {key_type} key type elements exceeds the "
                f"limit of {most}"
            )
    return _schema(elements, kinds)


def _refuse_undefined(elements: list[dict[str, Any]], kinds: dict[str, str]) -> None:
    names = [each["AttributeName"] for each in elements]
    if not all(name in kinds for name in names):
        raise InvalidRequest(
            f"{INVALID}Some index key attributes are not defined in AttributeDefinitions. "
            f"Keys: [{', '.join(names)}], AttributeDefinitions: [{', '.join(kinds)}]"
        )


def _refuse_repeated(elements: list[dict[str, Any]]) -> None:
    names = [each["AttributeName"] for each in elements]
    if len(set(names)) < len(names):
        raise InvalidRequest(
            "Both the Hash Key and the Range Key element in the KeySchema have the same name"
        )


def _refuse_range_first(elements: list[dict[str, Any]]) -> None:
    if elements[0]["KeyType"] != "HASH":
        raise InvalidRequest("Invalid KeySchema: The first KeySchemaElement is not a HASH key type")


def _schema(elements: list[dict[str, Any]], kinds: dict[str, str]) -> KeySchema:
    def of(key_type: str) -> tuple[KeyAttribute, ...]:
        return tuple(
            KeyAttribute(each["AttributeName"], kinds[each["AttributeName"]])
            for each in elements
            if each["KeyType"] == key_type
        )

    return KeySchema(of("HASH"), of("RANGE"))


def projection(member: dict[str, Any]) -> Projection:
    """What an index holds besides the keys."""
    kind = member.get("ProjectionType")
    attributes = member.get("NonKeyAttributes")
    if kind is None:
        raise InvalidRequest(f"{INVALID}Unknown ProjectionType: null")
    if attributes is not None and kind != "INCLUDE":
        raise InvalidRequest(
            f"{INVALID}ProjectionType is {kind}, but NonKeyAttributes is specified"
        )
    if attributes is None and kind == "INCLUDE":
        raise InvalidRequest(
            f"{INVALID}ProjectionType is {kind}, but NonKeyAttributes is not specified"
        )
    # A set in the order given: naming an attribute twice projects it once.
    return Projection(kind, tuple(dict.fromkeys(attributes or ())))


def refuse_too_many_projected(projections: Iterable[Projection]) -> None:
    """All indexes of a table together may include so many attributes."""
    count = sum(len(each.attributes) for each in projections)
    if count > PROJECTED_ATTRIBUTES_MAX:
        raise InvalidRequest(
            f"{INVALID}Number of NonKeyAttributes over all indexes of the table exceeds the "
            f"limit of {PROJECTED_ATTRIBUTES_MAX}: {count}"
        )
