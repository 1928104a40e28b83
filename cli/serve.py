"""``millstream serve``: settings, logging, signals and exit codes round ``service.run_service``.

The one thing printed on standard output is the line that says where the node listens, so that a
script can wait for it; logs go to standard error. SIGTERM and SIGINT cancel the service, which
then stops cleanly; a second signal falls through to its default and ends the process at once,
which loses nothing that was acknowledged.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import trio

from ..config import SETTINGS, Settings, resolve
from ..errors import ConfigurationError, MillstreamError
from .loading import loading
from .reload import run_with_reload

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CONFIGURATION = 2

Service = Callable[[Settings, Callable[[str], None]], Awaitable[None]]

_LOG = logging.getLogger("millstream.serve")


def serve_command(arguments: argparse.Namespace) -> int:
    """Run a node as the command line says; returns the exit code."""
    try:
        settings = settings_from(arguments)
    except ConfigurationError as error:
        return _fail(str(error), EXIT_CONFIGURATION)
    set_up_logging(settings.log_level)
    if settings.reload:
        return run_with_reload(sys.argv[1:], Path.cwd())
    return run(settings, _service)


def settings_from(arguments: argparse.Namespace) -> Settings:
    """Flags, environment and TOML file, resolved. Raises ``ConfigurationError``."""
    file_name = arguments.config or os.environ.get("MILLSTREAM_CONFIG") or None
    file_text = None
    if file_name is not None:
        try:
            file_text = Path(file_name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"cannot read {file_name}: {_reason(error)}") from None
    flags = {setting.name: getattr(arguments, setting.name) for setting in SETTINGS}
    return resolve(flags, os.environ, file_text, file_name or "")


def run(settings: Settings, service: Service) -> int:
    """Serve until a signal arrives; returns the exit code.

    What a person can act on becomes one line. An ``AssertionError`` or anything else unforeseen is
    a defect of millstream: it keeps its traceback.
    """
    try:
        trio.run(_until_signalled, settings, service)
    except Exception as error:
        leaves = list(_leaves(error))
        if any(not isinstance(leaf, (MillstreamError, OSError)) for leaf in leaves):
            raise
        if any(isinstance(leaf, ConfigurationError) for leaf in leaves):
            return _fail("; ".join(map(_reason, leaves)), EXIT_CONFIGURATION)
        return _fail("; ".join(map(_reason, leaves)), EXIT_FAILED)
    return EXIT_OK


async def _until_signalled(settings: Settings, service: Service) -> None:
    async def serve() -> None:
        await service(settings, _announce)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            nursery.start_soon(serve)
            async for number in signals:
                _LOG.info("stopping on %s", signal.Signals(number).name)
                nursery.cancel_scope.cancel()
                break


async def _service(settings: Settings, on_ready: Callable[[str], None]) -> None:
    with loading():
        from ..service import run_service

    await run_service(settings, on_ready=on_ready)


def _announce(url: str) -> None:
    try:
        print(f"millstream is listening on {url}", flush=True)
    except OSError:
        # Python writes what is left once more at its end; there it would be another complaint.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        raise


class LogFormatter(logging.Formatter):
    """One plain line an event: UTC time, level, logger, message."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")


def set_up_logging(level: str) -> None:
    """Send millstream's logs to standard error, from ``level`` up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("millstream").setLevel(level.upper())


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _fail(reason: str, exit_code: int) -> int:
    print(f"millstream: {reason}", file=sys.stderr, flush=True)
    return exit_code
