"""The conflicts in a log, and the rows of a conflicts table that tell of them. Pure.

A conflict is in the log of the region whose write lost: the effect that beat it (``Effect.beat``),
with the image that lost in ``old`` and its version in ``base``; what the policy made of it, if that
is not the winner as it is, is the effect right behind (``Effect.resolves``). A write loses once, so
the losing version names the row, and putting a row twice changes nothing.

==============  ==============================================================================
attribute       what it is
==============  ==============================================================================
item (HASH)     the item's key as JSON; long ones are cut and end in a digest
at (RANGE)      the losing version: its time, counter, region number; and the table
table, key      which item it was
lost, won       the two images; absent for a deletion
outcome         "winner" (it stayed), "kept" (the one that had lost is back) or "resolved"
resolved        what was made of both, for "resolved"; absent for a deletion
lost_at, ...    lost_at, won_at, lost_region, won_region: when and where the two were written
left_out        what did not fit: images' attributes, as "lost.photo"
==============  ==============================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

import msgspec

from ..limits import (
    CONFLICTS_LEFT_OUT_CHARACTERS_MAX,
    CONFLICTS_LEFT_OUT_MAX,
    HLC_COUNTER_BITS,
    ITEM_SIZE_BYTES_MAX,
)
from ..model.schema import KeyAttribute, KeySchema, Table
from ..model.values import AttributeValue, Item, decode_item, encode_item, item_size_bytes
from ..model.versions import Version, milliseconds_of
from ..storage.log.entry import payload_of
from ..storage.records import Effect, decode_records
from ..streams.records import key_item_of

CONFLICTS_KEY = KeySchema((KeyAttribute("item", "S"),), (KeyAttribute("at", "S"),))
CONFLICTS_KINDS = {"item": "S", "at": "S"}

WINNER, KEPT, RESOLVED = "winner", "kept", "resolved"

_ITEM_CHARACTERS_MAX = 400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# An image's own map, and what names the attributes that are left out.
_MAP_BYTES = 64
_LEFT_OUT_BYTES = CONFLICTS_LEFT_OUT_MAX * (4 * CONFLICTS_LEFT_OUT_CHARACTERS_MAX + 16) + 64


class Conflict(msgspec.Struct, frozen=True):
    """One write that lost. Images are canonical bodies; None: deleted.

    ``resolution`` is what a policy made of it, None if the winner stayed.
    """

    key: bytes
    lost: bytes | None
    lost_version: Version
    won: bytes | None
    won_version: Version
    resolution: Effect | None

    @property
    def outcome(self) -> str:
        """WINNER, KEPT or RESOLVED."""
        if self.resolution is None:
            return WINNER
        body, lost = self.resolution.body, self.lost
        if body is None or not lost:
            return KEPT if body == lost else RESOLVED
        return KEPT if decode_item(body) == decode_item(lost) else RESOLVED


def conflicts_of(entry: bytes) -> list[Conflict]:
    """The conflicts in a log entry, whose bytes are trusted."""
    payload = payload_of(entry)
    records = decode_records(payload)
    found = []
    for index, record in enumerate(records):
        if type(record) is not Effect or not record.beat:
            continue
        behind = records[index + 1] if index + 1 < len(records) else None
        resolution = behind if type(behind) is Effect and behind.resolves else None
        assert resolution is None or resolution.key == record.key
        found.append(
            Conflict(
                record.key,
                record.old,
                Version(record.base_hlc, record.base_region),
                record.body,
                Version(record.hlc, record.region),
                resolution,
            )
        )
    return found


def row_of(conflict: Conflict, table: Table, region_name: Callable[[int], str]) -> Item:
    """The row that tells of a conflict in ``table``; never above an item's size."""
    key = key_item_of(table.key, conflict.key)
    lost, won = conflict.lost_version, conflict.won_version
    row: Item = {
        "item": {"S": item_text(key)},
        "at": {"S": f"{version_text(lost)} {table.name}"},
        "table": {"S": table.name},
        "key": {"M": key},
        "outcome": {"S": conflict.outcome},
        "lost_at": {"S": _time_text(lost.hlc)},
        "lost_region": {"S": region_name(lost.region)},
        "won_at": {"S": _time_text(won.hlc)},
        "won_region": {"S": region_name(won.region)},
    }
    images = {"lost": conflict.lost, "won": conflict.won}
    if conflict.outcome == RESOLVED and conflict.resolution is not None:
        images["resolved"] = conflict.resolution.body
    left_out: list[str] = []
    room = ITEM_SIZE_BYTES_MAX - item_size_bytes(row) - _LEFT_OUT_BYTES
    for name, body in images.items():
        if body is None:
            continue
        if not body:  # There was one, and nobody kept it.
            left_out.append(name)
            continue
        image = _fitting(decode_item(body), name, room, left_out)
        row[name] = {"M": image}
        room -= item_size_bytes({name: {"M": image}})
    if left_out:
        row["left_out"] = {"L": _texts(left_out)}
    assert item_size_bytes(row) <= ITEM_SIZE_BYTES_MAX
    return row


def _fitting(image: Item, name: str, room: int, left_out: list[str]) -> Item:
    """What of an image fits into ``room`` bytes, small attributes first; notes what does not."""
    room -= _MAP_BYTES + len(name)
    # Every member of a map counts one byte more than it does at the top of an item.
    sizes = {each: item_size_bytes({each: value}) + 1 for each, value in image.items()}
    if sum(sizes.values()) <= room:
        return image
    kept: set[str] = set()
    for each in sorted(image, key=lambda each: (sizes[each], each)):
        if sizes[each] > room:
            left_out.append(f"{name}.{each}")
        else:
            room -= sizes[each]
            kept.add(each)
    return {each: value for each, value in image.items() if each in kept}


def _texts(left_out: list[str]) -> list[AttributeValue]:
    named = left_out[: CONFLICTS_LEFT_OUT_MAX - 1]
    texts = [text[:CONFLICTS_LEFT_OUT_CHARACTERS_MAX] for text in named]
    if len(left_out) > len(named):
        texts.append(f"and {len(left_out) - len(named)} more")
    return [{"S": text} for text in texts]


def item_text(key: Item) -> str:
    """An item's key as text: canonical JSON, cut where a key would be too long for it."""
    text = encode_item(key).decode()
    if len(text) <= _ITEM_CHARACTERS_MAX:
        return text
    digest = blake2b(text.encode(), digest_size=16).hexdigest()
    return f"{text[:_ITEM_CHARACTERS_MAX]}... {digest}"


def version_text(version: Version) -> str:
    """A version as text in whose order versions are."""
    counter = version.hlc & ((1 << HLC_COUNTER_BITS) - 1)
    return f"{_time_text(version.hlc)} {counter:05d} {version.region:05d}"


def _time_text(hlc: int) -> str:
    at = _EPOCH + timedelta(milliseconds=milliseconds_of(hlc))
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
