"""Raw trees to trees: every rule of the expression languages that is not syntax.

DynamoDB reports one error of an expression, the first by this order, and within a line the first in
the text (dynalite's recordings of AWS; the conformance suite):

- any condition: redundant parentheses; too many operators; functions that do not exist, or not
  here; functions used where they have no place; reserved words; and then leaf by leaf (a leaf is
  one comparison, BETWEEN, IN or function): undefined placeholders, the number of operands, distinct
  operands, types of operands, contents of operands;
- an update: redundant parentheses; too many operators; reserved words; functions; sections;
  undefined placeholders; overlapping and conflicting paths; types of operands;
- a projection: reserved words; undefined placeholders; overlapping and conflicting paths.

Errors are raised without the prefix that names the expression: the compiler knows it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from ..errors import InvalidRequest
from ..limits import (
    EXPRESSION_OPERATORS_MAX,
    IN_OPERANDS_MAX,
    LIST_INDEX_MAX,
    NESTING_LEVELS_MAX,
)
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
    Placeholder,
    Projection,
    Size,
    Values,
    order,
    render_path,
    select,
)
from .parser import (
    Parsed,
    Raw,
    RawAction,
    RawArithmetic,
    RawBoolean,
    RawFunction,
    RawGroup,
    RawLeaf,
    RawPath,
    RawValue,
    core_of,
)
from .reserved import is_reserved
from .updates import (
    Action,
    Add,
    Arithmetic,
    Assigned,
    Delete,
    IfNotExists,
    ListAppend,
    Remove,
    Set,
    Update,
)

_OPERANDS_OF_CONDITION_FUNCTION: Final = {
    "attribute_exists": 1,
    "attribute_not_exists": 1,
    "attribute_type": 2,
    "begins_with": 2,
    "contains": 2,
    "size": 1,
}
_OPERANDS_OF_UPDATE_FUNCTION: Final = {"if_not_exists": 2, "list_append": 2}
_ORDERED_TYPES: Final = frozenset("SNB")
_TYPE_NAMES: Final = frozenset(("S", "N", "B", "NULL", "SS", "BOOL", "L", "BS", "NS", "M"))
# ADD and DELETE alone spell types out; sets have no spelling, for they are what is wanted.
_SPELLED_TYPES: Final = {
    "S": "STRING",
    "N": "NUMBER",
    "B": "BINARY",
    "NULL": "NULL",
    "BOOL": "BOOLEAN",
    "L": "LIST",
    "M": "MAP",
}
_INCORRECT_TYPE: Final = "Incorrect operand type for operator or function; "
_NOT_THIS_WAY: Final = (
    "The function is not allowed to be used this way in an expression; function: "
)
_Steps = tuple[str | int, ...]


class Scope:
    """The placeholders of one request, and which of them its expressions have used."""

    __slots__ = ("_names", "_values", "used_names", "used_values")

    def __init__(self, names: Mapping[str, str], values: Values) -> None:
        self._names = names
        self._values = values
        self.used_names: set[str] = set()
        self.used_values: set[str] = set()

    def path(self, raw: RawPath) -> Path:
        """Resolve the names of a path."""
        elements: list[str | int] = []
        for element in raw.elements:
            if isinstance(element, str) and element[0] == "#":
                name = self._names.get(element)
                if name is None:
                    raise InvalidRequest(
                        "An expression attribute name used in the document path is not defined; "
                        f"attribute name: {element}"
                    )
                self.used_names.add(element)
                elements.append(name)
            else:
                if isinstance(element, int) and element > LIST_INDEX_MAX:
                    raise InvalidRequest(
                        "List index is not within the allowable range; "
                        f"index: [{element}]"
                    )
                elements.append(element)
        if len(elements) > NESTING_LEVELS_MAX:
            raise InvalidRequest(
                "The document path has too many nesting levels; "
                f"nesting levels: {len(elements)}"
            )
        return Path(tuple(elements))

    def placeholder(self, raw: RawValue) -> Placeholder:
        """Find a value."""
        if raw.name not in self._values:
            raise InvalidRequest(
                "An expression attribute value used in expression is not defined; "
                f"attribute value: {raw.name}"
            )
        self.used_values.add(raw.name)
        return Placeholder(raw.name)

    def define(self, raws: Iterable[Raw]) -> None:
        """Make sure that everything in these trees is defined, in the order of the text."""
        for raw in raws:
            for node in _walk(raw):
                if isinstance(node, RawPath):
                    self.path(node)
                elif isinstance(node, RawValue):
                    self.placeholder(node)

    def type_of(self, operand: Raw) -> str | None:
        """S, N, ...: what a value placeholder holds; None for anything else."""
        operand = core_of(operand)
        return next(iter(self._values[operand.name])) if isinstance(operand, RawValue) else None


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


def _bounds(low: dict[str, object], high: dict[str, object]) -> str:
    (low_type, low_content), (high_type, high_content) = *low.items(), *high.items()
    return (
        f"lower bound operand: AttributeValue: {{{low_type}:{low_content}}}, "
        f"upper bound operand: AttributeValue: {{{high_type}:{high_content}}}"
    )


# Conditions --------------------------------------------------------------------------------------


def condition(
    parsed: Parsed, scope: Scope, values: Values
) -> tuple[Condition, tuple[ContentCheck, ...]]:
    """A condition, and what is to be checked of its values with every request."""
    assert parsed.condition is not None
    _check_shape(parsed)
    nodes = list(_walk(parsed.condition))
    for node in nodes:
        if isinstance(node, RawFunction):
            _check_function(node.name, _OPERANDS_OF_CONDITION_FUNCTION, "a condition")
    _check_places(parsed.condition, nodes)
    _check_reserved(nodes)
    builder = _ConditionBuilder(scope, values)
    root = builder.build(parsed.condition)
    names, nested = _names_of(builder.paths)
    return Condition(root, names, nested), tuple(builder.checks)


def _check_places(root: Raw, nodes: list[Raw]) -> None:
    """``size`` is only an operand and the other functions are only conditions."""
    for node in nodes:
        if isinstance(node, RawBoolean):
            operands: Iterable[Raw] = ()
            conditions: Iterable[Raw] = node.parts
        else:
            operands = _children(node)
            conditions = (node,) if node is root else ()
        for operand in map(core_of, operands):
            if isinstance(operand, RawFunction) and operand.name != "size":
                raise InvalidRequest(_NOT_THIS_WAY + operand.name)
        for part in map(core_of, conditions):
            if isinstance(part, RawFunction) and part.name == "size":
                raise InvalidRequest(_NOT_THIS_WAY + part.name)


class _ConditionBuilder:
    __slots__ = ("_scope", "_values", "checks", "paths")

    def __init__(self, scope: Scope, values: Values) -> None:
        self._scope = scope
        self._values = values
        self.checks: list[ContentCheck] = []
        self.paths: list[_Steps] = []

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
            for node in _walk(raw):
                if isinstance(node, RawFunction):
                    _check_count(node, _OPERANDS_OF_CONDITION_FUNCTION)

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
            self._check_type("size", argument, ("S", "B", "SS", "NS", "BS", "L", "M"))
            raw = argument

    def _check_type(self, operator: str, operand: Raw, allowed: Collection[str]) -> None:
        found = "N" if isinstance(core_of(operand), RawFunction) else self._scope.type_of(operand)
        if found is not None and found not in allowed:
            raise _incorrect_type(operator, found)

    def _check_type_name(self, operand: Raw) -> None:
        found = self._scope.type_of(operand)
        if found != "S":
            every = "{NS,SS,L,BS,N,M,B,BOOL,NULL,S}"
            raise _incorrect_type("attribute_type", found or every)
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


# Updates -----------------------------------------------------------------------------------------


def update(parsed: Parsed, scope: Scope) -> Update:
    """An update."""
    _check_shape(parsed)
    # Everything of every action, in the order of the text.
    nodes: list[Raw] = []
    for raw in parsed.actions:
        nodes.append(raw.path)
        if raw.value is not None:
            nodes.extend(_walk(raw.value))
    _check_reserved(nodes)
    for node in nodes:
        if isinstance(node, RawFunction):
            _check_function(node.name, _OPERANDS_OF_UPDATE_FUNCTION, "an update")
    for node in nodes:
        if isinstance(node, RawFunction):
            for argument in map(core_of, node.arguments):
                if isinstance(argument, RawFunction) and argument.name == "list_append":
                    raise InvalidRequest(_NOT_THIS_WAY + argument.name)
    for position, section in enumerate(parsed.sections):
        if section in parsed.sections[:position]:
            raise InvalidRequest(
                f'The "{section}" section can only be used once in an update expression;'
            )
    paths_used: list[_Steps] = []
    for node in nodes:
        if isinstance(node, RawPath):
            paths_used.append(scope.path(node).elements)
    scope.define(node for node in nodes if isinstance(node, RawValue))
    targets = [scope.path(raw.path).elements for raw in parsed.actions]
    _check_disjoint(targets)
    for raw in parsed.actions:
        if raw.section in ("ADD", "DELETE"):
            assert raw.value is not None
            found = scope.type_of(raw.value)
            if found in _SPELLED_TYPES and not (raw.section == "ADD" and found == "N"):
                raise InvalidRequest(
                    f"{_INCORRECT_TYPE}operator: {raw.section}, "
                    f"operand type: {_SPELLED_TYPES[found]}"
                )
    for node in nodes:
        _check_assigned(node, scope)
    actions = tuple([_action(raw, scope) for raw in parsed.actions])
    names, _ = _names_of(targets)
    _, nested = _names_of(paths_used)
    return Update(actions, select(tuple(targets)), names, nested)


def _check_assigned(node: Raw, scope: Scope) -> None:
    if isinstance(node, RawArithmetic):
        for operand in (node.left, node.right):
            found = scope.type_of(operand)
            if found not in (None, "N"):
                raise _incorrect_type(node.operator, str(found))
    elif isinstance(node, RawFunction):
        _check_count(node, _OPERANDS_OF_UPDATE_FUNCTION)
        if node.name == "list_append":
            for operand in node.arguments:
                found = scope.type_of(operand)
                if found not in (None, "L"):
                    raise _incorrect_type(node.name, str(found))
        elif not isinstance(core_of(node.arguments[0]), RawPath):
            raise InvalidRequest(
                f"Operator or function requires a document path; operator or function: {node.name}"
            )


def _action(raw: RawAction, scope: Scope) -> Action:
    path = scope.path(raw.path)
    if raw.value is None:
        return Remove(path)
    if raw.section == "SET":
        return Set(path, _assigned(raw.value, scope))
    assert isinstance(raw.value, RawValue)
    operand = scope.placeholder(raw.value)
    return Add(path, operand) if raw.section == "ADD" else Delete(path, operand)


def _assigned(raw: Raw, scope: Scope) -> Assigned:
    """One frame a function: the number of operators bounds the depth."""
    raw = core_of(raw)
    if isinstance(raw, RawPath):
        return scope.path(raw)
    if isinstance(raw, RawValue):
        return scope.placeholder(raw)
    if isinstance(raw, RawArithmetic):
        return Arithmetic(raw.operator, _assigned(raw.left, scope), _assigned(raw.right, scope))
    assert isinstance(raw, RawFunction)
    first, second = _assigned(raw.arguments[0], scope), _assigned(raw.arguments[1], scope)
    if raw.name == "list_append":
        return ListAppend(first, second)
    assert isinstance(first, Path)
    return IfNotExists(first, second)


# Projections -------------------------------------------------------------------------------------


def projection(parsed: Parsed, scope: Scope) -> Projection:
    """A projection."""
    _check_reserved(parsed.paths)
    paths = [scope.path(raw).elements for raw in parsed.paths]
    _check_disjoint(paths)
    _, nested = _names_of(paths)
    return Projection(tuple(paths), select(tuple(paths)), nested)


# Rules that languages share ----------------------------------------------------------------------


def _children(raw: Raw) -> tuple[Raw, ...]:
    if isinstance(raw, RawFunction):
        return raw.arguments
    if isinstance(raw, RawArithmetic):
        return (raw.left, raw.right)
    if isinstance(raw, RawLeaf):
        return raw.operands
    if isinstance(raw, RawBoolean):
        return raw.parts
    if isinstance(raw, RawGroup):
        return (raw.core,)
    return ()


def _walk(root: Raw) -> Iterator[Raw]:
    """Every node but groups, in the order of the text, an operator before its operands."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, RawGroup):
            yield node
        waiting.extend(reversed(_children(node)))


