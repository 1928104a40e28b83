"""What handlers print: tails, lines, and their bounds."""

from hypothesis import given
from hypothesis import strategies as st

from millstream.lambdas.output import Output
from millstream.limits import (
    FUNCTION_LOG_TAIL_BYTES,
    WORKER_LOG_BYTES_MAX,
    WORKER_LOG_LINE_BYTES_MAX,
)


@given(st.lists(st.text(alphabet="ab\n", max_size=20).map(str.encode), max_size=20))
def test_every_line_goes_to_the_log_once_however_it_is_cut(pieces):
    output = Output()
    lines = [line for piece in pieces for line in output.feed(piece)] + output.end()
    assert lines == [line for line in b"".join(pieces).decode().split("\n") if line]


def test_the_tail_is_the_last_of_this_invocation():
    output = Output()
    output.feed(b"earlier\n")
    output.begin()
    assert output.tail() == ""
    output.feed(b"x" * 5000)
    output.feed(b"end\n")
    assert len(output.tail()) == FUNCTION_LOG_TAIL_BYTES
    assert output.tail().endswith("xxend\n")


def test_a_cut_through_a_character_leaves_no_half_of_it():
    output = Output()
    output.feed("\u20ac".encode() * 3000)
    assert set(output.tail()) == {"\u20ac"}


def test_what_is_no_text_is_shown_as_such():
    output = Output()
    assert output.feed(b"\xff\n") == ["\ufffd"]
    assert output.tail() == "\ufffd\n"


def test_a_line_without_end_is_cut():
    output = Output()
    lines = output.feed(b"x" * (2 * WORKER_LOG_LINE_BYTES_MAX + 5))
    assert [len(line) for line in lines] == [WORKER_LOG_LINE_BYTES_MAX] * 2
    assert output.end() == ["xxxxx"]


def test_a_chatterbox_is_cut_off_until_its_next_invocation():
    output = Output()
    line = b"x" * 1023 + b"\n"
    shown = [said for _ in range(WORKER_LOG_BYTES_MAX // 1024 + 3) for said in output.feed(line)]
    assert len(shown) == WORKER_LOG_BYTES_MAX // 1024
    assert output.end() == ["(3072 bytes of output are not shown)"]
    output.begin()
    assert output.feed(b"again\n") == ["again"]
    assert output.end() == []
