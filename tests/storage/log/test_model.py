"""Engines against a dictionary of lists, through crashes, failed syncs and failed writes.

The rule under test: what was acknowledged is there, in order and unchanged; what was in doubt is
there or not, log by log from its beginning; nothing else is ever there.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from millstream.errors import Ambiguous, Conflict
from millstream.host.memory_disk import MemoryDisk
from millstream.storage.log.entry import ZERO_HASH, EntryHeader, chain_hash, encode_entry
from millstream.storage.log.interface import Append, CopyEngine
from millstream.storage.log.memory import MemoryLogEngine
from millstream.storage.log.segments import SegmentsLogEngine

NAMES = ("a", "b", "c")


class Expected:
    """One log as it must be: all entries since its creation, and the first that is readable."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.first = base
        self.entries: list[bytes] = []

    @property
    def tail(self) -> int:
        return self.base + len(self.entries) - 1

    def next_entry(self, payload: bytes, salt: int) -> bytes:
        last = self.entries[-1] if self.entries else None
        previous = ZERO_HASH if last is None else chain_hash(last)
        lsn = self.tail + 1
        return encode_entry(EntryHeader(1, salt, lsn, lsn, previous), payload)


class LogModel(RuleBasedStateMachine):
    """What both kinds of storage have in common."""

    engine: CopyEngine
    random: random.Random

    def __init__(self) -> None:
        super().__init__()
        self.logs: dict[str, Expected] = {}
        self.salt = 0

    def restart(self) -> None:
        """Crash the storage and open it again."""
        raise NotImplementedError

    def fail_sync(self) -> None:
        raise NotImplementedError

    def group(self, names: set[str], size_bytes: int) -> list[Append]:
        self.salt += 1
        payload = bytes((self.salt % 256,)) * size_bytes
        return [
            Append(name, self.logs[name].tail, self.logs[name].next_entry(payload, self.salt))
            for name in sorted(names & self.logs.keys())
        ]

    def reconcile(self, doubtful: list[Append]) -> None:
        """After a crash: trims may be undone, and appends in doubt may or may not be there."""
        in_doubt = {append.log_id: append for append in doubtful}
        assert self.engine.list() == sorted(self.logs)
        for name, log in self.logs.items():
            first, tail = self.engine.first(name), self.engine.tail(name)
            assert log.base <= first <= log.first
            log.first = first
            if name in in_doubt and tail == log.tail + 1:
                log.entries.append(in_doubt[name].entry)
            assert tail == log.tail

    @rule(name=st.sampled_from(NAMES), first=st.integers(1, 20))
    def create(self, name: str, first: int) -> None:
        if name in self.logs:
            with pytest.raises(Conflict):
                self.engine.create(name, first)
        else:
            self.engine.create(name, first)
            self.logs[name] = Expected(first)

    @rule(names=st.sets(st.sampled_from(NAMES), min_size=1), size_bytes=st.integers(0, 900))
    def commit(self, names: set[str], size_bytes: int) -> None:
        appends = self.group(names, size_bytes)
        assert self.engine.commit(appends) == [None] * len(appends)
        for append in appends:
            self.logs[append.log_id].entries.append(append.entry)

    @rule(name=st.sampled_from(NAMES), behind=st.integers(-3, 3))
    def conflict(self, name: str, behind: int) -> None:
        if name in self.logs and behind:
            log = self.logs[name]
            (outcome,) = self.engine.commit(
                [Append(name, log.tail - behind, log.next_entry(b"", 0))]
            )
            assert isinstance(outcome, Conflict)
            assert outcome.tail == log.tail

    @rule(name=st.sampled_from(NAMES), keep=st.integers(0, 4))
    def trim(self, name: str, keep: int) -> None:
        if name in self.logs:
            log = self.logs[name]
            self.engine.trim(name, log.tail - keep)
            log.first = max(log.first, log.tail - keep)

    @rule(name=st.sampled_from(NAMES), drop=st.integers(0, 3))
    def truncate(self, name: str, drop: int) -> None:
        if name in self.logs:
            log = self.logs[name]
            drop = min(drop, log.tail - log.first + 1)
            # An emptied log has no last entry whose hash the next one must carry; the model has.
            if drop and log.tail - drop >= log.first:
                self.engine.truncate(name, log.tail - drop)
                del log.entries[-drop:]

    @precondition(lambda self: len(self.logs) == len(NAMES))
    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        self.engine.delete(name)
        del self.logs[name]

    @rule()
    def reopen(self) -> None:
        self.engine.reopen()
        self.reconcile([])

    @rule()
    def crash(self) -> None:
        self.restart()
        self.reconcile([])

    @rule(names=st.sets(st.sampled_from(NAMES), min_size=1), crash=st.booleans())
    def commit_with_a_failed_sync(self, names: set[str], crash: bool) -> None:
        appends = self.group(names, 100)
        if appends:
            self.fail_sync()
            with pytest.raises(Ambiguous):
                self.engine.commit(appends)
            with pytest.raises(Ambiguous):
                self.engine.list()
            if crash:
                self.restart()
            else:
                self.engine.reopen()
            self.reconcile(appends)

    @invariant()
    def everything_acknowledged_is_readable(self) -> None:
        for name, log in self.logs.items():
            assert (self.engine.first(name), self.engine.tail(name)) == (log.first, log.tail)
            read = self.engine.read(name, log.first, 10**9)
            assert [entry.data for entry in read] == log.entries[log.first - log.base :]
            assert [entry.lsn for entry in read] == list(range(log.first, log.tail + 1))


