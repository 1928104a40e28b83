"""Where event source mappings are in their shards: rows of a partition of the node's own.

One row for each lane of a shard of a mapping. Being an ordinary partition, it takes part in
transactions: that is how a handler's writes and its checkpoint are committed together. A commit
demands that the row is still of the version that its writer knows (``action``), so that whoever
was deposed meanwhile commits nothing.
"""

from __future__ import annotations

import logging
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence

import msgspec
import trio

from ..errors import Corrupt, OutcomeUnknown, Throttled
from ..lambdas.batches import LaneCheckpoint
from ..limits import TRANSACTION_ACTIONS_MAX, TRANSACTION_RETRY_SECONDS
from ..model.keys import encode_component, prefix_end, table_key
from ..model.schema import HASH_SPACE_END, KeyAttribute, KeySchema, Partition, Status, Table
from ..model.values import Item, decode_item, encode_item, item_size_bytes
from ..model.versions import NO_VERSION, Version
from ..storage.commands import Action, Delete, Outcome, Put, Transact
from ..storage.table_state import TableState
from ..storage.tree.interface import TREE_ID_MAX
from .partition import PartitionActor

logger = logging.getLogger(__name__)

CHECKPOINTS_LOG = "checkpoints"
#: Counted from the other end than tables' trees, whose numbers were given out from 4 on.
CHECKPOINTS_TREE = TREE_ID_MAX - 1
#: The partition described as a table. ``place`` is mapping and shard.
CHECKPOINTS_TABLE = Table(
    namespace="",
    name="checkpoints",
    table_id="checkpoints",
    status=Status.ACTIVE,
    created_ms=0,
    key=KeySchema((KeyAttribute("place", "S"),), (KeyAttribute("lane", "N"),)),
    attribute_kinds={"place": "S", "lane": "N"},
    tree=CHECKPOINTS_TREE,
    partitions=(Partition(CHECKPOINTS_LOG, 0, HASH_SPACE_END - 1),),
)

_decode = msgspec.msgpack.Decoder(LaneCheckpoint).decode


class Checkpoints:
    """Reads and writes checkpoint rows. Owned by the node."""

    def __init__(self, partition: PartitionActor) -> None:
        self._partition = partition

    def load(self, mapping: str, shard_id: str) -> list[LaneCheckpoint]:
        """The rows of one shard, by lane; none if the mapping has not begun with it."""
        prefix = _prefix(mapping, shard_id)
        rows = []
        for _, row in self._partition.rows(CHECKPOINTS_TREE, prefix, prefix_end(prefix)):
            try:
                rows.append(_decode(b64decode(decode_item(row.body)["row"]["B"])))
            except (msgspec.DecodeError, KeyError) as error:
                raise Corrupt("a checkpoint cannot be read") from error
        return rows

    def version(self, mapping: str, shard_id: str, lane: int) -> Version:
        """The version of a lane's row. Every store gives it a new one."""
        found = self._partition.get(CHECKPOINTS_TREE, _key(mapping, shard_id, lane))
        return NO_VERSION if found is None else found.version

    def action(
        self, mapping: str, shard_id: str, checkpoint: LaneCheckpoint, version: Version
    ) -> tuple[PartitionActor, Action]:
        """What stores ``checkpoint`` as part of a transaction, if the row is of ``version``."""
        put = _put(mapping, shard_id, checkpoint)
        return self._partition, msgspec.structs.replace(put, version=version)

    async def is_stored(self, mapping: str, shard_id: str, checkpoint: LaneCheckpoint) -> bool:
        """Whether ``checkpoint`` is its lane's row, once no transaction holds that any more."""
        key = _key(mapping, shard_id, checkpoint.lane)
        state = self._partition.machine.state
        while isinstance(state, TableState) and (state.holds(key) or state.will_change(key)):
            await trio.sleep(TRANSACTION_RETRY_SECONDS)
            state = self._partition.machine.state
        return checkpoint in self.load(mapping, shard_id)

    async def save(
        self, mapping: str, shard_id: str, checkpoints: Sequence[LaneCheckpoint]
    ) -> None:
        """Store these rows, all together; durable when this returns.

        Raises Unavailable if the node is stopping.
        """
        await self._transact([_put(mapping, shard_id, checkpoint) for checkpoint in checkpoints])

    async def replace(
        self, mapping: str, shard_id: str, checkpoints: Sequence[LaneCheckpoint]
    ) -> None:
        """Have these rows, and no others, for the shard; durable when this returns."""
        puts = [_put(mapping, shard_id, checkpoint) for checkpoint in checkpoints]
        kept = {put.key for put in puts}
        prefix = _prefix(mapping, shard_id)
        deletes = [
            Delete(key)
            for key, _ in self._partition.rows(CHECKPOINTS_TREE, prefix, prefix_end(prefix))
            if key not in kept
        ]
        await self._transact([*puts, *deletes])

    async def sweep(self, is_known: Callable[[str, str], bool]) -> int:
        """Remove the rows of mappings and shards that are no more; how many there were.

        ``is_known`` says whether there are a mapping and a shard of it.
        """
        old = []
        for key, row in self._partition.rows(CHECKPOINTS_TREE, b"", None):
            mapping, _, shard_id = decode_item(row.body)["place"]["S"].partition("/")
            if not is_known(mapping, shard_id):
                old.append(Delete(key))
        for begin in range(0, len(old), TRANSACTION_ACTIONS_MAX):
            await self._transact(old[begin : begin + TRANSACTION_ACTIONS_MAX])
        return len(old)

    async def _transact(self, actions: Sequence[Action]) -> None:
        # Doing it again is harmless: rows are replaced by the same rows.
        while actions:
            try:
                outcome = await self._partition.write(Transact(tuple(actions)))
            except (OutcomeUnknown, Throttled) as error:
                logger.warning("a checkpoint is stored again: %s", error)
            else:
                assert isinstance(outcome, Outcome)
                if outcome.committed:
                    return
            # A transaction under way holds a row.
            await trio.sleep(TRANSACTION_RETRY_SECONDS)


def _prefix(mapping: str, shard_id: str) -> bytes:
    return table_key(encode_component("S", {"S": f"{mapping}/{shard_id}"}), None)


def _put(mapping: str, shard_id: str, checkpoint: LaneCheckpoint) -> Put:
    packed = b64encode(msgspec.msgpack.encode(checkpoint)).decode()
    item: Item = {
        "place": {"S": f"{mapping}/{shard_id}"},
        "lane": {"N": str(checkpoint.lane)},
        "row": {"B": packed},
    }
    key = _key(mapping, shard_id, checkpoint.lane)
    return Put(key, encode_item(item), item_size_bytes(item))


def _key(mapping: str, shard_id: str, lane: int) -> bytes:
    return _prefix(mapping, shard_id) + encode_component("N", {"N": str(lane)})
