"""A function in a process of its own, so that a crash inside of a C library is a finding.

One helper process is started and forks for each call: a fork is cheap, and the helper has no
threads, which a fork of this process would leave behind half (trio keeps idle ones). What is
called must be importable: a function of a module, or a ``functools.partial`` of one.
"""

from __future__ import annotations

import atexit
import json
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

SECONDS_MAX = 90

_helper: list[subprocess.Popen[bytes]] = []


class Crashed(Exception):
    """The process ended by a signal, or without saying anything."""


def run_in_child(function: Callable[[], Any]) -> Any:
    """What ``function`` returns (as JSON), computed in a process of its own.

    Raises:
        Crashed: a signal ended it; it hung for ``SECONDS_MAX``; it raised.
    """
    if not _helper:
        command = [sys.executable, "-m", "millstream.tools.child"]
        _helper.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        atexit.register(_close)
    helper = _helper[0]
    assert helper.stdin is not None
    assert helper.stdout is not None
    request = pickle.dumps(function)
    helper.stdin.write(len(request).to_bytes(8, "big") + request)
    helper.stdin.flush()
    answer = json.loads(helper.stdout.readline())
    if "crashed" in answer:
        raise Crashed(answer["crashed"])
    return answer["result"]


def _close() -> None:
    helper = _helper.pop()
    assert helper.stdin is not None
    assert helper.stdout is not None
    helper.stdin.close()
    helper.wait()
    helper.stdout.close()


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """In the helper: fork for each request, until there are no more."""
    while size := requests.read(8):
        function = pickle.loads(requests.read(int.from_bytes(size, "big")))
        answers.write(json.dumps(_fork(function)).encode() + b"\n")
        answers.flush()


def _fork(function: Callable[[], Any]) -> dict[str, Any]:
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        _answer(function, write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return {"crashed": f"ended by {signal.Signals(os.WTERMSIG(status)).name}"}
    if not answer:
        return {"crashed": f"exit code {os.WEXITSTATUS(status)}, no answer"}
    found: dict[str, Any] = json.loads(answer)
    return found


def _answer(function: Callable[[], Any], write_end: int) -> None:
    """In the child: never returns."""
    try:
        signal.alarm(SECONDS_MAX)
        # What a library or the node says about damage is not the tool's output.
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(null, descriptor)
        try:
            found = {"result": function()}
        except Exception:  # noqa: BLE001 - whatever it is, it belongs to the parent
            found = {"crashed": traceback.format_exc()}
        os.write(write_end, json.dumps(found).encode())
    finally:
        os._exit(0)


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
