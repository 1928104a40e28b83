"""What the item operations do with a request before it has a meaning: decode it, find its table.

The fast path takes a good request for granted; a typed decode that fails goes through
``validation``, which either finds the complaint or returns what the types are too strict for. The
order of everything after it is DynamoDB's: what the request alone decides, in the order that each
operation writes down, then the table, then what needs the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ...errors import InvalidRequest, ResourceNotFound
from ...expressions import (
    Compiled,
    Condition,
    Projection,
    Update,
    check_scalar_keys,
    compile_expressions,
    legacy_projection,
)
from ...model.keys import check_key, encode_component, table_key
from ...model.schema import GlobalIndex, LocalIndex, Status, Table
from ...model.values import Item, check_value
from .. import validation
from ..calls import Caller
from ..json_types import decode_uncollected
from ..requests import GetItemRequest, KeysAndAttributes

if TYPE_CHECKING:
    from ...actors.tables import TableRef, Tables

Request = TypeVar("Request")

TABLE_NOT_FOUND = "Requested resource not found"


def reader(operation: str, request_type: type[Request]) -> Callable[[bytes], Request]:
    """A function from a body to ``operation``'s request.

    It raises MalformedRequest or InvalidRequest, as ``validation.read`` does.
    """
    decode = msgspec.json.Decoder(request_type).decode

    def read(body: bytes) -> Request:
        try:
            return decode_uncollected(decode, body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return msgspec.convert(validation.read(operation, body), request_type)

    return read


def find_table(tables: Tables, caller: Caller, name: str) -> TableRef:
    """The table that ``name``, a name or an ARN, stands for, if it can be read and written.

    Raises ResourceNotFound also for a table that is being created or deleted, as DynamoDB does.
    """
    ref = tables.find(caller.namespace, name)
    if ref is None:
        ref = tables.find(caller.namespace, validation.table_name_of(name))
    if ref is None or ref.table.status not in _USABLE:
        raise ResourceNotFound(TABLE_NOT_FOUND)
    return ref


_USABLE = (Status.ACTIVE, Status.UPDATING)


def item_key(table: Table, key: Item) -> bytes:
    """The tree key that a request's Key, whose values have been checked, stands for.

    Raises InvalidRequest when it is not a key of this table.
    """
    check_key(key, table.key)
    return tree_key(table, key)


def tree_key(table: Table, item: Item) -> bytes:
    """The tree key of an item or a key whose key attributes have been checked."""
    attribute = table.key.hash[0]
    component = encode_component(attribute.kind, item[attribute.name])
    if not table.key.range:
        return table_key(component, None)
    attribute = table.key.range[0]
    return table_key(component, encode_component(attribute.kind, item[attribute.name]))


def compile_request(
    *,
    names: Mapping[str, str] | None,
    values: dict[str, Any] | None = None,
    value_expressions: Sequence[str] = (),
    condition: str | None = None,
    update: str | None = None,
    key_condition: str | None = None,
    filter_: str | None = None,
    projection: str | None = None,
) -> Compiled:
    """Check the values of a request's placeholders and compile its expressions.

    ``value_expressions`` is ``compile_expressions``'s. Raises InvalidRequest.
    """
    size_bytes = 0
    # Values that no expression could use are refused for that, whatever they are.
    able = not (condition is update is key_condition is filter_ is None)
    if values is not None and able:
        for key, value in values.items():
            try:
                size_bytes += len(key) + check_value(value)
            except InvalidRequest as error:
                raise InvalidRequest(
                    f"ExpressionAttributeValues contains invalid value: {error} for key {key}"
                ) from None
    return compile_expressions(
        condition=condition,
        filter=filter_,
        projection=projection,
        update=update,
        key_condition=key_condition,
        names=names,
        values=values,
        value_expressions=value_expressions,
        values_size_bytes=size_bytes,
    )


def refuse_idle_placeholders(
    names: Mapping[str, str] | None,
    values: Mapping[str, Any] | None,
    able: Mapping[str, str | None],
    projection: str | None = None,
) -> None:
    """Refuse placeholders that no expression of the request could use.

    ``able`` are the operation's expressions that can hold values, in DynamoDB's order; a projection
    has only names. DynamoDB says this before it looks at any value; everything else about
    placeholders is ``compile_request``'s. Raises InvalidRequest.
    """
    if names is None and values is None:
        return
    if all(text is None for text in able.values()) and (values is not None or projection is None):
        compile_expressions(
            projection=projection, names=names, values=values, value_expressions=tuple(able)
        )


def projection_of(request: GetItemRequest | KeysAndAttributes) -> Projection | None:
    """The projection of a read of single items, legacy or not; None for whole items."""
    if request.attributes_to_get is not None:
        return legacy_projection(request.attributes_to_get)
    text, names = request.projection_expression, request.expression_attribute_names
    if text is None and names is None:
        return None
    return compile_request(names=names, projection=text).projection


def plain(parameter: Mapping[str, msgspec.Struct] | None) -> dict[str, Any] | None:
    """A legacy parameter as the JSON that it came as, which is what ``expressions`` reads."""
    if parameter is None:
        return None
    return {name: msgspec.to_builtins(each) for name, each in parameter.items()}


def indexes_of(table: Table) -> list[LocalIndex | GlobalIndex]:
    """All secondary indexes, in the order in which DynamoDB looks at them."""
    return [*table.global_indexes, *table.local_indexes]


def check_scalar(table: Table, expression: Condition | Projection | Update | None) -> None:
    """Refuse an expression that reaches into an attribute that is part of a key."""
    if expression is not None and expression.nested:
        index_names = [name for index in indexes_of(table) for name in index.key.names()]
        check_scalar_keys(expression, table.key.names(), index_names)


def check_assigned_types(table: Table, update: Update, values: dict[str, Any]) -> None:
    """Refuse a value of the wrong type for an index key where the request alone shows it.

    DynamoDB does so before it looks at the item; what an item's own values assign is judged in the
    partition. Of several indexes the one is named whose name sorts first.
    """
    if not table.global_indexes and not table.local_indexes:
        return
    types = update.assigned_types(values)
    for index in sorted(indexes_of(table), key=lambda each: each.name):
        for attribute in index.key.attributes():
            found = types.get(attribute.name)
            if found is not None and found != attribute.kind:
                raise InvalidRequest(
                    "One or more parameter values were invalid: Type mismatch for Index Key "
                    f"{attribute.name} Expected: {attribute.kind} Actual: {found} "
                    f"IndexName: {index.name}"
                )
