"""UpdateExpression and AttributeUpdates as trees, and what they do to an item.

Everything that an update reads, it reads from the item as it was: operands, and also the positions
of list elements (``REMOVE a[1] SET a[3] = :v`` means the fourth element of the old list). So an
update is first evaluated, action by action in the order of the text, into edits of disjoint paths,
and then all edits are made at once on a copy of just the containers on their way.
"""

from __future__ import annotations

from binascii import a2b_base64
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from ..errors import InvalidRequest
from ..limits import NESTING_LEVELS_MAX
from ..model import numbers
from ..model.values import AttributeValue, Item, value_size_bytes
from .nodes import Literal, Path, Placeholder, Selection, Values

_REMOVED: Final = object()  # in place of a value in an edit

_ABSENT: Final = "The provided expression refers to an attribute that does not exist in the item"
_INVALID_PATH: Final = "The document path provided in the update expression is invalid for update"
_INCORRECT_TYPE: Final = "An operand in the update expression has an incorrect data type"
_LEGACY_INCORRECT_TYPE: Final = "Type mismatch for attribute to update"
_TOO_DEEP: Final = (
    "Nesting Levels have exceeded supported limits: "
    "Attributes in the item have nested levels beyond supported limit"
)

# What UpdateItem counts besides the bytes that a statement writes. It has no documented basis; the
# figures were measured on AWS by the Parity Suite's authors (tests/tier3/limits/itemSizeBySurface).
_STATEMENT_BYTES: Final = 3
_ASSIGNMENT_BYTES: Final = 19
_REMOVAL_BYTES: Final = 1
_TARGET_STEP_BYTES: Final = 4
_OPERAND_BYTES: Final = 1
_OPERAND_STEP_BYTES: Final = 14
_FUNCTION_BYTES: Final = {"+": 34, "-": 37, "if_not_exists": 39, "list_append": 37}


# What SET assigns --------------------------------------------------------------------------------


class Arithmetic(msgspec.Struct, frozen=True, tag=True):
    """``left + right`` or ``left - right``."""

    operator: str
    left: Assigned
    right: Assigned

    def evaluate(self, item: Item, values: Values) -> AttributeValue:
        """The exact result, to 38 digits."""
        left, right = evaluate(self.left, item, values), evaluate(self.right, item, values)
        a, b = left.get("N"), right.get("N")
        if a is None or b is None:
            raise InvalidRequest(_INCORRECT_TYPE)
        result = numbers.add(a, b) if self.operator == "+" else numbers.subtract(a, b)
        return {"N": result}


class IfNotExists(msgspec.Struct, frozen=True, tag=True):
    """``if_not_exists(path, otherwise)``."""

    path: Path
    otherwise: Assigned

    def evaluate(self, item: Item, values: Values) -> AttributeValue:
        """What the path leads to, or else the alternative; only the one that is needed is read."""
        value = self.path.resolve(item, values)
        return evaluate(self.otherwise, item, values) if value is None else value


class ListAppend(msgspec.Struct, frozen=True, tag=True):
    """``list_append(first, second)``."""

    first: Assigned
    second: Assigned

    def evaluate(self, item: Item, values: Values) -> AttributeValue:
        """The second list behind the first."""
        first, second = evaluate(self.first, item, values), evaluate(self.second, item, values)
        a, b = first.get("L"), second.get("L")
        if a is None or b is None:
            raise InvalidRequest(_INCORRECT_TYPE)
        return {"L": a + b}


Assigned = Path | Placeholder | Literal | Arithmetic | IfNotExists | ListAppend


def evaluate(assigned: Assigned, item: Item, values: Values) -> AttributeValue:
    """The value. Raises InvalidRequest where it needs something that is missing."""
    if isinstance(assigned, (Path, Placeholder, Literal)):
        value = assigned.resolve(item, values)
        if value is None:
            raise InvalidRequest(_ABSENT)
        return value
    return assigned.evaluate(item, values)


def static_type(assigned: Assigned, values: Values) -> str | None:
    """The type that an assignment will have whatever the item is; None where the item decides."""
    if isinstance(assigned, Placeholder):
        return next(iter(values[assigned.name]))
    if isinstance(assigned, Literal):
        return next(iter(assigned.value))
    if isinstance(assigned, Arithmetic):
        return "N"
    if isinstance(assigned, ListAppend):
        return "L"
    if isinstance(assigned, IfNotExists):
        return static_type(assigned.otherwise, values)
    return None


