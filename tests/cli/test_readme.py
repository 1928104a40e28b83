"""What the README tells a newcomer to type works as it is written."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_eight_lines_of_boto3_work(endpoint, capsys):
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    names = {}
    exec(code.replace("http://127.0.0.1:8000", endpoint), names)
    assert "Nina Simone" in capsys.readouterr().out
    names["table"].delete()
    names["db"].meta.client.close()


def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[1]
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
