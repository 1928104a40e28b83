"""BTree's own rules: layers, accounting, iterators, snapshots of some trees."""

from __future__ import annotations

import pytest

from millstream.errors import StorageError
from millstream.limits import MEMTABLE_ROW_OVERHEAD_BYTES
from millstream.storage.tree import BTree
from millstream.storage.tree.memory_store import MemoryStore


@pytest.fixture
def btree() -> BTree:
    return BTree(MemoryStore())


def flush(btree: BTree) -> None:
    frozen = btree.freeze()
    assert frozen is not None
    btree.flush(frozen)
    btree.settle(frozen)


def test_bytes_follow_puts_overwrites_deletes_and_drops(btree: BTree) -> None:
    btree.put(1, b"key", b"12345")
    assert btree.mutable_bytes == 3 + 5 + MEMTABLE_ROW_OVERHEAD_BYTES
    btree.put(1, b"key", b"1")
    assert btree.mutable_bytes == 3 + 1 + MEMTABLE_ROW_OVERHEAD_BYTES
    btree.delete(1, b"key")
    btree.delete(1, b"key")
    assert btree.mutable_bytes == 3 + MEMTABLE_ROW_OVERHEAD_BYTES
    btree.put(1, b"key", b"12")
    assert btree.mutable_bytes == 3 + 2 + MEMTABLE_ROW_OVERHEAD_BYTES
    btree.drop_tree(1)
    assert btree.mutable_bytes == 0
    btree.set_meta(b"m", b"1234")
    btree.set_meta(b"m", b"1")
    assert btree.mutable_bytes == 2 + MEMTABLE_ROW_OVERHEAD_BYTES
    btree.set_meta(b"m", None)
    assert btree.mutable_bytes == 1 + MEMTABLE_ROW_OVERHEAD_BYTES


def test_bytes_and_rows_move_with_the_layer(btree: BTree) -> None:
    btree.put(1, b"a", b"1")
    held = btree.mutable_bytes
    frozen = btree.freeze()
    assert frozen is not None
    assert (btree.mutable_bytes, btree.frozen_bytes, frozen.size_bytes) == (0, held, held)
    btree.put(1, b"b", b"2")
    assert (btree.memtable_rows, frozen.rows) == (2, 1)
    btree.flush(frozen)
    btree.settle(frozen)
    assert (btree.memtable_rows, btree.frozen_bytes, btree.frozen) == (1, 0, None)


def test_there_is_at_most_one_frozen_layer_and_none_of_nothing(btree: BTree) -> None:
    assert btree.freeze() is None
    btree.put(1, b"a", b"1")
    frozen = btree.freeze()
    assert btree.frozen is frozen
    btree.put(1, b"b", b"1")
    assert btree.freeze() is None


def test_meta_alone_is_worth_a_flush(btree: BTree) -> None:
    btree.set_meta(b"applied", b"1")
    flush(btree)
    assert btree.get_meta(b"applied") == b"1"


def test_a_failed_flush_keeps_every_row_readable_and_can_be_tried_again() -> None:
    store = MemoryStore()
    btree = BTree(store)
    btree.put(1, b"a", b"1")
    frozen = btree.freeze()
    assert frozen is not None

    def fail() -> None:
        raise StorageError("the disk is full")

    store.on_commit = fail
    with pytest.raises(StorageError):
        btree.flush(frozen)
    btree.flush_failed(frozen)
    assert btree.get(1, b"a") == b"1"
    assert store.get(1, b"a") is None
    store.on_commit = None
    btree.flush(frozen)
    btree.settle(frozen)
    assert btree.get(1, b"a") == store.get(1, b"a") == b"1"


@pytest.mark.parametrize("act", ["put", "delete", "drop", "settle"])
@pytest.mark.parametrize("began", [False, True])
def test_an_iterator_does_not_outlive_its_slice(btree: BTree, act: str, began: bool) -> None:
    btree.put(1, b"a", b"1")
    frozen = btree.freeze()
    assert frozen is not None
    btree.flush(frozen)
    btree.put(1, b"b", b"2")
    rows = btree.range(1, b"", None)
    if began:
        next(rows)
    match act:
        case "put":
            btree.put(2, b"c", b"")
        case "delete":
            btree.delete(1, b"b")
        case "drop":
            btree.drop_tree(2)
        case _:
            btree.settle(frozen)
    with pytest.raises(AssertionError, match="outlived"):
        next(rows)


