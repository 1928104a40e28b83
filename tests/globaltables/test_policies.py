"""What becomes of a write that lost: attributes compared, resolvers called and guarded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import InvalidRequest
from millstream.globaltables.policies import (
    ResolverFailed,
    attribute_of,
    by_attribute,
    check_conflicts_table,
    last_writer_wins,
    policy_text,
    resolved,
    shown,
)
from millstream.limits import ITEM_SIZE_BYTES_MAX
from millstream.model.python_values import to_item
from millstream.model.schema import KeyAttribute, KeySchema, Partition, Status, Table
from millstream.model.values import Item

TABLE = Table(
    namespace="",
    name="orders",
    table_id="orders",
    status=Status.ACTIVE,
    created_ms=0,
    key=KeySchema((KeyAttribute("pk", "S"),)),
    attribute_kinds={"pk": "S"},
    tree=4,
    partitions=(Partition("log", 0, 1),),
)


def item(**attributes: object) -> Item:
    return to_item({"pk": "a", **attributes})


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (9, 10),
        (-2, 1),
        (0.5, 0.75),
        ("a", "b"),
        ("Z", "a"),
        ("\uffee", "\U0001f600"),
        (b"\x01", b"\xff"),
    ],
)
def test_the_higher_value_wins_whichever_side_it_is_on(low, high):
    policy = by_attribute("v")
    lower, higher = item(v=low), item(v=high)
    assert policy(lower, higher) is higher
    assert policy(higher, lower) is higher


@pytest.mark.parametrize(
    ("lost", "won"),
    [
        (item(v=1), None),
        (None, item(v=1)),
        (None, None),
        (item(v=1), item()),
        (item(), item(v=1)),
        (item(v=5), item(v="1")),
        (item(v=5), item(v=5, more=1)),
        (item(v=[2]), item(v=[1])),
        (item(v=True), item(v=False)),
        (item(v={2}), item(v={1})),
    ],
)
def test_where_values_do_not_decide_versions_do(lost, won):
    assert by_attribute("v")(lost, won) is won


def test_the_last_writer_wins():
    one, other = item(v=1), item(v=2)
    assert last_writer_wins(other, one) is one


values = (
    st.integers()
    .filter(lambda number: abs(number) < 10**37)
    | st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-1000, max_value=1000)
    | st.text()
    | st.binary()
    | st.booleans()
)
sides = st.none() | st.builds(item) | st.builds(lambda value: item(v=value), values)


@given(sides, sides)
def test_by_attribute_is_a_total_choice_that_both_sides_make_alike(one, other):
    policy = by_attribute("v")
    chosen, mirrored = policy(one, other), policy(other, one)
    assert chosen is one or chosen is other
    # Either the values decide, the same way from both sides, or the winner stays on both.
    if chosen is not other:
        assert mirrored is one
    else:
        assert mirrored is one or mirrored is other
    if chosen is other and mirrored is one and one is not other:
        assert policy(one, one) is one


@given(st.lists(values, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_among_values_of_a_kind_one_is_left_whatever_the_order(found, random):
    kind = type(found[0])
    items = [item(v=value) for value in found if type(value) is kind]
    policy = by_attribute("v")

    def left() -> object:
        order = list(items)
        random.shuffle(order)
        best = order[0]
        for each in order[1:]:
            best = policy(best, each)
        return best["v"]

    if kind is not bool:
        assert left() == left()


# As text.


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (None, ""),
        ("", ""),
        ("last_writer_wins", ""),
        ("resolver", "resolver"),
        (by_attribute("price"), "attribute price"),
        ("attribute unit price", "attribute unit price"),
    ],
)
def test_policies_are_stored_as_text(said, text):
    assert policy_text(said) == text
    assert policy_text(shown(text)) == text


@pytest.mark.parametrize("said", ["latest", "attribute ", "attribute", 5, by_attribute])
def test_what_is_no_policy_is_refused(said):
    with pytest.raises(InvalidRequest):
        policy_text(said)


@pytest.mark.parametrize("name", ["", "x" * 65_536, "\ud800", 5])
def test_names_that_no_attribute_has_are_refused(name):
    with pytest.raises(InvalidRequest):
        by_attribute(name)


def test_an_attribute_comes_back_from_text():
    assert attribute_of("attribute a b") == by_attribute("a b")
    assert attribute_of("resolver") is None
    assert attribute_of("") is None


@pytest.mark.parametrize("name", ["ab", "x" * 256, "a b c", "orders", 7])
def test_names_that_no_conflicts_table_can_have_are_refused(name):
    with pytest.raises(InvalidRequest):
        check_conflicts_table(name, "orders")
    check_conflicts_table("orders_conflicts", "orders")


# Resolvers.


def test_a_resolver_gets_plain_values_and_gives_some():
    def merge(local, remote):
        return {**remote, "v": local["v"] | remote["v"]}

    assert resolved(merge, TABLE, item(v={1}), item(v={2})) == item(v={1, 2})


def test_an_answer_that_equals_the_winner_is_the_winner():
    winner = item(v={"a", "b"}, n=1)
    assert resolved(lambda local, remote: dict(remote), TABLE, item(), winner) is winner
    assert resolved(lambda local, remote: None, TABLE, item(), None) is None


def test_none_is_a_deletion_both_ways():
    assert resolved(lambda local, remote: local, TABLE, None, item(v=1)) is None
    assert resolved(lambda local, remote: local, TABLE, item(v=1), None) == item(v=1)


def test_what_a_resolver_does_to_its_arguments_stays_with_it():
    lost, won = item(v=[1, {"a": {1}}]), item(v=[2])

    def spoil(local, remote):
        local["v"][1]["a"].add(2)
        local["v"].append(3)
        remote["v"].clear()
        remote["pk"] = "b"
        raise ValueError("v")

    with pytest.raises(ResolverFailed):
        resolved(spoil, TABLE, lost, won)
    assert lost == item(v=[1, {"a": {1}}])
    assert won == item(v=[2])




class _Odd(dict):
    def items(self):
        raise RuntimeError("odd")


@pytest.mark.parametrize(
    "resolver",
    [
        lambda local, remote: {**remote, "pk": "b"},
        lambda local, remote: {"v": 1},
        lambda local, remote: {**remote, "pk": 1},
        lambda local, remote: {**remote, "v": "secret" * ITEM_SIZE_BYTES_MAX},
        lambda local, remote: {**remote, "v": object()},
        lambda local, remote: {**remote, "v": float("nan")},
        lambda local, remote: [remote],
        lambda local, remote: _Odd(remote),
        lambda local, remote: remote["secret"],
        lambda local, remote: 1 // 0,
        lambda local: local,
    ],
)
def test_what_cannot_be_taken_is_refused_without_a_word_of_the_items(resolver):
    with pytest.raises(ResolverFailed) as caught:
        resolved(resolver, TABLE, item(v="secret"), item(v="secret"))
    assert "secret" not in str(caught.value)


def test_the_key_is_that_of_the_side_that_is_there():
    with pytest.raises(ResolverFailed):
        resolved(lambda local, remote: {"pk": "b"}, TABLE, item(), None)


@given(values, values)
def test_the_same_two_items_give_the_same(one, other):
    def resolver(local, remote):
        return max(local, remote, key=repr)

    first = resolved(resolver, TABLE, item(v=one), item(v=other))
    assert first == resolved(resolver, TABLE, item(v=one), item(v=other))
