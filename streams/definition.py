"""What a stream is: a label, and shards that are ranges of the table's logs.

Values only. A shard holds nothing: it is ``(log, first LSN, last LSN)``, and the log's effects are
its records. An open shard has no last LSN; when it is closed (the stream disabled, the table
removed, the shard rolled over) its end is fixed and a child may continue the same log behind it.
The catalog keeps one entry a stream; streams outlive their tables by the retention time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, TypeAlias, get_args

import msgspec

from ..errors import Corrupt, WrongFormat
from ..model.schema import KeySchema

STREAM_FORMAT = 1
StreamView: TypeAlias = Literal["KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES"]
STREAM_VIEWS: Final[tuple[str, ...]] = get_args(StreamView)


class Shard(msgspec.Struct, frozen=True):
    """A range of one log. ``parent`` is the shard before it; times are ms since the epoch."""

    shard_id: str
    log_id: str
    first_lsn: int
    last_lsn: int | None = None
    parent: str | None = None
    opened_ms: int = 0
    closed_ms: int | None = None

    @property
    def is_open(self) -> bool:
        return self.last_lsn is None


class Stream(msgspec.Struct, frozen=True):
    """One stream of one table.

    ``first_schema`` and ``last_schema`` (None while it is enabled) are the schema versions under
    which effects belong to it: they decide to the very record where it begins and ends.
    """

    namespace: str
    table: str
    table_id: str
    label: str
    view: str
    key: KeySchema
    created_ms: int
    first_schema: int
    last_schema: int | None
    shards: tuple[Shard, ...]
    disabled_ms: int | None = None
    format: int = STREAM_FORMAT

    @property
    def name(self) -> str:
        """What the catalog files it under."""
        return f"{self.namespace}/{self.table}/{self.label}"

    @property
    def is_enabled(self) -> bool:
        return self.last_schema is None

    @property
    def shows_old(self) -> bool:
        return self.view in ("OLD_IMAGE", "NEW_AND_OLD_IMAGES")

    @property
    def shows_new(self) -> bool:
        return self.view in ("NEW_IMAGE", "NEW_AND_OLD_IMAGES")

    def has(self, schema: int) -> bool:
        """Whether an effect under this schema version is one of the stream's."""
        return self.first_schema <= schema and (
            self.last_schema is None or schema <= self.last_schema
        )

    def shard(self, shard_id: str) -> Shard | None:
        return next((shard for shard in self.shards if shard.shard_id == shard_id), None)

    def children(self, shard_id: str) -> Iterator[Shard]:
        """The shards that continue ``shard_id``."""
        return (shard for shard in self.shards if shard.parent == shard_id)

    def with_shards(self, shards: tuple[Shard, ...]) -> Stream:
        return msgspec.structs.replace(self, shards=shards)


def encode_stream(stream: Stream) -> bytes:
    """The catalog's entry."""
    return msgspec.msgpack.encode(stream)


def decode_stream(data: bytes) -> Stream:
    """The stream that the catalog has kept. Raises Corrupt or WrongFormat."""
    try:
        stream = msgspec.msgpack.decode(data, type=Stream)
    except msgspec.DecodeError as error:
        raise Corrupt("a stream in the catalog cannot be read") from error
    if stream.format != STREAM_FORMAT:
        raise WrongFormat(f"stream {stream.name} has catalog format {stream.format}")
    return stream


def shard_id_of(opened_ms: int, token: str) -> str:
    """A shard's name as DynamoDB spells them; ids sort by the time of opening."""
    return f"shardId-{opened_ms:020d}-{token}"


def closed(shard: Shard, last_lsn: int, now_ms: int) -> Shard:
    """``shard`` with its end fixed. One that is closed already stays as it is."""
    if not shard.is_open:
        return shard
    # A shard may end before it has begun to have entries.
    end = max(last_lsn, shard.first_lsn - 1)
    return msgspec.structs.replace(shard, last_lsn=end, closed_ms=now_ms)
