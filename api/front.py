"""From a request to its answer: who may knock, who signed, what is called, what is told.

Async because an operation is, but without a socket or a clock of its own: the server has one, and
so have the tests. Whatever an operation raises becomes an answer here, except an AssertionError
(alone or in a group): that one passes, since millstream itself is wrong then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..globaltables.consistency import CONSISTENCY_HEADER, Reading, encode_token, parse_demand
from ..streams.lineage import TRACE_HEADER, hops_of
from .calls import Caller, Dispatcher
from .codings import inflate
from .connection import AMZ_JSON, Connection, Request, RequestIds
from .errors import (
    NotFoundException,
    RequestEntityTooLarge,
    UnknownOperationException,
    WireError,
    describe,
    is_assertion,
    to_wire,
)
from .gate import Gate, Policy
from .lambda_door import LambdaDoor
from .sigv4 import Verifier

_log = logging.getLogger(__name__)

_JSON = b"application/json"
_TEXT = b"text/plain"
# What AWS's front end answers, with status 404, to a content type that it has no protocol for.
_NO_PROTOCOL = b"<UnknownOperationException/>\n"


class Front:
    """What the connections of one server share of answering.

    ``clock`` gives seconds since the epoch, ``entropy`` that many random bytes. ``lambdas`` serves
    the paths of Lambda's API, if any.
    """

    __slots__ = (
        "_clock",
        "_dispatcher",
        "_gate",
        "_health",
        "_ids",
        "_lambdas",
        "_verifier",
        "stopping",
    )

    def __init__(
        self,
        dispatcher: Dispatcher,
        policy: Policy,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        lambdas: LambdaDoor | None = None,
    ) -> None:
        self._lambdas = lambdas
        self._dispatcher = dispatcher
        self._clock = clock
        self._gate = Gate(policy)
        self._verifier = Verifier(policy.credentials, policy.region)
        self._ids = RequestIds(entropy)
        # The space at the end is DynamoDB's.
        self._health = f"healthy: dynamodb.{policy.region or 'us-east-1'}.amazonaws.com ".encode()
        # Whether every answer is to be its connection's last.
        self.stopping = False

    async def serve(self, machine: Connection, request: Request) -> bytes:
        """The bytes of the answer to ``request``, which ``machine`` has read."""
        request_id = self._ids.next()
        content_type, cors, status = AMZ_JSON, b"", 200
        reading = None
        try:
            cors = self._gate.admit(request)
            if request.method != b"POST" or request.path != b"/":
                return await self._serve_other(machine, request, request_id, cors)
            headers = request.headers
            kind = headers.get(b"content-type", b"")
            if kind != AMZ_JSON:
                kind = kind.partition(b";")[0].strip().lower()
                if kind == _JSON:
                    content_type = _JSON
                elif kind != AMZ_JSON and request.payload:
                    return self._respond_text(machine, 404, _NO_PROTOCOL, request_id, cors)
            identity = self._verifier.verify(request, self._clock())
            target = headers.get(b"x-amz-target")
            if target is None:
                raise UnknownOperationException
            body = request.payload
            coding = headers.get(b"content-encoding")
            if coding is not None:
                body = inflate(body, coding)
            trace = headers.get(TRACE_HEADER)
            level = headers.get(CONSISTENCY_HEADER)
            if level is not None:
                now_ms = int(self._clock() * 1000)
                reading = Reading(parse_demand(level.decode("latin-1"), now_ms))
            caller = Caller(
                identity.namespace,
                identity.access_key,
                identity.region,
                request_id,
                identity.functions,
                0 if trace is None else hops_of(trace.decode("latin-1")),
                reading,
            )
            answer = await self._dispatcher.dispatch(target.decode("latin-1"), body, caller)
        except Exception as error:
            if is_assertion(error):
                raise
            wire = to_wire(error, request_id)
            if wire.status == 500:
                _log.error("request %s: %s", request_id, describe(error))
            answer, status = wire.body(), wire.status
            cors += wire.header_lines()
        if reading is not None:
            # What a refusal tells of an item counts too.
            cors += b"x-millstream-session: %b\r\n" % encode_token(reading.token()).encode()
        return machine.respond(
            status,
            answer,
            request_id,
            content_type=content_type,
            extra=cors,
            close=self.stopping,
        )

    def refusal(self, machine: Connection, error: WireError) -> bytes:
        """The bytes that tell ``error`` as the connection's last answer."""
        return machine.respond(
            error.status, error.body(), self._ids.next(), extra=error.header_lines(), close=True
        )

    def judge_size(self, request: Request, size_bytes: int) -> WireError | None:
        """Why a body of so many bytes is refused before it is read, if it is.

        ``request`` is without its payload; asked only about bodies that no operation may have.
        """
        if self._lambdas is None or not self._lambdas.covers(request):
            return RequestEntityTooLarge()
        try:
            self._gate.admit(request)
            self._gate.admit_code(request)
        except WireError as error:
            return error
        return self._lambdas.judge_size(request, size_bytes)

    async def _serve_other(
        self, machine: Connection, request: Request, request_id: str, cors: bytes
    ) -> bytes:
        """Whatever is not a call: health, a preflight, or nothing that is here."""
        if request.method == b"OPTIONS":
            lines = self._gate.preflight(request, cors)
            return self._respond_text(machine, 200, b"", request_id, lines)
        if request.method in (b"GET", b"HEAD") and request.path == b"/":
            return self._respond_text(machine, 200, self._health, request_id, cors)
        if self._lambdas is not None and self._lambdas.covers(request):
            self._gate.admit_code(request)
            return await self._lambdas.serve(machine, request, cors, self.stopping)
        raise NotFoundException(
            "There is nothing here: calls are POST requests to /, and GET / tells the health."
        )

    def _respond_text(
        self, machine: Connection, status: int, text: bytes, request_id: str, extra: bytes
    ) -> bytes:
        return machine.respond(
            status, text, request_id, content_type=_TEXT, extra=extra, close=self.stopping
        )
