"""``millstream serve --peers``: three processes that are regions of each other, over TCP."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from millstream.api.operations.triggers import PREFIX
from millstream.demo.client import Client, Refused
from millstream.demo.node import Node

NAMES = ("ap-southeast-1", "eu-west-1", "us-east-1")
TABLE = {
    "TableName": "orders",
    "BillingMode": "PAY_PER_REQUEST",
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
}


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def write_file(folder: Path) -> Path:
    (folder / "link.secret").write_text("a secret between three regions\n")
    path = folder / "regions.toml"
    lines = ['secret_file = "link.secret"']
    for number, (name, port) in enumerate(zip(NAMES, free_ports(3)), 1):
        lines += [f"[regions.{name}]", f"number = {number}", f'address = "127.0.0.1:{port}"']
    path.write_text("\n".join(lines))
    return path


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


class World:
    """The nodes and a client of each."""

    def __init__(self, folder: Path) -> None:
        self.file = write_file(folder)
        self.nodes = {
            name: Node(
                ["--in-memory", "--region", name, "--peers", str(self.file)],
                folder / f"{name}.log",
            )
            for name in NAMES
        }
        with ThreadPoolExecutor() as pool:
            list(pool.map(Node.start, self.nodes.values()))
        self.clients = {
            name: Client(node.endpoint, "a", "b", name) for name, node in self.nodes.items()
        }

    def __call__(self, region: str, operation: str, **members: Any) -> dict[str, Any]:
        return self.clients[region].call(operation, **members)

    def put(self, region: str, key: str, value: str = "") -> None:
        item = {"id": {"S": key}, "from": {"S": value or region}}
        self(region, "PutItem", TableName="orders", Item=item)

    def items(self, region: str) -> list[Any]:
        found = self(region, "Scan", TableName="orders")["Items"]
        return sorted(found, key=lambda item: str(item["id"]["S"]))

    def add_replica(self, region: str) -> None:
        update = [{"Create": {"RegionName": region}}]
        self("us-east-1", "UpdateTable", TableName="orders", ReplicaUpdates=update)

        def is_active() -> bool:
            table = self("us-east-1", "DescribeTable", TableName="orders")["Table"]
            states = {each["ReplicaStatus"] for each in table["Replicas"]}
            return table["TableStatus"] == "ACTIVE" and states == {"ACTIVE"}

        until(is_active)

    def peer(self, region: str, other: str) -> dict[str, Any]:
        peers = self(region, PREFIX + "DescribeRegions")["Peers"]
        (found,) = (peer for peer in peers if peer["Region"] == other)
        return dict(found)

    def close(self) -> None:
        for client in self.clients.values():
            client.close()
        with ThreadPoolExecutor() as pool:
            assert set(pool.map(Node.stop, self.nodes.values())) == {0}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def test_three_processes_are_one_table(world: World, tmp_path: Path) -> None:
    world("us-east-1", "CreateTable", **TABLE)
    world.put("us-east-1", "before")
    world.add_replica("eu-west-1")
    world.add_replica("ap-southeast-1")
    for name in NAMES:
        world.put(name, name)
    until(lambda: all(len(world.items(name)) == 4 for name in NAMES))
    until(lambda: not any(
        lag["Entries"]
        for name in NAMES
        for lag in world(name, PREFIX + "ListReplicationLag")["Lags"]
    ))  # fmt: skip
    (lag, _other) = world("us-east-1", PREFIX + "ListReplicationLag")["Lags"]
    assert (lag["Table"], lag["Partition"], lag["State"]) == ("orders", 0, "following")
    assert lag["Region"] == "ap-southeast-1" and lag["ChangesSent"] >= 1 and lag["BytesSent"] > 0

    described = world("us-east-1", PREFIX + "DescribeRegions")
    assert (described["Region"], described["Number"], described["ClockSkewSeconds"]) == (
        "us-east-1", 3, 0.0,
    )  # fmt: skip
    assert described["Address"].startswith("127.0.0.1:")
    log = (tmp_path / "us-east-1.log").read_text()
    assert f"region us-east-1 answers links at {described['Address']}" in log

    # A partition, of both ends; both write; healed, the later write is everywhere.
    for one, other in (("us-east-1", "eu-west-1"), ("eu-west-1", "us-east-1")):
        told = world(one, PREFIX + "SetLinkFault", Region=other, Partitioned=True)
        assert told["Fault"]["Partitioned"] is True
    until(lambda: not world.peer("us-east-1", "eu-west-1")["Linked"])
    assert "a drill has cut the link" in world.peer("us-east-1", "eu-west-1")["Trouble"]
    world.put("us-east-1", "same", "first")
    world.put("eu-west-1", "same", "second")
    for name in ("us-east-1", "eu-west-1"):
        assert world(name, PREFIX + "HealLinks") == {}
    last = {"id": {"S": "same"}, "from": {"S": "second"}}
    until(lambda: all(last in world.items(name) for name in NAMES))
    until(lambda: world.peer("us-east-1", "eu-west-1")["Linked"])
    conflicts = (world.peer("us-east-1", "eu-west-1"), world.peer("eu-west-1", "us-east-1"))
    assert [peer["Conflicts"] for peer in conflicts] == [1, 0]

    # A clock that is ahead wins over later writes of others.
    told = world("us-east-1", PREFIX + "SetClockSkew", Seconds=30)
    assert told == {"ClockSkewSeconds": 30.0}
    world.put("us-east-1", "same", "from the future")
    until(lambda: world.items("eu-west-1") == world.items("us-east-1"))
    until(lambda: (world.peer("eu-west-1", "us-east-1")["SkewMs"] or 0) > 20_000)

    # A region dies and nobody minds; it is given up.
    world.nodes["ap-southeast-1"].kill()
    world.put("us-east-1", "on we go")
    until(lambda: world.items("eu-west-1") == world.items("us-east-1"))
    forgotten = {"TableName": "orders", "Region": "ap-southeast-1"}
    assert world("eu-west-1", PREFIX + "ForgetReplica", **forgotten) == forgotten
    replicas = world("eu-west-1", "DescribeTable", TableName="orders")["Table"]["Replicas"]
    assert [each["RegionName"] for each in replicas] == ["us-east-1"]


@pytest.mark.parametrize(
    ("operation", "members", "said"),
    [
        ("SetLinkFault", {"Region": "mars-1"}, "one of ap-southeast-1, eu-west-1, not mars-1"),
        ("SetLinkFault", {"Region": "eu-west-1", "LatencySeconds": -1}, "from 0 to 60"),
        ("SetLinkFault", {"Region": "eu-west-1", "Drop": 2}, "from 0 to 1"),
        ("SetLinkFault", {"Region": "eu-west-1", "Speed": 2}, "unknown field `Speed`"),
        ("SetLinkFault", {}, "missing required field `Region`"),
        ("HealLinks", {"Region": "us-east-1"}, "not us-east-1"),
        ("SetClockSkew", {"Seconds": 1e9}, "at most 86400 seconds"),
        ("SetClockSkew", {"Seconds": "soon"}, "cannot be read"),
        ("ForgetReplica", {"TableName": "none", "Region": "eu-west-1"}, "no table none"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    lone: Client, operation: str, members: dict[str, Any], said: str
) -> None:
    with pytest.raises(Refused, match=said):
        lone.call(PREFIX + operation, **members)


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One region whose others are not there: it serves all the same."""
    folder = tmp_path_factory.mktemp("lone")
    arguments = ["--in-memory", "--region", "us-east-1", "--peers", str(write_file(folder))]
    node = Node(arguments, folder / "node.log")
    node.start()
    client = Client(node.endpoint, "a", "b")
    yield client
    client.close()
    assert node.stop() == 0


