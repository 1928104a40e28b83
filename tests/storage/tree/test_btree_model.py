"""BTree against a plain dictionary, with flushes, failures, snapshots, drops and restarts between.

The model also knows what is durable: the state at the freeze whose flush last succeeded, meta
included. A restart must find exactly that.
"""

from __future__ import annotations

import copy
import random
import shutil
import tempfile

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from millstream.errors import StorageError
from millstream.storage.tree import BTree, Frozen, Snapshot
from millstream.storage.tree.interface import TreeStore
from millstream.storage.tree.lmdb_store import open_lmdb
from millstream.storage.tree.memory_store import MemoryStore

HEADS = [b"", b"a", b"a" * 479, b"a" * 480, b"a" * 960, b"a" * 3072, b"a" * 479 + b"b"]
TAILS = [b"", b"\x00", b"\x00\x01", b"a", b"b", b"\xff"]
ALL_KEYS = sorted({head + tail for head in HEADS for tail in TAILS})
KEYS = st.integers(0, len(ALL_KEYS) - 1).map(lambda at: ALL_KEYS[at])
TREES = st.sampled_from([1, 2])
VALUES = st.one_of(st.binary(max_size=4), st.just(b"v" * 5000))
META_KEYS = st.sampled_from([b"p/1", b"p/2", b"q"])

Rows = dict[bytes, bytes]


class Model:
    """What the tree must show."""

    def __init__(self) -> None:
        self.trees: dict[int, Rows] = {1: {}, 2: {}}
        self.meta: Rows = {}
        self.dropped: set[int] = set()


class TreeMachine(RuleBasedStateMachine):
    """Subclassed for each store."""

    def open_store(self) -> TreeStore:
        raise NotImplementedError

    def reopen_store(self) -> TreeStore:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.store = self.open_store()
        self.btree = BTree(self.store)
        self.model = Model()
        self.durable = Model()
        self.at_freeze = Model()
        self.frozen: Frozen | None = None
        self.flushed = False
        self.snapshot: tuple[Snapshot, Model] | None = None

    @rule(tree=TREES, keys=st.lists(KEYS, min_size=1, max_size=20), value=VALUES)
    def put(self, tree: int, keys: list[bytes], value: bytes) -> None:
        if tree not in self.model.dropped:
            for key in keys:
                self.btree.put(tree, key, value)
                self.model.trees[tree][key] = value

    @rule(tree=TREES, keys=st.lists(KEYS, max_size=10))
    def delete(self, tree: int, keys: list[bytes]) -> None:
        if tree not in self.model.dropped:
            for key in keys:
                self.btree.delete(tree, key)
                self.model.trees[tree].pop(key, None)

    @rule(key=META_KEYS, value=st.none() | st.binary(max_size=3))
    def set_meta(self, key: bytes, value: bytes | None) -> None:
        self.btree.set_meta(key, value)
        self.model.meta.pop(key, None)
        if value is not None:
            self.model.meta[key] = value

    @rule(tree=st.just(2))
    def drop_tree(self, tree: int) -> None:
        self.btree.drop_tree(tree)
        self.model.trees[tree] = {}
        self.model.dropped.add(tree)

    @precondition(lambda self: self.btree.dropping())
    @rule(rows_max=st.integers(1, 30))
    def drop_step(self, rows_max: int) -> None:
        for tree in self.btree.dropping():
            finished = self.btree.drop_step(tree, rows_max)
            self.btree.settle_drop(tree, finished)
            if finished and not (self.frozen and tree in self.at_freeze.dropped):
                self.model.dropped.discard(tree)
                self.at_freeze.dropped.discard(tree)
                self.durable.dropped.discard(tree)

    @rule(steps=st.sampled_from([3, 1, 2, 6]), fails=st.sampled_from([False, False, True]))
    def advance(self, steps: int, fails: bool) -> None:
        """Goes on with the cycle of a flush: freeze, flush (or its failure), settle, freeze..."""
        for _ in range(steps):
            if self.frozen is None:
                self.freeze()
            elif not self.flushed:
                self.flush()
            elif fails:
                self.the_outcome_was_unknown()
                fails = False
            else:
                self.settle()

    def freeze(self) -> None:
        self.frozen = self.btree.freeze()
        self.at_freeze = copy.deepcopy(self.model)
        assert self.btree.mutable_bytes == 0
        assert self.frozen is None or self.btree.freeze() is None

    def flush(self) -> None:
        assert self.frozen is not None
        self.btree.flush(self.frozen)
        self.flushed = True
        self.durable = copy.deepcopy(self.at_freeze)

    def the_outcome_was_unknown(self) -> None:
        assert self.frozen is not None
        self.btree.flush_failed(self.frozen)
        self.flushed = False

    def settle(self) -> None:
        assert self.frozen is not None
        self.btree.settle(self.frozen)
        self.frozen = None
        self.flushed = False
        assert self.btree.frozen_bytes == 0

    @precondition(lambda self: self.snapshot is None)
    @rule()
    def take_snapshot(self) -> None:
        self.snapshot = self.btree.snapshot(), copy.deepcopy(self.model)

    @precondition(lambda self: self.snapshot is not None)
    @rule()
    def check_snapshot(self) -> None:
        assert self.snapshot is not None
        snapshot, model = self.snapshot
        for tree, rows in model.trees.items():
            assert list(snapshot.range(tree, b"", None)) == sorted(rows.items())
            assert list(snapshot.range(tree, b"", None, True)) == sorted(rows.items())[::-1]
            assert all(snapshot.get(tree, key) == rows.get(key) for key in ALL_KEYS)
        assert snapshot.meta_range(b"") == sorted(model.meta.items())
        snapshot.close()
        self.snapshot = None

    @rule(now=st.sampled_from([False, False, True]))
    def restart(self, now: bool) -> None:
        if not now:
            return
        if self.snapshot is not None:
            self.snapshot[0].close()
            self.snapshot = None
        self.store = self.reopen_store()
        self.btree = BTree(self.store)
        self.model = copy.deepcopy(self.durable)
        self.frozen = None
        self.flushed = False

    @rule(tree=TREES, low=KEYS, high=st.none() | KEYS, reverse=st.booleans())
    def ranges_agree(self, tree: int, low: bytes, high: bytes | None, reverse: bool) -> None:
        rows = self.model.trees[tree]
        expected = [key for key in sorted(rows) if low <= key and (high is None or key < high)]
        found = list(self.btree.range(tree, low, high, reverse))
        assert [key for key, _ in found] == (expected[::-1] if reverse else expected)
        assert all(rows[key] == value for key, value in found)

    @invariant()
    def everything_agrees(self) -> None:
        for tree, rows in self.model.trees.items():
            assert list(self.btree.range(tree, b"", None)) == sorted(rows.items())
            assert all(self.btree.get(tree, key) == rows.get(key) for key in ALL_KEYS)
            assert list(self.store.structure(tree)) == []
        assert self.btree.meta_range(b"") == sorted(self.model.meta.items())
        assert self.btree.get_meta(b"q") == self.model.meta.get(b"q")

    def teardown(self) -> None:
        self.store.close()


