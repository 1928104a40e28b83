"""HTTP on trio: listeners, one task a connection, and the limits that keep the door passable.

Owned by whoever serves (the node's command, a test). A connection's task reads its socket without
blocking, feeds its machine (``connection.py``) and answers each request before it reads on, so a
client that pipelines is its own back-pressure. There is no task, nursery or timer of a request: one
sweeper looks once a second at the deadline that each connection has written down, and cancels those
that are late, which costs a request two assignments.

What is bounded: connections (further ones wait in the kernel's queue), the bytes of large bodies
and of answers that a client is slow to take (``_Budget``), the time that a head, a body, an answer
and an idle connection may take, and the requests served between two checkpoints. A request that was
read in part is never dropped without an answer, and a connection is closed by lingering, since
closing a socket with unread bytes would destroy the answer on its way.
"""

from __future__ import annotations

import errno
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence

import msgspec
import trio

from ..host.network import Socket
from ..limits import (
    BYTES_IN_FLIGHT_MAX,
    CONNECTIONS_MAX,
    HEAD_SECONDS_MAX,
    IDLE_SECONDS_MAX,
    LINGER_BYTES_MAX,
    LINGER_SECONDS_MAX,
    RECEIVE_BYTES,
    REQUEST_BODY_BYTES_MAX,
    REQUESTS_BEFORE_CHECKPOINT_MAX,
    SHUTDOWN_SECONDS_MAX,
    TRANSFER_BYTES_PER_SECOND_MIN,
    TRANSFER_SECONDS_MIN,
)
from .calls import Caller, Dispatcher
from .codings import inflate
from .connection import (
    AMZ_JSON,
    CONTINUE,
    CONTINUE_BYTES,
    NEED_DATA,
    Connection,
    Phase,
    Preambles,
    Request,
    RequestIds,
    Signal,
)
from .errors import (
    InternalServerError,
    NotFoundException,
    RequestTimeoutException,
    ServiceUnavailable,
    UnknownOperationException,
    WireError,
    describe,
    to_wire,
)
from .gate import Gate, Policy
from .sigv4 import Verifier

_log = logging.getLogger(__name__)

_JSON = b"application/json"
_TEXT = b"text/plain"
# What AWS's front end answers, with status 404, to a content type that it has no protocol for.
_NO_PROTOCOL = b"<UnknownOperationException/>\n"
_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_SWEEP_SECONDS = 1
_ACCEPT_PAUSE_SECONDS = 0.1


class ServerLimits(msgspec.Struct, frozen=True):
    """The limits of one server; the defaults and their origins are in ``limits.py``."""

    connections: int = CONNECTIONS_MAX
    bytes_in_flight: int = BYTES_IN_FLIGHT_MAX
    idle_seconds: int = IDLE_SECONDS_MAX
    head_seconds: int = HEAD_SECONDS_MAX
    transfer_seconds: int = TRANSFER_SECONDS_MIN
    shutdown_seconds: float = SHUTDOWN_SECONDS_MAX


