"""Random histories: whatever is written, set, broken and restarted, each handler gets its changes.

Writers, settings, failures and restarts are drawn; nothing else is random. An oracle (``Oracle``)
knows every change of every item in order, because each has a number of its own, and looks at each
invocation as it is made:

- the changes of an item come in order, none left out, none twice, as long as the database is open;
- what was given up was given up under a condition that the settings permit;
- after a restart an item goes on behind what the checkpoints say and not beyond what was handled;
- the state of a tumbling window tells of each of its changes once, restarts or not, and what was
  handled in windows is what their final calls tell of;
- in the end everything that the filter lets pass was handled or given up, and the checkpoints are
  behind all of it, what the filter keeps back included.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from typing import Any

import hypothesis.strategies as st
import msgspec
import trio
import trio.testing
from hypothesis import event as note
from hypothesis import given
from hypothesis import settings as profile

from millstream.database import Database, open_database
from millstream.lambdas.batches import LaneCheckpoint
from millstream.lambdas.shard import lane_of
from millstream.limits import RETRY_BACKOFF_MS_MAX
from millstream.model.keys import encode_component, table_key
from millstream.streams.sequence import parse_sequence
from millstream.testing import ManualClock

ITEMS = ("a", "b", "c", "d", "e")
AGE_SECONDS = 60
AGE_MS = 1000 * AGE_SECONDS
RED = {"dynamodb": {"NewImage": {"color": {"S": ["red"]}}}}


class Change(msgspec.Struct):
    """One change of an item, as it was written and, once it is known, where it stands."""

    item: str
    number: int
    matches: bool
    at_ms: int
    sequence: int = -1


class Step(msgspec.Struct, frozen=True):
    """What happens next: writes, time, failures of handlers, a restart with other settings."""

    writes: tuple[tuple[str, str], ...]
    seconds: float
    fate: int
    options: dict[str, Any] | None


def possible(drawn: dict[str, Any]) -> dict[str, Any]:
    """Windows and parallel batches exclude each other."""
    return {**drawn, "parallelization_factor": 1} if drawn["tumbling_window"] else drawn


options = st.fixed_dictionaries(
    {
        "batch_size": st.sampled_from([1, 2, 3, 10]),
        "window": st.sampled_from([0, 0, 0.2, 5]),
        "parallelization_factor": st.sampled_from([1, 1, 2, 3]),
        "bisect_batch_on_function_error": st.booleans(),
        "maximum_retry_attempts": st.sampled_from([-1, -1, 0, 2]),
        "maximum_record_age": st.sampled_from([-1, -1, AGE_SECONDS]),
        "report_batch_item_failures": st.booleans(),
        "tumbling_window": st.sampled_from([0, 0, 5, 60]),
    }
).map(possible)
writes = st.lists(
    st.tuples(st.sampled_from(ITEMS), st.sampled_from(["red", "red", "blue", "delete"])), max_size=8
).map(tuple)
steps = st.lists(
    st.builds(
        Step,
        writes=writes,
        seconds=st.sampled_from([0, 0, 0.1, 0.3, 1, 30, 61]),
        fate=st.integers(0, 3**10),
        options=st.none() | options,
    ),
    min_size=2,
    max_size=7,
)


class Oracle:
    """Knows what was written, and judges what a handler is given."""

    def __init__(self, clock: ManualClock, filtered: bool) -> None:
        self.clock = clock
        self.filtered = filtered
        self.options: dict[str, Any] = {}
        #: Item -> all its changes, in order.
        self.changes: dict[str, list[Change]] = defaultdict(list)
        #: Item -> how many of its changes that match are handled or given up.
        self.settled: dict[str, int] = defaultdict(int)
        #: Item -> settled when the last session ended; until its first delivery in this one.
        self.before: dict[str, int] = {}
        self.rows: list[LaneCheckpoint] = []
        #: Digits that decide, one after the other, what becomes of the next invocations.
        self.fate = 0
        self.invocations = 0
        #: Changes, by item and number, that were handled in a window; that final calls told of.
        self.windowed: set[str] = set()
        self.told: set[str] = set()
        self.lost_windows = 0
        #: What was seen to be wrong: raising in a handler would only have it retried.
        self.wrong: list[str] = []

    # What is written.

    def write(self, item: str, number: int, color: str) -> None:
        matches = not self.filtered or color == "red"
        self.changes[item].append(Change(item, number, matches, self.clock.now_ms()))

    def wanted(self, item: str) -> list[Change]:
        return [change for change in self.changes[item] if change.matches]

    # Sessions.

    def begin(self, options: dict[str, Any], rows: list[LaneCheckpoint]) -> None:
        """The database was opened again, and this is what is stored."""
        self.options, self.rows = options, rows
        self.before = dict(self.settled)

    def is_checkpointed(self, change: Change) -> bool:
        """Whether the stored rows say that a change is done."""
        key = table_key(encode_component("S", {"S": change.item}), None)
        for row in self.rows:
            if change.sequence <= row.floor:
                return True
            lanes = [(row.factor, row.lane, row.position)]
            lanes += [(past.factor, past.lane, past.position) for past in row.earlier]
            for factor, lane, position in lanes:
                if lane_of(key, factor) == lane and change.sequence <= position:
                    return True
        return False

    # What handlers are given.

    async def handler(self, event: dict[str, Any], context: Any) -> Any:
        records = event["Records"]
        self.invocations += 1
        is_final = event.get("isFinalInvokeForWindow", False)
        if len(records) > self.options["batch_size"] or (len(records) == 0) != is_final:
            self.wrong.append(f"a batch of {len(records)}")
        changes = self._identify(records)
        self._look(changes)
        seen = event.get("state", {}).get("seen", [])
        if len({*seen, *map(name, changes)}) != len(seen) + len(changes):
            self.wrong.append(f"a second time in the window: {changes} {seen}")
        self.fate, pauses = divmod(self.fate, 3)
        for _ in range(pauses):
            await trio.lowlevel.checkpoint()
        self.fate, what = divmod(self.fate, 3)
        if what == 1:
            raise ValueError("broken")
        if is_final:
            self.told.update(seen)
        answer: dict[str, Any] = {}
        if what == 2 and records and self.options["report_batch_item_failures"]:
            failed_at = self.invocations * 7 % len(records)
            number = records[failed_at]["dynamodb"]["SequenceNumber"]
            answer["batchItemFailures"] = [{"itemIdentifier": number}]
            changes = changes[:failed_at]
        if "window" in event:
            answer["state"] = {"seen": [*seen, *map(name, changes)]}
        self._settle(changes, "window" in event)
        return answer

    def on_failure(self, document: dict[str, Any]) -> None:
        condition = document["requestContext"]["condition"]
        changes = self._identify(document["event"]["Records"])
        self._look(changes)
        self.lost_windows += not changes
        limits = self.options
        is_permitted = (
            condition == "RetryAttemptsExhausted" and limits["maximum_retry_attempts"] >= 0
        ) or (
            condition == "RecordAgeExceeded"
            and limits["maximum_record_age"] == AGE_SECONDS
            and all(self.clock.now_ms() - change.at_ms > AGE_MS for change in changes)
        )
        if not is_permitted:
            self.wrong.append(f"given up: {condition}, {changes}, {limits}")
        self._settle(changes, False)

    def _identify(self, records: list[Any]) -> list[Change]:
        found = []
        for record in records:
            inner = record["dynamodb"]
            item = inner["Keys"]["id"]["S"]
            image = inner.get("NewImage") or inner["OldImage"]
            # The item's number counts its puts; what is removed has the number of the last one.
            kind = "delete" if record["eventName"] == "REMOVE" else "put"
            number = int(image["n"]["N"]) + (kind == "delete")
            change = next(c for c in self.changes[item] if c.number == number)
            sequence = parse_sequence(inner["SequenceNumber"])
            assert sequence is not None
            if change.sequence not in (-1, sequence):
                self.wrong.append(f"{change} is now {sequence}")
            change.sequence = sequence
            found.append(change)
        return found

    def _look(self, changes: list[Change]) -> None:
        """These are delivered (or given up) now: is it their turn?"""
        by_item: dict[str, list[Change]] = defaultdict(list)
        for change in changes:
            by_item[change.item].append(change)
        for item, here in by_item.items():
            wanted = self.wanted(item)
            if here[0] not in wanted:
                self.wrong.append(f"filtered: {here[0]}")
                continue
            first = wanted.index(here[0])
            if item in self.before:
                # The first of this item since the restart.
                if first > self.before.pop(item):
                    self.wrong.append(f"left out by the restart: before {here[0]}")
                if self.is_checkpointed(here[0]):
                    self.wrong.append(f"checkpointed and delivered: {here[0]}")
                self.settled[item] = first
            if first != self.settled[item]:
                self.wrong.append(f"{first} of {item} where {self.settled[item]} is next")
            if here != wanted[first : first + len(here)]:
                self.wrong.append(f"not in a row: {here}")

    def _settle(self, changes: list[Change], is_windowed: bool) -> None:
        for change in changes:
            self.settled[change.item] += 1
            if is_windowed:
                self.windowed.add(name(change))
            else:
                # Also if it was in a window before a restart that knew nothing of it.
                self.windowed.discard(name(change))
                self.told.discard(name(change))


def name(change: Change) -> str:
    return f"{change.item}{change.number}"


def stored_rows(db: Database) -> list[LaneCheckpoint]:
    """What the checkpoints of the only mapping say."""
    tools = db._mappings._tools
    return [
        row
        for mapping in db.triggers.list()
        for stream in tools.streams.of_namespace(mapping.namespace, "items")
        for shard in stream.shards
        for row in tools.checkpoints.load(mapping.uuid, shard.shard_id)
    ]


class World:
    """The items as they are, and the numbers of their changes."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._numbers: dict[str, int] = defaultdict(int)
        self._there: set[str] = set()

    async def write(self, db: Database, writes: tuple[tuple[str, str], ...]) -> None:
        """Each item's in order, different items' at once: they share log entries."""
        by_item: dict[str, list[str]] = {}
        for item, what in writes:
            by_item.setdefault(item, []).append(what)
        async with trio.open_nursery() as nursery:
            for item, kinds in by_item.items():
                nursery.start_soon(self._write_item, db, item, kinds)

    async def _write_item(self, db: Database, item: str, kinds: list[str]) -> None:
        table = db.table("items")
        for what in kinds:
            if what == "delete" and item not in self._there:
                continue
            self._numbers[item] += 1
            number = self._numbers[item]
            self._oracle.write(item, number, what)
            if what == "delete":
                self._there.discard(item)
                await table.delete({"id": item})
            else:
                self._there.add(item)
                await table.put({"id": item, "n": number, "color": what})


