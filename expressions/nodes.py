"""The trees that expressions become: operands, conditions, projections.

Every node is a frozen value that MessagePack can carry, so that a command on its way to a partition
can hold a tree. A tree never holds the request's values: it holds their placeholders, and the
values travel beside it. (The legacy parameters have no placeholders, so their trees hold literals.)

Nodes evaluate themselves against a decoded item. They may assume that items and values have been
validated and normalised (model/values.py), so that equal values are ``==``. They never mutate one.

What a missing attribute does (developer guide, "Comparison operator and function reference", and
observed behaviour): every comparison with it is false but ``<>``, which is true, even between two
missing attributes; a type that a comparison does not support is false, never an error.
"""

from __future__ import annotations

from binascii import a2b_base64
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ..model.numbers import compare as compare_numbers
from ..model.values import AttributeValue, Item

Values = Mapping[str, AttributeValue]

_NO_ITEM: Final[Item] = {}


# Operands ---------------------------------------------------------------------------------------


class Path(msgspec.Struct, frozen=True, tag=True):
    """A document path: ``a.b[2]`` is ``("a", "b", 2)``. Placeholders are already resolved."""

    elements: tuple[str | int, ...]

    def resolve(self, item: Item, values: Values) -> AttributeValue | None:
        """The value at this path, or None where any step is missing or of another type."""
        elements: tuple[Any, ...] = self.elements
        found = item.get(elements[0])
        if found is None or len(elements) == 1:
            return found
        for element in elements[1:]:
            members = found.get("M" if type(element) is str else "L")
            if members is None:
                return None
            if type(element) is str:
                found = members.get(element)
                if found is None:
                    return None
            elif element < len(members):
                found = members[element]
            else:
                return None
        return found

    def __str__(self) -> str:
        """As DynamoDB's messages spell it: ``[a, b, [2]]``."""
        return render_path(self.elements)


class Placeholder(msgspec.Struct, frozen=True, tag=True):
    """A ``:name`` of ExpressionAttributeValues; ``name`` includes the colon."""

    name: str

    def resolve(self, item: Item, values: Values) -> AttributeValue | None:
        """The request's value."""
        return values[self.name]


class Literal(msgspec.Struct, frozen=True, tag=True):
    """A value that came inside a legacy parameter."""

    value: dict[str, Any]

    def resolve(self, item: Item, values: Values) -> AttributeValue | None:
        """The value itself."""
        return self.value


class Size(msgspec.Struct, frozen=True, tag=True):
    """``size(operand)``: a number, or missing for a type that has no size."""

    operand: Operand

    def resolve(self, item: Item, values: Values) -> AttributeValue | None:
        """Characters of a string (UTF-16 units), bytes of a binary, members of the others."""
        value = self.operand.resolve(item, values)
        if value is None:
            return None
        ((tag, content),) = value.items()
        if tag == "S":
            # ASCII has one unit a character; anything else is counted as DynamoDB's Java does.
            length = len(content) if content.isascii() else len(content.encode("utf-16-le")) // 2
        elif tag == "B":
            length = len(a2b_base64(content))
        elif tag in ("SS", "NS", "BS", "L", "M"):
            length = len(content)
        else:
            return None
        return {"N": str(length)}


Operand = Path | Placeholder | Literal | Size


def render_path(elements: tuple[str | int, ...]) -> str:
    """A path as DynamoDB's messages spell it: ``[a, b, [2]]``."""
    return f"[{', '.join(e if isinstance(e, str) else f'[{e}]' for e in elements)}]"


def order(left: AttributeValue, right: AttributeValue) -> int | None:
    """-1, 0 or 1; None where the types differ or have no order (only S, N and B have)."""
    a: Any
    ((tag, a),) = left.items()
    b = right.get(tag)
    if b is None:
        return None
    if tag == "N":
        return compare_numbers(a, b)
    if tag == "B":
        a, b = a2b_base64(a), a2b_base64(b)
    elif tag != "S":
        return None
    # Code points of strings order as their UTF-8 bytes do.
    return int(a > b) - int(a < b)


# Conditions -------------------------------------------------------------------------------------


class Equal(msgspec.Struct, frozen=True, tag=True):
    """``left = right``."""

    left: Operand
    right: Operand

    def matches(self, item: Item, values: Values) -> bool:
        """Whether both exist and are the same value."""
        left = self.left.resolve(item, values)
        return left is not None and left == self.right.resolve(item, values)


class NotEqual(msgspec.Struct, frozen=True, tag=True):
    """``left <> right``: true also where either is missing or the types differ."""

    left: Operand
    right: Operand

    def matches(self, item: Item, values: Values) -> bool:
        """The negation of ``=``."""
        left = self.left.resolve(item, values)
        return left is None or left != self.right.resolve(item, values)


