"""In which order the versions of each key came, as far as its clients can know.

For a list: the longest read. Another read that is no prefix of it, a value that is there twice or
that nobody wrote are anomalies at once. For a register: pairs of versions, the earlier first, not
complete: who told what it replaced, and what was read or written after what in real time. A
deletion is a version of its own; who reads nothing knows which only if nobody can have deleted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from .cycles import shortest_cycle
from .transaction_history import Anomaly, Operation, Status, show

INITIAL = "nothing yet"


class ListOrder(msgspec.Struct, frozen=True):
    """A list's values in order, each one's writer, its place, and who read the list."""

    key: str
    values: tuple[str, ...]
    writers: tuple[Operation, ...]
    positions: dict[str, int]
    readers: tuple[Operation, ...]


class RegisterOrder(msgspec.Struct, frozen=True):
    """A register's versions: who wrote each, who read it, and pairs of which the first is older."""

    key: str
    writers: dict[str, Operation]
    readers: dict[str, list[Operation]]
    pairs: list[tuple[str, str]]


class Orders(msgspec.Struct, frozen=True):
    """Of all keys."""

    lists: dict[str, ListOrder]
    registers: dict[str, RegisterOrder]

    def seen_of(self, operation: Operation) -> list[str]:
        """What somebody else saw of an operation's writes."""
        seen = [
            value
            for key, value in operation.appends.items()
            if value in self.lists[key].positions
        ]
        seen += [
            value
            for key, value in operation.puts.items()
            if value is not None
            and any(
                reader.name != operation.name
                for reader in self.registers[key].readers.get(value, ())
            )
        ]
        return seen


def infer_orders(operations: Sequence[Operation]) -> Orders:
    """The orders of every key. Raises Anomaly."""
    lists: dict[str, list[Operation]] = {}
    registers: dict[str, list[Operation]] = {}
    for operation in operations:
        for key in operation.touches():
            is_list = key in operation.appends or isinstance(operation.reads.get(key), tuple)
            (lists if is_list else registers).setdefault(key, []).append(operation)
    mixed = lists.keys() & registers.keys()
    assert not mixed, f"lists and registers at once: {sorted(mixed)}"
    return Orders(
        {key: _list_order(key, touching) for key, touching in lists.items()},
        {key: _register_order(key, touching) for key, touching in registers.items()},
    )


def _list_order(key: str, touching: Sequence[Operation]) -> ListOrder:
    writer_of: dict[str, Operation] = {}
    for operation in touching:
        value = operation.appends.get(key)
        if value is not None:
            assert value not in writer_of, "a value is written once"
            writer_of[value] = operation
    readers = [
        operation
        for operation in touching
        if key in operation.reads and operation.status is Status.DONE
    ]
    longest: tuple[str, ...] = ()
    by: Operation | None = None
    for reader in readers:
        seen = reader.reads[key]
        assert isinstance(seen, tuple)
        if len(seen) > len(longest):
            longest, by = seen, reader
    positions = {value: number for number, value in enumerate(longest)}
    if len(positions) < len(longest):
        twice = next(value for value in longest if longest.count(value) > 1)
        raise Anomaly("duplicate", f"{twice} is in {key} twice: {by}")
    for reader in readers:
        seen = reader.reads[key]
        if seen != longest[: len(seen or ())]:
            assert isinstance(seen, tuple)
            raise Anomaly(
                "incompatible orders",
                f"{key} was read as {show(seen)} and as {show(longest)}: {reader}; {by}",
            )
    for value in longest:
        if value not in writer_of:
            raise Anomaly("phantom", f"nobody appended {value} to {key}: {by}")
    writers = tuple(writer_of[value] for value in longest)
    return ListOrder(key, longest, writers, positions, tuple(readers))


def _register_order(key: str, touching: Sequence[Operation]) -> RegisterOrder:
    writers: dict[str, Operation] = {}
    deleters: list[Operation] = []
    for operation in touching:
        if key in operation.puts:
            version = _made(key, operation)
            assert version not in writers, "a value is written once"
            writers[version] = operation
            if operation.puts[key] is None and operation.status is not Status.FAILED:
                deleters.append(operation)
    readers: dict[str, list[Operation]] = {}
    #: Operations with the version they begin and end with.
    spans: dict[str, tuple[str, str]] = {}
    for operation in touching:
        if operation.status is Status.FAILED:
            continue
        saw = _saw(key, operation, deleters, writers)
        made = _made(key, operation) if key in operation.puts else None
        if saw is not None and operation.status is Status.DONE:
            readers.setdefault(saw, []).append(operation)
        first, last = saw or made, made or saw
        if first is not None and last is not None:
            spans[operation.name] = (first, last)
    pairs = {(INITIAL, version): None for version in writers}
    pairs |= {span: None for span in spans.values() if span[0] != span[1]}
    known = [operation for operation in touching if operation.name in spans]
    for before, after in frontier_pairs(known):
        older, newer = spans[before.name][1], spans[after.name][0]
        if older != newer:
            pairs[older, newer] = None
    _check_order(key, list(pairs), touching)
    return RegisterOrder(key, writers, readers, list(pairs))


def _check_order(key: str, pairs: Sequence[tuple[str, str]], touching: Sequence[Operation]) -> None:
    """Raise Anomaly if a register's version came before and after another."""
    versions_in_order = dict.fromkeys(itertools.chain.from_iterable(pairs))
    numbers = {version: number for number, version in enumerate(versions_in_order)}
    graph: dict[int, list[int]] = {number: [] for number in numbers.values()}
    for older, newer in pairs:
        graph[numbers[older]].append(numbers[newer])
    cycle = shortest_cycle(graph)
    if cycle is not None:
        names = list(numbers)
        versions = [names[number] for number in cycle]
        lines = [f"{key} was {', then '.join([*versions, versions[0]])}"]
        lines += [
            f"    {operation}"
            for operation in touching
            if operation.reads.get(key) in versions
            or (key in operation.puts and _made(key, operation) in versions)
        ]
        raise Anomaly("cyclic versions", "\n".join(lines))


def _made(key: str, operation: Operation) -> str:
    value = operation.puts[key]
    return f"nothing since {operation.name}" if value is None else value


def _saw(
    key: str, operation: Operation, deleters: Iterable[Operation], writers: dict[str, Operation]
) -> str | None:
    """The version that an operation began with; None if it does not know."""
    if key not in operation.reads:
        return None
    seen = operation.reads[key]
    assert not isinstance(seen, tuple)
    if seen is not None:
        if seen not in writers:
            raise Anomaly("phantom", f"nobody put {seen} to {key}: {operation}")
        return seen
    if any(other.invoked < operation.returned for other in deleters if other is not operation):
        return None
    return INITIAL


def frontier_pairs(operations: Sequence[Operation]) -> Iterator[tuple[Operation, Operation]]:
    """(before, after) wherever real time says so, without what follows from other pairs.

    Operations of unknown outcome have a beginning, and no end.
    """
    events = [(operation.invoked, 1, number) for number, operation in enumerate(operations)]
    events += [
        (operation.returned, 0, number)
        for number, operation in enumerate(operations)
        if operation.status is Status.DONE
    ]
    events.sort()
    #: Operations that are over, and after whose end no other began that is over too.
    frontier: dict[int, None] = {}
    before: dict[int, list[int]] = {}
    for _, begins, number in events:
        if begins:
            before[number] = list(frontier)
            for earlier in frontier:
                yield operations[earlier], operations[number]
        else:
            for earlier in before[number]:
                frontier.pop(earlier, None)
            frontier[number] = None
