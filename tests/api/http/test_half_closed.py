"""A client that says it will send no more: it is answered, and then the connection is closed.

Found by ``make fuzz`` (seed 11, case 101): the end is told once, together with the last bytes, and
was forgotten when those took more than one read.
"""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest


@pytest.mark.parametrize("size_bytes", [1, 65_000, 66_000, 130_000, 1_000_000])
def test_the_end_behind_a_body_is_seen(endpoint: str, size_bytes: int) -> None:
    url = urlsplit(endpoint)
    body = b'{"TableName":"' + b"x" * size_bytes + b'"}'
    head = (
        f"POST / HTTP/1.1\r\nHost: {url.netloc}\r\nX-Amz-Target: DynamoDB_20120810.GetItem\r\n"
        "Content-Type: application/x-amz-json-1.0\r\nX-Amz-Date: 20260101T000000Z\r\n"
        "Authorization: AWS4-HMAC-SHA256 Credential=ns-half/20260101/us-east-1/dynamodb/"
        f"aws4_request, SignedHeaders=host, Signature={'0' * 64}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    for _ in range(10):
        with socket.create_connection((url.hostname, url.port), timeout=10) as connection:
            connection.sendall(head.encode() + body)
            connection.shutdown(socket.SHUT_WR)
            received = b""
            while data := connection.recv(65_536):
                received += data
        assert received.startswith(b"HTTP/1.1 400 ")
        assert received.count(b"HTTP/1.1 ") == 1
