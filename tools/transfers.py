"""Clients that move money by transactions, and what is asked of the bank after each crash.

Each client makes one request at a time: TransactWriteItems over two to four accounts in two tables,
with conditions, sometimes with a ConditionCheck of another account and sometimes overwriting a
note; single writes to the same items in between; TransactGetItems. Every transaction has a
ClientRequestToken. What was in doubt at a crash is asked for again with the same token, and must
have taken effect once or, if it is refused now, never.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from .load import Connection, keyed_by
from .transfer_books import (
    ACCOUNTS,
    NOTES,
    TABLES,
    Books,
    Item,
    Move,
    Place,
    account_item,
)

ARGUMENTS = ("--partitions-per-table", "2")
CLIENTS = 8
HELD_SECONDS_MAX = 1.0
# DynamoDB keeps tokens for ten minutes; ours are looked for well within that.
TOKEN_SECONDS_MAX = 300.0
REPLAYS = 12
_CONFLICT = "TransactionConflictException"
_IN_PROGRESS = "TransactionInProgressException"
_PASSING = frozenset(
    {"ServiceUnavailable", "ProvisionedThroughputExceededException", "ThrottlingException"}
)
_REASONS = frozenset({"None", "ConditionalCheckFailed", "TransactionConflict"})

CREATE_TABLES = tuple(keyed_by("id", table) for table in TABLES)


def kind_of(answer: dict[str, Any]) -> str:
    """The error's name; empty if the answer is none."""
    return str(answer.get("__type", "")).rpartition("#")[2]


def place_members(place: Place) -> dict[str, Any]:
    return {"TableName": place[0], "Key": {"id": {"S": place[1]}}}


def leg_members(place: Place, name: str, amount: int) -> dict[str, Any]:
    """The update of one account; what pays must have it."""
    members: dict[str, Any] = {
        **place_members(place),
        "UpdateExpression": "SET balance = balance + :d, journal = list_append(journal, :m)",
        "ExpressionAttributeValues": {":d": {"N": str(amount)}, ":m": {"L": [{"S": name}]}},
    }
    if amount < 0:
        members["ConditionExpression"] = "balance >= :least"
        members["ExpressionAttributeValues"][":least"] = {"N": str(-amount)}
    return members


def note_members(place: Place, name: str) -> dict[str, Any]:
    return {"TableName": place[0], "Item": {"id": {"S": place[1]}, "by": {"S": name}}}


def outcome_of(status: int, answer: dict[str, Any]) -> bool | None:
    """Whether it took effect; None if the answer is that nobody knows.

    Raises AssertionError for an answer that nobody expects.
    """
    kind = kind_of(answer)
    if status == 200:
        return True
    if kind == "TransactionCanceledException":
        codes = {reason["Code"] for reason in answer["CancellationReasons"]}
        assert codes <= _REASONS, answer
        assert codes != {"None"}, answer
        return False
    if kind in _PASSING or kind in (_CONFLICT, "ConditionalCheckFailedException"):
        return False
    assert status >= 500, answer
    return None


