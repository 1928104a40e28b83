"""The first step of reading a request: JSON of the types that the operation's shape states.

``decode`` makes an object of a body; ``read_structure`` checks and prunes it in place, in the
body's order, and the first member of a wrong type is DynamoDB's SerializationException
(``MalformedRequest`` here). The words differ between members and elements of collections, and
follow the Java types behind DynamoDB's parser; they are dynalite's recordings of AWS.

Pure functions. Recursion is as deep as a shape, and bounded inside attribute values.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from ..errors import InvalidRequest, MalformedRequest
from ..limits import COLLECTED_BODY_BYTES_MAX, REQUEST_NESTING_MAX
from .shape_kinds import (
    INTEGER_MAX,
    LONG_MAX,
    VALUE,
    VALUE_MEMBERS,
    AttributeValue,
    Blob,
    Boolean,
    Double,
    List,
    Map,
    Moment,
    Shape,
    String,
    Structure,
    Whole,
)

_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_TRUE = frozenset({"TRUE", "1", "YES"})
_FALSE = frozenset({"FALSE", "0", "NO"})
_TEXT_TAGS = frozenset("SN")

Decoded = TypeVar("Decoded")


def decode_uncollected(decode: Callable[[bytes], Decoded], body: bytes) -> Decoded:
    """``decode(body)``, with the garbage collector at rest while a large body becomes objects.

    Half a million empty lists would otherwise be looked at some ten times while the list of them
    grows, at three times the decoder's own price, and nothing of it can be garbage yet.
    """
    if len(body) <= COLLECTED_BODY_BYTES_MAX or not gc.isenabled():
        return decode(body)
    gc.disable()
    try:
        return decode(body)
    finally:
        gc.enable()


def decode(body: bytes) -> dict[str, Any]:
    """``body`` as a JSON object.

    Raises:
        MalformedRequest: it is not one.
    """
    try:
        request = decode_uncollected(msgspec.json.decode, body)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise MalformedRequest(f"The request body is not valid JSON: {error}") from None
    except RecursionError:
        raise MalformedRequest("The request body is nested too deeply") from None
    if type(request) is dict:
        return request
    if type(request) is list:
        raise MalformedRequest("Start of list found where not expected")
    raise MalformedRequest("Unexpected value type in payload")


def read_structure(shape: Structure, value: dict[str, Any]) -> None:
    """Check the members of ``value`` and drop nulls.

    Raises:
        MalformedRequest: a member has the wrong JSON type.
        InvalidRequest: a member is none of ``shape``'s. AWS passes those over; here it would be a
            wish that is accepted and ignored (a slip of the pen, a feature newer than this).
    """
    for name in list(value):
        member = shape.members.get(name)
        if value[name] is None:
            del value[name]
        elif member is None:
            raise InvalidRequest(f"The request has an unknown member: {name[:64]!r}")
        else:
            value[name] = _read(member, value[name], "member")


def _read(shape: Shape, value: Any, place: str) -> Any:
    """``value`` if its JSON type is ``shape``'s. ``place``: is it a member or an element?

    The words differ between a structure's members and a collection's elements.
    """
    if value is None:
        return None
    match shape:
        case String():
            return _read_scalar(value, str, "String")
        case Blob():
            return _read_blob(value)
        case Boolean():
            return _read_boolean(value)
        case Whole():
            return _read_whole(shape, value)
        case Double():
            return value if type(value) is float else _read_scalar(value, int, "Double")
        case Moment():
            return value if type(value) is float else _read_scalar(value, int, "Long")
        case AttributeValue():
            _read_attribute_value(value, place, 0)
            return value
        case List():
            _expect(list, shape, value, place)
            return [_read(shape.element, element, "element") for element in value]
        case Map(element=AttributeValue()):
            _expect(dict, shape, value, place)
            for each in value.values():
                if each is not None:
                    _read_attribute_value(each, "element", 0)
            return value
        case Map():
            _expect(dict, shape, value, place)
            return {name: _read(shape.element, each, "element") for name, each in value.items()}
        case Structure():
            _expect(dict, shape, value, place)
            read_structure(shape, value)
            return value


def _expect(wanted: type, shape: Shape, value: Any, place: str) -> None:
    """Refuse ``value`` unless it is the ``wanted`` kind of collection."""
    if type(value) is wanted:
        return
    if type(value) is dict:
        raise MalformedRequest("Start of structure or map found where not expected")
    if type(value) is list:
        raise MalformedRequest(f"Unrecognized collection type {_collection_type(shape)}")
    if place == "member":
        raise MalformedRequest("Unexpected field type")
    if isinstance(shape, Structure | AttributeValue):
        raise MalformedRequest("Unexpected value type in payload")
    raise MalformedRequest(
        "class sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl cannot be cast to "
        "class java.lang.Class (sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl and "
        "java.lang.Class are in module java.base of loader 'bootstrap')"
    )


def _read_scalar(value: Any, wanted: type, java: str) -> Any:
    if type(value) is wanted:
        return value
    if type(value) is dict:
        raise MalformedRequest("Start of structure or map found where not expected")
    if type(value) is list:
        raise MalformedRequest(f"Unrecognized collection type class java.lang.{java}")
    raise MalformedRequest(f"{_token(value)} cannot be converted to {java}")


def _token(value: Any) -> str:
    """What DynamoDB's JSON parser calls a scalar."""
    if value is True:
        return "TRUE_VALUE"
    if value is False:
        return "FALSE_VALUE"
    if type(value) is str:
        return "STRING_VALUE"
    return "NUMBER_VALUE" if type(value) is int else "DECIMAL_VALUE"


