"""What becomes of a batch that fails: retries, halves, partial progress, age, giving up."""

from __future__ import annotations

import pytest

from millstream.lambdas.attempts import backoff_ms
from millstream.lambdas.batches import (
    Checkpoint,
    Discard,
    Failure,
    Invoke,
    Pulled,
    Success,
)
from millstream.lambdas.settings import MappingSettings
from millstream.lambdas.shard import Shard
from millstream.limits import RETRY_BACKOFF_MS_MAX, RETRY_BACKOFF_MS_MIN
from millstream.streams.sequence import sequence_text


def shard_of(count, arrived_ms=0, **members):
    shard = Shard(MappingSettings(**members))
    for position in range(1, count + 1):
        shard.feed(Pulled(position, b"k", arrived_ms, 100, True, 0, None))
    return shard


def naming(*positions):
    """A response that names these as failed."""
    return named(*(sequence_text(position) for position in positions))


def named(*identifiers):
    return {"batchItemFailures": [{"itemIdentifier": each} for each in identifiers]}


def history(shard, handler, until_ms=10**12, steps=200):
    """What a handler sees, as text: "123" an invocation, "-3 R2" a discard after two; time passes
    as it must. ``handler(positions)`` gives a Result.
    """
    seen = []
    now_ms = 0
    for _ in range(steps):
        effects = [e for e in shard.ready(now_ms) if not isinstance(e, Checkpoint)]
        for effect in effects:
            text = "".join(str(record.position) for record in effect.records)
            if isinstance(effect, Invoke):
                seen.append(text)
                result = handler([record.position for record in effect.records])
                shard.finished(effect.lane, effect.batch_id, result, now_ms)
            else:
                seen.append(f"-{text} {effect.condition[:3]}{effect.attempts}")
                shard.discarded(effect.lane, effect.batch_id)
        if not effects:
            deadline = shard.deadline(now_ms)
            if deadline is None or deadline > until_ms:
                break
            assert deadline > now_ms
            now_ms = deadline
    return seen


def poisoned(*bad):
    """A handler that raises at these positions."""
    return lambda positions: Failure() if set(bad) & set(positions) else Success()


def reporting(*bad):
    """A handler that names those of these that it was given."""
    return lambda positions: Success(naming(*(p for p in positions if p in bad)))


@pytest.mark.parametrize(
    ("count", "settings", "handler", "expected"),
    [
        # Retries: 1 + n, then given up whole.
        (2, {"maximum_retry_attempts": 0}, poisoned(1), ["12", "-12 Ret1"]),
        (2, {"maximum_retry_attempts": 1}, poisoned(2), ["12", "12", "-12 Ret2"]),
        (1, {"maximum_retry_attempts": 3}, poisoned(1), ["1"] * 4 + ["-1 Ret4"]),
        (
            3,
            {"maximum_retry_attempts": 0, "batch_size": 1},
            poisoned(2),
            ["1", "2", "-2 Ret1", "3"],
        ),
        # Halves, in order, and only the single record's retries count.
        (
            4,
            {"maximum_retry_attempts": 1, "bisect_batch_on_function_error": True},
            poisoned(3),
            ["1234", "12", "34", "3", "3", "-3 Ret2", "4"],
        ),
        (
            4,
            {"maximum_retry_attempts": 0, "bisect_batch_on_function_error": True},
            poisoned(1, 4),
            ["1234", "12", "1", "-1 Ret1", "2", "34", "3", "4", "-4 Ret1"],
        ),
        (
            3,
            {"maximum_retry_attempts": 0, "bisect_batch_on_function_error": True},
            poisoned(1, 2, 3),
            ["123", "1", "-1 Ret1", "23", "2", "-2 Ret1", "3", "-3 Ret1"],
        ),
        # Without the setting nothing that is returned is a failure.
        (2, {}, lambda _: Success(naming(1)), ["12"]),
        (2, {"bisect_batch_on_function_error": True}, lambda _: Success(naming(1)), ["12"]),
        # Partial progress: what remains has all its attempts (as recorded against AWS).
        (
            3,
            {"maximum_retry_attempts": 3, "report_batch_item_failures": True},
            reporting(3),
            ["123", "3", "3", "3", "3", "-3 Ret4"],
        ),
        (
            4,
            {"maximum_retry_attempts": 1, "report_batch_item_failures": True},
            reporting(2, 4),
            ["1234", "234", "234", "-234 Ret2"],
        ),
        # No progress: it ends, though the response is well-formed.
        (
            2,
            {"maximum_retry_attempts": 1, "report_batch_item_failures": True},
            reporting(1),
            ["12", "12", "-12 Ret2"],
        ),
        # Both: split at the number that was returned; halves where that is the first.
        (
            4,
            {
                "maximum_retry_attempts": 0,
                "report_batch_item_failures": True,
                "bisect_batch_on_function_error": True,
            },
            reporting(3),
            ["1234", "34", "3", "-3 Ret1", "4"],
        ),
        (
            4,
            {
                "maximum_retry_attempts": 0,
                "report_batch_item_failures": True,
                "bisect_batch_on_function_error": True,
            },
            poisoned(3),
            ["1234", "12", "34", "3", "-3 Ret1", "4"],
        ),
    ],
)
def test_history_of_a_batch(count, settings, handler, expected):
    shard = shard_of(count, **settings)
    assert history(shard, handler) == expected
    assert shard.position == count
    assert shard.is_idle


