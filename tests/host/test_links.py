"""The contract of links, held by the real ones and their twin; then TLS, and the twin's faults."""

from __future__ import annotations

import random
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from millstream.errors import ConfigurationError, LinkLost, LinkRefused
from millstream.host.addresses import Tls, split_address
from millstream.host.links import (
    AnsweredStream,
    ByteStream,
    Handler,
    Links,
    RealLinks,
)
from millstream.host.memory_links import BUFFER_BYTES, MemoryNetwork
from millstream.limits import LINK_CONNECTIONS_MAX, LINK_DIAL_SECONDS, LINK_STRANGERS_MAX


async def receive_exactly(stream: ByteStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = await stream.receive_some(count - len(data))
        assert piece
        data += piece
    return data


async def echo(stream: AnsweredStream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


@asynccontextmanager
async def served(links: Links, handler: Handler, address: str) -> AsyncIterator[str]:
    # Where time jumps, whoever hangs has his days soon.
    patience_seconds = 20 if isinstance(links, RealLinks) else 1e6
    async with trio.open_nursery() as nursery:
        with trio.fail_after(patience_seconds):
            yield await nursery.start(links.serve, address, handler)
        nursery.cancel_scope.cancel()


@pytest.fixture(params=["real", "memory"])
def pair(request: pytest.FixtureRequest) -> tuple[Links, Links]:
    """Who dials, and who answers."""
    if request.param == "real":
        return RealLinks(), RealLinks()
    network = MemoryNetwork(random.Random(1))
    return network.of("a"), network.of("b")


async def test_bytes_go_both_ways(pair: tuple[Links, Links]) -> None:
    one, other = pair
    async with served(other, echo, "127.0.0.1:0") as address:
        assert address.startswith("127.0.0.1:")
        assert not address.endswith(":0")
        stream = await one.dial(address)
        for data in (b"x", bytes(range(256)) * 50):
            await stream.send_all(data)
            assert await receive_exactly(stream, len(data)) == data
        await stream.send_all(memoryview(b"view"))
        assert await receive_exactly(stream, 4) == b"view"
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()


async def test_nobody_answers(pair: tuple[Links, Links]) -> None:
    one, other = pair
    async with served(other, echo, "127.0.0.1:0") as address:
        pass
    with pytest.raises(OSError):
        await one.dial(address)


async def test_an_address_is_answered_once(pair: tuple[Links, Links]) -> None:
    _, other = pair
    async with served(other, echo, "127.0.0.1:0") as address:
        with pytest.raises(ConfigurationError, match="links cannot be answered at 127.0.0.1:"):
            await other.serve(address, echo)


async def test_the_end_of_the_other_side_is_seen(pair: tuple[Links, Links]) -> None:
    async def one_word(stream: AnsweredStream) -> None:
        await stream.send_all(b"word")

    one, other = pair
    async with served(other, one_word, "127.0.0.1:0") as address:
        stream = await one.dial(address)
        assert await receive_exactly(stream, 4) == b"word"
        assert await stream.receive_some() == b""
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await stream.send_all(bytes(1 << 16))
        await stream.aclose()


async def test_who_takes_nothing_stops_who_sends(pair: tuple[Links, Links]) -> None:
    async def sleeper(stream: AnsweredStream) -> None:
        await trio.sleep_forever()

    one, other = pair
    async with served(other, sleeper, "127.0.0.1:0") as address:
        stream = await one.dial(address)
        with trio.move_on_after(0.2) as scope:
            await stream.send_all(bytes(1 << 25))
        assert scope.cancelled_caught
        await stream.aclose()


async def test_a_closed_stream_wakes_who_waits_at_it(pair: tuple[Links, Links]) -> None:
    async def sleeper(stream: AnsweredStream) -> None:
        await trio.sleep_forever()

    async def receive(stream: ByteStream) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()

    one, other = pair
    async with served(other, sleeper, "127.0.0.1:0") as address:
        stream = await one.dial(address)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, stream)
            await wait_all_tasks_blocked(0.01)
            await stream.aclose()


async def test_strangers_are_few_and_friends_are_more(pair: tuple[Links, Links]) -> None:
    inside: list[AnsweredStream] = []
    dialled: list[ByteStream] = []

    async def trusting(stream: AnsweredStream) -> None:
        inside.append(stream)
        while await stream.receive_some():
            stream.trust()
            stream.trust()
            await stream.send_all(b"!")
        inside.remove(stream)

    async def there_are(count: int) -> None:
        while len(inside) != count:  # noqa: ASYNC110  # what is waited for is the kernel
            await trio.sleep(0.001)

    async def is_let_in(stream: ByteStream) -> bool:
        try:
            await stream.send_all(b"?")
            return await stream.receive_some() == b"!"
        except trio.BrokenResourceError:
            return False

    async def dial() -> ByteStream:
        dialled.append(await one.dial(address))
        return dialled[-1]

    one, other = pair
    async with served(other, trusting, "127.0.0.1:0") as address:
        for _ in range(LINK_STRANGERS_MAX):
            await dial()
        await there_are(LINK_STRANGERS_MAX)
        assert not await is_let_in(await dial())
        # A stranger that has gone leaves its place to another.
        await dialled[-2].aclose()
        await there_are(LINK_STRANGERS_MAX - 1)
        await dial()
        await there_are(LINK_STRANGERS_MAX)
        # One proves who it is, and there is room for another stranger.
        assert await is_let_in(dialled[0])
        for _ in range(LINK_CONNECTIONS_MAX - LINK_STRANGERS_MAX):
            assert await is_let_in(await dial())
        # Strangers are fewer now than may be: it is all together that are too many.
        assert await is_let_in(dialled[1])
        assert not await is_let_in(await dial())
        await dialled[0].aclose()
        await there_are(LINK_CONNECTIONS_MAX - 1)
        assert await is_let_in(await dial())
        for stream in dialled:
            await stream.aclose()
        await there_are(0)


@pytest.mark.parametrize(
    ("address", "parts"),
    [("localhost:1", ("localhost", 1)), ("[::1]:65535", ("::1", 65535)), ("h-1.x:0", ("h-1.x", 0))],
)
def test_addresses(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


# TLS.


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def make_authority(folder: Path) -> None:
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "node"):
        kind = ("-x509", "-days", "2") if name == "ca" else ()
        openssl(
            folder,
            *("req", *kind, *key, "-subj", f"/CN={name}"),
            *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
        )
    openssl(
        folder,
        *("x509", "-req", "-in", "node.pem", "-CA", "ca.pem", "-CAkey", "ca.key"),
        *("-CAcreateserial", "-days", "2", "-out", "node.pem"),
    )


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two of them, each with a node's certificate."""
    folders = [tmp_path_factory.mktemp("authority") for _ in range(2)]
    for folder in folders:
        make_authority(folder)
    return folders


def tls(folder: Path, authority: Path | None = None) -> Tls:
    authority = authority or folder
    return Tls(str(folder / "node.pem"), str(folder / "node.key"), str(authority / "ca.pem"))


async def test_tls_carries_bytes_and_hides_them(authorities: list[Path]) -> None:
    links = RealLinks(tls(authorities[0]))
    async with served(links, echo, "127.0.0.1:0") as address:
        stream = await links.dial(address)
        await stream.send_all(b"secret" * 20_000)
        assert await receive_exactly(stream, 120_000) == b"secret" * 20_000
        await stream.aclose()


async def test_tls_refuses_a_certificate_of_another_authority(authorities: list[Path]) -> None:
    mine, theirs = authorities
    async with served(RealLinks(tls(theirs)), echo, "127.0.0.1:0") as address:
        with pytest.raises(LinkRefused, match="no TLS"):
            await RealLinks(tls(mine)).dial(address)
        # Who accepts theirs and has its own: it is refused when it says something, at the latest.
        stream = await RealLinks(tls(mine, authority=theirs)).dial(address)
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")
            await stream.receive_some()
        await stream.aclose()


async def test_tls_and_plain_do_not_meet(authorities: list[Path]) -> None:
    async with served(RealLinks(), echo, "127.0.0.1:0") as address:
        with pytest.raises(LinkRefused, match="no TLS"):
            await RealLinks(tls(authorities[0])).dial(address)
    async with served(RealLinks(tls(authorities[0])), echo, "127.0.0.1:0") as address:
        stream = await RealLinks().dial(address)
        await stream.send_all(b"hello, this is plain")
        with pytest.raises(AssertionError):
            await receive_exactly(stream, 100)
        await stream.aclose()


def test_tls_files_that_cannot_be_used(authorities: list[Path], tmp_path: Path) -> None:
    mine = authorities[0]
    with pytest.raises(ConfigurationError, match=r"absent\.pem .*No such file"):
        RealLinks(Tls(str(tmp_path / "absent.pem"), str(mine / "node.key"), str(mine / "ca.pem")))
    with pytest.raises(ConfigurationError, match="no certificate and its key"):
        RealLinks(Tls(str(mine / "node.pem"), str(mine / "ca.key"), str(mine / "ca.pem")))
    with pytest.raises(ConfigurationError, match="is no authority"):
        RealLinks(Tls(str(mine / "node.pem"), str(mine / "node.key"), str(mine / "ca.key")))


# The twin.


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork(random.Random(3))


async def test_latency_is_of_each_way(network: MemoryNetwork, autojump_clock: object) -> None:
    async with served(network.of("b"), echo, "b") as address:
        network.set_latency("a", "b", 0.3)
        network.set_latency("b", "a", 0.2, one_way=True)
        start = trio.current_time()
        stream = await network.of("a").dial(address)
        assert trio.current_time() - start == pytest.approx(0.5)
        for _ in range(50):
            await stream.send_all(b"x" * 100)
        assert trio.current_time() - start == pytest.approx(0.5)
        await receive_exactly(stream, 5000)
        assert trio.current_time() - start == pytest.approx(1.0)


async def test_a_cut_breaks_streams_and_refuses_dials(
    network: MemoryNetwork, autojump_clock: object
) -> None:
    for one_way in (False, True):
        async with served(network.of("b"), forgiving, "b") as address:
            links = network.of("a")
            stream = await links.dial(address)
            elsewhere = await network.of("c").dial(address)
            network.cut("a", "b", one_way=one_way)
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"x")
            with pytest.raises(OSError, match="no way to b"):
                await links.dial(address)
            await elsewhere.send_all(b"x")
            assert await receive_exactly(elsewhere, 1) == b"x"
            network.heal("a", "b")
            await (await links.dial(address)).send_all(b"x")


