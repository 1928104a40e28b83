"""Whether many items are as quick as few: the same load on a small and on a large table.

``python -m millstream.bench.scale`` (``make bench BENCH=scale``) runs two nodes side by side, one
with 10,000 items and one with many (``--items 10000000`` for the issue's bar, which takes a while),
and reads and overwrites evenly drawn keys. The large file is read once beforehand, so that it is in
the page cache if it fits; ``--field-bytes`` makes items small enough for the machine's memory.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..demo.node import NodeFailed
from .__main__ import machine, say
from .client import RequestFailed
from .comparison import Comparison, Options, Sample, fill
from .memory import disk_bytes, show_verdicts
from .processes import free_memory_bytes
from .servers import Ours
from .workloads import FIELD_BYTES, FIELDS

SMALL_ITEMS = 10_000
# Tree and log of an item of 1 KB, with room for the log that is not trimmed yet.
DISK_BYTES_PER_ITEM = 2_500  # Less where fields are shorter.
READS_SHARE_MIN = 0.80
WRITES_SHARE_MIN = 0.60
# By workload: what it is called, and the least share of the small table's rate.
BARS = {"C": ("GetItem", READS_SHARE_MIN), "put": ("PutItem", WRITES_SHARE_MIN)}


def check_disk(directory: Path, items: int) -> None:
    """Raises OSError unless there is room for the items."""
    needed, free = items * DISK_BYTES_PER_ITEM, shutil.disk_usage(directory).free
    if free < needed:
        raise OSError(
            f"{items:,} items need about {needed / 1e9:.0f} GB in {directory}, which has "
            f"{free / 1e9:.0f} GB free"
        )


def warm(directory: Path) -> bool:
    """Read all files into the page cache; whether they fit there."""
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(1 << 22):
                    pass
    free = free_memory_bytes()
    return free is None or disk_bytes(directory) < free


def measure(
    small: Ours, large: Ours, items: int, options: Options
) -> dict[str, dict[str, list[Sample]]]:
    """Samples by workload and size (``small``, ``large``); rounds alternate between the sizes."""
    samples: dict[str, dict[str, list[Sample]]] = {}
    for workload in options.workloads:
        of_workload = samples.setdefault(workload, {"small": [], "large": []})
        for number in range(options.rounds):
            say(f"{BARS[workload][0]}, round {number + 1} of {options.rounds}")
            for name, ours, records in (("small", small, SMALL_ITEMS), ("large", large, items)):
                # Each size draws its own keys, so each is a comparison of one server.
                one = Options(
                    workloads=(workload,),
                    connections=options.connections,
                    rounds=1,
                    seconds=options.seconds,
                    operations=options.operations,
                    records=records,
                    seed=options.seed + number,
                    warm_up_seconds=0,
                    settle_seconds=options.settle_seconds if workload == "put" else 0,
                    uniform=True,
                    field_bytes=options.field_bytes,
                )
                of_workload[name] += Comparison(one, (ours.server,), lambda _: None).measure()
    return samples


def compare(samples: dict[str, dict[str, list[Sample]]], items: int) -> list[tuple[bool, str]]:
    """The verdicts, medians beside each other."""
    judged = []
    for workload, by_size in samples.items():
        what, share_min = BARS[workload]
        rate, cpu = (
            {
                size: statistics.median(getattr(sample, name) for sample in found)
                for size, found in by_size.items()
            }
            for name in ("operations_per_second", "cpu_us")
        )
        share = rate["large"] / rate["small"]
        judged.append(
            (
                share >= share_min,
                f"{what}: {rate['large']:,.0f}/s at {items:,} items is {share:.0%} of "
                f"{rate['small']:,.0f}/s at {SMALL_ITEMS:,} (bar {share_min:.0%}); CPU "
                f"{cpu['large']:.1f} and {cpu['small']:.1f} us, by which it would be "
                f"{cpu['small'] / max(cpu['large'], 1e-9):.0%}",
            )
        )
    return judged


def main(arguments: Sequence[str] | None = None) -> int:
    """1 when a bar is missed, 2 when something failed."""
    parser = argparse.ArgumentParser(prog="python -m millstream.bench.scale", description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000, help="of the large table")
    parser.add_argument(
        "--field-bytes", type=int, default=FIELD_BYTES, help="of each of an item's ten fields"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of one run at most")
    parser.add_argument("--operations", type=int, default=60_000, help="of one run at most")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--settle-seconds", type=float, default=6.0)
    parser.add_argument("--directory", type=Path, default=Path("build/bench"))
    given = parser.parse_args(arguments)
    given.directory.mkdir(parents=True, exist_ok=True)
    options = Options(
        workloads=tuple(BARS),
        connections=(given.connections,),
        rounds=given.rounds,
        seconds=given.seconds,
        operations=given.operations,
        settle_seconds=given.settle_seconds,
        field_bytes=given.field_bytes,
    )
    try:
        check_disk(given.directory, given.items)
        with contextlib.ExitStack() as stack:
            work = Path(tempfile.mkdtemp(prefix="scale-", dir=given.directory))
            stack.callback(shutil.rmtree, work)
            small, large = Ours(work / "small"), Ours(work / "large")
            stack.callback(small.stop)
            stack.callback(large.stop)
            fill(small.server, 0, SMALL_ITEMS, options.seed, given.field_bytes)
            say(f"loading {given.items:,} items of {FIELDS * given.field_bytes:,} bytes and keys")
            loaded = fill(large.server, 0, given.items, options.seed, given.field_bytes)
            say(f"loaded in {loaded.elapsed_seconds:.0f} s; reading the file once")
            if not warm(work / "large"):
                say("the file does not fit into the page cache: the bars do not apply")
            judged = compare(measure(small, large, given.items, options), given.items)
    except (OSError, NodeFailed, RequestFailed) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    print(machine())
    return show_verdicts(judged)


if __name__ == "__main__":
    sys.exit(main())
