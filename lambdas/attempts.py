"""A batch while it is tried: what it holds, how often it failed, when it may be tried again."""

from __future__ import annotations

from ..limits import RETRY_BACKOFF_MS_MAX, RETRY_BACKOFF_MS_MIN
from .batches import Pulled, WindowCall
from .settings import MappingSettings
from .waiting import Entry


def backoff_ms(failures: int) -> int:
    """How long a batch waits that failed ``failures`` times."""
    assert failures > 0
    doublings = min(failures - 1, 30)
    return min(RETRY_BACKOFF_MS_MAX, RETRY_BACKOFF_MS_MIN << doublings)


class Batch:
    """Records that are tried together, or a window's final call (which has none)."""

    __slots__ = ("attempts", "condition", "entries", "id", "settings", "until_ms", "window")

    def __init__(
        self, batch_id: int, entries: list[Entry], window: WindowCall | None, attempts: int = 0
    ) -> None:
        self.id = batch_id
        self.entries = entries
        #: Of a batch with records: the window they belong to; the state is the lane's.
        self.window = window
        #: Invocations that failed.
        self.attempts = attempts
        #: Not tried again before.
        self.until_ms = 0
        #: Why it is given up.
        self.condition: str | None = None
        #: What held when it was last invoked.
        self.settings: MappingSettings | None = None

    @property
    def is_final(self) -> bool:
        return self.window is not None and self.window.is_final

    def records(self) -> tuple[Pulled, ...]:
        return tuple(entry.record for entry in self.entries)


class Pressure:
    """What the shard tells its lanes: what else closes a batch or ends a window."""

    __slots__ = ("is_caught_up", "is_ended", "is_full")

    def __init__(self, *, is_full: bool, is_ended: bool, is_caught_up: bool) -> None:
        #: No more records are wanted until some are done.
        self.is_full = is_full
        #: No more records come.
        self.is_ended = is_ended
        #: All that arrived before now has been fed.
        self.is_caught_up = is_caught_up
