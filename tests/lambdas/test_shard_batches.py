"""When a batch closes, what is skipped, and what is checkpointed: one rule at a time."""

from __future__ import annotations

import pytest

from millstream.lambdas.batches import (
    Checkpoint,
    Discard,
    Failure,
    Invoke,
    LaneCheckpoint,
    Pulled,
    Replace,
    Success,
    checkpoints_at,
)
from millstream.lambdas.settings import MappingSettings
from millstream.lambdas.shard import Shard, lane_of
from millstream.limits import (
    INVOCATION_ENVELOPE_BYTES,
    INVOCATION_PAYLOAD_BYTES_MAX,
    RECORD_AGE_MARGIN_MS,
    RECURSION_HOPS_MAX,
    SHARD_BUFFER_BYTES_MAX,
    SHARD_BUFFER_RECORDS_MIN,
)
from millstream.streams.sequence import sequence_text

ROOM_BYTES = INVOCATION_PAYLOAD_BYTES_MAX - INVOCATION_ENVELOPE_BYTES


def pulled(position, key=b"k", at=0, size=100, matches=True, hops=0):
    return Pulled(position, key, at, size, matches, hops, None)


def shard_of(*records, checkpoints=(), **members):
    shard = Shard(MappingSettings(**members), checkpoints)
    for record in records:
        shard.feed(record)
    return shard


def positions(effects):
    """The records of every invocation and discard, by position."""
    return [[r.position for r in e.records] for e in effects if isinstance(e, (Invoke, Discard))]


def rows(effects):
    return [e.checkpoint for e in effects if isinstance(e, Checkpoint)]


def run(shard, now_ms=0, payload=None):
    """Everything succeeds, until nothing more is to be done now; all effects."""
    all_effects = []
    while effects := shard.ready(now_ms):
        all_effects += effects
        for effect in effects:
            if isinstance(effect, Invoke):
                shard.finished(effect.lane, effect.batch_id, Success(payload), now_ms)
            elif isinstance(effect, Discard):
                shard.discarded(effect.lane, effect.batch_id)
    return all_effects


def keys_of_lanes(factor):
    """One key for each lane."""
    found = {}
    for number in range(10_000):
        key = b"%d" % number
        found.setdefault(lane_of(key, factor), key)
        if len(found) == factor:
            return [found[lane] for lane in range(factor)]
    raise AssertionError


# A batch closes


@pytest.mark.parametrize(
    ("count", "batch_size", "expected"),
    [
        (1, 1, [[1]]),
        (3, 1, [[1], [2], [3]]),
        (3, 2, [[1, 2], [3]]),
        (4, 2, [[1, 2], [3, 4]]),
        (3, 100, [[1, 2, 3]]),
    ],
)
def test_batch_size(count, batch_size, expected):
    shard = shard_of(*(pulled(n) for n in range(1, count + 1)), batch_size=batch_size)
    assert positions(run(shard)) == expected


def test_largest_batch_size():
    shard = shard_of(*(pulled(n) for n in range(1, 10_002)), batch_size=10_000)
    assert [len(batch) for batch in positions(run(shard))] == [10_000, 1]


@pytest.mark.parametrize("window_seconds", [0.5, 1, 300])
def test_batching_window_counts_from_the_first_record(window_seconds):
    end_ms = 5000 + int(window_seconds * 1000)
    shard = shard_of(
        pulled(1, at=5000), pulled(2, at=5100), window_seconds=window_seconds, batch_size=3
    )
    assert shard.ready(5100) == []
    assert shard.deadline(5100) == end_ms
    assert shard.ready(end_ms - 1) == []
    assert positions(shard.ready(end_ms)) == [[1, 2]]


def test_full_batch_does_not_wait_for_its_window():
    shard = shard_of(pulled(1), pulled(2), window_seconds=300, batch_size=2)
    assert shard.deadline(0) == 0
    assert positions(shard.ready(0)) == [[1, 2]]


