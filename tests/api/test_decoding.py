"""Large bodies are decoded without the garbage collector, which must be back afterwards."""

from __future__ import annotations

import gc

import pytest

from millstream.api.json_types import decode_uncollected
from millstream.api.validation import read
from millstream.errors import MalformedRequest
from millstream.limits import COLLECTED_BODY_BYTES_MAX


@pytest.mark.parametrize(
    ("size_bytes", "collects"),
    [(10, True), (COLLECTED_BODY_BYTES_MAX, True), (COLLECTED_BODY_BYTES_MAX + 1, False)],
)
def test_only_a_large_body_stops_the_collector(size_bytes, collects):
    assert decode_uncollected(lambda _: gc.isenabled(), bytes(size_bytes)) is collects
    assert gc.isenabled()


def test_a_refusal_gives_the_collector_back():
    with pytest.raises(MalformedRequest):
        read("PutItem", b"[" * (COLLECTED_BODY_BYTES_MAX + 1))
    assert gc.isenabled()


def test_who_has_no_collector_keeps_none():
    # An embedding program may have turned it off for itself.
    gc.disable()
    try:
        decode_uncollected(len, bytes(COLLECTED_BODY_BYTES_MAX + 1))
        assert not gc.isenabled()
    finally:
        gc.enable()
