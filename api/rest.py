"""What is left of a request that was begun outside of its connection's task.

The server begins quick operations where it learns that a request has come, without waking the
connection's task. Nearly always they end there. What does not is handed to the task as a ``Rest``.
"""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import Any


class Rest:
    """What is left of a request that was begun without the connection's task.

    Either the operation waits for something (``serving``, and the ``trap`` that it has for trio),
    or the answer is not sent to its end, or there was an error.
    """

    __slots__ = ("answer", "error", "sent", "serving", "trap")

    def __init__(
        self,
        *,
        answer: bytes = b"",
        sent: int = 0,
        serving: Coroutine[Any, Any, bytes] | None = None,
        trap: object = None,
        error: Exception | None = None,
    ) -> None:
        self.answer = answer
        self.sent = sent
        self.serving = serving
        self.trap = trap
        self.error = error


@types.coroutine
def resumed(
    serving: Coroutine[Any, Any, bytes], trap: object
) -> Generator[object, Any, bytes]:
    """Go on with a coroutine that was begun by hand and has stopped with ``trap`` for trio.

    It may have stopped only at something that does not remember the task that it stopped in: a
    plain checkpoint, which is all of trio's that quick operations meet.
    """
    # trio answers a trap by sending; what it has to raise, it sends as well.
    try:
        while True:
            trap = serving.send((yield trap))
    except StopIteration as stop:
        answer: bytes = stop.value
        return answer
    finally:
        serving.close()
