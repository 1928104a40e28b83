"""The demo's handlers of changes, as ``millstream serve --app`` runs them in the node.

``leaderboard`` keeps sums of each airline's delays at each airport: it only ever adds, so a change
that came twice would be wrong for ever. ``alerts`` lists the flights that kept people waiting, and
raises an error for one that it cannot believe. What they write through ``context.transaction`` is
committed together with their position in the stream.
"""

from __future__ import annotations

import secrets
from collections import Counter
from typing import Any

from ..triggers import Triggers
from .questions import TABLE, Sums, airline_of, delay_of

LEADERBOARD = "delays-by-airport"
ALERTS = "alerts"
FAILED = "failed-batches"
COUNTERS = "handler-counters"

ALERT_MINUTES = 180
#: Nobody waits for a plane this long. (Somebody did.)
UNBELIEVABLE_MINUTES = 1200
ALERT_RETRIES = 2

triggers = Triggers()

#: This process's, by handler: the calls so far, those included that failed.
_calls: Counter[str] = Counter()
_life = secrets.token_hex(4)


class Unbelievable(ValueError):
    """The poison: a record that the handler will never take."""


@triggers.on_change(TABLE, name="leaderboard", batch_size=500)
async def leaderboard(event: dict[str, Any], context: Any) -> None:
    """Add a batch up in memory, then to the stored sums: a few items, however many changes."""
    _calls["leaderboard"] += 1
    added: dict[tuple[str, str], Sums] = {}
    for record in event["Records"]:
        images = record["dynamodb"]
        for name, sign in (("OldImage", -1), ("NewImage", 1)):
            if name in images:
                item = images[name]
                place = (item["origin"]["S"], airline_of(item))
                added[place] = added.get(place, Sums()).plus(delay_of(item), sign)
    for (airport, airline), sums in added.items():
        if sums != Sums():
            context.transaction.update(
                LEADERBOARD,
                {"airport": airport, "airline": airline},
                "ADD flights :f, cancelled :c, late :l, delay_minutes :m",
                values={
                    ":f": sums.flights,
                    ":c": sums.cancelled,
                    ":l": sums.late,
                    ":m": sums.delay_minutes,
                },
            )
    _count("leaderboard", event, context)


@triggers.on_change(
    TABLE,
    name="alerts",
    filter={"dynamodb": {"NewImage": {"dep_delay": {"N": [{"anything-but": {"prefix": "-"}}]}}}},
    bisect_batch_on_function_error=True,
    maximum_retry_attempts=ALERT_RETRIES,
    on_failure=FAILED,
)
def alerts(event: dict[str, Any], context: Any) -> None:
    """List long waits. A plain function: it runs in a thread."""
    _calls["alerts"] += 1
    for record in event["Records"]:
        item = record["dynamodb"]["NewImage"]
        delay = int(item["dep_delay"]["N"])
        if delay >= UNBELIEVABLE_MINUTES:
            raise Unbelievable(f"{item['flight']['S']}, {delay} minutes late")
        if delay >= ALERT_MINUTES:
            key = {"airline_day": item["airline_day"]["S"], "departure": item["departure"]["S"]}
            context.transaction.put(ALERTS, {**key, "delay_minutes": delay})
    _count("alerts", event, context)


def _count(handler: str, event: dict[str, Any], context: Any) -> None:
    """Note the batch. Added within the transaction, so the numbers are exact; calls are told."""
    context.transaction.update(
        COUNTERS,
        {"handler": handler, "life": _life},
        "ADD records :r, batches :b SET calls = :c",
        values={":r": len(event["Records"]), ":b": 1, ":c": _calls[handler]},
    )
