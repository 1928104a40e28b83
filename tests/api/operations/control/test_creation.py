"""CreateTable's rules, one test each, in DynamoDB's order and words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from millstream.api.operations.tables_creation import new_table
from millstream.api.validation import read
from millstream.errors import InvalidRequest
from millstream.model.schema import (
    KeyAttribute,
    KeySchema,
    NewTable,
    Projection,
    Throughput,
    UnitLimits,
    WarmUnits,
)

INVALID = "One or more parameter values were invalid: "
UNITS = {"ReadCapacityUnits": 5, "WriteCapacityUnits": 6}


def keys(*names: str, key_types: str = "HR") -> list[dict[str, str]]:
    kinds = {"H": "HASH", "R": "RANGE"}
    return [
        {"AttributeName": name, "KeyType": kinds[key_types[position]]}
        for position, name in enumerate(names)
    ]


def definitions(*names: str) -> list[dict[str, str]]:
    return [{"AttributeName": name, "AttributeType": "S"} for name in names]


def index(name: str, schema: list[dict[str, str]], **members: Any) -> dict[str, Any]:
    return {
        "IndexName": name,
        "KeySchema": schema,
        "Projection": {"ProjectionType": "ALL"},
        **members,
    }


def create(**members: Any) -> NewTable:
    """What CreateTable makes of a plain on-demand table with ``members`` (None: left out)."""
    request = {
        "TableName": "things",
        "AttributeDefinitions": definitions("pk"),
        "KeySchema": keys("pk"),
        "BillingMode": "PAY_PER_REQUEST",
        **members,
    }
    return new_table(read("CreateTable", msgspec.json.encode(request)), "default")


def refusal(**members: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        create(**members)
    return str(caught.value)


# -- What is understood ----------------------------------------------------------------------------


def test_the_smallest_table() -> None:
    assert create() == NewTable(
        namespace="default",
        name="things",
        key=KeySchema((KeyAttribute("pk", "S"),)),
        attribute_kinds={"pk": "S"},
        billing_mode="PAY_PER_REQUEST",
    )


def test_a_table_with_everything() -> None:
    made = create(
        TableName="arn:aws:dynamodb:us-east-1:000000000000:table/things",
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "N"},
            {"AttributeName": "at", "AttributeType": "B"},
        ],
        KeySchema=keys("pk", "sk"),
        LocalSecondaryIndexes=[index("local", keys("pk", "at"))],
        GlobalSecondaryIndexes=[
            index(
                "global",
                keys("at"),
                Projection={"ProjectionType": "INCLUDE", "NonKeyAttributes": ["x", "y", "x"]},
                OnDemandThroughput={"MaxReadRequestUnits": 7},
            )
        ],
        OnDemandThroughput={"MaxReadRequestUnits": 10, "MaxWriteRequestUnits": -1},
        WarmThroughput={"ReadUnitsPerSecond": 13_000},
        TableClass="STANDARD_INFREQUENT_ACCESS",
        DeletionProtectionEnabled=True,
        StreamSpecification={"StreamEnabled": False},
        SSESpecification={"Enabled": False},
        Tags=[{"Key": "env", "Value": ""}],
    )
    at = KeyAttribute("at", "B")
    assert made.name == "things"
    assert made.key == KeySchema((KeyAttribute("pk", "S"),), (KeyAttribute("sk", "N"),))
    assert made.local_indexes[0].key == KeySchema((KeyAttribute("pk", "S"),), (at,))
    assert made.global_indexes[0].key == KeySchema((at,))
    assert made.global_indexes[0].projection == Projection("INCLUDE", ("x", "y"))
    assert made.global_indexes[0].unit_limits == UnitLimits(7, None)
    assert made.unit_limits == UnitLimits(10, -1)
    assert made.warm_units == WarmUnits(13_000, 4_000)
    assert made.table_class == "STANDARD_INFREQUENT_ACCESS"
    assert made.deletion_protection
    assert made.tags == {"env": ""}


def test_a_provisioned_table_is_the_default() -> None:
    made = create(BillingMode=None, ProvisionedThroughput=UNITS)
    assert made.billing_mode == "PROVISIONED"
    assert made.throughput == Throughput(5, 6)


def test_a_global_index_may_have_four_attributes_in_either_part() -> None:
    made = create(
        AttributeDefinitions=definitions("pk", *"abcdefgh"),
        GlobalSecondaryIndexes=[index("gsi", keys(*"abcdefgh", key_types="HHHHRRRR"))],
    )
    key = made.global_indexes[0].key
    assert [attribute.name for attribute in key.hash] == list("abcd")
    assert [attribute.name for attribute in key.range] == list("efgh")


# -- Throughput ------------------------------------------------------------------------------------


def test_on_demand_excludes_provisioned_units() -> None:
    assert refusal(ProvisionedThroughput=UNITS) == (
        f"{INVALID}Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when "
        "BillingMode is PAY_PER_REQUEST"
    )


def test_provisioned_requires_units() -> None:
    assert refusal(BillingMode="PROVISIONED") == (
        f"{INVALID}ReadCapacityUnits and WriteCapacityUnits must both be specified when "
        "BillingMode is PROVISIONED"
    )


def test_units_have_bounds() -> None:
    units = {"ReadCapacityUnits": 1_000_000_000_001, "WriteCapacityUnits": 1}
    assert refusal(BillingMode="PROVISIONED", ProvisionedThroughput=units) == (
        "Given value 1000000000001 for ReadCapacityUnits is out of bounds"
    )


def test_throughput_is_judged_before_keys() -> None:
    assert "BillingMode" in refusal(BillingMode="PROVISIONED", KeySchema=keys("other"))


def test_on_demand_limits_need_on_demand() -> None:
    assert "OnDemandThroughput" in refusal(
        BillingMode="PROVISIONED",
        ProvisionedThroughput=UNITS,
        OnDemandThroughput={"MaxReadRequestUnits": 10},
    )


@pytest.mark.parametrize("value", [0, -2])
def test_on_demand_limits_are_positive_or_minus_one(value: int) -> None:
    assert "out of bounds" in refusal(OnDemandThroughput={"MaxReadRequestUnits": value})


def test_warm_throughput_cannot_be_less_than_what_the_table_has() -> None:
    assert refusal(WarmThroughput={"ReadUnitsPerSecond": 11_999}) == (
        f"{INVALID}Requested ReadUnitsPerSecond for WarmThroughput for table is lower than "
        "current WarmThroughput, decreasing WarmThroughput is not supported"
    )


# -- The table's key -------------------------------------------------------------------------------


def test_a_repeated_key_attribute_lacks_its_definition() -> None:
    # Recorded on AWS: two elements and one definition is told so, whatever the names are.
    assert refusal(KeySchema=keys("pk", "pk")) == (
        "Invalid KeySchema: Some index key attribute have no definition"
    )


def test_no_definitions_at_all() -> None:
    assert refusal(AttributeDefinitions=[]) == (
        "Invalid KeySchema: Some index key attribute have no definition"
    )


def test_a_key_attribute_must_be_defined() -> None:
    assert refusal(AttributeDefinitions=definitions("a", "b"), KeySchema=keys("a", "c")) == (
        f"{INVALID}Some index key attributes are not defined in AttributeDefinitions. "
        "Keys: [a, c], AttributeDefinitions: [a, b]"
    )


def test_hash_and_range_differ() -> None:
    assert refusal(
        AttributeDefinitions=definitions("pk", "sk"), KeySchema=keys("pk", "pk")
    ) == "Both the Hash Key and the Range Key element in the KeySchema have the same name"


def test_the_first_element_is_hash() -> None:
    assert refusal(KeySchema=keys("pk", key_types="R")) == (
        "Invalid KeySchema: The first KeySchemaElement is not a HASH key type"
    )


def test_the_second_element_is_range() -> None:
    assert refusal(
        AttributeDefinitions=definitions("a", "b"), KeySchema=keys("a", "b", key_types="HH")
    ) == "Invalid KeySchema: The second KeySchemaElement is not a RANGE key type"


def test_a_definition_too_many() -> None:
    assert refusal(AttributeDefinitions=definitions("pk", "extra")) == (
        f"{INVALID}Number of attributes in KeySchema does not exactly match number of attributes "
        "defined in AttributeDefinitions"
    )


def test_a_missing_key_schema() -> None:
    assert "Value null at 'keySchema'" in refusal(KeySchema=None)


# -- Local indexes ---------------------------------------------------------------------------------


def local(*indexes: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {
        "AttributeDefinitions": definitions("pk", "sk", "at"),
        "KeySchema": keys("pk", "sk"),
        "LocalSecondaryIndexes": list(indexes),
        **members,
    }


def test_an_empty_list_of_local_indexes() -> None:
    assert refusal(**local()) == f"{INVALID}List of LocalSecondaryIndexes is empty"


def test_a_local_index_needs_a_table_with_a_range_key() -> None:
    request = local(
        index("lsi", keys("pk", "at")),
        KeySchema=keys("pk"),
        AttributeDefinitions=definitions("pk", "at"),
    )
    assert refusal(**request) == (
        f"{INVALID}Table KeySchema does not have a range key, which is required when specifying a "
        "LocalSecondaryIndex"
    )


def test_a_local_index_needs_a_range_key() -> None:
    assert refusal(**local(index("lsi", keys("pk")))) == (
        f"{INVALID}Index KeySchema does not have a range key for index: lsi"
    )


def test_a_local_index_has_the_tables_hash_key() -> None:
    assert refusal(**local(index("lsi", keys("at", "sk")))) == (
        f"{INVALID}Index KeySchema does not have the same leading hash key as table KeySchema for "
        "index: lsi. index hash key: at, table hash key: pk"
    )


def test_at_most_five_local_indexes() -> None:
    indexes = [index(f"lsi{number}", keys("pk", "at")) for number in range(6)]
    assert refusal(**local(*indexes)) == (
        f"{INVALID}Number of LocalSecondaryIndexes exceeds per-table limit of 5"
    )


# -- Global indexes --------------------------------------------------------------------------------


def with_global(*indexes: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {
        "AttributeDefinitions": definitions("pk", "at"),
        "GlobalSecondaryIndexes": list(indexes),
        **members,
    }


def test_an_empty_list_of_global_indexes() -> None:
    assert refusal(**with_global()) == f"{INVALID}List of GlobalSecondaryIndexes is empty"


def test_a_global_indexs_key_must_be_defined() -> None:
    assert refusal(**with_global(index("gsi", keys("other")))) == (
        f"{INVALID}Some index key attributes are not defined in AttributeDefinitions. "
        "Keys: [other], AttributeDefinitions: [pk, at]"
    )


def test_a_global_index_begins_with_hash() -> None:
    assert refusal(**with_global(index("gsi", keys("at", key_types="R")))) == (
        "Invalid KeySchema: The first KeySchemaElement is not a HASH key type"
    )


def test_hash_elements_come_first() -> None:
    schema = keys("pk", "at", "x", key_types="HRH")
    request = with_global(
        index("gsi", schema), AttributeDefinitions=definitions("pk", "at", "x")
    )
    assert "must come before" in refusal(**request)


@pytest.mark.parametrize("key_types", ["HHHHH", "HRRRRR"])
def test_at_most_four_attributes_in_either_part(key_types: str) -> None:
    names = "abcdef"[: len(key_types)]
    request = with_global(
        index("gsi", keys(*names, key_types=key_types)),
        AttributeDefinitions=definitions("pk", *names),
    )
    assert "exceeds the limit of 4" in refusal(**request)


def test_a_projection_needs_a_type() -> None:
    assert refusal(**with_global(index("gsi", keys("at"), Projection={}))) == (
        f"{INVALID}Unknown ProjectionType: null"
    )


def test_only_include_names_attributes() -> None:
    projected = {"ProjectionType": "ALL", "NonKeyAttributes": ["x"]}
    assert refusal(**with_global(index("gsi", keys("at"), Projection=projected))) == (
        f"{INVALID}ProjectionType is ALL, but NonKeyAttributes is specified"
    )


def test_include_must_name_attributes() -> None:
    projected = {"ProjectionType": "INCLUDE"}
    assert refusal(**with_global(index("gsi", keys("at"), Projection=projected))) == (
        f"{INVALID}ProjectionType is INCLUDE, but NonKeyAttributes is not specified"
    )


def test_at_most_100_attributes_are_included_in_all() -> None:
    indexes = [
        index(
            f"gsi{number}",
            keys("at"),
            Projection={
                "ProjectionType": "INCLUDE",
                "NonKeyAttributes": [f"a{number}.{each}" for each in range(17)],
            },
        )
        for number in range(6)
    ]
    assert "exceeds the limit of 100: 102" in refusal(**with_global(*indexes))


def test_a_global_index_on_demand_has_no_units() -> None:
    indexed = index("gsi", keys("at"), ProvisionedThroughput=UNITS)
    assert refusal(**with_global(indexed)) == (
        f"{INVALID}ProvisionedThroughput should not be specified for index: gsi when BillingMode "
        "is PAY_PER_REQUEST"
    )


def test_a_provisioned_global_index_has_units() -> None:
    request = with_global(
        index("gsi", keys("at")), BillingMode="PROVISIONED", ProvisionedThroughput=UNITS
    )
    assert refusal(**request) == (
        f"{INVALID}ProvisionedThroughput must be specified for index: gsi"
    )


def test_a_provisioned_global_index_has_no_on_demand_limits() -> None:
    indexed = index(
        "gsi",
        keys("at"),
        ProvisionedThroughput=UNITS,
        OnDemandThroughput={"MaxReadRequestUnits": 5},
    )
    request = with_global(indexed, BillingMode="PROVISIONED", ProvisionedThroughput=UNITS)
    assert "OnDemandThroughput should not be specified for index: gsi" in refusal(**request)


def test_index_names_differ_over_both_kinds() -> None:
    request = local(
        index("same", keys("pk", "at")), GlobalSecondaryIndexes=[index("same", keys("at"))]
    )
    assert refusal(**request) == f"{INVALID}Duplicate index name: same"


def test_at_most_twenty_global_indexes() -> None:
    indexes = [index(f"gsi{number}", keys("at")) for number in range(21)]
    assert refusal(**with_global(*indexes)) == (
        f"{INVALID}GlobalSecondaryIndex count exceeds the per-table limit of 20"
    )


# -- What is left over -----------------------------------------------------------------------------


def test_a_definition_that_no_key_uses() -> None:
    request = with_global(
        index("gsi", keys("at")), AttributeDefinitions=definitions("pk", "at", "extra")
    )
    assert refusal(**request) == (
        f"{INVALID}Some AttributeDefinitions are not used. "
        "AttributeDefinitions: [pk, at, extra], keys used: [pk, at]"
    )


def test_an_attribute_is_defined_once() -> None:
    request = with_global(
        index("gsi", keys("at")), AttributeDefinitions=definitions("pk", "at", "at")
    )
    assert "Duplicate attribute definition" in refusal(**request)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("SSESpecification", {"Enabled": True}),
        ("SSESpecification", {"KMSMasterKeyId": "key"}),
        ("ResourcePolicy", "{}"),
        ("GlobalTableSourceArn", "arn:aws:dynamodb:us-east-1:000000000000:table/source"),
        ("GlobalTableSettingsReplicationMode", "ENABLED"),
        (
            "VectorIndexes",
            [
                {
                    "IndexName": "vectors",
                    "VectorAttribute": {"AttributeName": "v"},
                    "Projection": {"ProjectionType": "ALL"},
                    "Dimensions": 3,
                    "DistanceFunction": "COSINE",
                }
            ],
        ),
    ],
)
def test_a_feature_that_is_not_built_is_refused_by_name(member: str, value: Any) -> None:
    assert f"{member} is not supported" in refusal(**{member: value})


def test_a_stream_is_made_with_the_table() -> None:
    specification = {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}
    assert create(StreamSpecification=specification).stream_view == "NEW_IMAGE"
    assert create(StreamSpecification={"StreamEnabled": False}).stream_view is None
    assert "StreamViewType is required" in refusal(StreamSpecification={"StreamEnabled": True})


def test_a_disabled_stream_has_no_view_type() -> None:
    specification = {"StreamEnabled": False, "StreamViewType": "NEW_IMAGE"}
    assert "StreamViewType" in refusal(StreamSpecification=specification)
