"""Lambda's Invoke: with the answer, in the background, or only asked whether it could be.

A handler that fails is a success of Invoke: status 200, ``X-Amz-Function-Error``, and a payload
that says what happened, shaped as Lambda's Python runtime shapes it.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64encode
from hashlib import sha256
from typing import Any

import msgspec

from ..actors.functions import Functions
from ..errors import InvalidRequest
from ..lambdas.functions import raise_violations, violation
from ..lambdas.results import Failed
from ..limits import (
    FUNCTION_LOG_TAIL_BYTES,
    INVOCATION_CONTEXT_CHARACTERS_MAX,
    INVOCATION_EVENT_BYTES_MAX,
    INVOCATION_PAYLOAD_BYTES_MAX,
    RECURSION_HOPS_MAX,
    TRACE_CHARACTERS_MAX,
)
from ..streams.lineage import TRACE_HEADER, hops_of, trace_of
from .lambda_calls import Answer, Call, RunInThread
from .lambda_errors import (
    InvalidRequestContentException,
    RecursiveInvocationException,
    RequestTooLargeException,
)
from .lambda_functions import name_called

_json = msgspec.json.Encoder().encode
_TYPES = ("Event", "RequestResponse", "DryRun")
_LOG_TYPES = ("None", "Tail")
_TRACE = re.compile(rf"[A-Za-z0-9=;:_.-]{{1,{TRACE_CHARACTERS_MAX}}}")
# Of those the environment tells nothing but these words; an exception has a trace.
_WITHOUT_TRACE = ("Sandbox.", "Runtime.ExitError", "Runtime.OutOfMemory", "Function.")
_UNSUPPORTED = {b"x-amz-tenant-id": "TenantId", b"x-amz-durable-execution-name": "DurableExecution"}


async def invoke(functions: Functions, call: Call, run: RunInThread) -> Answer:
    namespace = call.caller.namespace
    function = functions.get(namespace, name_called(functions, call))
    name = function.name
    kind, wants_log = _wishes(call)
    most = INVOCATION_EVENT_BYTES_MAX if kind == "Event" else INVOCATION_PAYLOAD_BYTES_MAX
    if len(call.payload) > most:
        raise RequestTooLargeException(
            f"Request must be smaller than {most} bytes for the InvokeFunction operation"
        )
    # Lambda too gives a handler an empty object where nothing was sent.
    payload = call.payload or b"{}"
    event = _event(payload)
    if kind == "DryRun":
        return Answer(204)
    trace_id = _trace_id(call, function.arn)
    context = _client_context(call.headers.get(b"x-amz-client-context"))
    told = b"X-Amzn-Trace-Id: %b\r\n" % trace_id.encode()
    if kind == "Event":
        functions.invoke_later(
            namespace,
            name,
            payload,
            request_id=call.request_id,
            trace_id=trace_id,
            client_context=context,
        )
        return Answer(202, b"", told)
    result = await functions.invoke(
        namespace,
        name,
        event,
        request_id=call.request_id,
        trace_id=trace_id,
        client_context=context,
        # A handler may be who calls.
        wait=False,
    )
    told += b"X-Amz-Executed-Version: $LATEST\r\n"
    if wants_log:
        tail = result.log_tail.encode("utf-8", "replace")[-FUNCTION_LOG_TAIL_BYTES:]
        told += b"X-Amz-Log-Result: %b\r\n" % b64encode(tail)
    if isinstance(result, Failed):
        told += b"X-Amz-Function-Error: Unhandled\r\n"
        return Answer(200, _json(_failure(result, call.request_id)), told)
    return Answer(200, _json(result.payload), told)


def _wishes(call: Call) -> tuple[str, bool]:
    """The InvocationType, and whether the log is wanted."""
    for header, name in _UNSUPPORTED.items():
        if header in call.headers:
            raise InvalidRequest(f"{name} is not supported by millstream.")
    kind = call.headers.get(b"x-amz-invocation-type", b"RequestResponse").decode("latin-1")
    log = call.headers.get(b"x-amz-log-type", b"None").decode("latin-1")
    violations = []
    for value, member, known in (
        (kind, "invocationType", _TYPES),
        (log, "logType", _LOG_TYPES),
    ):
        if value not in known:
            constraint = f"Member must satisfy enum value set: [{', '.join(known)}]"
            violations.append(violation(value, member, constraint))
    raise_violations(violations)
    return kind, log == "Tail"


def _event(payload: bytes) -> Any:
    try:
        return msgspec.json.decode(payload)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestContentException(
            f"Could not parse request body into json: Could not parse payload into json: {error}"
        ) from None


def _client_context(header: bytes | None) -> str:
    """The JSON in the header, "" if there is none."""
    if not header:
        return ""
    if len(header) > INVOCATION_CONTEXT_CHARACTERS_MAX:
        raise InvalidRequest(
            f"Client context must have at most {INVOCATION_CONTEXT_CHARACTERS_MAX} characters"
        )
    try:
        decoded = binascii.a2b_base64(header)
        if type(msgspec.json.decode(decoded)) is not dict:
            raise ValueError
        return decoded.decode()
    except ValueError:
        raise InvalidRequestContentException(
            "Client context must be a valid Base64-encoded JSON object."
        ) from None


def _trace_id(call: Call, arn: str) -> str:
    """What was sent, so that a chain of calls can be followed, or a new one; with this call.

    Raises RecursiveInvocationException where too many handlers have led to it.
    """
    sent = call.headers.get(TRACE_HEADER, b"").decode("latin-1")
    hops = hops_of(sent)
    if hops >= RECURSION_HOPS_MAX:
        raise RecursiveInvocationException
    trace = trace_of(call.request_id, sha256(arn.encode()).hexdigest(), hops + 1)
    if "Root=" not in sent or _TRACE.fullmatch(sent) is None:
        return trace
    kept = [part for part in sent.split(";") if not part.lower().startswith("lineage=")]
    return ";".join([*kept, trace.rpartition(";")[2]])


def _failure(failed: Failed, request_id: str) -> dict[str, Any]:
    told: dict[str, Any] = {"errorMessage": failed.message, "errorType": failed.error_type}
    if failed.trace or not failed.error_type.startswith(_WITHOUT_TRACE):
        told["requestId"] = request_id
        told["stackTrace"] = failed.trace
    return told
