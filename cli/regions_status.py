"""``millstream regions status``: who is linked with whom, and how far they are behind."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..api.operations.triggers import PREFIX
from ..demo.client import Refused
from .regions_places import Place


class Look(msgspec.Struct, frozen=True):
    """What one region says at a moment; or why it says nothing."""

    place: Place
    described: dict[str, Any] | None
    lags: list[dict[str, Any]]
    trouble: str = ""


def look(places: Mapping[str, Place]) -> list[Look]:
    """Ask all of them at once."""
    with ThreadPoolExecutor(max(1, len(places))) as pool:
        return list(pool.map(_look, places.values()))


def _look(place: Place) -> Look:
    try:
        described = place.describe()
        lags = place.client.call(PREFIX + "ListReplicationLag")["Lags"]
    except (OSError, Refused) as error:
        return Look(place, None, [], str(error))
    return Look(place, described, _by_table(lags))


def _by_table(lags: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A table's partitions as one: the worst of them, and sums."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for lag in lags:
        known = found.get((lag["Table"], lag["Region"]))
        if known is None:
            found[lag["Table"], lag["Region"]] = dict(lag)
            continue
        for name in ("Entries", "ChangesSent", "BytesSent"):
            known[name] += lag[name]
        known["Seconds"] = max(known["Seconds"], lag["Seconds"])
        if lag["State"] != "following":
            known["State"] = lag["State"]
    return [found[place] for place in sorted(found)]


def drawn(looks: list[Look], now: float) -> RenderableType:
    """Three tables: regions, links, tables."""
    regions = _table("region", "endpoint", "number", "links", "clock")
    links = _table(
        "link", "state", "skew ms", "round trip ms", "heard s ago", "received", "conflicts",
        "resolved", "drill", right=range(2, 8),
    )  # fmt: skip
    tables = _table(
        "table", "to", "state", "behind s", "records", "changes sent", "bytes sent",
        right=range(3, 7),
    )  # fmt: skip
    for each in looks:
        name, endpoint = each.place.name, each.place.endpoint
        described = each.described
        if described is None:
            regions.add_row(name, endpoint, "", Text(each.trouble, "red"), "")
            continue
        skew = described["ClockSkewSeconds"]
        clock = Text(f"{skew:+g} s", "yellow") if skew else Text("right")
        number, address = described["Number"], described["Address"]
        regions.add_row(name, endpoint, str(number), address, clock)
        for peer in described["Peers"]:
            linked = Text("linked", "green")
            links.add_row(
                f"{name} → {peer['Region']}",
                linked if peer["Linked"] else Text(peer["Trouble"] or "not linked", "red"),
                _rounded(peer["SkewMs"]),
                _rounded(peer["RoundTripMs"]),
                "" if peer["LastHeard"] is None else f"{max(0.0, now - peer['LastHeard']):.0f}",
                f"{peer['Applied']:,}",
                f"{peer['Conflicts']:,}",
                f"{peer['Resolved']:,}",
                Text(fault_text(peer["Fault"]), "yellow"),
            )
        for lag in each.lags:
            is_level = lag["State"] == "following" and not lag["Entries"]
            tables.add_row(
                lag["Table"],
                f"{name} → {lag['Region']}",
                Text(lag["State"], "green" if is_level else "yellow"),
                f"{lag['Seconds']:.1f}",
                f"{lag['Entries']:,}",
                f"{lag['ChangesSent']:,}",
                f"{lag['BytesSent']:,}",
            )
    parts: list[RenderableType] = [regions]
    if links.row_count:
        parts += ["", links]
    parts += ["", tables if tables.row_count else "no table has replicas"]
    return Group(*parts)


def lines(looks: list[Look]) -> list[str]:
    """The same in lines, for a log: what a region sends to another, table by table."""
    found = []
    for each in looks:
        if each.described is None:
            found.append(f"{each.place.name} {each.trouble}")
            continue
        for peer in each.described["Peers"]:
            to = f"{each.place.name} -> {peer['Region']}"
            state = "linked" if peer["Linked"] else f"not linked ({peer['Trouble']})"
            drill = fault_text(peer["Fault"])
            found.append(
                f"{to} {state}, skew {_rounded(peer['SkewMs']) or '?'} ms, "
                f"conflicts {peer['Conflicts']}" + (f", drill: {drill}" if drill else "")
            )
            found += [
                f"{to} {lag['Table']} {lag['State']}, {lag['Entries']} records and "
                f"{lag['Seconds']:.1f} s behind"
                for lag in each.lags
                if lag["Region"] == peer["Region"]
            ]
    return found


def watch(places: Mapping[str, Place], console: Console, interval_seconds: float) -> None:
    """Look again and again, until Ctrl-C: a picture that changes, or lines without a terminal."""
    if not console.is_terminal:
        while True:
            stamp = time.strftime("%H:%M:%SZ", time.gmtime())
            for line in lines(look(places)):
                print(stamp, line)
            sys.stdout.flush()
            time.sleep(interval_seconds)
    with Live(drawn(look(places), time.time()), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(interval_seconds)
            live.update(drawn(look(places), time.time()), refresh=True)


def fault_text(fault: Mapping[str, Any]) -> str:
    """What is wrong with a link, in words; nothing for nothing."""
    found = []
    if fault["Partitioned"]:
        found.append("partitioned")
    if fault["Paused"]:
        found.append("paused")
    if fault["LatencySeconds"]:
        found.append(f"{fault['LatencySeconds']:g} s late")
    if fault["Drop"]:
        found.append(f"drops {fault['Drop']:.1%}")
    return ", ".join(found)


def _rounded(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{round(milliseconds):,}"


def _table(*columns: str, right: range = range(0)) -> Table:
    table = Table(box=None, header_style="bold")
    for at, column in enumerate(columns):
        table.add_column(
            column, justify="right" if at in right else "left", overflow="fold"
        )
    return table
