"""Clients whose changes are followed by handlers, and what must be found after each crash.

Each key of the source table belongs to one writer, which remembers every state that it gave it; so
the stream must show exactly these, in their order (``ChangesOfKeys``), and stay what it is: the
same ARN, shards, sequence numbers. What the handlers of ``trigger_app`` have made of the changes is
compared with the stream: plain handlers have seen each change, and again only from some earlier
change on after a restart; transactional ones have counted each change once.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .load import Connection, keyed_by
from .trigger_app import (
    ACCEPTED,
    COUNTED,
    FAILED,
    FOLDER,
    PLAIN,
    SOURCE,
    by_key,
    digest_of,
    is_poisoned,
)

WRITERS = 4
KEYS = 10
#: Everything is compared at every so manyth start, and at the last.
THOROUGH_EVERY = 10
#: How long the handlers may be without any progress before everything is done.
STUCK_SECONDS_MAX = 20.0
_STREAMS = "DynamoDBStreams_20120810"
_PASSING = frozenset(
    {
        "ServiceUnavailable",
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "TransactionConflictException",
        "TransactionCanceledException",
    }
)
TABLES = (SOURCE, FAILED, ACCEPTED, *COUNTED)

Record = dict[str, Any]
Serial = str | None
"""The state of a key: the serial of its item, or None."""


class Past:
    """What one key was given: serials in order; the last may be in doubt."""

    __slots__ = ("in_doubt", "serials")

    def __init__(self) -> None:
        self.serials: list[Serial] = []
        self.in_doubt = False

    @property
    def now(self) -> Serial:
        return self.serials[-1] if self.serials else None

    def settle(self, found: Serial) -> bool:
        """Learn what is there; False if that cannot be."""
        if self.in_doubt and found != self.now:
            self.serials.pop()
        self.in_doubt = False
        return found == self.now


class Writer(threading.Thread):
    """Changes its own keys at ``endpoint`` until ``stop`` is set or the server is gone."""

    def __init__(
        self,
        number: int,
        endpoint: str,
        seed: int,
        pasts: dict[str, Past],
        stop: threading.Event,
        phase: int,
    ) -> None:
        super().__init__(name=f"writer-{number}", daemon=True)
        self._endpoint = endpoint
        self._random = random.Random(f"{seed}/{number}/{phase}")
        self._pasts = pasts
        self._stopping = stop
        self._prefix = f"{phase}.{number}"
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
        keys = self._random.sample(sorted(self._pasts), count)
        if count == 1:
            operation, members, serial = self._change(keys[0])
            self._send(connection, f"{operation}Item", members, {keys[0]: serial})
        else:
            changes = {key: self._change(key) for key in keys}
            actions = [{operation: members} for operation, members, _ in changes.values()]
            states = {key: serial for key, (_, _, serial) in changes.items()}
            self._send(connection, "TransactWriteItems", {"TransactItems": actions}, states)

    def _change(self, key: str) -> tuple[str, Record, Serial]:
        """An operation that changes something, its members, and the state after it."""
        self._count += 1
        serial = f"{self._prefix}.{self._count}"
        members: Record = {"TableName": SOURCE}
        choice = self._random.random()
        if choice < 0.2 and self._pasts[key].now is not None:
            return "Delete", {**members, "Key": {"id": {"S": key}}}, None
        if choice < 0.5:
            members |= {
                "Key": {"id": {"S": key}},
                "UpdateExpression": "SET serial = :s REMOVE poison",
                "ExpressionAttributeValues": {":s": {"S": serial}},
            }
            return "Update", members, serial
        item: Record = {"id": {"S": key}, "serial": {"S": serial}}
        item["body"] = {"S": "x" * self._random.choice((1, 100, 2000))}
        if self._random.random() < 0.03:
            item["poison"] = {"BOOL": True}
        return "Put", {**members, "Item": item}, serial

    def _send(
        self,
        connection: Connection,
        operation: str,
        members: Record,
        states: Mapping[str, Serial],
    ) -> None:
        for key, serial in states.items():
            past = self._pasts[key]
            past.serials.append(serial)
            past.in_doubt = True
        status, answer = connection.call(operation, members)
        kind = str(answer.get("__type", "")).rpartition("#")[2]
        if status == 200:
            self.acknowledged += 1
        elif kind in _PASSING:
            for key in states:
                self._pasts[key].serials.pop()
        else:
            self.wrong.append(f"an answer that nobody expected: {answer}")
            return
        for key in states:
            self._pasts[key].in_doubt = False


class Followed:
    """The workload: writers, the stream as it was read until now, and the audit."""

    arguments = (
        "--app", "millstream.tools.trigger_app:triggers",
        "--partitions-per-table", "2",
        "--log-level", "error",
    )  # fmt: skip
    kills_workers = True

    def __init__(self, seed: int, folder: Path) -> None:
        self._seed = seed
        self._folder = folder / "seen"
        self._folder.mkdir(exist_ok=True)
        self.environment = {FOLDER: str(self._folder)}
        self._pasts = [
            {f"{number}-{key}": Past() for key in range(KEYS)} for number in range(WRITERS)
        ]
        self._arn = ""
        #: Shard -> its records, as far as they were read.
        self._records: dict[str, list[Record]] = {}
        #: Shard -> its parent.
        self._parents: dict[str, str | None] = {}
        self._starts = 0
        self.doubtful = 0
        self._waited = 0.0
        self._thorough = 0

    def create(self, endpoint: str) -> None:
        """Make the tables. Their triggers wait for them."""
        connection = Connection(endpoint)
        try:
            connection.create_tables(keyed_by("id", table) for table in TABLES)
        finally:
            connection.close()

    def start(self, endpoint: str, stop: threading.Event, phase: int) -> Sequence[Writer]:
        """Let the writers loose."""
        writers = [
            Writer(number, endpoint, self._seed, pasts, stop, phase)
            for number, pasts in enumerate(self._pasts)
        ]
        for writer in writers:
            writer.start()
        return writers

    def verify(self, endpoint: str, *, is_last: bool) -> tuple[int, list[str]]:
        """Audit a server that has just come up: the items there, and what is wrong."""
        self._starts += 1
        is_thorough = is_last or self._starts % THOROUGH_EVERY == 0
        connection = Connection(endpoint)
        try:
            pasts = {key: past for each in self._pasts for key, past in each.items()}
            self.doubtful += sum(past.in_doubt for past in pasts.values())
            count, wrong = self._settle(connection, pasts)
            wrong += self._read_on(connection, is_thorough)
            wrong += check_stream(self.changes(), {key: p.serials for key, p in pasts.items()})
            if is_thorough and not wrong:
                self._thorough += 1
                wrong += self._check_handlers(connection)
            return count, wrong
        except AssertionError as error:
            return 0, [f"an answer that nobody expected: {error}"]
        finally:
            connection.close()

    def note(self) -> str:
        """What the figures of a run leave out."""
        changes = sum(map(len, self.changes().values()))
        failed = sum(map(is_poisoned, self._all()))
        repeats = {
            name: sum(len(seen) for _, by in lines_of(self._folder / name) for seen in by.values())
            - changes
            for name in PLAIN
        }
        return (
            f"{changes:,} changes in {len(self._records)} shards, {failed:,} of them poisoned; seen"
            f" again by plain handlers: {repeats}; compared {self._thorough} times, when handlers"
            f" were {self._waited:.1f} s behind at most"
        )

    def changes(self) -> dict[str, list[Record]]:
        """Key -> its changes in the order of the stream."""
        found: dict[str, list[Record]] = {}
        for record in self._all():
            found.setdefault(record["dynamodb"]["Keys"]["id"]["S"], []).append(record)
        return found

    def _all(self) -> list[Record]:
        # Shards are listed parents first.
        return [record for records in self._records.values() for record in records]

    # The source table.

    def _settle(
        self, connection: Connection, pasts: Mapping[str, Past]
    ) -> tuple[int, list[str]]:
        scan = {"TableName": SOURCE, "ConsistentRead": True}
        items = connection.pages("Scan", scan)
        there = {item["id"]["S"]: item["serial"]["S"] for item in items}
        wrong = [
            f"{key} is {there.get(key)}, not {past.now}"
            for key, past in pasts.items()
            if not past.settle(there.get(key))
        ]
        return len(items), wrong

    # The stream.

    def _read_on(self, connection: Connection, is_anew: bool) -> list[str]:
        """Read what is new in the stream, or all of it, and compare with what was read before."""
        table = connection.get("DescribeTable", {"TableName": SOURCE})["Table"]
        arn = table.get("LatestStreamArn", "")
        if self._arn and arn != self._arn:
            return [f"the stream's ARN was {self._arn} and is {arn}"]
        self._arn = arn
        parents: dict[str, str | None] = {}
        members: Record = {"StreamArn": arn}
        while True:
            answer = connection.get("DescribeStream", members, service=_STREAMS)
            description = answer["StreamDescription"]
            for shard in description["Shards"]:
                parents[shard["ShardId"]] = shard.get("ParentShardId")
            if "LastEvaluatedShardId" not in description:
                break
            members["ExclusiveStartShardId"] = description["LastEvaluatedShardId"]
        wrong = [
            f"shard {shard} is gone, or has another parent"
            for shard, parent in self._parents.items()
            if parents.get(shard, "") != parent
        ]
        self._parents = parents
        for shard in parents:
            known = self._records.setdefault(shard, [])
            found = self._read_shard(connection, shard, [] if is_anew else known)
            if is_anew and found[: len(known)] != known:
                wrong.append(f"the records of {shard} have changed")
            self._records[shard] = found if is_anew else known + found
        self._records = {shard: self._records[shard] for shard in parents}
        return wrong

    def _read_shard(
        self, connection: Connection, shard: str, known: Sequence[Record]
    ) -> list[Record]:
        """The records of a shard behind those known. Ends at the open shard's end."""
        members: Record = {"StreamArn": self._arn, "ShardId": shard}
        if known:
            members["ShardIteratorType"] = "AFTER_SEQUENCE_NUMBER"
            members["SequenceNumber"] = known[-1]["dynamodb"]["SequenceNumber"]
        else:
            members["ShardIteratorType"] = "TRIM_HORIZON"
        answer = connection.get("GetShardIterator", members, service=_STREAMS)
        iterator = answer.get("ShardIterator")
        found: list[Record] = []
        empty = 0
        while iterator is not None and empty < 2:
            page = connection.get("GetRecords", {"ShardIterator": iterator}, service=_STREAMS)
            found += page["Records"]
            empty = 0 if page["Records"] else empty + 1
            iterator = page.get("NextShardIterator")
        return found

    # The handlers.

    def _check_handlers(self, connection: Connection) -> list[str]:
        """Wait until every handler has done everything, and a moment longer for what is too much.

        Progress is what counts: handlers may be far behind.
        """
        began = moved = time.monotonic()
        before: list[str] = []
        while True:
            wrong = self._compare(connection)
            now = time.monotonic()
            if not wrong:
                break
            if wrong != before:
                moved, before = now, wrong
            if now - moved > STUCK_SECONDS_MAX:
                return wrong
            time.sleep(0.1)
        self._waited = max(self._waited, now - began)
        time.sleep(0.2)
        return self._compare(connection)

    def _compare(self, connection: Connection) -> list[str]:
        changes = self.changes()
        sequences = by_key(self._all())
        wrong: list[str] = []
        for name in PLAIN:
            lines = lines_of(self._folder / name)
            wrong += [f"{name}: {line}" for line in check_seen(lines, sequences)]
        for table in COUNTED:
            wrong += check_counted(table, _items(connection, table), sequences)
        healthy = {
            key: [
                record["dynamodb"]["SequenceNumber"]
                for record in records
                if not is_poisoned(record)
            ]
            for key, records in changes.items()
        }
        wrong += check_counted(ACCEPTED, _items(connection, ACCEPTED), healthy)
        poisoned = {_place(record) for record in self._all() if is_poisoned(record)}
        given_up = {
            _place(record)
            for item in _items(connection, FAILED)
            for record in json.loads(item["event"]["S"])["Records"]
        }
        if poisoned != given_up:
            wrong.append(
                f"{len(poisoned - given_up)} failed changes are not in their destination, and"
                f" {len(given_up - poisoned)} are there that did not fail"
            )
        return wrong


