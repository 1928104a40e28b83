"""How consistent a read of a global table is to be, and whether that can be had here now.

Pure: the words of a request, session tokens, and decisions from what a partition knows. Who waits
until a decision falls otherwise is ``actors/levels.py``. What each level promises is told in
``docs/global-tables.md``, "Consistency levels".

==========  ====================================================================================
level       what must be here
==========  ====================================================================================
strong      what was acknowledged in this region: always so
bounded     of every other region, all that is older than so many seconds; all but so many changes
session     what the token names: all that its bearer has written or was shown
prefix      of every region, the beginning of what it wrote, without gaps
eventual    nothing in particular
==========  ====================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeAlias, cast

import msgspec

from ..errors import InvalidRequest
from ..limits import (
    CONSISTENCY_WAIT_SECONDS,
    CONSISTENCY_WAIT_SECONDS_MAX,
    HLC_BITS,
    REGIONS_MAX,
    SESSION_TOKEN_BYTES_MAX,
    STALENESS_SECONDS_MAX,
    STALENESS_VERSIONS_MAX,
    VERSIONS_SILENCE_SECONDS,
)
from ..model.versions import admissible, milliseconds_of
from .watermarks import Watermarks

Level: TypeAlias = Literal["strong", "bounded", "session", "prefix", "eventual"]
Vector: TypeAlias = Mapping[int, int]
"""Region number -> hlc: everything that the region wrote at or below it."""

_WORDS: dict[str, tuple[str, ...]] = {
    "strong": ("wait",),
    "bounded": ("seconds", "versions", "wait"),
    "session": ("token", "wait"),
    "prefix": ("wait",),
    "eventual": ("wait",),
}
_HEADER = "x-millstream-consistency"
CONSISTENCY_HEADER = _HEADER.encode()
"""Says how a request is to be read; see ``parse_demand``."""
_DECIMAL = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?")
_ENTRY = re.compile(r"([1-9][0-9]{0,4})-([1-9a-f][0-9a-f]{0,15})")


# -- Tokens --------------------------------------------------------------------------------------


class Token(msgspec.Struct, frozen=True):
    """What a session has written and was shown. Not secret; a forged one makes its bearer wait.

    ``seen`` is what it has from other regions than ``last``, the region (0: none yet) that served
    it last and showed it ``shown``. There, ``shown`` needs no proof: what was shown stays.
    """

    seen: dict[int, int] = {}
    last: int = 0
    shown: dict[int, int] = {}

    def needed(self, number: int) -> dict[int, int]:
        """What region ``number`` must have from others before it serves the bearer."""
        vector = self.seen if number == self.last else merged(self.seen, self.shown)
        return {region: hlc for region, hlc in vector.items() if region != number}

    def newest(self) -> int:
        """The highest hlc that it names; 0 for none."""
        return max((*self.seen.values(), *self.shown.values()), default=0)

    def with_shown(self, number: int, shown: Vector) -> Token:
        """The token after region ``number`` has shown ``shown`` to the bearer."""
        if number == self.last:
            return Token(self.seen, number, merged(self.shown, shown))
        return Token(merged(self.seen, self.shown), number, merged({}, shown))

    def with_token(self, other: Token) -> Token:
        """The token of who has seen what both name."""
        if self.last == other.last:
            shown = merged(self.shown, other.shown)
            return Token(merged(self.seen, other.seen), self.last, shown)
        if not other.last:
            return Token(merged(self.seen, other.seen), self.last, self.shown)
        seen = merged(merged(self.seen, self.shown), other.seen)
        return Token(seen, other.last, other.shown)


NO_TOKEN = Token()
"""Of who has seen nothing."""


def merged(one: Vector, other: Vector) -> dict[int, int]:
    """The least vector that covers both."""
    vector = dict(one)
    for region, hlc in other.items():
        if hlc > vector.get(region, 0):
            vector[region] = hlc
    return vector


def encode_token(token: Token) -> str:
    """Letters, digits, ``-``, ``.``, ``_`` and ``~`` only: it may stand in a URL or a header."""
    return f"1~{_encode(token.seen)}~{token.last}~{_encode(token.shown)}"


def _encode(vector: Vector) -> str:
    return ".".join(f"{region}-{vector[region]:x}" for region in sorted(vector))


def decode_token(text: str) -> Token:
    """Raises InvalidRequest for what is no token."""
    parts = text.split("~")
    if len(text) > SESSION_TOKEN_BYTES_MAX or len(parts) != 4 or parts[0] != "1":
        raise InvalidRequest(f"{_HEADER}: the token is none of version 1")
    last = parts[2]
    if not (last.isascii() and last.isdigit()) or len(last) > 5:
        raise InvalidRequest(f"{_HEADER}: the token is malformed")
    token = Token(_decode(parts[1]), int(last), _decode(parts[3]))
    if encode_token(token) != text:
        raise InvalidRequest(f"{_HEADER}: the token is malformed")
    return token


def _decode(text: str) -> dict[int, int]:
    vector: dict[int, int] = {}
    for entry in text.split(".") if text else ():
        match = _ENTRY.fullmatch(entry)
        if match is None or len(vector) >= REGIONS_MAX:
            raise InvalidRequest(f"{_HEADER}: the token is malformed")
        region, hlc = int(match[1]), int(match[2], 16)
        assert hlc < 1 << HLC_BITS
        vector[region] = hlc
    return vector


# -- What is asked for ---------------------------------------------------------------------------


class Demand(msgspec.Struct, frozen=True):
    """A level and what belongs to it. ``wait_seconds`` is how long it may take to be met."""

    level: Level
    seconds: float | None = None
    versions: int | None = None
    token: Token = NO_TOKEN
    wait_seconds: float = CONSISTENCY_WAIT_SECONDS


def check_token(token: Token, now_ms: int) -> Token:
    """The token. Raises InvalidRequest if no clock can have come to what it names."""
    if not admissible(token.newest(), now_ms):
        raise InvalidRequest(f"{_HEADER}: the token is of a time that is too far ahead")
    return token


def parse_demand(text: str, now_ms: int) -> Demand:
    """The value of the header. Raises InvalidRequest for what is not understood to the last word.

    ``level; name=value; ...``, for example ``bounded; seconds=5; wait=1``.
    """
    level, *words = [part.strip() for part in text.split(";")]
    allowed = _WORDS.get(level, ())
    values: dict[str, str] = {}
    for word in words:
        name, mark, value = word.partition("=")
        name = name.strip()
        if (allowed and name not in allowed) or not mark or name in values:
            raise InvalidRequest(f"{_HEADER}: {level} cannot have {word[:40]!r}")
        values[name] = value.strip()
    token = decode_token(values["token"]) if "token" in values else NO_TOKEN
    return made_demand(
        cast("Level", level),
        seconds=_number(values, "seconds"),
        versions=_number(values, "versions"),
        wait_seconds=_number(values, "wait"),
        token=check_token(token, now_ms),
    )


def made_demand(
    level: Level,
    *,
    seconds: float | None = None,
    versions: float | None = None,
    wait_seconds: float | None = None,
    token: Token = NO_TOKEN,
) -> Demand:
    """The demand of these. Raises InvalidRequest for what is out of bounds."""
    if level not in _WORDS:
        names = ", ".join(_WORDS)
        raise InvalidRequest(f"{_HEADER}: {str(level)[:40]!r} is not one of the levels {names}")
    if level == "bounded" and seconds is None and versions is None:
        raise InvalidRequest(f"{_HEADER}: bounded takes seconds, versions or both")
    _check("seconds", seconds, STALENESS_SECONDS_MAX)
    _check("versions", versions, STALENESS_VERSIONS_MAX)
    _check("wait", wait_seconds, CONSISTENCY_WAIT_SECONDS_MAX)
    if versions is not None and versions != int(versions):
        raise InvalidRequest(f"{_HEADER}: versions is a whole number")
    return Demand(
        level,
        seconds,
        None if versions is None else int(versions),
        token,
        CONSISTENCY_WAIT_SECONDS if wait_seconds is None else wait_seconds,
    )


def _check(name: str, value: float | None, most: float) -> None:
    if value is not None and not 0 <= value <= most:
        raise InvalidRequest(f"{_HEADER}: {name} is 0 to {most:g}")


def _number(values: Mapping[str, str], name: str) -> float | None:
    text = values.get(name)
    if text is None:
        return None
    if _DECIMAL.fullmatch(text) is None:
        raise InvalidRequest(f"{_HEADER}: {name} is a number, not {text[:40]!r}")
    return float(text)


class Reading:
    """One call that has a demand: what it is, and what the call is being shown. Used once."""

    __slots__ = ("_number", "_touched", "demand")

    def __init__(self, demand: Demand) -> None:
        self.demand = demand
        self._number = 0
        #: Of each partition that was read or written: what it has. Asked when all is done.
        self._touched: list[Callable[[], Vector]] = []

    def touch(self, number: int, heard: Callable[[], Vector]) -> None:
        """A partition in region ``number`` is read or written, which has what ``heard`` tells."""
        self._number = number
        self._touched.append(heard)

    def token(self) -> Token:
        """The bearer's next token: the one that it came with, and what it was shown since."""
        token = self.demand.token
        for heard in self._touched:
            token = token.with_shown(self._number, heard())
        return token


