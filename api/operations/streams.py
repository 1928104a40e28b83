"""The stream operations: ListStreams, DescribeStream, GetShardIterator, GetRecords.

They read what ``actors.streams`` knows. A stream is named by its ARN; account and region in it are
not compared with the node's, as in every ARN.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import InvalidRequest, ResourceNotFound, Trimmed
from ...limits import (
    ITERATOR_MILLISECONDS_MAX,
    STREAM_LIST_MAX,
    STREAM_PAGE_BYTES_MAX,
    STREAM_PAGE_RECORDS_MAX,
    STREAM_SLICE_RECORDS,
)
from ...streams.iterators import ShardIterator, decode_iterator, encode_iterator
from ...streams.records import Renderer
from ...streams.sequence import parse_sequence, sequence_text
from ..errors import ExpiredIteratorException, TrimmedDataAccessException
from ..validation import read
from .tables_description import key_schema, stream_arn, table_arn

if TYPE_CHECKING:
    from ...actors.streams import Page
    from ...actors.tables import Tables
    from ...streams.definition import Shard, Stream
    from ..calls import Caller

_encode = msgspec.json.Encoder().encode
_ARN = re.compile(
    r"arn:aws[a-z-]*:dynamodb:[^:]*:[^:]*:table/(?P<table>[^/]+)/stream/(?P<label>.+)"
)
_TRIMMED = (
    "The operation attempted to read past the oldest stream record in a shard: records are kept "
    "for a limited time"
)


async def list_streams(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """A page of streams, enabled or not, by table and age."""
    request = read("ListStreams", body)
    found = tables.streams.of_namespace(caller.namespace, request.get("TableName"))
    start = request.get("ExclusiveStartStreamArn")
    if start is not None:
        named = _parse_arn(start)
        if named is None:
            raise InvalidRequest(f"Invalid StreamArn: {start}")
        found = [stream for stream in found if (stream.table, stream.label) > named]
    limit = request.get("Limit", STREAM_LIST_MAX)
    answer: dict[str, Any] = {
        "Streams": [
            {
                "StreamArn": arn_of(tables, stream),
                "TableName": stream.table,
                "StreamLabel": stream.label,
            }
            for stream in found[:limit]
        ]
    }
    if len(found) > limit:
        answer["LastEvaluatedStreamArn"] = arn_of(tables, found[limit - 1])
    return _encode(answer)


async def describe_stream(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """A stream with a page of its shards, parents before children."""
    request = read("DescribeStream", body)
    stream = _find(tables, caller, request["StreamArn"])
    shards = _wanted_shards(stream, request)
    start = request.get("ExclusiveStartShardId")
    if start is not None:
        names = [shard.shard_id for shard in shards]
        shards = shards[names.index(start) + 1 :] if start in names else []
    limit = request.get("Limit", STREAM_LIST_MAX)
    description: dict[str, Any] = {
        "StreamArn": arn_of(tables, stream),
        "StreamLabel": stream.label,
        "StreamStatus": "ENABLED" if stream.is_enabled else "DISABLED",
        "StreamViewType": stream.view,
        "CreationRequestDateTime": stream.created_ms / 1000,
        "TableName": stream.table,
        "KeySchema": key_schema(stream.key),
        "Shards": [_describe_shard(tables, shard) for shard in shards[:limit]],
    }
    if len(shards) > limit:
        description["LastEvaluatedShardId"] = shards[limit - 1].shard_id
    return _encode({"StreamDescription": description})


def _wanted_shards(stream: Stream, request: dict[str, Any]) -> list[Shard]:
    wanted = request.get("ShardFilter")
    if wanted is None:
        return list(stream.shards)
    shard_id = wanted.get("ShardId")
    if wanted.get("Type") is None or shard_id is None:
        raise InvalidRequest("ShardFilter must have both Type and ShardId")
    if stream.shard(shard_id) is None:
        raise _no_shard(shard_id)
    return list(stream.children(shard_id))


def _describe_shard(tables: Tables, shard: Shard) -> dict[str, Any]:
    streams = tables.streams
    numbers = {"StartingSequenceNumber": sequence_text(streams.start_sequence(shard))}
    if not shard.is_open:
        numbers["EndingSequenceNumber"] = sequence_text(streams.ending_sequence(shard))
    described: dict[str, Any] = {"ShardId": shard.shard_id, "SequenceNumberRange": numbers}
    if shard.parent is not None:
        described["ParentShardId"] = shard.parent
    return described


async def get_shard_iterator(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """A place in a shard to read on from."""
    request = read("GetShardIterator", body)
    stream = _find(tables, caller, request["StreamArn"])
    shard = stream.shard(request["ShardId"])
    if shard is None:
        raise _no_shard(request["ShardId"])
    sequence = _place(tables, shard, request)
    return _encode({"ShardIterator": _iterator(tables, stream, shard, sequence)})


def _place(tables: Tables, shard: Shard, request: dict[str, Any]) -> int:
    """The sequence that a request's ShardIteratorType and what belongs to it mean."""
    kind = request["ShardIteratorType"]
    given = request.get("SequenceNumber")
    moment = request.get("Timestamp")
    _refuse_idle(kind, given, moment)
    streams = tables.streams
    if kind == "TRIM_HORIZON":
        return streams.first_sequence(shard)
    if kind == "LATEST":
        return streams.end_sequence(shard)
    if kind == "AT_TIMESTAMP":
        assert moment is not None, "refused above"
        at_ms = int(moment * 1000)
        if at_ms > tables.now_ms():
            raise InvalidRequest("Timestamp must not be in the future")
        return streams.sequence_at(shard, at_ms)
    assert given is not None, "refused above"
    sequence = parse_sequence(given)
    if sequence is None or not streams.start_sequence(shard) <= sequence:
        raise InvalidRequest(f"Invalid SequenceNumber: {given}")
    if sequence > max(streams.end_sequence(shard), streams.start_sequence(shard)):
        raise InvalidRequest(f"Invalid SequenceNumber: {given} is beyond the shard's records")
    if sequence < streams.first_sequence(shard):
        raise TrimmedDataAccessException(_TRIMMED)
    return sequence + 1 if kind == "AFTER_SEQUENCE_NUMBER" else sequence


