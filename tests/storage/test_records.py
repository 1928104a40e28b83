"""Log records: round trips, what is refused, and the bytes of the first format."""

from __future__ import annotations

import msgspec
import pytest

from millstream.errors import Corrupt, WrongFormat
from millstream.storage.records import (
    Barrier,
    Claim,
    Effect,
    IndexEffect,
    IndexProgress,
    Received,
    Record,
    Release,
    TombstonesDropped,
    decode_records,
    encode_records,
)

EVERY_KIND: list[Record] = [
    Effect(3, b"key", b"{}", 2, 11, 1, 0, True, {4: b"old"}, b"{}"),
    Effect(3, b"key", None, 0, 12),
    Barrier(4, b"table"),
    Claim(2, "owner"),
    Release(2),
    IndexProgress("base", 9, b"cursor", b"low", 8),
    IndexEffect(b"entry", b"{}", 2, 13),
]
# What the first release wrote: effects without ``hops``.
GOLDEN_FIRST = bytes.fromhex(
    "979b0103c4036b6579c4027b7d020b0100c38104c4036f6c64c4027b7d9b0103c4036b6579c0000c0000c2c0c0"
    "930204c4057461626c659303" + "02a56f776e6572" + "920402"
    "9605a46261736509c406637572736f72c4036c6f7708"
    "9606c405656e747279c4027b7d020d00"
)
# Effects without ``base`` and ``beat``.
GOLDEN_SECOND = bytes.fromhex(
    "979c0103c4036b6579c4027b7d020b0100c38104c4036f6c64c4027b7d009c0103c4036b6579c0000c0000c2c0c000"
    "930204c4057461626c659303" + "02a56f776e6572" + "920402"
    "9605a46261736509c406637572736f72c4036c6f7708"
    "9606c405656e747279c4027b7d020d00"
)
GOLDEN = bytes.fromhex(
    "97dc00100103c4036b6579c4027b7d020b0100c38104c4036f6c64c4027b7d00ff00c2c2dc00100103c4036b"
    "6579c0000c0000c2c0c000ff00c2c2930204c4057461626c65930302a56f776e65729204029605a462617365"
    "09c406637572736f72c4036c6f77089606c405656e747279c4027b7d020d00"
)

OF_REGIONS: list[Record] = [
    Effect(3, b"key", None, 0, 12, 2, 9, False, {5: b"e"}, b"{}", 1, 11, 1, True),
    Received("log", 7, b"k"),
    Received("log", 8),
    TombstonesDropped(12, [b"key"]),
]
GOLDEN_OF_REGIONS = bytes.fromhex(
    "94dc00100103c4036b6579c0000c0209c28105c40165c4027b7d010b01c3c2950ca36c6f6707c4016b00950c"
    "a36c6f6708c000930d0c91c4036b6579"
)


def test_round_trip() -> None:
    assert decode_records(encode_records(EVERY_KIND)) == EVERY_KIND


def test_golden() -> None:
    """Format 1 stays readable and is what is written."""
    assert encode_records(EVERY_KIND) == GOLDEN
    assert decode_records(GOLDEN) == EVERY_KIND
    assert decode_records(GOLDEN_FIRST) == EVERY_KIND
    assert decode_records(GOLDEN_SECOND) == EVERY_KIND
    assert encode_records(OF_REGIONS) == GOLDEN_OF_REGIONS
    assert decode_records(GOLDEN_OF_REGIONS) == OF_REGIONS


def test_a_field_added_later_with_a_default_can_be_absent() -> None:
    assert decode_records(msgspec.msgpack.encode([[6, b"k", None, 0, 5]])) == [
        IndexEffect(b"k", None, 0, 5)
    ]


@pytest.mark.parametrize("kind", [10, 14, 200])
def test_an_unknown_kind_is_refused_not_skipped(kind: int) -> None:
    with pytest.raises(WrongFormat):
        decode_records(msgspec.msgpack.encode([[4, 1], [kind, b"x"]]))


@pytest.mark.parametrize("payload", [b"", b"\xc1", msgspec.msgpack.encode({"a": 1}), b"\x91\x91"])
def test_what_is_not_records_is_damage(payload: bytes) -> None:
    with pytest.raises(Corrupt):
        decode_records(payload)
