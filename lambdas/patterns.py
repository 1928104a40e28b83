"""FilterCriteria: which records of a stream a handler gets to see.

``compile_filters`` reads JSON patterns once; ``Filters.matches`` then decides about one record, a
dict as in the Lambda event. Pure, and a value to those who hold it.

A pattern has the shape of the record. An object is an AND over the names that it mentions; names
that it does not mention are ignored. An array is an OR over literals and operators
(``pattern_operators``), applied to the scalar that the record has there. ``$or`` takes a list of
objects of which one must match. Sources: the Lambda guide, "Control which events Lambda sends to
your function" and "Using event filtering with a DynamoDB event source"; the EventBridge guide,
"Amazon EventBridge event patterns"; event-ruler (its README, tests and behaviour), for the rest:

- Only leaves match. An object in the record's place of a leaf is as good as nothing there, and so
  is an empty array: ``exists`` true does not match it, ``exists`` false does.
- What lies under a name that is missing is missing: ``{"userIdentity": {"type": [{"exists":
  false}]}}`` matches a record without userIdentity.
- Arrays in the record, and arrays in these, are laid flat. One element must meet everything that
  the pattern says about an element: siblings do not leak. Only ``exists`` false asks all of them.

Any name of a record may be filtered. (The Lambda guide allows ``dynamodb`` alone, but the TTL page
filters on userIdentity and CDK's example on eventName.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from ..errors import InvalidRequest
from ..limits import (
    FILTER_COMBINATIONS_MAX,
    FILTER_LEVELS_MAX,
    FILTER_VALUES_MAX,
    FILTER_WILDCARDS_MAX,
)
from .pattern_operators import OPERATORS, Refused, ScalarTest, read_entries

Path = tuple[str, ...]
#: A map of the record, and what is known of absences: does it match? The second is None where the
#: map can answer for itself, and otherwise the paths that no element of the array around has.
MapTest = Callable[[dict[str, Any], "frozenset[Path] | None"], bool]

_MISSING: Final = object()
_EMPTY: Final[dict[str, Any]] = {}
_OR: Final = "$or"


class Filters:
    """Patterns of which a record must match one; if there are none, every record matches."""

    __slots__ = ("_test", "is_empty")

    def __init__(self, tests: Sequence[MapTest]) -> None:
        #: Whether every record matches, so that none need be rendered for it.
        self.is_empty = not tests
        self._test = _any_of(tests) if tests else _always

    def matches(self, record: dict[str, Any]) -> bool:
        """Whether the handler gets ``record``."""
        return self._test(record, None)


def compile_filters(patterns: Sequence[str]) -> Filters:
    """Read all patterns; raise ``InvalidRequest`` in Lambda's words for the first that is wrong."""
    return Filters([_compile(pattern) for pattern in patterns])


def _compile(pattern: str) -> MapTest:
    try:
        # Too deep for the decoder is far too deep for us.
        parsed = msgspec.json.decode(pattern)
    except (ValueError, RecursionError):
        raise _invalid("The pattern is not valid JSON") from None
    if type(parsed) is not dict:
        raise _invalid("Filter is not an object")
    try:
        return _Compiler().compile(parsed)
    except Refused as refused:
        raise _invalid(str(refused)) from None


def _invalid(reason: str) -> InvalidRequest:
    # Lambda says the first sentence and leaves one to guess.
    return InvalidRequest(f"Invalid filter pattern definition. {reason}")


class _Node:
    """A part of the pattern that decides about a map."""

    __slots__ = ("absences", "combinations", "test")

    def __init__(self, test: MapTest, absences: frozenset[Path], combinations: int) -> None:
        self.test = test
        #: The paths, from the root, of the leaves that match where nothing is.
        self.absences = absences
        #: How many patterns without ``$or`` it stands for.
        self.combinations = combinations


class _Compiler:
    """Makes closures of one pattern, and counts what is bounded."""

    __slots__ = ("_values", "_wildcards")

    def __init__(self) -> None:
        self._values = 0
        self._wildcards = 0

    def compile(self, pattern: dict[str, Any]) -> MapTest:
        return self._object(pattern, ()).test

    def _object(self, pattern: dict[str, Any], path: Path) -> _Node:
        if not pattern:
            raise Refused("An object must not be empty")
        if len(path) >= FILTER_LEVELS_MAX:
            raise Refused(f"The pattern has more than {FILTER_LEVELS_MAX} levels")
        nodes = [self._member(name, value, path) for name, value in pattern.items()]
        combinations = 1
        for node in nodes:
            combinations *= node.combinations
        _check_combinations(combinations)
        return _Node(_all_of([node.test for node in nodes]), _union(nodes), combinations)

    def _member(self, name: str, value: Any, path: Path) -> _Node:
        if name == _OR and _is_alternatives(value):
            nodes = [self._object(each, path) for each in value]
            combinations = sum(node.combinations for node in nodes)
            _check_combinations(combinations)
            return _Node(_any_of([node.test for node in nodes]), _union(nodes), combinations)
        path = (*path, name)
        if type(value) is dict:
            child = self._object(value, path)
            return _Node(_nested(path, child), child.absences, child.combinations)
        if type(value) is list:
            return self._leaf(value, path)
        raise Refused(f'"{name}" must be an object or a list')

    def _leaf(self, values: list[Any], path: Path) -> _Node:
        entries = read_entries(path[-1], values)
        self._values += len(values)
        self._wildcards += entries.wildcards
        if self._values > FILTER_VALUES_MAX:
            raise Refused(f"The pattern has more than {FILTER_VALUES_MAX} values")
        if self._wildcards > FILTER_WILDCARDS_MAX:
            raise Refused("The pattern has too many wildcards")
        scalar_test = entries.scalar_test()
        if entries.absent:
            return _Node(_leaf_or_nothing(path, scalar_test), frozenset([path]), 1)
        if entries.only_literals():
            leaf = _literal_leaf(path[-1], frozenset(entries.strings), scalar_test)
        else:
            leaf = _leaf(path[-1], scalar_test)
        return _Node(leaf, frozenset(), 1)


