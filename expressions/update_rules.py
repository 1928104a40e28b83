"""Raw trees to updates and projections: the rules of their expressions.

The order in which errors are found is in rules.py.
"""

from __future__ import annotations

from typing import Final

from ..errors import InvalidRequest
from .nodes import Path, Projection, select
from .parser import (
    Parsed,
    Raw,
    RawAction,
    RawArithmetic,
    RawFunction,
    RawPath,
    RawValue,
    core_of,
)
from .rules import (
    INCORRECT_TYPE,
    NOT_THIS_WAY,
    UPDATE_FUNCTIONS,
    Scope,
    Steps,
    check_count,
    check_disjoint,
    check_function,
    check_reserved,
    check_shape,
    incorrect_type,
    inner_first,
    names_of,
    walk,
)
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


# Updates -----------------------------------------------------------------------------------------


def build_update(parsed: Parsed, scope: Scope) -> Update:
    """An update."""
    check_shape(parsed)
    # Everything of every action, in the order of the text.
    nodes: list[Raw] = []
    for raw in parsed.actions:
        nodes.append(raw.path)
        if raw.value is not None:
            nodes.extend(walk(raw.value))
    check_reserved(nodes)
    for node in nodes:
        if isinstance(node, RawFunction):
            check_function(node.name, UPDATE_FUNCTIONS, "an update")
    for node in nodes:
        if isinstance(node, RawFunction):
            for argument in map(core_of, node.arguments):
                if isinstance(argument, RawFunction) and argument.name == "list_append":
                    raise InvalidRequest(NOT_THIS_WAY + argument.name)
    for position, section in enumerate(parsed.sections):
        if section in parsed.sections[:position]:
            raise InvalidRequest(
                f'The "{section}" section can only be used once in an update expression;'
            )
    paths_used: list[Steps] = []
    for node in nodes:
        if isinstance(node, RawPath):
            paths_used.append(scope.path(node).elements)
    scope.define(node for node in nodes if isinstance(node, RawValue))
    targets = [scope.path(raw.path).elements for raw in parsed.actions]
    check_disjoint(targets)
    for raw in parsed.actions:
        if raw.section in ("ADD", "DELETE"):
            assert raw.value is not None
            found = scope.type_of(raw.value)
            if found in _SPELLED_TYPES and not (raw.section == "ADD" and found == "N"):
                raise InvalidRequest(
                    f"{INCORRECT_TYPE}operator: {raw.section}, "
                    f"operand type: {_SPELLED_TYPES[found]}"
                )
    for raw in parsed.actions:
        if raw.value is not None:
            for node in inner_first(raw.value):
                _check_assigned(node, scope)
    actions = tuple([_action(raw, scope) for raw in parsed.actions])
    names, _ = names_of(targets)
    _, nested = names_of(paths_used)
    return Update(actions, select(tuple(targets)), names, nested)


def _check_assigned(node: Raw, scope: Scope) -> None:
    if isinstance(node, RawArithmetic):
        for operand in (node.left, node.right):
            found = scope.type_of(operand)
            if found not in (None, "N"):
                raise incorrect_type(node.operator, str(found))
    elif isinstance(node, RawFunction):
        check_count(node, UPDATE_FUNCTIONS)
        if node.name == "list_append":
            for operand in node.arguments:
                found = scope.type_of(operand)
                if found not in (None, "L"):
                    raise incorrect_type(node.name, str(found))
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


def build_projection(parsed: Parsed, scope: Scope) -> Projection:
    """A projection."""
    check_reserved(parsed.paths)
    paths = [scope.path(raw).elements for raw in parsed.paths]
    check_disjoint(paths)
    _, nested = names_of(paths)
    return Projection(tuple(paths), select(tuple(paths)), nested)
