"""Transactions of the Python API: read, decide in Python, then write everything or nothing.

::

    async with db.transaction() as tx:
        source = await tx.get("accounts", {"id": "a"})
        target = await tx.get("accounts", {"id": "b"})
        tx.put("accounts", {**source, "balance": source["balance"] - 10})
        tx.put("accounts", {**target, "balance": target["balance"] + 10})

Optimistic: reads take nothing and hold nothing. At the end of the block everything is sent as one
transaction which also demands that whatever was read is still as it was; if not, nothing happens
and ``TransactionConflict`` is raised: run the block again, or let ``db.transact`` do it. The block
ending with an exception sends nothing. One-shot: after the block the transaction is used up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from .actors.partition import PartitionActor
from .actors.tables import TableRef, Tables, TransactionAction
from .api.calls import Caller
from .api.operations.inputs import find_table, item_key
from .api.operations.levels import Place, meet, meet_write
from .api.operations.transaction_actions import CheckedAction, check_action
from .api.operations.transactions import place, refusal
from .api.requests import (
    ConditionCheck,
    TransactDelete,
    TransactPut,
    TransactUpdate,
    TransactWrite,
)
from .errors import InvalidRequest, TransactionConflict
from .limits import TRANSACTION_ACTIONS_MAX
from .model.python_values import from_item, to_attribute, to_item
from .model.values import decode_item
from .model.versions import NO_VERSION, Version
from .storage.commands import Action, CheckVersion, Contended

Plain = dict[str, Any]


class NamedTable(Protocol):
    """A table of the Python API: of it, the name is all that counts here."""

    @property
    def name(self) -> str: ...


class Transaction:
    """A transaction being put together. Made by ``Database.transaction``."""

    __slots__ = ("_caller", "_read", "_tables", "_used", "_writes")

    def __init__(self, tables: Tables, caller: Caller) -> None:
        self._tables = tables
        self._caller = caller
        self._writes: list[CheckedAction] = []
        #: (table, key) -> the version read.
        self._read: dict[tuple[TableRef, bytes], Version] = {}
        self._used = False

    async def get(self, table: NamedTable | str, key: Plain) -> Plain | None:
        """The item under ``key`` as it is now, or None; the commit demands that it stays so.

        Raises:
            TransactionConflict: another transaction is about to change it.
            ResourceNotFound, InvalidRequest: as ``Table.get``.
        """
        ref = find_table(self._tables, self._caller, _name(table))
        place = item_key(ref.table, to_item(key))
        if self._caller.reading is not None:
            await meet(self._tables, self._caller.reading, [Place(ref, place)])
        (row,) = await self._tables.transact_get([(ref, place)])
        if isinstance(row, Contended):
            raise TransactionConflict("Another transaction is changing an item that was read")
        version = NO_VERSION if row is None else row.version
        if self._read.setdefault((ref, place), version) != version:
            raise TransactionConflict("An item has changed since it was first read")
        return None if row is None else from_item(decode_item(row.body))

    def put(
        self,
        table: NamedTable | str,
        item: Plain,
        *,
        condition: str | None = None,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """Have ``item`` stored, in the place of whatever is under its key."""
        more = _expressions(condition, names, values)
        put = TransactPut(table_name=_name(table), item=to_item(item), **more)
        self._add(TransactWrite(put=put))

    def update(
        self,
        table: NamedTable | str,
        key: Plain,
        update: str,
        *,
        condition: str | None = None,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """Have the item under ``key`` changed by an update expression."""
        more = _expressions(condition, names, values)
        request = TransactUpdate(
            table_name=_name(table), key=to_item(key), update_expression=update, **more
        )
        self._add(TransactWrite(update=request))

    def delete(
        self,
        table: NamedTable | str,
        key: Plain,
        *,
        condition: str | None = None,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """Have the item under ``key`` removed."""
        more = _expressions(condition, names, values)
        delete = TransactDelete(table_name=_name(table), key=to_item(key), **more)
        self._add(TransactWrite(delete=delete))

    def check(
        self,
        table: NamedTable | str,
        key: Plain,
        condition: str,
        *,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """Demand that ``condition`` holds for the item under ``key``, which is not changed."""
        more = _expressions(condition, names, values)
        check = ConditionCheck(table_name=_name(table), key=to_item(key), **more)
        self._add(TransactWrite(condition_check=check))

    def _add(self, write: TransactWrite) -> None:
        if self._used:
            raise InvalidRequest("This transaction has ended; begin another")
        self._writes.append(check_action(write))

    @property
    def is_empty(self) -> bool:
        """Whether nothing was read or recorded."""
        return not self._writes and not self._read

    async def commit(self, more: Sequence[tuple[PartitionActor, Action]] = ()) -> None:
        """Send it; done by the end of the block. ``more`` are actions of the node's own.

        Raises:
            TransactionCanceled: a condition was false or an action impossible; ``reasons`` has one
                entry an action. Nothing has changed.
            TransactionConflict: something read has changed, or another transaction holds an item.
                Nothing has changed; try again from the reads on.
            OutcomeUnknown: it will be wholly there or wholly not.
        """
        if self._used:
            raise InvalidRequest("This transaction has ended; begin another")
        self._used = True
        _, writes = place(self._tables, self._caller, self._writes)
        unwritten = dict(self._read)
        actions: list[TransactionAction] = []
        for write in writes:
            version = unwritten.pop((write.table, write.command.key), None)
            command = write.command
            if version is not None and not isinstance(command, CheckVersion):
                command = msgspec.structs.replace(command, version=version)
            actions.append(TransactionAction(write.table, command))
        for (ref, key), version in unwritten.items():
            actions.append(TransactionAction(ref, CheckVersion(key, version)))
        if not actions:
            return
        if len(actions) > TRANSACTION_ACTIONS_MAX:
            raise InvalidRequest(
                f"A transaction reads and writes at most {TRANSACTION_ACTIONS_MAX} items"
            )
        if self._caller.reading is not None:
            places = [Place(action.table, action.command.key) for action in actions]
            await meet_write(self._tables, self._caller.reading, places)
        outcome = await self._tables.transact_write(
            actions, hops=self._caller.hops, more=more
        )
        if outcome.committed:
            return
        written = outcome.results[: len(writes)]
        refused = msgspec.structs.replace(outcome, results=written)
        error = refusal(refused, self._writes) if written else None
        is_final = isinstance(error, InvalidRequest) or (
            error is not None
            and any(
                reason["Code"] not in ("None", "TransactionConflict") for reason in error.reasons
            )
        )
        if is_final and error is not None:
            raise error
        raise TransactionConflict("Something that the transaction depends on has changed")


def _name(table: NamedTable | str) -> str:
    return table if isinstance(table, str) else table.name


def _expressions(
    condition: str | None, names: Mapping[str, str] | None, values: Mapping[str, Any] | None
) -> dict[str, Any]:
    plain = values or {}
    return {
        "condition_expression": condition,
        "expression_attribute_names": None if names is None else dict(names),
        "expression_attribute_values": None
        if values is None
        else {name: to_attribute(value, name) for name, value in plain.items()},
    }
