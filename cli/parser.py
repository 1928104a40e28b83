"""The command line's grammar, rendered from the table of settings in ``config``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from .. import __version__
from ..config import SETTINGS, Setting

EXIT_CONFIGURATION = 2


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line with a suggestion instead of a page of usage."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave with the exit code of a configuration error."""
        self.exit(EXIT_CONFIGURATION, f"{self.prog}: {message}\n")

    def known_flags(self) -> list[str]:
        """The long options that this parser accepts."""
        flags = [flag for action in self._actions for flag in action.option_strings]
        return [flag for flag in flags if flag.startswith("--")]


def parse(arguments: list[str]) -> argparse.Namespace:
    """The parsed command line; ``command`` names the sub-command or is None.

    Leaves the process (``SystemExit``) after ``--help`` and ``--version``, and with exit code 2
    when something is wrong.
    """
    parser, commands = build()
    found, unknown = parser.parse_known_args(arguments)
    if unknown:
        at_fault = commands.get(found.command or "", parser)
        flag = unknown[0].partition("=")[0]
        from difflib import get_close_matches  # Most command lines have no mistake.

        close = get_close_matches(flag, at_fault.known_flags(), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        at_fault.error(f"unknown argument {unknown[0]}{hint}")
    return found


def build() -> tuple[Parser, dict[str, Parser]]:
    """The parser, and the sub-commands' parsers by name."""
    parser = Parser(
        prog="millstream",
        description="A durable DynamoDB-compatible database in one Python process.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"millstream {__version__}")
    children = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    serve = children.add_parser(
        "serve",
        help="run a database that AWS SDKs can use",
        description="Run a database that any AWS SDK, the AWS CLI or PynamoDB can use.",
        epilog="Every setting can also be given as MILLSTREAM_<NAME> in the environment or as a "
        "key of the TOML file: a flag wins over the environment, which wins over the file.",
        allow_abbrev=False,
    )
    serve.add_argument("--config", metavar="FILE", help="TOML file with settings")
    for setting in SETTINGS:
        _add_setting(serve.add_argument, setting)

    demo = children.add_parser(
        "demo",
        help="load real data into a node and ask it questions",
        description="Start a node on a temporary directory, load the flights that left New York "
        "in January 2013, and ask questions whose answers are checked against the file.",
        allow_abbrev=False,
    )
    demo.add_argument(
        "--endpoint",
        metavar="URL",
        help="use the DynamoDB that answers there instead of a node of our own",
    )

    scrub = children.add_parser(
        "scrub",
        help="check that a data directory holds what was written",
        description="Read every row and log entry of a data directory and compare them with their "
        "checksums and with the counts kept beside them. Changes nothing in the tree, and may run "
        "beside a serving process, whose log is then left out.",
        epilog="Exit code: 0 healthy, 3 damaged, 1 it could not be told.",
        allow_abbrev=False,
    )
    scrub.add_argument("directory", metavar="DIR", help="the data directory")
    scrub.add_argument(
        "--log-dirs", metavar="DIR,DIR,...", help="the log directories that it is served with"
    )
    scrub.add_argument("--walk", action="store_true", help=argparse.SUPPRESS)
    return parser, {"serve": serve, "demo": demo, "scrub": scrub}


def _add_setting(add: Callable[..., Any], setting: Setting) -> None:
    default = f" (default: {setting.default_text})" if setting.default_text else ""
    text = (setting.help + default).replace("%", "%%")
    if setting.is_switch:
        add(setting.flag, dest=setting.name, action="store_true", default=None, help=setting.help)
    elif setting.many and "," not in setting.placeholder:
        add(
            setting.flag,
            dest=setting.name,
            action="append",
            metavar=setting.placeholder,
            help=text + "; may be given several times",
        )
    else:
        add(setting.flag, dest=setting.name, metavar=setting.placeholder, help=text)
