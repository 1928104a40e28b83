"""Following a table in Python: ``async for change in table.changes(...)``.

Reads the table's stream, all shards of it, waits for more, and goes on through shards that roll
over and through a stream that is disabled and enabled again. Changes of one item come in their
order; items in different partitions have no order between them.

``since="snapshot"`` begins with the table as it is: every item once, as a change of kind
``SNAPSHOT``, then what happened to it since, with no gap and no duplicate. The rows are read in
slices, each at its own moment. Of the changes that follow, those are left out that the slice with
their key has already seen: a slice knows its LSN, and keys are read in order. So a consumer that
keeps a view needs no second read, and writers are never stopped.
"""

from __future__ import annotations

import bisect
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import msgspec

from .actors.partition import PartitionActor
from .actors.streams import Page, Streams
from .actors.tables import TableRef, Tables
from .errors import Ambiguous, InvalidRequest, ResourceNotFound, Trimmed
from .limits import (
    CHANGES_PAGE_RECORDS,
    CHANGES_POSITION_CHARACTERS_MAX,
    PAGE_BYTES_MAX,
    SNAPSHOT_SLICE_BYTES,
    SNAPSHOT_SLICE_ROWS,
)
from .model.keys import hash_prefix, successor
from .model.python_values import from_item
from .model.values import decode_item
from .streams.definition import Shard, Stream
from .streams.records import Change as Record
from .streams.records import key_item
from .streams.sequence import lsn_of

Plain: TypeAlias = dict[str, Any]
Since: TypeAlias = "Literal['start', 'now', 'snapshot'] | str | datetime"


class Change(msgspec.Struct, frozen=True):
    """One change of one item, on plain Python values.

    ``kind`` is INSERT, MODIFY or REMOVE, or SNAPSHOT for an item as it was when following began.
    ``new`` and ``old`` are None where there is no such image or the stream does not show it.
    ``position`` is where to go on from after this change (``since=position``); None for a
    SNAPSHOT and for the first changes after one, from the middle of which nothing can go on.
    """

    kind: str
    key: Plain
    new: Plain | None
    old: Plain | None
    at: datetime | None
    position: str | None


def changes_of(event: dict[str, Any]) -> list[Change]:
    """The records of a handler's event as plain Python values.

    The event stays as it is; ``position`` is None, since a handler's place is its mapping's affair.
    """
    return [_plain(record) for record in event["Records"]]


def _plain(record: dict[str, Any]) -> Change:
    inner = record["dynamodb"]
    new, old = inner.get("NewImage"), inner.get("OldImage")
    return Change(
        record["eventName"],
        from_item(inner["Keys"]),
        None if new is None else from_item(new),
        None if old is None else from_item(old),
        datetime.fromtimestamp(inner["ApproximateCreationDateTime"], UTC),
        None,
    )


class _Cursor:
    """Where following is: by shard, and what the snapshot has seen of each log."""

    __slots__ = ("done", "label", "next", "seen")

    def __init__(self, label: str) -> None:
        #: The stream that is being read; later ones follow when it has ended.
        self.label = label
        #: Shard -> the sequence to read from.
        self.next: dict[str, int] = {}
        self.done: set[str] = set()
        #: Log -> what its snapshot has seen.
        self.seen: dict[str, _Slices] = {}

    def forget_snapshot(self, log_id: str, sequence: int) -> None:
        """Reading is at ``sequence``: behind everything that the log's snapshot has seen?"""
        slices = self.seen.get(log_id)
        if slices is not None and lsn_of(sequence) > slices.lsn_max:
            del self.seen[log_id]

    def position(self) -> str | None:
        """The cursor as a text; None while there are changes that the snapshot contains."""
        if self.seen:
            return None
        packed = msgspec.msgpack.encode([1, self.label, self.next, sorted(self.done)])
        return urlsafe_b64encode(packed).decode()


