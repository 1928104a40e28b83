"""The service: a node with an HTTP door, from settings to the last answer.

``run_service`` is what ``millstream serve`` runs, and what a program embeds that wants to offer its
database to AWS SDKs as well.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from .actors.catalog import FUNCTION_ENTRY, MAPPING_ENTRY
from .actors.data_directory import open_node
from .actors.node import Node, NodeSettings
from .api.credentials import NAMESPACE_DEFAULT, parse_credentials
from .api.dispatch import Dispatcher
from .api.gate import Policy, check_bind
from .api.lambda_door import LambdaDoor
from .api.server import ServerLimits, serve_http
from .config import Settings
from .errors import ConfigurationError
from .host.host import real_host
from .host.network import open_listeners, port_of

if TYPE_CHECKING:
    from .actors.mappings import Mappings
    from .actors.regions import RegionSettings
    from .api.lambda_routes import LambdaRoutes
    from .globaltables.policies import Resolver
    from .lambdas.trigger import Trigger
    from .serving_handlers import Loaded

logger = logging.getLogger(__name__)


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
            a port that is taken, an app that is not there, a regions file that is wrong or another
            region's data).
        DirectoryInUse, WrongFormat, Corrupt: the data directory cannot be served.
    """
    policy = _policy(settings)
    check_bind(settings.host, policy)
    # Requests are judged by the machine's clock, whatever a drill does to the database's.
    host = signing_host = real_host()
    regions: RegionSettings | None = None
    if settings.peers is not None:
        from .serving_regions import load_regions

        regions, host = load_regions(settings.peers, settings.region, host)
    listeners = open_listeners(settings.host, settings.port)
    triggers: tuple[Trigger, ...] = ()
    resolvers: dict[tuple[str, str], Resolver] = {}
    if settings.app is not None:
        from .app import load_app
        from .triggers import resolvers_of

        app = load_app(settings.app)
        triggers, resolvers = tuple(app), resolvers_of(app, NAMESPACE_DEFAULT)
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
            regions=regions,
            resolvers=resolvers,
        ) as node:
            if node.regions is not None:
                where = node.regions.address
                logger.info("region %s answers links at %s", settings.region, where)
            name = f"[{settings.host}]" if ":" in settings.host else settings.host
            url = f"http://{name}:{port_of(listeners)}"
            handlers = LazyHandlers(node, settings, policy, triggers, url)
            door = LambdaDoor(handlers.load_routes, policy, node.tables.account)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(handlers.run)
                try:
                    if handlers.are_needed:
                        await handlers.load()
                    await _serve_until_cancelled(
                        partial(
                            serve_http,
                            Dispatcher(
                                node.tables,
                                handlers.load_mappings,
                                is_open=policy.credentials is None,
                            ),
                            listeners,
                            policy,
                            clock=signing_host.clock.now_seconds,
                            entropy=signing_host.entropy.token_bytes,
                            limits=ServerLimits(connections=settings.max_connections),
                            lambdas=door,
                        ),
                        partial(_tell, url, on_ready, task_status),
                    )
                finally:
                    handlers.close()
    finally:
        for listener in listeners:
            listener.close()


def _tell(
    url: str, on_ready: Callable[[str], None], task_status: trio.TaskStatus[str]
) -> None:
    on_ready(url)
    task_status.started(url)


class LazyHandlers:
    """Functions and mappings, which run from when they are first needed until ``close``.

    What they are made of takes a fifth of a start to import, and most nodes have none.
    """

    def __init__(
        self,
        node: Node,
        settings: Settings,
        policy: Policy,
        triggers: Sequence[Trigger],
        url: str,
    ) -> None:
        self._node = node
        self._settings = settings
        self._policy = policy
        self._triggers = triggers
        self._url = url
        self._wanted = trio.Event()
        self._ready = trio.Event()
        self._closing = trio.Event()
        self._loaded: Loaded | None = None

    @property
    def are_needed(self) -> bool:
        """Whether there is something to run."""
        catalog = self._node.catalog
        kinds = (MAPPING_ENTRY, FUNCTION_ENTRY)
        return bool(self._triggers) or any(catalog.entries(kind) for kind in kinds)

    async def run(self) -> None:
        """Run them once they are wanted; they end in good order after ``close``."""
        with trio.CancelScope(shield=True):
            await self._wanted.wait()
            if self._closing.is_set():
                return
            from .serving_handlers import open_handlers

            async with open_handlers(
                self._node, self._settings, self._policy, self._triggers, self._url
            ) as self._loaded:
                self._ready.set()
                await self._closing.wait()

    async def load(self) -> Loaded:
        """What runs, from now on if it did not."""
        self._wanted.set()
        await self._ready.wait()
        assert self._loaded is not None
        return self._loaded

    async def load_mappings(self) -> Mappings:
        """The mappings, for operations on them."""
        return (await self.load()).mappings

    async def load_routes(self) -> LambdaRoutes:
        """Lambda's API."""
        return (await self.load()).routes

    def close(self) -> None:
        """Have ``run`` end."""
        self._closing.set()
        self._wanted.set()


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
        try:
            # Whoever is told may be gone: that is a reason to stop, too.
            tell()
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