# -- Decisions -----------------------------------------------------------------------------------


class Standing(msgspec.Struct, frozen=True):
    """What region ``own`` knows in one partition of how far it has the ``others``' changes.

    ``is_filling``: another region is sending it everything it has, in the order of the keys.
    """

    own: int
    others: tuple[int, ...]
    marks: Watermarks
    is_filling: bool = False


class Lack(msgspec.Struct, frozen=True):
    """Why a level is not met: what is missing of region ``number``."""

    number: int
    reason: str


def first_lack(demand: Demand, standing: Standing, moment_ms: int) -> Lack | None:
    """What ``demand`` lacks in a partition at a moment; None if it is met.

    A region that does not belong to the group (any more) has nothing that could be missing.
    """
    match demand.level:
        case "bounded":
            return _first(_stale(demand, standing, number, moment_ms) for number in standing.others)
        case "session":
            needed = demand.token.needed(standing.own)
            return _first(
                _unseen(standing.marks.received.get(number, 0), needed.get(number, 0), number)
                for number in standing.others
            )
        case "prefix" if standing.is_filling:
            return Lack(standing.own, "is being filled again, which is not in order")
    return None


def _first(lacks: Iterable[Lack | None]) -> Lack | None:
    return next((lack for lack in lacks if lack is not None), None)


def _unseen(received: int, needed: int, number: int) -> Lack | None:
    if received >= needed:
        return None
    if not received:
        return Lack(number, "has not said yet how far it is")
    behind = max(1, milliseconds_of(needed) - milliseconds_of(received)) / 1000
    return Lack(number, f"is {behind:.3f} seconds short of what the session has seen")


def _stale(demand: Demand, standing: Standing, number: int, moment_ms: int) -> Lack | None:
    marks = standing.marks
    if demand.seconds is not None:
        as_of_ms = marks.as_of_ms.get(number)
        if as_of_ms is None:
            return Lack(number, "has not said yet how far it is")
        behind = (moment_ms - as_of_ms) / 1000
        if behind > demand.seconds:
            return Lack(number, f"is known up to {behind:.3f} seconds ago")
    if demand.versions is not None:
        known = marks.missing.get(number)
        if known is None:
            return Lack(number, "has not said yet how many changes are missing")
        changes, counted_ms = known
        silence = (moment_ms - counted_ms) / 1000
        if silence > VERSIONS_SILENCE_SECONDS:
            return Lack(number, f"has not said for {silence:.3f} seconds how much is missing")
        if changes > demand.versions:
            return Lack(number, f"has {changes} changes that are missing here")
    return None
