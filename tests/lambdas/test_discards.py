"""The document about a discarded batch, against the shape in Lambda's developer guide."""

from __future__ import annotations

import pytest

from millstream.lambdas.batches import Discard, Pulled
from millstream.lambdas.discards import failure_document, iso_milliseconds
from millstream.streams.sequence import sequence_text


def document(discard, function_error="Unhandled"):
    return failure_document(
        discard,
        now_ms=1_573_690_429_717,
        request_id="316aa6d0-8154-xmpl-9af7-85d5f4a6bc81",
        function_arn="arn:aws:lambda:us-east-2:123456789012:function:myfunction",
        version="$LATEST",
        shard_id="shardId-00000001573689847184-864758bb",
        stream_arn="arn:aws:dynamodb:us-east-2:123456789012:table/t/stream/2019",
        function_error=function_error,
    )


def discard_of(*records, attempts=1, condition="RetryAttemptsExhausted"):
    pulled = [Pulled(n, b"k", at, 100, True, 0, None) for n, at in records]
    return Discard(0, 1, tuple(pulled), condition, attempts)


def test_document():
    first, last = 3126276362, 3126276365
    discard = discard_of((first, 1_573_690_399_000), (last, 1_573_690_399_005))
    assert document(discard) == {
        "requestContext": {
            "requestId": "316aa6d0-8154-xmpl-9af7-85d5f4a6bc81",
            "functionArn": "arn:aws:lambda:us-east-2:123456789012:function:myfunction",
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 1,
        },
        "responseContext": {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": "Unhandled",
        },
        "version": "1.0",
        "timestamp": "2019-11-14T00:13:49.717Z",
        "DDBStreamBatchInfo": {
            "shardId": "shardId-00000001573689847184-864758bb",
            "startSequenceNumber": sequence_text(first),
            "endSequenceNumber": sequence_text(last),
            "approximateArrivalOfFirstRecord": "2019-11-14T00:13:19.000Z",
            "approximateArrivalOfLastRecord": "2019-11-14T00:13:19.005Z",
            "batchSize": 2,
            "streamArn": "arn:aws:dynamodb:us-east-2:123456789012:table/t/stream/2019",
        },
    }


def test_named_failures_are_no_function_error():
    made = document(discard_of((5, 0)), function_error=None)
    assert made["responseContext"]["functionError"] is None


def test_what_was_never_invoked_has_no_response():
    made = document(discard_of((5, 0), attempts=0, condition="RecordAgeExceeded"))
    assert "responseContext" not in made
    assert made["requestContext"]["approximateInvokeCount"] == 0


def test_final_call_has_no_records():
    info = document(discard_of())["DDBStreamBatchInfo"]
    assert sorted(info) == ["batchSize", "shardId", "streamArn"]
    assert info["batchSize"] == 0


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (999, "1970-01-01T00:00:00.999Z"),
        (253_402_300_799_001, "9999-12-31T23:59:59.001Z"),
    ],
)
def test_iso_milliseconds(ms, text):
    assert iso_milliseconds(ms) == text
