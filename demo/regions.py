"""The demo's last part: one table in three regions, each of them a process with its own data.

Every airline writes its flights in a region of its own; the three airports' items are written by
all regions, so that writes meet. In the middle one region is cut off from the two others, which
nobody who writes there notices. When it is back the three are compared, byte for byte.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..api.operations.triggers import PREFIX
from .client import Client, Refused
from .dataset import Flight
from .node import Node, NodeFailed
from .screen import Screen

REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-1")
CUT_OFF = REGIONS[2]
TABLE = "departures"
TABLE_DEFINITION: dict[str, Any] = {
    "TableName": TABLE,
    "BillingMode": "PAY_PER_REQUEST",
    "KeySchema": [
        {"AttributeName": "airline_day", "KeyType": "HASH"},
        {"AttributeName": "departure", "KeyType": "RANGE"},
    ],
    "AttributeDefinitions": [
        {"AttributeName": "airline_day", "AttributeType": "S"},
        {"AttributeName": "departure", "AttributeType": "S"},
    ],
}
#: Of the month, so many days are written: enough to watch, and over in seconds.
DAYS = 10
BATCH_ITEMS = 25
LOOK_SECONDS = 0.1
WAIT_SECONDS_MAX = 60.0
#: Of each region's flights: so much is written before one is cut off, and until it is back.
SHARES = (0.25, 0.7)

Item = dict[str, Any]


class Lag(msgspec.Struct, frozen=True):
    """How far one region is behind another one's changes."""

    origin: str
    region: str
    entries: int
    seconds: float
    is_linked: bool


class Look(msgspec.Struct, frozen=True):
    """One look at all regions: how far they are behind, and conflicts found, by region."""

    lags: tuple[Lag, ...]
    conflicts: dict[str, int]

    @property
    def is_level(self) -> bool:
        """Whether every region has what every other has written."""
        return all(lag.is_linked and not lag.entries for lag in self.lags)


