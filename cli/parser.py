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
    triggers = _add_triggers(children)
    regions = _add_regions(children)
    return parser, {
        "serve": serve,
        "demo": demo,
        "scrub": scrub,
        "triggers": triggers,
        "regions": regions,
    }


def _add_triggers(children: Any) -> Parser:
    triggers: Parser = children.add_parser(
        "triggers",
        help="look after the triggers of a running node",
        description="List, pause, resume, replay and mend the triggers of a running node.",
        epilog="Requests are signed with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, if set; a "
        "node with credentials wants those of a profile with millstream_functions = true.",
        allow_abbrev=False,
    )
    actions = triggers.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, what in (
        ("list", "every trigger, its state and what it has done"),
        ("pause", "stop calling the handler; its position is kept"),
        ("resume", "go on where it was paused"),
        ("reset", "go on from another place in the stream (a replay)"),
        ("delete", "remove the mapping with its positions"),
        ("failures", "batches that were given up"),
        ("redrive", "give failed batches to the handler again"),
    ):
        action = actions.add_parser(name, help=what, description=what, allow_abbrev=False)
        if name != "list":
            action.add_argument("name", metavar="NAME", help="the trigger's name, or its UUID")
        if name == "reset":
            action.add_argument(
                "--position",
                required=True,
                metavar="PLACE",
                help="TRIM_HORIZON, LATEST or a time (ISO 8601)",
            )
        if name == "redrive":
            action.add_argument("--batch", metavar="ID", help="this batch only")
        action.add_argument(
            "--endpoint",
            default="http://127.0.0.1:8000",
            metavar="URL",
            help="where the node listens (default: http://127.0.0.1:8000)",
        )
    return triggers


REGIONS_DIRECTORY = "millstream-regions"
# Action, what it does, what it is told in order. "?" one or none, "*" any number.
_REGIONS_ACTIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("up", "start regions on this machine, and stop them at Ctrl-C", ("REGION*",)),
    ("status", "who is linked with whom, and how far behind tables are", ()),
    ("replicate", "give a table replicas (everywhere), and wait for them", ("TABLE", "REGION*")),
    ("compare", "whether a table has the same items in every region", ("TABLE",)),
    ("forget", "give up the replica of a region that is lost for good", ("TABLE", "REGION")),
    ("partition", "cut the links between two regions", ("A", "B")),
    ("heal", "undo what was done to the links of two regions, or of all", ("A?", "B?")),
    ("pause", "hold back what two regions send each other", ("A", "B")),
    ("resume", "send what was held back", ("A", "B")),
    ("delay", "send everything between two regions later", ("A", "B", "SECONDS")),
    ("drop", "lose links between two regions, with each message so likely", ("A", "B", "CHANCE")),
    ("skew", "set a region's clock wrong (0: right)", ("REGION", "SECONDS")),
)
_REGIONS_NAMES = {"A": "one", "B": "other", "CHANCE": "value"}


def _finite(text: str) -> float:
    value = float(text)
    if not abs(value) < float("inf"):
        raise ValueError
    return value


def _interval(text: str) -> float:
    value = _finite(text)
    if value < 0.05:
        raise argparse.ArgumentTypeError("at least 0.05")
    return value


# What argparse calls the type of what is not one.
_finite.__name__ = _interval.__name__ = "number"


def _add_regions(children: Any) -> Parser:
    regions: Parser = children.add_parser(
        "regions",
        help="run several regions on one machine, look at them, and drill",
        description="Run several regions on one machine; look at regions, give tables replicas, "
        "compare them, and drill: partitions, delays, wrong clocks.",
        epilog="Requests are signed with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, if set; "
        "nodes with credentials want those of a profile with millstream_functions = true.",
        allow_abbrev=False,
    )
    actions = regions.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, what, words in _REGIONS_ACTIONS:
        action = actions.add_parser(name, help=what, description=what, allow_abbrev=False)
        for word in words:
            metavar, count = word.rstrip("?*"), word[len(word.rstrip("?*")) :] or None
            place = _REGIONS_NAMES.get(metavar, metavar.lower())
            if count == "*":
                place = "regions"
            if name == "delay" and metavar == "SECONDS":
                place = "value"
            kind = _finite if metavar in ("SECONDS", "CHANCE") else str
            action.add_argument(place, metavar=metavar, nargs=count, type=kind)
        action.add_argument(
            "--directory",
            default=REGIONS_DIRECTORY,
            metavar="DIR",
            help=f"what `up` keeps everything in (default: {REGIONS_DIRECTORY})",
        )
        if name != "up":
            action.add_argument(
                "--endpoint",
                metavar="URL,URL,...",
                help="where the nodes listen, instead of DIR; REGION=URL where they have "
                "credentials",
            )
        if name == "replicate":
            action.add_argument(
                "--timeout", type=_finite, default=300.0, metavar="SECONDS",
                help="how long to wait for each replica (default: 300)",
            )  # fmt: skip
        if name == "status":
            action.add_argument(
                "--watch", action="store_true", help="look again and again, until Ctrl-C"
            )
            action.add_argument(
                "--interval", type=_interval, default=1.0, metavar="SECONDS",
                help="how often to look (default: 1)",
            )  # fmt: skip
        if name == "up":
            action.add_argument(
                "--in-memory", action="store_true", help="keep data in memory, not in DIR"
            )
            action.add_argument(
                "--port", type=int, metavar="PORT",
                help="port of the first region; the others take the next ones (default: free ones)",
            )  # fmt: skip
    return regions


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
