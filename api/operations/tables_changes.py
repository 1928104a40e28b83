"""UpdateTable: from a request and the table as it stands to a ``TableChange``, with every rule.

Two stages, as DynamoDB has them: ``check_request`` needs no table; ``change`` edits the row of an
ACTIVE one. Pure, except that the moment is handed in. Refusals are DynamoDB's: ``InvalidRequest``,
``LimitExceeded`` (one index at a time, decreases a day), ``ResourceNotFound`` (no such index).
"""

from __future__ import annotations

from typing import Any

import msgspec

from ...errors import InvalidRequest, LimitExceeded, ResourceNotFound
from ...limits import GLOBAL_INDEXES_MAX
from ...model.schema import (
    GlobalIndex,
    NewIndex,
    Status,
    Table,
    TableChange,
    Throughput,
)
from .replicas import check_request as check_replicas
from .tables_creation import new_global_index
from .tables_keys import (
    INVALID,
    attribute_kinds,
    refuse_repeated_definitions,
    refuse_too_many_projected,
)
from .tables_settings import (
    NO_UNITS_ON_DEMAND,
    ON_DEMAND,
    PROVISIONED,
    changed_throughput,
    current_warm_units,
    merged_limits,
    refuse_unbuilt,
    stream_view,
    throughput,
    unit_limits,
    warm_units,
    with_units,
)

_CHANGES = frozenset(
    {
        "ProvisionedThroughput",
        "BillingMode",
        "StreamSpecification",
        "SSESpecification",
        "TableClass",
        "DeletionProtectionEnabled",
        "OnDemandThroughput",
        "WarmThroughput",
        "ReplicaUpdates",
        "DisassociationProtectionEnabled",
    }
)
_ACTIONS = ("Update", "Create", "Delete")


def check_request(request: dict[str, Any]) -> None:
    """The rules that need no table.

    Raises:
        InvalidRequest: a rule is broken, or a feature is asked for that is not built.
    """
    refuse_unbuilt(request)
    stream_view(request)
    updates = request.get("GlobalSecondaryIndexUpdates", [])
    if not updates and not request.keys() & _CHANGES:
        raise InvalidRequest(
            "At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, "
            "GlobalSecondaryIndexUpdates or SSESpecification or ReplicaUpdates is required"
        )
    check_replicas(request)
    given = request.get("ProvisionedThroughput")
    if request.get("BillingMode") == PROVISIONED and given is None:
        raise InvalidRequest(
            f"{INVALID}ProvisionedThroughput must be specified when BillingMode is PROVISIONED"
        )
    if given is not None:
        throughput(given)
    names: set[str] = set()
    for update in updates:
        _check_index_update(update, names)
    refuse_repeated_definitions(request.get("AttributeDefinitions", []))


def _check_index_update(update: dict[str, Any], names: set[str]) -> None:
    actions = [action for action in _ACTIONS if action in update]
    if not actions:
        raise InvalidRequest(
            f"{INVALID}One of GlobalSecondaryIndexUpdate.Update, "
            "GlobalSecondaryIndexUpdate.Create, GlobalSecondaryIndexUpdate.Delete must not be null"
        )
    if len(actions) > 1:
        raise InvalidRequest(
            f"{INVALID}Only one of GlobalSecondaryIndexUpdate.Update, "
            "GlobalSecondaryIndexUpdate.Create, GlobalSecondaryIndexUpdate.Delete may be given"
        )
    name = update[actions[0]]["IndexName"]
    if name in names:
        raise InvalidRequest(
            f"{INVALID}Only one global secondary index update per index is allowed "
            f"simultaneously. Index: {name}"
        )
    names.add(name)


