"""The shapes of the transactional operations' requests. See ``shapes`` for what orders mean.

That the client's token comes before the rest, and the capacity before the metrics, is recorded
(conformance suite, validation-ordering/transactions); the order within an action is the item
operations'.
"""

from __future__ import annotations

from ..limits import CLIENT_TOKEN_CHARACTERS_MAX, TRANSACTION_ACTIONS_MAX
from .shape_kinds import NESTED_TABLE_NAME, TEXT, VALUES, List, Shape, String, structure
from .shapes_items import (
    EXPRESSION_NAMES,
    RETURN_CONSUMED_CAPACITY,
    RETURN_ITEM_COLLECTION_METRICS,
    RETURN_VALUES_ON_FAILURE,
)

_CONDITION: dict[str, Shape] = {
    "ConditionExpression": TEXT,
    "ExpressionAttributeValues": VALUES,
    "ExpressionAttributeNames": EXPRESSION_NAMES,
    "ReturnValuesOnConditionCheckFailure": RETURN_VALUES_ON_FAILURE,
}

TRANSACT_WRITE_ITEMS = structure(
    "TransactWriteItemsInput",
    "TransactItems",
    ClientRequestToken=String(1, CLIENT_TOKEN_CHARACTERS_MAX),
    ReturnConsumedCapacity=RETURN_CONSUMED_CAPACITY,
    ReturnItemCollectionMetrics=RETURN_ITEM_COLLECTION_METRICS,
    TransactItems=List(
        structure(
            "TransactWriteItem",
            ConditionCheck=structure(
                "ConditionCheck",
                "TableName Key ConditionExpression",
                TableName=NESTED_TABLE_NAME,
                Key=VALUES,
                **_CONDITION,
            ),
            Put=structure(
                "Put", "TableName Item", TableName=NESTED_TABLE_NAME, Item=VALUES, **_CONDITION
            ),
            Delete=structure(
                "Delete", "TableName Key", TableName=NESTED_TABLE_NAME, Key=VALUES, **_CONDITION
            ),
            Update=structure(
                "Update",
                "TableName Key UpdateExpression",
                TableName=NESTED_TABLE_NAME,
                Key=VALUES,
                UpdateExpression=TEXT,
                **_CONDITION,
            ),
        ),
        1,
        TRANSACTION_ACTIONS_MAX,
    ),
)
TRANSACT_GET_ITEMS = structure(
    "TransactGetItemsInput",
    "TransactItems",
    ReturnConsumedCapacity=RETURN_CONSUMED_CAPACITY,
    TransactItems=List(
        structure(
            "TransactGetItem",
            "Get",
            Get=structure(
                "Get",
                "TableName Key",
                TableName=NESTED_TABLE_NAME,
                Key=VALUES,
                ProjectionExpression=TEXT,
                ExpressionAttributeNames=EXPRESSION_NAMES,
            ),
        ),
        1,
        TRANSACTION_ACTIONS_MAX,
    ),
)
