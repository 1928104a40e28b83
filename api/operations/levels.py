"""Have an operation wait until its tables are as consistent here as the call demands.

Called only for calls with a demand, in front of what reads or writes. Where a table is no global
one, or the node is alone, every level is met.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...actors.tables import Place
from ...globaltables.consistency import Reading

if TYPE_CHECKING:
    from ...actors.tables import Tables

__all__ = ["Place", "meet", "meet_write"]


async def meet(tables: Tables, reading: Reading, places: Sequence[Place]) -> None:
    """Return when ``places`` can be read, with nothing between that and the reading."""
    if tables.regions is not None:
        await tables.regions.levels.meet(reading, places)


async def meet_write(
    tables: Tables, reading: Reading, places: Sequence[Place], *, reads: bool = True
) -> None:
    """Return when ``places`` can be written; ``reads``: the write looks at what is there."""
    if tables.regions is not None:
        await tables.regions.levels.meet_write(reading, places, reads=reads)
