"""What comes from other regions, example by example, on one machine without any I/O."""

from __future__ import annotations

import msgspec

from millstream.errors import TransactionConflict
from millstream.model.values import Item, decode_item
from millstream.model.versions import NO_VERSION, Version, hlc_at
from millstream.storage.commands import (
    Collect,
    Contended,
    Decide,
    Fill,
    Prepare,
    Promise,
    Replicate,
    Replicated,
)
from millstream.storage.log.entry import decode_entry
from millstream.storage.records import Effect, Received, TombstonesDropped, decode_records
from millstream.storage.rows import decode_row
from millstream.streams.definition import Shard, Stream
from millstream.streams.records import changes_of
from millstream.tests.storage.regions import (
    LOCAL,
    PK,
    TABLE,
    TOMBSTONES,
    Region,
    arrival,
    delete,
    key_of,
    put,
)

#: Later than every local write of these tests, whose clock shows 1000 ms, and earlier.
LATER, EARLIER = hlc_at(5000), hlc_at(10)
A = key_of("a")
NOBODY = Version(0, 0)


def replicate(lsn: int, *arrivals: object, source: str = "other", notes: bool = False) -> Replicate:
    return Replicate(source, lsn, arrivals, notes)  # type: ignore[arg-type]


def value(region: Region, sk: str = "a") -> str | None:
    """What the item holds."""
    row = region.row(key_of(sk))
    return None if row is None else decode_item(row.body)["a"]["S"]


# Versions decide.


def test_the_later_write_wins_whichever_comes_first() -> None:
    region = Region(1)
    region.run(put("a", "here"))
    # Written before: arrives late and is dropped.
    assert region.run(replicate(1, arrival("a", "old", EARLIER, 2))) == Replicated(0)
    assert value(region) == "here"
    assert region.run(replicate(2, arrival("a", "new", LATER, 2))) == Replicated(1)
    assert value(region) == "new"
    assert region.version(A) == Version(LATER, 2)


def test_a_tie_is_won_by_the_higher_region_number() -> None:
    for first, second in ((2, 3), (3, 2)):
        region = Region(1)
        for lsn, number in enumerate((first, second), 1):
            region.run(replicate(lsn, arrival("a", f"of {number}", LATER, number)))
        assert value(region) == "of 3"


def test_a_write_after_an_arrival_is_later_than_it() -> None:
    # Whoever writes here has seen what came, however far ahead the other clock was.
    region = Region(1)
    region.run(replicate(1, arrival("a", "there", LATER, 2)))
    region.run(put("a", "here"))
    assert region.version(A) > Version(LATER, 2)


def test_a_deletion_of_what_is_not_here_beats_an_older_put_that_comes_later() -> None:
    # The put is of a third region, whose log is slower.
    region = Region(1)
    assert region.run(replicate(1, arrival("a", None, LATER, 2))) == Replicated(1)
    assert region.tombstones() == {A: Version(LATER, 2)}
    assert region.run(replicate(1, arrival("a", "x", LATER - 1, 3), source="c")) == Replicated(0)
    assert value(region) is None


def test_a_local_deletion_leaves_a_tombstone_too() -> None:
    region = Region(1)
    region.run(put("a", "x"))
    region.run(delete("a"))
    assert list(region.tombstones()) == [A]
    assert region.run(replicate(1, arrival("a", "old", EARLIER, 2))) == Replicated(0)
    assert value(region) is None


def test_a_put_after_a_tombstone_removes_it() -> None:
    # Here or there: an item is a row or a tombstone, never both.
    region = Region(1)
    region.run(replicate(1, arrival("a", None, LATER, 2), arrival("b", None, LATER, 2)))
    region.run(replicate(2, arrival("a", "x", LATER + 1, 2)))
    region.run(put("b", "y"))
    assert region.tombstones() == {}
    assert region.totals()[TOMBSTONES] == (0, 0, 0)
    assert [value(region, sk) for sk in "ab"] == ["x", "y"]


def test_tombstones_are_counted() -> None:
    region = Region(1)
    region.run(put("a", "x"))
    for command in (
        delete("a"),
        delete("a"),
        delete("b"),
        replicate(1, arrival("a", None, LATER, 2), arrival("c", None, LATER, 2)),
        put("b", "y"),
        Collect(LATER, b"", None, 10),
    ):
        region.run(command)
        assert region.totals() == region.recount()
    assert region.totals()[TOMBSTONES] == (0, 0, 0)