async def serve_http(
    dispatcher: Dispatcher,
    listeners: Sequence[Socket],
    policy: Policy,
    *,
    clock: Callable[[], float],
    entropy: Callable[[int], bytes],
    limits: ServerLimits | None = None,
    stopping: trio.Event | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until ``stopping`` is set, then finish what is in flight and return.

    ``listeners`` are non-blocking and are closed here. ``clock`` gives seconds since the epoch,
    ``entropy`` that many random bytes. Cancelling closes everything at once.
    """
    limits = limits or ServerLimits()
    server = _Server(dispatcher, policy, clock, entropy, limits)
    stopping = trio.Event() if stopping is None else stopping
    try:
        async with trio.open_nursery() as around:
            around.start_soon(server.sweep)
            async with trio.open_nursery() as connections:
                with trio.CancelScope() as accepting:
                    async with trio.open_nursery() as doors:
                        for listener in listeners:
                            doors.start_soon(server.accept, listener, connections)
                        task_status.started()
                        await stopping.wait()
                        accepting.cancel()
                for listener in listeners:
                    listener.close()
                await server.finish(limits.shutdown_seconds)
            around.cancel_scope.cancel()
    finally:
        for listener in listeners:
            listener.close()


class _Server:
    """What the connections of one server share."""

    __slots__ = (
        "budget",
        "clock",
        "dispatcher",
        "gate",
        "health",
        "ids",
        "limits",
        "peers",
        "preambles",
        "slots",
        "stopping",
        "tick",
        "verifier",
        "without_peers",
    )

    def __init__(
        self,
        dispatcher: Dispatcher,
        policy: Policy,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        limits: ServerLimits,
    ) -> None:
        self.dispatcher = dispatcher
        self.clock = clock
        self.limits = limits
        self.gate = Gate(policy)
        self.verifier = Verifier(policy.credentials, policy.region)
        self.ids = RequestIds(entropy)
        self.preambles = Preambles(clock)
        self.budget = _Budget(limits.bytes_in_flight)
        self.slots = trio.Semaphore(limits.connections)
        # The connections in the order of their arrival; the values mean nothing.
        self.peers: dict[_Peer, None] = {}
        self.without_peers = trio.Event()
        # Seconds since the start, as the sweeper counts them: deadlines are in these.
        self.tick = 0
        self.stopping = False
        # The space at the end is DynamoDB's.
        self.health = f"healthy: dynamodb.{policy.region or 'us-east-1'}.amazonaws.com ".encode()

    async def accept(self, listener: Socket, nursery: trio.Nursery) -> None:
        """Take connections from one listener, for as long as there is a slot for them."""
        while True:
            await self.slots.acquire()
            accepted = False
            try:
                peer = _Peer(self, await _accept(listener))
                self.peers[peer] = None
                nursery.start_soon(peer.run)
                accepted = True
            finally:
                if not accepted:
                    self.slots.release()

    async def sweep(self) -> None:
        """Cancel whoever is late, for ever."""
        while True:
            await trio.sleep(_SWEEP_SECONDS)
            self.tick += _SWEEP_SECONDS
            for peer in self.peers:
                if peer.deadline < self.tick:
                    peer.scope.cancel()

    async def finish(self, seconds: float) -> None:
        """Close the idle connections, let the others end within ``seconds``, then end them."""
        self.stopping = True
        if not self.peers:
            return
        for peer in self.peers:
            if peer.machine.idle and not peer.sending:
                peer.scope.cancel()
        with trio.move_on_after(seconds):
            await self.without_peers.wait()
        for peer in self.peers:
            peer.scope.cancel()


class _Budget:
    """Bytes that may be held for clients; who wants more than there is waits, first come first.

    Only what is large asks (a body that did not come in one piece) and only what is stuck is
    added without asking (an answer), so the common request costs one comparison.
    """

    __slots__ = ("_queue", "maximum", "used")

    def __init__(self, maximum: int) -> None:
        assert maximum >= REQUEST_BODY_BYTES_MAX
        self.maximum = maximum
        # May be above the maximum by answers, which were not asked for.
        self.used = 0
        self._queue: deque[tuple[int, trio.Event]] = deque()

    def take(self, size_bytes: int) -> bool:
        """Take at once, if there is as much and nobody waits."""
        if self._queue or self.used + size_bytes > self.maximum:
            return False
        self.used += size_bytes
        return True

    async def wait(self, size_bytes: int) -> None:
        """Take as soon as there is as much."""
        if self.take(size_bytes):
            return
        ticket = (size_bytes, trio.Event())
        self._queue.append(ticket)
        granted = False
        try:
            await ticket[1].wait()
            granted = True
        finally:
            if not granted:
                if ticket[1].is_set():
                    self.give_back(size_bytes)
                else:
                    self._queue.remove(ticket)
                    self.give_back(0)

    def add(self, size_bytes: int) -> None:
        """Take what is held already."""
        self.used += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Give back, and serve who waits."""
        self.used -= size_bytes
        assert self.used >= 0
        while self._queue and self.used + self._queue[0][0] <= self.maximum:
            wanted, granted = self._queue.popleft()
            self.used += wanted
            granted.set()


class _Peer:
    """One connection and its task."""

    __slots__ = (
        "deadline",
        "fileno",
        "held",
        "machine",
        "phase",
        "scope",
        "sending",
        "server",
        "socket",
    )

    def __init__(self, server: _Server, socket: Socket) -> None:
        self.server = server
        self.socket = socket
        self.fileno = socket.fileno()
        self.machine = Connection(server.preambles)
        self.scope = trio.CancelScope()
        # The tick after which it is late; infinite while an operation runs.
        self.deadline: float = server.tick + server.limits.idle_seconds
        # The phase that the deadline was set for, so that a dribble does not put it off.
        self.phase: Phase | None = None
        # Bytes of the budget that it has.
        self.held = 0
        # Whether an answer is on its way.
        self.sending = False

    async def run(self) -> None:
        """Serve the connection to its end."""
        try:
            with self.scope:
                await self._converse()
            if self.scope.cancelled_caught:
                self._say_why()
        except OSError as error:
            _log.debug("a connection was lost: %s", error.strerror)
        finally:
            self.socket.close()
            self.server.budget.give_back(self.held)
            self.server.slots.release()
            del self.server.peers[self]
            if self.server.stopping and not self.server.peers:
                self.server.without_peers.set()

    async def _converse(self) -> None:
        machine, server = self.machine, self.server
        served = 0
        while True:
            event = machine.next_event()
            if event is NEED_DATA:
                served = 0
                if server.stopping and machine.idle:
                    return
                if not await self._read():
                    bad = machine.receive_end()
                    if bad is not None:
                        await self._refuse(bad.error)
                    return
            elif isinstance(event, Request):
                self.deadline, self.phase = math.inf, None
                if server.budget.used > server.budget.maximum:
                    await server.budget.wait(0)
                answer = await self._serve(event)
                await self._send(answer)
                if self.held:
                    server.budget.give_back(self.held)
                    self.held = 0
                if machine.phase is Phase.CLOSED:
                    await self._linger()
                    return
                served += 1
                if served == REQUESTS_BEFORE_CHECKPOINT_MAX:
                    # It may have sent hundreds of requests that never wait for anything.
                    served = 0
                    await trio.lowlevel.checkpoint()
            elif event is CONTINUE:
                await self._send(CONTINUE_BYTES)
            else:
                assert not isinstance(event, Signal)
                await self._refuse(event.error)
                return

    async def _read(self) -> bool:
        """Wait for bytes and give them to the machine. False at the end of what the peer sends."""
        machine = self.machine
        if machine.phase is not Phase.HEAD and not await self._hold(machine.body_bytes_expected):
            await self._refuse(ServiceUnavailable("Too many bytes are in flight; retry later."))
            return False
        self._set_deadline()
        while True:
            await trio.lowlevel.wait_readable(self.fileno)
            try:
                data = self.socket.recv(RECEIVE_BYTES)
            except (BlockingIOError, InterruptedError):
                continue
            machine.receive(data)
            return data != b""

    async def _hold(self, size_bytes: int) -> bool:
        """Have ``size_bytes`` of the budget in all. A body of known size waits for its share; one
        in chunks cannot, since who holds a part and waits for more could wait for ever.
        """
        more = size_bytes - self.held
        if size_bytes <= RECEIVE_BYTES or more <= 0:
            return True
        budget = self.server.budget
        if not budget.take(more):
            if self.held or self.machine.phase is Phase.CHUNKS:
                return False
            self.deadline, self.phase = math.inf, None
            await budget.wait(more)
        self.held = size_bytes
        return True

    def _set_deadline(self) -> None:
        server, machine = self.server, self.machine
        phase = machine.phase
        if phase is Phase.HEAD:
            if machine.idle:
                self.deadline, self.phase = server.tick + server.limits.idle_seconds, None
            elif self.phase is not phase:
                self.deadline, self.phase = server.tick + server.limits.head_seconds, phase
        elif self.phase is not phase:
            size = REQUEST_BODY_BYTES_MAX if phase is Phase.CHUNKS else machine.body_bytes_expected
            self.deadline, self.phase = server.tick + self._transfer_seconds(size), phase

    def _transfer_seconds(self, size_bytes: int) -> int:
        return self.server.limits.transfer_seconds + size_bytes // TRANSFER_BYTES_PER_SECOND_MIN

    async def _send(self, data: bytes) -> None:
        try:
            sent = self.socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        if sent == len(data):
            return
        server = self.server
        self.deadline = server.tick + self._transfer_seconds(len(data))
        self.sending = True
        server.budget.add(len(data))
        try:
            with memoryview(data) as view:
                while sent < len(data):
                    await trio.lowlevel.wait_writable(self.fileno)
                    try:
                        sent += self.socket.send(view[sent:])
                    except (BlockingIOError, InterruptedError):
                        continue
        finally:
            self.sending = False
            server.budget.give_back(len(data))

    async def _refuse(self, error: WireError) -> None:
        """Answer what cannot be served, and close."""
        if self.machine.reading:
            self.machine.refuse(error)
        await self._send(self._error(error, self.server.ids.next()))
        await self._linger()

    async def _linger(self) -> None:
        """Say that no more is coming, and let the peer read to there before the socket closes."""
        self.deadline = self.server.tick + LINGER_SECONDS_MAX
        self.socket.shutdown(trio.socket.SHUT_WR)
        left = LINGER_BYTES_MAX
        while left > 0:
            await trio.lowlevel.wait_readable(self.fileno)
            try:
                data = self.socket.recv(RECEIVE_BYTES)
            except (BlockingIOError, InterruptedError):
                continue
            if not data:
                return
            left -= len(data)

    def _say_why(self) -> None:
        """The last words to a connection that was cancelled, as far as the socket takes them."""
        machine = self.machine
        error: WireError
        if self.sending or machine.phase is Phase.CLOSED or machine.idle:
            return
        if machine.phase is Phase.RESPONSE:
            # Only a shutdown interrupts an operation, and nobody knows how far it had come.
            error = InternalServerError("The server is stopping; the outcome is not known.")
        else:
            error = RequestTimeoutException("The request did not arrive in time.")
            if self.server.stopping:
                error = ServiceUnavailable("The server is stopping.")
            if machine.reading:
                machine.refuse(error)
        self._send_nowait(self._error(error, self.server.ids.next()))

    def _send_nowait(self, data: bytes) -> None:
        try:
            self.socket.send(data)
        except OSError as error:
            _log.debug("an answer was lost: %s", error.strerror)

    def _error(self, error: WireError, request_id: str, extra: bytes = b"") -> bytes:
        return self.machine.respond(error.status, error.body(), request_id, extra=extra, close=True)

    async def _serve(self, request: Request) -> bytes:
        """The answer to one request, whatever becomes of it."""
        server = self.server
        request_id = server.ids.next()
        content_type, cors, status = AMZ_JSON, b"", 200
        try:
            cors = server.gate.admit(request)
            if request.method != b"POST" or request.path != b"/":
                return self._serve_other(request, request_id, cors)
            headers = request.headers
            kind = headers.get(b"content-type", b"")
            if kind != AMZ_JSON:
                kind = kind.partition(b";")[0].strip().lower()
                if kind == _JSON:
                    content_type = _JSON
                elif kind != AMZ_JSON and request.payload:
                    return self.machine.respond(
                        404, _NO_PROTOCOL, request_id, content_type=_TEXT, extra=cors
                    )
            identity = server.verifier.verify(request, server.clock())
            target = headers.get(b"x-amz-target")
            if target is None:
                raise UnknownOperationException
            body = request.payload
            coding = headers.get(b"content-encoding")
            if coding is not None:
                body = inflate(body, coding)
            caller = Caller(
                identity.namespace,
                identity.access_key,
                identity.region,
                request_id,
                identity.functions,
            )
            answer = await server.dispatcher.dispatch(target.decode("latin-1"), body, caller)
        except Exception as error:
            # The one place where anything becomes an answer.
            if _is_assertion(error):
                # millstream itself is wrong, and the node stops; the client is told first.
                _log.critical("request %s: %s", request_id, describe(error))
                self._send_nowait(self._error(to_wire(error, request_id), request_id))
                raise
            wire = to_wire(error, request_id)
            if wire.status == 500:
                _log.error("request %s: %s", request_id, describe(error))
            answer, status = wire.body(), wire.status
        return self.machine.respond(
            status,
            answer,
            request_id,
            content_type=content_type,
            extra=cors,
            close=server.stopping,
        )

    def _serve_other(self, request: Request, request_id: str, cors: bytes) -> bytes:
        """Whatever is not a call: health, a preflight, or nothing that is here."""
        status, answer, extra = 200, b"", cors
        if request.method == b"OPTIONS":
            extra = self.server.gate.preflight(request, cors)
        elif request.method in (b"GET", b"HEAD") and request.path == b"/":
            answer = self.server.health
        else:
            raise NotFoundException(
                "There is nothing here: calls are POST requests to /, and GET / tells the health."
            )
        return self.machine.respond(
            status,
            answer,
            request_id,
            content_type=_TEXT,
            extra=extra,
            close=self.server.stopping,
        )


async def _accept(listener: Socket) -> Socket:
    while True:
        try:
            accepted, _ = listener.accept()
        except BlockingIOError:
            await trio.lowlevel.wait_readable(listener)
        except OSError as error:
            # The peer has gone already, or there is no room for it for now. Anything but a
            # scarcity passes at once, and is not the listener's end.
            if error.errno in _SCARCE:
                _log.warning("no connection can be accepted: %s", error.strerror)
                await trio.sleep(_ACCEPT_PAUSE_SECONDS)
            else:
                await trio.lowlevel.checkpoint()
        else:
            accepted.setblocking(False)
            accepted.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
            return accepted


def _is_assertion(error: Exception) -> bool:
    if isinstance(error, ExceptionGroup):
        return error.subgroup(AssertionError) is not None
    return isinstance(error, AssertionError)
