"""Iterators hold a place; anything that we did not write is refused."""

from __future__ import annotations

from base64 import urlsafe_b64encode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import InvalidRequest
from millstream.limits import ITERATOR_CHARACTERS_MAX
from millstream.streams.iterators import decode_iterator, encode_iterator

LABEL = "2026-11-23T07:27:26.123"
SHARD = "shardId-00000001700000000000-cafecafe"


@given(st.integers(0, 10**19), st.integers(0, 1 << 45))
def test_round_trip(sequence: int, issued_ms: int) -> None:
    text = encode_iterator("t" * 255, LABEL, SHARD, sequence, issued_ms)
    assert len(text) <= ITERATOR_CHARACTERS_MAX
    found = decode_iterator(text)
    assert (found.table, found.label, found.shard_id) == ("t" * 255, LABEL, SHARD)
    assert (found.sequence, found.issued_ms) == (sequence, issued_ms)


@given(st.text(max_size=100))
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        decode_iterator(text)


@pytest.mark.parametrize(
    "value",
    [
        [],
        [2, "t", LABEL, SHARD, 1, 1],
        [1, "t", LABEL, SHARD, -1, 1],
        [1, "t", LABEL, SHARD, 1 << 70, 1],
        [1, "t", LABEL, SHARD, "1", 1],
    ],
)
def test_what_we_would_not_have_written_is_refused(value: list[object]) -> None:
    try:
        packed = msgspec.msgpack.encode(value)
    except OverflowError:
        packed = b"\x96"
    with pytest.raises(InvalidRequest):
        decode_iterator(urlsafe_b64encode(packed).decode())


def test_one_that_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        decode_iterator("A" * (ITERATOR_CHARACTERS_MAX + 1))
