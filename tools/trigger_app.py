"""The handlers that ``crash --workload triggers`` has run in the server, one of each kind.

``millstream serve --app millstream.tools.trigger_app:triggers``. Plain handlers write what they saw
into a file each (a write that the kernel has taken survives SIGKILL); transactional ones keep, for
each key of the source table, how many changes they counted and a digest of them in their order: a
change left out, counted twice or out of order leaves another digest for good.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Iterable
from typing import Any

from ..triggers import Triggers

#: The environment variable that says where plain handlers write.
FOLDER = "TRIGGER_CRASH_FOLDER"
SOURCE = "source"
FAILED = "failed"
#: Plain handlers, by their files' names.
PLAIN = ("seen", "seen-in-lanes")
#: Transactional handlers, by their tables.
COUNTED = ("counted", "counted-in-process", "counted-in-lanes")
#: Counts what is not poisoned, and fails for the rest.
ACCEPTED = "accepted"

triggers = Triggers()

# Tells one life of the node from another.
_LIFE = f"{os.getpid()}/{time.monotonic_ns()}"


def digest_of(before: int, sequence: str) -> int:
    """The digest of a key's changes when one more has come."""
    return zlib.crc32(sequence.encode(), before)


def is_poisoned(record: dict[str, Any]) -> bool:
    """Whether ``accept`` fails for a change."""
    return "poison" in record["dynamodb"].get("NewImage", {})


def by_key(records: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """Key -> the sequence numbers of its changes, in their order."""
    found: dict[str, list[str]] = {}
    for record in records:
        inner = record["dynamodb"]
        found.setdefault(inner["Keys"]["id"]["S"], []).append(inner["SequenceNumber"])
    return found


def _write_down(name: str, event: dict[str, Any]) -> None:
    # A line torn by the kill ends here, at the next one's beginning.
    line = json.dumps([_LIFE, by_key(event["Records"])])
    path = os.path.join(os.environ[FOLDER], name)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"\n{line}\n".encode())
    finally:
        os.close(descriptor)


def _after(found: dict[str, Any] | None, key: str, sequences: list[str]) -> dict[str, Any]:
    item = found or {"id": key, "changes": 0, "digest": 0}
    digest = item["digest"]
    for sequence in sequences:
        digest = digest_of(digest, sequence)
    return {"id": key, "changes": item["changes"] + len(sequences), "digest": digest}


async def _count(table: str, event: dict[str, Any], context: Any) -> None:
    transaction = context.transaction
    for key, sequences in by_key(event["Records"]).items():
        found = await transaction.get(table, {"id": key})
        transaction.put(table, _after(found, key, sequences))


@triggers.on_change(SOURCE, name="see", batch_size=7)
async def see(event: dict[str, Any], context: Any) -> None:
    """Plain, on the loop."""
    _write_down("seen", event)


@triggers.on_change(SOURCE, name="see in lanes", batch_size=5, parallelization_factor=4)
def see_in_lanes(event: dict[str, Any], context: Any) -> None:
    """Plain, in threads, four lanes."""
    _write_down("seen-in-lanes", event)


@triggers.on_change(SOURCE, name="count", batch_size=20)
async def count(event: dict[str, Any], context: Any) -> None:
    """Transactional, on the loop."""
    await _count("counted", event, context)


@triggers.on_change(
    SOURCE, name="count in process", batch_size=50, isolation="process", memory_limit_mb=256
)
def count_in_process(event: dict[str, Any], context: Any) -> None:
    """Transactional, in a worker process."""
    transaction = context.transaction
    for key, sequences in by_key(event["Records"]).items():
        found = transaction.get("counted-in-process", {"id": key})
        transaction.put("counted-in-process", _after(found, key, sequences))


@triggers.on_change(SOURCE, name="count in lanes", batch_size=5, parallelization_factor=4)
async def count_in_lanes(event: dict[str, Any], context: Any) -> None:
    """Transactional, four lanes that meet at one item now and then."""
    await _count("counted-in-lanes", event, context)
    if len(event["Records"]) % 3 == 0:
        transaction = context.transaction
        key = {"id": "meeting"}
        await transaction.get("counted-in-lanes", key)
        transaction.update("counted-in-lanes", key, "ADD met :one", values={":one": 1})


@triggers.on_change(
    SOURCE,
    name="accept",
    batch_size=10,
    maximum_retry_attempts=1,
    bisect_batch_on_function_error=True,
    on_failure=FAILED,
)
async def accept(event: dict[str, Any], context: Any) -> None:
    """Transactional; fails for what is poisoned, which ends in a table."""
    if any(is_poisoned(record) for record in event["Records"]):
        raise ValueError("poisoned")
    await _count(ACCEPTED, event, context)
