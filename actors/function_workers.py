"""Functions in worker processes: what ``open_functions`` is given to run them with.

A function's workers see its code directory, Lambda's environment variables and an endpoint by which
an SDK in a handler reaches this node, as somebody of the function's own namespace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import trio

from ..host.processes import Processes
from ..lambdas.environment import Endpoint, Setup, function_environment
from ..lambdas.functions import Function
from ..lambdas.protocol import CodeDirectory
from ..lambdas.runtime import Invoker, WorkerInvoker
from ..limits import INVOCATIONS_MAX
from .functions import MakeInvoker


def worker_invokers(
    nursery: trio.Nursery,
    processes: Processes,
    node_environment: Mapping[str, str],
    endpoint_of: Callable[[str], Endpoint],
) -> MakeInvoker:
    """Makes an invoker for each function. ``nursery`` must outlive them.

    ``endpoint_of`` is asked with a namespace, and not before the first invocation.
    """

    def make(function: Function, directory: Path) -> Invoker:
        setup = Setup(
            function_name=function.name,
            version=function.version,
            memory_limit_mb=function.memory_mb,
            handler=function.handler,
            task_root=str(directory),
            runtime_directory=str(directory),
        )
        return WorkerInvoker(
            nursery,
            processes,
            CodeDirectory(str(directory), function.handler),
            name=function.name,
            environment=function_environment(
                setup,
                endpoint_of(function.namespace),
                function.environment,
                node_environment,
            ),
            directory=str(directory),
            # The store has counted already. If invocations had to wait here too, handlers that
            # call their own function could wait for each other.
            concurrency=INVOCATIONS_MAX,
            memory_limit_mb=function.memory_mb,
        )

    return make
