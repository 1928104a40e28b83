"""A node of one's own: ``millstream serve`` as a child process, started, killed, started again."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

READY_PREFIX = "millstream is listening on "
START_SECONDS_MAX = 30.0


class NodeFailed(Exception):
    """The child process ended, or said nothing, instead of becoming ready; says its last words."""


class Node:
    """Runs ``millstream serve`` on a free port with ``arguments``; its log goes to ``log_path``.

    ``endpoint`` is the URL once ``start`` has returned. Variables that would configure the child
    differently (``MILLSTREAM_*``) are kept from it.
    """

    def __init__(self, arguments: list[str], log_path: Path) -> None:
        self._command = [sys.executable, "-m", "millstream", "serve", "--port", "0", *arguments]
        self._log_path = log_path
        self._process: subprocess.Popen[str] | None = None
        self.endpoint = ""

    @property
    def process_id(self) -> int:
        """The child's; it must be running."""
        assert self._process is not None
        return self._process.pid

    def exit_code(self) -> int | None:
        """How the child has ended of itself; None while it runs, or is not started."""
        return None if self._process is None else self._process.poll()

    def start(self) -> float:
        """Start the process; the seconds until it listened. Raises ``NodeFailed``."""
        assert self._process is None
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("MILLSTREAM_")
        }
        began = time.monotonic()
        with self._log_path.open("ab") as log:
            process = subprocess.Popen(
                self._command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # Ctrl-C is for the program that runs the node, which then stops it in order.
                start_new_session=True,
            )
        self._process = process
        assert process.stdout is not None
        line = _first_line(process.stdout, START_SECONDS_MAX)
        if line is None or not line.startswith(READY_PREFIX):
            self.kill()
            words = self._log_path.read_text(encoding="utf-8", errors="replace").strip()
            raise NodeFailed(words[-2000:] or "the node did not start")
        self.endpoint = line.removeprefix(READY_PREFIX).strip()
        return time.monotonic() - began

    def kill(self) -> None:
        """SIGKILL: the process gets no chance to tidy up."""
        if self._process is not None:
            self._process.kill()
            self._end()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            self._process.wait(timeout=START_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
        return self._end()

    def _end(self) -> int:
        assert self._process is not None
        process, self._process = self._process, None
        exit_code = process.wait()
        assert process.stdout is not None
        process.stdout.close()
        return exit_code


def _first_line(stream: IO[str], timeout_seconds: float) -> str | None:
    """The first line of ``stream``; "" at its end, None when the time is over."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=lambda: lines.put(stream.readline()), daemon=True).start()
    try:
        return lines.get(timeout=timeout_seconds)
    except queue.Empty:
        return None
