"""A function as what a mapping calls: the bridge from event source mappings to the store."""

from __future__ import annotations

from typing import Any

from ..errors import ResourceNotFound, Unavailable
from ..lambdas.context import HandlerTransaction
from ..lambdas.results import Invocation, Result
from .functions import Functions
from .shard_poller import Handler


def function_handler(functions: Functions, namespace: str, name: str) -> Handler | None:
    """The function as a handler, None if there is none.

    It stays good when the function changes: each invocation runs the definition of its moment,
    with that one's limits.
    """
    function = functions.find(namespace, name)
    if function is None:
        return None
    invoker = FunctionInvoker(functions, namespace, name)
    return Handler(name, function.arn, invoker, function.timeout_seconds, function.memory_mb)


class FunctionInvoker:
    """Invokes a function by its name, waiting for a place among the node's invocations."""

    __slots__ = ("_functions", "_name", "_namespace")

    def __init__(self, functions: Functions, namespace: str, name: str) -> None:
        self._functions = functions
        self._namespace = namespace
        self._name = name

    async def invoke(
        self, event: Any, invocation: Invocation, transaction: HandlerTransaction | None = None
    ) -> Result:
        """Raises Unavailable while the function is deleted: its mapping waits for another one."""
        try:
            return await self._functions.invoke(
                self._namespace,
                self._name,
                event,
                request_id=invocation.request_id,
                trace_id=invocation.trace_id,
                client_context=invocation.client_context,
                transaction=transaction,
            )
        except ResourceNotFound as error:
            raise Unavailable(str(error)) from None

    async def close(self) -> None:
        """Nothing is held: the store closes its own."""
