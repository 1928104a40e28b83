"""Frames between node and worker, without a process."""

import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import ConfigurationError
from millstream.lambdas import protocol
from millstream.lambdas.protocol import (
    Answered,
    Ask,
    CodeDirectory,
    FrameError,
    Frames,
    Hello,
    Invoke,
    Item,
    Load,
    Loaded,
    PickledFunction,
    Raised,
    Refused,
    Write,
    encode,
    pickled,
)
from millstream.lambdas.results import Invocation

INVOCATION = Invocation("id", "f", "arn:f", "$LATEST", 128, 3.0, "Root=1")
MESSAGES = [
    Hello(1, "cpython 3.11"),
    Load(PickledFunction(b"\x80", "cpython 3.11", "3.1.2", ["", "lib"]), 0),
    Load(CodeDirectory("/code", "app.handler"), 128 << 20),
    Loaded(),
    Invoke(b'{"Records":[]}', INVOCATION, True),
    Ask("orders", b'{"id":{"S":"1"}}'),
    Item(None),
    Item(b"{}"),
    Refused("TransactionConflict", "held"),
    Answered(b"null", []),
    Answered(b'{"a":1}', [Write("put", "t", b"{}", "", "a = :a", {"#a": "a"}, b"{}")]),
    Raised("ValueError", "no", ['  File "x"\n']),
]


@given(st.lists(st.sampled_from(MESSAGES), max_size=6), st.integers(1, 40))
def test_messages_come_out_as_they_went_in_however_the_bytes_are_cut(messages, step):
    data = b"".join(encode(message) for message in messages)
    frames = Frames()
    found = []
    for start in range(0, len(data), step):
        frames.feed(data[start : start + step])
        while (message := frames.next()) is not None:
            found.append(message)
    assert found == messages


def test_a_frame_above_the_limit_is_refused_on_both_sides(monkeypatch):
    monkeypatch.setattr(protocol, "WORKER_FRAME_BYTES_MAX", 100)
    fitting = Answered(b"x" * (100 - 5), [])
    assert len(encode(fitting)) == 4 + 100
    with pytest.raises(FrameError):
        encode(Answered(b"x" * (100 - 4), []))
    frames = Frames()
    frames.feed((101).to_bytes(4))
    with pytest.raises(FrameError, match="101 bytes"):
        frames.next()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode("print('hello')"),
        msgspec.msgpack.encode([99, 1]),
        msgspec.msgpack.encode([8, b"null", [["put"]]]),
    ],
)
def test_what_is_no_message_is_refused(body):
    frames = Frames()
    frames.feed(len(body).to_bytes(4) + body)
    with pytest.raises(FrameError):
        frames.next()


def test_hello_never_changes_its_shape():
    # So that a node of any version can say which worker it has met.
    assert encode(Hello(7, "cpython 3.99"))[4:] == msgspec.msgpack.encode([1, 7, "cpython 3.99"])


def test_a_pickle_carries_the_versions_that_made_it():
    import cloudpickle

    program = pickled(lambda event, context: 7)
    assert program.cloudpickle == cloudpickle.__version__
    assert program.python == "{} {}.{}".format(sys.implementation.name, *sys.version_info[:2])
    assert program.path == sys.path
    assert cloudpickle.loads(program.pickle)(None, None) == 7


def test_what_cannot_be_pickled_is_said_when_it_is_registered():
    held = sys._getframe()
    with pytest.raises(ConfigurationError, match="cannot be sent to another process"):
        pickled(lambda event, context: held)
