"""The shapes of the item operations' requests. See ``shapes`` for what orders mean."""

from __future__ import annotations

from ..limits import (
    BATCH_GET_KEYS_MAX,
    BATCH_WRITE_REQUESTS_MAX,
    SCAN_SEGMENTS_MAX,
)
from .shape_kinds import (
    BOOLEAN,
    INDEX_NAME,
    TABLE_NAME,
    TEXT,
    VALUE,
    VALUE_LIST,
    VALUES,
    List,
    Map,
    String,
    Whole,
    structure,
)

# What the item operations have in common.
RETURN_CONSUMED_CAPACITY = String(enum=("INDEXES", "TOTAL", "NONE"))
RETURN_ITEM_COLLECTION_METRICS = String(enum=("SIZE", "NONE"))
RETURN_VALUES = String(enum=("ALL_NEW", "UPDATED_OLD", "ALL_OLD", "NONE", "UPDATED_NEW"))
RETURN_VALUES_ON_FAILURE = String(enum=("ALL_OLD", "NONE"))
CONDITIONAL_OPERATOR = String(enum=("OR", "AND"))
COMPARISON_OPERATOR = String(
    enum=(
        "IN",
        "NULL",
        "BETWEEN",
        "LT",
        "NOT_CONTAINS",
        "EQ",
        "GT",
        "NOT_NULL",
        "NE",
        "LE",
        "BEGINS_WITH",
        "GE",
        "CONTAINS",
    )
)
SELECT = String(enum=("SPECIFIC_ATTRIBUTES", "COUNT", "ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES"))
ATTRIBUTES_TO_GET = List(TEXT, 1)
EXPRESSION_NAMES = Map(TEXT)
EXPECTED = Map(
    structure(
        "ExpectedAttributeValue",
        AttributeValueList=VALUE_LIST,
        ComparisonOperator=COMPARISON_OPERATOR,
        Exists=BOOLEAN,
        Value=VALUE,
    )
)
CONDITIONS = Map(
    structure(
        "Condition",
        "ComparisonOperator",
        AttributeValueList=VALUE_LIST,
        ComparisonOperator=COMPARISON_OPERATOR,
    )
)

