"""From a request to its answer, without a socket."""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import Awaitable, Callable

import pytest

from millstream.api.calls import Caller
from millstream.api.connection import Connection, Preambles, Request
from millstream.api.credentials import Credential, Credentials
from millstream.api.errors import UnknownOperationException
from millstream.api.front import Front
from millstream.api.gate import Policy
from millstream.api.sigv4 import sign
from millstream.errors import ConditionFailed
from millstream.limits import REQUEST_BODY_BYTES_MAX

NOW = 1_700_000_000.0
SIGNED = Policy(Credentials([Credential("p", "AKID", "secret", namespace="team")]), "us-east-1")
Dispatch = Callable[[str, bytes, Caller], Awaitable[bytes]]


class Operations:
    """Says what it was asked; raises what it is given."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[tuple[str, bytes, Caller]] = []

    async def dispatch(self, target: str, body: bytes, caller: Caller) -> bytes:
        self.calls.append((target, body, caller))
        if self.error is not None:
            raise self.error
        if not target.startswith("DynamoDB_20120810."):
            raise UnknownOperationException
        return b'{"TableNames":[]}'


async def ask(
    method: bytes = b"POST",
    path: bytes = b"/",
    headers: dict[bytes, bytes] | None = None,
    body: bytes = b"{}",
    policy: Policy = SIGNED,
    operations: Operations | None = None,
    secret: str = "secret",
    target: bytes | None = b"DynamoDB_20120810.ListTables",
    front: Front | None = None,
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Send a signed request through a machine and a front; the answer's three parts."""
    made = {b"host": b"localhost", b"content-type": b"application/x-amz-json-1.0"}
    if target is not None:
        made[b"x-amz-target"] = target
    made |= headers or {}
    made = {name: value for name, value in made.items() if value}
    made = sign(Request(method, path, None, made, body), "AKID", secret, "us-east-1", NOW)
    made[b"content-length"] = b"%d" % len(body)
    lines = b"".join(b"%b: %b\r\n" % pair for pair in made.items())
    machine = Connection(Preambles(lambda: NOW))
    machine.receive(b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, path, lines, body))
    request = machine.next_event()
    assert isinstance(request, Request)
    front = front or Front(operations or Operations(), policy, lambda: NOW, bytes)
    response = await front.serve(machine, request)
    head, _, answer = response.partition(b"\r\n\r\n")
    first, *rest = head.split(b"\r\n")
    found = dict(line.split(b": ", 1) for line in rest)
    assert found[b"x-amz-crc32"] == b"%d" % zlib.crc32(answer) or method == b"HEAD"
    return int(first.split()[1]), found, answer


async def test_call_reaches_its_operation():
    operations = Operations()
    status, headers, answer = await ask(operations=operations)
    assert (status, answer) == (200, b'{"TableNames":[]}')
    assert headers[b"Content-Type"] == b"application/x-amz-json-1.0"
    ((target, body, caller),) = operations.calls
    assert target == "DynamoDB_20120810.ListTables"
    assert body == b"{}"
    request_id = headers[b"x-amzn-RequestId"].decode()
    assert caller == Caller("team", "AKID", "us-east-1", request_id)


async def test_error_of_an_operation_is_its_answer():
    status, _, answer = await ask(operations=Operations(ConditionFailed(b'{"a":{"S":"b"}}')))
    assert status == 400
    assert json.loads(answer)["Item"] == {"a": {"S": "b"}}


async def test_unexpected_error_is_a_500_and_is_logged_without_values(caplog):
    with caplog.at_level(logging.ERROR):
        status, headers, answer = await ask(operations=Operations(ValueError("value of an item")))
    assert status == 500
    request_id = headers[b"x-amzn-RequestId"].decode()
    assert request_id in json.loads(answer)["message"]
    assert request_id in caplog.text
    assert "in dispatch" in caplog.text
    assert "value of an item" not in caplog.text + answer.decode()


@pytest.mark.parametrize(
    "error", [AssertionError("bug"), ExceptionGroup("", [ValueError(), AssertionError("bug")])]
)
async def test_assertion_is_not_answered_but_passed_on(error):
    with pytest.raises(type(error)):
        await ask(operations=Operations(error))


async def test_wrong_signature_never_reaches_an_operation():
    operations = Operations()
    status, _, answer = await ask(operations=operations, secret="other")
    assert status == 400
    assert json.loads(answer)["__type"].endswith("#InvalidSignatureException")
    assert operations.calls == []


async def test_unsigned_request_is_refused_without_credentials_too():
    for policy in (SIGNED, Policy()):
        front = Front(Operations(), policy, lambda: NOW, bytes)
        machine = Connection(Preambles(lambda: NOW))
        machine.receive(b"POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: x\r\n\r\n")
        request = machine.next_event()
        assert isinstance(request, Request)
        assert b"#MissingAuthenticationTokenException" in await front.serve(machine, request)


