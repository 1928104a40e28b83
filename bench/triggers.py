"""What streams and triggers cost: latency, throughput, and what writers notice of them.

``python -m millstream.bench.triggers`` (``make bench BENCH=triggers``) runs one part after the
other, each on a database of its own on the disk, and judges those that have a bar. ``--parts``
chooses. Machines are shared: rounds are interleaved where two things are compared, throughput is
that of the best round, and the share of other processes is printed with each part.
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
import trio

from ..demo.node import NodeFailed
from . import trigger_runs as runs
from .__main__ import machine, say
from .client import Noise, RequestFailed, percentile
from .memory import show_verdicts
from .stream_reads import get_records

LOOP_P50_SECONDS_MAX = 0.003
PROCESS_P50_SECONDS_MAX = 0.006
RECORDS_PER_SECOND_MIN = 20_000
SLOW_HANDLER_RATIO_MAX = 1.1
IDLE_SHARE_MAX = 0.001
STREAM_PUT_RATIO_MAX = 1.1


class Options(msgspec.Struct, frozen=True):
    """Sizes; the defaults are the issue's."""

    records: int = 100_000
    live_records: int = 20_000
    rounds: int = 5
    puts: int = 400
    slow_rounds: int = 30
    slow_seconds: float = 1.2
    stream_puts: int = 400
    put_slices: int = 100
    mappings: int = 100
    idle_seconds: float = 60.0


class Figure(msgspec.Struct, frozen=True):
    """One line of the result. ``is_met`` is None for what has no bar."""

    text: str
    is_met: bool | None = None


Part = Callable[[Path, Options], list[Figure]]


def latency(directory: Path, options: Options) -> list[Figure]:
    """From a write to its handler's first line."""
    found = []
    for isolation, name, bar in (
        ("loop", "in process", LOOP_P50_SECONDS_MAX),
        ("process", "in a worker process", PROCESS_P50_SECONDS_MAX),
    ):
        where = directory / isolation
        where.mkdir()
        measured = trio.run(runs.latency, where, isolation, options.puts)
        calls, answers = measured.from_call, measured.from_answer
        p50 = percentile(calls, 0.5)
        found.append(
            Figure(
                f"write to handler, {name}: p50 {p50 * 1e3:.2f} ms (bar {bar * 1e3:.0f}), p99 "
                f"{percentile(calls, 0.99) * 1e3:.2f} ms from the call of put; from its answer "
                f"{percentile(answers, 0.5) * 1e3:.2f} and {percentile(answers, 0.99) * 1e3:.2f}",
                p50 <= bar,
            )
        )
    return found


def throughput(directory: Path, options: Options) -> list[Figure]:
    """A shard's records through a handler in process."""
    replayed = trio.run(runs.replay, directory / "replay", options.records, options.rounds)
    rate = max(spent.per_second for spent in replayed)
    figures = [
        Figure(
            f"replay of {options.records:,} records in batches of {runs.BATCH_SIZE}: {rate:,.0f} "
            f"records/s (bar {RECORDS_PER_SECOND_MIN:,}), {_cpu(replayed)}",
            rate >= RECORDS_PER_SECOND_MIN,
        )
    ]
    live = trio.run(
        runs.live, directory / "live", options.live_records // options.rounds, options.rounds
    )
    for spent, what in ((live.handled, "with the handler of their records"), (live.alone, "alone")):
        rate = max(one.per_second for one in spent)
        middle = statistics.median(one.cpu_us for one in spent)
        figures.append(
            Figure(
                f"puts of {runs.WRITERS} writers, {what}: {rate:,.0f}/s, {middle:.1f} us of CPU "
                "per put"
            )
        )
    return figures


def transactions(directory: Path, options: Options) -> list[Figure]:
    """A handler whose writes and checkpoints are one transaction."""
    spent = trio.run(runs.transactional, directory / "data", options.live_records)
    return [
        Figure(
            f"handler with context.transaction, batches of {runs.BATCH_SIZE}: "
            f"{spent.per_second:,.0f} records/s, {spent.cpu_us:.1f} us of CPU per record"
        )
    ]


def reads(directory: Path, options: Options) -> list[Figure]:
    """Streams read by those who ask."""
    over_http = get_records(directory / "http", options.live_records, options.rounds)
    followed = trio.run(runs.changes, directory / "changes", options.live_records, options.rounds)
    return [
        Figure(f"{what}: {max(s.per_second for s in found):,.0f} records/s, {_cpu(found)}")
        for what, found in (("GetRecords over HTTP", over_http), ("table.changes", followed))
    ]


