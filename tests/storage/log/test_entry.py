"""The entry's bytes: round trip, damage, chain, and the golden files of every format."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import Corrupt, WrongFormat
from millstream.storage.log.entry import (
    HEADER_BYTES,
    OVERHEAD_BYTES,
    ZERO_HASH,
    EntryHeader,
    chain_hash,
    check_entry,
    crc32c,
    decode_entry,
    encode_entry,
    verify_chain,
)

GOLDEN = Path(__file__).parents[2] / "testdata" / "golden" / "log"
UINT64 = st.integers(0, 2**64 - 1)
HEADERS = st.builds(
    EntryHeader,
    epoch=st.integers(0, 2**32 - 1),
    writer_nonce=UINT64,
    lsn=UINT64,
    timestamp=UINT64,
    previous_hash=st.binary(min_size=16, max_size=16),
)

FIRST = EntryHeader(3, 0x1122334455667788, 41, 1_700_000_000_000_000, ZERO_HASH)


def resealed(data: bytes) -> bytes:
    return data[:-4] + crc32c(data[:-4]).to_bytes(4, "little")


def successor(previous: bytes, **changes: object) -> bytes:
    header, _ = decode_entry(previous)
    fields = {
        "epoch": header.epoch,
        "writer_nonce": header.writer_nonce,
        "lsn": header.lsn + 1,
        "timestamp": header.timestamp + 1,
        "previous_hash": chain_hash(previous),
    } | changes
    return encode_entry(EntryHeader(**fields), b"next")  # type: ignore[arg-type]


@given(HEADERS, st.binary(max_size=200))
@settings(max_examples=50, derandomize=True)
def test_round_trip(header: EntryHeader, payload: bytes) -> None:
    data = encode_entry(header, payload)
    assert decode_entry(data) == (header, payload)
    assert len(data) == OVERHEAD_BYTES + len(payload)


def test_every_flipped_bit_and_every_cut_is_corrupt() -> None:
    data = encode_entry(FIRST, b"some payload")
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt):
            decode_entry(bytes(damaged))
    for length in range(len(data)):
        with pytest.raises(Corrupt):
            decode_entry(data[:length])
    with pytest.raises(Corrupt):
        decode_entry(data + b"\x00")


def test_a_newer_format_and_unknown_flags_are_refused_not_called_damage() -> None:
    data = encode_entry(FIRST, b"")
    with pytest.raises(WrongFormat):
        decode_entry(resealed(b"\x02" + data[1:]))
    with pytest.raises(WrongFormat):
        decode_entry(resealed(data[:1] + b"\x01" + data[2:]))


def test_a_false_length_is_corrupt() -> None:
    data = encode_entry(FIRST, b"abc")
    with pytest.raises(Corrupt):
        decode_entry(resealed(data[:46] + b"\x02" + data[47:]))


def test_the_chain_holds_only_for_the_true_successor() -> None:
    first = encode_entry(FIRST, b"first")
    verify_chain(None, first)
    verify_chain(first, successor(first))
    for changes in (
        {"lsn": FIRST.lsn},
        {"lsn": FIRST.lsn + 2},
        {"timestamp": FIRST.timestamp},
        {"epoch": FIRST.epoch - 1},
        {"previous_hash": ZERO_HASH},
    ):
        with pytest.raises(Corrupt):
            verify_chain(first, successor(first, **changes))


def test_the_hash_sees_the_header_and_through_the_crc_the_payload() -> None:
    first = encode_entry(FIRST, b"one")
    assert chain_hash(first) != chain_hash(encode_entry(FIRST, b"two"))
    link = check_entry(first, None)
    assert (link.lsn, link.epoch, link.timestamp) == (41, 3, FIRST.timestamp)
    assert link.hash == chain_hash(first)
    assert HEADER_BYTES == 50


def test_golden_entries_of_format_1_stay_readable() -> None:
    # Written by the release that introduced the format; never rewritten.
    first = (GOLDEN / "entry-format-1-first.bin").read_bytes()
    second = (GOLDEN / "entry-format-1-second.bin").read_bytes()
    assert decode_entry(first) == (FIRST, b"golden payload")
    assert encode_entry(FIRST, b"golden payload") == first
    verify_chain(first, second)
    header, payload = decode_entry(second)
    assert (header.epoch, header.lsn, payload) == (4, 42, b"\x00\xff" * 100)


@given(st.binary(max_size=200))
@settings(max_examples=100, derandomize=True)
def test_arbitrary_bytes_never_raise_anything_else(data: bytes) -> None:
    for candidate in (data, data + crc32c(data).to_bytes(4, "little")):
        try:
            decode_entry(candidate)
        except (Corrupt, WrongFormat):
            pass
