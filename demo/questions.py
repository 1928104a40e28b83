"""The questions: each asks the database, recomputes the answer from the file, and compares.

A question returns an ``Answer``; ``is_true`` is the verdict and is never assumed. Nothing is
printed here.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec

from .client import Client, Refused
from .dataset import Flight, airline_day

TABLE = "flights-of-january-2013"
INDEX = "worst-delays"
AIRPORTS = ("EWR", "JFK", "LGA")
SEGMENTS = 4

TABLE_DEFINITION: dict[str, Any] = {
    "TableName": TABLE,
    "BillingMode": "PAY_PER_REQUEST",
    "AttributeDefinitions": [
        {"AttributeName": "airline_day", "AttributeType": "S"},
        {"AttributeName": "departure", "AttributeType": "S"},
        {"AttributeName": "origin", "AttributeType": "S"},
        {"AttributeName": "dep_delay", "AttributeType": "N"},
    ],
    "KeySchema": [
        {"AttributeName": "airline_day", "KeyType": "HASH"},
        {"AttributeName": "departure", "KeyType": "RANGE"},
    ],
    "GlobalSecondaryIndexes": [
        {
            "IndexName": INDEX,
            "KeySchema": [
                {"AttributeName": "origin", "KeyType": "HASH"},
                {"AttributeName": "dep_delay", "KeyType": "RANGE"},
            ],
            "Projection": {
                "ProjectionType": "INCLUDE",
                "NonKeyAttributes": ["flight", "dest", "arr_delay"],
            },
        }
    ],
}

Item = dict[str, dict[str, Any]]
Group = TypeVar("Group", bound=Hashable)


class Sums(msgspec.Struct, frozen=True):
    """Some flights, summed up; ``late`` are those that left more than 15 minutes late."""

    flights: int = 0
    cancelled: int = 0
    late: int = 0
    delay_minutes: int = 0

    def plus(self, delay: int | None, times: int = 1) -> Sums:
        """With a flight more that left ``delay`` minutes late (None: it was cancelled)."""
        return Sums(
            self.flights + times,
            self.cancelled + times * (delay is None),
            self.late + times * (delay is not None and delay > 15),
            self.delay_minutes + times * (delay or 0),
        )

    @property
    def departed(self) -> int:
        """Those that were not cancelled."""
        return self.flights - self.cancelled

    @property
    def mean_delay(self) -> float:
        """Minutes, of those that left."""
        return self.delay_minutes / max(1, self.departed)

    @property
    def late_share(self) -> float:
        """Of those that left."""
        return self.late / max(1, self.departed)


class Answer(msgspec.Struct, frozen=True):
    """What a question found. ``numeric`` are the columns to align right, by position."""

    question: str
    how: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[int, ...]
    finding: str
    verdict: str
    is_true: bool
    seconds: float


def one_day(client: Client, flights: list[Flight], airports: dict[str, str]) -> Answer:
    """One airline's flights on a day, before nine: one partition, a range of the sort key."""
    carrier, day = "UA", 12
    began = time.perf_counter()
    items = _query(
        client,
        TableName=TABLE,
        KeyConditionExpression="airline_day = :day AND departure < :nine",
        ExpressionAttributeValues={
            ":day": {"S": airline_day(carrier, day)},
            ":nine": {"S": "0900"},
        },
    )
    seconds = time.perf_counter() - began

    expected = [
        flight
        for flight in flights
        if flight.carrier == carrier and flight.day == day and flight.scheduled < "0900"
    ]
    expected.sort(key=lambda flight: flight.departure)
    early = [flight for flight in expected if flight.dep_delay is not None]
    on_time = sum(int(item["dep_delay"]["N"]) <= 0 for item in items if "dep_delay" in item)
    truth_on_time = sum(flight.dep_delay <= 0 for flight in early if flight.dep_delay is not None)
    shown = items[:6]
    return Answer(
        question="Which United flights left New York before nine on 12 January?",
        how="Query, one partition key and a range of the sort key",
        columns=("sched.", "flight", "from", "to", "delay"),
        rows=tuple(
            (
                _clock(item["departure"]["S"][:4]),
                item["flight"]["S"],
                item["origin"]["S"],
                _airport(item["dest"]["S"], airports),
                _minutes(item),
            )
            for item in shown
        ),
        numeric=(4,),
        finding=f"{len(items)} flights, {on_time} of them on time or early"
        + (f"; the first {len(shown)} are shown" if len(items) > len(shown) else ""),
        verdict=f"the same {len(expected)} items in the same order as in the file",
        is_true=items == [flight.item() for flight in expected] and on_time == truth_on_time,
        seconds=seconds,
    )


