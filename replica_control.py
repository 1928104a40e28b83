"""The part of the Python API that is about replicas of a table in other regions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from .actors.tables import Tables
from .api.operations import tables as table_operations
from .errors import InvalidRequest
from .limits import REPLICA_LOOK_SECONDS


class ReplicaControl:
    """The calls of a ``Database`` of ``open_regions`` that are about other regions."""

    _tables: Tables
    _call: Callable[..., Awaitable[dict[str, Any]]]
    describe_table: Callable[[str], Awaitable[dict[str, Any]]]

    async def add_replica(self, table: str, region: str) -> None:
        """Give a table a replica in another region, and wait until it is ACTIVE.

        Raises:
            ResourceNotFound: there is no such table here.
            ResourceInUse: another region joins or leaves just now.
            InvalidRequest: the region is none of this database's, or has the table already.
        """
        await self._update_replica(table, {"Create": {"RegionName": region}})
        await self._wait_replica(table, region)

    async def remove_replica(self, table: str, region: str) -> None:
        """Remove a table's replica in another region, and wait until it is gone.

        Raises as ``add_replica``.
        """
        await self._update_replica(table, {"Delete": {"RegionName": region}})
        while region in await self.replicas(table):
            await self._tables.pause(REPLICA_LOOK_SECONDS)

    async def disassociate(self, table: str) -> None:
        """Have a table here leave its replicas when they have all that it wrote, and stay as it is.

        Raises as ``add_replica``.
        """
        own = self._tables.region
        await self._call(
            table_operations.update_table,
            {"TableName": table, "DisassociationProtectionEnabled": False},
        )
        await self._wait_settled(table)
        action = {"RegionName": own, "DisassociationMode": "WAIT_FOR_REPLICATION"}
        await self._update_replica(table, {"Disassociate": action})
        await self._wait_settled(table)
        while "GlobalTableVersion" in await self.describe_table(table):
            await self._tables.pause(REPLICA_LOOK_SECONDS)

    async def _wait_settled(self, table: str) -> None:
        """Until the table here is ACTIVE, or a part of nothing."""
        while True:
            found = await self.describe_table(table)
            if found["TableStatus"] == "ACTIVE" or "GlobalTableVersion" not in found:
                return
            await self._tables.pause(REPLICA_LOOK_SECONDS)

    async def replicas(self, table: str) -> dict[str, str]:
        """The other regions that have the table, with the status of each."""
        found = (await self.describe_table(table)).get("Replicas", ())
        return {replica["RegionName"]: replica["ReplicaStatus"] for replica in found}

    async def _update_replica(self, table: str, update: dict[str, Any]) -> None:
        request = {"TableName": table, "ReplicaUpdates": [update]}
        await self._call(table_operations.update_table, request)

    async def _wait_replica(self, name: str, region: str) -> None:
        while True:
            table = await self.describe_table(name)
            replicas = {each["RegionName"]: each for each in table.get("Replicas", ())}
            replica = replicas.get(region, {"ReplicaStatus": "CREATION_FAILED"})
            if replica["ReplicaStatus"] == "CREATION_FAILED":
                reason = replica.get("ReplicaStatusDescription", "it was removed meanwhile")
                raise InvalidRequest(f"{region} has no replica of {name}: {reason}")
            if (table["TableStatus"], replica["ReplicaStatus"]) == ("ACTIVE", "ACTIVE"):
                return
            await self._tables.pause(REPLICA_LOOK_SECONDS)
