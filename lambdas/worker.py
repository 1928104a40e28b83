"""The program in a worker process: loads one handler and runs its invocations one by one.

Started by the node (``host/processes.py``) and told everything over the channel; ``protocol.py``
has the conversation. It imports little, since starting it is what a cold invocation waits for:
neither trio nor any room that stores. The handler runs in the main thread, as on Lambda.

It is a program of its own, not part of the node: it may look at the clock, and nothing of what it
does is replayed. It ends when the channel does, and is killed by the kernel when the node ends in
the middle of an invocation (``host/lifeline.py``). The time limit is the node's business.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from time import gmtime, monotonic
from typing import Any, NoReturn, TypeVar

import msgspec

from .. import errors
from ..host.lifeline import die_with_the_node
from ..limits import WORKER_MEMORY_RESERVE_BYTES, WORKER_RECEIVE_BYTES
from .callables import is_async
from .context import LambdaContext
from .protocol import (
    PROTOCOL_VERSION,
    Answered,
    Ask,
    CodeDirectory,
    FrameError,
    Frames,
    Hello,
    Invoke,
    Item,
    Load,
    Loaded,
    Message,
    PickledFunction,
    Raised,
    Refused,
    encode,
    python_version,
)
from .results import Failed, marshal, raised

Handler = Callable[[Any, Any], Any]
M = TypeVar("M", bound=Message)

# Files whose frames stand between the node and the handler.
_BENEATH = [__file__, importlib.__file__, "<frozen importlib"]


def main() -> NoReturn:
    """The whole life of a worker."""
    channel, lifeline = (int(number) for number in sys.argv[1:3])
    # What the handler sees is Lambda's: no arguments of ours.
    del sys.argv[1:]
    die_with_the_node(lifeline)
    os.set_inheritable(channel, False)
    for stream in (sys.stdout, sys.stderr):
        # So that the node has every line of a handler that dies.
        stream.reconfigure(line_buffering=True, encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    status: object = 0
    try:
        serve(Channel(channel))
    except SystemExit as ending:
        status = ending.code
        if status is not None and not isinstance(status, int):
            print(status, file=sys.stderr)
    _flush()
    # Threads that the handler left behind do not keep a worker alive.
    os._exit(status if isinstance(status, int) else int(status is not None))


def serve(channel: Channel) -> None:
    """Say hello, load, and run invocations until the channel ends."""
    channel.send(Hello(PROTOCOL_VERSION, python_version()))
    load = channel.receive(Load)
    _limit(load.memory_limit_bytes)
    handler = _load(load.program)
    if isinstance(handler, Raised):
        channel.send(handler)
        return
    channel.send(Loaded())
    while True:
        channel.send(_run(handler, channel.receive(Invoke), channel))


class Channel:
    """The worker's end of the channel."""

    __slots__ = ("_descriptor", "_frames", "_lock")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._frames = Frames()
        #: Held from a question to its answer: a handler may have threads.
        self._lock = Lock()

    def send(self, message: Message) -> None:
        """Send a message; one that is too large goes as a failure."""
        _flush()
        try:
            view = memoryview(encode(message))
        except FrameError as error:
            view = memoryview(encode(Raised("Function.ResponseSizeTooLarge", str(error), [])))
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except (BrokenPipeError, ConnectionResetError):
                sys.exit(0)

    def receive(self, kind: type[M]) -> M:
        """The next message, which is of this kind; the node's end is ours."""
        message = self._next()
        assert isinstance(message, kind)
        return message

    def ask(self, question: Ask) -> bytes | None:
        """Ask the node for an item; its DynamoDB JSON, or None. Raises what the node refuses by."""
        with self._lock:
            self.send(question)
            answer = self._next()
        if isinstance(answer, Refused):
            raise _error(answer)
        assert isinstance(answer, Item)
        return answer.body

    def _next(self) -> Message:
        while True:
            message = self._frames.next()
            if message is not None:
                return message
            try:
                data = os.read(self._descriptor, WORKER_RECEIVE_BYTES)
            except ConnectionResetError:
                data = b""
            if not data:
                sys.exit(0)
            self._frames.feed(data)


def _error(refused: Refused) -> Exception:
    found = getattr(errors, refused.error_type, None)
    if isinstance(found, type) and issubclass(found, errors.MillstreamError):
        with suppress(TypeError):
            return found(refused.message)
    return errors.MillstreamError(f"{refused.error_type}: {refused.message}")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # The handler may have put anything in their place, or closed them.
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _limit(memory_bytes: int) -> None:
    """Bound the memory; have the kernel choose us when there is none left; write no core files.

    RLIMIT_DATA counts what is private and writable. RLIMIT_AS would count what is only reserved,
    which allocators and runtimes do by the gigabyte. On macOS neither is enforced.
    """
    import resource

    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("500")
    if memory_bytes:
        limit = memory_bytes + WORKER_MEMORY_RESERVE_BYTES
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


# Loading.