class MemoryModel(LogModel):
    @initialize(seed=st.integers(0, 2**32))
    def start(self, seed: int) -> None:
        self.memory = MemoryLogEngine(random.Random(seed))
        self.engine = self.memory

    def restart(self) -> None:
        self.memory.crash()
        self.memory.reopen()

    def fail_sync(self) -> None:
        self.memory.fail_next_sync()

    @rule(names=st.sets(st.sampled_from(NAMES), min_size=1))
    def crash_between_write_and_sync(self, names: set[str]) -> None:
        appends = self.group(names, 10)
        self.memory.stage(appends)
        self.restart()
        self.reconcile(appends)


class SegmentsModel(LogModel):
    @initialize(seed=st.integers(0, 2**32))
    def start(self, seed: int) -> None:
        self.disk = MemoryDisk(random.Random(seed))
        self.open(create=True)

    def open(self, *, create: bool) -> None:
        self.engine = SegmentsLogEngine(self.disk, "/log", create=create, segment_bytes=2000)

    def restart(self) -> None:
        self.disk.freeze()
        self.engine.close()
        self.disk.crash()
        self.open(create=False)

    def fail_sync(self) -> None:
        self.disk.fail_next_sync()

    @rule(names=st.sets(st.sampled_from(NAMES), min_size=1), written_bytes=st.integers(0, 3000))
    def crash_within_a_write(self, names: set[str], written_bytes: int) -> None:
        """Copying forward, rolling and the frame itself: each may be the last that was written."""
        appends = self.group(names, 300)
        if not appends:
            return
        self.disk.fail_writes_after(written_bytes)
        try:
            outcomes = self.engine.commit(appends)
        except Ambiguous:
            self.restart()
            self.reconcile(appends)
        else:
            assert outcomes == [None] * len(appends)
            for append in appends:
                self.logs[append.log_id].entries.append(append.entry)
            self.restart()
            self.reconcile([])

    @rule(name=st.sampled_from(NAMES), removing=st.booleans())
    def crash_within_create_or_delete(self, name: str, removing: bool) -> None:
        act: Callable[[], Any]
        if removing == (name not in self.logs):
            return
        act = (
            (lambda: self.engine.delete(name))
            if removing
            else (lambda: self.engine.create(name, 7))
        )
        self.disk.fail_next_sync()
        with pytest.raises(Ambiguous):
            act()
        self.restart()
        if name in self.engine.list():
            self.logs.setdefault(name, Expected(7))
        else:
            self.logs.pop(name, None)
        self.reconcile([])


BOUNDS = settings(max_examples=40, stateful_step_count=30, derandomize=True, deadline=None)
MemoryModel.TestCase.settings = BOUNDS
SegmentsModel.TestCase.settings = BOUNDS
test_memory = MemoryModel.TestCase
test_segments = SegmentsModel.TestCase
