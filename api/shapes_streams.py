"""The shapes of the stream operations' requests. See ``shapes`` for what orders mean."""

from __future__ import annotations

from ..limits import ITERATOR_CHARACTERS_MAX, STREAM_LIST_MAX, STREAM_PAGE_RECORDS_MAX
from .shape_kinds import PLAIN_TABLE_NAME, Moment, String, Whole, structure

_STREAM_ARN = String(37, 1024)
_SHARD_ID = String(28, 65)
_SEQUENCE_NUMBER = String(21, 40)

LIST_STREAMS = structure(
    "ListStreamsInput",
    TableName=PLAIN_TABLE_NAME,
    Limit=Whole("Integer", 1, STREAM_LIST_MAX),
    ExclusiveStartStreamArn=_STREAM_ARN,
)
DESCRIBE_STREAM = structure(
    "DescribeStreamInput",
    "StreamArn",
    StreamArn=_STREAM_ARN,
    Limit=Whole("Integer", 1, STREAM_LIST_MAX),
    ExclusiveStartShardId=_SHARD_ID,
    ShardFilter=structure(
        "ShardFilter", Type=String(enum=("CHILD_SHARDS",)), ShardId=_SHARD_ID
    ),
)
GET_SHARD_ITERATOR = structure(
    "GetShardIteratorInput",
    "StreamArn ShardId ShardIteratorType",
    StreamArn=_STREAM_ARN,
    ShardId=_SHARD_ID,
    ShardIteratorType=String(
        enum=(
            "TRIM_HORIZON",
            "LATEST",
            "AT_SEQUENCE_NUMBER",
            "AFTER_SEQUENCE_NUMBER",
            "AT_TIMESTAMP",
        )
    ),
    SequenceNumber=_SEQUENCE_NUMBER,
    Timestamp=Moment(),
)
GET_RECORDS = structure(
    "GetRecordsInput",
    "ShardIterator",
    ShardIterator=String(1, ITERATOR_CHARACTERS_MAX),
    Limit=Whole("Integer", 1, STREAM_PAGE_RECORDS_MAX),
)
