"""A served node with functions whose invoker calls the handler in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import msgspec
import pytest
import trio
from botocore.config import Config

from millstream.actors.functions import Functions, open_functions
from millstream.actors.tables import ACCOUNT
from millstream.api.credentials import Credential, Credentials
from millstream.api.gate import Policy
from millstream.api.lambda_door import LambdaDoor
from millstream.api.lambda_routes import LambdaRoutes
from millstream.api.server import ServerLimits, serve_http
from millstream.errors import ResourceInUse, ResourceNotFound
from millstream.host.host import real_host
from millstream.host.network import open_listeners, port_of
from millstream.lambdas.settings import Mapping, MappingSettings
from millstream.tests.lambdas.fakes import FakeEntries, Invokers

OPEN = Policy(cors_origins=("*",), allow_hosts=("db.example",))
SIGNED = Policy(
    Credentials([
        Credential("may", "AKMAY", "secret", functions=True),
        Credential("other", "AKOTHER", "secret", namespace="other", functions=True),
        Credential("not", "AKNOT", "secret"),
    ]),
    "us-east-1",
)  # fmt: skip


class FakeMappings:
    """Event source mappings that no poller follows."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Mapping] = {}
        self.busy = False

    async def create(
        self, namespace: str, function_name: str, stream_arn: str, settings: MappingSettings
    ) -> Mapping:
        for row in self.rows.values():
            if (row.namespace, row.name, row.stream_arn) == (namespace, function_name, stream_arn):
                raise ResourceInUse("The event source mapping exists already.")
        uuid = f"00000000-0000-4000-8000-{len(self.rows):012d}"
        made = Mapping(
            uuid=uuid,
            namespace=namespace,
            name=function_name,
            is_function=True,
            table=stream_arn.split("/")[1],
            stream_arn=stream_arn,
            settings=settings,
            state="Enabled" if settings.enabled else "Disabled",
            state_transition_reason="USER_INITIATED",
            last_processing_result="No records processed",
            last_modified_ms=1_700_000_000_500,
        )
        self.rows[namespace, uuid] = made
        return made

    def get(self, namespace: str, uuid: str) -> Mapping | None:
        return self.rows.get((namespace, uuid))

    def list(self, namespace: str) -> list[Mapping]:
        return [row for row in self.rows.values() if row.namespace == namespace]

    async def update(
        self,
        namespace: str,
        uuid: str,
        settings: MappingSettings,
        function_name: str | None = None,
    ) -> Mapping:
        if self.busy:
            raise ResourceInUse("busy")
        before = self.rows[namespace, uuid]
        after = msgspec.structs.replace(
            before, settings=settings, name=function_name or before.name, state="Updating"
        )
        self.rows[namespace, uuid] = after
        return after

    async def delete(self, namespace: str, uuid: str) -> Mapping:
        if self.busy:
            raise ResourceInUse("busy")
        found = self.rows.pop((namespace, uuid), None)
        if found is None:
            raise ResourceNotFound(uuid)
        return msgspec.structs.replace(found, state="Deleting")


class Nothing:
    """A database without operations; says who called, so that data's door can be tried too."""

    async def dispatch(self, target: str, body: bytes, caller: Any) -> bytes:
        return msgspec.json.encode({"target": target, "namespace": caller.namespace})


class Served:
    """A running server, and what is behind it."""

    def __init__(self) -> None:
        self.port = 0
        self.functions: Functions
        self.invokers = Invokers()
        self.mappings = FakeMappings()
        self.entries = FakeEntries()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serving(policy: Policy, limits: ServerLimits | None = None) -> Iterator[Served]:
    """A server in a thread of its own, since SDKs block."""
    served, ready = Served(), threading.Event()
    stop: list[Callable[[], None]] = []
    errors: list[BaseException] = []

    async def main() -> None:
        host = real_host()
        listeners = open_listeners("127.0.0.1", 0)
        stopping = trio.Event()
        token = trio.lowlevel.current_trio_token()
        async with open_functions(
            host, None, served.entries, served.invokers, region="us-east-1", account=ACCOUNT
        ) as functions:
            served.functions = functions
            served.port = port_of(listeners)
            stop.append(lambda: token.run_sync_soon(stopping.set))
            routes = LambdaRoutes(
                functions, served.mappings, policy, host.clock.now_seconds, host.threads.run
            )

            async def load() -> LambdaRoutes:
                return routes

            ready.set()
            await serve_http(
                Nothing(),
                listeners,
                policy,
                clock=host.clock.now_seconds,
                entropy=host.entropy.token_bytes,
                limits=limits or ServerLimits(shutdown_seconds=1),
                lambdas=LambdaDoor(load, policy, ACCOUNT),
                stopping=stopping,
            )

    def run() -> None:
        try:
            trio.run(main)
        except BaseException as error:
            errors.append(error)
            raise
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    assert not errors
    try:
        yield served
    finally:
        stop[0]()
        thread.join(10)
        assert not thread.is_alive() and not errors


@pytest.fixture(scope="module")
def open_server() -> Iterator[Served]:
    """Without credentials; its operator lets every page and another host name use the data."""
    with serving(OPEN) as served:
        yield served


@pytest.fixture(scope="module")
def signed_server() -> Iterator[Served]:
    """With credentials."""
    with serving(SIGNED) as served:
        yield served


@pytest.fixture(scope="session")
def aws_session() -> Any:
    """One for all clients: each would read Lambda's model again."""
    return boto3.session.Session(region_name="us-east-1")


@pytest.fixture
def client_of(aws_session: Any) -> Iterator[Callable[..., Any]]:
    """Makes boto3's Lambda clients."""
    made = []

    def make(served: Served, access_key: str, secret: str = "secret") -> Any:
        client = aws_session.client(
            "lambda",
            endpoint_url=served.url,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret,
            config=Config(retries={"total_max_attempts": 1}, read_timeout=20),
        )
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(open_server: Served, client_of: Callable[..., Any], access_key: str) -> Any:
    """A client in a namespace of its own."""
    return client_of(open_server, access_key)
