"""What refuses a TransactWriteItems, what cancels it, and which of several is told.

The messages are the conformance suite's recordings of AWS.
"""

from __future__ import annotations

from typing import Any

import pytest

from millstream.limits import ITEM_SIZE_BYTES_MAX

KEY = {"pk": {"S": "a"}}
PUT = {"Put": {"TableName": "plain", "Item": KEY}}
MISSING = {"Put": {"TableName": "missing", "Item": KEY}}
ONE = "1 validation error detected: "
ENUM_CAPACITY = (
    "Value 'BOGUS' at 'returnConsumedCapacity' failed to satisfy constraint: "
    "Member must satisfy enum value set: [INDEXES, TOTAL, NONE]"
)
ENUM_METRICS = (
    "Value 'BOGUS' at 'returnItemCollectionMetrics' failed to satisfy constraint: "
    "Member must satisfy enum value set: [SIZE, NONE]"
)
MISMATCH = "The provided key element does not match the schema"
NOT_FOUND = "ResourceNotFoundException: Requested resource not found"
DUPLICATES = "Transaction request cannot include multiple operations on one item"
SYNTAX = 'Invalid ConditionExpression: Syntax error; token: "<EOF>", near: "("'
UNUSED = "Value provided in ExpressionAttributeValues unused in expressions: keys: {:v}"
NESTED = (
    "Nesting Levels have exceeded supported limits: "
    "Attributes in the item have nested levels beyond supported limit"
)


def refused(db: Any, *actions: Any, **more: Any) -> str:
    message: str = db.refused("TransactWriteItems", *actions, **more)
    return message


def on_key(member: str, key: Any, table: str = "plain") -> dict[str, Any]:
    action: dict[str, Any] = {"TableName": table, "Key": key}
    if member == "Update":
        action["UpdateExpression"] = "SET v = :v"
        action["ExpressionAttributeValues"] = {":v": {"S": "x"}}
    if member == "ConditionCheck":
        action["ConditionExpression"] = "attribute_not_exists(pk)"
    return {member: action}


def check(expression: str, **more: Any) -> dict[str, Any]:
    return {
        "ConditionCheck": {
            "TableName": "plain",
            "Key": KEY,
            "ConditionExpression": expression,
            **more,
        }
    }


def reason(message: str) -> list[Any]:
    return [{"Code": "ValidationError", "Message": message}]


KEYED = ("Update", "Delete", "ConditionCheck")


# -- Constraints


def test_no_action(db: Any) -> None:
    assert refused(db) == (
        f"{ONE}Value '[]' at 'transactItems' failed to satisfy constraint: "
        "Member must have length greater than or equal to 1"
    )


def test_no_list_of_actions(db: Any) -> None:
    assert refused(db) != ""
    with pytest.raises(Exception, match="Value null at 'transactItems' failed to satisfy"):
        db.call("TransactWriteItems")


def test_more_than_a_hundred_actions(db: Any) -> None:
    items = [{"Put": {"TableName": "plain", "Item": {"pk": {"S": f"{n}"}}}} for n in range(101)]
    message = refused(db, *items)
    assert message.startswith(f"{ONE}Value '[TransactWriteItem(")
    assert message.endswith(
        "]' at 'transactItems' failed to satisfy constraint: "
        "Member must have length less than or equal to 100"
    )


def test_unknown_enums_are_told_together(db: Any) -> None:
    assert refused(db, PUT, ReturnConsumedCapacity="BOGUS") == ONE + ENUM_CAPACITY
    assert refused(db, PUT, ReturnItemCollectionMetrics="BOGUS") == ONE + ENUM_METRICS
    both = {"ReturnConsumedCapacity": "BOGUS", "ReturnItemCollectionMetrics": "BOGUS"}
    assert refused(db, PUT, **both) == (
        f"2 validation errors detected: {ENUM_CAPACITY}; {ENUM_METRICS}"
    )
    assert db.get("plain", KEY) is None


@pytest.mark.parametrize("actions", [[MISSING], [PUT, on_key("Delete", KEY)], [{}]])
def test_constraints_come_before_tables_duplicates_and_members(db: Any, actions: Any) -> None:
    message = refused(db, *actions, ReturnConsumedCapacity="BOGUS")
    assert ENUM_CAPACITY in message


