"""Throughput, tags, state and unbuilt features: what the table operations share.

The input has passed ``validation``. Pure functions; refusals are ``InvalidRequest``,
``LimitExceeded`` or ``ResourceInUse``, in DynamoDB's words where they are known.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from ...errors import InvalidRequest, LimitExceeded, ResourceInUse
from ...limits import (
    CAPACITY_UNITS_MAX,
    DECREASE_INTERVAL_SECONDS,
    DECREASES_A_DAY_UNCONDITIONAL,
    TAGS_MAX,
    WARM_READ_UNITS_INITIAL,
    WARM_WRITE_UNITS_INITIAL,
)
from ...model.schema import Status, Table, Throughput, UnitLimits, WarmUnits
from .tables_keys import INVALID

ON_DEMAND = "PAY_PER_REQUEST"
PROVISIONED = "PROVISIONED"

NO_UNITS_ON_DEMAND = (
    f"{INVALID}Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when "
    "BillingMode is PAY_PER_REQUEST"
)

OWN_KEYS = "encryption with a key of yours"

_UNBUILT = {
    "ResourcePolicy": "resource policies",
    "VectorIndexes": "vector indexes",
    "VectorIndexUpdates": "vector indexes",
    "GlobalTableSourceArn": "global tables of several accounts",
    "GlobalTableSettingsReplicationMode": "global tables of several accounts",
    "GlobalTableWitnessUpdates": "strong consistency between regions",
}
_DOING = {
    Status.CREATING: "created",
    Status.UPDATING: "updated",
    Status.DELETING: "deleted",
}
_TAG_SIGNS = frozenset("_.:/=+-@")


def refuse_unbuilt(request: Mapping[str, Any]) -> None:
    """Refuse members that ask for what millstream does not do yet; never accept and ignore."""
    for member, feature in _UNBUILT.items():
        if member in request:
            raise not_built(member, feature)
    if request.get("MultiRegionConsistency") == "STRONG":
        raise not_built("MultiRegionConsistency", "strong consistency between regions")
    encryption = request.get("SSESpecification")
    if encryption is not None and (
        encryption.get("Enabled") or encryption.keys() & {"SSEType", "KMSMasterKeyId"}
    ):
        raise not_built("SSESpecification", OWN_KEYS)


def stream_view(request: Mapping[str, Any]) -> tuple[bool | None, str | None]:
    """Whether a stream is to be enabled (None: nothing is said), and the view if it is.

    Raises InvalidRequest where view and switch do not go together.
    """
    stream = request.get("StreamSpecification")
    if stream is None:
        return None, None
    view: str | None = stream.get("StreamViewType")
    if not stream["StreamEnabled"]:
        if view is not None:
            raise InvalidRequest(
                f"{INVALID}StreamViewType can only be specified when StreamEnabled is true"
            )
        return False, None
    if view is None:
        raise InvalidRequest(
            f"{INVALID}StreamViewType is required when StreamEnabled is true"
        )
    return True, view


def not_built(member: str, feature: str) -> InvalidRequest:
    """The refusal of a member that asks for what millstream does not do yet."""
    return InvalidRequest(f"{INVALID}{member} is not supported: millstream has no {feature} yet")


def require_active(table: Table) -> None:
    """Raise ResourceInUse unless ``table`` can be changed now."""
    if table.status is not Status.ACTIVE:
        raise ResourceInUse(
            "Attempt to change a resource which is still in use: "
            f"Table is being {_DOING[table.status]}: {table.name}"
        )


# -- Throughput -----------------------------------------------------------------------------------


def throughput(member: dict[str, Any]) -> Throughput:
    """ProvisionedThroughput as units, within DynamoDB's bounds."""
    for name in ("ReadCapacityUnits", "WriteCapacityUnits"):
        if member[name] > CAPACITY_UNITS_MAX:
            raise InvalidRequest(f"Given value {member[name]} for {name} is out of bounds")
    return Throughput(member["ReadCapacityUnits"], member["WriteCapacityUnits"])


def unit_limits(member: dict[str, Any] | None) -> UnitLimits | None:
    """OnDemandThroughput: the most units a second; -1 lifts a limit."""
    if member is None:
        return None
    for name, value in member.items():
        if value != -1 and not 1 <= value <= CAPACITY_UNITS_MAX:
            raise InvalidRequest(f"{INVALID}Given value {value} for {name} is out of bounds")
    return UnitLimits(member.get("MaxReadRequestUnits"), member.get("MaxWriteRequestUnits"))


def merged_limits(old: UnitLimits | None, new: UnitLimits | None) -> UnitLimits | None:
    """``new`` over ``old``: a limit that is not named stays."""
    if new is None or old is None:
        return new or old
    return UnitLimits(
        old.read_units if new.read_units is None else new.read_units,
        old.write_units if new.write_units is None else new.write_units,
    )


def current_warm_units(warm: WarmUnits | None, provisioned: Throughput | None) -> WarmUnits:
    """What a table or index is warm for: what was asked, else what its mode starts with."""
    if warm is not None:
        return warm
    if provisioned is not None:
        return WarmUnits(provisioned.read_units, provisioned.write_units)
    return WarmUnits(WARM_READ_UNITS_INITIAL, WARM_WRITE_UNITS_INITIAL)


