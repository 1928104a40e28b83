"""Keeps durable, a little ahead, above what a region's clock begins after a restart.

Closed timestamps of idle partitions are told from the clock, and no log remembers them: a clock
that was put back while the node was away would write below them. So nothing is told beyond
``limit``, and a start begins above it. Owned by ``Regions``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec
import trio

from ..errors import OutcomeUnknown, StorageError, Throttled
from ..limits import CLOCK_RESERVE_SECONDS
from ..model.versions import hlc_at
from .catalog import CLOCK_NAME, REGION_ENTRY, Catalog

logger = logging.getLogger(__name__)


class ClockReserve:
    """``tick`` gives the clock's next value. ``limit`` is what is durable; 0 at first."""

    __slots__ = ("_catalog", "_tick", "limit")

    def __init__(self, catalog: Catalog, tick: Callable[[], int]) -> None:
        self._catalog = catalog
        self._tick = tick
        #: After a restart the clock begins above it.
        self.limit = 0

    async def run(self) -> None:
        """Reserve, again and again, until cancelled."""
        while True:
            limit = self._tick() + hlc_at(int(CLOCK_RESERVE_SECONDS * 1000))
            try:
                await self._catalog.save_entry(
                    REGION_ENTRY, CLOCK_NAME, msgspec.msgpack.encode(limit)
                )
            except (OutcomeUnknown, Throttled, StorageError) as error:
                logger.warning("the clock's reservation is stored later: %s", error)
            else:
                self.limit = limit
            await trio.sleep(CLOCK_RESERVE_SECONDS / 2)
