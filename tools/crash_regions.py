"""Three regions under load: SIGKILLs and partitions, and in the end all of them equal.

``crash --workload regions``, or ``python -m millstream.tools.crash_regions --rounds 20`` by itself.
Real processes with data directories, linked through a proxy (``link_proxy``). Writers work in every
region throughout (``region_load``). A round cuts or stalls the links of a random pair, or all of
one region, kills a random region some time later, starts it again, and heals; some partitions last
into later rounds. The third region joins when a third of the rounds is over, so that filling is
interrupted too. Every second start has small limits.

Now and then, and at the end, the writers stop and everything is healed: once every region has every
other's last writes, the three must hold the same items, byte for byte, and exactly what ``History``
and ``load``'s beliefs allow: nothing acknowledged is lost, nothing deleted comes back.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .load import CREATE_TABLE, TABLE, Key, State, Writer, verify
from .region_load import CREATE_SHARED, SHARED, History, SharedWriter, has_marks, mark
from .region_nodes import NAMES, RegionNodes
from .server import ServerFailed

if TYPE_CHECKING:
    from .crash import Outcome, Progress

SETTLE_EVERY = 5
#: How long the regions may take to become equal, once everything is healed and nobody writes.
SETTLE_SECONDS_MAX = 60.0
PARTITIONS = "2"


class _Client(Protocol):
    acknowledged: int
    wrong: list[str]

    def join(self) -> None: ...


class RegionsCrasher:
    """Kills and partitions three regions."""

    def __init__(
        self,
        outcome: Outcome,
        log_engine: str,
        seed: int,
        *,
        rounds_seconds: tuple[float, float],
    ) -> None:
        self.outcome = outcome
        self._log_engine = log_engine
        self.partitions = 0
        self._seed = seed
        self._random = random.Random(f"{seed}/regions")
        self._rounds_seconds = rounds_seconds
        self._history = History()
        #: Of ``load``'s writers, one in each region.
        self._beliefs: dict[str, list[dict[Key, list[State]]]] = {name: [{}] for name in NAMES}
        #: Who works in a region, and how to have them stop.
        self._clients: dict[str, tuple[list[_Client], threading.Event]] = {}
        self._phase = 0
        #: The regions that have the tables.
        self._members = list(NAMES[:2])
        self._nodes: RegionNodes
        self._settled_seconds: list[float] = []

    def run(self, folder: Path, rounds: int, progress: Progress) -> Outcome:
        """So many kills, and as many partitions; ends at the first thing wrong."""
        outcome = self.outcome
        arguments = ["--partitions-per-table", PARTITIONS, "--log-level", "warning"]
        arguments += ["--log-engine", self._log_engine]
        self._nodes = nodes = RegionNodes(folder, NAMES, arguments)
        try:
            nodes.start()
            for request in (CREATE_TABLE, CREATE_SHARED):
                nodes.make_global(request, self._members)
            for name in self._members:
                self._let_loose(name)
            for number in range(rounds):
                if number == rounds // 3:
                    self._join()
                self._round(number)
                if (number + 1) % SETTLE_EVERY == 0 or number + 1 == rounds:
                    self._settle(number, is_last=number + 1 == rounds)
                if outcome.wrong:
                    break
                progress.step(outcome)
        except (ServerFailed, AssertionError, OSError) as error:
            outcome.wrong.append(f"{type(error).__name__}: {error}")
        finally:
            self._stop_all()
            nodes.close()
        if not outcome.wrong:
            from .crash import scrub

            for name in NAMES:
                outcome.wrong += scrub(folder / name / "data", ())
        outcome.note = (
            f"{self.partitions} partitions; equal and complete {len(self._settled_seconds)} times,"
            f" within {max(self._settled_seconds, default=0.0):.1f} s of healing"
        )
        return outcome

    # A round.

    def _round(self, number: int) -> None:
        nodes, draw = self._nodes, self._random
        self._partition()
        time.sleep(draw.uniform(*self._rounds_seconds))
        name = draw.choice(NAMES if len(self._members) == len(NAMES) else self._members)
        server = nodes.servers[name]
        server.kill()
        self.outcome.kills += 1
        self._stop(name)
        if draw.random() < 0.3:
            # Others find out that it is away.
            time.sleep(draw.uniform(0.2, 2.0))
        server.small = number % 2 == 0
        self.outcome.restarts.append(server.start())
        if name in self._members:
            self._let_loose(name)
        time.sleep(draw.uniform(0.0, self._rounds_seconds[1]))
        if draw.random() < 0.7:
            nodes.heal()

    def _partition(self) -> None:
        """Cut or stall one pair, or all links of one region."""
        draw, word = self._random, self._random.choice(("cut", "stall"))
        one, other = draw.sample(NAMES, 2)
        others = [name for name in NAMES if name != one] if draw.random() < 0.4 else [other]
        for each in others:
            self._nodes.link(word, one, each)
        self.partitions += 1

    def _join(self) -> None:
        """The third region is invited, and nobody waits for it."""
        for table in (TABLE, SHARED):
            self._nodes.add_replicas(table, NAMES[2:])

    # Writers.

    def _let_loose(self, name: str) -> None:
        self._phase += 1
        stop = threading.Event()
        endpoint, place = self._nodes.servers[name].endpoint, NAMES.index(name)
        clients: list[Writer | SharedWriter] = [
            Writer(
                place, endpoint, self._seed, self._beliefs[name][0], stop, phase=self._phase
            ),
            *(
                SharedWriter(
                    name, number, endpoint, self._seed, self._history, stop, self._phase
                )
                for number in range(2)
            ),
        ]
        for client in clients:
            client.start()
        self._clients[name] = list(clients), stop

    def _stop(self, name: str) -> None:
        clients, stop = self._clients.pop(name, ([], threading.Event()))
        stop.set()
        for client in clients:
            client.join()
            self.outcome.acknowledged += client.acknowledged
            self.outcome.wrong += [f"{name}: {line}" for line in client.wrong]

    def _stop_all(self) -> None:
        for name in list(self._clients):
            self._stop(name)

    # What must be found.

    def _settle(self, number: int, *, is_last: bool) -> None:
        """Everything healed, nobody writing: all regions equal, and nothing lost."""
        nodes, outcome = self._nodes, self.outcome
        nodes.heal()
        began = time.monotonic()
        self._stop_all()
        if self._has_joined():
            self._members = list(NAMES)
        for table in (TABLE, SHARED):
            nodes.wait_active(table, self._members)
        self._wait_marks(f"{number}")
        outcome.wrong += self._wait_equal()
        self._settled_seconds.append(time.monotonic() - began)
        outcome.doubtful = self._history.doubtful
        beliefs = [each for name in NAMES for each in self._beliefs[name]]
        for name in self._members:
            count, wrong = verify(nodes.servers[name].endpoint, beliefs)
            connection = nodes.connection(name)
            try:
                items = connection.pages("Scan", {"TableName": SHARED, "ConsistentRead": True})
            finally:
                connection.close()
            wrong += self._history.check(items)
            outcome.items = count + len(items)
            outcome.wrong += [f"{name}: {line}" for line in wrong]
        for name in () if is_last else self._members:
            self._let_loose(name)

    def _has_joined(self) -> bool:
        """Whether the third region was invited."""
        connection = self._nodes.connection(NAMES[0])
        try:
            table = connection.get("DescribeTable", {"TableName": SHARED})["Table"]
            return len(table.get("Replicas", [])) == len(NAMES) - 1
        finally:
            connection.close()

    def _wait_marks(self, name: str) -> None:
        connections = {each: self._nodes.connection(each) for each in self._members}
        try:
            keys = {each: mark(connections[each], each, name) for each in self._members}
            give_up = time.monotonic() + SETTLE_SECONDS_MAX
            for receiver in self._members:
                for origin in self._members:
                    while not has_marks(connections[receiver], keys[origin], name):
                        if time.monotonic() > give_up:
                            raise AssertionError(
                                f"after {SETTLE_SECONDS_MAX:.0f} s {receiver} does not have what"
                                f" {origin} has written last"
                            )
                        time.sleep(0.02)
        finally:
            for connection in connections.values():
                connection.close()

    def _wait_equal(self) -> list[str]:
        give_up = time.monotonic() + SETTLE_SECONDS_MAX
        while True:
            wrong = []
            for table in (TABLE, SHARED):
                dumps = {name: self._dump(name, table) for name in self._members}
                first = dumps[self._members[0]]
                for name, dump in dumps.items():
                    differing = sorted(
                        key for key in first.keys() | dump.keys() if first.get(key) != dump.get(key)
                    )
                    if differing:
                        key = differing[0]
                        wrong.append(
                            f"{table} in {name} differs from {self._members[0]} in"
                            f" {len(differing)} items, such as {key[:60]}:"
                            f" {dump.get(key, '-')[:80]}"
                            f" in place of {first.get(key, '-')[:80]}"
                        )
            if not wrong or time.monotonic() > give_up:
                return wrong
            time.sleep(0.1)

    def _dump(self, name: str, table: str) -> dict[str, str]:
        """Items by key, as they come on the wire."""
        connection = self._nodes.connection(name)
        try:
            items = connection.pages("Scan", {"TableName": table, "ConsistentRead": True})
        finally:
            connection.close()
        names = ("owner", "number") if table == TABLE else ("id",)
        return {repr([item[each] for each in names]): repr(item) for item in items}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 1 if anything was lost."""
    from .crash import Outcome, Progress, print_table, working_folder

    parser = argparse.ArgumentParser(prog="crash_regions", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="a kill and a partition each")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--seconds", type=float, default=1.0, help="the longest load before a kill")
    found = parser.parse_args(arguments)
    print(f"SIGKILL and partitions under load in {len(NAMES)} regions, seed {found.seed}")
    keep: list[bool] = []
    with working_folder(keep) as folder:
        progress = Progress("regions", found.rounds + 1)
        span = (min(0.1, found.seconds), found.seconds)
        crasher = RegionsCrasher(Outcome("regions"), "auto", found.seed, rounds_seconds=span)
        outcome = crasher.run(folder, found.rounds, progress)
        progress.end()
        keep.append(bool(outcome.wrong))
    print_table([outcome])
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
