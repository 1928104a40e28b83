"""Clients that know what they wrote: ``crash``'s and ``powercut``'s load, and what must be found.

Every key belongs to one writer, which makes one request at a time; so at any moment a key has one
state that is certain, and besides it at most one that is in doubt. After a crash an item must be in
a state that is possible; a whole, exact, earlier-than-acknowledged item is as much a loss as none.

Items carry a checksum over their other attributes, so that a half-written one is recognised as such
whatever is believed of it. The table has a global index (``by-group``, sparse, everything
projected) and a local one (``by-rank``, sparse, keys only); a few keys are longer than an LMDB key.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias
from urllib.parse import urlsplit

TABLE = "crash"
GLOBAL_INDEX = "by-group"
LOCAL_INDEX = "by-rank"
INDEX_SECONDS_MAX = 30.0
TIMEOUT_SECONDS = 30.0

# Refusals that are no fault: nothing has changed, try again.
_PASSING = frozenset(
    {"ServiceUnavailable", "ProvisionedThroughputExceededException", "ThrottlingException"}
)

Item: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[str, int]
State: TypeAlias = Item | None
"""An item, or None: there is none."""

CREATE_TABLE: dict[str, Any] = {
    "TableName": TABLE,
    "BillingMode": "PAY_PER_REQUEST",
    "AttributeDefinitions": [
        {"AttributeName": "owner", "AttributeType": "S"},
        {"AttributeName": "number", "AttributeType": "N"},
        {"AttributeName": "group", "AttributeType": "S"},
        {"AttributeName": "rank", "AttributeType": "N"},
    ],
    "KeySchema": [
        {"AttributeName": "owner", "KeyType": "HASH"},
        {"AttributeName": "number", "KeyType": "RANGE"},
    ],
    "GlobalSecondaryIndexes": [
        {
            "IndexName": GLOBAL_INDEX,
            "KeySchema": [{"AttributeName": "group", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "ALL"},
        }
    ],
    "LocalSecondaryIndexes": [
        {
            "IndexName": LOCAL_INDEX,
            "KeySchema": [
                {"AttributeName": "owner", "KeyType": "HASH"},
                {"AttributeName": "rank", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }
    ],
}


def keyed_by(attribute: str, table: str) -> dict[str, Any]:
    """CreateTable's members for a table whose whole key is one string."""
    return {
        "TableName": table,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": attribute, "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": attribute, "KeyType": "HASH"}],
    }


