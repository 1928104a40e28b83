"""The machine of one (event source mapping, stream shard): records in, invocations out.

Theory of operation. Records are fed in the shard's order and dealt to *lanes* by their item's key,
so that order per item is kept however many lanes there are; a lane (``lane.py``) works on one
batch at a time. ``ready`` gives out what is to be done; its owner reports with ``finished`` and
``discarded``. The owner also stores the checkpoints; this machine is built from them.

What is durable. Each lane's row says how far the lane is (``position``) and how far *all* lanes
are (``floor``). The floor counts only what checkpoints given out before say, so that a row that is
durable never speaks of progress that is not; therefore a ``ready``'s checkpoints are stored in its
order. A restart reads behind the largest floor and skips what a lane's own position covers:
nothing that a checkpoint covers is delivered again, and nothing else is left out.

When the parallelization factor changes, keys move between lanes. The old lanes' positions stay
in the rows as ``earlier`` until the floor has passed them, and a record that the old lane of its
key has done is skipped. Windows of old lanes cannot be divided: they end early. All rows are
replaced at once (``Replace``), so that a set of rows always speaks of one factor.

Pure: time comes in as ``now_ms``, and records, results and settings as values.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

from ..limits import SHARD_BUFFER_BATCHES, SHARD_BUFFER_BYTES_MAX, SHARD_BUFFER_RECORDS_MIN
from .attempts import Pressure
from .batches import (
    Checkpoint,
    Earlier,
    Effect,
    LaneCheckpoint,
    Pulled,
    Replace,
    Result,
    WindowState,
)
from .lane import Lane
from .settings import MappingSettings


def lane_of(key: bytes, factor: int) -> int:
    """The lane of an item: the same in every process."""
    return zlib.crc32(key) % factor if factor > 1 else 0


class Shard:
    """One shard's records on their way to one handler."""

    __slots__ = (
        "_earlier", "_factor", "_floor", "_fed", "_is_ended", "_lanes", "_last_id", "_replacement",
        "_settings", "_start",
    )  # fmt: skip

    def __init__(
        self, settings: MappingSettings, checkpoints: Iterable[LaneCheckpoint] = ()
    ) -> None:
        """``checkpoints`` are the shard's stored rows; none for a shard that begins at 0."""
        rows = sorted(checkpoints, key=lambda row: row.lane)
        self._settings = settings
        self._factor = settings.parallelization_factor
        assert self._factor >= 1
        self._last_id = 0
        self._is_ended = False
        #: Checkpoints that were given out say that all records up to here are done.
        self._floor = max((row.floor for row in rows), default=0)
        self._start = self._floor
        #: The last record fed.
        self._fed = self._floor
        #: What lanes of other factors did beyond the floor.
        self._earlier = _beyond(self._floor, (e for row in rows for e in row.earlier))
        self._replacement: Replace | None = None
        positions = [self._floor] * self._factor
        windows: list[tuple[WindowState, ...]] = [()] * self._factor
        is_other = any(row.factor != self._factor for row in rows)
        for row in rows:
            assert 0 <= row.lane < row.factor
            assert row.factor == rows[0].factor
            if is_other:
                lane = row.lane % self._factor
                windows[lane] += tuple(_ended_early(window) for window in row.windows)
                past = Earlier(row.factor, row.lane, row.position)
                self._earlier = _beyond(self._floor, (*self._earlier, past))
            else:
                positions[row.lane] = max(row.position, self._floor)
                windows[row.lane] = row.windows
        self._lanes = [
            Lane(settings, self._new_id, position, open_windows)
            for position, open_windows in zip(positions, windows)
        ]
        if is_other:
            self._replacement = Replace(
                tuple(self._row(index, self._floor) for index in range(self._factor))
            )

    # Inputs

    def feed(self, record: Pulled) -> None:
        """The shard's next record."""
        assert record.position > self._fed
        assert not self._is_ended
        lane = self._lanes[lane_of(record.key, self._factor)]
        if not record.matches or record.position <= lane.position or self._was_done(record):
            if record.position > lane.position:
                lane.skip(record.position)
        else:
            lane.feed(record, self._fed)
        self._fed = record.position

    def end(self) -> None:
        """The shard is closed and all its records have been fed."""
        self._is_ended = True

    def adopt(self, settings: MappingSettings) -> bool:
        """From the next batch on these settings hold. False, and nothing is changed, where the
        parallelization factor differs: that takes a new machine, made of the stored rows.
        """
        if settings.parallelization_factor != self._factor:
            return False
        self._settings = settings
        for lane in self._lanes:
            lane.adopt(settings)
        return True

    def finished(
        self,
        lane: int,
        batch_id: int,
        result: Result,
        now_ms: int,
        *,
        committed: LaneCheckpoint | None = None,
    ) -> None:
        """The handler's result. ``committed`` is the row, from ``preview``, that was made durable
        together with the handler's writes: it is not given out again.
        """
        this = self._lanes[lane]
        this.finished(batch_id, result, now_ms)
        if committed is not None:
            assert committed.lane == lane
            assert committed.position <= max(this.position, committed.floor)
            assert committed.windows == this.windows
            self._floor = max(self._floor, committed.floor)
            # Filtered records that came after the preview are told by the next row.
            this.has_news = False

    def discarded(self, lane: int, batch_id: int) -> None:
        """The batch that a ``Discard`` gave out is where the mapping wants it."""
        self._lanes[lane].discarded(batch_id)

    # Effects

    def ready(self, now_ms: int, is_caught_up: bool = True) -> list[Effect]:
        """What is to be done now; asked again after every input and at ``deadline``.

        ``is_caught_up``: everything that arrived before ``now_ms`` has been fed. Without it no
        tumbling window ends by time alone, since records of it may still come.
        """
        effects: list[Effect] = []
        if self._replacement is not None:
            effects.append(self._replacement)
            self._replacement = None
        effects.extend(self._checkpoints())
        pressure = self._pressure(is_caught_up)
        for index, lane in enumerate(self._lanes):
            effect = lane.step(index, now_ms, pressure)
            if effect is not None:
                effects.append(effect)
        return effects

    def _checkpoints(self) -> list[Checkpoint]:
        """Rows of the lanes that have news. Only the last tells the floor that they all allow.

        None is of a lane that is at work: it cannot have news.
        """
        floor = self._floor_with({})
        indices = [index for index, lane in enumerate(self._lanes) if lane.has_news]
        if not indices and floor > self._floor:
            # Not for a lane that is at work: its handler's writes may be on their way together
            # with a newer row, which this one would replace.
            indices = [index for index, lane in enumerate(self._lanes) if not lane.is_busy][:1]
        given = []
        for index in indices:
            if index == indices[-1]:
                self._floor = floor
                self._earlier = _beyond(floor, self._earlier)
            given.append(Checkpoint(index, self._row(index, self._floor)))
            self._lanes[index].has_news = False
        return given

    def preview(self, lane: int, batch_id: int, payload: Any) -> LaneCheckpoint | None:
        """The row to store if the handler returned this, None if that is a failure (of all the
        batch: partial progress has a row). Nothing changes.
        """
        after = self._lanes[lane].after(payload, batch_id)
        if after is None:
            return None
        done, position, windows = after
        has_news = any(other.has_news for index, other in enumerate(self._lanes) if index != lane)
        floor = self._floor if has_news else self._floor_with({lane: done})
        earlier = _beyond(floor, self._earlier)
        return LaneCheckpoint(lane, self._factor, max(position, floor), floor, windows, earlier)

    # Reads

    def wants(self) -> int:
        """How many more records may be fed."""
        if self._is_ended or self._is_full():
            return 0
        return self._records_max() - sum(lane.buffered for lane in self._lanes)

    def deadline(self, now_ms: int, is_caught_up: bool = True) -> int | None:
        """When ``ready`` may next have something by the passing of time alone; None for never."""
        pressure = self._pressure(is_caught_up)
        times = [lane.deadline(now_ms, pressure) for lane in self._lanes]
        return min((time for time in times if time is not None), default=None)

    def start_position(self) -> int:
        """The records behind this position are to be fed: it is itself done."""
        return self._start

    @property
    def position(self) -> int:
        """Everything up to here is done, in all lanes."""
        return self._floor_with({})

    @property
    def is_idle(self) -> bool:
        """Nothing is buffered, in flight, waiting, or to be stored. A window may be open."""
        return self._is_stored() and all(lane.is_empty for lane in self._lanes)

    @property
    def is_done(self) -> bool:
        """The shard has ended, and a checkpoint was given out for all of it."""
        return self._is_ended and self.is_idle and not any(lane.windows for lane in self._lanes)

    def _is_stored(self) -> bool:
        if self._replacement is not None or any(lane.has_news for lane in self._lanes):
            return False
        return self._floor_with({}) == self._floor

    def _floor_with(self, done: dict[int, int]) -> int:
        """How far all lanes are, supposing that in some of them so many more records were done."""
        befores = [lane.before(done.get(index, 0)) for index, lane in enumerate(self._lanes)]
        return min((before for before in befores if before is not None), default=self._fed)

    def _row(self, index: int, floor: int) -> LaneCheckpoint:
        lane = self._lanes[index]
        position = max(lane.position, floor)
        return LaneCheckpoint(index, self._factor, position, floor, lane.windows, self._earlier)

    def _was_done(self, record: Pulled) -> bool:
        """A lane of another factor did it."""
        return any(
            record.position <= past.position and lane_of(record.key, past.factor) == past.lane
            for past in self._earlier
        )

    def _records_max(self) -> int:
        records = self._settings.batch_size * self._factor * SHARD_BUFFER_BATCHES
        return max(records, SHARD_BUFFER_RECORDS_MIN)

    def _is_full(self) -> bool:
        buffered = sum(lane.buffered for lane in self._lanes)
        buffered_bytes = sum(lane.buffered_bytes for lane in self._lanes)
        return buffered >= self._records_max() or buffered_bytes >= SHARD_BUFFER_BYTES_MAX

    def _pressure(self, is_caught_up: bool) -> Pressure:
        return Pressure(is_full=self._is_full(), is_ended=self._is_ended, is_caught_up=is_caught_up)

    def _new_id(self) -> int:
        self._last_id += 1
        return self._last_id


def _beyond(floor: int, earlier: Iterable[Earlier]) -> tuple[Earlier, ...]:
    """What old lanes did beyond the floor, each lane once."""
    furthest: dict[tuple[int, int], int] = {}
    for past in earlier:
        if past.position > floor:
            lane = (past.factor, past.lane)
            furthest[lane] = max(past.position, furthest.get(lane, 0))
    return tuple(
        Earlier(factor, lane, position) for (factor, lane), position in sorted(furthest.items())
    )


def _ended_early(window: WindowState) -> WindowState:
    return WindowState(window.start_ms, window.end_ms, window.state, True)
