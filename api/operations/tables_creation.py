"""CreateTable: from a request that has passed ``validation`` to a ``NewTable``, with every rule.

Pure. The order of the checks is DynamoDB's: throughput, the table's key, local indexes, global
indexes, what is left over. Refusals are ``InvalidRequest`` in DynamoDB's words.
"""

from __future__ import annotations

from typing import Any

from ...errors import InvalidRequest
from ...limits import GLOBAL_INDEXES_MAX, LOCAL_INDEXES_MAX
from ...model.schema import KeySchema, NewIndex, NewTable, Throughput
from ..validation import table_name_of
from .tables_keys import (
    INVALID,
    attribute_kinds,
    global_key,
    plain_key,
    projection,
    refuse_repeated_definitions,
    refuse_too_many_projected,
    table_key,
)
from .tables_settings import (
    NO_UNITS_ON_DEMAND,
    ON_DEMAND,
    PROVISIONED,
    current_warm_units,
    refuse_unbuilt,
    stream_view,
    tags,
    throughput,
    unit_limits,
    warm_units,
)


def new_table(request: dict[str, Any], namespace: str) -> NewTable:
    """The table that ``request`` asks for.

    Raises:
        InvalidRequest: a rule is broken, or a feature is asked for that is not built.
    """
    refuse_unbuilt(request)
    billing_mode = request.get("BillingMode", PROVISIONED)
    provisioned = _table_throughput(request, billing_mode)
    definitions = request["AttributeDefinitions"]
    kinds = attribute_kinds(definitions)
    key = table_key(request["KeySchema"], kinds, len(definitions))
    local_members = request.get("LocalSecondaryIndexes")
    global_members = request.get("GlobalSecondaryIndexes")
    if local_members is None and global_members is None and len(key.names()) != len(definitions):
        raise InvalidRequest(
            f"{INVALID}Number of attributes in KeySchema does not exactly match number of "
            "attributes defined in AttributeDefinitions"
        )
    names: set[str] = set()
    local_indexes = _local_indexes(local_members, key, kinds, names)
    global_indexes = _global_indexes(global_members, kinds, billing_mode, names)
    indexes = local_indexes + global_indexes
    _refuse_unused(kinds, [key, *[index.key for index in indexes]])
    refuse_repeated_definitions(definitions)
    refuse_too_many_projected(index.projection for index in indexes)
    limits = request.get("OnDemandThroughput")
    if limits is not None and billing_mode != ON_DEMAND:
        raise InvalidRequest(
            f"{INVALID}OnDemandThroughput can only be specified when BillingMode is "
            "PAY_PER_REQUEST"
        )
    return NewTable(
        namespace=namespace,
        name=table_name_of(request["TableName"]),
        key=key,
        attribute_kinds=kinds,
        local_indexes=local_indexes,
        global_indexes=global_indexes,
        billing_mode=billing_mode,
        throughput=provisioned,
        unit_limits=unit_limits(limits),
        warm_units=warm_units(
            request.get("WarmThroughput"), current_warm_units(None, provisioned), "table"
        ),
        table_class=request.get("TableClass", "STANDARD"),
        deletion_protection=request.get("DeletionProtectionEnabled", False),
        tags=tags(request.get("Tags", ())),
        stream_view=stream_view(request)[1],
    )


def _table_throughput(request: dict[str, Any], billing_mode: str) -> Throughput | None:
    member = request.get("ProvisionedThroughput")
    if billing_mode == ON_DEMAND:
        if member is not None:
            raise InvalidRequest(NO_UNITS_ON_DEMAND)
        return None
    if member is None:
        raise InvalidRequest(
            f"{INVALID}ReadCapacityUnits and WriteCapacityUnits must both be specified when "
            "BillingMode is PROVISIONED"
        )
    return throughput(member)


