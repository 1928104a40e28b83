"""The first stage of every request: is it JSON of the right shape, within the modelled constraints?

DynamoDB does this in three steps, and the first that finds something answers:

1. the body is decoded and every member checked against its JSON type, in the body's order: one
   SerializationException (``MalformedRequest`` here);
2. the table's name alone: a ValidationException about nothing else (``InvalidRequest``);
3. every other constraint, all violations in one ValidationException, at most ten.

What the members mean together is the operations' business and comes after. The item operations
decode by typed structures and come here only when that fails: ``read`` then either finds the exact
complaint or returns the request in plain form, since a few oddities are accepted (nulls count as
absent, ``"true"`` as a boolean, members that the service does not model are skipped). Tables are
rarely created, so their operations always come through ``read``.

Pure functions over decoded JSON, which is changed in place. Wording: the conformance suite's
recordings of AWS, and dynalite's for what they do not reach.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

import msgspec

from ..errors import InvalidRequest, MalformedRequest
from ..limits import (
    REQUEST_ECHO_CHARACTERS_MAX,
    REQUEST_NESTING_MAX,
    REQUEST_VIOLATIONS_MAX,
)
from .shapes import (
    INTEGER_MAX,
    LONG_MAX,
    NAME_PATTERN,
    OPERATIONS,
    PLAIN_TABLE_NAME,
    VALUE_MEMBERS,
    AttributeValue,
    Blob,
    Boolean,
    List,
    Map,
    Shape,
    String,
    Structure,
    Whole,
)

_ARN = re.compile(r"arn:aws[a-z-]*:dynamodb:[a-z0-9-]+:[0-9]{12}:table/([a-zA-Z0-9_.-]{3,255})")
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_PATTERNS = {NAME_PATTERN: re.compile(NAME_PATTERN)}
_TRUE = frozenset({"TRUE", "1", "YES"})
_FALSE = frozenset({"FALSE", "0", "NO"})

_VALUE = AttributeValue()
_TEXT_TAGS = frozenset("SN")

# The control plane says this of a missing table's name; the item operations use the constraint.
_NAME_REQUIRED = "The parameter 'TableName' is required but was not present in the request"
_CONTROL_PLANE = frozenset({"CreateTable", "UpdateTable", "DeleteTable", "DescribeTable"})
_TAGGING = frozenset({"TagResource", "UntagResource", "ListTagsOfResource"})


def read(operation: str, body: bytes) -> dict[str, Any]:
    """The request in ``body``, checked: only modelled members, no nulls, constraints met.

    Attribute values are of the right JSON types and otherwise as they came: ``model.values``
    judges and normalises them.

    Raises:
        MalformedRequest: not UTF-8, not JSON, not an object, or a member of the wrong type.
        InvalidRequest: a constraint is violated; the message is DynamoDB's.
    """
    request = decode(body)
    check(operation, request)
    return request


def diagnose(operation: str, body: bytes) -> NoReturn:
    """Raise what is wrong with ``body``, which a stricter reader has refused.

    Raises:
        MalformedRequest, InvalidRequest: as ``read``; MalformedRequest also when ``read`` finds
            nothing wrong, so that the stricter reader's refusal stands.
    """
    read(operation, body)
    raise MalformedRequest("Unexpected value type in payload")


def decode(body: bytes) -> dict[str, Any]:
    """``body`` as a JSON object.

    Raises:
        MalformedRequest: it is not one.
    """
    try:
        request = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise MalformedRequest(f"The request body is not valid JSON: {error}") from None
    except RecursionError:
        raise MalformedRequest("The request body is nested too deeply") from None
    if type(request) is dict:
        return request
    if type(request) is list:
        raise MalformedRequest("Start of list found where not expected")
    raise MalformedRequest("Unexpected value type in payload")


def check(operation: str, request: dict[str, Any]) -> None:
    """Check decoded JSON against ``operation``'s shape; drop from it what DynamoDB skips.

    Raises:
        MalformedRequest: a member has the wrong JSON type.
        InvalidRequest: a constraint is violated; the message is DynamoDB's.
    """
    shape = OPERATIONS[operation]
    _read_structure(shape, request)
    _check_table_name(operation, request)
    if operation in _TAGGING and request.get("ResourceArn") is None:
        raise InvalidRequest("Invalid TableArn")
    violations = _Violations()
    violations.check_members(shape, request, "", "")
    violations.finish()
    if request.get("RequestItems") == {}:
        raise InvalidRequest(f"The requestItems parameter is required for {operation}")


def table_name_of(value: str) -> str:
    """The table's name in ``value``, which is a name or a table's ARN.

    Account and region in an ARN are not compared with the node's: a node is one account's and one
    region's whole world. A text that is neither is returned as it is, and names no table.
    """
    if value.startswith("arn:"):
        found = _ARN.fullmatch(value)
        if found is not None:
            return found[1]
    return value


# -- Step 1: JSON types --------------------------------------------------------------------------


def _read_structure(shape: Structure, value: dict[str, Any]) -> None:
    for name in list(value):
        member = shape.members.get(name)
        if member is None or value[name] is None:
            del value[name]
        else:
            value[name] = _read(member, value[name], "member")


def _read(shape: Shape, value: Any, place: str) -> Any:
    """``value`` if its JSON type is ``shape``'s. ``place``: is it a member or an element?

    The words differ between a structure's members and a collection's elements.
    """
    if value is None:
        return None
    match shape:
        case String():
            return _read_scalar(value, str, "String")
        case Blob():
            return _read_blob(value)
        case Boolean():
            return _read_boolean(value)
        case Whole():
            return _read_whole(shape, value)
        case AttributeValue():
            _read_attribute_value(value, place, 0)
            return value
        case List():
            _expect(list, shape, value, place)
            return [_read(shape.element, element, "element") for element in value]
        case Map(element=AttributeValue()):
            _expect(dict, shape, value, place)
            for each in value.values():
                if each is not None:
                    _read_attribute_value(each, "element", 0)
            return value
        case Map():
            _expect(dict, shape, value, place)
            return {name: _read(shape.element, each, "element") for name, each in value.items()}
        case Structure():
            _expect(dict, shape, value, place)
            _read_structure(shape, value)
            return value


def _expect(wanted: type, shape: Shape, value: Any, place: str) -> None:
    """Refuse ``value`` unless it is the ``wanted`` kind of collection."""
    if type(value) is wanted:
        return
    if type(value) is dict:
        raise MalformedRequest("Start of structure or map found where not expected")
    if type(value) is list:
        raise MalformedRequest(f"Unrecognized collection type {_collection_type(shape)}")
    if place == "member":
        raise MalformedRequest("Unexpected field type")
    if isinstance(shape, Structure | AttributeValue):
        raise MalformedRequest("Unexpected value type in payload")
    raise MalformedRequest(
        "class sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl cannot be cast to "
        "class java.lang.Class (sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl and "
        "java.lang.Class are in module java.base of loader 'bootstrap')"
    )


def _read_scalar(value: Any, wanted: type, java: str) -> Any:
    if type(value) is wanted:
        return value
    if type(value) is dict:
        raise MalformedRequest("Start of structure or map found where not expected")
    if type(value) is list:
        raise MalformedRequest(f"Unrecognized collection type class java.lang.{java}")
    raise MalformedRequest(f"{_token(value)} cannot be converted to {java}")


def _token(value: Any) -> str:
    """What DynamoDB's JSON parser calls a scalar."""
    if value is True:
        return "TRUE_VALUE"
    if value is False:
        return "FALSE_VALUE"
    if type(value) is str:
        return "STRING_VALUE"
    return "NUMBER_VALUE" if type(value) is int else "DECIMAL_VALUE"