def _read_boolean(value: Any) -> bool:
    if type(value) is str:
        if value.upper() in _TRUE:
            return True
        if value.upper() in _FALSE:
            return False
        raise MalformedRequest("Unexpected token received from parser")
    read_value: bool = _read_scalar(value, bool, "Boolean")
    return read_value


def _read_whole(shape: Whole, value: Any) -> int:
    if type(value) is float:
        value = int(value)  # As Java narrows: towards zero. JSON has no infinity to trip over.
    number: int = _read_scalar(value, int, shape.java)
    most = INTEGER_MAX if shape.java == "Integer" else LONG_MAX
    if not -most - 1 <= number <= most:
        kind = "int" if shape.java == "Integer" else "long"
        raise MalformedRequest(
            f"Numeric value ({number}) out of range of {kind} ({-most - 1} - {most})"
        )
    return number


def _read_blob(value: Any) -> str:
    if type(value) is list:
        raise MalformedRequest("Unrecognized collection type class java.nio.ByteBuffer")
    if type(value) is dict:
        raise MalformedRequest("Start of structure or map found where not expected")
    if type(value) is not str:
        raise MalformedRequest("only base-64-encoded strings are convertible to bytes")
    if len(value) % 4:
        raise MalformedRequest(
            f"Base64 encoded length is expected a multiple of 4 bytes but found: {len(value)}"
        )
    if _BASE64.fullmatch(value) is None:
        raise MalformedRequest("Invalid last non-pad Base64 character dectected")
    return value


def _read_attribute_value(value: Any, place: str, depth: int) -> None:
    """Check the JSON types of a whole attribute value, changing nothing in it.

    Below the deepest level that any value may have nothing is looked at: ``model.values`` refuses
    the value for its depth, and this recursion stays bounded.
    """
    if type(value) is not dict:
        _expect(dict, VALUE, value, place)
    if depth > REQUEST_NESTING_MAX:
        return
    for tag, content in value.items():
        if type(content) is str and tag in _TEXT_TAGS:
            continue  # Nearly all of what is stored, and a refused batch may hold a million.
        shape = VALUE_MEMBERS.get(tag)
        if shape is None or content is None:
            continue
        match shape:
            case List(element=AttributeValue()):
                _expect(list, shape, content, "member")
                elements = content
            case Map():
                _expect(dict, shape, content, "member")
                elements = content.values()
            case _:
                _read(shape, content, "member")
                continue
        for element in elements:
            if element is not None:
                _read_attribute_value(element, "element", depth + 1)


def _collection_type(shape: Shape) -> str:
    java = _java_type(shape)
    return java if isinstance(shape, Map | List) else f"class {java}"


def _java_type(shape: Shape) -> str:
    match shape:
        case Structure():
            return f"com.amazonaws.dynamodb.v20120810.{shape.name}"
        case AttributeValue():
            return "com.amazonaws.dynamodb.v20120810.AttributeValue"
        case List():
            return f"java.util.List<{_java_type(shape.element)}>"
        case Map():
            return f"java.util.Map<java.lang.String, {_java_type(shape.element)}>"
        case Blob():
            return "java.nio.ByteBuffer"
        case Whole():
            return f"java.lang.{shape.java}"
        case _:
            return f"java.lang.{type(shape).__name__}"
