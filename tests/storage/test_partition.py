"""The partition machine without an actor: what is decided, appended and answered, and when."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import Corrupt
from millstream.expressions import compile_expressions
from millstream.model.schema import (
    HASH_SPACE_END,
    KeyAttribute,
    KeySchema,
    LocalIndex,
    Projection,
    Status,
    Table,
)
from millstream.model.schema import Partition as PartitionRange
from millstream.model.values import Item, decode_item, encode_item, item_size_bytes
from millstream.model.versions import HybridClock
from millstream.storage.commands import Delete, Put, Refused, UpdateItem, Written
from millstream.storage.indexes import primary_key
from millstream.storage.log.entry import decode_entry
from millstream.storage.log.memory import MemoryLogEngine
from millstream.storage.partition import (
    Partition,
    Position,
    decode_position,
    encode_position,
)
from millstream.storage.records import Effect, decode_records
from millstream.storage.rows import decode_row
from millstream.storage.table_state import TableState
from millstream.storage.totals import Totals
from millstream.storage.tree.btree import BTree
from millstream.storage.tree.memory_store import MemoryStore

STRING = KeyAttribute("pk", "S"), KeyAttribute("sk", "S")
TABLE = Table(
    namespace="",
    name="t",
    table_id="t",
    status=Status.ACTIVE,
    created_ms=0,
    key=KeySchema((STRING[0],), (STRING[1],)),
    attribute_kinds={"pk": "S", "sk": "S", "a": "S"},
    tree=2,
    partitions=(PartitionRange("log", 0, HASH_SPACE_END - 1),),
    local_indexes=(
        LocalIndex(
            "by_a", KeySchema((STRING[0],), (KeyAttribute("a", "S"),)), Projection("ALL"), 3
        ),
    ),
)


class Asker:
    """A ticket that remembers its answer."""

    def __init__(self) -> None:
        self.answers: list[Any] = []

    def resolve(self, value: Any) -> None:
        self.answers.append(value)

    def fail(self, error: Exception) -> None:
        self.answers.append(error)


class Bench:
    """A machine, its tree and its log, driven by hand."""

    def __init__(
        self,
        engine: MemoryLogEngine | None = None,
        position: Position | None = None,
        nonce: int = 7,
    ) -> None:
        self.engine = engine or MemoryLogEngine()
        if "log" not in self.engine.list():
            self.engine.create("log", 1)
        self.btree = BTree(MemoryStore())
        totals = {} if position is None else position.totals
        held = {tree: Totals(*total) for tree, total in totals.items()}
        self.state = TableState(TABLE, self.btree, 0, held)
        self.machine = Partition("log", self.state, HybridClock(), nonce, position)
        for entry in self.engine.read("log", self.machine.lsn + 1, 1 << 30):
            self.machine.replay(entry.data)
        self.machine.start("owner")
        self.turn()

    def propose(self, command: Any) -> Asker:
        asker = Asker()
        self.machine.propose(asker, command, 1000)
        return asker

    def append(self) -> bool:
        append, answers = self.machine.ready(1000)
        for answer in answers:
            answer.ticket.resolve(answer.result)
        if append is not None:
            assert self.engine.commit([append]) == [None]
        return append is not None

    def commit(self) -> None:
        for answer in self.machine.committed():
            if answer.ticket is not None:
                answer.ticket.resolve(answer.result)

    def turn(self) -> None:
        while self.append():
            self.commit()

    def rows(self, tree: int = TABLE.tree) -> dict[bytes, bytes]:
        return {
            key: decode_row(key, data).body for key, data in self.btree.range(tree, b"", None)
        }


def put(sk: str, condition: str | None = None, **more: str) -> Put:
    item: Item = {name: {"S": text} for name, text in {"pk": "p", "sk": sk, **more}.items()}
    compiled = compile_expressions(condition=condition).condition if condition else None
    key = primary_key(TABLE, item)
    return Put(key, encode_item(item), item_size_bytes(item), compiled)


def delete(sk: str) -> Delete:
    return Delete(primary_key(TABLE, {"pk": {"S": "p"}, "sk": {"S": sk}}))


def update(sk: str, text: str, **values: Any) -> UpdateItem:
    key_item: Item = {"pk": {"S": "p"}, "sk": {"S": sk}}
    named = {":" + name: value for name, value in values.items()}
    compiled = compile_expressions(update=text, values=named).update
    return UpdateItem(primary_key(TABLE, key_item), key_item, compiled, None, named)


def test_nothing_is_answered_before_it_is_durable() -> None:
    bench = Bench()
    asker = bench.propose(put("a"))
    assert bench.append()
    assert asker.answers == [] and bench.rows() == {}
    bench.commit()
    assert isinstance(asker.answers[0], Written)
    assert list(bench.rows().values()) == [put("a").body]


def test_one_append_is_in_flight_at_a_time() -> None:
    bench = Bench()
    bench.propose(put("a"))
    assert bench.append()
    bench.propose(put("b"))
    assert not bench.append()
    bench.commit()
    assert bench.append()


def test_a_refusal_that_saw_a_pending_write_waits_for_it() -> None:
    bench = Bench()
    bench.propose(put("a"))
    assert bench.append()
    refused = bench.propose(put("a", "attribute_not_exists(pk)"))
    bench.append()
    assert refused.answers == []
    bench.commit()
    assert isinstance(refused.answers[0], Refused)


def test_a_refusal_that_saw_committed_rows_only_is_answered_at_once() -> None:
    bench = Bench()
    bench.propose(put("a"))
    bench.turn()
    bench.propose(put("b"))
    bench.append()
    refused = bench.propose(put("a", "attribute_not_exists(pk)"))
    bench.append()
    assert isinstance(refused.answers[0], Refused)


def test_a_write_that_changes_nothing_is_logged_silent() -> None:
    bench = Bench()
    for command in (put("a"), put("a"), delete("b")):
        bench.propose(command)
        bench.turn()
    payloads = [decode_entry(entry.data)[1] for entry in bench.engine.read("log", 1, 1 << 30)]
    records = [record for payload in payloads for record in decode_records(payload)]
    assert [record.silent for record in records if isinstance(record, Effect)] == [
        False,
        True,
        True,
    ]


def test_an_update_that_cannot_be_applied_changes_nothing() -> None:
    bench = Bench()
    bench.propose(put("a", v="text"))
    failed = bench.propose(update("a", "SET v = v + :one", one={"N": "1"}))
    bench.turn()
    assert isinstance(failed.answers[0], Exception)
    assert list(bench.rows().values()) == [put("a", v="text").body]


def test_failure_answers_everybody_who_waits() -> None:
    bench = Bench()
    askers = [bench.propose(put("a"))]
    bench.append()
    askers.append(bench.propose(put("b")))
    tickets = bench.machine.fail()
    assert set(map(id, tickets)) == set(map(id, askers))


def test_an_entry_that_does_not_follow_is_damage() -> None:
    bench = Bench()
    bench.propose(put("a"))
    bench.turn()
    foreign = Bench(nonce=8)
    foreign.propose(put("x"))
    foreign.turn()
    fresh = Partition(
        "log", TableState(TABLE, BTree(MemoryStore()), 0, {}), HybridClock(), 1, None
    )
    fresh.replay(bench.engine.read("log", 1, 1)[0].data)
    with pytest.raises(Corrupt):
        fresh.replay(foreign.engine.read("log", 2, 1)[0].data)


def test_local_index_entries_move_with_the_item() -> None:
    bench = Bench()
    for command in (put("1", a="x"), put("2"), put("1", a="y"), put("3", a="z"), delete("3")):
        bench.propose(command)
    bench.turn()
    assert list(bench.rows(3).values()) == [put("1", a="y").body]


COMMANDS = st.lists(
    st.one_of(
        st.builds(
            lambda sk, a: put(sk, a=a), st.sampled_from("abcd"), st.sampled_from(["x", "y"])
        ),
        st.builds(put, st.sampled_from("abcd")),
        st.builds(delete, st.sampled_from("abcd")),
        st.builds(
            lambda sk, text: update(sk, "SET a = :v", v={"S": text}),
            st.sampled_from("abcd"),
            st.sampled_from(["x", "z"]),
        ),
        st.just("append"),
        st.just("commit"),
    ),
    max_size=40,
)


@given(COMMANDS)
def test_replaying_the_log_gives_the_same_rows_and_totals(steps: list[Any]) -> None:
    bench = Bench()
    model: dict[bytes, Any] = {}
    flying = False
    for step in steps:
        if step == "append":
            flying = bench.append() or flying
        elif step == "commit":
            if flying:
                bench.commit()
                flying = False
        else:
            bench.propose(step)
            if isinstance(step, Put):
                model[step.key] = decode_item(step.body)
            elif isinstance(step, Delete):
                model.pop(step.key, None)
            else:
                model[step.key] = model.get(step.key, step.key_item) | {"a": step.values[":v"]}
    if flying:
        bench.commit()
    bench.turn()
    assert {key: decode_item(body) for key, body in bench.rows().items()} == model
    replayed = Bench(bench.engine)
    assert replayed.rows() == bench.rows()
    assert replayed.rows(3) == bench.rows(3)
    for tree in (TABLE.tree, 3):
        recount = Totals()
        for key, data in bench.btree.range(tree, b"", None):
            recount.replace(None, 0, data, decode_row(key, data).size_bytes)
        assert bench.state.totals[tree].as_tuple() == recount.as_tuple()
        assert replayed.state.totals[tree].as_tuple() == recount.as_tuple()


def test_a_position_survives_its_encoding() -> None:
    bench = Bench()
    bench.propose(put("a", a="x"))
    bench.turn()
    position = bench.machine.position()
    assert decode_position(encode_position(position)) == position
    with pytest.raises(Corrupt):
        decode_position(b"\xc1")
