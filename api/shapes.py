"""The shape of every request, written as DynamoDB's service model writes it.

Data only, read by ``validation.py``. A shape says which JSON a member may hold and which
constraints DynamoDB checks before it looks at what the request means. Rules that join several
members (an index key must be defined, and so on) belong to the operations.

Facts: the service model ``dynamodb/2012-08-10`` (tests hold the members equal to it, so that
nothing is accepted and ignored). The order of members and of enum values is the order in which
DynamoDB lists violations and values; it is not the model's, and was recorded from the service.
"""

from __future__ import annotations

import msgspec

from ..limits import (
    BATCH_GET_KEYS_MAX,
    BATCH_WRITE_REQUESTS_MAX,
    KEY_ATTRIBUTE_NAME_BYTES_MAX,
    LIST_TABLES_MAX,
    SCAN_SEGMENTS_MAX,
    TAG_KEY_CHARACTERS_MAX,
    TAG_VALUE_CHARACTERS_MAX,
)

NAME_PATTERN = "[a-zA-Z0-9_.-]+"
INTEGER_MAX = (1 << 31) - 1
LONG_MAX = (1 << 63) - 1


class String(msgspec.Struct, frozen=True):
    """Text. Lengths are in characters; ``pattern`` must match the whole of it."""

    minimum: int | None = None
    maximum: int | None = None
    pattern: str | None = None
    enum: tuple[str, ...] = ()


class Blob(msgspec.Struct, frozen=True):
    """Bytes, as base64 text."""


class Boolean(msgspec.Struct, frozen=True):
    """True or false."""


class Whole(msgspec.Struct, frozen=True):
    """A whole number of 32 (``Integer``) or 64 (``Long``) bits.

    ``terse`` violations are worded without the value, as the newer half of DynamoDB does.
    """

    java: str = "Long"
    minimum: int | None = None
    maximum: int | None = None
    terse: bool = False


class List(msgspec.Struct, frozen=True):
    """A JSON array. Lengths are in elements; for ``terse`` see ``Whole``."""

    element: Shape
    minimum: int | None = None
    maximum: int | None = None
    terse: bool = False


class Map(msgspec.Struct, frozen=True):
    """A JSON object whose names are the user's.

    ``table_names`` says that the names are tables. ``element_lengths`` is (least, most) of each
    element that is a list.
    """

    element: Shape
    table_names: bool = False
    element_lengths: tuple[int, int] | None = None


class Structure(msgspec.Struct, frozen=True):
    """A JSON object with modelled members; ``required`` ones must be present and not null."""

    name: str
    members: dict[str, Shape]
    required: frozenset[str] = frozenset()


class AttributeValue(msgspec.Struct, frozen=True):
    """An attribute value: only its JSON types are checked, the rest is ``model.values``'s."""


Shape = String | Blob | Boolean | Whole | List | Map | Structure | AttributeValue

TEXT = String()
BOOLEAN = Boolean()
LONG = Whole()
VALUE = AttributeValue()
VALUES = Map(VALUE)
VALUE_LIST = List(VALUE)
VALUE_MEMBERS: dict[str, Shape] = {
    "S": TEXT,
    "N": TEXT,
    "B": Blob(),
    "SS": List(TEXT),
    "NS": List(TEXT),
    "BS": List(Blob()),
    "M": VALUES,
    "L": VALUE_LIST,
    "NULL": BOOLEAN,
    "BOOL": BOOLEAN,
}


def _structure(structure_name: str, required: str = "", /, **members: Shape) -> Structure:
    return Structure(structure_name, members, frozenset(required.split()))


# Names. A table may be given by its ARN wherever its name may be, hence the length of an ARN.
TABLE_NAME = String(1, 1024)
PLAIN_TABLE_NAME = String(3, 255, NAME_PATTERN)
INDEX_NAME = String(3, 255, NAME_PATTERN)
KEY_ATTRIBUTE_NAME = String(1, KEY_ATTRIBUTE_NAME_BYTES_MAX)

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
    _structure(
        "ExpectedAttributeValue",
        AttributeValueList=VALUE_LIST,
        ComparisonOperator=COMPARISON_OPERATOR,
        Exists=BOOLEAN,
        Value=VALUE,
    )
)
CONDITIONS = Map(
    _structure(
        "Condition",
        "ComparisonOperator",
        AttributeValueList=VALUE_LIST,
        ComparisonOperator=COMPARISON_OPERATOR,
    )
)

