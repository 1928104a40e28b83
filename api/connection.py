"""The server's side of one HTTP/1.1 connection, as a machine: bytes in, events and bytes out.

Owned by the task of its connection (``server.py``), used by the tests without any. Theory of
operation::

    HEAD --complete--> BODY | CHUNKS --complete--> RESPONSE --respond()--> HEAD
      \\________________ anything wrong __________________> REFUSED --respond()--> CLOSED

``receive`` only takes the bytes. ``next_event`` reads on until there is something to tell:
NEED_DATA, CONTINUE (send ``CONTINUE_BYTES``), a ``Request``, or a ``BadRequest``, after which the
connection is to be closed behind its answer. After a ``Request`` there is no other event until
``respond`` was called: so the answers of a pipelining client are in order, and what it has sent
meanwhile waits here. The events depend on the bytes alone and never on where the stream was cut.

The head is judged by llhttp (through httptools), or is recognised as a repetition of one that was
(``heads.py``). Where the head ends is found here, so that its size is exact and llhttp never runs
into the next request; the body's frame is read here too, since a Content-Length body is then one
slice.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from enum import Enum
from http import HTTPStatus
from typing import Final, TypeAlias

import httptools
import msgspec
from zlib_ng import zlib_ng

from ..limits import (
    COMPRESSION_BYTES_MIN,
    HTTP_CHUNK_LINE_BYTES_MAX,
    HTTP_HEAD_BYTES_MAX,
    HTTP_HEADERS_MAX,
    HTTP_TEMPLATES_MAX,
    HTTP_TRAILER_BYTES_MAX,
    JUDGED_STEP_BYTES,
    REQUEST_BODY_BYTES_MAX,
)
from .codings import accepts_gzip, compress
from .errors import BadRequestException, RequestEntityTooLarge, RequestHeaderTooLarge, WireError
from .heads import Template, template_of

AMZ_JSON = b"application/x-amz-json-1.0"
CONTINUE_BYTES = b"HTTP/1.1 100 Continue\r\n\r\n"

_END_OF_HEAD = b"\r\n\r\n"
_HEXADECIMAL = frozenset(b"0123456789abcdefABCDEF")


class Signal(Enum):
    """The events that say nothing but themselves."""

    NEED_DATA = "need data"
    CONTINUE = "continue"


NEED_DATA: Final = Signal.NEED_DATA
CONTINUE: Final = Signal.CONTINUE


class Request(msgspec.Struct, frozen=True):
    """One request. ``payload`` is the body as it was sent, content coding and all.

    ``headers`` has the names in lower case; what was there twice is joined with a comma.
    ``query`` is None where there was no question mark.
    """

    method: bytes
    path: bytes
    query: bytes | None
    headers: dict[bytes, bytes]
    payload: bytes


class BadRequest(msgspec.Struct, frozen=True):
    """What was sent cannot be served, and where the next request would begin is not known."""

    error: WireError


Event: TypeAlias = Signal | Request | BadRequest


class Phase(Enum):
    """Where the machine is; the server sets its deadlines by it."""

    HEAD = "head"
    BODY = "body"
    CHUNKS = "chunks"
    RESPONSE = "response"
    REFUSED = "refused"
    CLOSED = "closed"


# An enumeration's member costs more to look up than a name of the module.
_HEAD: Final = Phase.HEAD
_BODY: Final = Phase.BODY
_CHUNKS: Final = Phase.CHUNKS
_RESPONSE: Final = Phase.RESPONSE
_REFUSED: Final = Phase.REFUSED
_CLOSED: Final = Phase.CLOSED


class RequestIds:
    """Names for requests, shaped as AWS's are: 52 digits and capitals. Unique by a counter.

    ``entropy`` gives that many random bytes; it is asked once.
    """

    __slots__ = ("_last", "_prefix")

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUV"
        self._prefix = "".join(alphabet[byte & 31] for byte in entropy(40))
        self._last = 0

    def next(self) -> str:
        """The next name."""
        self._last += 1
        return f"{self._prefix}{self._last:012X}"


JudgeSize: TypeAlias = Callable[[Request, int], WireError | None]


def refuse_size(_request: Request, _size_bytes: int) -> WireError | None:
    """That no body may be larger than an operation's."""
    return RequestEntityTooLarge()


class Preambles:
    """The first lines of the answers, rendered once a second.

    ``clock`` gives the seconds since the epoch.
    """

    __slots__ = ("_clock", "_second", "_texts")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._second = -1
        self._texts: dict[tuple[int, bytes], str] = {}

    def get(self, status: int, content_type: bytes) -> str:
        """Everything up to and with ``x-amzn-RequestId:``."""
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._texts.clear()
        text = self._texts.get((status, content_type))
        if text is None:
            text = self._texts[status, content_type] = (
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nServer: millstream\r\n"
                f"Date: {formatdate(second, usegmt=True)}\r\n"
                f"Content-Type: {content_type.decode()}\r\nx-amzn-RequestId: "
            )
        return text


