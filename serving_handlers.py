"""Functions and event source mappings on a served node, put together when they are needed.

Loaded by ``service.py`` with the first of them: most nodes have none, and start quicker without.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import trio

from .actors.function_handlers import function_handler
from .actors.function_workers import worker_invokers
from .actors.functions import open_functions
from .actors.mappings import Mappings
from .actors.node import Node
from .api.credentials import NAMESPACE_DEFAULT, NAMESPACE_KEY_PREFIX, Credentials
from .api.gate import Policy
from .api.lambda_routes import LambdaRoutes
from .config import Settings
from .handlers import start_triggers
from .host.processes import RealProcesses
from .lambdas.environment import Endpoint
from .lambdas.trigger import Trigger


class Loaded(msgspec.Struct, frozen=True):
    """What runs handlers on a served node, and the doors to it."""

    mappings: Mappings
    routes: LambdaRoutes


@asynccontextmanager
async def open_handlers(
    node: Node, settings: Settings, policy: Policy, triggers: Iterable[Trigger], url: str
) -> AsyncIterator[Loaded]:
    """Functions and mappings, which stop before the node does. ``triggers`` run from now on."""

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
            clock, run = node.host.clock.now_seconds, node.host.threads.run
            try:
                yield Loaded(mappings, LambdaRoutes(functions, mappings, policy, clock, run))
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
