"""The eyes of ``crash --workload triggers``, and two kills of a server with handlers."""

import pytest

from millstream.tools.crash import Crasher, Progress
from millstream.tools.trigger_app import digest_of
from millstream.tools.trigger_load import (
    Past,
    check_counted,
    check_seen,
    check_stream,
    lines_of,
)

TRUTH = {"a": ["1", "2", "3"], "b": ["4"]}


def change(old, new):
    images = {"OldImage": old, "NewImage": new}
    return {
        "dynamodb": {
            name: {"serial": {"S": serial}} for name, serial in images.items() if serial is not None
        }
    }


def seen(*lines):
    return [(life, {key: numbers.split()}) for life, key, numbers in lines]


@pytest.mark.parametrize(
    "lines",
    [
        seen(("x", "a", "1 2"), ("x", "a", "3"), ("x", "b", "4")),
        # A life ended before its checkpoint: what it did comes again, from somewhere on.
        seen(("x", "a", "1 2"), ("y", "a", "2 3"), ("y", "b", "4"), ("z", "a", "3")),
        seen(("x", "a", "1"), ("x", "b", "4"), ("y", "a", "2 3")),
    ],
)
def test_replays_after_a_restart_are_right(lines):
    assert check_seen(lines, TRUTH) == []


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (seen(("x", "a", "1 2 3")), "b: 1 changes were not seen"),
        (seen(("x", "a", "1 2"), ("x", "b", "4")), "a: 1 changes were not seen"),
        (seen(("x", "a", "1 3"), ("x", "b", "4")), "came after"),
        (seen(("x", "a", "2 1 3"), ("x", "b", "4")), "came after"),
        # In one life nothing comes twice; in another one nothing is left out.
        (seen(("x", "a", "1 2 2 3"), ("x", "b", "4")), "came after"),
        (seen(("x", "a", "1"), ("y", "a", "3"), ("x", "b", "4")), "came after"),
        (seen(("x", "a", "1 2 3 9"), ("x", "b", "4")), "has no change 9"),
    ],
)
def test_every_other_sight_is_wrong(lines, said):
    wrong = check_seen(lines, TRUTH)
    assert any(said in line for line in wrong), wrong


def counted(key, *numbers):
    digest = 0
    for number in numbers:
        digest = digest_of(digest, number)
    return {"id": {"S": key}, "changes": {"N": str(len(numbers))}, "digest": {"N": str(digest)}}


def test_changes_are_counted_once_and_in_order():
    rows = [counted("a", "1", "2", "3"), counted("b", "4"), {"id": {"S": "meeting"}}]
    assert check_counted("t", rows, TRUTH) == []
    for wrong in (counted("a", "1", "2", "2", "3"), counted("a", "2", "1", "3"), counted("a", "1")):
        assert len(check_counted("t", [wrong, counted("b", "4")], TRUTH)) == 1
    assert len(check_counted("t", [], TRUTH)) == 2
    assert len(check_counted("t", [*rows, counted("c", "5")], TRUTH)) == 1


def test_the_stream_shows_what_was_done():
    changes = {"a": [change(None, "1"), change("1", "2"), change("2", None)]}
    assert check_stream(changes, {"a": ["1", "2", None]}) == []
    assert check_stream(changes, {"a": ["1", "2", None, "3"]})
    assert check_stream(changes, {"a": ["1", None]})
    assert check_stream(changes, {"a": ["1", "2", None], "b": ["3"]})
    assert check_stream({"a": [change(None, "1"), change(None, "2")]}, {"a": ["1", "2"]})


def test_what_was_in_doubt_is_one_of_two():
    past = Past()
    past.serials, past.in_doubt = ["1", "2"], True
    assert past.settle("1") and past.serials == ["1"]
    past.serials, past.in_doubt = ["1", "2"], True
    assert past.settle("2") and past.serials == ["1", "2"]
    assert not past.settle("1")


def test_a_torn_line_is_left_out(tmp_path):
    path = tmp_path / "seen"
    path.write_text('\n["x", {"a": ["1"]}]\n\n["x", {"a": ["2\n["y", {"a": ["2"]}]\n')
    assert lines_of(path) == [("x", {"a": ["1"]}), ("y", {"a": ["2"]})]
    assert lines_of(tmp_path / "none") == []


def test_two_kills_and_every_change_is_handled(tmp_path):
    crasher = Crasher("segments", 7, rounds_seconds=(0.3, 0.6), workload="triggers")
    outcome = crasher.run(tmp_path, 2, Progress("segments", 3))
    assert outcome.wrong == []
    assert outcome.kills == 2
    assert outcome.acknowledged > 0
