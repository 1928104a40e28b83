"""A table as DynamoDB describes it: ``TableDescription``, exactly the members of each state.

Pure functions of the catalog's row and the statistics of the moment. Facts: the service model and
recordings of AWS; where DynamoDB leaves a member out, so does this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...model.schema import (
    GlobalIndex,
    KeySchema,
    LocalIndex,
    Projection,
    Status,
    Table,
    Throughput,
    UnitLimits,
    WarmUnits,
)
from .tables_settings import ON_DEMAND, current_warm_units, decreases_today

if TYPE_CHECKING:
    from ...actors.tables import TableStatistics, TreeStatistics


def table_arn(region: str, account: str, name: str) -> str:
    """The table's Amazon resource name."""
    return f"arn:aws:dynamodb:{region}:{account}:table/{name}"


def stream_arn(arn: str, label: str) -> str:
    """The Amazon resource name of a table's stream; ``arn`` is the table's."""
    return f"{arn}/stream/{label}"


def describe(
    table: Table,
    statistics: TableStatistics | None,
    *,
    region: str,
    account: str,
    now_ms: int,
) -> dict[str, Any]:
    """``table`` as a TableDescription. No ``statistics`` means that it holds nothing yet."""
    arn = table_arn(region, account, table.name)
    indexes: Mapping[str, TreeStatistics] = {} if statistics is None else statistics.indexes
    description: dict[str, Any] = {
        "AttributeDefinitions": [
            {"AttributeName": name, "AttributeType": kind}
            for name, kind in table.attribute_kinds.items()
        ],
        "TableName": table.name,
        "KeySchema": key_schema(table.key),
        "TableStatus": table.status.value,
        "CreationDateTime": _seconds(table.created_ms),
        "ProvisionedThroughput": _throughput(table.throughput, now_ms),
        "TableSizeBytes": 0 if statistics is None else statistics.size_bytes,
        "ItemCount": 0 if statistics is None else statistics.item_count,
        "TableArn": arn,
        "TableId": table.table_id,
        "DeletionProtectionEnabled": table.deletion_protection,
    }
    billing = _billing_mode(table)
    if billing is not None:
        description["BillingModeSummary"] = billing
        description["TableThroughputModeSummary"] = {
            "TableThroughputMode": billing["BillingMode"],
            **{name: value for name, value in billing.items() if name != "BillingMode"},
        }
    if table.local_indexes:
        description["LocalSecondaryIndexes"] = [
            _local_index(index, arn, indexes.get(index.name)) for index in table.local_indexes
        ]
    # A table that is being deleted no longer shows its global indexes.
    if table.global_indexes and table.status is not Status.DELETING:
        description["GlobalSecondaryIndexes"] = [
            _global_index(index, arn, indexes.get(index.name), now_ms)
            for index in table.global_indexes
        ]
    if table.unit_limits is not None:
        description["OnDemandThroughput"] = _unit_limits(table.unit_limits)
    if table.status is not Status.DELETING:
        description["WarmThroughput"] = _warm_units(
            table.warm_units, table.throughput, table.status
        )
    if table.stream is not None:
        description["StreamSpecification"] = {
            "StreamEnabled": True,
            "StreamViewType": table.stream.view,
        }
    if table.stream_label is not None:
        description["LatestStreamLabel"] = table.stream_label
        description["LatestStreamArn"] = stream_arn(arn, table.stream_label)
    table_class = _table_class(table)
    if table_class is not None:
        description["TableClassSummary"] = table_class
    return description


def _seconds(milliseconds: int) -> float:
    return milliseconds / 1000


def key_schema(key: KeySchema) -> list[dict[str, str]]:
    """A key as KeySchema elements."""
    return [
        {"AttributeName": attribute.name, "KeyType": key_type}
        for key_type, attributes in (("HASH", key.hash), ("RANGE", key.range))
        for attribute in attributes
    ]


def _projection(projection: Projection) -> dict[str, Any]:
    described: dict[str, Any] = {"ProjectionType": projection.kind}
    if projection.kind == "INCLUDE":
        described["NonKeyAttributes"] = list(projection.attributes)
    return described


