"""What a shape can be: the vocabulary in which ``shapes`` writes DynamoDB's service model.

A shape says which JSON a member may hold and which constraints DynamoDB checks before it looks at
what the request means. Values only; ``json_types`` and ``constraints`` read them.
"""

from __future__ import annotations

import msgspec

from ..limits import KEY_ATTRIBUTE_NAME_BYTES_MAX

NAME_PATTERN = "[a-zA-Z0-9_.-]+"
INTEGER_MAX = (1 << 31) - 1
LONG_MAX = (1 << 63) - 1


class String(msgspec.Struct, frozen=True):
    """Text. Lengths are in characters; ``pattern`` must match the whole of it.

    ``table`` says that what is not a table's ARN must be a table's name.
    """

    minimum: int | None = None
    maximum: int | None = None
    pattern: str | None = None
    enum: tuple[str, ...] = ()
    table: bool = False


class Blob(msgspec.Struct, frozen=True):
    """Bytes, as base64 text."""


class Boolean(msgspec.Struct, frozen=True):
    """True or false."""


class Whole(msgspec.Struct, frozen=True):
    """A whole number of 32 (``Integer``) or 64 (``Long``) bits.

    ``terse`` violations are worded without the value, as the newer half of DynamoDB does.
    """

    java: str = "Long"
    minimum: int | None = None
    maximum: int | None = None
    terse: bool = False


class Double(msgspec.Struct, frozen=True):
    """A number, whole or not."""


class Moment(msgspec.Struct, frozen=True):
    """A time as seconds since the epoch, whole or not."""


class List(msgspec.Struct, frozen=True):
    """A JSON array. Lengths are in elements; for ``terse`` see ``Whole``."""

    element: Shape
    minimum: int | None = None
    maximum: int | None = None
    terse: bool = False


class Map(msgspec.Struct, frozen=True):
    """A JSON object whose names are the user's.

    ``table_names`` says that the names are tables. ``element_lengths`` is (least, most) of each
    element that is a list.
    """

    element: Shape
    table_names: bool = False
    element_lengths: tuple[int, int] | None = None


class Structure(msgspec.Struct, frozen=True):
    """A JSON object with modelled members; ``required`` ones must be present and not null."""

    name: str
    members: dict[str, Shape]
    required: frozenset[str] = frozenset()


class AttributeValue(msgspec.Struct, frozen=True):
    """An attribute value: only its JSON types are checked, the rest is ``model.values``'s."""


Shape = String | Blob | Boolean | Whole | Double | Moment | List | Map | Structure | AttributeValue

TEXT = String()
BOOLEAN = Boolean()
LONG = Whole()
VALUE = AttributeValue()
VALUES = Map(VALUE)
VALUE_LIST = List(VALUE)
VALUE_MEMBERS: dict[str, Shape] = {
    "S": TEXT,
    "N": TEXT,
    "B": Blob(),
    "SS": List(TEXT),
    "NS": List(TEXT),
    "BS": List(Blob()),
    "M": VALUES,
    "L": VALUE_LIST,
    "NULL": BOOLEAN,
    "BOOL": BOOLEAN,
}


def structure(structure_name: str, required: str = "", /, **members: Shape) -> Structure:
    """A Structure, its required members as words of one text."""
    return Structure(structure_name, members, frozenset(required.split()))

# Names. A table may be given by its ARN wherever its name may be, hence the length of an ARN.
TABLE_NAME = String(1, 1024)
#: Where it is told among the other violations; at the top of a request it comes before them.
NESTED_TABLE_NAME = String(1, 1024, table=True)
PLAIN_TABLE_NAME = String(3, 255, NAME_PATTERN)
INDEX_NAME = String(3, 255, NAME_PATTERN)
KEY_ATTRIBUTE_NAME = String(1, KEY_ATTRIBUTE_NAME_BYTES_MAX)
