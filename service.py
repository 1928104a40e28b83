"""The service: a node with an HTTP door, from settings to the last answer.

``run_service`` is what ``millstream serve`` runs, and what a program embeds that wants to offer its
database to AWS SDKs as well.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trio

from .actors.data_directory import open_node
from .actors.node import NodeSettings
from .api.credentials import NAMESPACE_DEFAULT, parse_credentials
from .api.dispatch import Dispatcher
from .api.gate import Policy, check_bind
from .api.server import ServerLimits, serve_http
from .app import load_app
from .config import Settings
from .errors import ConfigurationError
from .handlers import start_triggers
from .host.host import real_host
from .host.network import open_listeners, port_of


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
    triggers = () if settings.app is None else load_app(settings.app)
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
            await start_triggers(node, triggers, namespace=NAMESPACE_DEFAULT)
            name = f"[{settings.host}]" if ":" in settings.host else settings.host
            url = f"http://{name}:{port_of(listeners)}"
            stopping, stopped = trio.Event(), trio.Event()

            async def serve(task_status: trio.TaskStatus[None]) -> None:
                # The answers in flight are finished although the caller is being cancelled.
                try:
                    with trio.CancelScope(shield=True):
                        await serve_http(
                            Dispatcher(node.tables),
                            listeners,
                            policy,
                            clock=host.clock.now_seconds,
                            entropy=host.entropy.token_bytes,
                            limits=ServerLimits(connections=settings.max_connections),
                            stopping=stopping,
                            task_status=task_status,
                        )
                finally:
                    stopped.set()

            async with trio.open_nursery() as nursery:
                await nursery.start(serve)
                on_ready(url)
                task_status.started(url)
                try:
                    await trio.sleep_forever()
                finally:
                    stopping.set()
                    with trio.CancelScope(shield=True):
                        await stopped.wait()
    finally:
        for listener in listeners:
            listener.close()


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
