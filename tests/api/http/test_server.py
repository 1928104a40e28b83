"""The server on real sockets: deadlines, limits, shutdown, and an SDK that knows nothing of us."""

from __future__ import annotations

import collections.abc
import contextlib
import logging
import os
import socket
import threading
import time

import boto3
import botocore.config
import pytest
import trio
import trio.testing
from botocore.exceptions import ClientError

from millstream.actors.mailbox import Reply
from millstream.api.calls import Caller
from millstream.api.connection import Request
from millstream.api.credentials import Credential, Credentials
from millstream.api.errors import UnknownOperationException
from millstream.api.gate import Policy
from millstream.api.server import ServerLimits, serve_http
from millstream.api.sigv4 import sign
from millstream.errors import ConditionFailed
from millstream.host.budget import Budget
from millstream.host.network import open_listeners, port_of
from millstream.limits import (
    RECEIVE_BYTES,
    REQUEST_BODY_BYTES_MAX,
    REQUESTS_BEFORE_CHECKPOINT_MAX,
)

NOW = 1_700_000_000.0
MANY = 16 * 1024 * 1024


class Operations:
    """``gate`` holds every call of Hold; Big answers many bytes; Echo answers its body."""

    def __init__(self) -> None:
        self.gate = trio.Event()
        self.holding = trio.Event()
        self.calls = 0
        self.replies: list[Reply] = []
        self.held = 0

    async def dispatch(self, target: str, body: bytes, caller: Caller) -> bytes:
        self.calls += 1
        match target.partition(".")[2]:
            case "Hold":
                self.held += 1
                self.holding.set()
                try:
                    await self.gate.wait()
                finally:
                    self.held -= 1
            case "Big":
                return b'"' + b"x" * MANY + b'"'
            case "Bug":
                raise AssertionError("millstream is wrong")
            case "Echo":
                return body
            case "GetItem":
                raise ConditionFailed(b'{"a":{"S":"b"}}')
            case "Query":
                # Served without the connection's task, unless it meets a checkpoint.
                if body == b'"slow"':
                    for _ in range(3):
                        await trio.lowlevel.checkpoint()
                if body == b'"big"':
                    return b'"' + b"x" * MANY + b'"'
                if body == b'"bug"':
                    raise AssertionError("millstream is wrong")
                return body
            case "PutItem":
                # As a partition's answer is waited for.
                reply = Reply()
                self.replies.append(reply)
                return body + await reply.wait()
            case "ListTables":
                return b'{"TableNames":["a","b"]}'
            case "DescribeTable":
                raise UnknownOperationException
        return b"{}"


class Served:
    """A running server and what a test does with it."""

    def __init__(self, operations: Operations, port: int, stopping: trio.Event) -> None:
        self.operations = operations
        self.port = port
        self.stopping = stopping
        self.returned = trio.Event()
        self.streams: list[trio.SocketStream] = []

    async def connect(self) -> trio.SocketStream:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        self.streams.append(stream)
        return stream


@contextlib.asynccontextmanager
async def serving(**limits: float) -> collections.abc.AsyncIterator[Served]:
    listeners = open_listeners("127.0.0.1", 0)
    served = Served(Operations(), port_of(listeners), trio.Event())

    async def run(task_status: trio.TaskStatus[None]) -> None:
        await serve_http(
            served.operations,
            listeners,
            Policy(),
            clock=lambda: NOW,
            entropy=bytes,
            limits=ServerLimits(**limits),  # type: ignore[arg-type]
            stopping=served.stopping,
            task_status=task_status,
        )
        served.returned.set()

    try:
        with trio.fail_after(10_000):
            async with trio.open_nursery() as nursery:
                await nursery.start(run)
                yield served
                nursery.cancel_scope.cancel()
    finally:
        for stream in served.streams:
            stream.socket.close()