def _read_boolean(value: Any) -> bool:
    if type(value) is str:
        if value.upper() in _TRUE:
            return True
        if value.upper() in _FALSE:
            return False
        raise MalformedRequest("Unexpected token received from parser")
    read_value: bool = _read_scalar(value, bool, "Boolean")
    return read_value


def _read_whole(shape: Whole, value: Any) -> int:
    if type(value) is float:
        value = int(value)  # As Java narrows: towards zero. JSON has no infinity to trip over.
    number: int = _read_scalar(value, int, shape.java)
    most = INTEGER_MAX if shape.java == "Integer" else LONG_MAX
    if not -most - 1 <= number <= most:
        kind = "int" if shape.java == "Integer" else "long"
        raise MalformedRequest(
            f"Numeric value ({number}) out of range of {kind} ({-most - 1} - {most})"
        )
    return number


def _read_blob(value: Any) -> str:
    if type(value) is list:
        raise MalformedRequest("Unrecognized collection type class java.nio.ByteBuffer")
    if type(value) is dict:
        raise MalformedRequest("Start of structure or map found where not expected")
    if type(value) is not str:
        raise MalformedRequest("only base-64-encoded strings are convertible to bytes")
    if len(value) % 4:
        raise MalformedRequest(
            f"Base64 encoded length is expected a multiple of 4 bytes but found: {len(value)}"
        )
    if _BASE64.fullmatch(value) is None:
        raise MalformedRequest("Invalid last non-pad Base64 character dectected")
    return value


