"""One entry of a pattern's array, as a decision about one scalar of a record.

Literals and operators are those of EventBridge (the user guide, "Comparison operators for use in
event patterns"), a superset of what the Lambda guide lists under "Filter rule syntax". ``cidr`` is
left out: Lambda does not have it. Operators look at JSON types: a number never matches text, which
is why ``numeric`` cannot match DynamoDB's N, and ``true`` is not 1. ``anything-but`` matches any
scalar that is not what it names, whatever its type.

``read_entries`` raises ``Refused`` with the reason only; ``patterns`` knows the words around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

#: A scalar of a record (text, number, boolean or null): does it match?
ScalarTest = Callable[[Any], bool]
#: The names that an object in a pattern's array may have.
OPERATORS: Final = frozenset({
    "anything-but",
    "equals-ignore-case",
    "exists",
    "numeric",
    "prefix",
    "suffix",
    "wildcard",
})  # fmt: skip
_NUMBERS: Final = (int, float)


class Refused(Exception):
    """The pattern is not valid, and why."""


class Entries:
    """What an array of a pattern says, sorted by how it is looked up."""

    __slots__ = ("absent", "numbers", "others", "present", "singletons", "strings", "wildcards")

    def __init__(self) -> None:
        self.strings: set[str] = set()
        self.numbers: set[int | float] = set()
        #: Of true, false and null, those that match.
        self.singletons: list[bool | None] = []
        self.others: list[ScalarTest] = []
        #: ``exists`` true and false.
        self.present = False
        self.absent = False
        #: How many ``*`` are in all wildcards.
        self.wildcards = 0

    def only_literals(self) -> bool:
        return not (self.others or self.present or self.absent)

    def scalar_test(self) -> ScalarTest:
        """The decision about a scalar that is there."""
        if self.present:
            return lambda value: True
        strings, numbers = frozenset(self.strings), frozenset(self.numbers)
        singletons, others = tuple(self.singletons), tuple(self.others)

        def matches_literal(value: Any) -> bool:
            kind = type(value)
            if kind is str:
                return value in strings
            if kind in _NUMBERS:
                return value in numbers
            return value in singletons

        if not others:
            return matches_literal
        if len(others) == 1 and not (strings or numbers or singletons):
            return others[0]
        return lambda value: matches_literal(value) or any(other(value) for other in others)


def read_entries(name: str, entries: list[Any]) -> Entries:
    """Read the array that the pattern has under ``name``."""
    if not entries:
        raise Refused("A list must not be empty")
    read = Entries()
    for entry in entries:
        kind = type(entry)
        if kind is str:
            read.strings.add(entry)
        elif kind in _NUMBERS:
            read.numbers.add(_number(entry))
        elif kind is dict:
            _read_operator(entry, read)
        elif kind is list:
            raise Refused(
                f'"{name}" lists a list: only values and operators may be listed'
            )
        else:
            read.singletons.append(entry)
    return read


def _read_operator(entry: dict[str, Any], read: Entries) -> None:
    if len(entry) != 1:
        raise Refused(
            "An operator is an object with one name" if entry else "An object must not be empty"
        )
    [(operator, operand)] = entry.items()
    match operator:
        case "exists":
            if type(operand) is not bool:
                raise Refused("exists takes true or false")
            if operand:
                read.present = True
            else:
                read.absent = True
        case "prefix" | "suffix":
            read.others.append(_read_affix(operator, operand))
        case "equals-ignore-case":
            read.others.append(_on_text(_equals_ignore_case(_text(operator, operand))))
        case "wildcard":
            read.others.append(_on_text(_read_wildcard(operand, read)))
        case "numeric":
            read.others.append(_read_numeric(operand))
        case "anything-but":
            read.others.append(_read_anything_but(operand, read))
        case _:
            raise Refused(f"There is no operator {operator}")


# Operators on text. Each reader makes a decision about a string.

_TextTest = Callable[[str], bool]


def _on_text(test: _TextTest) -> ScalarTest:
    return lambda value: type(value) is str and test(value)


def _text(operator: str, operand: Any) -> str:
    if type(operand) is not str:
        raise Refused(f"{operator} takes a text")
    return operand


def _equals_ignore_case(text: str) -> _TextTest:
    folded = text.lower()
    return lambda value: value.lower() == folded


def _prefix(text: str) -> _TextTest:
    return lambda value: value.startswith(text)


def _suffix(text: str) -> _TextTest:
    return lambda value: value.endswith(text)


def _read_affix(operator: str, operand: Any) -> ScalarTest:
    """``{"prefix": "a"}`` or ``{"prefix": {"equals-ignore-case": "a"}}``; so for suffix."""
    affix = _prefix if operator == "prefix" else _suffix
    if type(operand) is not dict:
        return _on_text(affix(_text(operator, operand)))
    if list(operand) != ["equals-ignore-case"]:
        raise Refused(f"{operator} does not go with: {', '.join(operand)}")
    test = affix(_text("equals-ignore-case", operand["equals-ignore-case"]).lower())
    return lambda value: type(value) is str and test(value.lower())


def _read_wildcard(operand: Any, read: Entries) -> _TextTest:
    pieces = _wildcard_pieces(_text("wildcard", operand))
    read.wildcards += len(pieces) - 1
    if len(pieces) == 1:
        [whole] = pieces
        return lambda value: value == whole
    first, *middle, last = pieces
    ends = len(first) + len(last)

    # The earliest place for each piece leaves the most room for those behind it, so nothing is
    # ever tried twice: the value is gone through once.
    def matches(value: str) -> bool:
        if len(value) < ends or not value.startswith(first) or not value.endswith(last):
            return False
        at, end = len(first), len(value) - len(last)
        for piece in middle:
            found = value.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True

    return matches


def _wildcard_pieces(text: str) -> list[str]:
    r"""What is between the ``*``. ``\*`` is a literal asterisk and ``\\`` a literal backslash."""
    pieces = [""]
    at = 0
    while at < len(text):
        character = text[at]
        if character == "*":
            if text[at + 1 : at + 2] == "*":
                raise Refused(f"Two wildcards side by side at position {at}")
            pieces.append("")
        else:
            if character == "\\":
                at += 1
                character = text[at : at + 1]
                if character not in ("*", "\\"):
                    raise Refused(f"An escape of nothing special at position {at - 1}")
            pieces[-1] += character
        at += 1
    return pieces


# Numbers.


def _number(value: int | float) -> int | float:
    try:
        finite = math.isfinite(value)
    except OverflowError:
        finite = False
    if not finite:
        raise Refused(f"A number that cannot be compared: {value}")
    return value


def _read_numeric(operand: Any) -> ScalarTest:
    """``["=", 1]``, ``[">", 1]``, ``["<=", 1]``, or a lower and then an upper bound."""
    if type(operand) is not list:
        raise Refused("numeric takes a list")
    if not operand:
        raise Refused("numeric takes comparisons, and there is none")
    if len(operand) > 4:
        raise Refused("numeric takes one comparison or two")
    bounds = [(operand[at], operand[at + 1 : at + 2]) for at in range(0, len(operand), 2)]
    read: list[tuple[str, int | float]] = []
    for operator, limit in bounds:
        if operator not in ("=", "<", "<=", ">", ">="):
            raise Refused(f"numeric has no comparison {operator}")
        if not limit or type(limit[0]) not in _NUMBERS:
            raise Refused(f"{operator} compares with a number")
        read.append((operator, _number(limit[0])))
    if len(read) == 1:
        return _compare(*read[0])
    (lower, least), (upper, greatest) = read
    if lower not in (">", ">="):
        raise Refused("numeric takes one comparison or two")
    if upper not in ("<", "<="):
        raise Refused(f"A range cannot end with {upper}")
    if not least < greatest:
        raise Refused("A range must begin below its end")
    above, below = _compare(lower, least), _compare(upper, greatest)
    return lambda value: above(value) and below(value)


def _compare(operator: str, limit: int | float) -> ScalarTest:
    match operator:
        case "=":
            return lambda value: type(value) in _NUMBERS and value == limit
        case "<":
            return lambda value: type(value) in _NUMBERS and value < limit
        case "<=":
            return lambda value: type(value) in _NUMBERS and value <= limit
        case ">":
            return lambda value: type(value) in _NUMBERS and value > limit
        case _:
            return lambda value: type(value) in _NUMBERS and value >= limit


# Anything-but.


def _read_anything_but(operand: Any, read: Entries) -> ScalarTest:
    """Of a string, a number, a list of either, or one text operator with a string or a list."""
    if type(operand) is dict:
        return _read_anything_but_operator(operand, read)
    unwanted = operand if type(operand) is list else [operand]
    if not unwanted:
        raise Refused("A list must not be empty")
    texts = frozenset(each for each in unwanted if type(each) is str)
    numbers = frozenset(_number(each) for each in unwanted if type(each) in _NUMBERS)
    if any(type(each) is not str and type(each) not in _NUMBERS for each in unwanted):
        raise Refused("anything-but takes texts and numbers only")
    if texts and numbers:
        raise Refused(
            "anything-but takes texts or numbers, not both"
        )
    if texts:
        return lambda value: type(value) is not str or value not in texts
    return lambda value: type(value) not in _NUMBERS or value not in numbers


def _read_anything_but_operator(operand: dict[str, Any], read: Entries) -> ScalarTest:
    if len(operand) != 1:
        raise Refused("An operator is an object with one name")
    [(operator, given)] = operand.items()
    if operator not in ("equals-ignore-case", "prefix", "suffix", "wildcard"):
        raise Refused(f"anything-but does not go with {operator}")
    texts = [_text(operator, each) for each in (given if type(given) is list else [given])]
    if not texts:
        raise Refused("A list must not be empty")
    if operator in ("prefix", "suffix") and "" in texts:
        raise Refused("anything-but takes no empty prefix or suffix")
    tests: list[_TextTest]
    match operator:
        case "prefix":
            tests = [_prefix(each) for each in texts]
        case "suffix":
            tests = [_suffix(each) for each in texts]
        case "wildcard":
            tests = [_read_wildcard(each, read) for each in texts]
        case _:
            tests = [_equals_ignore_case(each) for each in texts]
    return lambda value: type(value) is not str or not any(test(value) for test in tests)
