"""The log engine in memory: for `:memory:` databases, and the twin of the real ones in simulation.

It keeps the contract of `interface.LogEngine` and adds the failures that real engines have shown:
a crash between write and sync (`stage`, then `crash`), a sync that fails (`fail_next_sync`), a
flipped bit (`flip_bit`), a trim that a crash undoes. What survives is decided by an injected source
of randomness, one toss per log, so a seed replays it. Nothing here touches a file.

Invariant: `_staged` holds what was written and not synced, in order; it is invisible to reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ...errors import Ambiguous, Conflict, Corrupt, StorageError, Trimmed
from .entry import Link, check_append, check_entry
from .interface import Append, Entries, Entry, Names, Outcomes, check_log_id


class Chance(Protocol):
    """The part of `random.Random` that decides what a crash keeps."""

    def randrange(self, stop: int, /) -> int:
        """A number from 0 to `stop` - 1."""
        ...


class _Log:
    """One log. Trimming replaces the object, so a reader on another thread keeps a whole one."""

    __slots__ = ("entries", "first", "last")

    def __init__(self, first: int, entries: list[bytes], last: Link | None) -> None:
        # LSN of entries[0], or of the entry to come.
        self.first = first
        self.entries = entries
        # What the next entry must continue; None only while no entry was ever written.
        self.last = last

    @property
    def tail(self) -> int:
        return self.first + len(self.entries) - 1


class MemoryLogEngine:
    """A `LogEngine` whose storage is this object; see the module's docstring for its faults."""

    __slots__ = ("_chance", "_fail_next_sync", "_logs", "_refusal", "_staged", "_untrimmed")

    def __init__(self, chance: Chance | None = None) -> None:
        # Needed only by `crash` and by a failed sync; None keeps everything that was written.
        self._chance = chance
        self._logs: dict[str, _Log] = {}
        # Written, not synced: (log id, entry, link), in order of writing.
        self._staged: list[tuple[str, bytes, Link]] = []
        # What logs were before trims that no sync has made durable.
        self._untrimmed: dict[str, _Log] = {}
        # Why every call is refused; None while the engine serves.
        self._refusal: str | None = None
        self._fail_next_sync = False

    def create(self, log_id: str, first_lsn: int) -> None:
        self._check_serving()
        check_log_id(log_id)
        assert first_lsn >= 1
        if log_id in self._logs:
            raise Conflict(f"log {log_id!r} exists", self._logs[log_id].tail)
        self._logs[log_id] = _Log(first_lsn, [], None)

    def delete(self, log_id: str) -> None:
        self._check_serving()
        self._logs.pop(log_id, None)
        self._untrimmed.pop(log_id, None)
        self._staged = [staged for staged in self._staged if staged[0] != log_id]

    def list(self) -> Names:
        self._check_serving()
        return sorted(self._logs)

    def commit(self, appends: Sequence[Append]) -> Outcomes:
        outcomes = self.stage(appends)
        self.sync()
        return outcomes

    def stage(self, appends: Sequence[Append]) -> Outcomes:
        """The first half of `commit`: write without sync. What it wrote may be lost by `crash`."""
        self._check_serving()
        ends = {log_id: link for log_id, _, link in self._staged}
        outcomes: Outcomes = []
        for append in appends:
            log = self._logs.get(append.log_id)
            if log is None:
                outcomes.append(StorageError(f"no log {append.log_id!r}"))
                continue
            last = ends.get(append.log_id, log.last)
            tail = log.tail if last is None else last.lsn
            if tail != append.expected_last:
                outcomes.append(Conflict(f"log {append.log_id!r} ends at {tail}", tail))
                continue
            link = check_append(append.entry, append.expected_last, last)
            ends[append.log_id] = link
            self._staged.append((append.log_id, append.entry, link))
            outcomes.append(None)
        return outcomes

    def sync(self) -> None:
        """The second half of `commit`: make what was staged durable and visible."""
        self._check_serving()
        if self._fail_next_sync:
            self._fail_next_sync = False
            self._refusal = "a sync failed: reopen the log and reread its tail"
            raise Ambiguous(self._refusal)
        for log_id, entry, link in self._staged:
            log = self._logs[log_id]
            log.entries.append(entry)
            log.last = link
        self._staged.clear()
        self._untrimmed.clear()

    def read(self, log_id: str, start: int, max_bytes: int) -> Entries:
        log = self._log(log_id)
        if start < log.first:
            raise Trimmed(f"log {log_id!r} begins at {log.first}, not {start}", log.first)
        index = start - log.first
        entries: Entries = []
        link = check_entry(log.entries[index - 1], None) if 0 < index < len(log.entries) else None
        size_bytes = 0
        for data in log.entries[index:]:
            size_bytes += len(data)
            if entries and size_bytes > max_bytes:
                break
            link = check_entry(data, link)
            if link.lsn != start + len(entries):
                raise Corrupt(f"log {log_id!r} holds {link.lsn} at {start + len(entries)}")
            entries.append(Entry(link.lsn, data))
        return entries

    def tail(self, log_id: str) -> int:
        return self._log(log_id).tail

    def first(self, log_id: str) -> int:
        return self._log(log_id).first

    def trim(self, log_id: str, before: int) -> None:
        log = self._log(log_id)
        before = min(before, log.tail)
        if before > log.first:
            # The whole log as a crash may bring it back: what was appended since the first trim
            # that is not synced yet is in ``log`` only.
            earlier = self._untrimmed.get(log_id, log)
            whole = earlier.entries[: log.first - earlier.first] + log.entries
            self._untrimmed[log_id] = _Log(earlier.first, whole, log.last)
            kept = log.entries[before - log.first :]
            self._logs[log_id] = _Log(before, kept, log.last)

    def truncate(self, log_id: str, after: int) -> None:
        """See `interface.CopyEngine`."""
        log = self._log(log_id)
        kept = after - log.first + 1
        assert kept >= 0
        if kept < len(log.entries):
            entries = log.entries[:kept]
            last = check_entry(entries[-1], None) if entries else None
            self._logs[log_id] = _Log(log.first, entries, last)
            self._untrimmed.pop(log_id, None)

    def reopen(self) -> None:
        """Serve again. What a failed sync left in doubt is decided now, by a toss per log."""
        self._settle()
        self._refusal = None

    def close(self) -> None:
        self._refusal = "the log engine is closed"

    # Faults.

    def fail_next_sync(self) -> None:
        """Let the next `sync` or `commit` raise Ambiguous."""
        self._fail_next_sync = True

    def crash(self) -> None:
        """Lose what was not synced, by tosses; refuse every call until `reopen`."""
        for log_id, before in sorted(self._untrimmed.items()):
            if self._toss(2):
                log = self._logs[log_id]
                kept = before.entries[: log.first - before.first]
                self._logs[log_id] = _Log(before.first, kept + log.entries, log.last)
        self._untrimmed.clear()
        self._settle()
        self._fail_next_sync = False
        self._refusal = "the machine has crashed"

    def flip_bit(self, log_id: str, lsn: int, bit: int) -> None:
        """Damage a stored entry: bit 0 is the lowest of its first byte."""
        log = self._logs[log_id]
        data = bytearray(log.entries[lsn - log.first])
        data[bit // 8] ^= 1 << bit % 8
        log.entries[lsn - log.first] = bytes(data)

    def _settle(self) -> None:
        """Keep a random beginning of each log's staged entries: writes of one log are ordered."""
        staged: dict[str, list[tuple[bytes, Link]]] = {}
        for log_id, entry, link in self._staged:
            staged.setdefault(log_id, []).append((entry, link))
        self._staged.clear()
        for log_id, writes in staged.items():
            log = self._logs.get(log_id)
            kept = self._toss(len(writes) + 1) if self._chance else len(writes)
            if log is not None:
                for entry, link in writes[:kept]:
                    log.entries.append(entry)
                    log.last = link

    def _toss(self, stop: int) -> int:
        return 0 if self._chance is None else self._chance.randrange(stop)

    def _log(self, log_id: str) -> _Log:
        self._check_serving()
        try:
            return self._logs[log_id]
        except KeyError:
            raise StorageError(f"no log {log_id!r}") from None

    def _check_serving(self) -> None:
        if self._refusal is not None:
            raise Ambiguous(self._refusal)
