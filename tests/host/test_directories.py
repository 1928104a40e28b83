"""Directories of plain files, on the real disk."""

from __future__ import annotations

import os

import pytest

from millstream.host.directories import (
    FileToWrite,
    is_directory,
    make_temporary_directory,
    remove_tree,
    write_tree,
)


def test_tree_is_written_as_a_whole(tmp_path):
    path = str(tmp_path / "a" / "tree")
    files = [
        FileToWrite("x/y.py", [b"1", b"2"]),
        FileToWrite("empty", is_directory=True),
        FileToWrite("x", is_directory=True),
        FileToWrite("tool", [b"#!"], executable=True),
        FileToWrite("", is_directory=True),
    ]
    write_tree(path, files)
    assert (tmp_path / "a/tree/x/y.py").read_bytes() == b"12"
    assert (tmp_path / "a/tree/empty").is_dir()
    assert os.access(tmp_path / "a/tree/tool", os.X_OK)
    assert not os.access(tmp_path / "a/tree/x/y.py", os.X_OK)
    assert os.listdir(tmp_path / "a") == ["tree"]
    assert is_directory(path)


def test_what_fails_midway_leaves_nothing(tmp_path):
    def pieces():
        yield b"1"
        raise ValueError

    with pytest.raises(ValueError):
        write_tree(str(tmp_path / "tree"), [FileToWrite("a", [b"x"]), FileToWrite("b", pieces())])
    assert os.listdir(tmp_path) == []


def test_what_an_interrupted_call_has_left_is_replaced(tmp_path):
    (tmp_path / "tree.new").mkdir()
    (tmp_path / "tree.new" / "old").touch()
    write_tree(str(tmp_path / "tree"), [FileToWrite("new", [b""])])
    assert os.listdir(tmp_path / "tree") == ["new"]


def test_a_name_is_written_once(tmp_path):
    with pytest.raises(FileExistsError):
        write_tree(str(tmp_path / "tree"), [FileToWrite("a", [b"1"]), FileToWrite("a", [b"2"])])


def test_links_are_removed_and_not_followed(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "kept")
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == ["kept"]
    remove_tree(str(tmp_path / "tree"))
    assert (tmp_path / "kept" / "file").exists()


def test_name_is_free_even_if_a_part_cannot_be_removed(tmp_path, monkeypatch):
    (tmp_path / "tree").mkdir()

    def refuse(path: str) -> None:
        raise PermissionError

    monkeypatch.setattr("shutil.rmtree", refuse)
    with pytest.raises(PermissionError):
        remove_tree(str(tmp_path / "tree"))
    (left,) = os.listdir(tmp_path)
    assert left.startswith("gone-")


def test_temporary_directory_is_nobody_elses():
    path = make_temporary_directory()
    try:
        assert os.stat(path).st_mode & 0o777 == 0o700
    finally:
        remove_tree(path)
    assert not os.path.exists(path)