def test_without_a_maximum_it_goes_on_for_ever():
    shard = shard_of(1)
    assert history(shard, poisoned(1), steps=401) == ["1"] * 201
    assert shard.position == 0


@pytest.mark.parametrize("retries", [10_000])
def test_largest_maximum(retries):
    shard = shard_of(1, maximum_retry_attempts=retries)
    seen = history(shard, poisoned(1), steps=3 * retries)
    assert len(seen) == 1 + retries + 1
    assert seen[-1] == "-1 Ret10001"


@pytest.mark.parametrize(
    ("failures", "expected_ms"),
    [
        (1, RETRY_BACKOFF_MS_MIN),
        (2, 2 * RETRY_BACKOFF_MS_MIN),
        (10, 512 * RETRY_BACKOFF_MS_MIN),
        (11, RETRY_BACKOFF_MS_MAX),
        (10_000, RETRY_BACKOFF_MS_MAX),
    ],
)
def test_backoff(failures, expected_ms):
    assert backoff_ms(failures) == expected_ms


def test_retry_waits_for_its_backoff():
    shard = shard_of(1)
    now_ms = 0
    for attempt, wait_ms in enumerate([100, 200, 400], 1):
        (invoke,) = shard.ready(now_ms)
        assert invoke.attempt == attempt
        assert shard.deadline(now_ms) is None
        shard.finished(0, invoke.batch_id, Failure(), now_ms)
        assert not shard.is_idle
        assert shard.deadline(now_ms) == now_ms + wait_ms
        assert shard.ready(now_ms + wait_ms - 1) == []
        now_ms += wait_ms


def test_batch_keeps_its_id_while_it_is_retried():
    shard = shard_of(1)
    (first,) = shard.ready(0)
    shard.finished(0, first.batch_id, Failure(), 0)
    (second,) = shard.ready(100)
    assert second.batch_id == first.batch_id


# What a response means


@pytest.mark.parametrize(
    ("payload", "retried"),
    [
        (None, ""),
        ({}, ""),
        ([], ""),
        ("", ""),
        ({"batchItemFailures": None}, ""),
        ({"batchItemFailures": []}, ""),
        ({"other": 1}, ""),
        (naming(1), "123"),
        (naming(2), "23"),
        (naming(3), "3"),
        (naming(3, 2), "23"),
        (naming(2, 2), "23"),
        (naming(4), "123"),
        (naming(3, 4), "123"),
        (named(""), "123"),
        (named(" " + sequence_text(3)), "123"),
        (named("3"), "123"),
        ({"batchItemFailures": [{"itemIdentifier": None}]}, "123"),
        ({"batchItemFailures": [{"itemIdentifier": 3}]}, "123"),
        ({"batchItemFailures": [{"itemIdentifier": [sequence_text(3)]}]}, "123"),
        ({"batchItemFailures": [{}]}, "123"),
        ({"batchItemFailures": [{"foo": "3"}]}, "123"),
        ({"batchItemFailures": ["3"]}, "123"),
        ({"batchItemFailures": [None]}, "123"),
        ({"batchItemFailures": "3"}, "123"),
        ({"batchItemFailures": {"itemIdentifier": sequence_text(3)}}, "123"),
        ({"batchItemFailures": 0}, "123"),
        (["3"], "123"),
        ("3", "123"),
        (3, "123"),
        (True, "123"),
    ],
)
def test_partial_batch_response(payload, retried):
    shard = shard_of(3, report_batch_item_failures=True)
    (invoke,) = shard.ready(0)
    row = shard.preview(0, invoke.batch_id, payload)
    shard.finished(0, invoke.batch_id, Success(payload), 0)
    done = 3 - len(retried)
    effects = shard.ready(100)
    assert [e.checkpoint for e in effects if isinstance(e, Checkpoint)] == ([row] if row else [])
    again = [record.position for e in effects if isinstance(e, Invoke) for record in e.records]
    assert "".join(map(str, again)) == retried
    assert shard.position == done
    assert (row.position if row else 0) == done


def test_identifiers_of_an_earlier_invocation_are_unknown():
    shard = shard_of(3, report_batch_item_failures=True)
    (invoke,) = shard.ready(0)
    shard.finished(0, invoke.batch_id, Success(naming(3)), 0)
    _checkpoint, invoke = shard.ready(100)
    shard.finished(0, invoke.batch_id, Success(naming(1)), 100)
    assert shard.position == 2
    assert shard.deadline(100) == 200


