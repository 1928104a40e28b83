"""The mailbox of an actor and the reply slot of an ask.

A mailbox is a bounded list with one reader, its owner, who takes everything that has gathered
(``receive``) and so pays for one wake-up however many have written. Writers never wait: a full
mailbox refuses at once, and the refusal becomes a throttling error at the edge.

A reply slot is resolved exactly once by the actor. The asker may have gone (cancelled): then the
slot is simply never looked at; what was asked may still happen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import outcome
import trio

from ..errors import Throttled
from ..host.by_hand import is_driven, pause
from ..limits import MAILBOX_MESSAGES_MAX

M = TypeVar("M")


class Mailbox(Generic[M]):
    """Messages for one owner task, oldest first."""

    __slots__ = ("_messages", "_owner", "bound", "closed")

    def __init__(self, bound: int = MAILBOX_MESSAGES_MAX) -> None:
        self._messages: list[M] = []
        #: The owner, while it waits for a message.
        self._owner: trio.lowlevel.Task | None = None
        self.bound = bound
        #: Why nothing is accepted any more; None while open.
        self.closed: Exception | None = None

    def __len__(self) -> int:
        return len(self._messages)

    def ask(self, message: M) -> None:
        """Leave a message that somebody waits for.

        Raises:
            Throttled: the bound is reached.
            Exception: whatever ``close`` was given.
        """
        if self.closed is not None:
            raise self.closed
        if len(self._messages) >= self.bound:
            raise Throttled("The partition has more requests waiting than it can take; try again")
        self._put(message)

    def tell(self, message: M) -> None:
        """Leave a message that must arrive (a completion); such messages are few by protocol."""
        self._put(message)

    def _put(self, message: M) -> None:
        self._messages.append(message)
        owner = self._owner
        if owner is not None:
            self._owner = None
            trio.lowlevel.reschedule(owner)

    async def receive(self) -> list[M]:
        """Everything that has arrived, at least one message; a checkpoint in any case."""
        if self._messages:
            await trio.lowlevel.checkpoint()
        else:
            assert self._owner is None, "a mailbox has one reader"
            self._owner = trio.lowlevel.current_task()

            def abort(_: Any) -> trio.lowlevel.Abort:
                self._owner = None
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        messages, self._messages = self._messages, []
        return messages

    def receive_nowait(self) -> list[M]:
        """Everything that has arrived since, which may be nothing. For the owner."""
        messages, self._messages = self._messages, []
        return messages

    def close(self, error: Exception) -> list[M]:
        """Refuse everything from now on with ``error``; returns what had not been received."""
        self.closed = error
        messages, self._messages = self._messages, []
        return messages


class Reply:
    """One answer, awaited by at most one task."""

    __slots__ = ("_asker", "_go_on", "_result")

    def __init__(self) -> None:
        self._asker: trio.lowlevel.Task | None = None
        #: Instead of an asker: whom to call.
        self._go_on: Callable[[], None] | None = None
        self._result: outcome.Maybe[Any] | None = None

    @property
    def is_given(self) -> bool:
        """Whether there is an answer."""
        return self._result is not None

    def resolve(self, value: Any) -> None:
        """Give the answer."""
        self._settle(outcome.Value(value))

    def fail(self, error: Exception) -> None:
        """Give an error as the answer."""
        self._settle(outcome.Error(error))

    def _settle(self, result: outcome.Maybe[Any]) -> None:
        assert self._result is None, "a reply is given once"
        self._result = result
        asker = self._asker
        if asker is not None:
            self._asker = None
            trio.lowlevel.reschedule(asker)
        elif self._go_on is not None:
            self._go_on()

    def when_given(self, go_on: Callable[[], None]) -> None:
        """For a driver by hand (``host.by_hand``): call ``go_on`` when there is an answer."""
        assert self._asker is None
        assert self._result is None
        self._go_on = go_on

    async def wait(self) -> Any:
        """The answer; raises what it failed with. Cancelling abandons the slot."""
        if self._result is None and is_driven():
            await pause(self)
        elif self._result is None:
            self._asker = trio.lowlevel.current_task()

            def abort(_: Any) -> trio.lowlevel.Abort:
                self._asker = None
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        assert self._result is not None
        return self._result.unwrap()