def _is_alternatives(value: Any) -> bool:
    """Whether ``$or`` is meant, and not an attribute of that name with operators."""
    return (
        type(value) is list
        and len(value) >= 2
        and all(type(each) is dict and OPERATORS.isdisjoint(each) for each in value)
    )


def _check_combinations(combinations: int) -> None:
    if combinations > FILTER_COMBINATIONS_MAX:
        raise Refused(f"$or makes more than {FILTER_COMBINATIONS_MAX} combinations")


def _union(nodes: Iterable[_Node]) -> frozenset[Path]:
    return frozenset[Path]().union(*(node.absences for node in nodes))


# Decisions about maps.


def _always(record: dict[str, Any], absent: frozenset[Path] | None) -> bool:
    return True


def _all_of(tests: Sequence[MapTest]) -> MapTest:
    if len(tests) == 1:
        return tests[0]

    def matches(values: dict[str, Any], absent: frozenset[Path] | None) -> bool:
        for test in tests:
            if not test(values, absent):
                return False
        return True

    return matches


def _any_of(tests: Sequence[MapTest]) -> MapTest:
    if len(tests) == 1:
        return tests[0]

    def matches(values: dict[str, Any], absent: frozenset[Path] | None) -> bool:
        for test in tests:
            if test(values, absent):
                return True
        return False

    return matches


def _nested(path: Path, child: _Node) -> MapTest:
    """What the pattern says about the map, or the maps in the array, under a name."""
    name, test, absences = path[-1], child.test, child.absences
    depth = len(path)

    def matches(values: dict[str, Any], absent: frozenset[Path] | None) -> bool:
        value = values.get(name)
        if type(value) is dict:
            return test(value, absent)
        maps = _maps_in(value) if type(value) is list else None
        if not maps:
            # Only what may be absent can match where there is nothing.
            return bool(absences) and test(_EMPTY, absent)
        if absences and absent is None:
            # Absence is asked of all elements, once for the outermost array.
            absent = frozenset(each for each in absences if not _any_has_leaf(maps, each[depth:]))
        return any(test(each, absent) for each in maps)

    return matches


def _literal_leaf(name: str, strings: frozenset[str], scalar_test: ScalarTest) -> MapTest:
    """By far the most common leaf: text, found without another call."""

    def matches(values: dict[str, Any], absent: frozenset[Path] | None) -> bool:
        value = values.get(name, _MISSING)
        return value in strings if type(value) is str else _scalar_matches(value, scalar_test)

    return matches


def _leaf(name: str, scalar_test: ScalarTest) -> MapTest:
    def matches(values: dict[str, Any], absent: frozenset[Path] | None) -> bool:
        value = values.get(name, _MISSING)
        return scalar_test(value) if type(value) is str else _scalar_matches(value, scalar_test)

    return matches


def _leaf_or_nothing(path: Path, scalar_test: ScalarTest) -> MapTest:
    name = path[-1]

    def matches(values: dict[str, Any], absent: frozenset[Path] | None) -> bool:
        value = values.get(name, _MISSING)
        nothing = not _is_leaf(value) if absent is None else path in absent
        return nothing or _scalar_matches(value, scalar_test)

    return matches


def _scalar_matches(value: Any, scalar_test: ScalarTest) -> bool:
    """Whether the scalar, or one in the array, matches. Nothing and a map do not."""
    if type(value) is list:
        return any(_scalar_matches(each, scalar_test) for each in value)
    return value is not _MISSING and type(value) is not dict and scalar_test(value)


def _is_leaf(value: Any) -> bool:
    if type(value) is list:
        return any(_is_leaf(each) for each in value)
    return value is not _MISSING and type(value) is not dict


def _maps_in(values: list[Any]) -> list[dict[str, Any]]:
    maps: list[dict[str, Any]] = []
    for value in values:
        if type(value) is dict:
            maps.append(value)
        elif type(value) is list:
            maps.extend(_maps_in(value))
    return maps


def _any_has_leaf(maps: list[dict[str, Any]], path: Path) -> bool:
    *names, last = path
    for name in names:
        maps = _maps_in([each.get(name) for each in maps])
    return any(_is_leaf(each.get(last, _MISSING)) for each in maps)
