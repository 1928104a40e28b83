"""The second argument of a handler: AWS's Lambda context, and ``transaction``.

The same for every kind of invoker; what differs is given to the constructor: the clock by which the
remaining time is told, where ``log`` goes, and the transaction. It is an ordinary object, since
handlers and their decorators hang attributes on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Protocol

import msgspec

from .results import Invocation

#: The trace of the invocation that the present task or thread serves, for handlers on the loop and
#: in threads: what a worker process has in its environment. "" outside of handlers.
current_trace: ContextVar[str] = ContextVar("millstream_trace", default="")


class NamedTable(Protocol):
    """A table of the Python API: of it, the name is all that counts here."""

    @property
    def name(self) -> str: ...


class HandlerTransaction(Protocol):
    """What ``context.transaction`` offers; committed by whoever called the handler, or not at all.

    In a thread and in a worker process ``get`` is a plain call for ``def`` handlers.
    """

    async def get(self, table: NamedTable | str, key: dict[str, Any]) -> dict[str, Any] | None: ...

    def put(
        self,
        table: NamedTable | str,
        item: dict[str, Any],
        *,
        condition: str | None = None,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None: ...

    def update(
        self,
        table: NamedTable | str,
        key: dict[str, Any],
        update: str,
        *,
        condition: str | None = None,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None: ...

    def delete(
        self,
        table: NamedTable | str,
        key: dict[str, Any],
        *,
        condition: str | None = None,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None: ...

    def check(
        self,
        table: NamedTable | str,
        key: dict[str, Any],
        condition: str,
        *,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None: ...


class CognitoIdentity:
    """Nobody: streams and SDK calls carry none."""

    cognito_identity_id: str | None = None
    cognito_identity_pool_id: str | None = None


class Client:
    """The mobile application that AWS's Mobile SDK tells of."""

    def __init__(self, about: dict[str, Any]) -> None:
        for name in (
            "installation_id", "app_title", "app_version_name", "app_version_code",
            "app_package_name",
        ):  # fmt: skip
            setattr(self, name, about.get(name))


class ClientContext:
    """What the caller of Invoke sent as ClientContext."""

    def __init__(self, about: dict[str, Any]) -> None:
        client = about.get("client")
        self.client = Client(client) if isinstance(client, dict) else None
        self.custom = about.get("custom")
        self.env = about.get("env")


class LambdaContext:
    """One invocation, as the handler sees it."""

    def __init__(
        self,
        invocation: Invocation,
        now_seconds: Callable[[], float],
        log: Callable[[str], object],
        transaction: Any = None,
        log_stream_name: str = "",
    ) -> None:
        self.function_name = invocation.function_name
        self.function_version = invocation.version
        self.invoked_function_arn = invocation.function_arn
        # A string, as AWS has it.
        self.memory_limit_in_mb = str(invocation.memory_limit_mb)
        self.aws_request_id = invocation.request_id
        self.log_group_name = log_group_name(invocation.function_name)
        self.log_stream_name = log_stream_name or f"[{invocation.version}]"
        self.identity = CognitoIdentity()
        self.client_context = _client_context(invocation.client_context)
        self.transaction = transaction
        self._now_seconds = now_seconds
        self._deadline_seconds = now_seconds() + invocation.timeout_seconds
        self._log = log

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the invocation is ended; never negative."""
        return max(0, int((self._deadline_seconds - self._now_seconds()) * 1000))

    def log(self, message: object) -> None:
        """Write to the function's log."""
        self._log(str(message))

    def __repr__(self) -> str:
        return f"LambdaContext(aws_request_id={self.aws_request_id!r})"


def log_group_name(function_name: str) -> str:
    """A group's name has letters, digits and ``_-/.#`` only."""
    return "/aws/lambda/" + re.sub(r"[^A-Za-z0-9_\-/.#]", "_", function_name)


def _client_context(text: str) -> ClientContext | None:
    if not text:
        return None
    about = msgspec.json.decode(text)
    return ClientContext(about) if isinstance(about, dict) else None
