"""YCSB-like workloads as streams of signed requests, each a function of its seed.

After "Benchmarking Cloud Serving Systems with YCSB" (Cooper et al., SoCC 2010) and its core
workloads: items of 1 KB in ten fields, keys drawn from a Zipf distribution with constant 0.99,
scrambled so that popular keys are not neighbours. Two tables: ``usertable`` has a partition key
only; ``scantable`` has a sort key and two kinds of collections, of 50 and of 100 items. Besides,
transactions: of four puts of new items, and transfers of money between accounts, which are few on
purpose (``transfers`` makes their tables).

An *operation* is what YCSB counts: one or two requests made one after the other on a connection.
Each request carries the least length of a right answer, so that a server which answers quickly
with nothing is found out.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import msgspec

from .signing import Signer

TABLE = "usertable"
SCAN_TABLE = "scantable"
FIELDS = 10
FIELD_BYTES = 100
QUERY_ITEMS = 50
SCAN_ITEMS_MAX = 100
ZIPF_CONSTANT = 0.99
BATCH_ITEMS = 25
# Where the four puts of a transaction go.
PUTS_IN_ONE_TABLE = (TABLE,) * 4
PUTS_IN_TWO_TABLES = (TABLE, SCAN_TABLE) * 2
ACCOUNT_TABLES = ("checking", "savings")
TRANSFER_CONNECTIONS = 16
TRANSFER_MAX = 100
_PAY = '"UpdateExpression":"SET balance = balance - :a","ConditionExpression":"balance >= :a"'
_RECEIVE = '"UpdateExpression":"SET balance = balance + :a"'
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"

Request: TypeAlias = tuple[bytes, int]
"""The request and the least length of its answer's body in bytes."""
Operation: TypeAlias = tuple[Request, ...]

CREATE_TABLES: tuple[dict[str, Any], ...] = (
    {
        "TableName": TABLE,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
    },
    {
        "TableName": SCAN_TABLE,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "N"},
        ],
        "KeySchema": [
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
    },
)


