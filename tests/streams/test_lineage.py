"""Counting handlers in a trace header: ours, AWS's, and what strangers send."""

from __future__ import annotations

import pytest

from millstream.streams.lineage import hops_of, trace_of

REQUEST_ID = "8b2f4f60-0c9f-4f0e-9a43-3f3f8ad1b1a2"


@pytest.mark.parametrize("hops", [0, 1, 15, 16, 200])
def test_what_is_written_is_read(hops: int) -> None:
    assert hops_of(trace_of(REQUEST_ID, "a87bd80c-more", hops)) == hops


@pytest.mark.parametrize(
    ("trace", "hops"),
    [
        ("", 0),
        ("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1", 0),
        ("Root=1-2-3;Lineage=a87bd80c:1|68fd508a:5|c512fbe3:2", 8),
        ("lineage=a87bd80c:3", 3),
        ("Lineage=", 0),
        ("Lineage=x", 0),
        ("Lineage=x:y;Root=1", 0),
        ("XLineage=a:4", 0),
        ("Lineage=" + "a:999999|" * 40, 255),
        ("Lineage=" + "a" * 10_000, 0),
    ],
)
def test_what_others_write(trace: str, hops: int) -> None:
    assert hops_of(trace) == hops
