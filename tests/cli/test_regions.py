"""``millstream regions``: real regions, started by ``up``, looked after by everything else."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from millstream.__main__ import main
from millstream.cli.regions_places import (
    ENDPOINTS_FILE,
    NotFound,
    read_endpoints,
    settled_file,
)
from millstream.demo.client import Client
from millstream.demo.node import Node
from millstream.errors import ConfigurationError

NAMES = ("us-east-1", "eu-west-1", "ap-southeast-1")
Run = Callable[..., tuple[int, str]]


def create(client: Client, name: str) -> None:
    client.call(
        "CreateTable",
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )


class Up:
    """``millstream regions up`` as a child."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "millstream", "regions", "up", *words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.said: list[str] = []

    @property
    def output(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def until(self, text: str) -> None:
        """Read what it says until a line has ``text`` in it."""
        for line in self.output:
            self.said.append(line)
            if text in line:
                return
        raise AssertionError("".join(self.said))

    def end(self) -> tuple[int, str]:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        rest = self.output.read()
        self.output.close()
        return self.process.wait(30), rest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("regions")
    up = Up("--directory", str(folder), "--in-memory")
    up.until("regions replicate")
    assert all(name in "".join(up.said) for name in NAMES)
    yield folder
    assert up.end() == (0, "stopping\n")
    assert not (folder / ENDPOINTS_FILE).exists()


@pytest.fixture(scope="module")
def clients(folder: Path) -> Iterator[dict[str, Client]]:
    endpoints = read_endpoints(folder / ENDPOINTS_FILE)
    clients = {name: Client(url, "a", "b", name) for name, url in endpoints.items()}
    create(clients["us-east-1"], "orders")
    for number in range(30):
        item = {"id": {"S": str(number)}, "of": {"SS": ["b", "a"]}, "n": {"NS": ["2", "1"]}}
        clients["us-east-1"].call("PutItem", TableName="orders", Item=item)
    assert main(["regions", "replicate", "orders", "--directory", str(folder)]) == 0
    yield clients
    for client in clients.values():
        client.close()


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(["regions", *words, "--directory", str(folder)])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_table_is_compared_through_a_partition(clients: dict[str, Client], run: Run) -> None:
    everywhere = "equal in ap-southeast-1, eu-west-1, us-east-1\n"
    until(lambda: run("compare", "orders") == (0, f"orders: 30 items, {everywhere}"))
    assert run("partition", "us-east-1", "eu-west-1") == (
        0, "us-east-1 → eu-west-1: partitioned\neu-west-1 → us-east-1: partitioned\n"
    )  # fmt: skip
    # Regions send only what they wrote: nobody relays it.
    clients["us-east-1"].call("PutItem", TableName="orders", Item={"id": {"S": "here"}})
    code, said = run("compare", "orders")
    assert code == 1
    assert said.startswith("orders: 1 of 31 items differ\n")
    assert '{"id":{"S":"here"}}' in said and "absent in" in said and "eu-west-1" in said

    def status() -> str:
        return run("status")[1]

    until(lambda: "a drill has cut the links with eu-west-1" in status())
    code, said = run("status")
    assert code == 0
    assert re.search(r"orders +us-east-1 → eu-west-1 +waiting +\d+\.\d +1 ", said), said
    assert re.search(r"us-east-1 → ap-southeast-1 +linked", said), said
    assert "partitioned" in said
    assert run("heal", "us-east-1", "eu-west-1") == (
        0, "us-east-1 → eu-west-1: healthy\neu-west-1 → us-east-1: healthy\n"
    )  # fmt: skip
    until(lambda: run("compare", "orders") == (0, f"orders: 31 items, {everywhere}"))


def test_faults_are_set_at_both_ends(clients: dict[str, Client], run: Run) -> None:
    def told(what: str) -> tuple[int, str]:
        return 0, f"us-east-1 → eu-west-1: {what}\neu-west-1 → us-east-1: {what}\n"

    pair = ("us-east-1", "eu-west-1")
    assert run("pause", *pair) == told("paused")
    assert run("delay", *pair, "0.25") == told("paused, 0.25 s late")
    assert run("resume", *pair) == told("0.25 s late")
    assert run("drop", *pair, "0.125") == told("0.25 s late, drops 12.5%")
    code, said = run("heal")
    assert (code, said.count("all links healthy")) == (0, 3)
    assert "late" not in run("status")[1]
    assert run("skew", "eu-west-1", "-7") == (0, "eu-west-1: the clock is -7 s wrong\n")
    assert re.search(r"eu-west-1 .* -7 s", run("status")[1])
    assert run("skew", "eu-west-1", "0") == (0, "eu-west-1: the clock is right\n")


def test_replicas_are_made_once_and_given_up(clients: dict[str, Client], run: Run) -> None:
    create(clients["eu-west-1"], "parcels")
    assert run("compare", "parcels") == (
        1, "millstream regions: only eu-west-1 has parcels\n"
    )  # fmt: skip
    code, said = run("replicate", "parcels", "us-east-1")
    assert code == 0
    assert said.startswith("us-east-1: invited by eu-west-1\nus-east-1: ACTIVE")
    # Asked of whichever region has it.
    assert run("replicate", "parcels", "us-east-1", "eu-west-1") == (0, "eu-west-1: ACTIVE\n")
    code, said = run("forget", "parcels", "us-east-1")
    assert code == 0 and said.startswith("eu-west-1 has given up the replica of parcels in us-e")
    code, said = run("forget", "parcels", "us-east-1")
    assert code == 1 and "no replica in us-east-1" in said


def test_a_replica_that_cannot_be_made_says_why(clients: dict[str, Client], run: Run) -> None:
    for name in ("us-east-1", "eu-west-1"):
        create(clients[name], "twice")
    code, said = run("replicate", "twice", "eu-west-1")
    assert code == 1
    assert said.endswith("eu-west-1 has a table of that name already\n")


def test_waiting_has_an_end(clients: dict[str, Client], run: Run) -> None:
    create(clients["us-east-1"], "slow")
    assert run("pause", "us-east-1", "ap-southeast-1")[0] == 0
    code, said = run("replicate", "slow", "ap-southeast-1", "--timeout", "0.2")
    assert run("heal")[0] == 0
    assert code == 1
    assert "the replica of slow in ap-southeast-1 is CREATING after 0.2 seconds" in said


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("partition", "us-east-1", "mars-1"), 2, "mars-1 is none of ap-southeast-1, eu-west-1"),
        (("partition", "us-east-1", "us-east-1"), 2, "us-east-1 and itself have no link"),
        (("heal", "us-east-1"), 2, "heal takes two regions, or none for all"),
        (("skew", "mars-1", "1"), 2, "mars-1 is none of"),
        (("skew", "us-east-1", "1000000"), 1, "at most 86400 seconds"),
        (("delay", "us-east-1", "eu-west-1", "-1"), 1, "LatencySeconds: from 0 to 60"),
        (("drop", "us-east-1", "eu-west-1", "1.5"), 1, "Drop: a probability is from 0 to 1"),
        (("compare", "nothing"), 1, "no region has a table nothing"),
        (("replicate", "nothing"), 1, "no region has a table nothing"),
        (("replicate", "orders", "mars-1"), 2, "mars-1 is none of"),
        (("forget", "orders", "mars-1"), 1, "no replica in mars-1"),
        (("up",), 1, "already, says endpoints.toml"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    clients: dict[str, Client], run: Run, words: tuple[str, ...], code: int, said: str
) -> None:
    found = run(*words)
    assert found[0] == code
    assert found[1].startswith("millstream regions: ")
    assert said in found[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("drop", "a", "b", "x"), "argument CHANCE: invalid number value: 'x'"),
        (("delay", "a", "b", "nan"), "argument SECONDS: invalid number value: 'nan'"),
        (("status", "--interval", "0"), "argument --interval: at least 0.05"),
        (("partition", "a"), "the following arguments are required: B"),
        (("fly",), "invalid choice: 'fly'"),
    ],
)
def test_a_line_that_cannot_be_read_is_refused(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["regions", *words])
    assert left.value.code == 2
    assert said in capsys.readouterr().err


