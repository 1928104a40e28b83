"""Invoke by boto3: answers, failures, logs, events."""

from __future__ import annotations

import json
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

import pytest

from millstream.lambdas.packages import code_digest
from millstream.streams.lineage import hops_of
from millstream.tests.api.lambdas.test_functions import create, refused
from millstream.tests.lambdas.fakes import package

RAISING = package("def handler(event, context):\n    raise KeyError('k')\n")
BROKEN = package("import nowhere_to_be_found\n")
TELLING = package(
    "def handler(event, context):\n"
    "    i = context.invocation\n"
    "    return [i.request_id, i.function_arn, i.trace_id, i.client_context, context.environment]\n"
)


def answer(client: Any, payload: Any = None, **more: Any) -> Any:
    if payload is not None:
        more["Payload"] = json.dumps(payload).encode()
    found = client.invoke(FunctionName="f", **more)
    found["Payload"] = json.loads(found["Payload"].read())
    return found


@pytest.mark.parametrize("payload", [{"a": [1, None, "é"]}, [], "text", 1, True])
def test_what_is_sent_comes_back(client, payload):
    create(client)
    found = answer(client, payload)
    assert (found["StatusCode"], found["ExecutedVersion"]) == (200, "$LATEST")
    assert found["Payload"] == {"event": payload}
    assert "FunctionError" not in found and "LogResult" not in found


def test_nothing_sent_is_an_empty_object(client):
    create(client)
    assert answer(client)["Payload"] == {"event": {}}


def test_log_is_told_where_it_is_wanted(client):
    create(client)
    found = answer(client, 1, LogType="Tail")
    request_id = found["ResponseMetadata"]["RequestId"]
    assert b64decode(found["LogResult"]) == f"START RequestId: {request_id}\n".encode()


def test_handler_that_fails_is_an_answer(client):
    create(client, code=RAISING)
    found = answer(client, 1, LogType="Tail")
    assert (found["StatusCode"], found["FunctionError"]) == (200, "Unhandled")
    told = found["Payload"]
    assert (told["errorType"], told["errorMessage"]) == ("KeyError", "'k'")
    assert told["requestId"] == found["ResponseMetadata"]["RequestId"]
    assert "app.py" in told["stackTrace"][-1]
    assert "LogResult" in found


def test_module_that_cannot_be_imported_is_an_answer(client):
    create(client, code=BROKEN)
    assert answer(client, 1)["Payload"]["errorType"] == "ModuleNotFoundError"


def test_handler_is_told_about_the_invocation(client):
    create(client, code=TELLING, Environment={"Variables": {"TABLE": "t"}})
    context = b64encode(b'{"custom": {"a": 1}}').decode()
    found = answer(client, 1, ClientContext=context)
    request_id, arn, trace_id, client_context, environment = found["Payload"]
    assert request_id == found["ResponseMetadata"]["RequestId"]
    assert arn == "arn:aws:lambda:us-east-1:123456789012:function:f"
    assert trace_id.startswith("Root=1-") and hops_of(trace_id) == 1
    assert json.loads(client_context) == {"custom": {"a": 1}}
    assert environment == {"TABLE": "t"}


def test_trace_is_passed_on(client, monkeypatch):
    create(client, code=TELLING)
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "caller")
    monkeypatch.setenv("_X_AMZN_TRACE_ID", trace + ";Lineage=a:3")
    found = answer(client, 1)["Payload"][2]
    assert found.startswith(trace + ";Lineage=")
    assert hops_of(found) == 4


def test_loop_is_ended(client, monkeypatch):
    create(client, code=TELLING)
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "caller")
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793;Lineage=a:15")
    assert hops_of(answer(client, 1)["Payload"][2]) == 16
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793;Lineage=a:16")
    for kind in ("RequestResponse", "Event"):
        code, status, _ = refused(client.invoke, FunctionName="f", InvocationType=kind)
        assert (code, status) == ("RecursiveInvocationException", 400)


def test_dry_run_does_not_run(client, open_server):
    create(client, code=RAISING)
    made = len(open_server.invokers.made)
    assert client.invoke(FunctionName="f", InvocationType="DryRun")["StatusCode"] == 204
    assert len(open_server.invokers.made) == made


def test_event_runs_in_the_background(client, open_server):
    create(client)
    made = len(open_server.invokers.made)
    found = client.invoke(FunctionName="f", InvocationType="Event", Payload=b'{"n": 1}')
    assert (found["StatusCode"], found["Payload"].read()) == (202, b"")

    def done() -> bool:
        return len(open_server.invokers.made) > made and bool(
            open_server.invokers.made[made].invocations
        )

    until(done)
    ((event, invocation),) = open_server.invokers.made[made].invocations
    assert event == {"n": 1}
    assert invocation.request_id == found["ResponseMetadata"]["RequestId"]
    client.delete_function(FunctionName="f")


def until(condition: Callable[[], bool]) -> None:
    """The server has a thread of its own."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end


def test_what_is_no_json_is_refused(client):
    create(client)
    for kind in ("RequestResponse", "Event", "DryRun"):
        code, status, message = refused(
            client.invoke, FunctionName="f", InvocationType=kind, Payload=b"{"
        )
        assert (code, status) == ("InvalidRequestContentException", 400)
        assert message.startswith("Could not parse request body into json: Could not parse payload")
    deep = b"[" * 100_000 + b"]" * 100_000
    assert refused(client.invoke, FunctionName="f", Payload=deep)[1] == 400


@pytest.mark.parametrize(("kind", "most"), [("RequestResponse", 6291456), ("Event", 1048576)])
def test_payload_has_a_largest_size(client, kind, most):
    create(client)
    payload = b'"%b"' % (b"x" * (most - 1))
    told = refused(client.invoke, FunctionName="f", InvocationType=kind, Payload=payload)
    assert told == (
        "RequestTooLargeException",
        413,
        f"Request must be smaller than {most} bytes for the InvokeFunction operation",
    )
    fits = b'"%b"' % (b"x" * (most - 2))
    client.invoke(FunctionName="f", InvocationType=kind, Payload=fits)


def test_wishes_are_checked(client):
    create(client)
    for wish, said in (
        ({"InvocationType": "Later"}, "at 'invocationType'"),
        ({"LogType": "All"}, "at 'logType'"),
        ({"ClientContext": "no base64"}, "Base64-encoded JSON"),
        ({"ClientContext": b64encode(b"[]").decode()}, "Base64-encoded JSON"),
        ({"ClientContext": "A" * 3584}, "3583"),
    ):
        _, status, message = refused(client.invoke, FunctionName="f", **wish)
        assert status == 400
        assert said in message


def test_damaged_code_is_the_services_fault(client, open_server, caplog):
    code = package("# Nobody else has this code.\n")
    create(client, code=code)
    stored = open_server.functions._code.path(code_digest(code))
    with open(stored, "ab") as file:
        file.write(b"damage")
    name, status, message = refused(client.invoke, FunctionName="f")
    assert (name, status) == ("ServiceException", 500)
    assert "Request ID: " in message
    assert "not what was stored" in caplog.text and "not what was stored" not in message
