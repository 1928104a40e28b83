"""What one partition of a global table knows of how far regions have got; in memory only.

*Closed* at h: everything that a region has written in this partition at or below h is known, and
nothing more will come. A start forgets it all; peers tell it again within seconds.
"""

from __future__ import annotations

from collections.abc import Iterable


class Watermarks:
    """Of one partition in one region, by the numbers of the other regions."""

    __slots__ = ("acknowledged", "as_of_ms", "missing", "received")

    def __init__(self) -> None:
        #: Region -> everything that it wrote at or below this is durable here.
        self.received: dict[int, int] = {}
        #: Region -> everything written here at or below this is durable there.
        self.acknowledged: dict[int, int] = {}
        #: Region -> everything that it had written before this moment, on a clock of this process
        #: that only goes forward, is durable here.
        self.as_of_ms: dict[int, int] = {}
        #: Region -> so many changes of it were missing here, as it counted after this moment.
        self.missing: dict[int, tuple[int, int]] = {}

    def note_received(self, number: int, closed: int) -> None:
        """All of region ``number`` at or below ``closed`` is durable here."""
        self.received[number] = max(self.received.get(number, 0), closed)

    def note_as_of(self, number: int, moment_ms: int) -> None:
        """All that region ``number`` had written before ``moment_ms`` is durable here."""
        self.as_of_ms[number] = max(self.as_of_ms.get(number, moment_ms), moment_ms)
        self.note_missing(number, 0, moment_ms)

    def note_missing(self, number: int, changes: int, moment_ms: int) -> None:
        """So many changes of region ``number`` are not here, as counted after ``moment_ms``."""
        known = self.missing.get(number)
        if known is None or known[1] <= moment_ms:
            self.missing[number] = (changes, moment_ms)

    def note_acknowledged(self, number: int, closed: int) -> None:
        """All of ours at or below ``closed`` is durable in region ``number``."""
        self.acknowledged[number] = max(self.acknowledged.get(number, 0), closed)

    def copy(self) -> Watermarks:
        """What is known now."""
        marks = Watermarks()
        marks.received = dict(self.received)
        marks.acknowledged = dict(self.acknowledged)
        marks.as_of_ms = dict(self.as_of_ms)
        marks.missing = dict(self.missing)
        return marks

    def forget(self, number: int) -> None:
        """The region has left: when it comes back it begins anew."""
        self.received.pop(number, None)
        self.acknowledged.pop(number, None)
        self.as_of_ms.pop(number, None)
        self.missing.pop(number, None)

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
