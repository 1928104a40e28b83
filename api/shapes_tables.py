"""The shapes of the table operations' requests. See ``shapes`` for what orders mean."""

from __future__ import annotations

from ..limits import (
    KEY_ATTRIBUTE_NAME_BYTES_MAX,
    TAG_KEY_CHARACTERS_MAX,
    TAG_VALUE_CHARACTERS_MAX,
)
from .shape_kinds import (
    BOOLEAN,
    INDEX_NAME,
    KEY_ATTRIBUTE_NAME,
    LONG,
    TABLE_NAME,
    TEXT,
    List,
    Shape,
    String,
    Structure,
    Whole,
    structure,
)

# What the table operations have in common.
KEY_SCHEMA_ELEMENT = structure(
    "KeySchemaElement",
    "AttributeName KeyType",
    AttributeName=KEY_ATTRIBUTE_NAME,
    KeyType=String(enum=("HASH", "RANGE")),
)
TABLE_KEY_SCHEMA = List(KEY_SCHEMA_ELEMENT, 1, 2)
GLOBAL_KEY_SCHEMA = List(KEY_SCHEMA_ELEMENT, 1, 8)
ATTRIBUTE_DEFINITIONS = List(
    structure(
        "AttributeDefinition",
        "AttributeName AttributeType",
        AttributeName=KEY_ATTRIBUTE_NAME,
        AttributeType=String(enum=("B", "N", "S")),
    )
)
BILLING_MODE = String(enum=("PROVISIONED", "PAY_PER_REQUEST"))
PROVISIONED_THROUGHPUT = structure(
    "ProvisionedThroughput",
    "WriteCapacityUnits ReadCapacityUnits",
    WriteCapacityUnits=Whole("Long", 1),
    ReadCapacityUnits=Whole("Long", 1),
)
ON_DEMAND_THROUGHPUT = structure(
    "OnDemandThroughput", MaxReadRequestUnits=LONG, MaxWriteRequestUnits=LONG
)
WARM_THROUGHPUT = structure("WarmThroughput", ReadUnitsPerSecond=LONG, WriteUnitsPerSecond=LONG)
PROJECTION = structure(
    "Projection",
    ProjectionType=String(enum=("ALL", "INCLUDE", "KEYS_ONLY")),
    NonKeyAttributes=List(String(1, KEY_ATTRIBUTE_NAME_BYTES_MAX), 1, 20),
)
STREAM_SPECIFICATION = structure(
    "StreamSpecification",
    "StreamEnabled",
    StreamEnabled=BOOLEAN,
    StreamViewType=String(enum=("NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES", "KEYS_ONLY")),
)
SSE_SPECIFICATION = structure(
    "SSESpecification",
    Enabled=BOOLEAN,
    SSEType=String(enum=("AES256", "KMS")),
    KMSMasterKeyId=TEXT,
)
TABLE_CLASS = String(enum=("STANDARD", "STANDARD_INFREQUENT_ACCESS"))
SETTINGS_REPLICATION_MODE = String(enum=("ENABLED", "DISABLED", "ENABLED_WITH_OVERRIDES"))

TAG_KEY = String(1, TAG_KEY_CHARACTERS_MAX)
TAGS = List(
    structure("Tag", "Key Value", Key=TAG_KEY, Value=String(0, TAG_VALUE_CHARACTERS_MAX))
)
# Not required and of any length: an ARN is refused in the tag operations' own words.
RESOURCE_ARN = TEXT

