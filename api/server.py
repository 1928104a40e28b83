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

import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import msgspec
import outcome
import trio

from ..host.budget import Budget
from ..host.by_hand import advance
from ..host.network import Socket, accept
from ..host.readiness import open_readiness
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
from .calls import Dispatcher
from .connection import (
    CONTINUE,
    CONTINUE_BYTES,
    NEED_DATA,
    Connection,
    Event,
    Phase,
    Preambles,
    Request,
    Signal,
)
from .errors import (
    InternalServerError,
    RequestTimeoutException,
    ServiceUnavailable,
    WireError,
    describe,
)
from .front import Front
from .gate import Policy
from .lambda_door import LambdaDoor
from .rest import Rest, resumed

# An enumeration's member costs more to look up than a name of the module.
_HEAD: Final = Phase.HEAD
_CHUNKS: Final = Phase.CHUNKS
_RESPONSE: Final = Phase.RESPONSE
_CLOSED: Final = Phase.CLOSED

_log = logging.getLogger(__name__)

# Operations that wait for nothing but one partition's answer, or a checkpoint: between slices, or
# before a transaction waits for more than one partition.
_QUICK_NAMES = b"GetItem Query PutItem UpdateItem DeleteItem TransactWriteItems"
_QUICK = frozenset(b"DynamoDB_20120810." + name for name in _QUICK_NAMES.split())
_SWEEP_SECONDS = 1


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
    lambdas: LambdaDoor | None = None,
    stopping: trio.Event | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until ``stopping`` is set, then finish what is in flight and return.

    ``listeners`` are non-blocking and are closed here. ``clock`` gives seconds since the epoch,
    ``entropy`` that many random bytes. ``lambdas`` serves Lambda's API, if any. Cancelling closes
    everything at once.
    """
    limits = limits or ServerLimits()
    server = _Server(Front(dispatcher, policy, clock, entropy, lambdas), clock, limits)
    stopping = trio.Event() if stopping is None else stopping
    try:
        async with trio.open_nursery() as around:
            around.start_soon(server.sweep)
            if server.readiness is not None:
                around.start_soon(server.readiness.run)
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
        "front",
        "limits",
        "peers",
        "preambles",
        "readiness",
        "slots",
        "tick",
        "without_peers",
    )

    def __init__(self, front: Front, clock: Callable[[], float], limits: ServerLimits) -> None:
        self.front = front
        self.limits = limits
        self.preambles = Preambles(clock)
        assert limits.bytes_in_flight >= REQUEST_BODY_BYTES_MAX
        self.budget = Budget(limits.bytes_in_flight)
        # Tells which connections have something to read, where there is such a thing.
        self.readiness = open_readiness()
        self.slots = trio.Semaphore(limits.connections)
        # The connections in the order of their arrival; the values mean nothing.
        self.peers: dict[_Peer, None] = {}
        self.without_peers = trio.Event()
        # Seconds since the start, as the sweeper counts them: deadlines are in these.
        self.tick = 0

    async def accept(self, listener: Socket, nursery: trio.Nursery) -> None:
        """Take connections from one listener, for as long as there is a slot for them."""
        while True:
            await self.slots.acquire()
            accepted = False
            try:
                peer = _Peer(self, await accept(listener))
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
                    peer.end()

    async def finish(self, seconds: float) -> None:
        """Close the idle connections, let the others end within ``seconds``, then end them."""
        self.front.stopping = True
        if not self.peers:
            return
        for peer in self.peers:
            if peer.machine.idle and not peer.sending:
                peer.end()
        with trio.move_on_after(seconds):
            await self.without_peers.wait()
        for peer in self.peers:
            peer.end()


class _Peer:
    """One connection and its task."""

    __slots__ = (
        "at_end",
        "deadline",
        "fileno",
        "ended",
        "held",
        "machine",
        "parked",
        "paused",
        "phase",
        "readable",
        "scope",
        "sending",
        "server",
        "socket",
    )

    def __init__(self, server: _Server, socket: Socket) -> None:
        self.server = server
        self.socket = socket
        self.fileno = socket.fileno()
        self.machine = Connection(server.preambles, server.front.judge_size)
        self.scope = trio.CancelScope()
        # The tick after which it is late; infinite while an operation runs.
        self.deadline: float = server.tick + server.limits.idle_seconds
        # The phase that the deadline was set for, so that a dribble does not put it off.
        self.phase: Phase | None = None
        # Bytes of the budget that it has.
        self.held = 0
        # Whether an answer is on its way.
        self.sending = False
        # Whether ``end`` was called.
        self.ended = False
        # Whether there may be something to read although nobody will tell again.
        self.readable = False
        # Whether the peer was told of as having closed its side, or as gone.
        self.at_end = False
        # Whether an operation that was begun without the task waits for an answer.
        self.paused = False
        # The task, while it waits for something to read.
        self.parked: trio.lowlevel.Task | None = None

    def end(self) -> None:
        """Stop waiting; whatever its task is at ends there."""
        self.ended = True
        self.scope.cancel()

    async def run(self) -> None:
        """Serve the connection to its end."""
        readiness = self.server.readiness
        if readiness is not None:
            readiness.watch(self.fileno, self._on_ready)
        try:
            with self.scope:
                await self._converse()
            if self.scope.cancelled_caught:
                self._say_why()
        except OSError as error:
            _log.debug("a connection was lost: %s", error.strerror)
        finally:
            if readiness is not None:
                readiness.forget(self.fileno)
            self.socket.close()
            self.server.budget.give_back(self.held)
            self.server.slots.release()
            del self.server.peers[self]
            if self.server.front.stopping and not self.server.peers:
                self.server.without_peers.set()

    async def _converse(self) -> None:
        machine, server = self.machine, self.server
        served = 0
        event: Event | Rest = machine.next_event()
        while True:
            if event is NEED_DATA:
                if machine.idle:
                    if server.front.stopping:
                        return
                    self.deadline = server.tick + server.limits.idle_seconds
                elif not await self._prepare_for_more():
                    return
                served = 0
                found = await self._wait_for_event()
                if self.ended:
                    # Bytes came in the same moment. It ends here and not within an operation.
                    await trio.lowlevel.checkpoint()
                if found is None:
                    bad = machine.receive_end()
                    if bad is not None:
                        await self._refuse(bad.error)
                    return
                event = found
            elif isinstance(event, Rest):
                self.deadline, self.phase = math.inf, None
                await self._finish(event)
                if machine.phase is _CLOSED:
                    await self._linger()
                    return
                event = machine.next_event()
            elif isinstance(event, Request):
                self.deadline, self.phase = math.inf, None
                if server.budget.used > server.budget.maximum:
                    await server.budget.wait(0)
                try:
                    answer = await server.front.serve(machine, event)
                except Exception as error:
                    self._tell_of_bug(error)
                    raise
                sent = self._send_nowait(answer)
                if sent < len(answer):
                    await self._send_rest(answer, sent)
                if self.held:
                    server.budget.give_back(self.held)
                    self.held = 0
                if machine.phase is _CLOSED:
                    await self._linger()
                    return
                served += 1
                if served == REQUESTS_BEFORE_CHECKPOINT_MAX:
                    # It may have sent hundreds of requests that never wait for anything.
                    served = 0
                    await trio.lowlevel.checkpoint()
                event = machine.next_event()
            elif event is CONTINUE:
                await self._send(CONTINUE_BYTES)
                event = machine.next_event()
            else:
                assert not isinstance(event, Signal)
                await self._refuse(event.error)
                return

    # Waiting for requests. Where sockets are watched together, whoever is told that this one has
    # something to read serves quick requests at once, without waking the connection's task.

    async def _wait_for_event(self) -> Event | Rest | None:
        """What is to be done next, once something has arrived; None at the end of the stream."""
        machine = self.machine
        while True:
            if self.server.readiness is None:
                await trio.lowlevel.wait_readable(self.fileno)
            elif not self.readable:
                event: Event | Rest | None = await self._park()
                if event is not None:
                    return event
            self.readable = False
            data = self._receive()
            if data is not None:
                self.readable = self.at_end or len(data) == RECEIVE_BYTES
                if not data:
                    return None
                machine.receive(data)
                return machine.next_event()

    async def _park(self) -> Any:
        """What ``_wake`` is given."""
        self.parked = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self.parked = None
            return trio.lowlevel.Abort.SUCCEEDED

        return await trio.lowlevel.wait_task_rescheduled(abort)

    def _wake(self, event: Event | Rest | None) -> None:
        """Have the task do ``event``; None: look for itself what there is to read."""
        parked, self.parked = self.parked, None
        assert parked is not None
        trio.lowlevel.reschedule(parked, outcome.Value(event))

    def _on_ready(self, at_end: bool) -> None:
        """Something has arrived. Never raises: what goes wrong goes wrong in the task."""
        self.readable = True
        # It is told once, and what was sent before the end may take many reads.
        self.at_end = self.at_end or at_end
        if self.parked is None or self.ended or self.paused:
            return
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except OSError:
            self._wake(None)
            return
        self.readable = self.at_end or len(data) == RECEIVE_BYTES
        if not data:
            self.readable = True
            self._wake(None)
            return
        self.machine.receive(data)
        self._go_on_with(self._serve_quickly(self.machine.next_event()))

    def _go_on_with(self, event: Event | Rest | None) -> None:
        """Leave to the task what there is to do, if anything; None: an operation is paused."""
        if event is None:
            self.paused = True
        elif event is not NEED_DATA or self.readable or not self.machine.idle:
            self._wake(event)

    def _serve_quickly(self, event: Event) -> Event | Rest | None:
        """Serve quick requests; what is left for the task to do, None if one is paused."""
        machine, server = self.machine, self.server
        quick = 0
        while (
            isinstance(event, Request)
            and event.headers.get(b"x-amz-target") in _QUICK
            # Elsewhere the header means nothing, and what is there may wait for anything.
            and event.path == b"/"
            and quick < REQUESTS_BEFORE_CHECKPOINT_MAX
            and server.budget.used <= server.budget.maximum
            and not self.held
        ):
            quick += 1
            self.deadline, self.phase = math.inf, None
            rest = self._advance(server.front.serve(machine, event))
            if rest is not NEED_DATA:
                return rest
            self.deadline = server.tick + server.limits.idle_seconds
            event = machine.next_event()
        return event

    def _advance(self, serving: Coroutine[Any, Any, bytes]) -> Event | Rest | None:
        """Serve to the next pause (None) or to the end (NEED_DATA); what is left otherwise."""
        try:
            trap = advance(serving)
        except StopIteration as stop:
            answer: bytes = stop.value
        except Exception as error:  # noqa: BLE001 - the task raises it
            return Rest(error=error)
        else:
            when_given = getattr(trap, "when_given", None)
            if when_given is not None:
                when_given(lambda: self._go_on_after_pause(serving))
                return None
            return Rest(serving=serving, trap=trap)
        try:
            sent = self._send_nowait(answer)
        except OSError as error:
            return Rest(error=error)
        if sent < len(answer) or self.machine.phase is _CLOSED:
            return Rest(answer=answer, sent=sent)
        return NEED_DATA

    def _go_on_after_pause(self, serving: Coroutine[Any, Any, bytes]) -> None:
        """What a paused operation waited for is there. Never raises, like ``_on_ready``."""
        self.paused = False
        if self.parked is None:
            # The connection has ended meanwhile, and was told so.
            serving.close()
            return
        rest = self._advance(serving)
        if rest is NEED_DATA:
            self.deadline = self.server.tick + self.server.limits.idle_seconds
            rest = self._serve_quickly(self.machine.next_event())
        self._go_on_with(rest)

    async def _finish(self, rest: Rest) -> None:
        """Do what was left of a quick request."""
        answer, sent = rest.answer, rest.sent
        try:
            if rest.error is not None:
                raise rest.error
            if rest.serving is not None:
                answer, sent = await resumed(rest.serving, rest.trap), 0
        except OSError:
            raise
        except Exception as error:
            self._tell_of_bug(error)
            raise
        sent += self._send_nowait(memoryview(answer)[sent:])
        if sent < len(answer):
            await self._send_rest(answer, sent)

    async def _prepare_for_more(self) -> bool:
        """Have room and a deadline for the rest of a request. False if it was refused instead."""
        server, machine = self.server, self.machine
        if machine.phase is not _HEAD and not await self._hold(machine.body_bytes_expected):
            await self._refuse(ServiceUnavailable("Too many bytes are in flight; retry later."))
            return False
        if self.phase is not machine.phase:
            self.phase = machine.phase
            if self.phase is _HEAD:
                seconds = server.limits.head_seconds
            elif self.phase is _CHUNKS:
                seconds = self._transfer_seconds(REQUEST_BODY_BYTES_MAX)
            else:
                seconds = self._transfer_seconds(machine.body_bytes_expected)
            self.deadline = server.tick + seconds
        return True

    async def _hold(self, size_bytes: int) -> bool:
        """Have ``size_bytes`` of the budget in all. A body of known size waits for its share; one
        in chunks cannot, since who holds a part and waits for more could wait for ever.
        """
        more = size_bytes - self.held
        if size_bytes <= RECEIVE_BYTES or more <= 0:
            return True
        budget = self.server.budget
        if not budget.take(more):
            if self.held or self.machine.phase is _CHUNKS or more > budget.maximum:
                return False
            # Others are slow, not this one.
            self.deadline, self.phase = math.inf, None
            await budget.wait(more)
        self.held = size_bytes
        return True

    def _transfer_seconds(self, size_bytes: int) -> int:
        return self.server.limits.transfer_seconds + size_bytes // TRANSFER_BYTES_PER_SECOND_MIN

    def _receive(self) -> bytes | None:
        """What has arrived, empty at the end of it; None if nothing has."""
        try:
            return self.socket.recv(RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return None

    def _send_nowait(self, data: bytes | memoryview) -> int:
        """How many bytes of ``data`` the socket took."""
        try:
            return self.socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    async def _send(self, data: bytes) -> None:
        sent = self._send_nowait(data)
        if sent < len(data):
            await self._send_rest(data, sent)

    async def _send_rest(self, data: bytes, sent: int) -> None:
        """Send ``data[sent:]`` to a peer that is slow to take it."""
        server = self.server
        self.deadline = server.tick + self._transfer_seconds(len(data))
        self.sending = True
        server.budget.add(len(data))
        try:
            with memoryview(data) as view:
                while sent < len(data):
                    await trio.lowlevel.wait_writable(self.fileno)
                    sent += self._send_nowait(view[sent:])
        finally:
            self.sending = False
            server.budget.give_back(len(data))

    async def _refuse(self, error: WireError) -> None:
        """Answer what cannot be served, and close."""
        if self.machine.reading:
            self.machine.refuse(error)
        await self._send(self.server.front.refusal(self.machine, error))
        await self._linger()

    async def _linger(self) -> None:
        """Say that no more is coming, and let the peer read to there before the socket closes."""
        self.deadline = self.server.tick + LINGER_SECONDS_MAX
        self.socket.shutdown(trio.socket.SHUT_WR)
        left = LINGER_BYTES_MAX
        while left > 0:
            await trio.lowlevel.wait_readable(self.fileno)
            data = self._receive()
            if data == b"":
                return
            left -= len(data or b"")

    def _say_why(self) -> None:
        """The last words to a connection that was cancelled, as far as the socket takes them."""
        machine = self.machine
        error: WireError
        if self.sending or machine.phase is _CLOSED or machine.idle:
            return
        if machine.phase is _RESPONSE:
            # Only a shutdown interrupts an operation, and nobody knows how far it had come.
            error = InternalServerError("The server is stopping; the outcome is not known.")
        else:
            error = RequestTimeoutException("The request did not arrive in time.")
            if self.server.front.stopping:
                error = ServiceUnavailable("The server is stopping.")
            if machine.reading:
                machine.refuse(error)
        self._send_last(self.server.front.refusal(self.machine, error))

    def _send_last(self, data: bytes) -> None:
        """Send what may be lost."""
        try:
            self._send_nowait(data)
        except OSError as error:
            _log.debug("an answer was lost: %s", error.strerror)

    def _tell_of_bug(self, error: Exception) -> None:
        """millstream itself is wrong, and the node will stop; but first the client is told."""
        _log.critical("%s", describe(error))
        self._send_last(self.server.front.refusal(self.machine, InternalServerError()))
