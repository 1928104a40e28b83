"""How much memory a million items take, and whether starting takes longer the more there is.

``python -m millstream.bench.memory`` (``make bench BENCH=memory``) loads one node, stopping at each
size to start it several times. It runs with the default settings.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..demo.node import NodeFailed
from .__main__ import machine, numbers, say
from .client import Job, RequestFailed
from .comparison import fill, run_job
from .processes import usage
from .servers import Ours
from .workloads import Plan

ANONYMOUS_BYTES_MAX = 150_000_000
# Starting may take this much longer at the largest size than at the smallest: noise, not growth.
START_RATIO_MAX = 1.25
START_SLACK_SECONDS = 0.05
SAMPLE_SECONDS = 0.2
READS = 20_000


class Watch(threading.Thread):
    """Remembers the highest RssAnon (RSS where that is not told) of a process."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._over = threading.Event()
        self.bytes_max = 0

    def run(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self.bytes_max = max(self.bytes_max, anonymous_bytes(self._pid))

    def stop(self) -> int:
        """The highest seen."""
        self._over.set()
        self.join()
        return max(self.bytes_max, anonymous_bytes(self._pid))


def anonymous_bytes(pid: int) -> int:
    """RssAnon, or RSS where the system does not tell."""
    found = usage(pid)
    return found.rss_bytes if found.rss_anonymous_bytes is None else found.rss_anonymous_bytes


class Measured(msgspec.Struct, frozen=True):
    """One size. ``start_seconds`` is the median after a clean stop, ``restart_seconds`` the one
    after a SIGKILL right behind the load."""

    items: int
    load_cpu_us: float
    loading_bytes: int
    started_bytes: int
    read_bytes: int
    start_seconds: float
    restart_seconds: float
    disk_bytes: int


def disk_bytes(directory: Path) -> int:
    """What a directory really occupies, holes left out."""
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def measure(ours: Ours, directory: Path, first: int, items: int, starts: int) -> Measured:
    """Load from ``first`` to ``items``, kill, start, read, stop and start."""
    watch = Watch(ours.server.pid)
    watch.start()
    loaded = fill(ours.server, first, items, seed=1)
    loading_bytes = watch.stop()
    ours.kill()
    restart_seconds = ours.start()
    ours.stop()
    start_seconds = []
    for number in range(starts):
        start_seconds.append(ours.start())
        if number < starts - 1:
            ours.stop()
    started_bytes = anonymous_bytes(ours.server.pid)
    run_job(Job(Plan("C", items, 1, 0, uniform=True), (ours.server,), 32, READS, None))
    return Measured(
        items=items,
        load_cpu_us=(loaded.cpu_after_seconds - loaded.cpu_before_seconds) / (items - first) * 1e6,
        loading_bytes=loading_bytes,
        started_bytes=started_bytes,
        read_bytes=anonymous_bytes(ours.server.pid),
        start_seconds=statistics.median(start_seconds),
        restart_seconds=restart_seconds,
        disk_bytes=disk_bytes(directory),
    )


def table(found: Sequence[Measured]) -> str:
    """The sizes as Markdown."""
    lines = [
        "| items | load CPU us/item | anon MB: loading | started | after 20,000 reads "
        "| start ms | start ms after SIGKILL | disk MB |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for one in found:
        lines.append(
            f"| {one.items:,} | {one.load_cpu_us:.1f} | {one.loading_bytes / 1e6:.0f} "
            f"| {one.started_bytes / 1e6:.0f} | {one.read_bytes / 1e6:.0f} "
            f"| {one.start_seconds * 1e3:.0f} | {one.restart_seconds * 1e3:.0f} "
            f"| {one.disk_bytes / 1e6:,.0f} |"
        )
    return "\n".join(lines)


def verdicts(found: Sequence[Measured]) -> list[tuple[bool, str]]:
    """Memory at the largest size, and its start beside that of the smallest."""
    small, large = found[0], found[-1]
    bytes_max = max(large.loading_bytes, large.started_bytes, large.read_bytes)
    start_max = small.start_seconds * START_RATIO_MAX + START_SLACK_SECONDS
    return [
        (
            bytes_max < ANONYMOUS_BYTES_MAX,
            f"at most {bytes_max / 1e6:.0f} MB anonymous with {large.items:,} items of 1 KB, "
            f"loading included (bar {ANONYMOUS_BYTES_MAX / 1e6:.0f} MB)",
        ),
        (
            large.start_seconds <= start_max,
            f"starts in {large.start_seconds * 1e3:.0f} ms with {large.items:,} items, in "
            f"{small.start_seconds * 1e3:.0f} ms with {small.items:,} "
            f"(bar {start_max * 1e3:.0f} ms)",
        ),
    ]


def show_verdicts(judged: Sequence[tuple[bool, str]]) -> int:
    """Print them; the exit code."""
    for met, text in judged:
        print("met   " if met else "MISSED", text)
    return 0 if all(met for met, _ in judged) else 1


def _measure_all(directory: Path, sizes: Sequence[int], starts: int) -> list[Measured]:
    found: list[Measured] = []
    with contextlib.ExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="memory-", dir=directory))
        stack.callback(shutil.rmtree, work)
        ours = Ours(work)
        stack.callback(ours.stop)
        for items in sizes:
            say(f"{items:,} items of 1 KB")
            first = found[-1].items if found else 0
            found.append(measure(ours, work, first, items, starts))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """1 when a bar is missed, 2 when something failed."""
    parser = argparse.ArgumentParser(prog="python -m millstream.bench.memory", description=__doc__)
    parser.add_argument("--sizes", type=numbers, default=(10_000, 100_000, 1_000_000))
    parser.add_argument("--starts", type=int, default=5, help="a start's time is their median")
    parser.add_argument("--directory", type=Path, default=Path("build/bench"))
    given = parser.parse_args(arguments)
    given.directory.mkdir(parents=True, exist_ok=True)
    try:
        found = _measure_all(given.directory, sorted(given.sizes), given.starts)
    except (NodeFailed, RequestFailed) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    print(f"{machine()}\n\n{table(found)}\n")
    return show_verdicts(verdicts(found))


if __name__ == "__main__":
    sys.exit(main())
