"""The shape of every request, written as DynamoDB's service model writes it.

Data only, read by ``validation``; the vocabulary is ``shape_kinds``. Rules that join several
members (an index key must be defined, and so on) belong to the operations.

Facts: the service model ``dynamodb/2012-08-10`` (tests hold the members equal to it, so that
nothing is accepted and ignored). The order of members and of enum values is the order in which
DynamoDB lists violations and values; it is not the model's, and was recorded from the service.
"""

from __future__ import annotations

from ..limits import LIST_TABLES_MAX
from .shape_kinds import (
    PLAIN_TABLE_NAME,
    TABLE_NAME,
    TEXT,
    List,
    Structure,
    Whole,
    structure,
)
from .shapes_items import (
    BATCH_GET_ITEM,
    BATCH_WRITE_ITEM,
    DELETE_ITEM,
    GET_ITEM,
    PUT_ITEM,
    QUERY,
    SCAN,
    UPDATE_ITEM,
)
from .shapes_regions import REGION_OPERATIONS
from .shapes_streams import DESCRIBE_STREAM, GET_RECORDS, GET_SHARD_ITERATOR, LIST_STREAMS
from .shapes_tables import (
    CREATE_TABLE,
    RESOURCE_ARN,
    TAG_KEY,
    TAGS,
    UPDATE_TABLE,
)
from .shapes_transactions import TRANSACT_GET_ITEMS, TRANSACT_WRITE_ITEMS

OPERATIONS: dict[str, Structure] = {
    "PutItem": PUT_ITEM,
    "GetItem": GET_ITEM,
    "UpdateItem": UPDATE_ITEM,
    "DeleteItem": DELETE_ITEM,
    "Query": QUERY,
    "Scan": SCAN,
    "BatchGetItem": BATCH_GET_ITEM,
    "BatchWriteItem": BATCH_WRITE_ITEM,
    "TransactWriteItems": TRANSACT_WRITE_ITEMS,
    "TransactGetItems": TRANSACT_GET_ITEMS,
    "CreateTable": CREATE_TABLE,
    "UpdateTable": UPDATE_TABLE,
    "DeleteTable": structure("DeleteTableInput", "TableName", TableName=TABLE_NAME),
    "DescribeTable": structure("DescribeTableInput", "TableName", TableName=TABLE_NAME),
    "ListTables": structure(
        "ListTablesInput",
        Limit=Whole("Integer", 1, LIST_TABLES_MAX),
        ExclusiveStartTableName=PLAIN_TABLE_NAME,
    ),
    "DescribeLimits": structure("DescribeLimitsInput"),
    "DescribeEndpoints": structure("DescribeEndpointsRequest"),
    "TagResource": structure("TagResourceInput", "Tags", ResourceArn=RESOURCE_ARN, Tags=TAGS),
    "UntagResource": structure(
        "UntagResourceInput", "TagKeys", ResourceArn=RESOURCE_ARN, TagKeys=List(TAG_KEY)
    ),
    "ListStreams": LIST_STREAMS,
    "DescribeStream": DESCRIBE_STREAM,
    "GetShardIterator": GET_SHARD_ITERATOR,
    "GetRecords": GET_RECORDS,
    "ListTagsOfResource": structure(
        "ListTagsOfResourceInput", ResourceArn=RESOURCE_ARN, NextToken=TEXT
    ),
    **REGION_OPERATIONS,
}
