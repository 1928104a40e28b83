"""TransactWriteItems and TransactGetItems: up to 100 actions, together or not at all.

The order of checks is DynamoDB's: constraints, then all actions as far as the request alone decides
them, then the tables, then keys, then what the partitions find. What is wrong with the request is a
ValidationException; what is wrong with an action cancels the transaction, with a reason in that
action's place. An action that is wrong before the partitions are asked keeps them from being asked,
so the others' conditions are then not looked at, and they have no reason.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from ...actors.tables import TransactionAction
from ...errors import InvalidRequest, TransactionCanceled
from ...expressions import Projection
from ...limits import SLICE_DECODED_BYTES_MAX, TRANSACTION_BYTES_MAX
from ...model.capacity import Consumption, read_units
from ...model.keys import EmptyKeyValue
from ...model.values import Item, check_item, decode_item, encode_item
from ...storage.commands import Checked, Contended, Outcome, Refused, Written
from ...storage.rows import Row
from ..calls import Caller
from ..requests import (
    ConditionCheck,
    TransactGet,
    TransactGetItemsRequest,
    TransactPut,
    TransactWriteItemsRequest,
)
from .consumed import add_write, collection_metrics
from .inputs import check_scalar, compile_request, find_table, item_key, reader
from .levels import Place, meet, meet_write
from .transaction_actions import CheckedAction, check_action, command_of

if TYPE_CHECKING:
    from ...actors.tables import TableRef, Tables

_read_write = reader("TransactWriteItems", TransactWriteItemsRequest)
_read_get = reader("TransactGetItems", TransactGetItemsRequest)

_DUPLICATES = "Transaction request cannot include multiple operations on one item"
# The limit is documented, the sentence is ours: AWS's is not on record.
_TOO_LARGE = "The aggregate size of the items in the transaction cannot exceed 4 MB"
_CANCELED = "Transaction cancelled, please refer cancellation reasons for specific reasons"
_CONDITION_FAILED = "The conditional request failed"
_CONFLICT = "Transaction is ongoing for the item"
_NOTHING = b"{}"
_HASH_BYTES = 16
# Requests that differ in the order of members only are the same: names are sorted here, and values
# are canonical by the time that they are spelled.
_spell = msgspec.json.Encoder(order="sorted").encode


# -- TransactWriteItems --------------------------------------------------------------------------


async def transact_write_items(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """TransactWriteItems: every action takes effect, or none does and each one's reason is told."""
    request = _read_write(body)
    actions = [check_action(write) for write in request.transact_items]
    refs, commands = place(tables, caller, actions)
    token, request_hash = request.client_request_token, b""
    if token is not None:
        token = f"{caller.namespace}/{token}"
        spelled = _spell(request.transact_items)
        request_hash = blake2b(spelled, digest_size=_HASH_BYTES).digest()
    if request.return_item_collection_metrics != "SIZE":
        # As in PutItem: what was decoded goes before the write waits.
        for action in actions:
            if isinstance(action.request, TransactPut):
                action.request.item = {}
    if caller.reading is not None:
        places = [Place(command.table, command.command.key) for command in commands]
        await meet_write(tables, caller.reading, places)
    outcome = await tables.transact_write(
        commands, token=token, request_hash=request_hash, hops=caller.hops
    )
    if not outcome.committed:
        raise refusal(outcome, actions)
    parts = []
    mode = request.return_consumed_capacity
    if mode is not None and mode != "NONE":
        consumed = _Consumed()
        if outcome.replayed:
            _add_replayed(consumed, refs, commands, actions)
        else:
            for ref, action, result in zip(refs, actions, outcome.results, strict=True):
                assert isinstance(result, Written | Checked), "committed without its actions"
                consumption = consumed.of(ref, action.request.table_name)
                add_write(consumption, ref.table, result, transactional=True)
        parts.append(consumed.member(mode))
    if request.return_item_collection_metrics == "SIZE":
        metrics = await _metrics(tables, refs, actions)
        if metrics:
            parts.append(b'"ItemCollectionMetrics":' + msgspec.json.encode(metrics))
    if not parts:
        return _NOTHING
    return b"{" + b",".join(parts) + b"}"