class Ordered(msgspec.Struct, frozen=True, tag=True):
    """``left < right`` and its kind; ``operator`` is one of ``< <= > >=``."""

    operator: str
    left: Operand
    right: Operand

    def matches(self, item: Item, values: Values) -> bool:
        """False where either is missing or they cannot be ordered."""
        left = self.left.resolve(item, values)
        if left is None:
            return False
        right = self.right.resolve(item, values)
        if right is None:
            return False
        ordering = order(left, right)
        if ordering is None:
            return False
        operator = self.operator
        if operator == "<":
            return ordering < 0
        if operator == "<=":
            return ordering <= 0
        if operator == ">":
            return ordering > 0
        return ordering >= 0


class Between(msgspec.Struct, frozen=True, tag=True):
    """``operand BETWEEN low AND high``, both included."""

    operand: Operand
    low: Operand
    high: Operand

    def matches(self, item: Item, values: Values) -> bool:
        """False where anything is missing or cannot be ordered."""
        value = self.operand.resolve(item, values)
        if value is None:
            return False
        low, high = self.low.resolve(item, values), self.high.resolve(item, values)
        if low is None or high is None:
            return False
        below, above = order(low, value), order(value, high)
        return below is not None and above is not None and below <= 0 and above <= 0


class In(msgspec.Struct, frozen=True, tag=True):
    """``operand IN (choice, ...)``."""

    operand: Operand
    choices: tuple[Operand, ...]

    def matches(self, item: Item, values: Values) -> bool:
        """Whether the operand equals any choice."""
        value = self.operand.resolve(item, values)
        if value is None:
            return False
        for choice in self.choices:
            if value == choice.resolve(item, values):
                return True
        return False


class Exists(msgspec.Struct, frozen=True, tag=True):
    """``attribute_exists(path)``."""

    path: Path

    def matches(self, item: Item, values: Values) -> bool:
        """Whether the path leads to a value."""
        return self.path.resolve(item, values) is not None


class NotExists(msgspec.Struct, frozen=True, tag=True):
    """``attribute_not_exists(path)``."""

    path: Path

    def matches(self, item: Item, values: Values) -> bool:
        """Whether the path leads to nothing."""
        return self.path.resolve(item, values) is None


class HasType(msgspec.Struct, frozen=True, tag=True):
    """``attribute_type(operand, type)``; ``wanted`` resolves to a string such as ``SS``."""

    operand: Operand
    wanted: Operand

    def matches(self, item: Item, values: Values) -> bool:
        """Whether the operand exists and has that type."""
        value = self.operand.resolve(item, values)
        wanted = self.wanted.resolve(item, values)
        return value is not None and wanted is not None and wanted["S"] in value


class BeginsWith(msgspec.Struct, frozen=True, tag=True):
    """``begins_with(operand, prefix)``, for strings and binaries."""

    operand: Operand
    prefix: Operand

    def matches(self, item: Item, values: Values) -> bool:
        """False where either is missing, they differ in type, or it is neither S nor B."""
        value, prefix = self.operand.resolve(item, values), self.prefix.resolve(item, values)
        if value is None or prefix is None:
            return False
        ((tag, start),) = prefix.items()
        whole = value.get(tag)
        if whole is None:
            return False
        if tag == "S":
            return bool(whole.startswith(start))
        return tag == "B" and a2b_base64(whole).startswith(a2b_base64(start))


class Contains(msgspec.Struct, frozen=True, tag=True):
    """``contains(container, element)``: a part of a string or binary, a member of a set or list."""

    container: Operand
    element: Operand

    def matches(self, item: Item, values: Values) -> bool:
        """False where either is missing or the types do not go together."""
        container = self.container.resolve(item, values)
        element = self.element.resolve(item, values)
        if container is None or element is None:
            return False
        ((tag, content),) = container.items()
        if tag == "L":
            return element in content
        ((element_tag, part),) = element.items()
        if tag == element_tag == "B":
            return a2b_base64(part) in a2b_base64(content)
        if tag == element_tag == "S" or (tag in ("SS", "NS", "BS") and tag[0] == element_tag):
            return part in content
        return False


class And(msgspec.Struct, frozen=True, tag=True):
    """All of ``parts``, at least two."""

    parts: tuple[ConditionNode, ...]

    def matches(self, item: Item, values: Values) -> bool:
        """Whether every part is true; stops at the first that is not."""
        for part in self.parts:
            if not part.matches(item, values):
                return False
        return True


