"""Channels over a network in memory: how they are made, how they end, and what a drill does."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from millstream.actors.channel import Channel, answer_channel, dial_channel
from millstream.errors import LinkError, LinkLost, LinkRefused
from millstream.globaltables.faults import Fault, LinkFaults
from millstream.globaltables.messages import Batch, Message, Pulse
from millstream.globaltables.peers import Identity, Peer
from millstream.host.entropy import RealEntropy
from millstream.host.links import AnsweredStream, ByteStream, Links, RealLinks
from millstream.host.memory_links import MemoryNetwork
from millstream.limits import (
    LINK_DELAYED_BYTES_MAX,
    LINK_FRAME_BYTES_MAX,
    LINK_HANDSHAKE_SECONDS,
    LINK_RECEIVE_BYTES,
    LINK_SILENCE_SECONDS,
    LINK_STALL_SECONDS,
    LINK_STRANGERS_MAX,
)

EAST = Identity("us-east-1", 1)
WEST = Identity("eu-west-1", 2)
SECRET = b"a secret of some length"


def pulse(number: int) -> Pulse:
    return Pulse(number, 0, [])


class Pair:
    """Two nodes; the first dials."""

    def __init__(self, nursery: trio.Nursery, one: Links, other: Links) -> None:
        self.nursery = nursery
        self.links = (one, other)
        self.faults = tuple(LinkFaults(random.Random(seed).random) for seed in (1, 2))
        self.peer = Peer(WEST.region, WEST.number, "")
        self.answered, self._answers = trio.open_memory_channel[Channel | LinkError](100)[::-1]
        #: What answering nodes do besides.
        self.secret = SECRET

    async def serve(self) -> None:
        address = await self.nursery.start(self.links[1].serve, "127.0.0.1:0", self._answer)
        self.peer = Peer(WEST.region, WEST.number, address)

    async def _answer(self, stream: AnsweredStream) -> None:
        entropy = RealEntropy()
        async with trio.open_nursery() as nursery:
            try:
                channel = await answer_channel(
                    nursery, stream, WEST, self.secret, [EAST], entropy, self.faults[1]
                )
            except LinkError as error:
                self._answers.send_nowait(error)
                return
            self._answers.send_nowait(channel)
            await trio.sleep_forever()

    async def dial(self) -> Channel:
        return await dial_channel(
            self.nursery, self.links[0], self.peer, EAST, SECRET, RealEntropy(), self.faults[0]
        )

    async def make(self) -> tuple[Channel, Channel]:
        one = await self.dial()
        other = await self.answered.receive()
        assert isinstance(other, Channel)
        return one, other

    async def refusal(self) -> LinkError:
        error = await self.answered.receive()
        assert isinstance(error, LinkError)
        return error


@asynccontextmanager
async def paired(one: Links, other: Links) -> AsyncIterator[Pair]:
    async with trio.open_nursery() as nursery:
        pair = Pair(nursery, one, other)
        await pair.serve()
        yield pair
        nursery.cancel_scope.cancel()


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork(random.Random(5))


@pytest.fixture
async def pair(network: MemoryNetwork) -> AsyncIterator[Pair]:
    async with paired(network.of("east"), network.of("west")) as pair:
        yield pair


async def lost(work: Callable[[], Awaitable[Any]]) -> tuple[str, float]:
    """Why it ends in LinkLost, and after how many seconds."""
    start = trio.current_time()
    with pytest.raises(LinkLost) as caught:
        await work()
    return str(caught.value), trio.current_time() - start


async def keep_receiving(channel: Channel) -> None:
    while True:
        await channel.receive()


async def test_messages_go_both_ways(autojump_clock: MockClock, pair: Pair) -> None:
    one, other = await pair.make()
    assert (one.peer, other.peer) == (WEST, EAST)
    for number in range(20):
        message = Batch(1, number, 0, bytes(number * 20_000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.send, message)
            nursery.start_soon(other.send, pulse(number))
            assert await other.receive() == message
            assert await one.receive() == pulse(number)


async def test_real_links() -> None:
    with trio.fail_after(10):
        async with paired(RealLinks(), RealLinks()) as pair:
            one, other = await pair.make()
            await one.send(pulse(1))
            assert await other.receive() == pulse(1)
            await other.aclose()
            with pytest.raises(LinkLost):
                await one.receive()
            await one.aclose()


class Gathering:
    """Links whose streams read late, and then all that is there at once."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self.serve = links.serve

    async def dial(self, address: str) -> ByteStream:
        stream = await self._links.dial(address)

        class Late:
            send_all = stream.send_all
            aclose = stream.aclose

            async def receive_some(self, max_bytes: int | None = None) -> bytes:
                data = bytearray(await stream.receive_some())
                with trio.move_on_after(1):
                    while piece := await stream.receive_some():
                        data += piece
                return bytes(data)

        return Late()


