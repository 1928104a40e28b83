"""The replicated log: majorities, recovery of the right chain, identities, healing."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from millstream.errors import Ambiguous, StorageError
from millstream.host.memory_disk import MemoryDisk
from millstream.storage.log import open_replicated_log_engine
from millstream.storage.log.replicated import ReplicatedLogEngine

PATHS = ["/a", "/b", "/c"]


class World:
    """Three directories on one simulated disk; each can be broken, lost and brought back."""

    def __init__(self) -> None:
        self.disk = MemoryDisk(random.Random(5))
        self.engine = self.open(new_set_id="set")

    def open(self, paths: Sequence[str] = PATHS, **options: Any) -> ReplicatedLogEngine:
        return open_replicated_log_engine(
            self.disk,
            paths,
            "segments",
            run_all=lambda calls: [call() for call in calls],
            **options,
        )

    def restart(self, paths: Sequence[str] = PATHS, **options: Any) -> None:
        self.engine.close()
        self.engine = self.open(paths, **options)

    def heal(self) -> None:
        for _ in range(100):
            if not self.engine.heal():
                return
        raise AssertionError("healing does not end")

    def take(self, path: str) -> dict[str, bytes]:
        """Unplug a directory: its files, for `put`; an empty directory is left."""
        files: dict[str, bytes] = {}
        for directory in (path, f"{path}/segments"):
            for name in self.disk.list(directory):
                if name != "segments":
                    files[f"{directory}/{name}"] = self.disk.read_file(f"{directory}/{name}")
                    self.disk.remove(f"{directory}/{name}")
        return files

    def put(self, files: dict[str, bytes]) -> None:
        for path, data in files.items():
            self.disk.write_file_atomic(path, data)

    def levels(self) -> list[int]:
        return [copy.logs_behind for copy in self.engine.statistics()]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.engine.close()


def fill(world: World, writer: Any, count: int, payload: bytes = b"payload") -> None:
    for _ in range(count):
        assert world.engine.commit([writer.append(payload)]) == [None]


def payloads(world: World, log_id: str = "orders") -> list[int]:
    entries = world.engine.read(log_id, world.engine.first(log_id), 10**9)
    return [entry.lsn for entry in entries]


def break_copy(world: World, index: int) -> None:
    """Let one copy's engine fail as after a failed sync."""
    copy = world.engine._set.copies[index]
    assert copy.engine is not None
    copy.engine.close()


def test_one_broken_copy_is_survived_and_healed(world: World, make_writer: Any) -> None:
    writer = make_writer()
    world.engine.create("orders", 1)
    fill(world, writer, 3)
    break_copy(world, 0)
    fill(world, writer, 3)
    assert payloads(world) == [1, 2, 3, 4, 5, 6]
    assert [copy.open for copy in world.engine.statistics()] == [False, True, True]
    world.heal()
    assert world.levels() == [0, 0, 0]
    # The healed copy counts again: now another may fail.
    break_copy(world, 1)
    fill(world, writer, 1)
    assert world.engine.tail("orders") == 7


def test_a_copy_does_not_count_before_it_is_healed(world: World, make_writer: Any) -> None:
    writer = make_writer()
    world.engine.create("orders", 1)
    break_copy(world, 0)
    fill(world, writer, 1)
    break_copy(world, 1)
    with pytest.raises(Ambiguous):
        world.engine.commit([writer.append()])
    with pytest.raises(Ambiguous):
        world.engine.tail("orders")
    world.engine.reopen()
    # The entry in doubt stood in one copy; recovery chose it, and made it a majority's.
    assert world.engine.tail("orders") == 2
    assert payloads(world) == [1, 2]


def test_two_of_three_are_enough_and_one_is_not(world: World, make_writer: Any) -> None:
    writer = make_writer()
    world.engine.create("orders", 1)
    fill(world, writer, 4)
    world.engine.close()
    lost = world.take("/b")
    world.engine = world.open()
    assert payloads(world) == [1, 2, 3, 4]
    fill(world, writer, 1)
    world.engine.close()
    world.take("/c")
    with pytest.raises(StorageError, match="An empty directory is not a copy"):
        world.open()
    # The stale copy is one that is identified: with it there is a majority, and /a knows more.
    world.put(lost)
    world.engine = world.open()
    assert payloads(world) == [1, 2, 3, 4, 5]


def test_the_last_epoch_wins_over_the_longer_chain(world: World, make_writer: Any) -> None:
    writer, deposed = make_writer(), make_writer()
    world.engine.create("orders", 1)
    for each in (writer, deposed):
        each.entry(b"common")
    common = make_writer()
    fill(world, common, 1, b"common")
    # /a alone takes three entries of the deposed writer, whose owner then disappears with it.
    copy = world.engine._set.copies[0]
    assert copy.engine is not None
    for _ in range(3):
        append = deposed.append(b"deposed")
        inner = type(append)("log-1", append.expected_last, append.entry)
        assert copy.engine.commit([inner]) == [None]
    world.engine.close()
    away = world.take("/a")
    world.engine = world.open()
    writer.epoch = 2
    fill(world, writer, 1, b"claim")
    world.engine.close()
    world.put(away)
    world.engine = world.open()
    world.heal()
    assert payloads(world) == [1, 2]
    assert world.engine.read("orders", 2, 1000)[0].data.count(b"claim") == 1
    # The divergent suffix is gone from /a too: it serves alone with /b.
    world.engine.close()
    world.take("/c")
    world.engine = world.open()
    assert world.engine.read("orders", 2, 1000)[0].data.count(b"claim") == 1
    fill(world, writer, 1)


