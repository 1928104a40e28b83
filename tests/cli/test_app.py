"""``--app MODULE:NAME`` and ``--reload``: finding triggers, starting again when code changes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from millstream.app import load_app
from millstream.cli.reload import python_files, run_with_reload, snapshot
from millstream.errors import ConfigurationError

APP = """
import millstream

triggers = millstream.Triggers()
other = 5


@triggers.on_change("orders")
async def handler(event, context): ...
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working directory; its name is this test's alone."""
    name = f"app_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def test_an_app_is_found_in_the_working_directory(module: str) -> None:
    assert [trigger.name for trigger in load_app(f"{module}:triggers")] == [f"{module}:handler"]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("nocolon", "MODULE:NAME"),
        (":triggers", "MODULE:NAME"),
        ("{module}:", "MODULE:NAME"),
        ("no_such_module_at_all:triggers", "no module"),
        ("{module}:missing", "no Triggers called"),
        ("{module}:other", "no Triggers called"),
    ],
)
def test_what_is_not_an_app_is_told(module: str, name: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        load_app(name.format(module=module))


def test_what_an_app_lacks_itself_is_its_own_error(module: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}_broken.py").write_text("import no_such_module_either\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_either"):
        load_app(f"{module}_broken:triggers")


def test_hidden_and_built_files_are_not_watched(tmp_path: Path) -> None:
    for name in ("a.py", "sub/b.py", ".venv/c.py", "build/d.py", "node_modules/e.py", "f.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    found = sorted(str(path.relative_to(tmp_path)) for path in python_files(tmp_path))
    assert found == ["a.py", "sub/b.py"]


class Child:
    """A process that runs until it is told to stop."""

    def __init__(self) -> None:
        self.code: int | None = None

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.code = 0

    def wait(self) -> int:
        return 3 if self.code is None else self.code


def test_a_change_starts_a_new_child(tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_text("1")
    commands: list[list[str]] = []
    looks = 0

    class Enough(Exception):
        pass

    def start(command: list[str]) -> Any:
        commands.append(command)
        return Child()

    def pause(_seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            os.utime(source, ns=(1, 1))
            assert snapshot(tmp_path)
        if looks == 5:
            raise Enough

    with pytest.raises(Enough):
        run_with_reload(["serve", "--reload", "--port", "0"], tmp_path, start=start, pause=pause)
    assert len(commands) == 2
    assert commands[0][-3:] == ["serve", "--port", "0"]
