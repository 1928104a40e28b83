"""Properties over generated expressions: against naive oracles, and for any text at all."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from millstream.errors import InvalidRequest
from millstream.expressions import Compiled, compile_expressions
from millstream.expressions.compiler import _Cache

BOUNDED = settings(max_examples=80, deadline=None, derandomize=True, database=None)

# Values and items --------------------------------------------------------------------------------

NUMBERS = st.sampled_from(["-2", "0", "1", "1.5", "10"]).map(lambda text: {"N": text})
STRINGS = st.sampled_from(["", "a", "ab", "b", "ä"]).map(lambda text: {"S": text})
SCALARS = NUMBERS | STRINGS | st.sampled_from([{"BOOL": True}, {"NULL": True}, {"B": "AAE="}])
SETS = st.sampled_from([{"SS": ["a", "b"]}, {"SS": ["b"]}, {"NS": ["1", "10"]}])
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS | SETS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda members: {"L": members})
        | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3).map(lambda m: {"M": m})
    ),
    max_leaves=6,
)
ITEMS: st.SearchStrategy[Any] = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)
STEPS = st.lists(st.sampled_from("xyz") | st.integers(0, 3), max_size=2)
PATHS = st.tuples(st.sampled_from("abcd"), STEPS).map(lambda parts: (parts[0], *parts[1]))


def spell(path: tuple[Any, ...]) -> str:
    first, *rest = path
    return first + "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in rest)


def look_up(item: Any, path: tuple[Any, ...]) -> Any:
    """Naively: an item is a map, None is missing."""
    value: Any = {"M": item}
    for step in path:
        if isinstance(step, str):
            value = value.get("M", {}).get(step)
        else:
            value = dict(enumerate(value.get("L", []))).get(step)
        if value is None:
            return None
    return value


def compiled(**request: Any) -> tuple[Any, str]:
    """The one tree, or None and why not. Any other exception is a failure."""
    try:
        trees = compile_expressions(**request)
    except InvalidRequest as error:
        return None, str(error)
    language = next(iter(request))
    return getattr(trees, language), ""


# Conditions against an oracle --------------------------------------------------------------------

Oracle = Callable[[Any, Any], bool]
Operand = tuple[str, Callable[[Any, Any], Any]]


def path_operand(path: tuple[Any, ...]) -> Operand:
    return spell(path), lambda item, values: look_up(item, path)


OPERANDS: st.SearchStrategy[Operand] = PATHS.map(path_operand) | st.sampled_from(
    [(name, lambda item, values, name=name: values[name]) for name in (":n", ":s")]
)


def rank(value: Any) -> Any:
    """Something that orders within one type, or None."""
    if value is None:
        return None
    ((tag, content),) = value.items()
    if tag == "N":
        return ("N", Decimal(content))
    if tag == "S":
        return ("S", content.encode())
    if tag == "B":
        return ("B", content)
    return None


def ordered(left: Any, right: Any, decide: Callable[[Any, Any], bool]) -> bool:
    a, b = rank(left), rank(right)
    return a is not None and b is not None and a[0] == b[0] and decide(a[1], b[1])


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a is not None and b is not None and a == b,
    "<>": lambda a, b: a is None or b is None or a != b,
    "<": lambda a, b: ordered(a, b, lambda x, y: x < y),
    "<=": lambda a, b: ordered(a, b, lambda x, y: x <= y),
    ">": lambda a, b: ordered(a, b, lambda x, y: x > y),
    ">=": lambda a, b: ordered(a, b, lambda x, y: x >= y),
}


def comparison(operator: str, left: Operand, right: Operand) -> tuple[str, Oracle]:
    decide = COMPARISONS[operator]
    return (
        f"{left[0]} {operator} {right[0]}",
        lambda item, values: decide(left[1](item, values), right[1](item, values)),
    )


def membership(operand: Operand, choices: list[Operand]) -> tuple[str, Oracle]:
    return (
        f"{operand[0]} IN ({', '.join(choice[0] for choice in choices)})",
        lambda item, values: any(
            COMPARISONS["="](operand[1](item, values), choice[1](item, values))
            for choice in choices
        ),
    )


def between(operand: Operand, low: Operand, high: Operand) -> tuple[str, Oracle]:
    def decide(item: Any, values: Any) -> bool:
        value = operand[1](item, values)
        return COMPARISONS[">="](value, low[1](item, values)) and COMPARISONS["<="](
            value, high[1](item, values)
        )

    return f"{operand[0]} BETWEEN {low[0]} AND {high[0]}", decide


def existence(path: tuple[Any, ...]) -> tuple[str, Oracle]:
    return (
        f"attribute_exists({spell(path)})",
        lambda item, values: look_up(item, path) is not None,
    )


LEAVES: st.SearchStrategy[tuple[str, Oracle]] = (
    st.builds(comparison, st.sampled_from(sorted(COMPARISONS)), OPERANDS, OPERANDS)
    | st.builds(membership, OPERANDS, st.lists(OPERANDS, min_size=1, max_size=3))
    | st.builds(between, OPERANDS, OPERANDS, OPERANDS)
    | st.builds(existence, PATHS)
)


def joined(operator: str, parts: list[tuple[str, Oracle]]) -> tuple[str, Oracle]:
    fold = all if operator == "AND" else any
    # Each part in parentheses of its own but the last: the precedence must not matter there.
    text = f" {operator} ".join(f"({text})" for text, _ in parts)
    return text, lambda item, values: fold(decide(item, values) for _, decide in parts)


def negated(part: tuple[str, Oracle]) -> tuple[str, Oracle]:
    return f"NOT ({part[0]})", lambda item, values: not part[1](item, values)


CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(joined, st.sampled_from(["AND", "OR"]), st.lists(inner, min_size=2, max_size=3))
        | inner.map(negated)
    ),
    max_leaves=6,
)


@BOUNDED
@given(CONDITIONS, ITEMS | st.none(), NUMBERS, STRINGS)
def test_conditions_decide_as_the_oracle(
    condition: tuple[str, Oracle], item: Any, number: Any, string: Any
) -> None:
    text, decide = condition
    values = {name: value for name, value in ((":n", number), (":s", string)) if name in text}
    tree, refusal = compiled(condition=text, values=values or None)
    if tree is None:
        assert "distinct" in refusal or "BETWEEN" in refusal
        return
    assert tree.matches(item, values) == decide(item or {}, values)
    packed = msgspec.msgpack.encode(tree)
    assert msgspec.msgpack.decode(packed, type=type(tree)) == tree


# Updates against an oracle -----------------------------------------------------------------------


def clause_texts(clauses: list[tuple[str, tuple[Any, ...], str]]) -> str:
    """One section each for SET and REMOVE."""
    sets = [f"{spell(path)} = {source}" for kind, path, source in clauses if kind == "SET"]
    removes = [spell(path) for kind, path, _ in clauses if kind == "REMOVE"]
    sections = []
    if sets:
        sections.append("SET " + ", ".join(sets))
    if removes:
        sections.append("REMOVE " + ", ".join(removes))
    return " ".join(sections)


class Gone(Exception):
    """The oracle's word for a path that is invalid for update."""


