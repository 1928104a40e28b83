"""The Python API: plain values in, plain values out, DynamoDB's behaviour in between."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio

import millstream
from millstream.database import Database, Index, Table


@pytest.fixture
async def db() -> AsyncIterator[Database]:
    async with millstream.open_database() as db:
        yield db


@pytest.fixture
async def orders(db: Database) -> Table:
    return await db.create_table(
        "orders",
        partition_key="customer",
        sort_key=("number", int),
        indexes=[
            Index("by_status", partition_key="status", sort_key=("number", int)),
            Index("by_total", sort_key=("total", Decimal), projection="KEYS_ONLY"),
        ],
    )


async def collect(pages: Any) -> list[dict[str, Any]]:
    return [item async for item in pages]


async def test_every_kind_of_value_comes_back_as_it_went_in(orders: Table) -> None:
    item = {
        "customer": "ada",
        "number": 1,
        "total": Decimal("9.50"),
        "large": 12345678901234567890123456789012345678,
        "blob": b"\x00\xff",
        "flags": {"a", "b"},
        "numbers": {1, Decimal("2.5")},
        "nothing": None,
        "yes": True,
        "nested": {"list": [1, "two", {"three": Decimal("3.3")}]},
    }
    await orders.put(item)
    assert await orders.get({"customer": "ada", "number": 1}) == item


async def test_get_of_nothing_is_none(orders: Table) -> None:
    assert await orders.get({"customer": "ada", "number": 1}) is None


async def test_put_and_delete_return_what_was_there(orders: Table) -> None:
    key = {"customer": "ada", "number": 1}
    assert await orders.put({**key, "v": 1}) is None
    assert await orders.put({**key, "v": 2}) == {**key, "v": 1}
    assert await orders.delete(key) == {**key, "v": 2}
    assert await orders.delete(key) is None


async def test_update_returns_the_new_item(orders: Table) -> None:
    key = {"customer": "ada", "number": 1}
    update = "SET points = if_not_exists(points, :zero) + :more"
    for expected in (5, 10):
        new = await orders.update(key, update, values={":zero": 0, ":more": 5})
        assert new == {**key, "points": expected}


async def test_a_false_condition_carries_the_item(orders: Table) -> None:
    item = {"customer": "ada", "number": 1, "v": 1}
    await orders.put(item)
    with pytest.raises(millstream.ConditionFailed) as caught:
        await orders.put({**item, "v": 2}, condition="attribute_not_exists(customer)")
    assert caught.value.item is not None
    assert await orders.get({"customer": "ada", "number": 1}) == item


async def test_query_is_ordered_and_pages_by_itself(orders: Table) -> None:
    await orders.put_many(
        {"customer": "ada", "number": n, "filler": "x" * 20_000} for n in range(120)
    )
    await orders.put({"customer": "bob", "number": 1})
    numbers = [
        item["number"]
        async for item in orders.query("customer = :c", values={":c": "ada"}, reverse=True)
    ]
    assert numbers == list(range(119, -1, -1))
    between = orders.query(
        "customer = :c AND #n BETWEEN :low AND :high",
        names={"#n": "number"},
        values={":c": "ada", ":low": 10, ":high": 12},
        projection="#n",
    )
    assert await collect(between) == [{"number": 10}, {"number": 11}, {"number": 12}]
    limited = orders.query("customer = :c", values={":c": "ada"}, limit=3)
    assert len(await collect(limited)) == 3


async def test_query_through_indexes(orders: Table) -> None:
    for number, status, total in ((1, "new", 5), (2, "paid", 3), (3, "new", 1)):
        await orders.put(
            {"customer": "ada", "number": number, "status": status, "total": Decimal(total)}
        )
    local = orders.query("customer = :c", index="by_total", values={":c": "ada"})
    assert [item["number"] for item in await collect(local)] == [3, 2, 1]


async def test_scan_in_segments_sees_everything_once(orders: Table) -> None:
    await orders.put_many({"customer": str(n), "number": n} for n in range(100))
    found: list[int] = []
    for segment in range(4):
        found += [item["number"] async for item in orders.scan(segment=(segment, 4))]
    assert sorted(found) == list(range(100))
    few = orders.scan(filter="#n < :n", names={"#n": "number"}, values={":n": 10}, limit=5)
    assert len(await collect(few)) == 5


async def test_many_are_written_and_read_and_removed(orders: Table) -> None:
    keys = [{"customer": "c", "number": n} for n in range(60)]
    await orders.put_many({**key, "v": key["number"]} for key in keys)
    assert len(await orders.get_many(keys)) == 60
    await orders.delete_many(keys[:30])
    assert len(await orders.get_many(keys)) == 30


async def test_indexes_are_made_and_removed_later(db: Database, orders: Table) -> None:
    await orders.put({"customer": "ada", "number": 1, "city": "Rome"})
    await db.create_index("orders", Index("by_city", partition_key="city"))
    found = await collect(orders.query("city = :c", index="by_city", values={":c": "Rome"}))
    assert [item["customer"] for item in found] == ["ada"]
    await db.delete_index("orders", "by_city")
    with pytest.raises(millstream.InvalidRequest):
        await collect(orders.query("city = :c", index="by_city", values={":c": "Rome"}))


async def test_tables_come_and_go(db: Database, orders: Table) -> None:
    assert db.table_names() == ["orders"]
    assert (await db.describe_table("orders"))["TableStatus"] == "ACTIVE"
    with pytest.raises(millstream.ResourceInUse):
        await db.create_table("orders", partition_key="x")
    await db.delete_table("orders")
    assert db.table_names() == []
    with pytest.raises(millstream.ResourceNotFound):
        await orders.get({"customer": "ada", "number": 1})


async def test_values_that_dynamodb_has_no_place_for_are_refused(orders: Table) -> None:
    for value in (float("nan"), object(), {"mixed", 1}, set(), 10**200):
        with pytest.raises(millstream.InvalidRequest):
            await orders.put({"customer": "a", "number": 1, "v": value})


async def test_a_database_on_disk_is_there_again(tmp_path: Path) -> None:
    async with millstream.open_database(tmp_path / "data") as db:
        table = await db.create_table("things", partition_key="id")
        await table.put({"id": "a", "v": 1})
    async with millstream.open_database(tmp_path / "data") as db:
        assert await db.table("things").get({"id": "a"}) == {"id": "a", "v": 1}


async def test_namespaces_do_not_see_each_other(tmp_path: Path) -> None:
    async with millstream.open_database(namespace="one") as db:
        await db.create_table("things", partition_key="id")
        assert Database(db._tables, db._mappings, "two").table_names() == []


async def test_errors_reach_the_caller_as_they_are(tmp_path: Path) -> None:
    """The database runs tasks of its own; nobody outside shall see their nursery's groups."""
    with pytest.raises(ZeroDivisionError):
        async with millstream.open_database():
            raise ZeroDivisionError
    (tmp_path / "format").write_text("something else")
    with pytest.raises(millstream.WrongFormat):
        async with millstream.open_database(tmp_path):
            pass


