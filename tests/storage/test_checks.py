"""What an item must fulfil in a table, in DynamoDB's words."""

from __future__ import annotations

import pytest

from millstream.errors import InvalidRequest
from millstream.model.schema import (
    GlobalIndex,
    KeyAttribute,
    KeySchema,
    LocalIndex,
    Projection,
    Status,
    Table,
)
from millstream.model.values import item_size_bytes
from millstream.storage.checks import check_new_item, check_put_item, check_updated_item

PK, SK, LK, GK = (KeyAttribute(name, "S") for name in ("pk", "sk", "lk", "gk"))


def table(local_kind: str = "ALL") -> Table:
    return Table(
        namespace="",
        name="things",
        table_id="1",
        status=Status.ACTIVE,
        created_ms=0,
        key=KeySchema((PK,), (SK,)),
        attribute_kinds={"pk": "S", "sk": "S", "lk": "S", "gk": "S"},
        tree=1,
        partitions=(),
        local_indexes=(
            LocalIndex("by-lk", KeySchema((PK,), (LK,)), Projection(local_kind), tree=2),
        ),
        global_indexes=(
            GlobalIndex("by-gk", KeySchema((GK,)), Projection("ALL"), 3, (), Status.ACTIVE),
        ),
    )


def thing(**attributes: object) -> dict[str, dict[str, object]]:
    item: dict[str, dict[str, object]] = {"pk": {"S": "p"}, "sk": {"S": "s"}}
    for name, value in attributes.items():
        item[name] = value if isinstance(value, dict) else {"S": value}
    return item


def test_the_size_is_returned() -> None:
    item = thing(note="hello")
    assert check_new_item(table(), item) == item_size_bytes(item) == 3 + 3 + 9


def test_a_missing_key_attribute_is_named() -> None:
    with pytest.raises(InvalidRequest, match="Missing the key sk in the item"):
        check_new_item(table(), {"pk": {"S": "p"}})


def test_a_batch_words_a_missing_key_as_a_mismatch() -> None:
    with pytest.raises(InvalidRequest, match="The provided key element does not match the schema"):
        check_put_item(table(), {"pk": {"S": "p"}}, 10, batch=True)


def test_a_batch_words_a_mistyped_key_as_a_mismatch() -> None:
    item = thing(sk={"N": "1"})
    with pytest.raises(InvalidRequest, match="Type mismatch for key sk expected: S actual: N"):
        check_put_item(table(), item, 10)
    with pytest.raises(InvalidRequest, match=r"^The provided key element does not match"):
        check_put_item(table(), item, 10, batch=True)


def test_an_item_of_400_kb_fits_and_one_byte_more_does_not() -> None:
    item = thing(note="x" * (409_600 - 10))
    assert check_new_item(table(), item) == 409_600
    item["note"]["S"] = "x" * (409_600 - 9)
    with pytest.raises(InvalidRequest, match=r"^Item size has exceeded the maximum allowed size$"):
        check_new_item(table(), item)


def test_entries_in_local_indexes_count_with_the_item() -> None:
    item = thing(note="x" * 205_000, lk="l")
    with pytest.raises(InvalidRequest, match="Item size has exceeded"):
        check_new_item(table("ALL"), item)
    check_new_item(table("KEYS_ONLY"), item)
    del item["lk"]  # No entry then.
    check_new_item(table("ALL"), item)


def test_an_update_is_measured_in_its_own_words() -> None:
    item = thing(note="x" * 409_600)
    with pytest.raises(InvalidRequest, match=r"^Item size to update has exceeded the maximum"):
        check_updated_item(table(), item, ["note"])


def test_an_index_key_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(
        InvalidRequest,
        match="Type mismatch for Index Key gk Expected: S Actual: N IndexName: by-gk",
    ):
        check_new_item(table(), thing(gk={"N": "1"}))


def test_an_update_may_leave_an_index_key_that_is_older_than_the_index() -> None:
    item = thing(gk={"N": "1"}, note="new")
    check_updated_item(table(), item, ["note"])
    with pytest.raises(InvalidRequest, match="update the secondary index key to unsupported type"):
        check_updated_item(table(), item, ["gk"])


def test_an_empty_index_key_is_worded_differently_for_an_update() -> None:
    with pytest.raises(InvalidRequest, match="IndexName: by-gk, IndexKey: gk"):
        check_new_item(table(), thing(gk=""))
    with pytest.raises(InvalidRequest, match="The update expression attempted to update"):
        check_updated_item(table(), thing(gk=""), ["gk"])
