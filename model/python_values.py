"""Plain Python values <-> attribute values, for the Python API and for handlers.

===========================  =====================================================
Python                       DynamoDB
===========================  =====================================================
str                          S
int, Decimal, float          N; back as int when integral, else as Decimal
bytes, bytearray, memoryview B; back as bytes
bool                         BOOL
None                         NULL
list, tuple                  L; back as list
dict with str keys           M
set, frozenset               SS, NS or BS by their members, which are of one kind;
                             back as set
===========================  =====================================================

A float is taken as the decimal number that ``repr`` shows, its shortest exact spelling: 0.1 is
stored as 0.1. It comes back as ``Decimal``, never as float, so that no digit is ever lost on the
way out; NaN and infinities have no place in DynamoDB and are refused.

What ``to_item`` and ``to_attribute`` return is canonical and valid, as after ``values.check_item``.
Refusals are InvalidRequest and name the place: ``item.orders[3].price: ...``.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from decimal import Decimal
from typing import Any, Final, TypeAlias

from ..errors import InvalidRequest
from ..limits import NESTING_LEVELS_MAX, NUMBER_MAGNITUDE_MAX
from . import numbers
from .values import AttributeValue, Item, check_name

# Where a value is: its container's path and its own place in there, innermost last. Linked, so that
# descending costs a tuple and only a refusal pays for a text.
_Path: TypeAlias = tuple[Any, str | int] | None

_INTEGER_LIMIT: Final = 10 ** (NUMBER_MAGNITUDE_MAX + 1)


def to_item(mapping: dict[str, Any]) -> Item:
    """The item with these attributes. Raises InvalidRequest that names the place at fault."""
    if not isinstance(mapping, dict):
        raise InvalidRequest(f"item: a dict is needed, not {_kind(mapping)}")
    return _members(mapping, (None, "item"), 0)


def from_item(item: Item) -> dict[str, Any]:
    """The attributes of a canonical item as plain Python values."""
    return {name: from_attribute(value) for name, value in item.items()}


def to_attribute(value: Any, name: str = "value") -> AttributeValue:
    """The attribute value for a plain one; ``name`` begins the path in a refusal."""
    return _to_attribute(value, (None, name), 0)


def from_attribute(value: AttributeValue) -> Any:
    """The plain Python value of a canonical attribute value."""
    for tag, content in value.items():
        match tag:
            case "S" | "BOOL":
                return content
            case "N":
                return _from_number(content)
            case "B":
                return a2b_base64(content)
            case "NULL":
                return None
            case "L":
                return [from_attribute(member) for member in content]
            case "M":
                return from_item(content)
            case "SS":
                return set(content)
            case "NS":
                return {_from_number(member) for member in content}
            case "BS":
                return {a2b_base64(member) for member in content}
    raise AssertionError("an attribute value without a type")


def _from_number(text: str) -> int | Decimal:
    return Decimal(text) if "." in text else int(text)


def _to_attribute(value: Any, path: _Path, depth: int) -> AttributeValue:
    if isinstance(value, str):
        return {"S": _text(value, path)}
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int | Decimal | float):
        return {"N": _number(value, path)}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"B": _base64(value)}
    if isinstance(value, dict):
        return {"M": _members(value, path, depth + 1)}
    if isinstance(value, list | tuple):
        if value and depth + 1 >= NESTING_LEVELS_MAX:
            raise _too_deep(path)
        return {"L": [_to_attribute(each, (path, i), depth + 1) for i, each in enumerate(value)]}
    if isinstance(value, set | frozenset):
        return _to_set(value, path)
    raise _refusal(path, f"{_kind(value)} has no form in DynamoDB")


def _members(mapping: dict[Any, Any], path: _Path, depth: int) -> dict[str, AttributeValue]:
    if mapping and depth >= NESTING_LEVELS_MAX:
        raise _too_deep(path)
    members: dict[str, AttributeValue] = {}
    for name, value in mapping.items():
        if not isinstance(name, str):
            raise _refusal(path, f"an attribute name is a str, not {_kind(name)}")
        name = _text(name, path)
        try:
            check_name(name)
        except InvalidRequest as refusal:
            raise _refusal(path, str(refusal)) from None
        members[name] = _to_attribute(value, (path, name), depth)
    return members


def _to_set(members: set[Any] | frozenset[Any], path: _Path) -> AttributeValue:
    # In a set, True and 1 are one member, and which of them it shows is an accident.
    kinds = {_set_tag(member) for member in members}
    if len(kinds) != 1:
        reason = "are of several kinds" if kinds else "are none, so that it has no type"
        raise _refusal(path, f"the members of a set {reason}")
    match kinds.pop():
        case "SS":
            return {"SS": sorted(_text(member, path) for member in members)}
        case "NS":
            texts = {_number(member, path) for member in members}
            return {"NS": sorted(texts, key=numbers.sort_key)}
        case "BS":
            return {"BS": [_base64(data) for data in sorted({bytes(each) for each in members})]}
    raise _refusal(path, "a set holds str, numbers or bytes")


def _set_tag(member: Any) -> str:
    if isinstance(member, str):
        return "SS"
    if isinstance(member, int | Decimal | float) and not isinstance(member, bool):
        return "NS"
    return "BS" if isinstance(member, bytes | memoryview) else ""


def _text(value: str, path: _Path) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _refusal(path, "the string is not valid Unicode") from None
    # A subclass, such as a str-valued enum, is stored as the text that it is.
    return value if type(value) is str else str.__str__(value)


def _number(value: int | Decimal | float, path: _Path) -> str:
    try:
        if isinstance(value, int):
            # Python refuses to spell out integers of thousands of digits: bound them first.
            if not -_INTEGER_LIMIT < value < _INTEGER_LIMIT:
                value = _INTEGER_LIMIT
            return numbers.normalise(str(int(value)))
        if isinstance(value, float):
            return numbers.normalise(float.__repr__(value))
        return numbers.normalise(str(value))
    except InvalidRequest as refusal:
        raise _refusal(path, str(refusal)) from None


def _base64(data: bytes | bytearray | memoryview) -> str:
    return b2a_base64(bytes(data), newline=False).decode()


def _kind(value: object) -> str:
    return type(value).__qualname__


def _too_deep(path: _Path) -> InvalidRequest:
    return _refusal(path, f"nested more than {NESTING_LEVELS_MAX} levels deep")


def _refusal(path: _Path, reason: str) -> InvalidRequest:
    parts: list[str] = []
    while path is not None:
        path, place = path
        if isinstance(place, int):
            parts.append(f"[{place}]")
        elif path is None:
            parts.append(place)
        else:
            parts.append(f".{place}" if place.isidentifier() else f"[{place!r}]")
    return InvalidRequest(f"{''.join(reversed(parts))}: {reason}")
