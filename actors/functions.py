"""The store of Lambda functions, and invoking them.

A definition is an entry of the catalog; its code is a file (``function_code.py``), durable before
the definition refers to it. Functions with equal code share it, across namespaces. Code that no
definition refers to and no invoker uses is removed: at once when the last one goes, or on opening
after a crash.

Changes go one after another. A change *retires* the function's invoker: it takes no further
invocation, serves the ones it has to their end, and is closed then. So every invocation runs on one
definition and its code, and one that begins after a change was answered runs on the new one.

An asynchronous invocation (``invoke_later``) is held in memory and lost with the process, as its
caller was told only that it was taken. What is to survive belongs in a table with a stream.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import msgspec
import trio

from ..errors import (
    ConditionFailed,
    LimitExceeded,
    ResourceInUse,
    ResourceNotFound,
    StorageError,
    Throttled,
    Unavailable,
)
from ..host.directories import absolute, make_temporary_directory
from ..host.host import Host
from ..lambdas.context import HandlerTransaction
from ..lambdas.functions import (
    Function,
    decode_function,
    encode_function,
    function_arn,
    not_found,
)
from ..lambdas.packages import check_package, code_digest
from ..lambdas.results import Failed, Invocation, Result, Returned
from ..lambdas.runtime import Invoker
from ..limits import (
    CLOSE_SECONDS_MAX,
    EVENT_RETRY_SECONDS,
    EVENTS_WAITING_BYTES_MAX,
    EVENTS_WAITING_MAX,
    FUNCTIONS_MAX,
    INVOCATIONS_MAX,
    INVOKERS_MAX,
)
from .catalog import FUNCTION_ENTRY
from .function_code import CodeFiles, remove_if_possible

logger = logging.getLogger(__name__)

#: The kind of the catalog's entries.
_BUSY = "Rate Exceeded."


class Entries(Protocol):
    """The part of the catalog that keeps definitions. Saved and removed durably."""

    def entries(self, kind: str) -> dict[str, bytes]: ...

    async def save_entry(self, kind: str, name: str, data: bytes) -> None: ...

    async def remove_entry(self, kind: str, name: str) -> None: ...


MakeInvoker = Callable[[Function, Path], Invoker]
_Key = tuple[str, str]


@asynccontextmanager
async def open_functions(
    host: Host,
    directory: str | None,
    entries: Entries,
    make_invoker: MakeInvoker,
    *,
    region: str,
    account: str,
) -> AsyncIterator[Functions]:
    """The functions of a node, whose data directory is ``directory``; None: it is in memory.

    ``make_invoker`` is given a definition and the directory that its code is unpacked in. Its
    invokers are closed when what they do has ended, and closing one twice is no error.

    Raises:
        Corrupt: a definition cannot be read.
    """
    run = host.threads.run
    scratch = None if directory is not None else await run(make_temporary_directory)
    # Workers have a working directory of their own.
    root = absolute(f"{directory if scratch is None else scratch}/functions")
    functions: Functions | None = None
    try:
        async with trio.open_nursery() as nursery:
            functions = Functions(host, root, entries, make_invoker, nursery, region, account)
            try:
                await functions._open()
                yield functions
            finally:
                functions._closing = True
                nursery.cancel_scope.cancel()
    finally:
        # Only now nobody is at the files any more.
        with trio.CancelScope(shield=True):
            if functions is not None:
                await functions._close()
            if scratch is not None:
                await run(remove_if_possible, scratch)


class _Live:
    """An invoker and who uses it."""

    __slots__ = ("function", "in_flight", "invoker", "retired")

    def __init__(self, function: Function, invoker: Invoker) -> None:
        self.function = function
        self.invoker = invoker
        #: Invocations that it has and that have not ended.
        self.in_flight = 0
        #: Whether it takes no more, and is closed when it has none.
        self.retired = False


class Functions:
    """All functions of a node. Made by ``open_functions``. Reads are plain methods."""

    def __init__(
        self,
        host: Host,
        root: str,
        entries: Entries,
        make_invoker: MakeInvoker,
        nursery: trio.Nursery,
        region: str,
        account: str,
    ) -> None:
        self.region = region
        self.account = account
        self._host = host
        self._code = CodeFiles(host.disk, root)
        self._entries = entries
        self._make_invoker = make_invoker
        self._nursery = nursery
        #: What the catalog says, by namespace and name.
        self._functions: dict[_Key, Function] = {}
        #: Held by whoever changes definitions or the files of codes.
        self._changing = trio.Lock()
        #: Held by whoever unpacks; always taken after ``_changing``, by who needs both.
        self._unpacking = trio.Lock()
        #: Invokers of the current definitions, the last one used at the end.
        self._live: dict[_Key, _Live] = {}
        #: These, and the retired ones that are not closed.
        self._open_invokers: dict[_Live, None] = {}
        self._slots = trio.Semaphore(INVOCATIONS_MAX)
        #: Asynchronous invocations that have not ended, and the bytes of their payloads.
        self._events = 0
        self._event_bytes = 0
        #: Those that did not end before the node did.
        self._events_lost = 0
        #: Codes of definitions of which nobody knows whether the catalog has them.
        self._in_doubt: dict[str, None] = {}
        self._closing = False

    # Reading.

    def find(self, namespace: str, name: str) -> Function | None:
        """The function, or None."""
        return self._functions.get((namespace, name))

    def get(self, namespace: str, name: str) -> Function:
        """The function. Raises ResourceNotFound."""
        function = self.find(namespace, name)
        if function is None:
            raise not_found(self.arn(name))
        return function

    def list(self, namespace: str) -> list[Function]:
        """A namespace's functions by name."""
        found = [each for each in self._functions.values() if each.namespace == namespace]
        return sorted(found, key=lambda function: function.name)

    def arn(self, name: str) -> str:
        """What a function of this name is called in full."""
        return function_arn(self.region, self.account, name)

    @property
    def events_waiting(self) -> int:
        """Asynchronous invocations that are running, or will."""
        return self._events

    # Changing. Each is durable when it returns.

    async def create(
        self, namespace: str, name: str, fields: dict[str, Any], package: bytes
    ) -> Function:
        """A new function. ``fields`` are those of ``Function`` that its maker states.

        Raises:
            ResourceInUse: there is one of this name.
            InvalidRequest: the package is no zip, or one that must not be unpacked.
            LimitExceeded: there are too many.
        """
        self._check_new(namespace, name)
        await self._check_package(package)
        async with self._changing:
            self._check_new(namespace, name)
            function = Function(namespace=namespace, name=name, arn=self.arn(name), **fields)
            await self._write_code(package)
            return await self._save(_with_code(function, package))

    async def update_code(
        self,
        namespace: str,
        name: str,
        package: bytes,
        *,
        fields: dict[str, Any] | None = None,
        revision_id: str | None = None,
        dry_run: bool = False,
    ) -> Function:
        """The function with other code; ``dry_run``: only as it would be.

        Raises:
            ResourceNotFound: there is none.
            ConditionFailed: it is at another revision than ``revision_id``.
            InvalidRequest: the package is no zip, or one that must not be unpacked.
        """
        self._at_revision(namespace, name, revision_id)
        await self._check_package(package)
        async with self._changing:
            before = self._at_revision(namespace, name, revision_id)
            changed = _with_code(msgspec.structs.replace(before, **(fields or {})), package)
            if dry_run:
                return changed
            await self._write_code(package)
            function = await self._save(changed)
            await self._sweep(before.code_sha256)
            return function

    async def update_configuration(
        self,
        namespace: str,
        name: str,
        fields: dict[str, Any],
        *,
        revision_id: str | None = None,
    ) -> Function:
        """The function with other settings. Raises as ``update_code`` does."""
        async with self._changing:
            before = self._at_revision(namespace, name, revision_id)
            return await self._save(msgspec.structs.replace(before, **fields))

    async def delete(self, namespace: str, name: str) -> None:
        """Forget the function. What it is doing, it ends. Raises ResourceNotFound."""
        async with self._changing:
            function = self.get(namespace, name)
            await self._entries.remove_entry(FUNCTION_ENTRY, _entry_name(function))
            del self._functions[namespace, name]
            self._retire((namespace, name))
            await self._sweep(function.code_sha256)

    # Invoking.

    async def invoke(
        self,
        namespace: str,
        name: str,
        event: Any,
        *,
        request_id: str | None = None,
        trace_id: str = "",
        client_context: str = "",
        transaction: HandlerTransaction | None = None,
        wait: bool = True,
    ) -> Result:
        """What the handler made of ``event``. Failing handlers are results, not exceptions.

        ``wait`` for as long as too many invocations are running. Who is itself called by a handler
        must not wait, or handlers that call functions could fill all places and wait for ever.

        Raises:
            ResourceNotFound: there is no such function.
            Throttled: too many are running, and ``wait`` is False.
            Corrupt: its code is not what was stored.
        """
        if wait:
            await self._slots.acquire()
        else:
            try:
                self._slots.acquire_nowait()
            except trio.WouldBlock:
                raise Throttled(_BUSY) from None
        try:
            live = await self._borrow((namespace, name))
            try:
                function = live.function
                invocation = Invocation(
                    request_id=request_id or self.new_id(),
                    function_name=name,
                    function_arn=function.arn,
                    version=function.version,
                    memory_limit_mb=function.memory_mb,
                    timeout_seconds=function.timeout_seconds,
                    trace_id=trace_id,
                    client_context=client_context,
                )
                return await live.invoker.invoke(event, invocation, transaction)
            finally:
                live.in_flight -= 1
                self._close_if_done(live)
        finally:
            self._slots.release()

    def invoke_later(
        self,
        namespace: str,
        name: str,
        payload: bytes,
        *,
        request_id: str | None = None,
        trace_id: str = "",
        client_context: str = "",
    ) -> None:
        """Invoke with the JSON ``payload`` in the background, and twice more if that fails.

        Raises:
            ResourceNotFound: there is no such function.
            Throttled: too many are waiting.
        """
        self.get(namespace, name)
        too_many = self._events >= EVENTS_WAITING_MAX
        if too_many or self._event_bytes + len(payload) > EVENTS_WAITING_BYTES_MAX:
            raise Throttled(_BUSY)
        self._events += 1
        self._event_bytes += len(payload)

        async def run() -> None:
            try:
                await self._run_event(
                    namespace, name, payload, request_id or self.new_id(), trace_id, client_context
                )
            except trio.Cancelled:
                self._events_lost += 1
                raise
            finally:
                self._events -= 1
                self._event_bytes -= len(payload)

        self._nursery.start_soon(run)

    async def _run_event(
        self,
        namespace: str,
        name: str,
        payload: bytes,
        request_id: str,
        trace_id: str,
        client_context: str,
    ) -> None:
        why = ""
        for pause_seconds in (0, *EVENT_RETRY_SECONDS):
            if pause_seconds:
                await trio.sleep(pause_seconds)
            try:
                result = await self.invoke(
                    namespace,
                    name,
                    # Each attempt has its own: a handler on the loop may change what it is given.
                    msgspec.json.decode(payload),
                    request_id=request_id,
                    trace_id=trace_id,
                    client_context=client_context,
                )
            except ResourceNotFound:
                why = "it was deleted"
                break
            except (OSError, StorageError, Unavailable) as error:
                why = type(error).__name__
            else:
                if isinstance(result, Returned):
                    return
                assert isinstance(result, Failed)
                why = result.error_type
        logger.warning("an event for function %s (%s) is given up: %s", name, request_id, why)

    async def _borrow(self, key: _Key) -> _Live:
        """The invoker of the current definition, counted as used once more."""
        while True:
            function = self.get(*key)
            live = self._live.get(key)
            if live is not None:
                assert live.function is function
                self._live[key] = self._live.pop(key)
                live.in_flight += 1
                return live
            async with self._unpacking:
                if self._functions.get(key) is not function or key in self._live:
                    continue
                path = await self._host.threads.run(self._code.unpack, function)
                if self._functions.get(key) is not function:
                    continue
                live = _Live(function, self._make_invoker(function, Path(path)))
                live.in_flight = 1
                self._live[key] = live
                self._open_invokers[live] = None
                self._retire_idle()
                return live

    def _retire_idle(self) -> None:
        """Let the functions go that were not used for longest, where too many keep workers."""
        surplus = len(self._live) - INVOKERS_MAX
        if surplus > 0:
            idle = [key for key, live in self._live.items() if not live.in_flight]
            for key in idle[:surplus]:
                self._retire(key)

    def _retire(self, key: _Key) -> None:
        live = self._live.pop(key, None)
        if live is not None:
            live.retired = True
            self._close_if_done(live)

    def _close_if_done(self, live: _Live) -> None:
        if live.retired and not live.in_flight and not self._closing:
            self._nursery.start_soon(self._close_invoker, live)

    async def _close_invoker(self, live: _Live) -> None:
        await live.invoker.close()
        self._open_invokers.pop(live, None)
        async with self._changing:
            await self._sweep(live.function.code_sha256)

    # Files.

    async def _open(self) -> None:
        for data in self._entries.entries(FUNCTION_ENTRY).values():
            function = decode_function(data)
            self._functions[function.namespace, function.name] = function
        await self._host.threads.run(self._code.tidy, sorted(self._codes()))

    async def _close(self) -> None:
        if self._events_lost:
            logger.warning("%d asynchronous invocations are lost", self._events_lost)
        with trio.move_on_after(CLOSE_SECONDS_MAX):
            async with trio.open_nursery() as nursery:
                for live in self._open_invokers:
                    nursery.start_soon(live.invoker.close)
        await self._host.threads.run(self._code.remove_unpacked)

    def _codes(self) -> Iterator[str]:
        """The digests that must stay; some of them more than once."""
        for function in self._functions.values():
            yield function.code_sha256
        for live in self._open_invokers:
            yield live.function.code_sha256
        yield from self._in_doubt

    async def _sweep(self, code_sha256: str) -> None:
        """Remove a code unless somebody needs it. For who holds ``_changing``."""
        assert self._changing.locked()
        async with self._unpacking:
            if code_sha256 not in self._codes():
                await self._host.threads.run(self._code.remove, code_sha256)

    async def _write_code(self, package: bytes) -> None:
        # Also where it is there already: what was damaged meanwhile is healed so.
        await self._host.threads.run(self._code.write, package)

    # Small parts of a change.

    def new_id(self) -> str:
        """A UUID, of the random kind."""
        return str(UUID(bytes=self._host.entropy.token_bytes(16), version=4))

    async def _check_package(self, package: bytes) -> None:
        await self._host.threads.run(check_package, package)

    def _check_new(self, namespace: str, name: str) -> None:
        if (namespace, name) in self._functions:
            raise ResourceInUse(f"Function already exist: {name}")
        if len(self._functions) >= FUNCTIONS_MAX:
            raise LimitExceeded(f"There are {FUNCTIONS_MAX} functions, which is the most.")

    def _at_revision(self, namespace: str, name: str, revision_id: str | None) -> Function:
        function = self.get(namespace, name)
        if revision_id is not None and revision_id != function.revision_id:
            raise ConditionFailed
        return function

    async def _save(self, function: Function) -> Function:
        """Make ``function`` the current definition. For who holds ``_changing``.

        Where the outcome is not known the old one stays in force until the next start, which goes
        by the catalog; its code stays too.
        """
        saved = msgspec.structs.replace(
            function, last_modified_ms=self._host.clock.now_ms(), revision_id=self.new_id()
        )
        try:
            await self._entries.save_entry(
                FUNCTION_ENTRY, _entry_name(saved), encode_function(saved)
            )
        except BaseException:
            self._in_doubt[saved.code_sha256] = None
            raise
        key = (saved.namespace, saved.name)
        self._functions[key] = saved
        self._retire(key)
        return saved


def _with_code(function: Function, package: bytes) -> Function:
    return msgspec.structs.replace(
        function, code_sha256=code_digest(package), code_size=len(package)
    )


def _entry_name(function: Function) -> str:
    # A slash is in neither part.
    return f"{function.namespace}/{function.name}"
