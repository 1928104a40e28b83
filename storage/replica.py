"""What a partition of a global table knows besides its rows: tombstones, versions, positions.

Owned by one ``TableState``. A deleted item leaves a *tombstone*, a row without body in a tree of
the table's own, so that whatever is older finds out that it is; it goes when every region has
passed it (``horizon``). ``received`` is how far each other region's log is contained here. See
``docs/global-tables.md``.

Invariant: a key is in ``_proposed`` exactly while an effect on it is proposed and not yet applied,
with the newest version proposed.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ..model.values import Item
from ..model.versions import NO_VERSION, Version
from .arrivals import Arrival
from .records import Effect, Received, TombstonesDropped
from .rows import Row, decode_row, encode_row, row_size_bytes
from .totals import Totals
from .tree.btree import BTree

#: What a policy makes of a conflict: (the item written here that lost, the one that won) -> the
#: item to be had, None for none. Returning the second as it is leaves things so.
Resolve = Callable[[Item | None, Item | None], Item | None]


class ReplicaPosition(msgspec.Struct, frozen=True):
    """What is stored of it with a partition's position.

    ``heard``: region, this one too -> its highest hlc here. ``own_lsn``: the last entry with a
    change of this region's own, or a barrier; None: not known.
    """

    received: dict[str, Received] = {}
    horizon: int = 0
    heard: dict[int, int] = {}
    own_lsn: int | None = None


class Replica:
    """See the module's text. The partition's owner alone changes it."""

    __slots__ = (
        "_btree",
        "_counts",
        "_is_own",
        "_number",
        "_proposed",
        "_receiving",
        "changes",
        "heard",
        "horizon",
        "own_lsn",
        "received",
        "totals",
        "tree",
    )

    def __init__(self, btree: BTree, number: int, position: ReplicaPosition | None) -> None:
        # A table becomes a global one by a barrier that is still to be replayed, or was made so.
        position = position or ReplicaPosition(own_lsn=0)
        self._btree = btree
        self._number = number
        #: The tombstones' tree; 0 while the table is no global one.
        self.tree = 0
        #: What this partition holds of that tree.
        self.totals = Totals()
        #: Key -> the newest version proposed for it.
        self._proposed: dict[bytes, Version] = {}
        #: Key -> how many proposals touch it.
        self._counts: dict[bytes, int] = {}
        #: Source log -> how far it has been received, durably.
        self.received = dict(position.received)
        #: The same as proposed.
        self._receiving: dict[str, Received] = {}
        #: Nothing at or below it is taken any more: it is known here, or was deleted since.
        self.horizon = position.horizon
        #: Region number (this one's too) -> the highest hlc of its that took effect here.
        self.heard = dict(position.heard)
        #: How many changes of this region's own took effect since this object was made.
        self.changes = 0
        #: The LSN of the last entry that brought one, or a barrier; None: not known.
        self.own_lsn = position.own_lsn
        #: The entry being applied is such a one.
        self._is_own = False

    def position(self) -> ReplicaPosition | None:
        """What is stored; None for a table that was never a global one."""
        if not self.tree and not self.received:
            return None
        return ReplicaPosition(dict(self.received), self.horizon, dict(self.heard), self.own_lsn)

    # Versions.

    def region_of(self, region: int) -> int:
        """A stored region number: 0 is this region, before it had one."""
        return region or self._number

    def is_own(self, version: Version) -> bool:
        """Whether it was written in this region."""
        return version.region == self._number

    def version_of(self, key: bytes, row: Row | None) -> Version:
        """The newest version of ``key``, deletions and proposals included.

        ``row`` is the newest row, proposals included.
        """
        proposed = self._proposed.get(key)
        if proposed is not None:
            return proposed
        if row is not None:
            return Version(row.hlc, self.region_of(row.region))
        if self.totals.count:
            data = self._btree.get(self.tree, key)
            if data is not None:
                return decode_row(key, data).version
        return NO_VERSION

    def is_news(self, arrival: Arrival, known: Version) -> bool:
        """Whether ``arrival`` replaces what is known of its key."""
        version = Version(arrival.hlc, arrival.region)
        return version > known and arrival.hlc > self.horizon

    def conflicts(self, arrival: Arrival, known: Version) -> bool:
        """Whether ``arrival``, which is news, beats a write of this region that it had not seen."""
        return (
            arrival.base_hlc >= 0
            and known != NO_VERSION
            and self.is_own(known)
            and Version(arrival.base_hlc, arrival.base_region) < known
        )

    def propose(self, key: bytes, version: Version) -> None:
        """An effect on ``key`` is proposed."""
        self._proposed[key] = version
        self._counts[key] = self._counts.get(key, 0) + 1

    # Positions.

    def receiving(self, source: str) -> Received | None:
        """How far ``source`` has been received, proposals included."""
        return self._receiving.get(source) or self.received.get(source)

    def is_receiving(self, source: str) -> bool:
        """Whether a position of ``source`` is proposed and not yet durable."""
        return source in self._receiving

    def receive(self, received: Received) -> None:
        """A position is proposed."""
        self._receiving[received.source] = received

    # Applying.

    def apply_barrier(self) -> None:
        """Perhaps the table is a global one from here on, with all that it has."""
        self._is_own = True

    def apply_effect(self, effect: Effect) -> None:
        """Keep tombstones in step with one committed effect of a global table."""
        assert self.tree
        if effect.body is None:
            row = Row(b"", 0, effect.hlc, self.region_of(effect.region), effect.transaction)
            self._put(effect.key, encode_row(effect.key, row))
        elif self.totals.count:
            self._put(effect.key, None)
        region = self.region_of(effect.region)
        if effect.hlc > self.heard.get(region, 0):
            self.heard[region] = effect.hlc
        if region == self._number:
            self.changes += 1
            self._is_own = True

    def applied_entry(self, lsn: int) -> None:
        """All records of an entry are applied."""
        if self._is_own:
            self.own_lsn = lsn
            self._is_own = False

    def apply_dropped(self, record: TombstonesDropped) -> None:
        """Remove tombstones that every region has passed, unless they are newer again."""
        self.horizon = max(self.horizon, record.horizon)
        for key in record.keys:
            data = self._btree.get(self.tree, key)
            if data is not None and decode_row(key, data).hlc <= record.horizon:
                self._put(key, None)

    def applied_effect(self, key: bytes) -> None:
        """An effect that was proposed here is in the tree."""
        count = self._counts.pop(key, 0) - 1
        if count > 0:
            self._counts[key] = count
        else:
            self._proposed.pop(key, None)

    def applied_received(self, received: Received) -> None:
        """A position that was proposed here is durable."""
        if self._receiving.get(received.source) is received:
            del self._receiving[received.source]

    def _put(self, key: bytes, data: bytes | None) -> None:
        old = self._btree.get(self.tree, key)
        if data is not None:
            self._btree.put(self.tree, key, data)
        elif old is not None:
            self._btree.delete(self.tree, key)
        if old is not None or data is not None:
            size_bytes = 0 if old is None else row_size_bytes(old)
            self.totals.replace(old, size_bytes, data, 0)