def _items(connection: Connection, table: str) -> list[Record]:
    return connection.pages("Scan", {"TableName": table, "ConsistentRead": True})


def _place(record: Record) -> tuple[str, str]:
    inner = record["dynamodb"]
    return inner["Keys"]["id"]["S"], inner["SequenceNumber"]


def lines_of(path: Path) -> list[tuple[str, dict[str, list[str]]]]:
    """What a plain handler has written down: (life of the node, key -> sequence numbers)."""
    found = []
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for line in text.splitlines():
        try:
            life, seen = json.loads(line)
        except ValueError:
            # Nothing, or torn by a kill: then its batch was not done.
            continue
        found.append((life, seen))
    return found


def check_stream(
    changes: Mapping[str, Sequence[Record]], serials: Mapping[str, Sequence[Serial]]
) -> list[str]:
    """One sentence for each key whose changes in the stream are not those that were made."""
    wrong = []
    for key in sorted(changes.keys() | serials.keys()):
        shown = [
            record["dynamodb"].get("NewImage", {}).get("serial", {}).get("S")
            for record in changes.get(key, ())
        ]
        wanted = list(serials.get(key, ()))
        if shown != wanted:
            at = next(
                (n for n, (one, other) in enumerate(zip(shown, wanted)) if one != other),
                min(len(shown), len(wanted)),
            )
            wrong.append(
                f"the stream shows {len(shown)} changes of {key}, not {len(wanted)}: from the"
                f" {at}th on {shown[at : at + 3]} in place of {wanted[at : at + 3]}"
            )
        old = None
        for record in changes.get(key, ()):
            inner = record["dynamodb"]
            if inner.get("OldImage", {}).get("serial", {}).get("S") != old:
                wrong.append(f"a change of {key} shows an old image that was not there before")
                break
            old = inner.get("NewImage", {}).get("serial", {}).get("S")
    return wrong


