"""The crash test's own eyes, and three kills of a real server."""

import pytest

from millstream.tools.crash import Crasher, Progress
from millstream.tools.load import (
    check_indexes,
    check_items,
    checksum_of,
    key_members,
    key_of,
)


def item(number, serial, **more):
    made = {**key_members(("o", number)), "serial": {"N": str(serial)}, **more}
    return {**made, "checksum": {"S": checksum_of(made)}}


def test_every_possible_state_is_right():
    old, new = item(1, 10), item(1, 11)
    assert check_items([old], {("o", 1): [old, new]}) == []
    assert check_items([new], {("o", 1): [old, new]}) == []
    assert check_items([], {("o", 1): [None]}) == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([], "is absent; possible: item 11"),
        ([item(1, 10)], "is item 10"),
        ([item(1, 11), item(2, 1)], "was never written"),
        ([item(1, 11), item(1, 11)], "is there twice"),
        ([{**item(1, 11), "serial": {"N": "12"}}], "half-written"),
    ],
)
def test_every_other_state_is_wrong(found, said):
    wrong = check_items(found, {("o", 1): [item(1, 11)]})
    assert any(said in line for line in wrong), wrong


def test_indexes_are_derived_from_the_table():
    one = item(1, 5, group={"S": "g"}, rank={"N": "3"})
    two = item(2, 6)
    entry = {**key_members(key_of(one)), "rank": {"N": "3"}}
    assert check_indexes([one, two], [one], [entry]) == []
    assert "by-group" in check_indexes([one], [], [entry])[0]
    assert "by-group" in check_indexes([one], [one, two], [entry])[0]
    assert "by-rank" in check_indexes([one], [one], [])[0]
    assert "twice" in check_indexes([one], [one, one], [entry])[0]


def test_three_kills_lose_nothing(tmp_path):
    crasher = Crasher("segments", 7, rounds_seconds=(0.2, 0.5))
    outcome = crasher.run(tmp_path, 3, Progress("segments", 4))
    assert outcome.wrong == []
    assert (outcome.kills, len(outcome.restarts)) == (3, 3)
    assert outcome.acknowledged > 0
