"""A short life of a real server, and power cuts all over it. Needs strace."""

import shutil

import pytest

from millstream.tools.disk_model import STRICT
from millstream.tools.load import Step
from millstream.tools.powercut import Recording, cut, possible_states, record
from millstream.tools.replay import LOG, TREE

KEY = ("o", 1)


def states_after(steps, answered):
    recording = Recording("", "", [], [steps], 0, (None, None))
    return possible_states(recording, {(0, 7): answered})[0]


def test_what_was_answered_is_certain_and_what_was_asked_possible():
    first, second = {"serial": 1}, {"serial": 2}
    steps = [Step(0, 7, 0, {KEY: first}), Step(0, 7, 1, {KEY: second})]
    assert states_after(steps, 0) == {KEY: [None, first]}
    assert states_after(steps, 1) == {KEY: [first, second]}
    assert states_after(steps, 2) == {KEY: [second]}


def test_what_was_refused_never_was():
    steps = [Step(0, 7, 0, {KEY: {"serial": 1}})]
    steps[0].took = False
    assert states_after(steps, 1) == {KEY: [None]}
    steps[0].took = None
    assert states_after(steps, 1) == {KEY: [None, {"serial": 1}]}


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_power_may_fail_and_a_missing_sync_is_noticed(tmp_path):
    recording = record(tmp_path, "segments", 1, 40)
    finding = cut(recording, tmp_path, 12, 1, rule=STRICT)
    assert (finding.images, finding.bad, finding.examples) == (12, 0, [])
    assert finding.doubtful > 0
    for forget in (LOG, TREE):
        assert cut(recording, tmp_path, 40, 1, rule=STRICT, forget=forget, stop_after=1).bad
