"""The node's one log writer: every partition's next entry, one sync for all.

Partitions leave appends; the writer takes all that have gathered, commits them in a worker thread
and sends each partition its completion as a message. While a commit runs, the next round gathers:
that is group commit without a timer. Whatever else changes the engine (a log made, deleted or
trimmed) goes through here too, because an engine takes one change at a time.

A commit whose outcome is unknown closes the engine and reopens it before anybody is answered; the
partitions concerned are told and rebuild themselves from the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import trio

from ..errors import Ambiguous, Corrupt, StorageError, WrongFormat
from ..host.threads import Threads
from ..limits import STORAGE_RETRY_SECONDS
from ..storage.log.interface import Append, LogEngine
from .mailbox import Mailbox, Reply

logger = logging.getLogger(__name__)

Completion = Callable[[StorageError | None], None]


class LogWriter:
    """Actor: the only one that changes the log engine."""

    def __init__(self, engine: LogEngine, threads: Threads) -> None:
        self.engine = engine
        self._threads = threads
        self._mailbox: Mailbox[
            tuple[Append, Completion] | tuple[Callable[[], object], Reply]
        ] = Mailbox()
        #: Rounds committed and entries in them, for statistics.
        self.rounds = 0
        self.entries = 0

    def append(self, append: Append, done: Completion) -> None:
        """Have ``append`` committed with the next round; ``done`` is called on the loop."""
        self._mailbox.tell((append, done))

    async def change(self, change: Callable[[], object]) -> None:
        """Run ``change`` (create, delete or trim a log) in a worker thread, between two rounds.

        Raises whatever it raises.
        """
        reply = Reply()
        self._mailbox.tell((change, reply))
        await reply.wait()

    async def create(self, log_ids: Iterable[str]) -> None:
        """Make the logs that are not there yet, beginning at 1."""
        wanted = list(log_ids)

        def create() -> None:
            existing = set(self.engine.list())
            for log_id in wanted:
                if log_id not in existing:
                    self.engine.create(log_id, 1)

        await self.change(create)

    async def delete(self, log_ids: Iterable[str]) -> None:
        """Remove logs."""
        unwanted = list(log_ids)

        def delete() -> None:
            for log_id in unwanted:
                self.engine.delete(log_id)

        await self.change(delete)

    async def tails(self, log_ids: Iterable[str]) -> dict[str, int]:
        """The last LSN of each log that is there, with what was left here before committed."""
        wanted = list(log_ids)
        tails: dict[str, int] = {}

        def look() -> None:
            existing = set(self.engine.list())
            for log_id in wanted:
                if log_id in existing:
                    tails[log_id] = self.engine.tail(log_id)

        await self.change(look)
        return tails

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            appends: list[Append] = []
            completions: list[Completion] = []
            changes: list[tuple[Callable[[], object], Reply]] = []
            for what, reply in await self._mailbox.receive():
                if isinstance(reply, Reply):
                    assert not isinstance(what, Append)
                    changes.append((what, reply))
                else:
                    assert isinstance(what, Append)
                    appends.append(what)
                    completions.append(reply)
            if appends:
                await self._commit(appends, completions)
            for change, reply in changes:
                await self._change(change, reply)

    async def _commit(self, appends: list[Append], completions: list[Completion]) -> None:
        results: list[StorageError | None]
        try:
            results = await self._threads.run(self.engine.commit, appends)
        except Ambiguous as error:
            await self._reopen(error)
            results = [error] * len(appends)
        self.rounds += 1
        self.entries += len(appends)
        for done, result in zip(completions, results, strict=True):
            done(result)

    async def _reopen(self, error: Ambiguous) -> None:
        """Find out what is there. A disk that fails is asked again; damage stops the node."""
        logger.error("a change of the log has an unknown outcome: %s; reopening the log", error)
        while True:
            try:
                await self._threads.run(self.engine.reopen)
                return
            except (Corrupt, WrongFormat):
                raise
            except StorageError as failure:
                logger.error("the log cannot be reopened: %s; trying again", failure)
                await trio.sleep(STORAGE_RETRY_SECONDS)

    async def _change(self, change: Callable[[], object], reply: Reply) -> None:
        try:
            await self._threads.run(change)
        except StorageError as error:
            if isinstance(error, Ambiguous):
                await self._reopen(error)
            reply.fail(error)
        else:
            reply.resolve(None)
