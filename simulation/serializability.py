"""Is there an order of all transactions that explains what each of them saw? Cycle search.

After Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations"
(VLDB 2020), with Adya's names. The order of a list's versions is its longest read, since every read
must be a prefix of it; the order of a register's versions is what clients know of it: who replaced
what, and what came after what in real time. From them follow edges between operations::

    ww   b overwrote (or appended to) what a wrote
    wr   b read what a wrote
    rw   b overwrote what a read
    rt   a had returned before b was invoked

and a cycle is a history that no order explains. What is promised about real time, and no more, is
in the last: operations on one *key* are ordered with each other, and so are transactions of several
actions, but not plain reads of different keys, which may see the parts of one transaction at
different moments.

============  ==========================================
G0            ww alone: writes of two transactions mixed
G1a           a read of what never happened
G1c           ww and wr
G-single      one rw: a read of half a transaction
G2            several rw: write skew
-realtime     the same, with the help of real time
lost          an acknowledged append is not there
half applied  at rest, a part of a transaction is not there
torn version  a transaction's effects are of different versions
version order  the versions' order is none that explains the history
============  ==========================================

``version_orders.py`` finds what needs no cycle of operations: incompatible orders, duplicates,
phantoms, cyclic versions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from .cycles import shortest_cycle, shortest_path, strongly_connected
from .transaction_history import Anomaly, Operation, Seen, Status, show
from .version_orders import ListOrder, Orders, RegisterOrder, frontier_pairs, infer_orders

WW, WR, RW, RT = "ww", "wr", "rw", "rt"


class Verdict(msgspec.Struct, frozen=True):
    """What was looked at: operations that happened, and edges between them."""

    operations: int
    edges: int


def check_history(
    operations: Sequence[Operation],
    settled: int | None = None,
    versions: Mapping[tuple[str, str], int] | None = None,
) -> Verdict:
    """Raise Anomaly unless the history is serializable, in real time where that is promised.

    ``settled`` is when everything was at rest: reads invoked later show each transaction wholly or
    not at all. ``versions`` are the versions that (key, value) was seen with: where known, they are
    one for each transaction, and their order is an order that explains the history, so that
    everything up to some version is a consistent cut.
    """
    names = {operation.name for operation in operations}
    assert len(names) == len(operations), "names tell operations apart"
    orders = infer_orders(operations)
    happened = _happened(operations, orders)
    _check_nothing_is_lost(happened, orders)
    if settled is not None:
        _check_whole(happened, settled)
    edges = _Edges(happened)
    for order in orders.lists.values():
        edges.add_list(order)
    for register in orders.registers.values():
        edges.add_register(register)
    edges.add_real_time()
    edges.check()
    if versions is not None:
        edges.check_versions(versions)
    return Verdict(len(happened), len(edges))


def _happened(operations: Iterable[Operation], orders: Orders) -> list[Operation]:
    """Operations that took effect, those of unknown outcome included whose values were seen."""
    happened = []
    for operation in operations:
        seen = orders.seen_of(operation)
        if operation.status is Status.FAILED:
            if seen:
                raise Anomaly("G1a", f"{seen[0]} was read, but did not happen: {operation}")
        elif operation.status is Status.DONE or seen:
            happened.append(operation)
    return happened


def _check_nothing_is_lost(happened: Iterable[Operation], orders: Orders) -> None:
    """Whoever reads a list after an append was acknowledged finds its value."""
    for operation in happened:
        if operation.status is not Status.DONE:
            continue
        for key, value in operation.appends.items():
            order = orders.lists[key]
            if value in order.positions:
                continue
            for reader in order.readers:
                if reader.invoked > operation.returned:
                    raise Anomaly("lost", f"{value} is not in {key}: {operation}; {reader}")


def _check_whole(happened: Sequence[Operation], settled: int) -> None:
    """At rest, all of a transaction's appends are there or none."""
    last: dict[str, Seen] = {}
    for operation in happened:
        if operation.invoked > settled:
            last.update(operation.reads)
    for operation in happened:
        there: dict[bool, list[str]] = {True: [], False: []}
        for key, value in operation.appends.items():
            seen = last.get(key)
            if isinstance(seen, tuple):
                there[value in seen].append(key)
        if there[True] and there[False]:
            raise Anomaly(
                "half applied",
                f"at rest, it is in {', '.join(there[True])} and not in"
                f" {', '.join(there[False])}: {operation}",
            )