def worst_delays(client: Client, flights: list[Flight], airports: dict[str, str]) -> Answer:
    """The longest waits of each airport, read backwards from the index."""
    count = 3
    began = time.perf_counter()
    found = {
        origin: client.call(
            "Query",
            TableName=TABLE,
            IndexName=INDEX,
            KeyConditionExpression="origin = :origin",
            ExpressionAttributeValues={":origin": {"S": origin}},
            ScanIndexForward=False,
            Limit=count,
        )["Items"]
        for origin in AIRPORTS
    }
    seconds = time.perf_counter() - began

    is_true = True
    by_key = {(flight.airline_day, flight.departure): flight for flight in flights}
    for origin, items in found.items():
        delays = [
            flight.dep_delay
            for flight in flights
            if flight.origin == origin and flight.dep_delay is not None
        ]
        longest = sorted(delays, reverse=True)[:count]
        is_true &= [int(item["dep_delay"]["N"]) for item in items] == longest
        is_true &= all(
            _is_projection(item, by_key[item["airline_day"]["S"], item["departure"]["S"]])
            for item in items
        )
    worst = sorted(
        (item for items in found.values() for item in items),
        key=lambda item: (-int(item["dep_delay"]["N"]), item["flight"]["S"]),
    )
    longest_wait = int(worst[0]["dep_delay"]["N"]) if worst else 0
    return Answer(
        question="Who waited longest at each airport?",
        how=f"Query on the index {INDEX}, backwards, {count} at a time",
        columns=("delay", "flight", "day", "from", "to"),
        rows=tuple(
            (
                _hours(int(item["dep_delay"]["N"])),
                item["flight"]["S"],
                f"{int(item['airline_day']['S'][-2:])} Jan",
                item["origin"]["S"],
                _airport(item["dest"]["S"], airports),
            )
            for item in worst
        ),
        numeric=(0, 2),
        finding=f"the longest wait was {_hours(longest_wait)}: {worst[0]['flight']['S']} from "
        f"{worst[0]['origin']['S']} to {worst[0]['dest']['S']}"
        if worst
        else "no flight was found",
        verdict=f"the {count} longest delays of each airport are those of the file",
        is_true=is_true,
        seconds=seconds,
    )


def last_seat(client: Client, flight: Flight) -> tuple[Answer, str]:
    """Eight passengers want one seat at the same moment; also returns who got it ("" if nobody)."""
    passengers = ("Ada", "Barbara", "Edsger", "Frances", "Grace", "Katherine", "Leslie", "Tony")
    key = _key(flight)

    def book(passenger: str) -> str:
        try:
            client.call(
                "UpdateItem",
                TableName=TABLE,
                Key=key,
                UpdateExpression="SET last_seat = :passenger",
                ConditionExpression="attribute_exists(flight) AND attribute_not_exists(last_seat)",
                ExpressionAttributeValues={":passenger": {"S": passenger}},
            )
        except Refused as refusal:
            return refusal.kind
        return "booked"

    began = time.perf_counter()
    with ThreadPoolExecutor(len(passengers)) as pool:
        outcomes = dict(zip(passengers, pool.map(book, passengers), strict=True))
    seconds = time.perf_counter() - began

    winners = [name for name, outcome in outcomes.items() if outcome == "booked"]
    winner = winners[0] if winners else ""
    refused = sum(outcome == "ConditionalCheckFailedException" for outcome in outcomes.values())
    item = client.call("GetItem", TableName=TABLE, Key=key, ConsistentRead=True).get("Item")
    answer = Answer(
        question=f"Who gets the last seat on {flight.name} to {flight.destination}?",
        how=f"{len(passengers)} conditional UpdateItem at once: attribute_not_exists(last_seat)",
        columns=("passenger", "outcome"),
        rows=tuple(outcomes.items()),
        numeric=(),
        finding=f"{winner or 'nobody'} got it, {refused} were refused",
        verdict="exactly one booking succeeded, and a consistent read names that passenger",
        is_true=len(winners) == 1
        and refused == len(passengers) - 1
        and item == {**flight.item(), "last_seat": {"S": winner}},
        seconds=seconds,
    )
    return answer, winner


