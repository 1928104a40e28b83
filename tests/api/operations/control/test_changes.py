"""UpdateTable's rules, one test each."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from millstream.api.operations.tables_changes import change, check_request
from millstream.api.validation import read
from millstream.errors import InvalidRequest, LimitExceeded, ResourceNotFound
from millstream.model.schema import (
    GlobalIndex,
    KeyAttribute,
    KeySchema,
    LocalIndex,
    Projection,
    Status,
    StreamSettings,
    Table,
    TableChange,
    Throughput,
    UnitLimits,
    WarmUnits,
)

INVALID = "One or more parameter values were invalid: "
NOON_MS = 1_700_049_600_000  # 2023-11-15, 12:00:00 UTC, a Wednesday.
HOUR_MS = 3_600_000
PK = KeyAttribute("pk", "S")
AT = KeyAttribute("at", "N")
ALL = Projection("ALL")
GSI = GlobalIndex("gsi", KeySchema((AT,)), ALL, 2, (), Status.ACTIVE)
ON_DEMAND = Table(
    namespace="default",
    name="things",
    table_id="id",
    status=Status.ACTIVE,
    created_ms=1_000,
    key=KeySchema((PK,)),
    attribute_kinds={"pk": "S", "at": "N"},
    tree=1,
    partitions=(),
    schema_version=7,
    global_indexes=(GSI,),
    billing_mode="PAY_PER_REQUEST",
)
PROVISIONED = msgspec.structs.replace(
    ON_DEMAND,
    billing_mode="PROVISIONED",
    throughput=Throughput(5, 5),
    global_indexes=(msgspec.structs.replace(GSI, throughput=Throughput(3, 3)),),
)


def units(read_units: int, write_units: int) -> dict[str, int]:
    return {"ReadCapacityUnits": read_units, "WriteCapacityUnits": write_units}


def new_index(name: str = "new", **members: Any) -> dict[str, Any]:
    return {
        "Create": {
            "IndexName": name,
            "KeySchema": [{"AttributeName": "x", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "ALL"},
            **members,
        }
    }


X = [{"AttributeName": "x", "AttributeType": "S"}]


def update(table: Table, now_ms: int = NOON_MS, **members: Any) -> TableChange:
    request = read("UpdateTable", msgspec.json.encode({"TableName": "things", **members}))
    check_request(request)
    return change(request, table, now_ms)


def refusal(
    table: Table, kind: type[Exception] = InvalidRequest, now_ms: int = NOON_MS, **members: Any
) -> str:
    with pytest.raises(kind) as caught:
        update(table, now_ms, **members)
    return str(caught.value)


# -- Without a table -------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [{}, {"GlobalSecondaryIndexUpdates": []}])
def test_something_must_be_asked(members: dict[str, Any]) -> None:
    assert refusal(ON_DEMAND, AttributeDefinitions=X, **members) == (
        "At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, "
        "GlobalSecondaryIndexUpdates or SSESpecification or ReplicaUpdates is required"
    )


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("MultiRegionConsistency", "STRONG"),
        ("GlobalTableWitnessUpdates", [{"Create": {"RegionName": "eu-west-1"}}]),
        ("VectorIndexUpdates", [{"Delete": {"IndexName": "vectors"}}]),
        ("SSESpecification", {"Enabled": True}),
        ("GlobalTableSettingsReplicationMode", "ENABLED"),
    ],
)
def test_a_feature_that_is_not_built_is_refused_by_name(member: str, value: Any) -> None:
    assert f"{member} is not supported" in refusal(ON_DEMAND, **{member: value})


def test_units_have_bounds() -> None:
    assert "out of bounds" in refusal(PROVISIONED, ProvisionedThroughput=units(10**12 + 1, 1))


def test_an_index_update_does_something() -> None:
    assert "must not be null" in refusal(ON_DEMAND, GlobalSecondaryIndexUpdates=[{}])


def test_an_index_update_does_one_thing() -> None:
    both = {**new_index("gsi"), "Delete": {"IndexName": "gsi"}}
    assert "Only one of" in refusal(ON_DEMAND, GlobalSecondaryIndexUpdates=[both])


def test_one_update_an_index() -> None:
    twice = [{"Delete": {"IndexName": "gsi"}}] * 2
    assert refusal(ON_DEMAND, GlobalSecondaryIndexUpdates=twice) == (
        f"{INVALID}Only one global secondary index update per index is allowed simultaneously. "
        "Index: gsi"
    )


# -- Throughput ------------------------------------------------------------------------------------


def test_throughput_changes_and_keeps_its_history() -> None:
    wanted = update(PROVISIONED, ProvisionedThroughput=units(4, 9)).table
    assert wanted.throughput == Throughput(
        4, 9, decreases_today=1, last_increase_ms=NOON_MS, last_decrease_ms=NOON_MS
    )
    assert wanted.schema_version == 7


def test_unchanged_throughput_is_refused() -> None:
    assert refusal(PROVISIONED, ProvisionedThroughput=units(5, 5)) == (
        "The provisioned throughput for the table will not change. The requested value equals the "
        "current value. Current ReadCapacityUnits provisioned for the table: 5. Requested "
        "ReadCapacityUnits: 5. Current WriteCapacityUnits provisioned for the table: 5. Requested "
        "WriteCapacityUnits: 5. Refer to the Amazon DynamoDB Developer Guide for current limits "
        "and how to request higher limits."
    )


def test_provisioned_to_provisioned_with_the_same_units_is_refused() -> None:
    told = refusal(PROVISIONED, BillingMode="PROVISIONED", ProvisionedThroughput=units(5, 5))
    assert "will not change" in told


def test_on_demand_excludes_provisioned_units() -> None:
    for table, members in (
        (ON_DEMAND, {}),
        (PROVISIONED, {"BillingMode": "PAY_PER_REQUEST"}),
    ):
        assert refusal(table, ProvisionedThroughput=units(1, 1), **members) == (
            f"{INVALID}Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when "
            "BillingMode is PAY_PER_REQUEST"
        )


def after_decreases(count: int) -> Table:
    return msgspec.structs.replace(
        PROVISIONED,
        throughput=Throughput(9, 9, decreases_today=count, last_decrease_ms=NOON_MS),
    )


def test_the_fourth_decrease_of_a_day_is_free() -> None:
    wanted = update(after_decreases(3), ProvisionedThroughput=units(1, 9)).table
    assert wanted.throughput is not None
    assert wanted.throughput.decreases_today == 4


def test_the_fifth_decrease_of_a_day_waits_an_hour() -> None:
    told = refusal(
        after_decreases(4), LimitExceeded, NOON_MS + 60_000, ProvisionedThroughput=units(1, 9)
    )
    assert told == (
        "Subscriber limit exceeded: Provisioned throughput decreases are limited within a given "
        "UTC day. After the first 4 decreases, each subsequent decrease in the same UTC day can "
        "be performed at most once every 3600 seconds. Number of decreases today: 4. Last decrease "
        "at Wednesday, November 15, 2023 at 12:00:00 PM Coordinated Universal Time. Next decrease "
        "can be made at Wednesday, November 15, 2023 at 1:00:00 PM Coordinated Universal Time"
    )
    update(after_decreases(4), NOON_MS + HOUR_MS, ProvisionedThroughput=units(1, 9))


def test_increases_are_never_counted() -> None:
    wanted = update(after_decreases(4), ProvisionedThroughput=units(10, 9)).table
    assert wanted.throughput is not None
    assert wanted.throughput.decreases_today == 4


def test_a_new_day_counts_decreases_afresh() -> None:
    wanted = update(
        after_decreases(4), NOON_MS + 13 * HOUR_MS, ProvisionedThroughput=units(1, 9)
    ).table
    assert wanted.throughput is not None
    assert wanted.throughput.decreases_today == 1


# -- Billing mode ----------------------------------------------------------------------------------


def test_provisioned_requires_units() -> None:
    assert refusal(ON_DEMAND, BillingMode="PROVISIONED") == (
        f"{INVALID}ProvisionedThroughput must be specified when BillingMode is PROVISIONED"
    )


def test_becoming_on_demand_drops_units_and_remembers_when() -> None:
    wanted = update(PROVISIONED, BillingMode="PAY_PER_REQUEST").table
    assert wanted.billing_mode == "PAY_PER_REQUEST"
    assert wanted.billing_changed_ms == NOON_MS
    assert wanted.throughput is None
    assert wanted.global_indexes[0].throughput is None


def test_staying_on_demand_is_accepted() -> None:
    assert update(ON_DEMAND, BillingMode="PAY_PER_REQUEST").table == ON_DEMAND


def test_becoming_provisioned_needs_units_for_every_index() -> None:
    assert refusal(
        ON_DEMAND, BillingMode="PROVISIONED", ProvisionedThroughput=units(1, 1)
    ) == f"{INVALID}ProvisionedThroughput must be specified for index: gsi"


def test_becoming_provisioned() -> None:
    limited = msgspec.structs.replace(ON_DEMAND, unit_limits=UnitLimits(9, 9))
    wanted = update(
        limited,
        BillingMode="PROVISIONED",
        ProvisionedThroughput=units(1, 2),
        GlobalSecondaryIndexUpdates=[
            {"Update": {"IndexName": "gsi", "ProvisionedThroughput": units(3, 4)}}
        ],
    ).table
    assert wanted.billing_mode == "PROVISIONED"
    assert wanted.billing_changed_ms == ON_DEMAND.created_ms
    assert wanted.throughput == Throughput(1, 2)
    assert wanted.global_indexes[0].throughput == Throughput(3, 4)
    assert wanted.unit_limits is None


# -- Other settings --------------------------------------------------------------------------------


def test_deletion_protection() -> None:
    wanted = update(ON_DEMAND, DeletionProtectionEnabled=True).table
    assert wanted.deletion_protection
    assert not update(wanted, DeletionProtectionEnabled=False).table.deletion_protection


def test_table_class_remembers_when_it_changed() -> None:
    wanted = update(ON_DEMAND, TableClass="STANDARD_INFREQUENT_ACCESS").table
    assert wanted.table_class == "STANDARD_INFREQUENT_ACCESS"
    assert wanted.table_class_changed_ms == NOON_MS
    same = update(wanted, NOON_MS + 1, TableClass="STANDARD_INFREQUENT_ACCESS").table
    assert same.table_class_changed_ms == NOON_MS


def test_on_demand_limits_change_one_by_one() -> None:
    wanted = update(ON_DEMAND, OnDemandThroughput={"MaxReadRequestUnits": 5}).table
    assert wanted.unit_limits == UnitLimits(5, None)
    wanted = update(wanted, OnDemandThroughput={"MaxWriteRequestUnits": 6}).table
    assert wanted.unit_limits == UnitLimits(5, 6)
    wanted = update(wanted, OnDemandThroughput={"MaxReadRequestUnits": -1}).table
    assert wanted.unit_limits == UnitLimits(-1, 6)


def test_on_demand_limits_need_on_demand() -> None:
    assert "OnDemandThroughput can only be" in refusal(
        PROVISIONED, OnDemandThroughput={"MaxReadRequestUnits": 5}
    )


def test_warm_throughput_only_grows() -> None:
    wanted = update(ON_DEMAND, WarmThroughput={"WriteUnitsPerSecond": 5_000}).table
    assert wanted.warm_units == WarmUnits(12_000, 5_000)
    assert "WriteUnitsPerSecond for WarmThroughput for table is lower" in refusal(
        wanted, WarmThroughput={"WriteUnitsPerSecond": 4_999}
    )


STREAMING = msgspec.structs.replace(ON_DEMAND, stream=StreamSettings("NEW_IMAGE", "label"))
ENABLE = {"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}


def test_a_stream_is_enabled_and_disabled() -> None:
    enabled = update(ON_DEMAND, StreamSpecification=ENABLE)
    assert (enabled.enable_stream, enabled.disable_stream) == ("KEYS_ONLY", False)
    disabled = update(STREAMING, StreamSpecification={"StreamEnabled": False})
    assert (disabled.enable_stream, disabled.disable_stream) == (None, True)
    untouched = update(STREAMING, DeletionProtectionEnabled=True)
    assert (untouched.enable_stream, untouched.disable_stream) == (None, False)


def test_a_stream_is_not_enabled_twice_nor_disabled_twice() -> None:
    assert "already has an enabled stream" in refusal(STREAMING, StreamSpecification=ENABLE)
    assert "already in a disabled state" in refusal(
        ON_DEMAND, StreamSpecification={"StreamEnabled": False}
    )


def test_a_stream_needs_a_view() -> None:
    assert "StreamViewType is required" in refusal(
        ON_DEMAND, StreamSpecification={"StreamEnabled": True}
    )


# -- Creating an index -----------------------------------------------------------------------------


def test_a_new_index_brings_its_attributes_and_no_others() -> None:
    made = update(
        ON_DEMAND,
        AttributeDefinitions=[*X, {"AttributeName": "unused", "AttributeType": "S"}],
        GlobalSecondaryIndexUpdates=[new_index()],
    )
    assert made.create_index is not None
    assert made.create_index.key == KeySchema((KeyAttribute("x", "S"),))
    assert made.table.attribute_kinds == {"pk": "S", "at": "N", "x": "S"}
    assert made.table.global_indexes == ON_DEMAND.global_indexes


def test_a_new_index_may_use_attributes_defined_already() -> None:
    created = new_index(KeySchema=[{"AttributeName": "at", "KeyType": "HASH"}])
    made = update(ON_DEMAND, GlobalSecondaryIndexUpdates=[created])
    assert made.create_index is not None
    assert made.create_index.key == KeySchema((AT,))


def test_a_new_indexs_key_must_be_defined() -> None:
    assert refusal(ON_DEMAND, GlobalSecondaryIndexUpdates=[new_index()]) == (
        f"{INVALID}Some index key attributes are not defined in AttributeDefinitions. "
        "Keys: [x], AttributeDefinitions: [pk, at]"
    )


def test_an_attribute_cannot_change_its_type() -> None:
    told = refusal(
        ON_DEMAND,
        AttributeDefinitions=[*X, {"AttributeName": "at", "AttributeType": "S"}],
        GlobalSecondaryIndexUpdates=[new_index()],
    )
    assert "Attribute at is defined with type N already" in told


@pytest.mark.parametrize("name", ["gsi", "lsi"])
def test_an_index_exists_once(name: str) -> None:
    local = LocalIndex("lsi", KeySchema((PK,), (AT,)), ALL, 3)
    table = msgspec.structs.replace(ON_DEMAND, local_indexes=(local,))
    told = refusal(
        table, AttributeDefinitions=X, GlobalSecondaryIndexUpdates=[new_index(name)]
    )
    assert told.startswith("Attempting to create an index which already exists")


def test_a_new_index_on_a_provisioned_table_has_units() -> None:
    assert "ProvisionedThroughput must be specified for index: new" in refusal(
        PROVISIONED, AttributeDefinitions=X, GlobalSecondaryIndexUpdates=[new_index()]
    )


def test_at_most_twenty_indexes() -> None:
    many = tuple(msgspec.structs.replace(GSI, name=f"gsi{number}") for number in range(20))
    table = msgspec.structs.replace(ON_DEMAND, global_indexes=many)
    assert "limit of 20" in refusal(
        table, LimitExceeded, AttributeDefinitions=X, GlobalSecondaryIndexUpdates=[new_index()]
    )


ONE_AT_A_TIME = (
    "Subscriber limit exceeded: Only 1 online index can be created or deleted simultaneously per "
    "table"
)


def test_one_index_a_call() -> None:
    assert (
        refusal(
            ON_DEMAND,
            LimitExceeded,
            AttributeDefinitions=X,
            GlobalSecondaryIndexUpdates=[new_index(), {"Delete": {"IndexName": "gsi"}}],
        )
        == ONE_AT_A_TIME
    )


def test_one_index_at_a_time() -> None:
    building = msgspec.structs.replace(GSI, status=Status.CREATING, backfilling=True)
    table = msgspec.structs.replace(ON_DEMAND, global_indexes=(building,))
    assert (
        refusal(
            table,
            LimitExceeded,
            AttributeDefinitions=X,
            GlobalSecondaryIndexUpdates=[new_index()],
        )
        == ONE_AT_A_TIME
    )


# -- Deleting and updating an index ----------------------------------------------------------------


def test_deleting_an_index_takes_its_attributes_along() -> None:
    made = update(ON_DEMAND, GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": "gsi"}}])
    assert made.delete_index == "gsi"
    assert made.table.attribute_kinds == {"pk": "S"}


def test_deleting_an_index_that_is_not_there() -> None:
    refusal(
        ON_DEMAND,
        ResourceNotFound,
        GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": "other"}}],
    )


def update_of(name: str = "gsi", **members: Any) -> dict[str, Any]:
    return {"GlobalSecondaryIndexUpdates": [{"Update": {"IndexName": name, **members}}]}


def test_an_indexs_throughput_changes() -> None:
    wanted = update(PROVISIONED, **update_of(ProvisionedThroughput=units(4, 4))).table
    throughput = wanted.global_indexes[0].throughput
    assert throughput == Throughput(4, 4, last_increase_ms=NOON_MS)
    assert wanted.throughput == PROVISIONED.throughput


def test_an_indexs_unchanged_throughput_is_refused() -> None:
    told = refusal(PROVISIONED, **update_of(ProvisionedThroughput=units(3, 3)))
    assert told.startswith("The provisioned throughput for the index gsi will not change.")
    assert "provisioned for the index: 3" in told


def test_updating_an_index_that_is_not_there() -> None:
    refusal(PROVISIONED, ResourceNotFound, **update_of("other", ProvisionedThroughput=units(1, 1)))


def test_updating_an_index_by_nothing() -> None:
    assert "must be specified for index: gsi" in refusal(PROVISIONED, **update_of())


def test_an_index_on_demand_has_no_units() -> None:
    assert "should not be specified for index: gsi" in refusal(
        ON_DEMAND, **update_of(ProvisionedThroughput=units(1, 1))
    )


def test_an_indexs_on_demand_limits() -> None:
    wanted = update(ON_DEMAND, **update_of(OnDemandThroughput={"MaxReadRequestUnits": 5})).table
    assert wanted.global_indexes[0].unit_limits == UnitLimits(5, None)
    assert "OnDemandThroughput should not be" in refusal(
        PROVISIONED, **update_of(OnDemandThroughput={"MaxReadRequestUnits": 5})
    )


def test_an_indexs_warm_throughput() -> None:
    wanted = update(ON_DEMAND, **update_of(WarmThroughput={"ReadUnitsPerSecond": 20_000})).table
    assert wanted.global_indexes[0].warm_units == WarmUnits(20_000, 4_000)
    assert "for index gsi is lower" in refusal(
        ON_DEMAND, **update_of(WarmThroughput={"ReadUnitsPerSecond": 1})
    )
