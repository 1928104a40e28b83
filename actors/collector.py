"""Collects tombstones that every region has passed. Owned by ``Regions``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import trio

from ..errors import OutcomeUnknown, StorageError, Throttled, Unavailable
from ..limits import COLLECT_ROWS
from ..model.groups import Group
from ..storage.commands import Collect, Collected
from .replicator import Source, replica_of

logger = logging.getLogger(__name__)


class Collector:
    """``look`` gives every global table's group, the numbers of its other members, its sources."""

    __slots__ = ("_look", "_pause_seconds")

    def __init__(
        self,
        look: Callable[[], Iterable[tuple[Group, Sequence[int], Sequence[Source]]]],
        pause_seconds: float,
    ) -> None:
        self._look = look
        self._pause_seconds = pause_seconds

    async def run(self) -> None:
        """Look, again and again, until cancelled."""
        while True:
            await trio.sleep(self._pause_seconds)
            for group, others, sources in self._look():
                try:
                    for source in sources:
                        await self._collect(source, others)
                except (Throttled, OutcomeUnknown, Unavailable, StorageError) as error:
                    logger.warning("tombstones of %s are collected later: %s", group.table, error)

    async def _collect(self, source: Source, others: Sequence[int]) -> None:
        replica = replica_of(source.actor).replica
        if not replica.totals.count:
            return
        # Alone, nobody is left who could bring anything.
        alone = source.actor.machine.closed_timestamp
        horizon = source.marks.horizon(others) if others else alone
        if horizon <= replica.horizon:
            return
        cursor: bytes | None = source.low
        while cursor is not None:
            command = Collect(horizon, cursor, source.high, COLLECT_ROWS)
            result = await source.actor.write(command)
            assert isinstance(result, Collected)
            cursor = result.cursor
            await trio.lowlevel.checkpoint()
