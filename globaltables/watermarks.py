"""What one partition of a global table knows of how far regions have got; in memory only.

*Closed* at h: everything that a region has written in this partition at or below h is known, and
nothing more will come. A start forgets it all; peers tell it again within seconds.
"""

from __future__ import annotations

from collections.abc import Iterable


class Watermarks:
    """Of one partition in one region, by the numbers of the other regions."""

    __slots__ = ("acknowledged", "received")

    def __init__(self) -> None:
        #: Region -> everything that it wrote at or below this is durable here.
        self.received: dict[int, int] = {}
        #: Region -> everything written here at or below this is durable there.
        self.acknowledged: dict[int, int] = {}

    def note_received(self, number: int, closed: int) -> None:
        """All of region ``number`` at or below ``closed`` is durable here."""
        self.received[number] = max(self.received.get(number, 0), closed)

    def note_acknowledged(self, number: int, closed: int) -> None:
        """All of ours at or below ``closed`` is durable in region ``number``."""
        self.acknowledged[number] = max(self.acknowledged.get(number, 0), closed)

    def forget(self, number: int) -> None:
        """The region has left: when it comes back it begins anew."""
        self.received.pop(number, None)
        self.acknowledged.pop(number, None)

    def horizon(self, others: Iterable[int]) -> int:
        """What every one of these regions has passed in both directions; 0 if one has not spoken.

        Without others nobody can bring anything old any more; the caller then knows better.
        """
        return min(
            (
                min(self.received.get(number, 0), self.acknowledged.get(number, 0))
                for number in others
            ),
            default=0,
        )
