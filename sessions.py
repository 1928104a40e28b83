"""How consistent a read is to be, in the Python API.

::

    session = db.session()
    orders = db.table("orders", consistency=session)
    await orders.put({"customer": "ada", "number": 1})
    # In another region, perhaps in another program (``Session(token)``): sees that order.
    await elsewhere.table("orders").get({...}, consistency=session)

    await orders.get({...}, consistency=BoundedStaleness(seconds=5))
    await orders.get({...}, consistency="eventual")

What each level promises is told in ``docs/global-tables.md``, "Consistency levels".
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from .globaltables.consistency import (
    NO_TOKEN,
    Demand,
    Reading,
    Token,
    check_token,
    decode_token,
    encode_token,
    made_demand,
)
from .limits import CONSISTENCY_WAIT_SECONDS


class BoundedStaleness(msgspec.Struct, frozen=True):
    """At most so far behind every other region: seconds, changes of each, or both.

    ``wait_seconds`` is how long a read may take to be so.
    """

    seconds: float | None = None
    versions: int | None = None
    wait_seconds: float = CONSISTENCY_WAIT_SECONDS


class Session:
    """What one client has written and was shown, in whatever regions: its reads never go back.

    Give it to the calls of a client, in every region's database; several at a time may have it.
    ``token`` is the same as text, for another program: ``Session(token)`` goes on there.
    """

    __slots__ = ("_token", "wait_seconds")

    def __init__(
        self, token: str | None = None, *, wait_seconds: float = CONSISTENCY_WAIT_SECONDS
    ) -> None:
        """Raises InvalidRequest for what is no token."""
        self._token = NO_TOKEN if token is None else decode_token(token)
        #: How long a call may wait for its region to have what the session has seen.
        self.wait_seconds = wait_seconds

    def __repr__(self) -> str:
        return f"<Session {self.token}>"

    @property
    def token(self) -> str:
        """The session as text; the ``token`` of the header as well."""
        return encode_token(self._token)

    def add(self, other: Session | Token) -> None:
        """Have seen what the other has seen, too."""
        token = other._token if isinstance(other, Session) else other
        self._token = self._token.with_token(token)

    def demand(self, now_ms: int) -> Demand:
        """What a call with this session demands now."""
        token = check_token(self._token, now_ms)
        return made_demand("session", token=token, wait_seconds=self.wait_seconds)


Consistency: TypeAlias = (
    Literal["strong", "prefix", "eventual"] | BoundedStaleness | Session
)


def reading_of(consistency: Consistency, now_ms: int) -> Reading:
    """A call's reading. Raises InvalidRequest for what is out of bounds."""
    match consistency:
        case Session():
            return Reading(consistency.demand(now_ms))
        case BoundedStaleness():
            return Reading(
                made_demand(
                    "bounded",
                    seconds=consistency.seconds,
                    versions=consistency.versions,
                    wait_seconds=consistency.wait_seconds,
                )
            )
        case _:
            return Reading(made_demand(consistency))


def note_shown(consistency: Consistency, reading: Reading) -> None:
    """A call has ended: its session, if it has one, has seen what the call was shown."""
    if isinstance(consistency, Session):
        consistency.add(reading.token())
