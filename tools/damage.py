"""``make damage``: bits flip and files are cut, in every kind of file that a data directory has.

A small real directory is made once per setting: rows in the tree, in its indexes, and a log whose
end lies beyond what the tree holds. Then, again and again, a copy of it is damaged in one place,
and a node is opened on the copy and everything is read. What may come of it:

========  ==========================================================================================
refused   the node does not open, and says why
error     reading raises Corrupt
scrub     reading does not notice, but ``millstream scrub`` does (structural damage of the tree: a
          row that no search finds any more; also when following it ended the process)
tail      the log ends earlier than it did, above what the tree holds, and everything before is
          right: what was cut off leaves no trace where there is no other copy
harmless  everything is exactly right
========  ==========================================================================================

Anything else is **wrong**: an item that was never so, one that is missing, a defect's traceback.
"""

from __future__ import annotations

import argparse
import collections
import functools
import random
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import trio

# The limits come first: what is imported later copies them.
from . import small_limits
from .child import Crashed, run_in_child
from .crash import working_folder
from .load import GLOBAL_INDEX, LOCAL_INDEX, TABLE, Item, Key, State, check_indexes, key_of

# isort: split
from ..actors.data_directory import open_node
from ..actors.node import Node, NodeSettings
from ..api.credentials import NAMESPACE_DEFAULT
from ..cli.scrub import EXIT_DAMAGED, walk
from ..errors import Corrupt, StorageError, WrongFormat
from ..model.schema import KeyAttribute, KeySchema, NewIndex, NewTable, Projection
from ..model.values import decode_item, encode_item, item_size_bytes
from ..storage.commands import Command, Delete, Put
from ..storage.indexes import primary_key
from .inspect_node import leaves
from .load import checksum_of, key_members

SETTINGS = ("leveldb", "segments", "segments x 3")
FLIP, CUT, REMOVE = "flip", "cut", "remove"
ALLOWED = ("refused", "error", "scrub", "tail", "harmless")
INDEX_SECONDS_MAX = 5.0
#: Until nothing changes in a directory that nobody writes to.
REST_SECONDS = 30.0
# The flusher acts when it is told, not by the clock.
NODE_SETTINGS = NodeSettings(flush_interval_seconds=3600.0)


class Victim(msgspec.Struct):
    """A data directory with its history: what each write made of its key."""

    setting: str
    folder: Path
    history: list[tuple[Key, State]]
    #: How many of the writes are in the tree.
    flushed: int
    files: list[str]

    @property
    def engine(self) -> str:
        return self.setting.partition(" x ")[0]

    def log_directories(self, folder: Path) -> tuple[str, ...]:
        """Those of a copy in ``folder``; none if the log has one copy."""
        count = int(self.setting.partition(" x ")[2] or 0)
        return tuple(str(folder / f"copy-{number}") for number in range(count))

    def items_after(self, count: int) -> dict[Key, Item]:
        """The table after ``count`` writes."""
        items: dict[Key, Item] = {}
        for key, state in self.history[:count]:
            items.pop(key, None)
            if state is not None:
                items[key] = state
        return items


class Sample(msgspec.Struct, frozen=True):
    """One damage: ``at`` is an offset in bytes, ``bit`` which of its bits is flipped."""

    file: str
    kind: str
    at: int = 0
    bit: int = 0

    def apply(self, folder: Path) -> None:
        """Damage the copy in ``folder``."""
        path = folder / self.file
        if self.kind == REMOVE:
            path.unlink()
            return
        with path.open("r+b") as file:
            if self.kind == CUT:
                file.truncate(self.at)
                return
            file.seek(self.at)
            byte = file.read(1)[0]
            file.seek(self.at)
            file.write(bytes((byte ^ 1 << self.bit,)))


def make_victim(folder: Path, setting: str, seed: int, *, writes: int = 240) -> Victim:
    """A directory as a SIGKILL leaves it: most of its writes flushed, the last in the log only."""
    victim = Victim(setting, folder / "victim", [], 0, [])
    living = folder / "living"
    living.mkdir()

    async def live() -> None:
        async with open_node(
            str(living / "data"),
            NODE_SETTINGS,
            log_engine=victim.engine,
            log_directories=victim.log_directories(living),
        ) as node:
            await _fill(node, victim, random.Random(f"{seed}/{setting}"), writes)
            await _copy_at_rest(living, victim.folder)

    trio.run(live)
    shutil.rmtree(living)
    found = (path for path in victim.folder.rglob("*") if path.is_file())
    victim.files = sorted(str(path.relative_to(victim.folder)) for path in found)
    return victim


