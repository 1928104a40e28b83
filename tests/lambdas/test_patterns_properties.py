"""Filter patterns against an evaluator that is slow and obviously right.

The evaluator lays the record flat: every scalar becomes a leaf with its path and its places, that
is, which element of which array it came from. The pattern becomes its combinations without $or,
each a list of (path, entries). A combination matches if a leaf can be chosen for each of its paths
such that no two chosen leaves come from different elements of one array.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.lambdas.patterns import compile_filters

Leaf = tuple[tuple[str, ...], Any, dict[Any, int]]
Condition = tuple[tuple[str, ...], list[Any]]


def leaves(value: Any, path: tuple[str, ...] = (), places: Any = None) -> Iterator[Leaf]:
    places = places or {}
    if isinstance(value, dict):
        for name, each in value.items():
            yield from leaves(each, (*path, name), places)
    elif isinstance(value, list):
        array = (path, tuple(sorted(places.items(), key=repr)))
        for index, each in enumerate(value):
            if isinstance(each, dict | list):
                yield from leaves(each, path, {**places, array: index})
            else:
                yield path, each, places
    else:
        yield path, value, places


def combinations(pattern: dict[str, Any], path: tuple[str, ...] = ()) -> list[list[Condition]]:
    found: list[list[Condition]] = [[]]
    for name, value in pattern.items():
        if name == "$or":
            more = [each for alternative in value for each in combinations(alternative, path)]
        elif isinstance(value, dict):
            more = combinations(value, (*path, name))
        else:
            more = [[((*path, name), value)]]
        found = [one + other for one in found for other in more]
    return found


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def says(operator: str, operand: Any, value: Any) -> bool:
    """What one operator says about a scalar that is there."""
    if operator == "exists":
        return bool(operand)
    if operator == "anything-but":
        if not isinstance(operand, dict):
            unwanted = operand if isinstance(operand, list) else [operand]
            return not any(equal(each, value) for each in unwanted)
        [(inner, texts)] = operand.items()
        texts = texts if isinstance(texts, list) else [texts]
        return not any(says(inner, each, value) for each in texts)
    if operator == "numeric":
        return number(value) and all(
            {
                "=": value == limit,
                "<": value < limit,
                "<=": value <= limit,
                ">": value > limit,
                ">=": value >= limit,
            }[sign]
            for sign, limit in zip(operand[::2], operand[1::2], strict=True)
        )
    if not isinstance(value, str):
        return False
    if isinstance(operand, dict):
        return says(operator, operand["equals-ignore-case"].lower(), value.lower())
    if operator == "wildcard":
        regex = ".*".join(re.escape(piece) for piece in operand.split("*"))
        return re.fullmatch(regex, value, re.DOTALL) is not None
    return {
        "prefix": value[: len(operand)] == operand,
        "suffix": value[::-1][: len(operand)] == operand[::-1],
        "equals-ignore-case": value.lower() == operand.lower(),
    }[operator]


def equal(literal: Any, value: Any) -> bool:
    if number(literal):
        return number(value) and bool(literal == value)
    return type(literal) is type(value) and bool(literal == value)


def accepts(entries: list[Any], value: Any) -> bool:
    return any(
        says(*next(iter(entry.items())), value) if isinstance(entry, dict) else equal(entry, value)
        for entry in entries
    )


def obviously_matches(pattern: dict[str, Any], record: dict[str, Any]) -> bool:
    found = list(leaves(record))

    def choose(conditions: list[Condition], chosen: dict[Any, int]) -> bool:
        if not conditions:
            return True
        (path, entries), *rest = conditions
        here = [leaf for leaf in found if leaf[0] == path]
        if not here and {"exists": False} in entries and choose(rest, chosen):
            return True
        return any(
            accepts(entries, value)
            and all(chosen.get(array, index) == index for array, index in places.items())
            and choose(rest, {**chosen, **places})
            for _, value, places in here
        )

    return any(choose(conditions, {}) for conditions in combinations(pattern))


TEXTS = ["", "a", "A", "b", "ab", "aba", "5", "true"]
NUMBERS = [0, 1, 1.0, 5, 2.5, -3]
texts = st.sampled_from(TEXTS)
filled = st.sampled_from(TEXTS[1:])
numbers = st.sampled_from(NUMBERS)
scalars = texts | numbers | st.sampled_from([True, False, None])
wildcards = st.sampled_from(["*", "a*", "*a", "a*a", "*b*", "*b*b", "a*b*a", "ab", "*a*b"])


def one_or_more(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return values | st.lists(values, min_size=1, max_size=3)


def operator(name: str, operand: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({name: operand})


ignoring_case = operator("equals-ignore-case", texts)
entries = (
    scalars
    | operator("exists", st.booleans())
    | operator("prefix", texts | ignoring_case)
    | operator("suffix", texts | ignoring_case)
    | ignoring_case
    | operator("wildcard", wildcards)
    | operator("anything-but", one_or_more(texts) | one_or_more(numbers))
    | operator("anything-but", operator("prefix", one_or_more(filled)))
    | operator("anything-but", operator("suffix", one_or_more(filled)))
    | operator("anything-but", operator("equals-ignore-case", one_or_more(texts)))
    | operator("anything-but", operator("wildcard", one_or_more(wildcards)))
    | operator("numeric", st.tuples(st.sampled_from(["=", "<", "<=", ">", ">="]), numbers))
    | operator("numeric", st.just([">", 0, "<=", 5]) | st.just([">=", -3, "<", 1]))
)
# A simpler leaf, so that larger patterns match now and then.
likely = st.sampled_from([["a"], [{"exists": True}], [{"exists": False}], [{"anything-but": "a"}]])
leaf = likely | likely | st.lists(entries, min_size=1, max_size=3)


def objects(below: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Names beside $or and names inside it are kept apart: one name, one condition."""
    plain = st.dictionaries(st.sampled_from(["x", "y", "z"]), below, min_size=1, max_size=2)
    inside = st.dictionaries(st.sampled_from(["p", "q"]), below, min_size=1, max_size=2)
    alternatives = st.fixed_dictionaries({"$or": st.lists(inside, min_size=2, max_size=3)})
    return plain | st.builds(lambda one, other: {**one, **other}, plain, alternatives)


