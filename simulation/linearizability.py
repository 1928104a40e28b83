"""Is there one order of the calls on a key that explains every answer? The register checker.

Just-in-time linearization (Lowe, "Testing for Linearizability", 2017): events are taken in the
order of time, keeping every *configuration* that is still possible: the item's state, and which of
the calls under way have already taken effect. A call must have taken effect when it returns; one
whose outcome is unknown may also never do so. No configuration left means that no order explains
what clients saw: an acknowledged write was lost, a read went back in time, a write was half applied
or came back. Versions and logs are not consulted: the clients' view alone decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .history import IMPOSSIBLE, Call, Image, Outcome, step

CONFIGURATIONS_MAX = 20_000

_Configuration = tuple[Image, frozenset[int]]


class Violation(msgspec.Struct, frozen=True):
    """The first call that nothing explains, with the states that were possible before it."""

    call: Call
    states: tuple[Image, ...]

    def __str__(self) -> str:
        states = ", ".join(_show(state) for state in self.states)
        call = self.call
        condition = call.action.condition
        asked = call.action.kind if condition is None else f"{call.action.kind} if {condition}"
        return (
            f"{call.client} asked {asked} from {call.invoked} to {call.returned} and was told"
            f" {call.outcome.value}, found {_show(call.old)}, left {_show(call.new)};"
            f" possible before: {states}"
        )


class TooHard(Exception):
    """More configurations than the checker is willing to follow; nothing is known."""


def check_calls(calls: Sequence[Call], initial: Image = None) -> Violation | None:
    """None if the calls on one key are linearizable. Raises TooHard."""
    events: list[tuple[int, int, int]] = []
    for number, call in enumerate(calls):
        assert call.invoked < call.returned
        events.append((call.invoked, 1, number))
        # What ends at the moment at which something begins was before it.
        events.append((call.returned, 0, number))
    events.sort()
    under_way: list[int] = []
    configurations: set[_Configuration] = {(initial, frozenset())}
    for _, begins, number in events:
        if begins:
            under_way.append(number)
            continue
        after = _returned(calls, under_way, configurations, number)
        if not after:
            states = sorted({state for state, _ in configurations}, key=lambda state: state or b"")
            return Violation(calls[number], tuple(states))
        configurations = after
        under_way.remove(number)
    return None


def _returned(
    calls: Sequence[Call],
    under_way: Sequence[int],
    configurations: set[_Configuration],
    number: int,
) -> set[_Configuration]:
    """The configurations after call ``number`` has returned, from those before."""
    optional = calls[number].outcome is Outcome.UNKNOWN
    found: set[_Configuration] = set()
    if optional:
        # It never happened.
        found.update(before for before in configurations if number not in before[1])
    seen = set(configurations)
    stack = list(configurations)
    while stack:
        state, done = stack.pop()
        if number in done:
            found.add((state, done - {number}))
            continue
        for other in under_way:
            if other in done:
                continue
            new = step(calls[other], state)
            if new is IMPOSSIBLE:
                continue
            after = (new, done | {other})
            if after not in seen:
                seen.add(after)
                stack.append(after)
        if len(seen) > CONFIGURATIONS_MAX:
            raise TooHard(f"{len(seen)} configurations after {len(under_way)} calls under way")
    return found


def _show(state: Image) -> str:
    if state is None:
        return "nothing"
    text = state.decode()
    return text if len(text) <= 160 else text[:160] + "..."
