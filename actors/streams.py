"""The streams of one node: which there are, where their shards begin and end, and their records.

Nothing is written for a record: a shard is a range of a partition's log, so reading a shard is
reading the log and keeping the effects that belong to the stream. What is written is the catalog's
entry of each stream, when it begins and ends and when a shard rolls over.

A shard rolls over so that lineage is something that consumers meet: the open shard is closed at the
last committed LSN and a child goes on behind it. While that is being committed nobody is shown more
of the shard than its end to be (``_ceilings``), since what was read from the parent would be read
again from the child.

Retention holds the logs (``holds``): entries younger than it are kept, older ones may go, and are
not shown although they may still be there. A removed table's logs stay until its streams expire.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial

import msgspec
import trio

from ..errors import OutcomeUnknown, StorageError, Throttled, Trimmed, Unavailable
from ..limits import (
    LOG_RETRY_SECONDS,
    SCHEMA_RETRY_SECONDS,
    STREAM_CACHE_BYTES,
    STREAM_READ_BYTES,
    STREAM_SCAN_ENTRIES_MAX,
    STREAM_WATCH_SECONDS,
)
from ..model.schema import Table
from ..model.versions import hlc_at
from ..storage.log.entry import timestamp_of
from ..storage.log.interface import LogEngine
from ..streams.definition import (
    Shard,
    Stream,
    closed,
    decode_stream,
    encode_stream,
    shard_id_of,
)
from ..streams.records import Change, changes_of
from ..streams.sequence import lsn_of, sequence_of
from .catalog import STREAM_ENTRY, Catalog
from .log_cache import LogCache
from .partition import PartitionActor

logger = logging.getLogger(__name__)


class Page(msgspec.Struct, frozen=True):
    """What one read of a shard gave. ``next`` is the sequence to go on from.

    ``is_end``: the shard is closed and there is nothing at or behind ``next``.
    """

    changes: list[Change]
    next: int
    is_end: bool


class Streams:
    """Every stream of a node. Reads are synchronous; changes are made by the node's tasks."""

    def __init__(
        self,
        catalog: Catalog,
        engine: LogEngine,
        actors: Mapping[str, PartitionActor],
        now_ms: Callable[[], int],
        new_token: Callable[[], str],
        delete_logs: Callable[[list[str]], Awaitable[None]],
        note_commit: Callable[[], None],
        retention_seconds: float,
        shard_seconds: float,
    ) -> None:
        self._catalog = catalog
        self._engine = engine
        self._actors = actors
        self._now_ms = now_ms
        self._new_token = new_token
        self._delete_logs = delete_logs
        #: Has the flusher look at what can be trimmed.
        self._note_commit = note_commit
        self.retention_ms = int(retention_seconds * 1000)
        self._shard_ms = int(shard_seconds * 1000)
        #: (namespace, table, label) -> the stream as the catalog has it.
        self._streams: dict[tuple[str, str, str], Stream] = {}
        #: Log -> the first LSN that was within retention when last looked for, and its timestamp.
        self._horizons: dict[str, tuple[int, int]] = {}
        self._cache = LogCache(STREAM_CACHE_BYTES)
        #: Shard -> what it may be read to while its end is being committed.
        self._ceilings: dict[str, int] = {}
        #: Stream -> the last schema version whose effects it will have had, while it is ending.
        self._ending: dict[tuple[str, str, str], int] = {}
        #: Changes of streams go one after another, each from what the one before has left.
        self._changing = trio.Lock()
        #: Those who wait for a stream to begin, to end or to roll over.
        self.moved = trio.lowlevel.ParkingLot()
        self._is_over = False
        for data in catalog.entries(STREAM_ENTRY).values():
            self._keep(decode_stream(data))

    def _keep(self, stream: Stream) -> None:
        self._streams[stream.namespace, stream.table, stream.label] = stream
        self.moved.unpark_all()

    # For everybody: which there are.

    def find(self, namespace: str, table: str, label: str) -> Stream | None:
        """The stream of that label, enabled or not, until it expires."""
        return self._streams.get((namespace, table, label))

    def of_namespace(self, namespace: str, table: str | None = None) -> list[Stream]:
        """All streams (of one table), by name and label."""
        return sorted(
            (
                stream
                for stream in self._streams.values()
                if stream.namespace == namespace and table in (None, stream.table)
            ),
            key=lambda stream: (stream.table, stream.label),
        )

    def logs(self) -> set[str]:
        """Every log that a stream still needs."""
        return {shard.log_id for stream in self._streams.values() for shard in stream.shards}

    def shard_ids(self) -> set[str]:
        """Every shard that there is."""
        return {shard.shard_id for stream in self._streams.values() for shard in stream.shards}

    def holds(self) -> dict[str, int]:
        """Log -> the first LSN that is still to be kept for a stream."""
        return {log_id: self.horizon(log_id) for log_id in self.logs()}

    # For everybody: where things stand in a shard.

    def horizon(self, log_id: str) -> int:
        """The first LSN of a log that is within retention, or the one to come."""
        engine = self._engine
        limit = hlc_at(self._now_ms() - self.retention_ms)
        lsn, timestamp = self._horizons.get(log_id, (0, 0))
        first = engine.first(log_id)
        if lsn >= first and timestamp >= limit:
            return lsn
        tail = engine.tail(log_id)
        lsn = self._search(log_id, max(first, lsn), tail + 1, limit)
        if lsn <= tail:
            self._horizons[log_id] = (lsn, self._timestamp(log_id, lsn))
        return lsn

    def _search(self, log_id: str, low: int, high: int, timestamp: int) -> int:
        """The first LSN in ``[low, high)`` whose entry is not older; ``high`` if all are."""
        if low >= high or self._timestamp(log_id, low) >= timestamp:
            return low
        while high - low > 1:
            middle = (low + high) // 2
            if self._timestamp(log_id, middle) < timestamp:
                low = middle
            else:
                high = middle
        return high

    def _timestamp(self, log_id: str, lsn: int) -> int:
        data = self._cache.get(log_id, lsn)
        if data is None:
            data = self._engine.read(log_id, lsn, 1)[0].data
        return timestamp_of(data)

    def first_sequence(self, shard: Shard) -> int:
        """Where the shard's records begin now: its first, or what retention has left."""
        lsn = max(shard.first_lsn, self.horizon(shard.log_id))
        if shard.last_lsn is not None:
            lsn = min(lsn, shard.last_lsn + 1)
        return sequence_of(lsn)

    def start_sequence(self, shard: Shard) -> int:
        """Where the shard began, whatever retention has left of it."""
        return sequence_of(shard.first_lsn)

    def ending_sequence(self, shard: Shard) -> int:
        """The last sequence that a closed shard can have."""
        assert shard.last_lsn is not None
        return sequence_of(shard.last_lsn + 1) - 1

    def end_sequence(self, shard: Shard) -> int:
        """Behind everything that is committed in the shard so far."""
        return sequence_of(max(self._last_lsn(shard), shard.first_lsn - 1) + 1)

    def sequence_at(self, shard: Shard, at_ms: int) -> int:
        """Where the shard's records from ``at_ms`` on begin."""
        low, high = lsn_of(self.first_sequence(shard)), self._last_lsn(shard) + 1
        return sequence_of(self._search(shard.log_id, low, max(low, high), hlc_at(at_ms)))

    def _last_lsn(self, shard: Shard) -> int:
        """The last LSN that may be shown."""
        if shard.last_lsn is not None:
            return shard.last_lsn
        actor = self._actors.get(shard.log_id)
        last = 0 if actor is None else actor.lsn
        return min(last, self._ceilings.get(shard.shard_id, last))

    # For everybody: records.

    def read(
        self, stream: Stream, shard: Shard, start: int, changes_max: int, bytes_max: int
    ) -> Page:
        """Changes of a shard from sequence ``start`` on; there may be none and yet more to come.

        At most ``changes_max``, and up to the one that reaches ``bytes_max`` of JSON.

        Raises:
            Trimmed: ``start`` is older than what is kept; ``first_lsn`` is the first kept.
            Corrupt: the log is damaged there.
        """
        changes: list[Change] = []
        last_schema = self._ending.get((stream.namespace, stream.table, stream.label))
        if last_schema is not None:
            stream = msgspec.structs.replace(stream, last_schema=last_schema)
        last = self._last_lsn(shard)
        lsn = max(lsn_of(start), shard.first_lsn)
        if lsn <= last:
            self._refuse_trimmed(shard.log_id, lsn)
        size_bytes = scanned = 0
        while lsn <= last and scanned < STREAM_SCAN_ENTRIES_MAX:
            for change in changes_of(stream, self._entry(shard.log_id, lsn, last), lsn, start):
                changes.append(change)
                size_bytes += change.json_bytes
                if len(changes) >= changes_max or size_bytes >= bytes_max:
                    return Page(changes, change.sequence + 1, False)
            lsn, scanned = lsn + 1, scanned + 1
        is_end = shard.last_lsn is not None and lsn > shard.last_lsn
        return Page(changes, max(start, sequence_of(lsn)), is_end)

    def _entry(self, log_id: str, lsn: int, last: int) -> bytes:
        """The entry at ``lsn``, which is not above ``last``, the last that is committed."""
        data = self._cache.get(log_id, lsn) or self._newest(log_id, lsn)
        if data is None:
            entries = self._engine.read(log_id, lsn, STREAM_READ_BYTES)
            data = entries[0].data
            for entry in entries:
                if entry.lsn <= last:
                    self._cache.keep(log_id, entry.lsn, entry.data)
        return data

    # For other regions: entries as they are.

    def first_kept(self, log_id: str) -> int:
        """The first LSN that a log still has, within retention or not."""
        return self._engine.first(log_id)

    def timestamp_of(self, log_id: str, lsn: int) -> int:
        """The timestamp (hlc) of an entry."""
        return self._timestamp(log_id, lsn)

    def entry(self, log_id: str, lsn: int) -> bytes:
        """A committed entry of a partition.

        Raises StorageError if it is not served any more, Trimmed, Corrupt, or Ambiguous while the
        log is being reopened.
        """
        actor = self._actors.get(log_id)
        if actor is None:
            raise StorageError(f"log {log_id} is not served any more")
        return self._entry(log_id, lsn, actor.lsn)

    def _newest(self, log_id: str, lsn: int) -> bytes | None:
        """The entry at ``lsn``, if its partition has just written it."""
        actor = self._actors.get(log_id)
        append = None if actor is None else actor.newest
        if append is None or append.expected_last != lsn - 1:
            return None
        self._cache.keep(log_id, lsn, append.entry)
        return append.entry

    def _refuse_trimmed(self, log_id: str, lsn: int) -> None:
        horizon = self.horizon(log_id)
        if lsn < horizon:
            raise Trimmed(f"log {log_id} is kept from {horizon} on", horizon)

    def abandon(self) -> None:
        """Nothing is added here any more: nobody shall wait for it."""
        self._is_over = True
        self.moved.unpark_all()

    def note_served(self) -> None:
        """Partitions are served from now on: who waits for records waits for theirs."""
        self.moved.unpark_all()

    def check_serving(self) -> None:
        """Raise Unavailable if the node has ended."""
        if self._is_over:
            raise Unavailable("The node is stopping")

    async def wait_reopened(self) -> None:
        """After Ambiguous: give the log, which is being reopened, time. Raises Unavailable."""
        self.check_serving()
        await trio.sleep(LOG_RETRY_SECONDS)

    async def wait_growth(self, shard: Shard) -> None:
        """Return when the shard's log has grown, or the streams have changed: then look again."""
        self.check_serving()
        actor = self._actors.get(shard.log_id)
        if actor is None or not shard.is_open:
            await self.moved.park()
        else:
            await actor.growth.park()

    async def wait_beyond(self, places: Sequence[tuple[Shard, int]]) -> None:
        """Return when some shard may have records at or behind its sequence, or streams changed.

        Raises Unavailable when the node has ended.
        """
        self.check_serving()
        async with trio.open_nursery() as nursery:

            async def wait(
                what: Callable[[], Awaitable[None]], task_status: trio.TaskStatus[None]
            ) -> None:
                # It waits before whoever started it goes on.
                task_status.started()
                await what()
                nursery.cancel_scope.cancel()

            await nursery.start(partial(wait, self.moved.park))
            for shard, _ in places:
                await nursery.start(partial(wait, partial(self.wait_growth, shard)))
            if any(self.end_sequence(shard) > sequence for shard, sequence in places):
                nursery.cancel_scope.cancel()
        self.check_serving()

    # For the node: beginning and ending.

    async def begin(self, table: Table) -> None:
        """Make the stream that ``table`` has, unless there is one of its label already.

        It begins behind what is committed now in each log; effects under earlier schema versions
        are left out besides. Durable when this returns.
        """
        async with self._changing:
            await self._begin(table)

    async def _begin(self, table: Table) -> None:
        settings = table.stream
        assert settings is not None
        if (table.namespace, table.name, settings.label) in self._streams:
            return
        now_ms = self._now_ms()
        shards = []
        for partition in table.partitions:
            actor = self._actors.get(partition.log_id)
            first_lsn = 1 if actor is None else actor.lsn + 1
            shards.append(self._open_shard(partition.log_id, first_lsn, None, now_ms))
        await self._save(
            Stream(
                namespace=table.namespace,
                table=table.name,
                table_id=table.table_id,
                label=settings.label,
                view=settings.view,
                key=table.key,
                created_ms=now_ms,
                first_schema=table.schema_version,
                last_schema=None,
                shards=tuple(shards),
            )
        )

    def _open_shard(self, log_id: str, first_lsn: int, parent: str | None, now_ms: int) -> Shard:
        shard_id = shard_id_of(now_ms, self._new_token())
        return Shard(shard_id, log_id, first_lsn, None, parent, now_ms)

    def will_end(self, table: Table, last_schema: int) -> None:
        """From now on show no effects under later schema versions: the stream is about to end.

        To be called before there are any, or what is shown of them would be taken back.
        """
        for stream in self._enabled(table):
            self._ending[stream.namespace, stream.table, stream.label] = last_schema

    async def end(self, table: Table, lsns: Mapping[str, int], last_schema: int) -> None:
        """Close every enabled stream of ``table``: shards end at these LSNs. Durable on return."""
        async with self._changing:
            for stream in self._enabled(table):
                await self._end(stream, lsns, last_schema)
                self._ending.pop((stream.namespace, stream.table, stream.label), None)

    def _enabled(self, table: Table) -> list[Stream]:
        return [
            stream
            for stream in self.of_namespace(table.namespace, table.name)
            if stream.is_enabled and stream.table_id == table.table_id
        ]

    async def _end(self, stream: Stream, lsns: Mapping[str, int], last_schema: int) -> None:
        now_ms = self._now_ms()
        shards = tuple(
            closed(shard, lsns.get(shard.log_id, shard.first_lsn - 1), now_ms)
            for shard in stream.shards
        )
        ended = msgspec.structs.replace(
            stream, shards=shards, last_schema=last_schema, disabled_ms=now_ms
        )
        await self._save(ended)
        self._wake(stream)

    async def _save(self, stream: Stream) -> None:
        await self._catalog.save_entry(STREAM_ENTRY, stream.name, encode_stream(stream))
        self._keep(stream)

    async def _save_surely(self, stream: Stream) -> None:
        """``_save``, again until it is known to be done.

        Where the catalog may say one thing and readers go by another, a restart would show records
        twice, in a shard and in its child.
        """
        while True:
            try:
                await self._save(stream)
                return
            except (OutcomeUnknown, Throttled) as error:
                logger.warning("stream %s is stored again: %s", stream.name, error)
                await trio.sleep(SCHEMA_RETRY_SECONDS)

    def _wake(self, stream: Stream) -> None:
        for shard in stream.shards:
            actor = self._actors.get(shard.log_id)
            if actor is not None:
                actor.growth.unpark_all()

    # Rolling over, expiring.

    async def roll(self, stream: Stream, shard_ids: Iterable[str]) -> None:
        """Close these open shards and have children go on. Durable when this returns.

        Nothing happens to a stream that has ended meanwhile.
        """
        async with self._changing:
            found = self.find(stream.namespace, stream.table, stream.label)
            if found is not None:
                await self._roll(found, shard_ids)

    async def _roll(self, stream: Stream, shard_ids: Iterable[str]) -> None:
        wanted = set(shard_ids)
        now_ms = self._now_ms()
        shards: list[Shard] = []
        for shard in stream.shards:
            if shard.shard_id not in wanted or not shard.is_open:
                shards.append(shard)
                continue
            last = max(self._last_lsn(shard), shard.first_lsn - 1)
            self._ceilings[shard.shard_id] = last
            shards.append(closed(shard, last, now_ms))
            shards.append(self._open_shard(shard.log_id, last + 1, shard.shard_id, now_ms))
        try:
            await self._save_surely(stream.with_shards(tuple(shards)))
        finally:
            for shard_id in wanted:
                self._ceilings.pop(shard_id, None)
            self._wake(stream)

    async def run(self) -> None:
        """Roll shards over and let go of what has expired, until cancelled."""
        while True:
            await trio.sleep(min(STREAM_WATCH_SECONDS, self._shard_ms / 2000))
            try:
                await self.tend()
            except (StorageError, OutcomeUnknown, Throttled, Unavailable) as error:
                logger.warning("looking after streams: %s", error)
            if self._streams:
                self._note_commit()

    async def tend(self) -> None:
        """Roll over what is due and remove what has expired, once."""
        for place in list(self._streams):
            async with self._changing:
                stream = self._streams.get(place)
                if stream is not None:
                    await self._tend(stream)

    async def _tend(self, stream: Stream) -> None:
        now_ms = self._now_ms()
        expired = now_ms - self.retention_ms
        if stream.disabled_ms is not None and stream.disabled_ms < expired:
            await self._remove(stream)
            return
        kept = tuple(
            shard
            for shard in stream.shards
            if shard.closed_ms is None or shard.closed_ms >= expired
        )
        if len(kept) < len(stream.shards):
            stream = stream.with_shards(kept)
            await self._save(stream)
        due = [
            shard.shard_id
            for shard in kept
            if shard.is_open
            and shard.opened_ms + self._shard_ms <= now_ms
            and self._last_lsn(shard) >= shard.first_lsn
        ]
        if due:
            await self._roll(stream, due)

    async def _remove(self, stream: Stream) -> None:
        await self._catalog.remove_entry(STREAM_ENTRY, stream.name)
        del self._streams[stream.namespace, stream.table, stream.label]
        self.moved.unpark_all()
        needed = self.logs()
        orphans = [
            log_id for log_id in _logs(stream) if log_id not in needed | self._actors.keys()
        ]
        if orphans:
            await self._delete_logs(orphans)


def _logs(stream: Stream) -> list[str]:
    return list(dict.fromkeys(shard.log_id for shard in stream.shards))