class _Edges:
    """The graph of what happened, with a reason for each edge."""

    __slots__ = ("_happened", "_numbers", "_reasons")

    def __init__(self, happened: Sequence[Operation]) -> None:
        self._happened = happened
        self._numbers = {operation.name: number for number, operation in enumerate(happened)}
        #: (from, to) -> kind -> why.
        self._reasons: dict[tuple[int, int], dict[str, str]] = {}

    def __len__(self) -> int:
        return len(self._reasons)

    def _add(self, kind: str, before: Operation, after: Operation, why: str) -> None:
        source, target = self._numbers.get(before.name), self._numbers.get(after.name)
        if source is not None and target is not None and source != target:
            self._reasons.setdefault((source, target), {}).setdefault(kind, why)

    def add_list(self, order: ListOrder) -> None:
        """The edges of one list key."""
        key, writers, values = order.key, order.writers, order.values
        for number in range(1, len(values)):
            why = f"{values[number]} follows {values[number - 1]} in {key}"
            self._add(WW, writers[number - 1], writers[number], why)
        for reader in order.readers:
            seen = reader.reads[key]
            assert isinstance(seen, tuple)
            length = len(seen)
            if length:
                why = f"{seen[-1]} was the last of {key} as read"
                self._add(WR, writers[length - 1], reader, why)
            if length < len(values):
                why = f"{values[length]} follows {key} as read, {show(seen)}"
                self._add(RW, reader, writers[length], why)

    def add_register(self, order: RegisterOrder) -> None:
        """The edges of one register key."""
        key, writers = order.key, order.writers
        for version, readers in order.readers.items():
            writer = writers.get(version)
            for reader in readers:
                if writer is not None:
                    self._add(WR, writer, reader, f"{key} was read as {version}")
        for version, later in order.pairs:
            after = writers.get(later)
            if after is None:
                continue
            why = f"{later} replaced {version} in {key}"
            if version in writers:
                self._add(WW, writers[version], after, why)
            for reader in order.readers.get(version, ()):
                self._add(RW, reader, after, why)

    def add_real_time(self) -> None:
        """One key's operations among each other, and transactions of several actions."""
        by_key: dict[str, list[Operation]] = {}
        for operation in self._happened:
            for key in operation.touches():
                by_key.setdefault(key, []).append(operation)
        for key, touching in by_key.items():
            for before, after in frontier_pairs(touching):
                self._add(RT, before, after, f"it was over before, on {key}")
        several = [operation for operation in self._happened if not operation.is_single]
        for before, after in frontier_pairs(several):
            self._add(RT, before, after, "it was over before")

    def check(self) -> None:
        """Raise Anomaly for the plainest cycle there is."""
        if not strongly_connected(self._graph((WW, WR, RW, RT))):
            return
        for more, suffix in (((), ""), ((RT,), "-realtime")):
            for name, kinds in (("G0", (WW,)), ("G1c", (WW, WR))):
                cycle = shortest_cycle(self._graph((*kinds, *more)))
                if cycle is not None:
                    raise self._anomaly(name + suffix, cycle, (*kinds, *more))
            kinds = (WW, WR, *more)
            cycle = self._with_one_rw(kinds)
            if cycle is not None:
                raise self._anomaly("G-single" + suffix, cycle, (*kinds, RW))
            cycle = shortest_cycle(self._graph((*kinds, RW)))
            if cycle is not None:
                raise self._anomaly("G2" + suffix, cycle, (*kinds, RW))
        raise AssertionError("a component has a cycle")

    def check_versions(self, versions: Mapping[tuple[str, str], int]) -> None:
        """Raise Anomaly unless operations come in the order of the versions that they wrote."""
        version_of: dict[int, int] = {}
        for number, operation in enumerate(self._happened):
            written = {**operation.appends, **operation.puts}
            known = {
                versions[key, value]
                for key, value in written.items()
                if value is not None and (key, value) in versions
            }
            if len(known) > 1:
                raise Anomaly("torn version", f"it wrote versions {sorted(known)}: {operation}")
            if known:
                version_of[number] = known.pop()
        for (source, target), reasons in self._reasons.items():
            if source in version_of and target in version_of and reasons.keys() != {RT}:
                before, after = self._happened[source], self._happened[target]
                if version_of[source] >= version_of[target]:
                    raise Anomaly(
                        "version order",
                        f"{version_of[source]} comes before {version_of[target]}:\n"
                        f"    {before}\n    {after}\n    {reasons}",
                    )

    def _graph(self, kinds: Collection[str]) -> dict[int, list[int]]:
        graph: dict[int, list[int]] = {number: [] for number in range(len(self._happened))}
        for (source, target), reasons in self._reasons.items():
            if any(kind in reasons for kind in kinds):
                graph[source].append(target)
        return graph

    def _with_one_rw(self, kinds: Collection[str]) -> list[int] | None:
        graph = self._graph(kinds)
        best: list[int] | None = None
        for (source, target), reasons in self._reasons.items():
            if RW in reasons:
                path = shortest_path(graph, target, source)
                if path is not None and (best is None or len(path) < len(best)):
                    best = path
        return best

    def _anomaly(self, name: str, cycle: Sequence[int], kinds: Sequence[str]) -> Anomaly:
        lines = [f"a cycle of {len(cycle)} operations"]
        lines += [f"    {self._happened[number]}" for number in cycle]
        for source, target in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            reasons = self._reasons[source, target]
            kind = next(kind for kind in (WW, WR, RW, RT) if kind in reasons and kind in kinds)
            before, after = self._happened[source].name, self._happened[target].name
            lines.append(f"    {before} -{kind}-> {after}: {reasons[kind]}")
        return Anomaly(name, "\n".join(lines))
