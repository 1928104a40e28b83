"""How handlers run: on the loop, in a thread, or in worker processes. One invoker a handler.

Whatever a handler does, ``invoke`` returns a ``Result``: an exception, an answer that JSON cannot
say or a handler that takes too long is a ``Failed``. Cancellation of the caller passes through.
``Unavailable`` means that the handler is not to blame and may be asked again: no process could be
started, or the invoker is being closed.

The transaction belongs to the caller, who commits it when the handler has returned and drops it
when it has failed. So does the event: a handler on the loop or in a thread gets the very object and
may change it, so that every attempt needs one of its own.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, cast

import msgspec
import outcome
import trio

from ..errors import ConfigurationError, MillstreamError, Unavailable
from ..host.clock import Clock, RealClock
from ..host.processes import Child, Processes
from ..limits import (
    FUNCTION_INIT_SECONDS_MAX,
    HANDLER_THREADS_MAX,
    WORKER_IDLE_SECONDS,
    WORKER_OUTPUT_READS_MAX,
)
from .context import HandlerTransaction, LambdaContext, NamedTable, current_trace
from .output import Output
from .protocol import (
    PROTOCOL_VERSION,
    Answered,
    Ask,
    FrameError,
    Frames,
    Hello,
    Invoke,
    Load,
    Loaded,
    Message,
    Program,
    Raised,
    encode,
    python_version,
)
from .recording import answer, replay
from .results import Failed, Invocation, Result, Returned, exited, marshal, raised, timed_out

__all__ = [
    "Failed", "Invocation", "Invoker", "LoopInvoker", "Result", "Returned", "ThreadInvoker",
    "WorkerInvoker",
]  # fmt: skip

_output_logger = logging.getLogger("millstream.lambdas.output")
logger = logging.getLogger(__name__)

# Files whose frames stand between us and a handler.
_BENEATH = [__file__, *(os.path.join(*module.__path__, "") for module in (trio, outcome))]


class Invoker(Protocol):
    """Runs one handler."""

    async def invoke(
        self, event: Any, invocation: Invocation, transaction: HandlerTransaction | None = None
    ) -> Result:
        """Call the handler with ``event``, which JSON can say, and see it through."""
        ...

    async def close(self) -> None:
        """Run no more. What runs is ended where that is possible."""
        ...


class LoopInvoker:
    """An ``async def`` handler, as a part of the task that invokes it."""

    __slots__ = ("_handler",)

    def __init__(self, handler: Callable[[Any, Any], Awaitable[Any]]) -> None:
        self._handler = handler

    async def invoke(
        self, event: Any, invocation: Invocation, transaction: HandlerTransaction | None = None
    ) -> Result:
        context = LambdaContext(invocation, trio.current_time, _logged(invocation), transaction)
        token = current_trace.set(invocation.trace_id)
        try:
            with trio.move_on_after(invocation.timeout_seconds) as scope:
                return _returned(await self._handler(event, context))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code
            return _failed(error, invocation)
        except BaseExceptionGroup as group:
            # Cancelled from outside, while tasks of the handler's own failed over it: nobody asks
            # any more how they did, and the node has nothing to do with it.
            cancelled, rest = group.split(trio.Cancelled)
            if cancelled is None or not _is_users(rest):
                raise
            raise cancelled from None
        finally:
            current_trace.reset(token)
        assert scope.cancelled_caught
        return timed_out(invocation.request_id, invocation.timeout_seconds)

    async def close(self) -> None:
        """Nothing is held: whoever invokes is cancelled, and the handler with them."""
        await trio.lowlevel.checkpoint()


class ThreadInvoker:
    """A ``def`` handler in a thread.

    Threads cannot be ended. One that takes too long is abandoned: its result is ignored, its
    transaction refuses to record, and it goes on counting as one of the threads that this handler
    may have. When those are used up, invocations wait.
    """

    __slots__ = ("_clock", "_handler", "_threads")

    def __init__(
        self,
        handler: Callable[[Any, Any], Any],
        threads: int = HANDLER_THREADS_MAX,
        clock: Clock | None = None,
    ) -> None:
        self._handler = handler
        self._threads = trio.CapacityLimiter(threads)
        self._clock = clock or RealClock()

    async def invoke(
        self, event: Any, invocation: Invocation, transaction: HandlerTransaction | None = None
    ) -> Result:
        place = _Place(self._threads)
        await self._threads.acquire_on_behalf_of(place)
        recorder = None if transaction is None else ThreadTransaction(transaction)
        context = LambdaContext(
            invocation, self._clock.monotonic_seconds, _logged(invocation), recorder
        )
        token = current_trace.set(invocation.trace_id)
        try:
            with trio.move_on_after(invocation.timeout_seconds) as scope:
                return await trio.to_thread.run_sync(
                    self._call,
                    event,
                    context,
                    abandon_on_cancel=True,
                    limiter=cast(trio.CapacityLimiter, place),
                )
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code
            return _failed(error, invocation)
        finally:
            current_trace.reset(token)
            place.leave()
            if recorder is not None:
                recorder.end()
        assert scope.cancelled_caught
        logger.warning(
            "%s: a handler has run out of time; its thread goes on", invocation.function_name
        )
        more = "; its thread cannot be stopped and goes on"
        return timed_out(invocation.request_id, invocation.timeout_seconds, more)

    def _call(self, event: Any, context: LambdaContext) -> Result:
        return _returned(self._handler(event, context))

    async def close(self) -> None:
        """Threads that still run are left to themselves; they do not keep the node from ending."""
        await trio.lowlevel.checkpoint()


class _Place:
    """One of a handler's threads: taken before the clock runs, free when the thread has ended.

    What trio asks of a limiter.
    """

    __slots__ = ("_is_handed_over", "_limiter")

    def __init__(self, limiter: trio.CapacityLimiter) -> None:
        self._limiter = limiter
        #: Whether trio has it, which gives it back when the thread has ended, abandoned or not.
        self._is_handed_over = False

    async def acquire_on_behalf_of(self, _borrower: object) -> None:
        self._is_handed_over = True

    def release_on_behalf_of(self, _borrower: object) -> None:
        self._limiter.release_on_behalf_of(self)

    def leave(self) -> None:
        """Give it back, should no thread ever have started."""
        if not self._is_handed_over:
            self._limiter.release_on_behalf_of(self)


class ThreadTransaction:
    """``context.transaction`` in a thread: everything is done on the loop, whose tables these are.

    After the invocation has ended, an abandoned thread gets Unavailable.
    """

    __slots__ = ("_has_ended", "_transaction")

    def __init__(self, transaction: HandlerTransaction) -> None:
        self._transaction = transaction
        self._has_ended = False

    def end(self) -> None:
        self._has_ended = True

    def get(self, table: NamedTable | str, key: dict[str, Any]) -> dict[str, Any] | None:
        """The item under ``key``, or None; the commit demands that it stays so."""
        return trio.from_thread.run(self._get, table, key)

    async def _get(self, table: NamedTable | str, key: dict[str, Any]) -> dict[str, Any] | None:
        self._demand()
        return await self._transaction.get(table, key)

    def put(self, table: NamedTable | str, item: dict[str, Any], **more: Any) -> None:
        """Have ``item`` stored, in the place of whatever is under its key."""
        self._record("put", (table, item), more)

    def update(
        self, table: NamedTable | str, key: dict[str, Any], update: str, **more: Any
    ) -> None:
        """Have the item under ``key`` changed by an update expression."""
        self._record("update", (table, key, update), more)

    def delete(self, table: NamedTable | str, key: dict[str, Any], **more: Any) -> None:
        """Have the item under ``key`` removed."""
        self._record("delete", (table, key), more)

    def check(
        self, table: NamedTable | str, key: dict[str, Any], condition: str, **more: Any
    ) -> None:
        """Demand that ``condition`` holds for the item under ``key``, which is not changed."""
        self._record("check", (table, key, condition), more)

    def _record(self, kind: str, arguments: tuple[Any, ...], more: dict[str, Any]) -> None:
        def record() -> None:
            self._demand()
            getattr(self._transaction, kind)(*arguments, **more)

        trio.from_thread.run_sync(record)

    def _demand(self) -> None:
        if self._has_ended:
            raise Unavailable("The invocation has ended, and its transaction with it")


def _returned(value: Any) -> Result:
    if value is None:
        return Returned(None)
    payload = marshal(value)
    if isinstance(payload, Failed):
        return payload
    return Returned(msgspec.json.decode(payload))


def _failed(error: BaseException, invocation: Invocation) -> Failed:
    if isinstance(error, SystemExit):
        # It would end a worker; here it must not end the node.
        return exited(invocation.request_id, f"with error: exit status {error.code}")
    return raised(error, _BENEATH)


def _is_users(error: BaseException | None) -> bool:
    """Whether it is no more than a handler may raise."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_users, error.exceptions))
    return error is None or isinstance(error, Exception | SystemExit)