def _throughput(units: Throughput | None, now_ms: int) -> dict[str, Any]:
    """On demand it is all zeros."""
    if units is None:
        return {"NumberOfDecreasesToday": 0, "ReadCapacityUnits": 0, "WriteCapacityUnits": 0}
    described: dict[str, Any] = {
        "NumberOfDecreasesToday": decreases_today(units, now_ms),
        "ReadCapacityUnits": units.read_units,
        "WriteCapacityUnits": units.write_units,
    }
    if units.last_increase_ms is not None:
        described["LastIncreaseDateTime"] = _seconds(units.last_increase_ms)
    if units.last_decrease_ms is not None:
        described["LastDecreaseDateTime"] = _seconds(units.last_decrease_ms)
    return described


def _billing_mode(table: Table) -> dict[str, Any] | None:
    """Told of a table that is or was on demand; a provisioned one simply has its throughput."""
    if table.billing_mode != ON_DEMAND:
        if table.billing_changed_ms is None:
            return None
        return {
            "BillingMode": table.billing_mode,
            "LastUpdateToPayPerRequestDateTime": _seconds(table.billing_changed_ms),
        }
    summary: dict[str, Any] = {"BillingMode": ON_DEMAND}
    if table.status is not Status.CREATING:
        changed_ms = table.billing_changed_ms
        since_ms = table.created_ms if changed_ms is None else changed_ms
        summary["LastUpdateToPayPerRequestDateTime"] = _seconds(since_ms)
    return summary


def _table_class(table: Table) -> dict[str, Any] | None:
    if table.table_class_changed_ms is not None:
        return {
            "TableClass": table.table_class,
            "LastUpdateDateTime": _seconds(table.table_class_changed_ms),
        }
    return None if table.table_class == "STANDARD" else {"TableClass": table.table_class}


def _unit_limits(limits: UnitLimits) -> dict[str, int]:
    described = {}
    if limits.read_units is not None:
        described["MaxReadRequestUnits"] = limits.read_units
    if limits.write_units is not None:
        described["MaxWriteRequestUnits"] = limits.write_units
    return described


def _warm_units(
    warm: WarmUnits | None, units: Throughput | None, status: Status
) -> dict[str, Any]:
    current = current_warm_units(warm, units)
    return {
        "ReadUnitsPerSecond": current.read_units,
        "WriteUnitsPerSecond": current.write_units,
        "Status": "UPDATING" if status is Status.CREATING else "ACTIVE",
    }


def _index_totals(statistics: TreeStatistics | None) -> dict[str, int]:
    return {
        "IndexSizeBytes": 0 if statistics is None else statistics.size_bytes,
        "ItemCount": 0 if statistics is None else statistics.item_count,
    }


def _local_index(
    index: LocalIndex, arn: str, statistics: TreeStatistics | None
) -> dict[str, Any]:
    return {
        "IndexName": index.name,
        "KeySchema": key_schema(index.key),
        "Projection": _projection(index.projection),
        "IndexArn": f"{arn}/index/{index.name}",
        **_index_totals(statistics),
    }


def _global_index(
    index: GlobalIndex, arn: str, statistics: TreeStatistics | None, now_ms: int
) -> dict[str, Any]:
    described: dict[str, Any] = {
        "IndexName": index.name,
        "KeySchema": key_schema(index.key),
        "Projection": _projection(index.projection),
        "IndexStatus": index.status.value,
        "ProvisionedThroughput": _throughput(index.throughput, now_ms),
        "IndexArn": f"{arn}/index/{index.name}",
        **_index_totals(statistics),
    }
    if index.backfilling and index.status is not Status.ACTIVE:
        described["Backfilling"] = True
    if index.unit_limits is not None:
        described["OnDemandThroughput"] = _unit_limits(index.unit_limits)
    if index.status is not Status.DELETING:
        described["WarmThroughput"] = _warm_units(
            index.warm_units, index.throughput, index.status
        )
    return described
