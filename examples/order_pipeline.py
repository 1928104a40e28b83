"""Event sourcing in one sitting: a shop whose database is killed in the middle.

Run it where millstream is installed::

    python examples/order_pipeline.py

What is stored is what happened: ``OrderPlaced``, ``StockReserved``, ``PaymentRefused``. Everything
else follows from these events.

- A *command* appends events to an order's history at the version it has seen; a conflict if the
  history has moved on meanwhile.
- The *process manager*, a trigger, reacts to each event with the next one, and undoes what it has
  done when a payment is refused. Reaction and position are one transaction.
- The *read model* is written by another trigger, exactly once for each event, in the same way.

The shop runs in a process of its own, which gets SIGKILL while orders, reactions and read model are
all under way. It is opened again and goes on; the read model is made a second time, from the first
event on, while orders keep coming; and the end of the program is a comparison, not a claim.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import trio

import millstream

PRICES = {"kettle": 3900, "mug": 850, "teapot": 2450}  # cents
STOCK = {"kettle": 50, "mug": 80, "teapot": 40}
ORDERS = 90
KILL_AFTER = 35  # acknowledged orders
REBUILD_AFTER = 65

Event = dict[str, Any]
Rows = dict[str, dict[str, Any]]
Verdict = Callable[[str, bool], None]
triggers = millstream.Triggers()


# Commands: append to a history, if it is as the caller believes it to be.


class VersionConflict(Exception):
    """The history has moved on since the caller looked."""


async def append(db: millstream.Database, event: Event, *, expected_version: int) -> None:
    """Append to an order's history, which must be at ``expected_version``; 0 is a new order."""
    order = event["order_id"]

    async def work(tx: millstream.Transaction) -> None:
        if expected_version:
            last = {"order_id": order, "version": expected_version}
            tx.check("events", last, "attribute_exists(order_id)")
        new = {**event, "version": expected_version + 1}
        tx.put("events", new, condition="attribute_not_exists(order_id)")

    try:
        await db.transact(work)
    except millstream.TransactionCanceled:
        raise VersionConflict(f"{order} is not at version {expected_version}") from None


def order_placed(number: int) -> Event:
    """The first event of an order. Every tenth customer's card will be refused."""
    product = sorted(PRICES)[number % len(PRICES)]
    quantity = 1 + number % 4
    return {
        "type": "OrderPlaced",
        "order_id": f"order {number:03}",
        "product": product,
        "quantity": quantity,
        "cents": quantity * PRICES[product],
        "card": f"4000-{number:04}",
    }


# The process manager: each event leads to the next.


@triggers.on_change("events", name="process manager", batch_size=1)
async def fulfil(event: dict[str, Any], context: Any) -> None:
    """React to an event. All of it happens together with the checkpoint, or not at all."""
    tx = context.transaction
    (happened,) = events_in(event)
    following = {"order_id": happened["order_id"], "version": happened["version"] + 1}
    if await tx.get("events", following):
        return  # The customer was faster: the order is cancelled already.

    def then(kind: str, **more: Any) -> None:
        tx.put("events", {**happened, **following, "type": kind, **more})

    def move(source: str, target: str) -> None:
        change = f"SET {source} = {source} - :n, {target} = {target} + :n"
        key = {"product": happened["product"]}
        tx.update("stock", key, change, values={":n": happened["quantity"]})

    match happened["type"]:
        case "OrderPlaced":
            stock = await tx.get("stock", {"product": happened["product"]})
            if stock["shelf"] < happened["quantity"]:
                then("OrderCancelled", reason="sold out")
            else:
                move("shelf", "held")
                then("StockReserved")
        case "StockReserved":
            # A real bank is outside the transaction and may be asked twice, after a crash: it
            # would be given order and version, to know the second time by.
            then("PaymentRefused" if happened["card"].endswith("0") else "PaymentTaken")
        case "PaymentTaken":
            move("held", "sold")
            then("OrderShipped")
        case "PaymentRefused":
            move("held", "shelf")  # The compensation: what was reserved is for others again.
            then("OrderCancelled", reason="payment refused")


# The read model: a function of all events, and a trigger that keeps it up to date.


