"""UpdateTable's ReplicaUpdates and DeleteTable of a replica: global tables of version 2019.11.21.

Two stages, as everywhere: ``check_request`` needs no table; ``update_replicas`` looks at the table
and its group, refuses whatever can be refused, and asks ``Regions`` for one change. The service
answers with ValidationException and nothing else where 2017's operations had errors of their own.
Wording: recordings of AWS of October 2026 (ack-api-quirks, by the number of the finding); where a
sentence is not on record, a comment says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import InvalidRequest, ResourceInUse
from ...limits import CAPACITY_UNITS_MAX
from ...model.groups import Group, Overrides, Stage
from ...model.schema import Status, Table
from .replicas_group import (
    group_of,
    own_member,
    replicas,
    require_known,
    require_regions,
    require_settled,
)
from .tables_keys import INVALID
from .tables_settings import ON_DEMAND, OWN_KEYS, not_built, require_active, unit_limits

if TYPE_CHECKING:
    from ...actors.tables import Tables

_ALONE = frozenset({"TableName", "ReplicaUpdates", "MultiRegionConsistency"})
_PROTECTION_ALONE = frozenset({"TableName", "DisassociationProtectionEnabled"})
_NOTHING_ASKED = "There are no actions specified in the Replica Update Action of the request."


def check_request(request: dict[str, Any]) -> None:
    """The rules of an UpdateTable about replicas that need no table. Raises InvalidRequest."""
    if "DisassociationProtectionEnabled" in request and request.keys() - _PROTECTION_ALONE:
        # The rule is the service model's, the sentence not recorded.
        raise InvalidRequest(
            f"{INVALID}DisassociationProtection modification must be the only operation in the "
            "request"
        )
    updates = request.get("ReplicaUpdates")
    creates = updates is not None and all("Create" in update for update in updates)
    if "MultiRegionConsistency" in request and not creates:
        raise InvalidRequest(
            "Only Replica Create actions are supported when MultiRegionConsistency parameter is "
            "provided."
        )
    if updates is None:
        return
    if request.keys() - _ALONE:  # DDB-TABLE-224
        raise InvalidRequest(
            f"{INVALID}Replica modification must be the only operation in the request"
        )
    _check_actions(updates)
    ((_action, asked),) = updates[0].items()
    if "KMSMasterKeyId" in asked:
        raise not_built("KMSMasterKeyId", OWN_KEYS)
    for each in (asked, *asked.get("GlobalSecondaryIndexes", ())):
        _check_units(each)
    names = [each["IndexName"] for each in asked.get("GlobalSecondaryIndexes", ())]
    for name in names:
        if names.count(name) > 1:  # Not recorded; as of GlobalSecondaryIndexUpdates.
            raise InvalidRequest(
                f"{INVALID}Only one global secondary index update per index is allowed "
                f"simultaneously. Index: {name}"
            )


def _check_actions(updates: list[dict[str, Any]]) -> None:
    """One action a request; the same one twice is that one (DDB-TABLE-223, 224, 265)."""
    if not all(updates):
        raise InvalidRequest(_NOTHING_ASKED)
    kinds = sorted({kind for update in updates for kind in update})
    if len(kinds) > 1:
        raise InvalidRequest(
            "Update table operation with more than one type of replica actions not allowed."
        )
    if any(update != updates[0] for update in updates):
        if kinds == ["Update"]:  # That this is what it is said of is not recorded.
            raise InvalidRequest("Cannot target multiple regions with the same action")
        raise InvalidRequest(
            "Update table operation with more than one create or delete replica actions not "
            "allowed"
        )
    if kinds == ["Update"] and not _asks_something(updates[0]["Update"]):
        raise InvalidRequest(_NOTHING_ASKED)


def _asks_something(update: dict[str, Any]) -> bool:
    if update.keys() & {"TableClassOverride", "KMSMasterKeyId"}:
        return True
    return any(
        each.get("ProvisionedThroughputOverride") or each.get("OnDemandThroughputOverride")
        for each in (update, *update.get("GlobalSecondaryIndexes", ()))
    )


def _check_units(asked: dict[str, Any]) -> None:
    units = asked.get("ProvisionedThroughputOverride", {}).get("ReadCapacityUnits")
    if units is not None and units > CAPACITY_UNITS_MAX:
        raise InvalidRequest(f"Given value {units} for ReadCapacityUnits is out of bounds")
    unit_limits(asked.get("OnDemandThroughputOverride"))


async def update_replicas(tables: Tables, table: Table, request: dict[str, Any]) -> Table:
    """Have the one replica update of ``request`` done. ``check_request`` has passed.

    Raises:
        InvalidRequest: the region or the replica cannot be meant, or an override is refused.
        ResourceInUse: the table, or another region of it, is just being changed.
    """
    ((action, asked),) = request["ReplicaUpdates"][0].items()
    region = asked["RegionName"]
    regions = require_regions(tables)
    if action != "Disassociate":
        _refuse_own(region, regions.own, action)
    if action == "Create":  # A replica may be deleted although the file has lost its region.
        require_known(regions, region)
    group = group_of(tables, table)
    if group is not None and own_member(group, regions.own).stage is Stage.CREATING:
        raise InvalidRequest(  # DDB-TABLE-298
            "Create/Update/Delete of replica is not allowed while the replica is being added to "
            f"table with name: ‘{table.name}’ in region: ‘{regions.own}’."
        )
    if action == "Create":
        _refuse_existing(table, group, region, request)
    elif action == "Disassociate":
        _check_disassociation(table, group, region, regions.own)
    elif not _is_listed(group, region, regions.own, failed_too=action == "Delete"):
        raise InvalidRequest(  # DDB-TABLE-203, 307
            "Update global table operation failed because one or more replicas were not part of "
            f"the global table. Please retry the request without these replicas: [{region}]."
        )
    current = Overrides()
    if action == "Update":
        assert group is not None
        current = group.members[region].overrides
        _refuse_units_on_demand(asked, table)
    wanted = overrides(asked, current, table)
    require_active(table)
    require_settled(group)
    if action == "Create":
        return await regions.add_replica(table, region, wanted)
    if action == "Update":
        return await regions.update_replica(table, region, wanted)
    return await regions.remove_replica(table, region, keep=action == "Disassociate")


async def delete_replica(tables: Tables, table: Table, group: Group) -> Table:
    """DeleteTable of a table that has replicas elsewhere: this region leaves, and they stay.

    DynamoDB refuses it for a day to a region that others were filled from; that is not built.

    Raises ResourceInUse while this region, or another one, joins or leaves.
    """
    regions = require_regions(tables)
    stage = own_member(group, regions.own).stage
    if stage is not Stage.DELETING:  # Once begun, asking again is no error.
        if stage is Stage.CREATING:  # DDB-TABLE-298
            raise ResourceInUse(
                "Attempt to change a resource which is still in use: Table: "
                f"{table.name} is being used."
            )
        require_active(table)
        require_settled(group)
        table = await regions.remove_replica(table, regions.own, keep=False)
    return msgspec.structs.replace(table, status=Status.DELETING)


def overrides(asked: dict[str, Any], current: Overrides, table: Table) -> Overrides:
    """``asked`` over ``current``: what is not named stays, index by index (DDB-TABLE-252).

    Raises InvalidRequest for on-demand limits of a provisioned table, and for an index that the
    table lacks (DynamoDB passes over it, DDB-TABLE-307; here nothing is accepted and ignored).
    """
    index_units = dict(current.index_read_units)
    index_limits = dict(current.index_read_units_max)
    for each in asked.get("GlobalSecondaryIndexes", ()):
        name = each["IndexName"]
        index = table.global_index(name)
        if index is None or index.status is Status.DELETING:
            raise InvalidRequest(  # Not recorded, see above.
                f"{INVALID}The table has no global secondary index to override: {name}"
            )
        units, limit = _read_units(each, table)
        if units is not None:
            index_units[name] = units
        if limit is not None:
            index_limits[name] = limit
    units, limit = _read_units(asked, table)
    return msgspec.structs.replace(
        current,
        read_units=current.read_units if units is None else units,
        read_units_max=current.read_units_max if limit is None else limit,
        index_read_units=index_units,
        index_read_units_max=index_limits,
        table_class=asked.get("TableClassOverride", current.table_class),
    )


def _read_units(asked: dict[str, Any], table: Table) -> tuple[int | None, int | None]:
    units = asked.get("ProvisionedThroughputOverride", {}).get("ReadCapacityUnits")
    limit = asked.get("OnDemandThroughputOverride", {}).get("MaxReadRequestUnits")
    if limit is not None and table.billing_mode != ON_DEMAND:  # DDB-TABLE-250
        raise InvalidRequest(
            "MaxReadRequestUnits for OnDemandThroughput cannot be specified when the table "
            "BillingMode is PROVISIONED"
        )
    return units, limit


def _refuse_units_on_demand(asked: dict[str, Any], table: Table) -> None:
    """Of an update only: a replica may be created with units that count once they are used."""
    if table.billing_mode != ON_DEMAND:
        return
    for each in (asked, *asked.get("GlobalSecondaryIndexes", ())):
        if each.get("ProvisionedThroughputOverride"):  # DDB-TABLE-223
            raise InvalidRequest(
                "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when "
                "BillingMode is PAY_PER_REQUEST"
            )


def _refuse_own(region: str, own: str, action: str) -> None:
    if region != own:
        return
    # Recorded of Create and Delete (DDB-TABLE-203); of an Update only the older sentence is.
    what = "add, delete, or update" if action == "Update" else "add or delete"
    raise InvalidRequest(
        f"Cannot {what} the local region through ReplicaUpdates. Use CreateTable, DeleteTable, or "
        "UpdateTable as required."
    )


def _refuse_existing(
    table: Table, group: Group | None, region: str, request: dict[str, Any]
) -> None:
    if group is None:
        return
    member = group.member(region)
    if member is not None and member.is_member:  # DDB-TABLE-203, 225
        raise InvalidRequest(
            f"Failed to create a the new replica of table with name: ‘{table.name}’ because one "
            "or more replicas already existed as tables."
        )
    if "MultiRegionConsistency" in request:
        raise InvalidRequest(
            "MultiRegionConsistency parameter is unsupported on existing global table"
        )


def _is_listed(group: Group | None, region: str, own: str, failed_too: bool) -> bool:
    """Whether it is a replica; one that could not be made can only be deleted."""
    if group is None:
        return False
    return any(
        member.region == region and (failed_too or member.is_member)
        for member in replicas(group, own)
    )


def _check_disassociation(table: Table, group: Group | None, region: str, own: str) -> None:
    """The rules are the service model's; none of the sentences is recorded."""
    if region != own:
        raise InvalidRequest(
            f"{INVALID}Disassociate must be requested in the Region of the replica: {region}"
        )
    if group is None or not group.others(own):
        raise InvalidRequest(
            "Update global table operation failed because one or more replicas were not part of "
            f"the global table. Please retry the request without these replicas: [{region}]."
        )
    if table.disassociation_protection:
        raise InvalidRequest(
            "Replica cannot be disassociated as it is currently protected against disassociation. "
            "Disable disassociation protection first."
        )
