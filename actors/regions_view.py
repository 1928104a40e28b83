"""What the API asks of global tables: which regions there are, and who is a replica of what.

An interface only: what stands behind it is a node's affair, and a node that was started without a
regions file has none (``Tables.regions`` is None). Reads are synchronous looks at what this region
knows at the moment; a change returns when it is durable here, and the other regions follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..globaltables.policies import ByAttribute
from ..model.groups import Group, Overrides
from ..model.schema import Table
from .conflicts import Conflicts

if TYPE_CHECKING:
    from ..globaltables.faults import LinkFaults
    from .levels import Levels
    from .regions import Lag, PeerStatus


class Regions(Protocol):
    """The regions of a regions file, and the groups that this one knows."""

    #: This node's region, its number in versions, and where it answers links.
    own: str
    number: int
    address: str
    #: What drills do to the links.
    faults: LinkFaults
    #: Has reads be as consistent as they were asked for.
    levels: Levels

    def known(self) -> list[str]:
        """The regions of the regions file, this one included."""
        ...

    def group_of(self, table: Table) -> Group | None:
        """What ``table`` is a replica of."""
        ...

    def groups(self, namespace: str) -> list[Group]:
        """Every group of a namespace that this region knows."""
        ...

    #: What becomes of writes that lose conflicts.
    conflicts: Conflicts

    async def set_policy(
        self, table: Table, policy: str | ByAttribute | None, conflicts_table: str | None
    ) -> Group:
        """Set what becomes of writes that lose conflicts, in every region."""
        ...

    async def add_replica(self, table: Table, region: str, overrides: Overrides) -> Table:
        """Invite ``region``; the first time this founds the group. Returns the table as it is."""
        ...

    async def update_replica(self, table: Table, region: str, overrides: Overrides) -> Table:
        """Set what a replica has for itself, as a whole. Returns the table as it is."""
        ...

    async def remove_replica(self, table: Table, region: str, *, keep: bool) -> Table:
        """Begin to remove a replica, this region's own as well; ``keep`` leaves its table there."""
        ...

    async def share(self, table: Table) -> None:
        """Have the settings of ``table`` that all replicas share be theirs, if it has any."""
        ...

    async def forget_replica(self, table: Table, region: str) -> Table:
        """Give up a region that is lost for good, with whatever nobody has received from it."""
        ...

    def set_clock_skew(self, milliseconds: int) -> None:
        """Have this region's clock be ahead by so much, or behind, for a drill."""
        ...

    @property
    def clock_skew_ms(self) -> int:
        """How far a drill has set this region's clock ahead."""
        ...

    def lags(self) -> list[Lag]:
        """How far every other region is behind this one, partition by partition."""
        ...

    def status(self) -> list[PeerStatus]:
        """Every other region, as seen from here."""
        ...

    def stop(self) -> None:
        """Begin to end all links."""
        ...