@pytest.fixture
async def accounts(db: Database) -> Table:
    table = await db.create_table("accounts", partition_key="id")
    await table.put_many({"id": name, "balance": 100} for name in "abc")
    return table


async def test_a_transaction_writes_all_or_nothing(db: Database, accounts: Table) -> None:
    async with db.transaction() as tx:
        tx.update(accounts, {"id": "a"}, "SET balance = balance - :n", values={":n": 10})
        tx.update("accounts", {"id": "b"}, "SET balance = balance + :n", values={":n": 10})
        tx.put(accounts, {"id": "d", "balance": 0}, condition="attribute_not_exists(id)")
        tx.check(accounts, {"id": "c"}, "balance >= :n", values={":n": 100})
    with pytest.raises(millstream.TransactionCanceled) as caught:
        async with db.transaction() as tx:
            tx.delete(accounts, {"id": "a"})
            tx.put(accounts, {"id": "d", "balance": 1}, condition="attribute_not_exists(id)")
    codes = [reason["Code"] for reason in caught.value.reasons]
    assert codes == ["None", "ConditionalCheckFailed"]
    found = await accounts.get_many([{"id": name} for name in "abcd"])
    assert {item["id"]: item["balance"] for item in found} == {"a": 90, "b": 110, "c": 100, "d": 0}


async def test_a_block_that_fails_sends_nothing(db: Database, accounts: Table) -> None:
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as tx:
            tx.delete(accounts, {"id": "a"})
            raise ZeroDivisionError
    assert await accounts.get({"id": "a"}) is not None


@pytest.mark.parametrize("also_written", [True, False])
async def test_what_was_read_must_stay_as_it_was(
    db: Database, accounts: Table, also_written: bool
) -> None:
    with pytest.raises(millstream.TransactionConflict):
        async with db.transaction() as tx:
            assert await tx.get(accounts, {"id": "a"}) == {"id": "a", "balance": 100}
            assert await tx.get(accounts, {"id": "nobody"}) is None
            await accounts.put({"id": "a" if also_written else "nobody", "balance": 1})
            tx.put(accounts, {"id": "a", "balance": 2})
    async with db.transaction() as tx:
        assert await tx.get(accounts, {"id": "c"}) == {"id": "c", "balance": 100}
        tx.put(accounts, {"id": "a", "balance": 2})
    assert await accounts.get({"id": "a"}) == {"id": "a", "balance": 2}


async def test_transact_tries_again_until_it_meets_nobody(db: Database) -> None:
    names = [f"bank{number}" for number in range(3)]
    for name in names:
        table = await db.create_table(name, partition_key="id")
        await table.put({"id": "till", "balance": 100})

    async def transfer(tx: millstream.Transaction, source: str, target: str) -> None:
        key = {"id": "till"}
        left, right = await tx.get(source, key), await tx.get(target, key)
        assert left is not None and right is not None
        tx.put(source, {**left, "balance": left["balance"] - 1})
        tx.put(target, {**right, "balance": right["balance"] + 1})

    async def clerk(number: int) -> None:
        for step in range(5):
            source, target = names[(number + step) % 3], names[(number + step + 1) % 3]
            work = functools.partial(transfer, source=source, target=target)
            await db.transact(work, attempts=200)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(clerk, number)
    tills = [await db.table(name).get({"id": "till"}) for name in names]
    assert sum(till["balance"] for till in tills if till is not None) == 300


async def test_a_transaction_is_used_once(db: Database, accounts: Table) -> None:
    async with db.transaction() as tx:
        tx.delete(accounts, {"id": "a"})
    with pytest.raises(millstream.InvalidRequest):
        tx.delete(accounts, {"id": "b"})
