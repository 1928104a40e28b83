"""Takes one shard of a stream through one handler: read, batch, invoke, checkpoint.

A poller owned by its mapping's runner. What is done when is decided by the machine
(``lambdas/shard.py``); this carries it out. One loop: read what the machine wants, do what it says,
wait until something has happened: the log has grown, an invocation has ended, a time has come.

Checkpoints of plain handlers are stored beside the work, the newest row of each lane, all in one
entry; a crash repeats what they did not reach. A handler that used ``context.transaction`` has its
writes and its checkpoint committed as one transaction, which also demands that nobody else has
stored a checkpoint of the lane since this poller did: then it is deposed, and starts over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import msgspec
import trio

from ..errors import (
    Ambiguous,
    MillstreamError,
    OutcomeUnknown,
    Throttled,
    TransactionConflict,
    Trimmed,
    Unavailable,
)
from ..host.clock import Clock
from ..lambdas.batches import (
    Checkpoint,
    Discard,
    Failure,
    Invoke,
    LaneCheckpoint,
    Pulled,
    Replace,
    Success,
    window_members,
)
from ..lambdas.patterns import Filters
from ..lambdas.results import Failed, Invocation, Returned
from ..lambdas.runtime import Invoker
from ..lambdas.settings import MappingSettings
from ..lambdas.shard import Shard as Machine
from ..limits import (
    ERROR_CHARACTERS_MAX,
    HANDLER_CONFLICTS_MAX,
    INVOKER_RETRY_SECONDS,
    STREAM_SLICE_RECORDS,
    TRANSACTION_PAUSE_SECONDS,
)
from ..model.versions import NO_VERSION, Version
from ..storage.commands import Action
from ..streams.definition import Shard, Stream
from ..streams.lineage import trace_of
from ..streams.records import Change, Renderer
from ..streams.sequence import sequence_of, sequence_text
from .checkpoints import Checkpoints
from .destinations import FailedBatch, Failures
from .partition import PartitionActor
from .streams import Page, Streams

logger = logging.getLogger(__name__)

PAYLOAD_BYTES = 4 * 1024 * 1024


class Deposed(Exception):
    """Somebody else has stored a checkpoint of this shard: begin again from what is stored."""


class CommittedTransaction(Protocol):
    """The transaction of a handler, as whoever commits it sees it."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing was read or written through it."""
        ...

    async def commit(self, more: Sequence[tuple[PartitionActor, Action]] = ()) -> None:
        """Make everything recorded durable, ``more`` with it, or nothing."""
        ...


class Handler(msgspec.Struct, frozen=True):
    """What a mapping calls. ``name`` is the trigger's or function's; times in seconds."""

    name: str
    arn: str
    invoker: Invoker
    timeout_seconds: float
    memory_limit_mb: int


class Tools(msgspec.Struct, frozen=True):
    """What every poller of a node shares."""

    streams: Streams
    checkpoints: Checkpoints
    clock: Clock
    new_id: Callable[[], str]
    arn_of: Callable[[Stream], str]
    region: str
    #: From namespace and hops to a handler's transaction.
    make_transaction: Callable[[str, int], Any]
    failures: Failures


class Counters:
    """What a mapping has done since it was started."""

    __slots__ = ("batches", "discarded", "failures", "last_error", "last_result", "records")

    def __init__(self) -> None:
        self.records = 0
        self.batches = 0
        self.failures = 0
        self.discarded = 0
        #: LastProcessingResult.
        self.last_result = "No records processed"
        #: Type and message of the last failure.
        self.last_error = ""


