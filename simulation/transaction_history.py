"""What clients of transactions asked and were told, in the order of one common counter.

Nothing here knows the engine. Two kinds of key: a *list*, to which values are appended and which
is read as a tuple (the empty one: no item), and a *register*, which is put and deleted and read as
its value or None. A value is written to a key by one operation only, so that whoever reads it knows
where it came from (Kingsbury and Alvaro, "Elle", VLDB 2020: traceability).

A single read or write is a transaction of one action. An operation whose outcome was never learnt
may have happened or not, and what it wrote, once seen, decides.
"""

from __future__ import annotations

from enum import Enum

import msgspec

Seen = tuple[str, ...] | str | None
"""What a read of a key showed: a list's values, or a register's."""


class Status(Enum):
    """What the client knows."""

    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Anomaly(Exception):
    """No order explains the history. ``name`` says of which kind it is, the text why."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


class Operation(msgspec.Struct, frozen=True):
    """One transaction, as its client knows it.

    ``reads`` are what it found before its own writes; ``appends`` and ``puts`` what it wrote, a put
    of None being a deletion. ``returned`` of an operation of unknown outcome means nothing.
    ``is_single``: a plain read or write of one item, which is ordered with others on its key only.
    """

    name: str
    invoked: int
    returned: int
    status: Status = Status.DONE
    reads: dict[str, Seen] = {}
    appends: dict[str, str] = {}
    puts: dict[str, str | None] = {}
    is_single: bool = False

    def touches(self) -> list[str]:
        """Every key that it touches, once each."""
        return list(dict.fromkeys([*self.reads, *self.appends, *self.puts]))

    def __str__(self) -> str:
        said = [f"read {key} as {show(seen)}" for key, seen in self.reads.items()]
        said += [f"appended {value} to {key}" for key, value in self.appends.items()]
        said += [
            f"deleted {key}" if value is None else f"put {value} to {key}"
            for key, value in self.puts.items()
        ]
        what = ", ".join(said) or "did nothing"
        return f"{self.name} ({self.invoked}-{self.returned}, {self.status.value}) {what}"


class TransactionHistory:
    """Operations, and the version that each value was always seen with."""

    __slots__ = ("operations", "versions")

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        #: (key, value) -> the version of the row whose last value it was.
        self.versions: dict[tuple[str, str], int] = {}

    def note_version(self, key: str, value: str, version: int) -> None:
        """Somebody saw a row. Raises Anomaly if it was of another version before."""
        known = self.versions.setdefault((key, value), version)
        if known != version:
            raise Anomaly("versions", f"{value} in {key} was of {known}, and is of {version}")


def show(seen: Seen) -> str:
    """For people: long lists show their end."""
    if seen is None:
        return "nothing"
    if isinstance(seen, str):
        return seen
    if len(seen) > 6:
        return f"[{len(seen) - 6} more, {', '.join(seen[-6:])}]"
    return f"[{', '.join(seen)}]"
