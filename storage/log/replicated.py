"""One log kept in several directories: an entry counts once a majority of the copies has it.

Every copy is a whole log engine. A copy that misses an append stops counting for that log until
`heal` has brought it to the same end; its own conditional append sees to that even if nobody else
did. Which logs exist is itself a replicated log, the control log: every `create` and `delete` is an
entry of it, and a log lives in the copies under a number that is never used twice. So a copy that
slept through a deletion and a new creation cannot pass its old entries off as the new log's.

Opening is recovery. A majority of *identified* copies must be there (an empty directory is not a
copy). For every log the chain with the highest (last epoch, LSN) is taken, never merely the
longest: a deposed writer's unacknowledged entries may be many. Copies that hold something else
behind the common beginning are cut back, and a majority is brought level before anything is
served. The control log then gets an entry of a new epoch with the whole list of logs, which is its
Claim; the partitions append their own.

Invariant: for every log at least a majority of copies is *level*: open and not `behind`. A copy
holding other entries than the level ones is always `behind`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from ...errors import Ambiguous, Conflict, Corrupt, StorageError, Trimmed
from ...host.disk import Disk
from ...limits import LOG_HEAL_STEP_BYTES
from .entry import ZERO_HASH, EntryHeader, chain_hash, decode_entry, encode_entry
from .identity import COPY_FILE, CopyIdentity, read_copy_identity, write_identity
from .interface import (
    Append,
    CopyEngine,
    Entries,
    Names,
    Outcomes,
    check_log_id,
)

# Calls all functions, perhaps each in a thread, and returns their results in order.
RunAll = Callable[[Sequence[Callable[[], Any]]], Sequence[Any]]

CONTROL: Final = "control"


class LogRow(msgspec.Struct, frozen=True, array_like=True):
    """One log in the control log: `number` names it inside the copies."""

    log_id: str
    number: int
    first_lsn: int


class Control(msgspec.Struct, frozen=True, array_like=True):
    """The payload of a control entry: all logs there are from now on, and the next free number."""

    logs: tuple[LogRow, ...]
    next_number: int


class _Copy:
    """One directory of the set."""

    __slots__ = ("behind", "damaged", "engine", "identity", "path")

    def __init__(self, path: str, identity: CopyIdentity) -> None:
        self.path = path
        self.identity = identity
        # None while it cannot be used; then it is behind in everything.
        self.engine: CopyEngine | None = None
        # Inner names of logs for which it does not count, and those of them to be copied anew.
        self.behind: set[str] = set()
        self.damaged: set[str] = set()


class CopyStatistics(msgspec.Struct, frozen=True):
    """How one copy stands, for operators."""

    path: str
    copy_id: int
    open: bool
    logs_behind: int


class ReplicatedLogEngine:
    """A `LogEngine` over the directories `paths` of `disk`.

    `open_copy` opens the engine in one directory. `new_set_id`: if every directory is empty, make
    a new set of this name; without it, or if only some are empty, an empty directory is no copy.
    `adopt_empty`: make empty directories copies of the set found in the others, in place of
    members that are not there. Raises StorageError if fewer than a majority of copies can be used.
    """

    __slots__ = (
        "_control",
        "_copies",
        "_disk",
        "_control_epoch",
        "_firsts",
        "_logs",
        "_majority",
        "_open_copy",
        "_paths",
        "_refusal",
        "_run_all",
        "_tails",
    )

    def __init__(
        self,
        disk: Disk,
        paths: Sequence[str],
        open_copy: Callable[[str], CopyEngine],
        run_all: RunAll,
        *,
        new_set_id: str | None = None,
        adopt_empty: bool = False,
    ) -> None:
        assert len(set(paths)) == len(paths)
        self._disk = disk
        self._paths = tuple(paths)
        self._open_copy = open_copy
        self._run_all = run_all
        self._copies: list[_Copy] = []
        self._majority = len(paths) // 2 + 1
        self._logs: dict[str, LogRow] = {}
        # By inner name. `_tails` holds what a majority has; both move only on success.
        self._tails: dict[str, int] = {}
        self._firsts: dict[str, int] = {}
        self._control = Control((), 1)
        self._control_epoch = 0
        self._refusal: str | None = None
        self._identify(new_set_id, adopt_empty=adopt_empty)
        self._recover()

    def create(self, log_id: str, first_lsn: int) -> None:
        self._check_serving()
        check_log_id(log_id)
        assert first_lsn >= 1
        row = self._logs.get(log_id)
        if row is not None:
            raise Conflict(f"log {log_id!r} exists", self._tails[_inner(row)])
        row = LogRow(log_id, self._control.next_number, first_lsn)
        name = _inner(row)
        # First in the copies, then in the control log: what is listed is there.
        self._on_majority(name, lambda engine: engine.create(name, first_lsn))
        self._append_control(Control((*self._control.logs, row), row.number + 1))
        self._logs[log_id] = row
        self._tails[name] = first_lsn - 1
        self._firsts[name] = first_lsn

    def delete(self, log_id: str) -> None:
        self._check_serving()
        row = self._logs.get(log_id)
        if row is None:
            return
        kept = tuple(other for other in self._control.logs if other is not row)
        self._append_control(Control(kept, self._control.next_number))
        del self._logs[log_id]
        name = _inner(row)
        del self._tails[name]
        del self._firsts[name]
        # A copy that fails here keeps an unlisted log, which its next opening removes.
        for copy in self._copies:
            self._forget(copy, name)

    def list(self) -> Names:
        self._check_serving()
        return sorted(self._logs)

    def commit(self, appends: Sequence[Append]) -> Outcomes:
        self._check_serving()
        outcomes: Outcomes = []
        sent: list[Append] = []
        ends: dict[str, int] = {}
        for append in appends:
            row = self._logs.get(append.log_id)
            if row is None:
                outcomes.append(StorageError(f"no log {append.log_id!r}"))
                continue
            name = _inner(row)
            tail = ends.get(name, self._tails[name])
            if tail != append.expected_last:
                outcomes.append(Conflict(f"log {append.log_id!r} ends at {tail}", tail))
                continue
            ends[name] = tail + 1
            sent.append(Append(name, tail, append.entry))
            outcomes.append(None)
        if sent:
            self._append_to_copies(sent)
            self._tails.update(ends)
        return outcomes

    def read(self, log_id: str, start: int, max_bytes: int) -> Entries:
        name = self._name(log_id)
        first = self._firsts[name]
        if start < first:
            raise Trimmed(f"log {log_id!r} begins at {first}, not {start}", first)
        tail = self._tails[name]
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
        raise failure or StorageError(f"no copy of log {log_id!r} can be read")

    def tail(self, log_id: str) -> int:
        return self._tails[self._name(log_id)]

    def first(self, log_id: str) -> int:
        return self._firsts[self._name(log_id)]

    def trim(self, log_id: str, before: int) -> None:
        name = self._name(log_id)
        before = min(before, self._tails[name])
        if before <= self._firsts[name]:
            return
        self._firsts[name] = before
        for copy in self._level(name):
            self._try(copy, name, lambda engine: engine.trim(name, before))

    def heal(self) -> bool:
        """One bounded step towards every copy being level; whether anything is left to do.

        It changes copies, so it counts as a changing call: not beside `commit`.
        """
        self._check_serving()
        for copy in self._copies:
            if copy.engine is None and not self._reopen(copy):
                continue
            for name in sorted(copy.behind | copy.damaged):
                if self._heal_log(copy, name):
                    return True
        return any(copy.engine is None or copy.behind or copy.damaged for copy in self._copies)

    def statistics(self) -> tuple[CopyStatistics, ...]:
        """How each copy stands."""
        return tuple(
            CopyStatistics(
                copy.path, copy.identity.copy_id, copy.engine is not None, len(copy.behind)
            )
            for copy in self._copies
        )

    def reopen(self) -> None:
        self.close()
        self._identify(None, adopt_empty=False)
        self._recover()

    def close(self) -> None:
        for copy in self._copies:
            if copy.engine is not None:
                copy.engine.close()
                copy.engine = None
        self._refusal = "the log engine is closed"

    # Writing to several.

    def _append_to_copies(self, sent: Sequence[Append]) -> None:
        """Append everywhere; a majority must have each. Raises Ambiguous otherwise."""
        copies = [copy for copy in self._copies if copy.engine is not None]
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

    def _append_control(self, control: Control) -> None:
        """State all logs anew. The entry before it is needed no more."""
        tail = self._tails[CONTROL]
        previous = self._last_entry(CONTROL)
        header = EntryHeader(
            epoch=self._control_epoch,
            writer_nonce=0,
            lsn=tail + 1,
            timestamp=tail + 1,
            previous_hash=ZERO_HASH if previous is None else chain_hash(previous),
        )
        entry = encode_entry(header, msgspec.msgpack.encode(control))
        self._append_to_copies([Append(CONTROL, tail, entry)])
        self._tails[CONTROL] = tail + 1
        self._control = control
        self._firsts[CONTROL] = tail + 1
        for copy in self._level(CONTROL):
            self._try(copy, CONTROL, lambda engine: engine.trim(CONTROL, tail + 1))

    def _on_majority(self, name: str, act: Callable[[CopyEngine], None]) -> None:
        done = sum([self._try(copy, name, act) for copy in self._copies])
        if done < self._majority:
            self._refuse("fewer than a majority of the copies could be changed")

    def _try(self, copy: _Copy, name: str, act: Callable[[CopyEngine], None]) -> bool:
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

    def _forget(self, copy: _Copy, name: str) -> None:
        self._try(copy, name, lambda engine: engine.delete(name))
        copy.behind.discard(name)
        copy.damaged.discard(name)

    def _drop(self, copy: _Copy) -> None:
        """Use a copy no more until `heal` has opened and levelled it."""
        if copy.engine is not None:
            copy.engine.close()
            copy.engine = None

    def _refuse(self, reason: str) -> None:
        self._refusal = reason
        raise Ambiguous(reason)

    # Reading.

    def _level(self, name: str) -> Sequence[_Copy]:
        """The copies that count for a log, those with known damage last."""
        level = [
            copy for copy in self._copies if copy.engine is not None and name not in copy.behind
        ]
        return sorted(level, key=lambda copy: name in copy.damaged)

    def _last_entry(self, name: str) -> bytes | None:
        tail = self._tails[name]
        for copy in self._level(name):
            if copy.engine is not None:
                try:
                    return _entry_at(copy.engine, name, tail)
                except StorageError:
                    copy.damaged.add(name)
        raise Corrupt(f"no copy can read the last entry of {name!r}")

    def _name(self, log_id: str) -> str:
        self._check_serving()
        row = self._logs.get(log_id)
        if row is None:
            raise StorageError(f"no log {log_id!r}")
        return _inner(row)

    def _check_serving(self) -> None:
        if self._refusal is not None:
            raise Ambiguous(self._refusal)

    # Who is a copy.

    def _identify(self, new_set_id: str | None, *, adopt_empty: bool) -> None:
        """Read every directory's identity; find the set, its members and who is there."""
        found: dict[str, CopyIdentity] = {}
        empty: list[str] = []
        for path in self._paths:
            try:
                identity = read_copy_identity(self._disk, posixpath.join(path, COPY_FILE))
            except (Corrupt, OSError):
                # It says that it is something, not what: neither a copy nor empty.
                continue
            if identity is None:
                empty.append(path)
            else:
                found[path] = identity
        if not found:
            if new_set_id is None or len(empty) < len(self._paths):
                raise StorageError("none of the directories is a copy of a log")
            membership = tuple(range(len(self._paths)))
            for copy_id, path in enumerate(self._paths):
                self._make_empty(path)
                found[path] = CopyIdentity(new_set_id, copy_id, membership, 1)
            for path, identity in found.items():
                write_identity(self._disk, posixpath.join(path, COPY_FILE), identity)
            empty = []
        newest = max(found.values(), key=lambda identity: identity.generation)
        for path, identity in found.items():
            if identity.set_id != newest.set_id:
                raise StorageError(f"{path} is a copy of another log: {identity.set_id}")
        if len(newest.membership) != len(self._paths):
            raise StorageError(
                f"the log has {len(newest.membership)} copies; {len(self._paths)} were given"
            )
        members = {
            path: identity
            for path, identity in found.items()
            if identity.copy_id in newest.membership
        }
        if len({identity.copy_id for identity in members.values()}) != len(members):
            raise StorageError("two directories claim to be the same copy")
        if len(members) < self._majority:
            raise StorageError(
                f"{len(members)} of {len(self._paths)} copies are there; {self._majority} are"
                " needed. An empty directory is not a copy."
            )
        if adopt_empty and empty:
            members = self._adopt(members, newest, empty)
        self._copies = [_Copy(path, members[path]) for path in self._paths if path in members]

    def _adopt(
        self, members: dict[str, CopyIdentity], newest: CopyIdentity, empty: Sequence[str]
    ) -> dict[str, CopyIdentity]:
        """Put empty directories in place of absent members: a new membership, a generation on.

        The old members learn it first. Until a majority of them has, the old membership is what
        a restart sees; from then on, the copies that were replaced are refused.
        """
        next_id = max(newest.membership) + 1
        added = {path: next_id + index for index, path in enumerate(empty)}
        present = {identity.copy_id for identity in members.values()}
        absent = [copy_id for copy_id in newest.membership if copy_id not in present]
        membership = (*sorted(present), *absent[len(empty) :], *added.values())
        assert len(membership) == len(newest.membership)
        ids = {path: identity.copy_id for path, identity in members.items()} | added
        adopted: dict[str, CopyIdentity] = {}
        for path, copy_id in ids.items():
            if path in added:
                self._make_empty(path)
            identity = CopyIdentity(newest.set_id, copy_id, membership, newest.generation + 1)
            write_identity(self._disk, posixpath.join(path, COPY_FILE), identity)
            adopted[path] = identity
        return adopted

    def _make_empty(self, path: str) -> None:
        """Make an engine in a directory; refuse one that holds logs without saying whose."""
        engine = self._open_copy(path)
        names = engine.list()
        engine.close()
        if names:
            raise StorageError(f"{path} holds logs, but does not say of which set")

    # Recovery.

    def _recover(self) -> None:
        self._refusal = None
        try:
            self._open_copies()
            self._recover_control()
            for row in self._control.logs:
                self._logs[row.log_id] = row
                self._settle(_inner(row), row.first_lsn)
            self._remove_unlisted()
            # The claim: an entry of a new epoch proves the tail and outranks what a copy that is
            # not here may hold.
            self._append_control(self._control)
        except StorageError:
            self.close()
            raise

    def _open_copies(self) -> None:
        results = self._run_all([_opening(self._open_copy, copy.path) for copy in self._copies])
        failures: list[StorageError] = []
        for copy, result in zip(self._copies, results):
            if isinstance(result, StorageError):
                failures.append(result)
            else:
                copy.engine = result
        usable = len(self._copies) - len(failures)
        if usable < self._majority:
            message = f"{usable} of {len(self._paths)} copies can be used"
            raise StorageError(f"{message}: {failures[0]}" if failures else message)

    def _recover_control(self) -> None:
        self._logs = {}
        self._tails = {}
        self._firsts = {}
        self._control = Control((), 1)
        self._control_epoch = 1
        self._settle(CONTROL, 1)
        last = self._last_entry(CONTROL)
        if last is not None:
            header, payload = decode_entry(last)
            self._control_epoch = header.epoch + 1
            self._control = msgspec.msgpack.decode(payload, type=Control)

    def _settle(self, name: str, first_lsn: int) -> None:
        """Choose the chain of one log, and bring a majority level with it."""
        ranked: list[tuple[tuple[int, int], int, _Copy]] = []
        sound = 0
        for index, copy in enumerate(self._copies):
            if copy.engine is None:
                continue
            copy.behind.add(name)
            try:
                if name in copy.engine.list():
                    ranked.append((_rank(copy.engine, name), -index, copy))
            except Corrupt:
                copy.damaged.add(name)
            else:
                sound += 1
        # Any majority has met the majority that acknowledged an entry; a smaller number need not.
        if sound < self._majority:
            raise Corrupt(f"log {name!r} can be read in {sound} of {len(self._paths)} copies")
        if not ranked and name != CONTROL:
            raise Corrupt(f"log {name!r} is listed, but no copy has it")
        if not ranked:
            self._tails[name], self._firsts[name] = first_lsn - 1, first_lsn
            for copy in self._copies:
                if self._try(copy, name, lambda engine: engine.create(name, first_lsn)):
                    copy.behind.discard(name)
            if len(self._level(name)) < self._majority:
                self._refuse("fewer than a majority of the copies could be made")
            return
        ranked.sort(key=lambda each: each[:2], reverse=True)
        source = ranked[0][2]
        assert source.engine is not None
        tail = self._tails[name] = source.engine.tail(name)
        # Trims are not durable, so copies may begin differently: what any has forgotten, may go.
        firsts = [
            copy.engine.first(name)
            for _, _, copy in ranked
            if copy.engine is not None and copy.engine.tail(name) >= copy.engine.first(name)
        ]
        self._firsts[name] = min(max(firsts), tail) if firsts else source.engine.first(name)
        source.behind.discard(name)
        others = [copy for _, _, copy in ranked[1:]]
        others += [copy for copy in self._copies if copy not in others and copy is not source]
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

    def _remove_unlisted(self) -> None:
        listed = {CONTROL, *self._tails}
        for copy in self._copies:
            if copy.engine is None:
                continue
            for name in copy.engine.list():
                if name not in listed:
                    self._forget(copy, name)

    # Healing.

    def _reopen(self, copy: _Copy) -> bool:
        try:
            copy.engine = self._open_copy(copy.path)
        except (StorageError, OSError):
            return False
        copy.behind = {CONTROL, *self._tails}
        copy.damaged = set()
        for name in copy.engine.list():
            if name not in copy.behind:
                self._forget(copy, name)
        return copy.engine is not None

    def _heal_log(self, copy: _Copy, name: str) -> bool:
        """Bring one log of one copy nearer to level; whether something was done."""
        sources = [other for other in self._level(name) if other is not copy]
        if not sources or sources[0].engine is None or copy.engine is None:
            return False
        source = sources[0]
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
            assert source.engine is not None
            level = _copy_some(
                source.engine, copy.engine, name, self._firsts[name], self._tails[name]
            )
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