def test_without_window_what_is_there_goes_at_once():
    assert positions(shard_of(pulled(1), pulled(2)).ready(0)) == [[1, 2]]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([ROOM_BYTES - 102, 100], [[1, 2]]),
        ([ROOM_BYTES - 101, 100], [[1], [2]]),
        ([2 * ROOM_BYTES, 100], [[1], [2]]),
        ([100, 2 * ROOM_BYTES, 100], [[1], [2], [3]]),
    ],
)
def test_payload_bytes(sizes, expected):
    records = [pulled(n, size=size) for n, size in enumerate(sizes, 1)]
    assert positions(run(shard_of(*records))) == expected


def test_shards_end_closes_a_batch():
    shard = shard_of(pulled(1), window_seconds=300)
    assert shard.ready(0) == []
    shard.end()
    assert positions(run(shard)) == [[1]]
    assert shard.is_done


def test_full_buffer_closes_batches():
    size = SHARD_BUFFER_BYTES_MAX // 20 + 1
    keys = keys_of_lanes(10)
    shard = Shard(MappingSettings(window_seconds=300, parallelization_factor=10))
    position = 0
    while shard.wants():
        position += 1
        shard.feed(pulled(position, key=keys[position % 10], size=size))
    assert position == 20
    assert all(len(batch) == 2 for batch in positions(shard.ready(0)))


def test_batch_does_not_wait_until_its_records_are_too_old():
    shard = shard_of(pulled(1), batch_size=2, window_seconds=300, maximum_record_age_seconds=60)
    due_ms = 60_000 - RECORD_AGE_MARGIN_MS
    assert shard.deadline(0) == due_ms
    assert shard.ready(due_ms - 1) == []
    assert positions(shard.ready(due_ms)) == [[1]]


# Lanes


def test_one_batch_in_flight_for_each_lane_and_order_per_key():
    keys = keys_of_lanes(3)
    records = [pulled(n, key=keys[n % 3]) for n in range(1, 10)]
    shard = shard_of(*records, parallelization_factor=3, batch_size=2)
    effects = shard.ready(0)
    assert [e.lane for e in effects] == [0, 1, 2]
    assert positions(effects) == [[3, 6], [1, 4], [2, 5]]
    assert shard.ready(0) == []
    shard.finished(1, effects[1].batch_id, Success(), 0)
    assert positions(shard.ready(0)) == [[7]]


def test_failing_lane_blocks_only_itself():
    one, other = keys_of_lanes(2)
    shard = shard_of(pulled(1, key=one), pulled(2, key=other), parallelization_factor=2)
    first, _second = shard.ready(0)
    shard.finished(0, first.batch_id, Failure(), 0)
    shard.feed(pulled(3, key=one))
    shard.feed(pulled(4, key=other))
    shard.finished(1, _second.batch_id, Success(), 0)
    assert positions(shard.ready(0)) == [[4]]
    assert positions(shard.ready(100)) == [[1]]


def test_lane_is_a_stable_hash():
    assert [lane_of(b"item-%d" % n, 10) for n in range(8)] == [5, 1, 7, 1, 0, 4, 2, 2]
    assert lane_of(b"anything", 1) == 0


def test_an_unknown_batch_is_an_error_of_the_owner():
    shard = shard_of(pulled(1))
    (invoke,) = shard.ready(0)
    with pytest.raises(AssertionError):
        shard.finished(0, invoke.batch_id + 1, Success(), 0)
    with pytest.raises(AssertionError):
        shard.discarded(0, invoke.batch_id)


def test_positions_increase():
    shard = shard_of(pulled(2))
    with pytest.raises(AssertionError):
        shard.feed(pulled(2))


# Bounds


def test_wants_counts_down_and_up():
    shard = shard_of(pulled(1), batch_size=1)
    assert shard.wants() == SHARD_BUFFER_RECORDS_MIN - 1
    run(shard)
    assert shard.wants() == SHARD_BUFFER_RECORDS_MIN


def test_wants_is_two_batches_for_each_lane():
    assert shard_of(batch_size=10_000, parallelization_factor=3).wants() == 60_000


def test_filtered_records_take_no_room():
    shard = shard_of(*(pulled(n, matches=False) for n in range(1, 50)))
    assert shard.wants() == SHARD_BUFFER_RECORDS_MIN


