"""What a partition is asked to do, and what it answers.

Commands are frozen and hold nothing but data (expression trees included), so that a request router
in another process can send them as MessagePack. Everything that can be refused without looking at
the item has been refused before a command is built: keys are valid and encoded, items are within
their size, expressions are compiled.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..expressions import Condition, Update
from .rows import Row


class Put(msgspec.Struct, frozen=True, tag=True):
    """Replace the item under ``key`` by ``item`` if ``condition`` holds.

    ``body`` is ``item`` encoded; ``size_bytes`` its DynamoDB size. ``values`` are what the
    condition's placeholders stand for.
    """

    key: bytes
    item: dict[str, Any]
    body: bytes
    size_bytes: int
    condition: Condition | None = None
    values: dict[str, Any] = {}


class UpdateItem(msgspec.Struct, frozen=True, tag=True):
    """Apply ``update`` to the item under ``key``, creating it from ``key_item`` if absent."""

    key: bytes
    key_item: dict[str, Any]
    update: Update | None = None
    condition: Condition | None = None
    values: dict[str, Any] = {}


class Delete(msgspec.Struct, frozen=True, tag=True):
    """Remove the item under ``key`` if ``condition`` holds; nothing to remove is success."""

    key: bytes
    condition: Condition | None = None
    values: dict[str, Any] = {}


Command = Put | UpdateItem | Delete


class Written(msgspec.Struct, frozen=True):
    """A write took effect, durably. ``old`` and ``new`` are the rows before and after it."""

    old: Row | None
    new: Row | None


class Refused(msgspec.Struct, frozen=True):
    """The condition was false for ``found``, the item's row at that moment (None: no item)."""

    found: Row | None
