"""The demo's handlers of changes, what is said of them, and the whole demo with a real node."""

import json

import pytest

from millstream.demo import changes, dataset, handlers, program
from millstream.demo.changes import Progress
from millstream.demo.questions import TABLE, Sums, sum_up
from millstream.demo.screen import PlainScreen
from millstream.model.python_values import from_item, to_item

FLIGHTS = dataset.load_flights()
ITEMS = [flight.item() for flight in FLIGHTS if flight.day in (9, 10)]
AIRLINES = dataset.load_names("airlines.csv")
POISON = next(item for item in ITEMS if item["flight"]["S"] == "HA51")


def sums_of(items):
    return sum_up(
        ((item["origin"]["S"], changes.airline_of(item)), changes.delay_of(item)) for item in items
    )


def leaderboard_item(place, sums):
    names = ("flights", "cancelled", "late", "delay_minutes")
    counts = {name: {"N": str(getattr(sums, name))} for name in names}
    return {"airport": {"S": place[0]}, "airline": {"S": place[1]}, **counts}


def alert_item(item):
    return {**key_of(item), "delay_minutes": item["dep_delay"]}


def key_of(item):
    return {name: item[name] for name in ("airline_day", "departure")}


def failed_item(*items, attempts=3):
    records = [{"dynamodb": {"Keys": key_of(item)}} for item in items]
    context = {"requestContext": {"approximateInvokeCount": attempts}}
    return {**to_item({"failure": context}), "event": {"S": json.dumps({"Records": records})}}


class Tables:
    """A database that answers a Scan of what handlers have written."""

    def __init__(self):
        late = [item for item in ITEMS if (changes.delay_of(item) or 0) >= 180]
        self.tables = {
            handlers.LEADERBOARD: [leaderboard_item(*each) for each in sums_of(ITEMS).items()],
            handlers.ALERTS: [alert_item(item) for item in late if item is not POISON],
            handlers.FAILED: [failed_item(POISON)],
        }

    def pages(self, operation, *, TableName, ConsistentRead):
        assert operation == "Scan"
        assert ConsistentRead
        yield {"Items": self.tables[TableName]}


def verdicts(client):
    return (
        changes.leaderboard(client, ITEMS, AIRLINES).is_true,
        changes.judge_alerts(client, ITEMS)[1],
    )


def test_what_is_right_is_called_right():
    assert verdicts(Tables()) == (True, True)


def test_one_change_counted_twice_is_found_out():
    client = Tables()
    sums = sums_of(ITEMS)
    place = (ITEMS[0]["origin"]["S"], changes.airline_of(ITEMS[0]))
    sums[place] = sums[place].plus(changes.delay_of(ITEMS[0]))
    client.tables[handlers.LEADERBOARD] = [leaderboard_item(*each) for each in sums.items()]
    assert verdicts(client) == (False, True)


@pytest.mark.parametrize(
    ("table", "items"),
    [
        (handlers.ALERTS, []),
        (handlers.ALERTS, [*Tables().tables[handlers.ALERTS], alert_item(POISON)]),
        (handlers.FAILED, []),
        (handlers.FAILED, [failed_item(POISON), failed_item(ITEMS[0])]),
        (handlers.FAILED, [failed_item(POISON, ITEMS[0])]),
        (handlers.FAILED, [failed_item(POISON, attempts=1)]),
    ],
    ids=["no alert", "poison in it", "nothing failed", "more failed", "not bisected", "no retry"],
)
def test_a_wrong_list_is_found_out(table, items):
    client = Tables()
    client.tables[table] = items
    assert verdicts(client) == (True, False)


def test_a_batch_that_was_given_up_twice_is_no_lie():
    client = Tables()
    client.tables[handlers.FAILED] *= 2
    assert verdicts(client) == (True, True)


def test_sums_forget_what_is_taken_away():
    for delay in (None, -3, 15, 16):
        assert Sums(5, 1, 2, 40).plus(delay).plus(delay, -1) == Sums(5, 1, 2, 40)
    assert Sums().plus(16).plus(None).plus(15) == Sums(3, 1, 1, 31)


def test_progress_is_summed_up_over_the_lives_of_the_node():
    class Counters:
        def pages(self, *_operation, **_members):
            for life, calls in (("a", 7), ("b", 5)):
                item = {"handler": "x", "life": life, "records": 10, "batches": 5, "calls": calls}
                yield {"Items": [to_item(item)]}

    (progress,) = changes.read_progress(Counters()).values()
    assert progress == Progress(20, 10, 12)
    assert progress.retries == 2


async def test_the_handlers_follow_every_kind_of_change(open_demo_database):
    async with open_demo_database() as db:
        table = db.table(TABLE)
        await table.put_many(from_item(item) for item in ITEMS)
        gone, later = ITEMS[0], ITEMS[1]
        await table.delete(from_item(key_of(gone)))
        await table.update(from_item(key_of(later)), "SET dep_delay = :d", values={":d": 999})
        await db.drain()
        left = [to_item(item) async for item in table.scan()]
        assert len(left) == len(ITEMS) - 1
        kept = [to_item(item) async for item in db.table(handlers.LEADERBOARD).scan()]
        expected = [leaderboard_item(*each) for each in sums_of(left).items()]
        assert sorted(kept, key=str) == sorted(
            ({name: item[name] for name in kept[0]} for item in expected), key=str
        )
        (failed,) = [item async for item in db.table(handlers.FAILED).scan()]
        assert changes._failed_place(to_item(failed)) == changes._place(POISON)
        listed = [item["delay_minutes"] async for item in db.table(handlers.ALERTS).scan()]
        assert 999 in listed
        assert max(listed) < handlers.UNBELIEVABLE_MINUTES


@pytest.fixture
def open_demo_database():
    from contextlib import asynccontextmanager

    from millstream.database import open_database

    @asynccontextmanager
    async def opened():
        async with open_database(triggers=handlers.triggers) as db:
            for definition in changes.definitions():
                keys = [key["AttributeName"] for key in definition["KeySchema"]]
                name = definition["TableName"]
                await db.create_table(name, partition_key=keys[0], sort_key=keys[1])
            await db.create_table(TABLE, partition_key="airline_day", sort_key="departure")
            yield db

    return opened


def test_the_whole_demo_with_a_node_of_its_own(monkeypatch, capsys):
    some = [flight for flight in FLIGHTS if flight.day in (9, 12, 14)]
    monkeypatch.setattr(program, "load_flights", lambda: some)
    monkeypatch.setattr(program, "FLIGHTS_COUNT", len(some))
    exit_code = program.demo_command(None, PlainScreen())
    output = capsys.readouterr()
    assert exit_code == 0, output.out + output.err
    lines = output.out.splitlines()
    assert len(lines) == 22, "one line a phase"
    assert lines[-1].startswith("done: 14 verdicts, all true")
    phases = {line.partition(":")[0]: line for line in lines}
    assert f" of {len(some) + 1:,} changes (" in phases["killed"]
    assert f"{len(some) + 1:,}, each handled once" in phases["changes"]
    assert "HA51, refused 3 times" in phases["alerts"]
    assert "equal byte for byte" in phases["equal"]
    assert phases["kept"].endswith("acknowledged, 0 are lost")
