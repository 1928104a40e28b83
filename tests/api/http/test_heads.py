"""Heads that are recognised, and those that are left to llhttp: nobody may tell the difference."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.api.connection import Connection, Preambles, Request
from millstream.api.heads import template_of
from millstream.limits import HTTP_TEMPLATES_MAX, REQUEST_BODY_BYTES_MAX

LINES = (
    b"POST / HTTP/1.1",
    b"Host: localhost:8000",
    b"X-Amz-Target: DynamoDB_20120810.GetItem",
    b"Content-Type: application/x-amz-json-1.0",
    b"User-Agent: Boto3/1.44.5 md/Botocore#1.44.5 m/Z,b",
    b"X-Amz-Date: 20261123T074736Z",
    b"Authorization: AWS4-HMAC-SHA256 Credential=A/20261123/us-east-1/dynamodb/aws4_request, "
    b"SignedHeaders=host;x-amz-date, Signature=912bd0d6fccb5121",
    b"amz-sdk-invocation-id: 00000000-0000-4000-8000-000000000000",
    b"Content-Length: 2",
)
HEAD = b"\r\n".join(LINES) + b"\r\n\r\n"


def connection() -> Connection:
    return Connection(Preambles(lambda: 0.0))


def read(machine: Connection, data: bytes) -> Any:
    machine.receive(data)
    return machine.next_event()


def warm() -> Connection:
    """A connection that has read HEAD once and knows it."""
    machine = connection()
    assert isinstance(read(machine, HEAD + b"{}"), Request)
    machine.respond(200, b"", "id")
    return machine


def alike(data: bytes) -> bool:
    """Whether HEAD's template takes ``data`` for a repetition."""
    headers = read(connection(), HEAD + b"{}").headers
    template = template_of(HEAD, headers)
    assert template is not None
    return len(data) == len(HEAD) and template.read(data, 0) is not None


def assert_same(data: bytes) -> None:
    """What a connection reads does not depend on what it has read before."""
    known, fresh = warm(), connection()
    for _ in range(2):
        assert repr(read(known, data)) == repr(read(fresh, data))
        assert known.phase is fresh.phase
        assert known.body_bytes_expected == fresh.body_bytes_expected
        if known.phase.value not in ("response", "refused"):
            return
        assert known.respond(200, b"", "id") == fresh.respond(200, b"", "id")
        data = HEAD + b"{}"


def test_other_values_of_the_same_size_are_recognised() -> None:
    other = HEAD.replace(b"074736Z", b"235959Z").replace(b"912bd0", b"ABCdef")
    assert alike(other)
    request = read(warm(), other + b"{}")
    assert request.headers[b"x-amz-date"] == b"20261123T235959Z"
    assert request.headers[b"authorization"].endswith(b"Signature=ABCdefd6fccb5121")
    assert request.payload == b"{}"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"POST", b"PUTT"),
        (b"localhost", b"localhosT"),
        (b"Host: ", b"Host:  "),
        (b"074736Z", b"074 36Z"),
        (b"074736Z", b"0747\r6Z"),
        (b"074736Z", b"0747\xe96Z"),
        (b"074736Z", b"0747\x006Z"),
        (b"Length: 2", b"Length: a"),
        (b"Length: 2", b"Length: -"),
        (b"20120810.", b"20120811."),
    ],
)
def test_anything_else_is_left_to_llhttp(old: bytes, new: bytes) -> None:
    assert not alike(HEAD.replace(old, new))
    assert_same(HEAD.replace(old, new) + b"{}")


@pytest.mark.parametrize(
    "line",
    [
        b"Connection: close",
        b"Transfer-Encoding: chunked",
        b"Expect: 100-continue",
        b"Upgrade: h2c",
        b"X-Empty:",
        b"Host: twice",
        b"X-Latin: \xe9",
    ],
)
def test_a_head_that_is_not_plain_makes_no_template(line: bytes) -> None:
    head = HEAD[:-2] + line + b"\r\n\r\n"
    machine = connection()
    machine.receive(head)
    machine.next_event()
    assert template_of(head, machine._request_headers) is None
    for data in (head + b"{}", head + b"0\r\n\r\n"):
        assert_same(data)


def test_templates_are_bounded() -> None:
    machine = connection()
    for size in range(HTTP_TEMPLATES_MAX + 3):
        read(machine, HEAD.replace(b"localhost", b"h" * (size + 1)) + b"{}")
        machine.respond(200, b"", "id")
        assert 0 < len(machine._templates) <= HTTP_TEMPLATES_MAX


def test_a_body_that_comes_later_and_pipelined_requests() -> None:
    machine = warm()
    assert read(machine, HEAD + b"{").__class__.__name__ == "Signal"
    assert machine.body_bytes_expected == 2
    request = read(machine, b"}" + HEAD + b"[]" + HEAD)
    assert request.payload == b"{}"
    machine.respond(200, b"", "id")
    assert machine.next_event().payload == b"[]"  # type: ignore[union-attr]
    machine.respond(200, b"", "id")
    assert not machine.idle
    assert machine.next_event().__class__.__name__ == "Signal"
    assert read(machine, b"{}").payload == b"{}"


def test_a_body_that_is_announced_as_too_large_is_refused() -> None:
    machine = connection()
    lines = HEAD.replace(b"Length: 2", b"Length: 00000002")
    read(machine, lines + b"{}")
    machine.respond(200, b"", "id")
    refused = read(machine, lines.replace(b"00000002", b"99999999"))
    assert refused.error.status == 413


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.integers(0, len(HEAD) - 1), st.binary(min_size=1, max_size=1)),
        min_size=1,
        max_size=3,
    )
)
def test_changed_bytes_never_make_a_difference(changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(HEAD)
    for at, byte in changes:
        data[at : at + 1] = byte
    assert_same(bytes(data) + b"{}")


@settings(max_examples=100)
@given(st.integers(0, len(HEAD) + 2), st.integers(0, 3))
def test_where_the_stream_is_cut_makes_no_difference(cut: int, more: int) -> None:
    data = (HEAD + b"{}") * (1 + more)
    machine = warm()
    event = read(machine, data[:cut])
    if not isinstance(event, Request):
        event = read(machine, data[cut:])
    assert isinstance(event, Request)
    assert event.payload == b"{}"
    assert event.headers[b"host"] == b"localhost:8000"


def test_a_body_that_is_too_large_is_refused_although_it_is_all_here() -> None:
    size = REQUEST_BODY_BYTES_MAX + 1
    head = HEAD.replace(b"Length: 2", b"Length: %d" % size)
    known = connection()
    read(known, head.replace(b"%d" % size, b"%08d" % 2) + b"{}")
    known.respond(200, b"", "id")
    assert read(known, head + bytes(size)).error.status == 413
