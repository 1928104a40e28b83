"""What goes wrong, as Lambda's API tells it: a status, a header with the type, and a message.

The protocol is REST-JSON: the type is in ``x-amzn-ErrorType``, the body has ``Type`` (whose fault
it is) and the message. ``to_lambda`` is the only mapping from the domain's errors, and from the
signature's, to these. Wording and statuses: the Lambda API reference, botocore's service model.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import msgspec

from ..errors import (
    ConditionFailed,
    InvalidRequest,
    LimitExceeded,
    MalformedRequest,
    OutcomeUnknown,
    ResourceInUse,
    ResourceNotFound,
    Throttled,
    Unavailable,
)
from .errors import WireError

_CONSTRAINT = re.compile(r"[0-9]+ validation errors? detected: ")


class LambdaError(WireError):
    """An answer of Lambda's API that is an error."""

    #: ``User`` or ``Service``; None for what is refused before there is an operation.
    fault: ClassVar[str | None] = "User"

    def header_lines(self) -> bytes:
        return b"x-amzn-ErrorType: %b\r\n" % self.type_name.encode("latin-1")

    def members(self) -> dict[str, Any]:
        return {} if self.fault is None else {"Type": self.fault}

    def body(self) -> bytes:
        answer = self.members()
        # A lone surrogate cannot be encoded; an error about it must still be told.
        answer[self.message_member] = (self.message or "").encode("utf-8", "replace").decode()
        return msgspec.json.encode(answer)


class InvalidParameterValueException(LambdaError):
    type_name = "InvalidParameterValueException"


class ValidationException(LambdaError):
    """A constraint of the service's model is violated."""

    type_name = "ValidationException"
    fault = None


class InvalidRequestContentException(LambdaError):
    """The body is not the JSON that it should be."""

    type_name = "InvalidRequestContentException"


class ResourceNotFoundException(LambdaError):
    type_name = "ResourceNotFoundException"
    status = 404
    message_member = "Message"


class ResourceConflictException(LambdaError):
    type_name = "ResourceConflictException"
    status = 409


class ResourceInUseException(LambdaError):
    type_name = "ResourceInUseException"
    message_member = "Message"


class PreconditionFailedException(LambdaError):
    type_name = "PreconditionFailedException"
    status = 412
    message_default = (
        "The RevisionId provided does not match the latest RevisionId. Call the GetFunction/"
        "GetAlias API operation to retrieve the latest RevisionId"
    )


class RequestTooLargeException(LambdaError):
    """Of Invoke."""

    type_name = "RequestTooLargeException"
    status = 413


class RequestEntityTooLargeException(LambdaError):
    """Of everything else."""

    type_name = "RequestEntityTooLargeException"
    status = 413


class CodeStorageExceededException(LambdaError):
    type_name = "CodeStorageExceededException"


class TooManyRequestsException(LambdaError):
    type_name = "TooManyRequestsException"
    status = 429
    message_default = "Rate Exceeded."

    def members(self) -> dict[str, Any]:
        return {**super().members(), "Reason": "ConcurrentInvocationLimitExceeded"}


class AccessDeniedException(LambdaError):
    type_name = "AccessDeniedException"
    status = 403
    message_member = "Message"
    fault = None


class UnknownOperationException(LambdaError):
    """A path or a method that is not served."""

    type_name = "UnknownOperationException"
    status = 404
    fault = None


class RecursiveInvocationException(LambdaError):
    type_name = "RecursiveInvocationException"
    message_member = "Message"
    message_default = (
        "Lambda has detected your function being invoked in a recursive loop with other Amazon Web "
        "Services resources and stopped your function's invocation."
    )


class ServiceException(LambdaError):
    type_name = "ServiceException"
    status = 500
    message_member = "Message"
    fault = "Service"


class ServiceUnavailableException(LambdaError):
    type_name = "ServiceUnavailableException"
    status = 503
    message_member = "Message"
    fault = "Service"


class _Refused(LambdaError):
    """What was said before there was an operation, in this protocol."""

    fault = None

    def __init__(self, error: WireError) -> None:
        super().__init__(error.message)
        self.type_name = error.type_name.rpartition("#")[2]
        # DynamoDB answers 400 to a bad signature, all other services 403.
        signature = error.status == 400 and self.type_name in _OF_SIGNATURES
        self.status = 403 if signature else error.status


_OF_SIGNATURES = frozenset({
    "AccessDeniedException",
    "ExpiredTokenException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "UnrecognizedClientException",
})  # fmt: skip


def to_lambda(error: Exception, request_id: str) -> LambdaError:
    """The answer that ``error`` becomes."""
    text = str(error)
    match error:
        case LambdaError():
            return error
        case WireError():
            return _Refused(error)
        case InvalidRequest():
            # AWS's front answers the one, the service behind it the other.
            if _CONSTRAINT.match(text) is not None:
                return ValidationException(text)
            return InvalidParameterValueException(text)
        case MalformedRequest():
            return InvalidRequestContentException(f"Could not parse request body into json: {text}")
        case ResourceNotFound():
            return ResourceNotFoundException(text)
        case ResourceInUse():
            return ResourceConflictException(text)
        case ConditionFailed():
            return PreconditionFailedException()
        case LimitExceeded():
            return CodeStorageExceededException(text)
        case Throttled():
            return TooManyRequestsException()
        case Unavailable():
            return ServiceUnavailableException(text or None)
        case OutcomeUnknown():
            return ServiceException(
                "The outcome of the request is not known: it may or may not have taken effect. "
                f"Request ID: {request_id}"
            )
    return ServiceException(
        f"An error occurred and the request cannot be processed. Request ID: {request_id}"
    )
