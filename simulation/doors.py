"""The doors through which one start of a node reaches its machine's log engine and tree store.

They keep the engines' contracts, count each operation (a machine may crash at the n-th), let syncs
fail, and remember trimmed entries for the checkers. When the machine crashes they are shut for
good: every call raises ``PowerCut``, reads of the log too. That is no StorageError, so nobody
handles it and what is left of the node ends at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import StorageError
from ..storage.log.interface import Append, CopyEngine, Entries, Names, Outcomes
from ..storage.tree.interface import Change, Row, StoreSnapshot, TreeStatistics
from ..storage.tree.memory_store import MemoryStore

if TYPE_CHECKING:
    from .machine import Machine

ALL_BYTES = 1 << 40


class PowerCut(Exception):
    """The machine has crashed: no code of its node runs any more."""


class LogDoor:
    """A ``LogEngine`` (and ``truncate``) in front of the machine's."""

    __slots__ = ("_closed", "_engine", "_life", "_machine")

    def __init__(self, machine: Machine, engine: CopyEngine) -> None:
        self._machine = machine
        self._engine = engine
        self._life = machine.life
        self._closed = False

    def _pass(self) -> CopyEngine:
        if self._closed:
            raise StorageError("the log engine is closed")
        self._machine.touch(self._life)
        return self._engine

    def create(self, log_id: str, first_lsn: int) -> None:
        self._machine.touch(self._life, lambda: self._engine.create(log_id, first_lsn))
        self._machine.maybe_fail_log_sync()
        self._engine.create(log_id, first_lsn)

    def delete(self, log_id: str) -> None:
        def change() -> None:
            self._bury(log_id)
            self._engine.delete(log_id)

        self._machine.touch(self._life, change)
        self._machine.maybe_fail_log_sync()
        self._bury(log_id)
        self._engine.delete(log_id)
        self._machine.archive.pop(log_id, None)

    def _bury(self, log_id: str) -> None:
        """Keep for the checkers what a log held to its end."""
        if log_id not in self._engine.list():
            return
        self._archive(log_id, self._engine.tail(log_id) + 1)
        self._machine.removed.setdefault(log_id, {}).update(self._machine.archive[log_id])

    def list(self) -> Names:
        return self._pass().list()

    def commit(self, appends: Sequence[Append]) -> Outcomes:
        self._machine.touch(self._life, lambda: self._engine.commit(appends))
        self._machine.maybe_fail_log_sync()
        return self._engine.commit(appends)

    def read(self, log_id: str, start: int, max_bytes: int) -> Entries:
        return self._pass().read(log_id, start, max_bytes)

    def tail(self, log_id: str) -> int:
        return self._pass().tail(log_id)

    def first(self, log_id: str) -> int:
        return self._pass().first(log_id)

    def trim(self, log_id: str, before: int) -> None:
        def change() -> None:
            self._archive(log_id, before)
            self._engine.trim(log_id, before)

        self._machine.touch(self._life, change)
        change()

    def _archive(self, log_id: str, before: int) -> None:
        engine = self._engine
        kept = self._machine.archive.setdefault(log_id, {})
        for entry in engine.read(log_id, engine.first(log_id), ALL_BYTES):
            if entry.lsn < before:
                known = kept.setdefault(entry.lsn, entry.data)
                assert known == entry.data, "history changed"

    def truncate(self, log_id: str, after: int) -> None:
        self._pass().truncate(log_id, after)

    def reopen(self) -> None:
        self._pass().reopen()

    def close(self) -> None:
        # The machine's engine lives on; the next start reads it again.
        self._closed = True


class StoreDoor:
    """A ``TreeStore`` in front of the machine's. Reads go straight through: they are memory."""

    __slots__ = ("_life", "_machine", "_store", "get", "meta_get", "range", "renew")

    def __init__(self, machine: Machine, store: MemoryStore) -> None:
        self._machine = machine
        self._store = store
        self._life = machine.life
        self.get = store.get
        self.range = store.range
        self.meta_get = store.meta_get
        self.renew = store.renew

    def meta_range(self, prefix: bytes) -> list[Row]:
        return self._store.meta_range(prefix)

    def structure(self, tree: int) -> Iterator[str]:
        return self._store.structure(tree)

    def write(
        self,
        changes: Mapping[int, Iterable[Change]],
        meta: Mapping[bytes, bytes | None],
        dropped: Collection[int] = (),
    ) -> None:
        store = self._store
        self._machine.touch(self._life, lambda: store.write(changes, meta, dropped))
        self._machine.maybe_fail_tree_sync()
        store.write(changes, meta, dropped)

    def drop_step(self, tree: int, rows_max: int) -> bool:
        store = self._store
        self._machine.touch(self._life, lambda: store.drop_step(tree, rows_max))
        self._machine.maybe_fail_tree_sync()
        return store.drop_step(tree, rows_max)

    def dropping(self) -> list[int]:
        return self._store.dropping()

    def trees(self) -> list[int]:
        return self._store.trees()

    def snapshot(self) -> StoreSnapshot:
        return self._store.snapshot()

    def copy_to(self, path: str) -> None:
        self._store.copy_to(path)

    def statistics(self) -> TreeStatistics:
        return self._store.statistics()

    def close(self) -> None:
        """The machine's store lives on."""
