"""What goes wrong, as the wire tells it: one class per DynamoDB ``__type``.

The names and prefixes are DynamoDB's: what its operations raise is modelled under
``com.amazonaws.dynamodb.v20120810``, what the service framework refuses before an operation is
under ``com.amazon.coral``. ``to_wire`` is the only mapping from the domain's errors to these;
whatever it does not know is an ``InternalServerError``, whose cause goes to the log and never to
the client. ``describe`` makes the text for the log: an exception's own message may quote an item's
values, so only the types and the places are told, with the message only of errors that are known
to speak about files and settings.
"""

from __future__ import annotations

import traceback
from typing import Any, ClassVar

import msgspec

from ..errors import (
    ConditionFailed,
    ConfigurationError,
    IdempotentParameterMismatch,
    InvalidRequest,
    ItemCollectionTooLarge,
    LimitExceeded,
    MalformedRequest,
    MillstreamError,
    OutcomeUnknown,
    ResourceInUse,
    ResourceNotFound,
    StaleReplica,
    StorageError,
    Throttled,
    TransactionCanceled,
    TransactionConflict,
    TransactionInProgress,
    Unavailable,
)

_DYNAMODB = "com.amazonaws.dynamodb.v20120810#"
_SERVICE = "com.amazon.coral.service#"
_VALIDATE = "com.amazon.coral.validate#"
_AVAILABILITY = "com.amazon.coral.availability#"


class WireError(MillstreamError):
    """An answer that is an error. ``message`` None leaves the member out, as AWS does at times."""

    type_name: str
    status: int = 400
    message_member: ClassVar[str] = "message"
    message_default: ClassVar[str | None] = None

    def __init__(self, message: str | None = None) -> None:
        self.message = self.message_default if message is None else message
        super().__init__(self.message or type(self).__name__)

    def members(self) -> dict[str, Any]:
        """What the body has besides the type and the message."""
        return {}

    def header_lines(self) -> bytes:
        """What the answer's head has besides the usual."""
        return b""

    def body(self) -> bytes:
        """The JSON of the answer. A text that is not Unicode is told with replacements."""
        answer: dict[str, Any] = {"__type": self.type_name}
        if self.message is not None:
            # A lone surrogate cannot be encoded; an error about it must still be told.
            answer[self.message_member] = self.message.encode("utf-8", "replace").decode()
        answer.update(self.members())
        return msgspec.json.encode(answer)


# What the framework refuses before there is an operation.


class UnknownOperationException(WireError):
    type_name = _SERVICE + "UnknownOperationException"


class SerializationException(WireError):
    """The body is not JSON, or a member has the wrong JSON type."""

    type_name = _SERVICE + "SerializationException"
    message_member = "Message"


class BadRequestException(WireError):
    """Not HTTP, or HTTP that is not understood. AWS's front end has no ``__type`` for this."""

    type_name = _SERVICE + "BadRequestException"


class NotFoundException(WireError):
    """A path or a method that is not served."""

    type_name = _SERVICE + "NotFoundException"
    status = 404


class RequestTimeoutException(WireError):
    """The request did not arrive in time."""

    type_name = _SERVICE + "RequestTimeoutException"
    status = 408


class RequestEntityTooLarge(WireError):
    type_name = _SERVICE + "RequestEntityTooLarge"
    status = 413
    message_default = "The request is larger than 16 MB, which is the most that is accepted."


class UnsupportedMediaTypeException(WireError):
    """A content coding that is not understood."""

    type_name = _SERVICE + "UnsupportedMediaTypeException"
    status = 415


class RequestHeaderTooLarge(WireError):
    type_name = _SERVICE + "RequestHeaderTooLarge"
    status = 431


class ServiceUnavailable(WireError):
    type_name = _AVAILABILITY + "ServiceUnavailable"
    status = 503
    message_default = "DynamoDB is currently unavailable."


