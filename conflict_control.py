"""What becomes of writes that lose conflicts between regions, from Python: part of ``Table``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from .api.operations import conflicts
from .globaltables.policies import ByAttribute, policy_text, shown


class ConflictControl:
    """The calls of a ``Table`` that are about conflicts. The table is a global one."""

    __slots__ = ()

    _call: Callable[..., Awaitable[dict[str, Any]]]

    async def set_conflict_policy(
        self, policy: str | ByAttribute, *, conflicts_table: str | None = None
    ) -> None:
        """Say, for every region, what becomes of a write that was beaten by one from elsewhere.

        ``policy`` is "last_writer_wins", ``millstream.by_attribute("price")`` (the higher value
        wins) or "resolver": the function that is registered with ``Triggers.resolver`` decides.
        ``conflicts_table`` names a table that each region makes for itself and in which it keeps
        the images of its own that lost; None: nowhere.

        Raises InvalidRequest for a table that is no global one, and for what cannot be meant.
        """
        request: dict[str, Any] = {"Policy": shown(policy_text(policy))}
        if conflicts_table is not None:
            request["ConflictsTable"] = conflicts_table
        await self._call(conflicts.set_conflict_policy, request)

    async def conflict_policy(self) -> dict[str, Any]:
        """The policy, and what it has done in this region since the start; in DynamoDB's style."""
        answer = await self._call(conflicts.describe_conflict_policy, {})
        found: dict[str, Any] = answer["ConflictPolicy"]
        return found
