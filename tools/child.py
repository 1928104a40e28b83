"""A function in a process of its own, so that a crash inside of a C library is a finding."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

SECONDS_MAX = 90


class Crashed(Exception):
    """The process ended by a signal, or without saying anything."""


def run_in_child(function: Callable[[], Any]) -> Any:
    """What ``function`` returns (as JSON), computed in a fork of this process.

    Raises:
        Crashed: a signal ended it; it hung for ``SECONDS_MAX``; it raised.
    """
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _answer(function, write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise Crashed(f"ended by {signal.Signals(os.WTERMSIG(status)).name}")
    if not answer:
        raise Crashed(f"exit code {os.WEXITSTATUS(status)}, no answer")
    found = json.loads(answer)
    if "raised" in found:
        raise Crashed(found["raised"])
    return found["result"]


def _answer(function: Callable[[], Any], write_end: int) -> None:
    """In the child: never returns."""
    try:
        signal.alarm(SECONDS_MAX)
        # What a library or the node says about damage is not the tool's output.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            found = {"result": function()}
        except Exception:  # noqa: BLE001 - whatever it is, it belongs to the parent
            found = {"raised": traceback.format_exc()}
        os.write(write_end, json.dumps(found).encode())
    finally:
        os._exit(0)