def naive_update(item: Any, clauses: list[tuple[str, tuple[Any, ...], str]], values: Any) -> Any:
    """Lists become dicts by index, so that nothing moves until all clauses are done."""

    def open_up(value: Any) -> Any:
        ((tag, content),) = value.items()
        if tag == "M":
            return {"M": {name: open_up(member) for name, member in content.items()}}
        if tag == "L":
            return {"L": {index: open_up(member) for index, member in enumerate(content)}}
        return value

    def close(value: Any) -> Any:
        ((tag, content),) = value.items()
        if tag == "M":
            return {"M": {name: close(member) for name, member in content.items()}}
        if tag == "L":
            return {"L": [close(content[index]) for index in sorted(content)]}
        return value

    # The old item's values first: DynamoDB refuses these before it looks at a target.
    sources: list[Any] = []
    for kind, _, source in clauses:
        value = None
        if kind == "SET":
            value = values[source] if source[0] == ":" else item.get(source)
            if value is None:
                raise Gone
        sources.append(value)
    after = open_up({"M": item})
    for (kind, path, _), value in zip(clauses, sources, strict=True):
        parent = after
        for step in path[:-1]:
            container = parent.get("M" if isinstance(step, str) else "L")
            if container is None or step not in container:
                raise Gone
            parent = container[step]
        container = parent.get("M" if isinstance(path[-1], str) else "L")
        if container is None:
            raise Gone
        if kind == "SET":
            container[path[-1]] = open_up(value)
        else:
            container.pop(path[-1], None)
    return close(after)["M"]