def test_a_silent_write_carries_its_version() -> None:
    # The body is the same; whoever is older must lose against it all the same.
    region = Region(1)
    region.run(replicate(1, arrival("a", "x", LATER, 2)))
    assert region.run(replicate(2, arrival("a", "x", LATER + 9, 2))) == Replicated(1)
    assert region.effects()[-1].silent
    assert region.version(A) == Version(LATER + 9, 2)
    assert region.run(replicate(1, arrival("a", "y", LATER + 5, 3), source="c")) == Replicated(0)


def test_rows_from_before_the_region_had_a_number_are_its_own() -> None:
    # Version 0 in a row is this region: neither older than all others, nor foreign.
    region = Region(0, msgspec.structs.replace(TABLE, tombstones=0, group_id=None))
    region.run(put("a", "x"))
    region.number, region.table = 3, TABLE
    region.recover()
    version = region.version(A)
    assert version.region == 3 and region.row(A).region == 0  # type: ignore[union-attr]
    assert region.run(replicate(1, arrival("a", "y", version.hlc, 2))) == Replicated(0)
    beaten = region.run(replicate(2, arrival("a", "z", version.hlc, 4, NOBODY)))
    assert beaten == Replicated(1, 1)


# Batches and positions.


def test_effects_and_position_are_in_one_entry() -> None:
    region = Region(1)
    before = len(region.log)
    region.run(replicate(7, arrival("a", "x", LATER, 2), arrival("b", "y", LATER, 2)))
    (entry,) = region.log[before:]
    kinds = [type(record) for record in decode_records(decode_entry(entry)[1])]
    assert kinds == [Effect, Effect, Received]
    assert region.state.replica.received == {"other": Received("other", 7)}
    assert region.state.replica.heard == {2: LATER}


def test_a_repeated_batch_changes_nothing() -> None:
    region = Region(1)
    command = replicate(7, arrival("a", "x", LATER, 2))
    region.run(command)
    before = len(region.log)
    assert region.run(command) == Replicated(0)
    # Also when it is known by its versions only: the position was of another connection.
    assert region.run(msgspec.structs.replace(command, lsn=8)) == Replicated(0)
    assert len(region.log) == before
    assert region.state.replica.received["other"].lsn == 7


def test_a_repeated_batch_is_acknowledged_when_the_first_is_durable() -> None:
    # Otherwise the origin believes in something that a crash may still undo.
    region = Region(1)
    command = replicate(7, arrival("a", "x", LATER, 2))
    region.propose(command)
    region.append()
    by_position = region.propose(command)
    by_version = region.propose(msgspec.structs.replace(command, lsn=8))
    region.append()
    assert by_position.answers == by_version.answers == []
    region.turn()
    assert by_position.answer == by_version.answer == Replicated(0)


def test_a_batch_without_effects_is_written_only_if_asked_for() -> None:
    # Two idle regions would keep each other's logs growing for ever.
    region = Region(1)
    before = len(region.log)
    assert region.run(replicate(7)) == Replicated(0)
    assert len(region.log) == before
    assert region.run(replicate(7, notes=True)) == Replicated(0)
    assert region.records(before + 1) == [Received("other", 7)]


def test_several_arrivals_on_one_key_see_each_other() -> None:
    region = Region(1)
    chain = (
        arrival("a", "x", LATER, 2, NOBODY),
        arrival("a", "y", LATER + 1, 2, Version(LATER, 2)),
        arrival("a", None, LATER + 2, 2, Version(LATER + 1, 2)),
        arrival("a", "z", LATER + 3, 2, Version(LATER + 2, 2)),
        arrival("a", "late", LATER + 1, 3, NOBODY),
    )
    assert region.run(replicate(7, *chain)) == Replicated(4)
    assert value(region) == "z"
    bases = [effect.base_hlc for effect in region.effects()]
    assert bases == [0, LATER, LATER + 1, LATER + 2]
    assert region.tombstones() == {}
    assert region.totals() == region.recount()


