"""One simulated computer: what survives a crash of it, and what the node on it may touch.

Owned by one ``SimulatedNode``. The storage underneath (the log engine, the tree store, the disk)
outlives the node; each start gets *doors* to it, which stop working for good when the machine
crashes or the node is closed: a node that is being cancelled runs its ``finally`` blocks, a crashed
one does not, so nothing behind a shut door may change (DESIGN.md section 10, trap 6).

What happens to a crash's unsynced bytes is the twins' business (``MemoryLogEngine.crash``,
``MemoryDisk.crash``, ``MemoryStore.crash``). This module decides what was under way at that
moment: a call waiting in a thread has not begun, has written and not synced, or is done.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

import trio

from ..errors import StorageError
from ..host.clock import Clock
from ..host.host import Host
from ..host.memory_disk import MemoryDisk
from ..storage.log.interface import CopyEngine
from ..storage.log.memory import MemoryLogEngine
from ..storage.log.segments import SegmentsLogEngine
from ..storage.tree.memory_store import MemoryStore
from .doors import LogDoor, PowerCut, StoreDoor
from .options import NO_FAULTS, Faults

R = TypeVar("R")
START_MS = 1_700_000_000_000


class SimulatedClock:
    """A wall clock that is off and jumps when told to, over the world's common time."""

    __slots__ = ("offset_ms", "rate")

    def __init__(self, offset_ms: int, rate: float) -> None:
        self.offset_ms = offset_ms
        self.rate = rate

    def now_ms(self) -> int:
        return max(0, int(START_MS + self.offset_ms + trio.current_time() * 1000 * self.rate))

    def now_seconds(self) -> float:
        return self.now_ms() / 1000

    def monotonic_seconds(self) -> float:
        return trio.current_time() * self.rate

    def seconds_until(self, at_ms: int) -> float:
        return max(0.0, (at_ms - self.now_ms()) / 1000 / self.rate)

    def when_moved(self, tell: Callable[[], None]) -> Callable[[], None]:
        # Whoever waits looks again when the time has come.
        return lambda: None


class SimulatedEntropy:
    """Bytes from the seed."""

    __slots__ = ("_rng",)

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def token_bytes(self, count: int) -> bytes:
        return self._rng.randbytes(count)


class _Call:
    """A blocking call on its way to a thread."""

    __slots__ = ("run",)

    def __init__(self, run: Callable[[], object]) -> None:
        self.run = run


class SimulatedThreads:
    """Runs a call in one piece, some time after it was asked for, and answers some time later.

    So every commit and flush interleaves with whatever the loop does meanwhile. Like the real one
    it never abandons a call: cancelling takes effect afterwards.
    """

    __slots__ = ("_machine",)

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    async def run(self, function: Callable[..., R], *args: object) -> R:
        await trio.lowlevel.checkpoint_if_cancelled()
        machine = self._machine
        call = _Call(lambda: function(*args))
        machine.waiting.append(call)
        try:
            with trio.CancelScope(shield=True):
                await trio.sleep(machine.latency())
        finally:
            if call in machine.waiting:
                machine.waiting.remove(call)
        try:
            return function(*args)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(machine.latency())


