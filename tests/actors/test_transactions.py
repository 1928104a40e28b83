"""Transactions over one partition and over several, undisturbed and disturbed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.lowlevel
import trio.testing

from millstream.actors.data_directory import open_node
from millstream.actors.mailbox import Reply
from millstream.actors.node import Node, NodeSettings
from millstream.actors.tables import TableRef, TransactionAction
from millstream.errors import (
    IdempotentParameterMismatch,
    OutcomeUnknown,
    TransactionConflict,
    TransactionInProgress,
)
from millstream.expressions import compile_expressions
from millstream.host.buggify import set_buggify
from millstream.model.values import decode_item
from millstream.model.versions import NO_VERSION, Version
from millstream.storage.commands import (
    Check,
    Checked,
    CheckVersion,
    Contended,
    Decide,
    Outcome,
    Prepare,
    Promise,
    Refused,
    Written,
)

from .conftest import bodies, caught_up, delete, index, make_table, put

ABSENT = compile_expressions(condition="attribute_not_exists(pk)").condition
PRESENT = compile_expressions(condition="attribute_exists(pk)").condition
assert ABSENT is not None and PRESENT is not None


@pytest.fixture
async def tables(node: Node) -> tuple[TableRef, TableRef]:
    """Two tables, so that a transaction over both has two partitions."""
    return await make_table(node, name="one"), await make_table(node, name="two")


@pytest.fixture
def died() -> Iterator[list[str]]:
    """Lets the coordinator die at each step that a test puts into the list."""
    places: list[str] = []
    set_buggify(lambda place: place in places)
    yield places
    set_buggify(None)


async def transact(node: Node, *actions: tuple[TableRef, Any], **more: Any) -> Outcome:
    wanted = [TransactionAction(ref, command) for ref, command in actions]
    return await node.tables.transact_write(wanted, **more)


def value(ref: TableRef, pk: str) -> str | None:
    row = ref.get(put(ref, pk=pk).key)
    return None if row is None else decode_item(row.body)["v"]["S"]


def promised(*refs: TableRef) -> bool:
    return any(
        actor.machine.state.promises
        for ref in refs
        for actor in [ref.partition_of(put(ref, pk="x").key)]
    )


async def test_all_actions_take_effect(node: Node, tables: Any) -> None:
    one, two = tables
    outcome = await transact(
        node, (one, put(one, pk="a", v="1")), (two, put(two, pk="b", v="2"))
    )
    assert outcome.committed
    assert [type(result) for result in outcome.results] == [Written, Written]
    assert (value(one, "a"), value(two, "b")) == ("1", "2")
    assert not promised(one, two)


@pytest.mark.parametrize("same", [True, False])
async def test_one_false_condition_stops_all(node: Node, tables: Any, same: bool) -> None:
    one, two = tables
    if same:
        two = one
    await one.write(put(one, pk="a", v="old"))
    refused = msgspec.structs.replace(put(one, pk="a", v="new"), condition=ABSENT)
    check = Check(put(one, pk="c").key, PRESENT)
    outcome = await transact(
        node, (two, put(two, pk="b", v="2")), (one, refused), (one, check)
    )
    assert not outcome.committed
    assert [type(result) for result in outcome.results] == [Written, Refused, Refused]
    assert (value(one, "a"), value(two, "b")) == ("old", None)
    # Nobody waits for the partitions to be told; they have been asked before the answer.
    await two.write(put(two, pk="other", v="1"))
    assert not promised(two)


async def test_checks_write_nothing(node: Node, tables: Any) -> None:
    one, two = tables
    await one.write(put(one, pk="a", v="1"))
    row = one.get(put(one, pk="a").key)
    assert row is not None
    outcome = await transact(
        node,
        (one, Check(put(one, pk="a").key, PRESENT)),
        (one, CheckVersion(put(one, pk="z").key, NO_VERSION)),
        (two, put(two, pk="b", v="2")),
    )
    assert [type(result) for result in outcome.results] == [Checked, Checked, Written]
    assert one.get(put(one, pk="a").key) == row
    stale = CheckVersion(put(one, pk="a").key, Version(row.hlc - 1, row.region))
    outcome = await transact(node, (one, stale), (two, put(two, pk="b", v="3")))
    assert outcome.results[0] == Contended()
    assert value(two, "b") == "2"


async def test_all_effects_share_a_timestamp_above_what_was_there(
    node: Node, tables: Any
) -> None:
    one, two = tables
    await one.write(put(one, pk="a", v="0"))
    before = one.get(put(one, pk="a").key)
    await transact(node, (one, put(one, pk="a", v="1")), (two, put(two, pk="b", v="2")))
    rows = one.get(put(one, pk="a").key), two.get(put(two, pk="b").key)
    assert before is not None and rows[0] is not None and rows[1] is not None
    assert rows[0].hlc == rows[1].hlc == rows[0].transaction == rows[1].transaction
    assert rows[0].hlc > before.hlc
    await one.write(put(one, pk="a", v="2"))
    after = one.get(put(one, pk="a").key)
    assert after is not None and after.hlc > rows[0].hlc


async def test_a_held_item_refuses_writers_and_lets_readers_pass(
    node: Node, tables: Any
) -> None:
    one, two = tables
    await one.write(put(one, pk="a", v="old"))
    actor = one.partition_of(put(one, pk="a").key)
    command = msgspec.structs.replace(put(one, pk="a", v="new"), condition=PRESENT)
    promise = await actor.write(Prepare("t", (command,)))
    assert isinstance(promise, Promise)
    assert value(one, "a") == "old"
    with pytest.raises(TransactionConflict):
        await one.write(put(one, pk="a", v="other"))
    outcome = await transact(
        node, (two, put(two, pk="b", v="2")), (one, put(one, pk="a", v="x"))
    )
    assert outcome.results[1] == Contended()
    assert await node.tables.transact_get([(one, put(one, pk="a").key)]) == [Contended()]
    await actor.write(Decide("t", promise.bound))
    assert value(one, "a") == "new"
    await one.write(put(one, pk="a", v="other"))
    assert value(one, "a") == "other"


async def test_a_write_passes_a_transaction_that_does_not_depend_on_its_item(
    node: Node, tables: Any
) -> None:
    one, _ = tables
    await one.write(put(one, pk="a", v="0"))
    actor = one.partition_of(put(one, pk="a").key)
    promise = await actor.write(Prepare("t", (put(one, pk="a", v="last"), delete(one, "b"))))
    closed = actor.machine.closed_timestamp
    versions = []
    for number in range(3):
        await one.write(put(one, pk="a", v=str(number)))
        await one.write(put(one, pk="b", v=str(number)))
        row = one.get(put(one, pk="a").key)
        assert row is not None
        versions.append(row.hlc)
    assert versions == sorted(set(versions))
    assert closed < versions[0] and versions[-1] < promise.bound
    await actor.write(Decide("t", promise.bound))
    assert (value(one, "a"), value(one, "b")) == ("last", None)
    assert actor.machine.closed_timestamp >= promise.bound or not promised(one)


async def test_ending_a_transaction_twice_does_nothing_twice(node: Node, tables: Any) -> None:
    one, _ = tables
    actor = one.partition_of(put(one, pk="a").key)
    promise = await actor.write(Prepare("t", (put(one, pk="a", v="1"),)))
    await actor.write(Decide("t", promise.bound))
    await one.write(put(one, pk="a", v="2"))
    await actor.write(Decide("t", promise.bound))
    await actor.write(Decide("t", None))
    await actor.write(Decide("never heard of", promise.bound))
    assert value(one, "a") == "2"


async def test_indexes_see_a_transaction_only_after_its_commit(node: Node) -> None:
    one = await make_table(node, index("g", "a"), name="one")
    two = await make_table(node, name="two")
    await one.write(put(one, pk="1", a="x"))
    actor = one.partition_of(put(one, pk="1").key)
    promise = await actor.write(Prepare("t", (put(one, pk="1", a="y"),)))
    await caught_up(node)
    assert bodies(one, "g") == [put(one, pk="1", a="x").body]
    await one.write(put(one, pk="1", a="passing"))
    await actor.write(Decide("t", promise.bound))
    await caught_up(node)
    assert bodies(one, "g") == [put(one, pk="1", a="y").body]
    await transact(node, (one, put(one, pk="1", a="z")), (two, put(two, pk="1")))
    await caught_up(node)
    assert bodies(one, "g") == [put(one, pk="1", a="z").body]


@pytest.mark.parametrize("same", [True, False])
async def test_a_token_makes_a_request_idempotent(node: Node, tables: Any, same: bool) -> None:
    one, two = tables
    if same:
        two = one
    actions = [(one, put(one, pk="a", v="1")), (two, put(two, pk="b", v="1"))]
    outcome = await transact(node, *actions, token="t", request_hash=b"h")
    assert outcome.committed and not outcome.replayed
    await one.write(put(one, pk="a", v="later"))
    outcome = await transact(node, *actions, token="t", request_hash=b"h")
    assert outcome.replayed
    assert value(one, "a") == "later"
    with pytest.raises(IdempotentParameterMismatch):
        await transact(node, *actions, token="t", request_hash=b"other")


async def test_a_token_under_way_is_told_so(node: Node, tables: Any) -> None:
    one, two = tables
    actions = [(one, put(one, pk="a", v="1")), (two, put(two, pk="b", v="1"))]
    errors: list[Exception] = []

    async def try_it() -> None:
        try:
            await transact(node, *actions, token="t", request_hash=b"h")
        except TransactionInProgress as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(try_it)
        nursery.start_soon(try_it)
    assert len(errors) == 1


async def test_a_failed_transaction_does_not_use_its_token_up(node: Node, tables: Any) -> None:
    one, two = tables
    refused = msgspec.structs.replace(put(one, pk="a", v="1"), condition=PRESENT)
    actions = [(one, refused), (two, put(two, pk="b", v="1"))]
    assert not (await transact(node, *actions, token="t", request_hash=b"h")).committed
    await one.write(put(one, pk="a", v="0"))
    outcome = await transact(node, *actions, token="t", request_hash=b"h")
    assert outcome.committed and not outcome.replayed


STEPS = {
    "coordinator dies after prepare": None,
    "coordinator dies after the decision": "1",
    "coordinator dies between commits": "1",
}


@pytest.mark.parametrize("step", STEPS)
async def test_what_a_dead_coordinator_leaves_is_ended(
    node: Node, tables: Any, died: list[str], step: str
) -> None:
    one, two = tables
    died.append(step)
    with pytest.raises(OutcomeUnknown):
        await transact(node, (one, put(one, pk="a", v="1")), (two, put(two, pk="b", v="1")))
    died.clear()
    assert promised(one, two)
    assert node.coordinator is not None
    await node.coordinator.recover()
    assert not promised(one, two)
    assert (value(one, "a"), value(two, "b")) == (STEPS[step], STEPS[step])
    await one.write(put(one, pk="a", v="free"))


@pytest.mark.parametrize("step", STEPS)
async def test_a_restart_ends_what_was_prepared(
    tmp_path: Path, died: list[str], step: str
) -> None:
    path = str(tmp_path / "data")
    async with open_node(path, NodeSettings(), log_engine="segments") as node:
        one, two = await make_table(node, name="one"), await make_table(node, name="two")
        died.append(step)
        with pytest.raises(OutcomeUnknown):
            await transact(
                node,
                (one, put(one, pk="a", v="1")),
                (two, put(two, pk="b", v="1")),
                token="t",
                request_hash=b"h",
            )
        died.clear()
        assert promised(one, two)
    async with open_node(path, NodeSettings(), log_engine="segments") as node:
        found = [node.tables.find("", name) for name in ("one", "two")]
        assert found[0] is not None and found[1] is not None
        one, two = found[0], found[1]
        assert not promised(one, two)
        assert (value(one, "a"), value(two, "b")) == (STEPS[step], STEPS[step])
        outcome = await transact(
            node,
            (one, put(one, pk="a", v="1")),
            (two, put(two, pk="b", v="1")),
            token="t",
            request_hash=b"h",
        )
        assert outcome.replayed == (STEPS[step] is not None)


async def test_money_is_neither_made_nor_lost(node: Node) -> None:
    """Transfers between accounts of several partitions, optimistically, by many at once."""
    ref = await make_table(node, name="bank", partition_count=4)
    accounts = [str(number) for number in range(6)]
    await ref.write_many([put(ref, pk=name, v="100") for name in accounts])
    done = 0

    async def clerk(seed: int) -> None:
        nonlocal done
        for step in range(20):
            source = accounts[(seed + step) % 6]
            target = accounts[(seed * 5 + step * 3 + 1) % 6]
            if source == target:
                continue
            rows = await node.tables.transact_get(
                [(ref, put(ref, pk=name).key) for name in (source, target)]
            )
            if any(isinstance(row, Contended) or row is None for row in rows):
                await trio.lowlevel.checkpoint()
                continue
            old = [int(decode_item(row.body)["v"]["S"]) for row in rows]  # type: ignore[union-attr]
            checks = []
            for name, row, new in zip((source, target), rows, (old[0] - 1, old[1] + 1)):
                text = compile_expressions(condition="v = :v", values={":v": {"S": ""}}).condition
                assert row is not None and not isinstance(row, Contended)
                value = {":v": decode_item(row.body)["v"]}
                command = put(ref, pk=name, v=str(new))
                checks.append((ref, msgspec.structs.replace(command, condition=text, values=value)))
            outcome = await transact(node, *checks)
            done += outcome.committed

    async with trio.open_nursery() as nursery:
        for seed in range(12):
            nursery.start_soon(clerk, seed)
    assert done > 0
    total = sum(int(value(ref, name) or 0) for name in accounts)
    assert total == 600


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with open_node(None, NodeSettings()) as node:
        yield node


async def test_a_reader_never_sees_half_of_a_transaction(node: Node, tables: Any) -> None:
    """Reads at every moment while transactions write two tables alike."""
    one, two = tables
    await one.write(put(one, pk="a", v="0"))
    await two.write(put(two, pk="a", v="0"))
    seen = 0
    writing = True

    async def read() -> None:
        nonlocal seen
        while writing:
            keys = [(ref, put(ref, pk="a").key) for ref in (one, two)]
            rows = await node.tables.transact_get(keys)
            if not any(isinstance(row, Contended) for row in rows):
                seen += 1
                texts = {decode_item(row.body)["v"]["S"] for row in rows}  # type: ignore[union-attr]
                assert len(texts) == 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for number in range(1, 60):
            await transact(
                node,
                (one, put(one, pk="a", v=str(number))),
                (two, put(two, pk="a", v=str(number))),
            )
        writing = False
    assert seen > 0


async def test_nobody_waits_for_a_node_that_has_ended(tables: Any, node: Node) -> None:
    one, two = tables
    actor = one.partition_of(put(one, pk="a").key)
    actor.ask = lambda command: Reply()  # type: ignore[method-assign]  # never answered
    with pytest.RaisesGroup(OutcomeUnknown):
        async with trio.open_nursery() as nursery:
            assert node.coordinator is not None
            nursery.start_soon(_later, node.coordinator.abandon)
            await transact(node, (one, put(one, pk="a", v="1")), (two, put(two, pk="a", v="1")))


async def _later(action: Any) -> None:
    await trio.testing.wait_all_tasks_blocked()
    action()


async def test_a_retry_that_meets_the_end_of_its_first_attempt_does_nothing(
    node: Node, tables: Any, died: list[str]
) -> None:
    """Simulation seed 36: the token is not there yet when the retry begins."""
    one, two = tables
    actions = [(one, put(one, pk="a", v="1")), (two, put(two, pk="b", v="1"))]
    died.append("coordinator dies after the decision")
    with pytest.raises(OutcomeUnknown):
        await transact(node, *actions, token="t", request_hash=b"h")
    died.clear()
    outcomes: list[Outcome] = []

    async def retry() -> None:
        outcomes.append(await transact(node, *actions, token="t", request_hash=b"h"))

    assert node.coordinator is not None
    decide = node.coordinator._tell

    async def tell_and_retry(*arguments: Any) -> bool:
        # The ends are proposed, and the retry's promises behind them, before either is answered.
        nursery.start_soon(retry)
        return await decide(*arguments)

    async with trio.open_nursery() as nursery:
        node.coordinator._tell = tell_and_retry  # type: ignore[method-assign]
        await node.coordinator.recover()
        node.coordinator._tell = decide  # type: ignore[method-assign]
    assert [outcome.committed for outcome in outcomes] == [True]
    assert outcomes[0].replayed
    await two.write(put(two, pk="b", v="free"))
