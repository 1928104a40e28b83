"""KeyConditionExpression and KeyConditions: which keys a Query asks for.

DynamoDB parses a key condition as it parses any condition and then refuses most of what parsed;
``key_condition`` is that second step. What it needs the table for (which attributes are the key, of
what type, how many) waits for ``resolve``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ..errors import InvalidRequest
from ..model.values import AttributeValue
from .nodes import (
    And,
    BeginsWith,
    Between,
    Condition,
    ConditionNode,
    Contains,
    Equal,
    Exists,
    HasType,
    In,
    Literal,
    Not,
    NotEqual,
    NotExists,
    Operand,
    Or,
    Ordered,
    Path,
    Placeholder,
    Size,
    Values,
)

_MIRRORED: Final = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
# The legacy operators that no key can be looked up by.
NOT_INDEXABLE: Final = frozenset(("NE", "IN", "NULL", "NOT_NULL", "CONTAINS", "NOT_CONTAINS"))

_NO_OPERATOR: Final = "Invalid operator used in KeyConditionExpression: "
_NO_CONDITION: Final = "Invalid condition in KeyConditionExpression: "
_NOT_SUPPORTED: Final = "Query key condition not supported"
_MISSED: Final = "Query condition missed key schema element: "
_WRONG_TYPE: Final = (
    "One or more parameter values were invalid: Condition parameter type does not match schema type"
)


class KeyConstraint(msgspec.Struct, frozen=True):
    """What the condition says of one attribute.

    ``operator`` is one of ``= < <= > >= BETWEEN begins_with``, or for the legacy parameter also one
    of NOT_INDEXABLE, which ``resolve`` refuses.
    """

    name: str
    operator: str
    operands: tuple[Placeholder | Literal, ...]


class KeyRange(msgspec.Struct, frozen=True):
    """The keys that a Query asks for.

    ``hash_values`` has one value for every HASH attribute and ``range_equal`` one for each of the
    first RANGE attributes, in the order of the key schema. ``operator`` (one of ``< <= > >= BETWEEN
    begins_with``) with ``operands`` then limits the next RANGE attribute; None if nothing does.
    """

    hash_values: tuple[AttributeValue, ...]
    range_equal: tuple[AttributeValue, ...]
    operator: str | None = None
    operands: tuple[AttributeValue, ...] = ()


class KeyCondition(msgspec.Struct, frozen=True, tag=True):
    """A key condition, at most one constraint an attribute, in the order of the text."""

    constraints: tuple[KeyConstraint, ...]

    def resolve(
        self,
        hash_names: Sequence[str],
        range_names: Sequence[str],
        key_types: Mapping[str, str],
        values: Values,
    ) -> KeyRange:
        """Match the condition with a key schema.

        ``key_types`` gives S, N or B for each key attribute. Raises InvalidRequest with DynamoDB's
        wording: every HASH attribute needs an equality; RANGE attributes are used from the first
        on without a gap, and only the last used may have another operator than equality.
        """
        by_name = {constraint.name: constraint for constraint in self.constraints}
        key_names = (*hash_names, *range_names)
        if len(by_name) > len(key_names):
            raise InvalidRequest(
                f"The number of query conditions ({len(by_name)}) exceeds the number of key "
                f"attributes defined in the schema ({len(key_names)})"
            )
        foreign = any(name not in key_names for name in by_name)
        for name in key_names:
            constraint = by_name.get(name)
            if constraint is None:
                if name in hash_names or foreign:
                    raise InvalidRequest(_MISSED + name)
                continue
            _check_operands(constraint, key_types[name], values)
            if name in hash_names and constraint.operator != "=":
                raise InvalidRequest(_NOT_SUPPORTED)
        used = [position for position, name in enumerate(range_names) if name in by_name]
        last = used[-1] if used else -1
        gaps = [name for name in range_names[: max(last, 0)] if not _is_equality(by_name.get(name))]
        if gaps:
            raise InvalidRequest(
                f"RANGE key attributes {', '.join(gaps)} must have equality conditions specified "
                f"in the query because a condition is present on key attribute {range_names[last]}"
            )
        hash_values = tuple([_operands(by_name[name], values)[0] for name in hash_names])
        equal = [by_name[name] for name in range_names[: last + 1]]
        operator: str | None = None
        operands: tuple[AttributeValue, ...] = ()
        if equal and equal[-1].operator != "=":
            final = equal.pop()
            operator, operands = final.operator, _operands(final, values)
        range_equal = tuple([_operands(constraint, values)[0] for constraint in equal])
        return KeyRange(hash_values, range_equal, operator, operands)

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes that it names, in the order of the text."""
        return tuple([constraint.name for constraint in self.constraints])


