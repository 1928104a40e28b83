"""Coroutines that are driven by hand, outside of any task.

Whoever learns that a request has come may begin to serve it at once, by sending to its coroutine,
instead of waking a task for that. Such a coroutine must not wait in the ways of trio, which would
remember the wrong task; where it has to wait for an answer it *pauses*: it gives its driver
something that will call back. Code that waits asks ``is_driven`` which way to take.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Protocol

_driven = False


class Pause(Protocol):
    """What a paused coroutine waits for."""

    def when_given(self, go_on: Callable[[], None]) -> None:
        """Call ``go_on`` once when it is there."""
        ...


def is_driven() -> bool:
    """Whether the running code belongs to a coroutine that is driven by hand."""
    return _driven


def advance(coroutine: Coroutine[Any, Any, Any]) -> object:
    """Run ``coroutine`` to its next pause, or to a trap for trio; what it gives.

    Raises StopIteration with its result at its end, and whatever it raises.
    """
    global _driven
    before, _driven = _driven, True
    try:
        return coroutine.send(None)
    finally:
        _driven = before


@types.coroutine
def pause(until: Pause) -> Generator[Pause, None, None]:
    """Have the driver go on with this coroutine when ``until`` is there."""
    yield until
