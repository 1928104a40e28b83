"""The contract of a log engine, held by every engine alike."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.errors import Ambiguous, Conflict, StorageError, Trimmed
from millstream.storage.log.interface import Append, LogEngine
from millstream.storage.log.replicated import ReplicatedLogEngine

MakeWriter = Any


def lsns(entries: list[Any]) -> list[int]:
    return [entry.lsn for entry in entries]


def filled(engine: LogEngine, writer: Any, count: int, payload: bytes = b"payload") -> list[bytes]:
    engine.create(writer.log_id, writer.last_lsn + 1)
    appends = [writer.append(payload) for _ in range(count)]
    assert engine.commit(appends) == [None] * count
    return [append.entry for append in appends]


def test_a_new_log_is_empty_and_listed(engine: LogEngine) -> None:
    engine.create("b", 1)
    engine.create("a", 100)
    assert engine.list() == ["a", "b"]
    assert (engine.first("a"), engine.tail("a")) == (100, 99)
    assert engine.read("a", 100, 1000) == []


def test_creating_twice_is_a_conflict(engine: LogEngine) -> None:
    engine.create("a", 5)
    with pytest.raises(Conflict) as caught:
        engine.create("a", 1)
    assert caught.value.tail == 4


def test_entries_come_back_as_written(engine: LogEngine, make_writer: MakeWriter) -> None:
    written = filled(engine, make_writer(first_lsn=10), 5)
    read = engine.read("orders", 10, 10_000)
    assert lsns(read) == [10, 11, 12, 13, 14]
    assert [entry.data for entry in read] == written
    assert engine.tail("orders") == 14
    assert lsns(engine.read("orders", 13, 10_000)) == [13, 14]


def test_a_read_beyond_the_tail_is_empty(engine: LogEngine, make_writer: MakeWriter) -> None:
    filled(engine, make_writer(), 2)
    assert engine.read("orders", 3, 1000) == []
    assert engine.read("orders", 30, 1000) == []


def test_a_read_stops_at_max_bytes_but_returns_one(
    engine: LogEngine, make_writer: MakeWriter
) -> None:
    written = filled(engine, make_writer(), 5)
    size_bytes = len(written[0])
    assert lsns(engine.read("orders", 1, 3 * size_bytes)) == [1, 2, 3]
    assert lsns(engine.read("orders", 1, 3 * size_bytes - 1)) == [1, 2]
    assert lsns(engine.read("orders", 4, 1)) == [4]


def test_successive_reads_cover_the_log(engine: LogEngine, make_writer: MakeWriter) -> None:
    written = filled(engine, make_writer(), 9)
    start, seen = 1, []
    while batch := engine.read("orders", start, 2 * len(written[0])):
        seen += lsns(batch)
        start = batch[-1].lsn + 1
    assert seen == list(range(1, 10))


def test_a_wrong_expectation_conflicts_alone(engine: LogEngine, make_writer: MakeWriter) -> None:
    writer, stale, other = make_writer("a"), make_writer("a"), make_writer("b")
    filled(engine, writer, 2)
    engine.create("b", 1)
    stale.entry()
    outcomes = engine.commit([stale.append(), other.append(), writer.append()])
    assert isinstance(outcomes[0], Conflict)
    assert outcomes[0].tail == 2
    assert outcomes[1:] == [None, None]
    assert (engine.tail("a"), engine.tail("b")) == (3, 1)


def test_the_second_of_two_equal_expectations_conflicts(
    engine: LogEngine, make_writer: MakeWriter
) -> None:
    engine.create("orders", 1)
    outcomes = engine.commit([make_writer().append(b"one"), make_writer().append(b"two")])
    assert outcomes[0] is None
    assert isinstance(outcomes[1], Conflict)
    assert outcomes[1].tail == 1


def test_an_expectation_beyond_the_tail_conflicts(
    engine: LogEngine, make_writer: MakeWriter
) -> None:
    engine.create("orders", 1)
    ahead = make_writer()
    ahead.entry()
    assert isinstance(engine.commit([ahead.append()])[0], Conflict)
    assert engine.tail("orders") == 0


def test_an_unknown_log_is_an_error(engine: LogEngine, make_writer: MakeWriter) -> None:
    outcomes = engine.commit([make_writer("nowhere").append()])
    assert type(outcomes[0]) is StorageError
    for call in (engine.tail, engine.first):
        with pytest.raises(StorageError):
            call("nowhere")
    with pytest.raises(StorageError):
        engine.read("nowhere", 1, 100)
    with pytest.raises(StorageError):
        engine.trim("nowhere", 1)


def test_an_entry_out_of_its_chain_is_a_bug(engine: LogEngine, make_writer: MakeWriter) -> None:
    filled(engine, make_writer(), 1)
    alien = make_writer()
    alien.entry(b"another past")
    with pytest.raises(AssertionError):
        engine.commit([alien.append()])
    with pytest.raises(AssertionError):
        engine.commit([Append("orders", 1, b"no entry at all")])
    assert engine.tail("orders") == 1


def test_no_appends_is_no_work(engine: LogEngine) -> None:
    assert engine.commit([]) == []


def test_logs_are_apart_whatever_their_names(engine: LogEngine, make_writer: MakeWriter) -> None:
    # Names that are prefixes of each other, and one that is as long as a name may be.
    names = ["a", "aa", "a\x00", "ä", "x" * 255]
    for number, name in enumerate(names):
        filled(engine, make_writer(name), number + 1)
    assert engine.list() == sorted(names)
    for number, name in enumerate(names):
        assert lsns(engine.read(name, 1, 10_000)) == list(range(1, number + 2))


def test_trim_forgets_the_beginning(engine: LogEngine, make_writer: MakeWriter) -> None:
    writer = make_writer()
    filled(engine, writer, 5)
    engine.trim("orders", 4)
    assert (engine.first("orders"), engine.tail("orders")) == (4, 5)
    assert lsns(engine.read("orders", 4, 1000)) == [4, 5]
    with pytest.raises(Trimmed) as caught:
        engine.read("orders", 3, 1000)
    assert caught.value.first_lsn == 4
    engine.trim("orders", 2)
    assert engine.first("orders") == 4
    assert engine.commit([writer.append()]) == [None]


def test_trim_keeps_the_last_entry(engine: LogEngine, make_writer: MakeWriter) -> None:
    writer = make_writer()
    filled(engine, writer, 3)
    engine.trim("orders", 100)
    assert (engine.first("orders"), engine.tail("orders")) == (3, 3)
    engine.reopen()
    assert engine.commit([writer.append()]) == [None]
    assert lsns(engine.read("orders", 3, 1000)) == [3, 4]


def test_trimming_an_empty_log_changes_nothing(engine: LogEngine) -> None:
    engine.create("a", 5)
    engine.trim("a", 10)
    assert (engine.first("a"), engine.tail("a")) == (5, 4)


def test_everything_survives_reopening(engine: LogEngine, make_writer: MakeWriter) -> None:
    writer = make_writer("a")
    written = filled(engine, writer, 4)
    engine.create("b", 9)
    engine.trim("a", 2)
    engine.reopen()
    assert engine.list() == ["a", "b"]
    assert (engine.tail("a"), engine.tail("b"), engine.first("b")) == (4, 8, 9)
    assert [entry.data for entry in engine.read("a", 2, 10_000)] == written[1:]
    assert engine.commit([writer.append()]) == [None]
    engine.reopen()
    assert engine.tail("a") == 5


def test_a_deleted_log_stays_deleted(engine: LogEngine, make_writer: MakeWriter) -> None:
    filled(engine, make_writer("a"), 3)
    kept = make_writer("b")
    filled(engine, kept, 2)
    engine.delete("a")
    engine.delete("a")
    engine.delete("never was")
    assert engine.list() == ["b"]
    engine.reopen()
    assert engine.list() == ["b"]
    assert engine.tail("b") == 2
    assert isinstance(engine.commit([make_writer("a").append()])[0], StorageError)


def test_a_name_can_be_used_again(engine: LogEngine, make_writer: MakeWriter) -> None:
    filled(engine, make_writer("a"), 3)
    engine.delete("a")
    again = make_writer("a", first_lsn=2)
    filled(engine, again, 1, b"new")
    engine.reopen()
    assert (engine.first("a"), engine.tail("a")) == (2, 2)
    assert engine.read("a", 2, 1000)[0].data.count(b"new") == 1


def test_large_entries_and_many_logs(engine: LogEngine, make_writer: MakeWriter) -> None:
    writers = [make_writer(f"log-{number}") for number in range(20)]
    for writer in writers:
        engine.create(writer.log_id, 1)
    for payload in (b"x" * 300_000, b"", b"z"):
        assert engine.commit([writer.append(payload) for writer in writers]) == [None] * 20
    engine.reopen()
    for writer in writers:
        assert [len(entry.data) for entry in engine.read(writer.log_id, 1, 10**6)] == [
            300_054,
            54,
            55,
        ]


def test_a_closed_engine_refuses(engine: LogEngine) -> None:
    engine.close()
    engine.close()
    with pytest.raises(Ambiguous):
        engine.list()
    engine.reopen()
    assert engine.list() == []


def test_truncation_removes_the_end(engine: Any, make_writer: MakeWriter) -> None:
    if isinstance(engine, ReplicatedLogEngine):
        pytest.skip("truncation is how a set is repaired, nothing that a set offers")
    written = filled(engine, make_writer(), 5)
    engine.truncate("orders", 9)
    assert engine.tail("orders") == 5
    engine.truncate("orders", 3)
    assert engine.tail("orders") == 3
    engine.reopen()
    assert [entry.data for entry in engine.read("orders", 1, 1000)] == written[:3]
    # The chain goes on from the entry that is the last now.
    other = make_writer()
    for _ in range(3):
        other.entry()
    assert engine.commit([other.append(b"another future")]) == [None]
    engine.truncate("orders", 0)
    assert (engine.first("orders"), engine.tail("orders")) == (1, 0)
    assert engine.commit([make_writer().append(b"another past")]) == [None]
    engine.reopen()
    assert engine.tail("orders") == 1
