"""``millstream serve`` from outside: the process, its one line, its exit codes, its data."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from millstream.demo.client import Client, Refused
from millstream.demo.node import Node, NodeFailed

TABLE = {
    "TableName": "things",
    "BillingMode": "PAY_PER_REQUEST",
    "AttributeDefinitions": [{"AttributeName": "k", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "k", "KeyType": "HASH"}],
}


@pytest.fixture
def start(tmp_path):
    nodes = []

    def make(*arguments: str) -> Node:
        node = Node(list(arguments), tmp_path / f"node-{len(nodes)}.log")
        nodes.append(node)
        node.start()
        return node

    yield make
    for node in nodes:
        node.stop()


@pytest.fixture
def call():
    """Call an operation of a node: ``call(node, "PutItem", ...)``."""
    clients = {}

    def one(node, operation, *, key_pair=("a", "b"), **members):
        at = (node.endpoint, key_pair)
        if at not in clients:
            clients[at] = Client(node.endpoint, *key_pair)
        return clients[at].call(operation, **members)

    yield one
    for client in clients.values():
        client.close()


def create_table(call, node):
    """As every client must: make it, then ask until it is there."""
    call(node, "CreateTable", **TABLE)
    for _ in range(1000):
        if call(node, "DescribeTable", TableName="things")["Table"]["TableStatus"] == "ACTIVE":
            return
    raise AssertionError("the table did not become active")


def put(call, node, name):
    call(node, "PutItem", TableName="things", Item={"k": {"S": name}})


def names(call, node):
    return sorted(item["k"]["S"] for item in call(node, "Scan", TableName="things")["Items"])


def test_it_answers_and_stops_cleanly_on_sigterm(start, tmp_path):
    node = start("--in-memory")
    with urllib.request.urlopen(node.endpoint + "/", timeout=10) as response:
        assert response.status == 200
    assert node.stop() == 0


def test_it_stops_cleanly_on_sigint():
    process = subprocess.Popen(
        [sys.executable, "-m", "millstream", "serve", "--in-memory", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, _errors = process.communicate(timeout=20)
    assert line.startswith("millstream is listening on http://127.0.0.1:")
    assert (rest, process.returncode) == ("", 0)


def test_a_second_start_finds_everything(start, call, tmp_path):
    node = start("--data", str(tmp_path / "data"))
    create_table(call, node)
    put(call, node, "stopped")
    assert node.stop() == 0
    node.start()
    put(call, node, "killed")
    node.kill()
    node.start()
    assert names(call, node) == ["killed", "stopped"]


@pytest.mark.parametrize("engine", ["leveldb", "segments"])
def test_either_engine_keeps_the_log(start, call, tmp_path, engine):
    if engine == "leveldb":
        pytest.importorskip("plyvel")
    node = start("--data", str(tmp_path / "data"), "--log-engine", engine)
    create_table(call, node)
    put(call, node, "x")
    node.kill()
    node.start()
    assert names(call, node) == ["x"]


def test_a_directory_that_another_process_holds_is_refused(start, tmp_path):
    start("--data", str(tmp_path / "data"))
    with pytest.raises(NodeFailed) as failed:
        start("--data", str(tmp_path / "data"))
    said = str(failed.value).splitlines()[-1]
    assert said.startswith("millstream: ")
    assert "data" in said
    assert "Traceback" not in str(failed.value)


def test_a_port_that_is_taken_is_one_line():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        result = subprocess.run(
            [sys.executable, "-m", "millstream", "serve", "--in-memory", "--port", port],
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert result.returncode == 2
    assert result.stdout == ""
    assert port in result.stderr
    assert result.stderr.startswith("millstream: ")
    assert result.stderr.count("\n") == 1


def test_it_ends_when_nobody_hears_that_it_listens():
    """It listened for ever, and no signal ended it."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing) as output:
        done = subprocess.run(
            [sys.executable, "-m", "millstream", "serve", "--in-memory", "--port", "0"],
            stdout=output, stderr=subprocess.PIPE, text=True, timeout=30, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "millstream: Broken pipe\n"


def test_signatures_are_verified_with_credentials(start, call, tmp_path):
    keys = tmp_path / "credentials"
    keys.write_text("[default]\naws_access_key_id = KEY\naws_secret_access_key = secret\n")
    node = start("--in-memory", "--credentials", str(keys))
    assert call(node, "ListTables", key_pair=("KEY", "secret")) == {"TableNames": []}
    with pytest.raises(Refused, match="InvalidSignatureException"):
        call(node, "ListTables", key_pair=("KEY", "guess"))


def test_credentials_that_cannot_be_read_are_one_line(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "millstream", "serve", "--in-memory", "--port", "0"],
        env={**os.environ, "MILLSTREAM_CREDENTIALS": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.returncode == 2
    assert result.stderr.startswith(f"millstream: cannot read {tmp_path / 'none'}: ")
    assert result.stderr.count("\n") == 1


def test_item_values_are_never_logged(start, call, tmp_path):
    node = start("--in-memory", "--log-level", "debug")
    create_table(call, node)
    secret = "a-value-that-nobody-else-may-read"
    put(call, node, secret)
    with pytest.raises(Refused):
        call(node, "PutItem", TableName="things", Item={"not-the-key": {"S": secret}})
    node.stop()
    log = (tmp_path / "node-0.log").read_text()
    assert secret not in log


def test_the_demo_passes():
    result = subprocess.run(
        [sys.executable, "-m", "millstream", "demo"],
        env={**os.environ, "CI": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "14 verdicts, all true" in result.stdout.splitlines()[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_idle_node_is_small(start):
    node = start("--in-memory")
    status = Path(f"/proc/{node.process_id}/status").read_text(encoding="ascii")
    rss_kib = int(re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)[1])
    assert rss_kib * 1024 < 60_000_000
