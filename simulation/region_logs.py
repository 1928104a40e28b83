"""What the log of one partition of a global table says, read from its first entry on.

Pure, and independent of the machine that wrote it: versions, deletions, horizons and positions are
followed here in a dictionary. A log is wrong by itself if an item's version does not go up, if
something takes effect at or below a horizon, or if an effect is not based on what was there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from ..model.schema import Table
from ..model.versions import NO_VERSION, Version
from ..storage.log.entry import payload_of, timestamp_of
from ..storage.records import Barrier, Effect, Received, TombstonesDropped, decode_records


class State(msgspec.Struct, frozen=True):
    """An item at some moment: ``body`` None means that it was deleted."""

    version: Version
    body: bytes | None


class Done(msgspec.Struct, frozen=True):
    """An effect in a log: what the item was before, and is then.

    ``is_owed``: the other regions must get it. ``is_removal``: a filling removed what was gone
    where it came from; no version of its own.
    """

    lsn: int
    key: bytes
    before: State | None
    after: State
    transaction: int
    is_owed: bool
    is_removal: bool = False


class Question(msgspec.Struct, frozen=True):
    """At ``lsn`` a region believed to have all of some effects: a position, a horizon, a mark."""

    lsn: int
    source: str | None = None
    number: int | None = None
    up_to_lsn: int = 0
    up_to_hlc: int = 0


class RegionLog:
    """One log. ``number`` is the region's; ``joined``: the table was always a global one."""

    def __init__(self, log_id: str, number: int, partition: int, joined: bool) -> None:
        self.log_id = log_id
        self.number = number
        self.partition = partition
        self.items: dict[bytes, State] = {}
        self.horizon = 0
        #: Every effect, in order.
        self.done: list[Done] = []
        #: What the region itself wrote.
        self.own: list[Done] = []
        self.questions: list[Question] = []
        self.collected = 0
        self._was_joined = self._is_joined = joined
        self._timestamp = 0

    @property
    def _has_left(self) -> bool:
        return self._was_joined and not self._is_joined

    def read(self, entries: Mapping[int, bytes], owed_lsn: int | None) -> None:
        """The whole log. What is above ``owed_lsn`` need not be in other regions."""
        for lsn in sorted(entries):
            data = entries[lsn]
            timestamp = timestamp_of(data)
            assert timestamp > self._timestamp, "entries' timestamps go up"
            self._timestamp = timestamp
            is_owed = owed_lsn is None or lsn <= owed_lsn
            for record in decode_records(payload_of(data)):
                match record:
                    case Effect():
                        self._take(record, lsn, is_owed and not self._has_left)
                    case TombstonesDropped():
                        self._drop(record, lsn)
                    case Received():
                        if record.cursor is None:
                            question = Question(lsn, record.source, up_to_lsn=record.lsn)
                            self.questions.append(question)
                    case Barrier():
                        table = msgspec.msgpack.decode(record.table, type=Table)
                        self._is_joined = table.group_id is not None
                        self._was_joined |= self._is_joined

    def _take(self, effect: Effect, lsn: int, is_owed: bool) -> None:
        key, version = effect.key, Version(effect.hlc, effect.region or self.number)
        before = self.items.get(key)
        where = f"log {self.log_id} of region {self.number}, entry {lsn}"
        is_removal = (
            before is not None
            and before.body is not None
            and effect.body is None
            and before.version == version
        )
        if before is not None and not is_removal:
            assert version > before.version, f"{where}: {version} follows {before.version}"
        if not is_removal:
            assert effect.hlc > self.horizon, f"{where}: {version} is below the horizon"
        if effect.base_hlc >= 0 and before is not None:
            base = Version(effect.base_hlc, effect.base_region)
            assert base == before.version, f"{where}: based on {base}, not {before.version}"
        if effect.old:
            old = None if before is None else before.body
            assert effect.old == old, f"{where}: another old image"
        after = State(version, effect.body)
        self.items[key] = after
        if effect.body is None and effect.base_hlc < 0:
            # No global table yet: nothing is left of a deletion.
            del self.items[key]
        done = Done(lsn, key, before, after, effect.transaction, is_owed, is_removal)
        self.done.append(done)
        if version.region == self.number and not is_removal:
            self.own.append(done)

    def _drop(self, record: TombstonesDropped, lsn: int) -> None:
        self.horizon = max(self.horizon, record.horizon)
        for key in record.keys:
            found = self.items.get(key)
            if found is not None and found.body is None and found.version.hlc <= record.horizon:
                del self.items[key]
                self.collected += 1
        self.questions.append(Question(lsn, up_to_hlc=record.horizon))


class Library:
    """All logs that the table has had, and what is true of all of them together."""

    def __init__(self, logs: Mapping[str, RegionLog]) -> None:
        self.logs = logs
        #: Key -> the newest write there was, and the newest that all must have.
        self.newest: dict[bytes, State] = {}
        self.owed: dict[bytes, State] = {}
        self._newest_deletion: dict[bytes, Version] = {}
        for log in logs.values():
            for done in log.own:
                _raise_to(self.newest, done.key, done.after)
                if done.is_owed:
                    _raise_to(self.owed, done.key, done.after)
                if done.after.body is None:
                    known = self._newest_deletion.get(done.key, NO_VERSION)
                    self._newest_deletion[done.key] = max(known, done.after.version)

    def check_beliefs(self, log: RegionLog, marks: list[Question]) -> int:
        """Whatever a region believed to have, it had; how often it believed something."""
        questions = sorted([*log.questions, *marks], key=lambda question: question.lsn)
        at = 0
        items: dict[bytes, State] = {}
        for question in questions:
            while at < len(log.done) and log.done[at].lsn <= question.lsn:
                items[log.done[at].key] = log.done[at].after
                at += 1
            for done in self._asked(log, question):
                if not self._has(items.get(done.key), done):
                    raise AssertionError(
                        f"log {log.log_id} of region {log.number} claims at {question.lsn} to have"
                        f" {question}, but {done.after.version} of {done.key!r} is missing"
                    )
        return len(questions)

    def _asked(self, log: RegionLog, question: Question) -> Iterator[Done]:
        if question.source is not None:
            source = self.logs.get(question.source)
            for done in () if source is None else source.own:
                if done.lsn <= question.up_to_lsn:
                    yield done
            return
        for other in self.logs.values():
            if other.partition != log.partition or question.number not in (None, other.number):
                continue
            for done in other.own:
                if done.is_owed and done.after.version.hlc <= question.up_to_hlc:
                    yield done

    def _has(self, known: State | None, done: Done) -> bool:
        wanted = done.after.version
        if known is not None and known.version >= wanted:
            return True
        if known is not None and known.body is not None:
            return False
        # It never came, because where the filling came from it had been deleted and collected.
        return self._newest_deletion.get(done.key, NO_VERSION) >= wanted


def _raise_to(states: dict[bytes, State], key: bytes, state: State) -> None:
    known = states.get(key)
    if known is None or state.version > known.version:
        states[key] = state
