"""``context.transaction`` of a handler in a worker process: both ends of the channel.

In the worker, writes are recorded and travel with the handler's answer; ``get`` is a question that
the node answers. Plain values are checked where the handler gives them and travel as DynamoDB
JSON. In the node, the writes are recorded a second time, in the transaction that the invoker was
given; its refusals (an expression that does not parse, a table that does not exist) fail the
invocation after the handler has returned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ..errors import InvalidRequest, MillstreamError
from ..limits import TRANSACTION_ACTIONS_MAX
from ..model.python_values import from_item, to_attribute, to_item
from ..model.values import check_item
from .context import HandlerTransaction, NamedTable
from .protocol import Ask, Item, Refused, Write

# In the worker, which imports this module with the first transaction.


class _Recorder:
    """Records what a handler wants written; values are checked at once, where they are given."""

    __slots__ = ("_ask", "writes")

    def __init__(self, ask: Callable[[Ask], bytes | None]) -> None:
        #: Asks the node for an item's DynamoDB JSON. Raises what the node refuses by.
        self._ask = ask
        #: At most as many as a transaction may have.
        self.writes: list[Write] = []

    def put(self, table: NamedTable | str, item: dict[str, Any], **more: Any) -> None:
        """Have ``item`` stored, in the place of whatever is under its key."""
        self._record("put", table, item, **more)

    def update(
        self, table: NamedTable | str, key: dict[str, Any], update: str, **more: Any
    ) -> None:
        """Have the item under ``key`` changed by an update expression."""
        self._record("update", table, key, update=update, **more)

    def delete(self, table: NamedTable | str, key: dict[str, Any], **more: Any) -> None:
        """Have the item under ``key`` removed."""
        self._record("delete", table, key, **more)

    def check(
        self, table: NamedTable | str, key: dict[str, Any], condition: str, **more: Any
    ) -> None:
        """Demand that ``condition`` holds for the item under ``key``, which is not changed."""
        self._record("check", table, key, condition=condition, **more)

    def _record(
        self,
        kind: str,
        table: NamedTable | str,
        subject: dict[str, Any],
        *,
        update: str = "",
        condition: str | None = None,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        if len(self.writes) >= TRANSACTION_ACTIONS_MAX:
            raise InvalidRequest(
                f"A transaction reads and writes at most {TRANSACTION_ACTIONS_MAX} items"
            )
        write = Write(
            kind,
            _name(table),
            _said(subject),
            update,
            condition,
            None if names is None else dict(names),
            None if values is None else _said_values(values),
        )
        self.writes.append(write)

    def _item(self, table: NamedTable | str, key: dict[str, Any]) -> dict[str, Any] | None:
        body = self._ask(Ask(_name(table), _said(key)))
        return None if body is None else from_item(msgspec.json.decode(body))


class WorkerTransaction(_Recorder):
    """``context.transaction`` of a ``def`` handler."""

    def get(self, table: NamedTable | str, key: dict[str, Any]) -> dict[str, Any] | None:
        """The item under ``key``, or None; the commit demands that it stays so."""
        return self._item(table, key)


class AsyncWorkerTransaction(_Recorder):
    """``context.transaction`` of an ``async def`` handler."""

    async def get(self, table: NamedTable | str, key: dict[str, Any]) -> dict[str, Any] | None:
        """The item under ``key``, or None; the commit demands that it stays so."""
        # The node answers within a fraction of a millisecond: a thread would take longer.
        return self._item(table, key)


def _name(table: NamedTable | str) -> str:
    return table if isinstance(table, str) else table.name


def _said(item: dict[str, Any]) -> bytes:
    return msgspec.json.encode(to_item(item))


def _said_values(values: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode({name: to_attribute(value, name) for name, value in values.items()})


# In the node.


async def answer(ask: Ask, transaction: HandlerTransaction) -> Item | Refused:
    """What a handler in a worker has asked for."""
    try:
        item = await transaction.get(ask.table, _plain(ask.key))
    except MillstreamError as error:
        return Refused(type(error).__name__, str(error))
    return Item(None if item is None else _said(item))


def replay(writes: list[Write], transaction: HandlerTransaction) -> None:
    """Record what a worker's handler has recorded. Raises MillstreamError, as recording does."""
    for write in writes:
        subject = _plain(write.subject)
        values = None if write.values is None else _plain(write.values)
        match write.kind:
            case "put":
                transaction.put(
                    write.table,
                    subject,
                    condition=write.condition,
                    names=write.names,
                    values=values,
                )
            case "update":
                transaction.update(
                    write.table,
                    subject,
                    write.update,
                    condition=write.condition,
                    names=write.names,
                    values=values,
                )
            case "delete":
                transaction.delete(
                    write.table,
                    subject,
                    condition=write.condition,
                    names=write.names,
                    values=values,
                )
            case "check":
                transaction.check(
                    write.table,
                    subject,
                    write.condition or "",
                    names=write.names,
                    values=values,
                )
            case _:
                raise InvalidRequest("A worker has recorded what is no action")


def _plain(data: bytes) -> dict[str, Any]:
    # Whatever the worker sends is the user's, who may have gone round our recorder.
    try:
        item = msgspec.json.decode(data)
    except msgspec.MsgspecError:
        raise InvalidRequest("A worker has sent what is no item") from None
    check_item(item)
    return from_item(item)
