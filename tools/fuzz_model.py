"""What must be in the tables after the requests that ``fuzz`` has sent: a dict for each table.

A refused request must have changed nothing, a read neither, a put exactly its key, to exactly what
was sent. Only what an update makes of an item is taken from the server, and looked at for sense.
The rules of equality are written here once more, by other means than the server's.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from decimal import Context, Decimal
from typing import Any

from .fuzz_requests import COUNTED, GLOBAL_INDEX, LOCAL_INDEX, TABLE

Item = dict[str, Any]
Key = tuple[Any, ...]
Call = Callable[[str, dict[str, Any]], tuple[int, dict[str, Any]]]

KEY_NAMES = ("pk", "sk")
_KEY_TYPES = {TABLE: ("S", "S"), COUNTED: ("N", "B")}
_TAGS = frozenset({"S", "N", "B", "SS", "NS", "BS", "L", "M", "NULL", "BOOL"})
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_EXACT = Context(prec=60, Emin=-10_000, Emax=10_000)


class Wrong(Exception):
    """The server did what it must not do; says what."""


def number_of(text: Any) -> Decimal:
    """The number in ``text``. Raises ``Wrong`` for what DynamoDB takes for none."""
    if not isinstance(text, str) or _NUMBER.fullmatch(text) is None:
        raise Wrong(f"{str(text)[:60]!r} was taken for a number")
    return _EXACT.create_decimal(text)


def plain(value: Any) -> Any:
    """A hashable form of an attribute value, equal for equal values."""
    # Tags that nobody knows and nulls are passed over, as on AWS.
    known = value.items() if isinstance(value, dict) else ()
    members = [(tag, each) for tag, each in known if tag in _TAGS and each is not None]
    if len(members) != 1:
        raise Wrong(f"{str(value)[:200]} was taken for an attribute value")
    ((tag, content),) = members
    match tag:
        case "S":
            return tag, content
        case "N":
            return tag, number_of(content)
        case "B":
            return tag, base64.b64decode(content)
        case "SS":
            return tag, frozenset(content)
        case "NS":
            return tag, frozenset(map(number_of, content))
        case "BS":
            return tag, frozenset(map(base64.b64decode, content))
        case "L":
            return tag, tuple(map(plain, content))
        case "M":
            return tag, frozenset((name, plain(each)) for name, each in content.items())
        case "NULL" | "BOOL":
            return tag, str(content).lower() in ("true", "1", "yes")
    raise AssertionError(tag)


def plain_item(item: Item) -> Any:
    """A hashable form of an item."""
    return frozenset((name, plain(value)) for name, value in item.items())


class Model:
    """The items of the tables that the item requests are about."""

    def __init__(self) -> None:
        self.items: dict[str, dict[Key, Item]] = {TABLE: {}, COUNTED: {}}

    def key(self, table: str, members: Item) -> Key:
        """The key in ``members``. Raises ``Wrong`` if it is none of ``table``'s."""
        for name, tag in zip(KEY_NAMES, _KEY_TYPES[table], strict=True):
            if plain(members.get(name))[0] != tag:
                raise Wrong(f"a key of {table} is {str(members)[:200]}")
        return tuple(plain(members[name]) for name in KEY_NAMES)

    def succeeded(self, operation: str, body: bytes, answer: dict[str, Any], call: Call) -> None:
        """A request with ``body`` was answered by 200. Raises ``Wrong``."""
        if operation not in ("PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem"):
            return
        request = json.loads(body)
        if operation == "BatchWriteItem":
            # Nothing is unprocessed while one client writes as it is answered.
            if answer.get("UnprocessedItems"):
                raise Wrong(f"unprocessed: {str(answer)[:200]}")
            for name, writes in request["RequestItems"].items():
                for write in writes:
                    self._write(table_of(name), write)
            return
        table = table_of(request["TableName"])
        if operation == "PutItem":
            self._write(table, {"PutRequest": request})
        elif operation == "DeleteItem":
            self._write(table, {"DeleteRequest": request})
        else:
            self._adopt(table, request["Key"], call)

    def _write(self, table: str, write: dict[str, Any]) -> None:
        put, delete = write.get("PutRequest"), write.get("DeleteRequest")
        if put is not None:
            item = put["Item"]
            self.items[table][self.key(table, item)] = item
        elif delete is not None:
            self.items[table].pop(self.key(table, delete["Key"]), None)

    def _adopt(self, table: str, key: Item, call: Call) -> None:
        members = {name: key[name] for name in KEY_NAMES}
        status, answer = call(
            "GetItem", {"TableName": table, "Key": members, "ConsistentRead": True}
        )
        if status != 200 or "Item" not in answer:
            raise Wrong(f"an updated item is not there: {status} {str(answer)[:200]}")
        item = answer["Item"]
        if self.key(table, item) != self.key(table, key):
            raise Wrong(f"the item of {key} has the key of {str(item)[:200]}")
        plain_item(item)
        self.items[table][self.key(table, key)] = item

    def check(self, call: Call) -> None:
        """Compare the tables and their indexes with what must be there. Raises ``Wrong``."""
        texts: dict[str, list[tuple[Item, str]]] = {}
        for table, expected in self.items.items():
            found = {}
            texts[table] = []
            for item in scan(call, table, None):
                key = self.key(table, item)
                if key in found:
                    raise Wrong(f"{table} holds {key} twice")
                found[key] = item
                texts[table].append((item, json.dumps(item, sort_keys=True)))
            for key in found.keys() | expected.keys():
                _compare(table, key, expected.get(key), found.get(key))
        for index, names in ((LOCAL_INDEX, ["rank"]), (GLOBAL_INDEX, ["group", "rank"])):
            wanted = sorted(text for item, text in texts[TABLE] if all(map(item.get, names)))
            # A global index follows; it is never long behind one client.
            for attempt in range(200):
                entries = sorted(
                    json.dumps(item, sort_keys=True) for item in scan(call, TABLE, index)
                )
                if entries == wanted:
                    break
                if index == LOCAL_INDEX or attempt == 199:
                    raise Wrong(
                        f"{index} has {len(entries)} entries, not the {len(wanted)} of its table: "
                        f"{str(set(entries) ^ set(wanted))[:500]}"
                    )

    def size_bytes(self) -> int:
        """About what there is in the tables."""
        return sum(len(json.dumps(list(items.values()))) for items in self.items.values())


