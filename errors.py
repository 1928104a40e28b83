"""What can go wrong, as a tree. A class exists only where some caller reacts differently.

::

    MillstreamError
    +-- RequestError               the request is refused; nothing has changed
    |   +-- InvalidRequest         malformed or against the rules
    |   +-- MalformedRequest       not even decodable: wrong JSON types
    |   +-- ConditionFailed        the item did not meet the condition (carries the item)
    |   +-- ResourceNotFound       no such table or index
    |   +-- ResourceInUse          exists already, or is in the wrong state
    |   +-- LimitExceeded          an account or control-plane limit
    |   +-- ItemCollectionTooLarge one partition key's items with a local index above 10 GB
    |   +-- TransactionConflict    another transaction holds the item
    |   +-- TransactionCanceled    with one reason an action
    |   +-- TransactionInProgress  the same token is being worked on
    |   +-- IdempotentParameterMismatchsame token, other request
    |   +-- Throttled              over capacity, or this partition's queue is full: retry later
    +-- Unavailable                not served now (stopping, recovering); nothing has changed; retry
    |   +-- StaleReplica           this region does not have yet what the read was to see
    +-- OutcomeUnknown             the write may or may not become visible; never told as a failure
    +-- StorageError
    |   +-- Corrupt                bytes on disk are not what was written; nothing is guessed
    |   +-- Trimmed                this part of the log is gone by policy
    |   +-- Conflict               a conditional append lost: someone else wrote there
    |   +-- Ambiguous              an append or a sync failed midway: reopen and reread the tail
    |   +-- WrongFormat            a newer or a foreign format: refused, never guessed
    |   +-- DirectoryInUse         another process holds the data directory
    +-- LinkError                  what came over a link cannot be read or trusted: the link ends
    |   +-- LinkRefused            one side will not have this link: dialling at once is no use
    |   +-- LinkLost               the link has ended, or cannot be had: dial again
    +-- ConfigurationError         a setting is unknown, malformed or unsafe

Wire errors (one class per DynamoDB ``__type``) live in ``api/errors.py`` with the one mapping from
these. ``AssertionError`` is never caught: it means millstream itself is wrong, and the node stops.
"""

from __future__ import annotations

from typing import Any


class MillstreamError(Exception):
    """The root: everything that millstream raises on purpose."""


class RequestError(MillstreamError):
    """The request is refused and nothing has changed."""


class InvalidRequest(RequestError):
    """Against DynamoDB's rules; the message is DynamoDB's."""


class MalformedRequest(RequestError):
    """A member has the wrong JSON type, so that the request could not be read at all."""


class ConditionFailed(RequestError):
    """The condition was false.

    ``item`` is the item's DynamoDB-JSON bytes at that moment, or None if it does not exist or was
    not asked for.
    """

    def __init__(self, item: bytes | None = None) -> None:
        super().__init__("The conditional request failed")
        self.item = item


class ResourceNotFound(RequestError):
    """No such table, index or resource."""


class ResourceInUse(RequestError):
    """The resource exists already or is in a state that forbids the operation."""


class LimitExceeded(RequestError):
    """A control-plane or account limit."""


class ItemCollectionTooLarge(RequestError):
    """The items under one partition key, with local index entries, would exceed 10 GB."""


class TransactionConflict(RequestError):
    """A transaction in progress holds the item."""


class TransactionCanceled(RequestError):
    """A transaction was refused; ``reasons`` has one entry per action, in order."""

    def __init__(self, message: str, reasons: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.reasons = reasons


class TransactionInProgress(RequestError):
    """A transaction with the same client token is under way."""


class IdempotentParameterMismatch(RequestError):
    """The client token was used within ten minutes for a request that said something else."""


class Throttled(RequestError):
    """Over capacity, or a queue is full. ``reasons`` are DynamoDB's ThrottlingReasons."""

    def __init__(self, message: str, reasons: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.reasons = reasons


class Unavailable(MillstreamError):
    """Not served at this moment; nothing has changed; the same call may succeed later."""


class StaleReplica(Unavailable):
    """A level of consistency could not be had within its wait; the message says what is behind."""


class OutcomeUnknown(MillstreamError):
    """The write may or may not become visible."""


class StorageError(MillstreamError):
    """What the disk, the log or the tree could not do."""


class Corrupt(StorageError):
    """Bytes on disk are not what was written."""


class Trimmed(StorageError):
    """The entries asked for are below the first one kept. ``first_lsn`` is the first readable."""

    def __init__(self, message: str, first_lsn: int) -> None:
        super().__init__(message)
        self.first_lsn = first_lsn


class Conflict(StorageError):
    """A conditional append did not find the tail that it expected. ``tail`` is the tail found."""

    def __init__(self, message: str, tail: int) -> None:
        super().__init__(message)
        self.tail = tail


class Ambiguous(StorageError):
    """An append may or may not be durable; the log must be reopened and its tail reread."""


class WrongFormat(StorageError):
    """Written by a newer millstream, by another engine, or not by millstream."""


class DirectoryInUse(StorageError):
    """Another process holds the data directory."""


class LinkError(MillstreamError):
    """A link between regions carried what cannot be read or trusted, and has ended."""


class LinkRefused(LinkError):
    """This side or the other will not have the link: versions, secrets or regions differ."""


class LinkLost(LinkError):
    """The link has ended, or nobody answered. What was sent last may or may not have arrived."""


class ConfigurationError(MillstreamError):
    """A setting is unknown, malformed or unsafe."""
