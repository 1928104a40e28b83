"""What must hold when faults have ceased and everything had time: the second family of checkers.

On the running node: every index equals its table, totals equal a recount, nothing is under way.
On what a clean stop left on the machine: trees are sound and hold what the positions beside them
say, nothing belongs to nobody, and the logs, replayed from their very first entry into an empty
tree, give the same rows, totals and progress.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..actors.flusher import POSITION_PREFIX, position_key
from ..actors.ledger import LEDGER_TREE
from ..actors.node import Node
from ..actors.system_tables import SYSTEM_TABLES
from ..actors.tables import TableRef
from ..model.keys import hash_prefix
from ..model.schema import GlobalIndex, LocalIndex, Partition, Status, Table
from ..model.versions import HybridClock
from ..storage.check import KeyRange, check_tree
from ..storage.index_state import IndexState
from ..storage.partition import Partition as Machinery
from ..storage.partition import decode_position
from ..storage.rows import Row, decode_row, row_checksum
from ..storage.table_state import TOKEN_TREE, TableState
from ..storage.tree.btree import BTree
from ..storage.tree.memory_store import MemoryStore
from .doors import ALL_BYTES
from .machine import Machine
from .recount import counted, expected_entries

Dump = dict[tuple[str, str | None], dict[bytes, Row]]
"""(table name, index name or None) -> rows."""


def references(node: Node) -> Iterator[TableRef]:
    """Every table of the world."""
    for name in node.tables.names(""):
        ref = node.tables.find("", name)
        assert ref is not None
        yield ref


def promises(node: Node) -> set[str]:
    """Transactions that some partition has promised and not ended."""
    return {
        name
        for ref in references(node)
        for partition in ref.table.partitions
        for name in ref.partition_of(hash_prefix(partition.low)).machine.state.promises
    }


def dump(node: Node) -> Dump:
    """Everything that reads can see."""
    found: Dump = {}
    for ref in references(node):
        table = ref.table
        for name in (None, *(index.name for index in _indexes(table))):
            found[table.name, name] = dict(ref.rows(name, b"", None))
    return found


def _indexes(table: Table) -> list[LocalIndex | GlobalIndex]:
    return [*table.local_indexes, *table.global_indexes]


def check_running(node: Node) -> int:
    """Indexes and totals of a node on which nothing is under way; how many rows were compared."""
    compared = 0
    assert not promises(node), "transactions are prepared, and nobody ends them"
    for ref in references(node):
        table = ref.table
        assert table.status is Status.ACTIVE
        rows = list(ref.rows(None, b"", None))
        statistics = ref.statistics()
        compared += len(rows)
        for index in _indexes(table):
            entries = dict(ref.rows(index.name, b"", None))
            compared += len(entries)
            wanted = expected_entries(table, index, rows)
            found = {key: row.body for key, row in entries.items()}
            assert found == wanted, _difference(index.name, found, wanted)
            totals = statistics.indexes[index.name]
            assert totals.item_count == len(entries), "an index's count"
            assert totals.size_bytes == sum(row.size_bytes for row in entries.values())
        assert statistics.item_count == len(rows), "a table's count"
        assert statistics.size_bytes == sum(row.size_bytes for _, row in rows), "a table's size"
    return compared


def _difference(name: str, found: dict[bytes, bytes], wanted: dict[bytes, bytes]) -> str:
    too_many = [body for key, body in found.items() if wanted.get(key) != body]
    missing = [body for key, body in wanted.items() if found.get(key) != body]
    return (
        f"index {name} differs from its table: {len(missing)} entries are missing,"
        f" {len(too_many)} should not be there; missing {missing[:2]}, too many {too_many[:2]}"
    )


def check_stopped(machine: Machine, tables: list[Table], region: int = 0) -> int:
    """What a clean stop left; how many log entries were replayed. ``region`` is its number."""
    store = machine.store
    _check_nothing_is_left_over(machine, tables)
    replayed = 0
    for table in (*SYSTEM_TABLES, *tables):
        _check_trees(store, table, None, table.partitions)
        for partition in table.partitions:
            replayed += _check_log(machine, table, None, partition, region)
        for index in table.global_indexes:
            _check_trees(store, table, index, index.partitions)
            for partition in index.partitions:
                replayed += _check_log(machine, table, index, partition, region)
    return replayed


def _check_nothing_is_left_over(machine: Machine, tables: list[Table]) -> None:
    known = [*SYSTEM_TABLES, *tables]
    logs = {log_id for table in known for log_id in table.log_ids()}
    trees = {tree for table in known for tree in table.trees()} | {TOKEN_TREE}
    store = machine.store
    assert not list(store.range(LEDGER_TREE, b"", None)), "a transaction is still in the ledger"
    found = set(machine.engine.list())
    assert found == logs, f"logs of no table {sorted(found - logs)}, none {sorted(logs - found)}"
    assert set(store.trees()) <= trees, "trees that belong to no table"
    assert not store.dropping(), "trees that are still being dropped"
    positions = {key for key, _ in store.meta_range(POSITION_PREFIX)}
    wanted = {position_key(log_id) for log_id in logs}
    assert positions == wanted, (
        f"positions without a log: {sorted(positions - wanted)},"
        f" logs without a position: {sorted(wanted - positions)}"
    )


def _trees(table: Table, index: GlobalIndex | None) -> list[int]:
    if index is not None:
        return [index.tree]
    tombstones = () if table.group_id is None else (table.tombstones,)
    return [table.tree, *(local.tree for local in table.local_indexes), *tombstones]


def _bounds(partition: Partition) -> tuple[bytes, bytes]:
    return hash_prefix(partition.low), hash_prefix(partition.last + 1)


def _check_trees(
    store: MemoryStore, table: Table, index: GlobalIndex | None, partitions: tuple[Partition, ...]
) -> None:
    def measure(key: bytes, data: bytes) -> tuple[int, int]:
        return decode_row(key, data).size_bytes, row_checksum(data)

    ranges: list[KeyRange] = [_bounds(partition) for partition in partitions]
    for tree in _trees(table, index):
        report = check_tree(store, tree, ranges, measure)
        assert report.is_sound, report.faults
        for partition, sums in zip(partitions, report.sums, strict=True):
            stored = store.meta_get(position_key(partition.log_id))
            assert stored is not None
            totals = decode_position(stored).totals[tree]
            assert totals == (sums.rows, sums.size_bytes, sums.checksum), (
                f"tree {tree} holds {sums}, its position says {totals}"
            )


def _check_log(
    machine: Machine, table: Table, index: GlobalIndex | None, partition: Partition, region: int
) -> int:
    """Replay the whole log into an empty tree and compare with what is stored."""
    log_id, store = partition.log_id, machine.store
    entries = dict(machine.archive.get(log_id, {}))
    for entry in machine.engine.read(log_id, machine.engine.first(log_id), ALL_BYTES):
        known = entries.setdefault(entry.lsn, entry.data)
        assert known == entry.data, "history changed"
    assert sorted(entries) == list(range(1, len(entries) + 1)), "the log is dense"
    btree = BTree(MemoryStore())
    state: TableState | IndexState
    if index is None:
        state = TableState(table, btree, region, {})
    else:
        state = IndexState(index, btree, {}, {})
    replica = Machinery(log_id, state, HybridClock(), 0, None)
    for lsn in sorted(entries):
        replica.replay(entries[lsn])
    low, high = _bounds(partition)
    for tree in _trees(table, index):
        replayed = list(btree.range(tree, low, high))
        assert replayed == list(store.range(tree, low, high)), (
            f"log {log_id} replayed gives other rows than tree {tree} holds"
        )
        assert state.totals[tree].as_tuple() == counted(replayed)
    stored = store.meta_get(position_key(log_id))
    assert stored is not None
    position = decode_position(stored)
    if index is not None:
        assert position.progress == state.progress, "an index's progress"
    assert position.lsn == len(entries), "a clean stop flushes everything"
    if isinstance(state, TableState) and table.group_id is not None:
        assert position.replica == state.replica_position(), "what is known of other regions"
    assert not position.promises, "a position holds promises of ended transactions"
    assert not state.promises, "a log holds promises that it does not end"
    return len(entries)