async def _copy_at_rest(living: Path, copy: Path) -> None:
    """Copy a directory as it is at one moment: LevelDB compacts whenever it likes."""

    def look() -> dict[Path, tuple[int, int]]:
        files = [path for path in living.rglob("*") if path.is_file()]
        return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}

    with trio.fail_after(REST_SECONDS):
        while True:
            try:
                before = look()
                shutil.copytree(living, copy)
                if look() == before:
                    return
            except (FileNotFoundError, shutil.Error):
                # A file went away meanwhile.
                pass
            shutil.rmtree(copy, ignore_errors=True)
            await trio.sleep(0.05)


async def _fill(node: Node, victim: Victim, draw: random.Random, writes: int) -> None:
    def text(name: str) -> KeyAttribute:
        return KeyAttribute(name, "S")

    owner, rank = text("owner"), KeyAttribute("rank", "N")
    await node.tables.create(
        NewTable(
            NAMESPACE_DEFAULT,
            TABLE,
            KeySchema((owner,), (KeyAttribute("number", "N"),)),
            {"owner": "S", "number": "N", "group": "S", "rank": "N"},
            local_indexes=(
                NewIndex(LOCAL_INDEX, KeySchema((owner,), (rank,)), Projection("KEYS_ONLY")),
            ),
            global_indexes=(
                NewIndex(GLOBAL_INDEX, KeySchema((text("group"),)), Projection("ALL")),
            ),
        )
    )
    await node.tables.wait_active(NAMESPACE_DEFAULT, TABLE)
    ref = node.tables.find(NAMESPACE_DEFAULT, TABLE)
    assert ref is not None
    for count in range(writes):
        if count == writes - 20:
            for builder in node.index_builders():
                await builder.caught_up()
            await node.flusher.flush()
            victim.flushed = count
        key = (f"owner {count % 5}" + " long" * 120 * (count % 31 == 7), draw.randrange(60))
        item: Item = {
            **key_members(key),
            "serial": {"N": str(count)},
            "body": {"S": draw.randbytes(draw.choice((20, 100, 400, 1500))).hex()},
            "group": {"S": f"group {count % 7}"},
            "rank": {"N": str(count % 11)},
        }
        item["checksum"] = {"S": checksum_of(item)}
        tree_key = primary_key(ref.table, item)
        removes = draw.random() < 0.15
        command: Command = (
            Delete(tree_key)
            if removes
            else Put(tree_key, encode_item(item), item_size_bytes(item))
        )
        await ref.write(command)
        victim.history.append((key, None if removes else item))
    for builder in node.index_builders():
        await builder.caught_up()


def draw_sample(victim: Victim, draw: random.Random) -> Sample:
    """Any file, each as likely; any place in it that is not behind its last byte but zero."""
    name = draw.choice(victim.files)
    data = (victim.folder / name).read_bytes()
    used = len(data.rstrip(b"\0"))
    kind = draw.choice((FLIP, FLIP, FLIP, CUT, CUT, REMOVE)) if used else draw.choice((CUT, REMOVE))
    if kind == FLIP:
        return Sample(name, FLIP, draw.randrange(used), draw.randrange(8))
    if kind == CUT:
        return Sample(name, CUT, draw.randrange(max(1, used)))
    return Sample(name, REMOVE)


def try_sample(victim: Victim, sample: Sample, folder: Path) -> tuple[str, str]:
    """What came of one damage: one of ``ALLOWED`` or "wrong", and its reason."""
    copy = folder / "copy"
    _damaged_copy(victim, sample, copy)
    try:
        outcome, reason = run_in_child(functools.partial(_read_all, victim, copy))
    except Crashed as error:
        outcome, reason = "wrong", f"the process was {error}"
    if outcome == "tail" and not _may_lose_tail(victim, sample, int(reason)):
        outcome, reason = "wrong", f"{reason} writes are missing at the end"
    if outcome != "wrong":
        return outcome, reason
    _damaged_copy(victim, sample, copy)
    try:
        exit_code = run_in_child(functools.partial(_scrub, victim, copy))
    except Crashed as error:
        # The scrubbing parent says so in the same words (see ``cli.scrub``).
        return ("scrub" if "ended by SIG" in str(error) else "wrong"), f"{reason}; {error}"
    return ("scrub" if exit_code == EXIT_DAMAGED else "wrong"), reason


def _damaged_copy(victim: Victim, sample: Sample, copy: Path) -> None:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(victim.folder, copy)
    sample.apply(copy)


def _may_lose_tail(victim: Victim, sample: Sample, lost: int) -> bool:
    """A cut may take any number of writes that only the log had; a flipped bit only the last."""
    is_log = sample.file.startswith("data/log/")
    return is_log and (lost <= 1 or sample.kind != FLIP)


def _scrub(victim: Victim, copy: Path) -> int:
    return walk(str(copy / "data"), victim.log_directories(copy))


def _read_all(victim: Victim, copy: Path) -> tuple[str, str]:
    """Open, wait for the index, read every row of every tree; runs in a child."""
    try:
        return trio.run(_read_node, victim, copy)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        found = list(leaves(error))
        reason = "; ".join(f"{type(leaf).__name__}: {leaf}" for leaf in found)
        if all(isinstance(leaf, StorageError) for leaf in found):
            return "refused", reason
        return "wrong", reason