def test_freezing_in_a_slice_disturbs_no_iterator(btree: BTree) -> None:
    btree.put(1, b"a", b"1")
    btree.put(1, b"b", b"2")
    rows = btree.range(1, b"", None)
    next(rows)
    btree.freeze()
    assert next(rows) == (b"b", b"2")


def test_a_dropped_tree_is_not_written_and_can_come_back_when_it_is_gone(btree: BTree) -> None:
    btree.put(1, b"a", b"1")
    flush(btree)
    btree.drop_tree(1)
    with pytest.raises(AssertionError):
        btree.put(1, b"a", b"2")
    with pytest.raises(AssertionError):
        btree.delete(1, b"a")
    assert btree.get(1, b"a") is None
    assert (btree.trees(), btree.dropping()) == ([], [])
    flush(btree)
    assert btree.dropping() == [1]
    btree.settle_drop(1, btree.drop_step(1, 10))
    assert btree.dropping() == []
    btree.put(1, b"b", b"2")
    flush(btree)
    assert list(btree.range(1, b"", None)) == [(b"b", b"2")]


def test_a_restart_in_the_middle_of_a_drop_goes_on_with_it() -> None:
    store = MemoryStore()
    btree = BTree(store)
    for number in range(10):
        btree.put(1, b"%d" % number, b"")
    flush(btree)
    btree.drop_tree(1)
    flush(btree)
    assert not btree.drop_step(1, 3)
    btree.settle_drop(1, finished=False)
    btree = BTree(store)
    assert btree.dropping() == [1]
    assert btree.get(1, b"9") is None
    assert list(btree.range(1, b"", None)) == []
    while not btree.drop_step(1, 3):
        btree.settle_drop(1, finished=False)
    btree.settle_drop(1, finished=True)
    assert store.statistics().rows == 0


def test_a_snapshot_of_some_trees_is_asked_for_no_other(btree: BTree) -> None:
    btree.put(1, b"a", b"1")
    btree.put(2, b"b", b"2")
    snapshot = btree.snapshot([1])
    btree.put(1, b"a", b"new")
    assert snapshot.get(1, b"a") == b"1"
    with pytest.raises(AssertionError):
        snapshot.get(2, b"b")
    with pytest.raises(AssertionError):
        snapshot.range(2, b"", None)
    snapshot.close()


def test_a_snapshot_outlives_freeze_flush_settle_and_drop(btree: BTree) -> None:
    btree.put(1, b"old", b"1")
    flush(btree)
    btree.put(1, b"frozen", b"2")
    frozen = btree.freeze()
    assert frozen is not None
    btree.put(1, b"new", b"3")
    btree.set_meta(b"lsn", b"3")
    snapshot = btree.snapshot()
    btree.flush(frozen)
    btree.settle(frozen)
    btree.drop_tree(1)
    btree.set_meta(b"lsn", b"4")
    flush(btree)
    btree.settle_drop(1, btree.drop_step(1, 100))
    rows = [(b"frozen", b"2"), (b"new", b"3"), (b"old", b"1")]
    assert list(snapshot.range(1, b"", None)) == rows
    assert snapshot.get_meta(b"lsn") == b"3"
    snapshot.close()


def test_tree_ids_are_positive_32_bit_integers(btree: BTree) -> None:
    for tree in (0, -1, 2**32):
        with pytest.raises(AssertionError):
            btree.put(tree, b"a", b"")


def test_a_key_or_meta_key_beyond_its_limit_is_our_mistake(btree: BTree) -> None:
    with pytest.raises(AssertionError):
        btree.put(1, bytes(65_537), b"")
    with pytest.raises(AssertionError):
        btree.set_meta(bytes(480), b"")
