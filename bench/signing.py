"""HTTP requests as bytes, signed before they are sent, with the headers that boto3 sends.

Signing costs the client more than the server spends on a GetItem, so it happens ahead of the
measurement. All servers of a run receive the same bytes: the Host header is fixed, and what a
server does not check (the peers check no signature) it still has to read.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import time
from pathlib import Path

ACCESS_KEY = "AKIDBENCHMARK0000001"
SECRET_KEY = "not/a/secret/only/a/benchmark/0000000001"
REGION = "us-east-1"
HOST = "localhost:8000"
ITEMS = "DynamoDB_20120810"
STREAMS = "DynamoDBStreams_20120810"
_SIGNED = "content-type;host;x-amz-date;x-amz-target"
_CONTENT_TYPE = "application/x-amz-json-1.0"
_USER_AGENT = (
    "Boto3/1.44.5 md/Botocore#1.44.5 ua/2.1 os/linux#6.1 md/arch#x86_64 lang/python#3.11.7 "
    "md/pyimpl#CPython m/Z,b cfg/retry-mode#legacy Botocore/1.44.5"
)


def write_credentials(path: Path) -> None:
    """An AWS shared-credentials file with the key that ``Signer`` signs with."""
    path.write_text(
        f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n",
        encoding="utf-8",
    )


class Signer:
    """Makes signed requests (Signature Version 4). A request is good for five minutes."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._second = 0
        self._stamp = ""
        self._scope = ""
        self._key = b""

    def request(self, operation: str, body: bytes, service: str = ITEMS) -> bytes:
        """One POST of ``body``, head and all."""
        if int(time.time()) != self._second:
            self._turn()
        target = f"{service}.{operation}"
        canonical = (
            f"POST\n/\n\ncontent-type:{_CONTENT_TYPE}\nhost:{HOST}\nx-amz-date:{self._stamp}\n"
            f"x-amz-target:{target}\n\n{_SIGNED}\n{hashlib.sha256(body).hexdigest()}"
        )
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{self._stamp}\n{self._scope}\n{digest}"
        signature = hmac.digest(self._key, text.encode(), "sha256").hex()
        head = (
            f"POST / HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: identity\r\n"
            f"X-Amz-Target: {target}\r\nContent-Type: {_CONTENT_TYPE}\r\n"
            f"User-Agent: {_USER_AGENT}\r\nX-Amz-Date: {self._stamp}\r\n"
            f"Authorization: AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{self._scope}, "
            f"SignedHeaders={_SIGNED}, Signature={signature}\r\n"
            f"amz-sdk-invocation-id: 00000000-0000-4000-8000-{next(self._numbers):012}\r\n"
            f"amz-sdk-request: attempt=1\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def _turn(self) -> None:
        """A new second: another stamp, and perhaps another day's key."""
        self._second = int(time.time())
        self._stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._second))
        day = self._stamp[:8]
        self._scope = f"{day}/{REGION}/dynamodb/aws4_request"
        key = f"AWS4{SECRET_KEY}".encode()
        for part in (day, REGION, "dynamodb", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        self._key = key