def test_wants_nothing_beyond_the_bytes():
    shard = shard_of(pulled(1, size=SHARD_BUFFER_BYTES_MAX - 1))
    assert shard.wants() > 0
    shard.feed(pulled(2, size=1))
    assert shard.wants() == 0


def test_wants_nothing_after_the_end():
    shard = shard_of()
    shard.end()
    assert shard.wants() == 0
    assert shard.is_done


# Filtered records


def test_filtered_records_advance_the_checkpoint_without_an_invocation():
    shard = shard_of(*(pulled(n, matches=False) for n in (1, 2, 3)))
    assert shard.position == 3
    assert not shard.is_idle
    assert shard.ready(0) == [Checkpoint(0, LaneCheckpoint(0, 1, 3, 3))]
    assert shard.is_idle
    assert shard.ready(0) == []


def test_filtered_records_are_not_delivered_and_not_counted():
    records = [pulled(n, matches=n % 2 == 0) for n in range(1, 9)]
    assert positions(run(shard_of(*records, batch_size=2))) == [[2, 4], [6, 8]]


@pytest.mark.parametrize("fed_when", ["before", "in flight", "waiting to retry"])
def test_trailing_filtered_record_waits_for_the_record_before_it(fed_when):
    shard = shard_of(pulled(1))
    if fed_when == "before":
        shard.feed(pulled(2, matches=False))
    (invoke,) = shard.ready(0)
    if fed_when == "in flight":
        shard.feed(pulled(2, matches=False))
    assert shard.position == 0
    assert shard.ready(0) == []
    if fed_when == "waiting to retry":
        shard.finished(0, invoke.batch_id, Failure(), 0)
        shard.feed(pulled(2, matches=False))
        (invoke,) = shard.ready(100)
    shard.finished(0, invoke.batch_id, Success(), 100)
    assert shard.ready(100) == [Checkpoint(0, LaneCheckpoint(0, 1, 2, 2))]


def test_filtered_record_of_another_lane_does_not_pass_an_unfinished_one():
    one, other = keys_of_lanes(2)
    shard = shard_of(
        pulled(1, key=other, matches=False),
        pulled(2, key=one),
        pulled(3, key=other, matches=False),
        parallelization_factor=2,
    )
    checkpoint, _invoke = shard.ready(0)
    assert checkpoint.checkpoint.floor == 1
    assert shard.position == 1


# Checkpoints


def test_preview_says_what_a_success_leads_to():
    shard = shard_of(pulled(1), pulled(2), batch_size=2)
    (invoke,) = shard.ready(0)
    row = shard.preview(0, invoke.batch_id, {"any": "thing"})
    assert row == LaneCheckpoint(0, 1, 2, 2)
    assert shard.position == 0
    shard.finished(0, invoke.batch_id, Success({"any": "thing"}), 0)
    assert shard.ready(0) == [Checkpoint(0, row)]


def test_what_was_committed_with_the_handlers_writes_is_not_given_out_again():
    shard = shard_of(pulled(1))
    (invoke,) = shard.ready(0)
    row = shard.preview(0, invoke.batch_id, None)
    shard.finished(0, invoke.batch_id, Success(), 0, committed=row)
    assert shard.ready(0) == []
    assert shard.is_idle


def test_row_committed_before_a_filtered_record_came_is_followed_by_another():
    shard = shard_of(pulled(1))
    (invoke,) = shard.ready(0)
    row = shard.preview(0, invoke.batch_id, None)
    shard.feed(pulled(2, matches=False))
    shard.finished(0, invoke.batch_id, Success(), 0, committed=row)
    assert rows(shard.ready(0)) == [LaneCheckpoint(0, 1, 2, 2)]


def test_preview_does_not_rely_on_progress_that_no_row_tells_yet():
    one, other = keys_of_lanes(2)
    shard = shard_of(pulled(1, key=one), pulled(2, key=other), parallelization_factor=2)
    first, second = shard.ready(0)
    shard.finished(0, first.batch_id, Success(), 0)
    assert shard.preview(1, second.batch_id, None) == LaneCheckpoint(1, 2, 2, 0)
    assert rows(shard.ready(0)) == [LaneCheckpoint(0, 2, 1, 1)]
    assert shard.preview(1, second.batch_id, None) == LaneCheckpoint(1, 2, 2, 2)


