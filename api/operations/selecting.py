"""What Query and Scan have in common: the index, where to start, which attributes to answer.

Pure checks of a request against a schema. Some messages differ between the two operations for no
reason that shows; the conformance suite and dynalite recorded which says what.
"""

from __future__ import annotations

from ...errors import InvalidRequest
from ...expressions import Condition, Projection
from ...model.keys import check_index_key, check_key
from ...model.schema import GlobalIndex, KeyAttribute, LocalIndex, Status, Table
from ...model.values import Item, check_value
from ...storage.indexes import entry_key
from ..requests import PageRequest
from .inputs import tree_key
from .pages import Plan, start_key_names

START_INVALID = "The provided starting key is invalid"
START_MISMATCH = f"{START_INVALID}: The provided key element does not match the schema"
_KEY_MISMATCH = "The provided key element does not match the schema"
_INVALID = "One or more parameter values were invalid: "

# The complaints about a value that DynamoDB makes without saying that the starting key is meant.
_UNPREFIXED = (
    "contains duplicates",
    "number set",
    "numeric value",
    "significant digits",
    "number with magnitude",
)


# -- Indexes -------------------------------------------------------------------------------------


def find_index(
    table: Table, name: str | None, consistent: bool
) -> LocalIndex | GlobalIndex | None:
    """The index to read; None for the table itself. Raises InvalidRequest if it cannot be read."""
    if name is None:
        return None
    local = table.local_index(name)
    if local is not None:
        return local
    index = table.global_index(name)
    if index is None or index.status is Status.DELETING:
        raise InvalidRequest(f"The table does not have the specified index: {name}")
    if consistent:
        raise InvalidRequest("Consistent reads are not supported on global secondary indexes")
    if index.backfilling or index.status is Status.CREATING:
        raise InvalidRequest(f"Cannot read from backfilling global secondary index: {name}")
    return index


def holds(table: Table, index: LocalIndex | GlobalIndex, name: str) -> bool:
    """Whether the index's entries have the attribute."""
    projection = index.projection
    return (
        projection.kind == "ALL"
        or name in projection.attributes
        or name in index.key.names()
        or name in table.key.names()
    )


# -- ExclusiveStartKey ---------------------------------------------------------------------------


def check_start_values(start: Item) -> None:
    """Check and normalise the values of an ExclusiveStartKey, in place."""
    for value in start.values():
        try:
            check_value(value)
        except InvalidRequest as error:
            text = str(error)
            if any(part in text for part in _UNPREFIXED):
                raise
            raise InvalidRequest(f"{START_INVALID}: {text}") from None


def check_start_key_count(
    table: Table, index: LocalIndex | GlobalIndex | None, start: Item, message: str
) -> None:
    """Refuse a starting key that cannot have all attributes and no other, with ``message``."""
    if len(start) != len(start_key_names(table, index)):
        raise InvalidRequest(message)


def check_start_key(attributes: tuple[KeyAttribute, ...], start: Item) -> None:
    """Check attributes of the key that is read by: the index's, or the table's in a Query."""
    for attribute in attributes:
        value = start.get(attribute.name)
        if value is None:
            raise InvalidRequest(START_INVALID)
        if attribute.kind not in value:
            raise InvalidRequest(_KEY_MISMATCH)


def check_start_table_key(
    table: Table, index: LocalIndex | GlobalIndex | None, start: Item
) -> None:
    """Check the table's key within a starting key, and that no part of it is empty or too long."""
    own = {name: start[name] for name in table.key.names() if name in start}
    try:
        check_key(own, table.key)
        if index is not None:
            check_index_key(start, index.name, index.key)
    except InvalidRequest as error:
        raise InvalidRequest(f"{START_INVALID}: {error}") from None


def start_key(table: Table, index: LocalIndex | GlobalIndex | None, start: Item) -> bytes:
    """The tree key behind which reading goes on; ``start`` has passed the checks above."""
    key = tree_key(table, start)
    if index is None:
        return key
    entry = entry_key(table, index, start, key)
    assert entry is not None, "a checked starting key has all key attributes of the index"
    return entry


# -- Attributes ----------------------------------------------------------------------------------


def check_select(request: PageRequest, envelope: str) -> None:
    """Check Select against what else the request says, without the table.

    ``envelope`` is what the operation puts before one of the messages.
    """
    select = request.select
    if select is None:
        return
    listed = [
        parameter
        for parameter, value in (
            ("AttributesToGet", request.attributes_to_get),
            ("ProjectionExpression", request.projection_expression),
        )
        if value is not None
    ]
    if select == "SPECIFIC_ATTRIBUTES":
        if not listed:
            raise InvalidRequest(
                f"{envelope}Must specify the AttributesToGet or ProjectionExpression when choosing "
                "to get SPECIFIC_ATTRIBUTES"
            )
        return
    if listed:
        target = "only the Count" if select == "COUNT" else select
        raise InvalidRequest(f"Cannot specify the {listed[0]} when choosing to get {target}")
    if select == "ALL_PROJECTED_ATTRIBUTES" and request.index_name is None:
        # Scan says "Querying" as well.
        raise InvalidRequest(
            "ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName"
        )


def read_attributes(plan: Plan, select: str | None, projection: Projection | None) -> None:
    """Complete ``plan`` with what to answer of each row.

    A local index that lacks something asked for has it fetched from the table; a global one cannot
    be asked for it.
    """
    table, index = plan.table, plan.index
    if projection is not None:
        plan.shape = projection.project
        if index is not None:
            names = sorted({str(path[0]) for path in projection.paths})
            missing = [name for name in names if not holds(table, index, name)]
            if missing and isinstance(index, GlobalIndex):
                raise InvalidRequest(
                    f"{_INVALID}Global secondary index {index.name} does not project "
                    f"[{', '.join(missing)}]"
                )
            plan.fetch = bool(missing)
    elif select == "ALL_ATTRIBUTES" and index is not None and index.projection.kind != "ALL":
        if isinstance(index, GlobalIndex):
            raise InvalidRequest(
                f"{_INVALID}Select type ALL_ATTRIBUTES is not supported for global secondary index "
                f"{index.name} because its projection type is not ALL"
            )
        plan.fetch = True


def check_filter_projected(
    table: Table, index: LocalIndex | GlobalIndex, condition: Condition
) -> None:
    """Refuse a Query's filter on what the index does not hold. (A Scan's matches nothing.)"""
    missing = [name for name in condition.names if not holds(table, index, name)]
    if missing:
        raise InvalidRequest(
            f"{_INVALID}Secondary index {index.name} does not project one or more filter "
            f"attributes: [{', '.join(missing)}]"
        )