def _read_attribute_value(value: Any, place: str, depth: int) -> None:
    """Check the JSON types of a whole attribute value, changing nothing in it.

    Below the deepest level that any value may have nothing is looked at: ``model.values`` refuses
    the value for its depth, and this recursion stays bounded.
    """
    if type(value) is not dict:
        _expect(dict, _VALUE, value, place)
    if depth > REQUEST_NESTING_MAX:
        return
    for tag, content in value.items():
        if type(content) is str and tag in _TEXT_TAGS:
            continue  # Nearly all of what is stored, and a refused batch may hold a million.
        shape = VALUE_MEMBERS.get(tag)
        if shape is None or content is None:
            continue
        match shape:
            case List(element=AttributeValue()):
                _expect(list, shape, content, "member")
                elements = content
            case Map():
                _expect(dict, shape, content, "member")
                elements = content.values()
            case _:
                _read(shape, content, "member")
                continue
        for element in elements:
            if element is not None:
                _read_attribute_value(element, "element", depth + 1)


def _collection_type(shape: Shape) -> str:
    java = _java_type(shape)
    return java if isinstance(shape, Map | List) else f"class {java}"


def _java_type(shape: Shape) -> str:
    match shape:
        case Structure():
            return f"com.amazonaws.dynamodb.v20120810.{shape.name}"
        case AttributeValue():
            return "com.amazonaws.dynamodb.v20120810.AttributeValue"
        case List():
            return f"java.util.List<{_java_type(shape.element)}>"
        case Map():
            return f"java.util.Map<java.lang.String, {_java_type(shape.element)}>"
        case Blob():
            return "java.nio.ByteBuffer"
        case Whole():
            return f"java.lang.{shape.java}"
        case _:
            return f"java.lang.{type(shape).__name__}"


# -- Step 2: the table's name ---------------------------------------------------------------------


def _check_table_name(operation: str, request: dict[str, Any]) -> None:
    """A bad table name is told before and without everything else."""
    shape = OPERATIONS[operation].members.get("TableName")
    if shape is None:
        return
    name = request.get("TableName")
    if name is None:
        if operation in _CONTROL_PLANE:
            raise InvalidRequest(_NAME_REQUIRED)
        return  # Listed with the other missing members.
    violations = _Violations()
    violations.check(shape, name, "tableName", "TableName")
    if not violations.found and _ARN.fullmatch(name) is None:
        violations.check(PLAIN_TABLE_NAME, name, "tableName", "TableName")
    violations.finish()


# -- Step 3: constraints --------------------------------------------------------------------------


class _Violations:
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
    if _ARN.fullmatch(name) is not None:
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