def change(request: dict[str, Any], table: Table, now_ms: int) -> TableChange:
    """What ``request`` makes of ``table``, which is ACTIVE. ``check_request`` has passed.

    Raises:
        InvalidRequest, LimitExceeded, ResourceNotFound: see the module.
    """
    mode = request.get("BillingMode", table.billing_mode)
    given = request.get("ProvisionedThroughput")
    if given is not None and mode == ON_DEMAND:
        raise InvalidRequest(NO_UNITS_ON_DEMAND)
    creates, deletes, updates = _index_actions(request)
    if len(creates) + len(deletes) > 1 or ((creates or deletes) and _is_building(table)):
        raise LimitExceeded(
            "Subscriber limit exceeded: Only 1 online index can be created or deleted "
            "simultaneously per table"
        )
    switches = mode != table.billing_mode
    indexes = _changed_indexes(table, updates, mode, now_ms)
    wanted = msgspec.structs.replace(
        table,
        billing_mode=mode,
        billing_changed_ms=_billing_changed_ms(table, mode, now_ms),
        throughput=_changed_table_throughput(table, given, mode, now_ms),
        global_indexes=indexes,
    )
    if switches and mode == PROVISIONED:
        # The limits belong to on-demand billing and go with it.
        wanted = msgspec.structs.replace(wanted, unit_limits=None)
    wanted = _with_settings(wanted, request, now_ms)
    create = None
    if creates:
        create, wanted = _with_new_index(wanted, creates[0], request)
    delete = None
    if deletes:
        delete = deletes[0]["IndexName"]
        wanted = _without_index(wanted, delete)
    enabled, view = stream_view(request)
    if enabled and table.stream is not None:
        raise InvalidRequest(f"Table already has an enabled stream: TableName: {table.name}")
    if enabled is False and table.stream is None:
        raise InvalidRequest(f"Table is already in a disabled state: TableName: {table.name}")
    return TableChange(wanted, create, delete, view, enabled is False)