def test_the_lengths_of_a_token(db: Any) -> None:
    token = "x" * 37
    long = (
        f"Value '{token}' at 'clientRequestToken' failed to satisfy constraint: "
        "Member must have length less than or equal to 36"
    )
    assert refused(db, PUT, ClientRequestToken=token) == ONE + long
    assert refused(db, PUT, ClientRequestToken=token, ReturnConsumedCapacity="BOGUS") == (
        f"2 validation errors detected: {long}; {ENUM_CAPACITY}"
    )
    assert refused(db, PUT, ClientRequestToken="") == (
        f"{ONE}Value '' at 'clientRequestToken' failed to satisfy constraint: "
        "Member must have length greater than or equal to 1"
    )
    assert db.write(PUT, ClientRequestToken="x" * 36) == {}


@pytest.mark.parametrize("member", ["Put", *KEYED])
def test_a_malformed_table_name_is_told_with_its_place(db: Any, member: str) -> None:
    action = on_key(member, KEY, "bad!name")
    if member == "Put":
        action["Put"]["Item"] = action["Put"].pop("Key")
    path = f"transactItems.2.member.{member[0].lower()}{member[1:]}.tableName"
    assert refused(db, PUT, action) == (
        f"{ONE}Value 'bad!name' at '{path}' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
    )


def test_missing_members_are_told_with_their_places(db: Any) -> None:
    bare = {"Update": {"TableName": "plain", "Key": KEY}}
    assert refused(db, bare, PUT, bare) == (
        "2 validation errors detected: Value null at "
        "'transactItems.1.member.update.updateExpression' failed to satisfy constraint: "
        "Member must not be null; Value null at "
        "'transactItems.3.member.update.updateExpression' failed to satisfy constraint: "
        "Member must not be null"
    )
    for member, missing in (
        ("Put", "item"),
        ("Delete", "key"),
        ("ConditionCheck", "conditionExpression"),
    ):
        action = {"TableName": "plain"} | ({"Key": KEY} if member == "ConditionCheck" else {})
        path = f"transactItems.1.member.{member[0].lower()}{member[1:]}.{missing}"
        assert refused(db, {member: action}) == (
            f"{ONE}Value null at '{path}' failed to satisfy constraint: Member must not be null"
        )


def test_members_that_no_action_has_are_refused(db: Any) -> None:
    action = {"Put": PUT["Put"] | {"ReturnValues": "ALL_OLD"}}
    assert refused(db, action) == "The request has an unknown member: 'ReturnValues'"


# -- What the request alone decides


def test_an_action_without_operation_and_one_with_two(db: Any) -> None:
    assert refused(db, {}) == (
        "Invalid Request: TransactWriteRequest should contain Delete or Put or Update request"
    )
    assert refused(db, {**PUT, **on_key("Delete", KEY)}) == (
        "TransactItems can only contain one of Check, Put, Update or Delete"
    )


def test_expressions_are_refused_as_a_whole(db: Any) -> None:
    empty = "Invalid ConditionExpression: The expression can not be empty;"
    for member in ("Put", "Delete", "ConditionCheck"):
        action = on_key(member, KEY)
        action[member]["ConditionExpression"] = ""
        if member == "Put":
            action["Put"]["Item"] = action["Put"].pop("Key")
        assert refused(db, action) == empty
    assert refused(db, check("attribute_not_exists(")) == SYNTAX
    assert refused(db, check("(((a = a)))")) == (
        "Invalid ConditionExpression: The expression has redundant parentheses;"
    )
    update = on_key("Update", KEY)
    update["Update"]["UpdateExpression"] = "SET"
    assert refused(db, update).startswith("Invalid UpdateExpression: Syntax error;")


def test_an_expression_that_is_too_long(db: Any) -> None:
    condition = " AND ".join(["attribute_not_exists(aaaaaaaaaaaaaaaaaaaaaaaaaaa)"] * 100)
    assert "Expression size has exceeded the maximum allowed size" in refused(
        db, {"Put": {**PUT["Put"], "TableName": "missing"}}, check(condition)
    )


@pytest.mark.parametrize("member", ["Put", *KEYED])
def test_unused_values_are_refused_before_tables_and_duplicates(db: Any, member: str) -> None:
    action = on_key(member, KEY)
    if member == "Put":
        action["Put"]["Item"] = action["Put"].pop("Key")
    action[member]["ConditionExpression"] = "attribute_not_exists(pk)"
    used = {":u": {"S": "x"}} if member == "Update" else {}
    action[member]["ExpressionAttributeValues"] = {**used, ":v": {"S": "x"}}
    if member == "Update":
        action["Update"]["UpdateExpression"] = "SET v = :u"
    assert refused(db, action) == UNUSED
    assert refused(db, MISSING, action) == UNUSED
    assert refused(db, action, MISSING) == UNUSED
    assert refused(db, PUT, action) == UNUSED