async def _read_node(victim: Victim, copy: Path) -> tuple[str, str]:
    async with open_node(
        str(copy / "data"),
        NODE_SETTINGS,
        log_engine=victim.engine,
        log_directories=victim.log_directories(copy),
    ) as node:
        ref = node.tables.find(NAMESPACE_DEFAULT, TABLE)
        if ref is None:
            return "wrong", "the table is gone"
        with trio.move_on_after(INDEX_SECONDS_MAX) as waited:
            await node.tables.wait_active(NAMESPACE_DEFAULT, TABLE)
            for builder in node.index_builders():
                await builder.caught_up()
        if waited.cancelled_caught:
            return "wrong", "the index does not catch up"

        def rows(index: str | None) -> list[Item]:
            return [decode_item(row.body) for _, row in ref.rows(index, b"", None)]

        try:
            items = rows(None)
            by_group, by_rank = rows(GLOBAL_INDEX), rows(LOCAL_INDEX)
        except (Corrupt, WrongFormat) as error:
            return "error", str(error)
        return _compare(victim, items, by_group, by_rank)


def _compare(
    victim: Victim, items: list[Item], by_group: list[Item], by_rank: list[Item]
) -> tuple[str, str]:
    found = {key_of(item): item for item in items}
    if len(found) != len(items):
        return "wrong", "an item is there twice"
    differing = check_indexes(items, by_group, by_rank)
    if differing:
        return "wrong", differing[0]
    for lost in range(len(victim.history) - victim.flushed + 1):
        if found == victim.items_after(len(victim.history) - lost):
            return ("tail", str(lost)) if lost else ("harmless", "")
    return "wrong", f"{len(found)} items that are no moment of its history"


def file_kind(name: str) -> str:
    """The kind of a file, for the table: numbers in names do not matter."""
    path = Path(name)
    if path.suffix in (".log", ".ldb", ".segment"):
        return f"{path.parent.name} *{path.suffix}"
    return path.name.partition("-0")[0]


class Tally:
    """How many samples of each kind of file came to what."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], collections.Counter[str]] = {}
        self.wrong: list[str] = []

    def add(self, setting: str, sample: Sample, outcome: str, reason: str) -> None:
        counter = self.counts.setdefault((setting, file_kind(sample.file)), collections.Counter())
        counter[outcome] += 1
        if outcome not in ALLOWED:
            self.wrong.append(f"{setting}: {sample}: {reason[-700:]}")

    def print(self) -> None:
        """The table, and everything that went wrong."""
        heads = "".join(f"{name:>10}" for name in (*ALLOWED, "wrong"))
        print(f"\n{'log':<14}{'file':<22}{heads}")
        for (setting, kind), counter in sorted(self.counts.items()):
            cells = "".join(f"{counter[name] or '':>10}" for name in (*ALLOWED, "wrong"))
            print(f"{setting:<14}{kind:<22}{cells}")
        for line in self.wrong[:20]:
            print(f"  {line}")


def run(folder: Path, setting: str, samples: int, seed: int, tally: Tally) -> None:
    """Try ``samples`` damages of one setting."""
    home = folder / setting.replace(" ", "")
    home.mkdir()
    victim = make_victim(home, setting, seed)
    whole = run_in_child(functools.partial(_read_all, victim, _copied(victim, home / "whole")))
    assert whole == ["harmless", ""], f"the victim is not well before: {whole}"
    scrubbed = run_in_child(functools.partial(_scrub, victim, _copied(victim, home / "scrubbed")))
    assert scrubbed == 0, f"scrub is not content with the victim: {scrubbed}"
    draw = random.Random(f"{seed}/{setting}/samples")
    for _ in range(samples):
        sample = draw_sample(victim, draw)
        outcome, reason = try_sample(victim, sample, home)
        tally.add(setting, sample, outcome, reason)


def _copied(victim: Victim, target: Path) -> Path:
    shutil.copytree(victim.folder, target)
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 1 if anything came out wrong."""
    parser = argparse.ArgumentParser(prog="damage", description="flip bits and cut files")
    parser.add_argument("--samples", type=int, default=2000, help="in all")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--log", action="append", choices=SETTINGS, help="only this log")
    found: Any = parser.parse_args(arguments)
    assert small_limits.ARGUMENTS
    settings = found.log or SETTINGS
    print(f"{found.samples} damages, seed {found.seed}", flush=True)
    tally = Tally()
    with working_folder([]) as folder:
        for setting in settings:
            run(folder, setting, found.samples // len(settings), found.seed, tally)
    tally.print()
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    # By its own name, so that a child process finds its functions.
    from . import damage

    sys.exit(damage.main())