def call(operation: str = "Echo", body: bytes = b"{}", **headers: bytes) -> bytes:
    made = {b"host": b"localhost", b"x-amz-target": b"DynamoDB_20120810." + operation.encode()}
    made = sign(Request(b"POST", b"/", None, made, body), "A", "S", "us-east-1", NOW)
    made[b"content-type"] = b"application/x-amz-json-1.0"
    made[b"content-length"] = b"%d" % len(body)
    made |= {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return (
        b"POST / HTTP/1.1\r\n" + b"".join(b"%b: %b\r\n" % x for x in made.items()) + b"\r\n" + body
    )


async def answer(stream: trio.SocketStream, held: bytearray) -> tuple[int, bytes]:
    """The next answer on ``stream``; what comes behind it stays in ``held``."""
    while b"\r\n\r\n" not in held:
        held += await some(stream)
    head, _, rest = bytes(held).partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    held[:] = rest
    while len(held) < length:
        held += await some(stream)
    body = bytes(held[:length])
    del held[:length]
    return int(head.split()[1]), body


async def some(stream: trio.SocketStream) -> bytes:
    data = await stream.receive_some()
    assert data, "closed without an answer"
    return bytes(data)


@pytest.fixture
def fast_clock():
    """Jumps over the sweeper's seconds once the sockets have been silent for a moment."""
    return trio.testing.MockClock(autojump_threshold=0.003)


async def test_connection_is_kept():
    async with serving() as served:
        stream, held = await served.connect(), bytearray()
        for number in range(3):
            await stream.send_all(call(body=b"[%d]" % number))
            assert await answer(stream, held) == (200, b"[%d]" % number)


async def test_pipelined_requests_are_answered_in_order():
    async with serving() as served:
        stream, held = await served.connect(), bytearray()
        await stream.send_all(b"".join(call(body=b"[%d]" % number) for number in range(100)))
        for number in range(100):
            assert await answer(stream, held) == (200, b"[%d]" % number)


@pytest.mark.parametrize("together", [True, False])
async def test_quick_and_slow_requests_are_answered_in_order(together: bool):
    async with serving() as served:
        stream, held = await served.connect(), bytearray()
        bodies = [b'"slow"', b'"1"', b'"2"', b'"slow"', b'"3"']
        requests = [call("Query" if n % 3 else "Echo", body) for n, body in enumerate(bodies)]
        requests += [call("Query", body) for body in bodies]
        if together:
            await stream.send_all(b"".join(requests))
        for request, body in zip(requests, bodies * 2):
            if not together:
                await stream.send_all(request)
            assert await answer(stream, held) == (200, body)


async def test_quick_answer_beyond_the_socket_is_sent_to_its_end():
    async with serving() as served:
        stream = await served.connect()
        await stream.send_all(call("Query", b'"big"') + call("Query", b'"next"'))
        held = bytearray()
        assert len((await answer(stream, held))[1]) == MANY + 2
        assert await answer(stream, held) == (200, b'"next"')


async def test_quick_request_of_a_client_that_says_no_more_is_answered():
    async with serving() as served:
        stream = await served.connect()
        await stream.send_all(call("Query", b'"last"'))
        await stream.send_eof()
        assert await answer(stream, bytearray()) == (200, b'"last"')
        assert await stream.receive_some() == b""


async def test_quick_request_in_pieces_is_answered():
    async with serving() as served:
        stream = await served.connect()
        for byte in call("Query", b'"pieces"'):
            await stream.send_all(bytes([byte]))
            await trio.lowlevel.checkpoint()
        assert await answer(stream, bytearray()) == (200, b'"pieces"')


async def test_operation_that_waits_for_an_answer_goes_on_when_it_is_given():
    async with serving() as served:
        stream, held = await served.connect(), bytearray()
        await stream.send_all(call("PutItem", b"a") + call("Query", b"b") + call("PutItem", b"c"))
        replies = served.operations.replies
        for body, expected in ((b"1", [b"a1", b"b"]), (b"2", [b"c2"])):
            await trio.testing.wait_all_tasks_blocked()
            replies[-1].resolve(body)
            for answered in expected:
                assert await answer(stream, held) == (200, answered)
        assert len(replies) == 2
        # Idle again, and served again.
        await stream.send_all(call("Echo", b"still there"))
        assert await answer(stream, held) == (200, b"still there")


async def test_failed_answer_is_told():
    async with serving() as served:
        stream = await served.connect()
        await stream.send_all(call("PutItem", b"a"))
        await trio.testing.wait_all_tasks_blocked()
        served.operations.replies[0].fail(ConditionFailed(b"{}"))
        assert (await answer(stream, bytearray()))[0] == 400


async def test_client_that_leaves_while_an_operation_waits_harms_nobody():
    async with serving() as served:
        stream = await served.connect()
        await stream.send_all(call("PutItem", b"a"))
        await trio.testing.wait_all_tasks_blocked()
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        served.operations.replies[0].resolve(b"1")
        other = await served.connect()
        await other.send_all(call("Echo", b"here"))
        assert await answer(other, bytearray()) == (200, b"here")


async def test_stopping_waits_for_an_operation_that_waits():
    async with serving() as served:
        stream = await served.connect()
        await stream.send_all(call("PutItem", b"a"))
        await trio.testing.wait_all_tasks_blocked()
        served.stopping.set()
        await trio.testing.wait_all_tasks_blocked()
        served.operations.replies[0].resolve(b"1")
        assert await answer(stream, bytearray()) == (200, b"a1")
        assert await stream.receive_some() == b""


async def test_stopping_tells_an_operation_that_never_ends(fast_clock):
    async with serving(shutdown_seconds=1) as served:
        stream = await served.connect()
        await stream.send_all(call("PutItem", b"a"))
        await trio.testing.wait_all_tasks_blocked()
        served.stopping.set()
        assert (await answer(stream, bytearray()))[0] == 500
        await served.returned.wait()
        served.operations.replies[0].resolve(b"too late")


async def test_bug_in_a_quick_operation_is_told_and_ends_the_server(caplog):
    with pytest.RaisesGroup(AssertionError, flatten_subgroups=True):
        async with serving() as served:
            stream = await served.connect()
            await stream.send_all(call("Query", b'"bug"'))
            assert (await answer(stream, bytearray()))[0] == 500
            await trio.sleep_forever()


async def test_pipelining_client_starves_nobody():
    async with serving() as served:
        busy, most = await served.connect(), 0
        one = call()
        count = RECEIVE_BYTES // len(one)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(busy.send_all, one * count)
            while served.operations.calls < count:
                before = served.operations.calls
                await trio.lowlevel.checkpoint()
                most = max(most, served.operations.calls - before)
        # trio shuffles who runs in a round, so it may have two turns between two of ours.
        assert 0 < most <= 2 * REQUESTS_BEFORE_CHECKPOINT_MAX < count


async def test_continue_is_sent():
    async with serving() as served:
        stream = await served.connect()
        whole = call(body=b"[1]", expect=b"100-continue")
        await stream.send_all(whole[:-3])
        assert await some(stream) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.send_all(whole[-3:])
        assert await answer(stream, bytearray()) == (200, b"[1]")


async def test_refused_request_is_answered_and_then_closed():
    async with serving() as served:
        stream = await served.connect()
        await stream.send_all(b"nonsense\r\n\r\n" + b"more" * 1000)
        assert (await answer(stream, bytearray()))[0] == 400
        assert await stream.receive_some() == b""


async def test_last_answer_arrives_although_more_was_sent():
    async with serving() as served:
        stream, held = await served.connect(), bytearray()
        async with trio.open_nursery() as nursery:
            # More than the server will read: closing at once would reset the connection.
            nursery.start_soon(stream.send_all, call(connection=b"close") + bytes(MANY))
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert await answer(stream, held) == (200, b"{}")
        assert await stream.receive_some() == b""


async def test_truncated_request_is_answered():
    async with serving() as served:
        stream = await served.connect()
        await stream.send_all(call()[:-1])
        await stream.send_eof()
        assert (await answer(stream, bytearray()))[0] == 400


async def test_oversized_body_is_answered_although_it_is_still_being_sent():
    async with serving() as served:
        stream = await served.connect()
        head = call().replace(b"content-length: 2", b"content-length: %d" % (MANY * 2))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, head + bytes(MANY * 2 - 2))
            assert (await answer(stream, bytearray()))[0] == 413
        await stream.aclose()