def _refuse_idle(kind: str, given: str | None, moment: float | None) -> None:
    """Each kind needs what belongs to it and takes nothing else."""
    by_number = kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER")
    if by_number and given is None:
        raise InvalidRequest(f"SequenceNumber must be specified for ShardIteratorType {kind}")
    if not by_number and given is not None:
        raise InvalidRequest(f"SequenceNumber must not be specified for ShardIteratorType {kind}")
    if kind == "AT_TIMESTAMP" and moment is None:
        raise InvalidRequest(f"Timestamp must be specified for ShardIteratorType {kind}")
    if kind != "AT_TIMESTAMP" and moment is not None:
        raise InvalidRequest(f"Timestamp must not be specified for ShardIteratorType {kind}")


async def get_records(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """Up to 1,000 records or 1 MB from an iterator on, and the iterator that goes on from there."""
    request = read("GetRecords", body)
    place = decode_iterator(request["ShardIterator"])
    if tables.now_ms() > place.issued_ms + ITERATOR_MILLISECONDS_MAX:
        raise ExpiredIteratorException(
            "The iterator has expired: it was issued more than 15 minutes ago"
        )
    limit = request.get("Limit", STREAM_PAGE_RECORDS_MAX)
    records: list[dict[str, Any]] = []
    sequence, size_bytes = place.sequence, 0
    while True:
        # Looked up anew for each slice: it may have been rolled over or removed meanwhile.
        stream, shard = _shard_of(tables, caller, place)
        render = Renderer(stream, shard, arn_of(tables, stream), tables.region).api_record
        page = _page(tables, stream, shard, sequence, limit - len(records), size_bytes)
        records += [render(change) for change in page.changes]
        size_bytes += sum(change.json_bytes for change in page.changes)
        sequence = page.next
        if (
            page.is_end
            or not page.changes
            or len(records) >= limit
            or size_bytes >= STREAM_PAGE_BYTES_MAX
        ):
            break
        await tables.breathe()
    answer: dict[str, Any] = {"Records": records}
    if not page.is_end:
        answer["NextShardIterator"] = _iterator(tables, stream, shard, sequence)
    return _encode(answer)


def _shard_of(tables: Tables, caller: Caller, place: ShardIterator) -> tuple[Stream, Shard]:
    stream = tables.streams.find(caller.namespace, place.table, place.label)
    shard = None if stream is None else stream.shard(place.shard_id)
    if stream is None or shard is None:
        raise ResourceNotFound("Requested resource not found: the shard has expired")
    return stream, shard


def _page(
    tables: Tables, stream: Stream, shard: Shard, sequence: int, limit: int, size_bytes: int
) -> Page:
    try:
        return tables.streams.read(
            stream,
            shard,
            sequence,
            min(limit, STREAM_SLICE_RECORDS),
            STREAM_PAGE_BYTES_MAX - size_bytes,
        )
    except Trimmed:
        raise TrimmedDataAccessException(_TRIMMED) from None


def arn_of(tables: Tables, stream: Stream) -> str:
    """The stream's Amazon resource name."""
    return stream_arn(table_arn(tables.region, tables.account, stream.table), stream.label)


def _iterator(tables: Tables, stream: Stream, shard: Shard, sequence: int) -> str:
    return encode_iterator(
        stream.table, stream.label, shard.shard_id, sequence, tables.now_ms()
    )


def _parse_arn(arn: str) -> tuple[str, str] | None:
    found = _ARN.fullmatch(arn)
    return None if found is None else (found["table"], found["label"])


def _find(tables: Tables, caller: Caller, arn: str) -> Stream:
    named = _parse_arn(arn)
    if named is None:
        raise InvalidRequest(f"Invalid StreamArn: {arn}")
    stream = tables.streams.find(caller.namespace, *named)
    if stream is None:
        raise ResourceNotFound(f"Requested resource not found: Stream: {arn} not found")
    return stream


def _no_shard(shard_id: str) -> ResourceNotFound:
    return ResourceNotFound(f"Requested resource not found: Shard: {shard_id} not found")