def _operand_bytes(assigned: Assigned, values: Values) -> int:
    if isinstance(assigned, Path):
        return _OPERAND_BYTES + sum(
            _OPERAND_STEP_BYTES + _element_bytes(element) for element in assigned.elements
        )
    if isinstance(assigned, Placeholder):
        return value_size_bytes(values[assigned.name])
    if isinstance(assigned, Literal):
        return value_size_bytes(assigned.value)
    if isinstance(assigned, Arithmetic):
        name, operands = assigned.operator, (assigned.left, assigned.right)
    elif isinstance(assigned, IfNotExists):
        name, operands = "if_not_exists", (assigned.path, assigned.otherwise)
    else:
        name, operands = "list_append", (assigned.first, assigned.second)
    return _FUNCTION_BYTES[name] + sum(_operand_bytes(operand, values) for operand in operands)


def _element_bytes(element: str | int) -> int:
    return len(element.encode()) if isinstance(element, str) else len(str(element))


# Actions -----------------------------------------------------------------------------------------


class Set(msgspec.Struct, frozen=True, tag=True):
    """``SET path = assigned``, and the legacy PUT."""

    path: Path
    assigned: Assigned


class Remove(msgspec.Struct, frozen=True, tag=True):
    """``REMOVE path``, and the legacy DELETE without a value."""

    path: Path


class Add(msgspec.Struct, frozen=True, tag=True):
    """``ADD path operand``: a number to a number, or members to a set.

    ``legacy`` is AttributeUpdates': it may also append to a list, and words its error differently.
    """

    path: Path
    operand: Placeholder | Literal
    legacy: bool = False


class Delete(msgspec.Struct, frozen=True, tag=True):
    """``DELETE path operand``: members from a set."""

    path: Path
    operand: Placeholder | Literal
    legacy: bool = False


Action = Set | Remove | Add | Delete


class UpdateOutcome(msgspec.Struct, frozen=True):
    """``new_item`` is None where there was no item and the update writes nothing into one.

    ``touched`` are the paths that the update names, in the order of the text.
    """

    new_item: Item | None
    touched: tuple[tuple[str | int, ...], ...]


class Update(msgspec.Struct, frozen=True, tag=True):
    """An update, ready to apply.

    ``touched`` selects the paths that it names. ``names`` are the top-level attributes that it
    changes, ``nested`` those that it changes or reads through ``.`` or ``[]``; both sorted.
    ``legacy`` is true for AttributeUpdates, whose statement is not charged (see charge_bytes).
    """

    actions: tuple[Action, ...]
    touched: Selection
    names: tuple[str, ...]
    nested: tuple[str, ...]
    legacy: bool = False

    @property
    def top_level_names(self) -> frozenset[str]:
        """The top-level attributes that the update changes."""
        return frozenset(self.names)

    def apply(self, item: Item | None, key: Item, values: Values) -> UpdateOutcome:
        """The item after the update; ``key`` is what a new item begins with.

        Raises InvalidRequest, with DynamoDB's wording, where the item does not allow the update.
        Neither ``item`` nor ``key`` nor ``values`` is changed; the new item may share their parts.
        """
        touched = tuple([action.path.elements for action in self.actions])
        if item is None and self._writes_nothing_new():
            return UpdateOutcome(None, touched)
        before = key if item is None else item
        edits = [_evaluate(action, before, values, item is None) for action in self.actions]
        after: dict[Any, AttributeValue] = dict(key if item is None else item)
        nested = False
        for path, value in zip(touched, edits, strict=True):
            if len(path) > 1:
                nested = True
            elif value is _REMOVED:
                after.pop(path[0], None)
            else:
                after[path[0]] = value
        if nested:
            _edit_nested(after, zip(touched, edits, strict=True))
        return UpdateOutcome(after, touched)

    def updated_old(self, old_item: Item | None) -> Item:
        """ReturnValues UPDATED_OLD: what the touched paths held; empty if nothing."""
        return {} if old_item is None else self.touched.of_members(old_item)

    def updated_new(self, new_item: Item | None) -> Item:
        """ReturnValues UPDATED_NEW: what the touched paths hold now; empty if nothing.

        By the paths as written, as DynamoDB does: an element appended by an index beyond the end is
        not there, and behind ``REMOVE a[1]`` the element that moved up is.
        """
        return {} if new_item is None else self.touched.of_members(new_item)

    def assigned_types(self, values: Values) -> dict[str, str]:
        """The types that top-level attributes will have, where the request alone decides it.

        For the check of index keys, which comes before the item is read.
        """
        types: dict[str, str] = {}
        for action in self.actions:
            if len(action.path.elements) > 1 or isinstance(action, Remove):
                continue
            assigned = action.assigned if isinstance(action, Set) else action.operand
            found = static_type(assigned, values)
            if found is not None:
                types[str(action.path.elements[0])] = found
        return types

    def charge_bytes(self, values: Values) -> int:
        """What UpdateItem holds to the 400 KB limit besides the finished item, in bytes.

        UpdateItem (alone: neither a transaction's Update nor AttributeUpdates) is refused when
        either the finished item or this figure is over the limit. It is a figure of the request
        only: what the statement writes and a fixed cost for each clause. 0 for AttributeUpdates.
        """
        if self.legacy:
            return 0
        total = _STATEMENT_BYTES
        for action in self.actions:
            first, *rest = action.path.elements
            total += _element_bytes(first)
            total += sum(_TARGET_STEP_BYTES + _element_bytes(element) for element in rest)
            if isinstance(action, Set):
                total += _ASSIGNMENT_BYTES + _operand_bytes(action.assigned, values)
            elif isinstance(action, Add):
                total += _ASSIGNMENT_BYTES + _operand_bytes(action.operand, values)
            else:
                total += _REMOVAL_BYTES
        return total

    def _writes_nothing_new(self) -> bool:
        # An update that only takes away does not create an item. One without any action does:
        # UpdateItem with a key and nothing else makes an item of just the key.
        return bool(self.actions) and all(
            isinstance(action, (Remove, Delete)) for action in self.actions
        )


