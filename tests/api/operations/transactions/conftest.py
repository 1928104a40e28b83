"""A node for transactions in a few lines: the partition's own machine over memory, one per table.

``db`` answers requests through the real dispatcher. A transaction is decided action by action on
the real state machine, and applied when every action agreed; who holds what is said by the test
(``held``). Protocols between partitions are not this layer's.
"""

from __future__ import annotations

import json
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from millstream.actors.tables import TableStatistics, TransactionAction
from millstream.api.calls import Caller
from millstream.api.dispatch import Dispatcher
from millstream.api.errors import to_wire
from millstream.errors import (
    IdempotentParameterMismatch,
    InvalidRequest,
    MillstreamError,
    TransactionInProgress,
)
from millstream.model.schema import (
    GlobalIndex,
    KeyAttribute,
    KeySchema,
    LocalIndex,
    Projection,
    Status,
    Table,
)
from millstream.model.values import decode_item
from millstream.storage.commands import Check, Checked, Contended, Outcome, Refused, Written
from millstream.storage.rows import Row
from millstream.storage.table_state import TableState
from millstream.storage.tree.btree import BTree
from millstream.storage.tree.memory_store import MemoryStore

CALLER = Caller("space", "key", "us-east-1", "1")


class FakeRef:
    """One table in one partition."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.state = TableState(table, BTree(MemoryStore()), 0, {})

    def get(self, key: bytes) -> Row | None:
        return self.state.get(key)

    async def write(self, command: Any) -> Any:
        result, records = self.decide(command)
        self.apply(records)
        if isinstance(result, InvalidRequest):
            raise result
        return result

    def decide(self, command: Any) -> tuple[Any, Sequence[Any]]:
        if isinstance(command, Check):
            row = self.get(command.key)
            item = None if row is None else decode_item(row.body)
            holds = command.condition.matches(item, command.values)
            return (Checked if holds else Refused)(row), ()
        evaluation = self.state.evaluate(command, 1)
        return evaluation.result, evaluation.records

    def apply(self, records: Sequence[Any]) -> None:
        for record in records:
            self.state.apply(record)
            self.state.applied(record)

    def forget(self, records: Sequence[Any]) -> None:
        for record in records:
            self.state.applied(record)
            self.state._seen.pop(record.key, None)

    def statistics(self) -> TableStatistics:
        totals = self.state.totals[self.table.tree]
        return TableStatistics(totals.count, totals.size_bytes, {})


class FakeTables:
    def __init__(self) -> None:
        self.refs: dict[str, FakeRef] = {}
        #: Keys of items that another transaction holds.
        self.held: set[bytes] = set()
        #: Token -> the hash of its request, and whether it is still being worked on.
        self.tokens: dict[str, bytes] = {}
        self.in_progress: set[str] = set()
        self.breaths = 0
        self.calls = 0

    def find(self, namespace: str, name: str) -> FakeRef | None:
        return self.refs.get(name)

    async def breathe(self) -> None:
        self.breaths += 1

    async def transact_write(
        self,
        actions: Sequence[TransactionAction],
        *,
        token: str | None = None,
        request_hash: bytes = b"",
        hops: int = 0,
    ) -> Outcome:
        self.calls += 1
        if token is not None:
            if token in self.in_progress:
                raise TransactionInProgress
            if token in self.tokens:
                if self.tokens[token] != request_hash:
                    raise IdempotentParameterMismatch
                return Outcome(True, (), True)
        decided: list[tuple[FakeRef, Any, Sequence[Any]]] = []
        for action in actions:
            ref: Any = action.table
            if action.command.key in self.held:
                decided.append((ref, Contended(), ()))
            else:
                decided.append((ref, *ref.decide(action.command)))
        committed = all(isinstance(result, Written | Checked) for _, result, _ in decided)
        for ref, _, records in decided:
            (ref.apply if committed else ref.forget)(records)
        if committed and token is not None:
            self.tokens[token] = request_hash
        return Outcome(committed, tuple(result for _, result, _ in decided))

    async def transact_get(self, reads: Sequence[tuple[FakeRef, bytes]]) -> list[Any]:
        return [Contended() if key in self.held else ref.get(key) for ref, key in reads]


class Refusal(Exception):
    """What the wire would say."""

    def __init__(self, kind: str, message: str | None, body: dict[str, Any]) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message
        self.body = body


class Db:
    """Requests as keyword arguments, answers as decoded JSON."""

    def __init__(self) -> None:
        self.tables = FakeTables()
        self.dispatcher = Dispatcher(self.tables)  # type: ignore[arg-type]

    def call(self, operation: str, **request: Any) -> Any:
        """Raises Refusal for an error answer."""
        body = json.dumps(request).encode()
        try:
            return json.loads(
                drive(self.dispatcher.dispatch(f"DynamoDB_20120810.{operation}", body, CALLER))
            )
        except MillstreamError as error:
            told = json.loads(to_wire(error).body())
            kind = told["__type"].rpartition("#")[2]
            raise Refusal(kind, told.get("message", told.get("Message")), told) from error

    def kind_of(self, operation: str, request: dict[str, Any]) -> str:
        """The kind of the refusal that comes; nothing for success."""
        try:
            self.call(operation, **request)
        except Refusal as refusal:
            return refusal.kind
        return ""

    def write(self, *actions: dict[str, Any], **more: Any) -> Any:
        return self.call("TransactWriteItems", TransactItems=actions, **more)

    def read(self, *gets: dict[str, Any], **more: Any) -> Any:
        return self.call("TransactGetItems", TransactItems=[{"Get": get} for get in gets], **more)

    def put(self, table: str, *items: dict[str, Any]) -> None:
        for item in items:
            self.call("PutItem", TableName=table, Item=item)

    def get(self, table: str, key: dict[str, Any]) -> Any:
        return self.call("GetItem", TableName=table, Key=key).get("Item")

    def refused(self, operation: str, *actions: dict[str, Any], **more: Any) -> str:
        """The message of the refusal that must come; ``Kind: message`` unless a validation."""
        with pytest.raises(Refusal) as caught:
            self.call(operation, TransactItems=actions, **more)
        if caught.value.kind == "ValidationException":
            return str(caught.value.message)
        return str(caught.value)

    def canceled(self, operation: str, *actions: dict[str, Any], **more: Any) -> list[Any]:
        """The CancellationReasons of the cancellation that must come; the message tells them."""
        with pytest.raises(Refusal) as caught:
            self.call(operation, TransactItems=actions, **more)
        refusal = caught.value
        assert refusal.kind == "TransactionCanceledException", refusal
        assert set(refusal.body) == {"__type", "Message", "CancellationReasons"}
        reasons: list[Any] = refusal.body["CancellationReasons"]
        codes = ", ".join(reason["Code"] for reason in reasons)
        assert refusal.message == (
            "Transaction cancelled, please refer cancellation reasons for specific reasons "
            f"[{codes}]"
        )
        return reasons


def drive(coroutine: Coroutine[Any, Any, bytes]) -> bytes:
    """Run what never really waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        answer: bytes = stop.value
        return answer
    raise AssertionError("the fake engine never waits")


