"""A crash in a child is a finding of the parent, which goes on."""

import functools
import os

import pytest

from millstream.tools.child import Crashed, run_in_child


def test_answers_and_crashes_and_exceptions_come_back_one_after_the_other():
    assert run_in_child(functools.partial(sorted, [2, 1])) == [1, 2]
    with pytest.raises(Crashed, match="ended by SIGABRT"):
        run_in_child(os.abort)
    with pytest.raises(Crashed, match="FileNotFoundError"):
        run_in_child(functools.partial(os.listdir, "nowhere at all"))
    with pytest.raises(Crashed, match="exit code 7, no answer"):
        run_in_child(functools.partial(os._exit, 7))
    assert run_in_child(os.getpid) != os.getpid()
