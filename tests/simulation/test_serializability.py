"""The cycle search: histories that an order explains, such that none does, and random ones."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from millstream.simulation.cycles import shortest_cycle, shortest_path, strongly_connected
from millstream.simulation.serializability import check_history
from millstream.simulation.transaction_history import (
    Anomaly,
    Operation,
    Seen,
    Status,
    TransactionHistory,
)

History = list[Operation]


def op(
    name: str,
    invoked: int,
    returned: int,
    reads: dict[str, Any] | None = None,
    appends: dict[str, str] | None = None,
    puts: dict[str, str | None] | None = None,
    status: Status = Status.DONE,
    single: bool = False,
) -> Operation:
    return Operation(
        name, invoked, returned, status, reads or {}, appends or {}, puts or {}, single
    )


def append(name: str, at: int, key: str, value: str, **more: Any) -> Operation:
    return op(name, at, at + 1, appends={key: value}, single=True, **more)


def read(name: str, at: int, key: str, seen: Seen) -> Operation:
    return op(name, at, at + 1, reads={key: seen}, single=True)


def put(name: str, at: int, value: str | None, **more: Any) -> Operation:
    return op(name, at, at + 1, puts={"r": value}, single=True, **more)


ALL = {"x": ("1",), "y": ("1",)}
BOTH = {"x": "1", "y": "1"}

EXPLAINED: dict[str, History] = {
    "nothing": [],
    "an append is read": [append("a", 1, "x", "1"), read("r", 3, "x", ("1",))],
    "a read comes before": [read("r", 1, "x", ()), append("a", 3, "x", "1")],
    "an append under way may not be seen yet": [
        op("a", 1, 9, appends={"x": "1"}), read("r", 3, "x", ()), read("s", 5, "x", ("1",)),
    ],
    "an unknown append happened": [
        append("a", 1, "x", "1", status=Status.UNKNOWN), read("r", 5, "x", ("1",)),
    ],
    "an unknown append did not happen": [
        append("a", 1, "x", "1", status=Status.UNKNOWN), read("r", 5, "x", ()),
    ],
    "an unknown append happens late": [
        append("a", 1, "x", "1", status=Status.UNKNOWN),
        read("r", 5, "x", ()),
        read("s", 9, "x", ("1",)),
    ],
    "a failed append was not seen": [
        append("a", 1, "x", "1", status=Status.FAILED), read("r", 5, "x", ()),
    ],
    "plain reads see the parts of a transaction at different moments": [
        op("t", 1, 20, appends=BOTH), read("r", 3, "x", ("1",)), read("s", 5, "y", ()),
        op("all", 30, 31, reads=ALL),
    ],
    "plain writes of two keys have no order in time": [
        append("a", 1, "x", "1"), append("b", 3, "y", "1"),
        op("r", 1, 9, reads={"x": (), "y": ("1",)}), op("all", 30, 31, reads=ALL),
    ],
    "an optimistic transaction": [
        append("a", 1, "x", "1"),
        op("r", 3, 4, reads={"x": ("1",), "y": ()}),
        op("t", 5, 6, reads={"x": ("1",)}, appends={"y": "1"}),
        op("all", 30, 31, reads=ALL),
    ],
    "a register is put, put again, deleted": [
        put("a", 1, "1"), put("b", 3, "2", reads={"r": "1"}), read("s", 5, "r", "2"),
        put("d", 7, None, reads={"r": "2"}), read("t", 9, "r", None),
    ],
    "an unknown deletion happened": [
        put("a", 1, "1"), put("d", 3, None, status=Status.UNKNOWN), read("r", 5, "r", None),
    ],
    "an unknown deletion did not happen": [
        put("a", 1, "1"), put("d", 3, None, status=Status.UNKNOWN), read("r", 5, "r", "1"),
    ],
    "puts under way in any order": [
        op("a", 1, 9, puts={"r": "1"}), op("b", 2, 8, puts={"r": "2"}), read("s", 10, "r", "1"),
    ],
}  # fmt: skip

UNEXPLAINED: dict[str, tuple[str, History]] = {
    "writes of two transactions are mixed": ("G0", [
        op("t", 1, 9, appends=BOTH), op("u", 1, 9, appends={"x": "2", "y": "2"}),
        op("all", 30, 31, reads={"x": ("1", "2"), "y": ("2", "1")}),
    ]),
    "a value that never came about": ("G1a", [
        append("a", 1, "x", "1", status=Status.FAILED), read("r", 5, "x", ("1",)),
    ]),
    "a register's value that never came about": ("G1a", [
        put("a", 1, "1", status=Status.FAILED), read("r", 5, "r", "1"),
    ]),
    "two transactions see each other": ("G1c", [
        op("t", 1, 9, reads={"y": ("2",)}, appends={"x": "1"}),
        op("u", 1, 9, reads={"x": ("1",)}, appends={"y": "2"}),
    ]),
    "half a transaction is read together": ("G-single", [
        op("t", 1, 9, appends=BOTH), op("r", 2, 3, reads={"x": ("1",), "y": ()}),
        op("all", 30, 31, reads=ALL),
    ]),
    "an update is lost between two that read the same": ("G-single", [
        op("t", 1, 9, reads={"x": ()}, appends={"x": "1"}),
        op("u", 1, 9, reads={"x": ()}, appends={"x": "2"}),
        op("all", 30, 31, reads={"x": ("1", "2")}),
    ]),
    "write skew": ("G2", [
        op("t", 1, 9, reads={"x": ()}, appends={"y": "1"}),
        op("u", 1, 9, reads={"y": ()}, appends={"x": "1"}),
        op("all", 30, 31, reads=ALL),
    ]),
    "a stale read": ("G-single-realtime", [
        append("a", 1, "x", "1"), read("r", 3, "x", ()), read("s", 5, "x", ("1",)),
    ]),
    "a read goes back": ("G-single-realtime", [
        op("a", 1, 20, appends={"x": "1"}), read("r", 3, "x", ("1",)), read("s", 5, "x", ()),
    ]),
    "a read from the future": ("G1c-realtime", [
        read("r", 1, "x", ("1",)), append("a", 3, "x", "1"),
    ]),
    "transactions have an order in time": ("G-single-realtime", [
        op("t", 1, 2, appends={"x": "1"}), op("u", 3, 4, appends={"y": "1"}),
        op("r", 1, 9, reads={"x": (), "y": ("1",)}), op("all", 30, 31, reads=ALL),
    ]),
    "appends are acknowledged against their order": ("G0-realtime", [
        append("a", 1, "x", "1"), append("b", 3, "x", "2"), read("r", 9, "x", ("2", "1")),
    ]),
    "an acknowledged append is lost": ("lost", [
        append("a", 1, "x", "1"), read("r", 3, "x", ()),
    ]),
    "an append happened twice": ("duplicate", [
        append("a", 1, "x", "1"), read("r", 3, "x", ("1", "1")),
    ]),
    "reads of one list do not fit": ("incompatible orders", [
        op("t", 1, 9, appends={"x": "1"}), op("u", 1, 9, appends={"x": "2"}),
        read("r", 10, "x", ("1",)), read("s", 12, "x", ("2", "1")),
    ]),
    "a value from nowhere": ("phantom", [read("r", 1, "x", ("1",))]),
    "a register's value from nowhere": ("phantom", [read("r", 1, "r", "1")]),
    "half of it is there at rest": ("half applied", [
        op("t", 1, 9, appends=BOTH, status=Status.UNKNOWN),
        op("all", 30, 31, reads={"x": ("1",), "y": ()}),
    ]),
    "a put is lost": ("cyclic versions", [put("a", 1, "1"), read("r", 3, "r", None)]),
    "an older put is read": ("cyclic versions", [
        put("a", 1, "1"), put("b", 3, "2"), read("r", 5, "r", "1"),
    ]),
    "a deleted value comes back": ("cyclic versions", [
        put("a", 1, "1"), put("d", 3, None), read("r", 5, "r", "1"),
    ]),
    "two puts replace the same": ("G2", [
        put("a", 1, "1"),
        op("b", 3, 9, reads={"r": "1"}, puts={"r": "2"}),
        op("c", 3, 9, reads={"r": "1"}, puts={"r": "3"}),
    ]),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPLAINED)
def test_a_history_that_an_order_explains(name: str) -> None:
    check_history(EXPLAINED[name], settled=25)


@pytest.mark.parametrize("name", UNEXPLAINED)
def test_a_history_that_no_order_explains(name: str) -> None:
    wanted, history = UNEXPLAINED[name]
    with pytest.raises(Anomaly) as caught:
        check_history(history, settled=25)
    assert caught.value.name == wanted


def test_a_cycle_is_told_with_its_reasons() -> None:
    with pytest.raises(Anomaly) as caught:
        check_history(UNEXPLAINED["half a transaction is read together"][1])
    assert str(caught.value).splitlines() == [
        "G-single: a cycle of 2 operations",
        "    t (1-9, done) appended 1 to x, appended 1 to y",
        "    r (2-3, done) read x as [1], read y as []",
        "    t -wr-> r: 1 was the last of x as read",
        "    r -rw-> t: 1 follows y as read, []",
    ]


# Versions.

CHECKED: History = [
    append("a", 1, "x", "1"),
    op("t", 3, 9, reads={"x": ("1",)}, appends={"y": "1", "z": "1"}),
    append("b", 4, "x", "2"),
    op("all", 30, 31, reads={"x": ("1", "2"), "y": ("1",), "z": ("1",)}),
]


@pytest.mark.parametrize(
    ("versions", "wanted"),
    [
        ({("x", "1"): 10, ("y", "1"): 20, ("z", "1"): 20, ("x", "2"): 30}, None),
        ({("x", "1"): 10, ("x", "2"): 30}, None),
        ({("x", "1"): 10, ("y", "1"): 20, ("z", "1"): 21}, "torn version"),
        ({("x", "1"): 10, ("x", "2"): 9}, "version order"),
        ({("x", "1"): 20, ("y", "1"): 15}, "version order"),
        # What was checked changed before the version of the transaction that had checked it: a
        # cut between the two holds the change without what comes before it.
        ({("y", "1"): 40, ("x", "2"): 30}, "version order"),
    ],
)
def test_versions_are_an_order_that_explains(
    versions: dict[tuple[str, str], int], wanted: str | None
) -> None:
    if wanted is None:
        check_history(CHECKED, versions=versions)
        return
    with pytest.raises(Anomaly) as caught:
        check_history(CHECKED, versions=versions)
    assert caught.value.name == wanted


def test_a_value_is_seen_with_one_version() -> None:
    history = TransactionHistory()
    history.note_version("x", "1", 10)
    history.note_version("x", "1", 10)
    history.note_version("y", "1", 11)
    with pytest.raises(Anomaly):
        history.note_version("x", "1", 11)


def test_cycles() -> None:
    graph = {0: [1], 1: [2], 2: [0, 3], 3: [4], 4: [3], 5: [0]}
    assert sorted(strongly_connected(graph)) == [[0, 1, 2], [3, 4]]
    assert sorted(shortest_cycle(graph) or ()) == [3, 4]
    assert shortest_path(graph, 5, 4) == [5, 0, 1, 2, 3, 4]
    assert shortest_path(graph, 4, 5) is None
    assert shortest_cycle({0: [1], 1: [2], 2: []}) is None


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20))
def test_components_are_what_reaches_each_other(edges: list[tuple[int, int]]) -> None:
    graph = {node: [to for source, to in edges if source == node] for node in range(8)}
    together = {
        frozenset(
            other
            for other in graph
            if shortest_path(graph, node, other) and shortest_path(graph, other, node)
        )
        for node in graph
    }
    found = {frozenset(component) for component in strongly_connected(graph)}
    assert found == {component for component in together if len(component) > 1}


# Random histories: executed one operation after the other, each at a moment within its interval.

LISTS, REGISTERS = ("x", "y", "z"), ("r", "s")
SPACING = 10


def serial_history(rng: random.Random) -> History:
    """What clients would write down of a serial execution."""
    state: dict[str, Seen] = {**dict.fromkeys(LISTS, ()), **dict.fromkeys(REGISTERS, None)}
    history: History = []
    for number in range(rng.randint(3, 25)):
        moment = (number + 3) * SPACING
        keys = rng.sample([*LISTS, *REGISTERS], rng.randint(1, 4))
        status = rng.choice([Status.DONE] * 6 + [Status.FAILED, Status.UNKNOWN])
        happens = status is Status.DONE or (status is Status.UNKNOWN and rng.random() < 0.5)
        reads: dict[str, Seen] = {}
        appends: dict[str, str] = {}
        puts: dict[str, str | None] = {}
        for key in keys:
            if status is Status.DONE and rng.random() < 0.6:
                reads[key] = state[key]
            if rng.random() < 0.6:
                if key in LISTS:
                    appends[key] = f"v{number}"
                else:
                    puts[key] = f"v{number}" if rng.random() < 0.8 else None
        if happens:
            for key, value in appends.items():
                state[key] = (*(state[key] or ()), value)
            state.update(puts)
        history.append(
            op(
                f"t{number}",
                moment - rng.randint(1, 3 * SPACING),
                moment + rng.randint(1, 3 * SPACING),
                reads,
                appends,
                puts,
                status,
                single=len(keys) == 1,
            )
        )
    end = settled_of(history)
    return [*history, op("all", end + 1, end + 2, dict(state))]


def settled_of(history: History) -> int:
    return max(operation.returned for operation in history if operation.name != "all") + 1


def change(history: History, number: int, **fields: Any) -> History:
    changed = msgspec.structs.replace(history[number], **fields)
    return [*history[:number], changed, *history[number + 1 :]]


def a_read_is_short(history: History, rng: random.Random) -> History | None:
    """An appending operation did not see the last value before its own."""
    fit = [
        number
        for number, operation in enumerate(history)
        if any(operation.reads.get(key) for key in operation.appends)
    ]
    if not fit:
        return None
    number = rng.choice(fit)
    reads = dict(history[number].reads)
    key = next(key for key in history[number].appends if reads.get(key))
    reads[key] = reads[key][:-1]  # type: ignore[index]
    return change(history, number, reads=reads)


def a_read_is_stale(history: History, rng: random.Random) -> History | None:
    """At the end, somebody sees a list without its last value."""
    final = history[-1]
    fit = [key for key in LISTS if final.reads[key]]
    last = {key: final.reads[key][-1] for key in fit}  # type: ignore[index]
    done = [
        key for key in fit
        if any(o.appends.get(key) == last[key] and o.status is Status.DONE for o in history)
    ]  # fmt: skip
    if not done:
        return None
    key = rng.choice(done)
    at = final.returned + 1
    return [*history, read("stale", at, key, final.reads[key][:-1])]  # type: ignore[index]


def a_transaction_is_torn(history: History, rng: random.Random) -> History | None:
    """Somebody sees one list before a transaction and another after it."""
    final = history[-1]
    for operation in history:
        seen = [key for key, value in operation.appends.items() if value in final.reads[key]]  # type: ignore[operator]
        if len(seen) > 1:
            reads = {}
            for number, key in enumerate(seen):
                values = final.reads[key]
                assert isinstance(values, tuple)
                reads[key] = values[: values.index(operation.appends[key]) + bool(number)]
            return [op("torn", 1, final.returned, reads), *history]
    return None


def a_part_is_dropped(history: History, rng: random.Random) -> History | None:
    """One of a transaction's appends is nowhere."""
    final = history[-1]
    for operation in history:
        seen = [key for key, value in operation.appends.items() if value in final.reads[key]]  # type: ignore[operator]
        if len(seen) > 1:
            key = rng.choice(seen)
            value = operation.appends[key]
            without = []
            for other in history:
                reads = dict(other.reads)
                if key in reads:
                    reads[key] = tuple(one for one in reads[key] if one != value)  # type: ignore[union-attr]
                without.append(msgspec.structs.replace(other, reads=reads))
            return without
    return None


def a_value_is_doubled(history: History, rng: random.Random) -> History | None:
    final = history[-1]
    fit = [key for key in LISTS if final.reads[key]]
    if not fit:
        return None
    key = rng.choice(fit)
    values = final.reads[key]
    assert isinstance(values, tuple)
    return change(history, len(history) - 1, reads={**final.reads, key: (*values, values[0])})


INJURIES: list[Callable[[History, random.Random], History | None]] = [
    a_read_is_short,
    a_read_is_stale,
    a_transaction_is_torn,
    a_part_is_dropped,
    a_value_is_doubled,
]


@given(st.integers(0, 1 << 32))
def test_a_serial_execution_is_explained(seed: int) -> None:
    history = serial_history(random.Random(seed))
    verdict = check_history(history, settled_of(history))
    assert verdict.operations <= len(history)


@pytest.mark.parametrize("injure", INJURIES)
@given(seed=st.integers(0, 1 << 32))
def test_an_injury_is_found(
    injure: Callable[[History, random.Random], History | None], seed: int
) -> None:
    rng = random.Random(seed)
    history = serial_history(rng)
    injured = injure(history, rng)
    assume(injured is not None)
    assert injured is not None
    with pytest.raises(Anomaly):
        check_history(injured, settled_of(history))
