"""Random histories of a global table in two or three regions, and what must always hold.

The world carries log entries from each region to each other as the link does: in their order, in
batches cut anywhere, repeated, late, over connections that break. It keeps what regions tell each
other (``closed``, acknowledged) and computes ``covered`` and horizons from that alone. Checked:

- the version of an item never falls in any region, and a deleted item comes back by a later write
  only, also when its tombstone has been collected;
- when everything has arrived, all regions have, for each item, the newest write there ever was;
- whatever machine is found after a crash goes on as if nothing had been.

Mutants at the end: each takes one safeguard away, and some history must notice.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from millstream.model.versions import NO_VERSION, Version, hlc_at
from millstream.storage.commands import (
    Collect,
    Contended,
    Decide,
    Fill,
    Prepare,
    Promise,
    Replicate,
    Transact,
)
from millstream.tests.storage.regions import TABLE, Region, delete, key_of, put

ITEMS = "abcd"
STEPS = 160
PLAIN = msgspec.structs.replace(TABLE, tombstones=0, group_id=None)
NO_LIMIT = (1 << 63) - 1

WEIGHTS = {
    "write": 8, "transact": 1, "prepare": 1, "decide": 2, "append": 3, "commit": 4, "turn": 2,
    "send": 10, "deliver": 12, "reconnect": 1, "refill": 1, "collect": 4, "tick": 3,
    "flush": 1, "fail": 0.5, "restart": 0.4, "join": 0.5,
}  # fmt: skip


class Message(msgspec.Struct, frozen=True):
    """A batch or a chunk; with it, everything of the origin's up to ``closed`` is told."""

    command: Replicate | Fill
    closed: int


class Link:
    """One region's changes on their way to another."""

    def __init__(self, origin: Region, receiver: Region, speed: float) -> None:
        self.origin = origin
        self.receiver = receiver
        self.source = f"log of {origin.number}"
        #: How often it does anything, when it is its turn.
        self.speed = speed
        #: Counts connections: answers to what came over an earlier one are not heard.
        self.connection = 0
        #: The origin's log has been sent up to here, or is followed from here after filling.
        self.sent = 0
        #: Where the next chunk begins; None: filled.
        self.cursor: bytes | None = b""
        self.queue: list[Message] = []
        #: Whether the first of the queue is being decided.
        self.busy = False
        #: How far batches without effects have come, in the receiver's memory.
        self.noted = 0
        self.open()

    def open(self) -> None:
        """A new connection goes on from what is durable at the receiver."""
        self.connection += 1
        self.queue.clear()
        self.busy = False
        received = self.receiver.state.replica.received.get(self.source)
        if received is None:
            self.refill()
        elif received.cursor is not None:
            self.sent, self.cursor = received.lsn, received.cursor
        else:
            self.sent, self.cursor = max(received.lsn, self.noted), None

    def refill(self) -> None:
        """Begin from scratch, over a new connection."""
        self.connection += 1
        self.queue.clear()
        self.busy = False
        self.sent, self.cursor = self.origin.machine.lsn, b""

    @property
    def at_rest(self) -> bool:
        done = self.cursor is None and self.sent == self.origin.machine.lsn
        return done and not self.queue and not self.busy