PUT_ITEM = _structure(
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
GET_ITEM = _structure(
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
DELETE_ITEM = _structure(
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
UPDATE_ITEM = _structure(
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
        _structure(
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
QUERY = _structure(
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
SCAN = _structure(
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
BATCH_GET_ITEM = _structure(
    "BatchGetItemInput",
    "RequestItems",
    ReturnConsumedCapacity=RETURN_CONSUMED_CAPACITY,
    RequestItems=Map(
        _structure(
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
BATCH_WRITE_ITEM = _structure(
    "BatchWriteItemInput",
    "RequestItems",
    ReturnConsumedCapacity=RETURN_CONSUMED_CAPACITY,
    ReturnItemCollectionMetrics=RETURN_ITEM_COLLECTION_METRICS,
    RequestItems=Map(
        List(
            _structure(
                "WriteRequest",
                PutRequest=_structure("PutRequest", "Item", Item=VALUES),
                DeleteRequest=_structure("DeleteRequest", "Key", Key=VALUES),
            )
        ),
        table_names=True,
        element_lengths=(1, BATCH_WRITE_REQUESTS_MAX),
    ),
)

# What the table operations have in common.
KEY_SCHEMA_ELEMENT = _structure(
    "KeySchemaElement",
    "AttributeName KeyType",
    AttributeName=KEY_ATTRIBUTE_NAME,
    KeyType=String(enum=("HASH", "RANGE")),
)
TABLE_KEY_SCHEMA = List(KEY_SCHEMA_ELEMENT, 1, 2)
GLOBAL_KEY_SCHEMA = List(KEY_SCHEMA_ELEMENT, 1, 8)
ATTRIBUTE_DEFINITIONS = List(
    _structure(
        "AttributeDefinition",
        "AttributeName AttributeType",
        AttributeName=KEY_ATTRIBUTE_NAME,
        AttributeType=String(enum=("B", "N", "S")),
    )
)
BILLING_MODE = String(enum=("PROVISIONED", "PAY_PER_REQUEST"))
PROVISIONED_THROUGHPUT = _structure(
    "ProvisionedThroughput",
    "WriteCapacityUnits ReadCapacityUnits",
    WriteCapacityUnits=Whole("Long", 1),
    ReadCapacityUnits=Whole("Long", 1),
)
ON_DEMAND_THROUGHPUT = _structure(
    "OnDemandThroughput", MaxReadRequestUnits=LONG, MaxWriteRequestUnits=LONG
)
WARM_THROUGHPUT = _structure("WarmThroughput", ReadUnitsPerSecond=LONG, WriteUnitsPerSecond=LONG)
PROJECTION = _structure(
    "Projection",
    ProjectionType=String(enum=("ALL", "INCLUDE", "KEYS_ONLY")),
    NonKeyAttributes=List(String(1, KEY_ATTRIBUTE_NAME_BYTES_MAX), 1, 20),
)
STREAM_SPECIFICATION = _structure(
    "StreamSpecification",
    "StreamEnabled",
    StreamEnabled=BOOLEAN,
    StreamViewType=String(enum=("NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES", "KEYS_ONLY")),
)
SSE_SPECIFICATION = _structure(
    "SSESpecification",
    Enabled=BOOLEAN,
    SSEType=String(enum=("AES256", "KMS")),
    KMSMasterKeyId=TEXT,
)
TABLE_CLASS = String(enum=("STANDARD", "STANDARD_INFREQUENT_ACCESS"))
SETTINGS_REPLICATION_MODE = String(enum=("ENABLED", "DISABLED", "ENABLED_WITH_OVERRIDES"))

TAG_KEY = String(1, TAG_KEY_CHARACTERS_MAX)
TAGS = List(
    _structure("Tag", "Key Value", Key=TAG_KEY, Value=String(0, TAG_VALUE_CHARACTERS_MAX))
)
# Not required and of any length: an ARN is refused in the tag operations' own words.
RESOURCE_ARN = TEXT

_VECTOR_INDEX_MEMBERS: dict[str, Shape] = {
    "IndexName": INDEX_NAME,
    "VectorAttribute": _structure(
        "VectorAttributeDefinition", "AttributeName", AttributeName=KEY_ATTRIBUTE_NAME
    ),
    "SearchSchema": List(
        _structure(
            "SearchSchemaElement",
            "AttributeName SearchSchemaElementType",
            AttributeName=String(maximum=65_535),
            SearchSchemaElementType=String(enum=("HASH", "INLINE_FILTER")),
        ),
        1,
    ),
    "Projection": PROJECTION,
    "Dimensions": Whole("Long", 1),
    "DistanceFunction": String(enum=("COSINE", "DOT_PRODUCT", "EUCLIDEAN")),
}
_VECTOR_INDEX_REQUIRED = frozenset(_VECTOR_INDEX_MEMBERS) - {"SearchSchema"}

# The model requires only the name; without the other two there is nothing that could be created.
CREATE_TABLE = _structure(
    "CreateTableInput",
    "TableName AttributeDefinitions KeySchema",
    AttributeDefinitions=ATTRIBUTE_DEFINITIONS,
    TableName=TABLE_NAME,
    BillingMode=BILLING_MODE,
    ProvisionedThroughput=PROVISIONED_THROUGHPUT,
    KeySchema=TABLE_KEY_SCHEMA,
    LocalSecondaryIndexes=List(
        _structure(
            "LocalSecondaryIndex",
            "IndexName KeySchema Projection",
            IndexName=INDEX_NAME,
            KeySchema=TABLE_KEY_SCHEMA,
            Projection=PROJECTION,
        )
    ),
    GlobalSecondaryIndexes=List(
        _structure(
            "GlobalSecondaryIndex",
            "IndexName KeySchema Projection",
            IndexName=INDEX_NAME,
            KeySchema=GLOBAL_KEY_SCHEMA,
            Projection=PROJECTION,
            ProvisionedThroughput=PROVISIONED_THROUGHPUT,
            OnDemandThroughput=ON_DEMAND_THROUGHPUT,
            WarmThroughput=WARM_THROUGHPUT,
        )
    ),
    StreamSpecification=STREAM_SPECIFICATION,
    SSESpecification=SSE_SPECIFICATION,
    Tags=TAGS,
    TableClass=TABLE_CLASS,
    DeletionProtectionEnabled=BOOLEAN,
    WarmThroughput=WARM_THROUGHPUT,
    ResourcePolicy=TEXT,
    OnDemandThroughput=ON_DEMAND_THROUGHPUT,
    GlobalTableSourceArn=TABLE_NAME,
    GlobalTableSettingsReplicationMode=SETTINGS_REPLICATION_MODE,
    VectorIndexes=List(Structure("VectorIndex", _VECTOR_INDEX_MEMBERS, _VECTOR_INDEX_REQUIRED)),
)

_REGION = _structure("DeleteReplicationGroupMemberAction", "RegionName", RegionName=TEXT)
_REPLICA_MEMBERS: dict[str, Shape] = {
    "RegionName": TEXT,
    "KMSMasterKeyId": TEXT,
    "ProvisionedThroughputOverride": _structure(
        "ProvisionedThroughputOverride", ReadCapacityUnits=Whole("Long", 1)
    ),
    "OnDemandThroughputOverride": _structure(
        "OnDemandThroughputOverride", MaxReadRequestUnits=LONG
    ),
    "GlobalSecondaryIndexes": List(
        _structure(
            "ReplicaGlobalSecondaryIndex",
            "IndexName",
            IndexName=INDEX_NAME,
            ProvisionedThroughputOverride=_structure(
                "ProvisionedThroughputOverride", ReadCapacityUnits=Whole("Long", 1)
            ),
            OnDemandThroughputOverride=_structure(
                "OnDemandThroughputOverride", MaxReadRequestUnits=LONG
            ),
        ),
        1,
    ),
    "TableClassOverride": TABLE_CLASS,
}

UPDATE_TABLE = _structure(
    "UpdateTableInput",
    "TableName",
    TableName=TABLE_NAME,
    AttributeDefinitions=ATTRIBUTE_DEFINITIONS,
    ProvisionedThroughput=PROVISIONED_THROUGHPUT,
    BillingMode=BILLING_MODE,
    GlobalSecondaryIndexUpdates=List(
        _structure(
            "GlobalSecondaryIndexUpdate",
            Update=_structure(
                "UpdateGlobalSecondaryIndexAction",
                "IndexName",
                IndexName=INDEX_NAME,
                ProvisionedThroughput=PROVISIONED_THROUGHPUT,
                OnDemandThroughput=ON_DEMAND_THROUGHPUT,
                WarmThroughput=WARM_THROUGHPUT,
            ),
            Create=_structure(
                "CreateGlobalSecondaryIndexAction",
                "IndexName KeySchema Projection",
                Projection=PROJECTION,
                IndexName=INDEX_NAME,
                ProvisionedThroughput=PROVISIONED_THROUGHPUT,
                KeySchema=GLOBAL_KEY_SCHEMA,
                OnDemandThroughput=ON_DEMAND_THROUGHPUT,
                WarmThroughput=WARM_THROUGHPUT,
            ),
            Delete=_structure(
                "DeleteGlobalSecondaryIndexAction", "IndexName", IndexName=INDEX_NAME
            ),
        )
    ),
    StreamSpecification=STREAM_SPECIFICATION,
    SSESpecification=SSE_SPECIFICATION,
    ReplicaUpdates=List(
        _structure(
            "ReplicationGroupUpdate",
            Create=Structure(
                "CreateReplicationGroupMemberAction", _REPLICA_MEMBERS, frozenset({"RegionName"})
            ),
            Update=Structure(
                "UpdateReplicationGroupMemberAction", _REPLICA_MEMBERS, frozenset({"RegionName"})
            ),
            Delete=_REGION,
            Disassociate=_structure(
                "DisassociateReplicationGroupMemberAction",
                "RegionName DisassociationMode",
                RegionName=TEXT,
                DisassociationMode=String(enum=("WAIT_FOR_REPLICATION",)),
            ),
        ),
        1,
    ),
    TableClass=TABLE_CLASS,
    DeletionProtectionEnabled=BOOLEAN,
    MultiRegionConsistency=String(enum=("EVENTUAL", "STRONG")),
    GlobalTableWitnessUpdates=List(
        _structure("GlobalTableWitnessGroupUpdate", Create=_REGION, Delete=_REGION), 1, 1
    ),
    OnDemandThroughput=ON_DEMAND_THROUGHPUT,
    WarmThroughput=WARM_THROUGHPUT,
    GlobalTableSettingsReplicationMode=SETTINGS_REPLICATION_MODE,
    DisassociationProtectionEnabled=BOOLEAN,
    VectorIndexUpdates=List(
        _structure(
            "VectorIndexUpdate",
            Create=Structure(
                "CreateVectorIndexAction", _VECTOR_INDEX_MEMBERS, _VECTOR_INDEX_REQUIRED
            ),
            Delete=_structure("DeleteVectorIndexAction", "IndexName", IndexName=INDEX_NAME),
        )
    ),
)

OPERATIONS: dict[str, Structure] = {
    "PutItem": PUT_ITEM,
    "GetItem": GET_ITEM,
    "UpdateItem": UPDATE_ITEM,
    "DeleteItem": DELETE_ITEM,
    "Query": QUERY,
    "Scan": SCAN,
    "BatchGetItem": BATCH_GET_ITEM,
    "BatchWriteItem": BATCH_WRITE_ITEM,
    "CreateTable": CREATE_TABLE,
    "UpdateTable": UPDATE_TABLE,
    "DeleteTable": _structure("DeleteTableInput", "TableName", TableName=TABLE_NAME),
    "DescribeTable": _structure("DescribeTableInput", "TableName", TableName=TABLE_NAME),
    "ListTables": _structure(
        "ListTablesInput",
        Limit=Whole("Integer", 1, LIST_TABLES_MAX),
        ExclusiveStartTableName=PLAIN_TABLE_NAME,
    ),
    "DescribeLimits": _structure("DescribeLimitsInput"),
    "DescribeEndpoints": _structure("DescribeEndpointsRequest"),
    "TagResource": _structure("TagResourceInput", "Tags", ResourceArn=RESOURCE_ARN, Tags=TAGS),
    "UntagResource": _structure(
        "UntagResourceInput", "TagKeys", ResourceArn=RESOURCE_ARN, TagKeys=List(TAG_KEY)
    ),
    "ListTagsOfResource": _structure(
        "ListTagsOfResourceInput", ResourceArn=RESOURCE_ARN, NextToken=TEXT
    ),
}
