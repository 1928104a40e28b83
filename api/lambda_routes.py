"""Lambda's API on the database's port: which paths there are, who may, and how errors are told.

The subset of issue 4, in AWS's REST-JSON: functions, their invocation, and event source mappings.
Creating or invoking a function is running code, and what a function is may hold secrets, so every
route, reading too, asks the same: without credentials a request of this machine and of no web page
(``gate.admit_code``, which the front has asked already); with credentials a right signature of a
profile that says ``millstream_functions = true``.

A path is cut at its slashes before anything in it is decoded, and matched as a whole; what a name
decodes to is judged by the operation. So there is one spelling of each route and no way round it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from ..errors import InvalidRequest
from ..limits import FUNCTION_REQUEST_BYTES_MAX
from .calls import Caller
from .codings import inflate
from .connection import Connection, Request
from .credentials import Credentials
from .errors import RequestEntityTooLarge, WireError, describe, is_assertion
from .gate import Policy
from .lambda_calls import Answer, Call, Mappings, RunInThread
from .lambda_door import LAMBDA_PATHS
from .lambda_errors import (
    AccessDeniedException,
    RequestEntityTooLargeException,
    UnknownOperationException,
    to_lambda,
)
from .lambda_functions import (
    create_function,
    delete_function,
    get_function,
    get_function_configuration,
    list_functions,
    update_function_code,
    update_function_configuration,
)
from .lambda_invocations import invoke
from .lambda_mappings import MappingOperations
from .sigv4 import LAMBDA, Verifier, claimed_access_key

if TYPE_CHECKING:
    from ..actors.functions import Functions

_log = logging.getLogger(__name__)

_FUNCTIONS = b"functions"
_MAPPINGS = b"event-source-mappings"
_JSON = b"application/json"
_PAGING = frozenset({"Marker", "MaxItems"})
_QUALIFIER = frozenset({"Qualifier"})

Operation = Callable[[Call, RunInThread], Awaitable[Answer]]
_Routes = dict[tuple[bytes, ...], "Route"]


class Route(msgspec.Struct, frozen=True):
    """One operation, its name in IAM's policies, and the query parameters that it knows."""

    action: str
    operation: Operation
    query: frozenset[str] = frozenset()
    #: Whether its body may be larger than that of any other request.
    takes_package: bool = False


class LambdaRoutes:
    """Lambda's API over one node's functions and mappings.

    ``clock`` gives seconds since the epoch; ``run`` calls a function in a worker thread.
    """

    __slots__ = ("_clock", "_credentials", "_functions", "_routes", "_run", "_verifier")

    def __init__(
        self,
        functions: Functions,
        mappings: Mappings,
        policy: Policy,
        clock: Callable[[], float],
        run: RunInThread,
    ) -> None:
        self._functions = functions
        self._credentials = policy.credentials
        self._verifier = Verifier(policy.credentials, policy.region, LAMBDA)
        self._clock = clock
        self._run = run
        self._routes = _routes(functions, MappingOperations(functions, mappings))

    async def serve(
        self, machine: Connection, request: Request, cors: bytes, stopping: bool
    ) -> bytes:
        """The bytes of the answer to ``request``, which ``machine`` has read."""
        request_id = self._functions.new_id()
        try:
            answer = await self._answer(request, request_id)
        except Exception as error:
            if is_assertion(error):
                raise
            wire = to_lambda(error, request_id)
            if wire.status == 500:
                _log.error("request %s: %s", request_id, describe(error))
            answer = Answer(wire.status, wire.body(), wire.header_lines())
        response = machine.respond(
            answer.status,
            answer.body,
            request_id,
            content_type=_JSON,
            extra=cors + answer.headers,
            close=stopping,
        )
        if answer.status == 204:
            # Such an answer has no body, and so no length of one (RFC 9110, section 8.6).
            response = response.replace(b"Content-Length: 0\r\n", b"", 1)
        return response

    async def _answer(self, request: Request, request_id: str) -> Answer:
        now = self._clock()
        payload = request.payload
        if len(payload) > _HASHED_ON_LOOP_BYTES_MAX:
            # Its caches are dictionaries, each change of which is one step for other threads.
            identity = await self._run(self._verifier.verify, request, now)
        else:
            identity = self._verifier.verify(request, now)
        found = _find(self._routes, request)
        if self._credentials is not None and not identity.functions:
            action = "InvokeFunction" if found is None else found[0].action
            raise _denied(self._functions.account, action, identity.access_key)
        if found is None:
            raise UnknownOperationException(
                "There is no such operation in the part of Lambda's API that is served here."
            )
        route, name = found
        coding = request.headers.get(b"content-encoding")
        if coding is not None:
            payload = inflate(payload, coding)
        caller = Caller(
            identity.namespace,
            identity.access_key,
            identity.region,
            request_id,
            identity.functions,
        )
        query = _query(request.query, route.query)
        call = Call(caller, name, query, request.headers, payload, request_id, now)
        return await route.operation(call, self._run)