def test_a_deleted_and_recreated_log_is_not_the_old_one(world: World, make_writer: Any) -> None:
    world.engine.create("orders", 1)
    fill(world, make_writer(epoch=9), 5, b"old")
    world.engine.close()
    away = world.take("/a")
    world.engine = world.open()
    world.engine.delete("orders")
    world.engine.create("orders", 1)
    fill(world, make_writer(), 1, b"new")
    world.engine.close()
    world.put(away)
    world.engine = world.open()
    world.heal()
    assert payloads(world) == [1]
    assert world.engine.read("orders", 1, 1000)[0].data.count(b"new") == 1


def test_an_empty_directory_is_adopted_only_when_asked(world: World, make_writer: Any) -> None:
    writer = make_writer()
    world.engine.create("orders", 1)
    fill(world, writer, 20)
    world.engine.trim("orders", 11)
    # The next commit makes the trim durable.
    fill(world, writer, 1)
    world.engine.close()
    replaced = world.take("/c")
    world.engine = world.open()
    assert len(world.engine.statistics()) == 2
    world.engine.close()
    world.engine = world.open(adopt_empty=True)
    world.heal()
    assert [copy.copy_id for copy in world.engine.statistics()] == [0, 1, 3]
    # The new copy carries a majority together with /a.
    fill(world, writer, 1)
    world.engine.close()
    world.take("/b")
    world.engine = world.open()
    assert payloads(world) == list(range(11, 23))
    # The copy that was replaced comes back in place of the new one: it counts no more.
    world.engine.close()
    world.take("/c")
    world.put(replaced)
    with pytest.raises(StorageError, match="1 of 3"):
        world.open()


def test_directories_of_another_set_or_number_are_refused(world: World) -> None:
    world.engine.close()
    other = World()
    other.engine.close()
    stranger = MemoryDisk(random.Random(1))
    foreign = open_replicated_log_engine(
        stranger,
        PATHS,
        "segments",
        run_all=lambda calls: [call() for call in calls],
        new_set_id="x",
    )
    foreign.close()
    world.disk.write_file_atomic("/c/log-copy", stranger.read_file("/c/log-copy"))
    with pytest.raises(StorageError, match="another log"):
        world.open()
    other.disk.make_directory("/d")
    with pytest.raises(StorageError, match="3 copies"):
        other.open([*PATHS, "/d"])
    other.put({"/b/log-copy": other.disk.read_file("/a/log-copy")})
    with pytest.raises(StorageError, match="same copy"):
        other.open()


def test_empty_directories_are_not_made_a_set_unasked() -> None:
    world = World()
    world.engine.close()
    for path in PATHS:
        world.take(path)
    with pytest.raises(StorageError, match="none of the directories"):
        world.open()


def test_damage_in_one_copy_is_read_around_and_healed(world: World, make_writer: Any) -> None:
    writer = make_writer()
    world.engine.create("orders", 1)
    fill(world, writer, 5, b"needle")
    (name,) = world.disk.list("/a/segments")
    data = world.disk.read_file(f"/a/segments/{name}")
    world.disk.flip_bit(f"/a/segments/{name}", 8 * data.index(b"needle"))
    assert payloads(world) == [1, 2, 3, 4, 5]
    # While the copy is known to be damaged it does not count; the two others do.
    fill(world, writer, 1)
    world.heal()
    engine = world.engine._set.copies[0].engine
    assert engine is not None
    assert [entry.lsn for entry in engine.read("log-1", 1, 10**9)] == [1, 2, 3, 4, 5, 6]


def test_crashes_lose_nothing_acknowledged(make_writer: Any) -> None:
    for seed in range(15):
        world = World()
        chance = random.Random(seed)
        writer = make_writer()
        world.engine.create("orders", 1)
        fill(world, writer, 3)
        kept = list(range(1, 4))
        for _ in range(4):
            world.disk.fail_writes_after(chance.randrange(1200))
            try:
                while True:
                    before = (writer.last_lsn, writer.previous_hash)
                    outcome = world.engine.commit([writer.append(b"x" * chance.randrange(200))])
                    assert outcome == [None]
                    kept.append(writer.last_lsn)
            except Ambiguous:
                pass
            world.disk.freeze()
            world.engine.close()
            world.disk.crash()
            world.engine = world.open()
            found = payloads(world)
            assert found in (kept, [*kept, kept[-1] + 1])
            if len(found) == len(kept):
                writer.last_lsn, writer.previous_hash = before
            kept = found
            world.heal()
            assert world.levels() == [0, 0, 0]
        world.engine.close()