async def run_history(history: list[Step], first: dict[str, Any], filtered: bool) -> Oracle:
    """Live through a history, then let everything be handled."""
    clock = ManualClock()
    oracle = Oracle(clock, filtered)
    world = World(oracle)
    current = first
    left = list(history)
    with tempfile.TemporaryDirectory() as path, trio.fail_after(30):
        is_new, is_over = True, False
        while not is_over:
            async with open_database(path, clock=clock) as db:
                if is_new:
                    await db.create_table("items", partition_key="id", stream="NEW_AND_OLD_IMAGES")
                is_new = False
                oracle.begin(current, stored_rows(db))
                await db.add_trigger(
                    "items", oracle.handler, name="h", on_failure=oracle.on_failure,
                    filter=[RED] if filtered else [], **current,
                )  # fmt: skip
                while left:
                    step = left.pop(0)
                    oracle.fate = step.fate
                    await world.write(db, step.writes)
                    clock.advance(step.seconds)
                    if step.options is not None:
                        current = step.options
                        break
                    await trio.testing.wait_all_tasks_blocked()
                else:
                    # Everybody is well from now on.
                    is_over = True
                    oracle.fate = 0
                    with clock.jumping():
                        await db.drain()
                        # An open window keeps nobody waiting; its final call comes by itself.
                        while any(row.windows for row in stored_rows(db)):
                            await trio.lowlevel.checkpoint()
                    check_end(oracle, db)
                    invocations = oracle.invocations
                    clock.advance(2 * RETRY_BACKOFF_MS_MAX / 1000)
                    await db.drain()
                    assert oracle.invocations == invocations
        async with open_database(path, clock=clock) as db:
            oracle.begin(current, stored_rows(db))
            filter = [RED] if filtered else []
            await db.add_trigger("items", oracle.handler, name="h", filter=filter, **current)
            await db.drain()
            assert oracle.invocations == invocations, "delivered again after a restart"
    return oracle


