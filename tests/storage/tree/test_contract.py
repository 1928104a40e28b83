"""The contract of a tree store, for LMDB and for its in-memory twin alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from millstream.storage.tree.interface import TreeStore
from millstream.storage.tree.lmdb_store import open_lmdb
from millstream.storage.tree.memory_store import MemoryStore

# Keys around every boundary of the layering, with prefixes as long as they can share.
LENGTHS = (0, 1, 2, 478, 479, 480, 481, 482, 959, 960, 961, 1440, 1441, 3072, 3073, 8192)
KEYS = sorted({bytes([byte]) * length for length in LENGTHS for byte in (0, 0x61, 0xFF)})
KEYS = sorted({*KEYS, *(b"a" * length + b"\x00" for length in LENGTHS), b"a" * 480 + b"\x01"})


@pytest.fixture(params=["lmdb", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TreeStore]:
    made: TreeStore
    made = MemoryStore() if request.param == "memory" else open_lmdb(f"{tmp_path}/t", create=True)
    yield made
    made.close()


def fill(store: TreeStore, tree: int, keys: list[bytes]) -> None:
    store.write({tree: [(key, key[-9:]) for key in keys]}, {})
    store.renew()


def faults(store: TreeStore, tree: int) -> list[str]:
    return list(store.structure(tree))


def test_an_absent_key_is_none(store: TreeStore) -> None:
    assert store.get(1, b"k") is None
    assert store.get(1, b"k" * 5000) is None
    assert list(store.range(1, b"", None)) == []


@pytest.mark.parametrize("key", KEYS, ids=lambda key: f"{key[:1].hex()}x{len(key)}")
def test_a_key_alone_is_found_in_both_directions_and_deleted(store: TreeStore, key: bytes) -> None:
    fill(store, 1, [key])
    assert store.get(1, key) == key[-9:]
    assert list(store.range(1, b"", None)) == [(key, key[-9:])]
    assert list(store.range(1, b"", None, reverse=True)) == [(key, key[-9:])]
    assert faults(store, 1) == []
    store.write({1: [(key, None)]}, {})
    store.renew()
    assert store.get(1, key) is None
    assert list(store.range(1, b"", None)) == []
    assert store.trees() == []


def test_keys_of_all_lengths_together_stay_in_byte_order(store: TreeStore) -> None:
    fill(store, 1, KEYS)
    assert [key for key, _ in store.range(1, b"", None)] == KEYS
    assert [key for key, _ in store.range(1, b"", None, reverse=True)] == KEYS[::-1]
    assert all(store.get(1, key) == key[-9:] for key in KEYS)
    assert faults(store, 1) == []


def test_every_bound_cuts_exactly(store: TreeStore) -> None:
    """Each key, and its neighbours, as the lower and as the upper bound."""
    fill(store, 1, KEYS)
    bounds = sorted({*KEYS, *(key + b"\x00" for key in KEYS), *(key[:-1] for key in KEYS)})
    for bound in bounds:
        below = [key for key in KEYS if key < bound]
        above = [key for key in KEYS if key >= bound]
        assert [key for key, _ in store.range(1, bound, None)] == above
        assert [key for key, _ in store.range(1, b"", bound)] == below
        assert [key for key, _ in store.range(1, bound, None, True)] == above[::-1]
        assert [key for key, _ in store.range(1, b"", bound, True)] == below[::-1]


def test_both_bounds_inside_of_one_layer(store: TreeStore) -> None:
    head = b"h" * 1000
    keys = [head + bytes([byte]) for byte in range(20)]
    fill(store, 1, keys)
    for reverse in (False, True):
        found = [key for key, _ in store.range(1, keys[5], keys[9], reverse)]
        assert found == (keys[5:9][::-1] if reverse else keys[5:9])
    assert list(store.range(1, keys[9], keys[5])) == []
    assert list(store.range(1, keys[5], keys[5])) == []


def test_the_longest_keys(store: TreeStore) -> None:
    keys = [b"k" * 65_535, b"k" * 65_536]
    fill(store, 1, keys)
    assert [key for key, _ in store.range(1, b"", None)] == keys
    assert [key for key, _ in store.range(1, keys[1], None, True)] == keys[1:]
    assert [store.get(1, key) for key in keys] == [b"k" * 9] * 2
    with pytest.raises(AssertionError):
        store.write({1: [(b"k" * 65_537, b"")]}, {})


def test_removing_half_of_the_long_keys_leaves_the_layering_whole(store: TreeStore) -> None:
    fill(store, 1, KEYS)
    store.write({1: [(key, None) for key in KEYS[::2]]}, {})
    store.renew()
    assert [key for key, _ in store.range(1, b"", None)] == KEYS[1::2]
    assert faults(store, 1) == []


def test_deleting_what_is_absent_is_no_error(store: TreeStore) -> None:
    fill(store, 1, [b"a" * 1000])
    store.write({1: [(b"", None), (b"a" * 999, None), (b"b" * 2000, None)]}, {b"m": None})
    store.renew()
    assert store.get(1, b"a" * 1000) is not None
    assert faults(store, 1) == []


@pytest.mark.parametrize("value", [b"", b"\x00", b"v" * 3_000_000], ids=["empty", "zero", "3 MB"])
def test_values_of_any_length(store: TreeStore, value: bytes) -> None:
    store.write({1: [(b"k", value), (b"k" * 1000, value)]}, {})
    store.renew()
    assert store.get(1, b"k") == store.get(1, b"k" * 1000) == value
    assert [found for _, found in store.range(1, b"", None)] == [value, value]


def test_a_value_is_overwritten(store: TreeStore) -> None:
    for value in (b"1", b"22", b""):
        store.write({1: [(b"k", value), (b"k" * 481, value)]}, {})
    store.renew()
    assert [value for _, value in store.range(1, b"", None)] == [b"", b""]


def test_trees_are_apart(store: TreeStore) -> None:
    ids = [1, 2, 255, 256, 2**32 - 1]
    store.write({tree: [(b"k" * 600, b"%d" % tree)] for tree in ids}, {b"m": b"x"})
    store.renew()
    assert store.trees() == ids
    for tree in ids:
        assert list(store.range(tree, b"", None)) == [(b"k" * 600, b"%d" % tree)]
        assert list(store.range(tree, b"", None, True)) == [(b"k" * 600, b"%d" % tree)]


def test_reads_change_only_in_renew(store: TreeStore) -> None:
    fill(store, 1, [b"a"])
    store.write({1: [(b"a", None), (b"b", b"")]}, {b"m": b"1"})
    assert [key for key, _ in store.range(1, b"", None)] == [b"a"]
    assert store.meta_get(b"m") is None
    store.renew()
    assert [key for key, _ in store.range(1, b"", None)] == [b"b"]
    assert store.meta_get(b"m") == b"1"


def test_meta_is_ordered_and_apart_from_the_trees(store: TreeStore) -> None:
    store.write({}, {b"p/2": b"2", b"p/1": b"1", b"q": b"3", b"\xff": b"4", b"o" * 479: b"5"})
    store.renew()
    assert store.meta_range(b"p/") == [(b"p/1", b"1"), (b"p/2", b"2")]
    assert len(store.meta_range(b"")) == 5
    assert store.meta_get(b"o" * 479) == b"5"
    assert store.trees() == []
    store.write({}, {b"p/1": None, b"absent": None})
    store.renew()
    assert store.meta_range(b"p/") == [(b"p/2", b"2")]


def test_a_dropped_tree_goes_step_by_step(store: TreeStore) -> None:
    fill(store, 1, KEYS)
    fill(store, 2, [b"k"])
    store.write({2: [(b"l", b"")]}, {}, dropped=[1])
    store.renew()
    assert (store.trees(), store.dropping()) == ([2], [1])
    steps = 0
    while not store.drop_step(1, 7):
        store.renew()
        assert store.dropping() == [1]
        steps += 1
    store.renew()
    assert steps >= len(KEYS) // 7 - 1
    assert (store.trees(), store.dropping()) == ([2], [])
    assert list(store.range(1, b"", None)) == []
    assert [key for key, _ in store.range(2, b"", None)] == [b"k", b"l"]


def test_dropping_a_tree_without_rows_ends_at_once(store: TreeStore) -> None:
    store.write({}, {}, dropped=[7])
    assert store.drop_step(7, 1)
    store.renew()
    assert store.dropping() == []


def test_only_a_dropped_tree_is_taken_away(store: TreeStore) -> None:
    fill(store, 1, [b"a"])
    with pytest.raises(AssertionError):
        store.drop_step(1, 10)


def test_unsorted_or_doubled_changes_are_our_mistake_and_change_nothing(store: TreeStore) -> None:
    for keys in ([b"b", b"a"], [b"a", b"a"]):
        with pytest.raises(AssertionError):
            store.write({1: [(key, b"") for key in keys]}, {b"m": b"1"})
    store.renew()
    assert store.trees() == []
    assert store.meta_get(b"m") is None


def test_a_snapshot_stays_at_its_state(store: TreeStore) -> None:
    fill(store, 1, [b"a", b"b", b"c" * 700])
    fill(store, 2, [b"z"])
    snapshot = store.snapshot()
    changes = [(b"a", b"new"), (b"b", None), (b"bb", b"new"), (b"c" * 700, None)]
    store.write({1: changes}, {b"m": b""})
    store.write({}, {}, dropped=[2])
    store.renew()
    store.drop_step(2, 100)
    store.renew()
    before = [b"a", b"b", b"c" * 700]
    assert [key for key, _ in snapshot.range(1, b"", None)] == before
    assert [key for key, _ in snapshot.range(1, b"", None, True)] == before[::-1]
    assert [key for key, _ in snapshot.range(1, b"b", b"c")] == [b"b"]
    assert (snapshot.get(1, b"a"), snapshot.get(1, b"bb")) == (b"a", None)
    assert snapshot.get(2, b"z") == b"z"
    assert (snapshot.meta_get(b"m"), snapshot.meta_range(b"")) == (None, [])
    snapshot.close()
    snapshot.close()
    assert [key for key, _ in store.range(1, b"", None)] == [b"a", b"bb"]


def test_statistics_count_rows(store: TreeStore) -> None:
    before = store.statistics().rows
    fill(store, 1, [b"a", b"b"])
    assert store.statistics().rows == before + 2


def test_closing_twice_is_allowed(store: TreeStore) -> None:
    store.close()
    store.close()
