"""A server with ``--credentials``: botocore's real signatures, right and wrong."""

from __future__ import annotations

import datetime

import boto3
import botocore.auth
import pytest
from botocore.exceptions import ClientError

from millstream.demo.node import Node

FILE = """
[default]
aws_access_key_id = AKIARIGHT
aws_secret_access_key = the/right/secret
[session]
aws_access_key_id = ASIASESSION
aws_secret_access_key = another/secret
aws_session_token = a-token
"""


@pytest.fixture(scope="module")
def guarded(request, tmp_path_factory):
    """The URL of a server that verifies; never another endpoint, whose keys are not ours."""
    if request.config.getoption("--url"):
        pytest.skip("another endpoint has other credentials")
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "credentials").write_text(FILE, encoding="utf-8")
    node = Node(["--in-memory", "--credentials", str(folder / "credentials")], folder / "node.log")
    node.start()
    yield node.endpoint
    assert node.stop() == 0


@pytest.fixture
def signed(guarded):
    """Makes clients with these keys."""
    made = []

    def make(access_key, secret, region="us-east-1", token=None):
        client = boto3.session.Session(
            aws_access_key_id=access_key,
            aws_secret_access_key=secret,
            aws_session_token=token,
            region_name=region,
        ).client("dynamodb", endpoint_url=guarded)
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


def refusal(client):
    with pytest.raises(ClientError) as caught:
        client.list_tables()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return caught.value.response["Error"]["Code"]


def test_the_right_key_and_secret(signed):
    assert signed("AKIARIGHT", "the/right/secret").list_tables()["TableNames"] == []


def test_a_wrong_key(signed):
    assert refusal(signed("AKIAWRONG", "the/right/secret")) == "UnrecognizedClientException"


def test_a_wrong_secret(signed):
    assert refusal(signed("AKIARIGHT", "a/wrong/secret")) == "InvalidSignatureException"


def test_a_session_needs_its_token(signed):
    session = signed("ASIASESSION", "another/secret", token="a-token")
    assert session.list_tables()["TableNames"] == []
    without = signed("ASIASESSION", "another/secret")
    assert refusal(without) == "UnrecognizedClientException"


def test_another_region_is_another_service(signed):
    # The signature's scope names the region; with credentials it is compared.
    other = signed("AKIARIGHT", "the/right/secret", region="eu-west-1")
    assert refusal(other) == "InvalidSignatureException"


def test_a_clock_that_is_wrong(signed, monkeypatch):
    # 15 minutes are allowed. botocore asks this function for the time.
    client = signed("AKIARIGHT", "the/right/secret")
    late = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=20)
    monkeypatch.setattr(
        botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: late.replace(tzinfo=None)
    )
    assert refusal(client) == "InvalidSignatureException"


def test_a_body_that_was_changed_on_its_way(signed):
    # The signature covers the body's hash.
    client = signed("AKIARIGHT", "the/right/secret")

    def change(request, **_):
        request.body = request.body.replace(b"{}", b"{ }")
        request.headers["Content-Length"] = str(len(request.body))

    client.meta.events.register("before-send.dynamodb.ListTables", change)
    assert refusal(client) == "InvalidSignatureException"