def is_possible(item: Any, clause: tuple[str, tuple[Any, ...], str], values: Any) -> bool:
    try:
        naive_update(item, [clause], values)
    except Gone:
        return False
    return True


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A map of x and y, or a list of two to four, so that paths often lead somewhere."""
    return st.tuples(inner, inner).map(lambda pair: {"M": {"x": pair[0], "y": pair[1]}}) | st.lists(
        inner, min_size=2, max_size=4
    ).map(lambda members: {"L": members})


DOCUMENTS = st.fixed_dictionaries(
    {"a": containers(containers(SCALARS)), "b": containers(SCALARS | containers(SCALARS))}
)
TARGETS = st.tuples(
    st.sampled_from("aabbc"), st.lists(st.sampled_from(["x", "y", "z", 0, 1, 5, 7]), max_size=2)
).map(lambda parts: (parts[0], *parts[1]))
CLAUSES = st.lists(
    st.tuples(
        st.sampled_from(["SET", "REMOVE"]),
        TARGETS,
        st.sampled_from([":v", ":w", ":v", ":w", "a", "c"]),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda clause: clause[1],
)


@settings(BOUNDED, max_examples=250)
@given(CLAUSES, DOCUMENTS, VALUES, VALUES, st.booleans())
def test_updates_change_what_the_oracle_changes(
    clauses: list[tuple[str, tuple[Any, ...], str]], item: Any, one: Any, two: Any, tidy: bool
) -> None:
    if tidy:
        # Only clauses that would do alone: or else hardly any update of several succeeds.
        given_ = {":v": one, ":w": two}
        clauses = [clause for clause in clauses if is_possible(item, clause, given_)]
        assume(clauses)
    text = clause_texts(clauses)
    values = {name: value for name, value in ((":v", one), (":w", two)) if name in text}
    update, refusal = compiled(update=text, values=values or None)
    if update is None:
        assert "document paths" in refusal
        return
    before = copy.deepcopy(item)
    try:
        wanted = naive_update(item, clauses, values)
    except Gone:
        with pytest.raises(InvalidRequest):
            update.apply(item, {}, values)
        return
    finally:
        assert item == before
    outcome = update.apply(item, {}, values)
    assert outcome.new_item == wanted
    assert item == before
    assert update.updated_old(item) == naive_projection(item, [path for _, path, _ in clauses])


# Projections against an oracle -------------------------------------------------------------------


def naive_projection(item: Any, paths: list[tuple[Any, ...]]) -> Any:
    """Keep a leaf when a path leads to it or above it; drop what then is empty."""

    def keep(value: Any, here: tuple[Any, ...]) -> Any:
        if any(here[: len(path)] == path for path in paths):
            return value
        ((tag, content),) = value.items()
        if not any(path[: len(here)] == here for path in paths):
            return None
        if tag == "M":
            kept = {name: keep(member, (*here, name)) for name, member in content.items()}
            members = {name: member for name, member in kept.items() if member is not None}
            return {"M": members} if members else None
        if tag == "L":
            elements = [keep(member, (*here, index)) for index, member in enumerate(content)]
            found = [element for element in elements if element is not None]
            return {"L": found} if found else None
        return None

    kept = keep({"M": item}, ())
    return kept["M"] if kept else {}


@BOUNDED
@given(st.lists(PATHS, min_size=1, max_size=4), ITEMS)
def test_projections_keep_what_the_oracle_keeps(paths: list[tuple[Any, ...]], item: Any) -> None:
    projection, refusal = compiled(projection=", ".join(map(spell, paths)))
    if projection is None:
        assert "document paths" in refusal
        return
    assert projection.project(item) == naive_projection(item, paths)


# Any text ----------------------------------------------------------------------------------------

LANGUAGES = ("condition", "filter", "projection", "update", "key_condition")
TOKENS = st.sampled_from(
    [
        *("a", "b.c", "#n", ":v", "(", ")", ",", "=", "<>", "<", ">=", "+", "-", ".", "[", "]"),
        *("0", "12", "AND", "OR", "NOT", "BETWEEN", "IN", "SET", "REMOVE", "ADD", "DELETE"),
        *("size", "attribute_exists", "begins_with", "contains", "attribute_type"),
        *("if_not_exists", "list_append", "_", "!", "9a", "status", "#", ":"),
    ]
)
TEXTS = st.text(max_size=40) | st.lists(TOKENS, max_size=25).map(" ".join)


@settings(BOUNDED, max_examples=150)
@given(st.sampled_from(LANGUAGES), TEXTS, VALUES)
def test_any_text_compiles_or_is_refused(language: str, text: str, value: Any) -> None:
    placeholders = {"names": {"#n": "name"}, "values": {":v": value}}
    for given_ in ({}, placeholders):
        tree, refusal = compiled(**{language: text}, **given_)
        assert (
            refusal or msgspec.msgpack.decode(msgspec.msgpack.encode(tree), type=type(tree)) == tree
        )


DEEP = [
    "(" * 4096,
    "(" * 2040 + "a" + ")" * 2040 + " = :v",
    "(" * 2040 + "a = :v" + ")" * 2040,
    "NOT" + "(NOT" * 1000,
    "NOT(" * 800 + "a = :v" + ")" * 800,
    "NOT " * 1000 + "a = :v",
    "size(" * 600 + "a" + ")" * 600 + " = :v",
    "f(" * 2047,
    "a" + "[0]" * 1300,
    "a" + ".b" * 2000,
    "SET a = " + "list_append(a," * 280,
    "SET a = " + "if_not_exists(a," * 200 + "b" + ")" * 200,
    "SET a = " + "(" * 2000 + "b" + ")" * 2000,
    "a IN (" + "(" * 2000 + "b" + ")" * 2000 + ")",
    "(a = :v AND " * 330,
]


@pytest.mark.parametrize("text", DEEP, ids=range(len(DEEP)))
@pytest.mark.parametrize("language", LANGUAGES)
def test_depth_costs_no_stack(language: str, text: str) -> None:
    assert len(text) <= 4096
    limit = sys.getrecursionlimit()
    # What is left of the interpreter's stack deep inside a server.
    sys.setrecursionlimit(len(inspect.stack()) + 400)
    try:
        compile_expressions(**{language: text}, values={":v": {"N": "1"}})
    except InvalidRequest:
        pass
    finally:
        sys.setrecursionlimit(limit)


def test_the_deepest_allowed_trees_evaluate() -> None:
    values = {":v": {"N": "1"}}
    text = "NOT(" * 299 + "a = :v" + ")" * 299
    condition = compile_expressions(condition=text, values=values).condition
    assert condition is not None
    assert not condition.matches({"a": {"N": "1"}}, values)
    packed = msgspec.msgpack.encode(condition)
    assert msgspec.msgpack.decode(packed, type=type(condition)) == condition
    text = "SET a = " + "if_not_exists(a," * 200 + ":v" + ")" * 200
    update = compile_expressions(update=text, values=values).update
    assert update is not None
    assert update.apply(None, {}, values).new_item == {"a": {"N": "1"}}


# The memory --------------------------------------------------------------------------------------


def test_the_cache_forgets_the_least_recently_used() -> None:
    cache = _Cache(2)
    for name in ("a", "b"):
        cache.put((name,), (Compiled(), ()))
    assert cache.get(("a",)) is not None
    cache.put(("c",), (Compiled(), ()))
    assert cache.get(("b",)) is None
    assert cache.get(("a",)) is not None
    assert len(cache) == 2
