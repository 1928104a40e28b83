"""What must hold of a global table when its regions are at rest, whatever had befallen them.

All members hold the same, and it is what last writer wins makes of everything that the logs of all
regions ever held; and what clients were told is what their region's log says. Nothing here asks the
code under test but for rows and logs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..actors.node import Node
from ..actors.tables import TableRef
from ..model.versions import Version
from ..storage.commands import Refused, Written
from ..storage.rows import Row
from .doors import ALL_BYTES
from .global_table import GlobalTable
from .history import IMPOSSIBLE, Call, Image, Outcome, image_of, step
from .machine import Machine
from .region_clients import Told
from .region_logs import Done, Library, Question, RegionLog, State

Rows = dict[bytes, State]


def rows_of(node: Node, ref: TableRef) -> Rows:
    """Key -> what a region has, with the region's number for 0."""
    number = node.region_number
    return {
        key: State(Version(row.hlc, row.region or number), row.body)
        for key, row in ref.rows(None, b"", None)
    }


def equal_rows(table: GlobalTable) -> Rows | None:
    """What all members have; None if there is none. At rest."""
    found: dict[str, Rows] = {
        name: rows_of(node, ref) for name, (node, ref) in table.members().items()
    }
    first: Rows | None = None
    for name, rows in found.items():
        if first is None:
            first = rows
        for key in sorted(first.keys() | rows.keys()):
            assert first.get(key) == rows.get(key), (
                f"{name} has {rows.get(key)} of {key!r}, {next(iter(found))} {first.get(key)}"
            )
    return first


def read_logs(table: GlobalTable) -> Library:
    """Every log that the table has had. The nodes have ended."""
    logs: dict[str, RegionLog] = {}
    for log_id, place in table.logs.items():
        entries = _entries(table.sims[place.region].machine, log_id)
        log = logs[log_id] = RegionLog(log_id, place.number, place.partition, place.joined)
        log.read(entries, table.owed.get(log_id))
    return Library(logs)


def _entries(machine: Machine, log_id: str) -> dict[int, bytes]:
    entries = dict(machine.removed.get(log_id, {}))
    entries.update(machine.archive.get(log_id, {}))
    if log_id in machine.engine.list():
        first = machine.engine.first(log_id)
        for entry in machine.engine.read(log_id, first, ALL_BYTES):
            entries[entry.lsn] = entry.data
    assert sorted(entries) == list(range(1, len(entries) + 1)), "a log is dense"
    return entries


def check_outcome(library: Library, rows: Rows) -> None:
    """The last writer has won: nothing owed is lost, nothing deleted is there."""
    for key in sorted(library.newest.keys() | rows.keys()):
        found, owed = rows.get(key), library.owed.get(key)
        newest = library.newest.get(key)
        assert newest is not None, f"nobody wrote {key!r}"
        if _is(found, owed):
            continue
        # What a region wrote after it was told to leave may have got out, or not.
        others = [
            done.after
            for log in library.logs.values()
            for done in log.own
            if done.key == key and not done.is_owed
        ]
        allowed = [
            state for state in others if owed is None or state.version > owed.version
        ]
        assert any(_is(found, state) for state in allowed), (
            f"{key!r} is {found}, and the last that was written is {owed}"
        )


def _is(found: State | None, wanted: State | None) -> bool:
    if wanted is None or wanted.body is None:
        return found is None
    return found == wanted


def check_beliefs(table: GlobalTable, library: Library) -> int:
    """Positions, horizons and watermarks were true; how many there were."""
    marks: dict[str, list[Question]] = {}
    for mark in table.marks:
        question = Question(mark.lsn, number=mark.number, up_to_hlc=mark.closed)
        marks.setdefault(mark.log_id, []).append(question)
    return sum(
        library.check_beliefs(log, marks.get(log.log_id, [])) for log in library.logs.values()
    )


# What clients were told.