def _local_indexes(
    members: list[dict[str, Any]] | None,
    key: KeySchema,
    kinds: dict[str, str],
    names: set[str],
) -> tuple[NewIndex, ...]:
    if members is None:
        return ()
    if not members:
        raise InvalidRequest(f"{INVALID}List of LocalSecondaryIndexes is empty")
    if not key.range:
        raise InvalidRequest(
            f"{INVALID}Table KeySchema does not have a range key, which is required when "
            "specifying a LocalSecondaryIndex"
        )
    indexes = tuple(_local_index(member, key, kinds, names) for member in members)
    if len(indexes) > LOCAL_INDEXES_MAX:
        raise InvalidRequest(
            f"{INVALID}Number of LocalSecondaryIndexes exceeds per-table limit of "
            f"{LOCAL_INDEXES_MAX}"
        )
    return indexes


def _local_index(
    member: dict[str, Any], key: KeySchema, kinds: dict[str, str], names: set[str]
) -> NewIndex:
    name = member["IndexName"]
    own = plain_key(member["KeySchema"], kinds)
    if not own.range:
        raise InvalidRequest(
            f"{INVALID}Index KeySchema does not have a range key for index: {name}"
        )
    if own.hash != key.hash:
        raise InvalidRequest(
            f"{INVALID}Index KeySchema does not have the same leading hash key as table KeySchema "
            f"for index: {name}. index hash key: {own.hash[0].name}, "
            f"table hash key: {key.hash[0].name}"
        )
    projected = projection(member["Projection"])
    _add_name(name, names)
    return NewIndex(name, own, projected)


def _global_indexes(
    members: list[dict[str, Any]] | None,
    kinds: dict[str, str],
    billing_mode: str,
    names: set[str],
) -> tuple[NewIndex, ...]:
    if members is None:
        return ()
    if not members:
        raise InvalidRequest(f"{INVALID}List of GlobalSecondaryIndexes is empty")
    indexes = []
    for member in members:
        index = new_global_index(member, kinds, billing_mode)
        _add_name(index.name, names)
        indexes.append(index)
    if len(indexes) > GLOBAL_INDEXES_MAX:
        raise InvalidRequest(
            f"{INVALID}GlobalSecondaryIndex count exceeds the per-table limit of "
            f"{GLOBAL_INDEXES_MAX}"
        )
    return tuple(indexes)


def new_global_index(
    member: dict[str, Any], kinds: dict[str, str], billing_mode: str
) -> NewIndex:
    """A global index as CreateTable and UpdateTable ask for one, on a table so billed."""
    name = member["IndexName"]
    key = global_key(member["KeySchema"], kinds)
    projected = projection(member["Projection"])
    provisioned = index_throughput(member, billing_mode)
    return NewIndex(
        name,
        key,
        projected,
        throughput=provisioned,
        unit_limits=unit_limits(member.get("OnDemandThroughput")),
        warm_units=warm_units(
            member.get("WarmThroughput"), current_warm_units(None, provisioned), f"index {name}"
        ),
    )


def index_throughput(member: dict[str, Any], billing_mode: str) -> Throughput | None:
    """A new index's throughput; present exactly when the table is provisioned."""
    name = member["IndexName"]
    given = member.get("ProvisionedThroughput")
    if billing_mode == ON_DEMAND:
        if given is not None:
            raise InvalidRequest(
                f"{INVALID}ProvisionedThroughput should not be specified for index: {name} when "
                "BillingMode is PAY_PER_REQUEST"
            )
        return None
    if member.get("OnDemandThroughput") is not None:
        raise InvalidRequest(
            f"{INVALID}OnDemandThroughput should not be specified for index: {name} when "
            "BillingMode is PROVISIONED"
        )
    if given is None:
        raise InvalidRequest(
            f"{INVALID}ProvisionedThroughput must be specified for index: {name}"
        )
    return throughput(given)


def _add_name(name: str, names: set[str]) -> None:
    if name in names:
        raise InvalidRequest(f"{INVALID}Duplicate index name: {name}")
    names.add(name)


def _refuse_unused(kinds: dict[str, str], keys: list[KeySchema]) -> None:
    used = dict.fromkeys(name for key in keys for name in key.names())
    if kinds.keys() - used.keys():
        raise InvalidRequest(
            f"{INVALID}Some AttributeDefinitions are not used. "
            f"AttributeDefinitions: [{', '.join(kinds)}], keys used: [{', '.join(used)}]"
        )
