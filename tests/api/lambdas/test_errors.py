"""Each error of the domain, as Lambda's API tells it."""

from __future__ import annotations

import json

import pytest

from millstream.api.errors import ForbiddenException, MissingAuthenticationTokenException
from millstream.api.lambda_errors import ValidationException, to_lambda
from millstream.errors import (
    ConditionFailed,
    Corrupt,
    InvalidRequest,
    LimitExceeded,
    MalformedRequest,
    OutcomeUnknown,
    ResourceInUse,
    ResourceNotFound,
    Throttled,
    Unavailable,
)


@pytest.mark.parametrize(
    ("error", "name", "status", "body"),
    [
        (
            InvalidRequest("no"),
            "InvalidParameterValueException",
            400,
            {"Type": "User", "message": "no"},
        ),
        (
            InvalidRequest("2 validation errors detected: x"),
            "ValidationException",
            400,
            {"message": "2 validation errors detected: x"},
        ),
        (
            MalformedRequest("no"),
            "InvalidRequestContentException",
            400,
            {"Type": "User", "message": "Could not parse request body into json: no"},
        ),
        (
            ResourceNotFound("no"),
            "ResourceNotFoundException",
            404,
            {"Type": "User", "Message": "no"},
        ),
        (
            ResourceInUse("no"),
            "ResourceConflictException",
            409,
            {"Type": "User", "message": "no"},
        ),
        (ConditionFailed(), "PreconditionFailedException", 412, None),
        (
            Throttled("any"),
            "TooManyRequestsException",
            429,
            {
                "Type": "User",
                "message": "Rate Exceeded.",
                "Reason": "ConcurrentInvocationLimitExceeded",
            },
        ),
        (
            LimitExceeded("no"),
            "CodeStorageExceededException",
            400,
            {"Type": "User", "message": "no"},
        ),
        (
            Unavailable("no"),
            "ServiceUnavailableException",
            503,
            {"Type": "Service", "Message": "no"},
        ),
        (OutcomeUnknown("?"), "ServiceException", 500, None),
        (
            Corrupt("secret"),
            "ServiceException",
            500,
            {
                "Type": "Service",
                "Message": "An error occurred and the request cannot be processed. Request ID: id",
            },
        ),
        (ValueError("secret"), "ServiceException", 500, None),
        (ForbiddenException("no"), "AccessDeniedException", 403, {"message": "no"}),
        (
            MissingAuthenticationTokenException(),
            "MissingAuthenticationTokenException",
            403,
            None,
        ),
        (ValidationException("\ud800"), "ValidationException", 400, {"message": "?"}),
    ],
)
def test_error_becomes_lambdas(error, name, status, body):
    wire = to_lambda(error, "id")
    assert (wire.type_name, wire.status) == (name, status)
    assert wire.header_lines() == f"x-amzn-ErrorType: {name}\r\n".encode()
    told = json.loads(wire.body())
    assert body is None or told == body
    assert "secret" not in str(told)