def _is_equality(constraint: KeyConstraint | None) -> bool:
    return constraint is not None and constraint.operator == "="


def _operands(constraint: KeyConstraint, values: Values) -> tuple[AttributeValue, ...]:
    return tuple(
        [
            values[operand.name] if isinstance(operand, Placeholder) else operand.value
            for operand in constraint.operands
        ]
    )


def _check_operands(constraint: KeyConstraint, key_type: str, values: Values) -> None:
    if constraint.operator in NOT_INDEXABLE:
        raise InvalidRequest("Attempted conditional constraint is not an indexable operation")
    for value in _operands(constraint, values):
        if key_type not in value:
            raise InvalidRequest(_WRONG_TYPE)
    if constraint.operator == "begins_with" and key_type == "N":
        # Only the legacy parameter comes here: an expression refuses a number before.
        raise InvalidRequest(_NOT_SUPPORTED)


# From a condition --------------------------------------------------------------------------------


def key_condition(condition: Condition) -> KeyCondition:
    """What is left of a condition when it must be a key condition.

    Raises InvalidRequest without the prefix that names the expression.
    """
    constraints: list[KeyConstraint] = []
    # Nested ANDs come from parentheses; a stack, for they nest as deep as the text likes.
    waiting: list[ConditionNode] = [condition.root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, And):
            waiting.extend(reversed(node.parts))
            continue
        constraint = _constraint(node)
        if any(constraint.name == other.name for other in constraints):
            raise InvalidRequest("KeyConditionExpressions must only contain one condition per key")
        constraints.append(constraint)
    return KeyCondition(tuple(constraints))


def _constraint(node: ConditionNode) -> KeyConstraint:
    if isinstance(node, (Or, Not, In, NotEqual, Exists, NotExists, HasType, Contains)):
        raise InvalidRequest(_NO_OPERATOR + _REFUSED[type(node)])
    if isinstance(node, Between):
        return _led_by_key("BETWEEN", node.operand, (node.low, node.high))
    if isinstance(node, BeginsWith):
        return _led_by_key("begins_with", node.operand, (node.prefix,))
    assert isinstance(node, (Equal, Ordered)), "And is taken apart by the caller"
    operator = "=" if isinstance(node, Equal) else node.operator
    name = _only_name((node.left, node.right))
    if isinstance(node.left, Path):
        return KeyConstraint(name, operator, _given((node.right,)))
    return KeyConstraint(name, _MIRRORED[operator], _given((node.left,)))


_REFUSED: Final[dict[type, str]] = {
    Or: "OR",
    Not: "NOT",
    In: "IN",
    NotEqual: "<>",
    Exists: "attribute_exists",
    NotExists: "attribute_not_exists",
    HasType: "attribute_type",
    Contains: "contains",
}


def _led_by_key(operator: str, first: Operand, others: tuple[Operand, ...]) -> KeyConstraint:
    if isinstance(first, (Placeholder, Literal)):
        raise InvalidRequest(
            f"{_NO_CONDITION}{operator} operator must have the key attribute as its first operand"
        )
    return KeyConstraint(_only_name((first, *others)), operator, _given(others))


def _only_name(operands: tuple[Operand, ...]) -> str:
    """The one attribute among the operands."""
    names: list[str] = []
    for operand in operands:
        if isinstance(operand, Size):
            raise InvalidRequest("KeyConditionExpressions cannot contain nested operations")
        if not isinstance(operand, Path):
            continue
        if names:
            raise InvalidRequest(f"{_NO_CONDITION}Multiple attribute names used in one condition")
        if len(operand.elements) > 1:
            raise InvalidRequest(
                "KeyConditionExpressions cannot have conditions on nested attributes"
            )
        names.append(str(operand.elements[0]))
    if not names:
        raise InvalidRequest(f"{_NO_CONDITION}No key attribute specified")
    return names[0]


def _given(operands: tuple[Operand, ...]) -> tuple[Placeholder | Literal, ...]:
    given = tuple([o for o in operands if isinstance(o, (Placeholder, Literal))])
    assert len(given) == len(operands), "the only path is the key attribute"
    return given