def test_arrivals_see_what_is_pending_here() -> None:
    region = Region(1)
    region.run(put("a", "x"))
    deletion = region.propose(delete("a"))
    # Older than the deletion, which is proposed and not yet in the tree.
    asker = region.propose(replicate(1, arrival("a", "old", EARLIER, 2)))
    region.turn()
    assert deletion.answers and asker.answer == Replicated(0)
    assert value(region) is None


def test_own_changes_that_come_back_are_known() -> None:
    region = Region(1)
    region.run(put("a", "x"))
    (echo,) = region.sent(1, len(region.log))
    assert region.run(replicate(1, echo)) == Replicated(0)


# Transactions.


def prepared(region: Region, *commands: object) -> Promise:
    promise = region.run(Prepare("t", commands))  # type: ignore[arg-type]
    assert isinstance(promise, Promise)
    return promise


def test_an_item_that_a_transaction_holds_delays_the_batch() -> None:
    region = Region(1)
    promise = prepared(region, put("b", "mine"))
    before = len(region.log)
    command = replicate(1, arrival("a", "x", LATER, 2), arrival("b", "y", LATER, 2))
    assert region.run(command) == Contended()
    # Nothing of it stays behind: neither effects nor positions, committed or pending.
    assert len(region.log) == before and not region.state.pending
    assert region.state.replica.receiving("other") is None
    region.run(Decide("t", promise.bound))
    assert region.run(command) == Replicated(2)
    assert [value(region, sk) for sk in "ab"] == ["x", "y"]


def test_a_chunk_waits_for_transactions_too() -> None:
    # For those of its items, and for those that it might remove.
    region = Region(1)
    prepared(region, put("b", "mine"))
    fill = Fill("other", 5, None, b"", None, {2: LATER}, (arrival("b", "y", LATER, 2),))
    assert region.run(fill) == Contended()
    region.run(Decide("t", None))
    region.run(fill)
    prepared(region, put("b", "mine"))
    assert region.run(msgspec.structs.replace(fill, arrivals=())) == Contended()
    assert not region.state.pending


def test_a_write_that_passes_a_transaction_is_later_than_a_tombstone() -> None:
    # What passed before is remembered by the machine, but a new one knows the log only.
    region = Region(1)
    prepared(region, put("a", "transaction"))
    region.run(delete("a"))
    region.run(delete("a"))
    deleted = region.version(A)
    region.recover()
    region.run(put("a", "x"))
    assert region.version(A) > deleted


def test_a_write_that_may_not_pass_a_transaction_is_refused() -> None:
    region = Region(1)
    promise = region.run(
        Prepare("t", (msgspec.structs.replace(put("a", "x"), version=NO_VERSION),))
    )
    assert isinstance(promise, Promise)
    assert isinstance(region.run(put("a", "y")), TransactionConflict)


# Conflicts.


def test_a_conflict_is_found_where_the_write_lost() -> None:
    one, two = Region(1), Region(2)
    two.now_ms = 2000
    one.run(put("a", "one"))
    two.run(put("a", "two"))
    to_two, to_one = one.sent(1, len(one.log)), two.sent(1, len(two.log))
    assert one.run(replicate(2, *to_one)) == Replicated(1, 1)
    assert one.effects()[-1].beat
    assert two.run(replicate(2, *to_two)) == Replicated(0)


def test_a_write_that_had_seen_ours_is_no_conflict() -> None:
    region = Region(1)
    region.run(put("a", "x"))
    seen = region.version(A)
    chain = (
        arrival("a", "y", LATER, 2, seen),
        arrival("a", "z", LATER + 1, 2, Version(LATER, 2)),
    )
    assert region.run(replicate(1, *chain)) == Replicated(2)


def test_a_conflict_is_found_once() -> None:
    # The second write of the chain beats the first one, which is not of this region.
    region = Region(1)
    region.run(put("a", "x"))
    chain = (
        arrival("a", "y", LATER, 2, NOBODY),
        arrival("a", "z", LATER + 1, 2, Version(LATER, 2)),
    )
    assert region.run(replicate(1, *chain)) == Replicated(2, 1)
    assert [effect.beat for effect in region.effects()] == [False, True, False]


