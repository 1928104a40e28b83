"""``make powercut``: the power fails, at every moment that a real server's trace has.

A real server runs under strace with writers on it, is killed in the middle, started again, and
stopped. Its writes and syncs are then played on a model of the disk (``disk_model``) up to a random
moment; an image is made of what the disk may hold at that moment, with what was not synced dropped,
kept or torn by coin toss; and a node is opened on the image. It must open, hold every write whose
answer had begun to leave by then, nothing half-written, and indexes equal to their table.

A test that cannot fail proves nothing: afterwards the same trace is played without the log's syncs,
and without the tree's, and that must show losses. docs/powercut.md says what the model promises.
"""

from __future__ import annotations

import argparse
import collections
import functools
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

# The limits come first: what is imported later copies them.
from . import small_limits
from .child import Crashed, run_in_child
from .crash import working_folder
from .disk_model import COINS, JOURNAL, STRICT, DiskModel
from .inspect_node import inspect
from .load import Key, State, Step, Writer, create_table, run_writers
from .replay import FORGETTABLE, LOG, TREE, Connection, Player
from .server import Server
from .trace import Moment, command, read_trace, wait_complete

WRITERS = 4
HOW_TO_INSTALL = "powercut needs strace, which is not installed: apt-get install strace"

#: The engines, and the rule for names that each is held to: docs/powercut.md says why.
RULES = {"leveldb": JOURNAL, "segments": STRICT}


class Recording(msgspec.Struct):
    """A server's life: the moments of its two phases, and what its writers know."""

    root: str
    engine: str
    phases: list[list[Moment]]
    steps: list[list[Step]]
    table_port: int
    #: What the directory held when the first phase was killed and when the second had stopped.
    contents: tuple[Path, Path]


class Finding(msgspec.Struct):
    """What came of one way to play a recording."""

    engine: str
    rule: str
    forget: str | None
    images: int = 0
    #: Images made with something in doubt.
    doubtful: int = 0
    lost: int = 0
    refused: int = 0
    crashed: int = 0
    acknowledged: int = 0
    examples: list[str] = []

    @property
    def bad(self) -> int:
        """Images that did not come up as they must."""
        return self.lost + self.refused + self.crashed


def record(folder: Path, engine: str, seed: int, writes: int) -> Recording:
    """Run a server of small limits under strace: killed once, then stopped."""
    root = folder / "disk"
    root.mkdir()
    beliefs: list[dict[Key, list[State]]] = [{} for _ in range(WRITERS)]
    steps: list[list[Step]] = [[] for _ in range(WRITERS)]
    phases = []
    table_port = 0
    arguments = ["--data", str(root / "data"), "--log-engine", engine]
    contents = (folder / "killed", folder / "stopped")
    for phase in range(2):
        trace = folder / f"trace-{phase}"
        tracer = command(trace)
        server = Server(arguments, folder / "server.log", small=True, tracer=tracer)
        server.start()
        process_id = server.process_id
        try:
            if phase == 0:
                table_port = create_table(server.endpoint)
            writers = run_writers(
                functools.partial(_writer, server.endpoint, seed, beliefs, steps, phase, writes),
                WRITERS,
            )
            if phase == 0:
                while all(each.acknowledged < writes for each in writers):
                    time.sleep(0.01)
                server.kill()
            for each in writers:
                each.join()
                assert not each.wrong, each.wrong
            if phase == 1:
                assert server.stop() == 0
        finally:
            server.kill()
        wait_complete(trace, process_id)
        shutil.copytree(root, contents[phase])
        phases.append(read_trace(trace, process_id))
        trace.unlink()
    return Recording(str(root), engine, phases, steps, table_port, contents)


def _writer(
    endpoint: str,
    seed: int,
    beliefs: list[dict[Key, list[State]]],
    steps: list[list[Step]],
    phase: int,
    writes: int,
    number: int,
) -> Writer:
    return Writer(
        number,
        endpoint,
        seed,
        beliefs[number],
        threading.Event(),
        phase=phase,
        steps=steps[number],
        # The first phase is killed while everybody still writes.
        writes_max=writes if phase else None,
    )


def play_to_the_end(recording: Recording, rule: str) -> int:
    """How many moments there are at which to cut; checks that the model saw all that happened."""
    model = DiskModel(rule)
    player = Player(model, recording.root)
    count = 0
    for moments, contents in zip(recording.phases, recording.contents, strict=True):
        player.next_phase()
        for moment in moments:
            count += player.play(moment)
        if contents is recording.contents[0]:
            model.adopt(contents)
        differences = [line for line in model.differences(contents) if "lock.mdb" not in line]
        assert not differences, f"the trace does not explain the files: {differences}"
    return count


def possible_states(
    recording: Recording, answers: dict[Connection, int]
) -> tuple[dict[Key, list[State]], int]:
    """What each key may be when ``answers`` had begun to leave, and how many writes that were."""
    possible: dict[Key, list[State]] = {}
    acknowledged = 0
    for steps in recording.steps:
        for step in steps:
            answered = answers.get((step.phase, step.port), 0)
            if step.nth > answered or step.took is False:
                # Not sent yet: a writer waits for each answer.
                for key in step.states:
                    possible.setdefault(key, [None])
                continue
            is_certain = step.nth < answered and step.took is True
            acknowledged += is_certain and bool(step.states)
            for key, state in step.states.items():
                before = possible.get(key, [None])
                possible[key] = [state] if is_certain else [*before, state]
    return possible, acknowledged


