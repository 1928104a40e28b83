"""What handlers are given and what becomes of them, as values; shared by node and worker.

An exception is told as Lambda tells it: type, message and a stack trace whose lines begin with the
handler's own frame. The names of errors that are no exception are Lambda's too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from ..limits import (
    FAILURE_MESSAGE_CHARACTERS_MAX,
    FAILURE_TRACE_LINES_MAX,
    FUNCTION_ANSWER_BYTES_MAX,
)


class Returned(msgspec.Struct, frozen=True):
    """The handler returned ``payload``, which JSON can say."""

    payload: Any
    #: The last 4 KB of what it printed; of worker processes only.
    log_tail: str = ""


class Failed(msgspec.Struct, frozen=True):
    """It raised, ran out of time or memory, died, or returned what JSON cannot say."""

    error_type: str
    message: str
    trace: list[str] = []
    log_tail: str = ""


Result: TypeAlias = Returned | Failed


class Invocation(msgspec.Struct, frozen=True):
    """What a handler's context is made of."""

    request_id: str
    function_name: str
    function_arn: str
    version: str
    memory_limit_mb: int
    timeout_seconds: float
    #: ``X-Amzn-Trace-Id``, with lineage; "" for none.
    trace_id: str = ""
    #: The JSON of Invoke's ClientContext, decoded from base64; "" for none.
    client_context: str = ""


def timed_out(request_id: str, seconds: float, more: str = "") -> Failed:
    message = f"{request_id} Task timed out after {seconds:.2f} seconds{more}"
    return Failed("Sandbox.Timedout", message)


def exited(request_id: str, how: str) -> Failed:
    message = f"RequestId: {request_id} Error: Runtime exited {how}"
    return Failed("Runtime.ExitError", message)


def raised(error: BaseException, beneath: Sequence[str]) -> Failed:
    """What Lambda tells of an exception.

    ``beneath``: beginnings of the file names of those frames that called the handler, which are
    nobody's business but ours.
    """
    # Only a failure pays for it: a worker starts without.
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    own = next(
        (place for place, at in enumerate(frames) if not at.filename.startswith(tuple(beneath))),
        len(frames),
    )
    trace = traceback.format_list(frames[own:])
    if len(trace) > FAILURE_TRACE_LINES_MAX:
        half = FAILURE_TRACE_LINES_MAX // 2
        trace = [*trace[:half], f"  ... {len(trace) - 2 * half} more\n", *trace[-half:]]
    return Failed(type(error).__name__, _message(error), trace)


def _message(error: BaseException) -> str:
    try:
        message = str(error)
    except Exception as second:  # noqa: BLE001 - the user's code
        message = f"<{type(second).__name__} when asked for its message>"
    # What cannot be said in UTF-8 cannot travel.
    readable = message[:FAILURE_MESSAGE_CHARACTERS_MAX]
    return readable.encode(errors="backslashreplace").decode()


def marshal(value: object) -> bytes | Failed:
    """The JSON of what a handler returned, or why there is none."""
    if value is None:
        return b"null"
    import json

    try:
        text = json.dumps(value, default=_decimal, allow_nan=False, ensure_ascii=False)
        payload = text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        return Failed("Runtime.MarshalError", f"Unable to marshal response: {error}")
    if len(payload) > FUNCTION_ANSWER_BYTES_MAX:
        return Failed(
            "Function.ResponseSizeTooLarge",
            "Response payload size exceeded maximum allowed payload size "
            f"({FUNCTION_ANSWER_BYTES_MAX} bytes).",
        )
    return payload


def _decimal(value: object) -> object:
    # As Lambda's runtime does: DynamoDB's numbers come as Decimal.
    from decimal import Decimal

    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
