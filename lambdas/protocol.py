"""What node and worker process say to each other, as frames: four bytes of length, MessagePack.

::

    worker                               node
    Hello  (versions)          ------>
                               <------   Load  (a pickled function, or a directory and a name)
    Loaded, or Raised          ------>
                               <------   Invoke  (event as JSON, what the context is made of)
    Ask  (an item)             ------>              any number of times, if there is a transaction
                               <------   Item, or Refused
    Answered, or Raised        ------>              and the next Invoke may come

Strictly one after the other, so that neither side ever sends while the other one does. A pickle
travels only from the node to a worker that it has started itself, with the versions of Python and
cloudpickle that made it; nothing from the worker is ever unpickled. The code in the worker is the
user's and may write anything: the node takes nothing for granted, and a frame that it cannot read
is the worker's end. Item values travel as DynamoDB JSON (``model/python_values.py``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec

from ..errors import ConfigurationError
from ..limits import WORKER_FRAME_BYTES_MAX
from .results import Invocation

PROTOCOL_VERSION: Final = 1
_LENGTH_BYTES: Final = 4


class FrameError(ValueError):
    """These bytes are no frame of ours, or one that is too large."""


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The worker's first word. Its shape never changes, so that any version can refuse any other.

    No cloudpickle here: importing it takes as long as half a start, and only a pickle needs it.
    """

    protocol: int
    python: str


class PickledFunction(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A function, and the versions that may load it."""

    pickle: bytes
    python: str
    cloudpickle: str
    #: The node's ``sys.path``, for what the pickle names only.
    path: list[str]


def pickled(handler: Callable[..., Any]) -> PickledFunction:
    """A function for worker processes of this installation; never to be stored.

    What a module of the node's ``sys.path`` defines travels by name, anything else by value.
    Raises ConfigurationError.
    """
    import pickle

    import cloudpickle

    try:
        data = cloudpickle.dumps(handler)
    except (TypeError, pickle.PicklingError, AttributeError, RecursionError) as error:
        name = getattr(handler, "__qualname__", handler)
        raise ConfigurationError(f"{name} cannot be sent to another process: {error}") from error
    return PickledFunction(data, python_version(), cloudpickle.__version__, list(sys.path))


def python_version() -> str:
    """What decides whether a function's code is understood: "cpython 3.11" of 3.11.7."""
    return f"{sys.implementation.name} {sys.version_info.major}.{sys.version_info.minor}"


class CodeDirectory(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Unzipped code, and the handler in it as Lambda names it: ``module.function``."""

    directory: str
    handler: str


Program: TypeAlias = PickledFunction | CodeDirectory


class Load(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Become the worker of this program. ``memory_limit_bytes``: 0 for none."""

    program: Program
    memory_limit_bytes: int


class Loaded(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Ready for invocations."""


class Invoke(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Call the handler. ``event`` is JSON."""

    event: bytes
    invocation: Invocation
    has_transaction: bool


class Ask(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """``context.transaction.get``: ``key`` is an item's DynamoDB JSON."""

    table: str
    key: bytes


class Item(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """The item asked for as DynamoDB JSON, or None."""

    body: bytes | None


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """The question could not be answered: an error of ``errors.py`` by name, and its message."""

    error_type: str
    message: str


class Write(msgspec.Struct, frozen=True, array_like=True):
    """One recorded action: ``kind`` is the method's name, ``subject`` the item or the key."""

    kind: str
    table: str
    subject: bytes
    update: str = ""
    condition: str | None = None
    names: dict[str, str] | None = None
    #: A map of attribute values as DynamoDB JSON.
    values: bytes | None = None


class Answered(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """What the handler returned, as JSON, and what it recorded in its transaction."""

    payload: bytes
    writes: list[Write]


class Raised(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """The handler failed, or could not be loaded."""

    error_type: str
    message: str
    trace: list[str]


Message: TypeAlias = Hello | Load | Loaded | Invoke | Ask | Item | Refused | Answered | Raised

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """The frame of a message. Raises FrameError for one that is too large."""
    buffer = bytearray(_LENGTH_BYTES)
    _encoder.encode_into(message, buffer, _LENGTH_BYTES)
    size_bytes = len(buffer) - _LENGTH_BYTES
    if size_bytes > WORKER_FRAME_BYTES_MAX:
        raise FrameError(f"{size_bytes} bytes are more than a frame holds")
    buffer[:_LENGTH_BYTES] = size_bytes.to_bytes(_LENGTH_BYTES)
    return bytes(buffer)


class Frames:
    """Puts messages together from bytes as they come."""

    __slots__ = ("_buffer", "_needed_bytes")

    def __init__(self) -> None:
        #: What has come and was not yet taken out; never more than a frame and a receive.
        self._buffer = bytearray()
        #: What must be there before looking at it makes sense.
        self._needed_bytes = _LENGTH_BYTES

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> Message | None:
        """The next message, or None if it is not all there yet. Raises FrameError."""
        if len(self._buffer) < self._needed_bytes:
            return None
        size_bytes = int.from_bytes(self._buffer[:_LENGTH_BYTES])
        if size_bytes > WORKER_FRAME_BYTES_MAX:
            raise FrameError(f"a frame of {size_bytes} bytes")
        end = _LENGTH_BYTES + size_bytes
        if len(self._buffer) < end:
            self._needed_bytes = end
            return None
        self._needed_bytes = _LENGTH_BYTES
        try:
            with memoryview(self._buffer) as view, view[_LENGTH_BYTES:end] as frame:
                message = _decoder.decode(frame)
        except msgspec.MsgspecError as error:
            raise FrameError(f"a frame that says nothing: {error}") from None
        del self._buffer[:end]
        return message
