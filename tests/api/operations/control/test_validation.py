"""The first stage of a request: JSON types, the table's name, constraints; words and order."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.api.json_types import decode
from millstream.api.shapes import OPERATIONS
from millstream.api.validation import check, read, table_name_of
from millstream.errors import InvalidRequest, MalformedRequest, RequestError
from millstream.limits import REQUEST_ECHO_CHARACTERS_MAX

ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/things"


def refusal(operation: str, /, **members: Any) -> str:
    """The one ValidationException about ``members``."""
    with pytest.raises(InvalidRequest) as caught:
        read(operation, msgspec.json.encode(members))
    return str(caught.value)


def violations(operation: str, /, **members: Any) -> list[str]:
    """The violations listed, without the count, which is checked."""
    text = refusal(operation, **members)
    count, _, rest = text.partition(" validation error")
    found = rest.removeprefix("s").removeprefix(" detected: ").split("; ")
    assert int(count) == len(found)
    return found


def malformed(operation: str, /, **members: Any) -> str:
    """The SerializationException about ``members``."""
    with pytest.raises(MalformedRequest) as caught:
        read(operation, msgspec.json.encode(members))
    return str(caught.value)


# -- The body --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"TableName": }',
        b'{"TableName":"a"} trailing',
        b'{"TableName":"\xff"}',
        b'{"TableName":"\\ud800"}',
        b'{"Limit":1e999}',
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
    ],
)
def test_a_body_that_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        read("ListTables", body)


@pytest.mark.parametrize("body", [b"[]", b"null", b'"text"', b"1", b"true"])
def test_a_body_that_is_not_an_object_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        decode(body)


@pytest.mark.parametrize("operation", ["DescribeTable", "GetItem"])
def test_members_that_the_service_does_not_model_are_refused(operation: str) -> None:
    """AWS skips them; to accept and ignore what somebody asks for is not for us."""
    with pytest.raises(InvalidRequest, match="unknown member: 'Colour'"):
        read(operation, b'{"TableName":"things","Colour":"red"}')


def test_null_counts_as_absent() -> None:
    assert read("ListTables", b'{"Limit":null}') == {}


# -- JSON types ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1, "NUMBER_VALUE cannot be converted to String"),
        (1.5, "DECIMAL_VALUE cannot be converted to String"),
        (True, "TRUE_VALUE cannot be converted to String"),
        (False, "FALSE_VALUE cannot be converted to String"),
        ({}, "Start of structure or map found where not expected"),
        ([], "Unrecognized collection type class java.lang.String"),
    ],
)
def test_a_string_must_be_a_string(value: Any, message: str) -> None:
    assert malformed("GetItem", TableName=value) == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1", "STRING_VALUE cannot be converted to Integer"),
        (True, "TRUE_VALUE cannot be converted to Integer"),
        ([], "Unrecognized collection type class java.lang.Integer"),
        (
            1 << 31,
            "Numeric value (2147483648) out of range of int (-2147483648 - 2147483647)",
        ),
    ],
)
def test_a_whole_number_must_be_a_number(value: Any, message: str) -> None:
    assert malformed("ListTables", Limit=value) == message


def test_a_long_may_have_64_bits_and_no_more() -> None:
    with pytest.raises(MalformedRequest, match="out of range of long"):
        read("CreateTable", b'{"OnDemandThroughput":{"MaxReadRequestUnits":9223372036854775808}}')


def test_a_decimal_is_narrowed_as_java_does() -> None:
    assert read("ListTables", b'{"Limit":2.9}') == {"Limit": 2}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1, "NUMBER_VALUE cannot be converted to Boolean"),
        ("maybe", "Unexpected token received from parser"),
        ([], "Unrecognized collection type class java.lang.Boolean"),
    ],
)
def test_a_boolean_must_be_a_boolean(value: Any, message: str) -> None:
    assert malformed("GetItem", ConsistentRead=value) == message


def test_the_words_for_true_and_false_are_booleans() -> None:
    request = read("GetItem", b'{"TableName":"abc","Key":{},"ConsistentRead":"True"}')
    assert request["ConsistentRead"] is True


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("text", "Unexpected field type"),
        ({}, "Start of structure or map found where not expected"),
    ],
)
def test_a_list_must_be_a_list(value: Any, message: str) -> None:
    assert malformed("CreateTable", KeySchema=value) == message


def test_an_element_of_the_wrong_type_is_told_as_a_payload() -> None:
    assert malformed("CreateTable", KeySchema=["x"]) == "Unexpected value type in payload"


def test_a_structure_is_not_a_list() -> None:
    assert malformed("CreateTable", ProvisionedThroughput=[]) == (
        "Unrecognized collection type class "
        "com.amazonaws.dynamodb.v20120810.ProvisionedThroughput"
    )


def test_a_map_is_not_a_list() -> None:
    assert malformed("PutItem", Item=[]) == (
        "Unrecognized collection type java.util.Map<java.lang.String, "
        "com.amazonaws.dynamodb.v20120810.AttributeValue>"
    )


def test_a_list_in_a_map_has_javas_own_complaint() -> None:
    assert "ParameterizedTypeImpl" in malformed("BatchWriteItem", RequestItems={"abc": "x"})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"S": 1}, "NUMBER_VALUE cannot be converted to String"),
        ({"N": 1}, "NUMBER_VALUE cannot be converted to String"),
        ({"B": 1}, "only base-64-encoded strings are convertible to bytes"),
        ({"B": "abc"}, "Base64 encoded length is expected a multiple of 4 bytes but found: 3"),
        ({"B": "a$bc"}, "Invalid last non-pad Base64 character dectected"),
        ({"BOOL": 1}, "NUMBER_VALUE cannot be converted to Boolean"),
        ({"SS": "x"}, "Unexpected field type"),
        ({"L": [1]}, "Unexpected value type in payload"),
        ({"M": {"a": {"S": 1}}}, "NUMBER_VALUE cannot be converted to String"),
        ("text", "Unexpected value type in payload"),
    ],
)
def test_attribute_values_have_their_json_types(value: Any, message: str) -> None:
    assert malformed("PutItem", TableName="abc", Item={"a": value}) == message


def test_the_inside_of_attribute_values_is_left_to_the_model() -> None:
    item = {"a": {"L": [None, {"N": "x"}]}, "b": {}, "c": {"X": 1, "S": "s"}}
    body = msgspec.json.encode({"TableName": "abc", "Item": item})
    assert read("PutItem", body)["Item"] == item


def test_types_come_before_constraints_and_in_the_bodys_order() -> None:
    with pytest.raises(MalformedRequest, match="NUMBER_VALUE"):
        read("PutItem", b'{"TableName":"","Item":5.5,"ReturnValues":1}'.replace(b"5.5", b"{}"))
    with pytest.raises(MalformedRequest, match="TRUE_VALUE"):
        read("PutItem", b'{"ReturnValues":true,"TableName":1}')


# -- The table's name ------------------------------------------------------------------------------

# ListStreams takes a name as an option, and no ARN for it.
NAMED = [
    name
    for name, shape in OPERATIONS.items()
    if "TableName" in shape.members and name != "ListStreams"
]


@pytest.mark.parametrize("operation", NAMED)
def test_a_missing_table_name(operation: str) -> None:
    told = refusal(operation)
    if operation.endswith("Table"):
        assert told == "The parameter 'TableName' is required but was not present in the request"
    else:
        assert (
            "Value null at 'tableName' failed to satisfy constraint: Member must not be null"
        ) in told


@pytest.mark.parametrize("operation", NAMED)
@pytest.mark.parametrize(
    ("name", "constraint"),
    [
        ("", "Member must have length greater than or equal to 1"),
        ("ab", "Member must have length greater than or equal to 3"),
        ("a" * 256, "Member must have length less than or equal to 255"),
        ("a" * 1025, "Member must have length less than or equal to 1024"),
        (
            "bad table!@#",
            "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+",
        ),
    ],
)
def test_a_bad_table_name_is_told_alone(operation: str, name: str, constraint: str) -> None:
    bad = {"ReturnValues": "INVALID", "KeySchema": []}
    members = OPERATIONS[operation].members
    known = {member: value for member, value in bad.items() if member in members}
    assert refusal(operation, TableName=name, **known) == (
        f"1 validation error detected: Value '{name}' at 'tableName' failed to satisfy "
        f"constraint: {constraint}"
    )


def test_a_table_arn_names_a_table() -> None:
    assert read("DescribeTable", msgspec.json.encode({"TableName": ARN})) == {"TableName": ARN}
    assert table_name_of(ARN) == "things"
    assert table_name_of("things") == "things"


def test_what_is_not_a_table_arn_is_a_bad_name() -> None:
    assert "regular expression" in refusal("DescribeTable", TableName="arn:aws:s3:::bucket")
    assert table_name_of("arn:aws:s3:::bucket") == "arn:aws:s3:::bucket"


# -- Constraints -----------------------------------------------------------------------------------


def test_all_violations_are_told_together() -> None:
    found = violations(
        "PutItem",
        TableName="abc",
        Item={},
        ReturnConsumedCapacity="A",
        ReturnItemCollectionMetrics="B",
        ReturnValues="C",
    )
    assert found == [
        "Value 'A' at 'returnConsumedCapacity' failed to satisfy constraint: "
        "Member must satisfy enum value set: [INDEXES, TOTAL, NONE]",
        "Value 'C' at 'returnValues' failed to satisfy constraint: Member must satisfy enum value "
        "set: [ALL_NEW, UPDATED_OLD, ALL_OLD, NONE, UPDATED_NEW]",
        "Value 'B' at 'returnItemCollectionMetrics' failed to satisfy constraint: "
        "Member must satisfy enum value set: [SIZE, NONE]",
    ]


def test_at_most_ten_violations_are_told() -> None:
    keys = [{} for _ in range(9)]
    assert len(violations("CreateTable", TableName="abc", KeySchema=keys)) == 10
    # The ninth may be followed by a member that violates two constraints at once.
    indexes = [{"IndexName": "!"} for _ in range(3)]
    found = violations(
        "CreateTable",
        TableName="abc",
        AttributeDefinitions=[],
        BillingMode="X",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        LocalSecondaryIndexes=indexes,
    )
    assert len(found) == 10


def test_a_bad_element_is_told_with_its_place() -> None:
    definitions = [{"AttributeName": "a", "AttributeType": "X"}]
    assert violations(
        "CreateTable",
        TableName="abc",
        AttributeDefinitions=definitions,
        KeySchema=[{"AttributeName": "a", "KeyType": "X"}],
    ) == [
        "Value 'X' at 'attributeDefinitions.1.member.attributeType' failed to satisfy constraint: "
        "Member must satisfy enum value set: [B, N, S]",
        "Value 'X' at 'keySchema.1.member.keyType' failed to satisfy constraint: "
        "Member must satisfy enum value set: [HASH, RANGE]",
    ]


def test_a_long_list_is_repeated_as_java_prints_it() -> None:
    keys = [{"AttributeName": name, "KeyType": "HASH"} for name in "abc"]
    assert violations("CreateTable", TableName="abc", AttributeDefinitions=[], KeySchema=keys) == [
        "Value '[KeySchemaElement(attributeName=a, keyType=HASH), "
        "KeySchemaElement(attributeName=b, keyType=HASH), "
        "KeySchemaElement(attributeName=c, keyType=HASH)]' at 'keySchema' failed to satisfy "
        "constraint: Member must have length less than or equal to 2"
    ]


def test_a_map_is_told_with_its_key() -> None:
    found = violations(
        "PutItem", TableName="abc", Item={}, Expected={"a": {"ComparisonOperator": "X"}}
    )
    assert found[0].startswith("Value 'X' at 'expected.a.member.comparisonOperator' failed")


def test_a_null_in_a_list_of_structures_is_refused() -> None:
    found = violations("CreateTable", TableName="abc", AttributeDefinitions=[], KeySchema=[None])
    assert found == [
        "Value null at 'keySchema.1.member' failed to satisfy constraint: Member must not be null"
    ]


def test_a_scans_limit_and_a_querys_are_worded_differently() -> None:
    assert refusal("Scan", TableName="abc", Limit=0) == (
        "1 validation error detected: Value '0' at 'limit' failed to satisfy constraint: "
        "Member must have value greater than or equal to 1"
    )
    assert refusal("Query", TableName="abc", Limit=0) == (
        "1 validation error detected: Value at 'Limit' failed to satisfy constraint: "
        "Member must have value greater than or equal to 1"
    )


def test_a_querys_select() -> None:
    assert refusal("Query", TableName="abc", Select="INVALID_VALUE") == (
        "1 validation error detected: Value 'INVALID_VALUE' at 'select' failed to satisfy "
        "constraint: Member must satisfy enum value set: [SPECIFIC_ATTRIBUTES, COUNT, "
        "ALL_ATTRIBUTES, ALL_PROJECTED_ATTRIBUTES]"
    )


@pytest.mark.parametrize("operation", ["BatchGetItem", "BatchWriteItem"])
def test_an_empty_batch(operation: str) -> None:
    assert refusal(operation, RequestItems={}) == (
        f"The requestItems parameter is required for {operation}"
    )


def test_a_batch_get_of_101_keys() -> None:
    keys = [{"pk": {"S": str(number)}} for number in range(101)]
    assert refusal("BatchGetItem", RequestItems={"things": {"Keys": keys}}) == (
        "1 validation error detected: Value at 'RequestItems.things.member.Keys' failed to "
        "satisfy constraint: Member must have length less than or equal to 100"
    )


def test_a_batch_write_of_26_items() -> None:
    puts = [{"PutRequest": {"Item": {"pk": {"S": str(number)}}}} for number in range(26)]
    told = refusal("BatchWriteItem", RequestItems={"things": puts})
    assert told.startswith("1 validation error detected: Value '{things=[WriteRequest(putRequest=")
    assert told.endswith(
        "]}' at 'requestItems' failed to satisfy constraint: Map value must satisfy constraint: "
        "[Member must have length less than or equal to 25, "
        "Member must have length greater than or equal to 1]"
    )


def test_a_long_echo_is_cut_in_the_middle() -> None:
    puts = [{"PutRequest": {"Item": {"pk": {"S": "x" * 10_000}}}} for _ in range(26)]
    told = refusal("BatchWriteItem", RequestItems={"things": puts})
    assert len(told) < REQUEST_ECHO_CHARACTERS_MAX + 500


def test_a_batchs_table_names() -> None:
    assert "Map keys must satisfy constraint: [Member must have length less than" in refusal(
        "BatchGetItem", RequestItems={"a!": {"Keys": [{}]}}
    )
    request = {"RequestItems": {ARN: {"Keys": [{}]}}}
    check("BatchGetItem", request)


# -- Anything at all -------------------------------------------------------------------------------

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["HASH", "S", "abc"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            sorted({member for shape in OPERATIONS.values() for member in shape.members})
            + ["S", "N", "L", "M", "B", "AttributeName", "KeyType", "IndexName", "Create", "abc"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=15,
)


@given(st.sampled_from(sorted(OPERATIONS)), st.dictionaries(st.text(max_size=3), json_values))
def test_any_json_is_read_or_refused(operation: str, request: dict[str, Any]) -> None:
    shape = OPERATIONS[operation]
    members = dict(zip(shape.members, request.values(), strict=False))
    with suppress(RequestError):
        assert read(operation, msgspec.json.encode(members)).keys() <= shape.members.keys()


@given(st.sampled_from(sorted(OPERATIONS)), st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(operation: str, body: bytes) -> None:
    with suppress(RequestError):
        read(operation, body)
