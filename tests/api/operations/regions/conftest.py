"""Regions in memory, and a client that goes through the dispatcher and botocore's parser.

Every answer is held against the service model: no member that it does not have, no word outside an
enumeration, and botocore makes of it what a program would see.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StructureShape
from botocore.parsers import create_parser

from millstream.api.dispatch import Dispatcher
from millstream.api.errors import to_wire
from millstream.model.groups import Group, Member, Overrides, Shared, Stage, Stamp
from millstream.model.schema import Table

from ..control.conftest import CALLER, NOW_MS, FakeTables

OWN = "us-east-1"
KNOWN = ["ap-south-1", "eu-west-1", "us-east-1"]
MODEL = ServiceModel(Loader().load_service_model("dynamodb", "service-2"))
IS_RECENT = "DisassociationProtectionEnabled" in MODEL.shape_for("TableDescription").members
#: AWS tells it, and its model does not.
UNMODELLED = {"TableThroughputModeSummary"}


class FakeRegions:
    """``Regions``: an invitation or a farewell is under way until ``settle``."""

    own = OWN

    def __init__(self) -> None:
        self.by_table: dict[tuple[str, str], Group] = {}
        #: What was asked for, in order.
        self.asked: list[tuple[Any, ...]] = []

    def known(self) -> list[str]:
        return list(KNOWN)

    def group_of(self, table: Table) -> Group | None:
        return self.by_table.get((table.namespace, table.name))

    def groups(self, namespace: str) -> list[Group]:
        return [group for (space, _), group in self.by_table.items() if space == namespace]

    async def add_replica(self, table: Table, region: str, overrides: Overrides) -> Table:
        self.asked.append(("add", region, overrides))
        if self.group_of(table) is None:
            self.put(table, Member(OWN, 1, Stage.ACTIVE, 1, 1))
        known = self.by_table[table.namespace, table.name].member(region)
        incarnation = 1 if known is None else known.incarnation + 1
        number = KNOWN.index(region) + 10
        self.put(table, Member(region, number, Stage.CREATING, incarnation, 1, overrides))
        return table

    async def update_replica(self, table: Table, region: str, overrides: Overrides) -> Table:
        self.asked.append(("update", region, overrides))
        self.become(table, region, overrides=overrides)
        return table

    async def remove_replica(self, table: Table, region: str, *, keep: bool) -> Table:
        self.asked.append(("remove", region, keep))
        self.become(table, region, stage=Stage.DISASSOCIATING if keep else Stage.DELETING)
        return table

    def put(self, table: Table, member: Member) -> None:
        group = self.group_of(table) or Group(
            group_id=table.table_id,
            namespace=table.namespace,
            table=table.name,
            created_ms=NOW_MS,
            key=table.key,
            local_indexes=(),
            partitions=1,
            members={},
            shared=Shared(Stamp(), table.attribute_kinds, (), table.billing_mode),
        )
        self.by_table[table.namespace, table.name] = group.with_member(member)

    def become(self, table: Table, region: str, **fields: Any) -> None:
        group = self.by_table[table.namespace, table.name]
        self.put(table, msgspec.structs.replace(group.members[region], **fields))

    def settle(self) -> None:
        """What was under way is done."""
        ends = {
            Stage.CREATING: Stage.ACTIVE,
            Stage.DISASSOCIATING: Stage.GONE,
            Stage.DELETING: Stage.GONE,
        }
        for place, group in self.by_table.items():
            for member in group.members.values():
                stage = ends.get(member.stage, member.stage)
                group = group.with_member(msgspec.structs.replace(member, stage=stage))
            self.by_table[place] = group


class Refusal(Exception):
    """An error as a program sees it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Wire:
    """Calls operations by their names, as ``call("DescribeTable", TableName="things")``."""

    def __init__(self, tables: FakeTables) -> None:
        self.tables = tables
        self._dispatcher = Dispatcher(tables)  # type: ignore[arg-type]
        self._parser = create_parser("json")

    async def __call__(self, operation: str, /, **members: Any) -> Any:
        body = msgspec.json.encode(members)
        output = MODEL.operation_model(operation).output_shape
        try:
            answer = await self._dispatcher.dispatch(f"DynamoDB_20120810.{operation}", body, CALLER)
        except Exception as error:
            wire = to_wire(error)
            if wire.status == 500:
                raise
            parsed = self._parse(wire.status, wire.body(), output)
            raise Refusal(parsed["Error"]["Code"], parsed["Error"]["Message"]) from None
        assert output is not None
        conform(output, msgspec.json.decode(answer), operation)
        parsed = self._parse(200, answer, output)
        del parsed["ResponseMetadata"]
        return parsed

    def _parse(self, status: int, body: bytes, shape: Shape | None) -> Any:
        return self._parser.parse({"status_code": status, "headers": {}, "body": body}, shape)

    async def refusal(self, operation: str, /, **members: Any) -> tuple[str, str]:
        """The class and the sentence of the error that must come."""
        with pytest.raises(Refusal) as caught:
            await self(operation, **members)
        return caught.value.code, caught.value.message


