"""Fixtures for black-box tests: a running DynamoDB, ours or the one that ``--url`` names.

One node in memory serves the whole session; each test gets an access key that begins with ``ns-``
and with it a namespace of its own, so that tests neither see nor wait for each other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

_NAMESPACES = itertools.count(1)


@pytest.fixture(scope="session")
def endpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a DynamoDB that lives as long as the session."""
    from millstream.demo.node import Node

    url = request.config.getoption("--url")
    if url:
        yield str(url)
        return
    node = Node(["--in-memory"], tmp_path_factory.mktemp("node") / "node.log")
    node.start()
    try:
        yield node.endpoint
    finally:
        assert node.stop() == 0


@pytest.fixture
def access_key() -> str:
    """An access key that selects a namespace nobody else uses."""
    return f"ns-{next(_NAMESPACES)}"


@pytest.fixture
def aws(endpoint: str, access_key: str) -> Iterator[Callable[..., Any]]:
    """Makes boto3 clients or resources for this test's namespace: ``aws("client")``."""
    import boto3
    from botocore.config import Config

    made = []

    def make(kind: str, **options: Any) -> Any:
        session = boto3.session.Session(
            aws_access_key_id=access_key,
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )
        settings = Config(retries={"total_max_attempts": 1}, read_timeout=20)
        thing = getattr(session, kind)(
            "dynamodb", endpoint_url=endpoint, **{"config": settings, **options}
        )
        made.append(thing if kind == "client" else thing.meta.client)
        return thing

    yield make
    for client in made:
        client.close()


@pytest.fixture
def dynamodb(aws: Callable[..., Any]) -> Any:
    """A boto3 client for this test's namespace."""
    return aws("client")