def cut(
    recording: Recording,
    folder: Path,
    images: int,
    seed: int,
    *,
    rule: str,
    forget: str | None = None,
    stop_after: int | None = None,
) -> Finding:
    """Make and open ``images`` images; ``stop_after`` so many bad ones it is enough.

    With ``forget``, the first third of the server's life is as it was, and all cuts lie behind it.
    """
    finding = Finding(recording.engine, rule, forget)
    total = play_to_the_end(recording, rule)
    first = 1 if forget is None else total // 3
    draw = random.Random(f"{seed}/{recording.engine}/{rule}/{forget}")
    waiting = collections.deque(sorted(draw.randrange(first, total + 1) for _ in range(images)))
    model = DiskModel(rule)
    player = Player(model, recording.root)
    count = 0
    for phase, moments in enumerate(recording.phases):
        player.next_phase()
        for moment in moments:
            count += player.play(moment)
            if count == first:
                player.forget = forget
            while waiting and waiting[0] == count:
                waiting.popleft()
                coin = COINS[finding.images % len(COINS)]
                _try_image(recording, player, folder, coin, draw, finding, f"cut {count}/{total}")
                if stop_after is not None and finding.bad >= stop_after:
                    return finding
                _show(finding, images)
        if phase == 0:
            model.adopt(recording.contents[0])
    return finding


def _try_image(
    recording: Recording,
    player: Player,
    folder: Path,
    coin: str,
    draw: random.Random,
    finding: Finding,
    label: str,
) -> None:
    image = folder / "image"
    shutil.rmtree(image, ignore_errors=True)
    player.model.write_image(image, coin, draw)
    possible, acknowledged = possible_states(recording, player.answers)
    table_is_certain = player.answers.get((0, recording.table_port), 0) > 0
    finding.images += 1
    finding.doubtful += any(player.model.doubts())
    finding.acknowledged = max(finding.acknowledged, acknowledged)
    try:
        wrong = run_in_child(
            functools.partial(
                inspect,
                image / "data",
                recording.engine,
                possible,
                table_is_certain=table_is_certain,
            )
        )
    except Crashed as error:
        finding.crashed += 1
        wrong = [f"the node crashed: {error}"]
    else:
        finding.refused += any("refused to open" in line for line in wrong)
        finding.lost += bool(wrong) and not any("refused to open" in line for line in wrong)
    if wrong and len(finding.examples) < 5:
        finding.examples.append(f"{label}, {coin}: {wrong[0]}")
        if finding.forget is None:
            shutil.copytree(image, folder / f"image-{finding.images}", dirs_exist_ok=True)


def _show(finding: Finding, images: int) -> None:
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        print(
            f"\r  {_name(finding):<34} {finding.images:4}/{images} images, {finding.bad} bad ",
            end="",
            flush=True,
        )


def _name(finding: Finding) -> str:
    if finding.forget is None:
        return f"{finding.engine}, names {finding.rule}"
    return f"{finding.engine} without syncs of the {finding.forget}"


def print_table(findings: Sequence[Finding]) -> None:
    """The counts of every play, and examples of what was wrong."""
    print()
    print(
        f"{'played':<36}{'images':>7}{'in doubt':>10}{'acknowledged':>14}{'lost':>6}{'refused':>9}"
        f"{'crashed':>9}  verdict"
    )
    for finding in findings:
        if finding.forget is None:
            verdict = "FAILED" if finding.bad else "nothing lost"
        else:
            verdict = "noticed, as it must" if finding.bad else "FAILED: not noticed"
        print(
            f"{_name(finding):<36}{finding.images:>7}{finding.doubtful:>10}"
            f"{finding.acknowledged:>14,}{finding.lost:>6}{finding.refused:>9}"
            f"{finding.crashed:>9}  {verdict}"
        )
    for finding in findings:
        for line in finding.examples if finding.forget is None else finding.examples[:1]:
            print(f"  {_name(finding)}: {line[-600:]}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 1 if anything was lost, or if a missing sync was not noticed."""
    parser = argparse.ArgumentParser(prog="powercut", description="cut the power on a model disk")
    parser.add_argument("--images", type=int, default=200, help="images for each engine")
    parser.add_argument("--writes", type=int, default=150, help="for each writer and phase")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--log", action="append", choices=sorted(RULES), help="only this engine")
    parser.add_argument("--rule", choices=(STRICT, JOURNAL), help="hold every engine to this rule")
    parser.add_argument(
        "--without-sync",
        choices=FORGETTABLE,
        help="play only this: all syncs of the log, the tree or the names left out; losses are "
        "then what must be found, and the exit code says 1 for them",
    )
    found = parser.parse_args(arguments)
    if shutil.which("strace") is None:
        print(HOW_TO_INSTALL, file=sys.stderr)
        return 3
    assert small_limits.ARGUMENTS
    print(f"the power fails at {found.images} moments, seed {found.seed}")
    findings: list[Finding] = []
    for engine in found.log or sorted(RULES):
        rule = found.rule or RULES[engine]
        keep: list[bool] = []
        with working_folder(keep) as folder:
            recording = record(folder, engine, found.seed, found.writes)
            moments = sum(map(len, recording.phases))
            print(f"  {engine}: recorded {moments:,} moments of a server's life", flush=True)
            play = functools.partial(cut, recording, folder, rule=rule)
            if found.without_sync is not None:
                findings.append(play(found.images, found.seed, forget=found.without_sync))
                keep.append(False)
                continue
            findings.append(play(found.images, found.seed))
            keep.append(findings[-1].bad > 0)
            for forget in (LOG, TREE):
                findings.append(play(found.images, found.seed, forget=forget, stop_after=5))
    print_table(findings)
    if found.without_sync is not None:
        return 1 if any(finding.bad for finding in findings) else 0
    return (
        1 if any((finding.bad > 0) != (finding.forget is not None) for finding in findings) else 0
    )


if __name__ == "__main__":
    sys.exit(main())