def test_a_deletion_here_can_lose_as_well() -> None:
    region = Region(1)
    region.run(put("a", "x"))
    seen = region.version(A)
    region.run(delete("a"))
    assert region.run(replicate(1, arrival("a", "y", LATER, 2, seen))) == Replicated(1, 1)


def test_rows_of_a_chunk_beat_nobody() -> None:
    # What they replaced is not known.
    region = Region(1)
    region.run(put("a", "x"))
    fill = Fill("other", 5, None, b"", None, {}, (arrival("a", "y", LATER, 2),))
    assert region.run(fill) == Replicated(1, 0)


def join(loser: Item | None, winner: Item | None) -> Item | None:
    """A policy that keeps both."""
    texts = sorted("-" if item is None else item["a"]["S"] for item in (loser, winner))
    known = winner or loser
    assert known is not None
    return {**known, "a": {"S": "+".join(texts)}}


def test_a_policys_outcome_is_one_more_write_on_top_of_both() -> None:
    region = Region(1, resolve=join)
    region.run(put("a", "mine"))
    before = len(region.log)
    assert region.run(replicate(1, arrival("a", "yours", LATER, 2, NOBODY))) == Replicated(1, 1, 1)
    assert value(region) == "mine+yours"
    won, resolved = region.effects(before + 1)
    assert (won.hlc, won.region, won.beat) == (LATER, 2, True)
    assert resolved.hlc > LATER and resolved.region == 1
    assert (resolved.base_hlc, resolved.base_region) == (LATER, 2)
    # It goes to the others like any write of this region, and has seen theirs.
    other = Region(2)
    other.run(replicate(1, arrival("a", "yours", LATER, 2, NOBODY)))
    assert other.run(replicate(2, *region.sent(1, len(region.log)))) == Replicated(1)
    assert value(other) == "mine+yours"


def test_a_policy_that_takes_the_winner_writes_nothing() -> None:
    for winner in ("yours", None):
        region = Region(1, resolve=lambda _loser, winner: winner)
        region.run(put("a", "mine"))
        lost = region.run(replicate(1, arrival("a", winner, LATER, 2, NOBODY)))
        assert lost == Replicated(1, 1, 0)
        assert value(region) == winner
        assert region.version(A) == Version(LATER, 2)


def test_a_policy_may_delete_and_may_bring_back() -> None:
    region = Region(1, resolve=lambda _loser, _winner: None)
    region.run(put("a", "mine"))
    region.run(replicate(1, arrival("a", "yours", LATER, 2, NOBODY)))
    assert value(region) is None and region.version(A).region == 1
    region = Region(1, resolve=lambda loser, _winner: loser)
    region.run(put("a", "mine"))
    region.run(replicate(1, arrival("a", None, LATER, 2, NOBODY)))
    assert value(region) == "mine" and region.tombstones() == {}


def test_a_policy_is_asked_once_for_a_chain() -> None:
    # What came behind the winner lost against the outcome: its own region finds that conflict.
    region = Region(1, resolve=join)
    region.run(put("a", "mine"))
    chain = (
        arrival("a", "y", LATER, 2, NOBODY),
        arrival("a", "z", LATER + 1, 2, Version(LATER, 2)),
    )
    assert region.run(replicate(1, *chain)) == Replicated(1, 1, 1)
    other = Region(2, resolve=join)
    other.run(replicate(1, *(msgspec.structs.replace(each, base_hlc=-1) for each in chain)))
    assert other.run(replicate(2, *region.sent(1, len(region.log)))) == Replicated(1, 1, 1)
    assert value(other) == "mine+y+z"


# Filling.


def fill(covered: dict[int, int], *arrivals: object, cursor: bytes | None = None) -> Fill:
    return Fill("other", 5, cursor, b"", cursor, covered, arrivals)  # type: ignore[arg-type]


def test_what_is_absent_and_covered_goes() -> None:
    # Own or foreign: the other region had it, and it is gone there.
    region = Region(1)
    region.run(put("a", "mine"))
    region.run(replicate(1, arrival("b", "of 3", EARLIER, 3), source="c"))
    mine = region.version(A)
    assert region.run(fill({1: mine.hlc, 3: EARLIER})) == Replicated(0)
    assert region.rows() == {}
    # At the version of the row itself: whatever is newer still comes in.
    assert region.tombstones() == {A: mine, key_of("b"): Version(EARLIER, 3)}
    assert region.totals() == region.recount()


