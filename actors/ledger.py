"""The ledger: the word on transactions over several partitions, kept in a partition of its own.

A row says when a transaction is committed, or that it is aborted. It is written once, before any
partition is told, and removed when all have been. See ``transactions.py`` for who writes and reads.
"""

from __future__ import annotations

import msgspec

from ..model.keys import encode_component, table_key
from ..model.schema import HASH_SPACE_END, KeyAttribute, KeySchema, Partition, Status, Table
from ..model.values import Item
from ..storage.commands import Token

LEDGER_LOG = "ledger"
LEDGER_TREE = 2

#: The ledger described as a table, so that an ordinary partition holds it.
LEDGER_TABLE = Table(
    namespace="",
    name="ledger",
    table_id="ledger",
    status=Status.ACTIVE,
    created_ms=0,
    key=KeySchema((KeyAttribute("transaction", "S"),)),
    attribute_kinds={"transaction": "S"},
    tree=LEDGER_TREE,
    partitions=(Partition(LEDGER_LOG, 0, HASH_SPACE_END - 1),),
)


class Decision(msgspec.Struct, frozen=True):
    """What the ledger says of a transaction: its timestamp, or None if it is aborted."""

    timestamp: int | None
    token: Token | None


def ledger_key(transaction: str) -> bytes:
    """Where a transaction's row is."""
    return table_key(encode_component("S", {"S": transaction}), None)


def ledger_item(transaction: str, decision: Decision) -> Item:
    """A decision as the ledger keeps it."""
    item: Item = {"transaction": {"S": transaction}}
    if decision.timestamp is not None:
        item["timestamp"] = {"N": str(decision.timestamp)}
    if decision.token is not None:
        item["token"] = {"S": decision.token.token}
        item["request_hash"] = {"S": decision.token.request_hash.hex()}
        item["used_ms"] = {"N": str(decision.token.used_ms)}
    return item


def decision_of(item: Item) -> Decision:
    """The decision that a row of the ledger holds."""
    token = None
    if "token" in item:
        token = Token(
            item["token"]["S"],
            bytes.fromhex(item["request_hash"]["S"]),
            int(item["used_ms"]["N"]),
        )
    timestamp = item.get("timestamp")
    return Decision(None if timestamp is None else int(timestamp["N"]), token)
