"""The HTTP machine: bytes in, events and bytes out, without a socket."""

from __future__ import annotations

import gzip
import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.api.connection import (
    CONTINUE,
    NEED_DATA,
    BadRequest,
    Connection,
    Phase,
    Preambles,
    Request,
    RequestIds,
)
from millstream.api.errors import RequestEntityTooLarge, WireError
from millstream.limits import (
    HTTP_HEAD_BYTES_MAX,
    HTTP_HEADERS_MAX,
    JUDGED_STEP_BYTES,
    REQUEST_BODY_BYTES_MAX,
)

NOW = 1_700_000_000.5
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def connection() -> Connection:
    return Connection(Preambles(lambda: NOW))


def events(data: bytes, cuts: list[int] | None = None, end: bool = False) -> list[object]:
    """Everything that the machine tells of ``data``; answers are given at once."""
    machine = connection()
    found: list[object] = []
    places = [0, *sorted(cuts or []), len(data)]
    for start, stop in itertools.pairwise(places):
        if start != stop:
            machine.receive(data[start:stop])
        drain(machine, found)
    if end and machine.phase is not Phase.CLOSED:
        bad = machine.receive_end()
        if bad is not None:
            found.append((bad.error.status, str(bad.error)))
    return found


def drain(machine: Connection, found: list[object]) -> None:
    while (event := machine.next_event()) is not NEED_DATA:
        if isinstance(event, Request):
            found.append(event)
            machine.respond(200, b"{}", "id")
        elif isinstance(event, BadRequest):
            found.append((event.error.status, str(event.error)))
            machine.respond(event.error.status, event.error.body(), "id")
        else:
            found.append(event)


def status_of(data: bytes) -> int:
    (found,) = events(data)
    assert isinstance(found, tuple), found
    return int(found[0])


def request_of(data: bytes) -> Request:
    (found,) = events(data)
    assert isinstance(found, Request), found
    return found


def answer(data: bytes, body: bytes = b"{}", status: int = 200, **more: object) -> bytes:
    machine = connection()
    machine.receive(data)
    assert isinstance(machine.next_event(), Request)
    return machine.respond(status, body, "REQUESTID", **more)  # type: ignore[arg-type]


def headers_of(response: bytes) -> dict[bytes, bytes]:
    lines = response.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return {name.lower(): value for name, value in (line.split(b": ", 1) for line in lines)}


# Reading requests.


def test_request_has_its_parts():
    request = request_of(
        b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nX-Amz-Target:  T  \r\nContent-Length: 3\r\n\r\nabc"
    )
    assert request.method == b"POST"
    assert (request.path, request.query) == (b"/a", b"b=c")
    assert request.headers == {b"host": b"x", b"x-amz-target": b"T", b"content-length": b"3"}
    assert request.payload == b"abc"


def test_query_is_none_without_a_question_mark_and_empty_behind_one():
    assert request_of(GET).query is None
    assert request_of(b"GET /? HTTP/1.1\r\nHost: x\r\n\r\n").query == b""


def test_repeated_header_is_joined():
    request = request_of(b"GET / HTTP/1.1\r\nHost: x\r\nA: 1\r\na: 2\r\n\r\n")
    assert request.headers[b"a"] == b"1,2"


