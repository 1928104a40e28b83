"""Transactions whose coroutines are driven by hand, as the HTTP server drives them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio

from millstream.actors.mailbox import Reply
from millstream.actors.node import Node
from millstream.actors.tables import TableRef, TransactionAction
from millstream.api.rest import resumed
from millstream.errors import TransactionInProgress
from millstream.expressions import compile_expressions
from millstream.host.by_hand import advance
from millstream.storage.commands import Decide, Outcome, Prepare, Written

from .conftest import bodies, make_table, put

PRESENT = compile_expressions(condition="attribute_exists(pk)").condition


def begin(node: Node, *actions: tuple[TableRef, Any], **more: Any) -> tuple[Any, Any]:
    """The coroutine of a transaction, and what it gives at its first stop."""
    wanted = [TransactionAction(ref, command) for ref, command in actions]
    writing = node.tables.transact_write(wanted, **more)
    return writing, advance(writing)


async def end(writing: Any, reply: Reply) -> Outcome:
    """The result of a coroutine that has paused for ``reply``."""
    given = trio.Event()
    reply.when_given(given.set)
    await given.wait()
    with pytest.raises(StopIteration) as stop:
        advance(writing)
    outcome: Outcome = stop.value.value
    return outcome


async def test_one_partition_needs_no_task(node: Node) -> None:
    ref = await make_table(node)
    writing, paused = begin(
        node, (ref, put(ref, pk="a")), (ref, put(ref, pk="b")), token="t", request_hash=b"h"
    )
    assert isinstance(paused, Reply)
    with pytest.raises(TransactionInProgress):
        begin(node, (ref, put(ref, pk="a")), token="t", request_hash=b"h")
    outcome = await end(writing, paused)
    assert outcome.committed
    assert all(isinstance(result, Written) for result in outcome.results)
    assert len(bodies(ref)) == 2
    again = await node.tables.transact_write(
        [TransactionAction(ref, put(ref, pk="a"))], token="t", request_hash=b"h"
    )
    assert again.replayed


async def test_several_partitions_are_written_from_a_task(node: Node) -> None:
    one, two = await make_table(node, name="one"), await make_table(node, name="two")
    writing, trap = begin(node, (one, put(one, pk="a")), (two, put(two, pk="a")))
    assert not isinstance(trap, Reply)
    assert bodies(one) == bodies(two) == []
    assert (await resumed(writing, trap)).committed
    assert len(bodies(one)) == len(bodies(two)) == 1


async def test_who_meets_another_transaction_waits_in_a_task(node: Node) -> None:
    ref = await make_table(node)
    await ref.write(put(ref, pk="a", v="old"))
    actor = ref.partition_of(put(ref, pk="a").key)
    held = msgspec.structs.replace(put(ref, pk="a", v="held"), condition=PRESENT)
    promise = await actor.write(Prepare("t", (held,)))
    writing, paused = begin(node, (ref, put(ref, pk="a", v="new")))
    assert isinstance(paused, Reply)
    while not paused.is_given:
        await trio.lowlevel.checkpoint()
    trap = advance(writing)
    assert not isinstance(trap, Reply)
    await actor.write(Decide("t", promise.bound))
    outcome = await resumed(writing, trap)
    assert outcome.committed
    assert outcome.results[0].old.body == held.body


async def test_a_caller_cancelled_before_it_is_in_a_task_has_done_nothing(node: Node) -> None:
    one, two = await make_table(node, name="one"), await make_table(node, name="two")
    actions = (one, put(one, pk="a")), (two, put(two, pk="a"))
    writing, trap = begin(node, *actions, token="t", request_hash=b"h")
    with trio.CancelScope() as scope:
        scope.cancel()
        await resumed(writing, trap)
    assert scope.cancelled_caught
    assert bodies(one) == bodies(two) == []
    wanted = [TransactionAction(ref, command) for ref, command in actions]
    outcome = await node.tables.transact_write(wanted, token="t", request_hash=b"h")
    assert outcome.committed
    assert not outcome.replayed