class World:
    """Regions, their links, and what they have told each other."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.seed = seed
        self.steps: list[str] = []
        self.regions: list[Region] = []
        self.links: list[Link] = []
        #: (region, other): up to where the region has received everything of the other's.
        self.received: dict[tuple[int, int], int] = {}
        #: (region, other): up to where the other has acknowledged the region's own.
        self.acked: dict[tuple[int, int], int] = {}
        #: Open transactions: (region, name) -> the promise.
        self.promises: dict[tuple[int, str], Promise] = {}
        #: (region, key): its newest version so far, the body then, and whether it was deleted.
        self.newest: dict[tuple[int, bytes], tuple[Version, bytes | None]] = {}
        #: What the second, and the third, of a run would be; some runs begin with one region.
        self.size = rng.choice((2, 3, 3, 3))
        self._begin(rng)

    def _begin(self, rng: random.Random) -> None:
        if rng.random() < 0.5:
            self.join()
        else:
            # The table was written before it became a global one, by a region without a number.
            first = Region(0, PLAIN)
            for sk in ITEMS:
                first.run(put(sk, "before"))
            first.run(delete(rng.choice(ITEMS)))
            first.number, first.table = 1, TABLE
            first.recover()
            self.regions.append(first)
        late = rng.random() < 0.4
        while len(self.regions) < self.size - late:
            self.join()

    # Members.

    def join(self) -> None:
        """One more region; its clock has observed that of the one that invites it."""
        if len(self.regions) == self.size:
            return
        inviter = self.rng.choice(self.regions).clock.last if self.regions else 0
        now_ms = 1000 + self.rng.randrange(300)
        new = Region(len(self.regions) + 1, now_ms=now_ms, last_hlc=inviter)
        speeds = (0.05, 0.3, 1.0, 1.0)
        for old in self.regions:
            self.links.append(Link(old, new, self.rng.choice(speeds)))
            self.links.append(Link(new, old, self.rng.choice(speeds)))
        self.regions.append(new)

    def others(self, region: Region) -> list[Region]:
        return [other for other in self.regions if other is not region]

    def lost_memory(self, region: Region) -> None:
        """What was not durable in ``region`` is gone, and its connections with it."""
        for told in (self.received, self.acked):
            for pair in [pair for pair in told if pair[0] == region.number]:
                del told[pair]
        for link in self.links:
            if link.receiver is region:
                link.noted = 0
            if region in (link.receiver, link.origin):
                link.open()
        for number, name in list(self.promises):
            if number == region.number:
                del self.promises[number, name]
        for name, prepared in region.state.promises.items():
            self.promises[region.number, name] = Promise(prepared.bound, ())

    def horizon(self, region: Region) -> int:
        return min(
            min(
                self.received.get((region.number, other.number), 0),
                self.acked.get((region.number, other.number), 0),
            )
            for other in self.others(region)
        ) if len(self.regions) > 1 else 0

    def covered(self, region: Region) -> dict[int, int]:
        """Up to where ``region`` has everything, for each region."""
        covered = {
            other.number: self.received.get((region.number, other.number), 0)
            for other in self.others(region)
        }
        covered[region.number] = region.machine.closed_timestamp
        return covered

    # Links.

    def send(self, link: Link, all_of_it: bool = False) -> None:
        origin = link.origin
        if link.cursor is not None:
            rows_max = 100 if all_of_it else self.rng.randrange(1, 4)
            command: Fill | Replicate = origin.chunk(
                link.source, link.sent, link.cursor, rows_max, self.covered(origin)
            )
            assert isinstance(command, Fill)
            link.cursor = command.cursor
            link.queue.append(Message(command, 0))
            return
        tail = origin.machine.lsn
        cut = tail if all_of_it else self.rng.randint(link.sent, tail)
        closed = origin.closed_at[cut]
        if cut == tail:
            closed = origin.machine.close_timestamp(origin.now_ms, hlc_at(origin.now_ms) - 1)
        notes = not all_of_it and self.rng.random() < 0.2
        command = Replicate(link.source, cut, self.sent(origin, link.sent + 1, cut), notes)
        link.sent = cut
        link.queue.append(Message(command, closed))

    def sent(self, origin: Region, first_lsn: int, last_lsn: int) -> tuple[Any, ...]:
        return origin.sent(first_lsn, last_lsn)

    def deliver(self, link: Link, repeats: bool = True) -> None:
        if link.busy or not link.queue:
            return
        message, connection = link.queue[0], link.connection
        pair = link.receiver.number, link.origin.number
        link.busy = True

        def answered(answer: Any) -> None:
            if connection != link.connection:
                return
            link.busy = False
            if isinstance(answer, Contended):
                return
            if not repeats or self.rng.random() < 0.9:
                link.queue.pop(0)
            if isinstance(message.command, Replicate):
                link.noted = max(link.noted, message.command.lsn)
            self.received[pair] = max(self.received.get(pair, 0), message.closed)
            if not repeats or self.rng.random() < 0.8:
                back = pair[::-1]
                self.acked[back] = max(self.acked.get(back, 0), message.closed)

        link.receiver.propose(message.command, answered)

    # Steps.

    def step(self) -> None:
        rng = self.rng
        (kind,) = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
        region = rng.choice(self.regions)
        links = [link for link in self.links if rng.random() < link.speed]
        self.steps.append(f"{kind} {region.number}")
        match kind:
            case "send" | "deliver" | "reconnect" | "refill":
                if links:
                    self.step_link(kind, rng.choice(links))
            case "join":
                self.join()
            case "tick":
                for each in self.regions:
                    each.now_ms += rng.randrange(20)
            case _:
                self.step_region(kind, region)
        for each in self.regions:
            self.check(each)

    def step_link(self, kind: str, link: Link) -> None:
        self.steps[-1] = f"{kind} {link.origin.number} -> {link.receiver.number}"
        match kind:
            case "send":
                self.send(link)
            case "deliver":
                self.deliver(link)
            case "reconnect":
                link.open()
            case "refill":
                link.refill()

    def write(self) -> Any:
        sk = self.rng.choice(ITEMS)
        if self.rng.random() < 0.4:
            return delete(sk)
        return put(sk, self.rng.choice("xyz"))

    def step_region(self, kind: str, region: Region) -> None:
        rng = self.rng
        match kind:
            case "write":
                region.propose(self.write())
            case "transact" | "prepare":
                actions = {write.key: write for write in (self.write(), self.write())}
                if kind == "transact":
                    region.propose(Transact(tuple(actions.values())))
                    return
                name = f"t{len(self.steps)}"

                def promised(answer: Any) -> None:
                    if isinstance(answer, Promise):
                        self.promises[region.number, name] = answer

                region.propose(Prepare(name, tuple(actions.values())), promised)
            case "decide":
                self.decide(region)
            case "append":
                region.append()
            case "commit":
                region.commit()
            case "turn":
                region.turn()
            case "collect":
                start = rng.choice((b"", b"", key_of(rng.choice(ITEMS))))
                rows_max = rng.randrange(1, 5)
                region.propose(Collect(self.horizon(region), start, None, rows_max))
            case "flush":
                region.flush()
            case "fail":
                region.fail(rng.random() < 0.5, rng)
                self.lost_memory(region)
            case "restart":
                region.restart(rng)
                self.lost_memory(region)

    def decide(self, region: Region) -> None:
        """End one open transaction of ``region``; it may end twice, if a crash undoes the end."""
        for number, name in self.promises:
            if number == region.number:
                promise = self.promises[number, name]
                commits = self.rng.random() < 0.7
                region.propose(
                    Decide(name, promise.bound if commits else None),
                    lambda _answer, place=(number, name): self.promises.pop(place, None),
                )
                return

    # What must hold.

    def check(self, region: Region) -> None:
        for sk in ITEMS:
            key = key_of(sk)
            row, version = region.row(key), region.version(key)
            body = None if row is None else row.body
            known, had = self.newest.get((region.number, key), (NO_VERSION, None))
            if version == NO_VERSION:
                # A tombstone that was collected; what is known of it stays.
                collected = had is None and known.hlc <= region.state.replica.horizon
                assert known == NO_VERSION or collected, f"{sk} was lost in {region.number}"
                continue
            assert version >= known, f"{sk} fell back in {region.number}"
            if version == known and body is not None:
                assert body == had, f"{sk} came back in {region.number}"
            self.newest[region.number, key] = version, body
        if region.state.table.tombstones:
            assert region.totals() == region.recount()

    def settle(self) -> None:
        """Everything is decided and delivered."""
        for region in self.regions:
            region.turn()
            while any(number == region.number for number, _ in self.promises):
                self.decide(region)
                region.turn()
            region.now_ms += 10_000
        for _ in range(60):
            for link in self.links:
                if not link.queue and not link.at_rest:
                    self.send(link, all_of_it=True)
                for _ in range(len(link.queue)):
                    self.deliver(link, repeats=False)
                    link.receiver.turn()
                    self.check(link.receiver)
            if all(link.at_rest for link in self.links):
                return
        raise AssertionError("regions keep each other busy")

    def expected(self) -> dict[bytes, tuple[Version, bytes]]:
        """The newest write of each item, from the logs of the regions where they were made."""
        newest: dict[bytes, tuple[Version, bytes | None]] = {}
        for region in self.regions:
            for effect in region.effects():
                version = Version(effect.hlc, region.number)
                is_own = effect.region in (0, region.number)
                if is_own and (effect.base_hlc, effect.base_region) != (effect.hlc, region.number):
                    newest[effect.key] = max(
                        newest.get(effect.key, (NO_VERSION, None)),
                        (version, effect.body),
                        key=lambda each: each[0],
                    )
        return {
            key: (version, body) for key, (version, body) in newest.items() if body is not None
        }

    def check_end(self) -> None:
        expected = self.expected()
        for region in self.regions:
            assert region.rows() == expected, f"region {region.number} differs"
        for sk in ITEMS:
            key = key_of(sk)
            versions = [region.tombstones().get(key, NO_VERSION) for region in self.regions]
            for region, version in zip(self.regions, versions, strict=True):
                if version != max(versions):
                    assert max(versions).hlc <= region.state.replica.horizon

    def check_collection(self) -> None:
        """When all know of all that nothing is missing, no tombstone is left."""
        for link in self.links:
            self.send(link, all_of_it=True)
            self.deliver(link, repeats=False)
            link.receiver.turn()
        for region in self.regions if len(self.regions) > 1 else []:
            region.run(Collect(self.horizon(region), b"", None, 100))
            assert region.tombstones() == {}
            self.check(region)

    def run(self) -> World:
        for _ in range(STEPS):
            self.step()
        self.settle()
        self.check_end()
        return self


@pytest.mark.parametrize("part", range(8))
def test_regions_agree_and_nothing_comes_back(part: int) -> None:
    for seed in range(part * 25, part * 25 + 25):
        world = World(seed)
        try:
            world.run()
            world.check_collection()
            world.check_end()
        except AssertionError as error:
            error.add_note(f"seed {seed}: {', '.join(world.steps)}")
            raise
        if seed % 25 == 0:
            for region in world.regions:
                if region.log and region.records()[0]:
                    region.check_replay()
