"""What comes from another region: changes in the form in which they travel."""

from __future__ import annotations

import msgspec


class Arrival(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One change as it travels: ``records.Effect`` without what only its own region needs.

    ``body`` None: deleted. ``(base_hlc, base_region)`` is the version that it replaced, (0, 0) for
    none, and (-1, 0) where that is not known (rows of a chunk).
    """

    key: bytes
    body: bytes | None
    size_bytes: int
    hlc: int
    region: int
    transaction: int = 0
    base_hlc: int = -1
    base_region: int = 0
    hops: int = 0
