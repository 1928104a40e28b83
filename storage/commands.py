"""What a partition is asked to do, and what it answers.

Commands are frozen and hold nothing but data (expression trees included), so that a request router
in another process can send them as MessagePack. Everything that can be refused without looking at
the item has been refused before a command is built: keys are valid and encoded, items are within
their size, expressions are compiled. ``version``, where given, is the version that the row must
still have, ``NO_VERSION`` for no row: that is how an optimistic transaction of the Python API finds
out that what it read has changed. ``hops`` counts the handlers of changes that led to the request.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors import InvalidRequest
from ..expressions import Condition, Update
from ..model.versions import Version
from .arrivals import Arrival
from .rows import Row


class Put(msgspec.Struct, frozen=True, tag=True):
    """Replace the item under ``key`` if ``condition`` holds.

    ``body`` is the new item, encoded; ``size_bytes`` its DynamoDB size. ``values`` are what the
    condition's placeholders stand for.
    """

    key: bytes
    body: bytes
    size_bytes: int
    condition: Condition | None = None
    values: dict[str, Any] = {}
    version: Version | None = None
    hops: int = 0


class UpdateItem(msgspec.Struct, frozen=True, tag=True):
    """Apply ``update`` to the item under ``key``, creating it from ``key_item`` if absent."""

    key: bytes
    key_item: dict[str, Any]
    update: Update | None = None
    condition: Condition | None = None
    values: dict[str, Any] = {}
    version: Version | None = None
    hops: int = 0


class Delete(msgspec.Struct, frozen=True, tag=True):
    """Remove the item under ``key`` if ``condition`` holds; nothing to remove is success."""

    key: bytes
    condition: Condition | None = None
    values: dict[str, Any] = {}
    version: Version | None = None
    hops: int = 0


class Check(msgspec.Struct, frozen=True, tag=True):
    """Nothing but a condition on the item under ``key``; only within a transaction."""

    key: bytes
    condition: Condition
    values: dict[str, Any] = {}
    version: Version | None = None


class CheckVersion(msgspec.Struct, frozen=True, tag=True):
    """That the row under ``key`` is still of ``version`` (``NO_VERSION``: that there is none)."""

    key: bytes
    version: Version


Command = Put | UpdateItem | Delete
Action = Put | UpdateItem | Delete | Check | CheckVersion


class Token(msgspec.Struct, frozen=True):
    """A client token, qualified by its namespace, and what its request was.

    ``request_hash`` is the same for requests that say the same. ``used_ms`` is when the transaction
    completes, milliseconds since the epoch.
    """

    token: str
    request_hash: bytes
    used_ms: int


class Transact(msgspec.Struct, frozen=True, tag=True):
    """A whole transaction on one partition: all actions take effect, in one log entry, or none.

    Answered by ``Outcome``.
    """

    actions: tuple[Action, ...]
    token: Token | None = None
    hops: int = 0


class Prepare(msgspec.Struct, frozen=True, tag=True):
    """One partition's part of a transaction: decide it and hold its items until ``Decide``.

    Answered by ``Promise``, or by ``Outcome`` if it cannot be promised.
    """

    transaction: str
    actions: tuple[Action, ...]
    hops: int = 0


class Decide(msgspec.Struct, frozen=True, tag=True):
    """The end of a prepared transaction: its writes at ``timestamp``, or nothing (None).

    Doing it twice, or for a transaction that was never prepared, does nothing. ``token`` is to be
    remembered here with the commit. Answered by ``Outcome`` with the results of the writes.
    """

    transaction: str
    timestamp: int | None
    token: Token | None = None


class Replicate(msgspec.Struct, frozen=True, tag=True):
    """Changes of another region, from its log ``source`` up to ``lsn``, in their order.

    They and the position take effect in one entry. ``notes``: the position is stored although
    there are no changes. ``is_part``: it is not, since more of the stretch follows. Answered by
    ``Replicated``, or by ``Contended`` if a transaction holds one of the items; then nothing has
    changed.
    """

    source: str
    lsn: int
    arrivals: tuple[Arrival, ...]
    notes: bool = False
    is_part: bool = False


class Fill(msgspec.Struct, frozen=True, tag=True):
    """What another region had with ``low <= key < high`` (None: the end) at one moment.

    ``arrivals`` are all its rows and tombstones there; what is here and not among them, at a
    version that ``covered`` (region number -> hlc) says it had seen, is gone there and goes here.
    ``lsn`` is where its log is followed from afterwards; ``cursor`` the key to go on from, None
    with the last chunk. Answered like ``Replicate``; if there is too much here, the answer's
    ``cursor`` is the ``low`` with which to ask for the rest.
    """

    source: str
    lsn: int
    cursor: bytes | None
    low: bytes
    high: bytes | None
    covered: dict[int, int]
    arrivals: tuple[Arrival, ...]


class Collect(msgspec.Struct, frozen=True, tag=True):
    """Remove tombstones at or below ``horizon``, among the first ``rows_max`` from ``start`` on.

    Only of keys below ``end`` (None: the end). Nothing new at or below ``horizon`` will come from
    anywhere. Answered by ``Collected``.
    """

    horizon: int
    start: bytes
    end: bytes | None
    rows_max: int


class Replicated(msgspec.Struct, frozen=True):
    """What became of arrivals: how many took effect, and how many of them beat a write made here
    that their writer had not seen; ``resolved`` of those ended otherwise, by the policy.
    """

    applied: int
    conflicts: int = 0
    resolved: int = 0
    cursor: bytes | None = None


class Collected(msgspec.Struct, frozen=True):
    """How many tombstones went, and the key to go on from; None at the end."""

    count: int
    cursor: bytes | None


class Written(msgspec.Struct, frozen=True):
    """A write took effect, durably. ``old`` and ``new`` are the rows before and after it."""

    old: Row | None
    new: Row | None


class Refused(msgspec.Struct, frozen=True):
    """The condition was false for ``found``, the item's row at that moment (None: no item)."""

    found: Row | None


class Checked(msgspec.Struct, frozen=True):
    """A condition that writes nothing held, for ``found``."""

    found: Row | None


class Contended(msgspec.Struct, frozen=True):
    """Another transaction holds the item, or it is not of the version expected."""


class Untried(msgspec.Struct, frozen=True):
    """Not decided, because another part of the transaction had failed already."""


ActionResult = Written | Checked | Refused | Contended | Untried | InvalidRequest


class Outcome(msgspec.Struct, frozen=True):
    """How a transaction ended, with one result for each action, in order.

    ``replayed``: its token had been used for the same request, so that nothing was done now.
    """

    committed: bool
    results: tuple[ActionResult, ...]
    replayed: bool = False


class Promise(msgspec.Struct, frozen=True):
    """The part can be committed at any timestamp from ``bound`` on; its items are held."""

    bound: int
    results: tuple[ActionResult, ...]