def _inner(row: LogRow) -> str:
    return f"log-{row.number}"


def _attempt(engine: CopyEngine | None, sent: Sequence[Append]) -> Callable[[], object]:
    def attempt() -> object:
        assert engine is not None
        try:
            return engine.commit(sent)
        except StorageError as error:
            return error

    return attempt


def _opening(open_copy: Callable[[str], CopyEngine], path: str) -> Callable[[], object]:
    def opening() -> object:
        try:
            return open_copy(path)
        except StorageError as error:
            return error
        except OSError as error:
            return StorageError(f"{path}: {error}")

    return opening


def _entry_at(engine: CopyEngine, name: str, lsn: int) -> bytes | None:
    if not engine.first(name) <= lsn <= engine.tail(name):
        return None
    return engine.read(name, lsn, 0)[0].data


def _rank(engine: CopyEngine, name: str) -> tuple[int, int]:
    """(Last epoch, LSN): which copy knows more. An empty log knows least."""
    tail = engine.tail(name)
    last = _entry_at(engine, name, tail)
    return (-1 if last is None else decode_entry(last)[0].epoch, tail)


def _copy_some(source: CopyEngine, target: CopyEngine, name: str, first: int, tail: int) -> bool:
    """Cut off what differs, then copy one step's entries; whether the target is level now."""
    if name not in target.list():
        target.create(name, first)
    common = _common(source, target, name) if target.first(name) <= first else None
    if common is None:
        target.delete(name)
        target.create(name, first)
        common = first - 1
    if target.tail(name) > common:
        target.truncate(name, common)
    if common < tail:
        entries = source.read(name, common + 1, LOG_HEAL_STEP_BYTES)
        appends = [Append(name, entry.lsn - 1, entry.data) for entry in entries]
        for outcome in target.commit(appends):
            if outcome is not None:
                raise outcome
    return target.tail(name) == tail


def _common(source: CopyEngine, target: CopyEngine, name: str) -> int | None:
    """The last LSN up to which both hold the same, or None if they share nothing.

    Entries carry the hash of the one before, so equal entries have equal pasts: binary search.
    """
    low = max(source.first(name), target.first(name))
    high = min(source.tail(name), target.tail(name))
    if high < low:
        # They share no entry. Only an empty target, which the source can continue, is of use.
        return high if target.first(name) == high + 1 == low else None
    if _entry_at(source, name, low) != _entry_at(target, name, low):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        if _entry_at(source, name, middle) == _entry_at(target, name, middle):
            low = middle
        else:
            high = middle - 1
    return low