async def forgiving(stream: AnsweredStream) -> None:
    try:
        await echo(stream)
    except trio.BrokenResourceError:
        pass


async def test_a_silent_cut_holds_everything_up(
    network: MemoryNetwork, autojump_clock: object
) -> None:
    async with served(network.of("b"), echo, "b") as address:
        links = network.of("a")
        stream = await links.dial(address)
        network.cut("a", "b", silently=True)
        await stream.send_all(b"word")
        with trio.move_on_after(3600) as waiting:
            await stream.receive_some()
        assert waiting.cancelled_caught
        with trio.move_on_after(3600) as sending:
            await stream.send_all(bytes(2 * BUFFER_BYTES))
        assert sending.cancelled_caught
        start = trio.current_time()
        with pytest.raises(LinkLost, match="b has not answered within 5 seconds"):
            await links.dial(address)
        assert trio.current_time() - start == pytest.approx(LINK_DIAL_SECONDS)
        network.heal("a", "b")
        assert await receive_exactly(stream, 4) == b"word"


async def test_an_end_is_not_seen_through_a_silent_cut(
    network: MemoryNetwork, autojump_clock: object
) -> None:
    streams: list[AnsweredStream] = []
    healed = trio.Event()

    async def handler(stream: AnsweredStream) -> None:
        with trio.move_on_after(3600) as scope:
            await stream.receive_some()
        assert scope.cancelled_caught
        await stream.send_all(b"into the void")
        streams.append(stream)
        await healed.wait()
        assert await stream.receive_some() == b""
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")
        streams.append(stream)

    async with served(network.of("b"), handler, "b") as address:
        stream = await network.of("a").dial(address)
        network.cut("a", "b", silently=True, one_way=True)
        await stream.aclose()
        await trio.sleep(7200)
        assert len(streams) == 1
        network.heal("a", "b")
        healed.set()
        await trio.sleep(1)
        assert len(streams) == 2


async def test_the_same_chance_cuts_reads_at_the_same_places(autojump_clock: object) -> None:
    async def sizes(seed: int) -> list[int]:
        network = MemoryNetwork(random.Random(seed))
        found = []
        async with served(network.of("b"), echo, "b") as address:
            stream = await network.of("a").dial(address)
            await stream.send_all(bytes(30_000))
            while sum(found) < 30_000:
                found.append(len(await stream.receive_some()))
        return found

    assert await sizes(1) == await sizes(1)
    assert await sizes(1) != await sizes(2)