def test_only_the_last_row_tells_the_new_floor():
    one, other = keys_of_lanes(2)
    shard = shard_of(pulled(1, key=one), pulled(2, key=other), parallelization_factor=2)
    for invoke in shard.ready(0):
        shard.finished(invoke.lane, invoke.batch_id, Success(), 0)
    assert rows(shard.ready(0)) == [LaneCheckpoint(0, 2, 1, 0), LaneCheckpoint(1, 2, 2, 2)]


def test_lane_ahead_is_not_delivered_again_after_a_restart():
    one, other = keys_of_lanes(2)
    records = [pulled(n, key=one if n % 2 else other) for n in range(1, 7)]
    shard = shard_of(*records, parallelization_factor=2, batch_size=1)
    _first, second = shard.ready(0)
    shard.finished(1, second.batch_id, Success(), 0)
    stored = rows(shard.ready(0))
    assert stored == [LaneCheckpoint(1, 2, 2, 0)]
    again = Shard(MappingSettings(parallelization_factor=2), stored)
    assert again.start_position() == 0
    for record in records:
        again.feed(record)
    assert positions(run(again)) == [[1, 3, 5], [4, 6]]


@pytest.mark.parametrize("factor", [1, 2, 5, 10])
def test_reset_to_a_position(factor):
    shard = shard_of(parallelization_factor=factor, checkpoints=checkpoints_at(7))
    assert shard.start_position() == 7
    shard.feed(pulled(8))
    assert positions(run(shard)) == [[8]]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3), (3, 10), (10, 3)])
def test_another_factor_repeats_nothing_and_skips_nothing(before, after):
    keys = [b"%d" % n for n in range(12)]
    records = [pulled(n + 1, key=keys[n % 12]) for n in range(36)]
    shard = shard_of(*records, parallelization_factor=before, batch_size=1)
    stored = {}
    done = []
    # The first lane never gets on; the others do.
    for _ in range(2):
        for effect in shard.ready(0):
            if isinstance(effect, Checkpoint):
                stored[effect.lane] = effect.checkpoint
            elif effect.lane > 0:
                shard.finished(effect.lane, effect.batch_id, Success(), 0)
                done.append(effect.records[0].position)
    for effect in rows(shard.ready(0)):
        stored[effect.lane] = effect
    again = Shard(MappingSettings(parallelization_factor=after), list(stored.values()))
    for record in records[again.start_position() :]:
        again.feed(record)
    effects = run(again)
    delivered = [position for batch in positions(effects) for position in batch]
    assert sorted(done + delivered) == list(range(1, 37))
    if stored:
        assert isinstance(effects[0], Replace)
        assert [row.lane for row in effects[0].checkpoints] == list(range(after))
    assert all(row.earlier == () for row in rows(effects)[-1:])


def test_earlier_lanes_survive_a_crash_in_the_middle():
    one, other = keys_of_lanes(2)
    stored = [LaneCheckpoint(1, 2, 4, 0)]
    first = Shard(MappingSettings(parallelization_factor=3), stored)
    (replace,) = first.ready(0)
    second = Shard(MappingSettings(parallelization_factor=1), replace.checkpoints)
    for position, key in [(1, one), (2, other), (3, one), (4, other), (5, other)]:
        second.feed(pulled(position, key=key))
    assert positions(run(second)) == [[1, 3, 5]]


def test_earlier_lanes_stay_in_the_rows_until_the_floor_has_passed_them():
    one, other = keys_of_lanes(2)
    shard = shard_of(batch_size=1, checkpoints=[LaneCheckpoint(1, 2, 6, 0)])
    for position, key in enumerate([one, other, one, other, one, other, one], 1):
        shard.feed(pulled(position, key=key))
    # After 1 and 3; after 5 all up to 6 is done; after 7.
    left = [len(row.earlier) for row in rows(run(shard))]
    assert left == [1, 1, 0, 0]


# Settings at run time


