"""Looking after triggers while they run: ``db.triggers``.

By the trigger's name. What is done to a mapping holds across restarts, except for the handler
itself, which is code.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from .actors.destinations import FailedBatch
from .actors.mapping_values import MappingStatistics
from .actors.mappings import Mappings
from .lambdas.settings import Mapping


class TriggerControl:
    """The triggers of one namespace. Every call raises ResourceNotFound for an unknown name."""

    __slots__ = ("_mappings", "_namespace")

    def __init__(self, mappings: Mappings, namespace: str) -> None:
        self._mappings = mappings
        self._namespace = namespace

    def list(self) -> Sequence[Mapping]:
        """All mappings, those of functions included, with their settings and states."""
        return self._mappings.list(self._namespace)

    def statistics(self) -> Sequence[MappingStatistics]:
        """What each has done since the start, and how far behind it is."""
        return self._mappings.statistics(self._namespace)

    async def pause(self, name: str) -> None:
        """Stop calling the handler. Records wait, for as long as the stream keeps them."""
        await self._mappings.pause(self._namespace, self._uuid(name))

    async def resume(self, name: str) -> None:
        """Go on where ``pause`` stopped."""
        await self._mappings.resume(self._namespace, self._uuid(name))

    async def reset(
        self, name: str, position: Literal["TRIM_HORIZON", "LATEST"] | datetime
    ) -> None:
        """Go on from another place: the oldest record kept (a replay), the newest, or a time."""
        place = position if isinstance(position, str) else int(position.timestamp() * 1000)
        await self._mappings.reset(self._namespace, self._uuid(name), place)

    async def delete(self, name: str) -> None:
        """Remove the mapping with its positions. Registering the name again begins anew."""
        await self._mappings.delete(self._namespace, self._uuid(name))

    def failed_batches(self, name: str) -> Sequence[FailedBatch]:
        """Batches that were given up and not dealt with since, oldest first."""
        return self._mappings.failed_batches(self._namespace, self._uuid(name))

    async def redrive(self, name: str, batch_id: str | None = None) -> int:
        """Give a failed batch (all of them) to the handler again; how many it took this time.

        What it takes is off the list; what fails again stays on it.
        """
        return await self._mappings.redrive(self._namespace, self._uuid(name), batch_id)

    def _uuid(self, name: str) -> str:
        return self._mappings.named(self._namespace, name).uuid
