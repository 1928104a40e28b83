"""TransactGetItems: what it answers, what refuses and what cancels it."""

from __future__ import annotations

from typing import Any

import pytest

THING = {"pk": {"S": "a"}, "n": {"N": "1"}}
GET = {"TableName": "plain", "Key": {"pk": {"S": "a"}}}
GONE = {"TableName": "plain", "Key": {"pk": {"S": "gone"}}}
ONE = "1 validation error detected: "


def of(*gets: Any) -> list[Any]:
    return [{"Get": get} for get in gets]


def test_items_of_two_tables_in_order_with_places_for_the_missing(db: Any) -> None:
    db.put("plain", THING)
    db.put("other", {"pk": {"S": "o"}})
    other = {"TableName": "other", "Key": {"pk": {"S": "o"}}}
    assert db.read(other, GONE, GET) == {
        "Responses": [{"Item": {"pk": {"S": "o"}}}, {}, {"Item": THING}]
    }


def test_a_projection_selects_and_one_that_matches_nothing_leaves_no_item(db: Any) -> None:
    db.put("plain", THING)
    names = {"ProjectionExpression": "#n", "ExpressionAttributeNames": {"#n": "n"}}
    answer = db.read({**GET, **names}, {**GONE, "ProjectionExpression": "n"})
    assert answer == {"Responses": [{"Item": {"n": {"N": "1"}}}, {}]}
    assert db.read({**GET, "ProjectionExpression": "x"}) == {"Responses": [{}]}


def test_names_without_a_projection_are_accepted(db: Any) -> None:
    assert db.read({**GET, "ExpressionAttributeNames": {"#n": "n"}}) == {"Responses": [{}]}


def test_large_items_are_projected_in_slices(db: Any) -> None:
    for number in range(3):
        db.put("plain", {"pk": {"S": f"{number}"}, "v": {"S": "x" * 200_000}})
    gets = [
        {"TableName": "plain", "Key": {"pk": {"S": f"{number}"}}, "ProjectionExpression": "pk"}
        for number in range(3)
    ]
    assert len(db.read(*gets)["Responses"]) == 3
    assert db.tables.breaths == 1


def test_more_than_four_megabytes_are_refused(db: Any) -> None:
    gets = [{"TableName": "plain", "Key": {"pk": {"S": f"{number}"}}} for number in range(12)]
    for get in gets:
        db.put("plain", {**get["Key"], "v": {"S": "x" * 350_000}})
    assert len(db.read(*gets[:11])["Responses"]) == 11
    assert db.refused("TransactGetItems", *of(*gets)) == (
        "The aggregate size of the items in the transaction cannot exceed 4 MB"
    )


def test_an_item_that_a_transaction_holds_is_a_conflict(db: Any) -> None:
    db.put("plain", THING)
    db.tables.held = {key for key, _ in db.tables.refs["plain"].state.btree.range(1, b"", None)}
    assert db.canceled("TransactGetItems", *of(GONE, GET)) == [
        {"Code": "None"},
        {"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"},
    ]


def test_no_get_and_too_many(db: Any) -> None:
    assert db.refused("TransactGetItems") == (
        f"{ONE}Value '[]' at 'transactItems' failed to satisfy constraint: "
        "Member must have length greater than or equal to 1"
    )
    many = [{"TableName": "plain", "Key": {"pk": {"S": f"{n}"}}} for n in range(101)]
    message = db.refused("TransactGetItems", *of(*many))
    assert message.startswith(f"{ONE}Value '[TransactGetItem(get=Get(")
    assert message.endswith("Member must have length less than or equal to 100")
    assert len(db.read(*many[:100])["Responses"]) == 100


def test_an_action_without_a_get(db: Any) -> None:
    assert db.refused("TransactGetItems", {}) == (
        f"{ONE}Value null at 'transactItems.1.member.get' failed to satisfy constraint: "
        "Member must not be null"
    )


def test_a_missing_table(db: Any) -> None:
    missing = {**GET, "TableName": "missing"}
    not_found = "ResourceNotFoundException: Requested resource not found"
    assert db.refused("TransactGetItems", *of(GET, missing)) == not_found
    assert "at 'returnConsumedCapacity'" in db.refused(
        "TransactGetItems", *of(missing), ReturnConsumedCapacity="BOGUS"
    )


def test_a_malformed_table_name_is_told_with_its_place(db: Any) -> None:
    assert db.refused("TransactGetItems", *of(GET, {**GET, "TableName": "bad!name"})) == (
        f"{ONE}Value 'bad!name' at 'transactItems.2.member.get.tableName' failed to satisfy "
        "constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
    )


def test_a_projection_that_cannot_be_read(db: Any) -> None:
    wrong = {**GET, "TableName": "missing", "ProjectionExpression": "!!!"}
    assert db.refused("TransactGetItems", *of(wrong)) == (
        'Invalid ProjectionExpression: Syntax error; token: "!", near: "!!"'
    )


def test_a_value_that_is_wrong_refuses_the_request(db: Any) -> None:
    wrong = {"TableName": "plain", "Key": {"pk": {"N": "abc"}}}
    assert db.refused("TransactGetItems", *of(wrong)) == (
        "The parameter cannot be converted to a numeric value: abc"
    )


def test_one_item_twice(db: Any) -> None:
    assert db.refused("TransactGetItems", *of(GET, GET)) == (
        "Transaction request cannot include multiple operations on one item"
    )


@pytest.mark.parametrize("key", [{}, {"pk": {"N": "5"}}, {"x": {"S": "a"}}])
def test_a_wrong_key_cancels(db: Any, key: Any) -> None:
    assert db.canceled("TransactGetItems", *of(GET, {"TableName": "plain", "Key": key})) == [
        {"Code": "None"},
        {
            "Code": "ValidationError",
            "Message": "The provided key element does not match the schema",
        },
    ]


def test_an_empty_key_cancels_too(db: Any) -> None:
    empty = {"TableName": "plain", "Key": {"pk": {"S": ""}}}
    wrong = {"TableName": "plain", "Key": {"pk": {"N": "5"}}}
    reasons = db.canceled("TransactGetItems", *of(empty, wrong))
    assert [each["Code"] for each in reasons] == ["ValidationError"] * 2
    assert reasons[0]["Message"] == (
        "One or more parameter values are not valid. The AttributeValue for a key attribute "
        "cannot contain an empty string value. Key: pk"
    )
