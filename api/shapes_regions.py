"""The shapes of the requests about global tables: 2017's operations, and replicas' auto scaling.

``UpdateTable``'s ``ReplicaUpdates`` are in ``shapes_tables``. The orders of members here are the
service model's: no violation of these has been recorded from the service.
"""

from __future__ import annotations

from ..limits import GLOBAL_INDEXES_MAX, REPLICA_SETTINGS_UPDATES_MAX
from .shape_kinds import (
    BOOLEAN,
    INDEX_NAME,
    PLAIN_TABLE_NAME,
    TABLE_NAME,
    TEXT,
    Double,
    List,
    String,
    Structure,
    Whole,
    structure,
)
from .shapes_tables import BILLING_MODE, TABLE_CLASS

_UNITS = Whole("Long", 1)
_REPLICA = structure("Replica", RegionName=TEXT)
_COOLDOWN = Whole("Integer")
_AUTO_SCALING = structure(
    "AutoScalingSettingsUpdate",
    MinimumUnits=_UNITS,
    MaximumUnits=_UNITS,
    AutoScalingDisabled=BOOLEAN,
    AutoScalingRoleArn=String(1, 1600),
    ScalingPolicyUpdate=structure(
        "AutoScalingPolicyUpdate",
        "TargetTrackingScalingPolicyConfiguration",
        PolicyName=String(1, 256),
        TargetTrackingScalingPolicyConfiguration=structure(
            "AutoScalingTargetTrackingScalingPolicyConfigurationUpdate",
            "TargetValue",
            DisableScaleIn=BOOLEAN,
            ScaleInCooldown=_COOLDOWN,
            ScaleOutCooldown=_COOLDOWN,
            TargetValue=Double(),
        ),
    ),
)

CREATE_GLOBAL_TABLE = structure(
    "CreateGlobalTableInput",
    "GlobalTableName ReplicationGroup",
    GlobalTableName=PLAIN_TABLE_NAME,
    ReplicationGroup=List(_REPLICA),
)
UPDATE_GLOBAL_TABLE = structure(
    "UpdateGlobalTableInput",
    "GlobalTableName ReplicaUpdates",
    GlobalTableName=PLAIN_TABLE_NAME,
    ReplicaUpdates=List(
        structure(
            "ReplicaUpdate",
            Create=structure("CreateReplicaAction", "RegionName", RegionName=TEXT),
            Delete=structure("DeleteReplicaAction", "RegionName", RegionName=TEXT),
        )
    ),
)
DESCRIBE_GLOBAL_TABLE = structure(
    "DescribeGlobalTableInput", "GlobalTableName", GlobalTableName=PLAIN_TABLE_NAME
)
LIST_GLOBAL_TABLES = structure(
    "ListGlobalTablesInput",
    ExclusiveStartGlobalTableName=PLAIN_TABLE_NAME,
    Limit=Whole("Integer", 1),
    RegionName=TEXT,
)
DESCRIBE_GLOBAL_TABLE_SETTINGS = structure(
    "DescribeGlobalTableSettingsInput", "GlobalTableName", GlobalTableName=PLAIN_TABLE_NAME
)
UPDATE_GLOBAL_TABLE_SETTINGS = structure(
    "UpdateGlobalTableSettingsInput",
    "GlobalTableName",
    GlobalTableName=PLAIN_TABLE_NAME,
    GlobalTableBillingMode=BILLING_MODE,
    GlobalTableProvisionedWriteCapacityUnits=_UNITS,
    GlobalTableProvisionedWriteCapacityAutoScalingSettingsUpdate=_AUTO_SCALING,
    GlobalTableGlobalSecondaryIndexSettingsUpdate=List(
        structure(
            "GlobalTableGlobalSecondaryIndexSettingsUpdate",
            "IndexName",
            IndexName=INDEX_NAME,
            ProvisionedWriteCapacityUnits=_UNITS,
            ProvisionedWriteCapacityAutoScalingSettingsUpdate=_AUTO_SCALING,
        ),
        1,
        GLOBAL_INDEXES_MAX,
    ),
    ReplicaSettingsUpdate=List(
        structure(
            "ReplicaSettingsUpdate",
            "RegionName",
            RegionName=TEXT,
            ReplicaProvisionedReadCapacityUnits=_UNITS,
            ReplicaProvisionedReadCapacityAutoScalingSettingsUpdate=_AUTO_SCALING,
            ReplicaGlobalSecondaryIndexSettingsUpdate=List(
                structure(
                    "ReplicaGlobalSecondaryIndexSettingsUpdate",
                    "IndexName",
                    IndexName=INDEX_NAME,
                    ProvisionedReadCapacityUnits=_UNITS,
                    ProvisionedReadCapacityAutoScalingSettingsUpdate=_AUTO_SCALING,
                ),
                1,
                GLOBAL_INDEXES_MAX,
            ),
            ReplicaTableClass=TABLE_CLASS,
        ),
        1,
        REPLICA_SETTINGS_UPDATES_MAX,
    ),
)
DESCRIBE_TABLE_REPLICA_AUTO_SCALING = structure(
    "DescribeTableReplicaAutoScalingInput", "TableName", TableName=TABLE_NAME
)
UPDATE_TABLE_REPLICA_AUTO_SCALING = structure(
    "UpdateTableReplicaAutoScalingInput",
    "TableName",
    GlobalSecondaryIndexUpdates=List(
        structure(
            "GlobalSecondaryIndexAutoScalingUpdate",
            IndexName=INDEX_NAME,
            ProvisionedWriteCapacityAutoScalingUpdate=_AUTO_SCALING,
        ),
        1,
    ),
    TableName=TABLE_NAME,
    ProvisionedWriteCapacityAutoScalingUpdate=_AUTO_SCALING,
    ReplicaUpdates=List(
        structure(
            "ReplicaAutoScalingUpdate",
            "RegionName",
            RegionName=TEXT,
            ReplicaGlobalSecondaryIndexUpdates=List(
                structure(
                    "ReplicaGlobalSecondaryIndexAutoScalingUpdate",
                    IndexName=INDEX_NAME,
                    ProvisionedReadCapacityAutoScalingUpdate=_AUTO_SCALING,
                )
            ),
            ReplicaProvisionedReadCapacityAutoScalingUpdate=_AUTO_SCALING,
        ),
        1,
    ),
)

REGION_OPERATIONS: dict[str, Structure] = {
    "CreateGlobalTable": CREATE_GLOBAL_TABLE,
    "UpdateGlobalTable": UPDATE_GLOBAL_TABLE,
    "DescribeGlobalTable": DESCRIBE_GLOBAL_TABLE,
    "ListGlobalTables": LIST_GLOBAL_TABLES,
    "DescribeGlobalTableSettings": DESCRIBE_GLOBAL_TABLE_SETTINGS,
    "UpdateGlobalTableSettings": UPDATE_GLOBAL_TABLE_SETTINGS,
    "DescribeTableReplicaAutoScaling": DESCRIBE_TABLE_REPLICA_AUTO_SCALING,
    "UpdateTableReplicaAutoScaling": UPDATE_TABLE_REPLICA_AUTO_SCALING,
}
