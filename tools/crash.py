"""``make crash``: SIGKILL under load, again and again, on one data directory.

Each round starts the server where the last one was killed, checks that every acknowledged write is
there, that nothing is half-written and that the indexes equal their table, and then lets writers
loose on it until the next SIGKILL at a random moment. Every second start has small limits, so that
kills also hit rolling segments, compactions, flushes and trims; every tenth round begins with kills
while the server starts. At the end ``millstream scrub`` must be content.

There are four workloads. *items* is single writes and batches on a table with indexes (``load``),
*transactions* moves money between accounts in two tables of two partitions each (``transfers``):
the total must be kept, every acknowledged transaction be wholly there and every other wholly there
or not at all, no item may stay held, and a repeated token must do nothing twice. *triggers* has
handlers follow a table's stream (``trigger_load``): plain ones must see every change, transactional
ones count each once; worker processes are killed as well as the server. *regions* is three servers
with global tables, which are also cut off from each other (``crash_regions``).

With three log directories, one of them is missing now and then for a round, and comes back as it
was: what the others hold must do, and what it holds must not count. ``--million`` measures the
restart with a million items in the tree.

SIGKILL cannot show a missing sync, because the page cache survives it: that is ``powercut``'s.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from .load import (
    TABLE,
    Connection,
    Key,
    State,
    Writer,
    create_table,
    keyed_by,
    run_writers,
    verify,
)
from .server import Server, ServerFailed
from .transfers import Bank
from .trigger_load import Followed

WRITERS = 8
RESTART_SECONDS_MAX = 2.0
SETTINGS = ("leveldb", "segments", "leveldb x 3", "segments x 3")
WORKLOADS = ("items", "transactions", "triggers", "regions")
# What a transaction adds is the same in every log; one of each kind is enough by default.
TRANSACTION_SETTINGS = ("leveldb", "segments x 3")
TRIGGER_SETTINGS = ("leveldb", "segments")
DEFAULT_SETTINGS = {
    "items": SETTINGS,
    "transactions": TRANSACTION_SETTINGS,
    "triggers": TRIGGER_SETTINGS,
    "regions": ("auto",),
}
# A worker process ends when its node does, but not in the same moment.
WORKER_END_SECONDS_MAX = 5.0


class Worker(Protocol):
    """A client's thread: what it did and found, once it is joined."""

    acknowledged: int
    wrong: list[str]

    def join(self) -> None: ...


class Workload(Protocol):
    """What is done to the server between kills, and what must be found after them."""

    #: What the server is told besides.
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    #: Whether the server has worker processes, to be killed too.
    kills_workers: bool
    #: How many things were in doubt after the crashes until now.
    doubtful: int

    def create(self, endpoint: str) -> None:
        """Make the tables."""
        ...

    def start(self, endpoint: str, stop: threading.Event, phase: int) -> Sequence[Worker]:
        """Have clients work until ``stop`` is set or the server is gone."""
        ...

    def verify(self, endpoint: str, *, is_last: bool) -> tuple[int, list[str]]:
        """How many items a server holds that has just come up, and what is wrong there.

        ``is_last``: after the last kill.
        """
        ...

    def note(self) -> str:
        """What else is worth saying at the end; may be empty."""
        ...


class Items:
    """Single writes and batches by eight writers, on a table with indexes."""

    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}
    kills_workers = False

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._beliefs: list[dict[Key, list[State]]] = [{} for _ in range(WRITERS)]
        self.doubtful = 0

    def create(self, endpoint: str) -> None:
        create_table(endpoint)

    def start(self, endpoint: str, stop: threading.Event, phase: int) -> Sequence[Worker]:
        return run_writers(
            lambda number: Writer(
                number, endpoint, self._seed, self._beliefs[number], stop, phase=phase
            ),
            WRITERS,
        )

    def verify(self, endpoint: str, *, is_last: bool = False) -> tuple[int, list[str]]:
        self.doubtful += sum(len(states) > 1 for each in self._beliefs for states in each.values())
        return verify(endpoint, self._beliefs)

    def note(self) -> str:
        return ""


class Outcome:
    """What came of one setting's kills."""

    def __init__(self, setting: str) -> None:
        self.setting = setting
        self.kills = 0
        self.kills_while_starting = 0
        self.worker_kills = 0
        #: Rounds that ran without one of the log directories.
        self.absences = 0
        self.acknowledged = 0
        self.doubtful = 0
        self.items = 0
        self.restarts: list[float] = []
        self.wrong: list[str] = []
        #: What else is worth saying.
        self.note = ""