def _parse(text: str) -> _Cursor:
    """The cursor that ``Change.position`` was. Raises InvalidRequest for anything else."""
    try:
        if len(text) > CHANGES_POSITION_CHARACTERS_MAX:
            raise ValueError
        packed = urlsafe_b64decode(text.encode("ascii"))
        version, label, places, done = msgspec.msgpack.decode(
            packed, type=tuple[int, str, dict[str, int], list[str]]
        )
        if version != 1:
            raise ValueError
    except (ValueError, msgspec.DecodeError):
        raise InvalidRequest(
            "since is 'start', 'now', 'snapshot', a datetime, or the position of a change"
        ) from None
    cursor = _Cursor(label)
    cursor.next, cursor.done = places, set(done)
    return cursor


class _Slices:
    """What a snapshot of one log's partition has seen: key ranges, and at which LSN each."""

    __slots__ = ("_last_keys", "_lsns")

    def __init__(self) -> None:
        #: The last key of each slice, in order; the last slice goes to the end.
        self._last_keys: list[bytes] = []
        self._lsns: list[int] = []

    def add(self, last_key: bytes | None, lsn: int) -> None:
        """A slice up to ``last_key`` (None: to the end) was read when ``lsn`` was the last."""
        if last_key is not None:
            self._last_keys.append(last_key)
        self._lsns.append(lsn)

    @property
    def lsn_max(self) -> int:
        return max(self._lsns, default=0)

    def has(self, record: Record) -> bool:
        """Whether the slice with the record's key was read after it."""
        at = bisect.bisect_left(self._last_keys, record.key)
        return at < len(self._lsns) and lsn_of(record.sequence) <= self._lsns[at]