class ShardPoller:
    """One shard of one mapping."""

    def __init__(
        self,
        tools: Tools,
        namespace: str,
        mapping_id: str,
        handler: Handler,
        settings: MappingSettings,
        filters: Filters,
        stream: Stream,
        shard: Shard,
        counters: Counters,
        progressed: Callable[[], None],
    ) -> None:
        self._tools = tools
        self._namespace = namespace
        self._mapping_id = mapping_id
        self._handler = handler
        self._settings = settings
        self._filters = filters
        self._stream = stream
        self._shard = shard
        self._counters = counters
        #: Tells the runner that drain may look again.
        self._progressed = progressed
        self._arn = tools.arn_of(stream)
        self._render = Renderer(stream, shard, self._arn, tools.region).event_record
        rows = tools.checkpoints.load(mapping_id, shard.shard_id)
        self._machine = Machine(self._bounded(settings), rows)
        #: Lane -> the version of its stored row, as far as this poller knows.
        self._versions: dict[int, Version] = {}
        self._learn_versions(row.lane for row in rows)
        begin = self._machine.start_position() + 1 if rows else 0
        #: The sequence that was the first to be read.
        self._begin = max(begin, 0 if rows else tools.streams.first_sequence(shard))
        #: The sequence to read from.
        self._next = self._begin
        self._is_caught_up = False
        self._bell = trio.Event()
        #: Rows to be stored, by lane; ``_storing`` while some are on their way.
        self._unsaved: dict[int, LaneCheckpoint] = {}
        self._storing = False
        self._to_store = trio.Event()
        self._stored = trio.lowlevel.ParkingLot()
        #: Lane -> how its last invocation failed.
        self._last_failed: dict[int, Failed | None] = {}
        self._invocations = 0
        self._nursery: trio.Nursery

    # For the runner.

    @property
    def is_drained(self) -> bool:
        """Whether everything that is committed in the shard is done and stored."""
        return (
            self._machine.is_idle
            and self._is_stored
            and self._next >= self._tools.streams.end_sequence(self._current()[1])
        )

    @property
    def position(self) -> int:
        """The sequence up to which everything is done."""
        if self._machine.is_idle:
            return self._next - 1
        return max(self._machine.position, self._begin - 1)

    @property
    def next_sequence(self) -> int:
        """The sequence that will be read next."""
        return self._next

    def adopt(self, settings: MappingSettings, filters: Filters) -> bool:
        """Follow new settings from the next batch on; False if that takes a new poller."""
        if not self._machine.adopt(self._bounded(settings)):
            return False
        self._settings, self._filters = settings, filters
        self.ring()
        return True

    def _bounded(self, settings: MappingSettings) -> MappingSettings:
        """Without a limit of its own a record is too old when the stream no longer has it."""
        if settings.maximum_record_age_seconds >= 0:
            return settings
        seconds = self._tools.streams.retention_ms // 1000
        return msgspec.structs.replace(settings, maximum_record_age_seconds=seconds)

    def ring(self) -> None:
        """Look again."""
        self._bell.set()

    async def run(self) -> None:
        """Return when the shard has ended and everything of it is done.

        Raises Deposed, Unavailable (the node is stopping), or what tells of damage.
        """
        stop_telling = self._tools.clock.when_moved(self.ring)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._watch)
                nursery.start_soon(self._store)
                await self._work()
                nursery.cancel_scope.cancel()
        finally:
            stop_telling()

    # The loop.

    async def _work(self) -> None:
        machine, clock = self._machine, self._tools.clock
        while True:
            self._bell = trio.Event()
            await self._pull()
            now_ms = clock.now_ms()
            for effect in machine.ready(now_ms, self._is_caught_up):
                match effect:
                    case Invoke():
                        self._invocations += 1
                        self._nursery.start_soon(self._invoke, effect)
                    case Discard():
                        self._nursery.start_soon(self._discard, effect)
                    case Checkpoint():
                        self._unsaved[effect.lane] = effect.checkpoint
                        self._to_store.set()
                    case Replace():
                        await self._replace(effect)
            self._progressed()
            if machine.is_done and self._is_stored:
                return
            deadline_ms = machine.deadline(now_ms, self._is_caught_up)
            wait = float("inf") if deadline_ms is None else clock.seconds_until(deadline_ms)
            with trio.move_on_after(wait):
                await self._bell.wait()

    async def _watch(self) -> None:
        """Ring when the log has grown or the stream has changed, if there is room for more.

        Without room a handler is at work, and what it leaves to be done rings when it has ended.
        """
        while True:
            # Before each wait: what happened since the loop looked last would wake nobody.
            if self._machine.wants() > 0:
                self.ring()
            await self._tools.streams.wait_growth(self._current()[1])

    def _current(self) -> tuple[Stream, Shard]:
        """Stream and shard as they are now: the shard may have been closed meanwhile."""
        stream = self._tools.streams.find(
            self._namespace, self._stream.table, self._stream.label
        )
        shard = None if stream is None else stream.shard(self._shard.shard_id)
        if stream is not None and shard is not None:
            self._stream, self._shard = stream, shard
        return self._stream, self._shard

    # Reading.

    async def _pull(self) -> None:
        """Feed the machine as much as it wants."""
        machine = self._machine
        while True:
            room = machine.wants()
            if room <= 0:
                self._is_caught_up = False
                return
            try:
                page = self._read(min(room, STREAM_SLICE_RECORDS))
            except Ambiguous:
                # What is at work goes on.
                await self._tools.streams.wait_reopened()
                continue
            now_ms = self._tools.clock.now_ms()
            for change in page.changes:
                machine.feed(self._pulled(change, now_ms))
            moved = page.next > self._next
            self._next = page.next
            if page.is_end:
                machine.end()
            if page.is_end or not moved:
                self._is_caught_up = True
                return
            await trio.lowlevel.checkpoint()

    def _read(self, changes_max: int) -> Page:
        stream, shard = self._current()
        streams = self._tools.streams
        while True:
            try:
                return streams.read(stream, shard, self._next, changes_max, PAYLOAD_BYTES)
            except Trimmed as error:
                horizon = sequence_of(error.first_lsn)
                logger.error(
                    "%s: records of %s are no longer kept, from sequence %d to %d; going on behind",
                    self._handler.name, shard.shard_id, self._next, horizon - 1,
                )  # fmt: skip
                self._counters.last_result = "PROBLEM: Records have expired unprocessed"
                self._next = horizon

    def _pulled(self, change: Change, now_ms: int) -> Pulled:
        filters = self._filters
        matches = filters.is_empty or filters.matches(self._render(change))
        return Pulled(
            position=change.sequence,
            key=change.key,
            # Commits have later times than the clock, after it was set back: nobody waits for that.
            arrived_ms=min(change.at_ms, now_ms),
            size_bytes=change.json_bytes,
            matches=matches,
            hops=change.hops,
            record=change,
        )

    # Invoking.

    async def _invoke(self, call: Invoke) -> None:
        counters, clock = self._counters, self._tools.clock
        committed: LaneCheckpoint | None = None
        result: Returned | Failed
        attempt = 0
        while True:
            try:
                result, committed = await self._attempt(call)
                break
            except (TransactionConflict, Throttled) as error:
                attempt += 1
                if attempt == HANDLER_CONFLICTS_MAX:
                    result = Failed(type(error).__name__, str(error))
                    break
                await trio.sleep(TRANSACTION_PAUSE_SECONDS * attempt)
            except Unavailable as error:
                # Nothing has changed: a partition reads its log again, or the node is stopping,
                # and then this will be cancelled. No fault of the handler's.
                logger.warning("%s cannot commit now: %s", self._handler.name, error)
                await trio.sleep(INVOKER_RETRY_SECONDS)
        counters.batches += 1
        if isinstance(result, Returned):
            self._last_failed[call.lane] = None
            counters.records += len(call.records)
            counters.last_result = "OK"
            outcome: Success | Failure = Success(result.payload)
        else:
            self._last_failed[call.lane] = result
            counters.failures += 1
            counters.last_result = "PROBLEM: Function call failed"
            counters.last_error = f"{result.error_type}: {result.message}"[:ERROR_CHARACTERS_MAX]
            logger.warning("%s: %s: %s", self._handler.name, result.error_type, "handler failed")
            outcome = Failure()
        self._machine.finished(
            call.lane, call.batch_id, outcome, clock.now_ms(), committed=committed
        )
        self.ring()

    async def _attempt(self, call: Invoke) -> tuple[Returned | Failed, LaneCheckpoint | None]:
        """One invocation; if it used its transaction, committed with the checkpoint.

        Raises TransactionConflict, Throttled or Unavailable if another attempt may succeed.
        """
        transaction, result = await self._call(call)
        if isinstance(result, Failed) and result.error_type == TransactionConflict.__name__:
            # It was the handler that met the other transaction, when it read.
            raise TransactionConflict(result.message)
        if isinstance(result, Failed) or transaction.is_empty:
            return result, None
        await self._wait_stored()
        checkpoint = self._machine.preview(call.lane, call.batch_id, result.payload)
        if checkpoint is None:
            return result, None
        try:
            await self._commit(call.lane, transaction, checkpoint)
        except TransactionConflict:
            self._refuse_deposed(call.lane)
            raise
        except (Throttled, Unavailable):
            raise
        except MillstreamError as error:
            # A condition that is false, a table that is gone: like an error of the handler's own.
            return Failed(type(error).__name__, str(error)), None
        self._learn_versions([call.lane])
        return result, checkpoint

    async def _call(self, call: Invoke) -> tuple[Any, Returned | Failed]:
        tools, handler = self._tools, self._handler
        hops = max((record.hops for record in call.records), default=0) + 1
        while True:
            # All anew for each attempt: a handler may do to them what it likes.
            transaction = tools.make_transaction(self._namespace, hops)
            request_id = tools.new_id()
            invocation = Invocation(
                request_id=request_id,
                function_name=handler.name,
                function_arn=handler.arn,
                version="$LATEST",
                memory_limit_mb=handler.memory_limit_mb,
                timeout_seconds=handler.timeout_seconds,
                trace_id=trace_of(request_id, self._mapping_id, hops),
            )
            try:
                event = await self._event(call)
                result = await handler.invoker.invoke(event, invocation, transaction)
            except Unavailable as error:
                logger.warning("%s cannot be invoked now: %s", handler.name, error)
                await trio.sleep(INVOKER_RETRY_SECONDS)
            else:
                return transaction, result

    async def _event(self, call: Invoke) -> dict[str, Any]:
        records = []
        for number, record in enumerate(call.records, 1):
            records.append(self._render(record.record))
            if number % STREAM_SLICE_RECORDS == 0:
                # Writers need not wait for the whole of a large batch.
                await trio.lowlevel.checkpoint()
        event: dict[str, Any] = {"Records": records}
        if call.window is not None:
            event |= window_members(call.window)
            event |= {"shardId": self._shard.shard_id, "eventSourceARN": self._arn}
        return event

    async def _commit(
        self, lane: int, transaction: CommittedTransaction, checkpoint: LaneCheckpoint
    ) -> None:
        tools, shard_id = self._tools, self._shard.shard_id
        version = self._versions.get(lane, NO_VERSION)
        action = tools.checkpoints.action(self._mapping_id, shard_id, checkpoint, version)
        try:
            await transaction.commit([action])
        except OutcomeUnknown:
            # The row tells, as soon as nobody holds it any more.
            if not await tools.checkpoints.is_stored(self._mapping_id, shard_id, checkpoint):
                raise TransactionConflict("The transaction did not take place") from None

    def _refuse_deposed(self, lane: int) -> None:
        version = self._tools.checkpoints.version(self._mapping_id, self._shard.shard_id, lane)
        if version != self._versions.get(lane, NO_VERSION):
            raise Deposed

    # Giving up.

    async def _discard(self, discard: Discard) -> None:
        self._counters.discarded += len(discard.records)
        failed = self._last_failed.get(discard.lane)
        sequences = [record.position for record in discard.records]
        now_ms = self._tools.clock.now_ms()
        # A window's final call has no records; numbers of batches begin anew with each start.
        first = (
            sequence_text(sequences[0]) if sequences else f"window-{now_ms}-{discard.batch_id}"
        )
        batch = FailedBatch(
            batch_id=f"{self._shard.shard_id}-{first}",
            mapping_id=self._mapping_id,
            table=self._stream.table,
            label=self._stream.label,
            shard_id=self._shard.shard_id,
            sequences=sequences,
            condition=discard.condition,
            attempts=discard.attempts,
            error_type="" if failed is None else failed.error_type,
            message="" if failed is None else failed.message,
            at_ms=now_ms,
        )
        logger.error(
            "%s: %d records are given up (%s)",
            self._handler.name, len(sequences), discard.condition,
        )  # fmt: skip
        await self._tools.failures.keep(
            discard,
            batch=batch,
            destination=self._settings.on_failure,
            namespace=self._namespace,
            handler_arn=self._handler.arn,
            stream_arn=self._arn,
            failed=failed,
            event={"Records": [self._render(record.record) for record in discard.records]},
        )
        self._machine.discarded(discard.lane, discard.batch_id)
        self.ring()

    # Storing.

    @property
    def _is_stored(self) -> bool:
        return not self._unsaved and not self._storing

    async def _wait_stored(self) -> None:
        while not self._is_stored:
            await self._stored.park()

    async def _store(self) -> None:
        """Store the newest rows, again and again."""
        checkpoints, shard_id = self._tools.checkpoints, self._shard.shard_id
        while True:
            await self._to_store.wait()
            self._to_store = trio.Event()
            rows, self._unsaved = self._unsaved, {}
            self._storing = True
            await checkpoints.save(self._mapping_id, shard_id, list(rows.values()))
            self._learn_versions(rows)
            self._storing = False
            self._stored.unpark_all()
            self.ring()

    async def _replace(self, effect: Replace) -> None:
        await self._wait_stored()
        self._storing = True
        await self._tools.checkpoints.replace(
            self._mapping_id, self._shard.shard_id, effect.checkpoints
        )
        self._versions.clear()
        self._learn_versions(row.lane for row in effect.checkpoints)
        self._storing = False
        self._stored.unpark_all()

    def _learn_versions(self, lanes: Iterable[int]) -> None:
        for lane in lanes:
            self._versions[lane] = self._tools.checkpoints.version(
                self._mapping_id, self._shard.shard_id, lane
            )