class Crasher:
    """Kills the server of one setting under one workload."""

    def __init__(
        self,
        setting: str,
        seed: int,
        *,
        rounds_seconds: tuple[float, float],
        workload: str = "items",
    ) -> None:
        self.outcome = Outcome(title_of(setting, workload))
        self._setting = setting
        self._random = random.Random(f"{seed}/{setting}")
        self._rounds_seconds = rounds_seconds
        self._seed = seed
        self._workload_name = workload
        self._workload: Workload

    def run(self, folder: Path, kills: int, progress: Progress) -> Outcome:
        """``kills`` rounds on a data directory in ``folder``; ends at the first thing wrong."""
        outcome = self.outcome
        self._workload = self._make_workload(folder)
        engine, _, copies = self._setting.partition(" x ")
        arguments = ["--data", str(folder / "data"), "--log-engine", engine]
        arguments += self._workload.arguments
        directories = [folder / f"copy-{number}" for number in range(int(copies or 0))]
        if directories:
            arguments += ["--log-dirs", ",".join(map(str, directories))]
        for number in range(kills + 1):
            away = None
            if directories and number % 4 == 3:
                away = self._take_away(self._random.choice(directories))
            small = number % 2 == 1
            server = Server(
                arguments,
                folder / "server.log",
                small=small,
                environment=self._workload.environment,
            )
            try:
                if number % 10 == 5:
                    self._kill_while_starting(server)
                self._round(server, number, is_last=number == kills)
            except ServerFailed as error:
                outcome.wrong.append(f"the server refuses to start: {error}")
            finally:
                server.kill()
            if outcome.wrong:
                break
            if away is not None:
                self._bring_back(away)
            progress.step(outcome)
        if not outcome.wrong:
            outcome.wrong += scrub(folder / "data", directories)
        for directory in directories:
            if not (directory.is_dir() and any(directory.iterdir())):
                outcome.wrong.append(f"{directory} is empty: the log is not replicated")
        outcome.note = self._workload.note()
        return outcome

    def _round(self, server: Server, number: int, *, is_last: bool) -> None:
        outcome, workload = self.outcome, self._workload
        seconds = server.start()
        if number == 0:
            workload.create(server.endpoint)
        else:
            outcome.restarts.append(seconds)
        outcome.items, wrong = workload.verify(server.endpoint, is_last=is_last)
        outcome.doubtful = workload.doubtful
        outcome.wrong += wrong
        if wrong or is_last:
            return
        stop = threading.Event()
        workers = workload.start(server.endpoint, stop, number)
        seconds = self._random.uniform(*self._rounds_seconds)
        if workload.kills_workers:
            self._kill_workers(server.process_id, seconds)
            left = children_of(server.process_id)
            server.kill()
            outcome.wrong += outliving(left)
        else:
            time.sleep(seconds)
            server.kill()
        outcome.kills += 1
        stop.set()
        for each in workers:
            each.join()
            outcome.acknowledged += each.acknowledged
            outcome.wrong += each.wrong

    def _make_workload(self, folder: Path) -> Workload:
        match self._workload_name:
            case "transactions":
                return Bank(self._seed)
            case "triggers":
                return Followed(self._seed, folder)
            case _:
                return Items(self._seed)

    def _kill_workers(self, server: int, seconds: float) -> None:
        """For so long, kill one of the server's processes now and then."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, self._random.uniform(0.05, 0.6)))
            workers = children_of(server)
            if workers:
                with suppress(ProcessLookupError):
                    os.kill(self._random.choice(workers), signal.SIGKILL)
                    self.outcome.worker_kills += 1

    def _take_away(self, directory: Path) -> Path:
        directory.rename(directory.with_suffix(".away"))
        self.outcome.absences += 1
        return directory

    def _bring_back(self, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.with_suffix(".away").rename(directory)

    def _kill_while_starting(self, server: Server) -> None:
        """Three starts, each cut short somewhere in the first seconds."""
        for _ in range(3):
            server.launch()
            time.sleep(self._random.uniform(0.05, 0.8))
            server.kill()
            self.outcome.kills_while_starting += 1


def children_of(process_id: int) -> list[int]:
    """The processes that a process has started (Linux; elsewhere none are found)."""
    found: list[int] = []
    for path in Path(f"/proc/{process_id}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, path.read_text().split())
    return sorted(found)


def outliving(process_ids: Sequence[int]) -> list[str]:
    """One sentence for each worker process that does not end although its node has."""
    deadline = time.monotonic() + WORKER_END_SECONDS_MAX
    left = [number for number in process_ids if _is_running(number)]
    while left and time.monotonic() < deadline:
        time.sleep(0.01)
        left = [number for number in left if _is_running(number)]
    return [f"worker process {number} goes on without its node" for number in left]


def _is_running(process_id: int) -> bool:
    try:
        text = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def title_of(setting: str, workload: str) -> str:
    """How a setting is called under a workload; *items* needs no mention."""
    return setting if workload == "items" else f"{setting}, {workload}"


def scrub(data: Path, log_directories: Sequence[Path]) -> list[str]:
    """What ``millstream scrub`` has against a directory as the last kill has left it."""
    command = [sys.executable, "-m", "millstream", "scrub", str(data)]
    if log_directories:
        command += ["--log-dirs", ",".join(map(str, log_directories))]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode == 0:
        return []
    return [f"scrub: {line.strip()}" for line in (found.stdout + found.stderr).splitlines()]


# A million items.


def measure_million(folder: Path, engine: str, items: int, progress: Progress) -> Outcome:
    """Load ``items`` items of about 100 bytes, SIGKILL, and time the restart until it listens."""
    outcome = Outcome(f"{engine}, {items:,} items")
    server = Server(["--data", str(folder / "data"), "--log-engine", engine], folder / "server.log")
    try:
        server.start()
        connection = Connection(server.endpoint)
        connection.create_tables([keyed_by("key", TABLE)])
        with ThreadPoolExecutor(4) as pool:
            parts = [range(low, items, 4) for low in range(4)]
            done = [pool.submit(_load, server.endpoint, part, progress) for part in parts]
            outcome.acknowledged = sum(each.result() for each in done)
        server.kill()
        outcome.kills = 1
        for _ in range(3):
            outcome.restarts.append(server.start())
            connection.close()
            connection = Connection(server.endpoint)
            table = connection.get("DescribeTable", {"TableName": TABLE})["Table"]
            outcome.items = table["ItemCount"]
            for number in range(0, items, max(1, items // 500)):
                key = {"key": {"S": f"item {number:08}"}}
                found = connection.get("GetItem", {"TableName": TABLE, "Key": key})
                if found.get("Item") != _million_item(number):
                    outcome.wrong.append(f"item {number} is {found}")
            server.kill()
        connection.close()
        if outcome.items != items:
            outcome.wrong.append(f"{outcome.items:,} items are there, not {items:,}")
        empty = Server(["--data", str(folder / "empty")], folder / "server.log")
        empty_seconds = empty.start()
        empty.kill()
        outcome.note = f"an empty directory is up in {empty_seconds * 1000:.0f} ms"
        if outcome.restarts[0] > RESTART_SECONDS_MAX:
            outcome.wrong.append(
                f"the restart took {outcome.restarts[0]:.2f} s, more than {RESTART_SECONDS_MAX} s;"
                f" {outcome.note} on this machine at this moment"
            )
    finally:
        server.kill()
    return outcome


def _million_item(number: int) -> dict[str, Any]:
    return {"key": {"S": f"item {number:08}"}, "body": {"S": f"{number:080}"}}


def _load(endpoint: str, numbers: range, progress: Progress) -> int:
    connection = Connection(endpoint)
    written = 0
    for at in range(0, len(numbers), 25):
        requests = [
            {"PutRequest": {"Item": _million_item(number)}} for number in numbers[at : at + 25]
        ]
        while requests:
            batch = {"RequestItems": {TABLE: requests}}
            status, answer = connection.call("BatchWriteItem", batch)
            if status == 400:
                time.sleep(0.02)
                continue
            assert status == 200, answer
            left = answer["UnprocessedItems"].get(TABLE, [])
            written += len(requests) - len(left)
            requests = left
        progress.count(written)
    connection.close()
    return written


# What a person sees.


class Progress:
    """One line that grows on a terminal; elsewhere a line for each tenth of the way."""

    def __init__(self, title: str, total: int) -> None:
        self._title = title
        self._total = total
        self._steps = 0
        self._is_terminal = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._began = time.monotonic()
        self._shown = 0.0

    def step(self, outcome: Outcome) -> None:
        """A round has gone well."""
        self._steps += 1
        restart = f"{outcome.restarts[-1] * 1000:4.0f} ms" if outcome.restarts else "  new  "
        line = (
            f"  {self._title:<26} {outcome.kills:3}/{self._total - 1} kills   up in {restart}   "
            f"{outcome.acknowledged:7,} acknowledged, {outcome.doubtful:4} in doubt, nothing lost"
        )
        self._show(line, self._steps, outcome.kills)

    def count(self, written: int) -> None:
        """So many items are written by one of four loaders."""
        now = time.monotonic()
        if self._is_terminal and now - self._shown > 0.2:
            self._shown = now
            rate = 4 * written / (now - self._began)
            print(f"\r  {self._title:<26} {4 * written:>9,} items, {rate:,.0f}/s ", end="")
            sys.stdout.flush()

    def _show(self, line: str, step: int, kills: int) -> None:
        if self._is_terminal:
            print(f"\r{line}", end="", flush=True)
        elif step == self._total or kills % max(1, self._total // 10) == 0:
            print(line, flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self._is_terminal:
            print()


def print_table(outcomes: Sequence[Outcome]) -> None:
    """The figures of every setting, and what was wrong."""
    print()
    print(
        f"{'log':<26}{'kills':>7}{'starting':>10}{'workers':>9}{'copy away':>11}"
        f"{'acknowledged':>14}{'in doubt':>10}{'items':>11}{'restart ms p50, max':>21}  verdict"
    )
    for outcome in outcomes:
        restarts = sorted(outcome.restarts) or [0.0]
        middle, worst = restarts[len(restarts) // 2] * 1000, restarts[-1] * 1000
        print(
            f"{outcome.setting:<26}{outcome.kills:>7}{outcome.kills_while_starting:>10}"
            f"{outcome.worker_kills:>9}{outcome.absences:>11}"
            f"{outcome.acknowledged:>14,}{outcome.doubtful:>10}{outcome.items:>11,}"
            f"{middle:>13.0f},{worst:>7.0f}  {'FAILED' if outcome.wrong else 'nothing lost'}"
        )
    for outcome in outcomes:
        if outcome.note:
            print(f"  {outcome.setting}: {outcome.note}")
        for line in outcome.wrong[:10]:
            print(f"  {outcome.setting}: {line}")


@contextmanager
def working_folder(keep: list[bool]) -> Iterator[Path]:
    """A temporary folder, which stays when ``keep`` holds True at the end."""
    folder = Path(tempfile.mkdtemp(prefix="millstream-"))
    try:
        yield folder
    except BaseException:
        print(f"  what is left of it: {folder}", file=sys.stderr)
        raise
    if any(keep):
        print(f"  what is left of it: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 1 if anything was lost."""
    from .crash_regions import RegionsCrasher  # It needs what is here.

    parser = argparse.ArgumentParser(prog="crash", description="SIGKILL under load, over and over")
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="kills per setting")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument(
        "--log", action="append", choices=SETTINGS, help="only this log (may be repeated)"
    )
    parser.add_argument(
        "--workload",
        action="append",
        choices=WORKLOADS,
        help="only this workload (may be repeated)",
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="the longest load before a kill")
    parser.add_argument("--million", action="store_true", help="and time a restart with 1 M items")
    parser.add_argument("--items", type=int, default=1_000_000, help="how many --million loads")
    found = parser.parse_args(arguments)
    print(f"SIGKILL under load by {WRITERS} clients, seed {found.seed}")
    outcomes = []
    runs = [
        (setting, workload)
        for workload in found.workload or WORKLOADS
        for setting in found.log or DEFAULT_SETTINGS[workload]
    ]
    for setting, workload in runs:
        keep: list[bool] = []
        with working_folder(keep) as folder:
            progress = Progress(title_of(setting, workload), found.kills + 1)
            span = (min(0.1, found.seconds), found.seconds)
            crasher: Crasher | RegionsCrasher
            if workload == "regions":
                outcome = Outcome(title_of(setting, workload))
                crasher = RegionsCrasher(outcome, setting, found.seed, rounds_seconds=span)
            else:
                crasher = Crasher(setting, found.seed, rounds_seconds=span, workload=workload)
            outcomes.append(crasher.run(folder, found.kills, progress))
            progress.end()
            keep.append(bool(outcomes[-1].wrong))
    if found.million:
        engines = {setting.partition(" x ")[0] for setting in found.log or SETTINGS}
        for engine in sorted(engines):
            with working_folder([]) as folder:
                progress = Progress(engine, 1)
                outcomes.append(measure_million(folder, engine, found.items, progress))
                progress.end()
    print_table(outcomes)
    return 1 if any(outcome.wrong for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
