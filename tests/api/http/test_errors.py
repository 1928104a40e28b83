"""Errors on the wire: types, statuses, members; and that the log never quotes a value."""

from __future__ import annotations

import inspect
import json

import botocore.session
import pytest

from millstream import errors as domain
from millstream.api import errors as wire
from millstream.api.errors import WireError, describe, to_wire

CORAL = "com.amazon.coral."
DYNAMODB = "com.amazonaws.dynamodb.v20120810#"
CLASSES = [
    value
    for value in vars(wire).values()
    if inspect.isclass(value) and issubclass(value, WireError) and value is not WireError
]


def body(error: Exception) -> dict[str, object]:
    found = json.loads(to_wire(error, "REQUEST").body())
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        (
            domain.InvalidRequest("no"),
            400,
            {"__type": CORAL + "validate#ValidationException", "message": "no"},
        ),
        (
            domain.MalformedRequest("no"),
            400,
            {"__type": CORAL + "service#SerializationException", "Message": "no"},
        ),
        (
            domain.ConditionFailed(),
            400,
            {
                "__type": DYNAMODB + "ConditionalCheckFailedException",
                "message": "The conditional request failed",
            },
        ),
        (
            domain.ConditionFailed(b'{"a":{"S":"\xc3\xa9"}}'),
            400,
            {
                "__type": DYNAMODB + "ConditionalCheckFailedException",
                "message": "The conditional request failed",
                "Item": {"a": {"S": "\u00e9"}},
            },
        ),
        (
            domain.ResourceNotFound("gone"),
            400,
            {"__type": DYNAMODB + "ResourceNotFoundException", "message": "gone"},
        ),
        (
            domain.ResourceInUse("busy"),
            400,
            {"__type": DYNAMODB + "ResourceInUseException", "message": "busy"},
        ),
        (
            domain.LimitExceeded("many"),
            400,
            {"__type": DYNAMODB + "LimitExceededException", "message": "many"},
        ),
        (
            domain.ItemCollectionTooLarge("large"),
            400,
            {"__type": DYNAMODB + "ItemCollectionSizeLimitExceededException", "message": "large"},
        ),
        (
            domain.TransactionConflict("conflict"),
            400,
            {"__type": DYNAMODB + "TransactionConflictException", "message": "conflict"},
        ),
        (
            domain.TransactionCanceled("why", [{"Code": "None"}, {"Code": "X", "Message": "m"}]),
            400,
            {
                "__type": DYNAMODB + "TransactionCanceledException",
                "Message": "why",
                "CancellationReasons": [{"Code": "None"}, {"Code": "X", "Message": "m"}],
            },
        ),
        (
            domain.TransactionInProgress("the engine's words"),
            400,
            {
                "__type": DYNAMODB + "TransactionInProgressException",
                "Message": "Transaction from previous request is still in progress",
            },
        ),
        (
            domain.IdempotentParameterMismatch("the engine's words"),
            400,
            {
                "__type": DYNAMODB + "IdempotentParameterMismatchException",
                "Message": "DynamoDB rejected the request because you retried a request with a "
                "different payload but with an idempotent token that was already used.",
            },
        ),
        (
            domain.Throttled("slow", (("TableReadProvisionedThroughputExceeded", "arn"),)),
            400,
            {
                "__type": DYNAMODB + "ProvisionedThroughputExceededException",
                "message": "slow",
                "ThrottlingReasons": [
                    {"reason": "TableReadProvisionedThroughputExceeded", "resource": "arn"}
                ],
            },
        ),
        (
            domain.Unavailable("stopping"),
            503,
            {"__type": CORAL + "availability#ServiceUnavailable", "message": "stopping"},
        ),
        (
            wire.UnknownOperationException(),
            400,
            {"__type": CORAL + "service#UnknownOperationException"},
        ),
        (
            wire.IdempotentParameterMismatchException("x"),
            400,
            {"__type": DYNAMODB + "IdempotentParameterMismatchException", "Message": "x"},
        ),
        (
            wire.ThrottlingException("x", (("r", "a"),)),
            400,
            {
                "__type": CORAL + "availability#ThrottlingException",
                "message": "x",
                "throttlingReasons": [{"reason": "r", "resource": "a"}],
            },
        ),
    ],
)
def test_domain_error_has_its_place_on_the_wire(error, status, expected):
    assert body(error) == expected
    assert to_wire(error).status == status


@pytest.mark.parametrize(
    "error", [ValueError("secret value"), domain.Corrupt("page 7"), KeyError("x"), MemoryError()]
)
def test_the_unexpected_is_a_500_that_tells_no_more_than_the_request(error):
    found = body(error)
    assert found["__type"] == DYNAMODB + "InternalServerError"
    assert found["message"] == "Internal server error. Request ID: REQUEST"
    assert to_wire(error).status == 500


def test_unknown_outcome_is_said_as_such():
    found = body(domain.OutcomeUnknown())
    assert found["__type"] == DYNAMODB + "InternalServerError"
    assert "it may or may not become visible" in str(found["message"])


def test_every_request_error_has_a_class_of_its_own():
    for value in vars(domain).values():
        if inspect.isclass(value) and issubclass(value, domain.RequestError):
            if value is domain.RequestError:
                continue
            arguments = ("x", []) if value is domain.TransactionCanceled else ("x",)
            made = (
                domain.ConditionFailed() if value is domain.ConditionFailed else value(*arguments)
            )
            assert to_wire(made).status == 400


def test_subclass_is_told_as_its_ancestor():
    class Special(domain.InvalidRequest):
        pass

    assert isinstance(to_wire(Special("x")), wire.ValidationException)


def test_names_and_members_are_those_of_the_service_model():
    session = botocore.session.get_session()
    modelled = {
        shape.name: shape
        for service in ("dynamodbstreams", "dynamodb")
        for shape in session.get_service_model(service).error_shapes
    }
    found = 0
    for kind in CLASSES:
        prefix, _, name = kind.type_name.partition("#")
        # One is ours: DynamoDB has no levels of consistency to fail at.
        if prefix + "#" == DYNAMODB and kind is not wire.ReplicaNotCaughtUpException:
            assert kind.message_member in modelled[name].members
            found += 1
    assert found > 10


def test_text_that_is_not_unicode_is_told_all_the_same():
    assert body(domain.InvalidRequest("a\ud800b"))["message"] == "a?b"


def test_log_has_types_and_places_but_no_values():
    def inner() -> None:
        raise KeyError("SECRET VALUE")

    try:
        try:
            inner()
        except KeyError as error:
            raise ExceptionGroup("SECRET GROUP", [error, ValueError("SECRET TOO")]) from error
    except ExceptionGroup as error:
        text = describe(error)
    assert "SECRET" not in text.replace('"SECRET', "")
    assert "builtins.KeyError" in text
    assert "builtins.ValueError" in text
    assert "in inner" in text


def test_log_tells_what_storage_says():
    assert describe(domain.Corrupt("segment 3 at 17")).endswith("Corrupt: segment 3 at 17")