def test_what_is_absent_and_not_covered_stays() -> None:
    region = Region(1)
    region.run(put("a", "mine"))
    region.run(replicate(1, arrival("b", "of 3", EARLIER, 3), source="c"))
    covered = {1: region.version(A).hlc - 1, 3: EARLIER - 1}
    region.run(fill(covered))
    assert len(region.rows()) == 2
    region.run(fill({}))
    assert len(region.rows()) == 2


def test_a_chunk_speaks_of_its_own_stretch_of_keys() -> None:
    region = Region(1)
    for sk in "abc":
        region.run(put(sk, "mine"))
    covered = {1: region.clock.last}
    region.run(Fill("other", 5, key_of("c"), key_of("b"), key_of("c"), covered, ()))
    assert [value(region, sk) for sk in "abc"] == ["mine", None, "mine"]


def test_a_pending_write_outlives_a_chunk() -> None:
    # Its version is later than anything covered, though the row in the tree is not.
    region = Region(1)
    region.run(put("a", "old"))
    covered = {1: region.version(A).hlc}
    region.propose(put("a", "new"))
    region.run(fill(covered))
    assert value(region) == "new"


def test_what_a_filling_removed_is_not_sent() -> None:
    # It lies below what this region has said to be closed, and would be dropped everywhere.
    region = Region(1)
    region.run(put("a", "mine"))
    before = len(region.log)
    region.run(fill({1: region.version(A).hlc}))
    assert len(region.effects(before + 1)) == 1
    assert region.sent(before + 1, len(region.log)) == ()


def test_a_filling_goes_on_where_it_was() -> None:
    region = Region(1)
    region.run(fill({}, arrival("a", "x", LATER, 2), cursor=key_of("b")))
    region.recover()
    assert region.state.replica.received == {"other": Received("other", 5, key_of("b"))}
    region.run(Fill("other", 5, None, key_of("b"), None, {}, ()))
    assert region.state.replica.received == {"other": Received("other", 5)}


def test_batches_are_taken_from_where_the_filling_began() -> None:
    region = Region(1)
    region.run(fill({}))
    assert region.run(replicate(5, arrival("a", "x", LATER, 2))) == Replicated(0)
    assert region.run(replicate(6, arrival("a", "x", LATER, 2))) == Replicated(1)


# Collecting.


def test_only_tombstones_at_or_below_the_horizon_are_collected() -> None:
    region = Region(1)
    region.run(replicate(1, *(arrival(sk, None, LATER + at, 2) for at, sk in enumerate("abc"))))
    assert region.run(Collect(LATER + 1, b"", None, 10)).count == 2
    assert region.tombstones() == {key_of("c"): Version(LATER + 2, 2)}
    assert region.state.replica.horizon == LATER + 1


def test_what_was_deleted_does_not_come_back_when_its_tombstone_is_gone() -> None:
    region = Region(1)
    region.run(replicate(1, arrival("a", None, LATER, 2)))
    region.run(Collect(LATER, b"", None, 10))
    late = arrival("a", "x", LATER - 1, 3)
    assert region.run(replicate(1, late, source="c")) == Replicated(0)
    assert region.run(fill({}, late)) == Replicated(0)
    # Nor after a restart, from the log or from a position.
    region.flush()
    region.recover()
    assert region.run(replicate(2, late, source="c")) == Replicated(0)
    assert region.rows() == {}


def test_a_tombstone_that_changes_meanwhile_is_not_collected() -> None:
    region = Region(1)
    region.run(delete("a"))
    old = region.version(A)
    region.propose(delete("a"))
    asker = region.propose(Collect(old.hlc, b"", None, 10))
    region.turn()
    assert asker.answer.count == 0
    collected = region.propose(Collect(region.version(A).hlc, b"", None, 10))
    region.propose(delete("a"))
    region.turn()
    assert collected.answer.count == 1
    # The later one is written behind it in the same entry.
    assert list(region.tombstones()) == [A]
    assert region.totals() == region.recount()