@pytest.mark.parametrize("target", [None, b"", b"ListTables", b"DynamoDB_20111205.ListTables"])
async def test_unknown_target_has_no_message(target):
    status, _, answer = await ask(target=target)
    assert status == 400
    assert json.loads(answer) == {"__type": "com.amazon.coral.service#UnknownOperationException"}


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"application/json", b"application/json"),
        (b"Application/JSON; charset=utf-8", b"application/json"),
        (b"application/x-amz-json-1.0; charset=utf-8", b"application/x-amz-json-1.0"),
    ],
)
async def test_answer_is_in_the_content_type_of_the_request(sent, told):
    status, headers, _ = await ask(headers={b"content-type": sent})
    assert (status, headers[b"Content-Type"]) == (200, told)


@pytest.mark.parametrize("sent", [b"text/plain", b"application/x-amz-json-1.1", b""])
async def test_other_content_types_have_no_protocol(sent):
    status, headers, answer = await ask(headers={b"content-type": sent})
    assert (status, answer) == (404, b"<UnknownOperationException/>\n")
    assert headers[b"x-amz-crc32"] == b"3552371480"  # as DynamoDB's


async def test_content_type_of_nothing_does_not_matter():
    operations = Operations()
    status, _, _ = await ask(headers={b"content-type": b""}, body=b"", operations=operations)
    assert status == 200
    assert operations.calls[0][1] == b""


async def test_compressed_body_is_inflated_behind_its_signature():
    for coding, packed in (
        (b"gzip", gzip.compress(b'{"a":1}')),
        (b"deflate", zlib.compress(b"[]")),
    ):
        operations = Operations()
        status, _, _ = await ask(
            headers={b"content-encoding": coding}, body=packed, operations=operations
        )
        assert status == 200
        assert operations.calls[0][1] in (b'{"a":1}', b"[]")


async def test_bomb_and_unknown_coding_are_refused():
    bomb = gzip.compress(bytes(REQUEST_BODY_BYTES_MAX + 1))
    assert (await ask(headers={b"content-encoding": b"gzip"}, body=bomb))[0] == 413
    assert (await ask(headers={b"content-encoding": b"br"}, body=b"x"))[0] == 415
    assert (await ask(headers={b"content-encoding": b"gzip"}, body=b"x"))[0] == 400
    # A stranger's is not even inflated.
    status, _, _ = await ask(headers={b"content-encoding": b"gzip"}, body=bomb, secret="other")
    assert status == 400


async def test_health():
    status, headers, answer = await ask(b"GET", body=b"")
    assert (status, answer) == (200, b"healthy: dynamodb.us-east-1.amazonaws.com ")
    assert headers[b"x-amz-crc32"] == b"3128867991"  # as DynamoDB's
    status, headers, answer = await ask(b"HEAD", body=b"")
    assert (status, answer, headers[b"Content-Length"]) == (200, b"", b"42")


@pytest.mark.parametrize(
    ("method", "path"),
    [(b"GET", b"/x"), (b"POST", b"/x"), (b"PUT", b"/"), (b"DELETE", b"/"), (b"GET", b"/shell/")],
)
async def test_nothing_else_is_there(method, path):
    status, _, answer = await ask(method, path)
    assert status == 404
    assert "There is nothing here" in json.loads(answer)["message"]


async def test_foreign_page_is_refused_without_cors_headers():
    operations = Operations()
    foreign = {b"origin": b"http://evil.example"}
    for method in (b"POST", b"OPTIONS", b"GET"):
        status, headers, _ = await ask(
            method, headers=foreign, policy=Policy(), operations=operations
        )
        assert status == 403
        assert not any(name.startswith(b"Access-Control") for name in headers)
    assert operations.calls == []


async def test_cors_is_open_with_credentials():
    page = {b"origin": b"http://a.b", b"access-control-request-method": b"POST"}
    status, headers, answer = await ask(b"OPTIONS", headers=page, body=b"")
    assert (status, answer) == (200, b"")
    assert headers[b"Access-Control-Allow-Origin"] == b"*"
    assert headers[b"Access-Control-Allow-Methods"] == b"POST"
    for secret in ("secret", "other"):  # a page must be able to read an error too
        _, headers, _ = await ask(headers=page, secret=secret)
        assert headers[b"Access-Control-Allow-Origin"] == b"*"


async def test_last_answers_of_a_stopping_server_close():
    front = Front(Operations(), SIGNED, lambda: NOW, bytes)
    assert b"Connection" not in (await ask(front=front))[1]
    front.stopping = True
    assert (await ask(front=front))[1][b"Connection"] == b"close"
