"""ConsumedCapacity and ItemCollectionMetrics of transactions.

The figures of indexes are those measured on AWS in August 2026 (dynoxide, cases A to S).
"""

from __future__ import annotations

from typing import Any

import pytest

KEY = {"pk": {"S": "a"}, "sk": {"S": "b"}}


def write_units(number: float) -> dict[str, float]:
    return {"CapacityUnits": number, "WriteCapacityUnits": number}


def read_units(number: float) -> dict[str, float]:
    return {"CapacityUnits": number, "ReadCapacityUnits": number}


def put(**attributes: Any) -> dict[str, Any]:
    return {"Put": {"TableName": "rich", "Item": KEY | attributes}}


def plain(pk: str, filler: int = 0, table: str = "plain") -> dict[str, Any]:
    item = {"pk": {"S": pk}} | ({"v": {"S": "x" * filler}} if filler else {})
    return {"Put": {"TableName": table, "Item": item}}


def on_key(member: str, pk: str, **more: Any) -> dict[str, Any]:
    return {member: {"TableName": "plain", "Key": {"pk": {"S": pk}}, **more}}


def cost(db: Any, *actions: Any, mode: str = "INDEXES", **more: Any) -> list[Any]:
    found: list[Any] = db.write(*actions, ReturnConsumedCapacity=mode, **more)["ConsumedCapacity"]
    return found


def arms(db: Any, action: Any) -> tuple[float, float, float, float]:
    """The units in total, of the table, of the global index and of the local index."""
    (found,) = cost(db, action)
    indexes = [
        found.get(member, {}).get(name, {}).get("CapacityUnits", 0.0)
        for member, name in (
            ("GlobalSecondaryIndexes", "global"),
            ("LocalSecondaryIndexes", "local"),
        )
    ]
    return found["CapacityUnits"], found["Table"]["CapacityUnits"], indexes[0], indexes[1]


def test_a_write_costs_twice_and_an_index_once(db: Any) -> None:
    assert arms(db, put()) == (2.0, 2.0, 0.0, 0.0)
    in_both = {"gk": {"S": "g"}, "lk": {"S": "l"}}
    assert arms(db, put(**in_both)) == (4.0, 2.0, 1.0, 1.0)
    assert arms(db, put(**in_both)) == (2.0, 2.0, 0.0, 0.0)
    assert arms(db, put(**in_both, other={"S": "o"})) == (3.0, 2.0, 0.0, 1.0)
    moved = in_both | {"gk": {"S": "h"}, "other": {"S": "p"}}
    assert arms(db, put(**moved)) == (5.0, 2.0, 2.0, 1.0)
    delete = {"Delete": {"TableName": "rich", "Key": KEY}}
    assert arms(db, delete) == (4.0, 2.0, 1.0, 1.0)
    assert arms(db, delete) == (2.0, 2.0, 0.0, 0.0)


def test_the_answer_splits_writes_from_reads_at_every_level(db: Any) -> None:
    assert cost(db, put(gk={"S": "g"})) == [
        {
            "TableName": "rich",
            **write_units(3.0),
            "Table": write_units(2.0),
            "GlobalSecondaryIndexes": {"global": write_units(1.0)},
        }
    ]
    assert cost(db, put(gk={"S": "h"}), mode="TOTAL") == [{"TableName": "rich", **write_units(4.0)}]


def test_a_condition_check_costs_a_write_of_what_it_read(db: Any) -> None:
    db.write(plain("a", 2_500))
    check = on_key("ConditionCheck", "a", ConditionExpression="attribute_exists(pk)")
    assert cost(db, check, mode="TOTAL") == [{"TableName": "plain", **write_units(6.0)}]
    absent = on_key("ConditionCheck", "b", ConditionExpression="attribute_not_exists(pk)")
    assert cost(db, absent, mode="TOTAL") == [{"TableName": "plain", **write_units(2.0)}]