_VECTOR_INDEX_MEMBERS: dict[str, Shape] = {
    "IndexName": INDEX_NAME,
    "VectorAttribute": structure(
        "VectorAttributeDefinition", "AttributeName", AttributeName=KEY_ATTRIBUTE_NAME
    ),
    "SearchSchema": List(
        structure(
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
CREATE_TABLE = structure(
    "CreateTableInput",
    "TableName AttributeDefinitions KeySchema",
    AttributeDefinitions=ATTRIBUTE_DEFINITIONS,
    TableName=TABLE_NAME,
    BillingMode=BILLING_MODE,
    ProvisionedThroughput=PROVISIONED_THROUGHPUT,
    KeySchema=TABLE_KEY_SCHEMA,
    LocalSecondaryIndexes=List(
        structure(
            "LocalSecondaryIndex",
            "IndexName KeySchema Projection",
            IndexName=INDEX_NAME,
            KeySchema=TABLE_KEY_SCHEMA,
            Projection=PROJECTION,
        )
    ),
    GlobalSecondaryIndexes=List(
        structure(
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

_REGION = structure("DeleteReplicationGroupMemberAction", "RegionName", RegionName=TEXT)
_REPLICA_MEMBERS: dict[str, Shape] = {
    "RegionName": TEXT,
    "KMSMasterKeyId": TEXT,
    "ProvisionedThroughputOverride": structure(
        "ProvisionedThroughputOverride", ReadCapacityUnits=Whole("Long", 1)
    ),
    "OnDemandThroughputOverride": structure(
        "OnDemandThroughputOverride", MaxReadRequestUnits=LONG
    ),
    "GlobalSecondaryIndexes": List(
        structure(
            "ReplicaGlobalSecondaryIndex",
            "IndexName",
            IndexName=INDEX_NAME,
            ProvisionedThroughputOverride=structure(
                "ProvisionedThroughputOverride", ReadCapacityUnits=Whole("Long", 1)
            ),
            OnDemandThroughputOverride=structure(
                "OnDemandThroughputOverride", MaxReadRequestUnits=LONG
            ),
        ),
        1,
    ),
    "TableClassOverride": TABLE_CLASS,
}

UPDATE_TABLE = structure(
    "UpdateTableInput",
    "TableName",
    TableName=TABLE_NAME,
    AttributeDefinitions=ATTRIBUTE_DEFINITIONS,
    ProvisionedThroughput=PROVISIONED_THROUGHPUT,
    BillingMode=BILLING_MODE,
    GlobalSecondaryIndexUpdates=List(
        structure(
            "GlobalSecondaryIndexUpdate",
            Update=structure(
                "UpdateGlobalSecondaryIndexAction",
                "IndexName",
                IndexName=INDEX_NAME,
                ProvisionedThroughput=PROVISIONED_THROUGHPUT,
                OnDemandThroughput=ON_DEMAND_THROUGHPUT,
                WarmThroughput=WARM_THROUGHPUT,
            ),
            Create=structure(
                "CreateGlobalSecondaryIndexAction",
                "IndexName KeySchema Projection",
                Projection=PROJECTION,
                IndexName=INDEX_NAME,
                ProvisionedThroughput=PROVISIONED_THROUGHPUT,
                KeySchema=GLOBAL_KEY_SCHEMA,
                OnDemandThroughput=ON_DEMAND_THROUGHPUT,
                WarmThroughput=WARM_THROUGHPUT,
            ),
            Delete=structure(
                "DeleteGlobalSecondaryIndexAction", "IndexName", IndexName=INDEX_NAME
            ),
        )
    ),
    StreamSpecification=STREAM_SPECIFICATION,
    SSESpecification=SSE_SPECIFICATION,
    ReplicaUpdates=List(
        structure(
            "ReplicationGroupUpdate",
            Create=Structure(
                "CreateReplicationGroupMemberAction", _REPLICA_MEMBERS, frozenset({"RegionName"})
            ),
            Update=Structure(
                "UpdateReplicationGroupMemberAction", _REPLICA_MEMBERS, frozenset({"RegionName"})
            ),
            Delete=_REGION,
            Disassociate=structure(
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
        structure("GlobalTableWitnessGroupUpdate", Create=_REGION, Delete=_REGION), 1, 1
    ),
    OnDemandThroughput=ON_DEMAND_THROUGHPUT,
    WarmThroughput=WARM_THROUGHPUT,
    GlobalTableSettingsReplicationMode=SETTINGS_REPLICATION_MODE,
    DisassociationProtectionEnabled=BOOLEAN,
    VectorIndexUpdates=List(
        structure(
            "VectorIndexUpdate",
            Create=Structure(
                "CreateVectorIndexAction", _VECTOR_INDEX_MEMBERS, _VECTOR_INDEX_REQUIRED
            ),
            Delete=structure("DeleteVectorIndexAction", "IndexName", IndexName=INDEX_NAME),
        )
    ),
)
