"""What an action sees and would do, and what a command comes to: a partition's decisions."""

from __future__ import annotations

import msgspec

from ..errors import TransactionConflict
from ..model.values import Item
from .commands import (
    ActionResult,
    Collected,
    Contended,
    Outcome,
    Promise,
    Replicated,
)
from .records import Record
from .rows import Row

_CONTENDED = Contended()


class View(msgspec.Struct, gc=False):
    """What one action sees and would do.

    ``data`` is the stored row, if nothing is pending on the key; ``old_item`` is decoded where
    something needs it; ``is_pending``: what was seen is proposed and not yet committed.
    """

    data: bytes | None
    old: Row | None
    is_pending: bool
    old_item: Item | None = None
    new: Row | None = None
    result: ActionResult = _CONTENDED


class Evaluation(msgspec.Struct, frozen=True):
    """What a command comes to.

    ``records`` go into the log; none means nothing changes. ``result`` is the answer once
    everything that was looked at is committed: ``waits`` says whether something was not yet.
    """

    result: ActionResult | Outcome | Promise | TransactionConflict | Replicated | Collected
    records: tuple[Record, ...] = ()
    waits: bool = False
