"""Functions by boto3: what an SDK sees of creating, changing, describing and deleting them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from botocore.exceptions import ClientError

from millstream.lambdas.packages import code_digest
from millstream.tests.lambdas.fakes import ROLE, package

A = package()
B = package("def handler(event, context):\n    return 'b'\n")


def create(client: Any, name: str = "f", code: bytes = A, **more: Any) -> dict[str, Any]:
    request = {"Runtime": "python3.12", "Role": ROLE, "Handler": "app.handler", **more}
    made: dict[str, Any] = client.create_function(
        FunctionName=name, Code={"ZipFile": code}, **request
    )
    return made


def refused(call: Any, **request: Any) -> tuple[str, int, str]:
    with pytest.raises(ClientError) as caught:
        call(**request)
    answer = caught.value.response
    error = answer["Error"]
    return error["Code"], answer["ResponseMetadata"]["HTTPStatusCode"], error["Message"]


def test_created_function_is_described(client):
    made = create(
        client,
        Description="d",
        Timeout=5,
        MemorySize=256,
        Environment={"Variables": {"TABLE": "t"}},
        Tags={"team": "a"},
        Architectures=["arm64"],
    )
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert made["FunctionArn"] == "arn:aws:lambda:us-east-1:123456789012:function:f"
    assert (made["CodeSha256"], made["CodeSize"]) == (code_digest(A), len(A))
    assert (made["Runtime"], made["Handler"], made["Role"]) == ("python3.12", "app.handler", ROLE)
    assert (made["Timeout"], made["MemorySize"], made["Description"]) == (5, 256, "d")
    assert made["Environment"] == {"Variables": {"TABLE": "t"}}
    assert (made["Version"], made["State"]) == ("$LATEST", "Active")
    assert (made["LastUpdateStatus"], made["PackageType"]) == ("Successful", "Zip")
    assert made["Architectures"] == ["arm64"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000", made["LastModified"])
    found = client.get_function(FunctionName="f")
    assert found["Tags"] == {"team": "a"}
    del made["ResponseMetadata"]
    assert found["Configuration"] == made
    configuration = client.get_function_configuration(FunctionName="f")
    del configuration["ResponseMetadata"]
    assert configuration == made


def test_waiters_end(client):
    create(client)
    for name in (
        "function_exists",
        "function_active",
        "function_active_v2",
        "function_updated",
        "function_updated_v2",
    ):
        client.get_waiter(name).wait(
            FunctionName="f", WaiterConfig={"Delay": 0, "MaxAttempts": 1}
        )


@pytest.mark.parametrize(
    "name",
    [
        "f",
        "f:$LATEST",
        "123456789012:function:f",
        "arn:aws:lambda:us-east-1:123456789012:function:f",
        "arn:aws:lambda:us-east-1:123456789012:function:f:$LATEST",
    ],
)
def test_name_may_be_an_arn(client, name):
    create(client)
    assert client.get_function(FunctionName=name)["Configuration"]["FunctionName"] == "f"
    assert client.invoke(FunctionName=name)["StatusCode"] == 200


def test_function_that_is_not_there(client):
    arn = "arn:aws:lambda:us-east-1:123456789012:function:g"
    told = ("ResourceNotFoundException", 404, f"Function not found: {arn}")
    assert refused(client.get_function, FunctionName="g") == told
    assert refused(client.get_function_configuration, FunctionName="g") == told
    assert refused(client.delete_function, FunctionName="g") == told
    assert refused(client.update_function_code, FunctionName="g", ZipFile=A) == told
    assert refused(client.update_function_configuration, FunctionName="g", Timeout=3) == told
    assert refused(client.invoke, FunctionName="g") == told
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_function(FunctionName="g")
    create(client)
    code, status, message = refused(client.get_function, FunctionName="f", Qualifier="1")
    assert (code, status) == ("ResourceNotFoundException", 404)
    assert message.endswith(":function:f:1")


def test_name_is_taken_once(client, open_server, client_of):
    create(client)
    told = refused(lambda: create(client, code=B))
    assert told == ("ResourceConflictException", 409, "Function already exist: f")
    other = client_of(open_server, "ns-somebody-else")
    assert other.list_functions()["Functions"] == []
    create(other)
    other.delete_function(FunctionName="f")


def test_code_changes(client):
    made = create(client)
    assert client.invoke(FunctionName="f")["Payload"].read() == b'{"event":{}}'
    would = client.update_function_code(FunctionName="f", ZipFile=B, DryRun=True)
    assert would["CodeSha256"] == code_digest(B)
    assert client.invoke(FunctionName="f")["Payload"].read() == b'{"event":{}}'
    changed = client.update_function_code(FunctionName="f", ZipFile=B)
    assert changed["CodeSha256"] == code_digest(B)
    assert changed["RevisionId"] != made["RevisionId"]
    assert client.invoke(FunctionName="f")["Payload"].read() == b'"b"'


def test_configuration_changes(client):
    create(client, Environment={"Variables": {"AB": "1"}}, Timeout=7)
    changed = client.update_function_configuration(
        FunctionName="f", Environment={"Variables": {}}, MemorySize=512
    )
    assert "Environment" not in changed
    assert (changed["MemorySize"], changed["Timeout"]) == (512, 7)


def test_revision_is_a_condition(client):
    made = create(client)
    request = {"FunctionName": "f", "RevisionId": made["RevisionId"]}
    client.update_function_configuration(**request, Timeout=4)
    code, status, message = refused(client.update_function_configuration, **request, Timeout=5)
    assert (code, status) == ("PreconditionFailedException", 412)
    assert message.startswith("The RevisionId provided does not match the latest RevisionId.")


def test_deleted_function_is_gone(client):
    create(client)
    assert client.delete_function(FunctionName="f")["ResponseMetadata"]["HTTPStatusCode"] == 204
    # The connection goes on behind an answer without a length.
    assert refused(client.get_function, FunctionName="f")[0] == "ResourceNotFoundException"
    create(client)
    code, status, _ = refused(client.delete_function, FunctionName="f", Qualifier="$LATEST")
    assert (code, status) == ("InvalidParameterValueException", 400)


def test_list_comes_in_pages(client):
    names = [f"f{number:02}" for number in range(53)]
    for name in reversed(names):
        create(client, name)
    page = client.list_functions()
    assert [each["FunctionName"] for each in page["Functions"]] == names[:50]
    assert "State" not in page["Functions"][0]
    rest = client.list_functions(Marker=page["NextMarker"], FunctionVersion="ALL")
    assert [each["FunctionName"] for each in rest["Functions"]] == names[50:]
    assert "NextMarker" not in rest
    pages = client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 7})
    assert [each["FunctionName"] for page in pages for each in page["Functions"]] == names
    assert refused(client.list_functions, Marker="!")[0] == "InvalidParameterValueException"
    code, status, message = refused(client.list_functions, MaxItems=10001)
    assert (code, status) == ("ValidationException", 400)
    assert "at 'maxItems' failed to satisfy constraint" in message


def test_constraint_and_parameter_have_their_own_errors(client):
    code, status, message = refused(lambda: create(client, Timeout=901))
    assert (code, status) == ("ValidationException", 400)
    assert message.startswith("1 validation error detected: Value '901' at 'timeout'")
    told = refused(lambda: create(client, Layers=["arn:aws:lambda:us-east-1:1:layer:l:1"]))
    assert told == (
        "InvalidParameterValueException",
        400,
        "Layers is not supported by millstream.",
    )
    code, _, message = refused(lambda: create(client, code=b"no zip"))
    assert (code, message[:37]) == (
        "InvalidParameterValueException",
        "Could not unzip uploaded file. Please",
    )


def test_large_package_arrives(client):
    """Larger than any other request may be."""
    code = package(**{"data.bin": "\0" * (20 * 1024 * 1024)})
    assert len(code) > 16 * 1024 * 1024 + 65536
    made = create(client, code=code)
    assert made["CodeSha256"] == code_digest(code)
    client.invoke(FunctionName="f")
    client.update_function_code(FunctionName="f", ZipFile=code)
    client.delete_function(FunctionName="f")


def test_package_that_is_too_large_is_refused_before_it_is_read(client):
    code, status, message = refused(lambda: create(client, code=bytes(53_000_000)))
    assert (code, status) == ("RequestEntityTooLargeException", 413)
    assert message == "Request must be smaller than 70167211 bytes for the CreateFunction operation"


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("list_versions_by_function", {"FunctionName": "f"}),
        ("list_aliases", {"FunctionName": "f"}),
        ("get_policy", {"FunctionName": "f"}),
        ("publish_version", {"FunctionName": "f"}),
        ("get_account_settings", {}),
    ],
)
def test_what_is_not_there_says_so(client, name, call):
    create(client)
    code, status, _ = refused(getattr(client, name), **call)
    assert (code, status) in (("UnknownOperationException", 404), ("NotFoundException", 404))
