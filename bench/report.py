"""Medians, verdicts and tables of a comparison: a pure function from samples to text."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

import msgspec
from rich.console import Console
from rich.table import Table

from .comparison import Sample
from .servers import BEFORE, DYNALITE, DYNAMODB_LOCAL, OURS
from .workloads import WORKLOADS

# Our CPU per operation is at most 1/factor of the peer's.
BARS = (
    ("C", "GetItem", DYNAMODB_LOCAL, 25.0),
    ("C", "GetItem", DYNALITE, 2.5),
    ("load", "PutItem", DYNAMODB_LOCAL, 14.0),
    ("load", "PutItem", DYNALITE, 1.5),
    ("query", "Query of 50 items", DYNAMODB_LOCAL, 14.0),
    ("query", "Query of 50 items", DYNALITE, 6.0),
    ("transact", "TransactWriteItems of 4 puts", DYNAMODB_LOCAL, 10.0),
    ("transact2", "TransactWriteItems of 4 puts in 2 tables", DYNAMODB_LOCAL, 10.0),
)
# Ours, durable: so many a second at the least.
RATE_BARS = (
    ("transact", "TransactWriteItems of 4 puts", 1500.0),
    ("transact2", "TransactWriteItems of 4 puts in 2 tables", 1500.0),
)
# Ours is at most so much of what another checkout needs (``--before``).
BEFORE_SHARE_MAX = 1.05
BEFORE_BARS = (("load", "PutItem of new items"), ("put", "PutItem of old items"))

# From here on the report says that the machine was busy with other things.
NOISE_SHARE = 0.10


class Row(msgspec.Struct, frozen=True):
    """The medians over one server's rounds of one workload. ``ratio`` is how many times our CPU
    per operation the server needs; None for us, or without us."""

    workload: str
    connections: int
    server: str
    operations_per_second: float
    p50_seconds: float
    p99_seconds: float
    cpu_us: float
    ratio: float | None
    rss_bytes: int
    rss_anonymous_bytes: int | None
    throttled: int
    refused_share: float = 0.0


class Verdict(msgspec.Struct, frozen=True):
    """Whether a bar is met, in a sentence."""

    met: bool
    text: str


def rows(samples: Iterable[Sample]) -> list[Row]:
    """One row for each (workload, connections, server), in the order of the samples."""
    groups: dict[tuple[str, int, str], list[Sample]] = {}
    for sample in samples:
        key = sample.workload, sample.connections, sample.server
        groups.setdefault(key, []).append(sample)

    def median(key: tuple[str, int, str], of: Callable[[Sample], float]) -> float:
        return statistics.median(of(sample) for sample in groups[key])

    found = []
    for key, group in groups.items():
        workload, connections, server = key
        ours = (workload, connections, OURS)
        cpu_us = median(key, lambda sample: sample.cpu_us)
        ratio = None
        if server != OURS and ours in groups:
            ratio = cpu_us / max(median(ours, lambda sample: sample.cpu_us), 1e-9)
        found.append(
            Row(
                workload=workload,
                connections=connections,
                server=server,
                operations_per_second=median(key, lambda s: s.operations_per_second),
                p50_seconds=median(key, lambda sample: sample.p50_seconds),
                p99_seconds=median(key, lambda sample: sample.p99_seconds),
                cpu_us=cpu_us,
                ratio=ratio,
                rss_bytes=group[-1].rss_bytes,
                rss_anonymous_bytes=group[-1].rss_anonymous_bytes,
                throttled=sum(sample.throttled for sample in group),
                refused_share=sum(sample.refused for sample in group)
                / max(1, sum(sample.operations for sample in group)),
            )
        )
    return found


def verdicts(table: Sequence[Row]) -> list[Verdict]:
    """The bars that this run can judge, each at its highest number of connections."""
    found = []
    for workload, what, peer, factor in BARS:
        ours, theirs = _pair(table, workload, peer)
        if ours is None or theirs is None or theirs.ratio is None:
            continue
        text = (
            f"{what}: {ours.cpu_us:.1f} us is 1/{theirs.ratio:.1f} of {peer}'s "
            f"{theirs.cpu_us:.0f} us (at {ours.connections} connections; bar 1/{factor:g})"
        )
        found.append(Verdict(theirs.ratio >= factor, text))
    for workload, what, per_second in RATE_BARS:
        ours, _ = _pair(table, workload, OURS)
        if ours is None:
            continue
        text = (
            f"{what}: {ours.operations_per_second:,.0f}/s, each on the disk before it is answered "
            f"(at {ours.connections} connections; bar {per_second:,.0f}/s)"
        )
        found.append(Verdict(ours.operations_per_second >= per_second, text))
    for workload, what in BEFORE_BARS:
        ours, before = _pair(table, workload, BEFORE)
        if ours is None or before is None:
            continue
        share = ours.cpu_us / max(before.cpu_us, 1e-9)
        text = (
            f"{what}: {ours.cpu_us:.1f} us is {share:.0%} of the {before.cpu_us:.1f} us before "
            f"(at {ours.connections} connections; bar {BEFORE_SHARE_MAX:.0%})"
        )
        found.append(Verdict(share <= BEFORE_SHARE_MAX, text))
    return found


def contention(table: Iterable[Row]) -> list[str]:
    """A sentence about each row of transfers. Their totals were kept, or there were no rows."""
    return [
        f"{WORKLOADS[row.workload].title}, {row.connections} clients, {row.server}: "
        f"{row.operations_per_second:,.0f} attempts/s, {1 - row.refused_share:.1%} done "
        f"({row.operations_per_second * (1 - row.refused_share):,.0f}/s), those in "
        f"{row.p50_seconds * 1e3:.1f} ms (p50) and {row.p99_seconds * 1e3:.1f} ms (p99); total kept"
        for row in table
        if WORKLOADS[row.workload].accounts is not None
    ]


def _pair(table: Sequence[Row], workload: str, other: str) -> tuple[Row | None, Row | None]:
    """Our row and the other server's at the highest number of connections that there is."""
    of_both = [row for row in table if row.workload == workload and row.server in (OURS, other)]
    connections = max((row.connections for row in of_both), default=0)
    by_server = {row.server: row for row in of_both if row.connections == connections}
    return by_server.get(OURS), by_server.get(other)


