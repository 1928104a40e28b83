"""What the routes of Lambda's API hand to its operations: one call, and what is answered."""

from __future__ import annotations

import binascii
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import msgspec

from ..errors import InvalidRequest, MalformedRequest
from ..lambdas.functions import raise_violations, violation
from ..lambdas.settings import Mapping, MappingSettings
from ..limits import LIST_ITEMS_MAX, REQUEST_BODY_BYTES_MAX
from .calls import Caller
from .json_types import decode

Item = TypeVar("Item")
R = TypeVar("R")


class Call(msgspec.Struct, frozen=True):
    """One request, after everything about who is asking. ``name`` is the path's variable part."""

    caller: Caller
    name: str
    query: dict[str, str]
    headers: dict[bytes, bytes]
    payload: bytes
    request_id: str
    now_seconds: float


class Answer(msgspec.Struct, frozen=True):
    """``headers`` are whole lines."""

    status: int
    body: bytes = b""
    headers: bytes = b""


class Mappings(Protocol):
    """Event source mappings, by namespace. What is not there raises ResourceNotFound."""

    async def create(
        self, namespace: str, function_name: str, stream_arn: str, settings: MappingSettings
    ) -> Mapping: ...

    def get(self, namespace: str, uuid: str) -> Mapping | None: ...

    def list(self, namespace: str) -> list[Mapping]: ...

    async def update(
        self,
        namespace: str,
        uuid: str,
        settings: MappingSettings,
        function_name: str | None = None,
    ) -> Mapping: ...

    async def delete(self, namespace: str, uuid: str) -> Mapping: ...


class RunInThread(Protocol):
    """A call of a function in a worker thread."""

    def __call__(self, function: Callable[..., R], *args: object) -> Awaitable[R]: ...


async def read_body(payload: bytes, run: RunInThread) -> dict[str, Any]:
    """The JSON object in ``payload``; a large one is read away from the loop."""
    if not payload:
        raise MalformedRequest("The body is empty")
    if len(payload) <= REQUEST_BODY_BYTES_MAX // 16:
        return decode(payload)
    return await run(decode, payload)


def page(
    items: list[Item], name_of: Callable[[Item], str], query: dict[str, str], most: int
) -> tuple[list[Item], str | None]:
    """The items behind ``Marker``, as many as ``MaxItems`` says, and the next marker.

    ``items`` are in the order of their names.
    """
    text = query.get("MaxItems", str(most))
    # int() would take spaces, signs and underscores.
    count = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None
    if count is None:
        raise InvalidRequest("MaxItems must be an integer")
    if not 1 <= count <= LIST_ITEMS_MAX:
        side, bound = ("greater", 1) if count < 1 else ("less", LIST_ITEMS_MAX)
        constraint = f"Member must have value {side} than or equal to {bound}"
        raise_violations([violation(count, "maxItems", constraint)])
    marker = query.get("Marker")
    if marker:
        last = _marked(marker)
        items = [item for item in items if name_of(item) > last]
    found = items[: min(count, most)]
    if len(found) == len(items):
        return found, None
    return found, urlsafe_b64encode(name_of(found[-1]).encode()).decode()


def _marked(marker: str) -> str:
    try:
        return b64decode(marker, b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise InvalidRequest("Invalid Marker") from None
