"""The flights, read from the files beside this module, and the plain Python answers' raw material.

Pure but for reading the package's own data. A ``Flight`` becomes one item of the table::

    airline_day   "UA#2013-01-12"     partition key: an airline's flights on one day
    departure     "0715#EWR#1545"     sort key: scheduled local time, airport, flight number
    origin        "EWR"               the index's partition key
    dep_delay     17                  the index's sort key, minutes; absent when cancelled

so that the index holds exactly the flights that left.
"""

from __future__ import annotations

import csv
import gzip
import io
from importlib.resources import files
from typing import Any

import msgspec

FLIGHTS_COUNT = 27_004


class Flight(msgspec.Struct, frozen=True):
    """One row: delays and air time in minutes (None: cancelled, or diverted), distance in miles."""

    carrier: str
    number: str
    day: int
    scheduled: str
    origin: str
    destination: str
    tail: str
    dep_delay: int | None
    arr_delay: int | None
    air_time: int | None
    distance: int

    @property
    def name(self) -> str:
        """As on a departures board, ``UA1545``."""
        return self.carrier + self.number

    @property
    def airline_day(self) -> str:
        """The partition key."""
        return airline_day(self.carrier, self.day)

    @property
    def departure(self) -> str:
        """The sort key."""
        return f"{self.scheduled}#{self.origin}#{self.number}"

    def item(self) -> dict[str, Any]:
        """The item in DynamoDB's JSON; what the row does not know is absent."""
        item = {
            "airline_day": {"S": self.airline_day},
            "departure": {"S": self.departure},
            "flight": {"S": self.name},
            "origin": {"S": self.origin},
            "dest": {"S": self.destination},
            "distance": {"N": str(self.distance)},
        }
        if self.tail:
            item["tail"] = {"S": self.tail}
        for name in ("dep_delay", "arr_delay", "air_time"):
            value = getattr(self, name)
            if value is not None:
                item[name] = {"N": str(value)}
        return item


def airline_day(carrier: str, day: int) -> str:
    """The partition key of an airline's flights on a day of January 2013."""
    return f"{carrier}#2013-01-{day:02}"


def load_flights() -> list[Flight]:
    """All rows, in the data set's order."""
    packed = (files(__package__) / "data" / "flights-2013-01.csv.gz").read_bytes()
    rows = csv.DictReader(io.StringIO(gzip.decompress(packed).decode("utf-8")))
    return [
        Flight(
            carrier=row["carrier"],
            number=row["flight"],
            day=int(row["day"]),
            scheduled=row["sched_dep_time"].zfill(4),
            origin=row["origin"],
            destination=row["dest"],
            tail=row["tailnum"],
            dep_delay=_whole(row["dep_delay"]),
            arr_delay=_whole(row["arr_delay"]),
            air_time=_whole(row["air_time"]),
            distance=int(row["distance"]),
        )
        for row in rows
    ]


def load_names(file_name: str) -> dict[str, str]:
    """Code to name, from ``airlines.csv`` or ``airports.csv``. Some airports have no name there."""
    text = (files(__package__) / "data" / file_name).read_text(encoding="utf-8")
    return dict(list(csv.reader(io.StringIO(text)))[1:])


def _whole(text: str) -> int | None:
    return int(text) if text else None
