"""Where batches go that a mapping has given up: its destination, and a list of them for operators.

A destination gets the document that Lambda sends (``lambdas/discards.py``), and the event, since
here it goes to places that hold it. Keeping the same batch twice replaces it: a crash in between
repeats. The list (entries of the catalog) says which records they were, so that they can be given
to the handler again for as long as the stream has them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import trio

from ..errors import Corrupt, MillstreamError, OutcomeUnknown, Throttled
from ..host.host import Host
from ..lambdas.batches import Discard
from ..lambdas.callables import is_async
from ..lambdas.discards import failure_document
from ..lambdas.results import Failed
from ..lambdas.settings import Destination
from ..limits import (
    DESTINATION_RETRY_SECONDS,
    DESTINATION_RETRY_SECONDS_MAX,
    FAILED_BATCHES_KEPT_MAX,
    FAILURE_EVENT_BYTES_MAX,
)
from ..model.python_values import to_attribute
from ..model.schema import KeyAttribute, Table
from ..model.values import AttributeValue, Item, encode_item, item_size_bytes
from ..storage.commands import Put
from ..storage.indexes import primary_key
from ..streams.sequence import sequence_text
from .catalog import FAILED_ENTRY, Catalog
from .tables import Tables

logger = logging.getLogger(__name__)


class FailedBatch(msgspec.Struct, frozen=True):
    """A batch that was given up: which records, why, when (ms since the epoch)."""

    batch_id: str
    mapping_id: str
    table: str
    label: str
    shard_id: str
    sequences: list[int]
    condition: str
    attempts: int
    error_type: str
    message: str
    at_ms: int


class Failures:
    """Keeps what is given up. One per node."""

    def __init__(self, host: Host, catalog: Catalog, tables: Tables) -> None:
        self._host = host
        self._catalog = catalog
        self._tables = tables
        #: (mapping, destination's name) -> Python callables that are destinations.
        self.callables: dict[tuple[str, str], Callable[[dict[str, Any]], Any]] = {}
        #: Mapping -> its list, by batch id, oldest first.
        self._kept: dict[str, dict[str, FailedBatch]] = {}
        for data in catalog.entries(FAILED_ENTRY).values():
            try:
                batch = msgspec.msgpack.decode(data, type=FailedBatch)
            except msgspec.DecodeError as error:
                raise Corrupt("a failed batch in the catalog cannot be read") from error
            self._kept.setdefault(batch.mapping_id, {})[batch.batch_id] = batch

    def of_mapping(self, mapping_id: str) -> list[FailedBatch]:
        """What the mapping has given up and nobody has dealt with, oldest first."""
        return sorted(self._kept.get(mapping_id, {}).values(), key=lambda batch: batch.at_ms)

    async def keep(
        self,
        discard: Discard,
        *,
        batch: FailedBatch,
        destination: Destination | None,
        namespace: str,
        handler_arn: str,
        stream_arn: str,
        failed: Failed | None,
        event: dict[str, Any],
    ) -> None:
        """Keep a batch; durable in both places when this returns.

        A destination that cannot take it is asked again, for ever: the lane waits.
        """
        document = failure_document(
            discard,
            now_ms=batch.at_ms,
            request_id=batch.batch_id,
            function_arn=handler_arn,
            version="$LATEST",
            shard_id=batch.shard_id,
            stream_arn=stream_arn,
            function_error="Unhandled" if failed is not None else None,
        )
        if failed is not None:
            document["responsePayload"] = {
                "errorType": failed.error_type,
                "errorMessage": failed.message,
            }
        pause = DESTINATION_RETRY_SECONDS
        while destination is not None:
            try:
                await self._send(destination, namespace, batch, document, event)
                break
            except (MillstreamError, OSError) as error:
                logger.error(
                    "a failed batch cannot be stored in %s %s: %s; trying again",
                    destination.kind, destination.name, error,
                )  # fmt: skip
                await trio.sleep(pause)
                pause = min(2 * pause, DESTINATION_RETRY_SECONDS_MAX)
        await self._list(batch)

    async def forget(self, mapping_id: str, batch_id: str) -> None:
        """Take a batch off the list: it has been dealt with."""
        name = f"{mapping_id}/{batch_id}"
        await self._persist(lambda: self._catalog.remove_entry(FAILED_ENTRY, name))
        self._kept.get(mapping_id, {}).pop(batch_id, None)

    async def forget_mapping(self, mapping_id: str) -> None:
        """The mapping is removed, and its list with it."""
        for batch in self.of_mapping(mapping_id):
            await self.forget(mapping_id, batch.batch_id)

    async def _list(self, batch: FailedBatch) -> None:
        kept = self._kept.setdefault(batch.mapping_id, {})
        name = f"{batch.mapping_id}/{batch.batch_id}"
        data = msgspec.msgpack.encode(batch)
        # Doing it again is harmless: an entry is replaced by the same entry.
        await self._persist(lambda: self._catalog.save_entry(FAILED_ENTRY, name, data))
        kept[batch.batch_id] = batch
        while len(kept) > FAILED_BATCHES_KEPT_MAX:
            oldest = self.of_mapping(batch.mapping_id)[0]
            logger.error("failed batch %s is no longer listed: there are too many", oldest.batch_id)
            await self.forget(batch.mapping_id, oldest.batch_id)

    async def _persist(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do a step that may be done twice until it is known to be done."""
        while True:
            try:
                await step()
                return
            except (OutcomeUnknown, Throttled) as error:
                logger.warning("the list of failed batches is stored again: %s", error)
                await trio.sleep(DESTINATION_RETRY_SECONDS)

    async def _send(
        self,
        destination: Destination,
        namespace: str,
        batch: FailedBatch,
        document: dict[str, Any],
        event: dict[str, Any],
    ) -> None:
        whole = {**document, "event": event}
        match destination.kind:
            case "table":
                await self._put(namespace, destination.name, batch, document, event)
            case "directory":
                data = msgspec.json.format(msgspec.json.encode(whole), indent=1)
                directory = f"{destination.name}/{batch.mapping_id}"
                await self._host.threads.run(self._write, directory, batch.batch_id, data)
            case _:
                function = self.callables[batch.mapping_id, destination.name]
                await self._call(function, whole)

    def _write(self, directory: str, name: str, data: bytes) -> None:
        self._host.disk.make_directory(directory)
        self._host.disk.write_file_atomic(f"{directory}/{name}.json", data)

    async def _call(self, function: Callable[[dict[str, Any]], Any], whole: dict[str, Any]) -> None:
        try:
            if is_async(function):
                await function(whole)
            else:
                await trio.to_thread.run_sync(function, whole)
        except MillstreamError:
            raise
        except (Exception, SystemExit) as error:
            raise _DestinationFailed(type(error).__name__) from error

    async def _put(
        self,
        namespace: str,
        name: str,
        batch: FailedBatch,
        document: dict[str, Any],
        event: dict[str, Any],
    ) -> None:
        ref = self._tables.find(namespace, name)
        if ref is None:
            raise _DestinationFailed("there is no such table")
        item: Item = {"failure": to_attribute(document, "failure")}
        text = msgspec.json.encode(event)
        # An item holds 400 KB. What does not fit is still in the stream for a day.
        if len(text) <= FAILURE_EVENT_BYTES_MAX:
            item["event"] = {"S": text.decode()}
        item |= _keys(ref.table, batch)
        body = encode_item(item)
        await ref.write(Put(primary_key(ref.table, item), body, item_size_bytes(item)))


class _DestinationFailed(MillstreamError):
    """A destination did not take a batch."""


def _keys(table: Table, batch: FailedBatch) -> Item:
    """Key attributes by which a batch is filed in a table with whatever key."""
    first = batch.sequences[0] if batch.sequences else 0
    names = [(attribute, batch.batch_id, batch.at_ms) for attribute in table.key.hash]
    names += [(attribute, sequence_text(first), first) for attribute in table.key.range]
    return {attribute.name: _key(attribute, text, number) for attribute, text, number in names}


def _key(attribute: KeyAttribute, text: str, number: int) -> AttributeValue:
    if attribute.kind == "N":
        return {"N": str(number)}
    value: AttributeValue = to_attribute(
        text if attribute.kind == "S" else text.encode(), attribute.name
    )
    return value
