"""Event source mappings as values: what is stored of one, its states, and what it has done."""

from __future__ import annotations

import msgspec

from ..errors import Corrupt, WrongFormat
from ..lambdas.settings import Mapping
from .mapping_runner import Source

MAPPING_FORMAT = 1
CREATING, ENABLED, DISABLED, DELETING = "Creating", "Enabled", "Disabled", "Deleting"
WAITING = "WAITING_FOR_HANDLER"
USER = "USER_INITIATED"


class StoredMapping(msgspec.Struct, frozen=True):
    """The catalog's entry. ``has_begun``: the first positions are stored."""

    mapping: Mapping
    source: Source
    has_begun: bool
    format: int = MAPPING_FORMAT


class MappingStatistics(msgspec.Struct, frozen=True):
    """What a mapping has done since the start, and how far it is.

    ``lag`` is the number of log entries behind, summed over its shards; also of what does not run.
    ``last_error`` is type and message of the last failure, "" for none: it may quote data, so it is
    for whoever may look after the mapping, and never logged.
    """

    name: str
    state: str
    records: int
    batches: int
    failures: int
    discarded: int
    lag: int
    last_result: str
    last_error: str


def encode_mapping(stored: StoredMapping) -> bytes:
    """The catalog's entry."""
    return msgspec.msgpack.encode(stored)


def decode_mapping(data: bytes) -> StoredMapping:
    """The mapping that the catalog has kept. Raises Corrupt or WrongFormat."""
    try:
        stored = msgspec.msgpack.decode(data, type=StoredMapping)
    except msgspec.DecodeError as error:
        raise Corrupt("an event source mapping in the catalog cannot be read") from error
    if stored.format != MAPPING_FORMAT:
        raise WrongFormat(f"mapping {stored.mapping.uuid} has catalog format {stored.format}")
    return stored
