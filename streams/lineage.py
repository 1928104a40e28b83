"""How many handlers of changes led to a write: the lineage in a trace header.

AWS's way: a function's runtime has the trace of the invocation in its environment, the SDK sends it
with each call as ``X-Amzn-Trace-Id``, and Lambda stops what has gone round sixteen times. Here the
count is kept in the effect, so that it is there for whoever reads the change.
"""

from __future__ import annotations

import re
from typing import Final

from ..limits import HOPS_MAX

TRACE_HEADER: Final = b"x-amzn-trace-id"
_LINEAGE: Final = re.compile(r"(?:^|;)Lineage=(?P<parts>[0-9a-zA-Z:|]{1,512})", re.IGNORECASE)
_COUNT: Final = re.compile(r"[0-9a-zA-Z]+:(?P<count>[0-9]{1,6})(?:\||$)")


def hops_of(trace: str) -> int:
    """The number of handlers that a trace tells of; 0 where it tells of none."""
    found = _LINEAGE.search(trace)
    if found is None:
        return 0
    counts = [int(part["count"]) for part in _COUNT.finditer(found["parts"])]
    return min(sum(counts), HOPS_MAX)


def trace_of(request_id: str, function: str, hops: int) -> str:
    """The trace of an invocation; ``hops`` counts it. ``request_id`` is a UUID."""
    token = request_id.replace("-", "")
    return (
        f"Root=1-{token[:8]}-{token[8:32]};Parent={token[:16]};Sampled=0;"
        f"Lineage={function[:8]}:{hops}"
    )
