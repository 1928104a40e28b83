"""Event source mappings by boto3."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from millstream.lambdas.settings import Mapping, MappingSettings
from millstream.tests.api.lambdas.test_functions import create, refused

STREAM = "arn:aws:dynamodb:us-east-1:123456789012:table/orders/stream/2026-01-01T00:00:00.000"
OTHER = STREAM.replace("orders", "others")
NOT_FOUND = ("ResourceNotFoundException", 404, "The resource you requested does not exist.")


def make(client, stream=STREAM, **more):
    return client.create_event_source_mapping(
        FunctionName="f", EventSourceArn=stream, StartingPosition="TRIM_HORIZON", **more
    )


@pytest.fixture(autouse=True)
def function(client):
    create(client)


def test_mapping_is_described(client):
    made = make(
        client,
        BatchSize=10,
        MaximumBatchingWindowInSeconds=5,
        FilterCriteria={"Filters": [{"Pattern": '{"eventName": ["INSERT"]}'}]},
        FunctionResponseTypes=["ReportBatchItemFailures"],
        DestinationConfig={"OnFailure": {"Destination": "file:///dead"}},
        Enabled=False,
    )
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert made["EventSourceArn"] == STREAM
    assert made["FunctionArn"] == "arn:aws:lambda:us-east-1:123456789012:function:f"
    assert made["EventSourceMappingArn"].endswith(f":event-source-mapping:{made['UUID']}")
    assert (made["BatchSize"], made["MaximumBatchingWindowInSeconds"]) == (10, 5)
    assert made["FilterCriteria"] == {"Filters": [{"Pattern": '{"eventName": ["INSERT"]}'}]}
    assert made["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert made["DestinationConfig"] == {"OnFailure": {"Destination": "file:///dead"}}
    assert (made["State"], made["StateTransitionReason"]) == ("Disabled", "USER_INITIATED")
    assert made["LastProcessingResult"] == "No records processed"
    assert made["LastModified"] == datetime.fromtimestamp(1_700_000_000.5, UTC)
    found = client.get_event_source_mapping(UUID=made["UUID"])
    del made["ResponseMetadata"], found["ResponseMetadata"]
    assert found == made


def test_mapping_changes(client):
    made = make(client)
    create(client, "g")
    changed = client.update_event_source_mapping(
        UUID=made["UUID"], FunctionName="g", BatchSize=7, Enabled=False
    )
    assert changed["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert changed["FunctionArn"].endswith(":function:g")
    assert (changed["BatchSize"], changed["StartingPosition"]) == (7, "TRIM_HORIZON")


def test_deleted_mapping_is_gone(client):
    made = make(client)
    gone = client.delete_event_source_mapping(UUID=made["UUID"])
    assert (gone["ResponseMetadata"]["HTTPStatusCode"], gone["State"]) == (202, "Deleting")
    for call in ("get", "update", "delete"):
        method = getattr(client, f"{call}_event_source_mapping")
        assert refused(method, UUID=made["UUID"]) == NOT_FOUND


def test_list_by_function_and_source(client):
    create(client, "g")
    first, second = make(client)["UUID"], make(client, OTHER)["UUID"]

    def listed(**query):
        return [
            each["UUID"]
            for page in client.get_paginator("list_event_source_mappings").paginate(
                **query, PaginationConfig={"PageSize": 1}
            )
            for each in page["EventSourceMappings"]
        ]

    assert listed() == sorted([first, second])
    assert listed(FunctionName="f") == sorted([first, second])
    assert listed(FunctionName="g") == []
    assert listed(EventSourceArn=OTHER) == [second]


def test_handlers_of_python_are_not_shown(client, open_server, access_key):
    uuid = "11111111-0000-4000-8000-000000000000"
    row = Mapping(
        uuid, access_key, "app:h", False, "orders", "", MappingSettings(), "Enabled", "", "", 0
    )
    open_server.mappings.rows[access_key, uuid] = row
    assert client.list_event_source_mappings()["EventSourceMappings"] == []
    assert refused(client.get_event_source_mapping, UUID=uuid) == NOT_FOUND
    assert refused(client.delete_event_source_mapping, UUID=uuid) == NOT_FOUND


def test_mapping_of_another_namespace_is_not_there(client, open_server, client_of):
    made = make(client)
    other = client_of(open_server, "ns-stranger")
    assert refused(other.get_event_source_mapping, UUID=made["UUID"]) == NOT_FOUND
    assert refused(other.delete_event_source_mapping, UUID=made["UUID"]) == NOT_FOUND


def test_what_is_refused(client):
    method = client.create_event_source_mapping
    request = {"FunctionName": "f", "EventSourceArn": STREAM, "StartingPosition": "LATEST"}
    for change, name, status, said in (
        ({"FunctionName": "g"}, "ResourceNotFoundException", 404, "Function not found: arn:"),
        (
            {"EventSourceArn": "arn:aws:sqs:us-east-1:123456789012:q"},
            "InvalidParameterValueException",
            400,
            "Unrecognized event source.",
        ),
        ({"BatchSize": 10001}, "ValidationException", 400, "at 'batchSize'"),
        ({"Queues": ["q"]}, "InvalidParameterValueException", 400, "not applicable"),
        ({"Tags": {"a": "b"}}, "InvalidParameterValueException", 400, "not supported"),
    ):
        code, answered, message = refused(method, **(request | change))
        assert (code, answered) == (name, status)
        assert said in message


def test_conflicts(client, open_server):
    made = make(client)
    assert refused(lambda: make(client))[:2] == ("ResourceConflictException", 409)
    open_server.mappings.busy = True
    try:
        for verb in ("update", "delete"):
            method = getattr(client, f"{verb}_event_source_mapping")
            assert refused(method, UUID=made["UUID"]) == (
                "ResourceInUseException",
                400,
                f"Cannot {verb} the event source mapping because it is in use.",
            )
    finally:
        open_server.mappings.busy = False
