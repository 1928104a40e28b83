"""``millstream triggers`` against a node that runs an app."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from millstream.__main__ import main
from millstream.api.operations.triggers import PREFIX
from millstream.demo.client import Client, Refused
from millstream.demo.node import Node

APP = """
import pathlib

import millstream

triggers = millstream.Triggers()


@triggers.on_change("orders", name="picky", maximum_retry_attempts=0)
async def picky(event, context):
    if not pathlib.Path("mended").exists():
        raise ValueError("poisoned")


@triggers.on_change("orders", name="calm")
async def calm(event, context): ...
"""
TABLE = {
    "TableName": "orders",
    "BillingMode": "PAY_PER_REQUEST",
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
}


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    (tmp_path / "shop.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    node = Node(["--in-memory", "--app", "shop:triggers"], tmp_path / "node.log")
    node.start()
    yield node
    assert node.stop() == 0


@pytest.fixture
def client(node: Node) -> Iterator[Client]:
    client = Client(node.endpoint, "a", "b")
    client.call("CreateTable", **TABLE)
    client.call("PutItem", TableName="orders", Item={"id": {"S": "a"}})
    for _ in range(3000):
        found = client.call(PREFIX + "ListTriggers")["Triggers"]
        if [each["Batches"] for each in found] == [1, 1] and found[1]["FailedBatches"]:
            break
    else:
        raise AssertionError("the triggers did not run")
    yield client
    client.close()


def test_triggers_are_looked_after(
    node: Node, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> tuple[int, str]:
        code = main(["triggers", *words, "--endpoint", node.endpoint])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    code, said = run("list")
    assert code == 0
    assert "picky" in said and "calm" in said and "Enabled" in said
    code, said = run("failures", "picky")
    assert "RetryAttemptsExhausted" in said and "ValueError: poisoned" in said
    assert run("redrive", "picky") == (1, "0 taken, 1 left\n")
    (tmp_path / "mended").write_text("")
    assert run("redrive", "picky") == (0, "1 taken, 0 left\n")
    assert run("failures", "picky") == (0, "no batch has been given up\n")
    assert run("pause", "calm") == (0, "calm: Disabled\n")
    assert run("resume", "calm") == (0, "calm: Enabled\n")
    code, said = run("reset", "calm", "--position", "2026-01-01T00:00:00Z")
    assert (code, said) == (0, "calm: Enabled, from 2026-01-01T00:00:00Z\n")
    assert run("reset", "calm", "--position", "yesterday")[0] == 2
    code, said = run("pause", "nobody")
    assert code == 1 and "no trigger" in said
    assert run("delete", "calm") == (0, "calm: Deleting\n")
    assert "calm" not in run("list")[1]


def test_a_node_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["triggers", "list", "--endpoint", "http://127.0.0.1:9"]) == 1
    assert "does not answer" in capsys.readouterr().err


def test_with_credentials_it_takes_the_right_to_run_code(tmp_path: Path) -> None:
    keys = tmp_path / "credentials"
    keys.write_text(
        "[reader]\naws_access_key_id = READER\naws_secret_access_key = one\n"
        "[owner]\naws_access_key_id = OWNER\naws_secret_access_key = two\n"
        "millstream_functions = true\n"
    )
    node = Node(["--in-memory", "--credentials", str(keys)], tmp_path / "node.log")
    node.start()
    try:
        reader = Client(node.endpoint, "READER", "one")
        with pytest.raises(Refused, match="millstream_functions"):
            reader.call(PREFIX + "ListTriggers")
        reader.close()
        owner = Client(node.endpoint, "OWNER", "two")
        assert owner.call(PREFIX + "ListTriggers") == {"Triggers": []}
        with pytest.raises(Refused, match="Name is missing"):
            owner.call(PREFIX + "PauseTrigger")
        owner.close()
    finally:
        assert node.stop() == 0