# A signature of more than this is verified in a thread: SHA-256 takes 1 ms for 1 to 2 MB.
_HASHED_ON_LOOP_BYTES_MAX = 2 * 1024 * 1024


def _routes(
    functions: Functions, mappings: MappingOperations
) -> _Routes:
    """Method and path, with ``*`` for its variable part, of everything that is served."""

    def of(operation: Callable[[Functions, Call, RunInThread], Awaitable[Answer]]) -> Operation:
        return lambda call, run: operation(functions, call, run)

    one, many = (_FUNCTIONS, b"*"), (_FUNCTIONS,)
    listing = _PAGING | {"FunctionVersion", "MasterRegion"}
    return {
        (b"POST", *many): Route("CreateFunction", of(create_function), takes_package=True),
        (b"GET", *many): Route("ListFunctions", of(list_functions), listing),
        (b"GET", *one): Route("GetFunction", of(get_function), _QUALIFIER),
        (b"DELETE", *one): Route("DeleteFunction", of(delete_function), _QUALIFIER),
        (b"GET", *one, b"configuration"): Route(
            "GetFunctionConfiguration", of(get_function_configuration), _QUALIFIER
        ),
        (b"PUT", *one, b"configuration"): Route(
            "UpdateFunctionConfiguration", of(update_function_configuration)
        ),
        (b"PUT", *one, b"code"): Route(
            "UpdateFunctionCode", of(update_function_code), takes_package=True
        ),
        (b"POST", *one, b"invocations"): Route("InvokeFunction", of(invoke), _QUALIFIER),
        (b"POST", _MAPPINGS): Route("CreateEventSourceMapping", mappings.create),
        (b"GET", _MAPPINGS): Route(
            "ListEventSourceMappings", mappings.list, _PAGING | {"EventSourceArn", "FunctionName"}
        ),
        (b"GET", _MAPPINGS, b"*"): Route("GetEventSourceMapping", mappings.get),
        (b"PUT", _MAPPINGS, b"*"): Route("UpdateEventSourceMapping", mappings.update),
        (b"DELETE", _MAPPINGS, b"*"): Route("DeleteEventSourceMapping", mappings.delete),
    }


def _query(query: bytes | None, known: frozenset[str]) -> dict[str, str]:
    """The parameters, of which an operation must know each but those of a presigned request."""
    found: dict[str, str] = {}
    text = (query or b"").decode("latin-1")
    for name, value in parse_qsl(text, keep_blank_values=True, errors="replace"):
        if name in known:
            found.setdefault(name, value)
        elif not name.startswith("X-Amz-"):
            raise InvalidRequest(f"Unknown parameter in the query string: {name[:64]}")
    return found


# The same table without anybody behind it: which routes there are.
_KNOWN = _routes(cast("Functions", None), MappingOperations(cast(Any, None), cast(Any, None)))


def judge_size(
    request: Request, size_bytes: int, credentials: Credentials | None, account: str
) -> WireError | None:
    """Why a body of so many bytes is refused before it is read, if it is.

    The signature covers the body, so here it is only asked what the request claims to be. Who
    knows a profile's access key but not its secret can make the node hold a large body, within
    the bytes in flight, and no more than that.
    """
    found = _find(_KNOWN, request)
    if found is None or not found[0].takes_package:
        return RequestEntityTooLarge()
    route, _ = found
    if credentials is not None:
        credential = credentials.find(claimed_access_key(request))
        if credential is None or not credential.functions:
            return _denied(account, route.action, "")
    if size_bytes > FUNCTION_REQUEST_BYTES_MAX:
        return RequestEntityTooLargeException(
            f"Request must be smaller than {FUNCTION_REQUEST_BYTES_MAX} bytes for the "
            f"{route.action} operation"
        )
    return None


def _find(routes: _Routes, request: Request) -> tuple[Route, str] | None:
    """The route, and what the variable part of the path decodes to."""
    parts = request.path.removeprefix(LAMBDA_PATHS).split(b"/")
    if len(parts) > 1 and parts[-1] == b"":
        # Older SDKs end some of these paths with a slash.
        parts.pop()
    name = b""
    if len(parts) > 1:
        name, parts[1] = parts[1], b"*"
        if not name:
            return None
    route = routes.get((request.method, *parts))
    if route is None:
        return None
    return route, unquote_to_bytes(name).decode("utf-8", "replace")


def _denied(account: str, action: str, access_key: str) -> AccessDeniedException:
    return AccessDeniedException(
        f"User: arn:aws:iam::{account}:user/{access_key} is not authorized to perform: "
        f"lambda:{action} because its profile does not say millstream_functions = true"
    )
