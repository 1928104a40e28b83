"""``millstream regions up``: several regions on one machine, a process each, until Ctrl-C.

The nodes are children in sessions of their own, so that Ctrl-C reaches this program alone, which
then stops them in good order. A child that dies is reported and not started again: a drill may have
killed it.
"""

from __future__ import annotations

import argparse
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from ..demo.node import Node, NodeFailed
from ..errors import ConfigurationError
from .regions_places import (
    ENDPOINTS_FILE,
    REGION_PATTERN,
    NotFound,
    read_endpoints,
    settled_file,
    write_endpoints,
)

NAMES_DEFAULT = ("us-east-1", "eu-west-1", "ap-southeast-1")
EXIT_OK = 0
EXIT_FAILED = 1
EXIT_WRONG = 2
_LOOK_SECONDS = 0.1


class _Stop(Exception):
    """A signal has come."""


def up(arguments: argparse.Namespace, console: Console) -> int:
    """Run the regions; the exit code: 0 stopped, 1 one could not start or has died, 2 wrong."""
    folder = Path(arguments.directory)
    wanted = _wanted(arguments, folder)
    for name in wanted:
        if not re.fullmatch(REGION_PATTERN, name):
            return _fail(f"{name!r} is no region: it must look like us-east-1", EXIT_WRONG)
    if len(set(wanted)) < len(wanted):
        return _fail("a region is named twice", EXIT_WRONG)
    if len(wanted) < 2:
        return _fail("several regions are two at least", EXIT_WRONG)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if _is_running(folder):
            return _fail(f"regions run in {folder} already, says {ENDPOINTS_FILE}", EXIT_FAILED)
        file, ports = settled_file(folder, wanted)
    except (OSError, ConfigurationError) as error:
        return _fail(str(error), EXIT_WRONG)
    nodes = {}
    for offset, name in enumerate(wanted):
        port = 0 if arguments.port is None else arguments.port + offset
        words = ["--port", str(port), "--region", name, "--peers", str(file)]
        words += ["--in-memory"] if arguments.in_memory else ["--data", str(folder / name)]
        nodes[name] = Node(words, folder / f"{name}.log")
    try:
        with _signals_stop():
            try:
                return _run(folder, nodes, ports, arguments, console)
            finally:
                _stop(nodes)
    except _Stop:
        # Between the start and the watch.
        return EXIT_OK
    finally:
        (folder / ENDPOINTS_FILE).unlink(missing_ok=True)


def _wanted(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """The regions that are named; those that were started there before; three."""
    if arguments.regions:
        return list(arguments.regions)
    before = [path.name for path in sorted(folder.glob("*")) if (path / "format").is_file()]
    return before if len(before) > 1 else list(NAMES_DEFAULT)


def _is_running(folder: Path) -> bool:
    """Whether somebody answers at an endpoint that was left there."""
    try:
        endpoints = read_endpoints(folder / ENDPOINTS_FILE)
    except (OSError, NotFound):
        return False
    for url in endpoints.values():
        parts = urlsplit(url)
        try:
            socket.create_connection((parts.hostname or "", parts.port or 80), 1.0).close()
        except OSError:
            continue
        return True
    return False


def _run(
    folder: Path,
    nodes: dict[str, Node],
    ports: dict[str, int],
    arguments: argparse.Namespace,
    console: Console,
) -> int:
    try:
        _start(nodes)
    except NodeFailed as failed:
        return _fail(str(failed), EXIT_FAILED)
    except _Stop:
        return EXIT_OK
    write_endpoints(folder, {name: node.endpoint for name, node in nodes.items()})
    table = Table(box=None, header_style="bold")
    for column in ("region", "endpoint", "links", "data", "process"):
        table.add_column(column)
    for name, node in nodes.items():
        data = "memory" if arguments.in_memory else str(folder / name)
        table.add_row(
            name, node.endpoint, f"127.0.0.1:{ports[name]}", data, str(node.process_id)
        )
    console.print(table)
    console.print("\nCtrl-C stops them. Elsewhere, with --directory where this is not the default:")
    console.print("  millstream regions status --watch")
    console.print("  millstream regions replicate TABLE")
    sys.stdout.flush()
    return _watch(folder, nodes, console)


def _start(nodes: dict[str, Node]) -> None:
    """Start all at once. Raises NodeFailed for the first that cannot."""
    with ThreadPoolExecutor(len(nodes)) as pool:
        starts = {name: pool.submit(node.start) for name, node in nodes.items()}
    for name, start in starts.items():
        failed = start.exception()
        if isinstance(failed, NodeFailed):
            raise NodeFailed(f"{name}: {str(failed).splitlines()[-1]}")
        if failed is not None:
            raise failed


def _watch(folder: Path, nodes: dict[str, Node], console: Console) -> int:
    """Report whoever dies, until a signal comes or nobody is left."""
    dead: dict[str, int] = {}
    try:
        while len(dead) < len(nodes):
            time.sleep(_LOOK_SECONDS)
            for name, node in nodes.items():
                code = node.exit_code()
                if name not in dead and code is not None:
                    dead[name] = code
                    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                    console.print(
                        f"{name} has ended ({how}); the others go on. It said last, in "
                        f"{folder / (name + '.log')}:"
                    )
                    console.print(f"  {_last_line(folder / (name + '.log'))}", markup=False)
                    sys.stdout.flush()
    except _Stop:
        console.print("stopping")
        return EXIT_FAILED if dead else EXIT_OK
    return _fail("no region is left", EXIT_FAILED)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1] if lines else "nothing"


def _stop(nodes: dict[str, Node]) -> None:
    with ThreadPoolExecutor(len(nodes)) as pool:
        list(pool.map(Node.stop, nodes.values()))


@contextmanager
def _signals_stop() -> Iterator[None]:
    """The first SIGINT or SIGTERM raises _Stop; later ones do nothing: all is being stopped."""

    has_come = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal has_come
        if not has_come:
            has_come = True
            raise _Stop

    has_come = False

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fail(reason: str, exit_code: int) -> int:
    print(f"millstream regions: {reason}", file=sys.stderr, flush=True)
    return exit_code
