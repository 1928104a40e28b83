"""One log kept in several directories: an entry counts once a majority of the copies has it.

Which logs exist is itself a replicated log, the control log: every `create` and `delete` is an
entry of it, and a log lives in the copies under a number that is never used twice. So a copy that
slept through a deletion and a new creation cannot pass its old entries off as the new log's.

Opening is recovery. `copies` finds a majority of identified copies, `copy_set` chooses the right
chain of every log and levels a majority with it. The control log then gets an entry of a new epoch
with the whole list of logs, which is its Claim; the partitions append their own.

Invariant: what the control log lists is in a majority of copies, and `_logs` is what it lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ...errors import Conflict, StorageError, Trimmed
from ...host.disk import Disk
from .copies import OpenCopy, find_copies
from .copy_set import CopySet, RunAll
from .entry import ZERO_HASH, EntryHeader, chain_hash, decode_entry, encode_entry
from .interface import Append, Entries, Names, Outcomes, check_log_id

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
        "_control_epoch",
        "_disk",
        "_logs",
        "_open_copy",
        "_paths",
        "_run_all",
        "_set",
    )

    def __init__(
        self,
        disk: Disk,
        paths: Sequence[str],
        open_copy: OpenCopy,
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
        self._logs: dict[str, LogRow]
        self._control: Control
        self._control_epoch: int
        self._set: CopySet
        self._recover(new_set_id, adopt_empty=adopt_empty)

    def create(self, log_id: str, first_lsn: int) -> None:
        self._set.check_serving()
        check_log_id(log_id)
        assert first_lsn >= 1
        row = self._logs.get(log_id)
        if row is not None:
            raise Conflict(f"log {log_id!r} exists", self._set.tails[_inner(row)])
        row = LogRow(log_id, self._control.next_number, first_lsn)
        # First in the copies, then in the control log: what is listed is there.
        self._set.create(_inner(row), first_lsn)
        self._append_control(self._set, Control((*self._control.logs, row), row.number + 1))
        self._logs[log_id] = row

    def delete(self, log_id: str) -> None:
        self._set.check_serving()
        row = self._logs.get(log_id)
        if row is None:
            return
        kept = tuple(other for other in self._control.logs if other is not row)
        self._append_control(self._set, Control(kept, self._control.next_number))
        del self._logs[log_id]
        self._set.delete(_inner(row))

    def list(self) -> Names:
        self._set.check_serving()
        return sorted(self._logs)

    def commit(self, appends: Sequence[Append]) -> Outcomes:
        self._set.check_serving()
        outcomes: Outcomes = []
        sent: list[Append] = []
        ends: dict[str, int] = {}
        for append in appends:
            row = self._logs.get(append.log_id)
            if row is None:
                outcomes.append(StorageError(f"no log {append.log_id!r}"))
                continue
            name = _inner(row)
            tail = ends.get(name, self._set.tails[name])
            if tail != append.expected_last:
                outcomes.append(Conflict(f"log {append.log_id!r} ends at {tail}", tail))
                continue
            ends[name] = tail + 1
            sent.append(Append(name, tail, append.entry))
            outcomes.append(None)
        if sent:
            self._set.append(sent)
        return outcomes

    def read(self, log_id: str, start: int, max_bytes: int) -> Entries:
        name = self._name(log_id)
        first = self._set.firsts[name]
        if start < first:
            raise Trimmed(f"log {log_id!r} begins at {first}, not {start}", first)
        return self._set.read(name, start, max_bytes)

    def tail(self, log_id: str) -> int:
        return self._set.tails[self._name(log_id)]

    def first(self, log_id: str) -> int:
        return self._set.firsts[self._name(log_id)]

    def trim(self, log_id: str, before: int) -> None:
        self._set.trim(self._name(log_id), before)

    def heal(self) -> bool:
        """One bounded step towards every copy being level; whether anything is left to do.

        It changes copies, so it counts as a changing call: not beside `commit`.
        """
        self._set.check_serving()
        return self._set.heal()

    def statistics(self) -> tuple[CopyStatistics, ...]:
        """How each copy stands."""
        return tuple(
            CopyStatistics(
                copy.path, copy.identity.copy_id, copy.engine is not None, len(copy.behind)
            )
            for copy in self._set.copies
        )

    def reopen(self) -> None:
        self.close()
        self._recover(None, adopt_empty=False)

    def close(self) -> None:
        self._set.close()

    def _recover(self, new_set_id: str | None, *, adopt_empty: bool) -> None:
        found = find_copies(
            self._disk,
            self._paths,
            self._open_copy,
            new_set_id=new_set_id,
            adopt_empty=adopt_empty,
        )
        copies = CopySet(found, len(self._paths), self._open_copy, self._run_all)
        try:
            copies.open()
            control = self._read_control(copies)
            for row in control.logs:
                copies.settle(_inner(row), row.first_lsn)
            copies.remove_unlisted()
            # The claim: an entry of a new epoch proves the tail and outranks what a copy that is
            # not here may hold.
            self._append_control(copies, control)
        except StorageError:
            copies.close()
            raise
        # Last, because others may be reading: until now they meet the closed set, which refuses.
        self._logs = {row.log_id: row for row in control.logs}
        self._set = copies

    def _read_control(self, copies: CopySet) -> Control:
        copies.settle(CONTROL, 1, may_be_new=True)
        last = copies.last_entry(CONTROL)
        if last is None:
            self._control_epoch = 1
            return Control((), 1)
        header, payload = decode_entry(last)
        self._control_epoch = header.epoch + 1
        return msgspec.msgpack.decode(payload, type=Control)

    def _append_control(self, copies: CopySet, control: Control) -> None:
        """State all logs anew. The entry before it is needed no more."""
        tail = copies.tails[CONTROL]
        previous = copies.last_entry(CONTROL)
        header = EntryHeader(
            epoch=self._control_epoch,
            writer_nonce=0,
            lsn=tail + 1,
            timestamp=tail + 1,
            previous_hash=ZERO_HASH if previous is None else chain_hash(previous),
        )
        entry = encode_entry(header, msgspec.msgpack.encode(control))
        copies.append([Append(CONTROL, tail, entry)])
        self._control = control
        copies.trim(CONTROL, tail + 1)

    def _name(self, log_id: str) -> str:
        self._set.check_serving()
        row = self._logs.get(log_id)
        if row is None:
            raise StorageError(f"no log {log_id!r}")
        return _inner(row)


def _inner(row: LogRow) -> str:
    return f"log-{row.number}"
