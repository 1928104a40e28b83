"""The structural checker: a sound tree is sound, and each kind of damage is told."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from millstream.errors import Corrupt
from millstream.storage.check import RangeSums, TreeReport, check_tree
from millstream.storage.tree.interface import TreeStore
from millstream.storage.tree.lmdb_store import open_lmdb
from millstream.storage.tree.memory_store import MemoryStore

LONG = b"k" * 1100  # Through two layers: of 480 bytes, 480 bytes and the rest.
KEYS = [b"a", b"b", b"k" * 480, LONG, LONG + b"1", b"z" * 500]


def measure(key: bytes, value: bytes) -> tuple[int, int]:
    if value[:4] != zlib.crc32(key + value[4:]).to_bytes(4, "big"):
        raise Corrupt("a row's checksum does not hold")
    return len(key) + len(value), int.from_bytes(value[:4], "big")


def valued(key: bytes) -> bytes:
    body = key[-4:] * 3
    return zlib.crc32(key + body).to_bytes(4, "big") + body


def fill(store: TreeStore) -> None:
    store.write({5: [(key, valued(key)) for key in KEYS]}, {})
    store.renew()


@pytest.fixture(params=["lmdb", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TreeStore]:
    made: TreeStore
    made = MemoryStore() if request.param == "memory" else open_lmdb(f"{tmp_path}/t", create=True)
    fill(made)
    yield made
    made.close()


def sums_of(keys: list[bytes]) -> tuple[int, int, int]:
    measured = [measure(key, valued(key)) for key in keys]
    return len(keys), sum(size for size, _ in measured), sum(crc for _, crc in measured) % 2**64


def test_a_sound_tree_gives_the_sums_of_each_range(store: TreeStore) -> None:
    report = check_tree(store, 5, [(b"", b"c"), (b"c", b"k" * 600), (b"k" * 600, None)], measure)
    assert report.is_sound
    assert report.rows == len(KEYS)
    expected = [sums_of(KEYS[:2]), sums_of(KEYS[2:3]), sums_of(KEYS[3:])]
    assert [(one.rows, one.size_bytes, one.checksum) for one in report.sums] == expected


def test_an_empty_tree_is_sound(store: TreeStore) -> None:
    report = check_tree(store, 6, [(b"", None)], measure)
    assert report == TreeReport(6, 0, (RangeSums(b"", None, 0, 0, 0),), (), True)


def test_a_row_outside_of_all_ranges_is_a_fault(store: TreeStore) -> None:
    for ranges in ([(b"b", None)], [(b"", b"z")], [(b"", b"a"), (b"b", None)], []):
        report = check_tree(store, 5, ranges, measure)
        assert not report.is_sound
        assert "no range" in report.faults[0]


def test_overlapping_ranges_are_our_mistake(store: TreeStore) -> None:
    with pytest.raises(AssertionError):
        check_tree(store, 5, [(b"", b"c"), (b"b", None)], measure)


def test_a_damaged_value_is_told_by_its_checksum() -> None:
    store = MemoryStore()
    fill(store)
    store.flip_bit(5, b"b", 37)
    report = check_tree(store, 5, [(b"", None)], measure)
    assert report.faults == ("the row 62: a row's checksum does not hold",)
    assert report.complete


def test_a_lost_row_shows_in_the_sums(store: TreeStore) -> None:
    before = check_tree(store, 5, [(b"", None)], measure)
    store.write({5: [(LONG, None)]}, {})
    store.renew()
    after = check_tree(store, 5, [(b"", None)], measure)
    assert after.is_sound
    assert after.sums[0].rows == before.sums[0].rows - 1
    assert after.sums[0].checksum != before.sums[0].checksum


def test_faults_are_told_up_to_a_limit(store: TreeStore) -> None:
    store.write({5: [(b"%06d" % number, b"damage") for number in range(300)]}, {})
    store.renew()
    report = check_tree(store, 5, [(b"", None)], measure)
    assert len(report.faults) == 100
    assert report.rows == 300 + len(KEYS)


PREFIX = (5).to_bytes(4, "big")
ROOT = PREFIX + bytes(8)


def layer(number: int) -> bytes:
    return PREFIX + number.to_bytes(8, "big")


@pytest.mark.parametrize(
    ("raw", "value", "fault"),
    [
        (layer(77) + b"row", valued(b"row"), "layer 77 has no pointer"),
        (ROOT + b"p" * 480 + b"\x01", (2**40).to_bytes(8, "big"), "an impossible layer"),
        (ROOT + b"p" * 480 + b"\x01", b"short", "an impossible layer"),
        (ROOT + b"p" * 480 + b"\x01", (1).to_bytes(8, "big"), "has two pointers"),
        (ROOT + b"p" * 480 + b"\x02", valued(b"p" * 480), "neither the length nor the tag"),
        (ROOT + b"p" * 480, valued(b"p" * 480), "neither the length nor the tag"),
        (layer(1), valued(b""), "a row without a rest"),
        (layer(2) + b"k" * 140, None, "layer 2 is empty"),
    ],
)
def test_each_fault_of_the_layering_is_told(
    tmp_path: Path, raw: bytes, value: bytes | None, fault: str
) -> None:
    store = open_lmdb(f"{tmp_path}/t", create=True)
    store.write({5: [(b"a", valued(b"a")), (LONG, valued(LONG))]}, {})
    store.close()
    with lmdb.open(f"{tmp_path}/t") as environment, environment.begin(write=True) as txn:
        if value is None:
            assert txn.delete(raw)
        else:
            txn.put(raw, value)
    store = open_lmdb(f"{tmp_path}/t")
    report = check_tree(store, 5, [(b"", None)], measure)
    assert not report.is_sound
    assert any(fault in told for told in report.faults), report.faults
    store.close()
