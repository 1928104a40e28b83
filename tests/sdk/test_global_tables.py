"""Global tables through boto3, of a node without a regions file: what who asks is told."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError


def refusal(operation, **members):
    with pytest.raises(ClientError) as caught:
        operation(**members)
    return caught.value.response["Error"]["Code"], str(caught.value)


def test_a_table_has_no_replicas(client, table):
    # Terraform and the CDK look at these of every table.
    description = client.describe_table(TableName=table)["Table"]
    assert not description.get("Replicas")
    assert "GlobalTableVersion" not in description


def test_there_are_no_global_tables(client):
    answer = client.list_global_tables(Limit=10)
    assert answer["GlobalTables"] == []
    assert "LastEvaluatedGlobalTableName" not in answer


def test_a_replica_needs_another_region(client, table):
    code, message = refusal(
        client.update_table,
        TableName=table,
        ReplicaUpdates=[{"Create": {"RegionName": "xx-nowhere-1"}}],
    )
    assert code == "ValidationException"
    assert "region" in message.lower()


def test_a_table_of_one_region_is_not_a_global_one(client, table):
    code, _ = refusal(client.describe_table_replica_auto_scaling, TableName=table)
    assert code == "ResourceNotFoundException"
    with pytest.raises(client.exceptions.GlobalTableNotFoundException):
        client.describe_global_table(GlobalTableName=table[:200])
    with pytest.raises(client.exceptions.GlobalTableNotFoundException):
        client.describe_global_table_settings(GlobalTableName=table[:200])