def test_faults_add_up_and_one_link_is_healed_alone(lone: Client) -> None:
    def faults() -> dict[str, Any]:
        peers = lone.call(PREFIX + "DescribeRegions")["Peers"]
        return {peer["Region"]: peer["Fault"] for peer in peers}

    healthy = faults()["eu-west-1"]
    assert set(healthy.values()) == {0.0}
    lone.call(PREFIX + "SetLinkFault", Region="eu-west-1", LatencySeconds=0.5)
    lone.call(PREFIX + "SetLinkFault", Region="eu-west-1", Paused=True)
    lone.call(PREFIX + "SetLinkFault", Region="ap-southeast-1", Drop=0.25)
    assert faults()["eu-west-1"] == {**healthy, "LatencySeconds": 0.5, "Paused": True}
    lone.call(PREFIX + "HealLinks", Region="eu-west-1")
    assert faults() == {"eu-west-1": healthy, "ap-southeast-1": {**healthy, "Drop": 0.25}}
    lone.call(PREFIX + "HealLinks")
    assert faults()["ap-southeast-1"] == healthy


@pytest.mark.parametrize("operation", ["DescribeRegions", "ListReplicationLag", "HealLinks"])
def test_a_node_without_regions_says_what_to_do(tmp_path: Path, operation: str) -> None:
    with ExitStack() as stack:
        node = Node(["--in-memory"], tmp_path / "node.log")
        node.start()
        stack.callback(node.stop)
        client = Client(node.endpoint, "a", "b")
        stack.callback(client.close)
        with pytest.raises(Refused, match="start it with --peers FILE"):
            client.call(PREFIX + operation)


