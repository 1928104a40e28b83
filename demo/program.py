"""``millstream demo``, from start to end.

Starts a node on a temporary directory with credentials, loads the flights and asks the questions.
Then the node gets handlers, which are given every change that there ever was; in the middle of that
it is killed without warning and started again, and must prove that everything is still there and
that every change was counted once. At the end one table is in three regions, processes of their
own, one of which is cut off for a while (``regions.py``). Exit code 0 only if every verdict was
true. With ``--endpoint`` the same questions go to a DynamoDB that runs already; nobody kills that
one, it gets no handlers and no regions, and the demo's table is deleted at the end.
"""

from __future__ import annotations

import contextlib
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import changes, questions
from .changes import Progress
from .client import Client, Refused
from .dataset import FLIGHTS_COUNT, Flight, load_flights, load_names
from .node import Node, NodeFailed
from .questions import INDEX, TABLE, TABLE_DEFINITION
from .regions import Regions, RegionsPart, regions_file
from .screen import Screen, make_screen

EXIT_OK = 0
EXIT_FALSE = 1
EXIT_INTERRUPTED = 130

CONNECTIONS = 4
BATCH_ITEMS = 25
WAIT_SECONDS_MAX = 60.0
# How much of the changes is handled when the node is killed.
KILL_SHARE = 0.4
LOOK_SECONDS = 0.03


def demo_command(endpoint: str | None, screen: Screen | None = None) -> int:
    """Run the demo; returns the exit code."""
    try:
        demo = Demo(screen or make_screen())
        is_true = demo.run_against(endpoint) if endpoint else demo.run_with_own_node()
    except (NodeFailed, OSError, Refused, ValueError) as failure:
        print(f"millstream demo: {failure}", file=sys.stderr)
        return EXIT_FALSE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return EXIT_OK if is_true else EXIT_FALSE