def noise(samples: Iterable[Sample]) -> str:
    """A sentence about what else the machine did; empty if that was little, or is unknown."""
    shares = [one.others_share for one in samples if one.others_share is not None]
    share = statistics.median(shares) if shares else 0.0
    if share < NOISE_SHARE:
        return ""
    return (
        f"Other processes had {share:.0%} of the CPU time (median): caches were cold, and all "
        "figures are worse than on a quiet machine."
    )


_HEADINGS = (
    "workload", "server", "op/s", "p50 ms", "p99 ms", "CPU us/op", "x ours", "RSS MB", "anon MB",
    "done",
)  # fmt: skip


def _cells(row: Row) -> tuple[str, ...]:
    anonymous = row.rss_anonymous_bytes
    return (
        WORKLOADS[row.workload].title,
        row.server,
        f"{row.operations_per_second:,.0f}",
        f"{row.p50_seconds * 1e3:.2f}",
        f"{row.p99_seconds * 1e3:.2f}",
        f"{row.cpu_us:,.1f}",
        "" if row.ratio is None else f"{row.ratio:.1f}",
        f"{row.rss_bytes / 1e6:,.0f}",
        "" if anonymous is None else f"{anonymous / 1e6:,.0f}",
        f"{1 - row.refused_share:.1%}" if WORKLOADS[row.workload].accounts is not None else "",
    )


def plain_table(table: Sequence[Row]) -> str:
    """The rows as Markdown, one table for each number of connections."""
    parts = []
    for connections in sorted({row.connections for row in table}):
        lines = [f"Connections: {connections}", "", _line(_HEADINGS)]
        lines.append("|---|---|" + "--:|" * (len(_HEADINGS) - 2))
        lines += [_line(_cells(row)) for row in table if row.connections == connections]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def show(console: Console, table: Sequence[Row], judged: Sequence[Verdict]) -> None:
    """Print tables and verdicts, coloured in a terminal."""
    if not console.is_terminal:
        lines = [f"{'met   ' if verdict.met else 'MISSED'} {verdict.text}" for verdict in judged]
        print(plain_table(table), *lines, sep="\n", file=console.file)
        return
    for connections in sorted({row.connections for row in table}):
        grid = Table(title=f"connections: {connections}")
        for number, heading in enumerate(_HEADINGS):
            grid.add_column(heading, justify="left" if number < 2 else "right")
        last = None
        for row in table:
            if row.connections == connections:
                title, *rest = _cells(row)
                if row.workload != last and last is not None:
                    grid.add_section()
                shown = title if row.workload != last else ""
                grid.add_row(shown, *rest, style="bold" if row.server == OURS else None)
                last = row.workload
        console.print(grid)
    for verdict in judged:
        mark, style = ("met   ", "green") if verdict.met else ("MISSED", "red")
        console.print(f"[{style}]{mark}[/] {verdict.text}", highlight=False)
