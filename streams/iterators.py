"""Shard iterators: a place in a shard as an opaque text that is good for fifteen minutes.

The text holds all there is to know, so that the node keeps nothing for a reader, and a restart
breaks none. Nothing secret is in it and nothing is trusted: whoever forges one reads what they
could have asked for.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode

import msgspec

from ..errors import InvalidRequest
from ..limits import ITERATOR_CHARACTERS_MAX
from .sequence import INDEXES

_FORMAT = 1
_SEQUENCE_MAX = (1 << 46) * INDEXES


class ShardIterator(msgspec.Struct, frozen=True, array_like=True):
    """Read ``shard_id`` of the table's stream ``label`` from ``sequence`` on."""

    format: int
    table: str
    label: str
    shard_id: str
    sequence: int
    issued_ms: int


def encode_iterator(
    table: str, label: str, shard_id: str, sequence: int, issued_ms: int
) -> str:
    """The text of an iterator."""
    value = ShardIterator(_FORMAT, table, label, shard_id, sequence, issued_ms)
    return urlsafe_b64encode(msgspec.msgpack.encode(value)).decode()


def decode_iterator(text: str) -> ShardIterator:
    """What an iterator's text says. Raises InvalidRequest if we cannot have written it."""
    try:
        if len(text) > ITERATOR_CHARACTERS_MAX:
            raise ValueError
        packed = urlsafe_b64decode(text.encode("ascii"))
        value = msgspec.msgpack.decode(packed, type=ShardIterator)
        if value.format != _FORMAT or not 0 <= value.sequence < _SEQUENCE_MAX:
            raise ValueError
    except (ValueError, msgspec.DecodeError):
        raise InvalidRequest("Invalid ShardIterator") from None
    return value
