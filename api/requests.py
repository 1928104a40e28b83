"""The item operations' requests, as msgspec decodes them straight from the body.

One typed decode is all the checking that a good request costs. Whatever these types refuse is
diagnosed again, exactly, by ``validation.py``, which also knows the rules that are looser here (a
table's name is looked up, and only a name that is not found is judged). Every member is optional
in the type where DynamoDB lets null stand for absent. Attribute values stay untyped: they are
``model.values``' matter.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ..limits import (
    BATCH_GET_KEYS_MAX,
    BATCH_WRITE_REQUESTS_MAX,
    CLIENT_TOKEN_CHARACTERS_MAX,
    SCAN_SEGMENTS_MAX,
    TRANSACTION_ACTIONS_MAX,
)

Values = dict[str, Any]
Names = dict[str, str]
Capacity = Literal["INDEXES", "TOTAL", "NONE"]
CollectionMetrics = Literal["SIZE", "NONE"]
ReturnValues = Literal["NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW"]
ReturnOnFailure = Literal["ALL_OLD", "NONE"]
Operator = Literal["AND", "OR"]
Comparison = Literal[
    "EQ",
    "NE",
    "IN",
    "LE",
    "LT",
    "GE",
    "GT",
    "BETWEEN",
    "NOT_NULL",
    "NULL",
    "CONTAINS",
    "NOT_CONTAINS",
    "BEGINS_WITH",
]
Select = Literal["ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES", "SPECIFIC_ATTRIBUTES", "COUNT"]
AttributesToGet = Annotated[list[str], Meta(min_length=1)]
Limit = Annotated[int, Meta(ge=1, le=(1 << 31) - 1)]


class _Members(msgspec.Struct, rename="pascal", forbid_unknown_fields=True):
    """DynamoDB's spelling, and no member that is not DynamoDB's."""


class LegacyCondition(_Members, omit_defaults=True):
    """One entry of KeyConditions, QueryFilter or ScanFilter."""

    comparison_operator: Comparison
    attribute_value_list: list[Any] | None = None


class LegacyExpected(_Members, omit_defaults=True):
    """One entry of Expected."""

    value: Any = None
    exists: bool | None = None
    comparison_operator: Comparison | None = None
    attribute_value_list: list[Any] | None = None


class LegacyUpdate(_Members, omit_defaults=True):
    """One entry of AttributeUpdates."""

    value: Any = None
    action: Literal["ADD", "PUT", "DELETE"] | None = None


class GetItemRequest(_Members):
    table_name: str
    key: Values
    consistent_read: bool | None = None
    projection_expression: str | None = None
    expression_attribute_names: Names | None = None
    attributes_to_get: AttributesToGet | None = None
    return_consumed_capacity: Capacity | None = None


class WriteRequest(_Members, kw_only=True):
    """What PutItem, UpdateItem and DeleteItem have in common."""

    table_name: str
    condition_expression: str | None = None
    expression_attribute_names: Names | None = None
    expression_attribute_values: Values | None = None
    return_values: ReturnValues | None = None
    return_consumed_capacity: Capacity | None = None
    return_item_collection_metrics: CollectionMetrics | None = None
    return_values_on_condition_check_failure: ReturnOnFailure | None = None
    expected: dict[str, LegacyExpected] | None = None
    conditional_operator: Operator | None = None


class PutItemRequest(WriteRequest, rename="pascal", forbid_unknown_fields=True, kw_only=True):
    item: Values


class DeleteItemRequest(WriteRequest, rename="pascal", forbid_unknown_fields=True, kw_only=True):
    key: Values


class UpdateItemRequest(WriteRequest, rename="pascal", forbid_unknown_fields=True, kw_only=True):
    key: Values
    update_expression: str | None = None
    attribute_updates: dict[str, LegacyUpdate] | None = None


class PageRequest(_Members, kw_only=True):
    """What Query and Scan have in common."""

    table_name: str
    index_name: str | None = None
    select: Select | None = None
    limit: Limit | None = None
    exclusive_start_key: Values | None = None
    filter_expression: str | None = None
    projection_expression: str | None = None
    expression_attribute_names: Names | None = None
    expression_attribute_values: Values | None = None
    attributes_to_get: AttributesToGet | None = None
    conditional_operator: Operator | None = None
    consistent_read: bool | None = None
    return_consumed_capacity: Capacity | None = None


class QueryRequest(PageRequest, rename="pascal", forbid_unknown_fields=True, kw_only=True):
    key_condition_expression: str | None = None
    key_conditions: dict[str, LegacyCondition] | None = None
    query_filter: dict[str, LegacyCondition] | None = None
    scan_index_forward: bool | None = None


class ScanRequest(PageRequest, rename="pascal", forbid_unknown_fields=True, kw_only=True):
    scan_filter: dict[str, LegacyCondition] | None = None
    segment: Annotated[int, Meta(ge=0, lt=SCAN_SEGMENTS_MAX)] | None = None
    total_segments: Annotated[int, Meta(ge=1, le=SCAN_SEGMENTS_MAX)] | None = None


class KeysAndAttributes(_Members, omit_defaults=True):
    """One table's part of a BatchGetItem; encoded again as UnprocessedKeys."""

    keys: Annotated[list[Values], Meta(min_length=1, max_length=BATCH_GET_KEYS_MAX)]
    consistent_read: bool | None = None
    projection_expression: str | None = None
    expression_attribute_names: Names | None = None
    attributes_to_get: AttributesToGet | None = None