def warm_units(member: dict[str, Any] | None, current: WarmUnits, of: str) -> WarmUnits | None:
    """WarmThroughput over ``current``; it can only grow. ``of`` names the table or index."""
    if member is None:
        return None
    units = {}
    for name, now in (
        ("ReadUnitsPerSecond", current.read_units),
        ("WriteUnitsPerSecond", current.write_units),
    ):
        units[name] = member.get(name, now)
        if units[name] < now:
            raise InvalidRequest(
                f"{INVALID}Requested {name} for WarmThroughput for {of} is lower than current "
                "WarmThroughput, decreasing WarmThroughput is not supported"
            )
        if units[name] > CAPACITY_UNITS_MAX:
            raise InvalidRequest(f"Given value {units[name]} for {name} is out of bounds")
    return WarmUnits(units["ReadUnitsPerSecond"], units["WriteUnitsPerSecond"])


def changed_throughput(old: Throughput, new: Throughput, of: str, now_ms: int) -> Throughput:
    """``old`` changed to ``new``'s units, counted as an increase, a decrease or both.

    ``of`` is how the message calls it: ``table``, or ``index`` and its name.

    Raises:
        InvalidRequest: nothing would change.
        LimitExceeded: DynamoDB's limit of decreases a day.
    """
    if (old.read_units, old.write_units) == (new.read_units, new.write_units):
        kind = of.split()[0]
        raise InvalidRequest(
            f"The provisioned throughput for the {of} will not change. The requested value "
            "equals the current value. "
            f"Current ReadCapacityUnits provisioned for the {kind}: {old.read_units}. "
            f"Requested ReadCapacityUnits: {new.read_units}. "
            f"Current WriteCapacityUnits provisioned for the {kind}: {old.write_units}. "
            f"Requested WriteCapacityUnits: {new.write_units}. "
            "Refer to the Amazon DynamoDB Developer Guide for current limits and how to request "
            "higher limits."
        )
    increases = new.read_units > old.read_units or new.write_units > old.write_units
    decreases = new.read_units < old.read_units or new.write_units < old.write_units
    count = decreases_today(old, now_ms)
    if decreases:
        _refuse_frequent_decrease(old, count, now_ms)
        count += 1
    return Throughput(
        new.read_units,
        new.write_units,
        decreases_today=count,
        last_increase_ms=now_ms if increases else old.last_increase_ms,
        last_decrease_ms=now_ms if decreases else old.last_decrease_ms,
    )


def decreases_today(units: Throughput, now_ms: int) -> int:
    """NumberOfDecreasesToday: the count starts again with each UTC day."""
    last_ms = units.last_decrease_ms
    if last_ms is None or _moment(last_ms).date() != _moment(now_ms).date():
        return 0
    return units.decreases_today


def _refuse_frequent_decrease(old: Throughput, count: int, now_ms: int) -> None:
    if count < DECREASES_A_DAY_UNCONDITIONAL or old.last_decrease_ms is None:
        return
    last = _moment(old.last_decrease_ms)
    next_one = last + timedelta(seconds=DECREASE_INTERVAL_SECONDS)
    if _moment(now_ms) < next_one:
        raise LimitExceeded(
            "Subscriber limit exceeded: Provisioned throughput decreases are limited within a "
            f"given UTC day. After the first {DECREASES_A_DAY_UNCONDITIONAL} decreases, each "
            "subsequent decrease in the same UTC day can be performed at most once every "
            f"{DECREASE_INTERVAL_SECONDS} seconds. Number of decreases today: {count}. "
            f"Last decrease at {_in_words(last)}. Next decrease can be made at "
            f"{_in_words(next_one)}"
        )


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _in_words(moment: datetime) -> str:
    hour = f"{moment.hour % 12 or 12}:{moment:%M:%S} {'AM' if moment.hour < 12 else 'PM'}"
    return f"{moment:%A, %B} {moment.day}, {moment.year} at {hour} Coordinated Universal Time"


# -- Tags -----------------------------------------------------------------------------------------


def tags(members: Iterable[dict[str, str]]) -> dict[str, str]:
    """Tags by key, as given; lengths are checked, characters and prefix are not yet.

    Raises:
        InvalidRequest: a key twice, reserved, or with characters that tags cannot have.
    """
    found: dict[str, str] = {}
    for member in members:
        key, value = member["Key"], member["Value"]
        if key in found:
            raise InvalidRequest(f"{INVALID}Duplicate tag key: {key}")
        if key.lower().startswith("aws:"):
            raise InvalidRequest(
                f"{INVALID}Tag keys that begin with aws: are reserved for system use: {key}"
            )
        if not _is_taggable(key) or not _is_taggable(value):
            raise InvalidRequest(
                f"{INVALID}A tag may only hold letters, numbers, spaces and _ . : / = + - @: {key}"
            )
        found[key] = value
    refuse_too_many_tags(found)
    return found


def refuse_too_many_tags(found: Mapping[str, str]) -> None:
    """A table has at most so many tags."""
    if len(found) > TAGS_MAX:
        raise InvalidRequest(f"{INVALID}Too many tags: a table can have at most {TAGS_MAX}")


def _is_taggable(text: str) -> bool:
    return all(
        sign in _TAG_SIGNS or unicodedata.category(sign)[0] in ("L", "N", "Z") for sign in text
    )


def with_units(old: Throughput | None, units: Throughput) -> Throughput:
    """``units`` with the history of ``old``: what a switch of the billing mode keeps."""
    if old is None:
        return units
    return msgspec.structs.replace(old, read_units=units.read_units, write_units=units.write_units)
