"""A network in memory, shared by the nodes of one program: for tests, simulation and drills.

Addresses are any strings. Every node has its view of the network (``MemoryNetwork.of``), so that
the network knows whose bytes go which way: latency and cuts are of a *way*, from one node to
another. A way that is cut silently is one on which packets are lost: what is sent stays where it is
until the way is healed, a sender stops when the buffer is full, and an end is not seen either. A
way that is cut otherwise breaks every stream that uses it, at both ends.

Buffers are bounded, as a socket's are. Reads are cut at random places, as TCP cuts them. Time is
trio's and chance is given, so that a seed replays it.
"""

from __future__ import annotations

import errno
import random
from collections import deque

import trio

from ..errors import ConfigurationError, LinkLost
from ..limits import LINK_DIAL_SECONDS
from .links import ByteStream, Handler, Visitors
from .memory_disk import Chance

BUFFER_BYTES = 64 * 1024
"""What a direction of a stream holds, and one piece of a send more."""
_PIECE_BYTES = 16 * 1024


class _Way:
    """What bytes from one node to another meet."""

    __slots__ = ("is_cut", "is_silent", "latency_seconds", "pipes")

    def __init__(self) -> None:
        self.latency_seconds = 0.0
        self.is_cut = False
        #: Of a cut: packets are lost, and nobody is told.
        self.is_silent = False
        #: All that are open, oldest first.
        self.pipes: list[_Pipe] = []


class _Pipe:
    """One direction of a stream. ``back`` is the other one."""

    __slots__ = (
        "_buffer",
        "_buffer_bytes",
        "_chance",
        "_changed",
        "_held_bytes",
        "_is_abandoned",
        "_is_broken",
        "_is_ended",
        "_way",
        "back",
    )

    def __init__(self, way: _Way, buffer_bytes: int, chance: Chance) -> None:
        self._way = way
        self._buffer_bytes = buffer_bytes
        # One of its own: whichever task runs first, each pipe cuts at the same places.
        self._chance = random.Random(chance.randrange(1 << 32))
        self.back = self
        #: (when it arrives, what), in the order of sending, which is that of receiving. An end is
        #: an empty piece.
        self._buffer: deque[tuple[float, bytes]] = deque()
        self._held_bytes = 0
        #: The sender has closed; an end is the last piece.
        self._is_ended = False
        #: The receiver has closed; what is sent is answered by a reset, which has to get through.
        self._is_abandoned = False
        #: The stream is broken, at both ends.
        self._is_broken = False
        self._changed = trio.Event()
        way.pipes.append(self)

    def wake(self) -> None:
        """Something is not as it was: let waiters look again."""
        self._changed.set()
        self._changed = trio.Event()

    def break_off(self) -> None:
        """The way is cut."""
        self._is_broken = True
        self.wake()

    def end(self) -> None:
        """The sender has closed."""
        self._is_ended = True
        self._put(b"")
        self._forget()

    def abandon(self) -> None:
        """The receiver has closed."""
        self._is_abandoned = True
        self.wake()
        self._forget()

    def _forget(self) -> None:
        if self._is_ended and self._is_abandoned:
            self._way.pipes.remove(self)

    async def put(self, data: bytes) -> None:
        """Send so much, once there is room."""
        while True:
            if self._is_ended:
                raise trio.ClosedResourceError("this side has closed the stream")
            if self._is_broken or (self._is_abandoned and not self.back._way.is_cut):
                raise trio.BrokenResourceError("the connection was reset")
            if self._held_bytes < self._buffer_bytes:
                self._put(data)
                return
            await self._changed.wait()

    def _put(self, data: bytes) -> None:
        self._buffer.append((trio.current_time() + self._way.latency_seconds, data))
        self._held_bytes += len(data)
        self.wake()

    async def take(self, size_bytes_max: int) -> bytes:
        """Receive at most so much, once there is something; nothing at the end."""
        while True:
            if self._is_abandoned:
                raise trio.ClosedResourceError("this side has closed the stream")
            if self._is_broken:
                raise trio.BrokenResourceError("the connection was reset")
            due = float("inf")
            if self._buffer and not self._way.is_cut:
                due = self._buffer[0][0]
                if due <= trio.current_time():
                    return self._taken(size_bytes_max)
            with trio.move_on_at(due):
                await self._changed.wait()

    def _taken(self, size_bytes_max: int) -> bytes:
        due, data = self._buffer[0]
        if not data:
            return b""
        most = min(len(data), size_bytes_max)
        # Mostly what one send has sent; now and then less.
        size_bytes = most if self._chance.randrange(4) else 1 + self._chance.randrange(most)
        if size_bytes == len(data):
            self._buffer.popleft()
        else:
            self._buffer[0] = (due, data[size_bytes:])
        self._held_bytes -= size_bytes
        self.wake()
        return data[:size_bytes]