def test_empty_values(db: Any) -> None:
    message = "ExpressionAttributeValues must not be empty"
    assert refused(db, check("attribute_exists(pk)", ExpressionAttributeValues={})) == message


def test_of_two_wrong_actions_the_first_is_told(db: Any) -> None:
    value: Any = {"S": "leaf"}
    for _ in range(32):
        value = {"M": {"n": value}}
    deep = {"Put": {"TableName": "plain", "Item": {"pk": {"S": "b"}, "data": value}}}
    assert refused(db, deep, check("attribute_not_exists(")) == NESTED
    assert refused(db, check("attribute_not_exists("), deep) == SYNTAX
    assert refused(db, MISSING, check("attribute_not_exists(")) == SYNTAX


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"N": "abc"}, "The parameter cannot be converted to a numeric value: abc"),
        (
            {"N": "1e126"},
            "Number overflow. Attempting to store a number with magnitude larger than supported "
            "range",
        ),
        (
            {"SS": ["b", "a", "b"]},
            "One or more parameter values were invalid: "
            "Input collection [b, a, b] contains duplicates.",
        ),
        ({"NS": ["2", "1", "2"]}, "Input collection contains duplicates"),
    ],
)
def test_wrong_values_refuse_the_request(db: Any, value: Any, message: str) -> None:
    item = {"Put": {"TableName": "plain", "Item": {**KEY, "v": value}}}
    assert refused(db, item) == message
    assert refused(db, on_key("Delete", {"pk": value})) == message
    update = on_key("Update", KEY)
    update["Update"]["ExpressionAttributeValues"] = {":v": value}
    wrapped = f"ExpressionAttributeValues contains invalid value: {message} for key :v"
    assert refused(db, update) == wrapped
    assert refused(db, check("v = :v", ExpressionAttributeValues={":v": value})) == wrapped


def test_the_size_of_an_item_to_put(db: Any) -> None:
    fits = {**KEY, "v": {"S": "x" * (ITEM_SIZE_BYTES_MAX - len("pkav"))}}
    assert db.write({"Put": {"TableName": "plain", "Item": fits}}) == {}
    over = {**KEY, "v": {"S": fits["v"]["S"] + "x"}}
    assert refused(db, {"Put": {"TableName": "plain", "Item": over}}) == (
        "Item size has exceeded the maximum allowed size"
    )


def test_four_megabytes(db: Any) -> None:
    def puts(count: int) -> list[Any]:
        filler = {"S": "x" * 350_000}
        return [
            {"Put": {"TableName": "plain", "Item": {"pk": {"S": f"{n}"}, "v": filler}}}
            for n in range(count)
        ]

    assert db.write(*puts(10)) == {}
    assert refused(db, *puts(12)) == (
        "The aggregate size of the items in the transaction cannot exceed 4 MB"
    )


# -- Tables and duplicates


def test_a_missing_table(db: Any) -> None:
    assert refused(db, PUT, MISSING) == NOT_FOUND


def test_a_missing_table_comes_before_a_wrong_key(db: Any) -> None:
    assert refused(db, on_key("Delete", {"pk": {"N": "1"}}), MISSING) == NOT_FOUND


@pytest.mark.parametrize("member", KEYED)
def test_two_actions_on_one_item(db: Any, member: str) -> None:
    assert refused(db, PUT, on_key(member, KEY)) == DUPLICATES


def test_one_item_by_a_name_and_by_an_arn(db: Any) -> None:
    arn = "arn:aws:dynamodb:us-east-1:000000000000:table/plain"
    assert refused(db, PUT, on_key("Delete", KEY, arn)) == DUPLICATES


def test_one_key_in_two_tables(db: Any) -> None:
    assert db.write(PUT, on_key("Delete", KEY, "other")) == {}


# -- Keys


@pytest.mark.parametrize("value", [{"N": "5"}, {"L": [{"S": "x"}]}])
def test_a_key_of_a_wrong_type_cancels(db: Any, value: Any) -> None:
    kind = next(iter(value))
    item = {"Put": {"TableName": "plain", "Item": {"pk": value}}}
    assert db.canceled("TransactWriteItems", item) == reason(
        "One or more parameter values were invalid: "
        f"Type mismatch for key pk expected: S actual: {kind}"
    )
    for member in KEYED:
        action = on_key(member, {"pk": value})
        assert db.canceled("TransactWriteItems", action) == reason(MISMATCH)


