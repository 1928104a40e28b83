"""Looks at running nodes from outside, all the time: what must hold at every moment.

A global index may lag, but a partition of it never shows an older version of an item after a newer
one, also not while it is being filled: readers would see writes undone. (Between two partitions of
an index there is no order: an item that moves may be seen in both for a while, or in neither.)
"""

from __future__ import annotations

import trio

from ..actors.tables import TableRef
from ..errors import ResourceNotFound
from ..model.keys import hash_position
from ..model.schema import GlobalIndex
from ..model.values import decode_item
from ..storage.indexes import primary_key
from .simulated_node import SimulatedNode


class Observer:
    """Of one node."""

    def __init__(self, node: SimulatedNode, interval_seconds: float) -> None:
        self._sim = node
        self._interval_seconds = interval_seconds
        #: (index partition's log, item's key) -> the newest version seen there.
        self._newest: dict[tuple[str, bytes], int] = {}
        #: Entries looked at.
        self.looked_at = 0

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            await trio.sleep(self._interval_seconds)
            node = self._sim.node
            if node is not None:
                for name in node.tables.names(""):
                    ref = node.tables.find("", name)
                    assert ref is not None
                    for index in ref.table.global_indexes:
                        self._look(ref, index)

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
