"""The register checker: histories that no order explains, and such that one does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.simulation import linearizability
from millstream.simulation.history import (
    IMPOSSIBLE,
    Action,
    Call,
    Image,
    Outcome,
    image,
    step,
)
from millstream.simulation.linearizability import TooHard, check_calls


def item(value: str, **more: Any) -> dict[str, Any]:
    return {"v": {"S": value}, **more}


def put(
    value: str, span: tuple[int, int], old: str | None = None, outcome: str = "done", **more: Any
) -> Call:
    action = Action("put", item=item(value), **more)
    if outcome == "unknown":
        return Call("c", action, *span, Outcome.UNKNOWN)
    return Call("c", action, *span, Outcome.DONE, image_of(old), image(item(value)))


def refused(value: str, span: tuple[int, int], found: str | None, condition: str) -> Call:
    action = Action("put", item=item(value), condition=condition)
    return Call("c", action, *span, Outcome.REFUSED, image_of(found))


def delete(span: tuple[int, int], old: str | None = None, outcome: str = "done") -> Call:
    known = outcome == "done"
    return Call(
        "c", Action("delete"), *span, Outcome(outcome), image_of(old) if known else None
    )


def read(value: str | None, at: int) -> Call:
    return Call("c", Action("read"), at, at + 1, Outcome.DONE, image_of(value))


def image_of(value: str | None) -> Image:
    return None if value is None else image(item(value))


EXPLAINED = {
    "nothing": [],
    "a write is read": [put("a", (1, 2)), read("a", 3)],
    "a write under way may be seen": [put("a", (1, 9)), read("a", 3), read("a", 5)],
    "a write under way may not be seen yet": [put("a", (1, 9)), read(None, 3), read("a", 5)],
    "writes under way in any order": [
        put("a", (1, 9), old="b"), put("b", (2, 8)), read("a", 10),
    ],
    "an unknown write happened": [put("a", (1, 5), outcome="unknown"), read("a", 6)],
    "an unknown write did not happen": [put("a", (1, 5), outcome="unknown"), read(None, 6)],
    "an unknown write happens late": [
        put("a", (1, 9), outcome="unknown"), read(None, 3), read("a", 6),
    ],
    "an unknown delete happened": [
        put("a", (1, 2)), delete((3, 9), outcome="unknown"), read(None, 5),
    ],
    "a refusal": [put("a", (1, 2)), refused("b", (3, 4), "a", "absent"), read("a", 5)],
    "a refusal that saw an unknown write": [
        put("a", (1, 9), outcome="unknown"), refused("b", (3, 4), "a", "absent"), read("a", 6),
    ],
    "two unknown writes, both seen": [
        put("a", (1, 9), outcome="unknown"), put("b", (2, 9), outcome="unknown"),
        read("b", 3), read("a", 5),
    ],
}  # fmt: skip

UNEXPLAINED = {
    "an acknowledged write is lost": [put("a", (1, 2)), read(None, 3)],
    "a stale read after an acknowledged write": [
        put("a", (1, 2)), put("b", (3, 4), old="a"), read("a", 5),
    ],
    "a read goes back": [put("a", (1, 9)), read("a", 3), read(None, 5)],
    "a deleted item comes back": [put("a", (1, 2)), delete((3, 4), "a"), read("a", 5)],
    "an unknown write comes back after its life": [
        put("a", (1, 4), outcome="unknown"), read(None, 5), read("a", 7),
    ],
    "a value that nobody wrote": [put("a", (1, 2)), read("x", 3)],
    "two conditional writes both win": [
        put("a", (1, 4), condition="absent"), put("b", (2, 5), condition="absent"),
    ],
    "two writes replace the same image": [
        put("a", (1, 2)), put("b", (3, 6), old="a"), put("c", (4, 7), old="a"),
    ],
    "a refusal that was not due": [refused("b", (1, 2), None, "absent")],
    "a refusal told a wrong item": [put("a", (1, 2)), refused("b", (3, 4), "x", "absent")],
    "a write seen before it was asked for": [read("a", 1), put("a", (3, 4))],
}  # fmt: skip


@pytest.mark.parametrize("name", EXPLAINED)
def test_a_history_that_one_order_explains(name: str) -> None:
    assert check_calls(EXPLAINED[name]) is None


@pytest.mark.parametrize("name", UNEXPLAINED)
def test_a_history_that_no_order_explains(name: str) -> None:
    violation = check_calls(UNEXPLAINED[name])
    assert violation is not None
    assert str(violation)


def test_a_half_applied_update_is_not_explained() -> None:
    first = put("a", (1, 2))
    action = Action("update", item={}, set={"v": {"S": "b"}, "g": {"S": "g1"}})
    update = Call("c", action, 3, 9, Outcome.UNKNOWN)
    half = Call("c", Action("read"), 5, 6, Outcome.DONE, image(item("b")))
    whole = msgspec_replace(half, old=image(item("b", g={"S": "g1"}, n={"N": "1"})))
    assert check_calls([first, update, half]) is not None
    assert check_calls([first, update, whole]) is None


def msgspec_replace(call: Call, **fields: Any) -> Call:
    import msgspec

    return msgspec.structs.replace(call, **fields)


def test_an_update_counts_and_removes() -> None:
    action = Action("update", item={"pk": {"S": "p"}}, set=item("b"), remove=("g",))
    before = image({"pk": {"S": "p"}, "g": {"S": "x"}, "n": {"N": "4"}})
    call = Call("c", action, 1, 2, Outcome.UNKNOWN)
    assert step(call, before) == image({"pk": {"S": "p"}, "v": {"S": "b"}, "n": {"N": "5"}})
    assert step(call, None) == image({"pk": {"S": "p"}, "v": {"S": "b"}, "n": {"N": "1"}})


def test_a_condition_on_a_value() -> None:
    call = put("b", (1, 2), outcome="unknown", condition="a")
    assert step(call, image(item("a"))) == image(item("b"))
    assert step(call, image(item("z"))) is IMPOSSIBLE
    assert step(call, None) is IMPOSSIBLE


def test_too_many_possibilities_are_admitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linearizability, "CONFIGURATIONS_MAX", 100)
    unknown = [put(f"u{number}", (number, 100), outcome="unknown") for number in range(1, 9)]
    with pytest.raises(TooHard):
        check_calls([*unknown, read("x", 50)])


@given(st.data())
def test_what_a_true_register_answers_is_explained(data: st.DataObject) -> None:
    """Calls take effect at a point within their time, in an order that is forgotten afterwards."""
    points = data.draw(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8), st.integers(1, 8),
                                          st.sampled_from(["put", "delete", "read", "lost"]),
                                          st.booleans()), max_size=12))
    state: Image = None
    calls: list[Call] = []
    # Ten ticks apart, so that no two points of effect share a moment.
    for number, (at, before, after, kind, known) in enumerate(sorted(points)):
        point = at * 100 + number
        span = (max(0, point - before * 40), point + after * 40)
        outcome = Outcome.DONE if known else Outcome.UNKNOWN
        if kind == "read":
            calls.append(Call("c", Action("read"), *span, Outcome.DONE, state))
        elif kind == "lost":
            calls.append(put(f"lost{number}", span, outcome="unknown"))
        elif kind == "put":
            new = image(item(str(number)))
            calls.append(Call("c", Action("put", item=item(str(number))), *span, outcome,
                              state if known else None, new if known else None))
            state = new
        else:
            calls.append(
                Call("c", Action("delete"), *span, outcome, state if known else None, None)
            )
            state = None
    assert check_calls(calls) is None