async def test_what_comes_behind_the_handshake_is_not_lost(
    autojump_clock: MockClock, pair: Pair
) -> None:
    async def answer() -> None:
        other = await pair.answered.receive()
        assert isinstance(other, Channel)
        await other.send(pulse(1))

    pair.links = (Gathering(pair.links[0]), pair.links[1])
    pair.nursery.start_soon(answer)
    one = await pair.dial()
    assert len(one._messages) == 1
    assert await one.receive() == pulse(1)


async def test_many_senders_are_told_apart(autojump_clock: MockClock, pair: Pair) -> None:
    one, other = await pair.make()
    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(one.send, Batch(number, 0, 0, bytes(10_000)))
        received = [await other.receive() for _ in range(30)]
    assert sorted(message.stream for message in received) == list(range(30))  # type: ignore[union-attr]


async def test_a_cancelled_send_leaves_the_channel_whole(
    autojump_clock: MockClock, pair: Pair
) -> None:
    one, other = await pair.make()
    with trio.move_on_after(1) as scope:
        await one.send(Batch(1, 0, 0, bytes(1_000_000)))
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.send, pulse(2))
        assert isinstance(await other.receive(), Batch)
        assert await other.receive() == pulse(2)


async def test_a_message_too_large_leaves_the_channel_whole(
    autojump_clock: MockClock, pair: Pair
) -> None:
    one, other = await pair.make()
    with pytest.raises(LinkError, match="more than a frame holds"):
        await one.send(Batch(1, 0, 0, bytes(LINK_FRAME_BYTES_MAX)))
    await one.send(pulse(1))
    assert await other.receive() == pulse(1)


# How it is not made.


async def test_another_secret_is_told_to_both(autojump_clock: MockClock, pair: Pair) -> None:
    pair.secret = b"x" * 16
    with pytest.raises(LinkRefused, match="refuses the link: eu-west-1 and the other side have"):
        await pair.dial()
    assert type(await pair.refusal()) is LinkRefused


async def test_nobody_answers(autojump_clock: MockClock, pair: Pair) -> None:
    pair.peer = Peer(WEST.region, WEST.number, "127.0.0.1:9")
    assert await lost(pair.dial) == (
        "eu-west-1 does not answer at 127.0.0.1:9: nobody answers at 127.0.0.1:9",
        0.0,
    )


async def test_who_answers_says_nothing(
    autojump_clock: MockClock, pair: Pair, network: MemoryNetwork
) -> None:
    closed = trio.Event()

    async def silent(stream: AnsweredStream) -> None:
        while await stream.receive_some():
            pass
        closed.set()

    address = await pair.nursery.start(network.of("west").serve, "silent", silent)
    pair.peer = Peer(WEST.region, WEST.number, address)
    assert await lost(pair.dial) == ("no handshake within 5 seconds", LINK_HANDSHAKE_SECONDS)
    await closed.wait()


async def test_regions_are_no_strangers(autojump_clock: MockClock, pair: Pair) -> None:
    for number in range(LINK_STRANGERS_MAX + 1):
        one, other = await pair.make()
        await one.send(pulse(number))
        assert await other.receive() == pulse(number)