def test_absolute_form_gives_the_host():
    request = request_of(b"GET http://other:1/p?q HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert request.headers[b"host"] == b"other:1"
    assert (request.path, request.query) == (b"/p", b"q")
    assert request_of(b"GET http://other HTTP/1.1\r\nHost: x\r\n\r\n").path == b"/"


def test_nothing_yet_is_not_an_error():
    machine = connection()
    assert machine.next_event() is NEED_DATA
    assert machine.idle
    machine.receive(POST[:-1])
    assert machine.next_event() is NEED_DATA
    assert not machine.idle
    assert machine.phase is Phase.BODY


def test_blank_lines_before_a_request_are_passed_over():
    assert request_of(b"\r\n\r\n" + GET).method == b"GET"


def test_pipelined_requests_come_one_by_one():
    machine = connection()
    machine.receive(GET + POST + GET[:10])
    first = machine.next_event()
    assert isinstance(first, Request)
    assert first.method == b"GET"
    with pytest.raises(AssertionError):
        machine.next_event()  # the first has no answer yet
    machine.respond(200, b"", "id")
    second = machine.next_event()
    assert isinstance(second, Request)
    assert second.payload == b"{}"
    machine.respond(200, b"", "id")
    assert machine.next_event() is NEED_DATA
    machine.receive(GET[10:])
    assert isinstance(machine.next_event(), Request)


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_chunked_body_is_put_together():
    request, after = events(
        CHUNKED + b"3\r\nabc\r\n0A;name=value\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n" + GET
    )
    assert isinstance(request, Request)
    assert request.payload == b"abc0123456789"
    assert isinstance(after, Request)
    assert after.method == b"GET"


@pytest.mark.parametrize(
    "body",
    [
        b"g\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x1\r\na\r\n",
        b"1\na\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n0\r\n\r\n",
        b"11111111111111111\r\n",
        b"1" * 300,
        b"1;" + b"x" * 300 + b"\r\n",
        b"1_0\r\n",
    ],
)
def test_malformed_chunk_is_refused(body):
    assert status_of(CHUNKED + body) == 400


def test_endless_trailer_is_refused():
    assert status_of(CHUNKED + b"0\r\n" + b"A: b\r\n" * 5000) == 431


def test_continue_is_told_once_and_before_the_body():
    head = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    machine = connection()
    machine.receive(head)
    assert machine.next_event() is CONTINUE
    assert machine.next_event() is NEED_DATA
    machine.receive(b"{}")
    assert isinstance(machine.next_event(), Request)


def test_continue_is_not_told_without_a_body_nor_to_http_1_0():
    assert CONTINUE not in events(
        b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n"
    )
    assert CONTINUE not in events(
        b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}"
    )


def test_too_large_is_refused_before_it_is_expected():
    size = REQUEST_BODY_BYTES_MAX + 1
    head = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    assert status_of(head % size) == 413


def test_largest_body_is_read_and_a_larger_chunked_one_refused():
    body = bytes(REQUEST_BODY_BYTES_MAX)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert request_of(head + body).payload == body
    assert status_of(CHUNKED + b"%x\r\n" % (len(body) + 1)) == 413
    assert status_of(CHUNKED + b"%x\r\n%b\r\n1\r\n" % (len(body), body)) == 413


def test_head_may_be_as_large_as_the_limit():
    frame = b"GET / HTTP/1.1\r\nHost: x\r\nA: %b\r\n\r\n"
    fits = frame % (b"a" * (HTTP_HEAD_BYTES_MAX - len(frame) + 2))
    assert len(fits) == HTTP_HEAD_BYTES_MAX
    assert request_of(fits).method == b"GET"
    assert status_of(fits.replace(b"A: ", b"A: a")) == 431
    assert status_of(b"GET / HTTP/1.1\r\nA: " + b"a" * HTTP_HEAD_BYTES_MAX) == 431


def test_too_many_headers_are_refused():
    lines = b"".join(b"A%d: x\r\n" % index for index in range(HTTP_HEADERS_MAX))
    assert status_of(b"GET / HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n") == 431


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01",  # TLS on a plain port
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"NONSENSE / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"GET / HTTP/3.0\r\nHost: x\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nbroken\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nExpect: a-miracle\r\nContent-Length: 1\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused(data):
    assert status_of(data) == 400


def test_after_a_refusal_nothing_is_read():
    machine = connection()
    machine.receive(b"nonsense\r\n\r\n")
    assert isinstance(machine.next_event(), BadRequest)
    answered = machine.respond(400, b"{}", "id")
    assert headers_of(answered)[b"connection"] == b"close"
    machine.receive(GET)
    assert machine.next_event() is NEED_DATA


@pytest.mark.parametrize("cut", range(1, len(POST)))
def test_truncated_request_is_told(cut):
    (found,) = events(POST[:cut], end=True)
    assert found == (400, "The request ends before it is complete.")


def test_end_between_requests_is_quiet():
    assert len(events(POST, end=True)) == 1
    assert events(b"", end=True) == []


