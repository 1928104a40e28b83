"""The last step of reading a request: the constraints of its shape, all violations together.

``Violations`` collects them in the shape's order and raises one ValidationException in DynamoDB's
words. Values must have passed ``json_types``. Wording: the conformance suite's recordings of AWS,
and dynalite's.
"""

from __future__ import annotations

import re
from typing import Any

from ..errors import InvalidRequest
from ..limits import REQUEST_ECHO_CHARACTERS_MAX, REQUEST_VIOLATIONS_MAX
from .shape_kinds import (
    NAME_PATTERN,
    PLAIN_TABLE_NAME,
    AttributeValue,
    Boolean,
    List,
    Map,
    Shape,
    String,
    Structure,
    Whole,
)

#: A table's ARN.
TABLE_ARN = re.compile(
    r"arn:aws[a-z-]*:dynamodb:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12})"
    r":table/(?P<table>[a-zA-Z0-9_.-]{3,255})"
)
_PATTERNS = {NAME_PATTERN: re.compile(NAME_PATTERN)}


class Violations:
    """Collects what is wrong, in DynamoDB's order and words.

    A path is spelled twice: ``keySchema.1.member.keyType`` for the ordinary wording, and with the
    members' own capitals for the terse one.
    """

    __slots__ = ("found", "terse")

    def __init__(self) -> None:
        self.found: list[str] = []
        self.terse: list[str] = []  # Told one at a time, and only if nothing else is wrong.

    def finish(self) -> None:
        """Raise InvalidRequest if anything was found."""
        found = self.found[:REQUEST_VIOLATIONS_MAX] or self.terse[:1]
        if found:
            plural = "s" if len(found) > 1 else ""
            raise InvalidRequest(
                f"{len(found)} validation error{plural} detected: {'; '.join(found)}"
            )

    def check_members(
        self, shape: Structure, value: dict[str, Any], path: str, terse_path: str
    ) -> None:
        """Check what ``value`` has and what it lacks; paths end where a member's name follows."""
        for name, member in shape.members.items():
            if len(self.found) >= REQUEST_VIOLATIONS_MAX:
                return
            each = path + name[0].lower() + name[1:]
            given = value.get(name)
            if given is not None:
                self.check(member, given, each, terse_path + name)
            elif name in shape.required:
                self.found.append(
                    f"Value null at '{each}' failed to satisfy constraint: Member must not be null"
                )

    def check(self, shape: Shape, value: Any, path: str, terse_path: str) -> None:
        """Check one value, which is not null."""
        match shape:
            case String():
                self._check_string(shape, value, path)
            case Whole():
                self._check_range(shape, value, path, terse_path)
            case List():
                self._check_lengths(shape, value, path, terse_path)
                for position, element in enumerate(value, 1):
                    self._check_element(
                        shape.element,
                        element,
                        f"{path}.{position}.member",
                        f"{terse_path}.{position}.member",
                    )
            case Map():
                self._check_map(shape, value, path)
                if isinstance(shape.element, AttributeValue):
                    return
                for name, element in value.items():
                    self._check_element(
                        shape.element,
                        element,
                        f"{path}.{name}.member",
                        f"{terse_path}.{name}.member",
                    )
            case Structure():
                self.check_members(shape, value, f"{path}.", f"{terse_path}.")
            case _:
                pass

    def _check_element(self, shape: Shape, value: Any, path: str, terse_path: str) -> None:
        if len(self.found) >= REQUEST_VIOLATIONS_MAX:
            return
        if value is not None:
            self.check(shape, value, path, terse_path)
        elif not isinstance(shape, AttributeValue):  # ``model.values`` has words for an empty one.
            self.found.append(
                f"Value null at '{path}' failed to satisfy constraint: Member must not be null"
            )

    def _add(self, shape: Shape, value: Any, path: str, constraint: str) -> None:
        self.found.append(
            f"Value '{echo(shape, value)}' at '{path}' failed to satisfy constraint: {constraint}"
        )

    def _check_string(self, shape: String, value: str, path: str) -> None:
        if shape.table and TABLE_ARN.fullmatch(value) is None:
            shape = PLAIN_TABLE_NAME
        if shape.enum and value not in shape.enum:
            values = ", ".join(shape.enum)
            self._add(shape, value, path, f"Member must satisfy enum value set: [{values}]")
        if shape.pattern is not None and _PATTERNS[shape.pattern].fullmatch(value) is None:
            self._add(
                shape,
                value,
                path,
                f"Member must satisfy regular expression pattern: {shape.pattern}",
            )
        if shape.minimum is not None and len(value) < shape.minimum:
            self._add(shape, value, path, _at_least(shape.minimum))
        if shape.maximum is not None and len(value) > shape.maximum:
            self._add(shape, value, path, _at_most(shape.maximum))

    def _check_range(self, shape: Whole, value: int, path: str, terse_path: str) -> None:
        constraint = None
        if shape.minimum is not None and value < shape.minimum:
            constraint = f"Member must have value greater than or equal to {shape.minimum}"
        if shape.maximum is not None and value > shape.maximum:
            constraint = f"Member must have value less than or equal to {shape.maximum}"
        if constraint is None:
            return
        if shape.terse:
            self.terse.append(f"Value at '{terse_path}' failed to satisfy constraint: {constraint}")
        else:
            self._add(shape, value, path, constraint)

    def _check_lengths(self, shape: List, value: list[Any], path: str, terse_path: str) -> None:
        if shape.minimum is not None and len(value) < shape.minimum:
            self._add(shape, value, path, _at_least(shape.minimum))
        if shape.maximum is not None and len(value) > shape.maximum:
            constraint = _at_most(shape.maximum)
            if shape.terse:
                self.terse.append(
                    f"Value at '{terse_path}' failed to satisfy constraint: {constraint}"
                )
            else:
                self._add(shape, value, path, constraint)

    def _check_map(self, shape: Map, value: dict[str, Any], path: str) -> None:
        if shape.table_names and not all(map(_is_table, value)):
            self._add(
                shape,
                value,
                path,
                "Map keys must satisfy constraint: [Member must have length less than or equal "
                "to 255, Member must have length greater than or equal to 3, Member must satisfy "
                f"regular expression pattern: {NAME_PATTERN}]",
            )
        if shape.element_lengths is not None:
            least, most = shape.element_lengths
            if not all(least <= len(each) <= most for each in value.values() if each is not None):
                self._add(
                    shape,
                    value,
                    path,
                    f"Map value must satisfy constraint: [{_at_most(most)}, {_at_least(least)}]",
                )