async def test_who_dials_says_nothing_or_nonsense(
    autojump_clock: MockClock, pair: Pair, network: MemoryNetwork
) -> None:
    stream = await network.of("east").dial(pair.peer.address)
    assert str(await pair.refusal()) == "no handshake within 5 seconds"
    assert await stream.receive_some() == b""
    stream = await network.of("east").dial(pair.peer.address)
    await stream.send_all(b"GET / HTTP/1.1\r\n")
    assert "another protocol" in str(await pair.refusal())
    assert await stream.receive_some() == b""


async def test_a_handshake_that_is_cut(
    autojump_clock: MockClock, pair: Pair, network: MemoryNetwork
) -> None:
    network.set_latency("east", "west", 1.0)
    pair.nursery.start_soon(cut_after, network, 2.5)
    assert (await lost(pair.dial))[0] == "the link broke before it was made"


async def cut_after(network: MemoryNetwork, seconds: float) -> None:
    await trio.sleep(seconds)
    network.cut("east", "west")


# How it ends.


async def test_the_end_is_told_to_all_who_wait(autojump_clock: MockClock, pair: Pair) -> None:
    one, other = await pair.make()
    ends: list[str] = []

    async def told(work: Callable[[], Awaitable[Any]]) -> None:
        ends.append((await lost(work))[0])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(told, one.receive)
        for _ in range(2):
            nursery.start_soon(told, lambda: one.send(Batch(1, 0, 0, bytes(1_000_000))))
        await wait_all_tasks_blocked()
        await one.aclose()
    assert ends == ["the link with eu-west-1 was closed"] * 3
    await one.aclose()
    assert (await lost(lambda: one.send(pulse(1))))[0] == "the link with eu-west-1 was closed"
    assert (await lost(other.receive))[0].startswith("the link has ended amid a frame")


async def test_what_came_before_the_end_is_received(autojump_clock: MockClock, pair: Pair) -> None:
    one, other = await pair.make()
    await one.send(pulse(1))
    await one.send(pulse(2))
    await one.aclose()
    assert await other.receive() == pulse(1)
    assert await other.receive() == pulse(2)
    assert (await lost(other.receive))[0] == "the other side has closed the link"
    assert (await lost(other.receive))[0] == "the other side has closed the link"


async def test_a_peer_that_takes_nothing(autojump_clock: MockClock, pair: Pair) -> None:
    one, _ = await pair.make()
    why, seconds = await lost(lambda: one.send(Batch(1, 0, 0, bytes(1_000_000))))
    assert why == "eu-west-1 took nothing for 10 seconds"
    assert seconds == pytest.approx(LINK_STALL_SECONDS)


async def test_a_peer_that_is_slow_is_not_one_that_takes_nothing(
    autojump_clock: MockClock, pair: Pair
) -> None:
    one, other = await pair.make()
    message = Batch(1, 0, 0, bytes(1_000_000))
    read = other._stream.receive_some

    class Slow:
        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            await trio.sleep(1)
            return await read(max_bytes)

    other._stream = Slow()  # type: ignore[assignment]
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.send, message)
        assert await other.receive() == message
    assert trio.current_time() - start > 3 * LINK_STALL_SECONDS


async def test_silence_ends_it(
    autojump_clock: MockClock, pair: Pair, network: MemoryNetwork
) -> None:
    one, other = await pair.make()
    pair.nursery.start_soon(send_pulses, other, 5)
    start = trio.current_time()
    why, seconds = await lost(lambda: keep_receiving(one))
    assert why == "eu-west-1 was silent for 15 seconds"
    assert seconds == pytest.approx(4 + LINK_SILENCE_SECONDS)
    assert trio.current_time() - start == seconds


async def send_pulses(channel: Channel, count: int) -> None:
    for number in range(count):
        await channel.send(pulse(number))
        await trio.sleep(1)