class Plan(msgspec.Struct, frozen=True):
    """What to generate. ``first`` is the number of the first new key that may be inserted;
    ``uniform`` draws keys evenly instead of by Zipf's law; each of an item's ten fields has
    ``field_bytes``."""

    workload: str
    records: int
    seed: int
    first: int
    uniform: bool = False
    field_bytes: int = FIELD_BYTES

    @property
    def collections(self) -> int:
        """How many collections of each kind ``scantable`` has."""
        return max(1, self.records // 500)


class Maker:
    """Makes the requests of one plan; every method draws from the plan's generator."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._draw = random.Random(f"{plan.seed}/{plan.workload}/{plan.first}")
        self._signer = Signer()
        self._field_bytes = plan.field_bytes
        self._text = "".join(random.Random(plan.seed).choices(_LETTERS, k=1 << 16))
        self._new = itertools.count(plan.first)
        self._keys = self._even_keys() if plan.uniform else self._zipfian_keys()

    # Keys.

    def _even_keys(self) -> Iterator[int]:
        while True:
            yield self._draw.randrange(self.plan.records)

    def _zipfian_keys(self) -> Iterator[int]:
        records = self.plan.records
        weights = itertools.accumulate((rank + 1) ** -ZIPF_CONSTANT for rank in range(records))
        cumulative = list(weights)
        scrambled = list(range(records))
        random.Random(self.plan.seed).shuffle(scrambled)
        while True:
            yield from self._draw.choices(scrambled, cum_weights=cumulative, k=1000)

    # Parts of requests, as JSON text: json.dumps would cost more than all the rest.

    def _value(self) -> str:
        at = self._draw.randrange(len(self._text) - self._field_bytes)
        return self._text[at : at + self._field_bytes]

    def _fields(self) -> str:
        return "".join(f',"field{n}":{{"S":"{self._value()}"}}' for n in range(FIELDS))

    def item(self, number: int) -> str:
        """An item of ``usertable``."""
        return f'{{"pk":{{"S":"user{number:012}"}}{self._fields()}}}'

    def scan_item(self, collection: str, number: int) -> str:
        """An item of ``scantable``."""
        return f'{{"pk":{{"S":"{collection}"}},"sk":{{"N":"{number}"}}{self._fields()}}}'

    def _request(self, operation: str, body: str, answer_bytes_min: int = 2) -> Request:
        return self._signer.request(operation, body.encode()), answer_bytes_min

    # Operations.

    def read(self) -> Operation:
        return (self._get(next(self._keys)),)

    def _get(self, number: int) -> Request:
        body = f'{{"TableName":"{TABLE}","Key":{{"pk":{{"S":"user{number:012}"}}}}}}'
        return self._request("GetItem", body, FIELDS * self._field_bytes)

    def update(self) -> Operation:
        return (self._set(next(self._keys)),)

    def _set(self, number: int) -> Request:
        """Replace one field, as YCSB's update does."""
        body = (
            f'{{"TableName":"{TABLE}","Key":{{"pk":{{"S":"user{number:012}"}}}},'
            f'"UpdateExpression":"SET field{self._draw.randrange(FIELDS)} = :v",'
            f'"ExpressionAttributeValues":{{":v":{{"S":"{self._value()}"}}}}}}'
        )
        return self._request("UpdateItem", body)

    def read_modify_write(self) -> Operation:
        number = next(self._keys)
        return self._get(number), self._set(number)

    def insert(self) -> Operation:
        return self._put(next(self._new))

    def overwrite(self) -> Operation:
        return self._put(next(self._keys))

    def _put(self, number: int) -> Operation:
        body = f'{{"TableName":"{TABLE}","Item":{self.item(number)}}}'
        return (self._request("PutItem", body),)

    def query(self) -> Operation:
        """A whole collection of 50 items."""
        collection = self._draw.randrange(self.plan.collections)
        body = (
            f'{{"TableName":"{SCAN_TABLE}","KeyConditionExpression":"pk = :p",'
            f'"ExpressionAttributeValues":{{":p":{{"S":"fifty{collection}"}}}}}}'
        )
        return (self._request("Query", body, QUERY_ITEMS * FIELDS * self._field_bytes),)

    def scan(self) -> Operation:
        """The first 1 to 100 items of a collection, evenly distributed."""
        limit = self._draw.randint(1, SCAN_ITEMS_MAX)
        collection = self._draw.randrange(self.plan.collections)
        body = (
            f'{{"TableName":"{SCAN_TABLE}","KeyConditionExpression":"pk = :p AND sk >= :s",'
            f'"Limit":{limit},"ExpressionAttributeValues":'
            f'{{":p":{{"S":"hundred{collection}"}},":s":{{"N":"0"}}}}}}'
        )
        return (self._request("Query", body, limit * FIELDS * self._field_bytes),)

    def scan_insert(self) -> Operation:
        number = next(self._new)
        collection = f"hundred{number % self.plan.collections}"
        item = self.scan_item(collection, number + SCAN_ITEMS_MAX)
        return (self._request("PutItem", f'{{"TableName":"{SCAN_TABLE}","Item":{item}}}'),)

    # Transactions. As from an SDK, each has a token of its own.

    def transact(self) -> Operation:
        """Four new items, all or none."""
        return self._transact_puts(PUTS_IN_ONE_TABLE)

    def transact_two_tables(self) -> Operation:
        """The same, two of them in another table and so in another partition."""
        return self._transact_puts(PUTS_IN_TWO_TABLES)

    def _transact_puts(self, tables: tuple[str, ...]) -> Operation:
        number = next(self._new)
        puts = []
        for place, table in enumerate(tables):
            sort_key = f',"sk":{{"N":"{place}"}}' if table == SCAN_TABLE else ""
            key = f'"pk":{{"S":"transaction{number:012}-{place}"}}{sort_key}'
            puts.append(f'{{"Put":{{"TableName":"{table}","Item":{{{key}{self._fields()}}}}}}}')
        return self._transaction(number, puts)

    def transfer(self, accounts: int, tables: tuple[str, ...]) -> Operation:
        """Money from one of so many accounts to another, in another table if there are several."""
        if len(tables) == 1:
            payer, payee = self._draw.sample(range(accounts), 2)
        else:
            # Even numbers are in the first table, odd ones in the second.
            payer = self._draw.randrange(0, accounts, 2)
            payee = self._draw.randrange(1, accounts, 2)
            if self._draw.random() < 0.5:
                payer, payee = payee, payer
        amount = self._draw.randint(1, TRANSFER_MAX)
        updates = [
            f'{{"Update":{{"TableName":"{tables[number % len(tables)]}",'
            f'"Key":{{"pk":{{"S":"account{number}"}}}},{expressions},'
            f'"ExpressionAttributeValues":{{":a":{{"N":"{amount}"}}}}}}}}'
            for number, expressions in ((payer, _PAY), (payee, _RECEIVE))
        ]
        return self._transaction(next(self._new), updates)

    def _transaction(self, number: int, actions: list[str]) -> Operation:
        token = f"{self.plan.seed}-{self.plan.workload}-{number}"
        body = f'{{"TransactItems":[{",".join(actions)}],"ClientRequestToken":"{token}"}}'
        return (self._request("TransactWriteItems", body),)

    # Filling the tables.

    def create_tables(self) -> list[bytes]:
        return [
            self._signer.request("CreateTable", json.dumps(members).encode())
            for members in CREATE_TABLES
        ]

    def describe_tables(self) -> list[bytes]:
        return [
            self._signer.request(
                "DescribeTable", json.dumps({"TableName": members["TableName"]}).encode()
            )
            for members in CREATE_TABLES
        ]

    def fill(self) -> Iterator[Operation]:
        """BatchWriteItem for every record from ``first`` on, without the scan table."""
        numbers = range(self.plan.first, self.plan.records)
        for start in range(0, len(numbers), BATCH_ITEMS):
            yield self._batch(TABLE, map(self.item, numbers[start : start + BATCH_ITEMS]))

    def fill_scans(self) -> Iterator[Operation]:
        """BatchWriteItem for the collections."""
        for collection in range(self.plan.collections):
            for name, count in (("fifty", QUERY_ITEMS), ("hundred", SCAN_ITEMS_MAX)):
                for start in range(0, count, BATCH_ITEMS):
                    numbers = range(start, start + BATCH_ITEMS)
                    items = (self.scan_item(f"{name}{collection}", n) for n in numbers)
                    yield self._batch(SCAN_TABLE, items)

    def _batch(self, table: str, items: Iterator[str]) -> Operation:
        puts = ",".join(f'{{"PutRequest":{{"Item":{item}}}}}' for item in items)
        body = f'{{"RequestItems":{{"{table}":[{puts}]}}}}'
        return (self._request("BatchWriteItem", body),)


class Workload(msgspec.Struct, frozen=True):
    """A mix: with ``share`` of the operations made by ``often``, the rest by ``seldom``.

    ``accounts``: of which it transfers money, None if it does not; such a workload may be refused
    because of a conflict (which is counted, and not tried again), and has 16 connections.
    ``is_optional``: a server that does not know the operation is left out.
    """

    name: str
    title: str
    often: Callable[[Maker], Operation]
    share: float = 1.0
    seldom: Callable[[Maker], Operation] | None = None
    accounts: int | None = None
    is_optional: bool = False


def _transfers(accounts: int, tables: int) -> Workload:
    def make(maker: Maker) -> Operation:
        return maker.transfer(accounts, ACCOUNT_TABLES[:tables])

    name = f"transfer{accounts}" + ("x2" if tables == 2 else "")
    where = "in 2 tables" if tables == 2 else "in 1 table"
    title = f"{name}: transfers between {accounts:,} accounts {where}"
    return Workload(name, title, make, accounts=accounts, is_optional=True)


TRANSFERS = tuple(_transfers(count, tables) for tables in (1, 2) for count in (10, 100, 1000))
TRANSACTIONS = (
    Workload(
        "transact",
        "transact: TransactWriteItems, 4 new items in 1 table",
        Maker.transact,
        is_optional=True,
    ),
    Workload(
        "transact2",
        "transact2: TransactWriteItems, 4 new items in 2 tables",
        Maker.transact_two_tables,
        is_optional=True,
    ),
)

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload("load", "load: PutItem, new items", Maker.insert),
        Workload("A", "A: 50 % GetItem, 50 % UpdateItem", Maker.read, 0.5, Maker.update),
        Workload("B", "B: 95 % GetItem, 5 % UpdateItem", Maker.read, 0.95, Maker.update),
        Workload("C", "C: GetItem", Maker.read),
        Workload("E", "E: 95 % Query of 1-100, 5 % PutItem", Maker.scan, 0.95, Maker.scan_insert),
        Workload(
            "F", "F: 50 % GetItem, 50 % read-modify-write", Maker.read, 0.5, Maker.read_modify_write
        ),
        Workload("query", "query: Query of 50 items", Maker.query),
        Workload("put", "put: PutItem, old items", Maker.overwrite),
        *TRANSACTIONS,
        *TRANSFERS,
    )
}
STANDARD = ("load", "A", "B", "C", "E", "F", "query")
GROUPS = {
    "standard": STANDARD,
    "transactions": tuple(workload.name for workload in TRANSACTIONS),
    "contention": tuple(workload.name for workload in TRANSFERS),
}


def operations(plan: Plan) -> Iterator[Operation]:
    """Endless (``fill`` excepted) operations of the plan's workload."""
    maker = Maker(plan)
    if plan.workload == "fill":
        return itertools.chain(maker.fill(), maker.fill_scans() if plan.first == 0 else ())
    return _mix(maker, WORKLOADS[plan.workload])


def _mix(maker: Maker, workload: Workload) -> Iterator[Operation]:
    # Its own generator: the mix must not depend on how often the others were drawn from.
    draw = random.Random(f"{maker.plan.seed}/mix/{maker.plan.first}")
    while True:
        if workload.seldom is None or draw.random() < workload.share:
            yield workload.often(maker)
        else:
            yield workload.seldom(maker)
