"""The accounts that transfers move money between: made, and counted again after each run.

A transfer that is applied in part, twice, or lost on one side changes the total, whatever its
answer was, so every server is held to it.
"""

from __future__ import annotations

import json
from typing import Any

from .client import RequestFailed, Server, exchange
from .servers import MOTO, prepare
from .signing import Signer
from .workloads import ACCOUNT_TABLES, BATCH_ITEMS

ACCOUNTS = 1000
BALANCE = 1_000_000
"""More than any account can lose in a run: conditions hold, and only conflicts refuse."""


def why_not(server: Server) -> str:
    """What keeps the server from taking part in transactions; empty if nothing does."""
    if server.name == MOTO:
        return "answers 500 to transactions that meet, whatever their items"
    request = Signer().request("TransactWriteItems", b'{"TransactItems":[]}')
    if b"UnknownOperation" in exchange(server.port, request)[1]:
        return "does not know the operation"
    return ""


def open_accounts(server: Server) -> None:
    """Both tables, with all accounts in each."""
    signer = Signer()

    def of_each(operation: str, more: dict[str, Any]) -> list[bytes]:
        tables = [json.dumps({"TableName": table, **more}) for table in ACCOUNT_TABLES]
        return [signer.request(operation, members.encode()) for members in tables]

    schema = {
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
    }
    prepare(server, of_each("CreateTable", schema), of_each("DescribeTable", {}))
    for table in ACCOUNT_TABLES:
        for first in range(0, ACCOUNTS, BATCH_ITEMS):
            puts = [
                {
                    "PutRequest": {
                        "Item": {"pk": {"S": f"account{n}"}, "balance": {"N": f"{BALANCE}"}}
                    }
                }
                for n in range(first, first + BATCH_ITEMS)
            ]
            _call(server, signer, "BatchWriteItem", {"RequestItems": {table: puts}})


def check_total(server: Server) -> None:
    """Raises RequestFailed if money has come or gone."""
    signer = Signer()
    total = 0
    for table in ACCOUNT_TABLES:
        found = _call(server, signer, "Scan", {"TableName": table, "ConsistentRead": True})
        total += sum(int(item["balance"]["N"]) for item in found["Items"])
    wanted = ACCOUNTS * BALANCE * len(ACCOUNT_TABLES)
    if total != wanted:
        raise RequestFailed(f"{server.name}: the accounts hold {total:,} together, not {wanted:,}")


def _call(server: Server, signer: Signer, operation: str, members: dict[str, Any]) -> Any:
    """The answer, read. Raises RequestFailed for an error."""
    request = signer.request(operation, json.dumps(members).encode())
    status, body = exchange(server.port, request)
    if status != 200:
        raise RequestFailed(f"{server.name}: {operation} answered {status}: {body[:300]!r}")
    return json.loads(body)
