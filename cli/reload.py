"""``millstream serve --reload``: the node in a child process, started again when code changes.

For development. The child is an ordinary ``millstream serve``; it is stopped with SIGTERM, so that
it closes in good order, and what its handlers had not finished is given to the new ones.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

LOOK_SECONDS = 0.5
FILES_MAX = 20_000
_SKIPPED = frozenset({"node_modules", "__pycache__", "build", "dist"})

Snapshot = dict[str, int]


def python_files(root: Path) -> Iterator[Path]:
    """The Python files below ``root``, hidden and built ones left out, up to a bound."""
    count = 0
    for place, directories, names in os.walk(root):
        directories[:] = [
            name for name in directories if not name.startswith(".") and name not in _SKIPPED
        ]
        for name in names:
            if name.endswith(".py"):
                count += 1
                if count > FILES_MAX:
                    return
                yield Path(place, name)


def snapshot(root: Path) -> Snapshot:
    """When each file was last changed."""
    found: Snapshot = {}
    for path in python_files(root):
        try:
            found[str(path)] = path.stat().st_mtime_ns
        except OSError:
            continue
    return found


def run_with_reload(
    arguments: list[str],
    root: Path,
    *,
    start: Callable[[list[str]], subprocess.Popen[bytes]] = subprocess.Popen,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Serve until a signal arrives; ``arguments`` are the command line's, ``--reload`` among them.

    Returns the exit code of the last child. A child that fails is started again when a file has
    changed, not before.
    """
    command = [sys.executable, "-m", "millstream", *(a for a in arguments if a != "--reload")]
    stopping = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    environment_without_reload()
    try:
        while True:
            before = snapshot(root)
            child = start(command)
            while not stopping and snapshot(root) == before:
                pause(LOOK_SECONDS)
            if child.poll() is None:
                child.terminate()
            exit_code = child.wait()
            if stopping:
                return exit_code
            print("millstream: code has changed, starting again", file=sys.stderr, flush=True)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def environment_without_reload() -> None:
    """The child must not supervise a child of its own."""
    os.environ.pop("MILLSTREAM_RELOAD", None)
