"""The model of the disk: what a power cut may leave, and what it may not."""

import random

import pytest

from millstream.tools.disk_model import ALL, COINS, FILES, JOURNAL, NONE, PAGES, SECTORS, STRICT
from millstream.tools.disk_model import DiskModel as Model


def write(model, path, offset, data):
    node = model.find(path) or model.create(path)
    serial = model.begin(node)
    node.write(serial, offset, data)
    model.end(serial)
    return node


def sync(model, path):
    node = model.find(path)
    until = model.covered(node)
    if path:
        node.sync(until)
    model.sync_names(node, until)


def image(model, folder, coin, seed=0):
    target = folder / f"{coin}-{seed}"
    model.write_image(target, coin, random.Random(seed))
    return {path.name: path.read_bytes() for path in target.iterdir()}


@pytest.mark.parametrize("coin", COINS)
@pytest.mark.parametrize("rule", [STRICT, JOURNAL])
def test_what_is_synced_is_there_whatever_the_coin(tmp_path, rule, coin):
    model = Model(rule)
    write(model, "a", 0, b"x" * 5000)
    sync(model, "a")
    sync(model, "")
    for seed in range(10):
        assert image(model, tmp_path, coin, seed) == {"a": b"x" * 5000}


def test_what_is_not_synced_may_be_there_or_not(tmp_path):
    model = Model(STRICT)
    write(model, "a", 0, b"1" * 1024)
    sync(model, "a")
    sync(model, "")
    write(model, "a", 512, b"2" * 1024)
    old, new = b"1" * 1024, b"1" * 512 + b"2" * 1024
    assert image(model, tmp_path, NONE) == {"a": old}
    assert image(model, tmp_path, ALL) == {"a": new}
    seen = {image(model, tmp_path, FILES, seed)["a"] for seed in range(20)}
    assert seen == {old, new}
    torn = {image(model, tmp_path, SECTORS, seed)["a"] for seed in range(60)}
    # Old and new sizes, each with the overwritten sector old or new, the new one there or zeros.
    assert len(torn) == 6


def test_a_page_is_kept_or_dropped_as_a_whole(tmp_path):
    model = Model(STRICT)
    write(model, "a", 0, bytes(8192))
    sync(model, "a")
    sync(model, "")
    write(model, "a", 0, b"z" * 8192)
    seen = {image(model, tmp_path, PAGES, seed)["a"] for seed in range(30)}
    assert seen == {
        first + second
        for first in (bytes(4096), b"z" * 4096)
        for second in (bytes(4096), b"z" * 4096)
    }


def test_a_sync_does_not_cover_what_was_still_being_written(tmp_path):
    model = Model(STRICT)
    write(model, "a", 0, b"1" * 512)
    sync(model, "")
    node = model.find("a")
    begun = model.begin(node)
    node.write(begun, 0, b"2" * 512)
    until = model.covered(node)
    model.end(begun)
    node.sync(until)
    assert image(model, tmp_path, NONE) == {"a": b"1" * 512}


def test_a_write_to_another_file_does_not_hold_a_sync_up(tmp_path):
    model = Model(STRICT)
    write(model, "b", 0, b"")
    begun = model.begin(model.find("b"))
    write(model, "a", 0, b"1" * 512)
    sync(model, "a")
    model.end(begun)
    sync(model, "")
    assert image(model, tmp_path, NONE)["a"] == b"1" * 512


def test_a_synced_file_without_its_name_is_lost_by_the_strict_rule(tmp_path):
    model = Model(STRICT)
    write(model, "a", 0, b"1")
    sync(model, "a")
    assert image(model, tmp_path, NONE) == {}
    sync(model, "")
    assert image(model, tmp_path, NONE, 1) == {"a": b"1"}


def test_a_sync_keeps_the_name_and_all_before_it_by_the_journal_rule(tmp_path):
    model = Model(JOURNAL)
    write(model, "a", 0, b"1")
    write(model, "b", 0, b"2")
    sync(model, "b")
    assert image(model, tmp_path, NONE) == {"a": b"", "b": b"2"}


def test_a_sync_of_an_old_file_does_not_keep_later_names_by_the_journal_rule(tmp_path):
    model = Model(JOURNAL)
    write(model, "a", 0, b"1")
    sync(model, "a")
    write(model, "b", 0, b"2")
    write(model, "a", 0, b"3")
    sync(model, "a")
    assert image(model, tmp_path, NONE) == {"a": b"3"}


def test_names_come_in_their_order_by_the_journal_rule(tmp_path):
    model = Model(JOURNAL)
    for name in "abc":
        model.create(name)
    model.remove("a")
    seen = {tuple(sorted(image(model, tmp_path, SECTORS, seed))) for seed in range(60)}
    assert seen == {(), ("a",), ("a", "b"), ("a", "b", "c"), ("b", "c")}


def test_a_rename_happens_at_once(tmp_path):
    model = Model(STRICT)
    write(model, "a", 0, b"old")
    write(model, "a.new", 0, b"new")
    sync(model, "a")
    sync(model, "a.new")
    sync(model, "")
    model.rename("a.new", "a")
    seen = {tuple(sorted(image(model, tmp_path, SECTORS, seed).items())) for seed in range(20)}
    assert seen == {(("a", b"old"), ("a.new", b"new")), (("a", b"new"),)}


def test_a_cut_and_grown_file_reads_zeros(tmp_path):
    model = Model(STRICT)
    node = write(model, "a", 0, b"1" * 1500)
    node.resize(model.tick(), 700)
    node.resize(model.tick(), 2000)
    sync(model, "a")
    sync(model, "")
    assert image(model, tmp_path, NONE) == {"a": b"1" * 700 + bytes(1300)}


def test_the_model_knows_when_it_does_not_know(tmp_path):
    model = Model(STRICT)
    write(model, "a", 0, b"1")
    (tmp_path / "a").write_bytes(b"2")
    (tmp_path / "b").write_bytes(b"")
    found = model.differences(tmp_path)
    assert found == ["a differs in sector 0", "b is not in the model"]
    model.adopt(tmp_path)
    assert model.differences(tmp_path) == []
