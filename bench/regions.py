"""What global tables cost: how far regions are behind, and what writers notice of them.

``python -m millstream.bench.regions`` (``make bench BENCH=regions``) runs one part after the other,
each with regions of its own (processes on loopback, data on the disk), and judges what has a bar.
``--parts`` chooses. Machines are shared: slices are interleaved where two things are compared, and
the share of other processes is printed with each part.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from ..tools.server import ServerFailed
from . import region_runs as runs
from .__main__ import machine, say
from .client import Noise, RequestFailed, percentile
from .memory import show_verdicts
from .region_lag import measure_lag

LAG_P50_SECONDS_MAX = 0.010
LAG_P99_SECONDS_MAX = 0.050
ITEMS_PER_SECOND_MIN = 8_000
PUT_RATIO_MAX = 1.15
CATCH_UP_SECONDS_MAX = 20.0
CATCH_UP_ITEMS = 100_000
PARTITIONED_RATIO_MAX = 1.1


class Options(msgspec.Struct, frozen=True):
    """Sizes; the defaults are those that the bars are for."""

    lag_rate: float = 1000.0
    lag_seconds: float = 10.0
    items: int = CATCH_UP_ITEMS
    live_items: int = 40_000
    serving_rate: float = 500.0
    put_rounds: int = 8
    puts: int = 2000
    partition_rounds: int = 12


class Figure(msgspec.Struct, frozen=True):
    """One line of the result. ``is_met`` is None for what has no bar."""

    text: str
    is_met: bool | None = None


Part = Callable[[Path, Options], list[Figure]]


def lag(directory: Path, options: Options) -> list[Figure]:
    """From a write's answer to GetRecords in the other region."""
    found = measure_lag(directory, options.lag_rate, options.lag_seconds)
    p50, p99 = percentile(found.seen, 0.5), percentile(found.seen, 0.99)
    return [
        Figure(
            f"lag at {found.per_second:,.0f} writes/s of 1 KB: p50 {p50 * 1e3:.1f} ms (bar "
            f"{LAG_P50_SECONDS_MAX * 1e3:.0f}), p99 {p99 * 1e3:.1f} ms (bar "
            f"{LAG_P99_SECONDS_MAX * 1e3:.0f}), max {found.seen[-1] * 1e3:.1f}; the writes took "
            f"{percentile(found.writes, 0.5) * 1e3:.1f} and "
            f"{percentile(found.writes, 0.99) * 1e3:.1f} ms",
            p50 <= LAG_P50_SECONDS_MAX and p99 <= LAG_P99_SECONDS_MAX,
        )
    ]


def _flow(what: str, flow: runs.Flow) -> str:
    return (
        f"{what}: {flow.items:,} items in {flow.elapsed_seconds:.1f} s, {flow.per_second:,.0f}/s; "
        f"CPU us per item {flow.origin_seconds / flow.items * 1e6:.1f} at the origin, "
        f"{flow.receiver_seconds / flow.items * 1e6:.1f} at the receiver"
    )


def flow(directory: Path, options: Options) -> list[Figure]:
    """Items through a link: what was held by a partition, and as they are written."""
    behind = runs.catch_up(directory / "behind", options.items)
    live = runs.live(directory / "live", options.live_items)
    bar = f" (bar {ITEMS_PER_SECOND_MIN:,}/s)"
    return [
        Figure(
            _flow(f"after a partition{bar}", behind), behind.per_second >= ITEMS_PER_SECOND_MIN
        ),
        Figure(
            _flow(f"live, BatchWriteItem with all of the origin's work{bar}", live),
            live.per_second >= ITEMS_PER_SECOND_MIN,
        ),
    ]


def behind(directory: Path, options: Options) -> list[Figure]:
    """Catching up beside requests."""
    found, first, second = runs.catch_up_serving(directory, options.items, options.serving_rate)
    load = "; ".join(
        f"{outcome.operations / outcome.elapsed_seconds:,.0f} {what} requests/s, p99 "
        f"{outcome.p99_seconds * 1e3:.1f} ms"
        for outcome, what in ((first, "put and get"), (second, "get"))
    )
    bar = CATCH_UP_SECONDS_MAX * options.items / CATCH_UP_ITEMS
    return [
        Figure(
            _flow(f"{options.items:,} behind, while serving (bar {bar:.0f} s)", found)
            + f"; load at the origin and at the receiver: {load}",
            found.elapsed_seconds <= bar,
        )
    ]


