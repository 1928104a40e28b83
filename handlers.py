"""Puts together what runs handlers on a node: invokers, transactions, mappings.

Used by ``open_database`` and ``run_service`` alike; above the rooms, since it ties the Python API's
transactions to the pollers of ``actors/``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import trio

from .actors.checkpoints import Checkpoints
from .actors.destinations import Failures
from .actors.mappings import Mappings
from .actors.node import Node
from .actors.shard_poller import Handler, Tools
from .api.calls import Caller
from .api.operations.tables_description import stream_arn, table_arn
from .host.processes import RealProcesses
from .lambdas.protocol import pickled
from .lambdas.runtime import Invoker, LoopInvoker, ThreadInvoker, WorkerInvoker
from .lambdas.trigger import LOOP, THREAD, Trigger
from .limits import WORKERS_PER_TRIGGER_MAX
from .streams.definition import Stream
from .transaction import Transaction


class _Handlers:
    """Makes the handlers of one node's mappings."""

    def __init__(self, node: Node, nursery: trio.Nursery) -> None:
        self._node = node
        self._nursery = nursery

    def of_trigger(self, namespace: str, trigger: Trigger) -> Handler:
        """What calls a Python trigger. Raises ConfigurationError if it cannot be pickled."""
        tables = self._node.tables
        arn = f"arn:aws:lambda:{tables.region}:{tables.account}:function:{trigger.name}"
        return Handler(
            trigger.name,
            arn,
            self._invoker(trigger),
            trigger.timeout_seconds,
            trigger.memory_limit_mb,
        )

    def _invoker(self, trigger: Trigger) -> Invoker:
        if trigger.isolation == LOOP:
            return LoopInvoker(trigger.handler)
        if trigger.isolation == THREAD:
            return ThreadInvoker(trigger.handler, clock=self._node.host.clock)
        # The program's own function, so it gets the program's own environment.
        return WorkerInvoker(
            self._nursery,
            RealProcesses(),
            pickled(trigger.handler),
            name=trigger.name,
            environment=dict(os.environ),
            directory=os.getcwd(),
            concurrency=min(trigger.settings.parallelization_factor, WORKERS_PER_TRIGGER_MAX),
            memory_limit_mb=trigger.memory_limit_mb,
        )


async def start_triggers(
    node: Node,
    triggers: Iterable[Trigger] = (),
    *,
    namespace: str,
    find_function: Callable[[str, str], Handler | None] = lambda namespace, name: None,
) -> Mappings:
    """Run the node's mappings, and these triggers; they stop before the node closes.

    ``find_function`` gives the function of a namespace and a name; where there are no functions,
    their mappings wait.

    Raises InvalidRequest or ResourceInUse for a trigger that cannot be registered.
    """
    tables = node.tables

    def arn_of(stream: Stream) -> str:
        return stream_arn(table_arn(tables.region, tables.account, stream.table), stream.label)

    def make_transaction(namespace: str, hops: int) -> Transaction:
        caller = Caller(namespace, "", tables.region, "", hops=hops)
        return Transaction(tables, caller)

    tools = Tools(
        streams=tables.streams,
        checkpoints=Checkpoints(node.checkpoints_partition),
        clock=node.host.clock,
        new_id=node.new_id,
        arn_of=arn_of,
        region=tables.region,
        make_transaction=make_transaction,
        failures=Failures(node.host, node.catalog, tables),
    )
    handlers = _Handlers(node, node.nursery)
    mappings = Mappings(
        node.catalog,
        tables,
        tools,
        node.nursery,
        find_function,
        handlers.of_trigger,
    )
    node.before_closing(mappings.close)
    await mappings.start()
    for trigger in triggers:
        await mappings.add(namespace, trigger)
    return mappings
