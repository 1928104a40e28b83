"""A global table's partition in one region, driven by hand: its machine, tree, log and clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from millstream.globaltables.sending import arrivals_of
from millstream.model.schema import (
    HASH_SPACE_END,
    GlobalIndex,
    KeyAttribute,
    KeySchema,
    LocalIndex,
    Projection,
    Status,
    StreamSettings,
    Table,
)
from millstream.model.schema import Partition as PartitionRange
from millstream.model.values import Item, encode_item, item_size_bytes
from millstream.model.versions import NO_VERSION, HybridClock, Version
from millstream.storage.arrivals import Arrival
from millstream.storage.commands import Delete, Fill, Put
from millstream.storage.indexes import primary_key
from millstream.storage.log.entry import decode_entry, lsn_of
from millstream.storage.partition import (
    Partition,
    Position,
    decode_position,
    encode_position,
)
from millstream.storage.records import Effect, Record, decode_records
from millstream.storage.replica import Resolve
from millstream.storage.rows import Row, decode_row
from millstream.storage.table_state import TableState
from millstream.storage.totals import Totals
from millstream.storage.tree.btree import BTree
from millstream.storage.tree.memory_store import Coin, MemoryStore

PK, SK, A = (KeyAttribute(name, "S") for name in ("pk", "sk", "a"))
ROWS, TOMBSTONES, LOCAL, GLOBAL = 10, 11, 12, 13
TABLE = Table(
    namespace="",
    name="t",
    table_id="t",
    status=Status.ACTIVE,
    created_ms=0,
    key=KeySchema((PK,), (SK,)),
    attribute_kinds={"pk": "S", "sk": "S", "a": "S"},
    tree=ROWS,
    partitions=(PartitionRange("log", 0, HASH_SPACE_END - 1),),
    local_indexes=(LocalIndex("local", KeySchema((PK,), (A,)), Projection("ALL"), LOCAL),),
    global_indexes=(
        GlobalIndex(
            "global",
            KeySchema((A,), ()),
            Projection("ALL"),
            GLOBAL,
            (PartitionRange("log-global", 0, HASH_SPACE_END - 1),),
            Status.ACTIVE,
        ),
    ),
    stream=StreamSettings("NEW_AND_OLD_IMAGES", "label"),
    group_id="g",
    tombstones=TOMBSTONES,
)


def key_of(sk: str) -> bytes:
    """The tree key of the item named ``sk``."""
    return primary_key(TABLE, {"pk": {"S": "p"}, "sk": {"S": sk}})


def item_of(sk: str, a: str) -> Item:
    return {"pk": {"S": "p"}, "sk": {"S": sk}, "a": {"S": a}}


def put(sk: str, a: str) -> Put:
    item = item_of(sk, a)
    return Put(key_of(sk), encode_item(item), item_size_bytes(item))


def delete(sk: str) -> Delete:
    return Delete(key_of(sk))


def arrival(sk: str, a: str | None, hlc: int, region: int, base: Version | None = None) -> Arrival:
    """A put of another region (``a`` None: a deletion)."""
    body, size_bytes = None, 0
    if a is not None:
        command = put(sk, a)
        body, size_bytes = command.body, command.size_bytes
    version = (-1, 0) if base is None else (base.hlc, base.region)
    return Arrival(key_of(sk), body, size_bytes, hlc, region, 0, *version)


class Asker:
    """A ticket that remembers its answer, and tells somebody who wants to know."""

    def __init__(self, tell: Callable[[Any], None] | None = None) -> None:
        self.answers: list[Any] = []
        self._tell = tell

    def resolve(self, value: Any) -> None:
        self.answers.append(value)
        if self._tell is not None:
            self._tell(value)

    def fail(self, error: Exception) -> None:
        self.answers.append(error)

    @property
    def answer(self) -> Any:
        """The one answer."""
        (answer,) = self.answers
        return answer


class Region:
    """One region. ``number`` 0 and a ``table`` without tombstones: before it was a global one."""

    def __init__(
        self,
        number: int,
        table: Table = TABLE,
        resolve: Resolve | None = None,
        now_ms: int = 1000,
        last_hlc: int = 0,
    ) -> None:
        self.number = number
        self.table = table
        self.resolve = resolve
        self.log: list[bytes] = []
        self.now_ms = now_ms
        self.clock = HybridClock(last_hlc)
        #: What is on disk: the store, and the position in it.
        self._store = MemoryStore()
        self._position: bytes | None = None
        self._flying = b""
        #: LSN -> what was closed when that entry had just been applied.
        self.closed_at: dict[int, int] = {0: 0}
        self.recover()

    # Life.

    def recover(self) -> None:
        """Open what is on disk, replay the log beyond it, serve."""
        self.open(BTree(self._store), self._position)
        for entry in self.log[self.machine.lsn :]:
            self.replay(entry)
        self.machine.start("owner")
        self.turn()

    def open(self, btree: BTree, stored: bytes | None) -> None:
        """A machine over ``btree``, which stands at the position ``stored``."""
        position: Position | None = None if stored is None else decode_position(stored)
        self.btree = btree
        self.state = TableState(
            self.table,
            btree,
            self.number,
            {}
            if position is None
            else {tree: Totals(*totals) for tree, totals in position.totals.items()},
            () if position is None else position.promises,
            None if position is None else position.replica,
            self.resolve,
        )
        self.machine = Partition("log", self.state, self.clock, 7, position)

    def replay(self, entry: bytes) -> None:
        self.machine.replay(entry)
        self.closed_at[self.machine.lsn] = self.machine.closed_timestamp

    def flush(self) -> None:
        """Bring what is applied to the disk, with its position."""
        position = encode_position(self.machine.position())
        frozen = self.btree.freeze()
        if frozen is not None:
            self.btree.flush(frozen)
            self.btree.settle(frozen)
        self._position = position

    def fail(self, kept: bool, coin: Coin) -> None:
        """The append in flight fails, and is in the log nevertheless if ``kept``; a new life."""
        self.machine.fail()
        if self._flying and kept:
            self.log.append(self._flying)
        self._flying = b""
        self._store = self._store.crash(coin)
        self.recover()

    def restart(self, coin: Coin) -> None:
        """The same with the whole node: nothing is left but the disk and the wall clock."""
        self.clock = HybridClock()
        self.fail(False, coin)

    # Work.

    def propose(self, command: Any, tell: Callable[[Any], None] | None = None) -> Asker:
        asker = Asker(tell)
        self.machine.propose(asker, command, self.now_ms)
        return asker

    def append(self) -> bool:
        """Close what was gathered into an entry, whose append is now in flight."""
        append, answers = self.machine.ready(self.now_ms)
        for answer in answers:
            answer.ticket.resolve(answer.result)
        if append is not None:
            assert not self._flying
            assert append.expected_last == len(self.log)
            self._flying = append.entry
        return append is not None

    def commit(self) -> None:
        """The append in flight, if any, is durable."""
        if not self._flying:
            return
        self.log.append(self._flying)
        self._flying = b""
        answers = self.machine.committed()
        self.closed_at[self.machine.lsn] = self.machine.closed_timestamp
        for answer in answers:
            if answer.ticket is not None:
                answer.ticket.resolve(answer.result)

    def turn(self) -> None:
        """All that was proposed, durable and answered."""
        self.commit()
        while self.append():
            self.commit()

    def run(self, command: Any) -> Any:
        """The answer to ``command``, which is durable."""
        asker = self.propose(command)
        self.turn()
        return asker.answer

    # What there is to see.

    def records(self, first_lsn: int = 1) -> list[Record]:
        return [
            record
            for entry in self.log[first_lsn - 1 :]
            for record in decode_records(decode_entry(entry)[1])
        ]

    def effects(self, first_lsn: int = 1) -> list[Effect]:
        return [record for record in self.records(first_lsn) if isinstance(record, Effect)]

    def sent(self, first_lsn: int, last_lsn: int) -> tuple[Arrival, ...]:
        """What goes to others of these entries, both included."""
        return tuple(
            arrival
            for entry in self.log[first_lsn - 1 : last_lsn]
            for arrival in arrivals_of(entry, self.number)
        )

    def row(self, key: bytes) -> Row | None:
        return self.state.get(key)

    def tombstone(self, key: bytes) -> Row | None:
        data = self.btree.get(TOMBSTONES, key)
        return None if data is None else decode_row(key, data)

    def version(self, key: bytes) -> Version:
        """The committed version of ``key``, its deletion included."""
        row = self.row(key) or self.tombstone(key)
        return NO_VERSION if row is None else self._version(row)

    def _version(self, row: Row) -> Version:
        return Version(row.hlc, row.region or self.number)

    def rows(self) -> dict[bytes, tuple[Version, bytes]]:
        """Key -> version and body, with region 0 told as what it is."""
        found = {}
        for key, data in self.btree.range(ROWS, b"", None):
            row = decode_row(key, data)
            found[key] = (self._version(row), row.body)
        return found

    def tombstones(self) -> dict[bytes, Version]:
        return {
            key: decode_row(key, data).version
            for key, data in self.btree.range(TOMBSTONES, b"", None)
        }

    def trees(self) -> dict[int, list[tuple[bytes, bytes]]]:
        """All that is stored, to the byte."""
        return {tree: list(self.btree.range(tree, b"", None)) for tree in (ROWS, TOMBSTONES, LOCAL)}

    def totals(self) -> dict[int, tuple[int, int, int]]:
        return {tree: totals.as_tuple() for tree, totals in self.state.totals.items()}

    def recount(self) -> dict[int, tuple[int, int, int]]:
        """What the totals must be."""
        counted = {}
        for tree, rows in self.trees().items():
            totals = Totals()
            for key, data in rows:
                totals.replace(None, 0, data, decode_row(key, data).size_bytes)
            counted[tree] = totals.as_tuple()
        return counted

    def chunk(
        self, source: str, lsn: int, low: bytes, rows_max: int, covered: dict[int, int]
    ) -> Fill:
        """A chunk for another region: up to ``rows_max`` rows and tombstones from ``low`` on."""
        found = {}
        for tree in (ROWS, TOMBSTONES):
            for key, data in self.btree.range(tree, low, None):
                row, region = decode_row(key, data), self._version(decode_row(key, data)).region
                body = row.body if tree == ROWS else None
                assert key not in found, "an item is there or deleted, not both"
                found[key] = Arrival(key, body, row.size_bytes, row.hlc, region, row.transaction)
        keys = sorted(found)
        high = keys[rows_max] if len(keys) > rows_max else None
        arrivals = tuple(found[key] for key in keys if high is None or key < high)
        return Fill(source, lsn, high, low, high, covered, arrivals)

    def check_replay(self) -> None:
        """The log, replayed from its beginning and from each position, ends in the same state."""
        for cut in range(len(self.log) + 1):
            twin = object.__new__(Region)
            twin.number, twin.table, twin.resolve = self.number, self.table, self.resolve
            twin.clock = HybridClock()
            twin.closed_at = {}
            twin.open(BTree(MemoryStore()), None)
            for entry in self.log[:cut]:
                twin.replay(entry)
            twin.open(twin.btree, encode_position(twin.machine.position()))
            for entry in self.log[cut:]:
                twin.replay(entry)
            assert lsn_of(self.log[-1]) == twin.machine.lsn
            assert twin.trees() == self.trees()
            assert twin.totals() == self.totals() == self.recount()
            assert twin.state.replica_position() == self.state.replica_position()
            assert twin.machine.closed_timestamp == self.machine.closed_timestamp