class Connection:
    """See the module's docstring."""

    __slots__ = (
        "_at",
        "_body",
        "_body_left",
        "_chunk_left",
        "_chunks_allowed",
        "_continue",
        "_data",
        "_head_bytes",
        "_head_complete",
        "_head_tail",
        "_headers",
        "_judge_size",
        "_keep_alive",
        "_method",
        "_parser",
        "_preambles",
        "_request_headers",
        "_templates",
        "_trailer_bytes",
        "_url",
        "_version",
        "phase",
    )

    def __init__(self, preambles: Preambles, judge_size: JudgeSize = refuse_size) -> None:
        self._preambles = preambles
        # Says why a body above the usual limit is refused; asked only about such a one.
        self._judge_size = judge_size
        self.phase: Phase = _HEAD
        # What was received and not yet read: _data[_at:].
        self._data = b""
        self._at = 0
        # The head in hand: its bytes so far, and its last three, in which its end may have begun.
        self._head_bytes = 0
        self._head_tail = b""
        self._head_complete = False
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        # The request in hand, from the end of its head to its answer.
        self._method = b""
        self._version = "1.1"
        self._keep_alive = False
        self._continue = False
        self._request_headers: dict[bytes, bytes] = {}
        self._body = bytearray()
        self._body_left = 0
        # In a chunked body: None before a size line, 0 in the trailer, else the bytes left of the
        # chunk with the CRLF behind it.
        self._chunk_left: int | None = None
        # How much its chunks may be in all before the judge is asked (again).
        self._chunks_allowed = REQUEST_BODY_BYTES_MAX
        self._trailer_bytes = 0
        # By size, the heads that later ones are probably like.
        self._templates: dict[int, Template] = {}
        # None where llhttp has lost its place; the next request gets a new one.
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)

    # What httptools calls.

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line. llhttp has cut the white space before the value, not that behind it."""
        name = name.lower()
        value = value.rstrip()
        if name in self._headers:
            value = self._headers[name] + b"," + value
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        """The end of the head, where llhttp still knows whether the connection is to be kept."""
        assert self._parser is not None
        self._head_complete = True
        self._keep_alive = self._parser.should_keep_alive()

    # What the owner calls.

    @property
    def idle(self) -> bool:
        """Whether nothing of a next request has arrived."""
        return self.phase is _HEAD and not self._head_bytes and self._at == len(self._data)

    @property
    def body_bytes_expected(self) -> int:
        """What the body in hand will be held in: what there is of it, and what was announced."""
        return len(self._body) + self._body_left

    @property
    def reading(self) -> bool:
        """Whether a request is being read, or awaited."""
        return self.phase in (_HEAD, _BODY, _CHUNKS)

    def receive(self, data: bytes) -> None:
        """Take what has arrived."""
        if self._at == len(self._data):
            self._data = data
        else:
            self._data = self._data[self._at :] + data
        self._at = 0

    def receive_end(self) -> BadRequest | None:
        """The peer will send no more. What is to be told of a request that is cut, if one is."""
        assert self.phase not in (_RESPONSE, _REFUSED)
        if self.phase is _CLOSED or self.idle:
            self.phase = _CLOSED
            return None
        return self.refuse(BadRequestException("The request ends before it is complete."))

    def refuse(self, error: WireError) -> BadRequest:
        """Give the request that is being read up; its answer will be the last one."""
        assert self.phase in (_HEAD, _BODY, _CHUNKS), self.phase
        if self.phase is _HEAD and not self._head_complete:
            # What is known of a method and headers is the last request's.
            self._method, self._request_headers = b"", {}
        self.phase = _REFUSED
        return BadRequest(error)

    def next_event(self) -> Event:
        """The next thing to be done. NEED_DATA once all that was received has been read."""
        if self.phase is _HEAD:
            event = self._read_head()
            if event is not None:
                return event
        if self.phase is _BODY:
            return self._read_body()
        if self.phase is _CHUNKS:
            return self._read_chunks()
        assert self.phase is _CLOSED, self.phase
        self._data, self._at = b"", 0
        return NEED_DATA

    def respond(
        self,
        status: int,
        body: bytes,
        request_id: str,
        *,
        content_type: bytes = AMZ_JSON,
        extra: bytes = b"",
        close: bool = False,
    ) -> bytes:
        """The answer's bytes. ``extra`` is whole header lines. ``close`` asks for the last answer.

        Afterwards ``phase`` is HEAD or, when the connection is to be closed behind it, CLOSED.
        The CRC is that of the bytes as sent: SDKs check it before they decompress.
        """
        headers = self._request_headers
        if len(body) >= COMPRESSION_BYTES_MIN:
            asked = headers.get(b"accept-encoding")
            if asked is not None and accepts_gzip(asked):
                body = compress(body)
                extra += b"Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n"
        if self.phase is _RESPONSE and self._keep_alive and not close:
            self.phase = _HEAD
            if self._version != "1.1":
                extra += b"Connection: keep-alive\r\n"
        else:
            assert self.phase in (_RESPONSE, _REFUSED)
            self.phase = _CLOSED
            extra += b"Connection: close\r\n"
        head = (
            f"{self._preambles.get(status, content_type)}{request_id}\r\n"
            f"x-amz-crc32: {zlib_ng.crc32(body)}\r\nContent-Length: {len(body)}\r\n"
        )
        if self._method == b"HEAD":
            body = b""
        return b"".join((head.encode("latin-1"), extra, b"\r\n", body))

    # Reading.

    def _read_head(self) -> Event | None:
        """None once the head is complete and the phase has moved on."""
        if self._templates and not self._head_bytes:
            start = self._at
            end = self._data.find(_END_OF_HEAD, start) + 4
            template = self._templates.get(end - start)
            if template is not None:
                headers = template.read(self._data, start)
                if headers is not None:
                    return self._begin_known(headers, end)
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpRequestParser(self)
        while not self._head_complete:
            data, start = self._data, self._at
            if start == len(data):
                return NEED_DATA
            end = self._end_of_head(data, start)
            part = data[start:end]
            room = HTTP_HEAD_BYTES_MAX - self._head_bytes
            self._head_bytes += len(part)
            self._at = end
            try:
                parser.feed_data(part[:room])
            except httptools.HttpParserUpgrade:
                # An offer of another protocol, which may be passed over (RFC 9110, 7.8). llhttp
                # believes that HTTP has ended here.
                self._parser = None
            except httptools.HttpParserError:
                return self.refuse(BadRequestException("The request is not valid HTTP."))
            if len(part) > room:
                return self.refuse(RequestHeaderTooLarge("The request's headers are too large."))
            self._remember(part)
        return self._begin_request(parser)

    def _remember(self, part: bytes) -> None:
        """What is to be known later of a part of a head that llhttp has read."""
        if not self._head_complete:
            self._head_tail = (self._head_tail + part[-3:])[-3:]
        elif len(part) == self._head_bytes:
            template = template_of(part, self._headers)
            if template is not None:
                if len(self._templates) == HTTP_TEMPLATES_MAX:
                    self._templates.clear()
                self._templates[len(part)] = template

    def _begin_known(self, headers: dict[bytes, bytes], end: int) -> Event | None:
        """``_begin_request`` for a head that is like an earlier one; the request, if all is here.

        llhttp sees nothing of it.
        """
        self._parser = None
        self._request_headers = headers
        self._method, self._version, self._keep_alive = b"POST", "1.1", True
        length = int(headers.get(b"content-length", b"0"))
        payload = self._data[end : end + length]
        if len(payload) == length <= REQUEST_BODY_BYTES_MAX:
            self._at = end + length
            self.phase = _RESPONSE
            return Request(b"POST", b"/", None, headers, payload)
        self._at = end
        self._head_complete = True
        self._headers, self._url = headers, b"/"
        self._body_left = length
        if length > REQUEST_BODY_BYTES_MAX:
            return self.refuse(RequestEntityTooLarge())
        self.phase = _BODY
        return None

    def _end_of_head(self, data: bytes, start: int) -> int:
        """Where the head ends in ``data``, its blank line included; all of it, if not there."""
        if self._head_tail:
            across = (self._head_tail + data[start : start + 3]).find(_END_OF_HEAD)
            if across >= 0:
                return start + across + 4 - len(self._head_tail)
        found = data.find(_END_OF_HEAD, start)
        return len(data) if found < 0 else found + 4

    def _begin_request(self, parser: httptools.HttpRequestParser) -> BadRequest | None:
        headers = self._request_headers = self._headers
        self._method = parser.get_method()
        self._version = parser.get_http_version()
        if len(headers) > HTTP_HEADERS_MAX:
            return self.refuse(RequestHeaderTooLarge("The request has too many headers."))
        if self._version == "1.1":
            if b"host" not in headers:
                return self.refuse(BadRequestException("The request has no Host header."))
        elif self._version != "1.0":
            return self.refuse(BadRequestException("The protocol must be HTTP/1.1 or HTTP/1.0."))
        self._body_left = 0
        coding = headers.get(b"transfer-encoding")
        if coding is not None:
            if self._version != "1.1" or coding.lower() != b"chunked":
                return self.refuse(
                    BadRequestException("The transfer encoding must be chunked, in HTTP/1.1.")
                )
            self.phase = _CHUNKS
            self._chunk_left = None
            self._trailer_bytes = 0
            self._chunks_allowed = REQUEST_BODY_BYTES_MAX
            self._parser = None
        else:
            # llhttp has accepted it: it is one decimal number below 2 ** 64.
            self._body_left = int(headers.get(b"content-length", b"0"))
            if self._body_left > REQUEST_BODY_BYTES_MAX:
                too_large = self._judge_size(self._request(b""), self._body_left)
                if too_large is not None:
                    return self.refuse(too_large)
            self.phase = _BODY
        expectation = headers.get(b"expect")
        if expectation is not None:
            if expectation.lower() != b"100-continue":
                return self.refuse(BadRequestException("Only 100-continue can be expected."))
            self._continue = self._version == "1.1" and (
                self._body_left > 0 or self.phase is _CHUNKS
            )
        return None

    def _read_body(self) -> Event:
        if self._continue:
            self._continue = False
            return CONTINUE
        left, start = self._body_left, self._at
        part = self._data[start : start + left] if left else b""
        if part:
            self._at = start + len(part)
            if self._parser is not None:
                # It keeps its place; it has no on_body, so nothing is copied.
                self._parser.feed_data(part)
            if len(part) == left and not self._body:
                return self._complete(part)
            self._body += part
            self._body_left = left = left - len(part)
        if left:
            return NEED_DATA
        return self._complete(bytes(self._body))

    def _read_chunks(self) -> Event:
        if self._continue:
            self._continue = False
            return CONTINUE
        while True:
            left = self._chunk_left
            if left is None or left in (0, 2):
                # A line: the size of a chunk, the end of one (2 bytes left), or a trailer.
                event = self._read_chunk_line()
                if event is not None:
                    return event
                continue
            part = self._data[self._at : self._at + left - 2]
            if not part:
                return NEED_DATA
            self._at += len(part)
            self._body += part
            self._chunk_left = left - len(part)

    def _read_chunk_line(self) -> Event | None:
        """None where a line was read and the body goes on."""
        end = self._data.find(b"\n", self._at)
        have = (len(self._data) if end < 0 else end + 1) - self._at
        if have > HTTP_CHUNK_LINE_BYTES_MAX or (self._chunk_left == 2 and have > 2):
            return self.refuse(BadRequestException("A chunk of the body is malformed."))
        if end < 0:
            return NEED_DATA
        line = self._data[self._at : end + 1]
        self._at = end + 1
        if not line.endswith(b"\r\n"):
            return self.refuse(BadRequestException("A chunk of the body is malformed."))
        if self._chunk_left == 2:
            self._chunk_left = None
            return None
        if self._chunk_left == 0:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > HTTP_TRAILER_BYTES_MAX:
                return self.refuse(RequestHeaderTooLarge("The trailer is too large."))
            return self._complete(bytes(self._body)) if line == b"\r\n" else None
        digits = line[:-2].partition(b";")[0].strip(b" \t")
        if not 0 < len(digits) <= 16 or not _HEXADECIMAL.issuperset(digits):
            return self.refuse(BadRequestException("A chunk of the body is malformed."))
        size = int(digits, 16)
        total = len(self._body) + size
        if total > self._chunks_allowed:
            too_large = self._judge_size(self._request(b""), total)
            if too_large is not None:
                return self.refuse(too_large)
            self._chunks_allowed = total + JUDGED_STEP_BYTES
        self._chunk_left = size + 2 if size else 0
        return None

    def _complete(self, payload: bytes) -> Request:
        self.phase = _RESPONSE
        if self._url == b"/":
            request = Request(self._method, b"/", None, self._headers, payload)
        else:
            request = self._request(payload)
        if self._body:
            self._body = bytearray()
        self._headers = {}
        self._url = b""
        self._head_bytes = 0
        self._head_tail = b""
        self._head_complete = False
        self._body_left = 0
        return request

    def _request(self, payload: bytes) -> Request:
        """The request whose head has been read."""
        headers, url = self._headers, self._url
        if url[:1] not in (b"/", b"*"):
            # The absolute form, whose authority counts and not the Host header (RFC 9112, 3.2.2).
            authority, slash, rest = url.partition(b"://")[2].partition(b"/")
            if authority:
                headers[b"host"] = authority
                url = slash + rest or b"/"
        path, mark, query = url.partition(b"?")
        return Request(self._method, path, query if mark else None, headers, payload)