class Demo:
    """One run: the data, where to show things, and whether every verdict was true so far."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._began = time.monotonic()
        self._is_true = True
        #: How many verdicts were pronounced.
        self._verdicts = 0
        self._flights = load_flights()
        assert len(self._flights) == FLIGHTS_COUNT
        self._airlines = load_names("airlines.csv")
        self._airports = load_names("airports.csv")

    def run_against(self, endpoint: str) -> bool:
        """Ask a DynamoDB that runs already; whether every verdict was true."""
        with contextlib.closing(Client(endpoint, "demo", "demo")) as client:
            self._create(client)
            try:
                self._load(client)
                self._ask(client)
            finally:
                client.call("DeleteTable", TableName=TABLE)
        return self._close()

    def run_with_own_node(self) -> bool:
        """Start a node, ask it, kill it, start it again; whether every verdict was true."""
        access_key, secret_key = "DEMO" + secrets.token_hex(8).upper(), secrets.token_urlsafe(30)
        with tempfile.TemporaryDirectory(prefix="millstream-demo-") as folder:
            keys = Path(folder) / "credentials"
            keys.touch(mode=0o600)
            keys.write_text(
                f"[demo]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n",
                encoding="utf-8",
            )
            data = str(Path(folder) / "data")
            arguments = ["--data", data, "--credentials", str(keys)]
            node = Node(arguments, Path(folder) / "node.log")

            def client() -> contextlib.closing[Client]:
                return contextlib.closing(Client(node.endpoint, access_key, secret_key))

            try:
                seconds = node.start()
                self._screen.say("node", f"listening on {node.endpoint} after {seconds:.2f} s")
                with client() as own:
                    self._check_signatures(node.endpoint, access_key)
                    self._create(own, {"StreamSpecification": changes.STREAM})
                    self._load(own)
                    winner, flight = self._ask(own)
                    for definition in changes.definitions():
                        own.call("CreateTable", **definition)

                node.stop()
                node = Node([*arguments, "--app", changes.APP], Path(folder) / "node.log")
                seconds = node.start()
                self._screen.say(
                    "code",
                    f"two handlers of changes, and the node listening again after {seconds:.2f} s",
                )
                began = time.perf_counter()
                with client() as own:
                    before = self._follow(own, KILL_SHARE)
                node.kill()
                seconds = node.start()
                self._say_killed(before, seconds)
                with client() as own:
                    self._close_changes(self._follow(own, 1.0), time.perf_counter() - began)
                    items = self._check_survival(own, winner, flight)
                    self._judge_handlers(own, items)
            finally:
                node.stop()
            self._span_regions(Path(folder), keys, access_key, secret_key)
        return self._close()

    def _span_regions(
        self, folder: Path, keys: Path, access_key: str, secret_key: str
    ) -> None:
        """Three regions as three processes, one of them cut off for a while."""
        with keys.open("a", encoding="utf-8") as credentials:
            # Drills are the operator's.
            credentials.write("millstream_functions = true\n")
        peers = folder / "regions.toml"
        peers.touch(mode=0o600)
        peers.write_text(regions_file(secrets.token_urlsafe(30)), encoding="utf-8")
        regions = Regions(folder, self._flights, (access_key, secret_key))
        try:
            seconds = regions.start(["--credentials", str(keys), "--peers", str(peers)])
            self._screen.say(
                "regions", f"three nodes, each linked with the others after {seconds:.1f} s"
            )
            RegionsPart(self._screen, regions, self._verdict).run()
        finally:
            regions.stop()

    def _check_signatures(self, endpoint: str, access_key: str) -> None:
        """A request signed with the wrong secret must be refused."""
        kind = "accepted"
        with contextlib.closing(Client(endpoint, access_key, "not the secret")) as stranger:
            try:
                stranger.call("ListTables")
            except Refused as refusal:
                kind = refusal.kind
        self._verdict(
            "keys", f"a request with a wrong signature: {kind}", kind == "InvalidSignatureException"
        )

    def _create(self, client: Client, more: dict[str, Any] | None = None) -> None:
        client.call("CreateTable", **TABLE_DEFINITION, **(more or {}))
        for _ in _until(WAIT_SECONDS_MAX):
            table = client.call("DescribeTable", TableName=TABLE)["Table"]
            indexes = table["GlobalSecondaryIndexes"]
            if {table["TableStatus"], *(index["IndexStatus"] for index in indexes)} == {"ACTIVE"}:
                self._screen.say("table", f"{TABLE}, with the index {INDEX}")
                return
        raise NodeFailed("the table did not become active")

    def _load(self, client: Client) -> None:
        """BatchWriteItem over several connections, then wait until the index has followed."""
        began = time.perf_counter()
        batches = [
            self._flights[start : start + BATCH_ITEMS]
            for start in range(0, len(self._flights), BATCH_ITEMS)
        ]
        with self._screen.progress("load", len(self._flights)) as advance:

            def write(batch: list[Flight]) -> int:
                _write_batch(client, batch)
                return len(batch)

            with ThreadPoolExecutor(CONNECTIONS) as pool:
                for count in pool.map(write, batches):
                    advance(count)
        seconds = time.perf_counter() - began
        self._screen.say(
            "load",
            f"{len(self._flights):,} flights in {seconds:.1f} s, "
            f"{len(self._flights) / seconds:,.0f} a second "
            f"({len(batches):,} BatchWriteItem, {CONNECTIONS} connections)",
        )

        flown = sum(flight.dep_delay is not None for flight in self._flights)
        indexed = 0
        for _ in _until(WAIT_SECONDS_MAX):
            indexed = sum(questions.index_counts(client).values())
            if indexed == flown:
                break
        self._verdict(
            "index",
            f"{indexed:,} flights that left are in it, {len(self._flights) - flown} cancelled "
            f"ones are not",
            indexed == flown,
        )

    def _ask(self, client: Client) -> tuple[str, Flight]:
        """All questions. Also who got the last seat, and on which flight."""
        flight = next(flight for flight in self._flights if _is_wanted(flight))
        self._show(questions.one_day(client, self._flights, self._airports))
        self._show(questions.worst_delays(client, self._flights, self._airports))
        answer, winner = questions.last_seat(client, flight)
        self._show(answer)
        self._show(questions.punctuality(client, self._flights, self._airlines))
        return winner, flight

    def _follow(self, client: Client, share: float) -> dict[str, Progress]:
        """Watch the handlers until they have done this share of the work; what they had done."""
        total, alerts = len(self._flights) + 1, self._alert_records()
        progress: dict[str, Progress] = {}
        shown = 0
        with self._screen.progress("changes", total) as advance:
            began = time.monotonic()
            while time.monotonic() - began < WAIT_SECONDS_MAX:
                progress = changes.read_progress(client)
                done = progress.get("leaderboard", Progress()).records
                advance(done - shown, _counters(progress, total))
                shown = done
                alerted = progress.get("alerts", Progress()).records
                if done >= share * total and (share < 1 or alerted >= alerts):
                    break
                time.sleep(LOOK_SECONDS)
        return progress

    def _alert_records(self) -> int:
        """Changes that the handler ``alerts`` has to take: one booking besides the flights."""
        booked = next(flight for flight in self._flights if _is_wanted(flight))
        return changes.alert_records(flight.item() for flight in [*self._flights, booked])

    def _say_killed(self, before: dict[str, Progress], seconds: float) -> None:
        total = len(self._flights) + 1
        done = before.get("leaderboard", Progress()).records
        self._screen.say(
            "killed",
            f"after {done:,} of {total:,} changes ({_counters(before, total)}); "
            f"listening again after {seconds:.2f} s",
        )

    def _close_changes(self, progress: dict[str, Progress], seconds: float) -> None:
        """Every change was counted, and none was counted twice."""
        total = len(self._flights) + 1
        done = {name: found.records for name, found in progress.items()}
        self._verdict(
            "changes",
            f"{total:,}, each handled once, in {seconds:.1f} s with the kill "
            f"({_counters(progress, total)})",
            done == {"leaderboard": total, "alerts": self._alert_records()},
        )

    def _check_survival(
        self, client: Client, winner: str, flight: Flight
    ) -> list[questions.Item]:
        """After the kill: every item is what was acknowledged, the seat included. The items."""
        expected: list[dict[str, Any]] = []
        for one in self._flights:
            seat = {"last_seat": {"S": winner}} if one is flight else {}
            expected.append({**one.item(), **seat})
        found = questions.scan_everything(client)
        seats = [item["last_seat"]["S"] for item in found if "last_seat" in item]
        same = questions.fingerprint(found) == questions.fingerprint(expected)
        self._verdict(
            "data",
            f"{len(found):,} flights, each {'as it was' if same else 'NOT as it was'}; "
            f"the last seat is {' and '.join(seats)}'s",
            same,
        )
        return found

    def _judge_handlers(self, client: Client, items: list[questions.Item]) -> None:
        """What the handlers keep, against the items that they were told of."""
        self._verdict("alerts", *changes.judge_alerts(client, items))
        self._show(changes.leaderboard(client, items, self._airlines))

    def _show(self, answer: questions.Answer) -> None:
        self._screen.answer(answer)
        self._verdicts += 1
        self._is_true &= answer.is_true

    def _verdict(self, phase: str, text: str, is_true: bool) -> None:
        self._screen.say(phase, text, is_true)
        self._verdicts += 1
        self._is_true &= is_true

    def _close(self) -> bool:
        seconds = time.monotonic() - self._began
        outcome = "all true" if self._is_true else "NOT all true"
        self._screen.say(
            "done", f"{self._verdicts} verdicts, {outcome}, in {seconds:.1f} s", self._is_true
        )
        return self._is_true


def _is_wanted(flight: Flight) -> bool:
    """Whether it is the flight with one seat left."""
    return flight.name == "HA51" and flight.day == 14


def _counters(progress: dict[str, Progress], total: int) -> str:
    """What moves while handlers work; the lag is the leaderboard's, whom every change concerns."""
    batches = sum(found.batches for found in progress.values())
    retries = sum(found.retries for found in progress.values())
    lag = total - progress.get("leaderboard", Progress()).records
    tried = "1 retry" if retries == 1 else f"{retries} retries"
    return f"{batches:,} batches, {tried}, lag {lag:,}"


def _write_batch(client: Client, batch: list[Flight]) -> None:
    """Write up to 25 items; what DynamoDB hands back as unprocessed is sent again."""
    requests: Any = {TABLE: [{"PutRequest": {"Item": flight.item()}} for flight in batch]}
    for _ in _until(WAIT_SECONDS_MAX):
        requests = client.call("BatchWriteItem", RequestItems=requests).get("UnprocessedItems")
        if not requests:
            return
    raise Refused("Throttled", "the database did not take the data in time")


def _until(seconds_max: float) -> Iterator[None]:
    """Turns with a growing pause between them, until the time is over."""
    began = time.monotonic()
    pause_seconds = 0.01
    while time.monotonic() - began < seconds_max:
        yield
        time.sleep(pause_seconds)
        pause_seconds = min(0.5, pause_seconds * 1.5)
