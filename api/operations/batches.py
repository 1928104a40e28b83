"""BatchGetItem and BatchWriteItem: many items of several tables, none of them together.

A batch is refused as a whole for what is wrong with the request. What a partition throttles comes
back as unprocessed, in an answer that is a success as long as anything was done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import InvalidRequest, Throttled, Unavailable
from ...expressions import Projection, check_not_mixed
from ...limits import (
    BATCH_BYTES_MAX,
    BATCH_GET_KEYS_MAX,
    BATCH_WRITE_REQUESTS_MAX,
    ITEM_SIZE_BYTES_MAX,
    SLICE_DECODED_BYTES_MAX,
)
from ...model.capacity import Consumption, read_units
from ...model.schema import Table
from ...model.values import Item, check_item, decode_item, encode_item
from ...storage.checks import ITEM_TOO_LARGE, check_put_item
from ...storage.commands import Command, Delete, Put
from ..calls import Caller
from ..requests import BatchGetItemRequest, BatchWrite, BatchWriteItemRequest, KeysAndAttributes
from .consumed import add_write, collection_metrics
from .inputs import (
    check_scalar,
    find_table,
    item_key,
    projection_of,
    reader,
    refuse_idle_placeholders,
    tree_key,
)
from .levels import Place, meet, meet_write

if TYPE_CHECKING:
    from ...actors.tables import TableRef, Tables

_read_get = reader("BatchGetItem", BatchGetItemRequest)
_read_write = reader("BatchWriteItem", BatchWriteItemRequest)

_DUPLICATES = "Provided list of item keys contains duplicates"
_NOT_ONE_WRITE = (
    "Supplied AttributeValue has more than one datatypes set, "
    "must contain exactly one of the supported datatypes"
)
# Two spellings of one key compare equal: values are canonical, and names are sorted here.
_spell = msgspec.json.Encoder(order="sorted").encode


# -- BatchGetItem --------------------------------------------------------------------------------


class _Reading(msgspec.Struct):
    """One table's part of a BatchGetItem, ready to be read."""

    name: str
    ref: Any  # A TableRef.
    keys: list[bytes]
    wanted: KeysAndAttributes
    projection: Projection | None