def _load(program: PickledFunction | CodeDirectory) -> Handler | Raised:
    try:
        if isinstance(program, PickledFunction):
            return _unpickle(program)
        return _import(program)
    except MemoryError:
        return _out_of_memory()
    except Exception as error:  # noqa: BLE001 - the user's code
        return _raised(raised(error, _BENEATH))


def _unpickle(program: PickledFunction) -> Handler | Raised:
    # The path first: cloudpickle itself may be somewhere on it.
    sys.path[:] = program.path
    import cloudpickle

    made = (program.python, program.cloudpickle)
    here = (python_version(), cloudpickle.__version__)
    if made != here:
        message = "The handler was pickled by {} with cloudpickle {}, the worker has {} with {}"
        return Raised("Runtime.VersionMismatch", message.format(*made, *here), [])
    try:
        handler: Handler = cloudpickle.loads(program.pickle)
    except ImportError as error:
        return Raised("Runtime.ImportModuleError", f"Unable to import the handler: {error}", [])
    return handler


def _import(program: CodeDirectory) -> Handler | Raised:
    # First the function's own code, as on Lambda; the node's packages last.
    sys.path.insert(0, program.directory)
    module_name, dot, name = program.handler.rpartition(".")
    if not dot or not module_name or not name:
        message = f"Bad handler '{program.handler}': it is not of the form module.function"
        return Raised("Runtime.MalformedHandlerName", message, [])
    module_name = module_name.replace("/", ".")
    if module_name.split(".")[0] in sys.builtin_module_names:
        message = f"Cannot use built-in module {module_name} as a handler module"
        return Raised("Runtime.BuiltInModuleConflict", message, [])
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        message = f"Unable to import module '{module_name}': {error}"
        return _raised(raised(error, _BENEATH), "Runtime.ImportModuleError", message)
    except SyntaxError as error:
        trace = [f'  File "{error.filename}" Line {error.lineno}\n    {error.text or ""}']
        message = f"Syntax error in module '{module_name}': {error}"
        return Raised("Runtime.UserCodeSyntaxError", message, trace)
    handler: Handler | None = getattr(module, name, None)
    if handler is None:
        message = f"Handler '{name}' missing on module '{module_name}'"
        return Raised("Runtime.HandlerNotFound", message, [])
    return handler


# Running.


def _run(handler: Handler, invoke: Invoke, channel: Channel) -> Answered | Raised:
    invocation = invoke.invocation
    if invocation.trace_id:
        # botocore sends it on, which is how the node sees that a handler's write is one.
        os.environ["_X_AMZN_TRACE_ID"] = invocation.trace_id
    else:
        os.environ.pop("_X_AMZN_TRACE_ID", None)
    _set_up_logging(invocation.request_id)
    awaits = is_async(handler)
    transaction = None
    if invoke.has_transaction:
        # Half of what a worker would import, and only transactions need it.
        from .recording import AsyncWorkerTransaction, WorkerTransaction

        transaction = (AsyncWorkerTransaction if awaits else WorkerTransaction)(channel.ask)
    try:
        context = LambdaContext(
            invocation,
            monotonic,
            _log,
            transaction,
            os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME", ""),
        )
        event = msgspec.json.decode(invoke.event)
        if awaits:
            import trio

            result = trio.run(handler, event, context)
        else:
            result = handler(event, context)
        payload = marshal(result)
    except MemoryError:
        return _out_of_memory()
    except Exception as error:  # noqa: BLE001 - the user's code
        return _raised(raised(error, _beneath()))
    if isinstance(payload, Failed):
        return _raised(payload)
    return Answered(payload, [] if transaction is None else transaction.writes)


def _beneath() -> list[str]:
    found = list(_BENEATH)
    for name in ("trio", "outcome"):
        module = sys.modules.get(name)
        if module is not None and module.__file__:
            found.append(os.path.dirname(module.__file__) + os.sep)
    return found


def _raised(failed: Failed, error_type: str = "", message: str = "") -> Raised:
    return Raised(error_type or failed.error_type, message or failed.message, failed.trace)


def _out_of_memory() -> Raised:
    return Raised("Runtime.OutOfMemory", "", [])


def _log(message: str) -> None:
    sys.stdout.write(message)
    sys.stdout.flush()


_request_id = ""


def _set_up_logging(request_id: str) -> None:
    """Give the root logger a handler, as Lambda does, once anybody has imported logging."""
    global _request_id
    _request_id = request_id
    logging = sys.modules.get("logging")
    if logging is None or logging.getLogger().handlers:
        return

    class Printer(logging.Handler):  # type: ignore[misc, name-defined]
        def emit(self, record: Any) -> None:
            record.aws_request_id = _request_id
            with suppress(OSError, ValueError):
                sys.stdout.write(self.format(record))

    printer = Printer()
    formatter = logging.Formatter(
        "[%(levelname)s]\t%(asctime)s.%(msecs)dZ\t%(aws_request_id)s\t%(message)s\n",
        "%Y-%m-%dT%H:%M:%S",
    )
    formatter.converter = gmtime
    printer.setFormatter(formatter)
    logging.getLogger().addHandler(printer)