def fold(view: Rows, happened: Event) -> None:
    """What an event means for the view: for its order's row and its product's."""
    order, product = (view[name] for name in row_names(happened))
    order["status"] = happened.get("reason", happened["type"])
    product["orders"] = product.get("orders", 0) + (happened["type"] == "OrderPlaced")
    if happened["type"] == "OrderShipped":
        product["takings_cents"] = product.get("takings_cents", 0) + happened["cents"]
    for row in (order, product):  # Would be wrong for ever if an event came twice.
        row["events"] = row.get("events", 0) + 1


def row_names(happened: Event) -> tuple[str, str]:
    """The rows that an event touches."""
    return happened["order_id"], happened["product"]


async def project(view_name: str, event: dict[str, Any], context: Any) -> None:
    """Bring the view up to date with a batch of events: read its rows, fold, write them back."""
    tx, rows = context.transaction, Rows()
    for happened in events_in(event):
        for name in row_names(happened):
            if name not in rows:
                rows[name] = await tx.get(view_name, {"row": name}) or {"row": name}
        fold(rows, happened)
    for row in rows.values():
        tx.put(view_name, row)


@triggers.on_change("events", name="read model", batch_size=40)
async def keep_view(event: dict[str, Any], context: Any) -> None:
    """The read model that the shop uses every day."""
    await project("view", event, context)


def events_in(event: dict[str, Any]) -> Iterator[Event]:
    """The events that a trigger is called with."""
    for change in millstream.changes_of(event):
        assert change.new is not None, "events are never removed"
        yield change.new


# The shop.


async def set_up(db: millstream.Database) -> None:
    """A new shop, with full shelves."""
    await db.create_table("events", partition_key="order_id", sort_key=("version", int))
    await db.create_table("view", partition_key="row")
    stock = await db.create_table("stock", partition_key="product")
    for product, pieces in STOCK.items():
        await stock.put({"product": product, "shelf": pieces, "held": 0, "sold": 0})


async def sell(db: millstream.Database, numbers: Iterable[int], say: Callable[[str], None]) -> None:
    """Customers come, one after another; every eighth changes their mind at once."""
    for number in numbers:
        placed = order_placed(number)
        try:
            await append(db, placed, expected_version=0)
        except VersionConflict:
            continue  # It was placed before the crash, and only the answer was lost.
        say(placed["order_id"])
        if number % 8 == 0:
            with_regret = {**placed, "type": "OrderCancelled", "reason": "changed their mind"}
            try:
                await append(db, with_regret, expected_version=1)
            except VersionConflict:
                pass  # Too late: stock has been reserved.


async def shop(path: str) -> None:
    """The whole day, in the process that will not live to see its end."""
    async with millstream.open_database(path, triggers=triggers) as db:
        await set_up(db)
        await sell(db, range(1, ORDERS + 1), partial(print, flush=True))


