"""What a handler prints: the tail that its caller is told, and lines for the node's log.

Pure. Bounded in every direction: the tail, a line, and what one invocation may put into the log;
what is beyond that is counted and said once.
"""

from __future__ import annotations

from ..limits import (
    FUNCTION_LOG_TAIL_BYTES,
    WORKER_LOG_BYTES_MAX,
    WORKER_LOG_LINE_BYTES_MAX,
)


class Output:
    """The output of one worker, invocation by invocation."""

    __slots__ = ("_dropped_bytes", "_line", "_room_bytes", "_tail")

    def __init__(self) -> None:
        #: The end of what was printed since ``begin``.
        self._tail = bytearray()
        #: A line that has not ended yet, shorter than the longest line.
        self._line = bytearray()
        #: What may still go to the log in this invocation, 0 or more.
        self._room_bytes = WORKER_LOG_BYTES_MAX
        self._dropped_bytes = 0

    def begin(self) -> None:
        """An invocation begins: what was printed before is not its own."""
        self._tail.clear()
        self._room_bytes = WORKER_LOG_BYTES_MAX

    def feed(self, data: bytes) -> list[str]:
        """Take what was printed; the lines that have ended, for the log."""
        self._tail += data
        if len(self._tail) > FUNCTION_LOG_TAIL_BYTES:
            del self._tail[:-FUNCTION_LOG_TAIL_BYTES]
        self._line += data
        *lines, rest = self._line.split(b"\n")
        while len(rest) >= WORKER_LOG_LINE_BYTES_MAX:
            lines.append(rest[:WORKER_LOG_LINE_BYTES_MAX])
            rest = rest[WORKER_LOG_LINE_BYTES_MAX:]
        self._line = rest
        return self._admit(lines)

    def end(self) -> list[str]:
        """An invocation ends: its last line, if it did not end it, and what was left out."""
        lines = self._admit([self._line]) if self._line else []
        self._line = bytearray()
        if self._dropped_bytes:
            lines.append(f"({self._dropped_bytes} bytes of output are not shown)")
            self._dropped_bytes = 0
        return lines

    def tail(self) -> str:
        """The last of what was printed since ``begin``."""
        # A character that the cut has split is no character any more.
        return self._tail.decode(errors="ignore" if self._is_cut else "replace")

    @property
    def _is_cut(self) -> bool:
        return len(self._tail) == FUNCTION_LOG_TAIL_BYTES

    def _admit(self, lines: list[bytearray]) -> list[str]:
        admitted = []
        for line in lines:
            if len(line) + 1 > self._room_bytes:
                self._dropped_bytes += len(line) + 1
                continue
            self._room_bytes -= len(line) + 1
            if line:
                text = line[:WORKER_LOG_LINE_BYTES_MAX].decode(errors="replace")
                admitted.append(text.rstrip("\r"))
        return admitted