patterns = st.recursive(objects(leaf), lambda below: objects(leaf | below), max_leaves=3)
values = st.recursive(
    st.just("a") | scalars,
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(st.sampled_from(["x", "y", "z", "p", "q"]), below, max_size=3)
    ),
    max_leaves=12,
)
records = st.dictionaries(st.sampled_from(["x", "y", "z", "p", "q"]), values, max_size=4)


def record_for(pattern: Any) -> st.SearchStrategy[Any]:
    """A record of the pattern's shape, with arrays thrown in and names left out."""
    if isinstance(pattern, list):
        return st.just("a") | scalars | values
    conditions = dict(pattern)
    for alternative in conditions.pop("$or", []):
        conditions.update(alternative)
    members = {name: record_for(below) for name, below in conditions.items()}
    members = {name: shaped | several(shaped) for name, shaped in members.items()}
    return st.fixed_dictionaries(members) | st.fixed_dictionaries({}, optional=members)


def several(shaped: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(shaped, max_size=3) | st.lists(shaped | values, min_size=1, max_size=2)


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    pattern = draw(patterns)
    return pattern, draw(record_for(pattern))


@settings(max_examples=200, deadline=None)
@given(cases())
def test_patterns_decide_as_the_obvious_evaluator(
    case: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    pattern, record = case
    assert compile_filters([json.dumps(pattern)]).matches(record) == (
        obviously_matches(pattern, record)
    )


@settings(max_examples=200, deadline=None)
@given(entries, values)
def test_entries_decide_as_the_obvious_evaluator(entry: Any, value: Any) -> None:
    pattern = {"x": [entry]}
    assert compile_filters([json.dumps(pattern)]).matches({"x": value}) == (
        obviously_matches(pattern, {"x": value})
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(patterns, max_size=3), records)
def test_filters_are_alternatives(several: list[dict[str, Any]], record: dict[str, Any]) -> None:
    assert compile_filters([json.dumps(each) for each in several]).matches(record) == (
        not several or any(obviously_matches(each, record) for each in several)
    )
