"""What strace saw of one process: its calls on files and sockets, in order, begin and end apart.

``strace -f`` interleaves the threads of a process: a call that another thread's line interrupts is
printed in two halves. A write may reach the disk from its first half on; what a sync promises holds
from its second. So a ``Moment`` is either the begin or the end of a call.

The server may start helper processes of other programs (``ldconfig``, when a library is looked
for); their calls have descriptors of their own and are left out.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

#: Every call by which a file's bytes or a directory's names change, become durable or are mapped,
#: and those by which descriptors come, go and answer.
CALLS = (
    *("open", "openat", "creat", "close", "dup", "dup2", "dup3", "fcntl", "lseek", "mmap", "msync"),
    *("write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "truncate", "fallocate"),
    *("fsync", "fdatasync", "sync", "syncfs", "sync_file_range", "rename", "renameat", "renameat2"),
    *("unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "link", "linkat", "symlink", "symlinkat"),
    *("copy_file_range", "sendfile", "splice", "io_uring_setup", "io_submit"),
    *("accept", "accept4", "sendto", "sendmsg", "fork", "vfork", "clone", "clone3"),
)

WAIT_SECONDS_MAX = 60.0

_LINE = re.compile(r"^(\d+) +[\d.]+ (.*)$", re.DOTALL)
_RESUMED = re.compile(r"^<\.\.\. (\w+) resumed>")
_UNFINISHED = " <unfinished ...>"
_RESULT = re.compile(r"\)\s+= (-?\d+|0x[0-9a-f]+|\?)([^\"]*)$")


class Call(msgspec.Struct):
    """A system call. ``strings`` are its arguments in quotes, in order, as bytes; ``text`` the rest
    of its arguments with empty quotes. ``result`` is None if it never came back."""

    name: str
    text: str
    strings: list[bytes]
    result: int | None


class Moment(msgspec.Struct, frozen=True):
    """The begin or the end of a call."""

    call: Call
    is_end: bool


def command(output: Path) -> list[str]:
    """The strace command to put in front of a server's; it leaves the server our direct child."""
    return [
        *("strace", "-D", "-f", "-ttt", "-xx", "-s", "100000000", "--seccomp-bpf"),
        *("-o", str(output), "-e", "trace=?" + ",?".join(CALLS)),
    ]


def wait_complete(output: Path, process_id: int) -> None:
    """Wait until strace has written that the process is gone."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    pattern = re.compile(rf"^{process_id} +[\d.]+ \+\+\+ (killed|exited)", re.MULTILINE)
    while time.monotonic() < deadline:
        with output.open("rb") as file:
            file.seek(max(0, output.stat().st_size - 65536))
            if pattern.search(file.read().decode("ascii", "replace")):
                return
        time.sleep(0.05)
    raise AssertionError(f"strace did not finish {output}")


def read_trace(path: Path, process_id: int) -> list[Moment]:
    """The moments of the process ``process_id`` and its threads; failed calls are left out."""
    with path.open(encoding="ascii", errors="replace") as file:
        return list(_moments(file, process_id))


def _moments(lines: Iterable[str], process_id: int) -> Iterator[Moment]:
    ours = {process_id}
    foreign: set[int] = set()
    # Threads are announced by the clone that makes them, which may be printed after their first
    # call; so a new number is taken for a thread unless a process was made of it, and what a new
    # process does before it is known as such (descriptors for its program) is undone by order.
    held: dict[int, Call] = {}
    parsed = [found for found in map(_parse, lines) if found is not None]
    for _, name, text, _ in parsed:
        is_process = name in ("fork", "vfork") or (name == "clone" and "CLONE_THREAD" not in text)
        if name == "clone3":
            is_process = "CLONE_THREAD" not in text
        child = _result(text)
        if is_process and child:
            foreign.add(child)
    for thread, name, text, strings in parsed:
        if thread in foreign:
            continue
        ours.add(thread)
        if text.endswith(_UNFINISHED):
            call = Call(name, text.removesuffix(_UNFINISHED), strings, None)
            held[thread] = call
            yield Moment(call, False)
            continue
        if name == "resumed":
            half = held.pop(thread)
            # What is printed on the way back (an address of accept4) belongs to the arguments.
            half.text += text
            half.strings += strings
            call, begun = half, True
        else:
            call, begun = Call(name, text, strings, None), False
        call.result = _result(call.text)
        if call.result is None or call.result < 0:
            call.result = -1 if call.result is not None else None
        if not begun:
            if call.result == -1:
                continue
            yield Moment(call, False)
        yield Moment(call, True)


def _parse(line: str) -> tuple[int, str, str, list[bytes]] | None:
    """Thread, call, text with empty quotes, strings; None for anything but a call."""
    # Strings are wholly escaped, so a quote is always one of strace's.
    pieces = line.rstrip("\n").split('"')
    strings = [bytes.fromhex(piece.replace("\\x", "")) for piece in pieces[1::2]]
    found = _LINE.match('""'.join(pieces[0::2]))
    if found is None:
        return None
    thread, text = int(found[1]), found[2]
    resumed = _RESUMED.match(text)
    if resumed is not None:
        return thread, "resumed", text[resumed.end() :], strings
    name, parenthesis, rest = text.partition("(")
    if not parenthesis or not name.isidentifier():
        return None
    assert '"...' not in rest, "strace has cut a string"
    return thread, name, rest, strings


def _result(text: str) -> int | None:
    found = _RESULT.search(text)
    if found is None or found[1] == "?":
        return None
    return int(found[1], 0)