def puts(directory: Path, options: Options) -> list[Figure]:
    """What replication adds to a put at its origin."""
    found = runs.puts(directory, options.put_rounds, options.puts)
    alone = statistics.median(found["alone"])
    figures = []
    for kind, cpu_us in found.items():
        if kind != "alone":
            ratio = statistics.median(cpu_us) / alone
            has_bar = kind == "one peer"
            bar = f" (bar {PUT_RATIO_MAX}x)" if has_bar else ""
            figures.append(
                Figure(
                    f"put with {kind}: {statistics.median(cpu_us):.1f} us of CPU at its origin, "
                    f"with a stream alone {alone:.1f} us: {ratio:.2f}x{bar}",
                    ratio <= PUT_RATIO_MAX if has_bar else None,
                )
            )
    return figures


def partition(directory: Path, options: Options) -> list[Figure]:
    """Reads and writes in a region that cannot reach the other."""
    found = runs.partition(directory, options.partition_rounds, options.puts)
    figures = []
    for kind, by in found.items():
        cpu_us = [statistics.median(by[cut].cpu_us) for cut in (False, True)]
        # What others do only adds to a p99: the quiet slices tell.
        p99 = [_quiet(by[cut].p99_seconds) * 1e3 for cut in (False, True)]
        for what, unit, (before, after) in (("CPU", "us", cpu_us), ("p99", "ms", p99)):
            figures.append(
                Figure(
                    f"{kind} in a partitioned region, {what}: {after:.1f} {unit}, linked "
                    f"{before:.1f} {unit}: {after / before:.2f}x (bar {PARTITIONED_RATIO_MAX}x)",
                    after / before <= PARTITIONED_RATIO_MAX,
                )
            )
    return figures


def _quiet(found: list[float]) -> float:
    """The median of the lower half."""
    return statistics.median(sorted(found)[: (len(found) + 1) // 2])


PARTS: dict[str, Part] = {
    "lag": lag,
    "flow": flow,
    "behind": behind,
    "puts": puts,
    "partition": partition,
}


def _parts(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {unknown}; there are {', '.join(PARTS)}")
    return names


def _run(name: str, directory: Path, options: Options) -> list[Figure]:
    say(f"{name}: {PARTS[name].__doc__}")
    work = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=directory))
    noise = Noise()
    try:
        figures = PARTS[name](work, options)
    finally:
        shutil.rmtree(work)
    # The regions were waited for, so they count as this process.
    others = noise.others_share(0)
    for figure in figures:
        print(figure.text, flush=True)
    if others is not None:
        print(f"  (other processes: {others:.0%})", flush=True)
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """1 when a bar is missed, 2 when something failed."""
    parser = argparse.ArgumentParser(prog="python -m millstream.bench.regions", description=__doc__)
    add = parser.add_argument
    defaults = Options()
    add("--parts", type=_parts, default=tuple(PARTS), help=f"any of {','.join(PARTS)}")
    add("--lag-rate", type=float, default=defaults.lag_rate, help="writes a second")
    add("--lag-seconds", type=float, default=defaults.lag_seconds)
    add("--items", type=int, default=defaults.items, help="that a region is behind")
    add("--live-items", type=int, default=defaults.live_items)
    add("--serving-rate", type=float, default=defaults.serving_rate, help="requests a second")
    add("--put-rounds", type=int, default=defaults.put_rounds)
    add("--puts", type=int, default=defaults.puts, help="in a slice")
    add("--partition-rounds", type=int, default=defaults.partition_rounds)
    add("--directory", type=Path, default=Path("build/bench"), help="must be on a disk")
    given = parser.parse_args(arguments)
    given.directory.mkdir(parents=True, exist_ok=True)
    options = Options(**{name: getattr(given, name) for name in Options.__struct_fields__})
    print(machine(), flush=True)
    figures = []
    try:
        for name in given.parts:
            figures += _run(name, given.directory, options)
    except (OSError, AssertionError, RequestFailed, ServerFailed) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return show_verdicts([(f.is_met, f.text) for f in figures if f.is_met is not None])


if __name__ == "__main__":
    sys.exit(main())