def _check_shape(parsed: Parsed) -> None:
    if parsed.redundant_parentheses:
        raise InvalidRequest("The expression has redundant parentheses;")
    if parsed.operators > EXPRESSION_OPERATORS_MAX:
        # DynamoDB stops counting at the first that is too many.
        raise InvalidRequest(
            "The expression contains too many operators; "
            f"operator count: {EXPRESSION_OPERATORS_MAX + 1}"
        )


def _check_reserved(nodes: Iterable[Raw]) -> None:
    for node in nodes:
        if isinstance(node, RawPath):
            for element in node.elements:
                if isinstance(element, str) and is_reserved(element):
                    raise InvalidRequest(
                        f"Attribute name is a reserved keyword; reserved keyword: {element}"
                    )


def _check_function(name: str, known: Mapping[str, int], language: str) -> None:
    if name in known:
        return
    if name in _OPERANDS_OF_CONDITION_FUNCTION or name in _OPERANDS_OF_UPDATE_FUNCTION:
        raise InvalidRequest(
            f"The function is not allowed in {language} expression; function: {name}"
        )
    raise InvalidRequest(f"Invalid function name; function: {name}")


def _check_count(raw: RawFunction, known: Mapping[str, int]) -> None:
    if len(raw.arguments) != known[raw.name]:
        raise InvalidRequest(
            "Incorrect number of operands for operator or function; "
            f"operator or function: {raw.name}, number of operands: {len(raw.arguments)}"
        )


