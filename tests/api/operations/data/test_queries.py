"""Query, one behaviour a test."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from millstream.api.operations import pages
from millstream.model.schema import Status


@pytest.fixture
def letters(db: Any) -> Any:
    """Five items under ``p`` with sort keys a to e, one under ``q``."""
    for number, letter in enumerate("abcde"):
        item = {"pk": {"S": "p"}, "sk": {"S": letter}, "n": {"N": str(number)}}
        if letter != "c":
            item |= {"lk": {"S": f"l{9 - number}"}, "gk": {"S": "g"}, "gs": {"S": "same"}}
        db.put("rich", item | {"data": {"S": "d"}, "extra": {"S": "e"}})
    db.put("rich", {"pk": {"S": "q"}, "sk": {"S": "a"}})
    return db


def ask(db: Any, condition: str = "pk = :p", table: str = "rich", **more: Any) -> Any:
    values = {":p": {"S": "p"}} | more.pop("values", {})
    return db.call(
        "Query",
        TableName=table,
        KeyConditionExpression=condition,
        ExpressionAttributeValues=values,
        **more,
    )


def refused(db: Any, condition: str = "pk = :p", **more: Any) -> str:
    values = {":p": {"S": "p"}} | more.pop("values", {})
    message: str = db.refused(
        "Query",
        TableName="rich",
        KeyConditionExpression=condition,
        ExpressionAttributeValues=values,
        **more,
    )
    return message


def sks(answer: Any) -> str:
    return "".join(item["sk"]["S"] for item in answer["Items"])


def test_a_partition_comes_in_the_order_of_its_sort_key(letters: Any) -> None:
    answer = ask(letters)
    assert sks(answer) == "abcde"
    assert (answer["Count"], answer["ScannedCount"]) == (5, 5)
    assert "LastEvaluatedKey" not in answer
    assert sks(ask(letters, ScanIndexForward=False)) == "edcba"


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("sk = :b", "b"),
        ("sk < :b", "a"),
        ("sk <= :b", "ab"),
        ("sk > :b", "cde"),
        (":b <= sk", "bcde"),
        ("sk BETWEEN :b AND :d", "bcd"),
        ("begins_with(sk, :b)", "b"),
    ],
)
def test_conditions_on_the_sort_key(letters: Any, condition: str, expected: str) -> None:
    values = {":b": {"S": "b"}}
    if ":d" in condition:
        values[":d"] = {"S": "d"}
    assert sks(ask(letters, f"pk = :p AND {condition}", values=values)) == expected


def test_numbers_sort_numerically(db: Any) -> None:
    for number in ("10", "-2", "9", "0.5"):
        db.put("counted", {"pk": {"S": "p"}, "sk": {"N": number}})
    found = ask(db, table="counted")["Items"]
    assert [item["sk"]["N"] for item in found] == ["-2", "0.5", "9", "10"]


@pytest.mark.parametrize("forward", [True, False])
def test_paging_with_a_limit_visits_every_item_once(letters: Any, forward: bool) -> None:
    seen, start = "", None
    pages_read = 0
    while True:
        more = {} if start is None else {"ExclusiveStartKey": start}
        answer = ask(letters, Limit=2, ScanIndexForward=forward, **more)
        seen += sks(answer)
        pages_read += 1
        assert pages_read < 10
        start = answer.get("LastEvaluatedKey")
        if start is None:
            break
        assert start == {"pk": {"S": "p"}, "sk": {"S": seen[-1]}}
    assert (seen, pages_read) == ("abcde" if forward else "edcba", 3)


def test_a_page_that_is_full_exactly_at_the_end_says_so(letters: Any) -> None:
    answer = ask(letters, Limit=5)
    assert answer["LastEvaluatedKey"] == {"pk": {"S": "p"}, "sk": {"S": "e"}}
    after = ask(letters, Limit=5, ExclusiveStartKey=answer["LastEvaluatedKey"])
    assert after == {"Count": 0, "ScannedCount": 0, "Items": []}


def test_limit_counts_what_is_looked_at_before_the_filter(letters: Any) -> None:
    answer = ask(letters, FilterExpression="n > :n", values={":n": {"N": "1"}}, Limit=3)
    assert sks(answer) == "c"
    assert (answer["Count"], answer["ScannedCount"]) == (1, 3)
    assert answer["LastEvaluatedKey"]["sk"] == {"S": "c"}


def test_a_page_ends_with_the_row_that_reaches_one_megabyte(db: Any) -> None:
    big = {"S": "x" * 60_000}
    for number in range(20):
        db.put("rich", {"pk": {"S": "p"}, "sk": {"S": f"{number:02}"}, "big": big})
    answer = ask(db)
    assert answer["Count"] == 18  # 18 times 60,013 bytes is the first multiple above 1 MB.
    filtered = ask(db, FilterExpression="attribute_not_exists(big)")
    assert (filtered["Count"], filtered["ScannedCount"]) == (0, 18)
    assert filtered["LastEvaluatedKey"] == answer["LastEvaluatedKey"]
    rest = ask(db, ExclusiveStartKey=answer["LastEvaluatedKey"])
    assert rest["Count"] == 2
    assert "LastEvaluatedKey" not in rest


def test_count_has_no_items(letters: Any) -> None:
    answer = ask(letters, Select="COUNT")
    assert answer == {"Count": 5, "ScannedCount": 5}


def test_a_projection(letters: Any) -> None:
    answer = ask(letters, ProjectionExpression="sk, gone", Limit=1)
    assert answer["Items"] == [{"sk": {"S": "a"}}]
    assert answer["LastEvaluatedKey"] == {"pk": {"S": "p"}, "sk": {"S": "a"}}


def test_a_local_index_is_sparse_and_sorted_by_its_own_key(letters: Any) -> None:
    answer = ask(letters, IndexName="local-all")
    assert sks(answer) == "edba"
    start = ask(letters, IndexName="local-all", Limit=1)["LastEvaluatedKey"]
    assert start == {"pk": {"S": "p"}, "sk": {"S": "e"}, "lk": {"S": "l5"}}
    assert sks(ask(letters, IndexName="local-all", ExclusiveStartKey=start)) == "dba"


def test_a_local_index_answers_what_it_holds(letters: Any) -> None:
    (item, *_) = ask(letters, IndexName="local-keys")["Items"]
    assert item.keys() == {"pk", "sk", "lk"}


def test_a_local_index_fetches_what_it_does_not_hold(letters: Any) -> None:
    whole = ask(
        letters,
        IndexName="local-keys",
        Select="ALL_ATTRIBUTES",
        ConsistentRead=True,
        ReturnConsumedCapacity="INDEXES",
    )
    assert whole["Items"][0].keys() == {"pk", "sk", "lk", "n", "gk", "gs", "data", "extra"}
    assert whole["ConsumedCapacity"] == {
        "TableName": "rich",
        "CapacityUnits": 5.0,
        "Table": {"CapacityUnits": 4.0},  # Each item fetched is paid for itself.
        "LocalSecondaryIndexes": {"local-keys": {"CapacityUnits": 1.0}},
    }
    some = ask(letters, IndexName="local-keys", ProjectionExpression="extra", Limit=1)
    assert some["Items"] == [{"extra": {"S": "e"}}]
    counted = ask(
        letters, IndexName="local-keys", Select="COUNT", ReturnConsumedCapacity="INDEXES"
    )
    assert counted["ConsumedCapacity"]["Table"] == {"CapacityUnits": 0.0}


def test_a_global_index_orders_equal_keys_by_the_table_key_and_pages_through_them(
    letters: Any,
) -> None:
    seen, start = "", None
    while True:
        more = {} if start is None else {"ExclusiveStartKey": start}
        answer = on_global(letters, Limit=1, **more)
        seen += sks(answer)
        assert len(seen) < 10
        start = answer.get("LastEvaluatedKey")
        if start is None:
            break
        assert start.keys() == {"pk", "sk", "gk", "gs"}
    assert seen == "abde"


def on_global(db: Any, method: str = "call", index: str = "global-some", **more: Any) -> Any:
    values = {":g": {"S": "g"}} | more.pop("values", {})
    return getattr(db, method)(
        "Query",
        TableName="rich",
        IndexName=index,
        KeyConditionExpression="gk = :g",
        ExpressionAttributeValues=values,
        **more,
    )


def test_a_global_index_answers_its_projection(letters: Any) -> None:
    (item, *_) = on_global(letters, Select="ALL_PROJECTED_ATTRIBUTES")["Items"]
    assert item.keys() == {"pk", "sk", "gk", "gs", "data"}


def test_what_a_global_index_cannot_answer_is_refused(letters: Any) -> None:
    assert on_global(letters, "refused", Select="ALL_ATTRIBUTES") == (
        "One or more parameter values were invalid: Select type ALL_ATTRIBUTES is not supported "
        "for global secondary index global-some because its projection type is not ALL"
    )
    assert on_global(letters, "refused", ProjectionExpression="extra, gs") == (
        "One or more parameter values were invalid: "
        "Global secondary index global-some does not project [extra]"
    )
    assert on_global(letters, "refused", ConsistentRead=True) == (
        "Consistent reads are not supported on global secondary indexes"
    )
    on_global(letters, index="global-all", Select="ALL_ATTRIBUTES")


def test_a_filter_on_what_the_index_does_not_hold_is_refused(letters: Any) -> None:
    assert on_global(letters, "refused", FilterExpression="attribute_exists(extra)") == (
        "One or more parameter values were invalid: Secondary index global-some does not project "
        "one or more filter attributes: [extra]"
    )
    assert on_global(letters, FilterExpression="begins_with(sk, :a)", values={":a": {"S": "a"}})[
        "Count"
    ] == 1


def test_an_index_that_is_not_ready_is_not_read(letters: Any) -> None:
    table = letters.tables.refs["rich"].table
    for status, backfilling, message in (
        (Status.CREATING, True, "Cannot read from backfilling global secondary index: global-all"),
        (Status.DELETING, False, "The table does not have the specified index: global-all"),
    ):
        index = msgspec.structs.replace(
            table.global_indexes[0], status=status, backfilling=backfilling
        )
        letters.change("rich", global_indexes=(index, *table.global_indexes[1:]))
        assert on_global(letters, "refused", index="global-all") == message
    assert "does not have the specified index: gone" in refused(letters, IndexName="gone")


def test_several_attributes_in_an_index_key(db: Any) -> None:
    for number in range(4):
        item = {"pk": {"S": "p"}, "sk": {"S": f"{number}"}, "h1": {"S": "h"}, "h2": {"S": "i"}}
        db.put("rich", item | {"r1": {"S": "r" if number else "q"}, "r2": {"N": f"{number}"}})
    db.put("rich", {"pk": {"S": "p"}, "sk": {"S": "x"}, "h1": {"S": "h"}, "r1": {"S": "r"}})

    def found(condition: str, **values: Any) -> str:
        given = {f":{name}": value for name, value in values.items()}
        answer = db.call(
            "Query",
            TableName="rich",
            IndexName="global-many",
            KeyConditionExpression=condition,
            ExpressionAttributeValues=given,
        )
        return sks(answer)

    hashes = {"h": {"S": "h"}, "i": {"S": "i"}}
    assert found("h1 = :h AND h2 = :i", **hashes) == "0123"
    assert found("h2 = :i AND h1 = :h AND r1 = :r", **hashes, r={"S": "r"}) == "123"
    more = {"r": {"S": "r"}, "n": {"N": "1"}}
    assert found("h1 = :h AND h2 = :i AND r1 = :r AND r2 > :n", **hashes, **more) == "23"
    answer = db.call(
        "Query",
        TableName="rich",
        IndexName="global-many",
        KeyConditionExpression="h1 = :h AND h2 = :i",
        ExpressionAttributeValues={":h": {"S": "h"}, ":i": {"S": "i"}},
        Limit=2,
    )
    assert answer["LastEvaluatedKey"].keys() == {"pk", "sk", "h1", "h2", "r1", "r2"}


def test_legacy_conditions_and_filters(letters: Any) -> None:
    conditions = {
        "pk": {"ComparisonOperator": "EQ", "AttributeValueList": [{"S": "p"}]},
        "sk": {"ComparisonOperator": "GE", "AttributeValueList": [{"S": "b"}]},
    }
    filter_ = {"n": {"ComparisonOperator": "NE", "AttributeValueList": [{"N": "3"}]}}
    answer = letters.call(
        "Query",
        TableName="rich",
        KeyConditions=conditions,
        QueryFilter=filter_,
        AttributesToGet=["sk"],
    )
    assert answer["Items"] == [{"sk": {"S": letter}} for letter in "bce"]
    assert answer["ScannedCount"] == 4
    mixed = letters.call(
        "Query",
        TableName="rich",
        KeyConditions=conditions,
        FilterExpression="n <> :n",
        ExpressionAttributeValues={":n": {"N": "3"}},
    )
    assert sks(mixed) == "bce"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"condition": "sk = :p"}, "Query condition missed key schema element: pk"),
        (
            {"condition": "pk = :p AND sk = :n", "values": {":n": {"N": "1"}}},
            "One or more parameter values were invalid: Condition parameter type does not match "
            "schema type",
        ),
        ({"condition": "pk > :p"}, "Query key condition not supported"),
        (
            {"condition": "pk = :p AND sk = :e", "values": {":e": {"S": ""}}},
            "One or more parameter values are not valid. The AttributeValue for a key attribute "
            "cannot contain an empty string value. Key: sk",
        ),
        (
            {"FilterExpression": "sk <> :p"},
            "Filter Expression can only contain non-primary key attributes: "
            "Primary key attribute: sk",
        ),
        (
            {"Select": "SPECIFIC_ATTRIBUTES"},
            "1 validation error detected: Must specify the AttributesToGet or ProjectionExpression "
            "when choosing to get SPECIFIC_ATTRIBUTES",
        ),
        (
            {"Select": "COUNT", "ProjectionExpression": "n"},
            "Cannot specify the ProjectionExpression when choosing to get only the Count",
        ),
        (
            {"Select": "ALL_ATTRIBUTES", "ProjectionExpression": "n"},
            "Cannot specify the ProjectionExpression when choosing to get ALL_ATTRIBUTES",
        ),
        (
            {"Select": "ALL_PROJECTED_ATTRIBUTES"},
            "ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName",
        ),
        (
            {"Limit": 0},
            "1 validation error detected: Value at 'Limit' failed to satisfy constraint: "
            "Member must have value greater than or equal to 1",
        ),
        ({"ExclusiveStartKey": {"pk": {"S": "p"}}}, "The provided starting key is invalid"),
        (
            {"ExclusiveStartKey": {"pk": {"S": "p"}, "x": {"S": "a"}}},
            "The provided starting key is invalid",
        ),
        (
            {"ExclusiveStartKey": {"pk": {"S": "p"}, "sk": {"N": "1"}}},
            "The provided key element does not match the schema",
        ),
        (
            {"ExclusiveStartKey": {"pk": {"S": "p"}, "sk": {}}},
            "The provided starting key is invalid: Supplied AttributeValue is empty, must contain "
            "exactly one of the supported datatypes",
        ),
        (
            {"ExclusiveStartKey": {"pk": {"S": "q"}, "sk": {"S": "a"}}},
            "The provided starting key is outside query boundaries based on provided conditions",
        ),
        (
            {
                "condition": "pk = :p AND sk > :p",
                "ExclusiveStartKey": {"pk": {"S": "p"}, "sk": {"S": "a"}},
            },
            "The provided starting key does not match the range key predicate",
        ),
        (
            {
                "condition": "pk = :p AND sk < :p",
                "ExclusiveStartKey": {"pk": {"S": "q"}, "sk": {"S": "a"}},
            },
            "The query can return at most one row and cannot be restarted",
        ),
        (
            {
                "IndexName": "local-keys",
                "ExclusiveStartKey": {"pk": {"S": "p"}, "sk": {"N": "1"}, "lk": {"S": "l"}},
            },
            "The provided starting key is invalid: "
            "The provided key element does not match the schema",
        ),
    ],
)
def test_refusals(letters: Any, more: dict[str, Any], message: str) -> None:
    assert refused(letters, **more) == message


def test_a_query_needs_a_key_condition(db: Any) -> None:
    assert db.refused("Query", TableName="rich") == (
        "Either the KeyConditions or KeyConditionExpression parameter must be specified in the "
        "request."
    )


def test_any_starting_key_within_the_conditions_is_accepted(letters: Any) -> None:
    start = {"pk": {"S": "p"}, "sk": {"S": "bb"}}
    assert sks(ask(letters, ExclusiveStartKey=start)) == "cde"
    assert sks(ask(letters, ExclusiveStartKey=start, ScanIndexForward=False)) == "ba"


def test_capacity_is_rounded_for_the_page(letters: Any) -> None:
    def units(**more: Any) -> Any:
        return ask(letters, ReturnConsumedCapacity="TOTAL", **more)["ConsumedCapacity"]

    assert units() == {"TableName": "rich", "CapacityUnits": 0.5}
    assert units(ConsistentRead=True)["CapacityUnits"] == 1.0
    nothing = units(values={":p": {"S": "nobody"}})
    assert nothing["CapacityUnits"] == 0.5


def test_only_the_last_row_is_decoded(letters: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []
    decode = pages.decode_item
    monkeypatch.setattr(pages, "decode_item", lambda body: decoded.append(body) or decode(body))
    ask(letters)
    assert decoded == []
    ask(letters, Limit=3)
    assert len(decoded) == 1


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("filtered", [True, False])
def test_a_long_page_lets_others_run_and_loses_nothing(
    db: Any, forward: bool, filtered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "SLICE_ROWS_MAX", 7)
    monkeypatch.setattr(pages, "SLICE_DECODED_ROWS_MAX", 7)
    for number in range(30):
        db.put("rich", {"pk": {"S": "p"}, "sk": {"S": f"{number:02}"}})
    more = {"FilterExpression": "attribute_not_exists(x)"} if filtered else {}
    answer = ask(db, ScanIndexForward=forward, **more)
    found = [item["sk"]["S"] for item in answer["Items"]]
    assert found == sorted(found, reverse=not forward)
    assert len(set(found)) == 30
    assert db.tables.breaths == 4


def test_an_index_that_goes_away_during_a_page_ends_it(
    letters: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "SLICE_ROWS_MAX", 1)

    async def breathe() -> None:
        letters.change("rich", global_indexes=())

    monkeypatch.setattr(letters.tables, "breathe", breathe)
    assert "does not have the specified index" in on_global(letters, "refused")