def _index_actions(
    request: dict[str, Any],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """The index creations, deletions, and updates by index name."""
    actions = request.get("GlobalSecondaryIndexUpdates", [])
    return (
        [each["Create"] for each in actions if "Create" in each],
        [each["Delete"] for each in actions if "Delete" in each],
        {each["Update"]["IndexName"]: each["Update"] for each in actions if "Update" in each},
    )


def _is_building(table: Table) -> bool:
    return any(index.status in (Status.CREATING, Status.DELETING) for index in table.global_indexes)


# -- Billing and throughput -----------------------------------------------------------------------


def _billing_changed_ms(table: Table, mode: str, now_ms: int) -> int | None:
    """When the table last became on demand: a table made so remembers it once it is not."""
    if mode == table.billing_mode:
        return table.billing_changed_ms
    if mode == ON_DEMAND:
        return now_ms
    return table.created_ms if table.billing_changed_ms is None else table.billing_changed_ms


def _changed_table_throughput(
    table: Table, given: dict[str, Any] | None, mode: str, now_ms: int
) -> Throughput | None:
    if mode == ON_DEMAND:
        return None
    if given is None:
        return table.throughput
    new = throughput(given)
    if table.throughput is None or mode != table.billing_mode:
        return with_units(table.throughput, new)
    return changed_throughput(table.throughput, new, "table", now_ms)


def _changed_indexes(
    table: Table, updates: dict[str, dict[str, Any]], mode: str, now_ms: int
) -> tuple[GlobalIndex, ...]:
    for name in updates:
        if table.global_index(name) is None:
            raise ResourceNotFound("Requested resource not found")
    becomes_provisioned = mode == PROVISIONED and table.billing_mode != PROVISIONED
    if becomes_provisioned:
        missing = [
            index.name
            for index in table.global_indexes
            if updates.get(index.name, {}).get("ProvisionedThroughput") is None
        ]
        if missing:
            raise InvalidRequest(
                f"{INVALID}ProvisionedThroughput must be specified for index: {','.join(missing)}"
            )
    return tuple(
        _changed_index(index, updates.get(index.name), mode, becomes_provisioned, now_ms)
        for index in table.global_indexes
    )


def _changed_index(
    index: GlobalIndex,
    update: dict[str, Any] | None,
    mode: str,
    becomes_provisioned: bool,
    now_ms: int,
) -> GlobalIndex:
    if mode == ON_DEMAND:
        index = msgspec.structs.replace(index, throughput=None)
    elif becomes_provisioned:
        index = msgspec.structs.replace(index, unit_limits=None)
    if update is None:
        return index
    if not update.keys() - {"IndexName"}:
        raise InvalidRequest(
            f"{INVALID}One of ProvisionedThroughput, OnDemandThroughput, WarmThroughput must be "
            f"specified for index: {index.name}"
        )
    given = update.get("ProvisionedThroughput")
    if given is not None:
        if mode == ON_DEMAND:
            raise InvalidRequest(
                f"{INVALID}ProvisionedThroughput should not be specified for index: {index.name} "
                "when BillingMode is PAY_PER_REQUEST"
            )
        new = throughput(given)
        if index.throughput is None:
            index = msgspec.structs.replace(index, throughput=new)
        else:
            changed = changed_throughput(index.throughput, new, f"index {index.name}", now_ms)
            index = msgspec.structs.replace(index, throughput=changed)
    limits = unit_limits(update.get("OnDemandThroughput"))
    if limits is not None and mode != ON_DEMAND:
        raise InvalidRequest(
            f"{INVALID}OnDemandThroughput should not be specified for index: {index.name} when "
            "BillingMode is PROVISIONED"
        )
    warm = warm_units(
        update.get("WarmThroughput"),
        current_warm_units(index.warm_units, index.throughput),
        f"index {index.name}",
    )
    return msgspec.structs.replace(
        index,
        unit_limits=merged_limits(index.unit_limits, limits),
        warm_units=warm or index.warm_units,
    )


def _with_settings(table: Table, request: dict[str, Any], now_ms: int) -> Table:
    """Everything about ``table`` that is neither billing mode nor an index."""
    limits = unit_limits(request.get("OnDemandThroughput"))
    if limits is not None and table.billing_mode != ON_DEMAND:
        raise InvalidRequest(
            f"{INVALID}OnDemandThroughput can only be specified when BillingMode is "
            "PAY_PER_REQUEST"
        )
    warm = warm_units(
        request.get("WarmThroughput"),
        current_warm_units(table.warm_units, table.throughput),
        "table",
    )
    table_class = request.get("TableClass", table.table_class)
    class_changed_ms = table.table_class_changed_ms
    return msgspec.structs.replace(
        table,
        unit_limits=merged_limits(table.unit_limits, limits),
        warm_units=warm or table.warm_units,
        table_class=table_class,
        table_class_changed_ms=class_changed_ms if table_class == table.table_class else now_ms,
        deletion_protection=request.get("DeletionProtectionEnabled", table.deletion_protection),
        disassociation_protection=request.get(
            "DisassociationProtectionEnabled", table.disassociation_protection
        ),
    )


# -- Indexes --------------------------------------------------------------------------------------


def _with_new_index(
    table: Table, create: dict[str, Any], request: dict[str, Any]
) -> tuple[NewIndex, Table]:
    """The index to make, and the table with the attributes that it defines."""
    name = create["IndexName"]
    if table.global_index(name) is not None or table.local_index(name) is not None:
        raise InvalidRequest(f"Attempting to create an index which already exists: {name}")
    if len(table.global_indexes) >= GLOBAL_INDEXES_MAX:
        raise LimitExceeded(
            "Subscriber limit exceeded: GlobalSecondaryIndex count exceeds the per-table limit of "
            f"{GLOBAL_INDEXES_MAX}"
        )
    given = attribute_kinds(request.get("AttributeDefinitions", []))
    for attribute, kind in given.items():
        defined = table.attribute_kinds.get(attribute, kind)
        if defined != kind:
            raise InvalidRequest(
                f"{INVALID}Attribute {attribute} is defined with type {defined} already and cannot "
                f"be redefined with type {kind}"
            )
    index = new_global_index(create, table.attribute_kinds | given, table.billing_mode)
    projections = [index.projection]
    projections += [each.projection for each in table.local_indexes]
    projections += [each.projection for each in table.global_indexes]
    refuse_too_many_projected(projections)
    # Definitions that no key uses are dropped without a word, as DynamoDB does here.
    kinds = dict(table.attribute_kinds)
    for attribute_of_key in index.key.attributes():
        kinds.setdefault(attribute_of_key.name, attribute_of_key.kind)
    return index, msgspec.structs.replace(table, attribute_kinds=kinds)


def _without_index(table: Table, name: str) -> Table:
    """The table without the attributes that only the index ``name`` used."""
    if table.global_index(name) is None:
        raise ResourceNotFound("Requested resource not found")
    keys = [table.key]
    keys += [index.key for index in table.local_indexes]
    keys += [index.key for index in table.global_indexes if index.name != name]
    used = {attribute for key in keys for attribute in key.names()}
    kinds = {each: kind for each, kind in table.attribute_kinds.items() if each in used}
    return msgspec.structs.replace(table, attribute_kinds=kinds)
