"""``millstream triggers``: look after the triggers of a running node.

Speaks to the node over HTTP, signed with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY where the
environment has them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from ..api.operations.triggers import PREFIX
from ..demo.client import Client, Refused

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_WRONG = 2
WIDTH_WITHOUT_TERMINAL = 200


def triggers_command(arguments: argparse.Namespace) -> int:
    """Do what the command line says; returns the exit code."""
    environment = os.environ
    try:
        client = Client(
            arguments.endpoint,
            environment.get("AWS_ACCESS_KEY_ID", "millstream"),
            environment.get("AWS_SECRET_ACCESS_KEY", "millstream"),
            environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1",
        )
    except ValueError as error:
        return _fail(str(error), EXIT_WRONG)
    try:
        action: Callable[[Client, argparse.Namespace], int] = _ACTIONS[arguments.action]
        return action(client, arguments)
    except Refused as refused:
        return _fail(str(refused), EXIT_FAILED)
    except OSError as error:
        return _fail(f"{arguments.endpoint} does not answer: {error}", EXIT_FAILED)
    finally:
        client.close()


def _list(client: Client, _arguments: argparse.Namespace) -> int:
    found = client.call(PREFIX + "ListTriggers")["Triggers"]
    if not found:
        print("there are no triggers")
        return EXIT_OK
    table = Table(box=None, header_style="bold")
    for name in ("trigger", "table", "state"):
        table.add_column(name)
    for name in ("records", "batches", "failures", "given up", "behind"):
        table.add_column(name, justify="right")
    table.add_column("last result", overflow="fold")
    for each in found:
        table.add_row(
            each["Name"],
            each["Table"],
            each["State"],
            f"{each['Records']:,}",
            f"{each['Batches']:,}",
            f"{each['Failures']:,}",
            f"{each['FailedBatches']:,}",
            f"{each['Lag']:,}",
            "\n".join(filter(None, (each["LastProcessingResult"], each["LastError"]))),
        )
    _show(table)
    return EXIT_OK


def _state(operation: str) -> Any:
    def act(client: Client, arguments: argparse.Namespace) -> int:
        answer = client.call(PREFIX + operation, Name=arguments.name)
        print(f"{answer['Name']}: {answer['State']}")
        return EXIT_OK

    return act


def _reset(client: Client, arguments: argparse.Namespace) -> int:
    position = _position(arguments.position)
    if position is None:
        return _fail(
            f"--position: TRIM_HORIZON, LATEST or a time like 2026-11-23T10:00:00Z, not "
            f"{arguments.position!r}",
            EXIT_WRONG,
        )
    answer = client.call(PREFIX + "ResetTrigger", Name=arguments.name, Position=position)
    print(f"{answer['Name']}: {answer['State']}, from {arguments.position}")
    return EXIT_OK


def _position(text: str) -> str | float | None:
    if text.upper() in ("TRIM_HORIZON", "LATEST"):
        return text.upper()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _failures(client: Client, arguments: argparse.Namespace) -> int:
    batches = client.call(PREFIX + "ListFailedBatches", Name=arguments.name)["FailedBatches"]
    if not batches:
        print("no batch has been given up")
        return EXIT_OK
    table = Table(box=None, header_style="bold")
    for name in ("batch", "when", "why", "error"):
        table.add_column(name, overflow="fold")
    table.add_column("records", justify="right")
    table.add_column("attempts", justify="right")
    for batch in batches:
        when = datetime.fromtimestamp(batch["Time"], UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        error = ": ".join(part for part in (batch["ErrorType"], batch["ErrorMessage"]) if part)
        table.add_row(
            batch["BatchId"],
            when,
            batch["Condition"],
            error,
            f"{batch['Records']:,}",
            f"{batch['Attempts']:,}",
        )
    _show(table)
    return EXIT_OK


def _show(table: Table) -> None:
    # Without a terminal nobody's lines need folding.
    Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL).print(table)


def _redrive(client: Client, arguments: argparse.Namespace) -> int:
    members = {"Name": arguments.name}
    if arguments.batch is not None:
        members["BatchId"] = arguments.batch
    answer = client.call(PREFIX + "RedriveTrigger", **members)
    print(f"{answer['Taken']} taken, {answer['Left']} left")
    return EXIT_OK if answer["Left"] == 0 or answer["Taken"] else EXIT_FAILED


def _fail(reason: str, exit_code: int) -> int:
    print(f"millstream triggers: {reason}", file=sys.stderr)
    return exit_code


_ACTIONS: dict[str, Any] = {
    "list": _list,
    "pause": _state("PauseTrigger"),
    "resume": _state("ResumeTrigger"),
    "reset": _reset,
    "delete": _state("DeleteTrigger"),
    "failures": _failures,
    "redrive": _redrive,
}