def acknowledged_until_killed(path: str) -> list[str]:
    """Run the shop in a child process and kill it; the orders that were acknowledged."""
    command = [sys.executable, __file__, "--shop", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        acknowledged = [line.strip() for line, _ in zip(child.stdout, range(KILL_AFTER))]
        child.kill()  # SIGKILL: no chance to tidy up.
        acknowledged += [line.strip() for line in child.stdout if line.endswith("\n")]
    return acknowledged


# The day, and what must be true of it.


async def history(db: millstream.Database) -> list[Event]:
    """Every event, each order's in its order."""
    events = [event async for event in db.table("events").scan()]
    return sorted(events, key=lambda event: (event["order_id"], event["version"]))


async def rows_of(db: millstream.Database, view_name: str) -> Rows:
    """A view as it is stored."""
    return {row["row"]: row async for row in db.table(view_name).scan()}


def folded(events: Iterable[Event]) -> Rows:
    """The view as it must be."""
    view = Rows()
    for happened in events:
        for name in row_names(happened):
            view.setdefault(name, {"row": name})
        fold(view, happened)
    return view


async def stock_is_right(db: millstream.Database, events: list[Event]) -> bool:
    """Whether every piece is where the histories say: on the shelf, held, or sold."""
    last = {event["order_id"]: event for event in events}.values()
    places = {"StockReserved": "held", "PaymentTaken": "held", "PaymentRefused": "held"}
    places["OrderShipped"] = "sold"
    for product, pieces in STOCK.items():
        right = {"product": product, "shelf": pieces, "held": 0, "sold": 0}
        for event in last:
            place = places.get(event["type"])
            if event["product"] == product and place:
                right["shelf"] -= event["quantity"]
                right[place] += event["quantity"]
        if await db.table("stock").get({"product": product}) != right or right["shelf"] < 0:
            return False
    return True


def is_end(event: Event) -> bool:
    """Whether nothing follows it."""
    return event["type"] in ("OrderShipped", "OrderCancelled")


async def day(path: str, verdict: Verdict) -> None:
    """Kill, look, open again, go on, rebuild, compare."""
    print(f"The shop opens, in a process of its own. After {KILL_AFTER} orders it gets SIGKILL.")
    acknowledged = await trio.to_thread.run_sync(acknowledged_until_killed, path)

    async with millstream.open_database(path) as db:  # Nothing reacts yet: a look at the scene.
        events = await history(db)
        placed = [event["order_id"] for event in events if event["type"] == "OrderPlaced"]
        seen = sum(row["events"] for row in (await rows_of(db, "view")).values()) // 2
        print(f"It left {len(events)} events, {seen} of them in the read model, and")
        print(f"{len(placed) - sum(map(is_end, events))} orders under way.\n")
        is_kept = {*placed} >= {*acknowledged}
        verdict(f"all {len(acknowledged)} acknowledged orders are there", is_kept)
        is_right = await stock_is_right(db, events)
        verdict("what is missing on the shelves is what the orders hold", is_right)

    print("\nThe shop opens again and goes on where it was. A second read model is made from the")
    print("first event on, while orders keep coming.")
    async with millstream.open_database(path, triggers=triggers) as db:
        await sell(db, range(1, REBUILD_AFTER + 1), lambda order: None)
        await db.create_table("view-2", partition_key="row")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sell, db, range(REBUILD_AFTER + 1, ORDERS + 1), lambda order: None)
            rebuild = partial(project, "view-2")
            await db.add_trigger("events", rebuild, name="second read model", batch_size=40)
        await db.drain()
        await judge(db, verdict)


async def judge(db: millstream.Database, verdict: Verdict) -> None:
    """The end of the day: show the read model, and compare everything with the events."""
    events, view = await history(db), await rows_of(db, "view")
    ends = Counter(row["status"] for name, row in view.items() if name.startswith("order"))
    print("\n  product   orders     takings")
    for product in PRICES:
        row = view[product]
        print(f"  {product:<8}{row['orders']:>8}{row['takings_cents'] / 100:>12,.2f}")
    print("  " + ", ".join(f"{count} {status}" for status, count in ends.most_common()) + "\n")

    versions: dict[str, list[int]] = {}
    for event in events:
        versions.setdefault(event["order_id"], []).append(event["version"])
    whole = all(found == [*range(1, len(found) + 1)] for found in versions.values())
    verdict(f"{len(events)} events, and no history has a gap", whole)
    ended = [event["order_id"] for event in events if is_end(event)]
    verdict(f"each of the {ORDERS} orders came to one end", len({*ended}) == len(ended) == ORDERS)
    verdict("every piece is on the shelf or sold", await stock_is_right(db, events))
    verdict("the read model is what the events say", view == folded(events))
    verdict("so is the one that was made later", await rows_of(db, "view-2") == folded(events))
    late = {**events[0], "type": "OrderCancelled", "reason": "changed their mind"}
    try:
        await append(db, late, expected_version=1)
        verdict("who decides on an old version gets a conflict", False)
    except VersionConflict as conflict:
        verdict(f"who decides on an old version gets a conflict: {conflict}", True)


def main() -> int:
    """Exit code 0 if everything that is said is true."""
    verdicts: list[bool] = []

    def verdict(text: str, is_true: bool) -> None:
        verdicts.append(is_true)
        print(f"  {'ok   ' if is_true else 'FALSE'}  {text}")

    with tempfile.TemporaryDirectory(prefix="order-pipeline-") as folder:
        trio.run(day, str(Path(folder) / "shop"), verdict)
    print(f"\n{sum(verdicts)} of {len(verdicts)} true.")
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--shop"]:
        trio.run(shop, sys.argv[2])
    else:
        sys.exit(main())
