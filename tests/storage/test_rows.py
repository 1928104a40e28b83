"""Rows: what comes back is what was stored, under its own key, or nothing at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import Corrupt, WrongFormat
from millstream.storage import rows
from millstream.storage.rows import Row, decode_row, encode_row, row_checksum

ROWS = st.builds(
    Row,
    st.binary(max_size=200),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**64 - 1),
)


@given(st.binary(max_size=40), ROWS)
def test_round_trip(key: bytes, row: Row) -> None:
    assert decode_row(key, encode_row(key, row)) == row


@given(st.binary(min_size=1, max_size=40), ROWS, st.data())
def test_a_flipped_bit_anywhere_is_damage(key: bytes, row: Row, data: st.DataObject) -> None:
    stored = bytearray(key + encode_row(key, row))
    bit = data.draw(st.integers(0, len(stored) * 8 - 1))
    stored[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Corrupt):
        decode_row(bytes(stored[: len(key)]), bytes(stored[len(key) :]))


@given(st.binary(max_size=40), ROWS, st.integers(1, 300))
def test_a_cut_row_is_damage(key: bytes, row: Row, cut: int) -> None:
    stored = encode_row(key, row)
    with pytest.raises(Corrupt):
        decode_row(key, stored[: max(0, len(stored) - cut)])


def test_a_newer_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "ROW_FORMAT", 2)
    stored = encode_row(b"k", Row(b"{}", 0, 1))
    monkeypatch.undo()
    with pytest.raises(WrongFormat):
        decode_row(b"k", stored)


def test_the_stored_checksum_is_the_one_that_sums_are_made_of() -> None:
    stored = encode_row(b"k", Row(b"{}", 0, 1))
    assert row_checksum(stored) == int.from_bytes(stored[-4:], "little")


def test_golden() -> None:
    """The bytes of format 1; they are on disks."""
    stored = encode_row(b"key", Row(b'{"pk":{"S":"a"}}', 3, 5, 7, 9))
    assert stored.hex() == (
        "01000007000000030000000000000005"
        "0000000000000009"
        "7b22706b223a7b2253223a2261227d7d" + stored[-4:].hex()
    )
    assert stored[-4:].hex() == GOLDEN_CHECKSUM


GOLDEN_CHECKSUM = "0052fdba"