def slow(directory: Path, options: Options) -> list[Figure]:
    """Puts beside a handler that takes a second for each batch."""
    found = trio.run(
        runs.slow_handler, directory / "data", options.slow_rounds, options.slow_seconds
    )
    # A p99 is a few syncs of a round, and what others do only adds to them: the quiet rounds tell.
    alone, beside = _quiet(found.alone), _quiet(found.beside)
    middle_alone, middle_beside = statistics.median(found.alone), statistics.median(found.beside)
    ratio = beside / alone
    return [
        Figure(
            f"p99 of puts beside a slow handler {beside * 1e3:.2f} ms, without {alone * 1e3:.2f} "
            f"ms: {ratio:.2f}x (bar {SLOW_HANDLER_RATIO_MAX}x), in the quieter half of "
            f"{options.slow_rounds} rounds; medians of all: {middle_beside * 1e3:.2f} and "
            f"{middle_alone * 1e3:.2f} ms, {middle_beside / middle_alone:.2f}x",
            ratio <= SLOW_HANDLER_RATIO_MAX,
        )
    ]


def _quiet(found: list[float]) -> float:
    """The median of the lower half."""
    return statistics.median(sorted(found)[: (len(found) + 1) // 2])


def idle(directory: Path, options: Options) -> list[Figure]:
    """Mappings without work."""
    spent = trio.run(runs.idle, directory / "data", options.mappings, options.idle_seconds)
    share = spent.cpu_seconds / spent.elapsed_seconds
    return [
        Figure(
            f"{options.mappings} mappings, idle for {options.idle_seconds:.0f} s: {share:.3%} CPU "
            f"(bar {IDLE_SHARE_MAX:.1%})",
            share < IDLE_SHARE_MAX,
        )
    ]


def puts(directory: Path, options: Options) -> list[Figure]:
    """What a stream adds to a PutItem."""
    found = trio.run(runs.puts, directory, options.put_slices, options.stream_puts)
    figures = []
    for kind, by_view in found.items():
        plain = statistics.median(by_view["none"])
        for view, cpu_us in by_view.items():
            if view != "none":
                ratio = statistics.median(cpu_us) / plain
                # Whole old images are twice the bytes, which is stated and not judged.
                has_bar = view != "old" or kind == "insert"
                bar = f" (bar {STREAM_PUT_RATIO_MAX}x)" if has_bar else ""
                figures.append(
                    Figure(
                        f"PutItem ({kind}) with {runs.VIEWS[view]}: "
                        f"{statistics.median(cpu_us):.1f} us of CPU, without a stream "
                        f"{plain:.1f} us: {ratio:.2f}x{bar}",
                        ratio <= STREAM_PUT_RATIO_MAX if has_bar else None,
                    )
                )
    return figures


PARTS: dict[str, Part] = {
    "latency": latency,
    "throughput": throughput,
    "transactions": transactions,
    "reads": reads,
    "slow": slow,
    "puts": puts,
    "idle": idle,
}


def _cpu(found: Sequence[runs.Spent]) -> str:
    middle = statistics.median(spent.cpu_us for spent in found)
    least = min(spent.cpu_us for spent in found)
    return f"{middle:.1f} us of CPU per record (least {least:.1f})"


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
    others = noise.others_share(0)
    for figure in figures:
        print(f"{figure.text}", flush=True)
    if others is not None:
        # Worker processes and servers that are still to be waited for count as others.
        print(f"  (other processes: {others:.0%})", flush=True)
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """1 when a bar is missed, 2 when something failed."""
    parser = argparse.ArgumentParser(
        prog="python -m millstream.bench.triggers", description=__doc__
    )
    add = parser.add_argument
    defaults = Options()
    add("--parts", type=_parts, default=tuple(PARTS), help=f"any of {','.join(PARTS)}")
    add("--records", type=int, default=defaults.records, help="of the shard that is replayed")
    add("--live-records", type=int, default=defaults.live_records, help="of the other shards")
    add("--rounds", type=int, default=defaults.rounds)
    add("--puts", type=int, default=defaults.puts, help="of which the latency is measured")
    add("--slow-rounds", type=int, default=defaults.slow_rounds)
    add("--slow-seconds", type=float, default=defaults.slow_seconds, help="of half a round")
    add("--stream-puts", type=int, default=defaults.stream_puts, help="in a slice")
    add("--put-slices", type=int, default=defaults.put_slices)
    add("--mappings", type=int, default=defaults.mappings)
    add("--idle-seconds", type=float, default=defaults.idle_seconds)
    add("--directory", type=Path, default=Path("build/bench"), help="must be on a disk")
    given = parser.parse_args(arguments)
    given.directory.mkdir(parents=True, exist_ok=True)
    options = Options(**{name: getattr(given, name) for name in Options.__struct_fields__})
    print(machine(), flush=True)
    figures = []
    try:
        for name in given.parts:
            figures += _run(name, given.directory, options)
    except (OSError, NodeFailed, RequestFailed) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return show_verdicts([(f.is_met, f.text) for f in figures if f.is_met is not None])


if __name__ == "__main__":
    sys.exit(main())