class Or(msgspec.Struct, frozen=True, tag=True):
    """Any of ``parts``, at least two."""

    parts: tuple[ConditionNode, ...]

    def matches(self, item: Item, values: Values) -> bool:
        """Whether any part is true; stops at the first that is."""
        for part in self.parts:
            if part.matches(item, values):
                return True
        return False


class Not(msgspec.Struct, frozen=True, tag=True):
    """``NOT part``."""

    part: ConditionNode

    def matches(self, item: Item, values: Values) -> bool:
        """The opposite of the part."""
        return not self.part.matches(item, values)


ConditionNode = (
    Equal
    | NotEqual
    | Ordered
    | Between
    | In
    | Exists
    | NotExists
    | HasType
    | BeginsWith
    | Contains
    | And
    | Or
    | Not
)


class Condition(msgspec.Struct, frozen=True, tag=True):
    """A ConditionExpression, FilterExpression, Expected or filter, ready to decide.

    ``names`` are the top-level attributes that it reads, ``nested`` those of them that it reads
    through ``.`` or ``[]`` (DynamoDB forbids that for key attributes); both sorted.
    """

    root: ConditionNode
    names: tuple[str, ...]
    nested: tuple[str, ...]

    def matches(self, item: Item | None, values: Values) -> bool:
        """Whether the item, or None for no item, meets the condition."""
        return self.root.matches(_NO_ITEM if item is None else item, values)

    @property
    def top_level_names(self) -> frozenset[str]:
        """The top-level attributes that the condition reads."""
        return frozenset(self.names)


# Projections ------------------------------------------------------------------------------------


class Selection(msgspec.Struct, frozen=True):
    """The inner nodes of a set of paths: what to keep of a map, or of a list, or of an item.

    Either ``names`` or ``indexes`` is empty, for paths that would need both conflict. None in place
    of a selection keeps the whole value. ``indexes`` ascend: DynamoDB returns list elements in the
    list's order, whatever order the paths were written in.
    """

    names: tuple[tuple[str, Selection | None], ...] = ()
    indexes: tuple[tuple[int, Selection | None], ...] = ()

    def of_members(self, members: Mapping[str, AttributeValue]) -> dict[str, AttributeValue]:
        """The selected part of a map's members or of an item; whatever is missing is left out."""
        kept: dict[str, AttributeValue] = {}
        for name, inner in self.names:
            value = members.get(name)
            if value is None:
                continue
            if inner is not None:
                value = inner.of_value(value)
                if value is None:
                    continue
            kept[name] = value
        return kept

    def of_value(self, value: AttributeValue) -> AttributeValue | None:
        """The selected part of a map or list; None where nothing of it is selected."""
        if self.names:
            members = value.get("M")
            if members is None:
                return None
            kept = self.of_members(members)
            return {"M": kept} if kept else None
        elements = value.get("L")
        if elements is None:
            return None
        picked: list[AttributeValue] = []
        for index, inner in self.indexes:
            if index >= len(elements):
                break
            element = elements[index] if inner is None else inner.of_value(elements[index])
            if element is not None:
                picked.append(element)
        return {"L": picked} if picked else None


def select(paths: tuple[tuple[str | int, ...], ...]) -> Selection:
    """The selection of paths of which none is a prefix of another and no two conflict."""
    root: dict[str | int, Any] = {}
    for path in paths:
        branch = root
        for element in path[:-1]:
            branch = branch.setdefault(element, {})
        branch[path[-1]] = None
    return _freeze(root)


def _freeze(branch: dict[str | int, Any]) -> Selection:
    # As deep as the deepest path, which the compiler bounds.
    names: list[tuple[str, Selection | None]] = []
    indexes: list[tuple[int, Selection | None]] = []
    for element, below in branch.items():
        inner = None if below is None else _freeze(below)
        if isinstance(element, str):
            names.append((element, inner))
        else:
            indexes.append((element, inner))
    assert not (names and indexes), "the compiler refuses paths that conflict"
    indexes.sort(key=lambda pair: pair[0])
    return Selection(tuple(names), tuple(indexes))


class Projection(msgspec.Struct, frozen=True, tag=True):
    """A ProjectionExpression or AttributesToGet."""

    paths: tuple[tuple[str | int, ...], ...]
    selection: Selection
    nested: tuple[str, ...]

    def project(self, item: Item) -> Item:
        """The selected part of the item; empty where nothing of it is there."""
        return self.selection.of_members(item)

    @property
    def top_level_names(self) -> frozenset[str]:
        """The attributes that must be read to project."""
        return frozenset([name for name, _ in self.selection.names])