class Connection:
    """One HTTP connection, one request at a time, without retries: an answer or an OSError."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        assert parts.hostname is not None
        self._http = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_SECONDS)
        self._http.connect()
        #: The client's port, by which a trace of the server knows the connection.
        self.port = int(self._http.sock.getsockname()[1])

    def call(
        self, operation: str, members: Mapping[str, Any], service: str = "DynamoDB_20120810"
    ) -> tuple[int, dict[str, Any]]:
        """Status and answer. Raises OSError when the connection breaks: the outcome is unknown."""
        body = json.dumps(members).encode()
        headers = {
            "X-Amz-Target": f"{service}.{operation}",
            "Content-Type": "application/x-amz-json-1.0",
            # Without credentials the server takes any signature that looks like one.
            "Authorization": "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/dynamodb/"
            f"aws4_request, SignedHeaders=host, Signature={'0' * 64}",
            "X-Amz-Date": "20260101T000000Z",
        }
        # A connection that was closed must not be opened again behind our back.
        self._http.auto_open = 0
        try:
            self._http.request("POST", "/", body, headers)
            response = self._http.getresponse()
            answer = response.read()
        except http.client.HTTPException as error:
            raise OSError(f"the connection broke: {error!r}") from error
        try:
            return response.status, json.loads(answer)
        except ValueError as error:
            raise OSError("the answer is not JSON") from error

    def get(
        self, operation: str, members: Mapping[str, Any], service: str = "DynamoDB_20120810"
    ) -> dict[str, Any]:
        """The answer to a request that must succeed."""
        status, answer = self.call(operation, members, service)
        if status != 200:
            raise AssertionError(f"{operation} answered {status}: {answer}")
        return answer

    def pages(self, operation: str, members: Mapping[str, Any]) -> list[Item]:
        """All items of a Scan or Query."""
        found: list[Item] = []
        members = dict(members)
        while True:
            page = self.get(operation, members)
            found += page["Items"]
            if "LastEvaluatedKey" not in page:
                return found
            members["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def create_tables(self, requests: Iterable[Mapping[str, Any]]) -> None:
        """Make tables, all at once, and wait until they are there."""
        requests = list(requests)
        for request in requests:
            self.get("CreateTable", request)
        for request in requests:
            members = {"TableName": request["TableName"]}
            while self.get("DescribeTable", members)["Table"]["TableStatus"] != "ACTIVE":
                time.sleep(0.01)

    def close(self) -> None:
        self._http.close()


def create_table(endpoint: str) -> int:
    """Make the table and wait until it is there; the port from which it was asked for."""
    connection = Connection(endpoint)
    try:
        connection.create_tables([CREATE_TABLE])
        return connection.port
    finally:
        connection.close()


def key_of(item: Item) -> Key:
    return item["owner"]["S"], int(item["number"]["N"])


def key_members(key: Key) -> Item:
    return {"owner": {"S": key[0]}, "number": {"N": str(key[1])}}


def checksum_of(item: Item) -> str:
    """Over every attribute but the checksum itself."""
    rest = {name: value for name, value in item.items() if name != "checksum"}
    return f"{zlib.crc32(json.dumps(rest, sort_keys=True).encode()):08x}"


class Step:
    """One request as its writer remembers it: the states that it gives its keys if it takes effect.

    ``phase``, ``port`` and ``nth`` place it in a trace: the nth request on the connection from
    ``port`` to the server of that phase. ``took`` is False if it was answered with a refusal, None
    if the answer was that nobody knows.
    """

    __slots__ = ("nth", "phase", "port", "states", "took")

    def __init__(self, phase: int, port: int, nth: int, states: dict[Key, State]) -> None:
        self.phase = phase
        self.port = port
        self.nth = nth
        self.states = states
        self.took: bool | None = True


class Writer(threading.Thread):
    """Writes its own keys at ``endpoint`` until ``stop`` is set or the server is gone.

    ``beliefs`` maps each key ever written to its possible states, the certain one first; it
    outlives the thread, and the next writer of the same number goes on with it. ``steps`` receives
    every request when given. ``wrong`` collects what must not be.
    """

    def __init__(
        self,
        number: int,
        endpoint: str,
        seed: int,
        beliefs: dict[Key, list[State]],
        stop: threading.Event,
        *,
        keys: int = 60,
        phase: int = 0,
        steps: list[Step] | None = None,
        writes_max: int | None = None,
    ) -> None:
        super().__init__(name=f"writer-{number}", daemon=True)
        self._number = number
        self._endpoint = endpoint
        self._random = random.Random(f"{seed}/{number}/{phase}")
        self._beliefs = beliefs
        self._stopping = stop
        self._keys = keys
        self._phase = phase
        self._steps = steps
        self._writes_max = writes_max
        self._connection: Connection
        self._sent = 0
        #: Makes every item written different from every other.
        self._serial = self._random.randrange(1 << 40)
        self.acknowledged = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        """Write until it is over."""
        try:
            self._connection = Connection(self._endpoint)
        except OSError:
            return
        try:
            for key, states in list(self._beliefs.items()):
                if len(states) > 1:
                    self._look(key)
            while not self._stopping.is_set() and not self.wrong:
                if self._writes_max is not None and self.acknowledged >= self._writes_max:
                    return
                self._step()
        except OSError:
            pass
        finally:
            self._connection.close()

    def _step(self) -> None:
        choice = self._random.random()
        key = self._key()
        now = self._beliefs.get(key, [None])[0]
        if choice < 0.40:
            item = self._item(key)
            self._write("PutItem", {"Item": item}, {key: item})
        elif choice < 0.55:
            self._conditional_put(key, now)
        elif choice < 0.75:
            self._update(key, now)
        elif choice < 0.85:
            self._write("DeleteItem", {"Key": key_members(key)}, {key: None})
        elif choice < 0.92:
            self._batch()
        else:
            self._look(key)

    # Requests.

    def _conditional_put(self, key: Key, now: State) -> None:
        item = self._item(key)
        if self._random.random() < 0.5:
            members: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(#o)"}
            members["ExpressionAttributeNames"] = {"#o": "owner"}
            holds = now is None
        else:
            serial = {"N": "0"} if now is None else now["serial"]
            members = {
                "ConditionExpression": "#s = :s",
                "ExpressionAttributeNames": {"#s": "serial"},
                "ExpressionAttributeValues": {":s": serial},
            }
            holds = now is not None
        self._write("PutItem", {"Item": item, **members}, {key: item}, holds=holds)

    def _update(self, key: Key, now: State) -> None:
        """Change every attribute to those of a new item, some by REMOVE."""
        item = self._item(key)
        names = sorted({*item, *(now or {})} - {"owner", "number"})
        given = [name for name in names if name in item]
        gone = [name for name in names if name not in item]
        expression = "SET " + ", ".join(f"#{name} = :{name}" for name in given)
        if gone:
            expression += " REMOVE " + ", ".join(f"#{name}" for name in gone)
        self._write(
            "UpdateItem",
            {
                "Key": key_members(key),
                "UpdateExpression": expression,
                "ExpressionAttributeNames": {f"#{name}": name for name in names},
                "ExpressionAttributeValues": {f":{name}": item[name] for name in given},
            },
            {key: item},
        )

    def _batch(self) -> None:
        states: dict[Key, State] = {}
        for _ in range(self._random.randrange(2, 12)):
            key = self._key()
            states[key] = None if self._random.random() < 0.3 else self._item(key)
        requests = [
            {"DeleteRequest": {"Key": key_members(key)}}
            if state is None
            else {"PutRequest": {"Item": state}}
            for key, state in states.items()
        ]
        self._write("BatchWriteItem", {"RequestItems": {TABLE: requests}}, states)

    def _write(
        self,
        operation: str,
        members: dict[str, Any],
        states: dict[Key, State],
        *,
        holds: bool = True,
    ) -> None:
        """Send a write; while it is under way, every key that it touches is in doubt."""
        step = self._note(states if holds else {})
        before = {key: self._beliefs.get(key, [None]) for key in states}
        if holds:
            for key, state in states.items():
                self._beliefs[key] = [*before[key], state]
        if "RequestItems" not in members:
            members = {"TableName": TABLE, **members}
        status, answer = self._connection.call(operation, members)
        kind = str(answer.get("__type", "")).rpartition("#")[2]
        if status == 200 and holds:
            unprocessed = _keys_in(answer.get("UnprocessedItems", {}).get(TABLE, []))
            for key, state in states.items():
                self._beliefs[key] = before[key] if key in unprocessed else [state]
            for key in unprocessed:
                del step.states[key]
            self.acknowledged += 1
        elif status == 200:
            self.wrong.append(f"{operation} was accepted though its condition was false: {states}")
        elif status >= 500 and kind != "ServiceUnavailable":
            step.took = None
            for key in states:
                self._look(key)
        elif kind == "ConditionalCheckFailedException" and holds:
            self.wrong.append(f"{operation} was refused though its condition was true: {states}")
        else:
            # Refused: nothing has changed.
            step.took = False
            self._beliefs.update(before)
            if kind != "ConditionalCheckFailedException":
                self._pause(kind, answer)

    def _pause(self, kind: str, answer: dict[str, Any]) -> None:
        if kind in _PASSING:
            time.sleep(0.01)
        else:
            self.wrong.append(f"an answer that nobody expected: {answer}")

    def _look(self, key: Key) -> None:
        """Read a key: what is there must be possible, and is certain from now on."""
        step = self._note({})
        answer = self._connection.get(
            "GetItem", {"TableName": TABLE, "Key": key_members(key), "ConsistentRead": True}
        )
        found = answer.get("Item")
        if found not in self._beliefs.get(key, [None]):
            self.wrong.append(f"{key} reads {found}, not {self._beliefs.get(key)}")
        self._beliefs[key] = [found]
        step.states[key] = found

    def _note(self, states: dict[Key, State]) -> Step:
        step = Step(self._phase, self._connection.port, self._sent, dict(states))
        self._sent += 1
        if self._steps is not None:
            self._steps.append(step)
        return step

    # What is written.

    def _key(self) -> Key:
        number = self._random.randrange(self._keys)
        owner = f"writer {self._number}, shelf {number % 7}"
        if number % 16 == 5:
            owner += " " + "long " * 150
        return owner, number

    def _item(self, key: Key) -> Item:
        draw = self._random
        self._serial += 1
        size = draw.choice((20, 80, 80, 200, 200, 700, 3000))
        if draw.random() < 0.01:
            size = 30_000
        body = draw.randbytes(size // 2).hex()
        item: Item = {**key_members(key), "serial": {"N": str(self._serial)}, "body": {"S": body}}
        if draw.random() < 0.8:
            item["group"] = {"S": f"group {draw.randrange(9)}"}
        if draw.random() < 0.7:
            item["rank"] = {"N": str(draw.randrange(-50, 50))}
        item["checksum"] = {"S": checksum_of(item)}
        return item


def _keys_in(requests: Iterable[dict[str, Any]]) -> set[Key]:
    """The keys of a batch's requests."""
    return {
        key_of(one["PutRequest"]["Item"] if "PutRequest" in one else one["DeleteRequest"]["Key"])
        for one in requests
    }


