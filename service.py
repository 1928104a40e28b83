"""The service: a node with an HTTP door, from settings to the last answer.

``run_service`` is what ``millstream serve`` runs, and what a program embeds that wants to offer its
database to AWS SDKs as well.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from .actors.data_directory import open_node
from .actors.function_handlers import function_handler
from .actors.function_workers import worker_invokers
from .actors.functions import Functions, open_functions
from .actors.mappings import Mappings
from .actors.node import Node, NodeSettings
from .api.credentials import (
    NAMESPACE_DEFAULT,
    NAMESPACE_KEY_PREFIX,
    Credentials,
    parse_credentials,
)
from .api.dispatch import Dispatcher
from .api.gate import Policy, check_bind
from .api.lambda_routes import LambdaRoutes
from .api.server import ServerLimits, serve_http
from .app import load_app
from .config import Settings
from .errors import ConfigurationError
from .handlers import start_triggers
from .host.host import real_host
from .host.network import open_listeners, port_of
from .host.processes import RealProcesses
from .lambdas.environment import Endpoint
from .lambdas.trigger import Trigger


async def run_service(
    settings: Settings,
    *,
    on_ready: Callable[[str], None] = lambda url: None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled, then finish what is in flight and close the database.

    ``on_ready`` and ``task_status`` receive the URL once requests are answered.

    Raises:
        ConfigurationError: a setting cannot be honoured (unsafe address, unreadable credentials,
            a port that is taken, an app that is not there).
        DirectoryInUse, WrongFormat, Corrupt: the data directory cannot be served.
    """
    policy = _policy(settings)
    check_bind(settings.host, policy)
    listeners = open_listeners(settings.host, settings.port)
    host = real_host()
    triggers: Iterable[Trigger] = () if settings.app is None else load_app(settings.app)
    node_settings = NodeSettings(
        region=settings.region,
        memtable_bytes=settings.memtable_bytes,
        partitions_per_table=settings.partitions_per_table,
        stream_retention_seconds=settings.stream_retention_seconds,
        stream_shard_seconds=settings.stream_shard_seconds,
    )
    try:
        async with open_node(
            None if settings.in_memory else settings.data,
            node_settings,
            log_engine=settings.log_engine,
            log_directories=settings.log_dirs,
            adopt_empty=settings.adopt_log_dirs,
            host=host,
        ) as node:
            name = f"[{settings.host}]" if ":" in settings.host else settings.host
            url = f"http://{name}:{port_of(listeners)}"
            async with _handlers(node, settings, policy, triggers, url) as (functions, mappings):
                routes = LambdaRoutes(
                    functions, mappings, policy, host.clock.now_seconds, host.threads.run
                )
                await _serve_until_cancelled(
                    partial(
                        serve_http,
                        Dispatcher(
                            node.tables, mappings, is_open=policy.credentials is None
                        ),
                        listeners,
                        policy,
                        clock=host.clock.now_seconds,
                        entropy=host.entropy.token_bytes,
                        limits=ServerLimits(connections=settings.max_connections),
                        lambdas=routes,
                    ),
                    partial(_tell, url, on_ready, task_status),
                )
    finally:
        for listener in listeners:
            listener.close()


def _tell(
    url: str, on_ready: Callable[[str], None], task_status: trio.TaskStatus[str]
) -> None:
    on_ready(url)
    task_status.started(url)


@asynccontextmanager
async def _handlers(
    node: Node, settings: Settings, policy: Policy, triggers: Iterable[Trigger], url: str
) -> AsyncIterator[tuple[Functions, Mappings]]:
    """Functions and mappings, which stop before the node does."""

    def endpoint_of(namespace: str) -> Endpoint:
        return endpoint(url, settings.region, namespace, policy.credentials)

    async with trio.open_nursery() as nursery:
        make_invoker = worker_invokers(nursery, RealProcesses(), os.environ, endpoint_of)
        async with open_functions(
            node.host,
            None if settings.in_memory else settings.data,
            node.catalog,
            make_invoker,
            region=node.tables.region,
            account=node.tables.account,
        ) as functions:
            mappings = await start_triggers(
                node,
                triggers,
                namespace=NAMESPACE_DEFAULT,
                find_function=partial(function_handler, functions),
            )
            try:
                yield functions, mappings
            finally:
                with trio.CancelScope(shield=True):
                    await mappings.close()
        nursery.cancel_scope.cancel()


def endpoint(
    url: str, region: str, namespace: str, credentials: Credentials | None
) -> Endpoint:
    """How an SDK in a function reaches this node as somebody of ``namespace``."""
    if credentials is None:
        # The key is all that there is to go by, and any secret will do.
        key = namespace if namespace.startswith(NAMESPACE_KEY_PREFIX) else "millstream"
        return Endpoint(url, region, key, "millstream")
    found = credentials.of_namespace(namespace)
    if found is None:
        # Whoever made the function is no longer in the file: its calls will be refused.
        return Endpoint(url, region, "nobody", "nobody")
    return Endpoint(
        url, region, found.access_key, found.secret_key, found.session_token or ""
    )


async def _serve_until_cancelled(
    serve_on: Callable[..., Awaitable[None]], tell: Callable[[], None]
) -> None:
    """Answer requests; when cancelled, finish those in flight first."""
    stopping, stopped = trio.Event(), trio.Event()

    async def serve(task_status: trio.TaskStatus[None]) -> None:
        try:
            with trio.CancelScope(shield=True):
                await serve_on(stopping=stopping, task_status=task_status)
        finally:
            stopped.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        tell()
        try:
            await trio.sleep_forever()
        finally:
            stopping.set()
            with trio.CancelScope(shield=True):
                await stopped.wait()


def _policy(settings: Settings) -> Policy:
    credentials = None
    if settings.credentials is not None:
        try:
            text = Path(settings.credentials).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigurationError(f"cannot read {settings.credentials}: {reason}") from None
        credentials = parse_credentials(text, settings.credentials)
    return Policy(
        credentials=credentials,
        region=settings.region if credentials is not None else None,
        allow_hosts=settings.allow_host,
        cors_origins=settings.cors_origin,
    )
