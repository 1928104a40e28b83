"""``make bench``: millstream beside whichever peers are installed, under YCSB-like workloads."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from ..demo.node import NodeFailed
from . import report
from .chart import chart
from .client import RequestFailed
from .comparison import SETTLE_SECONDS, Comparison, Options, Sample
from .servers import (
    DYNALITE,
    DYNAMODB_LOCAL,
    MEMTABLE_BYTES,
    MOTO,
    VARIABLES,
    Found,
    NotInstalled,
    Ours,
    find_before,
    find_peers,
)
from .workloads import GROUPS, STANDARD, WORKLOADS
from .wrk import find_wrk

DEFAULTS = Options()


def numbers(text: str) -> tuple[int, ...]:
    """``1,8,32`` as an option's value."""
    found = tuple(int(part) for part in text.split(","))
    if min(found) < 1:
        raise argparse.ArgumentTypeError("must be positive numbers")
    return found


def _workloads(text: str) -> tuple[str, ...]:
    names = [name for word in text.split(",") for name in GROUPS.get(word, (word,))]
    unknown = [name for name in names if name not in WORKLOADS]
    if unknown:
        there = ", ".join([*GROUPS, *WORKLOADS])
        raise argparse.ArgumentTypeError(f"unknown: {unknown}; there are {there}")
    return tuple(dict.fromkeys(names))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m millstream.bench", description=__doc__)
    add = parser.add_argument
    add(
        "--workloads",
        type=_workloads,
        default=STANDARD,
        metavar="NAMES",
        help=f"any of {','.join([*GROUPS, *WORKLOADS])} (default: {','.join(STANDARD)})",
    )
    add("--connections", type=numbers, default=DEFAULTS.connections, metavar="COUNTS")
    add("--rounds", type=int, default=DEFAULTS.rounds, help="medians are taken over these")
    add("--seconds", type=float, default=DEFAULTS.seconds, help="of one server's run at most")
    add("--operations", type=int, default=DEFAULTS.operations, help="of one run at most")
    add("--records", type=int, default=DEFAULTS.records, help="items that are there to begin with")
    add("--seed", type=int, default=DEFAULTS.seed)
    add("--warm-up-seconds", type=float, default=DEFAULTS.warm_up_seconds)
    add(
        "--settle-seconds",
        type=float,
        default=SETTLE_SECONDS,
        help="to wait for deferred work at the end",
    )
    add(
        "--client",
        choices=("auto", "python", "wrk"),
        default="auto",
        help="load generator; auto is wrk where it is installed",
    )
    add("--dynalite", metavar="PATH", help=f"its cli.js or folder (or {VARIABLES[DYNALITE]})")
    add(
        "--dynamodb-local",
        metavar="PATH",
        help=f"DynamoDBLocal.jar or its folder (or {VARIABLES[DYNAMODB_LOCAL]})",
    )
    add("--moto", metavar="PATH", help=f"moto_server or its folder (or {VARIABLES[MOTO]})")
    add("--no-peers", action="store_true", help="without other people's servers")
    add("--before", type=Path, metavar="PATH", help="another checkout of millstream, compared too")
    add(
        "--directory",
        type=Path,
        default=Path("build/bench"),
        help="results, and the data meanwhile; must be on a disk, or fsync costs nothing",
    )
    return parser  # fmt: skip


def machine() -> str:
    """What a figure needs beside it: cores and the version of Python."""
    return f"{os.cpu_count()} cores, Python {platform.python_version()}"


class Results(msgspec.Struct, frozen=True):
    """What is written to results.json."""

    date: str
    machine: str
    command: str
    options: Options
    samples: list[Sample]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write; 1 when a bar is missed, 2 when something failed."""
    given = _parser().parse_args(arguments)
    console = Console()
    wrk = find_wrk() if given.client in ("auto", "wrk") else None
    if given.client == "wrk" and wrk is None:
        sys.stderr.write("wrk is not installed\n")
        return 2
    options = Options(
        workloads=given.workloads,
        connections=given.connections,
        rounds=given.rounds,
        seconds=given.seconds,
        operations=given.operations,
        records=given.records,
        seed=given.seed,
        warm_up_seconds=given.warm_up_seconds,
        settle_seconds=given.settle_seconds,
        wrk=wrk,
    )
    places = {DYNALITE: given.dynalite, DYNAMODB_LOCAL: given.dynamodb_local, MOTO: given.moto}
    try:
        before = [find_before(given.before)] if given.before is not None else []
        samples = _run(options, places, given.directory, before, given.no_peers)
    except (NotInstalled, NodeFailed, RequestFailed) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    table = report.rows(samples)
    judged = report.verdicts(table)
    report.show(console, table, judged)
    for line in report.contention(table):
        print(line)
    noise = report.noise(samples)
    if noise:
        print(noise)
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = " ".join(["python -m millstream.bench", *words])
    date = time.strftime("%Y-%m-%d")
    results = Results(date, machine(), command, options, samples)
    directory: Path = given.directory
    (directory / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    note = f"{date}; {machine()}; millstream verifies signatures and fsyncs every write, "
    (directory / "chart.svg").write_text(
        chart(table, note + "the others run in memory"), encoding="utf-8"
    )
    (directory / "table.md").write_text(report.plain_table(table) + "\n", encoding="utf-8")
    say(f"results.json, table.md and chart.svg are in {directory}")
    return 0 if all(verdict.met for verdict in judged) else 1


def say(line: str) -> None:
    """Progress, beside the results."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")


def _run(
    options: Options,
    places: dict[str, str | None],
    directory: Path,
    before: list[Found],
    alone: bool,
) -> list[Sample]:
    directory.mkdir(parents=True, exist_ok=True)
    peers = before + ([] if alone else find_peers(places))
    for name in sorted(set(VARIABLES) - {peer.name for peer in peers}):
        say(f"without {name}: see docs/benchmarks.md for how to install it")
    say(f"requests are sent by {'wrk' if options.wrk else 'the Python client'}")
    with contextlib.ExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="data-", dir=directory))
        stack.callback(shutil.rmtree, work)
        ours = Ours(work / "millstream", ("--memtable-bytes", str(MEMTABLE_BYTES)))
        stack.callback(ours.stop)
        servers = [ours.server]
        for peer in peers:
            started = peer.start(work / peer.name)
            stack.callback(started.stop)
            servers.append(started.server)
        return Comparison(options, servers, say).run()


if __name__ == "__main__":
    sys.exit(main())
