"""Operations of our own on regions, for ``millstream regions``: how they are, and drills.

``X-Amz-Target: Millstream_20261123.DescribeRegions`` and so on, signed and answered like
DynamoDB's. With credentials they take the right to manage functions, which is the operator's: a
drill cuts links for everybody, and giving a replica up loses what only it had.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import InvalidRequest, MalformedRequest, ResourceNotFound
from ...globaltables.faults import Fault
from ...limits import DRILL_LATENCY_SECONDS_MAX
from .replicas_group import require_regions
from .triggers import PREFIX

if TYPE_CHECKING:
    from ...actors.regions_view import Regions
    from ...actors.tables import Tables
    from ..calls import Caller

RegionOperation = Callable[["Tables", "Caller", bytes], Awaitable[bytes]]

_encode = msgspec.json.Encoder().encode


class _Nothing(msgspec.Struct, rename="pascal", forbid_unknown_fields=True):
    """A request without members."""


class _LinkFault(msgspec.Struct, rename="pascal", forbid_unknown_fields=True):
    """What is to be wrong with the link to a region. What is not named stays as it is."""

    region: str
    latency_seconds: float | None = None
    paused: bool | None = None
    partitioned: bool | None = None
    drop: float | None = None


class _Heal(msgspec.Struct, rename="pascal", forbid_unknown_fields=True):
    """Which link is to be healthy again; without a region all."""

    region: str | None = None


class _Skew(msgspec.Struct, rename="pascal", forbid_unknown_fields=True):
    seconds: float


class _Replica(msgspec.Struct, rename="pascal", forbid_unknown_fields=True):
    table_name: str
    region: str


async def describe_regions(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """This region, and every other one as it looks from here. Times as the names say."""
    _read(body, _Nothing)
    regions = require_regions(tables)
    peers = [
        {
            "Region": peer.region,
            "Linked": peer.is_linked,
            "Trouble": peer.trouble,
            "SkewMs": peer.skew_ms,
            "RoundTripMs": peer.round_trip_ms,
            "LastHeard": None if peer.last_heard_ms is None else peer.last_heard_ms / 1000,
            "Applied": peer.applied,
            "Conflicts": peer.conflicts,
            "Resolved": peer.resolved,
            "Fault": _fault(regions.faults.of(peer.region)),
        }
        for peer in regions.status()
    ]
    return _encode(
        {
            "Region": regions.own,
            "Number": regions.number,
            "Address": regions.address,
            "ClockSkewSeconds": regions.clock_skew_ms / 1000,
            "Peers": peers,
        }
    )


async def list_replication_lag(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """How far every other region is behind this one, for each partition of each global table."""
    _read(body, _Nothing)
    return _encode(
        {
            "Lags": [
                {
                    "Table": lag.table,
                    "Partition": lag.partition,
                    "Region": lag.region,
                    "State": lag.state,
                    "Entries": lag.entries,
                    "Seconds": lag.seconds,
                    "ChangesSent": lag.changes_sent,
                    "BytesSent": lag.bytes_sent,
                }
                for lag in require_regions(tables).lags()
                if lag.namespace == caller.namespace
            ]
        }
    )


async def set_link_fault(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """Have something be wrong with the link to a region, at this end; what is wrong then."""
    request = _read(body, _LinkFault)
    regions = require_regions(tables)
    _require_other(regions, request.region)
    now = regions.faults.of(request.region)
    latency_seconds = _either(request.latency_seconds, now.latency_seconds)
    if not 0.0 <= latency_seconds <= DRILL_LATENCY_SECONDS_MAX:
        raise InvalidRequest(f"LatencySeconds: from 0 to {DRILL_LATENCY_SECONDS_MAX:g}")
    drop = _either(request.drop, now.drop)
    if not 0.0 <= drop <= 1.0:
        raise InvalidRequest("Drop: a probability is from 0 to 1")
    fault = Fault(
        latency_seconds,
        now.is_paused if request.paused is None else request.paused,
        now.is_partitioned if request.partitioned is None else request.partitioned,
        drop,
    )
    regions.faults.set(request.region, fault)
    return _encode({"Region": request.region, "Fault": _fault(fault)})


async def heal_links(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """Undo what drills have done to the link to a region, or to all."""
    request = _read(body, _Heal)
    regions = require_regions(tables)
    if request.region is None:
        regions.faults.heal()
    else:
        _require_other(regions, request.region)
        regions.faults.set(request.region, Fault())
    return _encode({})


async def set_clock_skew(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """Set this region's clock wrong; 0 sets it right. Requests are judged by the right one."""
    request = _read(body, _Skew)
    regions = require_regions(tables)
    try:
        regions.set_clock_skew(round(request.seconds * 1000))
    except (OverflowError, ValueError):
        raise InvalidRequest("Seconds: a number of seconds") from None
    return _encode({"ClockSkewSeconds": regions.clock_skew_ms / 1000})


async def forget_replica(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """Give up the replica of a region that is lost for good."""
    request = _read(body, _Replica)
    regions = require_regions(tables)
    ref = tables.find(caller.namespace, request.table_name)
    if ref is None:
        raise ResourceNotFound(f"There is no table {request.table_name}")
    await regions.forget_replica(ref.table, request.region)
    return _encode({"TableName": request.table_name, "Region": request.region})


REGION_OPERATIONS: dict[str, RegionOperation] = {
    PREFIX + "DescribeRegions": describe_regions,
    PREFIX + "ForgetReplica": forget_replica,
    PREFIX + "HealLinks": heal_links,
    PREFIX + "ListReplicationLag": list_replication_lag,
    PREFIX + "SetClockSkew": set_clock_skew,
    PREFIX + "SetLinkFault": set_link_fault,
}


def _read(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequest(f"The request cannot be read: {error}") from None


def _either(asked: float | None, otherwise: float) -> float:
    return otherwise if asked is None else asked


def _require_other(regions: Regions, region: str) -> None:
    others = [name for name in regions.known() if name != regions.own]
    if region not in others:
        raise InvalidRequest(f"Region: one of {', '.join(others)}, not {region}")


def _fault(fault: Fault) -> dict[str, Any]:
    return {
        "LatencySeconds": fault.latency_seconds,
        "Paused": fault.is_paused,
        "Partitioned": fault.is_partitioned,
        "Drop": fault.drop,
    }
