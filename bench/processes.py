"""What a process and its children have used: CPU time and memory, without any library.

Linux tells by /proc; elsewhere ``ps`` is asked, which knows no RssAnon and rounds CPU time to
hundredths. A child that has ended and was waited for stays counted in its parent.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import msgspec

_PROC = Path("/proc")


class Usage(msgspec.Struct, frozen=True):
    """Of a process tree. ``rss_anonymous_bytes`` (RssAnon: heap and stacks, not mapped files) is
    None where the system does not tell."""

    cpu_seconds: float
    rss_bytes: int
    rss_anonymous_bytes: int | None


def usage(pid: int) -> Usage:
    """Usage of ``pid`` and all its descendants. Raises ProcessLookupError when it is gone."""
    if sys.platform == "linux":
        return _usage_from_proc(pid)
    output = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,time=,rss="], capture_output=True, text=True, check=True
    ).stdout
    return usage_from_ps(output, pid)


def cpu_seconds(pid: int) -> float:
    """CPU time of ``pid`` alone, without children: to the nanosecond on Linux."""
    if sys.platform == "linux":
        # The process's CPU clock, as clock_getcpuclockid(3) makes its number.
        return time.clock_gettime((~pid << 3) | 2)
    return usage(pid).cpu_seconds


def _usage_from_proc(pid: int) -> Usage:
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for name in os.listdir(_PROC):
        if name.isdigit():
            try:
                text = (_PROC / name / "stat").read_text(encoding="latin-1")
            except (FileNotFoundError, ProcessLookupError):
                continue
            # The name of the program stands in brackets and may hold blanks and brackets.
            fields = text.rpartition(")")[2].split()
            parents[int(name)] = int(fields[1])
            ticks[int(name)] = sum(int(field) for field in fields[11:15])
    rss_kib = anonymous_kib = 0
    members = _descendants(pid, parents)
    for member in members:
        try:
            status = (_PROC / str(member) / "status").read_text(encoding="latin-1")
        except (FileNotFoundError, ProcessLookupError):
            continue
        sizes = dict(re.findall(r"^(VmRSS|RssAnon):\s+(\d+) kB", status, re.MULTILINE))
        rss_kib += int(sizes.get("VmRSS", 0))
        anonymous_kib += int(sizes.get("RssAnon", 0))
    seconds = sum(ticks[member] for member in members) / os.sysconf("SC_CLK_TCK")
    return Usage(seconds, rss_kib * 1024, anonymous_kib * 1024)


def usage_from_ps(output: str, pid: int) -> Usage:
    """Usage of ``pid``'s tree. A line: pid, parent, ``[[days-]hours:]minutes:seconds``, KiB."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    kibibytes: dict[int, int] = {}
    for line in output.splitlines():
        own, parent, clock, rss = line.split()
        days, _, time_of_day = clock.rpartition("-")
        total = 0.0
        for part in time_of_day.split(":"):
            total = total * 60 + float(part)
        parents[int(own)] = int(parent)
        seconds[int(own)] = int(days or 0) * 86_400 + total
        kibibytes[int(own)] = int(rss)
    members = _descendants(pid, parents)
    return Usage(
        sum(seconds[member] for member in members),
        sum(kibibytes[member] for member in members) * 1024,
        None,
    )


def _descendants(pid: int, parents: dict[int, int]) -> list[int]:
    if pid not in parents:
        raise ProcessLookupError(f"there is no process {pid}")
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found


def free_memory_bytes() -> int | None:
    """What programs and the page cache could still take; None where the system does not tell."""
    try:
        text = (_PROC / "meminfo").read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    (kibibytes,) = re.findall(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(kibibytes) * 1024


def busy_seconds() -> float | None:
    """CPU time that all processes and the kernel have used; None where the system does not tell."""
    try:
        text = (_PROC / "stat").read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    # user, nice, system, idle, iowait, irq, softirq; what a hypervisor stole is somebody's too.
    fields = [int(field) for field in text.splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")