def key(hash_name: str, range_name: str | None = None, *, kinds: str = "SS") -> KeySchema:
    range_ = () if range_name is None else (KeyAttribute(range_name, kinds[1]),)
    return KeySchema((KeyAttribute(hash_name, kinds[0]),), range_)


def new_table(name: str, schema: KeySchema, **members: Any) -> Table:
    return Table(
        namespace="space",
        name=name,
        table_id=name,
        status=Status.ACTIVE,
        created_ms=0,
        key=schema,
        attribute_kinds={},
        tree=1,
        partitions=(),
        **members,
    )


@pytest.fixture
def db() -> Db:
    """``plain`` and ``other`` (hash key pk), ``binary`` (pk is B), ``rich`` (pk, sk, indexes)."""
    made = Db()
    rich = new_table(
        "rich",
        key("pk", "sk"),
        local_indexes=(LocalIndex("local", key("pk", "lk"), Projection("ALL"), 2),),
        global_indexes=(
            GlobalIndex(
                "global", key("gk"), Projection("INCLUDE", ("proj",)), 3, (), Status.ACTIVE
            ),
        ),
    )
    for table in (
        new_table("plain", key("pk")),
        new_table("other", key("pk")),
        new_table("binary", key("pk", kinds="B")),
        rich,
    ):
        made.tables.refs[table.name] = FakeRef(table)
    return made
