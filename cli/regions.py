"""``millstream regions``: several regions on one machine, how they are, and drills.

``up`` runs nodes; everything else asks running ones over HTTP, signed with AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY where the environment has them. What a drill does to the link of two regions
is done at both ends.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from rich.console import Console

from ..api.operations.triggers import PREFIX
from ..demo.client import Refused
from .regions_places import NotFound, Place, found_places
from .regions_status import drawn, fault_text, look, watch
from .regions_up import up

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_WRONG = 2
WIDTH_WITHOUT_TERMINAL = 200
EXAMPLES_MAX = 10
_LOOK_SECONDS = 0.05

Places = Mapping[str, Place]
_encode = msgspec.json.Encoder(order="sorted").encode


class Wrong(Exception):
    """The command line asks for what cannot be meant."""


class Failed(Exception):
    """It could not be done; says why."""


def regions_command(arguments: argparse.Namespace) -> int:
    """Do what the command line says; returns the exit code."""
    # Without a terminal nobody's lines need folding.
    console = Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)
    if arguments.action == "up":
        return up(arguments, console)
    try:
        with found_places(arguments) as places:
            return _ACTIONS[arguments.action](places, arguments, console)
    except KeyboardInterrupt:
        return EXIT_OK
    except (ValueError, Wrong) as error:
        return _fail(str(error), EXIT_WRONG)
    except (NotFound, Refused, Failed) as error:
        return _fail(str(error), EXIT_FAILED)
    except OSError as error:
        return _fail(f"no answer: {error}", EXIT_FAILED)


def _status(places: Places, arguments: argparse.Namespace, console: Console) -> int:
    if arguments.watch:
        watch(places, console, arguments.interval)
    looks = look(places)
    console.print(drawn(looks, time.time()))
    return EXIT_OK if all(each.described is not None for each in looks) else EXIT_FAILED


# Tables.


def _replicate(places: Places, arguments: argparse.Namespace, console: Console) -> int:
    holder, table = _holder(places, arguments.table)
    known = [holder.name, *(peer["Region"] for peer in holder.describe()["Peers"])]
    wanted = arguments.regions or known
    for region in wanted:
        if region not in known:
            raise Wrong(f"{region} is none of {', '.join(sorted(known))}")
    has = {holder.name, *(each["RegionName"] for each in table.get("Replicas", ()))}
    for region in wanted:
        if region not in has:
            _until_ready(holder, arguments.table, None, arguments.timeout)
            holder.client.call(
                "UpdateTable",
                TableName=arguments.table,
                ReplicaUpdates=[{"Create": {"RegionName": region}}],
            )
            console.print(f"{region}: invited by {holder.name}")
        if region != holder.name:
            seconds = _until_ready(holder, arguments.table, region, arguments.timeout)
            took = f" after {seconds:.1f} s" if seconds > 0.1 else ""
            console.print(f"{region}: ACTIVE{took}")
    return EXIT_OK


def _until_ready(holder: Place, table: str, region: str | None, seconds_max: float) -> float:
    """Wait until the table, and its replica in a region, is ACTIVE; how long that has taken."""
    began = time.monotonic()
    while True:
        found = holder.client.call("DescribeTable", TableName=table)["Table"]
        replicas = {each["RegionName"]: each for each in found.get("Replicas", ())}
        states = [found["TableStatus"]]
        if region is not None:
            replica = replicas.get(region, {"ReplicaStatus": "CREATION_FAILED"})
            if replica["ReplicaStatus"] == "CREATION_FAILED":
                reason = replica.get("ReplicaStatusDescription", "it is no replica any more")
                raise Failed(f"{region} has no replica of {table}: {reason}")
            states.append(replica["ReplicaStatus"])
        passed = time.monotonic() - began
        if set(states) == {"ACTIVE"}:
            return passed
        if passed > seconds_max:
            what = table if region is None else f"the replica of {table} in {region}"
            raise Failed(f"{what} is {states[-1]} after {seconds_max:g} seconds")
        time.sleep(_LOOK_SECONDS)


def _holder(places: Places, table: str, *, but: str = "") -> tuple[Place, dict[str, Any]]:
    """A region that has the table, and its description. Raises Failed if none has."""
    silent = []
    for place in places.values():
        if place.name == but:
            continue
        try:
            return place, place.client.call("DescribeTable", TableName=table)["Table"]
        except Refused as refused:
            if refused.kind != "ResourceNotFoundException":
                raise
        except OSError:
            silent.append(place.name)
    also = f" that answers (not: {', '.join(silent)})" if silent else ""
    raise Failed(f"no region{also} has a table {table}")


def _forget(places: Places, arguments: argparse.Namespace, console: Console) -> int:
    holder, _ = _holder(places, arguments.table, but=arguments.region)
    holder.client.call(
        PREFIX + "ForgetReplica", TableName=arguments.table, Region=arguments.region
    )
    console.print(f"{holder.name} has given up the replica of {arguments.table} in "
                  f"{arguments.region}; the others follow")  # fmt: skip
    return EXIT_OK


def _compare(places: Places, arguments: argparse.Namespace, console: Console) -> int:
    holder, table = _holder(places, arguments.table)
    names = [holder.name, *(each["RegionName"] for each in table.get("Replicas", ()))]
    missing = [name for name in names if name not in places]
    if missing:
        raise Failed(f"where is {', '.join(missing)}? Name its --endpoint, too")
    if len(names) < 2:
        raise Failed(f"only {holder.name} has {arguments.table}")
    key = [each["AttributeName"] for each in table["KeySchema"]]
    with ThreadPoolExecutor(len(names)) as pool:
        scans = [pool.submit(_digests, places[name], arguments.table, key) for name in names]
    items = {name: scan.result() for name, scan in zip(names, scans)}
    every = sorted({each for digests in items.values() for each in digests})
    differing = [
        each for each in every if len({digests.get(each) for digests in items.values()}) > 1
    ]
    if not differing:
        console.print(
            f"{arguments.table}: {len(every):,} items, equal in {', '.join(sorted(names))}"
        )
        return EXIT_OK
    console.print(f"{arguments.table}: {len(differing):,} of {len(every):,} items differ")
    for each in differing[:EXAMPLES_MAX]:
        found: dict[bytes | None, list[str]] = {}
        for name in sorted(names):
            found.setdefault(items[name].get(each), []).append(name)
        sides = [
            ("absent in " if digest is None else "") + ", ".join(alike)
            for digest, alike in found.items()
        ]
        console.print(f"  {each.decode()}  {' | '.join(sides)}", markup=False, highlight=False)
    if len(differing) > EXAMPLES_MAX:
        console.print(f"  and {len(differing) - EXAMPLES_MAX:,} more")
    return EXIT_FAILED


def _digests(place: Place, table: str, key: list[str]) -> dict[bytes, bytes]:
    """Key -> digest of every item."""
    found = {}
    try:
        for page in place.client.pages("Scan", TableName=table):
            for item in page["Items"]:
                names = _encode({name: item[name] for name in key})
                found[names] = hashlib.blake2b(_encode(_settled(item)), digest_size=16).digest()
    except OSError as error:
        raise Failed(f"{place.name} does not answer: {error}") from None
    return found


def _settled(value: Any) -> Any:
    """The same attribute values, with sets in an order."""
    if isinstance(value, dict):
        return {
            name: sorted(each) if name in ("SS", "NS", "BS") and _is_set(each) else _settled(each)
            for name, each in value.items()
        }
    return [_settled(each) for each in value] if isinstance(value, list) else value


def _is_set(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


# Drills.


def _fault(**members: Any) -> Callable[[Places, argparse.Namespace, Console], int]:
    """What sets something of a link's fault. An attribute of the command line is named by ``...``
    in the place of the value."""

    def act(places: Places, arguments: argparse.Namespace, console: Console) -> int:
        asked = {
            name: arguments.value if value is ... else value
            for name, value in members.items()
        }

        def at_one_end(place: Place, other: str) -> str:
            told = place.client.call(PREFIX + "SetLinkFault", Region=other, **asked)
            return fault_text(told["Fault"]) or "healthy"

        return _at_both_ends(places, arguments, console, at_one_end)

    return act


def _at_both_ends(
    places: Places,
    arguments: argparse.Namespace,
    console: Console,
    act: Callable[[Place, str], str],
) -> int:
    one, other = arguments.one, arguments.other
    if one == other:
        raise Wrong(f"{one} and itself have no link")
    for name in (one, other):
        if name not in places:
            raise Wrong(f"{name} is none of {', '.join(sorted(places))}")
    troubles = []
    for here, there in ((one, other), (other, one)):
        try:
            told = act(places[here], there)
        except OSError as error:
            # One end is enough for most, and it may be that the other one is dead.
            troubles.append(f"{here} does not answer: {error}")
        else:
            console.print(f"{here} → {there}: {told}")
    if troubles:
        raise Failed("; ".join(troubles))
    return EXIT_OK


def _heal(places: Places, arguments: argparse.Namespace, console: Console) -> int:
    if arguments.one is not None and arguments.other is None:
        raise Wrong("heal takes two regions, or none for all")
    if arguments.one is not None:

        def at_one_end(place: Place, other: str) -> str:
            place.client.call(PREFIX + "HealLinks", Region=other)
            return "healthy"

        return _at_both_ends(places, arguments, console, at_one_end)
    troubles = []
    for place in places.values():
        try:
            place.client.call(PREFIX + "HealLinks")
        except OSError as error:
            troubles.append(f"{place.name} does not answer: {error}")
        else:
            console.print(f"{place.name}: all links healthy")
    if troubles:
        raise Failed("; ".join(troubles))
    return EXIT_OK


def _skew(places: Places, arguments: argparse.Namespace, console: Console) -> int:
    place = places.get(arguments.region)
    if place is None:
        raise Wrong(f"{arguments.region} is none of {', '.join(sorted(places))}")
    told = place.client.call(PREFIX + "SetClockSkew", Seconds=arguments.seconds)
    skew = told["ClockSkewSeconds"]
    console.print(f"{place.name}: the clock is " + (f"{skew:+g} s wrong" if skew else "right"))
    return EXIT_OK


def _fail(reason: str, exit_code: int) -> int:
    print(f"millstream regions: {reason}", file=sys.stderr)
    return exit_code


_ACTIONS: dict[str, Callable[[Places, argparse.Namespace, Console], int]] = {
    "status": _status,
    "replicate": _replicate,
    "compare": _compare,
    "forget": _forget,
    "partition": _fault(Partitioned=True),
    "heal": _heal,
    "pause": _fault(Paused=True),
    "resume": _fault(Paused=False),
    "delay": _fault(LatencySeconds=...),
    "drop": _fault(Drop=...),
    "skew": _skew,
}