class BatchGetItemRequest(_Members):
    request_items: Annotated[dict[str, KeysAndAttributes], Meta(min_length=1)]
    return_consumed_capacity: Capacity | None = None


class PutRequest(_Members):
    item: Values


class DeleteRequest(_Members):
    key: Values


class BatchWrite(_Members, omit_defaults=True):
    """One write of a BatchWriteItem: exactly one of its two members."""

    put_request: PutRequest | None = None
    delete_request: DeleteRequest | None = None


Writes = Annotated[list[BatchWrite], Meta(min_length=1, max_length=BATCH_WRITE_REQUESTS_MAX)]


class BatchWriteItemRequest(_Members):
    request_items: Annotated[dict[str, Writes], Meta(min_length=1)]
    return_consumed_capacity: Capacity | None = None
    return_item_collection_metrics: CollectionMetrics | None = None


class TransactAction(_Members, kw_only=True):
    """What the four actions of a TransactWriteItems have in common."""

    table_name: str
    condition_expression: str | None = None
    expression_attribute_names: Names | None = None
    expression_attribute_values: Values | None = None
    return_values_on_condition_check_failure: ReturnOnFailure | None = None


class TransactPut(TransactAction, rename="pascal", forbid_unknown_fields=True, kw_only=True):
    item: Values


class TransactUpdate(TransactAction, rename="pascal", forbid_unknown_fields=True, kw_only=True):
    key: Values
    update_expression: str


class TransactDelete(TransactAction, rename="pascal", forbid_unknown_fields=True, kw_only=True):
    key: Values


class ConditionCheck(TransactAction, rename="pascal", forbid_unknown_fields=True, kw_only=True):
    key: Values
    condition_expression: str


class TransactWrite(_Members):
    """One action of a TransactWriteItems: exactly one of its four members."""

    condition_check: ConditionCheck | None = None
    put: TransactPut | None = None
    delete: TransactDelete | None = None
    update: TransactUpdate | None = None


ClientToken = Annotated[str, Meta(min_length=1, max_length=CLIENT_TOKEN_CHARACTERS_MAX)]


class TransactWriteItemsRequest(_Members, kw_only=True):
    transact_items: Annotated[
        list[TransactWrite], Meta(min_length=1, max_length=TRANSACTION_ACTIONS_MAX)
    ]
    client_request_token: ClientToken | None = None
    return_consumed_capacity: Capacity | None = None
    return_item_collection_metrics: CollectionMetrics | None = None


class TransactGet(_Members):
    table_name: str
    key: Values
    projection_expression: str | None = None
    expression_attribute_names: Names | None = None


class TransactRead(_Members):
    """One read of a TransactGetItems."""

    get: TransactGet


class TransactGetItemsRequest(_Members):
    transact_items: Annotated[
        list[TransactRead], Meta(min_length=1, max_length=TRANSACTION_ACTIONS_MAX)
    ]
    return_consumed_capacity: Capacity | None = None
