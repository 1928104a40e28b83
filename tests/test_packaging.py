"""What is shipped is what is on disk, and the settings files know every room."""

import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import millstream
from millstream.config import markdown_table

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NOT_SHIPPED = {"tests", "build", "dist", "bench", "tools", "docs", "examples", "__pycache__"}


def folders_of(folder: Path) -> list[Path]:
    return sorted(
        child
        for child in folder.iterdir()
        if child.is_dir()
        and not child.name.startswith(".")
        and not child.name.endswith(".egg-info")
        and child.name not in NOT_SHIPPED
    )


def packages_in(folder: Path, name: str) -> list[str]:
    """Every package on disk: a folder that holds a Python module is one."""
    found = [name] if list(folder.glob("*.py")) else []
    for child in folders_of(folder):
        found += packages_in(child, f"{name}.{child.name}")
    return found


def rooms() -> set[str]:
    return {name.split(".")[1] for name in packages_in(ROOT, "millstream") if "." in name}


def root_modules() -> set[str]:
    return {path.stem for path in ROOT.glob("*.py")} - {"__init__"}


def test_the_list_of_packages_equals_the_rooms_on_disk():
    assert PROJECT["tool"]["setuptools"]["packages"] == sorted(packages_in(ROOT, "millstream"))


def test_every_package_says_what_it_is():
    for name in PROJECT["tool"]["setuptools"]["packages"]:
        assert (ROOT / Path(*name.split(".")[1:]) / "__init__.py").is_file(), name


def test_the_four_rooms_that_must_exist_do():
    assert {"actors", "storage", "streams", "lambdas"} <= rooms()


def test_no_room_shadows_the_standard_library():
    assert not (rooms() | root_modules()) & set(sys.stdlib_module_names)


def test_every_file_in_a_package_is_shipped():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    unshipped = []
    for name in PROJECT["tool"]["setuptools"]["packages"][1:]:
        folder = ROOT / Path(*name.split(".")[1:])
        for path in folder.rglob("*"):
            if path.is_dir() or path.suffix in (".py", ".pyc"):
                continue
            inside = path.relative_to(folder).as_posix()
            if not any(fnmatch(inside, pattern) for pattern in patterns.get(name, [])):
                unshipped.append(f"{name}: {inside}")
    assert unshipped == []


def test_absolute_imports_of_every_room_are_banned():
    banned = set(PROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"])
    assert rooms() | (root_modules() - {"__main__"}) <= banned


def test_every_room_and_root_module_has_its_layer():
    layers = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    known = {word.strip("()") for layer in layers for word in layer.split() if word not in "|:"}
    assert rooms() | root_modules() <= known


def test_the_version_is_said_once():
    assert PROJECT["project"]["version"] == millstream.__version__


def test_the_changelog_knows_the_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {millstream.__version__}" in changelog


def requirements() -> list[Requirement]:
    groups = PROJECT["project"]["optional-dependencies"]
    lines = [*PROJECT["project"]["dependencies"], *groups["test"], *groups["dev"]]
    return [Requirement(line) for line in lines if not line.startswith("millstream")]


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_every_dependency_is_pinned_inside_its_range(requirement):
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            pins[canonicalize_name(name)] = version
    assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


def test_plyvel_is_asked_for_only_where_it_has_wheels():
    (plyvel,) = (found for found in requirements() if found.name == "plyvel")
    assert plyvel.marker is not None
    linux = {
        "sys_platform": "linux",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
        "python_version": "3.12",
    }
    assert plyvel.marker.evaluate(linux)
    for change in (
        {"python_version": "3.13"},
        {"platform_machine": "aarch64"},
        {"sys_platform": "darwin"},
        {"implementation_name": "pypy"},
    ):
        assert not plyvel.marker.evaluate({**linux, **change})


def script(path: Path, body: str) -> Path:
    path.write_text("#!/bin/sh\n" + body, encoding="utf-8")
    path.chmod(0o755)
    return path


def make_environment(folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    """Run .ci/environment where neither uv nor any other Python is on the PATH."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for tool in ("sh", "dirname", "rm"):
        found = next(Path(at) / tool for at in ("/bin", "/usr/bin") if (Path(at) / tool).exists())
        (tools / tool).symlink_to(found)
    return subprocess.run(
        [ROOT / ".ci" / "environment", folder / "venv", "."],
        env={"PATH": str(tools), "PYTHON": python},
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_interpreters_that_only_pretend_to_run_are_passed_over(tmp_path):
    shim = script(tmp_path / "shim", "exit 127\n")
    result = make_environment(tmp_path, str(shim))
    assert result.returncode == 1
    assert "needs Python 3.11 or newer" in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_a_python_without_ensurepip_is_told_the_one_line_that_installs_it(tmp_path):
    bare = script(
        tmp_path / "bare",
        'case "$2" in *ensurepip*) exit 1 ;; *print*) echo 3.11 ;; esac\n',
    )
    result = make_environment(tmp_path, str(bare))
    assert result.returncode == 1
    assert result.stderr.strip().endswith("sudo apt-get install python3.11-venv")


def test_the_readme_shows_every_setting():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert markdown_table() in readme, "paste the output of millstream.config.markdown_table()"


def test_the_readme_begins_with_two_commands_and_eight_lines_of_boto3():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shell, python = re.findall(r"```(?:sh|python)\n(.*?)```", readme, re.DOTALL)[:2]
    assert [line.split("#")[0].strip() for line in shell.splitlines()] == [
        "make demo",
        ".venv/bin/millstream serve",
    ]
    assert len(python.splitlines()) <= 8
    compile(python, "README.md", "exec")