class Regions:
    """Three nodes, their clients, and what was written through them."""

    def __init__(self, folder: Path, flights: Sequence[Flight], keys: tuple[str, str]) -> None:
        self._folder = folder
        self._access_key, self._secret_key = keys
        self._nodes: dict[str, Node] = {}
        self._clients: dict[str, Client] = {}
        carriers = sorted({flight.carrier for flight in flights})
        home = {carrier: REGIONS[i % len(REGIONS)] for i, carrier in enumerate(carriers)}
        #: Region -> the flights that its airlines write there.
        self.flights: dict[str, list[Flight]] = {region: [] for region in REGIONS}
        for flight in flights:
            if flight.day <= DAYS:
                self.flights[home[flight.carrier]].append(flight)
        self.total = sum(map(len, self.flights.values()))
        #: Region -> how many of its flights are acknowledged.
        self.written = dict.fromkeys(REGIONS, 0)
        #: (airport, region) -> the last flight that the region has entered there.
        self.entered: dict[tuple[str, str], str] = {}
        #: Where writers wait, when they have written their shares, until they may go on.
        self._gates = tuple(threading.Event() for _ in SHARES)
        self._failures: list[OSError | Refused] = []

    # Nodes.

    def start(self, arguments: list[str]) -> float:
        """Start the three and wait until they are linked; the seconds it took."""
        began = time.monotonic()
        for region in REGIONS:
            more = ["--region", region, "--data", str(self._folder / region), *arguments]
            node = self._nodes[region] = Node(more, self._folder / f"{region}.log")
            node.start()
            self._clients[region] = Client(
                node.endpoint, self._access_key, self._secret_key, region
            )
        for _ in _turns():
            if all(lag["Linked"] for region in REGIONS for lag in self._peers(region)):
                return time.monotonic() - began
        raise NodeFailed("the regions do not reach each other")

    def stop(self) -> None:
        """End clients and nodes."""
        for client in self._clients.values():
            client.close()
        for node in self._nodes.values():
            node.stop()

    def _peers(self, region: str) -> list[dict[str, Any]]:
        peers: list[dict[str, Any]] = self._clients[region].call(PREFIX + "DescribeRegions")[
            "Peers"
        ]
        return peers

    # The table.

    def create(self) -> float:
        """Make the table in the first region and replicas in the others; the seconds it took."""
        began = time.monotonic()
        first = self._clients[REGIONS[0]]
        first.call("CreateTable", **TABLE_DEFINITION)
        self._until_active(REGIONS[0])
        for region in REGIONS[1:]:
            update = {"Create": {"RegionName": region}}
            first.call("UpdateTable", TableName=TABLE, ReplicaUpdates=[update])
            self._until_active(REGIONS[0])
        for region in REGIONS:
            self._until_active(region)
        return time.monotonic() - began

    def _until_active(self, region: str) -> None:
        for _ in _turns():
            table = self._clients[region].call("DescribeTable", TableName=TABLE)["Table"]
            replicas = {replica["ReplicaStatus"] for replica in table.get("Replicas", [])}
            if {table["TableStatus"], *replicas} == {"ACTIVE"}:
                return
        raise NodeFailed(f"the table did not become active in {region}")

    # Writing.

    @contextlib.contextmanager
    def writers(self) -> Iterator[None]:
        """While this is open every region's airlines write there, a thread each."""
        threads = [
            threading.Thread(target=self._write, args=(region,), daemon=True) for region in REGIONS
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for gate in self._gates:
                gate.set()
            for thread in threads:
                thread.join(WAIT_SECONDS_MAX)
        if self._failures:
            raise self._failures[0]

    def _write(self, region: str) -> None:
        try:
            flights = self.flights[region]
            for start in range(0, len(flights), BATCH_ITEMS):
                for share, gate in zip(SHARES, self._gates, strict=True):
                    if start >= share * len(flights):
                        gate.wait(WAIT_SECONDS_MAX)
                self._write_batch(region, flights[start : start + BATCH_ITEMS])
        except (OSError, Refused) as failure:
            self._failures.append(failure)

    def _write_batch(self, region: str, batch: list[Flight]) -> None:
        client = self._clients[region]
        requests: Any = {TABLE: [{"PutRequest": {"Item": flight.item()}} for flight in batch]}
        for _ in _turns():
            answer = client.call("BatchWriteItem", RequestItems=requests)
            requests = answer.get("UnprocessedItems")
            if not requests:
                break
        self.written[region] += len(batch)
        last = batch[-1]
        entry = f"{last.name} on {last.day:02d}, entered in {region}"
        client.call(
            "UpdateItem",
            TableName=TABLE,
            Key=airport_key(last.origin),
            UpdateExpression="SET last_departure = :entry",
            ExpressionAttributeValues={":entry": {"S": entry}},
        )
        self.entered[last.origin, region] = entry

    def has_written(self, share: float) -> bool:
        """Whether every region has written so much of its flights."""
        if self._failures:
            raise self._failures[0]
        return all(
            self.written[region] >= share * len(self.flights[region]) for region in REGIONS
        )

    def go_on(self, number: int) -> None:
        """Let writers pass the gate behind the share of that number."""
        self._gates[number].set()

    # Drills, and what they show.

    def cut_off(self, is_cut: bool) -> None:
        """Let nothing through between one region and the two others; or everything again."""
        for region in REGIONS:
            if region != CUT_OFF:
                for one, other in ((region, CUT_OFF), (CUT_OFF, region)):
                    self._clients[one].call(
                        PREFIX + "SetLinkFault", Region=other, Partitioned=is_cut
                    )

    def look(self) -> Look:
        """How things stand."""
        lags, conflicts = [], {}
        for region in REGIONS:
            peers = {peer["Region"]: peer for peer in self._peers(region)}
            conflicts[region] = sum(peer["Conflicts"] for peer in peers.values())
            for lag in self._clients[region].call(PREFIX + "ListReplicationLag")["Lags"]:
                is_linked = peers[lag["Region"]]["Linked"]
                lags.append(
                    Lag(region, lag["Region"], lag["Entries"], lag["Seconds"], is_linked)
                )
        return Look(tuple(lags), conflicts)

    def scan(self, region: str) -> dict[str, bytes]:
        """Key -> item, as the region answers it, byte for byte."""
        pages = self._clients[region].pages("Scan", TableName=TABLE, ConsistentRead=True)
        return {
            f"{item['airline_day']['S']} {item['departure']['S']}": msgspec.json.encode(item)
            for page in pages
            for item in page["Items"]
        }


class RegionsPart:
    """Runs it and pronounces verdicts through ``verdict(phase, text, is_true)``."""

    def __init__(
        self, screen: Screen, regions: Regions, verdict: Callable[[str, str, bool], None]
    ) -> None:
        self._screen = screen
        self._regions = regions
        self._verdict = verdict

    def run(self) -> None:
        """From the table to the comparison."""
        regions = self._regions
        seconds = regions.create()
        self._screen.say(
            "regions", f"the table {TABLE} is in {', '.join(REGIONS)} after {seconds:.1f} s"
        )
        at_the_cut = 0
        began = time.monotonic()
        with self._screen.board("regions") as show, regions.writers():
            phase = 0
            for _ in _looks():
                look = regions.look()
                show(_rows(look, regions, phase == 1))
                if phase == 0 and regions.has_written(SHARES[0]) and look.is_level:
                    regions.cut_off(True)
                    at_the_cut = regions.written[CUT_OFF]
                elif phase == 1 and regions.has_written(SHARES[1]):
                    self._judge_isolation(at_the_cut, look)
                    regions.cut_off(False)
                elif phase == 2 and regions.has_written(1.0) and look.is_level:
                    break
                else:
                    continue
                regions.go_on(phase)
                phase += 1
        self._judge(regions.look(), time.monotonic() - began)

    def _judge_isolation(self, at_the_cut: int, look: Look) -> None:
        """While it was cut off: it took writes, and the others know nothing of them."""
        regions = self._regions
        taken = regions.written[CUT_OFF] - at_the_cut
        own = {
            f"{flight.airline_day} {flight.departure}" for flight in regions.flights[CUT_OFF]
        }
        known = len(own & regions.scan(REGIONS[0]).keys()) - at_the_cut
        behind = max(lag.seconds for lag in look.lags)
        self._verdict(
            "apart",
            f"cut off, {CUT_OFF} took {taken:,} flights, of which {REGIONS[0]} knew {known}; "
            f"up to {behind:.1f} s behind",
            taken > 0 and known == 0,
        )

    def _judge(self, look: Look, seconds: float) -> None:
        regions = self._regions
        found = {region: regions.scan(region) for region in REGIONS}
        first = found[REGIONS[0]]
        airports = {airport for airport, _ in regions.entered}
        count = regions.total + len(airports)
        is_equal = all(items == first for items in found.values())
        self._verdict(
            "equal",
            f"{count:,} items in each region, {'equal' if is_equal else 'NOT equal'} byte for byte "
            f"{seconds:.1f} s after the first write",
            is_equal and len(first) == count,
        )
        expected = {
            f"{flight.airline_day} {flight.departure}": flight.item()
            for flights in regions.flights.values()
            for flight in flights
        }
        lost = sum(
            msgspec.json.decode(first.get(key, b"{}")) != item for key, item in expected.items()
        )
        self._verdict(
            "kept", f"{len(expected):,} flights were acknowledged, {lost} are lost", not lost
        )
        last = {
            airport: msgspec.json.decode(first[f"airport#{airport} last"])["last_departure"]["S"]
            for airport in sorted(airports)
        }
        # Of each region only its last entry can have won.
        is_last = all(
            entry in {regions.entered.get((airport, region)) for region in REGIONS}
            for airport, entry in last.items()
        )
        shown = "; ".join(f"{airport}: {entry}" for airport, entry in last.items())
        self._verdict(
            "conflict",
            f"{sum(look.conflicts.values()):,} writes met others, and the last one won: {shown}",
            is_last and sum(look.conflicts.values()) > 0,
        )


def regions_file(secret: str) -> str:
    """A file of regions with three free ports of this machine."""
    lines = [f'secret = "{secret}"']
    with contextlib.ExitStack() as stack:
        for number, region in enumerate(REGIONS, 1):
            taken = stack.enter_context(contextlib.closing(socket.socket()))
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            lines += [f"[regions.{region}]", f"number = {number}"]
            lines.append(f'address = "127.0.0.1:{port}"')
    return "\n".join(lines) + "\n"


def airport_key(airport: str) -> Item:
    """The key of the item that all regions write."""
    return {"airline_day": {"S": f"airport#{airport}"}, "departure": {"S": "last"}}


def _rows(look: Look, regions: Regions, is_cut: bool) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for region in REGIONS:
        behind = [lag for lag in look.lags if lag.region == region]
        entries = sum(lag.entries for lag in behind)
        seconds = max((lag.seconds for lag in behind), default=0.0)
        state = "cut off" if is_cut and region == CUT_OFF else "linked"
        rows.append(
            (
                region,
                state,
                f"{regions.written[region]:,} of {len(regions.flights[region]):,}",
                f"{entries:,}",
                f"{seconds:.1f} s",
                f"{look.conflicts[region]:,}",
            )
        )
    return rows


def _turns() -> Iterator[None]:
    """Looks with a growing pause between them, until the time is over."""
    began, pause_seconds = time.monotonic(), 0.01
    while time.monotonic() - began < WAIT_SECONDS_MAX:
        yield
        time.sleep(pause_seconds)
        pause_seconds = min(0.25, pause_seconds * 1.5)


def _looks() -> Iterator[None]:
    began = time.monotonic()
    while time.monotonic() - began < WAIT_SECONDS_MAX:
        yield
        time.sleep(LOOK_SECONDS)