class LmdbMachine(TreeMachine):
    def open_store(self) -> TreeStore:
        self.directory = tempfile.mkdtemp()
        return open_lmdb(f"{self.directory}/t", create=True)

    def reopen_store(self) -> TreeStore:
        self.store.close()
        return open_lmdb(f"{self.directory}/t")

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.directory)


class _Coin:
    """Always the same side."""

    def __init__(self, side: float) -> None:
        self.side = side

    def random(self) -> float:
        return self.side


class MemoryMachine(TreeMachine):
    def open_store(self) -> TreeStore:
        return MemoryStore()

    def reopen_store(self) -> TreeStore:
        assert isinstance(self.store, MemoryStore)
        return self.store.crash(_Coin(0.0))

    @precondition(lambda self: self.frozen is not None and not self.flushed)
    @rule(durable=st.booleans())
    def crash_during_a_flush(self, durable: bool) -> None:
        """All of the flush or nothing."""
        assert isinstance(self.store, MemoryStore)
        assert self.frozen is not None

        def fail() -> None:
            raise StorageError("the machine lost power")

        self.store.on_commit = fail
        try:
            self.btree.flush(self.frozen)
        except StorageError:
            pass
        else:
            raise AssertionError("the flush must fail")
        self.store.on_commit = None
        if durable:
            self.durable = copy.deepcopy(self.at_freeze)
        self.snapshot = None
        self.store = self.store.crash(_Coin(0.0 if durable else 0.9))
        self.btree = BTree(self.store)
        self.model = copy.deepcopy(self.durable)
        self.frozen = None


TestLmdb = LmdbMachine.TestCase
TestMemory = MemoryMachine.TestCase


@pytest.mark.parametrize(
    ("machine_class", "steps"), [(LmdbMachine, 250), (MemoryMachine, 1500)], ids=["lmdb", "memory"]
)
def test_a_long_seeded_walk(machine_class: type[TreeMachine], steps: int) -> None:
    """Hypothesis' examples are short; flushes, failures and drops meet more often in a long one."""
    rng = random.Random(20)
    machine = machine_class()
    for _ in range(steps):
        keys = rng.sample(ALL_KEYS, rng.randrange(1, 12))
        tree = rng.choice([1, 2])
        match rng.randrange(12):
            case 0 | 1 | 2:
                machine.put(tree, keys, rng.choice([b"", b"x", rng.randbytes(5000)]))
            case 3 | 4:
                machine.delete(tree, keys)
            case 5:
                machine.set_meta(rng.choice([b"p/1", b"q"]), rng.choice([None, b"", b"m"]))
            case 6 | 7:
                machine.advance(rng.randrange(1, 5), rng.random() < 0.3)
            case 8:
                if rng.random() < 0.3:
                    machine.drop_tree(2)
            case 9:
                if machine.btree.dropping():
                    machine.drop_step(rng.randrange(1, 60))
            case 10:
                if machine.snapshot is None:
                    machine.take_snapshot()
                else:
                    machine.check_snapshot()
            case _:
                in_flight = machine.frozen is not None and not machine.flushed
                if isinstance(machine, MemoryMachine) and in_flight:
                    machine.crash_during_a_flush(rng.random() < 0.5)
                else:
                    machine.restart(rng.random() < 0.2)
        machine.everything_agrees()
        model = machine.model
        low, high = sorted(rng.sample(ALL_KEYS, 2))
        expected = [key for key in sorted(model.trees[tree]) if low <= key < high]
        assert [key for key, _ in machine.btree.range(tree, low, high)] == expected
        assert [key for key, _ in machine.btree.range(tree, low, high, True)] == expected[::-1]
    machine.teardown()
