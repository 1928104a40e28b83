"""TransactWriteItems: what it does, why it is cancelled, tokens."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.limits import ITEM_SIZE_BYTES_MAX

FAILED = {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"}
NONE = {"Code": "None"}
NEW = {"ConditionExpression": "attribute_not_exists(pk)"}


def item(pk: str, **attributes: Any) -> dict[str, Any]:
    return {"pk": {"S": pk}, **attributes}


def put(pk: str, table: str = "plain", **more: Any) -> dict[str, Any]:
    return {"Put": {"TableName": table, "Item": item(pk), **more}}


def delete(pk: str, **more: Any) -> dict[str, Any]:
    return {"Delete": {"TableName": "plain", "Key": item(pk), **more}}


def check(pk: str, expression: str, **more: Any) -> dict[str, Any]:
    action = {"TableName": "plain", "Key": item(pk), "ConditionExpression": expression}
    return {"ConditionCheck": action | more}


def update(pk: str, value: Any, expression: str = "SET v = :v", **more: Any) -> dict[str, Any]:
    return {
        "Update": {
            "TableName": "plain",
            "Key": item(pk),
            "UpdateExpression": expression,
            "ExpressionAttributeValues": {":v": value},
            **more,
        }
    }


# -- What it does


def test_all_four_actions_over_two_tables(db: Any) -> None:
    db.put("plain", item("u", v={"N": "1"}), item("d"), item("c"))
    assert (
        db.write(
            put("p"),
            update("u", {"N": "2"}),
            delete("d"),
            check("c", "attribute_exists(pk)"),
            put("o", "other"),
        )
        == {}
    )
    assert db.get("plain", item("p")) == item("p")
    assert db.get("plain", item("u")) == item("u", v={"N": "2"})
    assert db.get("plain", item("d")) is None
    assert db.get("plain", item("c")) == item("c")
    assert db.get("other", item("o")) == item("o")


def test_an_update_creates_an_item_that_a_condition_wants_absent(db: Any) -> None:
    db.write(update("u", {"S": "x"}, **NEW))
    assert db.get("plain", item("u")) == item("u", v={"S": "x"})


def test_a_hundred_actions(db: Any) -> None:
    assert db.write(*[put(f"p{number}") for number in range(100)]) == {}


def test_a_table_may_be_named_by_its_arn(db: Any) -> None:
    arn = "arn:aws:dynamodb:us-east-1:000000000000:table/plain"
    db.write(put("p", arn))
    assert db.get("plain", item("p")) == item("p")


def test_names_and_values_without_an_expression_are_accepted(db: Any) -> None:
    more = {
        "ExpressionAttributeNames": {"#n": "x"},
        "ExpressionAttributeValues": {":v": {"S": "x"}},
    }
    assert db.write(put("p", **more), delete("d", **more)) == {}


def test_null_members_count_as_absent(db: Any) -> None:
    assert db.write({**put("p", ConditionExpression=None), "Delete": None}) == {}


# -- Why it is cancelled


def test_reasons_stand_in_the_actions_places_and_nothing_is_applied(db: Any) -> None:
    db.put("plain", item("p"), item("c"))
    reasons = db.canceled(
        "TransactWriteItems",
        put("p", **NEW),
        put("q"),
        check("c", "attribute_not_exists(pk)"),
        delete("gone", ConditionExpression="attribute_exists(pk)"),
        update("u", {"S": "x"}, ConditionExpression="attribute_exists(pk)"),
    )
    assert reasons == [FAILED, NONE, FAILED, FAILED, FAILED]
    assert db.get("plain", item("q")) is None
    assert db.get("plain", item("u")) is None


@pytest.mark.parametrize(
    "action",
    [
        put("p", **NEW, ReturnValuesOnConditionCheckFailure="ALL_OLD"),
        delete("p", **NEW, ReturnValuesOnConditionCheckFailure="ALL_OLD"),
        update("p", {"S": "x"}, **NEW, ReturnValuesOnConditionCheckFailure="ALL_OLD"),
        check("p", "attribute_not_exists(pk)", ReturnValuesOnConditionCheckFailure="ALL_OLD"),
    ],
)
def test_a_failed_condition_tells_the_item_when_asked(db: Any, action: Any) -> None:
    stored = item("p", v={"N": "1"})
    db.put("plain", stored)
    reasons = db.canceled("TransactWriteItems", put("q"), action)
    assert reasons == [NONE, {**FAILED, "Item": stored}]


def test_a_failed_condition_on_no_item_tells_none(db: Any) -> None:
    asked = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    action = delete("p", ConditionExpression="attribute_exists(pk)", **asked)
    assert db.canceled("TransactWriteItems", action) == [FAILED]


def test_a_held_item_is_a_conflict(db: Any) -> None:
    db.write(put("p"))
    db.tables.held = {key for key, _ in db.tables.refs["plain"].state.btree.range(1, b"", None)}
    assert db.canceled("TransactWriteItems", put("q"), put("p")) == [
        NONE,
        {"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"},
    ]


def test_an_update_that_does_not_fit_the_item_is_a_validation_error(db: Any) -> None:
    db.put("plain", item("u", v={"S": "text"}))
    reasons = db.canceled("TransactWriteItems", put("p"), update("u", {"N": "1"}, "SET v = v + :v"))
    assert reasons[0] == NONE
    assert reasons[1]["Code"] == "ValidationError"
    assert reasons[1]["Message"].startswith("An operand in the update expression has an incorrect")


def test_an_item_that_an_update_makes_too_large_cancels(db: Any) -> None:
    value = {"S": "x" * (ITEM_SIZE_BYTES_MAX - len("pkuv"))}
    assert db.write(update("u", value)) == {}
    larger = {"S": value["S"] + "x"}
    assert db.canceled("TransactWriteItems", update("u", larger)) == [
        {
            "Code": "ValidationError",
            "Message": "Item size to update has exceeded the maximum allowed size",
        }
    ]


# -- Tokens


def test_a_repeated_token_does_nothing_and_succeeds(db: Any) -> None:
    first = update("u", {"N": "1"}, "ADD v :v")
    for _ in range(2):
        assert db.write(first, ClientRequestToken="t") == {}
    assert db.get("plain", item("u")) == item("u", v={"N": "1"})
    assert list(db.tables.tokens) == ["space/t"]


def test_the_same_request_may_be_spelled_differently(db: Any) -> None:
    sets = {"NS": ["1", "2"]}, {"NS": ["2.0", "1"]}
    actions = [
        {"Put": {"TableName": "plain", "Item": {"pk": {"S": "p"}, "a": sets[0]}}},
        {"Put": {"Item": {"a": sets[1], "pk": {"S": "p"}}, "TableName": "plain"}, "Update": None},
    ]
    for mode, action in zip(("TOTAL", "NONE"), actions):
        db.write(action, ClientRequestToken="t", ReturnConsumedCapacity=mode)
    assert db.tables.calls == 2


@pytest.mark.parametrize(
    "other",
    [
        put("q"),
        put("p", "other"),
        put("p", **NEW),
        put("p", ReturnValuesOnConditionCheckFailure="ALL_OLD"),
        delete("p"),
    ],
)
def test_a_token_cannot_be_used_for_another_request(db: Any, other: Any) -> None:
    db.write(put("p"), ClientRequestToken="t")
    assert db.refused("TransactWriteItems", other, ClientRequestToken="t") == (
        "IdempotentParameterMismatchException: DynamoDB rejected the request because you retried "
        "a request with a different payload but with an idempotent token that was already used."
    )


def test_a_token_that_is_being_worked_on(db: Any) -> None:
    db.tables.in_progress.add("space/t")
    assert db.refused("TransactWriteItems", put("p"), ClientRequestToken="t") == (
        "TransactionInProgressException: Transaction from previous request is still in progress"
    )