def test_nodes_are_found_by_their_endpoints(
    clients: dict[str, Client], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoints = read_endpoints(folder / ENDPOINTS_FILE)
    one, other, third = (endpoints[name] for name in NAMES)
    capsys.readouterr()
    assert main(["regions", "compare", "orders", "--endpoint", f"{one},{other},{third}"]) == 0
    assert "equal in ap-southeast-1, eu-west-1, us-east-1" in capsys.readouterr().out
    assert main(["regions", "compare", "orders", "--endpoint", f"us-east-1={one}"]) == 1
    said = capsys.readouterr().err
    assert "where is ap-southeast-1, eu-west-1? Name its --endpoint, too" in said
    assert main(["regions", "status", "--endpoint", "nonsense"]) == 2
    assert "nonsense is not an endpoint" in capsys.readouterr().err
    assert main(["regions", "status", "--endpoint", "http://127.0.0.1:9"]) == 1
    assert "no answer: " in capsys.readouterr().err


def test_a_node_without_regions_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = Node(["--in-memory"], tmp_path / "node.log")
    node.start()
    try:
        assert main(["regions", "status", "--endpoint", node.endpoint]) == 1
        assert "start it with --peers FILE" in capsys.readouterr().err
    finally:
        node.stop()


def test_status_is_followed_line_by_line_without_a_terminal(
    clients: dict[str, Client], folder: Path
) -> None:
    command = [sys.executable, "-m", "millstream", "regions", "status", "--watch"]
    with subprocess.Popen(
        [*command, "--interval", "0.1", "--directory", str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as watching:  # fmt: skip
        assert watching.stdout is not None and watching.stderr is not None
        found = [watching.stdout.readline() for _ in range(20)]
        watching.send_signal(signal.SIGINT)
        watching.stdout.read()
        assert watching.stderr.read() == ""
    assert watching.returncode == 0
    one = r"\d\d:\d\d:\d\dZ us-east-1 -> eu-west-1 orders following, 0 records and 0.0 s behind\n"
    assert any(re.fullmatch(one, line) for line in found), found


def test_status_is_a_picture_on_a_terminal(clients: dict[str, Client], folder: Path) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "millstream", "regions", "status", "--watch"]
    watching = subprocess.Popen(
        [*command, "--interval", "0.1", "--directory", str(folder)],
        stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
    )  # fmt: skip
    os.close(theirs)
    said = b""
    while said.count(b"following") < 20:
        said += os.read(ours, 65_536)
    watching.send_signal(signal.SIGINT)
    try:
        while data := os.read(ours, 65_536):
            said += data
    except OSError:
        pass  # Nobody is at the other end any more.
    os.close(ours)
    assert watching.wait(20) == 0
    assert b"\x1b[" in said and b"Traceback" not in said


def test_where_nobody_runs_it_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["regions", "status", "--directory", str(tmp_path)]) == 1
    assert "`millstream regions up` starts some" in capsys.readouterr().err
    (tmp_path / ENDPOINTS_FILE).write_text("[endpoints]\na = 1\n")
    assert main(["regions", "status", "--directory", str(tmp_path)]) == 1
    assert "is not what `millstream regions up` writes" in capsys.readouterr().err
    with pytest.raises(NotFound):
        read_endpoints(tmp_path / ENDPOINTS_FILE)


def test_a_region_that_dies_is_reported_and_the_data_are_kept(tmp_path: Path) -> None:
    words = ("--directory", str(tmp_path), "us-east-1", "eu-west-1")
    up = Up(*words)
    up.until("regions replicate")
    (line,) = (line for line in up.said if line.startswith(" eu-west-1"))
    os.kill(int(line.split()[-1]), signal.SIGKILL)
    up.until("eu-west-1 has ended (SIGKILL); the others go on")
    client = Client(read_endpoints(tmp_path / ENDPOINTS_FILE)["us-east-1"], "a", "b")
    create(client, "kept")
    client.close()
    assert up.end()[0] == 1
    before = (tmp_path / "regions.toml").read_text()

    # Without names: those that were there.
    up = Up("--directory", str(tmp_path))
    up.until("regions replicate")
    client = Client(read_endpoints(tmp_path / ENDPOINTS_FILE)["us-east-1"], "a", "b")
    assert client.call("ListTables") == {"TableNames": ["kept"]}
    client.close()
    assert up.end()[0] == 0
    assert re.findall(r"number = \d|\[.*\]", before) == re.findall(
        r"number = \d|\[.*\]", (tmp_path / "regions.toml").read_text()
    )


def test_a_port_that_is_taken_stops_all(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        up = Up("--directory", str(tmp_path), "--in-memory", "--port", port)
        said = up.output.read()
        up.output.close()
    assert up.process.wait(30) == 1
    assert re.fullmatch(rf"millstream regions: us-east-1: millstream: .*{port}.*\n", said)
    assert not (tmp_path / ENDPOINTS_FILE).exists()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("us-east-1",), "several regions are two at least"),
        (("a", "b", "a"), "a region is named twice"),
        (("a", "B"), "'B' is no region"),
    ],
)
def test_regions_that_cannot_be_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, ...], said: str
) -> None:
    assert main(["regions", "up", "--directory", str(tmp_path), *names]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_numbers_and_free_ports_stay(tmp_path: Path) -> None:
    _, ports = settled_file(tmp_path, ["b", "a"])
    assert oct((tmp_path / "link.secret").stat().st_mode & 0o777) == "0o600"
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", ports["b"]))
        holder.listen()
        path, later = settled_file(tmp_path, ["c", "a"])
    assert later["a"] == ports["a"] and later["b"] != ports["b"]
    text = path.read_text()
    assert re.findall(r"\[regions\.(.)\]\nnumber = (\d)", text) == [
        ("b", "1"), ("a", "2"), ("c", "3"),
    ]  # fmt: skip
    for wrong in ("number = 1", "[regions.a]\nnumber = 1", "regions = 3", "?"):
        path.write_text(wrong)
        with pytest.raises(ConfigurationError, match="is not what"):
            settled_file(tmp_path, ["a", "b"])
