"""The transactional crash test's own eyes, and two kills of a real server."""

import pytest

from millstream.tools.crash import Crasher, Progress
from millstream.tools.transfer_books import (
    ACCOUNTS,
    NOTES,
    OPENING_BALANCE,
    Books,
    Move,
    account_item,
    check_order,
)
from millstream.tools.transfers import outcome_of

ONE, TWO, NOTE = ACCOUNTS[0], ACCOUNTS[-1], NOTES[0]


def move(name, legs, *, note=None, took=True, began=1.0, ended=2.0):
    made = Move(name, legs, note, {}, began)
    made.took, made.ended = took, ended
    return made


def books_of(*moves):
    books = Books()
    books.moves.update({each.name: each for each in moves})
    return books


def bank(journals=(), notes=()):
    """All accounts, with ``journals`` of (place, [(name, amount), ...]), and notes."""
    found = {place: account_item(place, OPENING_BALANCE) for place in ACCOUNTS}
    for place, entries in journals:
        balance = OPENING_BALANCE + sum(amount for _, amount in entries)
        found[place] = account_item(place, balance)
        found[place]["journal"]["L"] = [{"S": name} for name, _ in entries]
    return found | {place: {"id": {"S": place[1]}, "by": {"S": name}} for place, name in notes}


def transfer(**more):
    return move("t", {ONE: -5, TWO: 5}, **more)


WHOLE = ((ONE, [("t", -5)]), (TWO, [("t", 5)]))


@pytest.mark.parametrize("took", [True, None])
def test_a_whole_transaction_is_right(took):
    assert books_of(transfer(took=took)).check(bank(WHOLE)) == []


@pytest.mark.parametrize("took", [False, None])
def test_none_of_a_transaction_is_right_unless_it_was_acknowledged(took):
    assert books_of(transfer(took=took)).check(bank()) == []


@pytest.mark.parametrize(
    ("took", "journals", "said"),
    [
        (True, (), "acknowledged, and is not there"),
        (False, WHOLE, "was refused, and is there"),
        (None, ((ONE, [("t", -5)]),), "half applied"),
        (True, ((ONE, [("t", -5)]),), "15995 together"),
        (True, ((ONE, [("t", -5)] * 2), (TWO, [("t", 5)] * 2)), "moved twice"),
        (True, (*WHOLE, (ACCOUNTS[1], [("t", 0)])), "nothing to do there"),
        (True, (*WHOLE, (ACCOUNTS[1], [("stranger", 0)])), "nothing to do there"),
    ],
)
def test_everything_else_is_wrong(took, journals, said):
    wrong = books_of(transfer(took=took)).check(bank(journals))
    assert any(said in line for line in wrong), wrong


def test_a_balance_must_come_from_its_journal():
    found = bank()
    found[ONE]["balance"] = {"N": str(OPENING_BALANCE - 1)}
    found[TWO]["balance"] = {"N": str(OPENING_BALANCE + 1)}
    assert len(Books().check(found)) == 2


def test_a_note_is_of_the_last_move_that_wrote_it():
    later = move("later", {}, note=NOTE, began=3.0, ended=4.0)
    books = books_of(transfer(note=NOTE), later)
    assert books.check(bank(WHOLE, [(NOTE, "later")])) == []
    assert "came later" in books.check(bank(WHOLE, [(NOTE, "t")]))[0]
    assert "never wrote" in books.check(bank(WHOLE, [(NOTE, "stranger")]))[0]
    assert "not there" in books_of(transfer(note=NOTE, took=None)).check(bank((), [(NOTE, "t")]))[0]


def test_what_is_read_together_is_whole_and_not_old():
    books, whole = books_of(transfer()), bank(WHOLE)
    assert books.check_seen({ONE: whole[ONE], TWO: whole[TWO]}, 3.0) == []
    assert books.check_seen({ONE: bank()[ONE]}, 1.5) == []
    assert "in part" in books.check_seen({ONE: whole[ONE], TWO: bank()[TWO]}, 1.5)[0]
    assert "then not read" in books.check_seen({ONE: bank()[ONE]}, 3.0)[0]


def test_journals_must_be_of_one_order():
    assert check_order([["a", "b", "c"], ["a", "c"], ["d", "b"]]) == []
    assert "a, b" in check_order([["a", "b"], ["b", "a"]])[0]
    assert check_order([["a", "b"], ["b", "c"], ["c", "a"]]) != []


def test_answers_are_told_apart():
    def canceled(*codes):
        reasons = [{"Code": code} for code in codes]
        return {"__type": "x#TransactionCanceledException", "CancellationReasons": reasons}

    assert outcome_of(200, {}) is True
    assert outcome_of(400, canceled("None", "TransactionConflict")) is False
    assert outcome_of(400, {"__type": "x#TransactionConflictException"}) is False
    assert outcome_of(500, {"__type": "x#InternalServerError"}) is None
    for unexpected in (canceled("ValidationError"), {"__type": "x#ValidationException"}):
        with pytest.raises(AssertionError):
            outcome_of(400, unexpected)


def test_two_kills_leave_every_transaction_whole(tmp_path):
    crasher = Crasher("segments", 7, rounds_seconds=(0.2, 0.4), workload="transactions")
    outcome = crasher.run(tmp_path, 2, Progress("segments", 3))
    assert outcome.wrong == []
    assert (outcome.kills, len(outcome.restarts)) == (2, 2)
    assert outcome.acknowledged > 0