@pytest.mark.parametrize("key", [{}, {"pk": {"S": "a"}, "x": {"S": "b"}}, {"x": {"S": "a"}}])
def test_a_key_of_another_schema_cancels(db: Any, key: Any) -> None:
    for member in KEYED:
        assert db.canceled("TransactWriteItems", on_key(member, key)) == reason(MISMATCH)


def test_a_missing_key_in_an_item_cancels_in_its_place(db: Any) -> None:
    bare = {"Put": {"TableName": "plain", "Item": {"x": {"S": "b"}}}}
    message = "One or more parameter values were invalid: Missing the key pk in the item"
    assert db.canceled("TransactWriteItems", PUT, bare) == [{"Code": "None"}, *reason(message)]
    assert db.get("plain", KEY) is None


@pytest.mark.parametrize(
    ("table", "value", "kind"),
    [
        ("plain", {"S": ""}, "string"),
        ("binary", {"B": ""}, "binary"),
    ],
)
def test_an_empty_key_refuses_the_request(db: Any, table: str, value: Any, kind: str) -> None:
    message = (
        "One or more parameter values are not valid. The AttributeValue for a key attribute "
        f"cannot contain an empty {kind} value. Key: pk"
    )
    assert refused(db, {"Put": {"TableName": table, "Item": {"pk": value}}}) == message
    for member in KEYED:
        assert refused(db, on_key(member, {"pk": value}, table)) == message
    # ... whatever is wrong with the actions before it.
    wrong = on_key("Delete", {"pk": {"N": "1"}})
    assert refused(db, wrong, on_key("Delete", {"pk": value}, table)) == message


def test_an_empty_sort_key_refuses_and_a_missing_one_cancels(db: Any) -> None:
    empty = on_key("Update", {"pk": {"S": "a"}, "sk": {"S": ""}}, "rich")
    assert refused(db, empty).endswith("cannot contain an empty string value. Key: sk")
    missing = on_key("Update", {"pk": {"S": ""}}, "rich")
    assert db.canceled("TransactWriteItems", missing) == reason(MISMATCH)


def test_an_update_of_a_key_attribute_cancels(db: Any) -> None:
    update = on_key("Update", KEY)
    update["Update"]["UpdateExpression"] = "SET pk = :v"
    assert db.canceled("TransactWriteItems", update) == reason(
        "One or more parameter values were invalid: "
        "Cannot update attribute pk. This attribute is part of the key"
    )


# -- Index keys

RICH_KEY = {"pk": {"S": "a"}, "sk": {"S": "b"}}


def rich_update(expression: str, **values: Any) -> dict[str, Any]:
    return {
        "Update": {
            "TableName": "rich",
            "Key": RICH_KEY,
            "UpdateExpression": expression,
            "ExpressionAttributeValues": {f":{name}": value for name, value in values.items()},
        }
    }


def test_an_index_key_of_a_wrong_type_cancels(db: Any) -> None:
    message = (
        "One or more parameter values were invalid: Type mismatch for Index Key gk "
        "Expected: S Actual: N IndexName: global"
    )
    item = {"Put": {"TableName": "rich", "Item": {**RICH_KEY, "gk": {"N": "1"}}}}
    assert db.canceled("TransactWriteItems", item) == reason(message)
    update = rich_update("SET gk = :g", g={"N": "1"})
    assert db.canceled("TransactWriteItems", update) == reason(message)


def test_an_empty_index_key_refuses_the_request(db: Any) -> None:
    item = {"Put": {"TableName": "rich", "Item": {**RICH_KEY, "gk": {"S": ""}}}}
    assert refused(db, item) == (
        "One or more parameter values are not valid. A value specified for a secondary index key "
        "is not supported. The AttributeValue for a key attribute cannot contain an empty string "
        "value. IndexName: global, IndexKey: gk"
    )
    # Also where only the partition sees it, and beside an action that failed.
    db.put("plain", KEY)
    failing = {"Put": {**PUT["Put"], "ConditionExpression": "attribute_not_exists(pk)"}}
    assert refused(db, failing, rich_update("SET gk = :g", g={"S": ""})) == (
        "One or more parameter values are not valid. The update expression attempted to update a "
        "secondary index key to a value that is not supported. The AttributeValue for a key "
        "attribute cannot contain an empty string value."
    )


def test_a_path_into_a_key_attribute_cancels(db: Any) -> None:
    reasons = db.canceled("TransactWriteItems", check("attribute_exists(pk.x)"))
    assert [each["Code"] for each in reasons] == ["ValidationError"]