class Machine:
    """See the module's text."""

    def __init__(
        self, rng: random.Random, log_kind: str, segment_bytes: int, note: Callable[..., None]
    ) -> None:
        self._rng = rng
        self._segment_bytes = segment_bytes
        #: Tells the world's trace.
        self.note = note
        self.faults: Faults = NO_FAULTS
        self.disk = MemoryDisk(rng)
        self._memory_log = MemoryLogEngine(rng) if log_kind == "memory" else None
        #: The tree store as the current start has it.
        self.store = MemoryStore()
        self.clock = SimulatedClock(rng.randint(-100_000, 100_000), rng.uniform(0.999, 1.001))
        #: The engine beneath the current doors.
        self.engine: CopyEngine
        #: Which start the current doors belong to; a door of another is shut.
        self.life = 0
        self.crashed = False
        #: Calls that wait for their thread.
        self.waiting: list[_Call] = []
        #: Disk operations left until the machine crashes; None: it does not.
        self.bomb: int | None = None
        #: Called once at the moment of a crash.
        self.on_crash: Callable[[], None] = lambda: None
        #: Log id -> every entry trimmed from it, by LSN: the checkers' memory, not the node's.
        self.archive: dict[str, dict[int, bytes]] = {}
        #: The same, whole, of every log that was removed.
        self.removed: dict[str, dict[int, bytes]] = {}
        # What happened, for the report.
        self.crashes = 0
        self.failed_syncs = 0
        self.slow_calls = 0

    def host(self) -> Host:
        """What the node is given."""
        clock: Clock = self.clock
        entropy = SimulatedEntropy(random.Random(self._rng.random()))
        return Host(clock, entropy, self.disk, SimulatedThreads(self))

    # Starting and crashing.

    def boot(self) -> tuple[LogDoor, StoreDoor]:
        """Doors to what is there now. The node before must have ended."""
        self.life += 1
        if self.crashed:
            self.disk.crash()
            if self._memory_log is not None:
                self._memory_log.crash()
            self.crashed = False
        self.store = self.store.crash(self._rng)
        if self._memory_log is not None:
            self._memory_log.reopen()
            self.engine = self._memory_log
        else:
            create = not self.disk.exists("/log/made")
            self.disk.make_directory("/log")
            self.engine = SegmentsLogEngine(
                self.disk, "/log", create=create, segment_bytes=self._segment_bytes
            )
            if create:
                self.disk.write_file_atomic("/log/made", b"")
        return LogDoor(self, self.engine), StoreDoor(self, self.store)

    def crash(self) -> None:
        """Stop everything at once. What was waiting for a thread may have got half way."""
        if self.crashed:
            return
        self.crashes += 1
        self.bomb = None
        for call in self.waiting:
            if self._rng.random() < 0.5:
                self.interrupt(call.run)
        self.waiting.clear()
        self.crashed = True
        self.disk.freeze()
        self.note("crash")
        self.on_crash()

    def interrupt(self, call: Callable[[], object]) -> None:
        """Run ``call`` as far as writing, without its sync."""
        self._arm_sync_failures()
        faults, self.faults = self.faults, NO_FAULTS
        try:
            call()
        except (StorageError, OSError):
            pass
        self.faults = faults

    def _arm_sync_failures(self) -> None:
        if self._memory_log is not None:
            self._memory_log.fail_next_sync()
        self.disk.fail_next_sync()
        self.store.on_commit = self._fail_commit

    def _fail_commit(self) -> None:
        self.store.on_commit = None
        raise StorageError("the tree's sync failed, as was asked for")

    # For doors and threads.

    def latency(self) -> float:
        """How long the next thing takes, in seconds."""
        rng, faults = self._rng, self.faults
        seconds = rng.expovariate(1 / faults.latency_seconds)
        if faults.slow_call and rng.random() < faults.slow_call:
            self.slow_calls += 1
            seconds *= 100
        return seconds

    def touch(self, life: int, changing: Callable[[], object] | None = None) -> None:
        """Before each disk operation: it may be refused, or be the last one."""
        if self.crashed or life != self.life:
            raise PowerCut
        if self.bomb is not None:
            self.bomb -= 1
            if self.bomb <= 0:
                self.bomb = None
                if changing is not None and self._rng.random() < 0.5:
                    self.interrupt(changing)
                self.crash()
                raise PowerCut

    def maybe_fail_log_sync(self) -> None:
        """Let the commit that follows fail, by toss."""
        rate = self.faults.log_sync_failure
        if rate and self._rng.random() < rate:
            self.failed_syncs += 1
            self.note("log sync fails")
            if self._memory_log is not None:
                self._memory_log.fail_next_sync()
            else:
                self.disk.fail_next_sync()

    def maybe_fail_tree_sync(self) -> None:
        """Let the tree's write that follows fail, by toss."""
        rate = self.faults.tree_sync_failure
        if rate and self._rng.random() < rate:
            self.failed_syncs += 1
            self.note("tree sync fails")
            self.store.on_commit = self._fail_commit
