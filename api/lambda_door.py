"""The door to Lambda's API: which requests are its, and nothing more until the first one comes.

What is behind (``lambda_routes``, the store of functions) is loaded then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from .connection import Connection, Request
from .errors import WireError
from .gate import Policy

if TYPE_CHECKING:
    from .lambda_routes import LambdaRoutes

LAMBDA_PATHS: Final = b"/2015-03-31/"


class LambdaDoor:
    """Stands in for ``LambdaRoutes``. ``load`` gives it, from the first time on."""

    __slots__ = ("_account", "_load", "_policy")

    def __init__(
        self, load: Callable[[], Awaitable[LambdaRoutes]], policy: Policy, account: str
    ) -> None:
        self._load = load
        self._policy = policy
        self._account = account

    def covers(self, request: Request) -> bool:
        """Whether the path is one of this API, be there an operation or not."""
        return request.path.startswith(LAMBDA_PATHS)

    def judge_size(self, request: Request, size_bytes: int) -> WireError | None:
        """Why a body of so many bytes is refused before it is read, if it is."""
        from .lambda_routes import judge_size

        return judge_size(request, size_bytes, self._policy.credentials, self._account)

    async def serve(
        self, machine: Connection, request: Request, cors: bytes, stopping: bool
    ) -> bytes:
        """The bytes of the answer to ``request``, which ``machine`` has read."""
        routes = await self._load()
        return await routes.serve(machine, request, cors, stopping)
