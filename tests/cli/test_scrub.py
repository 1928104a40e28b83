"""``millstream scrub``: what it is content with, what it tells, and how it leaves."""

import argparse
import os
import shutil
import signal
import subprocess
import sys

import pytest

from millstream.cli import scrub
from millstream.storage.rows import Row, encode_row
from millstream.storage.table_state import TOKEN_TREE
from millstream.storage.tree.lmdb_store import open_lmdb
from millstream.tools.damage import Victim, make_victim


@pytest.fixture(scope="module")
def victim(tmp_path_factory) -> Victim:
    return make_victim(tmp_path_factory.mktemp("victim"), "segments", 1, writes=60)


@pytest.fixture
def data(victim, tmp_path):
    shutil.copytree(victim.folder, tmp_path / "copy")
    return tmp_path / "copy" / "data"


@pytest.fixture
def look(data, capsys):
    """Scrub in this process: exit code and what was said."""

    def run():
        exit_code = scrub.walk(str(data))
        said = capsys.readouterr()
        return exit_code, said.out + said.err

    return run


def change(data, tree, key, value):
    store = open_lmdb(str(data / "tree"))
    store.write({tree: [(key, value)]}, {})
    store.close()


def rows(data, tree):
    store = open_lmdb(str(data / "tree"))
    try:
        return list(store.range(tree, b"", None))
    finally:
        store.close()


def trees(data):
    """The table's tree, the local index's, the global index's."""
    store = open_lmdb(str(data / "tree"))
    try:
        return store.trees()[1:]
    finally:
        store.close()


def test_a_healthy_directory_is_told_so(look):
    exit_code, said = look()
    assert exit_code == scrub.EXIT_HEALTHY
    for name in ("default/crash ", "default/crash by-rank", "default/crash by-group", "catalog"):
        assert f"{name} " in said
    assert "is healthy: 6 trees" in said
    assert "DAMAGED" not in said


def test_client_tokens_are_walked_though_nobody_counts_them(look, data):
    change(data, TOKEN_TREE, b"token", encode_row(b"token", Row(b"{}", 2, 1)))
    exit_code, said = look()
    assert exit_code == scrub.EXIT_HEALTHY
    assert "client tokens " in said
    change(data, TOKEN_TREE, b"token", encode_row(b"another", Row(b"{}", 2, 1)))
    assert look()[0] == scrub.EXIT_DAMAGED


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_row_that_is_gone_shows_in_the_sums(look, data, which):
    tree = trees(data)[which]
    change(data, tree, rows(data, tree)[3][0], None)
    exit_code, said = look()
    assert exit_code == scrub.EXIT_DAMAGED
    assert "it has counted" in said
    assert said.count("DAMAGED") == 1


def test_an_old_row_in_the_place_of_a_new_one_shows_in_the_sums(look, data):
    """Whole by its own checksum, and still not what was written last."""
    tree = trees(data)[0]
    key = rows(data, tree)[0][0]
    change(data, tree, key, encode_row(key, Row(b"{}", 2, 1)))
    exit_code, said = look()
    assert exit_code == scrub.EXIT_DAMAGED
    assert "with checksum" in said


def test_a_damaged_value_is_told_with_its_key(look, data):
    tree = trees(data)[0]
    key, value = rows(data, tree)[5]
    change(data, tree, key, value[:-9] + b"!" + value[-8:])
    exit_code, said = look()
    assert exit_code == scrub.EXIT_DAMAGED
    assert f"the row {key.hex()[:64]}" in said
    assert "checksum does not hold" in said


def test_a_log_that_is_gone_or_shorter_than_the_tree_knows_is_told(look, data):
    shutil.rmtree(data / "log")
    exit_code, said = look()
    assert exit_code == scrub.EXIT_DAMAGED
    assert "log: it is gone" in said


def test_a_damaged_log_is_told(look, data):
    segment = sorted((data / "log" / "segments").iterdir())[-1]
    raw = bytearray(segment.read_bytes())
    at = len(raw.rstrip(b"\0")) // 2
    raw[at] ^= 4
    segment.write_bytes(raw)
    exit_code, said = look()
    assert exit_code == scrub.EXIT_DAMAGED
    assert "  log" in said


def test_a_log_from_another_past_is_told(look, data, victim, tmp_path):
    """Every entry whole and chained, and still not what the tree was made from."""
    other = make_victim(tmp_path, "segments", 2, writes=60)
    shutil.rmtree(data / "tree")
    shutil.copytree(other.folder / "data" / "tree", data / "tree")
    exit_code, said = look()
    assert exit_code == scrub.EXIT_DAMAGED
    assert "is not the one that the tree was made from" in said


def test_a_damaged_mark_is_told(look, data):
    (data / "format").write_bytes(b"millstream data directory 9\n")
    assert look()[0] == scrub.EXIT_DAMAGED


def test_a_directory_that_is_not_there_is_no_damage(capsys, tmp_path):
    assert scrub.walk(str(tmp_path / "none")) == scrub.EXIT_FAILED
    assert "there is no" in capsys.readouterr().err


def test_beside_a_serving_process_the_log_is_left_out(look, data):
    from millstream.host.disk import RealDisk

    lock = RealDisk().lock(str(data / "lock"))
    try:
        exit_code, said = look()
    finally:
        lock.release()
    assert exit_code == scrub.EXIT_HEALTHY
    assert "is being served" in said
    assert "0 logs" in said


def test_the_command_has_the_walks_exit_code_and_words(data):
    found = subprocess.run(
        [sys.executable, "-m", "millstream", "scrub", str(data)], capture_output=True, text=True
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert "is healthy" in found.stdout


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGBUS, scrub.EXIT_DAMAGED), (signal.SIGTERM, scrub.EXIT_FAILED)],
)
def test_a_walk_that_ends_by_a_signal_is_told(monkeypatch, capsys, number, exit_code):
    def killed(command, check):
        kill = f"import os; os.kill(os.getpid(), {int(number)})"
        return real([sys.executable, "-c", kill], check=check)

    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", killed)
    arguments = argparse.Namespace(directory=os.curdir, log_dirs=None, walk=False)
    assert scrub.scrub_command(arguments) == exit_code
    said = capsys.readouterr()
    assert number.name in said.out + said.err
