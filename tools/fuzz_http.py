"""HTTP for ``fuzz``: one connection's bytes with what must come back, and a reader of answers.

An ``Exchange`` is everything that a client sends on a connection, in ``parts`` (one send each),
before it says that it will send no more. What must come back follows from how it was made:
``statuses`` has the answers' statuses where they are certain, ``least`` how many there must be.
"""

from __future__ import annotations

import gzip
import json
import random
import socket
import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple

PREFIX = "DynamoDB_20120810."


def target_of(operation: str) -> str:
    """The whole target: an operation of another service than DynamoDB itself is named with it."""
    return operation if "." in operation else PREFIX + operation

BOMB_BYTES = 1 << 30


class Answer(NamedTuple):
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class Exchange(NamedTuple):
    """See the module's docstring. ``what`` says it to a person."""

    what: str
    parts: list[bytes]
    statuses: list[int] | None
    least: int


class NotHttp(Exception):
    """What came back is not a sequence of answers, and why."""


class Door:
    """Makes requests' bytes for one server, signed well enough for one without credentials."""

    def __init__(self, host: str, port: int, namespace: str) -> None:
        self.host, self.port, self.namespace = host, port, namespace

    def headers(self, operation: str, body: bytes) -> list[tuple[bytes, bytes]]:
        """What an SDK sends."""
        authorization = (
            f"AWS4-HMAC-SHA256 Credential={self.namespace}/20260101/us-east-1/dynamodb/"
            f"aws4_request, SignedHeaders=host;x-amz-date, Signature={'0' * 64}"
        )
        return [
            (b"Host", f"{self.host}:{self.port}".encode()),
            (b"X-Amz-Target", target_of(operation).encode()),
            (b"Content-Type", b"application/x-amz-json-1.0"),
            (b"X-Amz-Date", b"20260101T000000Z"),
            (b"Authorization", authorization.encode()),
            (b"Content-Length", str(len(body)).encode()),
        ]

    def request(self, operation: str, body: bytes) -> bytes:
        """One whole request."""
        return assemble(b"POST / HTTP/1.1", self.headers(operation, body), body)