PUT_ITEM = structure(
    "PutItemInput",
    "TableName Item",
    ReturnConsumedCapacity=RETURN_CONSUMED_CAPACITY,
    TableName=TABLE_NAME,
    Item=VALUES,
    ConditionalOperator=CONDITIONAL_OPERATOR,
    Expected=EXPECTED,
    ReturnValues=RETURN_VALUES,
    ReturnItemCollectionMetrics=RETURN_ITEM_COLLECTION_METRICS,
    ConditionExpression=TEXT,
    ExpressionAttributeValues=VALUES,
    ExpressionAttributeNames=EXPRESSION_NAMES,
    ReturnValuesOnConditionCheckFailure=RETURN_VALUES_ON_FAILURE,
)
GET_ITEM = structure(
    "GetItemInput",
    "TableName Key",
    ReturnConsumedCapacity=RETURN_CONSUMED_CAPACITY,
    AttributesToGet=ATTRIBUTES_TO_GET,
    TableName=TABLE_NAME,
    Key=VALUES,
    ConsistentRead=BOOLEAN,
    ProjectionExpression=TEXT,
    ExpressionAttributeNames=EXPRESSION_NAMES,
)
DELETE_ITEM = structure(
    "DeleteItemInput",
    "TableName Key",
    ReturnConsumedCapacity=RETURN_CONSUMED_CAPACITY,
    TableName=TABLE_NAME,
    ReturnItemCollectionMetrics=RETURN_ITEM_COLLECTION_METRICS,
    ReturnValues=RETURN_VALUES,
    Key=VALUES,
    ConditionalOperator=CONDITIONAL_OPERATOR,
    Expected=EXPECTED,
    ConditionExpression=TEXT,
    ExpressionAttributeValues=VALUES,
    ExpressionAttributeNames=EXPRESSION_NAMES,
    ReturnValuesOnConditionCheckFailure=RETURN_VALUES_ON_FAILURE,
)
UPDATE_ITEM = structure(
    "UpdateItemInput",
    "TableName Key",
    ReturnConsumedCapacity=RETURN_CONSUMED_CAPACITY,
    TableName=TABLE_NAME,
    ReturnItemCollectionMetrics=RETURN_ITEM_COLLECTION_METRICS,
    ReturnValues=RETURN_VALUES,
    Key=VALUES,
    ConditionalOperator=CONDITIONAL_OPERATOR,
    Expected=EXPECTED,
    AttributeUpdates=Map(
        structure(
            "AttributeValueUpdate",
            Action=String(enum=("ADD", "DELETE", "PUT")),
            Value=VALUE,
        )
    ),
    ConditionExpression=TEXT,
    UpdateExpression=TEXT,
    ExpressionAttributeValues=VALUES,
    ExpressionAttributeNames=EXPRESSION_NAMES,
    ReturnValuesOnConditionCheckFailure=RETURN_VALUES_ON_FAILURE,
)
QUERY = structure(
    "QueryInput",
    "TableName",
    Select=SELECT,
    IndexName=INDEX_NAME,
    ReturnConsumedCapacity=RETURN_CONSUMED_CAPACITY,
    QueryFilter=CONDITIONS,
    TableName=TABLE_NAME,
    ConditionalOperator=CONDITIONAL_OPERATOR,
    AttributesToGet=ATTRIBUTES_TO_GET,
    Limit=Whole("Integer", 1, terse=True),
    KeyConditions=CONDITIONS,
    ConsistentRead=BOOLEAN,
    ScanIndexForward=BOOLEAN,
    ExclusiveStartKey=VALUES,
    FilterExpression=TEXT,
    KeyConditionExpression=TEXT,
    ProjectionExpression=TEXT,
    ExpressionAttributeValues=VALUES,
    ExpressionAttributeNames=EXPRESSION_NAMES,
)
SCAN = structure(
    "ScanInput",
    "TableName",
    Select=SELECT,
    IndexName=INDEX_NAME,
    ReturnConsumedCapacity=RETURN_CONSUMED_CAPACITY,
    TableName=TABLE_NAME,
    ScanFilter=CONDITIONS,
    ConditionalOperator=CONDITIONAL_OPERATOR,
    Segment=Whole("Integer", 0, SCAN_SEGMENTS_MAX - 1),
    TotalSegments=Whole("Integer", 1, SCAN_SEGMENTS_MAX),
    AttributesToGet=ATTRIBUTES_TO_GET,
    Limit=Whole("Integer", 1),
    ExclusiveStartKey=VALUES,
    ConsistentRead=BOOLEAN,
    FilterExpression=TEXT,
    ProjectionExpression=TEXT,
    ExpressionAttributeValues=VALUES,
    ExpressionAttributeNames=EXPRESSION_NAMES,
)
BATCH_GET_ITEM = structure(
    "BatchGetItemInput",
    "RequestItems",
    ReturnConsumedCapacity=RETURN_CONSUMED_CAPACITY,
    RequestItems=Map(
        structure(
            "KeysAndAttributes",
            "Keys",
            Keys=List(VALUES, 1, BATCH_GET_KEYS_MAX, terse=True),
            AttributesToGet=ATTRIBUTES_TO_GET,
            ConsistentRead=BOOLEAN,
            ProjectionExpression=TEXT,
            ExpressionAttributeNames=EXPRESSION_NAMES,
        ),
        table_names=True,
    ),
)
BATCH_WRITE_ITEM = structure(
    "BatchWriteItemInput",
    "RequestItems",
    ReturnConsumedCapacity=RETURN_CONSUMED_CAPACITY,
    ReturnItemCollectionMetrics=RETURN_ITEM_COLLECTION_METRICS,
    RequestItems=Map(
        List(
            structure(
                "WriteRequest",
                PutRequest=structure("PutRequest", "Item", Item=VALUES),
                DeleteRequest=structure("DeleteRequest", "Key", Key=VALUES),
            )
        ),
        table_names=True,
        element_lengths=(1, BATCH_WRITE_REQUESTS_MAX),
    ),
)