class _Index:
    """A log's own effects, by what finds them."""

    def __init__(self, log: RegionLog) -> None:
        self.by_version: dict[tuple[bytes, int], Done] = {}
        self.by_body: dict[tuple[bytes, bytes], Done] = {}
        self.deletions: dict[tuple[bytes, Version], Done] = {}
        self.states: dict[tuple[bytes, Version], bytes | None] = {}
        for done in log.done:
            self.states[done.key, done.after.version] = done.after.body
        for done in log.own:
            self.by_version[done.key, done.after.version.hlc] = done
            if done.after.body is not None:
                self.by_body.setdefault((done.key, done.after.body), done)
            elif done.before is not None:
                self.deletions[done.key, done.before.version] = done


def check_told(library: Library, told: Iterable[Told]) -> int:
    """Every acknowledged write is in its region's log, and was decided on what was there."""
    indexes: dict[str, _Index] = {}
    count = 0
    for one in told:
        count += 1
        log = library.logs[one.log_id]
        index = indexes.get(one.log_id)
        if index is None:
            index = indexes[one.log_id] = _Index(log)
        if isinstance(one.result, Refused):
            _check_refused(index, log, one, one.result)
        else:
            _check_written(index, log, one, one.result)
    return count


def _check_refused(index: _Index, log: RegionLog, told: Told, result: Refused) -> None:
    found = result.found
    if found is not None:
        version = Version(found.hlc, found.region or log.number)
        assert index.states.get((told.key, version)) == found.body, (
            f"{told.client} was refused for {version}, which never was"
        )
    image = _image(found)
    call = Call(told.client, told.action, 0, 1, Outcome.REFUSED, image)
    assert step(call, image) is not IMPOSSIBLE, f"{told.client} was refused without a reason"


def _check_written(index: _Index, log: RegionLog, told: Told, result: Written) -> None:
    done = _find(index, log, told, result)
    if done is None:
        assert result.new is None, f"{told.client}: an acknowledged {told.action.kind} is lost"
        assert result.old is None or told.is_transaction, f"{told.client}: a deletion is lost"
        return
    before = None if done.before is None else done.before.body
    is_blind = told.is_transaction and told.action.condition is None
    if is_blind and told.action.kind != "update":
        # Writes may have passed it.
        return
    old = None if result.old is None else result.old.body
    assert old == before, f"{told.client} was told of another item before"
    call = Call(
        told.client, told.action, 0, 1, Outcome.DONE, _image(result.old), _image(result.new)
    )
    state = None if before is None else image_of(before)
    assert step(call, state) is not IMPOSSIBLE, (
        f"{told.client}: {told.action.kind} under {told.action.condition} on {state!r}"
    )


def _find(index: _Index, log: RegionLog, told: Told, result: Written) -> Done | None:
    if result.new is None:
        if result.old is None:
            return None
        version = Version(result.old.hlc, result.old.region or log.number)
        return index.deletions.get((told.key, version))
    if told.is_transaction:
        return index.by_body.get((told.key, result.new.body))
    done = index.by_version.get((told.key, result.new.hlc))
    return done if done is not None and done.after.body == result.new.body else None


def _image(row: Row | None) -> Image:
    return None if row is None else image_of(row.body)


def check_all(table: GlobalTable, rows: Rows | None, told: Iterable[Told]) -> Mapping[str, int]:
    """Everything, when all nodes have ended; counts for the report."""
    library = read_logs(table)
    if rows is not None:
        check_outcome(library, rows)
    believed = check_beliefs(table, library)
    acknowledged = check_told(library, told)
    logs = library.logs.values()
    return {
        "members": len(table.names),
        "departures": table.departures,
        "weather": table.weather.events,
        "acknowledged": acknowledged,
        "beliefs": believed,
        "arrived": sum(len(log.done) - len(log.own) for log in logs),
        "collected": sum(log.collected for log in logs),
    }