class Follower:
    """Follows one table. ``run`` is the generator behind ``Table.changes``."""

    def __init__(self, tables: Tables, namespace: str, table: str) -> None:
        self._tables = tables
        self._streams: Streams = tables.streams
        self._namespace = namespace
        self._table = table

    async def run(self, since: Since) -> AsyncGenerator[Change, None]:
        """Changes from ``since`` on, for ever.

        Raises ResourceNotFound for a table that is not there, InvalidRequest for one without a
        stream or a ``since`` that is none, Trimmed for a position that is no longer kept,
        Unavailable when the node has ended.
        """
        cursor = self._begin(since)
        if since == "snapshot":
            async for change in self._snapshot(cursor):
                yield change
        while True:
            moved = False
            for stream, shard in self._readable(cursor):
                page = await self._read(cursor, stream, shard)
                moved = moved or page.is_end or bool(page.changes)
                for record in page.changes:
                    cursor.next[shard.shard_id] = record.sequence + 1
                    if not self._is_in_snapshot(cursor, shard, record):
                        yield self._change(stream, record, cursor)
                cursor.next[shard.shard_id] = page.next
                cursor.forget_snapshot(shard.log_id, page.next)
                if page.is_end:
                    self._leave(cursor, shard)
            if moved:
                await self._tables.breathe()
            else:
                await self._wait(cursor)

    # Where to begin.

    def _begin(self, since: Since) -> _Cursor:
        ref = self._tables.find(self._namespace, self._table)
        if ref is None:
            raise ResourceNotFound(f"Requested resource not found: Table: {self._table} not found")
        if isinstance(since, str) and since not in ("start", "now", "snapshot"):
            cursor = _parse(since)
            if self._streams.find(self._namespace, self._table, cursor.label) is None:
                raise Trimmed("The stream of this position is no longer kept", 0)
            return cursor
        if ref.table.stream is None:
            raise InvalidRequest(f"Table {self._table} has no stream to be followed")
        kept = [
            stream
            for stream in self._streams.of_namespace(self._namespace, self._table)
            if stream.table_id == ref.table.table_id
        ]
        # Now and the snapshot are in the stream that is enabled, the past may be in earlier ones.
        stream = kept[-1] if since in ("now", "snapshot") else kept[0]
        cursor = _Cursor(stream.label)
        for shard in stream.shards:
            if isinstance(since, datetime):
                at_ms = int(since.timestamp() * 1000)
                cursor.next[shard.shard_id] = self._streams.sequence_at(shard, at_ms)
            elif since == "now":
                cursor.next[shard.shard_id] = self._streams.end_sequence(shard)
            elif since == "snapshot":
                if shard.is_open:
                    cursor.next[shard.shard_id] = self._streams.end_sequence(shard)
                else:
                    cursor.done.add(shard.shard_id)
        return cursor

    # The snapshot.

    async def _snapshot(self, cursor: _Cursor) -> AsyncGenerator[Change, None]:
        ref = self._tables.find(self._namespace, self._table)
        assert ref is not None
        for partition in ref.table.partitions:
            slices = cursor.seen[partition.log_id] = _Slices()
            low, high = hash_prefix(partition.low), hash_prefix(partition.last + 1)
            place: bytes | None = low
            while place is not None:
                rows, place = self._slice(ref, slices, place, high)
                for key, body in rows:
                    yield Change("SNAPSHOT", from_item(key), from_item(body), None, None, None)
                await self._tables.breathe()

    def _slice(
        self, ref: TableRef, slices: _Slices, low: bytes, high: bytes
    ) -> tuple[list[tuple[Plain, Plain]], bytes | None]:
        """The next rows, all of one moment, and where the next slice begins (None: nowhere)."""
        actor: PartitionActor = ref.partition_of(low)
        names = ref.table.key.names()
        found: list[tuple[Plain, Plain]] = []
        size_bytes = 0
        for key, row in actor.rows(ref.table.tree, low, high):
            item = decode_item(row.body)
            found.append(({name: item[name] for name in names}, item))
            size_bytes += len(row.body)
            if len(found) >= SNAPSHOT_SLICE_ROWS or size_bytes >= SNAPSHOT_SLICE_BYTES:
                slices.add(key, actor.lsn)
                return found, successor(key)
        slices.add(None, actor.lsn)
        return found, None

    def _is_in_snapshot(self, cursor: _Cursor, shard: Shard, record: Record) -> bool:
        cursor.forget_snapshot(shard.log_id, record.sequence)
        slices = cursor.seen.get(shard.log_id)
        return slices is not None and slices.has(record)

    # Going on.

    async def _read(self, cursor: _Cursor, stream: Stream, shard: Shard) -> Page:
        streams = self._streams
        while True:
            try:
                start = cursor.next.get(shard.shard_id) or streams.first_sequence(shard)
                return streams.read(stream, shard, start, CHANGES_PAGE_RECORDS, PAGE_BYTES_MAX)
            except Ambiguous:
                await streams.wait_reopened()

    def _readable(self, cursor: _Cursor) -> Iterator[tuple[Stream, Shard]]:
        """Shards of the stream at the cursor whose parents are done."""
        stream = self._stream_at(cursor)
        if stream is None:
            return
        for shard in stream.shards:
            follows = (
                shard.parent is None
                or shard.parent in cursor.done
                or stream.shard(shard.parent) is None
            )
            if shard.shard_id not in cursor.done and follows:
                yield stream, shard

    def _stream_at(self, cursor: _Cursor) -> Stream | None:
        """The stream at the cursor, or the next one when that has ended."""
        for stream in self._streams.of_namespace(self._namespace, self._table):
            if stream.label < cursor.label:
                continue
            left = [shard for shard in stream.shards if shard.shard_id not in cursor.done]
            if left or stream.is_enabled:
                if stream.label != cursor.label:
                    cursor.label = stream.label
                    cursor.next, cursor.done = {}, set()
                return stream
        return None

    def _leave(self, cursor: _Cursor, shard: Shard) -> None:
        cursor.done.add(shard.shard_id)
        cursor.next.pop(shard.shard_id, None)

    async def _wait(self, cursor: _Cursor) -> None:
        """Return when some shard may have more."""
        places = [
            (shard, cursor.next.get(shard.shard_id, 0)) for _, shard in self._readable(cursor)
        ]
        await self._streams.wait_beyond(places)

    def _change(self, stream: Stream, record: Record, cursor: _Cursor) -> Change:
        new, old = record.new, record.old
        return Change(
            record.kind,
            from_item(key_item(stream, record.key)),
            None if new is None else from_item(decode_item(new)),
            None if old is None else from_item(decode_item(old)),
            datetime.fromtimestamp(record.at_ms / 1000, UTC),
            cursor.position(),
        )
