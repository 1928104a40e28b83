"""Functions and their mappings through boto3, in real worker processes of a served node."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

CODE = '''
import json
import os

import boto3


def handler(event, context):
    database = boto3.client("dynamodb")
    for record in event["Records"]:
        item = {"pk": record["dynamodb"]["Keys"]["pk"], "by": {"S": context.function_name}}
        database.put_item(TableName=os.environ["TARGET"], Item=item)
    print("handled", len(event["Records"]))
    return {"handled": len(event["Records"])}


def again(event, context):
    """Writes to the table that it is called for: a loop."""
    database = boto3.client("dynamodb")
    for record in event["Records"]:
        count = int(record["dynamodb"]["NewImage"]["n"]["N"]) + 1
        item = {"pk": {"S": "loop"}, "n": {"N": str(count)}}
        database.put_item(TableName=os.environ["TARGET"], Item=item)
'''


@pytest.fixture(scope="module")
def functions(endpoint: str, shared_key: str) -> Iterator[Any]:
    """A client of Lambda's API, on the database's port and in its namespace."""
    made = boto3.session.Session(
        aws_access_key_id=shared_key, aws_secret_access_key="secret", region_name="us-east-1"
    ).client("lambda", endpoint_url=endpoint)
    yield made
    made.close()


def package() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("app.py", CODE)
    return buffer.getvalue()


def make_table(client: Any, name: str, **more: Any) -> str:
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        **more,
    )
    return client.describe_table(TableName=name)["Table"].get("LatestStreamArn", "")


def make_function(functions: Any, name: str, target: str, handler: str = "app.handler") -> None:
    functions.create_function(
        FunctionName=name,
        Runtime="python3.11",
        Role="arn:aws:iam::123456789012:role/any",
        Handler=handler,
        Code={"ZipFile": package()},
        Timeout=30,
        Environment={"Variables": {"TARGET": target}},
    )
    functions.get_waiter("function_active_v2").wait(FunctionName=name)


STREAM = {"StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}}


def until(found: Callable[[], Any]) -> Any:
    """What ``found`` gives once it gives something; each look is a request."""
    for _ in range(3000):
        value = found()
        if value:
            return value
    raise AssertionError("it did not come")


def test_a_function_is_invoked(functions, client, fresh):
    name = fresh("f")
    make_function(functions, name, make_table(client, fresh()) or "none")
    answer = functions.invoke(
        FunctionName=name, Payload=json.dumps({"Records": []}), LogType="Tail"
    )
    assert json.loads(answer["Payload"].read()) == {"handled": 0}
    assert "FunctionError" not in answer
    failed = functions.invoke(FunctionName=name, Payload=b"{}")
    assert failed["FunctionError"] == "Unhandled"
    assert json.loads(failed["Payload"].read())["errorType"] == "KeyError"


def test_a_mapping_calls_its_function_for_every_change(functions, client, fresh):
    source, target, name = fresh("source"), fresh("target"), fresh("f")
    arn = make_table(client, source, **STREAM)
    make_table(client, target)
    make_function(functions, name, target)
    mapping = functions.create_event_source_mapping(
        FunctionName=name, EventSourceArn=arn, StartingPosition="TRIM_HORIZON", BatchSize=5
    )
    for number in range(12):
        client.put_item(TableName=source, Item={"pk": {"S": str(number)}})

    def handled() -> Any:
        items = client.scan(TableName=target)["Items"]
        return items if len(items) == 12 else None

    assert {item["by"]["S"] for item in until(handled)} == {name}
    told = functions.get_event_source_mapping(UUID=mapping["UUID"])
    assert (told["State"], told["BatchSize"]) == ("Enabled", 5)
    with pytest.raises(ClientError, match="already"):
        functions.create_event_source_mapping(
            FunctionName=name, EventSourceArn=arn, StartingPosition="LATEST"
        )
    functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    assert functions.get_event_source_mapping(UUID=mapping["UUID"])["State"] == "Disabled"
    functions.delete_event_source_mapping(UUID=mapping["UUID"])
    with pytest.raises(ClientError) as refusal:
        functions.get_event_source_mapping(UUID=mapping["UUID"])
    assert refusal.value.response["Error"]["Code"] == "ResourceNotFoundException"


def test_a_function_that_writes_to_its_own_source_is_stopped(functions, client, fresh):
    source, name = fresh("source"), fresh("f")
    arn = make_table(client, source, **STREAM)
    make_function(functions, name, source, "app.again")
    mapping = functions.create_event_source_mapping(
        FunctionName=name, EventSourceArn=arn, StartingPosition="TRIM_HORIZON"
    )
    client.put_item(TableName=source, Item={"pk": {"S": "loop"}, "n": {"N": "0"}})

    def count() -> int:
        item = client.get_item(TableName=source, Key={"pk": {"S": "loop"}})["Item"]
        return int(item["n"]["N"])

    until(lambda: count() == 16)
    # What the sixteenth wrote is given up, and nothing is written any more.
    told = until(
        lambda: functions.get_event_source_mapping(UUID=mapping["UUID"])["LastProcessingResult"]
    )
    assert told == "OK"
    assert count() == 16
