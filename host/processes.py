"""The door to child processes: Python programs of ours that run what must not run in the node.

A child has a channel to the node (a socket pair), its output (stdout and stderr, one pipe) and a
*lifeline*: a pipe on which nothing is ever written, and whose other end closes when the node ends,
however it ends. The child asks the kernel to kill its whole process group when that happens
(``lifeline.py``). PR_SET_PDEATHSIG would not do: it speaks of the *thread* that forked, and
threads of a pool come and go.

Nothing of the node's environment gets into a child but what is given. It leads a session of its
own, so that Ctrl-C at the terminal is the node's affair alone.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import trio

from ..limits import WORKER_RECEIVE_BYTES

_PACKAGE = __name__.split(".")[0]
# The package is found again in the place that it has here; how the interpreter finds it on its own
# depends on the installation. For nothing else does that place come first.
_BOOT = f"""
import sys, typing
from importlib import import_module
place, name = sys.argv[1:3]
del sys.argv[1:3]
if place:
    sys.path.insert(0, place)
    import {_PACKAGE}
    del sys.path[0]
    if place not in sys.path:
        sys.path.append(place)
import_module(name).main()
"""


class Child(Protocol):
    """A process, its channel and its output. Each method has one caller at a time."""

    @property
    def pid(self) -> int: ...

    async def send(self, data: bytes) -> bool:
        """Write it all to the channel; False if the child no longer reads."""
        ...

    async def receive(self) -> bytes:
        """The next bytes from the channel; b"" when no more will come."""
        ...

    async def wait_output(self) -> None:
        """Until there is output, or until no more will come."""
        ...

    def read_output(self) -> bytes | None:
        """Output that is there, b"" for none now, None when no more will come."""
        ...

    def is_running(self) -> bool:
        """Whether the process has not ended, as far as the kernel knows now."""
        ...

    async def wait(self) -> int:
        """Until the process has ended: its exit status, or minus the signal's number."""
        ...

    def kill(self) -> None:
        """End the process and all that it has started, at once. Twice does no harm."""
        ...

    def hang_up(self) -> None:
        """End the channel; what has come already can still be received."""
        ...

    def close(self) -> None:
        """Give everything back. The process has ended."""
        ...


class Processes(Protocol):
    """Starts children."""

    async def start(self, module: str, environment: Mapping[str, str], directory: str) -> Child:
        """Run ``main()`` of a module of ours, given as ``lambdas.worker``.

        The program finds two file descriptors in ``sys.argv[1:]``: channel and lifeline.
        Raises OSError.
        """
        ...


class RealProcesses:
    """Processes of this machine."""

    __slots__ = ()

    async def start(self, module: str, environment: Mapping[str, str], directory: str) -> Child:
        channel, theirs = socket.socketpair()
        held, lifeline = os.pipe()
        output, written = os.pipe()
        try:
            channel.setblocking(False)
            os.set_blocking(output, False)
            # In a thread of trio's. Should it be cancelled, the lifeline is cut below.
            process = await trio.lowlevel.open_process(
                [
                    sys.executable, "-P", "-c", _BOOT, _package_place(), f"{_PACKAGE}.{module}",
                    str(theirs.fileno()), str(held),
                ],
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                env=dict(environment),
                cwd=directory,
                pass_fds=(theirs.fileno(), held),
                start_new_session=True,
            )  # fmt: skip
        except BaseException:
            channel.close()
            os.close(lifeline)
            os.close(output)
            raise
        finally:
            theirs.close()
            os.close(held)
            os.close(written)
        return _RealChild(process, channel, output, lifeline)


class _RealChild:
    __slots__ = ("_channel", "_is_closed", "_lifeline", "_output", "_process")

    def __init__(
        self, process: trio.Process, channel: socket.socket, output: int, lifeline: int
    ) -> None:
        self._process = process
        self._channel = channel
        #: The reading end of the output's pipe.
        self._output = output
        #: The writing end of the lifeline: closed, by us or by our death, it kills.
        self._lifeline = lifeline
        self._is_closed = False

    @property
    def pid(self) -> int:
        return self._process.pid

    async def send(self, data: bytes) -> bool:
        view = memoryview(data)
        while True:
            try:
                view = view[self._channel.send(view) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._channel)
            except (BrokenPipeError, ConnectionResetError):
                return False
            if not view:
                return True

    async def receive(self) -> bytes:
        # What is asked for has never come yet: looking first would be in vain.
        await trio.lowlevel.wait_readable(self._channel)
        try:
            return self._channel.recv(WORKER_RECEIVE_BYTES)
        except ConnectionResetError:
            return b""

    async def wait_output(self) -> None:
        await trio.lowlevel.wait_readable(self._output)

    def read_output(self) -> bytes | None:
        try:
            return os.read(self._output, WORKER_RECEIVE_BYTES) or None
        except BlockingIOError:
            return b""

    def is_running(self) -> bool:
        return self._process.poll() is None

    async def wait(self) -> int:
        return await self._process.wait()

    def kill(self) -> None:
        if self._is_closed:
            return
        # The group outlives its leader. Numbers are given out in turn, so that between the end of
        # the leader and this call nobody else has got this one.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def hang_up(self) -> None:
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        assert self._process.returncode is not None
        if not self._is_closed:
            self._is_closed = True
            self._channel.close()
            os.close(self._output)
            os.close(self._lifeline)


def _package_place() -> str:
    """The directory to import the package from, or "" where the installation knows the way.

    An editable installation finds the package by name, whatever its folder is called.
    """
    folder = Path(__file__).parents[1]
    return str(folder.parent) if folder.name == _PACKAGE else ""
