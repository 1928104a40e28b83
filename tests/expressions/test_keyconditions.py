"""What a key condition asks of a key schema."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.errors import InvalidRequest
from millstream.expressions import KeyRange, compile_expressions

TYPES = {"pk": "S", "sk": "N", "h2": "S", "a": "S", "b": "S", "c": "S", "d": "S"}
S = {"S": "x"}
ONE = {"N": "1"}
TWO = {"N": "2"}


def resolve(
    text: str,
    hash_names: tuple[str, ...] = ("pk",),
    range_names: tuple[str, ...] = ("sk",),
    **values: Any,
) -> KeyRange:
    given = {f":{name}": value for name, value in values.items()}
    condition = compile_expressions(key_condition=text, values=given or None).key_condition
    assert condition is not None
    return condition.resolve(hash_names, range_names, TYPES, given)


def error(*arguments: Any, **values: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        resolve(*arguments, **values)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "equal", "operator", "operands"),
    [
        ("pk = :p", (), None, ()),
        (" :p=pk ", (), None, ()),
        ("pk = :p AND sk = :one", (ONE,), None, ()),
        ("(sk = :one) AND (pk = :p)", (ONE,), None, ()),
        ("(pk = :p AND (sk < :one))", (), "<", (ONE,)),
        ("pk = :p AND sk <= :one", (), "<=", (ONE,)),
        ("pk = :p AND sk > :one", (), ">", (ONE,)),
        ("pk = :p AND sk >= :one", (), ">=", (ONE,)),
        # Written value first, the operator is mirrored.
        ("pk = :p AND :one < sk", (), ">", (ONE,)),
        ("pk = :p AND :one >= sk", (), "<=", (ONE,)),
        ("pk = :p AnD sk BeTwEeN :one aNd :two", (), "BETWEEN", (ONE, TWO)),
    ],
)
def test_one_sort_key(text: str, equal: Any, operator: str | None, operands: Any) -> None:
    values = {
        name: value
        for name, value in {"p": S, "one": ONE, "two": TWO}.items()
        if f":{name}" in text
    }
    assert resolve(text, **values) == KeyRange((S,), equal, operator, operands)


def test_begins_with() -> None:
    found = resolve("pk = :p AND begins_with(a, :v)", ("pk",), ("a",), p=S, v={"S": "ab"})
    assert found == KeyRange((S,), (), "begins_with", ({"S": "ab"},))


def test_the_operator_may_have_a_nested_group() -> None:
    found = resolve("((sk = :one) AND (pk = :p))", p=S, one=ONE)
    assert found == KeyRange((S,), (ONE,))


@pytest.mark.parametrize(
    ("text", "values", "wanted"),
    [
        ("sk = :one", {"one": ONE}, "Query condition missed key schema element: pk"),
        ("attr1 = :p", {"p": S}, "Query condition missed key schema element: pk"),
        (
            "pk = :p AND attr1 = :p",
            {"p": S},
            "Query condition missed key schema element: sk",
        ),
        ("pk < :p", {"p": S}, "Query key condition not supported"),
        (
            "pk = :p AND sk > :one AND extra = :two",
            {"p": S, "one": ONE, "two": TWO},
            "The number of query conditions (3) exceeds the number of key attributes defined in "
            "the schema (2)",
        ),
        (
            "pk = :one",
            {"one": ONE},
            "One or more parameter values were invalid: "
            "Condition parameter type does not match schema type",
        ),
        (
            "pk = :p AND sk = :p",
            {"p": S},
            "One or more parameter values were invalid: "
            "Condition parameter type does not match schema type",
        ),
        (
            "pk = :p AND begins_with(sk, :p)",
            {"p": S},
            "One or more parameter values were invalid: "
            "Condition parameter type does not match schema type",
        ),
    ],
)
def test_refused(text: str, values: dict[str, Any], wanted: str) -> None:
    assert error(text, **values) == wanted


def test_a_table_without_a_sort_key() -> None:
    assert resolve("pk = :p", ("pk",), (), p=S) == KeyRange((S,), ())
    assert error("pk = :p AND sk = :one", ("pk",), (), p=S, one=ONE) == (
        "The number of query conditions (2) exceeds the number of key attributes defined in "
        "the schema (1)"
    )


# Keys of several attributes ----------------------------------------------------------------------

RANGES = ("a", "b", "c", "d")


def several(text: str, **values: Any) -> KeyRange:
    return resolve(text, ("pk",), RANGES, **values)


def test_range_attributes_are_used_from_the_left() -> None:
    a, b, c, d = ({"S": letter} for letter in "abcd")
    assert several("pk = :p", p=S) == KeyRange((S,), ())
    assert several("b = :b AND pk = :p AND a = :a", p=S, a=a, b=b) == KeyRange((S,), (a, b))
    text = "pk = :p AND a = :a AND b = :b AND c > :c"
    assert several(text, p=S, a=a, b=b, c=c) == KeyRange((S,), (a, b), ">", (c,))
    text = "pk = :p AND a = :a AND b = :b AND c = :c AND begins_with(d, :d)"
    found = several(text, p=S, a=a, b=b, c=c, d=d)
    assert found == KeyRange((S,), (a, b, c), "begins_with", (d,))


@pytest.mark.parametrize(
    ("text", "missing", "present"),
    [
        ("pk = :p AND a = :p AND c = :p", "b", "c"),
        ("pk = :p AND a = :p AND b > :p AND c = :p", "b", "c"),
        ("pk = :p AND b = :p", "a", "b"),
    ],
)
def test_a_gap(text: str, missing: str, present: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        several(text, p=S)
    assert str(caught.value) == (
        f"RANGE key attributes {missing} must have equality conditions specified in the query "
        f"because a condition is present on key attribute {present}"
    )


def test_every_hash_attribute_needs_an_equality() -> None:
    other = {"S": "y"}
    found = resolve("h2 = :q AND pk = :p", ("pk", "h2"), ("a",), p=S, q=other)
    assert found == KeyRange((S, other), ())
    assert error("pk = :p", ("pk", "h2"), ("a",), p=S) == (
        "Query condition missed key schema element: h2"
    )
    assert error("pk = :p AND h2 < :p", ("pk", "h2"), ("a",), p=S) == (
        "Query key condition not supported"
    )