class Client(threading.Thread):
    """Moves money at ``endpoint`` until ``stop`` is set or the server is gone."""

    def __init__(
        self, number: int, endpoint: str, seed: int, books: Books, stop: threading.Event, phase: int
    ) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self._endpoint = endpoint
        self._random = random.Random(f"{seed}/{number}/{phase}")
        self._books = books
        self._stopping = stop
        self._prefix = f"{phase}.{number}"
        self._count = 0
        self._connection: Connection
        self.acknowledged = 0
        self.transactions = 0
        self.refused = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        """Move until it is over."""
        try:
            self._connection = Connection(self._endpoint)
        except OSError:
            return
        try:
            while not self._stopping.is_set() and not self.wrong:
                choice = self._random.random()
                if choice < 0.62:
                    self._transfer()
                elif choice < 0.78:
                    self._append()
                elif choice < 0.90:
                    self._overwrite()
                else:
                    self._read()
        except OSError:
            pass
        except Exception as error:  # noqa: BLE001
            # A client that dies unseen would find nothing for the rest of the round.
            self.wrong.append(f"{self.name} ended: {error!r}")
        finally:
            self._connection.close()

    def _transfer(self) -> None:
        """Some accounts pay one another; often one too poor to, so that conditions decide."""
        draw = self._random
        count = draw.choice((2, 2, 2, 3, 4))
        places = draw.sample(ACCOUNTS, count + 1)
        amounts = [draw.randrange(-300, 300) for _ in range(count - 1)]
        amounts.append(-sum(amounts))
        legs = dict(zip(places[:count], amounts, strict=True))
        name = self._next_name()
        actions = [{"Update": leg_members(place, name, legs[place])} for place in legs]
        note = draw.choice(NOTES) if draw.random() < 0.4 else None
        if note is not None:
            actions.append({"Put": note_members(note, name)})
        if draw.random() < 0.3:
            check = {**place_members(places[-1]), "ConditionExpression": "attribute_exists(id)"}
            actions.append({"ConditionCheck": check})
        draw.shuffle(actions)
        members = {"TransactItems": actions, "ClientRequestToken": f"token-{name}"}
        move = self._begin(name, legs, note, members)
        self._send(move, "TransactWriteItems", members)
        if move.took:
            self.transactions += 1
            if draw.random() < 0.05:
                self.wrong += replay(self._connection, move, is_quiet=False)

    def _append(self) -> None:
        """A single write to an account, in the way of transactions."""
        place = self._random.choice(ACCOUNTS)
        name = self._next_name()
        members = leg_members(place, name, 0)
        if self._random.random() < 0.5:
            members["ConditionExpression"] = "attribute_exists(id)"
        self._send(self._begin(name, {place: 0}, None, None), "UpdateItem", members)

    def _overwrite(self) -> None:
        """A single write that may pass a transaction which is about to overwrite the same note."""
        note = self._random.choice(NOTES)
        name = self._next_name()
        self._send(self._begin(name, {}, note, None), "PutItem", note_members(note, name))

    def _read(self) -> None:
        places = self._random.sample(ACCOUNTS, self._random.choice((2, 2, 3, 5)))
        began = time.monotonic()
        members = {"TransactItems": [{"Get": place_members(place)} for place in places]}
        status, answer = self._connection.call("TransactGetItems", members)
        if outcome_of(status, answer):
            found = [each["Item"] for each in answer["Responses"]]
            seen = dict(zip(places, found, strict=True))
            self.wrong += self._books.check_seen(seen, began)

    def _next_name(self) -> str:
        self._count += 1
        return f"{self._prefix}.{self._count}"

    def _begin(
        self, name: str, legs: dict[Place, int], note: Place | None, members: dict[str, Any] | None
    ) -> Move:
        """Enter a move into the books: from now on it may be seen."""
        move = Move(name, legs, note, members, time.monotonic())
        self._books.moves[name] = move
        return move

    def _send(self, move: Move, operation: str, members: dict[str, Any]) -> None:
        status, answer = self._connection.call(operation, members)
        took = outcome_of(status, answer)
        if took is not None:
            move.ended = time.monotonic()
            move.took = took
        if took:
            self.acknowledged += 1
        elif took is False:
            self.refused += 1
        if kind_of(answer) in _PASSING:
            time.sleep(0.01)


def repeat(connection: Connection, move: Move) -> tuple[bool | None, bool]:
    """Ask for a transaction again with its token: (whether it is there now, whether it was).

    A transaction that is done anew consumes writes, one that had been done before reads.
    """
    assert move.members is not None
    members = {**move.members, "ReturnConsumedCapacity": "TOTAL"}
    give_up = time.monotonic() + HELD_SECONDS_MAX
    while True:
        status, answer = connection.call("TransactWriteItems", members)
        if kind_of(answer) != _IN_PROGRESS:
            break
        if time.monotonic() > give_up:
            return None, False
        time.sleep(0.01)
    took = outcome_of(status, answer)
    consumed = answer.get("ConsumedCapacity", [])
    return took, not any("WriteCapacityUnits" in each for each in consumed)


def replay(connection: Connection, move: Move, *, is_quiet: bool) -> list[str]:
    """Ask again for what was acknowledged: nothing must happen, and it must be acknowledged.

    Unless it ``is_quiet``, others may hold the items for as long as they like.
    """
    took, was_there = repeat(connection, move)
    if took and was_there:
        return []
    if took is None:
        return [f"{move.name} was acknowledged, and is now unknown"] if is_quiet else []
    what = "done again" if took else "refused"
    return [f"{move.name} was acknowledged, and {what} when its token was repeated"]


