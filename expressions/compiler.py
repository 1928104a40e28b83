"""A request's expressions, all together: placeholders in, trees out, with DynamoDB's messages.

The placeholders belong to the request and not to one expression, so their hygiene (each is defined,
each is used) can only be checked over all expressions at once. Nothing here needs the table or the
item: what passes is well formed.

Results are kept by text, names and the types of values, since the rest of a request's values cannot
change a tree. What can depend on their contents (``ContentCheck``) is checked every time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from ..errors import InvalidRequest, MalformedRequest
from ..limits import (
    ATTRIBUTE_NAME_BYTES_MAX,
    EXPRESSION_BYTES_MAX,
    EXPRESSION_CACHED_CHARACTERS_MAX,
    EXPRESSIONS_CACHED_MAX,
    PLACEHOLDER_BYTES_MAX,
    SUBSTITUTIONS_BYTES_MAX,
)
from ..model.values import AttributeValue
from .condition_rules import ContentCheck, build_condition
from .keyconditions import KeyCondition, key_condition
from .nodes import Condition, Projection, Values
from .parser import parse_condition, parse_projection, parse_update
from .rules import Scope
from .update_rules import build_projection, build_update
from .updates import Update

_NAME_PLACEHOLDER: Final = re.compile(r"#[A-Za-z0-9_]+")
_VALUE_PLACEHOLDER: Final = re.compile(r":[A-Za-z0-9_]+")
_Checks = tuple[tuple[str, tuple[ContentCheck, ...]], ...]
_Tree = TypeVar("_Tree")


class Compiled(msgspec.Struct, frozen=True):
    """The trees of one request; None for an expression that it does not have."""

    condition: Condition | None = None
    filter: Condition | None = None
    projection: Projection | None = None
    update: Update | None = None
    key_condition: KeyCondition | None = None


_NOTHING: Final = Compiled()


class _Cache:
    """Compiled requests, the least recently used forgotten first."""

    __slots__ = ("_entries", "_entries_max")

    def __init__(self, entries_max: int) -> None:
        assert entries_max > 0
        # In the order of use, the latest last; never more than entries_max.
        self._entries: dict[tuple[Any, ...], tuple[Compiled, _Checks]] = {}
        self._entries_max = entries_max

    def get(self, key: tuple[Any, ...]) -> tuple[Compiled, _Checks] | None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._entries[key] = entry
        return entry

    def put(self, key: tuple[Any, ...], entry: tuple[Compiled, _Checks]) -> None:
        if len(self._entries) >= self._entries_max:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = entry

    def __len__(self) -> int:
        return len(self._entries)


# A pure function's memory: it can be seen only in the time that a second call takes.
_cache: Final = _Cache(EXPRESSIONS_CACHED_MAX)


def compile_expressions(
    *,
    condition: str | None = None,
    filter: str | None = None,
    projection: str | None = None,
    update: str | None = None,
    key_condition: str | None = None,
    names: Mapping[str, str] | None = None,
    values: Mapping[str, AttributeValue] | None = None,
    value_expressions: Sequence[str] = (),
    values_size_bytes: int = 0,
) -> Compiled:
    """Compile all expressions of one request.

    ``names`` and ``values`` are ExpressionAttributeNames and -Values, None if absent from the
    request; the values' contents are already validated and normalised (model/values.py) and
    ``values_size_bytes`` is their total size. ``value_expressions`` names the parameters of this
    operation that can use values, in DynamoDB's order, such as ``("UpdateExpression",
    "ConditionExpression")``: only the message about values without any of them tells it.

    Raises InvalidRequest with DynamoDB's wording. What needs the table is checked by the trees:
    ``KeyCondition.resolve``, ``check_update_keys``, ``check_scalar_keys``.
    """
    texts = (update, condition, key_condition, filter, projection)
    if values is not None and update is condition is key_condition is filter is None:
        # The values of such a request have not been looked at: it is refused for having any.
        _check_placeholders(texts, names, values, value_expressions)
        raise AssertionError("values without an expression that could use them are refused")
    if names is None and values is None:
        key: tuple[Any, ...] = texts
        if key == (None, None, None, None, None):
            return _NOTHING
    else:
        key = (
            *texts,
            None if names is None else tuple(names.items()),
            None if values is None else tuple([(name, *value) for name, value in values.items()]),
        )
    entry = _cache.get(key)
    if entry is None:
        _check_placeholders(texts, names, values, value_expressions)
        entry = _compile(texts, names or {}, values or {})
        if _characters(texts, names or {}, values or {}) <= EXPRESSION_CACHED_CHARACTERS_MAX:
            _cache.put(key, entry)
    elif values is not None:
        for parameter, checks in entry[1]:
            _check_contents(parameter, checks, values)
    if values_size_bytes > SUBSTITUTIONS_BYTES_MAX:
        raise InvalidRequest("ExpressionAttributeValues exceeds max size")
    return entry[0]


def _characters(texts: tuple[str | None, ...], names: Mapping[str, str], values: Values) -> int:
    """The size of what would be remembered, all but the contents of values."""
    return (
        sum([len(text) for text in texts if text is not None])
        + sum([len(key) + len(name) for key, name in names.items()])
        + sum([len(key) for key in values])
    )


def _compile(
    texts: tuple[str | None, ...], names: Mapping[str, str], values: Values
) -> tuple[Compiled, _Checks]:
    """The trees. DynamoDB looks at the expressions in this order."""
    update, condition, key, filter_, projection = texts
    scope = Scope(names, values)
    checks: list[tuple[str, tuple[ContentCheck, ...]]] = []

    def compile_condition(parameter: str) -> Callable[[str], Condition]:
        def compile_text(text: str) -> Condition:
            tree, content_checks = build_condition(parse_condition(text), scope, values)
            if content_checks:
                checks.append((parameter, content_checks))
            return tree

        return compile_text

    def compile_key_condition(text: str) -> KeyCondition:
        return key_condition(compile_condition("KeyConditionExpression")(text))

    def compile_update(text: str) -> Update:
        return build_update(parse_update(text), scope)

    def compile_projection(text: str) -> Projection:
        return build_projection(parse_projection(text), scope)

    result = Compiled(
        update=_compile_one("UpdateExpression", update, compile_update),
        condition=_compile_one(
            "ConditionExpression", condition, compile_condition("ConditionExpression")
        ),
        key_condition=_compile_one("KeyConditionExpression", key, compile_key_condition),
        filter=_compile_one("FilterExpression", filter_, compile_condition("FilterExpression")),
        projection=_compile_one("ProjectionExpression", projection, compile_projection),
    )
    _check_used("ExpressionAttributeNames", names, scope.used_names)
    _check_used("ExpressionAttributeValues", values, scope.used_values)
    return result, tuple(checks)


def _compile_one(
    parameter: str, text: str | None, compile_text: Callable[[str], _Tree]
) -> _Tree | None:
    if text is None:
        return None
    try:
        size_bytes = len(text.encode(errors="surrogatepass"))
        if size_bytes > EXPRESSION_BYTES_MAX:
            raise InvalidRequest(
                "Expression size has exceeded the maximum allowed size; "
                f"expression size: {size_bytes}"
            )
        if not text.strip():
            raise InvalidRequest("The expression can not be empty;")
        return compile_text(text)
    except InvalidRequest as error:
        raise InvalidRequest(f"Invalid {parameter}: {error}") from None


def _check_contents(parameter: str, checks: tuple[ContentCheck, ...], values: Values) -> None:
    try:
        for check in checks:
            check.check(values)
    except InvalidRequest as error:
        raise InvalidRequest(f"Invalid {parameter}: {error}") from None


# Placeholders ------------------------------------------------------------------------------------


def _check_placeholders(
    texts: tuple[str | None, ...],
    names: Mapping[str, str] | None,
    values: Mapping[str, AttributeValue] | None,
    value_expressions: Sequence[str],
) -> None:
    """What can be said of the two maps without reading an expression."""
    *with_values, _projection = texts
    if names is not None and all(text is None for text in texts):
        raise InvalidRequest(
            "ExpressionAttributeNames can only be specified when using expressions"
        )
    if values is not None and all(text is None for text in with_values):
        reason = ""
        if value_expressions:
            verb = "is" if len(value_expressions) == 1 else "are"
            reason = f": {' and '.join(value_expressions)} {verb} null"
        raise InvalidRequest(
            "ExpressionAttributeValues can only be specified when using expressions" + reason
        )
    if names is not None:
        _check_keys("ExpressionAttributeNames", names, _NAME_PLACEHOLDER)
        size_bytes = 0
        for key, name in names.items():
            size_bytes += len(key) + _check_attribute_name(key, name)
        if size_bytes > SUBSTITUTIONS_BYTES_MAX:
            raise InvalidRequest("ExpressionAttributeNames exceeds max size")
    if values is not None:
        _check_keys("ExpressionAttributeValues", values, _VALUE_PLACEHOLDER)


def _check_keys(parameter: str, keys: Mapping[str, Any], pattern: re.Pattern[str]) -> None:
    if not keys:
        raise InvalidRequest(f"{parameter} must not be empty")
    for key in keys:
        if pattern.fullmatch(key) is None:
            raise InvalidRequest(f'{parameter} contains invalid key: Syntax error; key: "{key}"')
        if len(key) > PLACEHOLDER_BYTES_MAX:
            raise InvalidRequest(
                f"{parameter} contains invalid key: "
                f"The expression attribute map contains a key that is too long; key: {key}"
            )


def _check_attribute_name(key: str, name: str) -> int:
    """The size of the name in bytes."""
    try:
        size_bytes = len(name.encode())
    except UnicodeEncodeError:
        raise MalformedRequest("A string is not valid Unicode") from None
    problem = None
    if not name:
        problem = "Empty attribute name"
    elif size_bytes > ATTRIBUTE_NAME_BYTES_MAX:
        problem = (
            f"Attribute name is too large, must be less than {ATTRIBUTE_NAME_BYTES_MAX + 1} bytes"
        )
    if problem is not None:
        raise InvalidRequest(
            f"ExpressionAttributeNames contains invalid value: {problem} for key {key}"
        )
    return size_bytes


def _check_used(parameter: str, given: Mapping[str, Any], used: set[str]) -> None:
    unused = [key for key in given if key not in used]
    if unused:
        raise InvalidRequest(
            f"Value provided in {parameter} unused in expressions: keys: {{{', '.join(unused)}}}"
        )


# What needs the table ----------------------------------------------------------------------------


def check_update_keys(update: Update, key_names: Sequence[str]) -> None:
    """Refuse an update of a key attribute. Raises InvalidRequest."""
    for name in key_names:
        if name in update.names:
            raise InvalidRequest(
                "One or more parameter values were invalid: "
                f"Cannot update attribute {name}. This attribute is part of the key"
            )


def check_scalar_keys(
    expression: Condition | Projection | Update,
    key_names: Sequence[str],
    index_key_names: Sequence[str] = (),
) -> None:
    """Refuse ``.`` and ``[]`` on the attributes of the table's or an index's key."""
    if not expression.nested:
        return
    for kind, names in (("Key", key_names), ("IndexKey", index_key_names)):
        for name in names:
            if name in expression.nested:
                raise InvalidRequest(
                    "Key attributes must be scalars; list random access '[]' and map lookup '.' "
                    f"are not allowed: {kind}: {name}"
                )


def check_filter_keys(
    expression: Condition, key_names: Sequence[str], parameter: str = "Filter Expression"
) -> None:
    """Refuse a Query's filter on the key that it queries by.

    ``parameter`` is "Filter Expression" or "QueryFilter".
    """
    for name in key_names:
        if name in expression.names:
            raise InvalidRequest(
                f"{parameter} can only contain non-primary key attributes: "
                f"Primary key attribute: {name}"
            )
