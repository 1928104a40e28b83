"""Records as the API and as Lambda show them."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec
import pytest

from millstream.model.keys import encode_component, table_key
from millstream.model.schema import KeyAttribute, KeySchema
from millstream.model.values import encode_item, item_size_bytes
from millstream.storage.log.entry import ZERO_HASH, EntryHeader, encode_entry
from millstream.storage.records import Effect, encode_records
from millstream.streams.definition import Shard, Stream
from millstream.streams.records import Renderer, changes_of

KEYS = {"pk": {"S": "Zürich"}, "sk": {"N": "-12.5"}}
OLD = {**KEYS, "n": {"N": "1"}, "größe": {"L": [{"S": "ä"}, {"M": {"b": {"B": "AAE="}}}]}}
NEW = {**KEYS, "n": {"N": "1234"}, "s": {"SS": ["a", "ü"]}}
SHARD = Shard("shardId-1", "log-1", 1, None, None, 0)


def stream(view: str) -> Stream:
    return Stream(
        namespace="",
        table="t",
        table_id="t-1",
        label="label",
        view=view,
        key=KeySchema((KeyAttribute("pk", "S"),), (KeyAttribute("sk", "N"),)),
        created_ms=0,
        first_schema=1,
        last_schema=None,
        shards=(SHARD,),
    )


def rendered(view: str, old: Any, new: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The event's record and the API's, of a change from ``old`` to ``new``."""
    of = stream(view)
    key = table_key(encode_component("S", KEYS["pk"]), encode_component("N", KEYS["sk"]))
    kept = None if old is None else encode_item(old) if of.shows_old else b""
    body = None if new is None else encode_item(new)
    size_bytes = 0 if new is None else item_size_bytes(new)
    effect = Effect(1, key, body, size_bytes, hlc=7, old=kept)
    entry = encode_entry(EntryHeader(1, 1, 5, 1 << 40, ZERO_HASH), encode_records([effect]))
    (change,) = changes_of(of, entry, 5, 0)
    renderer = Renderer(of, SHARD, "arn", "region")
    api = msgspec.json.decode(msgspec.json.encode(renderer.api_record(change)))
    return renderer.event_record(change), api


@pytest.mark.parametrize("view", ["KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES"])
@pytest.mark.parametrize(("old", "new"), [(None, NEW), (OLD, NEW), (OLD, None)])
def test_a_record_shows_what_its_view_says_and_how_long_that_is(
    view: str, old: Any, new: Any
) -> None:
    event, api = rendered(view, old, new)
    expected = {"Keys": KEYS}
    if new is not None and view in ("NEW_IMAGE", "NEW_AND_OLD_IMAGES"):
        expected["NewImage"] = new
    if old is not None and view in ("OLD_IMAGE", "NEW_AND_OLD_IMAGES"):
        expected["OldImage"] = old
    size_bytes = sum(map(item_size_bytes, expected.values()))
    for record in (event, api):
        inner = record["dynamodb"]
        items = {name: inner[name] for name in inner if name.endswith(("Keys", "Image"))}
        assert items == expected
        assert inner["SizeBytes"] == size_bytes
        assert inner["SequenceNumber"] == "100000000000005000000"
    # It names the change for ever: consumers keep it to know what they have seen.
    event_id = blake2b(b"label log-1 5000000", digest_size=16).hexdigest()
    assert event["eventID"] == api["eventID"] == event_id


def test_a_handler_may_change_the_keys_and_leave_the_image_alone() -> None:
    event, _ = rendered("NEW_AND_OLD_IMAGES", OLD, NEW)
    event["dynamodb"]["Keys"]["pk"]["S"] = "changed"
    event["dynamodb"]["NewImage"]["sk"]["N"] = "changed"
    assert event["dynamodb"]["NewImage"]["pk"] == KEYS["pk"]
    assert event["dynamodb"]["OldImage"]["sk"] == KEYS["sk"]
    assert event["dynamodb"]["Keys"]["sk"] == KEYS["sk"]
