"""Raw trees to conditions: the rules of condition, filter and key condition expressions.

The order in which errors are found is in rules.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import msgspec

from ..errors import InvalidRequest
from ..limits import IN_OPERANDS_MAX
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
    Not,
    NotEqual,
    NotExists,
    Operand,
    Or,
    Ordered,
    Path,
    Size,
    Values,
    order,
    render_path,
)
from .parser import Parsed, Raw, RawBoolean, RawFunction, RawLeaf, RawPath, RawValue, core_of
from .rules import (
    CONDITION_FUNCTIONS,
    NOT_THIS_WAY,
    Scope,
    Steps,
    check_count,
    check_function,
    check_reserved,
    check_shape,
    children,
    incorrect_type,
    inner_first,
    names_of,
    walk,
)

_ORDERED_TYPES: Final = frozenset("SNB")
_SIZED_TYPES: Final = frozenset(("S", "B", "SS", "NS", "BS", "L", "M"))
_TYPE_NAMES: Final = frozenset(("S", "N", "B", "NULL", "SS", "BOOL", "L", "BS", "NS", "M"))


# Checks of contents ------------------------------------------------------------------------------
#
# What the compiler keeps depends on the types of the values only. Rules about their contents are
# kept beside the tree and checked again with every request.


class BoundsCheck(msgspec.Struct, frozen=True):
    """``BETWEEN :low AND :high`` must not be reversed."""

    low: str
    high: str

    def check(self, values: Values) -> None:
        """Raises InvalidRequest."""
        low, high = values[self.low], values[self.high]
        if order(low, high) == 1:
            raise InvalidRequest(
                "The BETWEEN operator requires upper bound to be greater than or equal to lower "
                f"bound; {_bounds(low, high)}"
            )


class TypeNameCheck(msgspec.Struct, frozen=True):
    """``attribute_type(path, :type)`` needs the name of a type."""

    type: str

    def check(self, values: Values) -> None:
        """Raises InvalidRequest."""
        name = values[self.type]["S"]
        if name not in _TYPE_NAMES:
            raise InvalidRequest(
                f"Invalid attribute type name found; type: {name}, "
                "valid types: {B,NULL,SS,BOOL,L,BS,N,NS,S,M}"
            )


ContentCheck = BoundsCheck | TypeNameCheck


def _bounds(low: AttributeValue, high: AttributeValue) -> str:
    (low_type, low_content), (high_type, high_content) = *low.items(), *high.items()
    return (
        f"lower bound operand: AttributeValue: {{{low_type}:{low_content}}}, "
        f"upper bound operand: AttributeValue: {{{high_type}:{high_content}}}"
    )


# Conditions --------------------------------------------------------------------------------------


def build_condition(
    parsed: Parsed, scope: Scope, values: Values
) -> tuple[Condition, tuple[ContentCheck, ...]]:
    """A condition, and what is to be checked of its values with every request."""
    assert parsed.condition is not None
    check_shape(parsed)
    nodes = list(walk(parsed.condition))
    for node in nodes:
        if isinstance(node, RawFunction):
            check_function(node.name, CONDITION_FUNCTIONS, "a condition")
    _check_places(parsed.condition, nodes)
    check_reserved(nodes)
    builder = _ConditionBuilder(scope, values)
    root = builder.build(parsed.condition)
    names, nested = names_of(builder.paths)
    return Condition(root, names, nested), tuple(builder.checks)


def _check_places(root: Raw, nodes: list[Raw]) -> None:
    """``size`` is only an operand and the other functions are only conditions."""
    core = core_of(root)
    if isinstance(core, RawFunction) and core.name == "size":
        raise InvalidRequest(NOT_THIS_WAY + core.name)
    for node in nodes:
        is_condition = isinstance(node, RawBoolean)
        for child in map(core_of, children(node)):
            if isinstance(child, RawFunction) and (child.name == "size") == is_condition:
                raise InvalidRequest(NOT_THIS_WAY + child.name)


class _ConditionBuilder:
    __slots__ = ("_scope", "_values", "checks", "paths")

    def __init__(self, scope: Scope, values: Values) -> None:
        self._scope = scope
        self._values = values
        self.checks: list[ContentCheck] = []
        self.paths: list[Steps] = []

    def build(self, raw: Raw) -> ConditionNode:
        """One frame an operator: the number of operators bounds the depth."""
        raw = core_of(raw)
        if isinstance(raw, RawBoolean):
            parts: list[ConditionNode] = []
            for part in raw.parts:
                parts.append(self.build(part))
            if raw.operator == "NOT":
                return Not(parts[0])
            return And(tuple(parts)) if raw.operator == "AND" else Or(tuple(parts))
        if isinstance(raw, RawFunction):
            return self._function(raw)
        assert isinstance(raw, RawLeaf), "the parser makes conditions of nothing else"
        return self._leaf(raw)

    def _leaf(self, raw: RawLeaf) -> ConditionNode:
        operator = raw.operator
        self._scope.define(raw.operands)
        if operator == "IN" and len(raw.operands) - 1 > IN_OPERANDS_MAX:
            raise InvalidRequest(
                "The IN operator is provided with too many operands; "
                f"number of operands: {len(raw.operands) - 1}"
            )
        self._check_calls(raw.operands)
        self._check_distinct(operator, raw.operands)
        for operand in raw.operands:
            self._check_size(operand)
        if operator not in ("=", "<>", "IN"):
            for operand in raw.operands:
                self._check_type(operator, operand, _ORDERED_TYPES)
        if operator == "BETWEEN":
            self._check_bounds(raw.operands[1], raw.operands[2])
        operands = [self._operand(operand) for operand in raw.operands]
        if operator == "IN":
            return In(operands[0], tuple(operands[1:]))
        if operator == "BETWEEN":
            return Between(*operands)
        if operator == "=":
            return Equal(*operands)
        if operator == "<>":
            return NotEqual(*operands)
        return Ordered(operator, *operands)

    def _function(self, raw: RawFunction) -> ConditionNode:
        name, arguments = raw.name, raw.arguments
        self._scope.define(arguments)
        self._check_calls((raw,))
        self._check_distinct(name, arguments)
        for argument in arguments:
            self._check_size(argument)
        if name in ("attribute_exists", "attribute_not_exists"):
            path = core_of(arguments[0])
            if not isinstance(path, RawPath):
                raise InvalidRequest(
                    f"Operator or function requires a document path; operator or function: {name}"
                )
            resolved = self._path(path)
            return Exists(resolved) if name == "attribute_exists" else NotExists(resolved)
        if name == "begins_with":
            for argument in arguments:
                self._check_type(name, argument, ("S", "B"))
        elif name == "attribute_type":
            self._check_type_name(arguments[1])
        first, second = (self._operand(argument) for argument in arguments)
        if name == "begins_with":
            return BeginsWith(first, second)
        if name == "attribute_type":
            return HasType(first, second)
        assert name == "contains"
        return Contains(first, second)

    def _operand(self, raw: Raw) -> Operand:
        raw = core_of(raw)
        if isinstance(raw, RawPath):
            return self._path(raw)
        if isinstance(raw, RawValue):
            return self._scope.placeholder(raw)
        assert isinstance(raw, RawFunction)
        assert raw.name == "size"
        return Size(self._operand(raw.arguments[0]))

    def _path(self, raw: RawPath) -> Path:
        path = self._scope.path(raw)
        self.paths.append(path.elements)
        return path

    def _check_calls(self, raws: Iterable[Raw]) -> None:
        for raw in raws:
            for node in inner_first(raw):
                if isinstance(node, RawFunction):
                    check_count(node, CONDITION_FUNCTIONS)

    def _check_distinct(self, operator: str, operands: tuple[Raw, ...]) -> None:
        first = core_of(operands[0])
        if not isinstance(first, RawPath):
            return
        steps = self._scope.path(first).elements
        for other in map(core_of, operands[1:]):
            if isinstance(other, RawPath) and self._scope.path(other).elements == steps:
                raise InvalidRequest(
                    "The first operand must be distinct from the remaining operands for this "
                    f"operator or function; operator: {operator}, "
                    f"first operand: {render_path(steps)}"
                )

    def _check_size(self, raw: Raw) -> None:
        # The argument of size may be a size in its turn, whose number then has no size.
        raw = core_of(raw)
        while isinstance(raw, RawFunction):
            argument = core_of(raw.arguments[0])
            self._check_type("size", argument, _SIZED_TYPES)
            raw = argument

    def _check_type(self, operator: str, operand: Raw, allowed: Collection[str]) -> None:
        found = "N" if isinstance(core_of(operand), RawFunction) else self._scope.type_of(operand)
        if found is not None and found not in allowed:
            raise incorrect_type(operator, found)

    def _check_type_name(self, operand: Raw) -> None:
        found = self._scope.type_of(operand)
        if found != "S":
            every = "{NS,SS,L,BS,N,M,B,BOOL,NULL,S}"
            raise incorrect_type("attribute_type", found or every)
        placeholder = core_of(operand)
        assert isinstance(placeholder, RawValue)
        self._remember(TypeNameCheck(placeholder.name))

    def _check_bounds(self, low: Raw, high: Raw) -> None:
        low, high = core_of(low), core_of(high)
        if not isinstance(low, RawValue) or not isinstance(high, RawValue):
            return
        if self._scope.type_of(low) != self._scope.type_of(high):
            raise InvalidRequest(
                "The BETWEEN operator requires same data type for lower and upper bounds; "
                + _bounds(self._values[low.name], self._values[high.name])
            )
        self._remember(BoundsCheck(low.name, high.name))

    def _remember(self, check: ContentCheck) -> None:
        check.check(self._values)
        self.checks.append(check)
