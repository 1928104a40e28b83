"""One lane of a shard: its records in order, one batch at a time, until each is done or given up.

Theory of operation. Records wait in the queue; the head of the queue is closed into a *batch*,
which goes to the end of ``_pending``. Only the first pending batch is worked on, and it leaves by
being done. A failed batch stays first (and waits), or two halves or a remainder take its place;
since they are in order and only the first is worked on, so is everything that the handler sees.

==========================  =================================  ===============================
first pending batch         leaves by                          to
==========================  =================================  ===============================
waiting (attempts, until)   time: ``step`` gives Invoke        in flight
waiting                     too old, recursive: Discard        being given up
in flight                   success                            done
in flight                   partial failure                    done up to it, the rest waiting
in flight                   failure of many, bisecting         two halves, waiting
in flight                   failure                            waiting, or given up
being given up              ``discarded``                      done
==========================  =================================  ===============================

Facts about retries. Splitting does not consume retry attempts (developer guide, "Retain discarded
records"). What remains after partial progress is a new batch with all its attempts: against AWS, a
batch of three with three retries whose last record always fails is seen as [a b c], then four
times [c], and the failure document counts four invocations. A batch whose *first* record fails
has made no progress, and ends after the configured attempts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from ..limits import (
    RECURSION_HOPS_MAX,
    WINDOW_STATE_BYTES_MAX,
)
from .attempts import Batch, Pressure, backoff_ms
from .batches import (
    RECORD_AGE_EXCEEDED,
    RECURSIVE_LOOP_DETECTED,
    RETRY_ATTEMPTS_EXHAUSTED,
    Discard,
    Invoke,
    Pulled,
    Result,
    Success,
    WindowCall,
    WindowState,
)
from .responses import Verdict, judge, state_size_bytes
from .settings import MappingSettings
from .waiting import Entry, Waiting


class Lane:
    """The machine of one lane. ``Shard`` owns it."""

    __slots__ = (
        "_last", "_new_id", "_pending", "_settings", "_waiting", "buffered", "buffered_bytes",
        "has_news", "is_busy", "position", "windows",
    )  # fmt: skip

    def __init__(
        self,
        settings: MappingSettings,
        new_id: Callable[[], int],
        position: int,
        windows: tuple[WindowState, ...],
    ) -> None:
        self._settings = settings
        self._new_id = new_id
        #: All the lane's records up to here are done.
        self.position = position
        #: Those to be terminated first; at most the last is open.
        self.windows = windows
        #: Something was done that no checkpoint says yet.
        self.has_news = False
        #: The first pending batch is in flight or being given up.
        self.is_busy = False
        self.buffered = 0
        self.buffered_bytes = 0
        self._pending: deque[Batch] = deque()
        self._waiting = Waiting(settings)
        #: The last record that is not done.
        self._last: Entry | None = None

    # Records in

    def feed(self, record: Pulled, before: int) -> None:
        entry = Entry(record, before)
        self._waiting.append(entry)
        self._last = entry
        self.buffered += 1
        self.buffered_bytes += record.size_bytes

    def skip(self, position: int) -> None:
        """A record that needs nothing: done as soon as those before it are."""
        if self._last is None:
            self.position = position
        else:
            self._last.through = position

    def adopt(self, settings: MappingSettings) -> None:
        self._settings = settings
        self._waiting.adopt(settings)

    # Reads

    @property
    def is_empty(self) -> bool:
        """Nothing is waiting, in flight or due; a window may be open."""
        if self._last is not None or self._pending:
            return False
        return not any(self._is_cut(window) for window in self.windows)

    def before(self, done: int = 0) -> int | None:
        """The shard's position before this lane's first undone record, None if all are done;
        ``done``: supposing that this many more were.
        """
        if done < self.buffered:
            for batch in self._pending:
                if done < len(batch.entries):
                    return batch.entries[done].before
                done -= len(batch.entries)
            return self._waiting[done].before
        return None

    def after(self, payload: Any, batch_id: int) -> tuple[int, int, tuple[WindowState, ...]] | None:
        """(records done, position, windows) if the handler returned this; None for a failure."""
        batch = self._in_flight(batch_id)
        verdict = self._judge(batch, payload)
        if verdict.is_failure and verdict.done == 0:
            return None
        position = batch.entries[verdict.done - 1].through if verdict.done else self.position
        return verdict.done, position, self._windows_after(batch, verdict)

    def deadline(self, now_ms: int, pressure: Pressure) -> int | None:
        """When ``step`` may next have something, should nothing happen but time."""
        if self.is_busy:
            return None
        window = self.windows[0] if self.windows else None
        if self._pending:
            batch = self._pending[0]
            if batch.condition is not None or self._is_cut_short(window):
                return now_ms
            due_ms = batch.until_ms
            if self._expires():
                due_ms = min(due_ms, self._batch_expiry_ms(batch) + 1)
            return max(now_ms, due_ms)
        if window is not None and self._final_call(window, now_ms, pressure) is not None:
            return now_ms
        if self._waiting:
            if self._waiting.is_closed or pressure.is_full or pressure.is_ended:
                return now_ms
            return max(now_ms, self._waiting.closes_ms())
        if window is not None and pressure.is_caught_up:
            return window.end_ms
        return None

    # What is to be done

    def step(self, index: int, now_ms: int, pressure: Pressure) -> Invoke | Discard | None:
        """The next thing to do with this lane, if its time has come."""
        if self.is_busy or not (self._pending or self._close_batch(now_ms, pressure)):
            return None
        window = self.windows[0] if self.windows else None
        if window is not None and self._is_cut_short(window):
            call = WindowCall(window.start_ms, window.end_ms, window.state, True, True)
            self._pending.appendleft(Batch(self._new_id(), [], call))
        if self._pending[0].condition is None:
            condition = self._condition(self._pending[0], now_ms)
            if condition is None and now_ms < self._pending[0].until_ms:
                return None
            self._split_where_fate_differs(self._pending[0], condition, now_ms)
            self._pending[0].condition = condition
        batch = self._pending[0]
        self.is_busy = True
        if batch.condition is not None:
            return Discard(index, batch.id, batch.records(), batch.condition, batch.attempts)
        batch.settings = self._settings
        return Invoke(index, batch.id, batch.records(), batch.attempts + 1, self._call(batch))

    def finished(self, batch_id: int, result: Result, now_ms: int) -> None:
        """The handler's result for the batch in flight."""
        batch = self._in_flight(batch_id)
        assert batch.settings is not None
        self.is_busy = False
        if isinstance(result, Success):
            verdict = self._judge(batch, result.payload)
        else:
            verdict = Verdict(0, True)
        if not verdict.is_failure:
            self.windows = self._windows_after(batch, verdict)
            self._done(batch, len(batch.entries))
        elif verdict.done > 0:
            self.windows = self._windows_after(batch, verdict)
            rest = Batch(self._new_id(), batch.entries[verdict.done :], batch.window)
            rest.until_ms = now_ms + backoff_ms(1)
            self._done(batch, verdict.done, rest)
        elif batch.settings.bisect_batch_on_function_error and len(batch.entries) > 1:
            half = len(batch.entries) // 2
            self._pending[0] = Batch(self._new_id(), batch.entries[:half], batch.window)
            self._pending.insert(1, Batch(self._new_id(), batch.entries[half:], batch.window))
        else:
            batch.attempts += 1
            batch.until_ms = now_ms + backoff_ms(batch.attempts)
            retries = batch.settings.maximum_retry_attempts
            if 0 <= retries < batch.attempts:
                batch.condition = RETRY_ATTEMPTS_EXHAUSTED

    def discarded(self, batch_id: int) -> None:
        """The batch that was given up is where its owner wants it."""
        batch = self._pending[0]
        assert self.is_busy
        assert batch.id == batch_id
        assert batch.condition is not None
        self.is_busy = False
        if batch.is_final:
            self.windows = self.windows[1:]
        self._done(batch, len(batch.entries))

    # Batches

    def _in_flight(self, batch_id: int) -> Batch:
        assert self.is_busy
        batch = self._pending[0]
        assert batch.id == batch_id
        assert batch.condition is None
        return batch

    def _done(self, batch: Batch, count: int, rest: Batch | None = None) -> None:
        """The first ``count`` records of the first batch are done; ``rest`` takes its place."""
        assert batch is self._pending[0]
        assert count == len(batch.entries) or rest is not None
        for entry in batch.entries[:count]:
            self.buffered -= 1
            self.buffered_bytes -= entry.record.size_bytes
            assert entry.through > self.position
            self.position = entry.through
        if rest is None:
            self._pending.popleft()
        else:
            self._pending[0] = rest
        if self.buffered == 0:
            self._last = None
        self.has_news = True

    def _split_where_fate_differs(self, batch: Batch, condition: str | None, now_ms: int) -> None:
        """Leaves in the first batch the leading records that share the first one's condition."""
        for count, entry in enumerate(batch.entries):
            if self._record_condition(entry.record, now_ms) != condition:
                rest = Batch(self._new_id(), batch.entries[count:], batch.window, batch.attempts)
                rest.until_ms = batch.until_ms
                # The batch keeps its id only while it keeps its records.
                self._pending[0] = Batch(
                    self._new_id(), batch.entries[:count], batch.window, batch.attempts
                )
                self._pending.insert(1, rest)
                return

    def _condition(self, batch: Batch, now_ms: int) -> str | None:
        """Why the batch, or its first records, are not delivered now."""
        if not batch.is_final:
            return self._record_condition(batch.entries[0].record, now_ms)
        # A window's end is told however late it is, but not tried for longer than a record.
        if batch.attempts > 0 and self._expires() and now_ms > self._batch_expiry_ms(batch):
            return RECORD_AGE_EXCEEDED
        return None

    def _record_condition(self, record: Pulled, now_ms: int) -> str | None:
        if record.hops >= RECURSION_HOPS_MAX:
            return RECURSIVE_LOOP_DETECTED
        if self._expires() and now_ms > self._expiry_ms(record):
            return RECORD_AGE_EXCEEDED
        return None

    def _expires(self) -> bool:
        return self._settings.maximum_record_age_seconds >= 0

    def _expiry_ms(self, record: Pulled) -> int:
        return record.arrived_ms + self._settings.maximum_record_age_seconds * 1000

    def _batch_expiry_ms(self, batch: Batch) -> int:
        """Beyond it the batch's first record, or its final call, is too old."""
        if batch.entries:
            return self._expiry_ms(batch.entries[0].record)
        assert batch.window is not None
        return batch.window.end_ms + self._settings.maximum_record_age_seconds * 1000

    def _close_batch(self, now_ms: int, pressure: Pressure) -> bool:
        """Makes a pending batch of a window's end or of the queue's head, if its time has come."""
        window = self.windows[0] if self.windows else None
        if window is not None:
            call = self._final_call(window, now_ms, pressure)
            if call is not None:
                self._pending.append(Batch(self._new_id(), [], call))
                return True
        if not self._waiting:
            return False
        is_forced = self._waiting.is_closed or pressure.is_full or pressure.is_ended
        if not is_forced and now_ms < self._waiting.closes_ms():
            return False
        if window is None and self._settings.tumbling_window_seconds > 0:
            start_ms, end_ms = self._waiting.window()
            window = WindowState(start_ms, end_ms, {})
        call = None
        if window is not None:
            call = WindowCall(window.start_ms, window.end_ms, window.state, False, False)
        self._pending.append(Batch(self._new_id(), self._waiting.take(), call))
        return True

    # Windows

    def _final_call(
        self, window: WindowState, now_ms: int, pressure: Pressure
    ) -> WindowCall | None:
        """The window's last invocation, if it is time for it and no batch is before it."""
        is_early = is_due = self._is_cut(window)
        if not is_due and self._waiting:
            is_due = self._waiting[0].record.arrived_ms >= window.end_ms
        elif not is_due and pressure.is_ended:
            is_due = True
            is_early = now_ms < window.end_ms
        elif not is_due:
            is_due = pressure.is_caught_up and now_ms >= window.end_ms
        if not is_due:
            return None
        return WindowCall(window.start_ms, window.end_ms, window.state, True, is_early)

    def _is_cut_short(self, window: WindowState | None) -> bool:
        """The window's final call comes before what is pending."""
        if window is None or not self._is_cut(window):
            return False
        return not (self._pending and self._pending[0].is_final)

    def _is_cut(self, window: WindowState) -> bool:
        """It takes no more records: its state outgrew the bound, or windows have another length."""
        length_ms = self._settings.tumbling_window_seconds * 1000
        return window.is_terminated_early or window.end_ms - window.start_ms != length_ms

    def _call(self, batch: Batch) -> WindowCall | None:
        """What the invocation is told: the state as it is now."""
        call = batch.window
        if call is None or call.is_final:
            return call
        state = self.windows[0].state if self.windows else {}
        return WindowCall(call.start_ms, call.end_ms, state, False, False)

    def _judge(self, batch: Batch, payload: Any) -> Verdict:
        assert batch.settings is not None
        return judge(
            payload,
            [entry.record.position for entry in batch.entries],
            is_partial=batch.settings.report_batch_item_failures,
            is_windowed=batch.window is not None,
        )

    def _windows_after(self, batch: Batch, verdict: Verdict) -> tuple[WindowState, ...]:
        call = batch.window
        if call is None:
            return self.windows
        if call.is_final:
            return self.windows[1:]
        assert verdict.state is not None
        is_early = state_size_bytes(verdict.state) > WINDOW_STATE_BYTES_MAX
        return (WindowState(call.start_ms, call.end_ms, verdict.state, is_early),)