def assemble(line: bytes, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    """The bytes of a request."""
    head = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    return line + b"\r\n" + head + b"\r\n" + body


def read_answers(data: bytes, *, last_is_head: bool = False) -> list[Answer]:
    """All answers in ``data``, the interim ones left out. Raises ``NotHttp``."""
    answers: list[Answer] = []
    at = 0
    while at < len(data):
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            raise NotHttp(f"no head ends in {data[at : at + 200]!r}")
        lines = data[at:end].decode("latin-1").split("\r\n")
        at = end + 4
        version, _, rest = lines[0].partition(" ")
        if version != "HTTP/1.1" or not rest[:3].isdigit():
            raise NotHttp(f"a status line is {lines[0]!r}")
        status = int(rest[:3])
        if status == 100:
            continue
        headers = {}
        for line in lines[1:]:
            name, colon, value = line.partition(": ")
            if not colon or name.lower() in headers:
                raise NotHttp(f"a header line is {line!r}, of {lines}")
            headers[name.lower()] = value
        size = int(headers["content-length"])
        body = data[at : at + size]
        if len(body) < size and not (last_is_head and at == len(data)):
            raise NotHttp(f"{len(body)} bytes of a body of {size}")
        if body and zlib.crc32(body) != int(headers["x-amz-crc32"]):
            raise NotHttp("the CRC is not the body's")
        at += len(body)
        answers.append(Answer(status, headers, body))
    return answers


def converse(host: str, port: int, parts: Iterable[bytes], deadline_seconds: float) -> bytes:
    """Send ``parts``, say that there is no more, and read to the end.

    Reads while it sends, since an answer may come before everything was sent. Raises TimeoutError
    when the server neither reads, answers nor closes for ``deadline_seconds``; a reset is one
    more way to end.
    """
    received: list[bytes] = []
    with socket.create_connection((host, port), timeout=deadline_seconds) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for part in parts:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # It has heard enough; its answer may be there all the same.
        while True:
            try:
                data = connection.recv(1 << 18)
            except ConnectionResetError:
                break
            if not data:
                break
            received.append(data)
    return b"".join(received)


def split(rng: random.Random, data: bytes, pieces: int) -> list[bytes]:
    """``data`` cut at random places."""
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(pieces - 1))
    return [data[low:high] for low, high in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def chunked(rng: random.Random, body: bytes) -> bytes:
    """``body`` in chunks, with extensions and a trailer here and there."""
    out = []
    at = 0
    while at < len(body):
        size = rng.choice([1, 3, 17, 100, 5000])
        part = body[at : at + size]
        extension = rng.choice([b"", b"", b";a=b", b" ", b';q="\xff"'])
        digits = rng.choice([b"%x", b"%X", b"000%x"]) % len(part)
        out.append(digits + extension + b"\r\n" + part + b"\r\n")
        at += size
    trailer = rng.choice([b"", b"", b"X-Checksum: 1\r\n"])
    return b"".join(out) + b"0\r\n" + trailer + b"\r\n"


def bomb() -> bytes:
    """A gigabyte of spaces, as gzip: one compressed megabyte again and again, without an end."""
    squeezed = zlib.compressobj(9, zlib.DEFLATED, -15)
    part = squeezed.compress(b" " * (1 << 20)) + squeezed.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff" + part * (BOMB_BYTES >> 20)


class Exchanges:
    """Makes exchanges. ``good`` is an operation and a body that the server answers with 200."""

    def __init__(self, door: Door, good: tuple[str, bytes]) -> None:
        self._door = door
        self._good = good
        self._bombs = [bomb()]
        self._bombs += [gzip.compress(self._bombs[0], 1, mtime=0), gzip.compress(b"[" * (10 << 20))]

    def make(self, rng: random.Random) -> Exchange:
        """One exchange."""
        kinds = (
            self._random_bytes, self._scrambled, self._pieces, self._chunks, self._pipeline,
            self._cut, self._too_long, self._too_short, self._odd_header, self._odd_line,
            self._coding, self._many_headers, self._broken_chunks, self._expect,
            self._missing_header,
        )  # fmt: skip
        return rng.choice(kinds)(rng)

    def _headers(self, body: bytes, drop: bytes = b"") -> list[tuple[bytes, bytes]]:
        headers = self._door.headers(self._good[0], body)
        return [(name, value) for name, value in headers if name != drop]

    def _whole(self) -> bytes:
        return self._door.request(*self._good)

    def _random_bytes(self, rng: random.Random) -> Exchange:
        data = rng.randbytes(rng.choice([1, 4, 100, 5000, 100_000]))
        if rng.random() < 0.5:
            data = (
                rng.choice([b"POST ", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"PRI * HTTP/2"])
                + data
            )
        # Line ends before a request line are passed over (RFC 9112, 2.2).
        return Exchange("random bytes", [data], None, 1 if data.strip(b"\r\n") else 0)

    def _scrambled(self, rng: random.Random) -> Exchange:
        data = bytearray(self._whole())
        for _ in range(rng.choice([1, 1, 3, 10])):
            at = rng.randrange(len(data))
            kind = rng.randrange(4)
            if kind == 0:
                data[at] = rng.randrange(256)
            elif kind == 1:
                del data[at : at + rng.choice([1, 2, 30])]
            elif kind == 2:
                data[at:at] = rng.choice([b"\r\n", b"\n", b"\r", b"\x00", b":", b" ", b"\xff"])
            else:
                data[at:at] = data[at : at + 30]
            data = data or bytearray(b"x")
        return Exchange("a scrambled request", split(rng, bytes(data), 2), None, 1)

    def _pieces(self, rng: random.Random) -> Exchange:
        parts = split(rng, self._whole(), rng.choice([2, 5, 40]))
        return Exchange("a request in pieces", parts, [200], 1)

    def _chunks(self, rng: random.Random) -> Exchange:
        headers = self._headers(b"", drop=b"Content-Length")
        headers.append((b"Transfer-Encoding", rng.choice([b"chunked", b"Chunked"])))
        data = assemble(b"POST / HTTP/1.1", headers, chunked(rng, self._good[1]))
        return Exchange("a chunked request", split(rng, data, rng.choice([1, 5])), [200], 1)

    def _pipeline(self, rng: random.Random) -> Exchange:
        statuses, out = [], []
        for _ in range(rng.choice([2, 17, 100])):
            if rng.random() < 0.8:
                out.append(self._whole())
                statuses.append(200)
            else:
                out.append(self._door.request("GetItem", b"[]"))
                statuses.append(400)
        parts = split(rng, b"".join(out), rng.choice([1, 1, 6]))
        return Exchange(f"{len(statuses)} requests at once", parts, statuses, len(statuses))

    def _cut(self, rng: random.Random) -> Exchange:
        data = self._whole()
        data = data[: rng.randrange(1, len(data))]
        return Exchange("a request that is cut", [data], [400], 1)

    def _too_long(self, rng: random.Random) -> Exchange:
        """More is announced than comes."""
        headers = self._headers(b"", drop=b"Content-Length")
        size = len(self._good[1]) + rng.choice(
            [1, 100, 10**6, 16 * 10**6, 10**9, 2**63, 2**64, 10**40]
        )
        headers.append((b"Content-Length", str(size).encode()))
        data = assemble(b"POST / HTTP/1.1", headers, self._good[1])
        return Exchange(f"a body that is announced as {size} bytes", [data], None, 1)

    def _too_short(self, rng: random.Random) -> Exchange:
        """Less is announced than comes: what is left over is no request."""
        headers = self._headers(b"", drop=b"Content-Length")
        size = rng.randrange(len(self._good[1]))
        headers.append((b"Content-Length", str(size).encode()))
        data = assemble(b"POST / HTTP/1.1", headers, self._good[1])
        return Exchange("a body longer than announced", [data], [400, 400], 2)

    def _odd_header(self, rng: random.Random) -> Exchange:
        headers = self._headers(self._good[1])
        odd = rng.choice(
            [
                (b"Content-Length", b"0"), (b"Content-Length", b"-1"), (b"Content-Length", b"1, 1"),
                (b"Content-Length", b"+5"), (b"Content-Length", b"0x5"), (b"Content-Length", b""),
                (b"Transfer-Encoding", b"chunked"), (b"Transfer-Encoding", b"identity"),
                (b"Transfer-Encoding", b"gzip, chunked"), (b"Transfer-Encoding", b"\x0bchunked"),
                (b"Host", b"evil.example"), (b"Host", b""), (b"Host", b"localhost:99999"),
                (b"Connection", b"close"), (b"Connection", b"upgrade"), (b"Upgrade", b"h2c"),
                (b"Origin", b"null"), (b"Sec-Fetch-Site", b"cross-site"), (b"Expect", b"200-ok"),
                (b"X-Amz-Target", b"\xff\xfe"), (b"X-Amz-Target", b""),
                (b"X-Amz-Target", b"." * 9999),
                (b"X-Amz-Date", b"20261399T999999Z"), (b"X-Amz-Date", b"\xb2" * 16),
                (b"Authorization", b"Basic eDp5"),
                (b"Authorization", b"AWS4-HMAC-SHA256 " + b"=," * 500),
                (b"Authorization", b""), (b"X-Amz-Security-Token", b"x" * 20_000),
                (b"Content-Type", b"text/html"), (b"Content-Type", b"\xff"),
                (b"Content-Type", b";" * 99),
                (b"Accept-Encoding", b"gzip;q=" + b"9" * 999), (b"Accept-Encoding", b"," * 9999),
                (b"Content-MD5", b"x"), (b"X-Amz-Content-Sha256", b"UNSIGNED-PAYLOAD"),
                (b"X A", b"b"), (b"", b"b"), (b"A\x00", b"b"), (b"A", b"b\x00c"),
                (b"A", b"b\r\n folded"),
                (b"A", b"\r\r\n"), (b"A" * 40_000, b"b"), (b"A", b"b" * 40_000),
                (b"X-Http-Method-Override", b"GET"), (b"Range", b"bytes=0-1"),
            ]
        )  # fmt: skip
        if rng.random() < 0.6:
            headers = [pair for pair in headers if pair[0] != odd[0]]
        headers.insert(rng.randrange(len(headers) + 1), odd)
        data = assemble(b"POST / HTTP/1.1", headers, self._good[1])
        return Exchange(f"the header {odd[0][:40]!r}: {odd[1][:60]!r}", [data], None, 1)

    def _missing_header(self, rng: random.Random) -> Exchange:
        headers = self._headers(self._good[1])
        gone = headers.pop(rng.randrange(len(headers)))
        statuses: list[int] | None
        if gone[0] == b"Content-Length":
            # The request ends with its head, and its body begins another one.
            statuses, least = [400, 400], 2
        else:
            # Without credentials the date of a signature is not looked at.
            known = {b"Content-Type": [404], b"X-Amz-Date": None}
            statuses, least = known.get(gone[0], [400]), 1
        data = assemble(b"POST / HTTP/1.1", headers, self._good[1])
        return Exchange(f"no header {gone[0].decode()}", [data], statuses, least)

    def _odd_line(self, rng: random.Random) -> Exchange:
        method = rng.choice(
            [b"GET", b"PUT", b"HEAD", b"OPTIONS", b"TRACE", b"DELETE", b"CONNECT", b"post",
            b"M-SEARCH",
             b"PRI", b"POST" * 99, b"\x00"]
        )  # fmt: skip
        target = rng.choice(
            [b"/", b"*", b"/../../etc/passwd", b"/?Action=ListTables", b"/%00%ff", b"//",
            b"/" * 9000,
             b"http://127.0.0.1/", b"http://evil.example/", b"http://", b"http://[::1/", b"?", b"#",
             b"/\xff\xfe", b"", b"/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=%zz",
             b"/?" + b"a=b&" * 5000, b"a:b", b"127.0.0.1:80"]
        )  # fmt: skip
        version = rng.choice(
            [b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2",
            b"http/1.1",
             b"HTTP/1.1 ", b"", b"HTTP/9999999999.1", b"ICY/1.1"]
        )  # fmt: skip
        if rng.random() < 0.5:
            method = b"POST"
        headers = self._headers(self._good[1])
        line = b" ".join([method, target, version])
        data = assemble(line, headers, self._good[1])
        return Exchange(f"the request line {line[:80]!r}", [data], None, 1)

    def _coding(self, rng: random.Random) -> Exchange:
        """A compressed body: good, broken, mislabelled, or a bomb."""
        good = self._good[1]
        packed = gzip.compress(good, mtime=0)
        coding, body, status = rng.choice(
            [
                (b"gzip", packed, 200),
                (b"GZIP", packed, 200),
                (b"deflate", zlib.compress(good), 200),
                (b"identity", good, None),
                (b"gzip", packed[: rng.randrange(len(packed))], 400),
                (b"gzip", packed[:-8] + bytes(8), 400),
                (b"gzip", good, 400),
                (b"deflate", packed, None),
                (b"gzip, gzip", gzip.compress(packed, mtime=0), None),
                (b"gzip, " * 50 + b"gzip", packed, None),
                (b"br", packed, None),
                (b"", good, None),
                (b"gzip", packed + packed, None),
                (b"gzip", packed + b"tail", None),
                (b"gzip", self._bombs[0], 413),
                (b"gzip, gzip", self._bombs[1], None),
                (b"gzip", self._bombs[2], 400),
            ]
        )
        headers = [*self._headers(body), (b"Content-Encoding", coding)]
        data = assemble(b"POST / HTTP/1.1", headers, body)
        statuses = None if status is None else [status]
        return Exchange(f"a body in {coding[:20]!r} of {len(body)} bytes", [data], statuses, 1)

    def _many_headers(self, rng: random.Random) -> Exchange:
        headers = self._headers(self._good[1])
        count = rng.choice([50, 94, 95, 200, 3000])
        name = rng.choice([b"A%d", b"A"])
        headers += [(name % number if b"%" in name else name, b"v") for number in range(count)]
        data = assemble(b"POST / HTTP/1.1", headers, self._good[1])
        return Exchange(f"{count} more headers", [data], None, 1)

    def _broken_chunks(self, rng: random.Random) -> Exchange:
        headers = self._headers(b"", drop=b"Content-Length")
        headers.append((b"Transfer-Encoding", b"chunked"))
        body = rng.choice(
            [
                b"\r\n", b"-1\r\n", b"0x5\r\nabcde\r\n0\r\n\r\n", b"5\r\nabcdeX\r\n0\r\n\r\n",
                b"5\nabcde\n0\n\n",
                b"f" * 17 + b"\r\n", b"ffffffffffffffff\r\n", b"1000001\r\n",
                b"5" + b";x" * 500 + b"\r\n",
                b"0\r\n" + b"A: b\r\n" * 5000 + b"\r\n", b"0\r\n\r", b"0", b"5\r\nab", b"g\r\n",
                b" 5\r\nabcde\r\n",
                b"1\r\na\r\n" * 20_000, b"0\r\nA\x00: b\r\n\r\n",
            ]
        )  # fmt: skip
        data = assemble(b"POST / HTTP/1.1", headers, body)
        return Exchange(f"the chunks {body[:30]!r}", split(rng, data, 2), None, 1)

    def _expect(self, rng: random.Random) -> Exchange:
        headers = [*self._headers(self._good[1]), (b"Expect", b"100-continue")]
        data = assemble(b"POST / HTTP/1.1", headers, self._good[1])
        return Exchange("Expect: 100-continue", split(rng, data, 3), [200], 1)


def error_kind(answer: Answer) -> str:
    """What an answer refuses with; empty for one that is not a refusal in JSON."""
    try:
        told: Any = json.loads(answer.body)
    except ValueError:
        return ""
    return str(told.get("__type", "")).rpartition("#")[2] if isinstance(told, dict) else ""
