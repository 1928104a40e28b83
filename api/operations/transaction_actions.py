"""The actions of a TransactWriteItems, from the request to what a partition is asked to do.

DynamoDB looks at an action twice. First at all actions, in their order, as far as the request alone
decides (``check_action``): what it finds refuses the whole request. Then, with the tables, at keys
and index keys (``command_of``): there an empty key value still refuses the request
(``EmptyKeyValue``), and everything else cancels the transaction with one action's ValidationError.

Sources: the conformance suite's recordings of AWS (tier 3, error-messages/transactWriteItems,
validation-ordering/transactions, limits/itemSizeBySurface, of October 2026).
"""

from __future__ import annotations

from typing import Any

import msgspec

from ...errors import InvalidRequest
from ...expressions import Condition, Update, check_update_keys
from ...limits import ITEM_SIZE_BYTES_MAX
from ...model.schema import Table
from ...model.values import Item, check_item, encode_item
from ...storage.checks import ITEM_TOO_LARGE, check_put_item
from ...storage.commands import Check, Delete, Put, UpdateItem
from ..requests import (
    ConditionCheck,
    TransactDelete,
    TransactPut,
    TransactUpdate,
    TransactWrite,
)
from .inputs import check_assigned_types, check_scalar, compile_request, item_key, tree_key

_NO_ACTION = "Invalid Request: TransactWriteRequest should contain Delete or Put or Update request"
_SEVERAL_ACTIONS = "TransactItems can only contain one of Check, Put, Update or Delete"


class CheckedAction(msgspec.Struct, frozen=True):
    """An action that is right as far as the request alone shows it.

    ``size_bytes`` is that of the item to put, else of the key. ``values`` are what the expressions'
    placeholders stand for.
    """

    request: TransactPut | TransactUpdate | TransactDelete | ConditionCheck
    size_bytes: int
    condition: Condition | None
    update: Update | None
    values: dict[str, Any]

    @property
    def key(self) -> Item:
        """What holds at least the key's attributes."""
        request = self.request
        return request.item if isinstance(request, TransactPut) else request.key

    @property
    def wants_item(self) -> bool:
        """Whether a failed condition is to be answered with the item."""
        return self.request.return_values_on_condition_check_failure == "ALL_OLD"


def check_action(write: TransactWrite) -> CheckedAction:
    """Check an action without its table; its values become canonical in place.

    Raises InvalidRequest, which refuses the request as a whole.
    """
    put, delete, check = write.put, write.delete, write.condition_check
    given = [each for each in (put, write.update, delete, check) if each is not None]
    if len(given) != 1:
        raise InvalidRequest(_SEVERAL_ACTIONS if given else _NO_ACTION)
    request = given[0]
    update_text = None
    if isinstance(request, TransactPut):
        size_bytes = check_item(request.item)
        # Only a put shows its size; what an update makes of the item cancels the transaction.
        if size_bytes > ITEM_SIZE_BYTES_MAX:
            raise InvalidRequest(ITEM_TOO_LARGE)
    else:
        size_bytes = check_item(request.key)
        if isinstance(request, TransactUpdate):
            update_text = request.update_expression
    if request.condition_expression is None and update_text is None:
        # Names and values that no expression could use are refused elsewhere, not here
        # (ExtendDB, pull request 169, which compares with AWS).
        return CheckedAction(request, size_bytes, None, None, {})
    able = ("ConditionExpression",)
    compiled = compile_request(
        names=request.expression_attribute_names,
        values=request.expression_attribute_values,
        value_expressions=able if update_text is None else ("UpdateExpression", *able),
        condition=request.condition_expression,
        update=update_text,
    )
    return CheckedAction(
        request,
        size_bytes,
        compiled.condition,
        compiled.update,
        request.expression_attribute_values or {},
    )


def command_of(table: Table, action: CheckedAction) -> Put | UpdateItem | Delete | Check:
    """What the partition of ``action``'s item is asked to do.

    Raises EmptyKeyValue, which refuses the request as a whole, and any other InvalidRequest, which
    cancels the transaction.
    """
    request, condition, values = action.request, action.condition, action.values
    if isinstance(request, TransactPut):
        item = request.item
        check_put_item(table, item, action.size_bytes)
        check_scalar(table, condition)
        body = encode_item(item)
        return Put(tree_key(table, item), body, action.size_bytes, condition, values)
    key = item_key(table, request.key)
    update = action.update
    if update is not None:
        check_update_keys(update, table.key.names())
        check_assigned_types(table, update, values)
        check_scalar(table, update)
    check_scalar(table, condition)
    if isinstance(request, TransactUpdate):
        return UpdateItem(key, request.key, update, condition, values)
    if isinstance(request, TransactDelete):
        return Delete(key, condition, values)
    assert condition is not None, "a ConditionCheck without a condition is not decoded"
    return Check(key, condition, values)
