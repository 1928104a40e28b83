"""Waits until a read of a global table can be served as consistently as it was asked for.

Owned by ``Regions``. The decisions are ``globaltables.consistency``'s; here they are asked of the
partitions that a call touches, again whenever a watermark has moved, until they fall well or the
call has waited for long enough. Who waits has the other regions asked how far they are, so that it
takes about a round trip where nothing is missing.

``meet`` returns in the same synchronous slice in which everything asked for was here: a read that
follows without a checkpoint has it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec
import trio

from ..errors import InvalidRequest, StaleReplica
from ..globaltables.consistency import Demand, Lack, Reading, Standing, first_lack
from ..globaltables.watermarks import Watermarks
from ..host.by_hand import is_driven
from ..limits import INDEX_LOOK_SECONDS, PULSE_WANTED_AGAIN_SECONDS
from ..model.groups import Group
from ..model.schema import Table
from .link_in import moment_ms
from .replicator import replica_of
from .tables import Place

if TYPE_CHECKING:
    from .partition import PartitionActor

_NOT_ON_INDEX = "Consistent reads are not supported on global secondary indexes"


class Home(Protocol):
    """What the levels need of the regions' owner."""

    #: This node's region.
    own: str
    number: int
    #: Woken when a watermark moves.
    marked: trio.lowlevel.ParkingLot

    def group_of(self, table: Table) -> Group | None:
        """The group that a table here belongs to."""
        ...

    def marks(self, group_id: str, partition: int) -> Watermarks:
        """What is known of how far regions have got in a partition."""
        ...

    def want(self, group_id: str, partitions: Collection[int]) -> None:
        """Have all other regions tell at once how far these partitions are."""
        ...

    def has_passed(self, hlc: int) -> bool:
        """Whether the next version given out here is above ``hlc``."""
        ...


class _Part(msgspec.Struct, frozen=True):
    """One partition of a place."""

    group: Group
    index: int
    actor: PartitionActor
    standing: Standing


class Levels:
    """See the module's text."""

    __slots__ = ("_home",)

    def __init__(self, home: Home) -> None:
        self._home = home

    async def meet(self, reading: Reading, places: Sequence[Place]) -> None:
        """Return when ``places`` can be read as ``reading`` demands.

        Raises:
            StaleReplica: they cannot, not within the time that it has.
            InvalidRequest: a strong read of a global index, which never is.
        """
        parts = self._touch(reading, places)
        demand = reading.demand
        if demand.level == "strong" and any(place.index is not None for place in places):
            raise InvalidRequest(_NOT_ON_INDEX)
        if not parts or demand.level in ("strong", "eventual"):
            return
        indexed = [place for place in places if place.index is not None]
        if not indexed and self._lack(demand, parts) is None:
            return
        if is_driven():
            # From here on in a task, which may wait.
            await trio.lowlevel.checkpoint()
        deadline = trio.current_time() + demand.wait_seconds
        while True:
            await self._wait(demand, places, deadline)
            known = self._parts(places, copied=bool(indexed))
            if await self._carried_over(indexed, deadline):
                # Indexes hold what their tables held then, and some time has passed.
                if self._lack(demand, known) is None:
                    return
            elif trio.current_time() >= deadline:
                raise StaleReplica(
                    f"{self._home.own}: a global index has not caught up with its table within "
                    f"{demand.wait_seconds:g} seconds; retry later"
                )

    async def meet_write(
        self, reading: Reading, places: Sequence[Place], *, reads: bool = True
    ) -> None:
        """Return when a write of ``places`` may be decided after all that its session has seen.

        Its version is then above them. ``reads``: it also looks at what is there. Raises
        StaleReplica.
        """
        self._touch(reading, places)
        demand = reading.demand
        if demand.level != "session":
            return
        newest = demand.token.newest()
        if not self._home.has_passed(newest) and self._parts(places):
            if is_driven():
                await trio.lowlevel.checkpoint()
            deadline = trio.current_time() + demand.wait_seconds
            while not self._home.has_passed(newest):
                left = deadline - trio.current_time()
                if left <= 0:
                    raise StaleReplica(
                        f"{self._home.own}: the clock is behind what the session has seen and has "
                        f"not passed it within {demand.wait_seconds:g} seconds; retry later"
                    )
                await trio.sleep(min(left, INDEX_LOOK_SECONDS))
        if reads:
            await self.meet(Reading(demand), places)

    def _touch(self, reading: Reading, places: Sequence[Place]) -> list[_Part]:
        parts = self._parts(places)
        for part in parts:
            reading.touch(self._home.number, _heard(part.actor))
        return parts

    def _parts(self, places: Sequence[Place], *, copied: bool = False) -> list[_Part]:
        """The partitions of those places that are in global tables, with what they know now."""
        home = self._home
        parts: list[_Part] = []
        for place in places:
            group = home.group_of(place.table.table)
            if group is None:
                continue
            others = tuple(member.number for member in group.others(home.own))
            for index, actor in place.table.partitions_of(
                place.low, place.high, everything=place.index is not None
            ):
                marks = home.marks(group.group_id, index)
                received = replica_of(actor).replica.received.values()
                standing = Standing(
                    home.number,
                    others,
                    marks.copy() if copied else marks,
                    any(source.cursor is not None for source in received),
                )
                parts.append(_Part(group, index, actor, standing))
        return parts

    def _lack(self, demand: Demand, parts: Sequence[_Part]) -> tuple[Group, Lack] | None:
        now_ms = moment_ms()
        for part in parts:
            lack = first_lack(demand, part.standing, now_ms)
            if lack is not None:
                return part.group, lack
        return None

    async def _wait(self, demand: Demand, places: Sequence[Place], deadline: float) -> None:
        """Return when nothing is lacking. Raises StaleReplica."""
        while True:
            parts = self._parts(places)
            found = self._lack(demand, parts)
            if found is None:
                return
            left = deadline - trio.current_time()
            if left <= 0:
                raise StaleReplica(self._told(demand, *found))
            by_group: dict[str, dict[int, object]] = {}
            for part in parts:
                by_group.setdefault(part.group.group_id, {})[part.index] = None
            for group_id, indexes in by_group.items():
                self._home.want(group_id, indexes)
            with trio.move_on_after(min(left, PULSE_WANTED_AGAIN_SECONDS)):
                await self._home.marked.park()

    def _told(self, demand: Demand, group: Group, lack: Lack) -> str:
        names = {member.number: member.region for member in group.members.values()}
        return (
            f"{self._home.own}: table {group.table} cannot be read at level {demand.level}: "
            f"{names.get(lack.number, lack.number)} {lack.reason}, and that has not changed within "
            f"{demand.wait_seconds:g} seconds; retry later"
        )

    async def _carried_over(self, places: Sequence[Place], deadline: float) -> bool:
        """Whether, by the deadline, global indexes hold what their tables hold now."""
        wanted = [
            (target, actor.log_id, actor.lsn)
            for place in places
            if place.index is not None
            for _, actor in place.table.partitions_of(b"", None, everything=True)
            for target in place.table.index_actors(place.index)
        ]
        while True:
            if all(_progress(target, log_id) >= lsn for target, log_id, lsn in wanted):
                return True
            left = deadline - trio.current_time()
            if left <= 0:
                return False
            await trio.sleep(min(left, INDEX_LOOK_SECONDS))


def _heard(actor: PartitionActor) -> Callable[[], Mapping[int, int]]:
    return lambda: replica_of(actor).replica.heard


def _progress(target: PartitionActor, log_id: str) -> int:
    progress = target.machine.state.progress.get(log_id)
    return 0 if progress is None else progress.lsn
