"""The parameters from before expressions: Expected, filters, AttributeUpdates, KeyConditions, ...

They map onto the same trees as expressions, with their values inside as literals, where the two
agree; where they do not, the tree says what the legacy parameter means (NOT_CONTAINS is false for a
missing attribute) or the node knows that it is legacy (ADD to a list). The parameters come as
decoded JSON whose members have been checked for type and for the enumerations by the wire layer
(an operator is one of the thirteen); the values inside are validated and normalised here, in place.

Messages: dynalite's recordings of AWS, and the conformance suite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ..errors import InvalidRequest
from ..model.values import AttributeValue, check_value
from .keyconditions import KeyCondition, KeyConstraint
from .nodes import (
    And,
    BeginsWith,
    Between,
    Condition,
    ConditionNode,
    Contains,
    Equal,
    Exists,
    In,
    Literal,
    Not,
    NotEqual,
    NotExists,
    Or,
    Ordered,
    Path,
    Projection,
    order,
    select,
)
from .updates import Action, Add, Delete, Remove, Set, Update

_INVALID: Final = "One or more parameter values were invalid: "

_SCALARS: Final = frozenset("SNB")
# Since documents exist, equality takes any type.
_ANY: Final = frozenset(("S", "N", "B", "SS", "NS", "BS", "BOOL", "NULL", "L", "M"))
_SETS: Final = frozenset(("SS", "NS", "BS"))

# Operator: number of values (None for any number but zero) and the types that they may have.
_OPERATORS: Final[Mapping[str, tuple[int | None, frozenset[str]]]] = {
    "EQ": (1, _ANY),
    "NE": (1, _ANY),
    "LE": (1, _SCALARS),
    "LT": (1, _SCALARS),
    "GE": (1, _SCALARS),
    "GT": (1, _SCALARS),
    "NOT_NULL": (0, _ANY),
    "NULL": (0, _ANY),
    "CONTAINS": (1, _SCALARS),
    "NOT_CONTAINS": (1, _SCALARS),
    "BEGINS_WITH": (1, frozenset("SB")),
    "IN": (None, _SCALARS),
    "BETWEEN": (2, _SCALARS),
}
_ORDERING: Final = {"LE": "<=", "LT": "<", "GE": ">=", "GT": ">"}
_KEY_OPERATOR: Final = {
    "EQ": "=",
    "BEGINS_WITH": "begins_with",
    "BETWEEN": "BETWEEN",
    **_ORDERING,
}


# Conditions and filters --------------------------------------------------------------------------


def legacy_condition(expected: object, conditional_operator: object = None) -> Condition | None:
    """The Expected parameter, ``{name: {Exists, Value, ComparisonOperator, ...}}``; None for none.

    Raises InvalidRequest with DynamoDB's wording.
    """
    given = _mapping(expected)
    _check_conditional_operator(conditional_operator, given)
    parts: list[ConditionNode] = []
    for name, condition in (given or {}).items():
        parts.append(_expected(name, condition))
    return _joined(parts, given or {}, conditional_operator)


def legacy_filter(filter_: object, conditional_operator: object = None) -> Condition | None:
    """QueryFilter or ScanFilter, ``{name: {ComparisonOperator, AttributeValueList}}``."""
    given = _mapping(filter_)
    _check_conditional_operator(conditional_operator, given)
    parts: list[ConditionNode] = []
    for name, condition in (given or {}).items():
        operator, values = _comparison(condition)
        parts.append(_node(name, operator, values))
    return _joined(parts, given or {}, conditional_operator)


def _check_conditional_operator(operator: object, given: Mapping[str, Any] | None) -> None:
    if operator is None:
        return
    if not given:
        raise InvalidRequest("ConditionalOperator cannot be used without Filter or Expected")
    if len(given) == 1:
        raise InvalidRequest(
            "ConditionalOperator can only be used when Filter or Expected has two or more elements"
        )


def _joined(
    parts: list[ConditionNode], names: Mapping[str, Any], conditional_operator: object
) -> Condition | None:
    if not parts:
        return None
    root = parts[0]
    if len(parts) > 1:
        root = Or(tuple(parts)) if conditional_operator == "OR" else And(tuple(parts))
    return Condition(root, tuple(sorted(names)), ())


def _expected(name: str, condition: Mapping[str, Any]) -> ConditionNode:
    operator = condition.get("ComparisonOperator")
    listed = condition.get("AttributeValueList")
    exists = condition.get("Exists")
    value = condition.get("Value")
    if listed is not None and value is not None:
        raise InvalidRequest(
            f"{_INVALID}Value and AttributeValueList cannot be used together for Attribute: {name}"
        )
    if operator is not None:
        if exists is not None:
            raise InvalidRequest(
                f"{_INVALID}Exists and ComparisonOperator cannot be used together "
                f"for Attribute: {name}"
            )
        if operator not in ("NULL", "NOT_NULL") and listed is None and value is None:
            raise InvalidRequest(
                f"{_INVALID}Value or AttributeValueList must be used with ComparisonOperator: "
                f"{operator} for Attribute: {name}"
            )
        values = listed if listed is not None else [] if value is None else [value]
        return _node(name, operator, _checked(operator, values))
    if listed is not None:
        raise InvalidRequest(
            f"{_INVALID}AttributeValueList can only be used with a ComparisonOperator "
            f"for Attribute: {name}"
        )
    if exists is False:
        if value is not None:
            raise InvalidRequest(
                f"{_INVALID}Value cannot be used when Exists is false for Attribute: {name}"
            )
        return NotExists(Path((name,)))
    if value is None:
        raise InvalidRequest(
            f"{_INVALID}Value must be provided when Exists is "
            f"{'null' if exists is None else 'true'} for Attribute: {name}"
        )
    check_value(value)
    return Equal(Path((name,)), Literal(value))


def _comparison(condition: Mapping[str, Any]) -> tuple[str, list[AttributeValue]]:
    operator = condition["ComparisonOperator"]
    return operator, _checked(operator, condition.get("AttributeValueList") or [])


def _checked(operator: str, values: list[AttributeValue]) -> list[AttributeValue]:
    """Validate and normalise the values of one comparison."""
    for value in values:
        check_value(value)
    wanted, types = _OPERATORS[operator]
    if len(values) != wanted and not (wanted is None and values):
        raise InvalidRequest(
            f"{_INVALID}Invalid number of argument(s) for the {operator} ComparisonOperator"
        )
    found = [next(iter(value)) for value in values]
    if len(set(found)) > 1:
        raise InvalidRequest(
            f"{_INVALID}AttributeValues inside AttributeValueList must be of same type"
        )
    for tag in found:
        if tag not in types:
            raise InvalidRequest(
                f"{_INVALID}ComparisonOperator {operator} is not valid for {tag} "
                "AttributeValue type"
            )
    if operator == "BETWEEN" and order(values[0], values[1]) == 1:
        raise InvalidRequest(
            "The BETWEEN condition was provided a range where the lower bound is greater than "
            "the upper bound"
        )
    return values


def _node(name: str, operator: str, values: list[AttributeValue]) -> ConditionNode:
    path = Path((name,))
    literals = [Literal(value) for value in values]
    if operator == "NULL":
        return NotExists(path)
    if operator == "NOT_NULL":
        return Exists(path)
    if operator == "IN":
        return In(path, tuple(literals))
    if operator == "BETWEEN":
        return Between(path, literals[0], literals[1])
    if operator in _ORDERING:
        return Ordered(_ORDERING[operator], path, literals[0])
    if operator == "NOT_CONTAINS":
        # False for a missing attribute, unlike NOT contains(...).
        return And((Exists(path), Not(Contains(path, literals[0]))))
    return _BINARY[operator](path, literals[0])


_BINARY: Final[Mapping[str, Callable[[Path, Literal], ConditionNode]]] = {
    "EQ": Equal,
    "NE": NotEqual,
    "CONTAINS": Contains,
    "BEGINS_WITH": BeginsWith,
}


# Updates -----------------------------------------------------------------------------------------


def legacy_update(attribute_updates: object) -> Update:
    """AttributeUpdates, ``{name: {Action, Value}}``; Action is PUT if it is not there."""
    given = _mapping(attribute_updates) or {}
    actions = tuple([_action(name, update) for name, update in given.items()])
    return Update(
        actions,
        select(tuple([action.path.elements for action in actions])),
        tuple(sorted(given)),
        (),
        legacy=True,
    )


def _action(name: str, update: Mapping[str, Any]) -> Action:
    path = Path((name,))
    action = update.get("Action") or "PUT"
    value = update.get("Value")
    if value is None:
        if action != "DELETE":
            raise InvalidRequest(
                f"{_INVALID}Only DELETE action is allowed when no attribute value is specified"
            )
        return Remove(path)
    check_value(value)
    tag = next(iter(value))
    if action == "DELETE":
        if tag not in _SETS:
            raise InvalidRequest(
                f"{_INVALID}DELETE action with value is not supported for the type {tag}"
            )
        return Delete(path, Literal(value), legacy=True)
    if action == "ADD":
        if tag not in _SETS and tag not in ("N", "L"):
            raise InvalidRequest(f"{_INVALID}ADD action is not supported for the type {tag}")
        return Add(path, Literal(value), legacy=True)
    return Set(path, Literal(value))


# Keys and projections ----------------------------------------------------------------------------


def legacy_key_conditions(key_conditions: object) -> KeyCondition:
    """KeyConditions, ``{name: {ComparisonOperator, AttributeValueList}}``."""
    constraints: list[KeyConstraint] = []
    for name, condition in (_mapping(key_conditions) or {}).items():
        operator, values = _comparison(condition)
        literals = tuple([Literal(value) for value in values])
        constraints.append(KeyConstraint(name, _KEY_OPERATOR.get(operator, operator), literals))
    if not constraints:
        raise InvalidRequest("Conditions can be of length 1 or 2 only")
    return KeyCondition(tuple(constraints))


def legacy_projection(attributes_to_get: Sequence[str]) -> Projection:
    """AttributesToGet: top-level attributes, each once; dots in them mean nothing."""
    seen: set[str] = set()
    for name in attributes_to_get:
        if name in seen:
            raise InvalidRequest(f"{_INVALID}Duplicate value in attribute name: {name}")
        seen.add(name)
    paths = tuple([(name,) for name in attributes_to_get])
    return Projection(paths, select(paths), ())


# Mixing ------------------------------------------------------------------------------------------


def check_not_mixed(
    expressions: Mapping[str, object], legacy_parameters: Mapping[str, object]
) -> None:
    """Refuse a request with both kinds of parameter.

    Both map a parameter's name to what the request has for it, None if nothing, in DynamoDB's order
    (for a Query: ProjectionExpression, FilterExpression, KeyConditionExpression; AttributesToGet,
    QueryFilter, ConditionalOperator, KeyConditions). KeyConditions beside other expressions than
    KeyConditionExpression are allowed.
    """
    new = [name for name, value in expressions.items() if value is not None]
    old = [name for name, value in legacy_parameters.items() if value is not None]
    if "KeyConditions" in old and "KeyConditionExpression" not in new:
        old.remove("KeyConditions")
    if new and old:
        raise InvalidRequest(
            "Can not use both expression and non-expression parameters in the same request: "
            f"Non-expression parameters: {{{', '.join(old)}}} "
            f"Expression parameters: {{{', '.join(new)}}}"
        )


def _mapping(parameter: object) -> Mapping[str, Any] | None:
    assert parameter is None or isinstance(parameter, Mapping), "the wire layer checks JSON types"
    return parameter
