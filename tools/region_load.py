"""Clients who write in several regions at once, and what must be in all of them in the end.

Two tables. In ``load``'s every key has one writer in one region, which knows what its state must
be: no other region may change that. In the *shared* one the same keys are written in every region,
alone and in transactions, and each attempt is remembered (``Attempt``): what is found at the end
must be one of them, and none that its own region has certainly written over.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from .load import Connection, keyed_by

SHARED = "shared"
CREATE_SHARED = keyed_by("id", SHARED)
KEYS = 24
MARKERS = 12
"""Marks of one region: enough that every partition has one."""
_MARK = "mark"

_REFUSALS = frozenset(
    {
        "ServiceUnavailable",
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "TransactionConflictException",
        "TransactionCanceledException",
        "ConditionalCheckFailedException",
    }
)

Item = dict[str, Any]


class Attempt:
    """One write of one key. ``serial`` None: a deletion.

    ``began`` and ``ended`` are of this program's clock; ``ended`` is None while it may still take
    effect. ``took`` None: nobody knows; an attempt that was refused is forgotten.
    """

    __slots__ = ("began", "ended", "region", "serial", "took")

    def __init__(self, region: str, serial: str | None) -> None:
        self.region = region
        self.serial = serial
        self.began = time.monotonic()
        self.ended: float | None = None
        self.took: bool | None = None


class History:
    """Every attempt by key; shared by all writers."""

    def __init__(self) -> None:
        self._attempts: dict[str, list[Attempt]] = {}
        self._lock = threading.Lock()

    def begin(self, region: str, states: Mapping[str, str | None]) -> dict[str, Attempt]:
        """Before they are sent."""
        with self._lock:
            made = {key: Attempt(region, serial) for key, serial in states.items()}
            for key, attempt in made.items():
                self._attempts.setdefault(key, []).append(attempt)
        return made

    def end(self, made: Mapping[str, Attempt], *, took: bool | None, is_over: bool = True) -> None:
        """They were answered, or never will be. ``is_over``: they have taken effect or never do."""
        with self._lock:
            for key, attempt in made.items():
                attempt.took = took
                attempt.ended = time.monotonic() if is_over else None
                if took is False:
                    self._attempts[key].remove(attempt)

    @property
    def doubtful(self) -> int:
        """Attempts whose outcome nobody knows."""
        return sum(one.took is None for each in self._attempts.values() for one in each)

    def check(self, items: Sequence[Item]) -> list[str]:
        """One sentence for each key that is in a state in which it cannot be."""
        found = {item["id"]["S"]: item for item in items}
        wrong = []
        for key in sorted(self._attempts.keys() | found.keys()):
            if key.startswith(_MARK):
                continue
            item = found.get(key)
            serial = None if item is None else item["serial"]["S"]
            attempts = self._attempts.get(key, [])
            possible = [one for one in attempts if one.serial == serial]
            if not possible and serial is None and not any(one.took for one in attempts):
                continue
            if not possible:
                wrong.append(f"{key} is {serial}, which nobody wrote, or which was refused")
            elif all(_is_past(one, attempts) for one in possible):
                last = [one.serial for one in attempts if one.took][-3:]
                wrong.append(
                    f"{key} is {serial}, which its own region has written over;"
                    f" acknowledged last: {last}"
                )
        return wrong


def _is_past(one: Attempt, attempts: Sequence[Attempt]) -> bool:
    """Whether an acknowledged write of the same region certainly came after ``one``."""
    return one.ended is not None and any(
        other.took and other.region == one.region and other.began > one.ended
        for other in attempts
    )


class SharedWriter(threading.Thread):
    """Writes the shared keys, and a few of its own, until ``stop`` or its region is gone."""

    def __init__(
        self,
        region: str,
        number: int,
        endpoint: str,
        seed: int,
        history: History,
        stop: threading.Event,
        phase: int,
    ) -> None:
        super().__init__(name=f"{region}-{number}", daemon=True)
        self._region = region
        self._endpoint = endpoint
        self._random = random.Random(f"{seed}/{region}/{number}/{phase}")
        self._history = history
        self._stopping = stop
        self._prefix = f"{region}/{number}/{phase}"
        self._keys = [f"all {key}" for key in range(KEYS)]
        self._keys += [f"{region} {number} {key}" for key in range(KEYS // 4)]
        self._count = 0
        self.acknowledged = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        """Write until it is over."""
        try:
            connection = Connection(self._endpoint)
        except OSError:
            return
        try:
            while not self._stopping.is_set() and not self.wrong:
                self._step(connection)
                time.sleep(self._random.uniform(0, 0.006))
        except OSError:
            pass
        finally:
            connection.close()

    def _step(self, connection: Connection) -> None:
        count = self._random.choice((1, 1, 1, 1, 2, 3))
        keys = self._random.sample(self._keys, count)
        if count == 1:
            operation, members, serial = self._change(connection, keys[0])
            self._send(connection, f"{operation}Item", members, {keys[0]: serial})
            return
        actions, states = [], {}
        for key in keys:
            operation, members, states[key] = self._change(connection, key)
            actions.append({operation: members})
        self._send(connection, "TransactWriteItems", {"TransactItems": actions}, states)

    def _change(self, connection: Connection, key: str) -> tuple[str, Item, str | None]:
        """An operation, its members, and the key's state after it."""
        self._count += 1
        serial = f"{self._prefix}/{self._count}"
        members: Item = {"TableName": SHARED}
        choice = self._random.random()
        if choice < 0.2:
            return "Delete", {**members, "Key": {"id": {"S": key}}}, None
        if choice < 0.5:
            members |= {
                "Key": {"id": {"S": key}},
                "UpdateExpression": "SET serial = :s REMOVE body",
                "ExpressionAttributeValues": {":s": {"S": serial}},
            }
            return "Update", members, serial
        size = self._random.choice((1, 100, 2000))
        item = {"id": {"S": key}, "serial": {"S": serial}, "body": {"S": "x" * size}}
        if choice < 0.7:
            members["ConditionExpression"] = "attribute_not_exists(id)"
            key_members = {"TableName": SHARED, "Key": {"id": {"S": key}}}
            was = connection.get("GetItem", {**key_members, "ConsistentRead": True}).get("Item")
            if was is not None:
                members["ConditionExpression"] = "serial = :was"
                members["ExpressionAttributeValues"] = {":was": was["serial"]}
        return "Put", {**members, "Item": item}, serial

    def _send(
        self,
        connection: Connection,
        operation: str,
        members: Item,
        states: Mapping[str, str | None],
    ) -> None:
        made = self._history.begin(self._region, states)
        try:
            status, answer = connection.call(operation, members)
        except OSError:
            # The region was killed: what it has not done it will not do, but for a transaction,
            # which it may have decided on and then finishes when it starts again.
            is_over = operation != "TransactWriteItems"
            self._history.end(made, took=None, is_over=is_over)
            raise
        kind = str(answer.get("__type", "")).rpartition("#")[2]
        if status == 200:
            self._history.end(made, took=True)
            self.acknowledged += 1
        elif kind in _REFUSALS:
            self._history.end(made, took=False)
        elif status >= 500:
            self._history.end(made, took=None, is_over=False)
        else:
            self.wrong.append(f"an answer that nobody expected: {answer}")


def mark(connection: Connection, region: str, name: str) -> list[str]:
    """Write what comes behind everything that a region has written: the keys."""
    keys = [f"{_MARK} {region} {number}" for number in range(MARKERS)]
    for key in keys:
        item = {"id": {"S": key}, "serial": {"S": name}}
        connection.get("PutItem", {"TableName": SHARED, "Item": item})
    return keys


def has_marks(connection: Connection, keys: Sequence[str], name: str) -> bool:
    """Whether they have come."""
    for key in keys:
        members = {"TableName": SHARED, "Key": {"id": {"S": key}}, "ConsistentRead": True}
        if connection.get("GetItem", members).get("Item", {}).get("serial") != {"S": name}:
            return False
    return True