def table_of(name: str) -> str:
    """The name in a name or an ARN."""
    table = name.rpartition("/")[2]
    if table not in _KEY_TYPES:
        raise Wrong(f"{name[:80]!r} was taken for a table")
    return table


def scan(call: Call, table: str, index: str | None) -> Iterator[Item]:
    """All items of a table or index."""
    members: dict[str, Any] = {"TableName": table}
    if index is None:
        members["ConsistentRead"] = True
    else:
        members["IndexName"] = index
    while True:
        status, answer = call("Scan", members)
        if status != 200:
            raise Wrong(f"a Scan of {index or table} is refused: {str(answer)[:300]}")
        yield from answer["Items"]
        if "LastEvaluatedKey" not in answer:
            return
        members["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


def _compare(table: str, key: Key, expected: Item | None, found: Item | None) -> None:
    if found is None or expected is None:
        state = "is gone" if found is None else f"was never written: {str(found)[:300]}"
        raise Wrong(f"{str(key)[:200]} of {table} {state}")
    if found == expected or plain_item(found) == plain_item(expected):
        return
    names = [n for n in found.keys() | expected.keys() if found.get(n) != expected.get(n)]
    raise Wrong(
        f"{str(key)[:200]} of {table} differs in {str(names)[:200]}: "
        f"{str(found)[:300]} is there, {str(expected)[:300]} was sent"
    )