def _at_least(length: int) -> str:
    return f"Member must have length greater than or equal to {length}"


def _at_most(length: int) -> str:
    return f"Member must have length less than or equal to {length}"


def _is_table(name: str) -> bool:
    if TABLE_ARN.fullmatch(name) is not None:
        return True
    return 3 <= len(name) <= 255 and _PATTERNS[NAME_PATTERN].fullmatch(name) is not None


def echo(shape: Shape, value: Any) -> str:
    """``value`` as DynamoDB repeats it in a message, cut in the middle when it is long."""
    text = _echo(shape, value)
    if len(text) <= REQUEST_ECHO_CHARACTERS_MAX:
        return text
    half = REQUEST_ECHO_CHARACTERS_MAX // 2
    return f"{text[:half]}...{text[-half:]}"


def _echo(shape: Shape, value: Any) -> str:
    if value is None:
        return "null"
    match shape:
        case List():
            return "[" + ", ".join([_echo(shape.element, each) for each in value]) + "]"
        case Map():
            each = [f"{name}={_echo(shape.element, it)}" for name, it in value.items()]
            return "{" + ", ".join(each) + "}"
        case Structure():
            members = [
                f"{name[0].lower()}{name[1:]}={_echo(member, value.get(name))}"
                for name, member in shape.members.items()
            ]
            return f"{shape.name}({', '.join(members)})"
        case AttributeValue():
            return f"AttributeValue({', '.join(map(_echo_tag, value.items()))})"
        case Boolean():
            return "true" if value else "false"
        case _:
            return str(value)


def _echo_tag(member: tuple[str, Any]) -> str:
    # The inside of documents and sets is left out: it is unbounded in depth, and DynamoDB itself
    # prints it in a form that changes between its servers.
    tag, content = member
    return f"{tag}={content if isinstance(content, str | bool) else '...'}"
