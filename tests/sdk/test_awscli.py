"""The AWS CLI as it comes from PyPI, as a child process: nothing of it is changed or imported.

A call costs the CLI half a second of starting, so that the session of one table is told as a story
whose steps are the tests; they run in order, on a table that the first of them makes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Done(NamedTuple):
    """How a call ended."""

    code: int
    out: str
    err: str


def command() -> str | None:
    """The CLI beside this interpreter, else the first on the path."""
    beside = Path(sys.executable).with_name("aws")
    return str(beside) if beside.is_file() else shutil.which("aws")


@pytest.fixture(scope="module")
def aws_cli(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Done]:
    """Runs ``aws dynamodb ...`` in a namespace of this module, with nothing of the user's."""
    program = command()
    if program is None:
        pytest.skip("the AWS CLI is not installed")
    home = tmp_path_factory.mktemp("home")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "HOME": str(home),
        "AWS_CONFIG_FILE": str(home / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(home / "credentials"),
        "AWS_ACCESS_KEY_ID": f"ns-cli-{uuid.uuid4().hex[:12]}",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        # The README's advice to everybody: no --endpoint-url in any command.
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_PAGER": "",
        "COLUMNS": "200",
    }

    def run(*arguments: str) -> Done:
        done = subprocess.run(
            [program, "dynamodb", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def told(aws_cli: Callable[..., Done]) -> Callable[..., Any]:
    """Runs a command that must succeed; its JSON."""

    def run(*arguments: str) -> Any:
        done = aws_cli(*arguments)
        assert done.code == 0, done.err
        return json.loads(done.out) if done.out.strip() else None

    return run


class Made(NamedTuple):
    """A table."""

    name: str
    arn: str


@pytest.fixture(scope="module")
def made(aws_cli: Callable[..., Done]) -> Made:
    """A table that the CLI has made and waited for."""
    name = f"music-{uuid.uuid4().hex[:8]}"
    # The CLI's shorthand, as in the DynamoDB developer guide.
    done = aws_cli(
        "create-table", "--table-name", name,
        "--attribute-definitions", "AttributeName=artist,AttributeType=S",
        "AttributeName=title,AttributeType=S",
        "--key-schema", "AttributeName=artist,KeyType=HASH", "AttributeName=title,KeyType=RANGE",
        "--billing-mode", "PAY_PER_REQUEST", "--tags", "Key=stage,Value=test",
    )  # fmt: skip
    assert done.code == 0, done.err
    waited = aws_cli("wait", "table-exists", "--table-name", name)
    assert waited.code == 0, waited.err
    return Made(name, json.loads(done.out)["TableDescription"]["TableArn"])


@pytest.fixture
def music(made: Made) -> str:
    """The table's name."""
    return made.name


def song(title: str) -> str:
    return json.dumps({"artist": {"S": "Nina Simone"}, "title": {"S": title}})


def test_put_and_get(told, music, tmp_path):
    # From a file, as one does with anything longer; names beyond ASCII.
    item = {
        "artist": {"S": "Nina Simone"},
        "title": {"S": "Sinnerman"},
        "minutes": {"N": "10.35"},
        "höhe": {"L": [{"NULL": True}, {"SS": ["a", "é"]}]},
    }
    file = tmp_path / "item.json"
    file.write_text(json.dumps(item, ensure_ascii=False), encoding="utf-8")
    told("put-item", "--table-name", music, "--item", f"file://{file}")
    found = told("get-item", "--table-name", music, "--key", song("Sinnerman"), "--consistent-read")
    assert found["Item"] == item


def test_update(told, music):
    answer = told(
        "update-item", "--table-name", music, "--key", song("Sinnerman"),
        "--update-expression", "SET plays = if_not_exists(plays, :none) + :one",
        "--expression-attribute-values", '{":one":{"N":"1"},":none":{"N":"0"}}',
        "--return-values", "UPDATED_NEW",
    )  # fmt: skip
    assert answer == {"Attributes": {"plays": {"N": "1"}}}


def test_query_as_a_table(aws_cli, told, music):
    # --query is the CLI's own JMESPath over our answer; --output table draws it.
    requests = {music: [{"PutRequest": {"Item": json.loads(song(f"Song {n}"))}} for n in range(5)]}
    assert (
        told("batch-write-item", "--request-items", json.dumps(requests))["UnprocessedItems"] == {}
    )
    done = aws_cli(
        "query", "--table-name", music, "--output", "table",
        "--key-condition-expression", "artist = :a AND begins_with(title, :t)",
        "--expression-attribute-values", '{":a":{"S":"Nina Simone"},":t":{"S":"Song"}}',
        "--query", "Items[].{Title: title.S}",
    )  # fmt: skip
    assert done.code == 0, done.err
    drawn = [line.strip("| ") for line in done.out.splitlines() if "Song" in line]
    assert drawn == [f"Song {n}" for n in range(5)]


def test_scan_in_pages_of_the_clis_own(told, music):
    # --max-items cuts on the CLI's side and gives a token, which is sent back as a start key.
    titles, token = [], []
    for _ in range(9):
        page = told("scan", "--table-name", music, "--max-items", "4", "--page-size", "3", *token)
        titles += [item["title"]["S"] for item in page["Items"]]
        if "NextToken" not in page:
            break
        token = ["--starting-token", page["NextToken"]]
    assert sorted(titles) == sorted({*titles})
    assert {"Sinnerman", *(f"Song {n}" for n in range(5))} <= set(titles)


def test_a_failed_condition_is_an_exit_code(aws_cli, music):
    # Scripts look at it: 254 is the CLI's for an error that the service tells (255 before 1.20).
    done = aws_cli(
        "put-item", "--table-name", music, "--item", song("Sinnerman"),
        "--condition-expression", "attribute_not_exists(artist)",
    )  # fmt: skip
    assert done.code in (254, 255)
    assert "(ConditionalCheckFailedException) when calling the PutItem operation" in done.err
    assert "The conditional request failed" in done.err


def test_an_unknown_table_is_an_exit_code(aws_cli):
    done = aws_cli("describe-table", "--table-name", "nothing-here")
    assert done.code in (254, 255)
    assert "ResourceNotFoundException" in done.err


def test_tags_and_delete(told, made):
    tags = told("list-tags-of-resource", "--resource-arn", made.arn)["Tags"]
    assert tags == [{"Key": "stage", "Value": "test"}]
    told("delete-table", "--table-name", made.name)
    told("wait", "table-not-exists", "--table-name", made.name)
    assert made.name not in told("list-tables")["TableNames"]
