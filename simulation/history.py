"""What clients asked and what they were told, key by key, in the order of one common counter.

A history knows nothing of the engine: items are canonical JSON bytes, time is a count of events. An
operation whose outcome was never learnt (the client was cancelled, the node crashed, the answer was
OutcomeUnknown) may have taken effect at any moment until the life of the node that it was sent to
ended, or never; nothing of a dead node takes effect later.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import msgspec

from ..model.values import Item

Image = bytes | None
"""An item as canonical JSON; None: there is none."""


class Outcome(Enum):
    """What the client knows."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Action(msgspec.Struct, frozen=True):
    """What was asked. ``kind`` is read, put, delete or update.

    ``item`` is the put's item, or the item that an update creates if there is none; ``set`` are the
    attributes that an update sets, ``remove`` those it removes, and it adds 1 to ``n``.
    ``condition`` is None, "absent", "present" or the value that attribute ``v`` must have.
    """

    kind: str
    item: Item = {}
    set: Item = {}
    remove: tuple[str, ...] = ()
    condition: str | None = None


class Call(msgspec.Struct, frozen=True):
    """One operation on one key. ``old`` is the image found, ``new`` the one left, where told."""

    client: str
    action: Action
    invoked: int
    returned: int
    outcome: Outcome
    old: Image = None
    new: Image = None


class Impossible(Enum):
    """Not an image: the operation cannot happen in that state."""

    IMPOSSIBLE = 0


IMPOSSIBLE = Impossible.IMPOSSIBLE


def image(item: Item | None) -> Image:
    """The canonical bytes of an item."""
    return None if item is None else msgspec.json.encode(item, order="sorted")


def image_of(body: bytes | None) -> Image:
    """The canonical bytes of an encoded item."""
    return None if body is None else image(msgspec.json.decode(body))


def step(call: Call, state: Image) -> Image | Impossible:
    """The item after ``call`` took effect on ``state``, if it can have and told the truth."""
    action = call.action
    if action.kind == "read":
        return state if state == call.old else IMPOSSIBLE
    holds = _holds(action.condition, state)
    if call.outcome is Outcome.REFUSED:
        return IMPOSSIBLE if holds or state != call.old else state
    if not holds:
        return IMPOSSIBLE
    new = _after(action, state)
    if call.outcome is Outcome.DONE and (state != call.old or new != call.new):
        return IMPOSSIBLE
    return new


def _holds(condition: str | None, state: Image) -> bool:
    if condition is None:
        return True
    if condition == "absent":
        return state is None
    if condition == "present":
        return state is not None
    return state is not None and msgspec.json.decode(state).get("v") == {"S": condition}


def _after(action: Action, state: Image) -> Image:
    if action.kind == "put":
        return image(action.item)
    if action.kind == "delete":
        return None
    item: dict[str, Any] = dict(action.item) if state is None else msgspec.json.decode(state)
    item.update(action.set)
    for name in action.remove:
        item.pop(name, None)
    item["n"] = {"N": str(int(item.get("n", {"N": "0"})["N"]) + 1)}
    return image(item)


class History:
    """Calls by place (table incarnation and key). Owned by one node's clients."""

    __slots__ = ("_life_ends", "_now", "calls", "open")

    def __init__(self, now: Callable[[], int]) -> None:
        #: Counts events of the whole world.
        self._now = now
        self.calls: dict[str, list[Call]] = {}
        #: Calls of unknown outcome, which last until the end of their life: (place, life, call).
        self.open: list[tuple[str, int, Call]] = []
        self._life_ends: dict[int, int] = {}

    def record(self, place: str, call: Call, life: int) -> None:
        """Remember a call that has come to its end for the client."""
        if call.outcome is Outcome.UNKNOWN:
            self.open.append((place, life, call))
        else:
            self.calls.setdefault(place, []).append(call)

    def end_life(self, life: int) -> None:
        """The node's life is over and the next has not begun: nothing of it happens later."""
        self._life_ends[life] = self._now()

    def complete(self) -> dict[str, list[Call]]:
        """Every call, by place, with the time until which unknown ones may have happened."""
        found = {place: list(calls) for place, calls in self.calls.items()}
        never = self._now() + 1
        for place, life, call in self.open:
            returned = self._life_ends.get(life, never)
            found.setdefault(place, []).append(
                msgspec.structs.replace(call, returned=max(returned, call.invoked + 1))
            )
        return found
