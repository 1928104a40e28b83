"""What the README tells a newcomer to type works as it is written."""

import inspect
import re
from pathlib import Path

from millstream.database import open_database
from millstream.limits import FUNCTION_MEMORY_MB_DEFAULT, HANDLER_TIMEOUT_SECONDS_DEFAULT
from millstream.triggers import make_trigger

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_eight_lines_of_boto3_work(endpoint, capsys):
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    names = {}
    exec(code.replace("http://127.0.0.1:8000", endpoint), names)
    assert "Nina Simone" in capsys.readouterr().out
    names["table"].delete()
    names["db"].meta.client.close()


async def test_the_six_lines_of_trigger_work():
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[1]
    assert len(code.splitlines()) == 6
    names = {"__name__": "handlers"}
    exec(code, names)
    async with open_database(triggers=names["triggers"]) as db:
        for table in ("songs", "counts"):
            await db.create_table(table, partition_key="id")
        await db.table("songs").put_many({"id": title} for title in ("Sinnerman", "Feeling Good"))
        await db.table("songs").delete({"id": "Sinnerman"})
        await db.drain()
        assert await db.table("counts").get({"id": "songs"}) == {"id": "songs", "n": 2}


def test_the_example_of_triggers_runs(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n([^`]*name=\"takings\".*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {"__name__": "handlers"})
    totals, failed = capsys.readouterr().out.splitlines()
    assert "'cents': 700" in totals
    assert failed.count("FailedBatch(") == 1
    assert "KeyError" in failed


def test_every_option_of_a_trigger_is_in_the_readme():
    table = README[README.index("| option | default |") : README.index("**Exactly once.**")]
    options = set(inspect.signature(make_trigger).parameters) - {"table", "handler"}
    rows = [line.split("|")[1] for line in table.splitlines()[2:] if line]
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert told | {"name", "isolation"} == options
    assert f"| {HANDLER_TIMEOUT_SECONDS_DEFAULT:.0f}, {FUNCTION_MEMORY_MB_DEFAULT} |" in table


def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[2]
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert "'cents': 1000" in capsys.readouterr().out
    assert (tmp_path / "orders-data" / "tree").is_dir()


def test_every_make_target_that_is_named_exists():
    targets = re.findall(
        r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    named = re.findall(r"^make ([a-z -]+?)(?: [A-Z]|  |$)", README, re.MULTILINE)
    assert named
    for line in named:
        assert set(line.split()) <= set(targets), line


def test_what_the_readme_calls_supported_is_served_and_nothing_else_is():
    from millstream.api.dispatch import _ITEM_OPERATIONS, _TABLE_OPERATIONS

    rows = README[README.index("| Tables |") : README.index("| Expressions |")]
    named = set(re.findall(r"\b(?:[A-Z][a-z]+){2,}\b|Query|Scan", rows))
    assert named == {*_ITEM_OPERATIONS, *_TABLE_OPERATIONS}
