"""A database whose clock is moved by hand, and handlers that note what they are given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
import trio.testing

from millstream.database import Database, Table, open_database
from millstream.testing import ManualClock


class Calls:
    """Notes each invocation as the keys of its records, then does what ``act`` does.

    ``act`` is given the event, after it was noted; what it returns is the handler's answer.
    """

    def __init__(self, act: Callable[[dict[str, Any]], Any] | None = None) -> None:
        self.act = act
        #: The ids of each invocation's records, as one text: every id here is one letter.
        self.batches: list[str] = []
        self.events: list[dict[str, Any]] = []

    async def handler(self, event: dict[str, Any], context: Any) -> Any:
        self.events.append(event)
        self.batches.append(ids(event))
        return None if self.act is None else self.act(event)


def ids(event: dict[str, Any]) -> str:
    """The ids of an event's records, one after the other."""
    return "".join(record["dynamodb"]["Keys"]["id"]["S"] for record in event["Records"])


async def quiet() -> None:
    """Everything that can be done now, without time passing, is done."""
    await trio.testing.wait_all_tasks_blocked(0.002)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def db(clock: ManualClock) -> AsyncIterator[Database]:
    async with open_database(clock=clock) as database:
        yield database


@pytest.fixture
async def orders(db: Database) -> Table:
    """A table with a stream, so that what is written is there before any trigger is."""
    return await db.create_table("orders", partition_key="id", stream="NEW_AND_OLD_IMAGES")


async def write(table: Table, letters: str) -> None:
    """One change for each letter, of the item that it names, one after the other."""
    for number, letter in enumerate(letters):
        await table.put({"id": letter, "n": number})


async def drain(db: Database, clock: ManualClock) -> None:
    """Everything is handled, as if as much time had passed as it takes."""
    with clock.jumping(), trio.fail_after(20):
        await db.drain()
