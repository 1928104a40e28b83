"""Random histories of one shard: records, results, crashes at any moment, changed settings.

The model is the world round the machine: the stream, the rows that are durable, the handler. It
checks every effect against what has happened, and at the end that nothing is left.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import settings as profile
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from millstream.lambdas.batches import (
    RECORD_AGE_EXCEEDED,
    RECURSIVE_LOOP_DETECTED,
    RETRY_ATTEMPTS_EXHAUSTED,
    Checkpoint,
    Discard,
    Failure,
    Invoke,
    LaneCheckpoint,
    Pulled,
    Replace,
    Success,
)
from millstream.lambdas.settings import MappingSettings
from millstream.lambdas.shard import Shard, lane_of
from millstream.limits import (
    INVOCATION_PAYLOAD_BYTES_MAX,
    RECURSION_HOPS_MAX,
    WINDOW_STATE_BYTES_MAX,
)
from millstream.streams.sequence import sequence_text

KEYS = [b"a", b"b", b"c", b"d", b"e", b"f", b"g"]
SIZES = [100, 100, 100, 400_000, INVOCATION_PAYLOAD_BYTES_MAX // 2]

SETTINGS = st.builds(
    MappingSettings,
    batch_size=st.sampled_from([1, 2, 3, 5, 100]),
    window_seconds=st.sampled_from([0, 0, 0.5, 30, 300]),
    parallelization_factor=st.sampled_from([1, 1, 2, 3, 10]),
    bisect_batch_on_function_error=st.booleans(),
    maximum_retry_attempts=st.sampled_from([-1, 0, 1, 3]),
    maximum_record_age_seconds=st.sampled_from([-1, -1, 60, 3600]),
    report_batch_item_failures=st.booleans(),
    tumbling_window_seconds=st.sampled_from([0, 0, 1, 30]),
)
RECORDS = st.lists(
    st.tuples(
        st.sampled_from(KEYS),
        st.sampled_from(SIZES),
        st.sampled_from([True, True, True, False]),
        st.sampled_from([0, 0, 0, 0, 0, RECURSION_HOPS_MAX - 1, RECURSION_HOPS_MAX]),
        st.sampled_from([0, 0, 1, 700, 31_000]),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=25,
)


class World(RuleBasedStateMachine):
    @initialize(settings=SETTINGS, records=RECORDS)
    def begin(
        self, settings: MappingSettings, records: list[tuple[bytes, int, bool, int, int, int]]
    ) -> None:
        self.now_ms = 1_000_000
        self.settings = settings
        self.batch_size_max = settings.batch_size
        self.stream: list[Pulled] = []
        self.fed = 0
        self.rows: dict[int, LaneCheckpoint] = {}
        self.in_flight: dict[int, Invoke | Discard] = {}
        #: Position -> condition, "" for a success; whatever is durable of it.
        self.fate: dict[int, str] = {}
        self.deliveries: dict[int, int] = {}
        self.finals: list[list[int]] = []
        self.is_smooth = True
        self.has_crashed = False
        self.has_lost_state = False
        self.was_always_windowed = settings.tumbling_window_seconds > 0
        self.shard = Shard(settings)
        assert self.shard.start_position() == 0
        self.write(records)

    # The stream

    @rule(records=RECORDS)
    def write(self, records: list[tuple[bytes, int, bool, int, int, int]]) -> None:
        position = self.stream[-1].position if self.stream else 0
        for key, size_bytes, matches, hops, pause_ms, gap in records:
            self.now_ms += pause_ms
            position += gap
            self.stream.append(Pulled(position, key, self.now_ms, size_bytes, matches, hops, None))

    @rule(count=st.sampled_from([1, 3, 100]))
    def pull(self, count: int) -> None:
        for record in self.stream[self.fed :][: min(count, self.shard.wants())]:
            self.shard.feed(record)
            self.fed += 1

    # The machine's effects

    @rule()
    def carry_out(self) -> None:
        for effect in self.shard.ready(self.now_ms, self.fed == len(self.stream)):
            self.check_and_do(effect)
        deadline = self.shard.deadline(self.now_ms, self.fed == len(self.stream))
        assert deadline is None or deadline > self.now_ms

    @rule(count=st.integers(0, 4), settings=st.one_of(st.none(), SETTINGS))
    def crash_while_carrying_out(self, count: int, settings: MappingSettings | None) -> None:
        effects = self.shard.ready(self.now_ms, self.fed == len(self.stream))
        for effect in effects[:count]:
            self.check_and_do(effect)
        self.restart(settings)

    def check_and_do(self, effect: Any) -> None:
        match effect:
            case Replace(rows):
                assert [row.lane for row in rows] == list(range(len(rows)))
                covered = [r for r in self.stream if self.is_covered(r)]
                self.rows = {row.lane: row for row in rows}
                assert [r for r in self.stream if self.is_covered(r)] == covered
            case Checkpoint(lane, row):
                assert row.lane == lane
                self.store(row)
            case Invoke():
                self.check_invocation(effect)
                self.in_flight[effect.lane] = effect
            case Discard():
                self.check_discard(effect)
                self.in_flight[effect.lane] = effect

    def store(self, row: LaneCheckpoint) -> None:
        before = self.rows.get(row.lane)
        if before is not None:
            assert row.factor == before.factor
            assert row.position >= before.position
            assert row.floor >= before.floor
        self.rows[row.lane] = row
        for record in self.stream:
            if record.matches and self.is_covered(record):
                assert record.position in self.fate

    def is_covered(self, record: Pulled) -> bool:
        for row in self.rows.values():
            if record.position <= row.floor:
                return True
            for lane in (row, *row.earlier):
                if lane_of(record.key, lane.factor) == lane.lane:
                    if record.position <= lane.position:
                        return True
        return False

    def check_records(self, effect: Invoke | Discard) -> None:
        assert effect.lane not in self.in_flight
        positions = [record.position for record in effect.records]
        assert positions == sorted(set(positions))
        for record in effect.records:
            assert record.matches
            assert not self.is_covered(record)
            assert lane_of(record.key, self.settings.parallelization_factor) == effect.lane
            for other in self.stream:
                if other.position < record.position and other.key == record.key and other.matches:
                    assert other.position in self.fate or other.position in positions

    def check_invocation(self, invoke: Invoke) -> None:
        self.check_records(invoke)
        records = invoke.records
        assert records or (invoke.window is not None and invoke.window.is_final)
        assert len(records) <= self.batch_size_max
        size_bytes = sum(record.size_bytes + 1 for record in records)
        assert len(records) == 1 or size_bytes < INVOCATION_PAYLOAD_BYTES_MAX
        for record in records:
            assert record.hops < RECURSION_HOPS_MAX
            assert not self.is_too_old(record)
            self.deliveries[record.position] = self.deliveries.get(record.position, 0) + 1
            if invoke.window is not None:
                assert invoke.window.start_ms <= record.arrived_ms < invoke.window.end_ms
        retries = self.settings.maximum_retry_attempts
        assert retries < 0 or invoke.attempt <= 1 + retries
        if self.settings.tumbling_window_seconds > 0:
            assert invoke.window is not None
        if invoke.window is not None:
            seen = invoke.window.state.get("seen", [])
            assert len(seen) == len(set(seen))

    def is_too_old(self, record: Pulled) -> bool:
        age_ms = self.settings.maximum_record_age_seconds * 1000
        return 0 <= age_ms < self.now_ms - record.arrived_ms

    def check_discard(self, discard: Discard) -> None:
        self.check_records(discard)
        if discard.condition == RETRY_ATTEMPTS_EXHAUSTED:
            assert discard.attempts == 1 + self.settings.maximum_retry_attempts
            if self.settings.bisect_batch_on_function_error:
                assert len(discard.records) <= 1
        elif discard.condition == RECORD_AGE_EXCEEDED:
            assert all(self.is_too_old(record) for record in discard.records)
        else:
            assert discard.condition == RECURSIVE_LOOP_DETECTED
            assert all(record.hops >= RECURSION_HOPS_MAX for record in discard.records)

    # The handler's answers

    def take(self, at: int) -> Invoke | Discard:
        lanes = sorted(self.in_flight)
        return self.in_flight.pop(lanes[at % len(lanes)])

    def state_after(self, invoke: Invoke, done: int) -> dict[str, Any]:
        assert invoke.window is not None
        seen = list(invoke.window.state.get("seen", []))
        return {"seen": seen + [record.position for record in invoke.records[:done]]}

    def finish(self, invoke: Invoke, payload: Any, done: int, *, commits: bool) -> None:
        """The handler returns a payload that means that ``done`` records are done."""
        committed = None
        if commits:
            committed = self.shard.preview(invoke.lane, invoke.batch_id, payload)
            is_success = done > 0 or not invoke.records
            assert (committed is not None) == is_success
        for record in invoke.records[:done]:
            self.fate[record.position] = ""
        if committed is not None:
            self.store(committed)
        result = Success(payload)
        self.shard.finished(invoke.lane, invoke.batch_id, result, self.now_ms, committed=committed)

    @precondition(lambda self: self.in_flight)
    @rule(
        at=st.integers(0, 9), commits=st.booleans(), is_large=st.sampled_from([False] * 9 + [True])
    )
    def succeed(self, at: int, commits: bool, is_large: bool) -> None:
        effect = self.take(at)
        if isinstance(effect, Discard):
            for record in effect.records:
                self.fate[record.position] = effect.condition
            if not effect.records:
                self.has_lost_state = True
            self.shard.discarded(effect.lane, effect.batch_id)
            return
        payload: Any = None
        if effect.window is not None:
            state = self.state_after(effect, len(effect.records))
            if effect.window.is_final:
                self.finals.append(state["seen"])
            elif is_large:
                state["ballast"] = "x" * WINDOW_STATE_BYTES_MAX
            payload = {"state": state}
        self.finish(effect, payload, len(effect.records), commits=commits)

    @precondition(lambda self: self.in_flight)
    @rule(at=st.integers(0, 9), first=st.integers(0, 4), commits=st.booleans())
    def fail(self, at: int, first: int, commits: bool) -> None:
        effect = self.take(at)
        if isinstance(effect, Discard):
            self.in_flight[effect.lane] = effect
            return
        self.is_smooth = False
        if not self.settings.report_batch_item_failures or first >= len(effect.records):
            self.shard.finished(effect.lane, effect.batch_id, Failure(), self.now_ms)
            return
        failed = [{"itemIdentifier": sequence_text(r.position)} for r in effect.records[first:]]
        payload: dict[str, Any] = {"batchItemFailures": failed[::-1]}
        if effect.window is not None:
            payload["state"] = self.state_after(effect, first)
        self.finish(effect, payload, first, commits=commits)

    @rule(
        outcomes=st.lists(
            st.tuples(st.integers(0, 9), st.integers(-3, 3), st.booleans()), max_size=15
        )
    )
    def proceed(self, outcomes: list[tuple[int, int, bool]]) -> None:
        """What an owner does all day: so that histories get anywhere."""
        for at, first, commits in outcomes:
            self.pull(100)
            self.carry_out()
            if not self.in_flight:
                self.pass_time_until_deadline()
            elif first < 0 or isinstance(self.in_flight[sorted(self.in_flight)[0]], Discard):
                self.succeed(at, commits, False)
            else:
                self.fail(at, first, commits)

    # Time, settings, the end of the process

    @rule(step_ms=st.sampled_from([1, 99, 100, 1000, 61_000, 3_700_000]))
    def pass_time(self, step_ms: int) -> None:
        self.now_ms += step_ms

    @rule()
    def pass_time_until_deadline(self) -> None:
        deadline = self.shard.deadline(self.now_ms, self.fed == len(self.stream))
        if deadline is not None:
            self.now_ms = max(self.now_ms, deadline)

    @rule(batch_size=st.sampled_from([1, 2, 4]), window_seconds=st.sampled_from([0, 1, 300]))
    def adopt(self, batch_size: int, window_seconds: float) -> None:
        changed = {**{f: getattr(self.settings, f) for f in self.settings.__struct_fields__}}
        changed |= {"batch_size": batch_size, "window_seconds": window_seconds}
        self.settings = MappingSettings(**changed)
        self.batch_size_max = max(self.batch_size_max, batch_size)
        assert self.shard.adopt(self.settings)

    @rule(settings=st.one_of(st.none(), SETTINGS))
    def crash(self, settings: MappingSettings | None) -> None:
        self.restart(settings)

    def restart(self, settings: MappingSettings | None) -> None:
        """Only the rows survive. What was in flight, or done and in no row, comes again."""
        self.has_crashed = True
        self.settings = settings or self.settings
        self.was_always_windowed &= self.settings.tumbling_window_seconds > 0
        self.batch_size_max = self.settings.batch_size
        self.in_flight = {}
        self.fate = {
            record.position: self.fate[record.position]
            for record in self.stream
            if record.position in self.fate and self.is_covered(record)
        }
        self.shard = Shard(self.settings, list(self.rows.values()))
        start = self.shard.start_position()
        self.fed = sum(1 for record in self.stream if record.position <= start)
        for record in self.stream[: self.fed]:
            assert not record.matches or record.position in self.fate

    def teardown(self) -> None:
        if not hasattr(self, "shard"):
            return
        for _ in range(100 + 20 * len(self.stream)):
            self.pull(100)
            if self.fed == len(self.stream):
                self.shard.end()
            self.carry_out()
            if self.in_flight:
                self.succeed(0, False, False)
            elif self.shard.is_done:
                break
            else:
                self.pass_time_until_deadline()
        assert self.shard.is_done
        assert self.shard.is_idle
        assert self.shard.wants() == 0
        assert self.shard.deadline(self.now_ms) is None
        last = self.stream[-1].position if self.stream else 0
        assert self.shard.position == last
        assert Shard(self.settings, list(self.rows.values())).start_position() == last
        matching = {record.position for record in self.stream if record.matches}
        assert set(self.fate) == matching
        succeeded = {position for position, fate in self.fate.items() if not fate}
        if self.is_smooth and not self.has_crashed:
            assert {p for p, count in self.deliveries.items() if count == 1} == succeeded
            assert set(self.deliveries) == succeeded
        self.check_finals(succeeded)

    def check_finals(self, succeeded: set[int]) -> None:
        """Each success is in one window's final state (in a repeated one, if it was repeated)."""
        if self.has_lost_state or not self.was_always_windowed:
            return
        told = [position for final in self.finals for position in final]
        assert set(told) >= succeeded
        if not self.has_crashed:
            assert sorted(told) == sorted(succeeded)


TestWorld = World.TestCase
TestWorld.settings = profile(max_examples=100, stateful_step_count=20, deadline=None)
