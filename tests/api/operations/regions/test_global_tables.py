"""2017's operations: Create-, Update-, Describe- and ListGlobalTable(s)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from millstream.limits import LIST_GLOBAL_TABLES_MAX
from millstream.model.groups import Member, Overrides, Stage
from millstream.model.schema import Status

from .conftest import PLAIN, FakeRegions, FakeTables, Wire
from .test_replica_updates import IN_USE

MISSING = (
    "GlobalTableNotFoundException",
    "Global table with name: 'things' does not exist.",
)


def group(*names: str) -> list[dict[str, str]]:
    return [{"RegionName": name} for name in names]


def create(region: str) -> dict[str, Any]:
    return {"Create": {"RegionName": region}}


def delete(region: str) -> dict[str, Any]:
    return {"Delete": {"RegionName": region}}


async def make(call: Wire, *names: str) -> Any:
    answer = await call(
        "CreateGlobalTable", GlobalTableName="things", ReplicationGroup=group(*names)
    )
    return answer["GlobalTableDescription"]


async def change(call: Wire, *updates: Any) -> Any:
    answer = await call(
        "UpdateGlobalTable", GlobalTableName="things", ReplicaUpdates=list(updates)
    )
    return answer["GlobalTableDescription"]


async def refused(call: Wire, *updates: Any) -> tuple[str, str]:
    return await call.refusal(
        "UpdateGlobalTable", GlobalTableName="things", ReplicaUpdates=list(updates)
    )


async def listed(call: Wire, **members: Any) -> tuple[list[str], str | None]:
    answer = await call("ListGlobalTables", **members)
    names = [each["GlobalTableName"] for each in answer["GlobalTables"]]
    return names, answer.get("LastEvaluatedGlobalTableName")


# -- CreateGlobalTable -----------------------------------------------------------------------------


async def test_the_other_regions_get_replicas(
    call: Wire, regions: FakeRegions, things: str
) -> None:
    description = await make(call, "us-east-1", "eu-west-1", "ap-south-1")
    assert regions.asked == [("add", "eu-west-1", Overrides()), ("add", "ap-south-1", Overrides())]
    assert description["GlobalTableStatus"] == "CREATING"
    assert description["GlobalTableArn"] == "arn:aws:dynamodb::000000000000:global-table/things"
    assert description["CreationDateTime"].timestamp() == 1_700_000_000
    told = {each["RegionName"]: each["ReplicaStatus"] for each in description["ReplicationGroup"]}
    assert told == {"ap-south-1": "CREATING", "eu-west-1": "CREATING", "us-east-1": "ACTIVE"}
    regions.settle()
    description = (await call("DescribeGlobalTable", GlobalTableName="things"))[
        "GlobalTableDescription"
    ]
    assert description["GlobalTableStatus"] == "ACTIVE"


async def test_the_table_is_here(call: Wire) -> None:
    assert await call.refusal(
        "CreateGlobalTable",
        GlobalTableName="things",
        ReplicationGroup=group("us-east-1", "eu-west-1"),
    ) == ("TableNotFoundException", "Table not found: things")


async def test_a_global_table_is_made_once(call: Wire, replica: str) -> None:
    code, message = await call.refusal(
        "CreateGlobalTable",
        GlobalTableName=replica,
        ReplicationGroup=group("us-east-1", "ap-south-1"),
    )
    assert (code, message) == (
        "GlobalTableAlreadyExistsException", "Global table with name: 'things' already exists.",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([], "must name the Region of the request, us-east-1, and at least one other"),
        (group("us-east-1"), "and at least one other"),
        (group("eu-west-1", "ap-south-1"), "must name the Region of the request"),
        (group("us-east-1", "eu-west-1", "eu-west-1"), "may be named once: eu-west-1"),
        (group("us-east-1", "eu-north-1"), "Region eu-north-1 is not supported"),
        ([{}], "RegionName must be specified"),
    ],
)
async def test_the_group_is_of_this_and_other_known_regions(
    call: Wire, things: str, members: list[dict[str, str]], said: str
) -> None:
    code, message = await call.refusal(
        "CreateGlobalTable", GlobalTableName=things, ReplicationGroup=members
    )
    assert code == "ValidationException"
    assert said in message


async def test_without_a_regions_file_there_are_no_global_tables(
    call: Wire, tables: FakeTables, things: str
) -> None:
    tables.regions = None
    code, message = await call.refusal(
        "CreateGlobalTable", GlobalTableName=things, ReplicationGroup=group("us-east-1")
    )
    assert code == "ValidationException"
    assert "start it with --peers FILE" in message
    assert await refused(call, create("eu-west-1")) == MISSING
    assert await listed(call) == ([], None)


async def test_the_table_is_not_being_changed(
    call: Wire, tables: FakeTables, things: str
) -> None:
    tables.become(things, status=Status.UPDATING)
    code, _ = await call.refusal(
        "CreateGlobalTable",
        GlobalTableName=things,
        ReplicationGroup=group("us-east-1", "eu-west-1"),
    )
    assert code == "ResourceInUseException"


# -- UpdateGlobalTable -----------------------------------------------------------------------------


async def test_a_region_is_added_and_one_taken_out(
    call: Wire, regions: FakeRegions, replica: str
) -> None:
    description = await change(call, delete("eu-west-1"), create("ap-south-1"))
    # In 2017 a table stayed where it was when its region left the group.
    assert regions.asked == [("remove", "eu-west-1", True), ("add", "ap-south-1", Overrides())]
    assert description["GlobalTableStatus"] == "UPDATING"


async def test_this_region_leaves_after_the_others(
    call: Wire, regions: FakeRegions, replica: str
) -> None:
    await change(call, delete("us-east-1"), delete("eu-west-1"))
    assert regions.asked == [("remove", "eu-west-1", True), ("remove", "us-east-1", True)]
    regions.settle()
    assert await call.refusal("DescribeGlobalTableSettings", GlobalTableName=replica) == MISSING


async def test_a_region_that_failed_is_taken_out(
    call: Wire, tables: FakeTables, regions: FakeRegions, replica: str
) -> None:
    regions.become(tables.refs["default", replica].table, "eu-west-1", stage=Stage.FAILED)
    await change(call, delete("eu-west-1"))
    assert regions.asked == [("remove", "eu-west-1", True)]


async def test_a_region_is_added_once(call: Wire, replica: str) -> None:
    code, message = await refused(call, create("eu-west-1"))
    assert code == "ReplicaAlreadyExistsException"
    assert "eu-west-1" in message


async def test_only_a_member_is_taken_out(call: Wire, replica: str) -> None:
    code, message = await refused(call, delete("ap-south-1"))
    assert code == "ReplicaNotFoundException"
    assert "ap-south-1" in message


@pytest.mark.parametrize(
    ("updates", "said"),
    [
        ([], "One or more parameter values were invalid"),
        ([{}], "Exactly one of Create, Delete"),
        ([{**create("ap-south-1"), **delete("eu-west-1")}], "Exactly one of Create, Delete"),
        ([create("ap-south-1"), delete("ap-south-1")], "may be named once"),
        ([create("eu-north-1")], "Region eu-north-1 is not supported"),
        ([{"Create": {}}], "Member must not be null"),
    ],
)
async def test_an_update_says_what_to_do(
    call: Wire, replica: str, updates: list[Any], said: str
) -> None:
    code, message = await refused(call, *updates)
    assert code == "ValidationException"
    assert said in message


async def test_one_thing_after_the_other(
    call: Wire, tables: FakeTables, regions: FakeRegions, replica: str
) -> None:
    regions.become(tables.refs["default", replica].table, "eu-west-1", stage=Stage.CREATING)
    assert await refused(call, create("ap-south-1")) == IN_USE
    regions.settle()
    tables.become(replica, status=Status.UPDATING)
    code, _ = await refused(call, create("ap-south-1"))
    assert code == "ResourceInUseException"


async def test_only_a_global_table_is_updated(call: Wire, things: str) -> None:
    assert await refused(call, create("eu-west-1")) == MISSING


# -- DescribeGlobalTable ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("here", "there", "told"),
    [
        (Stage.ACTIVE, Stage.ACTIVE, "ACTIVE"),
        (Stage.ACTIVE, Stage.CREATING, "CREATING"),
        (Stage.CREATING, Stage.ACTIVE, "UPDATING"),
        (Stage.ACTIVE, Stage.DELETING, "UPDATING"),
        (Stage.DELETING, Stage.ACTIVE, "DELETING"),
    ],
)
async def test_the_state_of_the_whole(
    call: Wire,
    tables: FakeTables,
    regions: FakeRegions,
    replica: str,
    here: Stage,
    there: Stage,
    told: str,
) -> None:
    table = tables.refs["default", replica].table
    regions.become(table, "us-east-1", stage=here)
    regions.become(table, "eu-west-1", stage=there)
    answer = await call("DescribeGlobalTable", GlobalTableName=replica)
    assert answer["GlobalTableDescription"]["GlobalTableStatus"] == told


async def test_a_table_of_one_region_is_not_global(call: Wire, things: str) -> None:
    # The sentence is doubled as DynamoDB doubles it.
    doubled = (MISSING[0], f"Global table not found: {MISSING[1]}")
    assert await call.refusal("DescribeGlobalTable", GlobalTableName=things) == doubled
    code, _ = await call.refusal("DescribeGlobalTable", GlobalTableName="nothing")
    assert code == "GlobalTableNotFoundException"
    code, message = await call.refusal("DescribeGlobalTable", GlobalTableName="no")
    assert code == "ValidationException"
    assert "globalTableName" in message


# -- ListGlobalTables ------------------------------------------------------------------------------


@pytest.fixture
async def three(call: Wire, tables: FakeTables, regions: FakeRegions) -> None:
    """Global tables a-table (eu), b-table (eu, ap), c-table (ap), and one that is here only."""
    for name, others in (
        ("c-table", ["ap-south-1"]),
        ("a-table", ["eu-west-1"]),
        ("b-table", ["eu-west-1", "ap-south-1"]),
        ("d-table", []),
    ):
        await call("CreateTable", **{**PLAIN, "TableName": name})
        for region in others:
            table = tables.refs["default", name].table
            await regions.add_replica(table, region, Overrides())
    regions.settle()


async def test_global_tables_are_listed_by_name(call: Wire, three: None) -> None:
    answer = await call("ListGlobalTables")
    assert answer["GlobalTables"][1] == {
        "GlobalTableName": "b-table",
        "ReplicationGroup": group("ap-south-1", "eu-west-1", "us-east-1"),
    }
    assert await listed(call) == (["a-table", "b-table", "c-table"], None)


async def test_global_tables_are_listed_in_pages(call: Wire, three: None) -> None:
    assert await listed(call, Limit=2) == (["a-table", "b-table"], "b-table")
    assert await listed(call, Limit=2, ExclusiveStartGlobalTableName="b-table") == (
        ["c-table"],
        None,
    )
    assert await listed(call, Limit=3) == (["a-table", "b-table", "c-table"], None)


async def test_global_tables_of_a_region(call: Wire, three: None) -> None:
    assert await listed(call, RegionName="eu-west-1") == (["a-table", "b-table"], None)
    assert await listed(call, RegionName="us-east-1") == (["a-table", "b-table", "c-table"], None)
    assert await listed(call, RegionName="eu-north-1") == ([], None)


async def test_a_group_that_this_region_has_left_is_not_listed(
    call: Wire, tables: FakeTables, regions: FakeRegions, three: None
) -> None:
    regions.become(tables.refs["default", "a-table"].table, "us-east-1", stage=Stage.GONE)
    assert (await listed(call))[0] == ["b-table", "c-table"]


async def test_a_page_has_an_end(
    call: Wire, tables: FakeTables, regions: FakeRegions, things: str
) -> None:
    table = tables.refs["default", things].table
    await regions.add_replica(table, "eu-west-1", Overrides())
    members = regions.by_table["default", things].members
    for number in range(LIST_GLOBAL_TABLES_MAX + 1):
        row = msgspec.structs.replace(table, name=f"table-{number:03}")
        for member in members.values():
            regions.put(row, member)
    names, last = await listed(call, Limit=LIST_GLOBAL_TABLES_MAX + 50)
    assert len(names) == LIST_GLOBAL_TABLES_MAX
    assert last == names[-1]


async def test_a_limit_is_positive(call: Wire) -> None:
    code, _ = await call.refusal("ListGlobalTables", Limit=0)
    assert code == "ValidationException"


async def test_a_namespace_sees_its_own(
    call: Wire, tables: FakeTables, regions: FakeRegions, replica: str
) -> None:
    table = tables.refs["default", replica].table
    elsewhere = msgspec.structs.replace(table, namespace="ns-other", name="theirs")
    for region in ("us-east-1", "eu-west-1"):
        regions.put(elsewhere, Member(region, 1, Stage.ACTIVE, 1, 1))
    assert await listed(call) == (["things"], None)