# What must be found.


def check_items(items: Iterable[Item], possible: Mapping[Key, list[State]]) -> list[str]:
    """One sentence for every item that is not in a possible state."""
    wrong = []
    found: dict[Key, Item] = {}
    for item in items:
        key = key_of(item)
        if checksum_of(item) != item.get("checksum", {}).get("S"):
            wrong.append(f"{_short(key)} is half-written: its checksum does not hold")
        if key in found:
            wrong.append(f"{_short(key)} is there twice")
        if key not in possible:
            wrong.append(f"{_short(key)} is there, but was never written")
        found[key] = item
    for key, states in possible.items():
        if found.get(key) not in states:
            wrong.append(
                f"{_short(key)} is {_describe(found.get(key))};"
                f" possible: {', '.join(map(_describe, states))}"
            )
    return wrong


def check_indexes(
    items: Iterable[Item], by_group: Iterable[Item], by_rank: Iterable[Item]
) -> list[str]:
    """One sentence for each index that does not equal its table."""
    items = list(items)
    wrong = []
    wanted_group = {key_of(item): item for item in items if "group" in item}
    wanted_rank = {
        key_of(item): {**key_members(key_of(item)), "rank": item["rank"]}
        for item in items
        if "rank" in item
    }
    for name, wanted, entries in (
        (GLOBAL_INDEX, wanted_group, list(by_group)),
        (LOCAL_INDEX, wanted_rank, list(by_rank)),
    ):
        held = {key_of(entry): entry for entry in entries}
        if len(held) != len(entries):
            wrong.append(f"index {name} has {len(entries) - len(held)} entries twice")
        differing = [key for key in wanted.keys() | held.keys() if wanted.get(key) != held.get(key)]
        if differing:
            example = min(differing)
            wrong.append(
                f"index {name} differs from its table in {len(differing)} entries, such as"
                f" {_short(example)}: {_describe(held.get(example))} in place of"
                f" {_describe(wanted.get(example))}"
            )
    return wrong