class Bank:
    """The transactional workload of ``crash``: accounts, clients and the audit after a crash."""

    arguments: tuple[str, ...] = ARGUMENTS
    environment: Mapping[str, str] = {}
    kills_workers = False

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._books = Books()
        #: Transactions that are there, the newest last, each with a time after it was done.
        self._recent: deque[tuple[float, Move]] = deque(maxlen=400)
        self._random = random.Random(f"{seed}/bank")
        self._clients: list[Client] = []
        self.doubtful = 0
        self.repeated = 0
        #: Doubtful transactions that had taken effect.
        self.repeated_there = 0
        self.transactions = 0
        self.refused = 0
        self.held_seconds_max = 0.0

    def create(self, endpoint: str) -> None:
        """Make the tables and the accounts."""
        connection = Connection(endpoint)
        try:
            connection.create_tables(CREATE_TABLES)
            for place in ACCOUNTS:
                item = account_item(place, self._books.balances[place])
                connection.get("PutItem", {"TableName": place[0], "Item": item})
        finally:
            connection.close()

    def start(self, endpoint: str, stop: threading.Event, phase: int) -> list[Client]:
        """Let the clients loose."""
        self._clients = [
            Client(number, endpoint, self._seed, self._books, stop, phase)
            for number in range(CLIENTS)
        ]
        for client in self._clients:
            client.start()
        return self._clients

    def verify(self, endpoint: str, *, is_last: bool = False) -> tuple[int, list[str]]:
        """Audit a server that has just come up: the items there, and what is wrong."""
        books = self._books
        self.transactions += sum(client.transactions for client in self._clients)
        self.refused += sum(client.refused for client in self._clients)
        self._clients = []
        connection = Connection(endpoint)
        try:
            doubtful = books.doubtful()
            self.doubtful += len(doubtful)
            wrong: list[str] = []
            there: set[str] | None = None
            # Repeating before anybody has looked is as good a time as after.
            if self._random.random() < 0.5:
                found = self._scan(connection)
                wrong += books.check(found)
                there = names_in(found)
            wrong += self._repeat(connection, doubtful, there)
            self._remember()
            wrong += self._replay(connection)
            found = self._scan(connection)
            wrong += books.check(found)
            if not wrong:
                wrong += self._write_everywhere(connection, found)
                books.settle(found)
            return len(found), wrong
        except AssertionError as error:
            return 0, [f"an answer that nobody expected: {error}"]
        finally:
            connection.close()

    def _remember(self) -> None:
        now = time.monotonic()
        for move in self._books.moves.values():
            if move.took and move.members is not None:
                self._recent.append((now, move))

    def _scan(self, connection: Connection) -> dict[Place, Item]:
        return {
            (table, item["id"]["S"]): item
            for table in TABLES
            for item in connection.pages("Scan", {"TableName": table, "ConsistentRead": True})
        }

    def _repeat(
        self, connection: Connection, doubtful: list[Move], there: set[str] | None
    ) -> list[str]:
        """Ask again for all that was in doubt; ``there`` is what was found there, if known."""
        wrong = []
        for move in doubtful:
            if move.members is None:
                continue
            took, was_there = repeat(connection, move)
            if took is None:
                return [f"{move.name} was asked for again, and nobody knows its outcome still"]
            self.repeated += 1
            if took and was_there:
                self.repeated_there += 1
            if there is not None and (move.name in there) != (took and was_there):
                done = "there" if move.name in there else "not there"
                came = "refused" if not took else "replayed" if was_there else "done"
                wrong.append(f"{move.name} was {done} after the crash, and then {came}")
            # When it took effect, in the crash or just now, is not known: ``ended`` stays None.
            move.took = took
        return wrong

    def _replay(self, connection: Connection) -> list[str]:
        """Repeat some of what was acknowledged lately, and once with another request."""
        oldest = time.monotonic() - TOKEN_SECONDS_MAX
        recent = [move for when, move in self._recent if when > oldest]
        # The newest are the likeliest to be lost.
        chosen = recent[-REPLAYS // 2 :]
        rest = recent[: -REPLAYS // 2]
        chosen += self._random.sample(rest, min(len(rest), REPLAYS // 2))
        wrong = []
        for move in chosen:
            wrong += replay(connection, move, is_quiet=True)
        if chosen:
            members = dict(chosen[-1].members or {})
            members["TransactItems"] = members["TransactItems"][:1]
            status, answer = connection.call("TransactWriteItems", members)
            if kind_of(answer) != "IdempotentParameterMismatchException":
                wrong.append(f"a token with another request was answered {status}: {answer}")
        return wrong

    def _write_everywhere(self, connection: Connection, found: dict[Place, Item]) -> list[str]:
        """Empty every journal: no item may stay held. Notes are written as they are."""
        wrong = []
        for place in (*ACCOUNTS, *NOTES):
            began = time.monotonic()
            members: dict[str, Any] = {
                **place_members(place),
                "UpdateExpression": "SET journal = :none",
                "ExpressionAttributeValues": {":none": {"L": []}},
            }
            if place in NOTES:
                if place not in found:
                    continue
                members["UpdateExpression"] = "SET seen = :none"
            while True:
                status, answer = connection.call("UpdateItem", members)
                seconds = time.monotonic() - began
                self.held_seconds_max = max(self.held_seconds_max, seconds)
                if status == 200:
                    break
                assert kind_of(answer) == _CONFLICT, answer
                if seconds > HELD_SECONDS_MAX:
                    wrong.append(f"{place} is still held after {seconds:.1f} s")
                    break
                time.sleep(0.01)
        return wrong

    def note(self) -> str:
        """What the figures of a run leave out."""
        return (
            f"{self.transactions:,} transactions acknowledged, {self.refused:,} requests refused, "
            f"{self.repeated} transactions in doubt repeated by their token, of which "
            f"{self.repeated_there} had taken effect; the slowest write after a restart took "
            f"{self.held_seconds_max * 1000:.0f} ms"
        )


def names_in(found: dict[Place, Item]) -> set[str]:
    """The moves that journals speak of."""
    return {entry["S"] for place in ACCOUNTS for entry in found[place]["journal"]["L"]}