def test_collecting_goes_on_in_parts() -> None:
    region = Region(1)
    region.run(replicate(1, *(arrival(sk, None, LATER, 2) for sk in "abcde")))
    cursor: bytes | None = b""
    counts = []
    while cursor is not None:
        collected = region.run(Collect(LATER, cursor, None, 2))
        counts.append(collected.count)
        cursor = collected.cursor
    assert counts == [2, 2, 1]


def test_nothing_to_collect_writes_nothing() -> None:
    region = Region(1)
    before = len(region.log)
    assert region.run(Collect(LATER, b"", None, 10)).count == 0
    assert len(region.log) == before


# What follows: indexes, streams, recovery.


def test_indexes_follow() -> None:
    region = Region(1)
    region.run(put("a", "x"))
    region.run(put("b", "y"))
    before = len(region.log)
    region.run(
        replicate(
            1,
            arrival("a", "z", LATER, 2),
            arrival("b", None, LATER, 2),
            arrival("a", "w", LATER + 1, 2),
        )
    )
    entries = {key: decode_row(key, data) for key, data in region.btree.range(LOCAL, b"", None)}
    assert [decode_item(row.body)["a"]["S"] for row in entries.values()] == ["w"]
    assert [row.version for row in entries.values()] == [Version(LATER + 1, 2)]
    # Global ones are fed from the log, which says what was there before: x, y, z.
    old_keys = [effect.old_index_keys for effect in region.effects(before + 1)]
    for text, keys in zip("xyz", old_keys, strict=True):
        assert keys is not None and text.encode() in next(iter(keys.values()))


STREAM = Stream(
    "", "t", "t", "label", "NEW_AND_OLD_IMAGES", TABLE.key, 0, 1, None, (Shard("s", "log", 1),)
)


def test_a_stream_shows_what_arrived() -> None:
    region = Region(1)
    before = len(region.log)
    region.run(
        replicate(
            1,
            arrival("a", "x", LATER, 2),
            arrival("a", "y", LATER + 1, 2),
            # Silent: only the version is new, or nothing was there.
            arrival("a", "y", LATER + 2, 2),
            arrival("b", None, LATER, 2),
            arrival("a", None, LATER + 3, 2),
        )
    )
    changes = changes_of(STREAM, region.log[before], before + 1, 0)
    assert [change.kind for change in changes] == ["INSERT", "MODIFY", "REMOVE"]
    shown = [
        [None if body is None else decode_item(body)["a"]["S"] for body in (change.old, change.new)]
        for change in changes
    ]
    assert shown == [[None, "x"], ["x", "y"], ["y", None]]
    assert PK.name in TABLE.key.names()


def test_a_stream_shows_what_a_policy_decided_and_what_a_filling_removed() -> None:
    region = Region(1, resolve=join)
    region.run(put("a", "mine"))
    before = len(region.log)
    region.run(replicate(1, arrival("a", "yours", LATER, 2, NOBODY)))
    region.run(Fill("other", 5, None, b"", None, {1: region.clock.last}, ()))
    kinds = [
        change.kind
        for lsn, entry in enumerate(region.log[before:], before + 1)
        for change in changes_of(STREAM, entry, lsn, 0)
    ]
    assert kinds == ["MODIFY", "MODIFY", "REMOVE"]


def test_replay_ends_in_the_same_state_from_every_position() -> None:
    region = Region(1, resolve=join)
    for command in (
        put("a", "x"),
        put("b", "x"),
        replicate(1, arrival("a", "y", LATER, 2, NOBODY), arrival("c", None, LATER, 3)),
        delete("b"),
        replicate(2, notes=True),
        fill({1: region.clock.last}, arrival("d", "z", LATER, 2), cursor=key_of("e")),
        Fill("other", 5, None, key_of("e"), None, {}, ()),
        Prepare("t", (put("b", "t"), put("f", "t"))),
        Collect(LATER, b"", None, 1),
        put("b", "passing"),
        delete("f"),
        Decide("t", hlc_at(6000)),
        replicate(9, arrival("f", "w", 2 * LATER, 3), source="c"),
        Collect(2 * LATER, b"", None, 10),
        delete("a"),
    ):
        region.run(command)
    assert any(isinstance(record, TombstonesDropped) for record in region.records())
    region.check_replay()
