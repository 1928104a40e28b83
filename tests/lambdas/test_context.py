"""The context object, the environment of workers, and failures as values."""

import decimal

import pytest

from millstream.lambdas.context import LambdaContext
from millstream.lambdas.environment import Endpoint, Setup, function_environment
from millstream.lambdas.results import Failed, Invocation, marshal, raised
from millstream.limits import FUNCTION_ANSWER_BYTES_MAX

INVOCATION = Invocation(
    "8f5", "mod:fn<x>", "arn:aws:lambda:eu-west-1:0:function:f", "$LATEST", 256, 3.0,
    client_context='{"client":{"app_title":"t"},"custom":{"a":1},"env":{"b":2}}',
)  # fmt: skip


def test_the_context_offers_what_lambda_does():
    now = [100.0]
    logged = []
    context = LambdaContext(INVOCATION, lambda: now[0], logged.append, "tx", "stream")
    assert context.function_name == "mod:fn<x>"
    assert context.function_version == "$LATEST"
    assert context.invoked_function_arn == INVOCATION.function_arn
    assert context.memory_limit_in_mb == "256"
    assert context.aws_request_id == "8f5"
    assert context.log_group_name == "/aws/lambda/mod_fn_x_"
    assert context.log_stream_name == "stream"
    assert context.identity.cognito_identity_id is None
    assert context.client_context.custom == {"a": 1}
    assert context.client_context.env == {"b": 2}
    assert context.client_context.client.app_title == "t"
    assert context.transaction == "tx"
    assert context.get_remaining_time_in_millis() == 3000
    now[0] = 101.25
    assert context.get_remaining_time_in_millis() == 1750
    now[0] = 200
    assert context.get_remaining_time_in_millis() == 0
    context.log(7)
    assert logged == ["7"]
    context.anything = 1


def test_an_environment_is_lambdas_and_nothing_of_the_nodes():
    setup = Setup("f", "$LATEST", 128, "app.handler", "/code", "/runtime")
    endpoint = Endpoint("http://127.0.0.1:8000", "eu-west-1", "key", "secret")
    own = {"STAGE": "test", "AWS_REGION": "mine", "AWS_ENDPOINT_URL_DYNAMODB": "http://other"}
    node = {"PATH": "/bin", "AWS_PROFILE": "prod", "DATABASE_PASSWORD": "x", "PYTHONPATH": "/p"}
    found = function_environment(setup, endpoint, own, node)
    assert found["PATH"] == "/bin"
    assert found["STAGE"] == "test"
    assert not {"AWS_PROFILE", "DATABASE_PASSWORD", "PYTHONPATH", "AWS_SESSION_TOKEN"} & set(found)
    # Reserved names are Lambda's; where DynamoDB is, the function may know better.
    assert found["AWS_REGION"] == found["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert found["AWS_ENDPOINT_URL_DYNAMODB"] == "http://other"
    assert found["AWS_ENDPOINT_URL_DYNAMODB_STREAMS"] == "http://127.0.0.1:8000"
    assert found["AWS_ENDPOINT_URL_LAMBDA"] == "http://127.0.0.1:8000"
    assert (found["AWS_ACCESS_KEY_ID"], found["AWS_SECRET_ACCESS_KEY"]) == ("key", "secret")
    assert found["AWS_LAMBDA_FUNCTION_NAME"] == "f"
    assert found["AWS_LAMBDA_FUNCTION_VERSION"] == "$LATEST"
    assert found["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "128"
    assert found["AWS_LAMBDA_LOG_GROUP_NAME"] == "/aws/lambda/f"
    assert found["AWS_LAMBDA_LOG_STREAM_NAME"] == "[$LATEST]"
    assert found["AWS_EXECUTION_ENV"].startswith("AWS_Lambda_python3.")
    assert found["LAMBDA_TASK_ROOT"] == "/code"
    assert found["LAMBDA_RUNTIME_DIR"] == "/runtime"
    assert found["_HANDLER"] == "app.handler"
    assert found["TZ"] == ":UTC"


def test_answers_are_what_json_can_say():
    assert marshal(None) == b"null"
    numbers = {"a": [decimal.Decimal("1"), decimal.Decimal("0.5")], "é": True}
    assert marshal(numbers) == '{"a": [1, 0.5], "é": true}'.encode()


@pytest.mark.parametrize("value", [{1, 2}, {"a": b"x"}, object(), float("nan"), "\ud800"])
def test_what_json_cannot_say_is_a_failure(value):
    failed = marshal(value)
    assert isinstance(failed, Failed)
    assert failed.error_type == "Runtime.MarshalError"
    assert failed.message.startswith("Unable to marshal response: ")


def test_an_answer_has_at_most_six_megabytes():
    assert len(marshal("x" * (FUNCTION_ANSWER_BYTES_MAX - 2))) == FUNCTION_ANSWER_BYTES_MAX
    failed = marshal("x" * (FUNCTION_ANSWER_BYTES_MAX - 1))
    assert failed.error_type == "Function.ResponseSizeTooLarge"


def test_a_message_that_cannot_be_had_is_no_second_failure():
    class Nasty(Exception):
        def __str__(self):
            raise KeyError("x")

    assert raised(Nasty(), []).message == "<KeyError when asked for its message>"
    assert raised(ValueError("\ud800"), []).message == "\\ud800"


def test_an_endless_recursion_has_a_trace_of_bounded_length():
    def even(n):
        return odd(n - 1)

    def odd(n):
        return even(n - 1) if n > 0 else int("x")

    with pytest.raises(ValueError) as caught:
        even(300)
    trace = raised(caught.value, []).trace
    assert len(trace) == 101
    assert trace[50].strip().startswith("... ")
