"""``millstream serve`` as a child process that is killed, also while it starts, and traced."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

READY_PREFIX = "millstream is listening on "
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 60.0


class ServerFailed(Exception):
    """The process ended, or said nothing, instead of listening; says its last words."""


class Server:
    """One process after the other with the same ``arguments``; their logs go to ``log_path``.

    ``small`` gives it small limits (see ``small_limits``); ``tracer`` is a command in front,
    ``environment`` what it gets besides this process's own.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        log_path: Path,
        *,
        small: bool = False,
        tracer: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.arguments = tuple(arguments)
        self.log_path = log_path
        self.small = small
        self.tracer = tuple(tracer)
        self.environment = dict(environment or {})
        self.endpoint = ""
        self._process: subprocess.Popen[str] | None = None
        self._began = 0.0

    @property
    def process_id(self) -> int:
        """The child's; it must be running."""
        assert self._process is not None
        return self._process.pid

    def launch(self) -> None:
        """Start the process without waiting for it."""
        from .small_limits import ARGUMENTS

        assert self._process is None
        module = "millstream.tools.small_limits" if self.small else "millstream"
        extra = ARGUMENTS if self.small else ()
        command = [sys.executable, "-m", module, "serve", "--port", "0", *self.arguments, *extra]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("MILLSTREAM_")
        }
        environment |= self.environment
        self._began = time.monotonic()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.tracer, *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def wait_ready(self) -> float:
        """Wait until it listens; the seconds since it was launched. Raises ``ServerFailed``."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = _first_line(self._process.stdout, START_SECONDS_MAX)
        if not line.startswith(READY_PREFIX):
            self.kill()
            words = self.log_path.read_text(encoding="utf-8", errors="replace").strip()
            raise ServerFailed(words[-2000:] or "the server did not start")
        self.endpoint = line.removeprefix(READY_PREFIX).strip()
        return time.monotonic() - self._began

    def start(self) -> float:
        """``launch`` and ``wait_ready``."""
        self.launch()
        return self.wait_ready()

    def kill(self) -> None:
        """SIGKILL, whether it has come to listen or not."""
        if self._process is not None:
            self._process.kill()
            self._end()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(timeout=STOP_SECONDS_MAX)
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


def _first_line(stream: IO[str], timeout_seconds: float) -> str:
    """The first line of ``stream``; empty at its end or when the time is over."""
    ready, _, _ = select.select([stream], [], [], timeout_seconds)
    return stream.readline() if ready else ""