def _logged(invocation: Invocation) -> Callable[[str], object]:
    return lambda message: _output_logger.info("%s: %s", invocation.function_name, message)


class WorkerInvoker:
    """A handler in worker processes, at most ``concurrency`` of them.

    They are started when they are needed, serve one invocation at a time, the last one used first,
    and are ended when nobody has needed them for a while. A worker whose invocation did not end
    well in time, or whose handler ran out of memory, is killed and not used again.
    """

    __slots__ = (
        "_closed", "_concurrency", "_directory", "_environment", "_idle", "_idle_seconds", "_load",
        "_name", "_nursery", "_processes", "_slots", "_workers",
    )  # fmt: skip

    def __init__(
        self,
        nursery: trio.Nursery,
        processes: Processes,
        program: Program,
        *,
        name: str,
        environment: Mapping[str, str],
        directory: str,
        concurrency: int = 1,
        memory_limit_mb: int = 0,
        idle_seconds: float = WORKER_IDLE_SECONDS,
    ) -> None:
        """``environment`` is all that the workers get; ``memory_limit_mb`` 0 is no limit."""
        self._nursery = nursery
        self._processes = processes
        assert concurrency > 0
        try:
            self._load = encode(Load(program, memory_limit_mb * 1024 * 1024))
        except FrameError as error:
            raise ConfigurationError(f"{name} is too large for a worker: {error}") from None
        self._name = name
        self._environment = dict(environment)
        self._directory = directory
        #: 1 or more.
        self._concurrency = concurrency
        self._slots = trio.Semaphore(concurrency)
        self._idle_seconds = idle_seconds
        #: Every worker that has not ended, those that are starting or being killed included.
        self._workers: list[_Worker] = []
        #: Those without an invocation, the last one used on top.
        self._idle: list[_Worker] = []
        self._closed = False

    async def invoke(
        self, event: Any, invocation: Invocation, transaction: HandlerTransaction | None = None
    ) -> Result:
        try:
            said = msgspec.json.encode(event)
            frame = encode(Invoke(said, invocation, transaction is not None))
        except FrameError as error:
            return Failed("RequestEntityTooLargeException", str(error))
        async with self._slots:
            worker = self._take()
            if worker is None:
                worker = await self._start()
            try:
                refusal = await self._prepare(worker, invocation)
                if refusal is not None:
                    return refusal
                return await self._run(worker, frame, invocation, transaction)
            finally:
                self._give_back(worker)

    async def close(self) -> None:
        """End every worker and wait until they are gone; what they do is not finished."""
        self._closed = True
        for worker in list(self._workers):
            worker.dismissal.cancel()
        # A worker that is being started is nobody's yet: wait for whoever starts it.
        taken = 0
        try:
            for _ in range(self._concurrency):
                await self._slots.acquire()
                taken += 1
        finally:
            for _ in range(taken):
                self._slots.release()
        for worker in list(self._workers):
            await worker.ended.wait()

    def _take(self) -> _Worker | None:
        if self._closed:
            raise Unavailable(f"{self._name}: no more is invoked")
        while self._idle:
            worker = self._idle.pop()
            # Its time may be up, or it may have died, in this very moment.
            if not worker.dismissal.cancel_called and worker.child.is_running():
                worker.dismissal.deadline = float("inf")
                worker.is_busy = True
                worker.is_fit = False
                return worker
        return None

    def _give_back(self, worker: _Worker) -> None:
        worker.is_busy = False
        if worker.ended.is_set():
            worker.child.close()
        elif worker.is_fit:
            worker.dismissal.deadline = trio.current_time() + self._idle_seconds
            self._idle.append(worker)
        else:
            worker.child.kill()

    async def _start(self) -> _Worker:
        try:
            child = await self._processes.start(
                "lambdas.worker", self._environment, self._directory
            )
        except OSError as error:
            raise Unavailable(f"{self._name}: no worker can be started: {error}") from error
        worker = _Worker(child, self._name)
        self._workers.append(worker)
        self._nursery.start_soon(self._attend, worker, name=f"worker of {self._name}")
        if self._closed:
            worker.dismissal.cancel()
        return worker

    async def _attend(self, worker: _Worker) -> None:
        """Follow a worker's output; see to it that it ends, and that nothing is left of it."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(worker.follow_output)
                with worker.dismissal:
                    await worker.child.wait()
                    worker.has_died = True
                nursery.cancel_scope.cancel()
        finally:
            if worker in self._idle:
                self._idle.remove(worker)
            worker.child.kill()
            with trio.CancelScope(shield=True):
                worker.status = await worker.child.wait()
            worker.drain()
            worker.log(worker.output.end())
            worker.child.hang_up()
            self._workers.remove(worker)
            worker.ended.set()
            if not worker.is_busy:
                worker.child.close()

    async def _prepare(self, worker: _Worker, invocation: Invocation) -> Failed | None:
        """Have a new worker load its program."""
        if worker.is_loaded:
            return None
        limit_seconds = FUNCTION_INIT_SECONDS_MAX
        with trio.move_on_after(limit_seconds) as scope:
            message = await worker.receive()
            if message is None:
                raise Unavailable(f"{self._name}: a worker ended before it began")
            hello = Hello(PROTOCOL_VERSION, python_version())
            if message != hello:
                raise Unavailable(
                    f"{self._name}: the worker is of another version ({message}, the node is "
                    f"{hello}): has millstream been replaced under the running node? Restart it"
                )
            await worker.child.send(self._load)
            message = await worker.receive()
        if scope.cancelled_caught:
            worker.child.kill()
            return await self._with_tail(worker, timed_out(invocation.request_id, limit_seconds))
        if isinstance(message, Loaded):
            worker.is_loaded = True
            return None
        return await self._ended(worker, message, invocation)

    async def _run(
        self,
        worker: _Worker,
        frame: bytes,
        invocation: Invocation,
        transaction: HandlerTransaction | None,
    ) -> Result:
        worker.begin()
        with trio.move_on_after(invocation.timeout_seconds) as scope:
            message = await self._converse(worker, frame, transaction)
        if scope.cancelled_caught:
            worker.child.kill()
            failed = timed_out(invocation.request_id, invocation.timeout_seconds)
            return await self._with_tail(worker, failed)
        if isinstance(message, Answered):
            tail = worker.finish()
            try:
                if transaction is not None:
                    replay(message.writes, transaction)
                return Returned(msgspec.json.decode(message.payload), tail)
            except (MillstreamError, msgspec.MsgspecError) as error:
                return Failed(type(error).__name__, str(error), [], tail)
        if isinstance(message, Raised) and message.error_type != "Runtime.OutOfMemory":
            tail = worker.finish()
            return Failed(message.error_type, message.message, message.trace, tail)
        return await self._ended(worker, message, invocation)

    async def _converse(
        self, worker: _Worker, frame: bytes, transaction: HandlerTransaction | None
    ) -> Message | None:
        """Send an invocation, answer the handler's questions, and return its last word."""
        await worker.child.send(frame)
        while True:
            message = await worker.receive()
            if not isinstance(message, Ask) or transaction is None:
                return message
            await worker.child.send(encode(await answer(message, transaction)))

    async def _ended(
        self, worker: _Worker, message: Message | None, invocation: Invocation
    ) -> Failed:
        """The worker's last word was no answer, or it has none: this is its end."""
        if message is None:
            await worker.ended.wait()
            if not worker.has_died:
                raise Unavailable(f"{self._name}: the worker was ended with the node's handlers")
            failed = exited(invocation.request_id, _how(worker.status))
        elif not isinstance(message, Raised):
            failed = exited(invocation.request_id, "with error: its worker does not make sense")
        elif message.error_type == "Runtime.OutOfMemory":
            limit = f"its memory limit is {invocation.memory_limit_mb} MB"
            failed = exited(invocation.request_id, f"with error: out of memory; {limit}")
            failed = msgspec.structs.replace(failed, error_type=message.error_type)
        else:
            failed = Failed(message.error_type, message.message, message.trace)
        worker.child.kill()
        return await self._with_tail(worker, failed)

    async def _with_tail(self, worker: _Worker, failed: Failed) -> Failed:
        """After a kill: with the last that the worker has printed."""
        await worker.ended.wait()
        return msgspec.structs.replace(failed, log_tail=worker.output.tail())


