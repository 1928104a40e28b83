"""A link's channel: the connection's machine, a stream, and the faults of a drill.

One task may receive while others send. A frame with nothing before it goes to the socket at once,
without a task being woken. What the socket does not take, or a drill delays, is queued: one task of
the channel writes it, in order. ``send`` returns when its frame has been taken by the socket, or,
where a drill delays it, when it is within the bytes that may be delayed; cancelled, its frame may
still be sent. So a frame is sent whole or the channel is at its end.

A channel ends once, for one reason, which everybody who waits on it is then told: the peer has
closed, is silent (LINK_SILENCE_SECONDS without a byte while somebody receives), takes nothing
(LINK_STALL_SECONDS for a piece of a frame), has sent what cannot be trusted, or a drill has cut the
link. ``aclose`` is the owner's, in every case. The handshake is neither delayed nor dropped by a
drill, only refused.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import trio

from ..errors import LinkError, LinkLost, LinkRefused
from ..globaltables.faults import LinkFaults
from ..globaltables.link import NONCE_BYTES, LinkConnection
from ..globaltables.messages import Message
from ..globaltables.peers import Identity, Peer
from ..host.entropy import Entropy
from ..host.links import AnsweredStream, ByteStream, Links, close_at_once, send_at_once
from ..limits import (
    LINK_DELAYED_BYTES_MAX,
    LINK_HANDSHAKE_BYTES_MAX,
    LINK_HANDSHAKE_SECONDS,
    LINK_RECEIVE_BYTES,
    LINK_SEND_BYTES,
    LINK_SILENCE_SECONDS,
    LINK_STALL_SECONDS,
)
from .tasks import acquire


class Channel:
    """See the module's docstring. Made by ``dial_channel`` and ``answer_channel``."""

    __slots__ = (
        "_changed",
        "_connection",
        "_end_of",
        "_faults",
        "_given",
        "_messages",
        "_order",
        "_queue",
        "_queued_bytes",
        "_receiving",
        "_stop_listening",
        "_stream",
        "_taken",
        "_writing",
        "peer",
    )

    def __init__(
        self,
        connection: LinkConnection,
        stream: ByteStream,
        faults: LinkFaults,
        messages: Sequence[Message],
    ) -> None:
        """``messages`` have come behind the handshake."""
        assert connection.made
        assert connection.peer is not None
        #: Proved.
        self.peer: Identity = connection.peer
        self._connection = connection
        self._stream = stream
        self._faults = faults
        #: Received and not told yet; of one frame or one read of the socket.
        self._messages: deque[Message] = deque(messages)
        #: One sender at a time, so that no more than one frame is beyond what may be delayed.
        self._order = trio.Lock()
        #: (when it was queued, what is left of the frame), oldest first. The first one may be being
        #: written.
        self._queue: deque[tuple[float, bytes]] = deque()
        self._queued_bytes = 0
        #: How many frames were ever queued, and how many of those the socket has taken.
        self._given = 0
        self._taken = 0
        #: Why the channel has ended, for all who ask.
        self._end_of: LinkError | None = None
        #: Set, and replaced, when a waiter should look again.
        self._changed = trio.Event()
        #: What the end interrupts, at the socket.
        self._receiving: trio.CancelScope | None = None
        self._writing: trio.CancelScope | None = None
        self._stop_listening = faults.when_changed(self._look)
        self._look()

    async def send(self, message: Message) -> None:
        """Send it, after what was sent before. Nobody else runs if the socket takes it at once.

        Raises:
            LinkLost: the channel has ended. The message may or may not have been sent.
            LinkError: it is too large for a frame; the channel goes on.
        """
        await acquire(self._order)
        try:
            self._check()
            if self._faults.drops(self.peer.region):
                self._end(LinkLost(f"a drill has dropped the link with {self.peer.region}"))
                self._check()
            frame = self._connection.send(message)
            sent = 0
            if not self._queue and not self._is_delayed():
                sent = send_at_once(self._stream, frame)
            if sent < len(frame):
                await self._send_rest(frame[sent:])
        finally:
            self._order.release()

    async def _send_rest(self, rest: bytes) -> None:
        """Queue what is left of a frame; wait until it is written, or may wait by itself."""
        self._queue.append((trio.current_time(), rest))
        self._queued_bytes += len(rest)
        self._given += 1
        number = self._given
        self._wake()
        while self._taken < number and not self._may_wait():
            await self._changed.wait()
            if self._taken < number:
                self._check()

    async def receive(self) -> Message:
        """The next message. One task at a time.

        Raises:
            LinkLost: the channel has ended; what was received before has been told.
            LinkError: what has come cannot be trusted, and the channel has ended.
        """
        if self._messages:
            await trio.lowlevel.checkpoint()
        assert self._receiving is None, "a channel has one receiver"
        while not self._messages:
            self._check()
            data = await self._read()
            try:
                if data:
                    self._messages.extend(self._connection.receive(data))
                elif data is not None:
                    self._end(self._connection.receive_end())
            except LinkError as error:
                self._end(error)
        return self._messages.popleft()

    async def aclose(self) -> None:
        """End it, at once: what is queued is not sent. Any number of times."""
        self._end(LinkLost(f"the link with {self.peer.region} was closed"))
        await close_at_once(self._stream)

    async def write(self) -> None:
        """The channel's own task: what is queued is sent, until the end."""
        try:
            while self._end_of is None:
                if not self._queue or self._due() > trio.current_time():
                    with trio.move_on_at(self._due()):
                        await self._changed.wait()
                    continue
                with trio.CancelScope() as self._writing:
                    await self._write(self._queue[0][1])
                    _, frame = self._queue.popleft()
                    self._queued_bytes -= len(frame)
                    self._taken += 1
                    self._wake()
                self._writing = None
        finally:
            # Cancelled, it may have left a frame half sent.
            self._end(LinkLost(f"the link with {self.peer.region} was closed"))

    async def _write(self, frame: bytes) -> None:
        pieces = memoryview(frame)
        for at in range(0, len(frame), LINK_SEND_BYTES):
            with trio.move_on_after(LINK_STALL_SECONDS) as limit:
                try:
                    await self._stream.send_all(pieces[at : at + LINK_SEND_BYTES])
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._end(LinkLost(f"the link with {self.peer.region} broke"))
            if limit.cancelled_caught:
                region = self.peer.region
                self._end(LinkLost(f"{region} took nothing for {LINK_STALL_SECONDS:g} seconds"))
            if self._end_of is not None:
                # The end has cancelled the scope that this is in.
                await trio.lowlevel.checkpoint()

    async def _read(self) -> bytes | bytearray | None:
        """What has come, nothing at the end; None if the channel has ended meanwhile."""
        with trio.move_on_after(LINK_SILENCE_SECONDS) as self._receiving:
            try:
                return await self._stream.receive_some(LINK_RECEIVE_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._end(LinkLost(f"the link with {self.peer.region} broke"))
            finally:
                self._receiving = None
        region = self.peer.region
        self._end(LinkLost(f"{region} was silent for {LINK_SILENCE_SECONDS:g} seconds"))
        return None

    def _due(self) -> float:
        """When the first frame may be written."""
        fault = self._faults.of(self.peer.region)
        if not self._queue or fault.is_paused:
            return math.inf
        return self._queue[0][0] + fault.latency_seconds

    def _may_wait(self) -> bool:
        """Whether the frames in the queue are a drill's business and nobody's who sends."""
        return self._is_delayed() and self._queued_bytes <= LINK_DELAYED_BYTES_MAX

    def _is_delayed(self) -> bool:
        fault = self._faults.of(self.peer.region)
        return fault.is_paused or fault.latency_seconds > 0.0

    def _look(self) -> None:
        """The faults have changed."""
        try:
            self._faults.check_link(self.peer.region)
        except LinkRefused as error:
            self._end(LinkLost(str(error)))
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _end(self, reason: LinkError) -> None:
        """The first reason counts."""
        if self._end_of is not None:
            return
        self._end_of = reason
        self._stop_listening()
        for scope in (self._receiving, self._writing):
            if scope is not None:
                scope.cancel()
        self._wake()

    def _check(self) -> None:
        if self._end_of is not None:
            # A new one each time: tracebacks grow on an exception that is raised again.
            raise type(self._end_of)(str(self._end_of))


async def dial_channel(
    nursery: trio.Nursery,
    links: Links,
    peer: Peer,
    identity: Identity,
    secret: bytes,
    entropy: Entropy,
    faults: LinkFaults,
) -> Channel:
    """A channel with the node that answers at the peer's address; its task runs in the nursery.

    Raises:
        LinkRefused: one side will not have it, for a reason that waiting does not change; or a
            drill has cut the link.
        LinkLost: nobody answers, or not in time.
        LinkError: who answers is no node.
    """
    faults.check_link(peer.region)
    try:
        stream = await links.dial(peer.address)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise LinkLost(f"{peer.region} does not answer at {peer.address}: {reason}") from None
    connection = LinkConnection(
        is_origin=True,
        identity=identity,
        secret=secret,
        nonce=entropy.token_bytes(NONCE_BYTES),
        expected=(peer.identity,),
    )
    return await _made(nursery, connection, stream, faults)


async def answer_channel(
    nursery: trio.Nursery,
    stream: AnsweredStream,
    identity: Identity,
    secret: bytes,
    peers: Sequence[Identity],
    entropy: Entropy,
    faults: LinkFaults,
) -> Channel:
    """A channel with one of the peers, who has made this stream; its task runs in the nursery.

    Raises as ``dial_channel`` does.
    """
    connection = LinkConnection(
        is_origin=False,
        identity=identity,
        secret=secret,
        nonce=entropy.token_bytes(NONCE_BYTES),
        expected=peers,
    )
    channel = await _made(nursery, connection, stream, faults)
    stream.trust()
    return channel


async def _made(
    nursery: trio.Nursery, connection: LinkConnection, stream: ByteStream, faults: LinkFaults
) -> Channel:
    """The channel, after the handshake. Without one, the stream is closed."""
    channel: Channel | None = None
    try:
        with trio.move_on_after(LINK_HANDSHAKE_SECONDS):
            messages = await _shake_hands(connection, stream, faults)
            channel = Channel(connection, stream, faults, messages)
            nursery.start_soon(channel.write)
            return channel
        raise LinkLost(f"no handshake within {LINK_HANDSHAKE_SECONDS:g} seconds")
    finally:
        if channel is None:
            await close_at_once(stream)


async def _shake_hands(
    connection: LinkConnection, stream: ByteStream, faults: LinkFaults
) -> list[Message]:
    """What has come behind the handshake."""
    messages: list[Message] = []
    try:
        while True:
            await _tell(connection, stream)
            if connection.made:
                return messages
            data = await stream.receive_some(LINK_HANDSHAKE_BYTES_MAX)
            if not data:
                raise connection.receive_end()
            try:
                messages = connection.receive(data)
            except LinkError:
                await _tell(connection, stream)
                raise
            if connection.peer is not None:
                faults.check_link(connection.peer.region)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        raise LinkLost("the link broke before it was made") from None


async def _tell(connection: LinkConnection, stream: ByteStream) -> None:
    data = connection.ready()
    if data:
        await stream.send_all(data)
