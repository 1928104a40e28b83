"""Opening listeners and accepting: the network's door. What follows is the api's business.

A listener is a bound, listening, non-blocking TCP socket. Port 0 takes any free port, the same for
every address where a name has several (localhost has two). Failures are ConfigurationErrors that
say what to do, since they are nearly always the operator's.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Sequence
from typing import TypeAlias

import trio

from ..errors import ConfigurationError

Socket: TypeAlias = socket.socket

logger = logging.getLogger(__name__)

_BACKLOG = 1024
_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_ACCEPT_PAUSE_SECONDS = 0.1
_PORT_TRIES_MAX = 10


def open_listeners(host: str, port: int) -> list[Socket]:
    """Listeners on every address that ``host`` names, all on one port.

    ``host`` is a name or an address, IPv6 with or without brackets; ``port`` 0 to 65535, 0 for any
    free one. At least one address must be had; one of a family that this machine lacks is passed
    over. Raises ConfigurationError.
    """
    if not 0 <= port <= 65535:
        raise ConfigurationError(f"a port is 0 to 65535, not {port}")
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise ConfigurationError(f"{host!r} is not an address of this machine") from None
    families = list(dict.fromkeys((family, address[0]) for family, _, _, _, address in found))
    for _ in range(_PORT_TRIES_MAX):
        try:
            return _open_all(families, port)
        except OSError as error:
            # A free port of the first address may be taken on the second: another will not be.
            if port == 0 and error.errno == errno.EADDRINUSE:
                continue
            raise ConfigurationError(_explain(error, host, port)) from None
    raise ConfigurationError(f"no port is free on every address of {host!r}")


def port_of(listeners: list[Socket]) -> int:
    """The port that they all listen on."""
    return int(listeners[0].getsockname()[1])


def _open_all(
    families: Sequence[tuple[socket.AddressFamily, str | int]], port: int
) -> list[Socket]:
    opened: list[Socket] = []
    lacking: OSError | None = None
    try:
        for family, address in families:
            try:
                listener = _open(family, str(address), port)
            except OSError as error:
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
                lacking = error
                continue
            opened.append(listener)
            port = port_of(opened)
    except OSError:
        for listener in opened:
            listener.close()
        raise
    if not opened:
        assert lacking is not None
        raise lacking
    return opened


def _open(family: socket.AddressFamily, address: str, port: int) -> Socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A restart must not wait for the old connections' TIME_WAIT to pass.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Accepted sockets inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((address, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _explain(error: OSError, host: str, port: int) -> str:
    where = f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use; choose another --port, or 0 for any free one"
    if error.errno == errno.EACCES:
        return f"{where} may not be bound without privileges; choose a --port above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine"
    return f"{where} cannot be bound: {error.strerror}"


async def accept(listener: Socket) -> Socket:
    """The next connection of ``listener``, non-blocking."""
    while True:
        try:
            accepted, _ = listener.accept()
        except BlockingIOError:
            await trio.lowlevel.wait_readable(listener)
        except OSError as error:
            # The peer has gone already, or there is no room for it for now. Anything but a
            # scarcity passes at once, and is not the listener's end.
            if error.errno in _SCARCE:
                logger.warning("no connection can be accepted: %s", error.strerror)
                await trio.sleep(_ACCEPT_PAUSE_SECONDS)
            else:
                await trio.lowlevel.checkpoint()
        else:
            # The listener's TCP_NODELAY is inherited; an answer is one send in any case.
            accepted.setblocking(False)
            return accepted
