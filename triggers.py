"""Registering Python handlers for the changes of tables.

::

    triggers = millstream.Triggers()

    @triggers.on_change("orders", batch_size=10)
    async def notify(event, context):
        for record in event["Records"]:
            ...

    async with millstream.open_database("orders-data", triggers=triggers) as db:
        ...

The handler is what an AWS Lambda function is, with the same event and context, and the options are
those of an event source mapping. ``async def`` runs on the loop, ``def`` in a thread,
``isolation="process"`` in a worker process. Registering only notes: nothing runs before the
registry is given to ``open_database``, ``millstream serve --app`` or ``db.add_trigger``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec

from .errors import InvalidRequest
from .globaltables.policies import Resolver
from .lambdas.callables import is_async
from .lambdas.settings import Destination, MappingSettings, check_settings
from .lambdas.trigger import LOOP, PROCESS, THREAD, Trigger
from .limits import (
    FUNCTION_MEMORY_MB_DEFAULT,
    HANDLER_TIMEOUT_SECONDS_DEFAULT,
    TRIGGER_NAME_CHARACTERS_MAX,
)
from .streams.definition import STREAM_VIEWS

HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])
ResolverT = TypeVar("ResolverT", bound=Resolver)
Pattern: TypeAlias = str | Mapping[str, Any]
OnFailure: TypeAlias = "str | os.PathLike[str] | Callable[[dict[str, Any]], Any]"


class Triggers:
    """Handlers and what they are called for. Iterating gives ``Trigger`` values."""

    __slots__ = ("_resolvers", "_triggers")

    def __init__(self) -> None:
        self._triggers: dict[str, Trigger] = {}
        self._resolvers: dict[str, Resolver] = {}

    def __iter__(self) -> Iterator[Trigger]:
        return iter(list(self._triggers.values()))

    def __len__(self) -> int:
        return len(self._triggers)

    def on_change(
        self, table: str, *, name: str | None = None, **options: Any
    ) -> Callable[[HandlerT], HandlerT]:
        """Have the decorated function called for the changes of ``table``; it stays as it is.

        ``name`` is what the mapping is found by after a restart; without it the function's module
        and qualified name. The options are those of ``make_trigger``.

        Raises InvalidRequest, at once, for a name that is taken and for options out of bounds.
        """

        def register(handler: HandlerT) -> HandlerT:
            self.add(make_trigger(table, handler, name=name, **options))
            return handler

        return register

    def add(self, trigger: Trigger) -> None:
        """Register a trigger made by ``make_trigger``."""
        if trigger.name in self._triggers:
            raise InvalidRequest(f"A trigger {trigger.name!r} is registered already")
        self._triggers[trigger.name] = trigger

    def resolver(self, table: str) -> Callable[[ResolverT], ResolverT]:
        """Have the decorated function decide conflicts of the global table ``table``.

        It is called where that is the table's policy (``Table.set_conflict_policy("resolver")``),
        in the region whose write lost, with the item that was written there and the one that won,
        and returns the item to be. None stands for a deletion, on either side and as the answer.
        It is a plain ``def`` that takes no time, the same for the same two items: whoever writes
        to the table waits for it. Register it in every region. One whose answer depends on neither
        the order nor the number of its calls (a union, a maximum) gives what everybody expects.

        Raises InvalidRequest for a second one of a table, and for a function that is async.
        """

        def register(resolver: ResolverT) -> ResolverT:
            if not callable(resolver) or is_async(resolver):
                raise InvalidRequest(f"A resolver is a function that is not async: {resolver!r}")
            if table in self._resolvers:
                raise InvalidRequest(f"Table {table!r} has a resolver already")
            self._resolvers[table] = resolver
            return resolver

        return register


def resolvers_of(triggers: Iterable[Trigger], namespace: str) -> dict[tuple[str, str], Resolver]:
    """By (namespace, table), what a registry has for ``open_node``; other iterables have none."""
    if not isinstance(triggers, Triggers):
        return {}
    return {(namespace, table): resolver for table, resolver in triggers._resolvers.items()}


def make_trigger(
    table: str,
    handler: Callable[..., Any],
    *,
    name: str | None = None,
    batch_size: int = 100,
    window: float = 0,
    filter: Pattern | Sequence[Pattern] = (),
    parallelization_factor: int = 1,
    starting_position: Literal["TRIM_HORIZON", "LATEST"] = "TRIM_HORIZON",
    bisect_batch_on_function_error: bool = False,
    maximum_retry_attempts: int = -1,
    maximum_record_age: int = -1,
    report_batch_item_failures: bool = False,
    tumbling_window: int = 0,
    on_failure: OnFailure | None = None,
    enabled: bool = True,
    isolation: Literal["process"] | None = None,
    timeout: float = HANDLER_TIMEOUT_SECONDS_DEFAULT,
    memory_limit_mb: int = FUNCTION_MEMORY_MB_DEFAULT,
    stream_view: str = "NEW_AND_OLD_IMAGES",
) -> Trigger:
    """A trigger of ``handler`` on ``table``.

    All times are in seconds. ``window`` is how long a batch that is not full waits for more
    records; ``filter`` one event filter pattern or several of which a record must match one;
    ``maximum_record_age`` and ``maximum_retry_attempts`` -1 mean for as long as the stream keeps
    the record. ``on_failure`` takes batches that are given up: a table's name, a directory (a
    ``pathlib.Path``), or a callable that is given the document. ``timeout`` and, in a process,
    ``memory_limit_mb`` bound one invocation. ``stream_view`` is that of the stream which the table
    gets if it has none.

    Raises InvalidRequest for what is out of bounds or makes no sense.
    """
    if not callable(handler):
        raise InvalidRequest(f"A handler is a function, not {handler!r}")
    if isolation not in (None, PROCESS):
        raise InvalidRequest(f"isolation is 'process' or nothing, not {isolation!r}")
    if not (isinstance(timeout, int | float) and 0 < timeout < math.inf):
        raise InvalidRequest(f"timeout is a number of seconds above 0, not {timeout!r}")
    if not isinstance(memory_limit_mb, int) or memory_limit_mb < 1:
        raise InvalidRequest(
            f"memory_limit_mb is a whole number from 1 up, not {memory_limit_mb!r}"
        )
    if stream_view not in STREAM_VIEWS:
        raise InvalidRequest(
            f"stream_view is one of {', '.join(STREAM_VIEWS)}, not {stream_view!r}"
        )
    name = name_of(handler) if name is None else name
    if not isinstance(name, str) or not 0 < len(name) <= TRIGGER_NAME_CHARACTERS_MAX:
        raise InvalidRequest(
            f"The name of a trigger has 1 to {TRIGGER_NAME_CHARACTERS_MAX} characters"
        )
    kind = isolation or (LOOP if is_async(handler) else THREAD)
    settings = MappingSettings(
        batch_size=batch_size,
        window_seconds=window,
        parallelization_factor=parallelization_factor,
        starting_position=starting_position,
        filters=_patterns(filter),
        bisect_batch_on_function_error=bisect_batch_on_function_error,
        maximum_retry_attempts=maximum_retry_attempts,
        maximum_record_age_seconds=maximum_record_age,
        report_batch_item_failures=report_batch_item_failures,
        tumbling_window_seconds=tumbling_window,
        on_failure=_destination(on_failure),
        enabled=enabled,
    )
    check_settings(settings)
    return Trigger(
        name=name,
        table=table,
        handler=handler,
        settings=settings,
        isolation=kind,
        timeout_seconds=timeout,
        memory_limit_mb=memory_limit_mb,
        on_failure=on_failure if callable(on_failure) else None,
        stream_view=stream_view,
    )


def name_of(handler: Callable[..., Any]) -> str:
    """``module:qualname``, by which a handler's mapping is found again."""
    name = getattr(handler, "__qualname__", None)
    if name is None:
        raise InvalidRequest("This handler has no name of its own: give the trigger one")
    return f"{handler.__module__}:{name}"


def _patterns(given: Pattern | Sequence[Pattern]) -> tuple[str, ...]:
    if isinstance(given, str | Mapping):
        given = [given]
    elif not isinstance(given, list | tuple):
        raise InvalidRequest(f"filter is a pattern or a list of them, not {given!r}")
    return tuple(_pattern(pattern) for pattern in given)


def _pattern(pattern: Pattern) -> str:
    if isinstance(pattern, str):
        return pattern
    if not isinstance(pattern, Mapping):
        raise InvalidRequest(f"A pattern of filter is a dict or its JSON, not {pattern!r}")
    try:
        return msgspec.json.encode(pattern).decode()
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise InvalidRequest(f"A pattern of filter has no JSON: {error}") from None


def _destination(on_failure: OnFailure | None) -> Destination | None:
    if on_failure is None:
        return None
    if isinstance(on_failure, str):
        return Destination("table", on_failure)
    if isinstance(on_failure, os.PathLike):
        return Destination("directory", str(Path(on_failure).absolute()))
    if callable(on_failure):
        return Destination("callable", name_of(on_failure))
    raise InvalidRequest(f"on_failure is a table, a directory or a function, not {on_failure!r}")