def place(
    tables: Tables, caller: Caller, actions: list[CheckedAction]
) -> tuple[list[TableRef], list[TransactionAction]]:
    """The tables of ``actions`` and what their partitions are asked to do.

    Raises ResourceNotFound for a missing table, and InvalidRequest or TransactionCanceled for what
    is wrong with the actions together or with the tables in view.
    """
    if sum([action.size_bytes for action in actions]) > TRANSACTION_BYTES_MAX:
        raise InvalidRequest(_TOO_LARGE)
    refs = [find_table(tables, caller, action.request.table_name) for action in actions]
    return refs, _commands(refs, actions)


def _commands(refs: list[TableRef], actions: list[CheckedAction]) -> list[TransactionAction]:
    """The commands of all actions.

    Raises InvalidRequest for an empty key value and for two actions on one item, and
    TransactionCanceled for anything else that the tables show to be wrong.
    """
    commands: list[TransactionAction] = []
    refusals: list[InvalidRequest | None] = []
    for ref, action in zip(refs, actions, strict=True):
        try:
            commands.append(TransactionAction(ref, command_of(ref.table, action)))
        except EmptyKeyValue:
            raise
        except InvalidRequest as error:
            refusals.append(error)
        else:
            refusals.append(None)
    if len({(each.table, each.command.key) for each in commands}) < len(commands):
        raise InvalidRequest(_DUPLICATES)
    if len(commands) < len(actions):
        raise _canceled([_reason(refusal) for refusal in refusals])
    return commands


def refusal(
    outcome: Outcome, actions: list[CheckedAction]
) -> InvalidRequest | TransactionCanceled:
    """Why nothing was done. An update to an empty index key refuses the request here as well."""
    for result in outcome.results:
        if isinstance(result, EmptyKeyValue):
            return result
    return _canceled(
        [
            _reason(result, action.wants_item)
            for result, action in zip(outcome.results, actions, strict=True)
        ]
    )


def _add_replayed(
    consumed: _Consumed,
    refs: list[TableRef],
    commands: list[TransactionAction],
    actions: list[CheckedAction],
) -> None:
    """Count what a repeated token costs: a transactional read of each item.

    AWS charges it on the larger image of the first time, which nobody remembers here; what the
    item to put or the item found now shows of it is charged.
    """
    for ref, command, action in zip(refs, commands, actions, strict=True):
        row = ref.get(command.command.key)
        size_bytes = 0 if row is None else row.size_bytes
        if isinstance(action.request, TransactPut):
            size_bytes = max(size_bytes, action.size_bytes)
        consumption = consumed.of(ref, action.request.table_name)
        consumption.add_table(read=read_units(size_bytes, True, transactional=True))


async def _metrics(
    tables: Tables, refs: list[TableRef], actions: list[CheckedAction]
) -> dict[str, list[dict[str, Any]]]:
    """ItemCollectionMetrics of each collection that was written to, by table."""
    collections: dict[tuple[TableRef, bytes], tuple[str, Item]] = {}
    for ref, action in zip(refs, actions, strict=True):
        if not isinstance(action.request, ConditionCheck):
            place = ref, _spell(action.key[ref.table.key.hash[0].name])
            collections.setdefault(place, (action.request.table_name, action.key))
    answer: dict[str, list[dict[str, Any]]] = {}
    for (ref, _), (name, key) in collections.items():
        metrics = await collection_metrics(tables, ref, key)
        if metrics is not None:
            answer.setdefault(name, []).append(metrics)
    return answer


# -- TransactGetItems ----------------------------------------------------------------------------


