"""A small DynamoDB client: what the demo needs of an SDK, from the standard library.

``Client`` may be used by several threads; each has a connection of its own. Every answer's
checksum is verified, as the AWS SDKs do.
"""

from __future__ import annotations

import http.client
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec

from ..api.connection import Request
from ..api.sigv4 import sign

REGION = "us-east-1"
ATTEMPTS_MAX = 8
TIMEOUT_SECONDS = 30.0

# What DynamoDB asks its clients to try again.
_TRANSIENT = frozenset(
    {
        "InternalServerError",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "ThrottlingException",
    }
)


class Refused(Exception):
    """The database said no. ``kind`` is DynamoDB's error type without its namespace."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Client:
    """Calls operations at ``endpoint`` with the given key pair."""

    def __init__(
        self, endpoint: str, access_key: str, secret_key: str, region: str = REGION
    ) -> None:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{endpoint} is not an endpoint like http://127.0.0.1:8000")
        self._is_tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._is_tls else 80)
        self._host_header = parts.netloc.rpartition("@")[2].encode()
        self._access_key = access_key
        self._secret_key = secret_key
        self._region = region
        #: This thread's connection, and all of them, so that ``close`` finds them.
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []

    def call(self, operation: str, **members: Any) -> dict[str, Any]:
        """The answer to one request. Throttling is waited out; raises ``Refused``, ``OSError``.

        ``operation`` is DynamoDB's name, or a whole target (with a dot).
        """
        payload = msgspec.json.encode(members)
        for attempt in range(ATTEMPTS_MAX):
            status, answer = self._post(operation, payload)
            if status == 200:
                return answer
            kind = str(answer.get("__type", status)).rpartition("#")[2]
            message = str(answer.get("message") or answer.get("Message") or "")
            if kind not in _TRANSIENT or attempt == ATTEMPTS_MAX - 1:
                raise Refused(kind, message)
            time.sleep(0.02 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def pages(self, operation: str, **members: Any) -> Iterator[dict[str, Any]]:
        """The answers to a Query or Scan, page after page."""
        while True:
            page = self.call(operation, **members)
            yield page
            if "LastEvaluatedKey" not in page:
                return
            members["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def close(self) -> None:
        """Close every connection; the client can be used again."""
        while self._connections:
            self._connections.pop().close()
        self._local = threading.local()

    def _post(self, operation: str, payload: bytes) -> tuple[int, dict[str, Any]]:
        target = operation if "." in operation else f"DynamoDB_20120810.{operation}"
        request = Request(
            b"POST",
            b"/",
            None,
            {
                b"host": self._host_header,
                b"content-type": b"application/x-amz-json-1.0",
                b"x-amz-target": target.encode(),
            },
            payload,
        )
        signed = sign(request, self._access_key, self._secret_key, self._region, time.time())
        headers = {name.decode(): value.decode() for name, value in signed.items()}
        connection = self._connection()
        try:
            connection.request("POST", "/", payload, headers)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            raise
        checksum = response.headers.get("x-amz-crc32")
        if checksum is not None and int(checksum) != zlib.crc32(body):
            raise OSError(f"the answer to {operation} does not match its checksum")
        try:
            return response.status, cast(dict[str, Any], msgspec.json.decode(body))
        except msgspec.DecodeError:
            return response.status, {"message": body[:200].decode("utf-8", "replace")}

    def _connection(self) -> http.client.HTTPConnection:
        connection = cast(
            http.client.HTTPConnection | None, getattr(self._local, "connection", None)
        )
        if connection is None:
            make = http.client.HTTPSConnection if self._is_tls else http.client.HTTPConnection
            connection = make(self._host, self._port, timeout=TIMEOUT_SECONDS)
            self._local.connection = connection
            self._connections.append(connection)
        return connection
