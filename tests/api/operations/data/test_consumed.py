"""ConsumedCapacity and ItemCollectionMetrics of single writes and reads."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.actors.tables import TableStatistics
from millstream.api.operations import consumed

KEY = {"pk": {"S": "p"}, "sk": {"S": "s"}}


def put(db: Any, mode: str = "INDEXES", **attributes: Any) -> Any:
    answer = db.call(
        "PutItem", TableName="rich", Item=KEY | attributes, ReturnConsumedCapacity=mode
    )
    return answer["ConsumedCapacity"]


def units(number: float) -> dict[str, float]:
    return {"CapacityUnits": number}


def test_a_missing_item_costs_a_unit_and_half_of_it_without_consistency(db: Any) -> None:
    for consistent, expected in ((True, 1.0), (False, 0.5)):
        answer = db.call(
            "GetItem",
            TableName="rich",
            Key=KEY,
            ConsistentRead=consistent,
            ReturnConsumedCapacity="TOTAL",
        )
        assert answer == {"ConsumedCapacity": {"TableName": "rich", "CapacityUnits": expected}}


def test_reads_are_rounded_up_to_4_kb(db: Any) -> None:
    put(db, x={"S": "x" * 4096})
    answer = db.call(
        "GetItem", TableName="rich", Key=KEY, ConsistentRead=True, ReturnConsumedCapacity="INDEXES"
    )
    assert answer["ConsumedCapacity"] == {
        "TableName": "rich",
        "CapacityUnits": 2.0,
        "Table": units(2.0),
    }


def test_a_write_costs_the_larger_of_before_and_after(db: Any) -> None:
    assert put(db, x={"S": "x" * 2000})["CapacityUnits"] == 2.0
    assert put(db)["CapacityUnits"] == 2.0
    assert put(db)["CapacityUnits"] == 1.0
    deleted = db.call("DeleteItem", TableName="rich", Key=KEY, ReturnConsumedCapacity="TOTAL")
    assert deleted["ConsumedCapacity"]["CapacityUnits"] == 1.0


def test_none_is_told_when_none_is_asked_for(db: Any) -> None:
    assert db.call("PutItem", TableName="rich", Item=KEY, ReturnConsumedCapacity="NONE") == {}


def test_indexes_cost_by_what_changes_in_them(db: Any) -> None:
    entered = put(db, gk={"S": "g"}, data={"S": "1"}, lk={"S": "l"})
    assert entered == {
        "TableName": "rich",
        "CapacityUnits": 4.0,
        "Table": units(1.0),
        "LocalSecondaryIndexes": {"local-all": units(1.0), "local-keys": units(1.0)},
        "GlobalSecondaryIndexes": {"global-all": units(1.0)},
    }
    unchanged = put(db, gk={"S": "g"}, data={"S": "1"}, lk={"S": "l"})
    assert unchanged == {"TableName": "rich", "CapacityUnits": 1.0, "Table": units(1.0)}
    changed = put(db, gk={"S": "g"}, data={"S": "2"}, lk={"S": "l"})
    assert changed["LocalSecondaryIndexes"] == {"local-all": units(1.0)}
    moved = put(db, gk={"S": "other"}, data={"S": "2"}, lk={"S": "l"})
    assert moved["GlobalSecondaryIndexes"] == {"global-all": units(2.0)}
    left = put(db, "TOTAL", data={"S": "2"}, lk={"S": "l"})
    assert left == {"TableName": "rich", "CapacityUnits": 3.0}


def test_metrics_need_a_local_index(db: Any) -> None:
    ask = {"ReturnItemCollectionMetrics": "SIZE"}
    assert db.call("PutItem", TableName="plain", Item={"pk": {"S": "p"}}, **ask) == {}
    answer = db.call("PutItem", TableName="rich", Item=KEY, **ask)
    assert answer == {
        "ItemCollectionMetrics": {
            "ItemCollectionKey": {"pk": {"S": "p"}},
            "SizeEstimateRangeGB": [0.0, 1.0],
        }
    }


def test_a_large_collection_is_measured_in_slices(db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        item = {"pk": {"S": "p"}, "sk": {"S": f"{number}"}, "lk": {"S": "l"}}
        db.put("rich", item | {"x": {"S": "x" * 1000}})
    db.put("rich", {"pk": {"S": "q"}, "sk": {"S": "s"}, "x": {"S": "x" * 50_000}})
    monkeypatch.setattr(consumed, "SLICE_ROWS_MAX", 6)
    monkeypatch.setattr(consumed, "_GIGABYTE", 10_000)
    ref = db.tables.refs["rich"]
    monkeypatch.setattr(ref, "statistics", lambda: TableStatistics(21, 70_000, {}))
    answer = db.call("DeleteItem", TableName="rich", Key=KEY, ReturnItemCollectionMetrics="SIZE")
    # 20 items and their full entries of about 1,010 bytes each, and 20 short entries.
    assert answer["ItemCollectionMetrics"]["SizeEstimateRangeGB"] == [4.0, 5.0]
    assert db.tables.breaths == 9
