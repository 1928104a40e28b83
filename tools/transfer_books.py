"""What transferring clients did, and what must therefore be found: the books of ``crash``'s bank.

Accounts lie in two tables. Every move of money adds its name to the journal of each account that it
touches (``list_append``), so that a move which is there in part, there twice, there without having
been acknowledged as possible, or not there though it was acknowledged, shows; the balances tell the
same story a second time. Moves may also overwrite a *note*, an item that they do not look at.

Pure: what was done comes in as ``Move`` values, what was found as items; out come sentences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, TypeAlias

TABLES = ("checking", "savings")
ACCOUNTS_PER_TABLE = 8
NOTES_PER_TABLE = 3
OPENING_BALANCE = 1000

Item: TypeAlias = dict[str, Any]
Place: TypeAlias = tuple[str, str]
"""A table and the id of an item in it."""

ACCOUNTS: tuple[Place, ...] = tuple(
    (table, f"account {number}") for table in TABLES for number in range(ACCOUNTS_PER_TABLE)
)
NOTES: tuple[Place, ...] = tuple(
    (table, f"note {number}") for table in TABLES for number in range(NOTES_PER_TABLE)
)
TOTAL = OPENING_BALANCE * len(ACCOUNTS)


class Move:
    """One request as its client remembers it.

    ``legs`` maps the accounts that it touches to what it adds to their balances; ``note`` is what
    it overwrites, if anything. ``members`` is the request, by which it can be repeated; None for
    a single write, which cannot. ``took`` is True once it was acknowledged, False once it was
    refused, None while nobody knows. Times are of one monotonic clock; ``ended`` is None for ever
    if there was no answer.
    """

    __slots__ = ("began", "ended", "legs", "members", "name", "note", "took")

    def __init__(
        self,
        name: str,
        legs: dict[Place, int],
        note: Place | None,
        members: dict[str, Any] | None,
        began: float,
    ) -> None:
        self.name = name
        self.legs = legs
        self.note = note
        self.members = members
        self.began = began
        self.ended: float | None = None
        self.took: bool | None = None


def account_item(place: Place, balance: int) -> Item:
    """An account with an empty journal."""
    return {"id": {"S": place[1]}, "balance": {"N": str(balance)}, "journal": {"L": []}}


def journal_of(item: Item) -> list[str]:
    return [entry["S"] for entry in item["journal"]["L"]]


class Books:
    """Everything since the journals were last emptied. Clients add moves, each its own."""

    __slots__ = ("balances", "moves", "notes")

    def __init__(self) -> None:
        #: Balances as of when the journals were emptied.
        self.balances: dict[Place, int] = dict.fromkeys(ACCOUNTS, OPENING_BALANCE)
        #: What the notes said then: the name of a move.
        self.notes: dict[Place, str] = {}
        #: Name -> move. Only of moves in here may a journal speak.
        self.moves: dict[str, Move] = {}

    def doubtful(self) -> list[Move]:
        """The moves that nobody knows the outcome of."""
        return [move for move in self.moves.values() if move.took is None]

    def check(self, found: Mapping[Place, Item]) -> list[str]:
        """One sentence for each thing that is wrong with all that was found, nobody writing."""
        wrong = [f"{place} is gone" for place in ACCOUNTS if place not in found]
        if wrong:
            return wrong
        journals = {place: journal_of(found[place]) for place in ACCOUNTS}
        for place, journal in journals.items():
            balance = int(found[place]["balance"]["N"])
            wrong += self._check_account(place, journal, balance)
        total = sum(int(found[place]["balance"]["N"]) for place in ACCOUNTS)
        if total != TOTAL:
            wrong.append(f"the accounts hold {total} together, not {TOTAL}")
        there = {name for journal in journals.values() for name in journal}
        for move in list(self.moves.values()):
            wrong += _check_move(move, journals)
        for place in NOTES:
            wrong += self._check_note(place, found.get(place), there)
        return wrong + check_order(journals.values())

    def _check_account(self, place: Place, journal: list[str], balance: int) -> list[str]:
        wrong = []
        expected = self.balances[place]
        for name in journal:
            move = self.moves.get(name)
            if move is None or place not in move.legs:
                wrong.append(f"{place} speaks of {name}, which has nothing to do there")
            else:
                expected += move.legs[place]
        if len(set(journal)) < len(journal):
            twice = sorted({name for name in journal if journal.count(name) > 1})
            wrong.append(f"{place} was moved twice by {', '.join(twice)}")
        if balance != expected:
            wrong.append(f"{place} holds {balance}; its journal comes to {expected}")
        if balance < 0:
            wrong.append(f"{place} holds {balance}, which every condition forbids")
        return wrong

    def _check_note(self, place: Place, item: Item | None, there: set[str]) -> list[str]:
        """A note must be of a move that is there, and of none that another one has followed."""
        name = "" if item is None else item["by"]["S"]
        writer = self.moves.get(name)
        if writer is None or writer.note != place:
            if name != self.notes.get(place, ""):
                return [f"{place} is by {name!r}, which never wrote it"]
        elif writer.took is False or (writer.legs and name not in there):
            return [f"{place} is by {name}, which is not there"]
        # What was there before began and ended before everything in these books.
        ended = 0.0 if writer is None else writer.ended
        return [
            f"{place} is by {name!r}, though {move.name} came later"
            for move in self.moves.values()
            if move.note == place
            and (move.took or move.name in there)
            and ended is not None
            and move.began > ended
        ]

    def check_seen(self, seen: Mapping[Place, Item], began: float) -> list[str]:
        """The same of some accounts that were read together, from ``began`` on, amid writes."""
        wrong = []
        journals = {place: journal_of(item) for place, item in seen.items()}
        for name in {name for journal in journals.values() for name in journal}:
            move = self.moves.get(name)
            if move is None:
                wrong.append(f"{name} was read, and never asked for")
            elif move.took is False:
                wrong.append(f"{name} was read, and refused")
            else:
                wrong += [
                    f"{name} was read in part: not in {place}"
                    for place in move.legs
                    if place in journals and name not in journals[place]
                ]
        for move in list(self.moves.values()):
            if move.took and move.ended is not None and move.ended < began:
                wrong += [
                    f"{move.name} was acknowledged, and then not read in {place}"
                    for place in move.legs
                    if place in journals and move.name not in journals[place]
                ]
        return wrong

    def settle(self, found: Mapping[Place, Item]) -> None:
        """Begin anew from ``found``, whose journals are being emptied."""
        for place in ACCOUNTS:
            self.balances[place] = int(found[place]["balance"]["N"])
        for place in NOTES:
            if place in found:
                self.notes[place] = found[place]["by"]["S"]
        self.moves.clear()


def _check_move(move: Move, journals: Mapping[Place, list[str]]) -> list[str]:
    present = [place for place in move.legs if move.name in journals[place]]
    if present and len(present) < len(move.legs):
        missing = [place for place in move.legs if place not in present]
        return [f"{move.name} is half applied: it is in {present}, and not in {missing}"]
    if present and move.took is False:
        return [f"{move.name} was refused, and is there"]
    if move.took and not present and move.legs:
        return [f"{move.name} was acknowledged, and is not there"]
    return []


def check_order(journals: Iterable[list[str]]) -> list[str]:
    """Whether all journals can be of one order of moves; if not, a sentence with some of a cycle.

    An append sees all appends before it, so that the journals' orders are the version orders, and
    a cycle among them is a history that no order of whole moves explains (G0 of Adya's anomalies).
    """
    after: dict[str, set[str]] = {}
    before_count: dict[str, int] = {}
    for journal in journals:
        for name in journal:
            after.setdefault(name, set())
            before_count.setdefault(name, 0)
        for earlier, later in pairwise(journal):
            if later not in after[earlier]:
                after[earlier].add(later)
                before_count[later] += 1
    ready = [name for name, count in before_count.items() if count == 0]
    done = 0
    while ready:
        done += 1
        for later in after[ready.pop()]:
            before_count[later] -= 1
            if before_count[later] == 0:
                ready.append(later)
    if done == len(before_count):
        return []
    stuck = sorted(name for name, count in before_count.items() if count)
    return [f"the journals contradict each other about the order of {', '.join(stuck[:4])}"]
