"""``make conformance DIR=...``: the independent conformance suite against a node of ours.

The suite (github.com/nubo-db/dynamodb-conformance) was recorded on AWS and is not ours: it is
neither shipped nor changed, DIR is a checkout of it with its packages installed. A node in memory
is started on a free port, the suite's own runner tests it and writes a report, and the report is
read here: one line for each tier and family, then the failures.

A failure counts when the test is about an operation that the README's table says is supported.
Others (transactions, for now) are listed apart and fail nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .server import Server, ServerFailed

SUITE = "github.com/nubo-db/dynamodb-conformance"
HOW_TO_GET_IT = (
    f"The suite is public: git clone https://{SUITE}, npm install in it, and then "
    "make conformance DIR=path/to/dynamodb-conformance"
)
README = Path(__file__).resolve().parents[1] / "README.md"
SECONDS_MAX = 1800

# What the suite tests by another name than the operation's, by the words of file, group and title.
_UNSUPPORTED_WORDS = {
    "transact": "TransactWriteItems",
    "partiql": "ExecuteStatement",
    "stream": "ListStreams",
    "ttl": "UpdateTimeToLive",
    "timetolive": "UpdateTimeToLive",
}


class Result(NamedTuple):
    """One test. ``operation`` is what it is about, or "" for what several operations share."""

    tier: str
    family: str
    name: str
    operation: str
    status: str
    message: str


def supported_operations(readme: str) -> set[str]:
    """The names in the first table under the heading about compatibility, operations and others."""
    lines = readme.partition("## What it speaks")[2].splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("|"))
    table = list(itertools.takewhile(lambda line: line.startswith("|"), lines[begin:]))
    return set(re.findall(r"\b[A-Z][A-Za-z]+\b", "\n".join(table)))


def results_of(report: dict[str, Any], supported: Iterable[str]) -> list[Result]:
    """The tests in the runner's report."""
    by_lower = {name.lower(): name for name in supported}
    found = []
    for file in report["testResults"]:
        path = file["name"].replace("\\", "/").partition("/tests/")[2]
        tier, folder, stem = _parts(path)
        tests = file["assertionResults"]
        if not tests and file.get("status") != "passed":
            # It ended before its first test; the runner has no other line for it.
            tests = [{"fullName": "the whole file", "status": "failed"}]
            tests[0]["failureMessages"] = [file.get("message", "")]
        for test in tests:
            words = f"{path} {test['fullName']}".lower()
            operation = by_lower.get(folder.lower()) or by_lower.get(stem.lower(), "")
            for word, unsupported in _UNSUPPORTED_WORDS.items():
                if word in words and unsupported not in by_lower.values():
                    operation = unsupported
            family = folder if folder.lower() in by_lower else f"{folder}/{stem}"
            message = (test.get("failureMessages") or [""])[0].partition("\n")[0]
            found.append(Result(tier, family, test["fullName"], operation, test["status"], message))
    return found


def _parts(path: str) -> tuple[str, str, str]:
    """Tier, folder and name of a test file; ``path`` begins behind tests/."""
    tier, _, rest = path.partition("/")
    folder, _, name = rest.rpartition("/")
    return tier, folder, name.partition(".")[0]


def summary(results: Sequence[Result], supported: set[str]) -> tuple[list[str], int]:
    """The lines to print, and how many failures count."""
    lines = []
    families = sorted({(result.tier, result.family) for result in results})
    width = max((len(family) for _, family in families), default=0)
    for tier, family in families:
        of_family = [r for r in results if (r.tier, r.family) == (tier, family)]
        counts = {status: sum(r.status == status for r in of_family) for status in _STATUSES}
        skipped = len(of_family) - sum(counts.values())
        line = f"{tier}  {family:{width}}  {counts['passed']:4} passed"
        if counts["failed"]:
            line += f"  {counts['failed']:3} failed"
        lines.append(line + (f"  {skipped:3} skipped" if skipped else ""))
    failed = [result for result in results if result.status == "failed"]
    ours = [r for r in failed if not r.operation or r.operation in supported]
    others = [r for r in failed if r not in ours]
    for title, group in (
        ("failed", ours),
        ("failed, about operations that are not supported yet", others),
    ):
        if group:
            lines += ["", f"{title}:"]
            lines += [f"  {r.tier} {r.family}: {r.name}\n      {r.message[:300]}" for r in group]
    passed = sum(result.status == "passed" for result in results)
    lines += ["", f"{passed} of {len(results)} passed, {len(ours)} failures count"]
    return lines, len(ours)


_STATUSES = ("passed", "failed")


def run_suite(suite: Path, endpoint: str, tiers: Sequence[str], folder: Path) -> dict[str, Any]:
    """The runner's report. Raises RuntimeError when it made none."""
    npx = shutil.which("npx")
    if npx is None:
        raise RuntimeError("npx is not installed: the suite needs Node.js")
    report = folder / "report.json"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "DYNAMODB_ENDPOINT": endpoint,
        "AWS_ACCESS_KEY_ID": "conformance",
        "AWS_SECRET_ACCESS_KEY": "conformance",
        "AWS_REGION": "us-east-1",
    }
    command = [npx, "--no-install", "vitest", "run", *(f"tests/{tier}" for tier in tiers)]
    done = subprocess.run(
        [*command, "--reporter=json", f"--outputFile={report}"],
        cwd=suite,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    if not report.is_file():
        raise RuntimeError(f"the suite made no report:\n{(done.stdout + done.stderr)[-2000:]}")
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0 all that counts passed, 1 something failed, 2 the suite cannot be run."""
    parser = argparse.ArgumentParser(
        prog="conformance", description=__doc__.partition("\n")[0], epilog=HOW_TO_GET_IT
    )
    parser.add_argument("directory", nargs="?", default="", help="the suite's checkout")
    parser.add_argument(
        "tiers", nargs="*", default=["tier1", "tier3"], help="folders of its tests to run"
    )
    options = parser.parse_args(arguments)
    suite = Path(options.directory)
    if not options.directory or not (suite / "vitest.config.ts").is_file():
        print(f"conformance: DIR is not the suite's checkout. {HOW_TO_GET_IT}", file=sys.stderr)
        return 2
    if not (suite / "node_modules").is_dir():
        print(f"conformance: run npm install in {suite} first. {HOW_TO_GET_IT}", file=sys.stderr)
        return 2
    supported = supported_operations(README.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = Server(["--in-memory"], folder / "server.log")
        try:
            server.start()
            print(f"conformance: {SUITE} against {server.endpoint}", flush=True)
            report = run_suite(suite, server.endpoint, options.tiers, folder)
        except (ServerFailed, RuntimeError, subprocess.TimeoutExpired) as error:
            print(f"conformance: {error}. {HOW_TO_GET_IT}", file=sys.stderr)
            return 2
        finally:
            server.kill()
    lines, failures = summary(results_of(report, supported), supported)
    print("\n".join(lines))
    if not report["testResults"]:
        print(f"conformance: no tests in {', '.join(options.tiers)}", file=sys.stderr)
        return 2
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