def _evaluate(action: Action, item: Item, values: Values, is_new: bool) -> Any:
    """The value that the action leaves at its path, or _REMOVED."""
    path = action.path.elements
    if isinstance(action, Set):
        value = evaluate(action.assigned, item, values)
        if len(path) > 1:
            _check_parent(path, item)
            if len(path) - 1 + _depth(value) >= NESTING_LEVELS_MAX:
                raise InvalidRequest(_TOO_DEEP)
        return value
    if is_new and isinstance(action, (Remove, Delete)):
        # Beside a clause that creates the item, one that takes away finds nothing, at any depth.
        return _REMOVED
    if len(path) > 1:
        _check_parent(path, item)
    if isinstance(action, Remove):
        return _REMOVED
    old = action.path.resolve(item, values)
    operand = action.operand.resolve(item, values)
    assert operand is not None, "placeholders are defined and literals are there"
    ((tag, content),) = operand.items()
    if old is not None and tag not in old:
        raise InvalidRequest(_LEGACY_INCORRECT_TYPE if action.legacy else _INCORRECT_TYPE)
    if isinstance(action, Delete):
        if old is None:
            return _REMOVED
        gone = set(content)
        left = [member for member in old[tag] if member not in gone]
        return {tag: left} if left else _REMOVED
    if old is None:
        return operand
    if tag == "N":
        return {"N": numbers.add(old["N"], content)}
    if tag == "L":
        return {"L": old["L"] + content}
    members = set(old[tag])
    return {tag: sorted(members.union(content), key=_SET_ORDER[tag])}


# The canonical order of sets (model/values.py).
_SET_ORDER: Final[Mapping[str, Callable[[str], Any]]] = {
    "SS": str.encode,
    "NS": numbers.sort_key,
    "BS": a2b_base64,
}


def _check_parent(path: tuple[str | int, ...], item: Item) -> None:
    """Refuse a path whose last step has no container of the right kind to be taken in."""
    parent = Path(path[:-1]).resolve(item, {})
    if parent is None or ("M" if isinstance(path[-1], str) else "L") not in parent:
        raise InvalidRequest(_INVALID_PATH)


def _depth(value: AttributeValue) -> int:
    """Levels of maps and lists with something in them; bounded, for values are validated."""
    members = value.get("M")
    elements = members.values() if members is not None else value.get("L")
    if not elements:
        return 0
    return 1 + max([_depth(element) for element in elements])


def _edit_nested(
    item: dict[Any, AttributeValue], edits: Iterable[tuple[tuple[str | int, ...], Any]]
) -> None:
    """Make the edits of paths longer than one step, in place of ``item``'s top level only."""
    branches: dict[str | int, dict[str | int, Any]] = {}
    for path, value in edits:
        if len(path) == 1:
            continue
        branch = branches.setdefault(path[0], {})
        for element in path[1:-1]:
            branch = branch.setdefault(element, {})
        branch[path[-1]] = (value,)  # a tuple is an edit, a dict is a way further down
    for name, branch in branches.items():
        # Absent only where a clause takes away from an item that did not exist.
        if name in item:
            item[name] = _edited(item[name], branch)


def _edited(container: AttributeValue, branch: dict[Any, Any]) -> AttributeValue:
    members = container.get("M")
    if members is not None:
        members = dict(members)
        for name, below in branch.items():
            if isinstance(below, dict):
                members[name] = _edited(members[name], below)
            elif below[0] is _REMOVED:
                members.pop(name, None)
            else:
                members[name] = below[0]
        return {"M": members}
    elements = list(container["L"])
    length = len(elements)
    removed = False
    for index in sorted(branch):
        below = branch[index]
        if isinstance(below, dict):
            elements[index] = _edited(elements[index], below)
        elif below[0] is not _REMOVED:
            # Beyond the end, elements are appended in the order of their indexes.
            if index < length:
                elements[index] = below[0]
            else:
                elements.append(below[0])
        elif index < length:
            elements[index] = None
            removed = True
    return {"L": [element for element in elements if element is not None] if removed else elements}
