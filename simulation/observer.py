"""Looks at running nodes from outside, all the time: what must hold at every moment.

A global index may lag, but a partition of it never shows an older version of an item after a newer
one, also not while it is being filled: readers would see writes undone. (Between two partitions of
an index there is no order: an item that moves may be seen in both for a while, or in neither.)

A partition's closed timestamp is a promise: no row of this region that appears later is of a
version at or below.
"""

from __future__ import annotations

import trio

from ..actors.tables import TableRef
from ..errors import ResourceNotFound
from ..model.keys import hash_position, hash_prefix
from ..model.schema import GlobalIndex, Partition, Status
from ..model.values import decode_item
from ..storage.indexes import primary_key
from .simulated_node import SimulatedNode
from .tables import is_served

_PARTITIONS_INTERVAL_SECONDS = 0.05
_INDEXES_INTERVAL_SECONDS = 0.002


class Observer:
    """Of one node."""

    def __init__(self, node: SimulatedNode, interval_seconds: float) -> None:
        self._sim = node
        self._interval_seconds = max(interval_seconds, _INDEXES_INTERVAL_SECONDS)
        #: (index partition's log, item's key) -> the newest version seen there.
        self._newest: dict[tuple[str, bytes], int] = {}
        #: Partition's log -> what it said was closed, and the versions that were there.
        self._closed: dict[str, tuple[int, dict[bytes, int]]] = {}
        #: Entries and rows looked at.
        self.looked_at = 0

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        next_partitions = 0.0
        while True:
            await trio.sleep(self._interval_seconds)
            node = self._sim.node
            if node is None:
                continue
            looks_at_partitions = trio.current_time() >= next_partitions
            if looks_at_partitions:
                next_partitions = trio.current_time() + _PARTITIONS_INTERVAL_SECONDS
            for name in node.tables.names(""):
                ref = node.tables.find("", name)
                assert ref is not None
                for index in ref.table.global_indexes:
                    self._look(ref, index)
                is_active = ref.table.status is Status.ACTIVE
                if looks_at_partitions and is_active and is_served(ref):
                    for partition in ref.table.partitions:
                        self._look_at_closed(ref, partition, node.region_number)

    def _look_at_closed(self, ref: TableRef, partition: Partition, own: int) -> None:
        low, high = hash_prefix(partition.low), hash_prefix(partition.last + 1)
        actor = ref.partition_of(low)
        closed, before = self._closed.get(partition.log_id, (0, {}))
        now = {
            key: row.hlc
            for key, row in actor.rows(ref.table.tree, low, high)
            if row.region in (0, own)
        }
        self.looked_at += len(now)
        for key, version in now.items():
            assert version > closed or before.get(key) == version, (
                f"{closed} was closed in {ref.table.name}, and then a row of {version} appeared"
            )
        closed_now = actor.machine.closed_timestamp
        assert closed_now >= closed, f"a closed timestamp went back from {closed} to {closed_now}"
        self._closed[partition.log_id] = (closed_now, now)

    def _look(self, ref: TableRef, index: GlobalIndex) -> None:
        try:
            rows = list(ref.rows(index.name, b"", None))
        except (KeyError, ResourceNotFound):
            return  # It is not served yet, or no more.
        newest = self._newest
        for key, row in rows:
            self.looked_at += 1
            partition = _partition_of(index, key)
            place = (partition, primary_key(ref.table, decode_item(row.body)))
            assert row.hlc >= newest.get(place, 0), (
                f"index {index.name} shows version {row.hlc} after {newest[place]}"
            )
            newest[place] = row.hlc


def _partition_of(index: GlobalIndex, key: bytes) -> str:
    position = hash_position(key)
    return next(
        partition.log_id
        for partition in index.partitions
        if partition.low <= position <= partition.last
    )
