"""The door to other regions' nodes: streams of bytes, dialled and answered.

What the streams carry is not known here, nor who is at the other end: ``trust`` is how whoever
finds that out says so. Until then a connection that was answered is a *stranger's*, and of
strangers only a few are let in, so that they cannot keep the others out for good.

With ``Tls`` both sides show a certificate of the same authority. Whose it is is not looked at: the
names of hosts say nothing about regions, which prove themselves inside.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

import trio

from ..errors import ConfigurationError, LinkLost, LinkRefused
from ..limits import (
    LINK_CONNECTIONS_MAX,
    LINK_DIAL_SECONDS,
    LINK_HANDSHAKE_SECONDS,
    LINK_STRANGERS_MAX,
)
from .addresses import Tls, split_address
from .network import accept, open_listeners, port_of


class ByteStream(Protocol):
    """One connection, as trio's ``SocketStream`` and ``SSLStream`` are.

    A connection that broke raises ``trio.BrokenResourceError``, one that was closed on this side
    ``trio.ClosedResourceError``.
    """

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it, or raise. Cancelled, part of it may have been sent."""
        ...

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """What has arrived, at least a byte; nothing at the end."""
        ...

    async def aclose(self) -> None:
        """Close at once, if cancelled too."""
        ...


class AnsweredStream(ByteStream, Protocol):
    """A connection that somebody has made to us."""

    def trust(self) -> None:
        """Its peer has proved who it is: it is no longer counted among strangers."""
        ...


Handler: TypeAlias = Callable[[AnsweredStream], Awaitable[None]]


class Links(Protocol):
    """Dials and answers. Addresses are what the file of regions says."""

    async def dial(self, address: str) -> ByteStream:
        """A connection with whoever answers there.

        Raises OSError where nobody does, LinkLost after LINK_DIAL_SECONDS, LinkRefused where
        certificates are not accepted.
        """
        ...

    async def serve(
        self,
        address: str,
        handler: Handler,
        *,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Answer there until cancelled, each connection by ``handler`` in a task of its own.

        The stream is closed when the handler returns. What it raises ends everything. Tells the
        address with the port that was found, if it was 0. Raises ConfigurationError where it cannot
        listen.
        """
        ...


class Visitors:
    """Counts the connections that were answered, against the limits."""

    __slots__ = ("_all", "_strangers")

    def __init__(self) -> None:
        self._all = 0
        #: Those of them that have not proved who they are.
        self._strangers = 0

    async def receive(
        self,
        stream: ByteStream,
        handler: Handler,
        meet: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """Serve one of them, if there is room, and close it.

        ``meet`` is done before, as a stranger, and says whether to go on.
        """
        if self._strangers >= LINK_STRANGERS_MAX or self._all >= LINK_CONNECTIONS_MAX:
            await close_at_once(stream)
            return
        self._all += 1
        self._strangers += 1
        visitor = _Visitor(stream, self)
        try:
            if meet is None or await meet():
                await handler(visitor)
        finally:
            visitor.trust()
            self._all -= 1
            await close_at_once(stream)

    def lose_stranger(self) -> None:
        """One of them is none any more."""
        self._strangers -= 1


class _Visitor:
    """An ``AnsweredStream``."""

    __slots__ = ("_is_stranger", "_visitors", "stream")

    def __init__(self, stream: ByteStream, visitors: Visitors) -> None:
        self.stream = stream
        self._visitors = visitors
        self._is_stranger = True

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.stream.aclose()

    def trust(self) -> None:
        if self._is_stranger:
            self._is_stranger = False
            self._visitors.lose_stranger()


async def close_at_once(stream: ByteStream) -> None:
    """Close without telling the peer more than the transport does by itself."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.aclose()


def send_at_once(stream: ByteStream, data: bytes) -> int:
    """Send what the transport takes now, without waiting; how many bytes that were.

    0 where that cannot be said (TLS, streams in memory), and where the connection broke: who then
    waits to send the rest is told. Nobody else may be sending.
    """
    if isinstance(stream, _Visitor):
        stream = stream.stream
    if not isinstance(stream, trio.SocketStream):
        return 0
    try:
        return os.write(stream.socket.fileno(), data)
    except OSError:
        return 0


class RealLinks:
    """TCP, with TLS if it is given. Raises ConfigurationError for files that cannot be used."""

    __slots__ = ("_client", "_server")

    def __init__(self, tls: Tls | None = None) -> None:
        self._client = None if tls is None else _context(tls, ssl.PROTOCOL_TLS_CLIENT)
        self._server = None if tls is None else _context(tls, ssl.PROTOCOL_TLS_SERVER)

    async def dial(self, address: str) -> ByteStream:
        host, port = split_address(address)
        with trio.move_on_after(LINK_DIAL_SECONDS):
            transport = await trio.open_tcp_stream(host, port)
            _keep_alive(transport)
            if self._client is None:
                return transport
            stream = trio.SSLStream(transport, self._client)
            is_met = False
            try:
                await stream.do_handshake()
                is_met = True
            except trio.BrokenResourceError as error:
                raise LinkRefused(f"{address}: no TLS: {error.__cause__ or error}") from None
            finally:
                if not is_met:
                    await close_at_once(transport)
            return stream
        raise LinkLost(f"{address} has not answered within {LINK_DIAL_SECONDS:g} seconds")

    async def serve(
        self,
        address: str,
        handler: Handler,
        *,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        host, port = split_address(address)
        try:
            listeners = open_listeners(host, port)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"links cannot be answered at {address}: not this machine's address, or in use"
            ) from error
        visitors = Visitors()

        async def listen(listener: socket.socket) -> None:
            while True:
                accepted = await accept(listener)
                nursery.start_soon(self._receive, accepted, visitors, handler)

        try:
            async with trio.open_nursery() as nursery:
                for listener in listeners:
                    nursery.start_soon(listen, listener)
                task_status.started(f"{address.rpartition(':')[0]}:{port_of(listeners)}")
        finally:
            for listener in listeners:
                listener.close()

    async def _receive(self, accepted: socket.socket, visitors: Visitors, handler: Handler) -> None:
        transport = trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
        _keep_alive(transport)
        if self._server is None:
            await visitors.receive(transport, handler)
            return
        stream = trio.SSLStream(transport, self._server, server_side=True)

        async def meet() -> bool:
            with trio.move_on_after(LINK_HANDSHAKE_SECONDS):
                try:
                    await stream.do_handshake()
                except trio.BrokenResourceError:
                    return False
                return True
            return False

        await visitors.receive(stream, handler, meet)


def _keep_alive(transport: trio.SocketStream) -> None:
    # trio has set TCP_NODELAY. Pulses find a dead peer sooner; this finds it when nobody pulses.
    transport.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _context(tls: Tls, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    # An SSLError is an OSError, too. A key with a passphrase would be asked for at the terminal.
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=lambda: b"")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"tls: {tls.certificate} and {tls.key} are no certificate and its key: {_why(error)}"
        ) from None
    try:
        context.load_verify_locations(tls.authority)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"tls: {tls.authority} is no authority: {_why(error)}") from None
    return context


def _why(error: Exception) -> str:
    reason = getattr(error, "strerror", None)
    return reason if isinstance(reason, str) else type(error).__name__