def test_offer_of_another_protocol_is_passed_over():
    offer = (
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 2\r\n\r\n{}"
    )
    first, second = events(offer + POST)
    assert isinstance(first, Request)
    assert first.payload == b"{}"
    assert isinstance(second, Request)
    assert second.headers[b"host"] == b"localhost"


STREAMS = [
    GET + POST + POST,
    CHUNKED + b"3;x\r\nabc\r\n1\r\nd\r\n0\r\nT: x\r\n\r\n" + POST + GET,
    b"\r\n" + POST + b"\r\n\r\n" + GET + b"garbage",
    POST + b"GET / HTTP/1.1\r\nHost: x\r\nA" + b"a" * HTTP_HEAD_BYTES_MAX,
    CHUNKED + b"3\r\nabcd\r\n" + POST,
    b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello" + GET,
    b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}" + GET,
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + POST,
    GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + POST,
]


@given(st.data())
def test_events_do_not_depend_on_where_the_stream_is_cut(data):
    stream = data.draw(st.sampled_from(STREAMS))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    assert events(stream, cuts, end=True) == events(stream, end=True)


@pytest.mark.parametrize("stream", [stream for stream in STREAMS if len(stream) < 1000])
def test_events_are_the_same_byte_by_byte(stream):
    assert events(stream, list(range(len(stream))), end=True) == events(stream, end=True)


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=5))
def test_random_bytes_are_refused_or_awaited(data, cuts):
    for found in events(data, [min(cut, len(data)) for cut in cuts], end=True):
        assert isinstance(found, Request) or found is CONTINUE or 400 <= found[0] < 500


PIECES = [b"", b"\r", b"\n", b"\0", b":", b" ", b"9", b"\xff", b"\r\n", b"\r\n\r\n"]


@given(st.data())
def test_mutated_requests_are_served_refused_or_awaited(data):
    short = [stream for stream in STREAMS if len(stream) < 1000]
    stream = bytearray(data.draw(st.sampled_from(short)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(stream) - 1))
        piece = data.draw(st.sampled_from(PIECES))
        stream[place : place + data.draw(st.integers(0, 2))] = piece
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=4))
    whole, cut = events(bytes(stream), end=True), events(bytes(stream), cuts, end=True)
    assert whole == cut
    for found in whole:
        assert isinstance(found, Request) or found is CONTINUE or 400 <= found[0] < 500


# Answering.


def test_answer_has_what_sdks_look_at():
    response = answer(POST, b'{"a":1}')
    assert response.startswith(b"HTTP/1.1 200 OK\r\n")
    assert response.endswith(b'\r\n\r\n{"a":1}')
    assert headers_of(response) == {
        b"server": b"millstream",
        b"date": b"Tue, 14 Nov 2023 22:13:20 GMT",
        b"content-type": b"application/x-amz-json-1.0",
        b"x-amzn-requestid": b"REQUESTID",
        b"x-amz-crc32": b"%d" % zlib.crc32(b'{"a":1}'),
        b"content-length": b"7",
    }


def test_date_follows_the_clock():
    now = [NOW]
    preambles = Preambles(lambda: now[0])
    first = preambles.get(200, b"a/b")
    now[0] += 0.4
    assert preambles.get(200, b"a/b") is first
    now[0] += 0.2
    assert "22:13:21 GMT" in preambles.get(200, b"a/b")


def test_body_is_compressed_when_asked_and_worth_it():
    asking = POST.replace(b"Host", b"Accept-Encoding: br, gzip;q=0.5\r\nHost")
    body = b'{"a":"%b"}' % (b"x" * 5000)
    response = answer(asking, body)
    _, _, sent = response.partition(b"\r\n\r\n")
    assert gzip.decompress(sent) == body
    assert len(sent) < 500
    found = headers_of(response)
    assert found[b"content-encoding"] == b"gzip"
    assert found[b"content-length"] == b"%d" % len(sent)
    # SDKs check it before they decompress.
    assert found[b"x-amz-crc32"] == b"%d" % zlib.crc32(sent)
    assert answer(asking, b"{}").endswith(b"\r\n\r\n{}")
    assert answer(POST, body).endswith(body)


@pytest.mark.parametrize("coding", [b"identity", b"gzip;q=0", b"gzip; q=0.000", b"br", b""])
def test_body_is_not_compressed_when_not_asked(coding):
    asking = POST.replace(b"Host", b"Accept-Encoding: %b\r\nHost" % coding)
    assert b"content-encoding" not in headers_of(answer(asking, b"x" * 5000))


