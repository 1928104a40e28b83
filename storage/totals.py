"""How much a partition holds of a tree: count, sizes and a checksum sum.

Kept in step with every row put or removed and stored beside the rows, in the same transaction, so
``millstream scrub`` can compare them with what the tree really holds: a row lost, doubled or
changed by damage below the checksums shows as a difference.
"""

from __future__ import annotations

from .rows import row_checksum

_MODULUS = 1 << 64


class Totals:
    """Running totals of one tree within one partition. The owner alone changes them.

    ``count`` rows of ``size_bytes`` in DynamoDB's counting; ``checksum`` is the sum of the rows'
    checksums modulo 2**64, which does not depend on their order.
    """

    __slots__ = ("checksum", "count", "size_bytes")

    def __init__(self, count: int = 0, size_bytes: int = 0, checksum: int = 0) -> None:
        self.count = count
        self.size_bytes = size_bytes
        self.checksum = checksum

    def replace(
        self, old: bytes | None, old_size_bytes: int, new: bytes | None, new_size_bytes: int
    ) -> None:
        """The row ``old`` (None: absent) gives way to ``new`` (None: removed)."""
        checksum = self.checksum
        if old is not None:
            self.count -= 1
            self.size_bytes -= old_size_bytes
            checksum -= row_checksum(old)
        if new is not None:
            self.count += 1
            self.size_bytes += new_size_bytes
            checksum += row_checksum(new)
        self.checksum = checksum % _MODULUS
        assert self.count >= 0

    def as_tuple(self) -> tuple[int, int, int]:
        return self.count, self.size_bytes, self.checksum
