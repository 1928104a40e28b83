"""How one copy of a log is brought level with another: compare, cut back, copy what is missing.

Functions over two engines; `copy_set` decides which may be whose source. What is cut off a target
was never acknowledged by a majority, since the source holds everything that was.
"""

from __future__ import annotations

from ...limits import LOG_HEAL_STEP_BYTES
from .entry import decode_entry
from .interface import Append, CopyEngine


def entry_at(engine: CopyEngine, name: str, lsn: int) -> bytes | None:
    """The entry, or None if the log does not hold it. Raises Corrupt."""
    if not engine.first(name) <= lsn <= engine.tail(name):
        return None
    return engine.read(name, lsn, 0)[0].data


def rank(engine: CopyEngine, name: str) -> tuple[int, int]:
    """(Last epoch, LSN): which copy knows more. An empty log knows least."""
    tail = engine.tail(name)
    last = entry_at(engine, name, tail)
    return (-1 if last is None else decode_entry(last)[0].epoch, tail)


def copy_some(source: CopyEngine, target: CopyEngine, name: str, first: int, tail: int) -> bool:
    """Cut off what differs, then copy one step's entries; whether the target is level now."""
    if name not in target.list():
        target.create(name, first)
    common = _common(source, target, name) if target.first(name) <= first else None
    if common is None:
        target.delete(name)
        target.create(name, first)
        common = first - 1
    if target.tail(name) > common:
        target.truncate(name, common)
    if common < tail:
        entries = source.read(name, common + 1, LOG_HEAL_STEP_BYTES)
        appends = [Append(name, entry.lsn - 1, entry.data) for entry in entries]
        for outcome in target.commit(appends):
            if outcome is not None:
                raise outcome
    return target.tail(name) == tail


def _common(source: CopyEngine, target: CopyEngine, name: str) -> int | None:
    """The last LSN up to which both hold the same, or None if they share nothing.

    Entries carry the hash of the one before, so equal entries have equal pasts: binary search.
    """
    low = max(source.first(name), target.first(name))
    high = min(source.tail(name), target.tail(name))
    if high < low:
        # They share no entry. Only an empty target, which the source can continue, is of use.
        return high if target.first(name) == high + 1 == low else None
    if entry_at(source, name, low) != entry_at(target, name, low):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        if entry_at(source, name, middle) == entry_at(target, name, middle):
            low = middle
        else:
            high = middle - 1
    return low