async def test_half_open_is_silence(
    autojump_clock: MockClock, pair: Pair, network: MemoryNetwork
) -> None:
    one, other = await pair.make()
    network.cut("west", "east", silently=True, one_way=True)
    pair.nursery.start_soon(send_pulses, other, 100)
    pair.nursery.start_soon(send_pulses, one, 15)
    why, seconds = await lost(lambda: keep_receiving(one))
    assert (why, seconds) == ("eu-west-1 was silent for 15 seconds", LINK_SILENCE_SECONDS)
    # The other direction is fine, so that the other side would not find out by itself.
    assert await other.receive() == pulse(0)


async def test_a_cut_is_told_at_once(
    autojump_clock: MockClock, pair: Pair, network: MemoryNetwork
) -> None:
    one, _ = await pair.make()
    pair.nursery.start_soon(cut_after, network, 2.0)
    assert await lost(one.receive) == ("the link with eu-west-1 broke", pytest.approx(2.0))


async def test_a_frame_that_was_changed_on_its_way_ends_it(
    autojump_clock: MockClock, pair: Pair
) -> None:
    one, other = await pair.make()
    send = one._stream.send_all

    class Changing:
        async def send_all(self, data: memoryview) -> None:
            await send(bytes(data[:-1]) + bytes([data[-1] ^ 1]))

    one._stream = Changing()  # type: ignore[assignment]
    await one.send(pulse(1))
    for _ in range(2):
        with pytest.raises(LinkError, match="a frame was changed") as caught:
            await other.receive()
        assert type(caught.value) is LinkError


async def test_no_more_than_a_frame_and_a_read_is_held(
    autojump_clock: MockClock, pair: Pair
) -> None:
    one, other = await pair.make()
    message = Batch(1, 0, 0, bytes(100_000))
    read, asked = other._stream.receive_some, []

    class Watched:
        async def receive_some(self, max_bytes: int) -> bytes | bytearray:
            asked.append(max_bytes)
            return await read(max_bytes)

    other._stream = Watched()  # type: ignore[assignment]
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(one.send, message)
        for _ in range(20):
            await other.receive()
            await wait_all_tasks_blocked()
            held = len(other._connection._buffer) + 100_000 * len(other._messages)
            assert held <= 100_100 + LINK_RECEIVE_BYTES
    assert set(asked) == {LINK_RECEIVE_BYTES}


# Drills.


async def received_at(channel: Channel, count: int) -> list[float]:
    found = []
    for _ in range(count):
        await channel.receive()
        found.append(trio.current_time())
    return found


async def test_latency_delays_frames_and_not_how_many_they_are(
    autojump_clock: MockClock, pair: Pair
) -> None:
    one, other = await pair.make()
    pair.faults[0].set("eu-west-1", Fault(latency_seconds=2.0))
    start = trio.current_time()
    for number in range(100):
        await one.send(pulse(number))
    assert trio.current_time() == start
    assert await received_at(other, 100) == [start + 2.0] * 100
    # The way back is the other node's affair.
    await other.send(pulse(1))
    await one.receive()
    assert trio.current_time() == start + 2.0


async def test_frames_stay_in_order_when_the_latency_shrinks(
    autojump_clock: MockClock, pair: Pair
) -> None:
    one, other = await pair.make()
    pair.faults[0].set("eu-west-1", Fault(latency_seconds=10.0))
    await one.send(pulse(1))
    pair.faults[0].set("eu-west-1", Fault(latency_seconds=3.0))
    start = trio.current_time()
    await one.send(pulse(2))
    assert [await other.receive(), await other.receive()] == [pulse(1), pulse(2)]
    assert trio.current_time() == start + 3.0
    pair.faults[0].set("eu-west-1", Fault(latency_seconds=10.0))
    await one.send(pulse(3))
    await trio.sleep(1)
    pair.faults[0].heal()
    assert await other.receive() == pulse(3)
    assert trio.current_time() == start + 4.0


async def test_what_is_delayed_is_bounded(autojump_clock: MockClock, pair: Pair) -> None:
    one, other = await pair.make()
    pair.faults[0].set("eu-west-1", Fault(latency_seconds=5.0))
    size = LINK_DELAYED_BYTES_MAX // 4
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, other, 5)
        for _ in range(3):
            await one.send(Batch(1, 0, 0, bytes(size)))
        assert trio.current_time() == start
        await one.send(Batch(1, 0, 0, bytes(size)))
        assert trio.current_time() == start + 5.0
        await one.send(Batch(1, 0, 0, bytes(size)))