async def transact_get_items(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """TransactGetItems: the items as they were at one moment, in the order of the request."""
    request = _read_get(body)
    gets = [each.get for each in request.transact_items]
    projections = [_check_get(get) for get in gets]
    refs = [find_table(tables, caller, get.table_name) for get in gets]
    places = _places(refs, gets, projections)
    if caller.reading is not None:
        await meet(tables, caller.reading, [Place(ref, key) for ref, key in places])
    rows = await tables.transact_get(places)
    if any(isinstance(row, Contended) for row in rows):
        raise _canceled([_reason(row) for row in rows])
    consumed = _Consumed()
    responses = []
    total_bytes = slice_bytes = 0
    for get, ref, projection, row in zip(gets, refs, projections, rows, strict=True):
        assert not isinstance(row, Contended), "told above"
        size_bytes = 0 if row is None else row.size_bytes
        total_bytes += size_bytes
        if total_bytes > TRANSACTION_BYTES_MAX:
            raise InvalidRequest(_TOO_LARGE)
        responses.append(_response(row, projection))
        units = read_units(size_bytes, True, transactional=True)
        consumed.of(ref, get.table_name).add_table(read=units)
        if projection is not None:
            slice_bytes += size_bytes
            if slice_bytes > SLICE_DECODED_BYTES_MAX:
                slice_bytes = 0
                await tables.breathe()
    answer = b'{"Responses":[' + b",".join(responses) + b"]"
    mode = request.return_consumed_capacity
    if mode is not None and mode != "NONE":
        answer += b"," + consumed.member(mode)
    return answer + b"}"


def _check_get(get: TransactGet) -> Projection | None:
    """Everything that the request alone decides about one read; its projection."""
    check_item(get.key)
    if get.projection_expression is None:
        return None  # Names without it are accepted, see ``check_action``.
    return compile_request(
        names=get.expression_attribute_names, projection=get.projection_expression
    ).projection


def _places(
    refs: list[TableRef], gets: list[TransactGet], projections: list[Projection | None]
) -> list[tuple[TableRef, bytes]]:
    """Where to read.

    Raises InvalidRequest for two reads of one item and TransactionCanceled for every wrong key,
    empty ones included: there TransactGetItems differs from TransactWriteItems.
    """
    places: list[tuple[TableRef, bytes]] = []
    refusals: list[InvalidRequest | None] = []
    for ref, get, projection in zip(refs, gets, projections, strict=True):
        try:
            key = item_key(ref.table, get.key)
            check_scalar(ref.table, projection)
        except InvalidRequest as error:
            refusals.append(error)
        else:
            refusals.append(None)
            places.append((ref, key))
    if len(set(places)) < len(places):
        raise InvalidRequest(_DUPLICATES)
    if len(places) < len(gets):
        raise _canceled([_reason(refusal) for refusal in refusals])
    return places


def _response(row: Row | None, projection: Projection | None) -> bytes:
    """One of the Responses. A projection that matches nothing leaves no Item, unlike GetItem's."""
    if row is None:
        return _NOTHING
    found = row.body
    if projection is not None:
        item = projection.project(decode_item(found))
        if not item:
            return _NOTHING
        found = encode_item(item)
    return b'{"Item":' + found + b"}"


# -- Both ----------------------------------------------------------------------------------------


class _Consumed:
    """What a transaction consumed, by table, in the order in which the request names them."""

    __slots__ = ("_by_table",)

    def __init__(self) -> None:
        #: With the table's name or ARN as the request spelled it first.
        self._by_table: dict[TableRef, tuple[str, Consumption]] = {}

    def of(self, ref: TableRef, name: str) -> Consumption:
        """What the table consumed until now, to be added to."""
        entry = self._by_table.get(ref)
        if entry is None:
            entry = self._by_table[ref] = name, Consumption()
        return entry[1]

    def member(self, mode: str) -> bytes:
        """The ConsumedCapacity member of the answer, as JSON."""
        return b'"ConsumedCapacity":' + msgspec.json.encode(
            [each.render(name, mode, split=True) for name, each in self._by_table.values()]
        )


def _canceled(reasons: list[dict[str, Any]]) -> TransactionCanceled:
    """The refusal of a transaction; ``reasons`` has one an action, in order."""
    codes = ", ".join([reason["Code"] for reason in reasons])
    return TransactionCanceled(f"{_CANCELED} [{codes}]", reasons)


def _reason(result: object, wants_item: bool = False) -> dict[str, Any]:
    """Why an action that came to ``result`` stands against the transaction, if it does."""
    match result:
        case Refused(found=found):
            reason = {"Code": "ConditionalCheckFailed", "Message": _CONDITION_FAILED}
            if wants_item and found is not None:
                return reason | {"Item": msgspec.Raw(found.body)}
            return reason
        case Contended():
            return {"Code": "TransactionConflict", "Message": _CONFLICT}
        case InvalidRequest():
            return {"Code": "ValidationError", "Message": str(result)}
        case _:
            return {"Code": "None"}
