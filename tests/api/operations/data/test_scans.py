"""Scan, one behaviour a test."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest


@pytest.fixture
def many(db: Any) -> Any:
    """Fifty items, every second one in the global indexes."""
    for number in range(50):
        item = {"pk": {"S": f"p{number}"}, "sk": {"S": "s"}, "n": {"N": str(number)}}
        if number % 2:
            item |= {"gk": {"S": f"g{number % 4}"}, "gs": {"S": "s"}}
        db.put("rich", item)
    return db


def pks(answer: Any) -> list[str]:
    return [item["pk"]["S"] for item in answer["Items"]]


def read_all(db: Any, **request: Any) -> list[str]:
    found: list[str] = []
    start = None
    while True:
        more = {} if start is None else {"ExclusiveStartKey": start}
        answer = db.call("Scan", TableName="rich", **request, **more)
        found += pks(answer)
        assert len(found) <= 50
        start = answer.get("LastEvaluatedKey")
        if start is None:
            return found


ALL = {f"p{number}" for number in range(50)}
ODD = {f"p{number}" for number in range(1, 50, 2)}


def test_a_scan_finds_everything_once_in_pages_of_any_size(many: Any) -> None:
    for limit in (1, 7, 50, 51):
        found = read_all(many, Limit=limit)
        assert len(found) == 50
        assert set(found) == ALL


@pytest.mark.parametrize("total", [1, 2, 3, 7])
def test_segments_are_disjoint_and_complete(many: Any, total: int) -> None:
    segments = [
        read_all(many, Segment=segment, TotalSegments=total, Limit=4) for segment in range(total)
    ]
    assert sorted(chain.from_iterable(segments)) == sorted(ALL)


def test_an_index_is_scanned_with_its_sparseness_and_projection(many: Any) -> None:
    assert set(read_all(many, IndexName="global-all", Limit=3)) == ODD
    answer = many.call("Scan", TableName="rich", IndexName="global-some", Limit=1)
    assert answer["Items"][0].keys() == {"pk", "sk", "gk", "gs"}
    assert answer["LastEvaluatedKey"].keys() == {"pk", "sk", "gk", "gs"}
    assert many.call("Scan", TableName="rich", IndexName="local-all")["Count"] == 0
    parts = [
        read_all(many, IndexName="global-all", Segment=segment, TotalSegments=3)
        for segment in range(3)
    ]
    assert sorted(chain.from_iterable(parts)) == sorted(ODD)


def test_filters_old_and_new(many: Any) -> None:
    answer = many.call(
        "Scan",
        TableName="rich",
        FilterExpression="n < :n",
        ExpressionAttributeValues={":n": {"N": "3"}},
        ProjectionExpression="pk",
    )
    assert sorted(pks(answer)) == ["p0", "p1", "p2"]
    assert (answer["Count"], answer["ScannedCount"]) == (3, 50)
    legacy = many.call(
        "Scan",
        TableName="rich",
        ScanFilter={
            "n": {"ComparisonOperator": "LT", "AttributeValueList": [{"N": "3"}]},
            "gk": {"ComparisonOperator": "NOT_NULL"},
        },
        ConditionalOperator="AND",
        AttributesToGet=["pk"],
    )
    assert legacy["Items"] == [{"pk": {"S": "p1"}}]


def test_a_filter_on_the_key_is_allowed(many: Any) -> None:
    answer = many.call(
        "Scan",
        TableName="rich",
        FilterExpression="pk = :p",
        ExpressionAttributeValues={":p": {"S": "p7"}},
        Select="COUNT",
    )
    assert answer == {"Count": 1, "ScannedCount": 50}


def test_capacity_is_rounded_for_the_page(many: Any) -> None:
    def units(**more: Any) -> Any:
        answer = many.call("Scan", TableName="rich", ReturnConsumedCapacity="INDEXES", **more)
        return answer["ConsumedCapacity"]

    assert units() == {
        "TableName": "rich",
        "CapacityUnits": 0.5,
        "Table": {"CapacityUnits": 0.5},
    }
    assert units(IndexName="global-all") == {
        "TableName": "rich",
        "CapacityUnits": 0.5,
        "Table": {"CapacityUnits": 0.0},
        "GlobalSecondaryIndexes": {"global-all": {"CapacityUnits": 0.5}},
    }


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            {"Segment": 0},
            "The TotalSegments parameter is required but was not present in the request when "
            "Segment parameter is present",
        ),
        (
            {"TotalSegments": 4},
            "The Segment parameter is required but was not present in the request when parameter "
            "TotalSegments is present",
        ),
        (
            {"Segment": 5, "TotalSegments": 5},
            "The Segment parameter is zero-based and must be less than parameter TotalSegments: "
            "Segment: 5 is not less than TotalSegments: 5",
        ),
        (
            {"Limit": 0},
            "1 validation error detected: Value '0' at 'limit' failed to satisfy constraint: "
            "Member must have value greater than or equal to 1",
        ),
        (
            {"Select": "SPECIFIC_ATTRIBUTES"},
            "Must specify the AttributesToGet or ProjectionExpression when choosing to get "
            "SPECIFIC_ATTRIBUTES",
        ),
        (
            {"IndexName": "global-all", "ConsistentRead": True},
            "Consistent reads are not supported on global secondary indexes",
        ),
        (
            {"ExclusiveStartKey": {"pk": {"S": "p"}}},
            "The provided starting key is invalid: "
            "The provided key element does not match the schema",
        ),
        (
            {"IndexName": "global-all", "ExclusiveStartKey": {"pk": {"S": "p"}}},
            "The provided starting key is invalid",
        ),
        (
            {"IndexName": "global-some", "Select": "ALL_ATTRIBUTES"},
            "One or more parameter values were invalid: Select type ALL_ATTRIBUTES is not "
            "supported for global secondary index global-some because its projection type is "
            "not ALL",
        ),
        (
            {
                "ScanFilter": {"a": {"ComparisonOperator": "NULL"}},
                "FilterExpression": "attribute_exists(a)",
            },
            "Can not use both expression and non-expression parameters in the same request: "
            "Non-expression parameters: {ScanFilter} Expression parameters: {FilterExpression}",
        ),
    ],
)
def test_refusals(db: Any, request_: dict[str, Any], message: str) -> None:
    assert db.refused("Scan", TableName="rich", **request_) == message


def test_a_starting_key_of_another_segment_is_refused(many: Any) -> None:
    first = many.call("Scan", TableName="rich", Segment=0, TotalSegments=2, Limit=1)
    start = first["LastEvaluatedKey"]
    message = many.refused(
        "Scan", TableName="rich", Segment=1, TotalSegments=2, ExclusiveStartKey=start
    )
    assert message == (
        "The provided starting key is invalid: Invalid ExclusiveStartKey. Please use "
        "ExclusiveStartKey with correct Segment. TotalSegments: 2 Segment: 1"
    )
