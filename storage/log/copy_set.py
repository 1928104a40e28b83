"""Several copies of the same logs, written and read as one: a majority decides.

Owned by `replicated`, which gives logs their names and keeps the list of them; here a log has the
number-name that it bears inside the copies. A copy that misses an append stops counting for that
log until `heal` has brought it to the same end; its own conditional append sees to that even if
nobody else did.

`settle` is the recovery of one log: the chain with the highest (last epoch, LSN) is taken, never
merely the longest, since a deposed writer's unacknowledged entries may be many. Copies that hold
something else behind the common beginning are cut back, and a majority is brought level before
anything is served.

Invariant: for every log at least a majority of copies is *level*: open and not `behind`. A copy
holding other entries than the level ones is always `behind`. If a write leaves fewer level, the set
refuses everything until a new one is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...errors import Ambiguous, Corrupt, StorageError, Trimmed
from .catch_up import copy_some, entry_at, rank
from .copies import Copy, OpenCopy
from .interface import Append, CopyEngine, Entries

# Calls all functions, perhaps each in a thread, and returns their results in order.
RunAll = Callable[[Sequence[Callable[[], Any]]], Sequence[Any]]


class CopySet:
    """The copies of a set of `size` directories that are there; `open` comes first.

    Everything but `close` raises Ambiguous once the set refuses or is closed.
    """

    __slots__ = (
        "_majority",
        "_open_copy",
        "_run_all",
        "_size",
        "copies",
        "firsts",
        "refusal",
        "tails",
    )

    def __init__(
        self, copies: Sequence[Copy], size: int, open_copy: OpenCopy, run_all: RunAll
    ) -> None:
        self.copies = copies
        self._size = size
        self._majority = size // 2 + 1
        self._open_copy = open_copy
        self._run_all = run_all
        # By log. `tails` holds what a majority has; both move only on success.
        self.tails: dict[str, int] = {}
        self.firsts: dict[str, int] = {}
        # Why nothing is served any more.
        self.refusal: str | None = None

    def open(self) -> None:
        """Open every copy's engine. Raises StorageError if fewer than a majority can be used."""
        results = self._run_all([_opening(self._open_copy, copy.path) for copy in self.copies])
        failures: list[StorageError] = []
        for copy, result in zip(self.copies, results):
            if isinstance(result, StorageError):
                failures.append(result)
            else:
                copy.engine = result
        usable = len(self.copies) - len(failures)
        if usable < self._majority:
            message = f"{usable} of {self._size} copies can be used"
            raise StorageError(f"{message}: {failures[0]}" if failures else message)

    def close(self) -> None:
        for copy in self.copies:
            self._drop(copy)
        self.refusal = "the log engine is closed"

    def check_serving(self) -> None:
        if self.refusal is not None:
            raise Ambiguous(self.refusal)

    # Writing to several.

    def create(self, name: str, first_lsn: int) -> None:
        for copy in self.copies:
            if self._try(copy, name, lambda engine: engine.create(name, first_lsn)):
                copy.behind.discard(name)
        if len(self._level(name)) < self._majority:
            self._refuse("fewer than a majority of the copies could make the log")
        self.tails[name] = first_lsn - 1
        self.firsts[name] = first_lsn

    def delete(self, name: str) -> None:
        del self.tails[name]
        del self.firsts[name]
        # A copy that fails here keeps an unlisted log, which its next opening removes.
        for copy in self.copies:
            self._forget(copy, name)

    def append(self, sent: Sequence[Append]) -> None:
        """Append everywhere; a majority must have each. Raises Ambiguous otherwise."""
        copies = [copy for copy in self.copies if copy.engine is not None]
        # A copy that is behind may hold another past, into which the entry must not go.
        chosen = [
            [index for index, append in enumerate(sent) if append.log_id not in copy.behind]
            if copy.behind
            else range(len(sent))
            for copy in copies
        ]
        results = self._run_all(
            [
                _attempt(copy.engine, [sent[index] for index in indexes])
                for copy, indexes in zip(copies, chosen)
            ]
        )
        acknowledged = [0] * len(sent)
        for copy, indexes, result in zip(copies, chosen, results):
            if isinstance(result, StorageError):
                self._drop(copy)
                continue
            for index, outcome in zip(indexes, result):
                if outcome is not None:
                    copy.behind.add(sent[index].log_id)
                elif sent[index].log_id not in copy.damaged:
                    acknowledged[index] += 1
        if min(acknowledged) < self._majority:
            self._refuse("fewer than a majority of the copies took an append")
        for append in sent:
            self.tails[append.log_id] = append.expected_last + 1

    def trim(self, name: str, before: int) -> None:
        before = min(before, self.tails[name])
        if before <= self.firsts[name]:
            return
        self.firsts[name] = before
        for copy in self._level(name):
            self._try(copy, name, lambda engine: engine.trim(name, before))

    # Reading.

    def read(self, name: str, start: int, max_bytes: int) -> Entries:
        """As `LogEngine.read` of entries not trimmed, from the first copy whose answer is sound."""
        tail = self.tails[name]
        if start > tail:
            return []
        failure: StorageError | None = None
        for copy in self._level(name):
            engine = copy.engine
            if engine is None:
                continue
            try:
                entries = engine.read(name, start, max_bytes)
            except Trimmed:
                raise
            except StorageError as error:
                failure = error
                # Ambiguous: the copy was closed on another thread. Anything else is damage: another
                # copy has the entry, and this one is copied anew by `heal`.
                if not isinstance(error, Ambiguous):
                    copy.damaged.add(name)
                continue
            # A copy may show an entry that no majority has acknowledged yet.
            return [entry for entry in entries if entry.lsn <= tail]
        raise failure or StorageError(f"no copy of log {name!r} can be read")

    def last_entry(self, name: str) -> bytes | None:
        """The log's last entry, None if it is empty."""
        tail = self.tails[name]
        for copy in self._level(name):
            if copy.engine is not None:
                try:
                    return entry_at(copy.engine, name, tail)
                except StorageError:
                    copy.damaged.add(name)
        raise Corrupt(f"no copy can read the last entry of {name!r}")

    # Recovery.

    def settle(self, name: str, first_lsn: int, *, may_be_new: bool = False) -> None:
        """Choose the chain of one log, and bring a majority level with it.

        `may_be_new`: if no copy has the log, it is made and begins at `first_lsn`. Raises Corrupt
        if no majority can be read, StorageError if none can be brought level.
        """
        ranked: list[tuple[tuple[int, int], int, Copy]] = []
        sound = 0
        for index, copy in enumerate(self.copies):
            if copy.engine is None:
                continue
            copy.behind.add(name)
            try:
                if name in copy.engine.list():
                    ranked.append((rank(copy.engine, name), -index, copy))
            except Corrupt:
                copy.damaged.add(name)
            else:
                sound += 1
        # Any majority has met the majority that acknowledged an entry; a smaller number need not.
        if sound < self._majority:
            raise Corrupt(f"log {name!r} can be read in {sound} of {self._size} copies")
        if ranked:
            ranked.sort(key=lambda each: each[:2], reverse=True)
            self._bring_level(name, [copy for _, _, copy in ranked])
        elif may_be_new:
            self.create(name, first_lsn)
        else:
            raise Corrupt(f"log {name!r} is listed, but no copy has it")

    def _bring_level(self, name: str, ranked: Sequence[Copy]) -> None:
        """Level a majority with the first of `ranked`, which are the copies that have the log."""
        source = ranked[0]
        assert source.engine is not None
        tail = self.tails[name] = source.engine.tail(name)
        # Trims are not durable, so copies may begin differently: what any has forgotten, may go.
        firsts = [
            copy.engine.first(name)
            for copy in ranked
            if copy.engine is not None and copy.engine.tail(name) >= copy.engine.first(name)
        ]
        self.firsts[name] = min(max(firsts), tail) if firsts else source.engine.first(name)
        source.behind.discard(name)
        others = list(ranked[1:])
        others += [copy for copy in self.copies if copy not in ranked]
        for copy in others:
            if len(self._level(name)) >= self._majority:
                # The rest is healed in the background, unless it is level already.
                if copy.engine is not None:
                    self._heal_log(copy, name)
                continue
            while name in copy.behind and self._heal_log(copy, name):
                pass
        if len(self._level(name)) < self._majority:
            raise StorageError(f"log {name!r} could not be brought to a majority of the copies")

    def remove_unlisted(self) -> None:
        """Remove from the copies what was not settled: logs that were deleted without them."""
        for copy in self.copies:
            self._remove_unlisted(copy)

    def _remove_unlisted(self, copy: Copy) -> None:
        if copy.engine is not None:
            for name in copy.engine.list():
                if name not in self.tails:
                    self._forget(copy, name)

    # Healing.

    def heal(self) -> bool:
        """One bounded step towards every copy being level; whether anything is left to do."""
        for copy in self.copies:
            if copy.engine is None and not self._reopen(copy):
                continue
            for name in sorted(copy.behind | copy.damaged):
                if self._heal_log(copy, name):
                    return True
        return any(copy.engine is None or copy.behind or copy.damaged for copy in self.copies)

    def _reopen(self, copy: Copy) -> bool:
        try:
            copy.engine = self._open_copy(copy.path)
        except (StorageError, OSError):
            return False
        copy.behind = set(self.tails)
        copy.damaged = set()
        self._remove_unlisted(copy)
        return copy.engine is not None

    def _heal_log(self, copy: Copy, name: str) -> bool:
        """Bring one log of one copy nearer to level; whether something was done."""
        sources = [other for other in self._level(name) if other is not copy]
        if not sources or sources[0].engine is None or copy.engine is None:
            return False
        source = sources[0].engine
        if name in copy.damaged:
            # Its entries are given up only while a majority of others has all of them.
            sound = [other for other in sources if name not in other.damaged]
            if len(sound) < self._majority:
                return False
            copy.behind.add(name)
            if not self._try(copy, name, lambda engine: engine.delete(name)):
                return False
            copy.damaged.discard(name)
        try:
            level = copy_some(source, copy.engine, name, self.firsts[name], self.tails[name])
        except Ambiguous:
            self._drop(copy)
            return False
        except StorageError:
            # Whichever of the two is damaged, reading will tell; the other stays as it is.
            copy.damaged.add(name)
            return False
        if level:
            copy.behind.discard(name)
        return True

    # One copy.

    def _level(self, name: str) -> Sequence[Copy]:
        """The copies that count for a log, those with known damage last."""
        level = [
            copy for copy in self.copies if copy.engine is not None and name not in copy.behind
        ]
        return sorted(level, key=lambda copy: name in copy.damaged)

    def _try(self, copy: Copy, name: str, act: Callable[[CopyEngine], None]) -> bool:
        if copy.engine is None:
            return False
        try:
            act(copy.engine)
        except Ambiguous:
            self._drop(copy)
            return False
        except StorageError:
            copy.behind.add(name)
            return False
        return True

    def _forget(self, copy: Copy, name: str) -> None:
        self._try(copy, name, lambda engine: engine.delete(name))
        copy.behind.discard(name)
        copy.damaged.discard(name)

    def _drop(self, copy: Copy) -> None:
        """Use a copy no more until `heal` has opened and levelled it."""
        if copy.engine is not None:
            copy.engine.close()
            copy.engine = None

    def _refuse(self, reason: str) -> None:
        self.refusal = reason
        raise Ambiguous(reason)


def _attempt(engine: CopyEngine | None, sent: Sequence[Append]) -> Callable[[], object]:
    def attempt() -> object:
        assert engine is not None
        try:
            return engine.commit(sent)
        except StorageError as error:
            return error

    return attempt


def _opening(open_copy: OpenCopy, path: str) -> Callable[[], object]:
    def opening() -> object:
        try:
            return open_copy(path)
        except StorageError as error:
            return error
        except OSError as error:
            return StorageError(f"{path}: {error}")

    return opening
