"""Raw trees to trees: the rules that all expression languages share, and the placeholders' scope.

DynamoDB reports one error of an expression, the first by this order, and within a line the first in
the text (dynalite's recordings of AWS; the conformance suite):

- any condition: redundant parentheses; too many operators; functions that do not exist, or not
  here; functions used where they have no place; reserved words; and then leaf by leaf (a leaf is
  one comparison, BETWEEN, IN or function): undefined placeholders, the number of operands, distinct
  operands, types of operands, contents of operands (condition_rules.py);
- an update: redundant parentheses; too many operators; reserved words; functions; sections;
  undefined placeholders; overlapping and conflicting paths; types of operands (update_rules.py);
- a projection: reserved words; undefined placeholders; overlapping and conflicting paths.

Errors are raised without the prefix that names the expression: the compiler knows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from ..errors import InvalidRequest
from ..limits import EXPRESSION_OPERATORS_MAX, LIST_INDEX_MAX, NESTING_LEVELS_MAX
from .nodes import Path, Placeholder, Values, render_path
from .parser import (
    Parsed,
    Raw,
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

# What each function takes. Neither kind may be used in the other kind of expression.
CONDITION_FUNCTIONS: Final[Mapping[str, int]] = {
    "attribute_exists": 1,
    "attribute_not_exists": 1,
    "attribute_type": 2,
    "begins_with": 2,
    "contains": 2,
    "size": 1,
}
UPDATE_FUNCTIONS: Final[Mapping[str, int]] = {"if_not_exists": 2, "list_append": 2}

INCORRECT_TYPE: Final = "Incorrect operand type for operator or function; "
NOT_THIS_WAY: Final = "The function is not allowed to be used this way in an expression; function: "
Steps = tuple[str | int, ...]


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
                        f"List index is not within the allowable range; index: [{element}]"
                    )
                elements.append(element)
        if len(elements) > NESTING_LEVELS_MAX:
            raise InvalidRequest(
                f"The document path has too many nesting levels; nesting levels: {len(elements)}"
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
            for node in walk(raw):
                if isinstance(node, RawPath):
                    self.path(node)
                elif isinstance(node, RawValue):
                    self.placeholder(node)

    def type_of(self, operand: Raw) -> str | None:
        """S, N, ...: what a value placeholder holds; None for anything else."""
        operand = core_of(operand)
        return next(iter(self._values[operand.name])) if isinstance(operand, RawValue) else None


# Rules ------------------------------------------------------------------------------------------


def children(raw: Raw) -> tuple[Raw, ...]:
    """What a node holds, in the order of the text."""
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


def walk(root: Raw) -> Iterator[Raw]:
    """Every node but groups, in the order of the text, an operator before its operands."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, RawGroup):
            yield node
        waiting.extend(reversed(children(node)))


def inner_first(root: Raw) -> Iterator[Raw]:
    """Every node but groups, in the order of the text, an operator behind its operands."""
    found: list[Raw] = []
    waiting = [root]
    while waiting:
        node = waiting.pop()
        found.append(node)
        waiting.extend(children(node))
    return (node for node in reversed(found) if not isinstance(node, RawGroup))


def check_shape(parsed: Parsed) -> None:
    """What is said of text that parses, before anything else."""
    if parsed.redundant_parentheses:
        raise InvalidRequest("The expression has redundant parentheses;")
    if parsed.operators > EXPRESSION_OPERATORS_MAX:
        # DynamoDB stops counting at the first that is too many.
        raise InvalidRequest(
            "The expression contains too many operators; "
            f"operator count: {EXPRESSION_OPERATORS_MAX + 1}"
        )


def check_reserved(nodes: Iterable[Raw]) -> None:
    """No element of a path that is written out may be a reserved word."""
    for node in nodes:
        if isinstance(node, RawPath):
            for element in node.elements:
                if isinstance(element, str) and is_reserved(element):
                    raise InvalidRequest(
                        f"Attribute name is a reserved keyword; reserved keyword: {element}"
                    )


def check_function(name: str, known: Mapping[str, int], language: str) -> None:
    """The function must be one of ``known``; ``language`` is "a condition" or "an update"."""
    if name in known:
        return
    if name in CONDITION_FUNCTIONS or name in UPDATE_FUNCTIONS:
        raise InvalidRequest(
            f"The function is not allowed in {language} expression; function: {name}"
        )
    raise InvalidRequest(f"Invalid function name; function: {name}")


def check_count(raw: RawFunction, known: Mapping[str, int]) -> None:
    """A call must have as many operands as its function takes."""
    if len(raw.arguments) != known[raw.name]:
        raise InvalidRequest(
            "Incorrect number of operands for operator or function; "
            f"operator or function: {raw.name}, number of operands: {len(raw.arguments)}"
        )


def incorrect_type(operator: str, found: str) -> InvalidRequest:
    """The error for an operand of a type that an operator or function does not take."""
    return InvalidRequest(
        f"{INCORRECT_TYPE}operator or function: {operator}, operand type: {found}"
    )


def check_disjoint(paths: list[Steps]) -> None:
    """Refuse a path that is another's beginning, and a container that would be map and list.

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


def _clash(kind: str, path: Steps, earlier: list[Steps]) -> InvalidRequest:
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


def names_of(paths: Iterable[Steps]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The top-level names of paths, and of those with more than one step; sorted."""
    paths = list(paths)
    names = sorted({str(path[0]) for path in paths})
    nested = sorted({str(path[0]) for path in paths if len(path) > 1})
    return tuple(names), tuple(nested)
