"""Sequence numbers: where a change stands in its log, as a number that grows and never changes.

A *sequence* is one integer, ``LSN * 1,000,000 + index of the record in its entry``. On the wire it
is the text of 21 digits that DynamoDB's clients expect, ``1`` followed by the sequence, so that
texts compare as the numbers do. Nothing is stored for it, and a restart cannot change it.
"""

from __future__ import annotations

from typing import Final

from ..limits import BATCH_RECORDS_MAX, LOG_ENTRY_BYTES_MAX

INDEXES: Final = 1_000_000
_BASE: Final = 10**20

# A batch may exceed its bound by one transaction's records, which are far fewer.
assert BATCH_RECORDS_MAX < INDEXES // 2
assert LOG_ENTRY_BYTES_MAX // 100 < INDEXES


def sequence_of(lsn: int, index: int = 0) -> int:
    """The sequence of a record, or of where an entry begins."""
    assert 0 <= index < INDEXES
    return lsn * INDEXES + index


def lsn_of(sequence: int) -> int:
    """The LSN of the entry that a sequence lies in."""
    return sequence // INDEXES


def sequence_text(sequence: int) -> str:
    """A sequence as the wire has it: 21 digits."""
    assert 0 <= sequence < _BASE
    return str(_BASE + sequence)


def parse_sequence(text: str) -> int | None:
    """The sequence that a wire text stands for; None for anything that we never gave out."""
    if len(text) != 21 or not (text.isascii() and text.isdigit()) or text[0] != "1":
        return None
    return int(text) - _BASE
