"""Tumbling windows: their bounds, the state that is carried, and how they end."""

from __future__ import annotations

import msgspec
import pytest

from millstream.lambdas.batches import (
    Checkpoint,
    Discard,
    Failure,
    Invoke,
    LaneCheckpoint,
    Pulled,
    Success,
    WindowCall,
    WindowState,
    window_members,
)
from millstream.lambdas.settings import MappingSettings
from millstream.lambdas.shard import Shard
from millstream.limits import WINDOW_STATE_BYTES_MAX
from millstream.streams.sequence import sequence_text

MINUTE_MS = 60_000


def pulled(position, at, matches=True, key=b"k"):
    return Pulled(position, key, at, 100, matches, 0, None)


def shard_of(*arrivals_ms, checkpoints=(), tumbling_window_seconds=60, **members):
    settings = MappingSettings(tumbling_window_seconds=tumbling_window_seconds, **members)
    shard = Shard(settings, checkpoints)
    for position, arrived_ms in enumerate(arrivals_ms, 1):
        shard.feed(pulled(position, arrived_ms))
    return shard


def run(shard, now_ms, **state):
    """A handler that counts; what it is told and given, as (positions, count so far, flags)."""
    seen = []
    while effects := shard.ready(now_ms):
        for effect in effects:
            if isinstance(effect, Invoke):
                call = effect.window
                flags = "F" * call.is_final + "E" * call.is_terminated_early
                positions = [record.position for record in effect.records]
                count = call.state.get("count", 0)
                seen.append((call.start_ms // 1000, positions, count, flags))
                payload = {"state": {"count": count + len(positions)}}
                shard.finished(effect.lane, effect.batch_id, Success(payload), now_ms)
    return seen


def stored(effects):
    return [e.checkpoint for e in effects if isinstance(e, Checkpoint)]


@pytest.mark.parametrize(
    ("arrivals_ms", "expected"),
    [
        ([0, 59_999], [(0, [1, 2], 0, "")]),
        ([59_999, 60_000], [(0, [1], 0, ""), (0, [], 1, "F"), (60, [2], 0, "")]),
        ([60_000, 119_999], [(60, [1, 2], 0, "")]),
        ([1, 600_001], [(0, [1], 0, ""), (0, [], 1, "F"), (600, [2], 0, "")]),
        # The clock was set back: the record stays in the window that is open.
        ([60_000, 59_000], [(60, [1], 0, ""), (60, [2], 1, "")]),
    ],
)
def test_windows_are_aligned_to_the_epoch(arrivals_ms, expected):
    shard = shard_of(*arrivals_ms[:1], batch_size=100)
    seen = run(shard, arrivals_ms[0])
    if expected[0][1] == [1, 2]:
        shard = shard_of(*arrivals_ms)
        seen = []
    else:
        shard.feed(pulled(2, arrivals_ms[1]))
    assert seen + run(shard, arrivals_ms[-1]) == expected


@pytest.mark.parametrize("length_seconds", [1, 900])
def test_shortest_and_longest_window(length_seconds):
    length_ms = length_seconds * 1000
    shard = shard_of(
        0, length_ms - 1, length_ms, tumbling_window_seconds=length_seconds, batch_size=100
    )
    assert run(shard, length_ms) == [
        (0, [1, 2], 0, ""),
        (0, [], 2, "F"),
        (length_seconds, [3], 0, ""),
    ]


def test_batch_does_not_cross_a_window():
    shard = shard_of(0, 1, 60_000, window_seconds=300)
    assert run(shard, 60_000)[0] == (0, [1, 2], 0, "")


def test_windows_end_closes_a_batch():
    shard = shard_of(50_000, window_seconds=300)
    assert shard.deadline(50_000) == 60_000
    assert shard.ready(59_999) == []
    assert run(shard, 60_000) == [(0, [1], 0, ""), (0, [], 1, "F")]


def test_state_is_carried_from_batch_to_batch_and_then_starts_empty():
    shard = shard_of(0, 1, 2, 60_000, batch_size=2)
    assert run(shard, 60_000) == [
        (0, [1, 2], 0, ""),
        (0, [3], 2, ""),
        (0, [], 3, "F"),
        (60, [4], 0, ""),
    ]


def test_window_ends_by_time_alone():
    shard = shard_of(10)
    run(shard, 10)
    assert shard.is_idle
    assert shard.deadline(10) == MINUTE_MS
    assert shard.ready(MINUTE_MS - 1) == []
    assert run(shard, MINUTE_MS) == [(0, [], 1, "F")]
    assert shard.deadline(MINUTE_MS) is None


def test_window_does_not_end_by_time_while_its_records_may_be_unread():
    shard = shard_of(10)
    run(shard, 10)
    assert shard.deadline(10, is_caught_up=False) is None
    assert shard.ready(MINUTE_MS, is_caught_up=False) == []
    shard.feed(pulled(2, 20))
    assert run(shard, MINUTE_MS) == [(0, [2], 1, ""), (0, [], 2, "F")]


@pytest.mark.parametrize(("now_ms", "flags"), [(MINUTE_MS - 1, "FE"), (MINUTE_MS, "F")])
def test_shards_end_ends_the_window(now_ms, flags):
    shard = shard_of(0)
    run(shard, 10)
    shard.end()
    assert not shard.is_done
    assert run(shard, now_ms) == [(0, [], 1, flags)]
    assert shard.is_done


def test_state_beyond_its_bound_ends_the_window_early():
    shard = shard_of(0, 1, batch_size=1)
    (invoke,) = shard.ready(1)
    frame = len(msgspec.json.encode({"x": ""}))
    largest = {"x": "y" * (WINDOW_STATE_BYTES_MAX - frame)}
    shard.finished(0, invoke.batch_id, Success({"state": largest}), 1)
    _checkpoint, invoke = shard.ready(1)
    assert invoke.window == WindowCall(0, MINUTE_MS, largest, False, False)
    larger = {"x": largest["x"] + "y"}
    shard.finished(0, invoke.batch_id, Success({"state": larger}), 1)
    assert not shard.is_idle
    _checkpoint, invoke = shard.ready(1)
    assert invoke.window == WindowCall(0, MINUTE_MS, larger, True, True)
    shard.finished(0, invoke.batch_id, Success({"state": {}}), 1)
    # The same window begins again.
    shard.feed(pulled(3, 2))
    assert run(shard, 2) == [(0, [3], 0, "")]


def test_window_is_cut_short_between_two_halves():
    shard = shard_of(0, 1, bisect_batch_on_function_error=True)
    (invoke,) = shard.ready(1)
    shard.finished(0, invoke.batch_id, Failure(), 1)
    (invoke,) = shard.ready(1)
    large = {"x": "y" * WINDOW_STATE_BYTES_MAX}
    shard.finished(0, invoke.batch_id, Success({"state": large}), 1)
    assert shard.deadline(1) == 1
    assert [flags for *_, flags in run(shard, 1)] == ["FE", ""]


@pytest.mark.parametrize(
    "payload",
    [None, {}, {"State": {}}, {"state": None}, {"state": []}, {"state": "x"}, [], "state"],
)
@pytest.mark.parametrize("is_final", [False, True])
def test_response_without_state_is_a_failure(payload, is_final):
    shard = shard_of(0, maximum_retry_attempts=0)
    if is_final:
        run(shard, 0)
    now_ms = MINUTE_MS if is_final else 0
    (invoke,) = shard.ready(now_ms)
    assert invoke.window.is_final == is_final
    assert shard.preview(0, invoke.batch_id, payload) is None
    shard.finished(0, invoke.batch_id, Success(payload), now_ms)
    (discard,) = shard.ready(now_ms)
    assert isinstance(discard, Discard)
    assert (len(discard.records), discard.attempts) == (0 if is_final else 1, 1)


def test_failing_final_call_blocks_the_lane():
    shard = shard_of(0)
    run(shard, 0)
    shard.feed(pulled(2, MINUTE_MS))
    (final,) = shard.ready(MINUTE_MS)
    shard.finished(0, final.batch_id, Failure(), MINUTE_MS)
    assert not shard.is_idle
    assert shard.ready(MINUTE_MS) == []
    (again,) = shard.ready(MINUTE_MS + 100)
    assert again.attempt == 2
    assert again.window == final.window
    shard.finished(0, again.batch_id, Success({"state": {}}), MINUTE_MS + 100)
    assert run(shard, MINUTE_MS + 100) == [(60, [2], 0, "")]


def test_final_call_that_is_given_up_ends_its_window():
    shard = shard_of(0, maximum_retry_attempts=0)
    run(shard, 0)
    (final,) = shard.ready(MINUTE_MS)
    shard.finished(0, final.batch_id, Failure(), MINUTE_MS)
    (discard,) = shard.ready(MINUTE_MS)
    assert (discard.records, discard.condition) == ((), "RetryAttemptsExhausted")
    shard.discarded(0, discard.batch_id)
    assert stored(shard.ready(MINUTE_MS)) == [LaneCheckpoint(0, 1, 1, 1)]
    assert shard.deadline(MINUTE_MS) is None


def test_final_call_is_tried_no_longer_than_a_record():
    shard = shard_of(0, maximum_record_age_seconds=60)
    run(shard, 0)
    late_ms = 10 * MINUTE_MS
    (final,) = shard.ready(late_ms)
    assert isinstance(final, Invoke)
    shard.finished(0, final.batch_id, Failure(), late_ms)
    assert shard.deadline(late_ms) == late_ms
    (discard,) = shard.ready(late_ms)
    assert discard.condition == "RecordAgeExceeded"


def test_partial_progress_brings_its_state():
    shard = shard_of(0, 1, 2, report_batch_item_failures=True)
    (invoke,) = shard.ready(2)
    failed = [{"itemIdentifier": sequence_text(3)}]
    payload = {"state": {"count": 2}, "batchItemFailures": failed}
    row = shard.preview(0, invoke.batch_id, payload)
    assert row == LaneCheckpoint(0, 1, 2, 2, (WindowState(0, MINUTE_MS, {"count": 2}),))
    shard.finished(0, invoke.batch_id, Success(payload), 2, committed=row)
    assert run(shard, 102) == [(0, [3], 2, "")]


def test_total_failure_leaves_the_state():
    shard = shard_of(0, 1, report_batch_item_failures=True)
    (invoke,) = shard.ready(2)
    payload = {"state": {"count": 9}, "batchItemFailures": [{"itemIdentifier": sequence_text(1)}]}
    shard.finished(0, invoke.batch_id, Success(payload), 2)
    assert run(shard, 102) == [(0, [1, 2], 0, "")]


def test_state_survives_a_restart():
    shard = shard_of(0, 1)
    (invoke,) = shard.ready(1)
    shard.finished(0, invoke.batch_id, Success({"state": {"count": 2}}), 1)
    rows = stored(shard.ready(1))
    assert rows == [LaneCheckpoint(0, 1, 2, 2, (WindowState(0, MINUTE_MS, {"count": 2}),))]
    packed = msgspec.msgpack.decode(msgspec.msgpack.encode(rows[0]), type=LaneCheckpoint)
    again = shard_of(checkpoints=[packed])
    again.feed(pulled(3, 5))
    assert run(again, 5) == [(0, [3], 2, "")]


def test_final_call_that_succeeded_is_not_repeated_after_a_restart():
    shard = shard_of(0)
    run(shard, 0)
    (final,) = shard.ready(MINUTE_MS)
    row = shard.preview(0, final.batch_id, {"state": {}})
    assert row == LaneCheckpoint(0, 1, 1, 1)
    assert shard_of(checkpoints=[row]).ready(MINUTE_MS) == []


def test_with_another_factor_open_windows_end_early():
    windows = [(WindowState(0, MINUTE_MS, {"count": n}),) for n in (1, 2, 3)]
    rows = [LaneCheckpoint(n, 3, 9, 9, window) for n, window in enumerate(windows)]
    shard = shard_of(checkpoints=rows)
    assert not shard.is_idle
    shard.feed(pulled(10, 5))
    assert run(shard, 5) == [
        (0, [], 1, "FE"),
        (0, [], 2, "FE"),
        (0, [], 3, "FE"),
        (0, [10], 0, ""),
    ]


@pytest.mark.parametrize("length_seconds", [0, 30])
def test_with_another_length_the_open_window_ends_early(length_seconds):
    shard = shard_of(0)
    run(shard, 0)
    assert shard.adopt(MappingSettings(tumbling_window_seconds=length_seconds))
    assert not shard.is_idle
    assert run(shard, 0) == [(0, [], 1, "FE")]


def test_lanes_have_windows_of_their_own():
    shard = Shard(MappingSettings(tumbling_window_seconds=60, parallelization_factor=2))
    for position, key in enumerate([b"a", b"b", b"c", b"d"], 1):
        shard.feed(pulled(position, 0, key=key))
    lanes = {e.lane: len(e.records) for e in shard.ready(0)}
    assert sorted(lanes) == [0, 1]
    shard = Shard(MappingSettings(tumbling_window_seconds=60, parallelization_factor=2))
    for position, key in enumerate([b"a", b"b", b"c", b"d"], 1):
        shard.feed(pulled(position, 0, key=key))
    run(shard, 0)
    assert sorted(run(shard, MINUTE_MS)) == sorted((0, [], n, "F") for n in lanes.values())


def test_members_of_the_event():
    call = WindowCall(1_596_128_400_000, 1_596_128_520_000, {"1": 282}, False, False)
    assert window_members(call) == {
        "window": {"start": "2020-07-30T17:00:00Z", "end": "2020-07-30T17:02:00Z"},
        "state": {"1": 282},
        "isFinalInvokeForWindow": False,
        "isWindowTerminatedEarly": False,
    }