@pytest.mark.parametrize(
    ("line", "connection_header", "closes"),
    [
        (b"GET / HTTP/1.1\r\n", None, False),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n", b"close", True),
        (b"GET / HTTP/1.0\r\n", b"close", True),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n", b"keep-alive", False),
    ],
)
def test_connection_is_kept_as_the_client_says(line, connection_header, closes):
    machine = connection()
    machine.receive(line + b"Host: x\r\n\r\n" + GET)
    assert isinstance(machine.next_event(), Request)
    response = machine.respond(200, b"", "id")
    assert headers_of(response).get(b"connection") == connection_header
    assert (machine.phase is Phase.CLOSED) is closes
    assert (machine.next_event() is NEED_DATA) is closes


def test_owner_may_close():
    response = answer(POST, close=True)
    assert headers_of(response)[b"connection"] == b"close"


def test_head_has_no_body_but_its_length():
    response = answer(GET.replace(b"GET", b"HEAD"), b"12345")
    assert response.endswith(b"\r\n\r\n")
    assert headers_of(response)[b"content-length"] == b"5"


def test_refusal_after_a_head_request_has_a_body():
    machine = connection()
    machine.receive(GET.replace(b"GET", b"HEAD") + b"\0")
    assert isinstance(machine.next_event(), Request)
    machine.respond(200, b"", "id")
    assert isinstance(machine.next_event(), BadRequest)
    assert machine.respond(400, b"why", "id").endswith(b"why")


def test_request_ids_look_like_those_of_aws_and_differ():
    ids = RequestIds(lambda size: bytes(range(size)))
    found = [ids.next() for _ in range(1000)]
    assert len(set(found)) == 1000
    assert all(len(name) == 52 and name.isalnum() and name == name.upper() for name in found)


def test_larger_body_is_judged_before_it_is_read():
    asked: list[tuple[Request, int]] = []

    def judge(request: Request, size_bytes: int) -> None:
        asked.append((request, size_bytes))

    size = REQUEST_BODY_BYTES_MAX + 2
    head = b"PUT http://there/a/b?c HTTP/1.1\r\nHost: here\r\n"
    body = bytes(size)
    for data in (
        head + b"Content-Length: %d\r\n\r\n" % size + body,
        head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (size, body),
    ):
        machine = Connection(Preambles(lambda: NOW), judge)
        machine.receive(data)
        event = machine.next_event()
        assert isinstance(event, Request)
        assert event.payload == body
        ((request, size_asked),) = asked
        assert size_asked == size
        assert (request.method, request.path, request.query) == (b"PUT", b"/a/b", b"c")
        assert (request.headers[b"host"], request.payload) == (b"there", b"")
        asked.clear()


def test_chunks_are_judged_as_they_grow_but_not_each_of_them():
    asked = []

    def judge(request: Request, size_bytes: int) -> WireError | None:
        asked.append(size_bytes)
        most = REQUEST_BODY_BYTES_MAX + JUDGED_STEP_BYTES
        return RequestEntityTooLarge() if size_bytes > most else None

    machine = Connection(Preambles(lambda: NOW), judge)
    machine.receive(CHUNKED + b"%x\r\n%b\r\n" % (REQUEST_BODY_BYTES_MAX, bytes(16_842_752)))
    assert machine.next_event() is NEED_DATA
    chunk = b"1000\r\n" + bytes(4096) + b"\r\n"
    for _ in range(17):
        machine.receive(chunk)
        assert machine.next_event() is NEED_DATA
    assert asked == [REQUEST_BODY_BYTES_MAX + 4096]
    machine.receive(chunk)
    event = machine.next_event()
    assert isinstance(event, BadRequest)
    assert event.error.status == 413


def test_usual_body_is_not_judged():
    def judge(request: Request, size_bytes: int) -> None:
        raise AssertionError("it was")

    machine = Connection(Preambles(lambda: NOW), judge)
    body = bytes(REQUEST_BODY_BYTES_MAX)
    machine.receive(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert isinstance(machine.next_event(), Request)
