"""Who may knock: the addresses that may be bound, and the Host and Origin that a request may have.

A server without credentials trusts whoever reaches it, so it must be reached from this machine
only. Three doors would let a stranger in all the same, and each is shut here: binding another
address; a web page whose name resolves to the loopback address (DNS rebinding: the browser then
sends that name as Host); and a web page that simply posts to localhost (the browser says its
Origin, or at least Sec-Fetch-Site). With credentials the signature is the door, and CORS is as open
as DynamoDB's. Pure policy: nothing here reads a socket.

What creates or invokes functions runs code, so without credentials its door is narrower
(``admit_code``): no web page at all, whatever the operator allows pages to do with data, and no
Host but a loopback name, since a proxy in front of a loopback address would let the world in.
"""

from __future__ import annotations

import ipaddress

import msgspec

from ..errors import ConfigurationError
from .connection import Request
from .credentials import Credentials
from .errors import ForbiddenException

_LOOPBACK_NAMES = frozenset({b"localhost", b"127.0.0.1", b"[::1]", b"::1"})
_HOSTS_KNOWN_MAX = 256
_CORS_SECONDS = 172_800
_EXPOSED = (
    b"x-amzn-RequestId,x-amz-crc32,x-millstream-session,Content-Length,Content-Encoding,Date"
)


class Policy(msgspec.Struct, frozen=True):
    """What the operator has said.

    ``allow_hosts`` are further Host names, ``cors_origins`` origins as browsers write them
    (``https://app.example``) or ``*``. ``region`` is checked in signatures when there are
    credentials, unless it is None.
    """

    credentials: Credentials | None = None
    region: str | None = None
    allow_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()


def check_bind(host: str, policy: Policy) -> None:
    """Raises ConfigurationError where ``host`` may not be bound without credentials."""
    if policy.credentials is not None or host.lower() == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigurationError(
            f"without --credentials only a loopback address can be bound, not {host!r}: anybody "
            "who reaches it could read and change everything"
        )


class Gate:
    """Admits requests by the policy. ``admit`` is on the way of every one."""

    __slots__ = ("_hosts_known", "_names", "_open", "_origins")

    def __init__(self, policy: Policy) -> None:
        self._open = policy.credentials is not None
        self._names = _LOOPBACK_NAMES | {name.lower().encode() for name in policy.allow_hosts}
        self._origins = frozenset(
            origin.lower().rstrip("/").encode() for origin in policy.cors_origins
        )
        # Host headers as they were sent and found good.
        self._hosts_known: set[bytes] = set()

    def admit(self, request: Request) -> bytes:
        """The CORS header lines for the answer, mostly none. Raises ForbiddenException."""
        headers = request.headers
        if self._open:
            return _cors(b"*") if b"origin" in headers else b""
        host = headers.get(b"host")
        if host is not None and host not in self._hosts_known:
            self._check_host(host)
        origin = headers.get(b"origin")
        if origin is None:
            # Every browser of today sends this one, also where it sends no Origin.
            site = headers.get(b"sec-fetch-site")
            if site is not None and site.lower() not in (b"none", b"same-origin"):
                raise ForbiddenException(
                    "A request from another site's page is not accepted without --cors-origin."
                )
            return b""
        named = origin.lower()
        if host is not None and named == b"http://" + host.lower():
            return b""
        if named in self._origins or b"*" in self._origins:
            return _cors(origin)
        raise ForbiddenException(
            f"The origin {origin.decode('latin-1')!r} is not accepted; --cors-origin would name it."
        )

    def admit_code(self, request: Request) -> None:
        """Whether who is admitted may also ask to run code, as far as can be said without names.

        Raises ForbiddenException.
        """
        if self._open:
            return
        headers = request.headers
        site = headers.get(b"sec-fetch-site", b"none").lower()
        if b"origin" in headers or site not in (b"none", b"same-origin"):
            raise ForbiddenException(
                "Functions run code: without --credentials a web page may not manage or invoke "
                "them, whatever --cors-origin says."
            )
        if _host_name(headers.get(b"host", b"")) not in _LOOPBACK_NAMES:
            raise ForbiddenException(
                "Functions run code: without --credentials they are managed and invoked from this "
                "machine only, by a loopback name, whatever --allow-host says."
            )

    def preflight(self, request: Request, cors: bytes) -> bytes:
        """The further header lines of the answer to an OPTIONS request that was admitted."""
        if not cors:
            return b"Allow: GET, HEAD, OPTIONS, POST\r\n"
        headers = request.headers
        lines = cors + b"Access-Control-Max-Age: %d\r\n" % _CORS_SECONDS
        for asked, allowed in (
            (b"access-control-request-headers", b"Access-Control-Allow-Headers"),
            (b"access-control-request-method", b"Access-Control-Allow-Methods"),
            (b"access-control-request-private-network", b"Access-Control-Allow-Private-Network"),
        ):
            if asked in headers:
                # What was sent came as one header line, so it is one in the answer too.
                lines += b"%b: %b\r\n" % (allowed, headers[asked])
        return lines

    def _check_host(self, host: bytes) -> None:
        if _host_name(host) not in self._names:
            raise ForbiddenException(
                f"The Host header {host.decode('latin-1')!r} is not a loopback name; "
                "--allow-host would name it."
            )
        if len(self._hosts_known) < _HOSTS_KNOWN_MAX:
            self._hosts_known.add(host)


def _host_name(host: bytes) -> bytes:
    """The name in a Host header, without port and final dot."""
    name, colon, port = host.lower().rpartition(b":")
    if not colon or not port.isdigit() or (b":" in name and not name.startswith(b"[")):
        name = host.lower()
    return name.rstrip(b".")


def _cors(origin: bytes) -> bytes:
    vary = b"" if origin == b"*" else b"Vary: Origin\r\n"
    return b"Access-Control-Allow-Origin: %b\r\nAccess-Control-Expose-Headers: %b\r\n%b" % (
        origin,
        _EXPOSED,
        vary,
    )
