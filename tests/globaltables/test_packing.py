"""Packed arrivals: the same come out, and garbage or a bomb is a LinkError that costs nothing."""

from __future__ import annotations

import tracemalloc

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import LinkError
from millstream.globaltables.packing import pack_arrivals, unpack_arrivals
from millstream.limits import LINK_ARRIVALS_BYTES_MAX, LINK_COMPRESSION_BYTES_MIN
from millstream.storage.arrivals import Arrival

NUMBERS = st.integers(0, 2**63)
ARRIVALS = st.lists(
    st.builds(
        Arrival,
        st.binary(max_size=40),
        st.none() | st.binary(max_size=600),
        NUMBERS,
        NUMBERS,
        st.integers(0, 65_535),
        NUMBERS,
        st.integers(-1, 2**63),
        st.integers(-1, 65_535),
        st.integers(0, 255),
    ),
    max_size=20,
)


def batch(count: int) -> list[Arrival]:
    return [Arrival(b"key%d" % n, b'{"pk":{"S":"%d"}}' % n * 20, 9, n, 1) for n in range(count)]


@given(ARRIVALS)
def test_what_is_packed_comes_out(arrivals: list[Arrival]) -> None:
    packed = pack_arrivals(arrivals)
    assert unpack_arrivals(packed) == arrivals
    assert len(packed) <= len(msgspec.msgpack.encode(arrivals)) + 5


def test_what_is_small_stays_raw_and_what_is_large_becomes_small() -> None:
    small = batch(1)
    assert len(msgspec.msgpack.encode(small)) < LINK_COMPRESSION_BYTES_MIN
    assert pack_arrivals(small)[0] == 0
    large = pack_arrivals(batch(100))
    assert large[0] == 1
    assert len(large) < len(msgspec.msgpack.encode(batch(100))) // 4


@given(st.binary(max_size=200))
def test_garbage_is_a_link_error(data: bytes) -> None:
    for garbage in (data, b"\x00" + data, b"\x01\0\0\x10\0" + data):
        try:
            arrivals = unpack_arrivals(garbage)
        except LinkError:
            continue
        # By chance it says something: then it says it in full.
        assert unpack_arrivals(pack_arrivals(arrivals)) == arrivals


@given(st.data())
def test_changed_bytes_never_raise_anything_else(data: st.DataObject) -> None:
    packed = bytearray(pack_arrivals(batch(30)))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        unpack_arrivals(bytes(packed[: data.draw(st.integers(0, len(packed)))]))
    except LinkError:
        pass


def test_more_than_a_message_holds_is_not_packed() -> None:
    with pytest.raises(LinkError, match="more than a message may hold"):
        pack_arrivals([Arrival(b"k", bytes(LINK_ARRIVALS_BYTES_MAX), 1, 1, 1)])


def bomb(size_bytes: int, told: int) -> bytes:
    """A frame that inflates to so many bytes, under a header that tells so many."""
    return b"\x01" + told.to_bytes(4) + zstandard.ZstdCompressor().compress(bytes(size_bytes))


def unknown_size_bomb(size_bytes: int, told: int) -> bytes:
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    return b"\x01" + told.to_bytes(4) + compressor.compress(bytes(size_bytes))


def lying_bomb(size_bytes: int, told: int) -> bytes:
    """The frame's own header tells the lie, too."""
    packed = bytearray(bomb(size_bytes, told))
    at = packed.index(size_bytes.to_bytes(4, "little"), 5)
    packed[at : at + 4] = told.to_bytes(4, "little")
    return bytes(packed)


@pytest.mark.parametrize("make", [bomb, unknown_size_bomb, lying_bomb])
@pytest.mark.parametrize("told", [100_000, LINK_ARRIVALS_BYTES_MAX + 1, 2**32 - 1])
def test_a_bomb_is_refused_without_being_inflated(make, told) -> None:  # type: ignore[no-untyped-def]
    packed = make(64 * 1024 * 1024, told)
    assert len(packed) < 10_000
    tracemalloc.start()
    try:
        with pytest.raises(LinkError):
            unpack_arrivals(packed)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1024 * 1024


def test_what_follows_a_frame_is_not_passed_over() -> None:
    packed = pack_arrivals(batch(30))
    for more in (b"\0", packed[5:]):
        with pytest.raises(LinkError):
            unpack_arrivals(packed + more)