class ThrottlingException(WireError):
    type_name = _AVAILABILITY + "ThrottlingException"
    message_default = "Rate of requests exceeds the allowed throughput."

    def __init__(
        self, message: str | None = None, reasons: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(message)
        self.reasons = reasons

    def members(self) -> dict[str, Any]:
        return {"throttlingReasons": _throttling(self.reasons)} if self.reasons else {}


# Who is asking.


class AccessDeniedException(WireError):
    type_name = _SERVICE + "AccessDeniedException"
    message_member = "Message"


class ForbiddenException(WireError):
    """A page of another site is asking (a foreign Origin or Host); see ``gate.py``."""

    type_name = _SERVICE + "AccessDeniedException"
    status = 403
    message_member = "Message"


class MissingAuthenticationTokenException(WireError):
    type_name = _SERVICE + "MissingAuthenticationTokenException"
    message_default = (
        "Request must contain either a valid (registered) AWS access key ID or X.509 certificate."
    )


class IncompleteSignatureException(WireError):
    type_name = _SERVICE + "IncompleteSignatureException"


class InvalidSignatureException(WireError):
    type_name = _SERVICE + "InvalidSignatureException"


class UnrecognizedClientException(WireError):
    type_name = _SERVICE + "UnrecognizedClientException"
    message_default = "The security token included in the request is invalid."


class ExpiredTokenException(WireError):
    type_name = _SERVICE + "ExpiredTokenException"
    message_default = "The security token included in the request is expired"


# What the operations say.


class ValidationException(WireError):
    type_name = _VALIDATE + "ValidationException"


class ConditionalCheckFailedException(WireError):
    """``item`` is the stored JSON, spliced in as it is."""

    type_name = _DYNAMODB + "ConditionalCheckFailedException"
    message_default = "The conditional request failed"

    def __init__(self, message: str | None = None, item: bytes | None = None) -> None:
        super().__init__(message)
        self.item = item

    def members(self) -> dict[str, Any]:
        return {} if self.item is None else {"Item": msgspec.Raw(self.item)}


class ResourceNotFoundException(WireError):
    type_name = _DYNAMODB + "ResourceNotFoundException"
    message_default = "Requested resource not found"


class ResourceInUseException(WireError):
    type_name = _DYNAMODB + "ResourceInUseException"


class LimitExceededException(WireError):
    type_name = _DYNAMODB + "LimitExceededException"


class ReplicaNotCaughtUpException(WireError):
    """Ours: a level of consistency cannot be had now. SDKs retry whatever has the status 503."""

    type_name = _DYNAMODB + "ReplicaNotCaughtUpException"
    status = 503


# What only the operations of 2017's global tables say.


class TableNotFoundException(WireError):
    type_name = _DYNAMODB + "TableNotFoundException"


class IndexNotFoundException(WireError):
    type_name = _DYNAMODB + "IndexNotFoundException"


class GlobalTableAlreadyExistsException(WireError):
    type_name = _DYNAMODB + "GlobalTableAlreadyExistsException"


class GlobalTableNotFoundException(WireError):
    type_name = _DYNAMODB + "GlobalTableNotFoundException"


class ReplicaAlreadyExistsException(WireError):
    type_name = _DYNAMODB + "ReplicaAlreadyExistsException"


class ReplicaNotFoundException(WireError):
    type_name = _DYNAMODB + "ReplicaNotFoundException"


# The rest of what any operation says.


class ItemCollectionSizeLimitExceededException(WireError):
    type_name = _DYNAMODB + "ItemCollectionSizeLimitExceededException"
    message_default = "Collection size exceeded."


class ProvisionedThroughputExceededException(WireError):
    type_name = _DYNAMODB + "ProvisionedThroughputExceededException"
    message_default = (
        "The level of configured provisioned throughput for the table was exceeded. "
        "Consider increasing your provisioning level with the UpdateTable API."
    )

    def __init__(
        self, message: str | None = None, reasons: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(message)
        self.reasons = reasons

    def members(self) -> dict[str, Any]:
        return {"ThrottlingReasons": _throttling(self.reasons)} if self.reasons else {}


class RequestLimitExceeded(ProvisionedThroughputExceededException):
    type_name = _DYNAMODB + "RequestLimitExceeded"
    message_default = (
        "Throughput exceeds the current throughput limit for your account. "
        "Please contact AWS Support at https://aws.amazon.com/support request a limit increase"
    )


class TransactionConflictException(WireError):
    type_name = _DYNAMODB + "TransactionConflictException"
    message_default = "Transaction is ongoing for the item"


class TransactionCanceledException(WireError):
    type_name = _DYNAMODB + "TransactionCanceledException"
    message_member = "Message"

    def __init__(self, message: str, reasons: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.reasons = reasons

    def members(self) -> dict[str, Any]:
        return {"CancellationReasons": self.reasons}


class TransactionInProgressException(WireError):
    """The sentence is AWS's (aws-sdk-java-v2, issue 2518)."""

    type_name = _DYNAMODB + "TransactionInProgressException"
    message_member = "Message"
    message_default = "Transaction from previous request is still in progress"


class IdempotentParameterMismatchException(WireError):
    """AWS's sentence is not on record; this is the API reference's."""

    type_name = _DYNAMODB + "IdempotentParameterMismatchException"
    message_member = "Message"
    message_default = (
        "DynamoDB rejected the request because you retried a request with a different payload "
        "but with an idempotent token that was already used."
    )


class ExpiredIteratorException(WireError):
    type_name = _DYNAMODB + "ExpiredIteratorException"


class TrimmedDataAccessException(WireError):
    type_name = _DYNAMODB + "TrimmedDataAccessException"


class InternalServerError(WireError):
    type_name = _DYNAMODB + "InternalServerError"
    status = 500
    message_default = "Internal server error"


_BY_MESSAGE: dict[type[MillstreamError], type[WireError]] = {
    InvalidRequest: ValidationException,
    MalformedRequest: SerializationException,
    ResourceNotFound: ResourceNotFoundException,
    ResourceInUse: ResourceInUseException,
    LimitExceeded: LimitExceededException,
    ItemCollectionTooLarge: ItemCollectionSizeLimitExceededException,
    TransactionConflict: TransactionConflictException,
    StaleReplica: ReplicaNotCaughtUpException,
    Unavailable: ServiceUnavailable,
}


def to_wire(error: Exception, request_id: str = "") -> WireError:
    """The answer that ``error`` becomes; the request's id is named where only the log knows more.

    An unknown outcome is a 500, which SDKs retry and which DynamoDB documents as "may or may not
    have succeeded".
    """
    match error:
        case WireError():
            return error
        case ConditionFailed():
            return ConditionalCheckFailedException(str(error), error.item)
        case TransactionCanceled():
            return TransactionCanceledException(str(error), error.reasons)
        # What the client did wrong with its token is told in DynamoDB's words, not the engine's.
        case TransactionInProgress():
            return TransactionInProgressException()
        case IdempotentParameterMismatch():
            return IdempotentParameterMismatchException()
        case Throttled():
            return ProvisionedThroughputExceededException(str(error) or None, error.reasons)
        case OutcomeUnknown():
            return InternalServerError(
                f"The outcome of the write is not known: it may or may not become visible. "
                f"Request ID: {request_id}"
            )
    for ancestor in type(error).__mro__:
        if ancestor in _BY_MESSAGE:
            return _BY_MESSAGE[ancestor](str(error) or None)
    return InternalServerError(f"Internal server error. Request ID: {request_id}")


def is_assertion(error: Exception) -> bool:
    """Whether millstream itself is wrong: then nothing is answered, and the node stops."""
    if isinstance(error, ExceptionGroup):
        return error.subgroup(AssertionError) is not None
    return isinstance(error, AssertionError)


def describe(error: BaseException) -> str:
    """``error`` with its causes for the log: types and places, no message that may quote data."""
    lines: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        lines.extend(traceback.format_tb(current.__traceback__))
        told = f": {current}" if isinstance(current, (StorageError, ConfigurationError)) else ""
        lines.append(f"{type(current).__module__}.{type(current).__qualname__}{told}\n")
        if isinstance(current, BaseExceptionGroup):
            lines.extend("| " + describe(inner) + "\n" for inner in current.exceptions)
        hidden = current.__cause__ is None and current.__suppress_context__
        current = None if hidden else current.__cause__ or current.__context__
        if current is not None:
            lines.append("after\n")
    return "".join(lines).rstrip("\n")


def _throttling(reasons: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    return [{"reason": reason, "resource": resource} for reason, resource in reasons]
