"""Attribute values and items: DynamoDB's own JSON form, validated once, at the door.

A value is a dict with one member, its type tag: ``{"S": "x"}``. ``check_item`` and ``check_value``
take freshly decoded JSON, refuse what DynamoDB refuses, in its words, and bring the rest into
canonical form in place: numbers normalised, sets sorted (SS by UTF-8 bytes, NS numerically, BS by
decoded bytes), members that AWS ignores (unknown tags, nulls) dropped. Base64 that is accepted is
canonical already, because AWS refuses any other. Afterwards equal values are ``==``.

Everything behind the door may assume canonical form and never mutates a value that came from an
item. Sizes are DynamoDB's (reference 2.1): they are returned here and enforced by the operations,
since each has a limit of its own.

Wording: the conformance suite, and for what it does not reach dynalite's recordings of AWS. The
JSON types are checked before anything else on AWS, where parsing is a step of its own; here the
one pass does both, and only a refused value is walked again to see which error comes first.
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeAlias, cast

import msgspec

from ..errors import InvalidRequest, MalformedRequest
from ..limits import ATTRIBUTE_NAME_BYTES_MAX, NESTING_LEVELS_MAX
from . import numbers

AttributeValue: TypeAlias = dict[str, Any]
Item: TypeAlias = dict[str, AttributeValue]

TAGS: Final = ("S", "N", "B", "BOOL", "NULL", "SS", "NS", "BS", "L", "M")

EMPTY_VALUE: Final = (
    "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
)
_SEVERAL_TYPES: Final = (
    "Supplied AttributeValue has more than one datatypes set, "
    "must contain exactly one of the supported datatypes"
)
_TOO_DEEP: Final = (
    "Nesting Levels have exceeded supported limits: "
    "Attributes in the item have nested levels beyond supported limit"
)
_INVALID: Final = "One or more parameter values were invalid: "
_NOT_BASE64: Final = "Invalid last non-pad Base64 character dectected"  # The typing error is AWS's.
_STRUCTURE: Final = "Start of structure or map found where not expected"


# -- The door ------------------------------------------------------------------------------------


def check_item(item: object) -> int:
    """Validate an item decoded from JSON and make it canonical in place; its size in bytes.

    Raises InvalidRequest for what breaks DynamoDB's rules and MalformedRequest for JSON of the
    wrong type. After a refusal the item may be half canonical: it must be thrown away.
    """
    if type(item) is not dict:
        raise _not_a_map(item)
    size = 0
    try:
        for name, value in item.items():
            # Short names and strings are nearly all there is: two calls fewer for each.
            if type(value) is dict and len(value) == 1 and 0 < len(name) < 256 and name.isascii():
                text = value.get("S")
                if type(text) is str and text.isascii():
                    size += len(name) + len(text)
                    continue
            size += check_name(name) + _check(value, 0)
    except InvalidRequest:
        for value in item.values():
            _check_shape(value, 0)
        raise
    except UnicodeEncodeError:
        raise _not_text() from None
    return size


def check_value(value: object) -> int:
    """Validate one value decoded from JSON and make it canonical in place; its size in bytes.

    Raises like ``check_item``.
    """
    try:
        return _check(value, 0)
    except InvalidRequest:
        _check_shape(value, 0)
        raise
    except UnicodeEncodeError:
        raise _not_text() from None


def _not_text() -> MalformedRequest:
    # Half a surrogate pair has no UTF-8 form. Our own JSON decoder refuses it before this one can
    # see it; values handed over by Python programs arrive here.
    return MalformedRequest("A string is not valid Unicode")


def check_name(name: str) -> int:
    """The size of an attribute name in UTF-8 bytes. Raises InvalidRequest if empty or too long."""
    size = len(name) if name.isascii() else len(name.encode())
    if not 0 < size <= ATTRIBUTE_NAME_BYTES_MAX:
        if not size:
            raise InvalidRequest("Empty attribute name")
        raise InvalidRequest(
            f"Attribute name is too large, must be less than {ATTRIBUTE_NAME_BYTES_MAX + 1} bytes"
        )
    return size


def _check(value: object, depth: int) -> int:
    """The one recursion. ``depth`` is the number of lists and maps around this value."""
    if type(value) is not dict or len(value) != 1:
        return _check_unusual(value, depth)
    for tag, content in value.items():
        # Strings and numbers first: they are nearly all of what is stored.
        if tag == "S" and type(content) is str:
            return len(content) if content.isascii() else len(content.encode())
        if tag == "N" and type(content) is str:
            text = numbers.normalise(content)
            value["N"] = text
            return numbers.size_bytes(text)
        check = _CHECKS.get(tag)
        if check is None or content is None:
            break
        return check(value, content, depth)
    raise InvalidRequest(EMPTY_VALUE)


def _check_unusual(value: object, depth: int) -> int:
    """What is no dict with one member: refused, unless AWS ignores the other members."""
    if type(value) is not dict:
        if value is None:
            raise InvalidRequest("The supplied Item contains a null AttributeValue")
        raise _not_a_value(value)
    for tag in [tag for tag in value if value[tag] is None or tag not in _CHECKS]:
        del value[tag]
    if not value:
        raise InvalidRequest(EMPTY_VALUE)
    if len(value) == 1:
        return _check(value, depth)
    # Each member is judged for itself before their number is: as dynalite recorded it.
    for tag, content in value.items():
        _check({tag: content}, depth)
    raise InvalidRequest(_SEVERAL_TYPES)


def _check_string(_value: AttributeValue, content: object, _depth: int) -> int:
    return len(_text(content).encode())


def _check_number(value: AttributeValue, content: object, _depth: int) -> int:
    value["N"] = text = numbers.normalise(_text(content))
    return numbers.size_bytes(text)


def _check_binary(_value: AttributeValue, content: object, _depth: int) -> int:
    return len(_binary(content))


def _check_boolean(value: AttributeValue, content: object, _depth: int) -> int:
    value["BOOL"] = _boolean(content)
    return 1


def _check_null(value: AttributeValue, content: object, _depth: int) -> int:
    if not _boolean(content):
        raise InvalidRequest(f"{_INVALID}Null attribute value types must have the value of true")
    value["NULL"] = True
    return 1


def _check_string_set(value: AttributeValue, content: object, _depth: int) -> int:
    members = [_text(member) for member in _members(content, "string")]
    if not members:
        raise InvalidRequest(f"{_INVALID}An string set  may not be empty")
    if len(set(members)) != len(members):
        listed = ", ".join(members)
        raise InvalidRequest(f"{_INVALID}Input collection [{listed}] contains duplicates.")
    # Strings compare by code point, which is the order of their UTF-8 bytes.
    value["SS"] = sorted(members)
    return sum(len(member.encode()) for member in members)


def _check_number_set(value: AttributeValue, content: object, _depth: int) -> int:
    members = [numbers.normalise(_text(member)) for member in _members(content, "number")]
    if not members:
        raise InvalidRequest(f"{_INVALID}An number set  may not be empty")
    if len(set(members)) != len(members):
        raise InvalidRequest("Input collection contains duplicates")
    value["NS"] = sorted(members, key=numbers.sort_key)
    return sum(map(numbers.size_bytes, members))


def _check_binary_set(value: AttributeValue, content: object, _depth: int) -> int:
    texts = cast(list[str], _members(content, "binary"))
    members = {_binary(member): member for member in texts}
    if not members:
        raise InvalidRequest(f"{_INVALID}Binary sets should not be empty")
    if len(members) != len(texts):
        listed = ", ".join(texts)
        raise InvalidRequest(
            f"{_INVALID}Input collection [{listed}]of type BS contains duplicates."
        )
    value["BS"] = [members[data] for data in sorted(members)]
    return sum(map(len, members))


def _check_list(_value: AttributeValue, content: object, depth: int) -> int:
    if type(content) is not list:
        raise _not_a_list(content)
    size = 3 + len(content)
    depth += 1
    if depth >= NESTING_LEVELS_MAX and content:
        raise InvalidRequest(_TOO_DEEP)
    for member in content:
        size += _check(member, depth)
    return size


def _check_map(_value: AttributeValue, content: object, depth: int) -> int:
    if type(content) is not dict:
        raise _not_a_map(content)
    size = 3 + len(content)
    depth += 1
    if depth >= NESTING_LEVELS_MAX and content:
        raise InvalidRequest(_TOO_DEEP)
    for name, member in content.items():
        size += check_name(name) + _check(member, depth)
    return size


_CHECKS: Final[dict[str, Callable[[AttributeValue, object, int], int]]] = {
    "S": _check_string,
    "N": _check_number,
    "B": _check_binary,
    "BOOL": _check_boolean,
    "NULL": _check_null,
    "SS": _check_string_set,
    "NS": _check_number_set,
    "BS": _check_binary_set,
    "L": _check_list,
    "M": _check_map,
}


# -- JSON types ----------------------------------------------------------------------------------


def _members(content: object, kind: str) -> list[object]:
    if type(content) is not list:
        raise _not_a_list(content)
    if None in content:
        raise InvalidRequest(f"{_INVALID}An {kind} set may not have a null value as a member")
    return content


def _text(content: object) -> str:
    if type(content) is not str:
        raise _not_convertible(content, "String")
    return content


def _boolean(content: object) -> bool:
    if type(content) is bool:
        return content
    if type(content) is not str:
        raise _not_convertible(content, "Boolean")
    match content.upper():
        case "TRUE" | "1" | "YES":
            return True
        case "FALSE" | "0" | "NO":
            return False
    raise MalformedRequest("Unexpected token received from parser")


def _binary(content: object) -> bytes:
    if type(content) is not str:
        if isinstance(content, list):
            raise MalformedRequest("Unrecognized collection type class java.nio.ByteBuffer")
        if isinstance(content, dict):
            raise MalformedRequest(_STRUCTURE)
        raise MalformedRequest("only base-64-encoded strings are convertible to bytes")
    if len(content) % 4:
        raise MalformedRequest(
            f"Base64 encoded length is expected a multiple of 4 bytes but found: {len(content)}"
        )
    try:
        data = a2b_base64(content, strict_mode=True)
    except (Base64Error, ValueError):
        raise MalformedRequest(_NOT_BASE64) from None
    # The decoder does not mind bits left over in the last group; only the last group can have any.
    if (
        content.endswith("=")
        and b2a_base64(a2b_base64(content[-4:]), newline=False) != content[-4:].encode()
    ):
        raise MalformedRequest(_NOT_BASE64)
    return data


def _not_convertible(content: object, target: str) -> MalformedRequest:
    if isinstance(content, list):
        return MalformedRequest(f"Unrecognized collection type class java.lang.{target}")
    if isinstance(content, dict):
        return MalformedRequest(_STRUCTURE)
    if content is True or content is False:
        found = "TRUE_VALUE" if content else "FALSE_VALUE"
    elif isinstance(content, int):
        found = "NUMBER_VALUE"
    elif content is None:
        return MalformedRequest(_STRUCTURE)
    else:
        found = "DECIMAL_VALUE"
    return MalformedRequest(f"{found} cannot be converted to {target}")


def _not_a_value(value: object) -> MalformedRequest:
    if isinstance(value, list):
        return MalformedRequest(
            "Unrecognized collection type class com.amazonaws.dynamodb.v20120810.AttributeValue"
        )
    return MalformedRequest("Unexpected value type in payload")


def _not_a_list(content: object) -> MalformedRequest:
    return MalformedRequest(_STRUCTURE if isinstance(content, dict) else "Unexpected field type")


def _not_a_map(content: object) -> MalformedRequest:
    if isinstance(content, list):
        return MalformedRequest(
            "Unrecognized collection type java.util.Map<java.lang.String, "
            "com.amazonaws.dynamodb.v20120810.AttributeValue>"
        )
    return MalformedRequest("Unexpected field type")


def _check_shape(value: object, depth: int) -> None:
    """Raise MalformedRequest if a JSON type is wrong anywhere in ``value``; judge nothing else."""
    if value is None or depth > NESTING_LEVELS_MAX:
        return
    if type(value) is not dict:
        raise _not_a_value(value)
    for tag, content in value.items():
        if content is None:
            continue
        match tag:
            case "S" | "N":
                _text(content)
            case "B":
                _binary(content)
            case "BOOL" | "NULL":
                _boolean(content)
            case "SS" | "NS" | "BS" | "L":
                if type(content) is not list:
                    raise _not_a_list(content)
                for member in content:
                    _check_shape(member if tag == "L" else {tag[0]: member}, depth + 1)
            case "M":
                if type(content) is not dict:
                    raise _not_a_map(content)
                for member in content.values():
                    _check_shape(member, depth + 1)


# -- Behind the door -----------------------------------------------------------------------------


def type_of(value: AttributeValue) -> str:
    """The tag of a canonical value: one of ``TAGS``."""
    for tag in value:
        return tag
    _no_tag()


def _no_tag() -> NoReturn:
    raise AssertionError("an attribute value without a type went past the door")


def item_size_bytes(item: Item) -> int:
    """DynamoDB's size of a canonical item: names in UTF-8 plus values, in bytes."""
    size = 0
    for name, value in item.items():
        size += len(name) if name.isascii() else len(name.encode())
        # Strings are nearly all there is: a call fewer for each.
        text = value.get("S")
        size += len(text) if text is not None and text.isascii() else value_size_bytes(value)
    return size