def punctuality(client: Client, flights: list[Flight], airlines: dict[str, str]) -> Answer:
    """Every flight, read by parallel workers and summed up per airline."""
    began = time.perf_counter()
    items = scan_everything(client)
    seconds = time.perf_counter() - began

    found = sum_up((airline_of(item), delay_of(item)) for item in items)
    expected = sum_up((flight.carrier, flight.dep_delay) for flight in flights)
    busiest = sorted(found, key=lambda carrier: -found[carrier].flights)[:8]
    late = sum(sums.late for sums in found.values())
    flown = sum(sums.departed for sums in found.values())
    rows = [
        (
            airlines.get(carrier, carrier),
            f"{found[carrier].flights:,}",
            f"{found[carrier].cancelled:,}",
            f"{found[carrier].mean_delay:.1f} min",
            f"{found[carrier].late_share:.0%}",
            bar(found[carrier].late_share),
        )
        for carrier in busiest
    ]
    return Answer(
        question="How punctual were the airlines?",
        how=f"Scan in {SEGMENTS} parallel segments, summed up here",
        columns=("airline", "flights", "cancelled", "mean delay", "late", ""),
        rows=tuple(rows),
        numeric=(1, 2, 3, 4),
        finding=f"{len(items):,} flights read; of the {flown:,} that left, {late:,} were more than "
        "15 minutes late",
        verdict="flights, cancellations and minutes of every airline equal the file's",
        is_true=found == expected and len(items) == len(flights),
        seconds=seconds,
    )


def index_counts(client: Client) -> dict[str, int]:
    """How many items the index holds for each airport."""
    return {
        origin: sum(
            page["Count"]
            for page in client.pages(
                "Query",
                TableName=TABLE,
                IndexName=INDEX,
                Select="COUNT",
                KeyConditionExpression="origin = :origin",
                ExpressionAttributeValues={":origin": {"S": origin}},
            )
        )
        for origin in AIRPORTS
    }


def scan_everything(client: Client) -> list[Item]:
    """Every item of the table, read by one worker a segment."""

    def segment(number: int) -> list[Item]:
        pages = client.pages(
            "Scan",
            TableName=TABLE,
            ConsistentRead=True,
            Segment=number,
            TotalSegments=SEGMENTS,
        )
        return [item for page in pages for item in page["Items"]]

    with ThreadPoolExecutor(SEGMENTS) as pool:
        return [item for items in pool.map(segment, range(SEGMENTS)) for item in items]


def fingerprint(items: Iterable[Item]) -> str:
    """A hash of a set of items, whatever their order."""
    encode: Callable[[Any], bytes] = msgspec.json.Encoder(order="deterministic").encode
    return hashlib.sha256(b"\n".join(sorted(map(encode, items)))).hexdigest()


def _query(client: Client, **members: Any) -> list[Item]:
    return [item for page in client.pages("Query", **members) for item in page["Items"]]


def _key(flight: Flight) -> Item:
    return {"airline_day": {"S": flight.airline_day}, "departure": {"S": flight.departure}}


def _is_projection(item: Item, flight: Flight) -> bool:
    """Whether the index's item is what its projection says of the flight's."""
    names = {"airline_day", "departure", "origin", "dep_delay", "flight", "dest", "arr_delay"}
    return item == {name: value for name, value in flight.item().items() if name in names}


def sum_up(delays: Iterable[tuple[Group, int | None]]) -> dict[Group, Sums]:
    """The sums of each group, from pairs of group and delay."""
    sums: defaultdict[Group, Sums] = defaultdict(Sums)
    for group, delay in delays:
        sums[group] = sums[group].plus(delay)
    return dict(sums)


def airline_of(item: Item) -> str:
    """The code of the airline."""
    airline: str = item["airline_day"]["S"].partition("#")[0]
    return airline


def delay_of(item: Item) -> int | None:
    """Minutes at departure; None if cancelled."""
    return int(item["dep_delay"]["N"]) if "dep_delay" in item else None


def bar(share: float) -> str:
    """A share as a length."""
    return "▇" * round(share * 20)


def _airport(code: str, names: dict[str, str]) -> str:
    return f"{code} {names[code]}" if code in names else code


def _clock(scheduled: str) -> str:
    return f"{scheduled[:2]}:{scheduled[2:]}"


def _minutes(item: Item) -> str:
    if "dep_delay" not in item:
        return "cancelled"
    delay = int(item["dep_delay"]["N"])
    return f"{delay:+d} min" if delay else "on time"


def _hours(minutes: int) -> str:
    return f"{minutes // 60} h {minutes % 60:02} min"
