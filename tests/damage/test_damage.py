"""Flipped bits and cut files in every kind of file: refused, told or harmless, never wrong.

A seeded sample; ``make damage`` takes more.
"""

import random
import shutil

import pytest

from millstream.tools.damage import (
    CUT,
    FLIP,
    REMOVE,
    SETTINGS,
    Sample,
    draw_sample,
    make_victim,
    try_sample,
)

SAMPLES = 14


@pytest.fixture(scope="module", params=SETTINGS)
def victim(request, tmp_path_factory):
    if request.param.startswith("leveldb"):
        pytest.importorskip("plyvel")
    return make_victim(tmp_path_factory.mktemp("victim"), request.param, 3)


def file_of(victim, suffix):
    return next(name for name in victim.files if name.endswith(suffix))


def test_a_sample_of_damages_does_no_harm(victim, tmp_path):
    draw = random.Random(f"5/{victim.setting}")
    for _ in range(SAMPLES):
        sample = draw_sample(victim, draw)
        outcome, reason = try_sample(victim, sample, tmp_path)
        assert outcome != "wrong", (sample, reason)


def test_a_tree_that_is_gone_is_refused_or_healed(victim, tmp_path):
    sample = Sample(file_of(victim, "data.mdb"), REMOVE)
    outcome, reason = try_sample(victim, sample, tmp_path)
    if victim.setting == "segments x 3":
        assert outcome == "harmless"
    else:
        assert outcome == "refused"
        assert "the tree's file is missing" in reason


def test_a_log_cut_below_what_the_tree_holds_is_refused_or_healed(victim, tmp_path):
    suffix = ".ldb" if victim.setting == "leveldb" else ".segment"
    sample = Sample(file_of(victim, suffix), CUT, 100)
    outcome, reason = try_sample(victim, sample, tmp_path)
    assert outcome == ("harmless" if victim.setting == "segments x 3" else "refused"), reason


def test_an_undamaged_copy_is_found_right(victim, tmp_path):
    """Or every outcome above would mean nothing."""
    lock = file_of(victim, "data/lock")
    assert try_sample(victim, Sample(lock, CUT, 0), tmp_path) == ("harmless", "")


def test_wrong_data_would_be_noticed(victim, tmp_path):
    """The history is changed in the place of the files: what is there is then wrong."""
    if victim.setting != "segments":
        pytest.skip("once is enough")
    key, _ = victim.history[-1]
    changed = [*victim.history[:-25], (key, None), *victim.history[-24:-1], (key, {"x": {"S": ""}})]
    other = type(victim)(victim.setting, victim.folder, changed, victim.flushed, victim.files)
    outcome, reason = try_sample(other, Sample(file_of(victim, "data/lock"), CUT, 0), tmp_path)
    assert (outcome, reason[-24:]) == ("wrong", "no moment of its history")
    shutil.rmtree(tmp_path / "copy")


def test_a_flipped_bit_in_the_last_frame_costs_no_more_than_it(victim, tmp_path):
    if victim.setting != "segments":
        pytest.skip("about segments")
    name = [name for name in victim.files if name.endswith(".segment")][-1]
    used = len((victim.folder / name).read_bytes().rstrip(b"\0"))
    outcome, _ = try_sample(victim, Sample(name, FLIP, used - 40, 3), tmp_path)
    assert outcome in ("tail", "harmless")