def check_seen(
    lines: Sequence[tuple[str, Mapping[str, Sequence[str]]]],
    sequences: Mapping[str, Sequence[str]],
) -> list[str]:
    """One sentence for each key of which a plain handler did not see every change in its order.

    In one life of the node it sees a key's changes one after the other, each once. Another life
    begins with the next one, or with one that was seen before.
    """
    wrong = []
    seen: dict[str, list[tuple[str, str]]] = {}
    for life, by in lines:
        for key, numbers in by.items():
            seen.setdefault(key, []).extend((life, number) for number in numbers)
    for key in sorted(sequences.keys() | seen.keys()):
        place = {number: at for at, number in enumerate(sequences.get(key, ()))}
        furthest, last = -1, (None, -1)
        for life, number in seen.get(key, ()):
            at = place.get(number)
            if at is None:
                wrong.append(f"{key} has no change {number}")
                break
            is_next = at == last[1] + 1 if life == last[0] else at <= furthest + 1
            if not is_next:
                wrong.append(f"{key}: the {at}th change came after the {last[1]}th")
                break
            furthest, last = max(furthest, at), (life, at)
        else:
            if furthest + 1 < len(place):
                wrong.append(f"{key}: {len(place) - furthest - 1} changes were not seen")
    return wrong


def check_counted(
    table: str, items: Sequence[Record], sequences: Mapping[str, Sequence[str]]
) -> list[str]:
    """One sentence for each key whose changes a transactional handler did not count once each."""
    wrong = []
    found = {item["id"]["S"]: item for item in items if item["id"]["S"] != "meeting"}
    for key in sorted(found.keys() | {key for key, numbers in sequences.items() if numbers}):
        digest = 0
        for number in sequences.get(key, ()):
            digest = digest_of(digest, number)
        item = found.get(key, {"changes": {"N": "0"}, "digest": {"N": "0"}})
        counted, wanted = int(item["changes"]["N"]), len(sequences.get(key, ()))
        if (counted, int(item["digest"]["N"])) != (wanted, digest):
            wrong.append(f"{table}: of {key} {counted} changes are counted, not {wanted}")
    return wrong
