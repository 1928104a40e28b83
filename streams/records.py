"""From the effects of a log entry to the records of a stream, as the API and as Lambda show them.

Pure. A *change* is one record of one shard: decided by the effect alone, so that it is the same
whenever and however often it is read. ``INSERT``, ``MODIFY`` and ``REMOVE`` follow from whether the
item was there before and is there after; a silent effect is no change.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec

from ..model.keys import HASH_BYTES, decode_component
from ..model.schema import KeySchema
from ..model.values import Item, decode_item, item_size_bytes
from ..model.versions import milliseconds_of
from ..storage.log.entry import payload_of, timestamp_of
from ..storage.records import Effect, decode_records
from .definition import Shard, Stream
from .sequence import INDEXES, sequence_text

EVENT_VERSION = "1.1"
EVENT_SOURCE = "aws:dynamodb"
_RECORD_JSON_BYTES = 512


class Change(msgspec.Struct, frozen=True, gc=False):
    """One change of one item.

    ``kind`` is INSERT, MODIFY or REMOVE. ``new`` and ``old`` are canonical DynamoDB-JSON bodies,
    None where there is none or where the stream does not show it. ``at_ms`` is the commit's time.
    ``version`` is the item's version (hlc) after the change, ``new_size_bytes`` its size then,
    whether it is shown or not.
    """

    sequence: int
    kind: str
    key: bytes
    new: bytes | None
    old: bytes | None
    new_size_bytes: int
    at_ms: int
    version: int
    hops: int

    @property
    def json_bytes(self) -> int:
        """About how long the record is as JSON: enough to bound pages and payloads."""
        new, old = self.new, self.old
        return (
            _RECORD_JSON_BYTES
            + len(self.key)
            + (0 if new is None else len(new))
            + (0 if old is None else len(old))
        )


def changes_of(stream: Stream, entry: bytes, lsn: int, start: int) -> list[Change]:
    """The stream's changes in a log entry, whose bytes are trusted, from sequence ``start`` on."""
    at_ms = milliseconds_of(timestamp_of(entry))
    shows_new, shows_old = stream.shows_new, stream.shows_old
    changes = []
    sequence = lsn * INDEXES - 1
    for record in decode_records(payload_of(entry)):
        sequence += 1
        if type(record) is not Effect or record.silent or sequence < start:
            continue
        if not stream.has(record.schema):
            continue
        body, old = record.body, record.old
        kind = "REMOVE" if body is None else "INSERT" if old is None else "MODIFY"
        changes.append(
            Change(
                sequence,
                kind,
                record.key,
                body if shows_new else None,
                old if shows_old and old else None,
                record.size_bytes,
                at_ms,
                record.hlc,
                record.hops,
            )
        )
    return changes


def key_item(stream: Stream, key: bytes) -> Item:
    """The key attributes that a stored key stands for."""
    return key_item_of(stream.key, key)


def key_item_of(schema: KeySchema, key: bytes) -> Item:
    """``key_item`` for a table's key schema."""
    item: Item = {}
    at = HASH_BYTES
    for attribute in schema.attributes():
        item[attribute.name], at = decode_component(attribute.kind, key, at)
    return item


class Renderer:
    """Renders the changes of one shard. ``arn`` is the stream's."""

    __slots__ = ("_id_prefix", "_key_names", "_more", "_region", "_stream")

    def __init__(self, stream: Stream, shard: Shard, arn: str, region: str) -> None:
        self._stream = stream
        self._region = region
        self._more = {"awsRegion": region, "eventSourceARN": arn}
        self._key_names = stream.key.names()
        self._id_prefix = f"{stream.label} {shard.log_id} "

    def api_record(self, change: Change) -> dict[str, Any]:
        """A record of GetRecords, to be encoded by msgspec: images are spliced in as they are."""
        keys = key_item(self._stream, change.key)
        inner: dict[str, Any] = {
            "ApproximateCreationDateTime": change.at_ms // 1000,
            "Keys": keys,
        }
        size_bytes = item_size_bytes(keys)
        if change.new is not None:
            inner["NewImage"] = msgspec.Raw(change.new)
            size_bytes += change.new_size_bytes
        if change.old is not None:
            inner["OldImage"] = msgspec.Raw(change.old)
            size_bytes += item_size_bytes(decode_item(change.old))
        return self._record(change, inner, size_bytes, {"awsRegion": self._region})

    def event_record(self, change: Change) -> dict[str, Any]:
        """A record of Lambda's event, plain Python throughout."""
        new = None if change.new is None else decode_item(change.new)
        old = None if change.old is None else decode_item(change.old)
        keys = self._keys(change, old if new is None else new)
        inner: dict[str, Any] = {
            "ApproximateCreationDateTime": float(change.at_ms // 1000),
            "Keys": keys,
        }
        size_bytes = item_size_bytes(keys)
        if new is not None:
            inner["NewImage"] = new
            size_bytes += change.new_size_bytes
        if old is not None:
            inner["OldImage"] = old
            size_bytes += item_size_bytes(old)
        return self._record(change, inner, size_bytes, self._more)

    def _keys(self, change: Change, image: Item | None) -> Item:
        """The key attributes, taken from the image where there is one: values of their own."""
        if image is None:
            return key_item(self._stream, change.key)
        return {name: image[name].copy() for name in self._key_names}

    def _record(
        self, change: Change, inner: dict[str, Any], size_bytes: int, more: dict[str, Any]
    ) -> dict[str, Any]:
        inner["SequenceNumber"] = sequence_text(change.sequence)
        inner["SizeBytes"] = size_bytes
        inner["StreamViewType"] = self._stream.view
        return {
            "eventID": self._event_id(change.sequence),
            "eventName": change.kind,
            "eventVersion": EVENT_VERSION,
            "eventSource": EVENT_SOURCE,
            "dynamodb": inner,
            **more,
        }

    def _event_id(self, sequence: int) -> str:
        """The same for the same change, however often it is delivered."""
        text = f"{self._id_prefix}{sequence}"
        return blake2b(text.encode(), digest_size=16).hexdigest()
