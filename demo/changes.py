"""The flights as a stream of changes: what the handlers have made of it, looked at from outside.

``handlers`` run in the node; this asks for the tables that they write, as any client could, and
judges them: everything is recomputed, from the table that the changes were made to.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from .client import Client
from .handlers import (
    ALERT_MINUTES,
    ALERT_RETRIES,
    ALERTS,
    COUNTERS,
    FAILED,
    LEADERBOARD,
    UNBELIEVABLE_MINUTES,
)
from .questions import AIRPORTS, Answer, Item, Sums, airline_of, bar, delay_of, sum_up

APP = "millstream.demo.handlers:triggers"
STREAM = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
# An airline with fewer flights is no match for the others.
RANKED_FLIGHTS_MIN = 100
RANKS = 3

_KEYS = {
    LEADERBOARD: ("airport", "airline"),
    ALERTS: ("airline_day", "departure"),
    FAILED: ("batch", "first"),
    COUNTERS: ("handler", "life"),
}


class Progress(msgspec.Struct, frozen=True):
    """What a handler has done, over all lives of the node: changes, batches, calls."""

    records: int = 0
    batches: int = 0
    calls: int = 0

    @property
    def retries(self) -> int:
        """Calls that led to no batch done. Those just before a kill are not known."""
        return max(0, self.calls - self.batches)


def definitions() -> Iterable[dict[str, Any]]:
    """CreateTable requests for what the handlers write."""
    for name, keys in _KEYS.items():
        yield {
            "TableName": name,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [
                {"AttributeName": key, "AttributeType": "S"} for key in keys
            ],
            "KeySchema": [
                {"AttributeName": key, "KeyType": kind}
                for key, kind in zip(keys, ("HASH", "RANGE"), strict=True)
            ],
        }


def read_progress(client: Client) -> dict[str, Progress]:
    """What each handler has done."""
    found: dict[str, Progress] = {}
    for item in _everything(client, COUNTERS):
        before = found.get(item["handler"]["S"], Progress())
        found[item["handler"]["S"]] = Progress(
            before.records + int(item["records"]["N"]),
            before.batches + int(item["batches"]["N"]),
            before.calls + int(item["calls"]["N"]),
        )
    return found


def alert_records(items: Iterable[Item]) -> int:
    """How many of these changes ``alerts`` has to take: its filter, less what it refuses."""
    delays = [delay_of(item) for item in items]
    return sum(delay is not None and 0 <= delay < UNBELIEVABLE_MINUTES for delay in delays)


def leaderboard(client: Client, flights: list[Item], airlines: dict[str, str]) -> Answer:
    """The ranking that ``leaderboard`` has kept; ``flights`` is the table, to compare."""
    began = time.perf_counter()
    found: dict[tuple[str, str], Sums] = {
        (item["airport"]["S"], item["airline"]["S"]): Sums(
            *(int(item[name]["N"]) for name in ("flights", "cancelled", "late", "delay_minutes"))
        )
        for item in _everything(client, LEADERBOARD)
    }
    seconds = time.perf_counter() - began
    expected = sum_up(((item["origin"]["S"], airline_of(item)), delay_of(item)) for item in flights)
    rows: list[tuple[str, ...]] = []
    for airport in AIRPORTS:
        ranked = sorted(
            (place for place, sums in found.items()
             if place[0] == airport and sums.flights >= RANKED_FLIGHTS_MIN),
            key=lambda place: -found[place].mean_delay,
        )  # fmt: skip
        for rank, place in enumerate(ranked[:RANKS], 1):
            sums = found[place]
            rows.append(
                (
                    airport if rank == 1 else "",
                    f"{rank}.",
                    airlines.get(place[1], place[1]),
                    f"{sums.flights:,}",
                    f"{sums.mean_delay:.1f} min",
                    f"{sums.late_share:.0%}",
                    bar(sums.late_share),
                )
            )
    minutes = sum(sums.delay_minutes for sums in found.values())
    return Answer(
        question="Whose passengers wait longest, airport by airport?",
        how="a handler of the table's stream adds each batch to these sums, exactly once",
        columns=("from", "", "airline", "flights", "mean delay", "late", ""),
        rows=tuple(rows),
        numeric=(3, 4, 5),
        finding=f"{len(found)} sums of {sum(sums.flights for sums in found.values()):,} flights "
        f"and {minutes:,} minutes, kept up to date while the node was killed",
        verdict=f"all {len(expected)} equal a recomputation from the table",
        is_true=found == expected,
        seconds=seconds,
    )


def judge_alerts(client: Client, flights: list[Item]) -> tuple[str, bool]:
    """What became of long waits and of the poison, in a line; whether it is as it must be."""
    delays = {_place(item): delay for item in flights if (delay := delay_of(item)) is not None}
    poison = {place for place, delay in delays.items() if delay >= UNBELIEVABLE_MINUTES}
    expected = {
        place: delay
        for place, delay in delays.items()
        if delay >= ALERT_MINUTES and place not in poison
    }
    listed = {_place(item): int(item["delay_minutes"]["N"]) for item in _everything(client, ALERTS)}
    # A crash may have a batch given up twice: what is given up is told at least once.
    failed = {_failed_place(item): _attempts(item) for item in _everything(client, FAILED)}
    names = [item["flight"]["S"] for item in flights if _place(item) in failed]
    return (
        f"{len(listed)} flights more than {ALERT_MINUTES // 60} hours late are listed; "
        f"{' and '.join(names) or 'nothing'}, refused {max(failed.values(), default=0)} times by "
        f"the handler, is in {FAILED} and held up nobody",
        listed == expected and failed == dict.fromkeys(poison, ALERT_RETRIES + 1),
    )


def _failed_place(item: Item) -> tuple[str, str]:
    """Whose batch was given up: bisecting has left a single record in it."""
    records = json.loads(item["event"]["S"])["Records"]
    return _place(records[0]["dynamodb"]["Keys"]) if len(records) == 1 else ("", "")


def _attempts(item: Item) -> int:
    context = item["failure"]["M"]["requestContext"]["M"]
    return int(context["approximateInvokeCount"]["N"])


def _place(item: Item) -> tuple[str, str]:
    return item["airline_day"]["S"], item["departure"]["S"]


def _everything(client: Client, table: str) -> list[Item]:
    pages = client.pages("Scan", TableName=table, ConsistentRead=True)
    return [item for page in pages for item in page["Items"]]