def check_end(oracle: Oracle, db: Database) -> None:
    """Everything was handled or given up, and the checkpoints say so."""
    for item in ITEMS:
        assert oracle.settled[item] == len(oracle.wanted(item)), item
    assert oracle.told <= oracle.windowed
    if not oracle.lost_windows:
        assert oracle.told == oracle.windowed
    tools = db._mappings._tools
    (stream,) = tools.streams.of_namespace(db.triggers.list()[0].namespace, "items")
    (shard,) = stream.shards
    first = tools.streams.first_sequence(shard)
    changes = tools.streams.read(stream, shard, first, 10_000, 1 << 30).changes
    assert len(changes) == sum(map(len, oracle.changes.values()))
    # What the filter keeps back included.
    if changes:
        assert max(row.floor for row in stored_rows(db)) >= changes[-1].sequence


@given(history=steps, first=options, filtered=st.booleans())
@profile(max_examples=25)
def test_every_change_is_delivered_in_order(
    history: list[Step], first: dict[str, Any], filtered: bool
) -> None:
    oracle = trio.run(run_history, history, first, filtered)
    assert oracle.wrong == []
    restarts = sum(step.options is not None for step in history)
    note(f"restarts: {restarts}")
    note(f"invocations: {min(oracle.invocations // 5 * 5, 30)}")