def test_partial_failures_with_filtered_records_between():
    shard = Shard(MappingSettings(report_batch_item_failures=True))
    for position in range(1, 7):
        shard.feed(Pulled(position, b"k", 0, 100, position % 2 == 0, 0, None))
    _first_filtered, invoke = shard.ready(0)
    # A filtered record was never delivered.
    assert shard.preview(0, invoke.batch_id, naming(3)) is None
    shard.finished(0, invoke.batch_id, Success(naming(4)), 0)
    (checkpoint,) = shard.ready(0)
    assert checkpoint.checkpoint.position == 3
    assert history(shard, lambda _: Success()) == ["46"]
    assert shard.position == 6


def test_filtered_record_waits_for_what_partial_progress_left():
    shard = shard_of(2, report_batch_item_failures=True)
    (invoke,) = shard.ready(0)
    shard.finished(0, invoke.batch_id, Success(naming(2)), 0)
    shard.feed(Pulled(3, b"k", 0, 100, False, 0, None))
    (checkpoint,) = shard.ready(0)
    assert checkpoint.checkpoint.position == 1
    assert history(shard, lambda _: Success()) == ["2"]
    assert shard.position == 3


# Age


@pytest.mark.parametrize(("age_ms", "is_delivered"), [(60_000, True), (60_001, False)])
def test_age_before_an_invocation(age_ms, is_delivered):
    (effect,) = shard_of(1, maximum_record_age_seconds=60).ready(age_ms)
    assert isinstance(effect, Invoke) == is_delivered
    if isinstance(effect, Discard):
        assert (effect.condition, effect.attempts) == ("RecordAgeExceeded", 0)


def test_largest_age():
    shard = shard_of(1, maximum_record_age_seconds=604_800)
    assert isinstance(shard.ready(604_800_000)[0], Invoke)


def test_without_a_maximum_nothing_is_too_old():
    assert isinstance(shard_of(1).ready(10**12)[0], Invoke)


def test_only_the_records_that_are_too_old_are_given_up():
    shard = Shard(MappingSettings(maximum_record_age_seconds=60))
    for position, arrived_ms in enumerate([0, 1000, 2000, 3000], 1):
        shard.feed(Pulled(position, b"k", arrived_ms, 100, True, 0, None))
    (invoke,) = shard.ready(4000)
    shard.finished(0, invoke.batch_id, Failure(), 4000)
    (discard,) = shard.ready(61_500)
    assert isinstance(discard, Discard)
    assert [record.position for record in discard.records] == [1, 2]
    assert (discard.condition, discard.attempts) == ("RecordAgeExceeded", 1)
    shard.discarded(0, discard.batch_id)
    checkpoint, invoke = shard.ready(61_500)
    assert checkpoint.checkpoint.position == 2
    assert [record.position for record in invoke.records] == [3, 4]
    assert invoke.attempt == 2


def test_what_is_young_enough_still_waits_for_its_retry():
    shard = Shard(MappingSettings(maximum_record_age_seconds=60))
    for position, arrived_ms in enumerate([0, 50_000], 1):
        shard.feed(Pulled(position, b"k", arrived_ms, 100, True, 0, None))
    (invoke,) = shard.ready(59_950)
    shard.finished(0, invoke.batch_id, Failure(), 59_950)
    (discard,) = shard.ready(60_001)
    shard.discarded(0, discard.batch_id)
    assert not any(isinstance(effect, Invoke) for effect in shard.ready(60_049))
    assert shard.deadline(60_049) == 60_050
    assert isinstance(shard.ready(60_050)[0], Invoke)


def test_record_gets_too_old_while_it_waits_for_a_retry():
    shard = shard_of(1, maximum_record_age_seconds=60)
    seen = history(shard, poisoned(1))
    # After 0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 12.7, 25.5 and 51.1 seconds; the next would be at 102.3.
    assert seen == ["1"] * 10 + ["-1 Rec10"]


def test_deadline_is_when_the_record_gets_too_old():
    shard = shard_of(1, maximum_record_age_seconds=60)
    (invoke,) = shard.ready(0)
    shard.finished(0, invoke.batch_id, Failure(), 59_950)
    assert shard.deadline(59_950) == 60_001
    assert shard.ready(60_000) == []
    assert isinstance(shard.ready(60_001)[0], Discard)


def test_records_out_of_the_clocks_order():
    shard = Shard(MappingSettings(maximum_record_age_seconds=60))
    for position, arrived_ms in enumerate([70_000, 0, 70_000], 1):
        shard.feed(Pulled(position, b"k", arrived_ms, 100, True, 0, None))
    assert history_at(shard, 70_000) == ["1", "-2", "3"]


def history_at(shard, now_ms):
    seen = []
    while effects := shard.ready(now_ms):
        for effect in effects:
            if isinstance(effect, Invoke):
                seen.append("".join(str(record.position) for record in effect.records))
                shard.finished(0, effect.batch_id, Success(), now_ms)
            elif isinstance(effect, Discard):
                seen.append("-" + "".join(str(record.position) for record in effect.records))
                shard.discarded(0, effect.batch_id)
    return seen