def test_with_credentials_drills_take_the_operators_right(tmp_path: Path) -> None:
    keys = tmp_path / "credentials"
    keys.write_text("[reader]\naws_access_key_id = READER\naws_secret_access_key = one\n")
    node = Node(["--in-memory", "--credentials", str(keys)], tmp_path / "node.log")
    node.start()
    client = Client(node.endpoint, "READER", "one")
    try:
        with pytest.raises(Refused, match="DescribeRegions takes a profile .*functions = true"):
            client.call(PREFIX + "DescribeRegions")
    finally:
        client.close()
        assert node.stop() == 0


def refusal(*arguments: str) -> str:
    """The one line of a start that is refused for wrong settings."""
    done = subprocess.run(
        [sys.executable, "-m", "millstream", "serve", "--port", "0", *arguments],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    return done.stderr.splitlines()[-1]


def test_a_file_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    path = write_file(tmp_path)
    said = refusal("--in-memory", "--peers", str(tmp_path / "none.toml"))
    assert said == f"millstream: cannot read {tmp_path / 'none.toml'}: No such file or directory"
    said = refusal("--in-memory", "--peers", str(path), "--region", "mars-1")
    assert said == "millstream: regions: mars-1, this node's own region, is not listed"
    (tmp_path / "link.secret").unlink()
    said = refusal("--in-memory", "--peers", str(path))
    assert said == "millstream: regions: secret_file link.secret: No such file or directory"


def test_an_address_that_is_taken_is_one_line(tmp_path: Path) -> None:
    path = write_file(tmp_path)
    port = int(path.read_text().rpartition(":")[2].strip('"\n'))
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        said = refusal("--in-memory", "--peers", str(path))
    assert said.startswith("millstream: ") and str(port) in said


def test_the_data_of_another_region_is_refused(tmp_path: Path) -> None:
    path, data = write_file(tmp_path), str(tmp_path / "data")
    node = Node(["--data", data, "--region", "eu-west-1", "--peers", str(path)], tmp_path / "log")
    node.start()
    assert node.stop() == 0
    said = refusal("--data", data, "--region", "us-east-1", "--peers", str(path))
    assert said == (
        "millstream: regions: this data is that of eu-west-1, number 2, and cannot be that of "
        "us-east-1, number 3"
    )


def test_a_node_that_is_alone_loads_nothing_of_regions() -> None:
    code = (
        "import sys; from millstream import service; "
        "print(*sorted(n for n in sys.modules if 'regions' in n or 'globaltables.' in n "
        "or 'links' in n))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name.rpartition(".")[2] for name in done.stdout.split()} <= {
        # What requests and their descriptions are made of; no links, and nothing that runs.
        "consistency", "regions_view", "shapes_regions", "watermarks",
    }  # fmt: skip