async def batch_get_item(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """BatchGetItem: up to 100 items and 16 MB; what is beyond is left unprocessed."""
    request = _read_get(body)
    requested = request.request_items
    projections = _check_gets(requested)
    readings = []
    for name, wanted in requested.items():
        ref = find_table(tables, caller, name)
        projection = projections.get(name)
        check_scalar(ref.table, projection)
        keys = [item_key(ref.table, key) for key in wanted.keys]
        readings.append(_Reading(name, ref, keys, wanted, projection))
    if caller.reading is not None:
        places = [Place(reading.ref, key) for reading in readings for key in reading.keys]
        await meet(tables, caller.reading, places)
    responses: dict[str, msgspec.Raw] = {}
    unprocessed: dict[str, KeysAndAttributes] = {}
    consumed: dict[str, Consumption] = {}
    bytes_left = BATCH_BYTES_MAX
    for reading in readings:
        consumption = consumed[reading.name] = Consumption()
        bodies, done, bytes_left = await _read(tables, reading, consumption, bytes_left)
        responses[reading.name] = msgspec.Raw(b"[" + b",".join(bodies) + b"]")
        if done < len(reading.keys):
            rest = reading.wanted.keys[done:]
            unprocessed[reading.name] = msgspec.structs.replace(reading.wanted, keys=rest)
    answer: dict[str, Any] = {"Responses": responses, "UnprocessedKeys": unprocessed}
    _add_consumed(answer, consumed, request.return_consumed_capacity)
    return msgspec.json.encode(answer)


def _check_gets(requested: dict[str, KeysAndAttributes]) -> dict[str, Projection | None]:
    """Everything that the request alone decides; the projection of each table."""
    parts = requested.values()
    if sum([len(part.keys) for part in parts]) > BATCH_GET_KEYS_MAX:
        raise InvalidRequest("Too many items requested for the BatchGetItem call")
    # DynamoDB refuses a mixture over several tables too.
    check_not_mixed(
        {"ProjectionExpression": _any(part.projection_expression for part in parts)},
        {"AttributesToGet": _any(part.attributes_to_get for part in parts)},
    )
    projections: dict[str, Projection | None] = {}
    for name, part in requested.items():
        refuse_idle_placeholders(
            part.expression_attribute_names, None, {}, part.projection_expression
        )
        projections[name] = projection_of(part)
        seen: set[bytes] = set()
        for key in part.keys:
            check_item(key)
            seen.add(_spell(key))
        if len(seen) < len(part.keys):
            raise InvalidRequest(_DUPLICATES)
    return projections


def _any(values: Any) -> object | None:
    return next((value for value in values if value is not None), None)


async def _read(
    tables: Tables, reading: _Reading, consumption: Consumption, bytes_left: int
) -> tuple[list[bytes], int, int]:
    """The items found, the number of keys done, and what is left of the 16 MB."""
    get, projection = reading.ref.get, reading.projection
    consistent = bool(reading.wanted.consistent_read)
    bodies: list[bytes] = []
    done = 0
    slice_bytes = SLICE_DECODED_BYTES_MAX
    for key in reading.keys:
        row = get(key)
        size_bytes = 0 if row is None else row.size_bytes
        if size_bytes > bytes_left:
            break
        bytes_left -= size_bytes
        done += 1
        consumption.add_table(read=read_units(size_bytes, consistent))
        if row is None:
            continue
        if projection is None:
            bodies.append(row.body)
            continue
        bodies.append(encode_item(projection.project(decode_item(row.body))))
        slice_bytes -= size_bytes
        if slice_bytes <= 0:
            slice_bytes = SLICE_DECODED_BYTES_MAX
            await tables.breathe()
    else:
        return bodies, done, bytes_left
    # Later tables are left unprocessed as well, so that what is answered first was asked for first.
    return bodies, done, 0


# -- BatchWriteItem ------------------------------------------------------------------------------


async def batch_write_item(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """BatchWriteItem: up to 25 puts and deletes, without conditions."""
    request = _read_write(body)
    requested = request.request_items
    sizes = _check_writes(requested)
    batches: list[tuple[str, TableRef, list[Command]]] = []
    for name, writes in requested.items():
        ref = find_table(tables, caller, name)
        commands = _commands(ref.table, writes, sizes[name], caller.hops)
        if len({command.key for command in commands}) < len(commands):
            raise InvalidRequest(_DUPLICATES)
        batches.append((name, ref, commands))
    if caller.reading is not None:
        places = [Place(ref, command.key) for _, ref, commands in batches for command in commands]
        await meet_write(tables, caller.reading, places, reads=False)
    unprocessed: dict[str, list[BatchWrite]] = {}
    consumed: dict[str, Consumption] = {}
    refusal: Exception | None = None
    done = 0
    for name, ref, commands in batches:
        consumption = consumed[name] = Consumption()
        results = await ref.write_many(commands)
        for write, result in zip(requested[name], results, strict=True):
            if isinstance(result, Throttled | Unavailable):
                refusal = result
                unprocessed.setdefault(name, []).append(write)
                continue
            if isinstance(result, Exception):
                raise result
            done += 1
            if request.return_consumed_capacity is not None:
                add_write(consumption, ref.table, result)
    if refusal is not None and not done:
        raise refusal
    answer: dict[str, Any] = {"UnprocessedItems": unprocessed}
    _add_consumed(answer, consumed, request.return_consumed_capacity)
    if request.return_item_collection_metrics == "SIZE":
        metrics = await _metrics(tables, batches, requested)
        if metrics:
            answer["ItemCollectionMetrics"] = metrics
    return msgspec.json.encode(answer)


def _check_writes(requested: dict[str, list[BatchWrite]]) -> dict[str, list[int]]:
    """Everything that the request alone decides; the sizes of the items to put."""
    if sum([len(writes) for writes in requested.values()]) > BATCH_WRITE_REQUESTS_MAX:
        raise InvalidRequest("Too many items requested for the BatchWriteItem call")
    sizes: dict[str, list[int]] = {}
    for name, writes in requested.items():
        sizes[name] = [_check_write(write) for write in writes]
    return sizes


def _check_write(write: BatchWrite) -> int:
    put, delete = write.put_request, write.delete_request
    if put is not None and delete is None:
        size_bytes = check_item(put.item)
        if size_bytes > ITEM_SIZE_BYTES_MAX:
            raise InvalidRequest(ITEM_TOO_LARGE)
        return size_bytes
    if delete is not None and put is None:
        return check_item(delete.key)
    raise InvalidRequest(_NOT_ONE_WRITE)


def _commands(
    table: Table, writes: list[BatchWrite], sizes: list[int], hops: int
) -> list[Command]:
    commands: list[Command] = []
    for write, size_bytes in zip(writes, sizes, strict=True):
        if write.put_request is not None:
            item = write.put_request.item
            check_put_item(table, item, size_bytes, batch=True)
            body = encode_item(item)
            commands.append(Put(tree_key(table, item), body, size_bytes, hops=hops))
        else:
            assert write.delete_request is not None, "checked by _check_write"
            commands.append(Delete(item_key(table, write.delete_request.key), hops=hops))
    return commands


async def _metrics(
    tables: Tables,
    batches: list[tuple[str, TableRef, list[Command]]],
    requested: dict[str, list[BatchWrite]],
) -> dict[str, list[dict[str, Any]]]:
    """ItemCollectionMetrics of each collection that was written to, by table."""
    answer: dict[str, list[dict[str, Any]]] = {}
    for name, ref, _ in batches:
        hash_name = ref.table.key.hash[0].name
        collections: dict[bytes, Item] = {}
        for write in requested[name]:
            item = _item_of(write)
            collections[_spell(item[hash_name])] = item
        for item in collections.values():
            metrics = await collection_metrics(tables, ref, item)
            if metrics is not None:
                answer.setdefault(name, []).append(metrics)
    return answer


def _item_of(write: BatchWrite) -> Item:
    if write.put_request is not None:
        return write.put_request.item
    assert write.delete_request is not None, "checked by _check_write"
    return write.delete_request.key


def _add_consumed(
    answer: dict[str, Any], consumed: dict[str, Consumption], mode: str | None
) -> None:
    if mode is not None and mode != "NONE":
        answer["ConsumedCapacity"] = [
            consumption.render(name, mode) for name, consumption in consumed.items()
        ]
