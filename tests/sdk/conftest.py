"""One namespace and one table for all tests of SDKs: each takes keys of its own.

Names are random, so that the tests may be pointed at a DynamoDB that outlives them (``--url``).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config

TABLE_KEY = [
    {"AttributeName": "pk", "KeyType": "HASH"},
    {"AttributeName": "sk", "KeyType": "RANGE"},
]


@pytest.fixture
def fresh() -> Callable[..., str]:
    """Makes names that nothing else has."""
    return lambda prefix="t": f"{prefix}-{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def shared_key() -> str:
    """The access key whose namespace the shared table is in."""
    return f"ns-sdk-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def client(endpoint: str, shared_key: str) -> Iterator[Any]:
    """A boto3 client as an application makes it, but for the endpoint."""
    made = boto3.session.Session(
        aws_access_key_id=shared_key, aws_secret_access_key="secret", region_name="us-east-1"
    ).client("dynamodb", endpoint_url=endpoint, config=Config(read_timeout=20))
    yield made
    made.close()


@pytest.fixture(scope="session")
def resource(endpoint: str, shared_key: str) -> Iterator[Any]:
    """A boto3 resource in the same namespace."""
    made = boto3.session.Session(
        aws_access_key_id=shared_key, aws_secret_access_key="secret", region_name="us-east-1"
    ).resource("dynamodb", endpoint_url=endpoint, config=Config(read_timeout=20))
    yield made
    made.meta.client.close()


@pytest.fixture(scope="session")
def table(client: Any) -> str:
    """A table with keys pk and sk, a global index on owner and a local one on rank."""
    name = f"shared-{uuid.uuid4().hex}"
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=TABLE_KEY,
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
            {"AttributeName": "owner", "AttributeType": "S"},
            {"AttributeName": "rank", "AttributeType": "N"},
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by-owner",
                "KeySchema": [{"AttributeName": "owner", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        LocalSecondaryIndexes=[
            {
                "IndexName": "by-rank",
                "KeySchema": [
                    {"AttributeName": "pk", "KeyType": "HASH"},
                    {"AttributeName": "rank", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
        ],
    )
    client.get_waiter("table_exists").wait(
        TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 20}
    )
    return name


@pytest.fixture
def key(fresh: Callable[..., str]) -> dict[str, dict[str, str]]:
    """A key of the shared table that no other test has."""
    return {"pk": {"S": fresh("p")}, "sk": {"S": "s"}}