class _Worker:
    """One process, and what its invoker knows of it."""

    __slots__ = (
        "child", "dismissal", "ended", "frames", "has_died", "is_busy", "is_fit", "is_loaded",
        "name", "output", "status",
    )  # fmt: skip

    def __init__(self, child: Child, name: str) -> None:
        self.child = child
        self.name = name
        self.frames = Frames()
        self.output = Output()
        #: Cancelled to end it; its deadline is set while it is idle.
        self.dismissal = trio.CancelScope()
        self.is_loaded = False
        #: An invocation has it: it is not in the list of idle ones, and its channel stays open.
        self.is_busy = True
        #: The last invocation ended well, so that there may be another.
        self.is_fit = False
        #: It ended by itself, or by a kill that was not a dismissal.
        self.has_died = False
        self.status = 0
        #: The process is gone and all of its output read.
        self.ended = trio.Event()

    def begin(self) -> None:
        """An invocation begins."""
        self.drain()
        self.log(self.output.end())
        self.output.begin()

    def finish(self) -> str:
        """An invocation has ended well; the last that it printed."""
        self.drain()
        self.log(self.output.end())
        self.is_fit = True
        return self.output.tail()

    async def receive(self) -> Message | None:
        """The worker's next message, or None when there will be none."""
        while True:
            try:
                message = self.frames.next()
            except FrameError as error:
                logger.error("%s: a worker sent %s; it is ended", self.name, error)
                # Not an answer to anything, and so the end of this worker.
                return Loaded()
            if message is not None:
                return message
            data = await self.child.receive()
            if not data:
                return None
            self.frames.feed(data)

    async def follow_output(self) -> None:
        """Read what is printed as it comes, or the worker would have to wait."""
        while True:
            await self.child.wait_output()
            if not self.drain():
                return

    def drain(self) -> bool:
        """Take what has been printed until now; False if no more will come."""
        # More than a pipe holds, and less than a handler that never stops printing.
        for _ in range(WORKER_OUTPUT_READS_MAX):
            data = self.child.read_output()
            if not data:
                return data is not None
            self.log(self.output.feed(data))
        return True

    def log(self, lines: list[str]) -> None:
        for line in lines:
            _output_logger.info("%s: %s", self.name, line)


def _how(status: int) -> str:
    if status > 0:
        return f"with error: exit status {status}"
    if status < 0:
        name = signal.strsignal(-status) or f"signal {-status}"
        return f"with error: signal: {name.lower()}"
    return "without providing a reason"
