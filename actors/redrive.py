"""Gives a batch that was given up to its handler again, from the records that the stream still has.

Outside of the shard's order, as its records are long past: a handler that is asked to take them
must not mind. Writes through ``context.transaction`` are committed, without a checkpoint.
"""

from __future__ import annotations

import logging

from ..errors import MillstreamError, Trimmed
from ..lambdas.results import Failed, Invocation
from ..limits import PAGE_BYTES_MAX
from ..streams.lineage import trace_of
from ..streams.records import Renderer
from .destinations import FailedBatch
from .shard_poller import Handler, Tools

logger = logging.getLogger(__name__)


async def give_again(
    tools: Tools, namespace: str, mapping_id: str, handler: Handler, batch: FailedBatch
) -> bool:
    """Whether the handler has taken the records of ``batch`` now."""
    stream = tools.streams.find(namespace, batch.table, batch.label)
    shard = None if stream is None else stream.shard(batch.shard_id)
    if stream is None or shard is None:
        logger.warning("%s: the stream of batch %s is gone", handler.name, batch.batch_id)
        return False
    render = Renderer(stream, shard, tools.arn_of(stream), tools.region).event_record
    records, hops = [], 0
    for sequence in batch.sequences:
        try:
            page = tools.streams.read(stream, shard, sequence, 1, PAGE_BYTES_MAX)
        except Trimmed:
            logger.warning("%s: records of batch %s are gone", handler.name, batch.batch_id)
            return False
        if not page.changes or page.changes[0].sequence != sequence:
            return False
        records.append(render(page.changes[0]))
        hops = max(hops, page.changes[0].hops)
    transaction = tools.make_transaction(namespace, hops + 1)
    request_id = tools.new_id()
    invocation = Invocation(
        request_id=request_id,
        function_name=handler.name,
        function_arn=handler.arn,
        version="$LATEST",
        memory_limit_mb=handler.memory_limit_mb,
        timeout_seconds=handler.timeout_seconds,
        trace_id=trace_of(request_id, mapping_id, hops + 1),
    )
    result = await handler.invoker.invoke({"Records": records}, invocation, transaction)
    if isinstance(result, Failed) or _names_failures(result.payload):
        return False
    if not transaction.is_empty:
        try:
            await transaction.commit()
        except MillstreamError as error:
            logger.warning("%s: batch %s: %s", handler.name, batch.batch_id, type(error).__name__)
            return False
    return True


def _names_failures(payload: object) -> bool:
    return isinstance(payload, dict) and bool(payload.get("batchItemFailures"))
