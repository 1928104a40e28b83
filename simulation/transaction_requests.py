"""What a client of transactions asks for next, drawn from its own stream.

A ``Wanted`` is one action and what it means to the history: what it writes, and what is known of
the item if it succeeds.
"""

from __future__ import annotations

import random

import msgspec

from ..model.versions import NO_VERSION
from ..storage.commands import Action, Check, CheckVersion, UpdateItem
from ..storage.rows import Row
from .options import Options
from .transaction_history import Seen
from .transaction_places import ABSENT, PRESENT, Maker, Place, as_list, condition_of, seen_in


class Wanted(msgspec.Struct, frozen=True):
    """One action of a transaction, with what it means to the history."""

    place: Place
    command: Action
    append: str | None = None
    #: What a put writes; a deletion has None and ``is_put``.
    put: str | None = None
    is_put: bool = False
    #: What the place is known to hold if the action succeeds.
    seen: Seen = None
    knows: bool = False

    @property
    def tells_old(self) -> bool:
        """Whether its result, at prepare, still holds at commit: writes may pass the others."""
        command = self.command
        if isinstance(command, (UpdateItem, Check, CheckVersion)):
            return True
        return command.condition is not None or command.version is not None


class Drawer:
    """Draws places and actions for one client, whose values nobody else writes."""

    __slots__ = ("_actions_max", "_count", "_hot", "_name", "_rng")

    def __init__(self, name: str, options: Options, rng: random.Random) -> None:
        assert options.transactions is not None
        self._name = name
        self._hot = options.hot
        self._actions_max = options.transactions.actions_max
        self._rng = rng
        self._count = 0

    def any_action(self, maker: Maker, place: Place) -> Wanted:
        """Whatever fits the place: an append or a check; a put or a deletion."""
        rng = self._rng
        if place.kind == "list":
            if rng.random() < 0.8:
                return self.append(maker, place)
            return Wanted(place, maker.check(place, None))
        if rng.random() < 0.2:
            return Wanted(place, maker.delete(place), is_put=True)
        value = self.value()
        put = maker.put(place, value)
        if rng.random() < 0.4:
            text = rng.choice((PRESENT, ABSENT))
            put = msgspec.structs.replace(put, condition=condition_of(text))
        return Wanted(place, put, put=value, is_put=True)

    def guarded(self, maker: Maker, place: Place, row: Row | None) -> Wanted:
        """An append or a check that succeeds only if the list is as it was read."""
        rng = self._rng
        seen = seen_in(place, row)
        assert isinstance(seen, tuple)
        version = NO_VERSION if row is None else row.version
        value = self.value()
        choice = rng.random()
        if choice < 0.2:
            command: Action = maker.check_version(place, row)
            return Wanted(place, command, seen=seen, knows=True)
        if choice < 0.35:
            return Wanted(place, maker.check(place, seen), seen=seen, knows=True)
        if choice < 0.6:
            update = msgspec.structs.replace(maker.append(place, value), version=version)
            return Wanted(place, update, append=value, seen=seen, knows=True)
        put = maker.whole_list(place, seen, value)
        if choice < 0.8 or not seen:
            put = msgspec.structs.replace(put, version=version)
        else:
            put = msgspec.structs.replace(
                put, condition=condition_of("e = :seen"), values={":seen": as_list(seen)}
            )
        return Wanted(place, put, append=value, seen=seen, knows=True)

    def append(self, maker: Maker, place: Place) -> Wanted:
        """A value of its own at the list's end."""
        value = self.value()
        return Wanted(place, maker.append(place, value), append=value)

    def value(self) -> str:
        """A new one."""
        self._count += 1
        return f"{self._name}-{self._count}"

    def one(self, places: list[Place]) -> Place:
        """One of them, the first more often than others."""
        if self._hot and self._rng.random() < self._hot:
            return places[0]
        return self._rng.choice(places)

    def some(self, places: list[Place]) -> list[Place]:
        """A few of them, each once."""
        count = self._rng.randint(1, self._actions_max)
        drawn = {place.name: place for place in (self.one(places) for _ in range(count))}
        return list(drawn.values())
