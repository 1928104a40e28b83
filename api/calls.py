"""What the HTTP door hands to the operations: one call, and who makes it."""

from __future__ import annotations

from typing import Protocol

import msgspec

from ..globaltables.consistency import Reading


class Caller(msgspec.Struct, frozen=True):
    """Who calls. ``functions`` is the right to manage functions.

    ``hops`` counts the handlers of changes one behind the other that led to this call. ``reading``
    is there when the call demands a level of consistency, and learns what it was shown.
    """

    namespace: str
    access_key: str
    region: str
    request_id: str
    functions: bool = False
    hops: int = 0
    reading: Reading | None = None


class Dispatcher(Protocol):
    """All operations, by the name in X-Amz-Target."""

    async def dispatch(self, target: str, body: bytes, caller: Caller) -> bytes:
        """The JSON of the answer to ``body`` (which nobody has looked at yet).

        ``target`` is the whole header (``DynamoDB_20120810.GetItem``); one that is not served
        raises UnknownOperationException. Every other error is a MillstreamError, or a WireError as
        it is; what is neither is answered as an InternalServerError.
        """
        ...