def _incorrect_type(operator: str, found: str) -> InvalidRequest:
    return InvalidRequest(
        f"{_INCORRECT_TYPE}operator or function: {operator}, operand type: {found}"
    )


def _check_disjoint(paths: list[_Steps]) -> None:
    """No path may be another's beginning, and no container both a map and a list.

    One walk down a tree of what came before; a pair is searched for only when there is one.
    """
    root: dict[str | int, Any] = {}  # an element leads further down, or to None: a path ends
    for position, path in enumerate(paths):
        branch = root
        for depth, element in enumerate(path):
            if branch and isinstance(next(iter(branch)), str) != isinstance(element, str):
                raise _clash("conflict", path, paths[:position])
            is_last = depth + 1 == len(path)
            if element not in branch:
                branch[element] = None if is_last else {}
            elif is_last or branch[element] is None:
                raise _clash("overlap", path, paths[:position])
            branch = branch[element]


def _clash(kind: str, path: _Steps, earlier: list[_Steps]) -> InvalidRequest:
    for other in earlier:
        shared = 0
        while shared < min(len(other), len(path)) and other[shared] == path[shared]:
            shared += 1
        ended = shared in (len(other), len(path))
        if ended != (kind == "overlap"):
            continue
        if not ended and isinstance(other[shared], str) == isinstance(path[shared], str):
            continue
        return InvalidRequest(
            f"Two document paths {kind} with each other; must remove or rewrite one of these "
            f"paths; path one: {render_path(other)}, path two: {render_path(path)}"
        )
    raise AssertionError("a clash is always with some earlier path")


def _names_of(paths: Iterable[_Steps]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The top-level names of paths, and of those with more than one step; sorted."""
    paths = list(paths)
    names = sorted({str(path[0]) for path in paths})
    nested = sorted({str(path[0]) for path in paths if len(path) > 1})
    return tuple(names), tuple(nested)
