"""Operations of our own on triggers, for ``millstream triggers``: what AWS's API has no call for.

``X-Amz-Target: Millstream_20261123.ListTriggers`` and so on, signed and answered like DynamoDB's.
With credentials they take the right to manage functions, since a replay or a redrive runs code.
Functions' mappings are triggers too, under the function's name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import InvalidRequest, MalformedRequest, ResourceNotFound
from ..calls import Caller

if TYPE_CHECKING:
    from ...actors.mappings import Mappings
    from ...lambdas.settings import Mapping

PREFIX = "Millstream_20261123."

_encode = msgspec.json.Encoder().encode


class _Request(msgspec.Struct, rename="pascal", forbid_unknown_fields=True):
    """What all of them take. ``position`` is TRIM_HORIZON, LATEST or seconds since the epoch."""

    name: str | None = None
    position: str | float | None = None
    batch_id: str | None = None


_decode = msgspec.json.Decoder(_Request).decode
TriggerOperation = Callable[["Mappings", Caller, bytes], Awaitable[bytes]]


async def list_triggers(mappings: Mappings, caller: Caller, body: bytes) -> bytes:
    """Every trigger with its table, its state and what it has done."""
    _read(body)
    pairs = zip(
        mappings.list(caller.namespace), mappings.statistics(caller.namespace), strict=True
    )
    return _encode(
        {
            "Triggers": [
                {
                    "Name": mapping.name,
                    "UUID": mapping.uuid,
                    "Table": mapping.table,
                    "State": mapping.state,
                    "IsFunction": mapping.is_function,
                    "LastProcessingResult": mapping.last_processing_result,
                    "LastError": done.last_error,
                    "Records": done.records,
                    "Batches": done.batches,
                    "Failures": done.failures,
                    "Discarded": done.discarded,
                    "Lag": done.lag,
                    "FailedBatches": len(
                        mappings.failed_batches(caller.namespace, mapping.uuid)
                    ),
                }
                for mapping, done in pairs
            ]
        }
    )


async def pause_trigger(mappings: Mappings, caller: Caller, body: bytes) -> bytes:
    """Stop calling the handler; positions are kept."""
    mapping = _find(mappings, caller, _read(body))
    return _state(await mappings.pause(caller.namespace, mapping.uuid))


async def resume_trigger(mappings: Mappings, caller: Caller, body: bytes) -> bytes:
    """Go on where it was paused."""
    mapping = _find(mappings, caller, _read(body))
    return _state(await mappings.resume(caller.namespace, mapping.uuid))


async def reset_trigger(mappings: Mappings, caller: Caller, body: bytes) -> bytes:
    """Go on from another place in the stream."""
    request = _read(body)
    mapping = _find(mappings, caller, request)
    position = request.position
    if position is None:
        raise InvalidRequest("Position is missing: TRIM_HORIZON, LATEST or a time in seconds")
    place = position if isinstance(position, str) else int(position * 1000)
    return _state(await mappings.reset(caller.namespace, mapping.uuid, place))


async def delete_trigger(mappings: Mappings, caller: Caller, body: bytes) -> bytes:
    """Remove a mapping with its positions."""
    mapping = _find(mappings, caller, _read(body))
    return _state(await mappings.delete(caller.namespace, mapping.uuid))


async def list_failed_batches(mappings: Mappings, caller: Caller, body: bytes) -> bytes:
    """Batches that were given up and nobody has dealt with, oldest first."""
    mapping = _find(mappings, caller, _read(body))
    batches = mappings.failed_batches(caller.namespace, mapping.uuid)
    return _encode(
        {
            "FailedBatches": [
                {
                    "BatchId": batch.batch_id,
                    "Records": len(batch.sequences),
                    "Condition": batch.condition,
                    "Attempts": batch.attempts,
                    "ErrorType": batch.error_type,
                    "ErrorMessage": batch.message,
                    "Time": batch.at_ms / 1000,
                }
                for batch in batches
            ]
        }
    )


async def redrive_trigger(mappings: Mappings, caller: Caller, body: bytes) -> bytes:
    """Give a failed batch, or all, to the handler again."""
    request = _read(body)
    mapping = _find(mappings, caller, request)
    taken = await mappings.redrive(caller.namespace, mapping.uuid, request.batch_id)
    left = len(mappings.failed_batches(caller.namespace, mapping.uuid))
    return _encode({"Taken": taken, "Left": left})


TRIGGER_OPERATIONS: dict[str, TriggerOperation] = {
    PREFIX + "DeleteTrigger": delete_trigger,
    PREFIX + "ListFailedBatches": list_failed_batches,
    PREFIX + "ListTriggers": list_triggers,
    PREFIX + "PauseTrigger": pause_trigger,
    PREFIX + "RedriveTrigger": redrive_trigger,
    PREFIX + "ResetTrigger": reset_trigger,
    PREFIX + "ResumeTrigger": resume_trigger,
}


def _read(body: bytes) -> _Request:
    try:
        return _decode(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequest(f"The request cannot be read: {error}") from None


def _find(mappings: Mappings, caller: Caller, request: _Request) -> Mapping:
    """The mapping that ``Name`` means: a name, or the UUID where a name stands for several."""
    if request.name is None:
        raise InvalidRequest("Name is missing")
    found = [
        mapping
        for mapping in mappings.list(caller.namespace)
        if request.name in (mapping.name, mapping.uuid)
    ]
    if not found:
        raise ResourceNotFound(f"There is no trigger {request.name!r}")
    if len(found) > 1:
        raise InvalidRequest(f"{request.name!r} has several mappings: give the UUID of one")
    return found[0]


def _state(mapping: Mapping) -> bytes:
    answer: dict[str, Any] = {"Name": mapping.name, "State": mapping.state}
    return _encode(answer)
