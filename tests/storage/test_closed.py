"""The closed timestamp: at or below it, this region proposes nothing any more."""

from __future__ import annotations

import random

import pytest

from millstream.model.versions import hlc_at
from millstream.storage.commands import Decide, Prepare, Promise, Replicate, Transact
from millstream.tests.storage.regions import Region, arrival, delete, key_of, put

STEPS = (
    "write", "write", "transact", "prepare", "decide", "arrive", "append", "commit", "turn",
    "tick", "tell", "tell", "flush", "fail", "restart",
)  # fmt: skip


def later_versions(region: Region, lsn: int) -> list[int]:
    """Versions of what this region wrote behind ``lsn``."""
    return [effect.hlc for effect in region.effects(lsn + 1) if effect.region == region.number]


def test_an_idle_region_closes_what_is_past() -> None:
    # Or tombstones everywhere would wait for a region that has nothing to write.
    region = Region(1)
    region.now_ms = 9000
    closed = region.machine.close_timestamp(region.now_ms, hlc_at(region.now_ms) - 1)
    assert closed == hlc_at(9000) - 1
    region.run(put("a", "x"))
    assert region.version(key_of("a")).hlc > closed


def test_nothing_is_closed_beyond_what_is_under_way() -> None:
    region = Region(1)
    region.run(put("a", "x"))
    for step in ("proposed", "in flight"):
        region.propose(put("a", step))
        if step == "in flight":
            region.append()
        later_ms = region.now_ms + 1000
        closed = region.machine.close_timestamp(later_ms, hlc_at(later_ms))
        region.turn()
        assert region.version(key_of("a")).hlc > closed


def test_a_transaction_keeps_open_what_may_pass_it() -> None:
    region = Region(1)
    promise = region.run(Prepare("t", (put("a", "t"), put("b", "t"))))
    assert isinstance(promise, Promise)
    region.now_ms = 9000
    region.run(put("c", "x"))
    closed = region.machine.close_timestamp(region.now_ms, hlc_at(region.now_ms) - 1)
    lsn = len(region.log)
    region.run(put("a", "passing"))
    region.run(Decide("t", promise.bound))
    assert closed < min(later_versions(region, lsn)) < promise.bound
    # It is over: the present is closed again.
    assert region.machine.close_timestamp(region.now_ms, hlc_at(region.now_ms) - 1) >= hlc_at(9000)


def test_the_end_of_a_transaction_is_open_until_it_is_applied() -> None:
    region = Region(1)
    promise = region.run(Prepare("t", (put("a", "t"),)))
    region.now_ms = 9000
    region.propose(Decide("t", promise.bound))
    closed = region.machine.close_timestamp(region.now_ms, hlc_at(region.now_ms) - 1)
    region.append()
    assert region.machine.close_timestamp(region.now_ms, hlc_at(region.now_ms) - 1) == closed
    region.turn()
    assert region.version(key_of("a")).hlc > closed


def test_a_restart_keeps_the_promise() -> None:
    # The hybrid clock may be ahead of the wall clock, since it follows other regions; a promise
    # that is nowhere in the log must not be, or writes after the restart lie below it.
    region = Region(1)
    region.run(Replicate("other", 1, (arrival("z", "x", hlc_at(5000), 2),)))
    limit = hlc_at(region.now_ms) - 1
    told = max(region.machine.close_timestamp(region.now_ms, limit) for _ in range(100))
    region.restart(random.Random(0))
    told = max(told, region.machine.close_timestamp(region.now_ms, hlc_at(region.now_ms) - 1))
    region.run(put("a", "x"))
    assert region.version(key_of("a")).hlc > told


@pytest.mark.parametrize("seed", range(40))
def test_nothing_is_proposed_at_or_below_what_was_closed(seed: int) -> None:
    """Random histories: writes, transactions left open, arrivals, failures, restarts."""
    rng = random.Random(seed)
    region = Region(1)
    open_transactions: dict[str, Promise] = {}
    #: (LSN of the log then, what was closed).
    told: list[tuple[int, int]] = []
    for step in range(120):
        sk = rng.choice("abcd")
        write = put(sk, str(step)) if rng.random() < 0.7 else delete(sk)
        match rng.choice(STEPS):
            case "write":
                region.propose(write)
            case "transact":
                region.propose(Transact((write, put("e", str(step)))))
            case "prepare":
                name = f"t{step}"

                def promised(answer: object, name: str = name) -> None:
                    if isinstance(answer, Promise):
                        open_transactions[name] = answer

                region.propose(Prepare(name, (write,)), promised)
            case "decide":
                if open_transactions:
                    name, promise = open_transactions.popitem()
                    commits = rng.random() < 0.7
                    region.propose(Decide(name, promise.bound if commits else None))
            case "arrive":
                hlc = hlc_at(region.now_ms + rng.randrange(-50, 50))
                region.propose(Replicate("other", step, (arrival(sk, "there", hlc, 2),)))
            case "append":
                region.append()
            case "commit":
                region.commit()
            case "turn":
                region.turn()
            case "tick":
                region.now_ms += rng.randrange(30)
            case "tell":
                # What the log has, and no more, was sent with it.
                lsn = len(region.log)
                closed = region.machine.close_timestamp(region.now_ms, hlc_at(region.now_ms) - 1)
                assert closed >= region.machine.closed_timestamp
                told.append((lsn, closed))
            case "flush":
                region.flush()
            case "fail" if rng.random() < 0.3:
                region.fail(rng.random() < 0.5, rng)
            case "restart" if rng.random() < 0.3:
                region.restart(rng)
    region.turn()
    assert told
    for lsn, closed in told:
        assert all(hlc > closed for hlc in later_versions(region, lsn))
