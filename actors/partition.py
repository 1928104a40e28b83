"""The partition actor: one mailbox, one machine, its batches and its one append in flight.

Owned by the node, which runs ``run`` in its nursery. Others hold the actor as a reference: they
read (synchronously: nothing changes between two checkpoints) and they ask; only the actor's own
task calls what changes the machine. It awaits its mailbox and nothing else; the log writer's
completions arrive there too.

When an append fails or its outcome is unknown, everything that waits is told so, and the actor
rebuilds its machine from the stored position and the log: what the log holds is what happened.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import trio

from ..errors import (
    Corrupt,
    OutcomeUnknown,
    RequestError,
    StorageError,
    Throttled,
    Unavailable,
)
from ..limits import (
    GATHER_LOOKS,
    RECOVERY_READ_BYTES,
    STREAM_NEWEST_BYTES,
)
from ..model.schema import Table
from ..storage.log.interface import Append, LogEngine
from ..storage.partition import Partition, Position, Ticket
from ..storage.records import Barrier, Record, Release
from ..storage.rows import Bodies, Row, decode_row, take_bodies
from ..storage.tree.btree import BTree
from .log_writer import LogWriter
from .mailbox import Mailbox, Reply

logger = logging.getLogger(__name__)

MakeMachine = Callable[[Position | None], Partition]


class _Ask(msgspec.Struct, frozen=True):
    command: Any
    reply: Ticket


class _Record(msgspec.Struct, frozen=True):
    record: Record
    reply: Reply


class _Nudge(msgspec.Struct, frozen=True):
    """The memtable has room again."""


class _Appended(msgspec.Struct, frozen=True):
    error: StorageError | None


class _Gather:
    """A reply slot for one of several commands that one asker waits for together."""

    __slots__ = ("_index", "_results", "_waiting")

    def __init__(self, index: int, results: list[Any], waiting: _Countdown) -> None:
        self._index = index
        self._results = results
        self._waiting = waiting

    def resolve(self, value: Any) -> None:
        self._results[self._index] = value
        self._waiting.one_less()

    def fail(self, error: Exception) -> None:
        self.resolve(error)


class _Countdown:
    """Resolves a reply when everything counted is done."""

    __slots__ = ("_count", "reply")

    def __init__(self, count: int) -> None:
        self._count = count
        self.reply = Reply()

    def one_less(self) -> None:
        self._count -= 1
        if self._count == 0:
            self.reply.resolve(None)


_Message = _Ask | _Record | _Appended | _Nudge


class PartitionActor:
    """Owner of one partition's machine."""

    def __init__(
        self,
        log_id: str,
        make_machine: MakeMachine,
        btree: BTree,
        engine: LogEngine,
        log_writer: LogWriter,
        now_ms: Callable[[], int],
        owner: str,
        note_commit: Callable[[], None],
        crowded: Callable[[], bool],
        get_copy: Callable[[int, bytes], bytes | None] | None = None,
    ) -> None:
        self.log_id = log_id
        self._make_machine = make_machine
        self.btree = btree
        self._engine = engine
        self._log_writer = log_writer
        self._now_ms = now_ms
        #: Names this node in its claims.
        self._owner = owner
        #: Tells the flusher that there is something new in the memtable.
        self._note_commit = note_commit
        #: Whether the memtable is full, so that nothing more may be applied for now.
        self._crowded = crowded
        #: Reads a row in the tree's other copy, where there is one.
        self._get_copy = get_copy
        self._mailbox: Mailbox[_Message] = Mailbox()
        #: Asks that found the batch full, in order, until the append in flight is done.
        self._backlog: list[_Ask | _Record] = []
        #: Those who wait for the log to grow; woken also when a stream on it changes.
        self.growth = trio.lowlevel.ParkingLot()
        #: The append in flight.
        self._append: Append | None = None
        #: The last entry, if it is short and somebody waited for it: they need not read the log.
        self.newest: Append | None = None
        #: Told of every entry that is committed (log, LSN, length, records), if anybody wants it.
        self.keep: Callable[[str, int, int, Sequence[Record]], None] | None = None
        #: Set when the Claim is durable and asks are answered, or when they are refused for good.
        self.serving = trio.Event()
        #: Set by an index builder that has fallen too far behind.
        self.throttled_by: set[str] = set()
        self.machine: Partition
        self._recover(None)

    # For everybody: reads.

    @property
    def lsn(self) -> int:
        """The last committed LSN."""
        return self.machine.lsn

    def get(self, tree: int, key: bytes) -> Row | None:
        """The committed row of ``tree`` under ``key``.

        Raises Corrupt for a row that is damaged and has no healthy copy.
        """
        data = self.btree.get(tree, key)
        if data is None:
            return None
        try:
            return decode_row(key, data)
        except Corrupt:
            return self._healthy_copy(tree, key)

    def rows(
        self, tree: int, low: bytes, high: bytes | None, reverse: bool = False
    ) -> Iterator[tuple[bytes, Row]]:
        """Committed rows with ``low <= key < high``, for one synchronous slice."""
        btree, version = self.btree, self.btree.version
        for key, data in btree.unguarded_range(tree, low, high, reverse):
            assert btree.version == version, "an iterator outlived its synchronous slice"
            try:
                row = decode_row(key, data)
            except Corrupt:
                row = self._healthy_copy(tree, key)
            yield key, row

    def bodies(
        self,
        tree: int,
        low: bytes,
        high: bytes | None,
        reverse: bool,
        rows_max: int,
        bytes_max: int,
    ) -> Bodies:
        """The bodies of committed rows with ``low <= key < high``, as many as fit.

        ``rows`` in one go, for pages of whole items: up to ``rows_max`` of them, and up to the one
        that brings their sizes to ``bytes_max``.
        """
        btree, version = self.btree, self.btree.version
        rows = btree.unguarded_range(tree, low, high, reverse)
        taken = take_bodies(rows, rows_max, bytes_max, lambda key: self._healthy_copy(tree, key))
        assert btree.version == version, "an iterator outlived its synchronous slice"
        return taken

    def _healthy_copy(self, tree: int, key: bytes) -> Row:
        data = None if self._get_copy is None else self._get_copy(tree, key)
        if data is None:
            logger.error("a row of tree %d is damaged", tree)
            raise Corrupt(f"a row of tree {tree} is damaged")
        row = decode_row(key, data)
        logger.error("a row of tree %d is damaged and was read from the other copy", tree)
        return row

    def read_log(self, start: int, max_bytes: int) -> list[bytes]:
        """Committed entries from LSN ``start`` on. Raises Trimmed or Corrupt."""
        last = self.machine.lsn
        if start > last:
            return []
        entries = self._engine.read(self.log_id, start, max_bytes)
        return [entry.data for entry in entries if entry.lsn <= last]

    async def wait_beyond(self, lsn: int) -> None:
        """Return when an entry above ``lsn`` is committed."""
        while self.machine.lsn <= lsn:
            await self.growth.park()

    # For everybody: asks.

    async def write(self, command: Any) -> Any:
        """Have ``command`` decided and made durable; its result.

        Raises:
            RequestError: it was refused; nothing has changed.
            Throttled: too much is waiting here, or an index cannot keep up.
            Unavailable: the partition is stopping; nothing has changed.
            OutcomeUnknown: it may or may not have taken effect.
        """
        self._check_lag()
        result = await self.ask(command).wait()
        if isinstance(result, RequestError):
            raise result
        return result

    def ask(self, command: Any) -> Reply:
        """Have ``command`` decided and made durable; the slot of its result, for whoever waits.

        Raises Throttled or Unavailable at once. A refusal may be an error as the result's value.
        """
        reply = Reply()
        self._mailbox.ask(_Ask(command, reply))
        return reply

    async def write_many(self, commands: Sequence[Any]) -> list[Any]:
        """``write`` for several commands at once; an error stands in its command's place."""
        results: list[Any] = [None] * len(commands)
        waiting = _Countdown(len(commands))
        for index, command in enumerate(commands):
            slot = _Gather(index, results, waiting)
            try:
                self._check_lag()
                self._mailbox.ask(_Ask(command, slot))
            except (RequestError, Unavailable) as error:
                slot.fail(error)
        await waiting.reply.wait()
        return results

    async def barrier(self, table: Table) -> int:
        """Have effects follow ``table``'s schema from an entry of its own; that entry's LSN.

        The LSN returned is at or above the barrier's: everything later follows the schema.
        """
        reply = Reply()
        record = Barrier(table.schema_version, msgspec.msgpack.encode(table))
        self._mailbox.ask(_Record(record, reply))
        await reply.wait()
        return self.machine.lsn

    async def close(self) -> None:
        """Take nothing more, finish what is under way, and say so in the log (Release).

        The Release is a courtesy to the next owner: if it cannot be had, closing goes on.
        """
        if self._mailbox.closed is not None:
            return
        reply = Reply()
        self._mailbox.tell(_Record(Release(self.machine.epoch), reply))
        self._mailbox.closed = Unavailable("The node is stopping")
        try:
            await reply.wait()
        except (OutcomeUnknown, Unavailable) as error:
            logger.warning("log %s ends without a Release: %s", self.log_id, error)

    def refuse(self, error: Exception) -> None:
        """Answer every ask, waiting or to come, with ``error``: the partition is not served."""
        self._mailbox.closed = error
        self.serving.set()
        for ticket in self.machine.fail():
            ticket.fail(error)
        for message in [*self._backlog, *self._mailbox.close(error)]:
            if isinstance(message, _Ask | _Record):
                message.reply.fail(error)
        self._backlog = []

    def _check_lag(self) -> None:
        if self.throttled_by:
            names = ", ".join(sorted(self.throttled_by))
            raise Throttled(f"A global secondary index cannot keep up with the table: {names}")

    # The actor's own task.

    def _recover(self, position: Position | None) -> None:
        """Build the machine from ``position`` (None: as stored) and the log beyond it.

        ``make_machine`` gives it the schema that the catalog has now.
        """
        machine = self._make_machine(position)
        tail = self._engine.tail(self.log_id)
        if tail < machine.lsn:
            raise Corrupt(
                f"log {self.log_id} ends at {tail}, below {machine.lsn}, which the tree holds:"
                " acknowledged writes are missing"
            )
        if machine.lsn < self._engine.first(self.log_id) - 1:
            raise Corrupt(f"log {self.log_id} begins behind {machine.lsn}, where the tree ends")
        while machine.lsn < tail:
            entries = self._engine.read(self.log_id, machine.lsn + 1, RECOVERY_READ_BYTES)
            assert entries, "the log is dense up to its tail"
            for entry in entries:
                machine.replay(entry.data)
        machine.start(self._owner)
        self.machine = machine

    async def run(self) -> None:
        """Serve until cancelled."""
        self._drive()
        while True:
            self._handle(await self._mailbox.receive())
            # Whoever is ready to write as well shares the entry and the sync: they cost far more
            # than another look.
            for _ in range(GATHER_LOOKS):
                if not self.machine.may_append:
                    break
                await trio.lowlevel.checkpoint()
                messages = self._mailbox.receive_nowait()
                if not messages:
                    break
                self._handle(messages)
            self._drive()

    def _handle(self, messages: list[_Message]) -> None:
        for message in messages:
            if type(message) is _Ask:
                self._take(message)
            elif isinstance(message, _Appended):
                self._on_appended(message.error)
            elif isinstance(message, _Record):
                self._take(message)

    def _take(self, message: _Ask | _Record) -> None:
        machine = self.machine
        if self._backlog or machine.full:
            self._backlog.append(message)
        elif isinstance(message, _Record):
            machine.propose_record(message.reply, message.record)
        else:
            try:
                machine.propose(message.reply, message.command, self._now_ms())
            except Corrupt as error:
                message.reply.fail(error)

    def nudge(self) -> None:
        """Look again whether there is something to append."""
        if not self.machine.idle:
            self._mailbox.tell(_Nudge())

    def _drive(self) -> None:
        if self._crowded():
            return
        append, answers = self.machine.ready(self._now_ms())
        for answer in answers:
            answer.ticket.resolve(answer.result)
        if append is not None:
            self._append = append
            self._log_writer.append(append, self._completed)

    def _completed(self, error: StorageError | None) -> None:
        self._mailbox.tell(_Appended(error))

    def _on_appended(self, error: StorageError | None) -> None:
        if error is not None:
            self._restart(error)
            return
        for answer in self.machine.committed():
            answer.ticket.resolve(answer.result)
        self._note_commit()
        append, self.newest = self._append, None
        if self.keep is not None and append is not None:
            lsn, records = append.expected_last + 1, self.machine.newest_records
            self.keep(self.log_id, lsn, len(append.entry), records)
        if self.growth and append is not None and len(append.entry) <= STREAM_NEWEST_BYTES:
            self.newest = append
        self.growth.unpark_all()
        self.serving.set()
        backlog, self._backlog = self._backlog, []
        for message in backlog:
            self._take(message)

    def _restart(self, error: StorageError) -> None:
        logger.error("log %s: an append failed (%s); reading the log again", self.log_id, error)
        unknown = OutcomeUnknown("The write may or may not have taken effect")
        for ticket in self.machine.fail():
            ticket.fail(unknown)
        dirty = self.machine.dirty
        self._recover(self.machine.position())
        # What the old machine had applied and nobody has flushed is still to be flushed, and its
        # position with it.
        self.machine.dirty = dirty or self.machine.dirty
        backlog, self._backlog = self._backlog, []
        for message in backlog:
            self._take(message)