def test_adopted_settings_hold_for_the_next_batch():
    shard = shard_of(*(pulled(n) for n in range(1, 6)), batch_size=1)
    (invoke,) = shard.ready(0)
    assert shard.adopt(MappingSettings(batch_size=3, report_batch_item_failures=True))
    # The batch in flight is judged by what held when it was invoked.
    failed = {"batchItemFailures": [{"itemIdentifier": sequence_text(1)}]}
    shard.finished(0, invoke.batch_id, Success(failed), 0)
    assert positions(shard.ready(0)) == [[2, 3, 4]]


def test_another_factor_is_not_adopted():
    shard = shard_of(pulled(1))
    assert not shard.adopt(MappingSettings(parallelization_factor=2, batch_size=1))
    assert positions(shard.ready(0)) == [[1]]


# Recursion


@pytest.mark.parametrize(
    ("hops", "is_delivered"), [(RECURSION_HOPS_MAX - 1, True), (RECURSION_HOPS_MAX, False)]
)
def test_recursion_is_cut(hops, is_delivered):
    (effect,) = shard_of(pulled(1, hops=hops)).ready(0)
    assert isinstance(effect, Invoke) == is_delivered
    if isinstance(effect, Discard):
        assert effect.condition == "RecursiveLoopDetected"
        assert effect.attempts == 0


def test_recursive_records_go_alone():
    hops = [0, RECURSION_HOPS_MAX, RECURSION_HOPS_MAX, 0, 0]
    records = [pulled(n, hops=h) for n, h in enumerate(hops, 1)]
    effects = run(shard_of(*records))
    assert positions(effects) == [[1], [2, 3], [4, 5]]
    kinds = [type(e) for e in effects if not isinstance(e, Checkpoint)]
    assert kinds == [Invoke, Discard, Invoke]


def test_nothing_passes_a_discard_that_is_not_stored_yet():
    shard = shard_of(pulled(1, hops=RECURSION_HOPS_MAX), pulled(2))
    (discard,) = shard.ready(0)
    assert shard.ready(10**9) == []
    assert shard.position == 0
    shard.discarded(0, discard.batch_id)
    assert positions(shard.ready(0)) == [[2]]
    assert shard.position == 1


# A row that is stored beside the work must not meet the one that is committed with it


def test_no_row_is_given_out_for_a_lane_at_work():
    """It would replace the newer row that is being committed with the handler's writes."""
    first, second, third = keys_of_lanes(3)
    shard = shard_of(
        pulled(1, second), pulled(2, third), pulled(3, first), pulled(4, second),
        parallelization_factor=3, batch_size=1,
    )  # fmt: skip
    calls = {call.lane: call for call in shard.ready(0)}
    committed = {lane: shard.preview(lane, calls[lane].batch_id, None) for lane in (1, 2)}
    for lane in (2, 1):
        shard.finished(lane, calls[lane].batch_id, Success(), 0, committed=committed[lane])
    # Up to 2 all is done, and no row says so yet; lane 0 is still at work.
    effects = shard.ready(0)
    assert [effect.lane for effect in effects if isinstance(effect, Checkpoint)] == [1]
    assert [row.floor for row in rows(effects)] == [2]


def test_where_every_lane_is_at_work_progress_is_told_later():
    first, second, third = keys_of_lanes(3)
    shard = shard_of(
        pulled(1, second), pulled(2, third), pulled(3, first), pulled(4, second), pulled(5, third),
        parallelization_factor=3, batch_size=1,
    )  # fmt: skip
    calls = {call.lane: call for call in shard.ready(0)}
    rows_of = {lane: shard.preview(lane, calls[lane].batch_id, None) for lane in (1, 2)}
    shard.finished(1, calls[1].batch_id, Success(), 0, committed=rows_of[1])
    (again,) = shard.ready(0)
    assert isinstance(again, Invoke)
    shard.finished(2, calls[2].batch_id, Success(), 0, committed=rows_of[2])
    found = shard.ready(0)
    assert {effect.lane for effect in found if isinstance(effect, Checkpoint)} <= {2}
    assert not shard.is_idle
    run(shard)
    for call in (calls[0], again, *(e for e in found if isinstance(e, Invoke))):
        shard.finished(call.lane, call.batch_id, Success(), 0)
    assert rows(run(shard))[-1].floor == 5
    assert shard.is_idle
