"""What a handler's return value means: how many of its records are done, and the window's state.

The rules are those of Lambda's developer guide, "Configuring partial batch response with DynamoDB
and Lambda" and "Implementing stateful DynamoDB stream processing in Lambda".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ..streams.sequence import sequence_text

_NO_RESPONSE: tuple[Any, ...] = (None, {}, [], "")


class Verdict(msgspec.Struct, frozen=True):
    """The first ``done`` records are done; ``state`` is the window's new state, where there is one.

    A failed invocation is ``done == 0`` and ``is_failure``; partial progress is ``is_failure`` with
    ``done`` above 0, and then the state speaks of the records that are done.
    """

    done: int
    is_failure: bool
    state: dict[str, Any] | None = None


def judge(
    payload: Any, positions: Sequence[int], *, is_partial: bool, is_windowed: bool
) -> Verdict:
    """The verdict on what a handler returned for the records at ``positions``, in order.

    ``is_partial``: the mapping reports batch item failures; without it they are not looked at.
    """
    state = None
    if is_windowed:
        state = payload.get("state") if isinstance(payload, dict) else None
        if not isinstance(state, dict):
            return Verdict(0, True)
    first_failed = _first_failed(payload, positions) if is_partial else None
    if first_failed is None:
        return Verdict(len(positions), False, state)
    return Verdict(first_failed, True, state if first_failed > 0 else None)


def _first_failed(payload: Any, positions: Sequence[int]) -> int | None:
    """The index of the first record to be tried again, None if there is none.

    What cannot be understood, and a sequence number that was not delivered, fail the whole batch.
    """
    if payload in _NO_RESPONSE:
        return None
    if not isinstance(payload, dict):
        return 0
    failures = payload.get("batchItemFailures")
    if failures is None:
        return None
    if not isinstance(failures, list):
        return 0
    delivered = {sequence_text(position): index for index, position in enumerate(positions)}
    first = len(positions)
    for failure in failures:
        identifier = failure.get("itemIdentifier") if isinstance(failure, dict) else None
        index = delivered.get(identifier) if isinstance(identifier, str) else None
        if index is None:
            return 0
        first = min(first, index)
    return first if failures else None


def state_size_bytes(state: dict[str, Any]) -> int:
    """The size of a window's state, as its limit counts it."""
    return len(msgspec.json.encode(state))
