"""Runs one event source mapping: which shards it reads, one poller each, parents first.

A mapping of a function reads one stream, by its ARN. A mapping of a Python trigger reads its
table's streams, those that began with or after it, one after the other: a stream that is disabled
and enabled again goes on where the old one ended. Within a stream a shard is begun when its
parent is done. A shard that is done is begun again after a restart, and is done at once, because
its checkpoints say so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec
import trio

from ..errors import Ambiguous, Corrupt, StorageError, Unavailable
from ..lambdas.batches import LaneCheckpoint, checkpoints_at
from ..lambdas.patterns import compile_filters
from ..lambdas.settings import MappingSettings
from ..streams.definition import Shard, Stream
from .shard_poller import Counters, Deposed, Handler, ShardPoller, Tools

logger = logging.getLogger(__name__)

# How a poller ended.
_DONE, _AGAIN, _STOPPED = object(), object(), object()


class Source(msgspec.Struct, frozen=True):
    """What a mapping reads: streams of ``table`` from ``first_label`` on, or that one alone."""

    namespace: str
    table: str
    first_label: str
    is_one_stream: bool

    def takes(self, stream: Stream) -> bool:
        if self.is_one_stream:
            return stream.label == self.first_label
        return stream.label >= self.first_label


class MappingRunner:
    """One mapping while it is enabled and has a handler."""

    def __init__(
        self,
        tools: Tools,
        mapping_id: str,
        source: Source,
        handler: Handler,
        settings: MappingSettings,
        counters: Counters,
        progressed: Callable[[], None],
    ) -> None:
        self._tools = tools
        self._mapping_id = mapping_id
        self._source = source
        self._handler = handler
        self._settings = settings
        self._filters = compile_filters(settings.filters)
        self.counters = counters
        self._progressed = progressed
        #: Shard id -> its poller, while it runs.
        self._pollers: dict[str, ShardPoller] = {}
        self._done: set[str] = set()
        #: Shards that cannot be read; their children wait.
        self._damaged: set[str] = set()
        self._scope = trio.CancelScope()
        self._bell = trio.Event()
        self.stopped = trio.Event()

    # For the service.

    @property
    def is_drained(self) -> bool:
        """Whether all that is committed in the mapping's streams is done.

        Raises Corrupt for a shard that cannot be read: it never will be.
        """
        if self._damaged:
            raise Corrupt(f"{self._handler.name}: {', '.join(sorted(self._damaged))} is damaged")
        shards = [shard for stream in self._streams() for shard in stream.shards]
        return all(
            shard.shard_id in self._done
            or (shard.shard_id in self._pollers and self._pollers[shard.shard_id].is_drained)
            for shard in shards
        )

    def positions(self) -> dict[str, tuple[int, int]]:
        """Shard id -> (the sequence up to which it is done, the end of what is committed)."""
        streams = self._tools.streams
        found = {}
        for stream in self._streams():
            for shard in stream.shards:
                poller = self._pollers.get(shard.shard_id)
                if shard.shard_id not in self._done:
                    first = streams.first_sequence(shard)
                    done = first - 1 if poller is None else poller.position
                    found[shard.shard_id] = (done, streams.end_sequence(shard))
        return found

    def adopt(self, settings: MappingSettings) -> bool:
        """Follow new settings; False if that takes a new runner."""
        filters = compile_filters(settings.filters)
        if not all(poller.adopt(settings, filters) for poller in self._pollers.values()):
            return False
        self._settings, self._filters = settings, filters
        return True

    async def stop(self) -> None:
        """Cancel what is under way and return when it has ended."""
        self._scope.cancel()
        await self.stopped.wait()

    async def run(self) -> None:
        """Read until stopped."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch)
                    while True:
                        self._bell = trio.Event()
                        for stream, shard in self._to_begin():
                            self._begin(nursery, stream, shard)
                        self._progressed()
                        await self._bell.wait()
        finally:
            self.stopped.set()
            self._progressed()

    # Which shards.

    def _streams(self) -> list[Stream]:
        source = self._source
        streams = self._tools.streams.of_namespace(source.namespace, source.table)
        return [stream for stream in streams if source.takes(stream)]

    def _to_begin(self) -> list[tuple[Stream, Shard]]:
        """Shards that can be read now and are not."""
        for stream in self._streams():
            waiting = [shard for shard in stream.shards if shard.shard_id not in self._done]
            if waiting or stream.is_enabled:
                return [
                    (stream, shard)
                    for shard in waiting
                    if shard.shard_id not in self._pollers
                    and shard.shard_id not in self._damaged
                    and self._follows_done(stream, shard)
                ]
        return []

    def _follows_done(self, stream: Stream, shard: Shard) -> bool:
        # A parent that has expired cannot be read any more.
        return (
            shard.parent is None
            or shard.parent in self._done
            or stream.shard(shard.parent) is None
        )

    async def _watch(self) -> None:
        while True:
            # Before waiting, too: it may have happened before this task was there to be told.
            self._bell.set()
            await self._tools.streams.moved.park()

    # One shard.

    def _begin(self, nursery: trio.Nursery, stream: Stream, shard: Shard) -> None:
        try:
            poller = self._poller(stream, shard)
        except Ambiguous:
            nursery.start_soon(self._look_later)
            return
        except StorageError as error:
            self._cannot_read(shard.shard_id, error)
            return
        self._pollers[shard.shard_id] = poller
        nursery.start_soon(self._run_poller, stream, shard, poller)

    def _poller(self, stream: Stream, shard: Shard) -> ShardPoller:
        return ShardPoller(
            self._tools,
            self._source.namespace,
            self._mapping_id,
            self._handler,
            self._settings,
            self._filters,
            stream,
            shard,
            self.counters,
            self._progressed,
        )

    async def _run_poller(self, stream: Stream, shard: Shard, poller: ShardPoller) -> None:
        name, shard_id = self._handler.name, shard.shard_id
        while True:
            how = _DONE
            try:
                await poller.run()
            except* Deposed:
                logger.warning("%s: a checkpoint of %s was changed; beginning anew", name, shard_id)
                how = _AGAIN
            except* Unavailable:
                logger.info("%s stops with the node", name)
                how = _STOPPED
            except* StorageError as group:
                self._cannot_read(shard_id, group.exceptions[0])
                how = _STOPPED
            if how is _STOPPED:
                return
            if how is _DONE:
                break
            # The poller that was deposed has ended: what it was committing is known.
            try:
                poller = self._pollers[shard_id] = self._poller(*self._newest(stream, shard))
            except Ambiguous:
                del self._pollers[shard_id]
                await self._look_later()
                return
            except StorageError as error:
                self._cannot_read(shard_id, error)
                return
        self._done.add(shard_id)
        del self._pollers[shard_id]
        self._bell.set()

    async def _look_later(self) -> None:
        """Have shards begun again when the log has been reopened."""
        await self._tools.streams.wait_reopened()
        self._bell.set()

    def _newest(self, stream: Stream, shard: Shard) -> tuple[Stream, Shard]:
        """Stream and shard as they are now, as long as they are."""
        now = self._tools.streams.find(stream.namespace, stream.table, stream.label)
        same = None if now is None else now.shard(shard.shard_id)
        return (stream, shard) if now is None or same is None else (now, same)

    def _cannot_read(self, shard_id: str, error: Exception) -> None:
        """This shard cannot be read on. Writers, and other mappings, go on."""
        self._damaged.add(shard_id)
        self.counters.last_result = "PROBLEM: The stream is damaged"
        logger.critical("%s: %s cannot be read: %s", self._handler.name, shard_id, error)


def starting_rows(
    tools: Tools, stream: Stream, settings: MappingSettings
) -> dict[str, tuple[LaneCheckpoint, ...]]:
    """Shard id -> the rows with which a new mapping begins; none for the horizon."""
    if settings.starting_position != "LATEST":
        return {}
    return {
        shard.shard_id: checkpoints_at(tools.streams.end_sequence(shard) - 1)
        for shard in stream.shards
    }
