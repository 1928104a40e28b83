"""The event source mappings of one node: stored in the catalog, run while they can be.

A mapping ties a table's stream to a handler: a function of the Lambda API, or a Python callable
registered under the mapping's name (``lambdas/trigger.py``). Callables are never stored: after a
restart a mapping waits until somebody registers its name again, and goes on where it was. Its
StartingPosition counts once, when the mapping is made.

==================  ================================================================
state               what it means
==================  ================================================================
Creating            its first positions are not stored yet
Enabled             it is run, or will be when its table has a stream
WAITING_FOR_HANDLER enabled, but its handler is not registered in this process, or its function
                    is gone
Disabled            paused; its positions are kept
Deleting            it is being removed
==================  ================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import msgspec
import trio

from ..errors import (
    InvalidRequest,
    LimitExceeded,
    ResourceInUse,
    ResourceNotFound,
    Unavailable,
)
from ..lambdas.batches import checkpoints_at
from ..lambdas.settings import Mapping, MappingSettings, check_settings
from ..lambdas.trigger import Trigger
from ..limits import MAPPINGS_MAX
from ..model.schema import Status, TableChange
from ..streams.definition import Stream
from ..streams.sequence import lsn_of
from .catalog import MAPPING_ENTRY, Catalog
from .destinations import FailedBatch
from .mapping_runner import MappingRunner, Source, starting_rows
from .mapping_values import (
    CREATING,
    DELETING,
    DISABLED,
    ENABLED,
    USER,
    WAITING,
    MappingStatistics,
    StoredMapping,
    decode_mapping,
    encode_mapping,
)
from .redrive import give_again
from .shard_poller import Counters, Handler, Tools
from .tables import Tables

logger = logging.getLogger(__name__)

# Named here because ``Mappings.list`` hides the built-in inside the class.
Found = list[Mapping]


class Mappings:
    """Makes, changes, runs and removes mappings. One per node."""

    def __init__(
        self,
        catalog: Catalog,
        tables: Tables,
        tools: Tools,
        nursery: trio.Nursery,
        find_function: Callable[[str, str], Handler | None],
        make_handler: Callable[[str, Trigger], Handler],
    ) -> None:
        self._catalog = catalog
        self._tables = tables
        self._tools = tools
        self._nursery = nursery
        self._find_function = find_function
        self._make_handler = make_handler
        self._stored: dict[str, StoredMapping] = {}
        #: Mapping -> its Python handler, where it is registered.
        self._handlers: dict[str, tuple[Trigger, Handler]] = {}
        self._runners: dict[str, MappingRunner] = {}
        self._counters: dict[str, Counters] = {}
        #: Changes go one after another.
        self._changing = trio.Lock()
        #: Those who wait for progress (drain).
        self._progress = trio.lowlevel.ParkingLot()
        self._closing = False
        for data in catalog.entries(MAPPING_ENTRY).values():
            stored = decode_mapping(data)
            self._stored[stored.mapping.uuid] = stored
        tables.view_wanted = self._view_wanted

    async def start(self) -> None:
        """Run what can be run; to be called once, when functions can be found."""
        shards = self._tools.streams.shard_ids()
        await self._tools.checkpoints.sweep(
            lambda uuid, shard_id: uuid in self._stored and shard_id in shards
        )
        async with self._changing:
            for uuid in tuple(self._stored):
                await self._settle(uuid)

    async def close(self) -> None:
        """Stop every mapping: what a handler has not finished will be given to it again."""
        self._closing = True
        self._progressed()
        async with trio.open_nursery() as nursery:
            for runner in tuple(self._runners.values()):
                nursery.start_soon(runner.stop)
        for _, handler in self._handlers.values():
            await handler.invoker.close()

    # Reading.

    def get(self, namespace: str, uuid: str) -> Mapping | None:
        """The mapping, with the state of the moment."""
        stored = self._stored.get(uuid)
        if stored is None or stored.mapping.namespace != namespace:
            return None
        counters = self._counters.get(uuid)
        return msgspec.structs.replace(
            stored.mapping,
            state=self._state(stored),
            last_processing_result=(
                stored.mapping.last_processing_result
                if counters is None
                else counters.last_result
            ),
        )

    def list(self, namespace: str) -> Found:
        """All mappings of a namespace, by name."""
        found = [self.get(namespace, uuid) for uuid in self._stored]
        return sorted(
            (mapping for mapping in found if mapping is not None),
            key=lambda mapping: (mapping.name, mapping.uuid),
        )

    def named(self, namespace: str, name: str) -> Mapping:
        """The mapping of a Python trigger. Raises ResourceNotFound."""
        uuid = self._uuid_of(namespace, name)
        mapping = None if uuid is None else self.get(namespace, uuid)
        if mapping is None:
            raise ResourceNotFound(f"There is no trigger {name!r}")
        return mapping

    def statistics(self, namespace: str) -> Sequence[MappingStatistics]:
        """What each mapping has done."""
        return [self._statistics(mapping) for mapping in self.list(namespace)]

    def _statistics(self, mapping: Mapping) -> MappingStatistics:
        counters = self._counters.get(mapping.uuid) or Counters()
        lag = sum(
            max(0, lsn_of(end) - lsn_of(done) - 1)
            for done, end in self._positions(mapping.uuid).values()
        )
        return MappingStatistics(
            mapping.name,
            mapping.state,
            counters.records,
            counters.batches,
            counters.failures,
            counters.discarded,
            lag,
            mapping.last_processing_result,
            counters.last_error,
        )

    def _positions(self, uuid: str) -> dict[str, tuple[int, int]]:
        """Shard id -> (the sequence up to which it is done, the end of what is committed)."""
        runner = self._runners.get(uuid)
        if runner is not None:
            return runner.positions()
        streams, checkpoints = self._tools.streams, self._tools.checkpoints
        found = {}
        for stream in self._streams(self._stored[uuid].source):
            for shard in stream.shards:
                rows = checkpoints.load(uuid, shard.shard_id)
                first = streams.first_sequence(shard)
                done = max((row.floor for row in rows), default=first - 1)
                found[shard.shard_id] = (max(done, first - 1), streams.end_sequence(shard))
        return found

    def _state(self, stored: StoredMapping) -> str:
        mapping = stored.mapping
        if mapping.state != ENABLED or mapping.uuid in self._runners:
            return mapping.state
        return mapping.state if self._handler_of(mapping) is not None else WAITING

    def failed_batches(self, namespace: str, uuid: str) -> Sequence[FailedBatch]:
        """What the mapping has given up and nobody has dealt with, oldest first."""
        self._find(namespace, uuid)
        return self._tools.failures.of_mapping(uuid)

    # Functions' mappings.

    async def create(
        self, namespace: str, function_name: str, stream_arn: str, settings: MappingSettings
    ) -> Mapping:
        """Make a mapping from a stream to a function.

        Raises ResourceNotFound for a function or a stream that is not there, InvalidRequest for
        settings, ResourceInUse if there is a mapping of both already.
        """
        check_settings(settings)
        if self._find_function(namespace, function_name) is None:
            raise ResourceNotFound(f"Function not found: {function_name}")
        stream = self._stream_of(namespace, stream_arn)
        async with self._changing:
            for stored in self._stored.values():
                mapping = stored.mapping
                if (mapping.namespace, mapping.name, mapping.stream_arn, mapping.is_function) == (
                    namespace, function_name, stream_arn, True,
                ):  # fmt: skip
                    raise ResourceInUse(
                        "The event source arn and function already have a mapping: UUID "
                        f"{mapping.uuid}"
                    )
            source = Source(namespace, stream.table, stream.label, True)
            return await self._make(namespace, function_name, True, source, stream_arn, settings)

    def _stream_of(self, namespace: str, arn: str) -> Stream:
        for stream in self._tools.streams.of_namespace(namespace):
            if self._tools.arn_of(stream) == arn:
                return stream
        raise ResourceNotFound(f"Stream not found: {arn}")

    # Python triggers.

    async def add(self, namespace: str, trigger: Trigger) -> Mapping:
        """Register a Python handler and run it; its mapping is made if there is none of its name.

        The same name again, after a restart, means the same mapping: new code and settings, old
        positions.

        Raises:
            InvalidRequest: settings out of bounds, or the name belongs to another table's mapping.
            ResourceInUse: the name is registered in this process already.
        """
        check_settings(trigger.settings)
        # First, because a handler that cannot travel must leave no mapping behind.
        handler = self._make_handler(namespace, trigger)
        async with self._changing:
            uuid = self._uuid_of(namespace, trigger.name)
            if uuid is not None and uuid in self._handlers:
                raise ResourceInUse(f"A trigger {trigger.name!r} is registered already")
            if uuid is None:
                label = self._current_label(namespace, trigger.table)
                source = Source(namespace, trigger.table, label, False)
                mapping = await self._make(
                    namespace, trigger.name, False, source, "", trigger.settings, run=False
                )
                uuid = mapping.uuid
            else:
                await self._renew(uuid, trigger)
            self._handlers[uuid] = (trigger, handler)
            if trigger.on_failure is not None and trigger.settings.on_failure is not None:
                key = (uuid, trigger.settings.on_failure.name)
                self._tools.failures.callables[key] = trigger.on_failure
            await self._provide_stream(namespace, trigger)
            await self._settle(uuid)
        found = self.get(namespace, uuid)
        assert found is not None
        return found

    async def _renew(self, uuid: str, trigger: Trigger) -> None:
        """What is stored of a mapping follows its trigger, but for where it began."""
        stored = self._stored[uuid]
        mapping = stored.mapping
        if mapping.table != trigger.table:
            raise InvalidRequest(
                f"The trigger {trigger.name!r} is of table {mapping.table!r}; for another table "
                "it needs another name, or its mapping must be removed first"
            )
        settings = msgspec.structs.replace(
            trigger.settings,
            starting_position=mapping.settings.starting_position,
            enabled=mapping.settings.enabled,
        )
        if settings != mapping.settings:
            await self._store(stored, settings=settings)

    async def remove_handler(self, namespace: str, name: str) -> None:
        """Forget a handler; its mapping and positions stay."""
        async with self._changing:
            uuid = self.named(namespace, name).uuid
            await self._stop(uuid)
            found = self._handlers.pop(uuid, None)
            if found is not None:
                await found[1].invoker.close()

    def _uuid_of(self, namespace: str, name: str) -> str | None:
        for uuid, stored in self._stored.items():
            mapping = stored.mapping
            if (mapping.namespace, mapping.name, mapping.is_function) == (namespace, name, False):
                return uuid
        return None

    def _current_label(self, namespace: str, table: str) -> str:
        """The label of the stream that the table has, or what comes before that of its next one.

        Streams that ended before, of a removed table of that name perhaps, are nobody's any more.
        """
        ref = self._tables.find(namespace, table)
        if ref is not None and ref.table.stream is not None:
            return ref.table.stream.label
        ended = self._tools.streams.of_namespace(namespace, table)
        return f"{ended[-1].label} and later" if ended else ""

    async def _provide_stream(self, namespace: str, trigger: Trigger) -> None:
        """Give the trigger's table a stream if it has none. One that is not there yet gets it
        when it is made (``_view_wanted``)."""
        while True:
            ref = self._tables.find(namespace, trigger.table)
            if ref is None or ref.table.stream is not None:
                return
            try:
                if ref.table.status is Status.ACTIVE:
                    await self._tables.change(
                        TableChange(ref.table, enable_stream=trigger.stream_view)
                    )
                await self._tables.wait_active(namespace, trigger.table)
            except (ResourceInUse, ResourceNotFound):
                # Somebody else changes it just now.
                await trio.lowlevel.checkpoint()

    def _view_wanted(self, namespace: str, table: str) -> str | None:
        """The stream that a table about to be made needs for its triggers, if any."""
        for trigger, _ in self._handlers.values():
            if trigger.table == table and self._uuid_of(namespace, trigger.name) is not None:
                return trigger.stream_view
        return None

    # Changing.

    async def update(
        self,
        namespace: str,
        uuid: str,
        settings: MappingSettings,
        function_name: str | None = None,
    ) -> Mapping:
        """Change settings (pausing and resuming included) or the function of a mapping.

        Raises ResourceNotFound, InvalidRequest.
        """
        check_settings(settings)
        async with self._changing:
            stored = self._find(namespace, uuid)
            name = stored.mapping.name
            if function_name is not None and stored.mapping.is_function:
                if self._find_function(namespace, function_name) is None:
                    raise ResourceNotFound(f"Function not found: {function_name}")
                name = function_name
            kept = msgspec.structs.replace(
                settings, starting_position=stored.mapping.settings.starting_position
            )
            state = ENABLED if kept.enabled else DISABLED
            await self._store(stored, settings=kept, name=name, state=state)
            runner = self._runners.get(uuid)
            if name != stored.mapping.name or not (
                kept.enabled and runner is not None and runner.adopt(kept)
            ):
                await self._stop(uuid)
            await self._settle(uuid)
        found = self.get(namespace, uuid)
        assert found is not None
        return found

    async def pause(self, namespace: str, uuid: str) -> Mapping:
        """Read no more until ``resume``; positions are kept, as long as the stream has them."""
        return await self._switch(namespace, uuid, False)

    async def resume(self, namespace: str, uuid: str) -> Mapping:
        """Go on where ``pause`` stopped."""
        return await self._switch(namespace, uuid, True)

    async def _switch(self, namespace: str, uuid: str, enabled: bool) -> Mapping:
        settings = self._find(namespace, uuid).mapping.settings
        return await self.update(
            namespace, uuid, msgspec.structs.replace(settings, enabled=enabled)
        )

    async def delete(self, namespace: str, uuid: str) -> Mapping:
        """Remove a mapping with its positions and its list of failed batches."""
        async with self._changing:
            stored = self._find(namespace, uuid)
            await self._stop(uuid)
            found = self._handlers.pop(uuid, None)
            if found is not None:
                await found[1].invoker.close()
            for stream in self._streams(stored.source):
                for shard in stream.shards:
                    await self._tools.checkpoints.replace(uuid, shard.shard_id, ())
            await self._tools.failures.forget_mapping(uuid)
            await self._catalog.remove_entry(MAPPING_ENTRY, uuid)
            del self._stored[uuid]
            self._counters.pop(uuid, None)
        return msgspec.structs.replace(stored.mapping, state=DELETING)

    async def reset(self, namespace: str, uuid: str, position: str | int) -> Mapping:
        """Go on from ``TRIM_HORIZON``, ``LATEST``, or a time (ms since the epoch), in all shards.

        From the horizon is a replay: the handler gets every record again that the stream has.
        """
        if not isinstance(position, int) and position not in ("TRIM_HORIZON", "LATEST"):
            raise InvalidRequest("A position is TRIM_HORIZON, LATEST or a time in milliseconds")
        async with self._changing:
            stored = self._find(namespace, uuid)
            await self._stop(uuid)
            streams = self._tools.streams
            for stream in self._streams(stored.source):
                for shard in stream.shards:
                    if position == "TRIM_HORIZON":
                        sequence = streams.first_sequence(shard)
                    elif isinstance(position, int):
                        sequence = streams.sequence_at(shard, position)
                    else:
                        sequence = streams.end_sequence(shard)
                    rows = checkpoints_at(sequence - 1)
                    await self._tools.checkpoints.replace(uuid, shard.shard_id, rows)
            await self._settle(uuid)
        found = self.get(namespace, uuid)
        assert found is not None
        return found

    async def redrive(self, namespace: str, uuid: str, batch_id: str | None = None) -> int:
        """Give a failed batch (or all) to the handler again; how many it took this time.

        What it takes is off the list. Records that the stream no longer has cannot be given.

        Raises ResourceNotFound for a mapping or a batch that is not there, Unavailable while no
        handler is registered.
        """
        stored = self._find(namespace, uuid)
        handler = self._handler_of(stored.mapping)
        if handler is None:
            raise Unavailable(f"{stored.mapping.name} has no handler in this process")
        batches = [
            batch
            for batch in self._tools.failures.of_mapping(uuid)
            if batch_id in (None, batch.batch_id)
        ]
        if batch_id is not None and not batches:
            raise ResourceNotFound(f"There is no failed batch {batch_id!r}")
        taken = 0
        for batch in batches:
            if await give_again(self._tools, namespace, uuid, handler, batch):
                await self._tools.failures.forget(uuid, batch.batch_id)
                taken += 1
        return taken

    # Steps.

    async def _make(
        self,
        namespace: str,
        name: str,
        is_function: bool,
        source: Source,
        stream_arn: str,
        settings: MappingSettings,
        *,
        run: bool = True,
    ) -> Mapping:
        if len(self._stored) >= MAPPINGS_MAX:
            raise LimitExceeded(f"There are {MAPPINGS_MAX} event source mappings already")
        mapping = Mapping(
            uuid=self._tools.new_id(),
            namespace=namespace,
            name=name,
            is_function=is_function,
            table=source.table,
            stream_arn=stream_arn,
            settings=settings,
            state=CREATING,
            state_transition_reason="User action" if is_function else USER,
            last_processing_result="No records processed",
            last_modified_ms=self._tools.clock.now_ms(),
        )
        stored = StoredMapping(mapping, source, has_begun=False)
        await self._catalog.save_entry(MAPPING_ENTRY, mapping.uuid, encode_mapping(stored))
        self._stored[mapping.uuid] = stored
        if run:
            await self._settle(mapping.uuid)
        found = self.get(namespace, mapping.uuid)
        assert found is not None
        return found

    async def _settle(self, uuid: str) -> None:
        """Store the first positions if they are not, and run the mapping if it can be."""
        stored = self._stored[uuid]
        if not stored.has_begun:
            for stream in self._streams(stored.source):
                rows = starting_rows(self._tools, stream, stored.mapping.settings)
                for shard_id, checkpoints in rows.items():
                    await self._tools.checkpoints.replace(uuid, shard_id, checkpoints)
            state = ENABLED if stored.mapping.settings.enabled else DISABLED
            stored = await self._store(stored, has_begun=True, state=state)
        mapping = stored.mapping
        handler = self._handler_of(mapping)
        if mapping.state != ENABLED or handler is None or uuid in self._runners or self._closing:
            return
        counters = self._counters.setdefault(uuid, Counters())
        runner = MappingRunner(
            self._tools, uuid, stored.source, handler, mapping.settings, counters, self._progressed
        )
        self._runners[uuid] = runner
        self._nursery.start_soon(runner.run)

    def _handler_of(self, mapping: Mapping) -> Handler | None:
        if mapping.is_function:
            return self._find_function(mapping.namespace, mapping.name)
        found = self._handlers.get(mapping.uuid)
        return None if found is None else found[1]

    async def _stop(self, uuid: str) -> None:
        runner = self._runners.pop(uuid, None)
        if runner is not None:
            await runner.stop()

    async def _store(
        self,
        stored: StoredMapping,
        *,
        settings: MappingSettings | None = None,
        has_begun: bool = True,
        **fields: object,
    ) -> StoredMapping:
        mapping = msgspec.structs.replace(
            stored.mapping,
            settings=stored.mapping.settings if settings is None else settings,
            last_modified_ms=self._tools.clock.now_ms(),
            **fields,
        )
        renewed = msgspec.structs.replace(stored, mapping=mapping, has_begun=has_begun)
        await self._catalog.save_entry(MAPPING_ENTRY, mapping.uuid, encode_mapping(renewed))
        self._stored[mapping.uuid] = renewed
        return renewed

    def _streams(self, source: Source) -> Iterable[Stream]:
        streams = self._tools.streams.of_namespace(source.namespace, source.table)
        return [stream for stream in streams if source.takes(stream)]

    def _find(self, namespace: str, uuid: str) -> StoredMapping:
        stored = self._stored.get(uuid)
        if stored is None or stored.mapping.namespace != namespace:
            raise ResourceNotFound("The resource you requested does not exist.")
        return stored

    # Waiting.

    def _progressed(self) -> None:
        if self._progress:
            self._progress.unpark_all()

    async def drain(self, namespace: str | None = None) -> None:
        """Return when every mapping that runs has done everything that is committed.

        Also what handlers have written meanwhile, to whatever table. A handler that fails for ever
        keeps this waiting for ever. Raises Corrupt if a stream is damaged, Unavailable if the node
        stops.
        """
        while True:
            if self._closing:
                raise Unavailable("The node is stopping")
            runners = [
                runner
                for uuid, runner in self._runners.items()
                if namespace in (None, self._stored[uuid].mapping.namespace)
            ]
            if all(runner.is_drained for runner in runners):
                return
            await self._progress.park()
