"""Rows of a conflicts table: whatever was lost, a row tells of it and fits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from millstream.globaltables.conflict_rows import (
    Conflict,
    conflicts_of,
    item_text,
    row_of,
    version_text,
)
from millstream.limits import ITEM_SIZE_BYTES_MAX
from millstream.model.keys import encode_component, table_key
from millstream.model.python_values import to_item
from millstream.model.schema import KeyAttribute, KeySchema, Partition, Status, Table
from millstream.model.values import encode_item, item_size_bytes
from millstream.model.versions import Version
from millstream.storage.log.entry import ZERO_HASH, EntryHeader, encode_entry
from millstream.storage.records import Effect, Record, encode_records

TABLE = Table(
    namespace="",
    name="orders",
    table_id="orders",
    status=Status.ACTIVE,
    created_ms=0,
    key=KeySchema((KeyAttribute("pk", "S"),), (KeyAttribute("sk", "N"),)),
    attribute_kinds={"pk": "S", "sk": "N"},
    tree=4,
    partitions=(Partition("log", 0, 1),),
)


def stored(pk: str = "a") -> bytes:
    return table_key(encode_component("S", {"S": pk}), encode_component("N", {"N": "1"}))


def image(**attributes: object) -> bytes:
    return encode_item(to_item({"pk": "a", "sk": 1, **attributes}))


def effect(
    body: bytes | None, hlc: int, base: int, *, beat: bool = False, resolves: bool = False
) -> Effect:
    return Effect(
        1, stored(), body, 1, hlc, 1 if resolves else 2, old=image(v=0), base_hlc=base,
        base_region=1, beat=beat, resolves=resolves,
    )  # fmt: skip


def entry(*records: Record) -> bytes:
    header = EntryHeader(
        epoch=1, writer_nonce=1, lsn=1, timestamp=9 << 16, previous_hash=ZERO_HASH
    )
    return encode_entry(header, encode_records(records))


def test_a_write_of_a_users_behind_a_conflict_is_no_resolution() -> None:
    beaten, users = effect(image(v=1), 5, 4, beat=True), effect(image(v=2), 6, 5)
    (conflict,) = conflicts_of(entry(users, beaten, users))
    assert conflict.outcome == "winner"
    assert conflict.lost_version == Version(4, 1)
    assert conflict.won_version == Version(5, 2)


def test_what_a_policy_made_stands_behind_its_conflict() -> None:
    beaten = effect(image(v=1), 5, 4, beat=True)
    for body, outcome in ((image(v=0), "kept"), (image(v=2), "resolved"), (None, "resolved")):
        (conflict,) = conflicts_of(entry(beaten, effect(body, 6, 5, resolves=True)))
        assert conflict.outcome == outcome
        row = row_of(conflict, TABLE, str)
        assert ("resolved" in row) == (outcome == "resolved" and body is not None)


images = st.none() | st.just(b"") | st.builds(
    lambda sizes: image(**{f"a{n}": "x" * size for n, size in enumerate(sizes)}),
    st.lists(st.integers(0, 399_000), max_size=40).filter(lambda sizes: sum(sizes) < 399_000),
)


@given(images, images)
def test_every_conflict_has_a_row_that_fits(lost: bytes | None, won: bytes | None) -> None:
    conflict = Conflict(stored(), lost, Version(5 << 16, 1), won, Version(6 << 16, 2), None)
    row = row_of(conflict, TABLE, str)
    assert item_size_bytes(row) <= ITEM_SIZE_BYTES_MAX
    whole = {name: body for name, body in (("lost", lost), ("won", won)) if body}
    left_out = "left_out" in row
    for name, body in whole.items():
        assert left_out or encode_item(row[name]["M"]) == body
    assert row["key"] == {"M": {"pk": {"S": "a"}, "sk": {"N": "1"}}}


def test_many_attributes_that_do_not_fit_are_counted() -> None:
    large = image(**{f"a{n}": "x" * 9_000 for n in range(40)})
    conflict = Conflict(stored(), large, Version(5, 1), large, Version(6, 2), None)
    names = [each["S"] for each in row_of(conflict, TABLE, str)["left_out"]["L"]]
    assert len(names) == 20
    assert names[0].startswith("won.a")
    assert names[-1].startswith("and ")


@given(st.tuples(st.integers(0, 1 << 60), st.integers(0, 1 << 60)))
def test_versions_as_text_are_in_their_order(hlcs: tuple[int, int]) -> None:
    # Up to the year 9999, which the dates end with.
    one, other = (Version(hlc % (253_402_300_799_000 << 16), 1) for hlc in hlcs)
    assert (version_text(one) < version_text(other)) == (one < other)


def test_long_keys_are_cut_and_stay_apart() -> None:
    texts = {item_text(to_item({"pk": "é" * 1000 + end})) for end in "ab"}
    assert len(texts) == 2
    assert all(len(text.encode()) <= 2048 for text in texts)