def conform(shape: Shape, value: Any, path: str) -> None:
    """``value`` has nothing that the service model does not know, and all that it requires."""
    match shape:
        case StructureShape():
            if IS_RECENT:
                assert set(value) - UNMODELLED <= set(shape.members), path
            assert set(shape.required_members) <= set(value), path
            for name in set(value) & set(shape.members):
                conform(shape.members[name], value[name], f"{path}.{name}")
        case ListShape():
            for each in value:
                conform(shape.member, each, f"{path}[]")
        case MapShape():
            for each in value.values():
                conform(shape.value, each, f"{path}{{}}")
        case _:
            enum = getattr(shape, "enum", [])
            assert not enum or value in enum, path


@pytest.fixture
def regions() -> FakeRegions:
    return FakeRegions()


@pytest.fixture
def tables(regions: FakeRegions) -> FakeTables:
    tables = FakeTables()
    tables.regions = regions  # type: ignore[assignment]
    return tables


@pytest.fixture
def call(tables: FakeTables) -> Wire:
    return Wire(tables)


PLAIN: dict[str, Any] = {
    "TableName": "things",
    "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
    "BillingMode": "PAY_PER_REQUEST",
}


@pytest.fixture
async def things(call: Wire) -> str:
    """An on-demand table, here only."""
    await call("CreateTable", **PLAIN)
    return "things"


@pytest.fixture
async def provisioned(call: Wire) -> str:
    """A table with five units of reading, six of writing and a global index, here only."""
    await call(
        "CreateTable",
        TableName="provisioned",
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "at", "AttributeType": "N"},
        ],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        ProvisionedThroughput={"ReadCapacityUnits": 5, "WriteCapacityUnits": 6},
        GlobalSecondaryIndexes=[
            {
                "IndexName": "gsi",
                "KeySchema": [{"AttributeName": "at", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
                "ProvisionedThroughput": {"ReadCapacityUnits": 7, "WriteCapacityUnits": 8},
            }
        ],
    )
    return "provisioned"


@pytest.fixture
async def replica(call: Wire, regions: FakeRegions, things: str) -> str:
    """The on-demand table, with a replica in eu-west-1."""
    await update(call, things, Create={"RegionName": "eu-west-1"})
    regions.settle()
    regions.asked.clear()
    return things


@pytest.fixture
async def provisioned_replica(call: Wire, regions: FakeRegions, provisioned: str) -> str:
    """The provisioned table, with a replica in eu-west-1."""
    await update(call, provisioned, Create={"RegionName": "eu-west-1"})
    regions.settle()
    regions.asked.clear()
    return provisioned


async def update(call: Wire, table: str, **action: Any) -> Any:
    """UpdateTable with one replica update; its TableDescription."""
    answer = await call("UpdateTable", TableName=table, ReplicaUpdates=[action])
    return answer["TableDescription"]


async def refused(call: Wire, table: str, *actions: Any, **members: Any) -> str:
    """The sentence of the ValidationException that replica updates meet."""
    code, message = await call.refusal(
        "UpdateTable", TableName=table, ReplicaUpdates=list(actions), **members
    )
    assert code == "ValidationException"
    return message