async def test_large_bodies_and_answers_pass():
    async with serving() as served:
        stream, held = await served.connect(), bytearray()
        body = b'"' + b"x" * MANY + b'"'
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, call(body=body))
            assert await answer(stream, held) == (200, body)


async def test_bodies_wait_for_their_share_of_the_bytes_in_flight():
    size = REQUEST_BODY_BYTES_MAX - 100_000
    async with serving(bytes_in_flight=REQUEST_BODY_BYTES_MAX) as served:
        first, second = await served.connect(), await served.connect()
        large = call(body=b"x" * size)
        await first.send_all(large[:200_000])
        await trio.testing.wait_all_tasks_blocked(0.01)
        done = []

        async def send_second() -> None:
            await second.send_all(large)

        async def read_second() -> None:
            assert (await answer(second, bytearray()))[0] == 200
            done.append("second")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_second)
            nursery.start_soon(read_second)
            # Small requests go on all the same.
            third = await served.connect()
            await third.send_all(call())
            assert (await answer(third, bytearray()))[0] == 200
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert done == []
            # Its sender goes: its share is free.
            await first.aclose()
        assert done == ["second"]


async def test_chunked_body_beyond_the_bytes_in_flight_is_refused():
    async with serving(bytes_in_flight=REQUEST_BODY_BYTES_MAX) as served:
        first, second = await served.connect(), await served.connect()
        large = call(body=b"x" * (REQUEST_BODY_BYTES_MAX - 100_000))
        await first.send_all(large[:200_000])
        await trio.testing.wait_all_tasks_blocked(0.01)
        head = call(body=b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
        await second.send_all(head + b"%x\r\n" % 500_000 + bytes(400_000))
        assert (await answer(second, bytearray()))[0] == 503


async def test_budget_is_given_in_order_and_back_when_cancelled():
    budget = Budget(REQUEST_BODY_BYTES_MAX)
    most = REQUEST_BODY_BYTES_MAX
    assert budget.take(most - 10)
    order = []

    async def want(size: int) -> None:
        await budget.wait(size)
        order.append(size)

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as abandoned:
            async with trio.open_nursery() as others:
                others.start_soon(want, 11)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(want, 12)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(want, 5)  # would fit, but has to stand in line
                await trio.testing.wait_all_tasks_blocked()
                assert order == []
                abandoned.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert order == []
        budget.give_back(2)
        await trio.testing.wait_all_tasks_blocked()
        assert order == [12]
        budget.give_back(12)
    assert order == [12, 5]
    budget.give_back(most - 12 + 5)
    assert budget.used == 0


async def test_connections_are_bounded_and_the_next_one_waits():
    async with serving(connections=2) as served:
        streams = [await served.connect() for _ in range(3)]
        for stream in streams:
            await stream.send_all(call())
        for stream in streams[:2]:
            await answer(stream, bytearray())
        await trio.testing.wait_all_tasks_blocked(0.01)
        with trio.move_on_after(0) as waiting:
            await streams[2].receive_some()
        assert waiting.cancelled_caught
        await streams[0].aclose()
        assert (await answer(streams[2], bytearray()))[0] == 200


# Deadlines, on a clock that jumps.


async def test_idle_connection_is_closed_quietly(fast_clock):
    async with serving(idle_seconds=3) as served:
        stream, held = await served.connect(), bytearray()
        await stream.send_all(call())
        await answer(stream, held)
        started = trio.current_time()
        assert await stream.receive_some() == b""
        assert 3 <= trio.current_time() - started <= 5


async def test_dribbled_head_is_told_that_it_is_late(fast_clock):
    async with serving(head_seconds=3) as served:
        stream = await served.connect()
        for letter in b"POST / HTTP":
            await stream.send_all(bytes([letter]))
            await trio.sleep(0.2)
        assert (await answer(stream, bytearray()))[0] == 408
        assert 3 <= trio.current_time() <= 6


async def test_dribbled_body_is_told_that_it_is_late(fast_clock):
    async with serving(transfer_seconds=3) as served:
        stream = await served.connect()
        await stream.send_all(call(body=b"x" * 100)[:-90])
        for _ in range(10):
            await stream.send_all(b"x")
            await trio.sleep(0.25)
        assert (await answer(stream, bytearray()))[0] == 408


async def test_client_that_does_not_read_is_dropped(fast_clock):
    async with serving(transfer_seconds=1) as served:
        stream = await served.connect()
        await stream.send_all(call("Big"))
        await trio.sleep(300)
        with contextlib.suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
        other = await served.connect()
        await other.send_all(call())
        assert (await answer(other, bytearray()))[0] == 200


async def test_operation_may_take_its_time(fast_clock):
    async with serving(idle_seconds=1, head_seconds=1, transfer_seconds=1) as served:
        stream = await served.connect()
        await stream.send_all(call("Hold"))
        await trio.sleep(60)
        served.operations.gate.set()
        assert (await answer(stream, bytearray()))[0] == 200


# Shutdown.


async def test_stopping_finishes_what_is_in_flight():
    async with serving() as served:
        idle, working = await served.connect(), await served.connect()
        await idle.send_all(call())
        await answer(idle, bytearray())
        await working.send_all(call("Hold"))
        await served.operations.holding.wait()
        served.stopping.set()
        assert await idle.receive_some() == b""
        assert not served.returned.is_set()
        with pytest.raises(OSError, match="connect"):
            await served.connect()
        served.operations.gate.set()
        assert (await answer(working, bytearray()))[0] == 200
        assert await working.receive_some() == b""
        await working.aclose()
        await served.returned.wait()


async def test_stopping_does_not_wait_for_ever(fast_clock):
    async with serving(shutdown_seconds=5) as served:
        working, reading = await served.connect(), await served.connect()
        await working.send_all(call("Hold"))
        await reading.send_all(call()[:-1])
        await served.operations.holding.wait()
        served.stopping.set()
        status, body = await answer(working, bytearray())
        assert (status, b"outcome is not known" in body) == (500, True)
        assert (await answer(reading, bytearray()))[0] == 503
        await served.returned.wait()
        assert served.operations.held == 0


async def test_stopping_without_connections_returns():
    async with serving() as served:
        served.stopping.set()
        await served.returned.wait()


async def test_bug_is_told_and_ends_the_server(caplog):
    told = []
    with pytest.RaisesGroup(AssertionError, flatten_subgroups=True):
        async with serving() as served:
            stream = await served.connect()
            await stream.send_all(call("Bug"))
            with trio.CancelScope(shield=True):
                told.append(await answer(stream, bytearray()))
            await trio.sleep_forever()
    assert told[0][0] == 500
    assert "AssertionError" in caplog.text


async def test_lost_connections_are_no_news(caplog):
    with caplog.at_level(logging.INFO):
        async with serving() as served:
            for sent in (b"", call()[:50], call("Hold"), call("Big")):
                stream = await served.connect()
                await stream.send_all(sent)
                linger = b"\1\0\0\0\0\0\0\0"  # a reset, not an end
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                await stream.aclose()
            served.operations.gate.set()
            stream = await served.connect()
            await stream.send_all(call())
            assert (await answer(stream, bytearray()))[0] == 200
    assert caplog.text == ""


# An SDK.


@pytest.fixture(scope="module")
def endpoint():
    """A server in a thread of its own, with real time, for a blocking client."""
    listeners = open_listeners("localhost", 0)
    credentials = Credentials([Credential("p", "AKID", "secret")])
    ready = threading.Event()
    token: list[tuple[trio.lowlevel.TrioToken, trio.Event]] = []

    async def main() -> None:
        stopping = trio.Event()
        token.append((trio.lowlevel.current_trio_token(), stopping))
        ready.set()
        await serve_http(
            Operations(),
            listeners,
            Policy(credentials, "us-east-1"),
            clock=time.time,
            entropy=os.urandom,
            stopping=stopping,
        )

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    ready.wait()
    yield f"http://localhost:{port_of(listeners)}"
    trio.from_thread.run_sync(token[0][1].set, trio_token=token[0][0])
    thread.join()


def client(endpoint: str, secret: str = "secret", **more: object):
    return boto3.client(
        "dynamodb",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="AKID",
        aws_secret_access_key=secret,
        config=botocore.config.Config(retries={"max_attempts": 1}, **more),
    )


def test_boto3_lists_tables(endpoint):
    found = client(endpoint).list_tables()
    assert found["TableNames"] == ["a", "b"]
    assert len(found["ResponseMetadata"]["RequestId"]) == 52
    assert found["ResponseMetadata"]["RetryAttempts"] == 0


def test_boto3_reads_errors(endpoint):
    sdk = client(endpoint)
    with pytest.raises(sdk.exceptions.ConditionalCheckFailedException) as caught:
        sdk.get_item(TableName="abc", Key={"a": {"S": "b"}})
    assert caught.value.response["Item"] == {"a": {"S": "b"}}
    with pytest.raises(ClientError) as refused:
        client(endpoint, "other").list_tables()
    assert refused.value.response["Error"]["Code"] == "InvalidSignatureException"
    with pytest.raises(ClientError) as unknown:
        sdk.describe_table(TableName="abc")
    assert unknown.value.response["Error"]["Code"] == "UnknownOperationException"


def test_boto3_may_compress_its_requests(endpoint):
    sdk = client(endpoint, request_min_compression_size_bytes=1)
    assert sdk.list_tables()["TableNames"] == ["a", "b"]