def test_each_action_is_rounded_and_each_table_has_its_entry(db: Any) -> None:
    found = cost(db, plain("a", 1_500), plain("b", 0, "other"), plain("c"), mode="TOTAL")
    assert found == [
        {"TableName": "plain", **write_units(6.0)},
        {"TableName": "other", **write_units(2.0)},
    ]


def test_the_larger_of_before_and_after_counts(db: Any) -> None:
    assert cost(db, plain("a", 2_500), mode="TOTAL")[0]["CapacityUnits"] == 6.0
    assert cost(db, plain("a"), mode="TOTAL")[0]["CapacityUnits"] == 6.0


@pytest.mark.parametrize("more", [{}, {"ReturnConsumedCapacity": "NONE"}])
def test_nothing_is_told_that_nobody_asked_for(db: Any, more: Any) -> None:
    assert db.write(plain("a"), **more) == {}
    get = {"TableName": "plain", "Key": {"pk": {"S": "b"}}}
    assert db.read(get, **more) == {"Responses": [{}]}


def test_a_cancelled_transaction_tells_no_capacity(db: Any) -> None:
    failing = on_key("Delete", "a", ConditionExpression="attribute_exists(pk)")
    db.canceled("TransactWriteItems", failing, ReturnConsumedCapacity="TOTAL")


def test_a_repeated_token_costs_reads_in_the_mode_of_the_repetition(db: Any) -> None:
    actions = (plain("a", 5_000), plain("b"), put(gk={"S": "g"}))
    token = {"ClientRequestToken": "t"}
    assert [each["WriteCapacityUnits"] for each in cost(db, *actions, **token)] == [12.0, 3.0]
    assert cost(db, *actions, mode="TOTAL", **token) == [
        {"TableName": "plain", **read_units(6.0)},
        {"TableName": "rich", **read_units(2.0)},
    ]
    assert cost(db, *actions, **token)[1] == {
        "TableName": "rich",
        **read_units(2.0),
        "Table": read_units(2.0),
    }
    assert db.write(*actions, **token) == {}


def test_a_repeated_token_costs_the_item_to_put_though_it_is_gone(db: Any) -> None:
    token = {"ClientRequestToken": "t", "mode": "TOTAL"}
    cost(db, plain("a", 5_000), **token)
    db.write(on_key("Delete", "a"))
    assert cost(db, plain("a", 5_000), **token) == [{"TableName": "plain", **read_units(4.0)}]


def test_reads_cost_twice_the_missing_included(db: Any) -> None:
    db.write(plain("a", 5_000))
    gets = [{"TableName": "plain", "Key": {"pk": {"S": pk}}} for pk in "ab"]
    projected = {**gets[0], "ProjectionExpression": "pk"}
    answer = db.read(projected, gets[1], ReturnConsumedCapacity="INDEXES")
    assert answer["ConsumedCapacity"] == [
        {"TableName": "plain", **read_units(6.0), "Table": read_units(6.0)}
    ]


def test_collections_that_were_written_to_are_told_once(db: Any) -> None:
    second = {"Delete": {"TableName": "rich", "Key": {**KEY, "sk": {"S": "c"}}}}
    third = {"Delete": {"TableName": "rich", "Key": {**KEY, "pk": {"S": "z"}}}}
    check = {
        "ConditionCheck": {
            "TableName": "rich",
            "Key": {**KEY, "pk": {"S": "y"}},
            "ConditionExpression": "attribute_not_exists(pk)",
        }
    }
    answer = db.write(put(), second, third, check, plain("a"), ReturnItemCollectionMetrics="SIZE")
    assert answer == {
        "ItemCollectionMetrics": {
            "rich": [
                {"ItemCollectionKey": {"pk": {"S": pk}}, "SizeEstimateRangeGB": [0.0, 1.0]}
                for pk in "az"
            ]
        }
    }
    assert db.write(plain("a"), ReturnItemCollectionMetrics="SIZE") == {}


def test_capacity_and_metrics_together(db: Any) -> None:
    answer = db.write(put(), ReturnItemCollectionMetrics="SIZE", ReturnConsumedCapacity="TOTAL")
    assert set(answer) == {"ConsumedCapacity", "ItemCollectionMetrics"}
