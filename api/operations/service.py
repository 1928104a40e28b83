"""DescribeLimits and DescribeEndpoints: what a client may ask about the service as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ...limits import (
    ACCOUNT_CAPACITY_UNITS_MAX,
    ENDPOINT_CACHE_MINUTES,
    TABLE_CAPACITY_UNITS_MAX,
)
from ..validation import read

if TYPE_CHECKING:
    from ...actors.tables import Tables
    from ..calls import Caller

_encode = msgspec.json.Encoder().encode


async def describe_limits(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """The quotas of a fresh account. They are told for tools that ask; they are not enforced."""
    read("DescribeLimits", body)
    return _encode(
        {
            "AccountMaxReadCapacityUnits": ACCOUNT_CAPACITY_UNITS_MAX,
            "AccountMaxWriteCapacityUnits": ACCOUNT_CAPACITY_UNITS_MAX,
            "TableMaxReadCapacityUnits": TABLE_CAPACITY_UNITS_MAX,
            "TableMaxWriteCapacityUnits": TABLE_CAPACITY_UNITS_MAX,
        }
    )


async def describe_endpoints(tables: Tables, caller: Caller, body: bytes) -> bytes:
    """One endpoint, under ``.localhost``, which by RFC 6761 never leaves the machine.

    A client that follows discovery instead of the endpoint it was configured with must not be sent
    to AWS, with the user's keys, by a database on their desk.
    """
    read("DescribeEndpoints", body)
    return _encode(
        {
            "Endpoints": [
                {
                    "Address": f"dynamodb.{tables.region}.localhost",
                    "CachePeriodInMinutes": ENDPOINT_CACHE_MINUTES,
                }
            ]
        }
    )