def value_size_bytes(value: AttributeValue) -> int:
    """DynamoDB's size of a canonical value, without its name, in bytes."""
    for tag, content in value.items():
        match tag:
            case "S":
                return len(content) if content.isascii() else len(content.encode())
            case "N":
                return numbers.size_bytes(content)
            case "B":
                return binary_size_bytes(content)
            case "BOOL" | "NULL":
                return 1
            case "SS":
                return sum(len(member.encode()) for member in content)
            case "NS":
                return sum(map(numbers.size_bytes, content))
            case "BS":
                return sum(map(binary_size_bytes, content))
            case "L":
                return 3 + len(content) + sum(map(value_size_bytes, content))
            case "M":
                return 3 + len(content) + item_size_bytes(content)
    _no_tag()


def binary_size_bytes(text: str) -> int:
    """The number of bytes that canonical base64 text stands for."""
    return len(text) // 4 * 3 - text[-2:].count("=")


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder()


def encode_item(item: Item) -> bytes:
    """The JSON bytes of a canonical item, as stored and as spliced into responses."""
    return _encoder.encode(item)


def decode_item(data: bytes | memoryview) -> Item:
    """The item of ``encode_item``'s bytes; a fresh object that the caller may change."""
    item: Item = _decoder.decode(data)
    return item