class MemoryStream:
    """One end of a connection, a ``ByteStream``. One task may send while another receives."""

    __slots__ = ("_incoming", "_is_closed", "_is_receiving", "_is_sending", "_outgoing")

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._is_closed = False
        self._is_sending = False
        self._is_receiving = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending")
        self._is_sending = True
        try:
            await trio.lowlevel.checkpoint()
            for at in range(0, len(data), _PIECE_BYTES):
                await self._outgoing.put(bytes(data[at : at + _PIECE_BYTES]))
        finally:
            self._is_sending = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._is_receiving:
            raise trio.BusyResourceError("another task is receiving")
        self._is_receiving = True
        try:
            await trio.lowlevel.checkpoint()
            return await self._incoming.take(BUFFER_BYTES if max_bytes is None else max_bytes)
        finally:
            self._is_receiving = False

    async def aclose(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            # The peer reads what is under way, then the end; what it sends goes nowhere.
            self._outgoing.end()
            self._incoming.abandon()
            # Whether it may still send has changed with that.
            self._outgoing.wake()
        await trio.lowlevel.checkpoint()


class _Listener:
    __slots__ = ("handler", "name", "nursery", "visitors")

    def __init__(self, name: str, handler: Handler, nursery: trio.Nursery) -> None:
        self.name = name
        self.handler = handler
        self.nursery = nursery
        self.visitors = Visitors()


class MemoryNetwork:
    """All nodes' connections with each other, and what is wrong with them."""

    __slots__ = ("_buffer_bytes", "_chance", "_expected", "_last_port", "_listeners", "_ways")

    def __init__(self, chance: Chance, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._chance = chance
        self._buffer_bytes = buffer_bytes
        #: By address.
        self._listeners: dict[str, _Listener] = {}
        #: By (from whom, to whom).
        self._ways: dict[tuple[str, str], _Way] = {}
        self._last_port = 0
        #: Addresses at which somebody will answer, and what tells those who wait for it.
        self._expected: dict[str, trio.Event] = {}

    def expect(self, address: str) -> None:
        """Somebody will answer there: until then, who dials waits, and is not refused."""
        if address not in self._listeners:
            self._expected[address] = trio.Event()

    def of(self, name: str) -> MemoryLinks:
        """The network as the node ``name`` has it."""
        return MemoryLinks(self, name)

    def set_latency(self, one: str, other: str, seconds: float, *, one_way: bool = False) -> None:
        """What is sent from now on arrives so much later; with ``one_way``, from ``one`` only."""
        for way in self._both(one, other, one_way):
            way.latency_seconds = seconds

    def cut(self, one: str, other: str, *, silently: bool = False, one_way: bool = False) -> None:
        """Let nothing through; with ``one_way``, nothing from ``one`` to ``other``."""
        for way in self._both(one, other, one_way):
            way.is_cut = True
            way.is_silent = silently
            for pipe in way.pipes:
                if not silently:
                    pipe.break_off()
                    pipe.back.break_off()
                pipe.wake()

    def heal(self, one: str, other: str) -> None:
        """Undo cuts, both ways. What a silent one has held up arrives."""
        for way in self._both(one, other, False):
            way.is_cut = way.is_silent = False
            for pipe in way.pipes:
                pipe.wake()
                pipe.back.wake()

    def _both(self, one: str, other: str, one_way: bool) -> list[_Way]:
        ways = [self.way(one, other)]
        return ways if one_way else [*ways, self.way(other, one)]

    def way(self, sender: str, receiver: str) -> _Way:
        """What lies between them. For views."""
        return self._ways.setdefault((sender, receiver), _Way())

    def free_address(self, address: str) -> str:
        """The address, with a port of its own if that was 0. For views.

        Raises ConfigurationError where somebody answers already.
        """
        if address.endswith(":0"):
            self._last_port += 1
            address = f"{address[:-1]}{self._last_port}"
        if address in self._listeners:
            raise ConfigurationError(f"links cannot be answered at {address}: in use")
        return address

    def listen(self, address: str, listener: _Listener) -> None:
        """Have connections to a free address served. For views."""
        assert address not in self._listeners
        self._listeners[address] = listener
        if address in self._expected:
            self._expected.pop(address).set()

    def unlisten(self, address: str) -> None:
        """Nobody is there any more. For views."""
        del self._listeners[address]

    async def dial(self, name: str, address: str) -> ByteStream:
        """A connection from the node ``name``. For views."""
        with trio.move_on_after(LINK_DIAL_SECONDS):
            if address in self._expected:
                await self._expected[address].wait()
            listener = self._find(address)
            there, back = self.way(name, listener.name), self.way(listener.name, name)
            await trio.sleep(there.latency_seconds + back.latency_seconds)
            if there.is_silent or back.is_silent:
                await trio.sleep_forever()
            if there.is_cut or back.is_cut:
                raise OSError(errno.ENETUNREACH, f"there is no way to {address}")
            # Whoever was there may have gone meanwhile.
            listener = self._find(address)
            outgoing, incoming = self._pipe(there), self._pipe(back)
            outgoing.back, incoming.back = incoming, outgoing
            listener.nursery.start_soon(
                listener.visitors.receive,
                MemoryStream(outgoing, incoming),
                listener.handler,
            )
            return MemoryStream(incoming, outgoing)
        raise LinkLost(f"{address} has not answered within {LINK_DIAL_SECONDS:g} seconds")

    def _find(self, address: str) -> _Listener:
        listener = self._listeners.get(address)
        if listener is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nobody answers at {address}")
        return listener

    def _pipe(self, way: _Way) -> _Pipe:
        return _Pipe(way, self._buffer_bytes, self._chance)


class MemoryLinks:
    """A ``Links``: the network in memory, as one node has it."""

    __slots__ = ("_name", "_network")

    def __init__(self, network: MemoryNetwork, name: str) -> None:
        self._network = network
        self._name = name

    async def dial(self, address: str) -> ByteStream:
        return await self._network.dial(self._name, address)

    async def serve(
        self,
        address: str,
        handler: Handler,
        *,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        address = self._network.free_address(address)
        async with trio.open_nursery() as nursery:
            self._network.listen(address, _Listener(self._name, handler, nursery))
            try:
                task_status.started(address)
                await trio.sleep_forever()
            finally:
                self._network.unlisten(address)