def verify(endpoint: str, beliefs: list[dict[Key, list[State]]]) -> tuple[int, list[str]]:
    """Compare a server with what its writers believe, and settle what was in doubt.

    The number of items there, and one sentence for each thing that is wrong. The global index is
    given ``INDEX_SECONDS_MAX`` to catch up; nobody may write meanwhile.
    """
    possible = {key: states for each in beliefs for key, states in each.items()}
    connection = Connection(endpoint)
    try:
        scan = {"TableName": TABLE, "ConsistentRead": True}
        items = connection.pages("Scan", scan)
        wrong = check_items(items, possible)
        by_rank = connection.pages("Scan", {**scan, "IndexName": LOCAL_INDEX})
        deadline = time.monotonic() + INDEX_SECONDS_MAX
        while True:
            by_group = connection.pages("Scan", {"TableName": TABLE, "IndexName": GLOBAL_INDEX})
            found = check_indexes(items, by_group, by_rank)
            if not found or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        wrong += found
    finally:
        connection.close()
    there = {key_of(item): item for item in items}
    for each in beliefs:
        for key in each:
            each[key] = [there.get(key)]
    return len(items), wrong


def run_writers(make: Callable[[int], Writer], count: int) -> list[Writer]:
    """Make ``count`` writers and start them."""
    writers = [make(number) for number in range(count)]
    for writer in writers:
        writer.start()
    return writers


def _short(key: Key) -> str:
    return f"{key[0][:30]!r}/{key[1]}"


def _describe(state: State) -> str:
    if state is None:
        return "absent"
    serial = (state.get("serial") or state.get("rank") or {"N": "?"})["N"]
    return f"item {serial} ({len(json.dumps(state))} bytes)"