async def test_many_senders_delay_no_more_than_one(autojump_clock: MockClock, pair: Pair) -> None:
    one, other = await pair.make()
    pair.faults[0].set("eu-west-1", Fault(is_paused=True))
    size = LINK_DELAYED_BYTES_MAX // 4
    async with trio.open_nursery() as nursery:
        for _ in range(12):
            nursery.start_soon(one.send, Batch(1, 0, 0, bytes(size)))
        await wait_all_tasks_blocked()
        assert one._queued_bytes < LINK_DELAYED_BYTES_MAX + size
        pair.faults[0].heal()
        await keep(other, 12)


async def keep(channel: Channel, count: int) -> None:
    for _ in range(count):
        await channel.receive()


async def test_a_pause_holds_frames_back(autojump_clock: MockClock, pair: Pair) -> None:
    one, other = await pair.make()
    pair.faults[0].set("eu-west-1", Fault(is_paused=True))
    await one.send(pulse(1))
    with trio.move_on_after(10) as scope:
        await other.receive()
    assert scope.cancelled_caught
    pair.faults[0].heal()
    start = trio.current_time()
    assert await other.receive() == pulse(1)
    assert trio.current_time() == start


async def test_a_partition_ends_channels_at_once_and_refuses_new_ones(
    autojump_clock: MockClock, pair: Pair
) -> None:
    for at, region in ((0, "eu-west-1"), (1, "us-east-1")):
        ends = await pair.make()
        here = ends[at]
        start = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def receive(channel: Channel = here, told: str = region) -> None:
                why, _ = await lost(channel.receive)
                assert why == f"a drill has cut the links with {told}"

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            pair.faults[at].set(region, Fault(is_partitioned=True))
        with pytest.raises(LinkLost, match="a drill has cut"):
            await here.send(pulse(1))
        await here.aclose()
        with pytest.raises(LinkLost):
            await ends[1 - at].receive()
        with pytest.raises(LinkError):
            await pair.dial()
        assert trio.current_time() == start
        if at == 1:
            assert str(await pair.refusal()) == "a drill has cut the links with us-east-1"
        pair.faults[at].heal()
    await pair.make()


async def test_a_partition_with_another_region_is_none(
    autojump_clock: MockClock, pair: Pair
) -> None:
    one, other = await pair.make()
    pair.faults[0].set("sa-east-1", Fault(is_partitioned=True))
    await one.send(pulse(1))
    assert await other.receive() == pulse(1)


async def test_dropped_frames_end_the_connection_before_they_are_sent(
    autojump_clock: MockClock, pair: Pair
) -> None:
    async def sent_before_the_drop() -> int:
        one, other = await pair.make()
        sent = 0
        with pytest.raises(LinkLost, match="a drill has dropped the link with eu-west-1"):
            while True:
                await one.send(pulse(sent))
                sent += 1
        await one.aclose()
        received: list[Message] = []
        with pytest.raises(LinkLost):
            while True:
                received.append(await other.receive())
        assert received == [pulse(number) for number in range(sent)]
        return sent

    pair.faults[0].set("eu-west-1", Fault(drop=0.1))
    counts = [await sent_before_the_drop() for _ in range(10)]
    chance = random.Random(1)
    expected = []
    for _ in range(10):
        count = 0
        while chance.random() >= 0.1:
            count += 1
        expected.append(count)
    assert counts == expected


async def test_an_ended_channel_is_told_of_no_more_changes(
    autojump_clock: MockClock, pair: Pair
) -> None:
    one, other = await pair.make()
    assert [len(faults._told) for faults in pair.faults] == [1, 1]
    await one.aclose()
    with pytest.raises(LinkLost):
        await other.receive()
    await other.aclose()
    assert [len(faults._told) for faults in pair.faults] == [0, 0]
