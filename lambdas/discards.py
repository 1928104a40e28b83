"""The document that tells of a batch that was given up, as Lambda sends it to a destination.

The shape is that of the developer guide, "Retain discarded records for a DynamoDB event source in
Lambda". The records themselves are not in it: sequence numbers say where they are in the stream.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ..streams.sequence import sequence_text
from .batches import Discard


def iso_milliseconds(ms: int) -> str:
    """A time with milliseconds, in UTC."""
    moment = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03}Z"


def failure_document(
    discard: Discard,
    *,
    now_ms: int,
    request_id: str,
    function_arn: str,
    version: str,
    shard_id: str,
    stream_arn: str,
    function_error: str | None,
) -> dict[str, Any]:
    """``function_error`` is "Unhandled" if the last invocation raised, timed out or died, and None
    if it returned and named records as failed. What was never invoked has no response.
    """
    document: dict[str, Any] = {
        "requestContext": {
            "requestId": request_id,
            "functionArn": function_arn,
            "condition": discard.condition,
            "approximateInvokeCount": discard.attempts,
        }
    }
    if discard.attempts > 0:
        document["responseContext"] = {
            "statusCode": 200,
            "executedVersion": version,
            "functionError": function_error,
        }
    batch: dict[str, Any] = {"shardId": shard_id, "batchSize": len(discard.records)}
    if discard.records:
        first = discard.records[0]
        last = discard.records[-1]
        batch["startSequenceNumber"] = sequence_text(first.position)
        batch["endSequenceNumber"] = sequence_text(last.position)
        batch["approximateArrivalOfFirstRecord"] = iso_milliseconds(first.arrived_ms)
        batch["approximateArrivalOfLastRecord"] = iso_milliseconds(last.arrived_ms)
    batch["streamArn"] = stream_arn
    document["version"] = "1.0"
    document["timestamp"] = iso_milliseconds(now_ms)
    document["DDBStreamBatchInfo"] = batch
    return document
