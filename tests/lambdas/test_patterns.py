"""Filter patterns: each operator, arrays and absence, what is refused, and what it costs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from millstream.errors import InvalidRequest
from millstream.lambdas.patterns import compile_filters

RECORD: dict[str, Any] = {
    "eventID": "c4ca4238a0b923820dcc509a6f75849b",
    "eventName": "INSERT",
    "eventVersion": "1.1",
    "eventSource": "aws:dynamodb",
    "awsRegion": "us-east-1",
    "dynamodb": {
        "ApproximateCreationDateTime": 1_678_831_218.0,
        "Keys": {"CustomerName": {"S": "AnyCompany Industries"}},
        "NewImage": {
            "CustomerName": {"S": "AnyCompany Industries"},
            "AccountManager": {"S": "Pat Candella"},
            "PaymentTerms": {"S": "60 days"},
            "Balance": {"N": "17.5"},
            "Open": {"BOOL": True},
            "Note": {"NULL": True},
            "Empty": {"S": ""},
            "Tags": {"SS": ["blue", "green"]},
            "Address": {"M": {"City": {"S": "Seattle"}, "Zip": {"S": "98101"}}},
            "Orders": {
                "L": [
                    {"M": {"id": {"S": "o1"}, "state": {"S": "open"}}},
                    {"M": {"id": {"S": "o2"}, "state": {"S": "closed"}, "by": {"S": "Pat"}}},
                ]
            },
        },
        "SequenceNumber": "111",
        "SizeBytes": 26,
        "StreamViewType": "NEW_IMAGE",
    },
    "eventSourceARN": "arn:aws:dynamodb:us-east-1:123456789012:table/t/stream/s",
}
BY_TTL = {
    **RECORD,
    "eventName": "REMOVE",
    "userIdentity": {"type": "Service", "principalId": "dynamodb.amazonaws.com"},
}


def matches(pattern: Any, record: dict[str, Any] = RECORD) -> bool:
    return compile_filters([json.dumps(pattern)]).matches(record)


def value_matches(entry: Any, value: Any) -> bool:
    """Whether one entry of an array matches one value."""
    return matches({"v": [entry]}, {"v": value})


def refusal(pattern: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        compile_filters([pattern if isinstance(pattern, str) else json.dumps(pattern)])
    text = str(caught.value)
    assert text.startswith("Invalid filter pattern definition. ")
    return text.removeprefix("Invalid filter pattern definition. ")


def image(**attributes: Any) -> dict[str, Any]:
    return {"dynamodb": {"NewImage": attributes}}


# The whole.


def test_no_patterns_match_everything() -> None:
    assert compile_filters([]).matches({})
    assert compile_filters([]).matches(RECORD)


def test_several_patterns_are_alternatives() -> None:
    filters = compile_filters(['{"eventName":["REMOVE"]}', '{"awsRegion":["us-east-1"]}'])
    assert filters.matches(RECORD)
    assert filters.matches({"eventName": "REMOVE"})
    assert not filters.matches({"eventName": "INSERT", "awsRegion": "eu-west-1"})


def test_names_are_and_values_are_or() -> None:
    assert matches({"eventName": ["MODIFY", "INSERT"], "awsRegion": ["us-east-1"]})
    assert not matches({"eventName": ["MODIFY", "INSERT"], "awsRegion": ["eu-west-1"]})


def test_names_that_are_not_mentioned_are_ignored() -> None:
    assert matches({"eventName": ["INSERT"]}, {"eventName": "INSERT", "more": [1, {"x": 2}]})


def test_guide_examples_of_dynamodb() -> None:
    assert matches({"dynamodb": {"Keys": {"CustomerName": {"S": ["AnyCompany Industries"]}}}})
    assert matches(image(AccountManager={"S": ["Pat Candella", "Shirley Rodriguez"]}))
    assert not matches(image(AccountManager={"S": ["Shirley Rodriguez"]}))
    assert matches(
        image(AccountManager={"S": ["Pat Candella"]}, PaymentTerms={"S": [{"prefix": "60"}]})
    )


def test_any_name_of_the_record_may_be_filtered() -> None:
    expired = {"userIdentity": {"type": ["Service"], "principalId": ["dynamodb.amazonaws.com"]}}
    assert matches(expired, BY_TTL)
    assert not matches(expired, RECORD)
    assert matches({"dynamodb": {"StreamViewType": ["NEW_IMAGE"], "SizeBytes": [26]}})


def test_deletions_by_ttl_can_be_left_out() -> None:
    by_hand = {"userIdentity": {"type": [{"exists": False}]}}
    assert matches(by_hand, RECORD)
    assert not matches(by_hand, BY_TTL)


# Literals.


@pytest.mark.parametrize(
    "literal, same, other",
    [
        ("a", ["a"], ["A", "aa", "", None, 0, {"a": "a"}]),
        ("", [""], ["a", None, False, 0, [], {}]),
        ("5", ["5"], [5, 5.0]),
        (5, [5, 5.0], ["5", 5.1, True]),
        (1, [1, 1.0], [True, "1"]),
        (0, [0, -0.0], [False, None, ""]),
        (2.5, [2.5], ["2.5", 2]),
        (300, [300, 3.0e2], [3]),
        (None, [None], ["", 0, False, "null", {}]),
        (True, [True], [1, "true", False]),
        (False, [False], [0, "false", None, True]),
    ],
)
def test_literals_look_at_types(literal: Any, same: list[Any], other: list[Any]) -> None:
    for value in same:
        assert value_matches(literal, value)
        assert matches({"v": ["no", literal, 77]}, {"v": value})
    for value in other:
        assert not value_matches(literal, value)
    assert not matches({"v": [literal]}, {})


def test_flags_and_nulls_of_an_item() -> None:
    assert matches(image(Open={"BOOL": [True]}, Note={"NULL": [True]}, Empty={"S": [""]}))
    assert not matches(image(Open={"BOOL": [False]}))


# Operators.


@pytest.mark.parametrize(
    "entry, same, other",
    [
        ({"prefix": "ab"}, ["ab", "abc"], ["a", "cab", "AB", 5, None]),
        ({"prefix": ""}, ["", "a"], [5, None, {}]),
        ({"prefix": {"equals-ignore-case": "aB"}}, ["ab", "ABC"], ["cab", 5]),
        ({"suffix": ".png"}, [".png", "a.png"], [".pn", "a.PNG", 5, None]),
        ({"suffix": {"equals-ignore-case": ".Png"}}, ["a.pNG"], ["a.gif", 5]),
        ({"equals-ignore-case": "aLiCe"}, ["alice", "ALICE"], ["alic", "alices", 5, None]),
        ({"anything-but": "a"}, ["b", "", 5, True, None], ["a", [], {}]),
        ({"anything-but": ["a", "b"]}, ["c", 5], ["a", "b"]),
        ({"anything-but": 5}, [6, "5", None], [5, 5.0]),
        ({"anything-but": 1}, [True, "1"], [1, 1.0]),
        ({"anything-but": [5, 6.5]}, [6, "6.5"], [5, 6.5]),
        ({"anything-but": {"prefix": "us-"}}, ["eu-1", "", 5, None], ["us-", "us-1"]),
        ({"anything-but": {"prefix": ["us-", "eu-"]}}, ["ap-1"], ["us-1", "eu-1"]),
        ({"anything-but": {"suffix": ".png"}}, ["a.gif", 5], ["a.png"]),
        ({"anything-but": {"suffix": [".png", ".gif"]}}, ["a.jpg"], ["a.png", "a.gif"]),
        ({"anything-but": {"equals-ignore-case": "Up"}}, ["ups", 5], ["up", "UP"]),
        ({"anything-but": {"equals-ignore-case": ["a", "b"]}}, ["c"], ["A", "B"]),
        ({"anything-but": {"wildcard": "*/lib/*"}}, ["lib", 5], ["a/lib/b", "/lib/"]),
        ({"anything-but": {"wildcard": ["a*", "*z"]}}, ["m"], ["am", "mz"]),
        ({"numeric": ["=", 5]}, [5, 5.0], ["5", 5.5, True, None]),
        ({"numeric": ["<", 5]}, [4.9, -1], [5, "4", False]),
        ({"numeric": ["<=", 5]}, [5, -1], [5.1, "4"]),
        ({"numeric": [">", 5]}, [5.1, 1e300], [5, "6", True]),
        ({"numeric": [">=", 5]}, [5, 6], [4.9, "6"]),
        ({"numeric": [">", 0, "<=", 5]}, [0.1, 5], [0, 5.1, "3"]),
        ({"numeric": [">=", 0, "<", 5]}, [0, 4.9], [-0.1, 5]),
        ({"wildcard": "*"}, ["", "a"], [5, None]),
        ({"wildcard": "dir/*.png"}, ["dir/.png", "dir/a/b.png"], ["dir/a.gif", "a/dir/b.png"]),
        ({"wildcard": "a*b*a"}, ["aba", "a12b34a", "abba"], ["ab", "aa", "abab"]),
        ({"wildcard": "ab*ba"}, ["abba", "ab-ba"], ["aba", "ab"]),
        ({"wildcard": "*ab*ab*"}, ["abab", "xabxabx"], ["xabx", "aab"]),
        ({"wildcard": "*b*b"}, ["bb", "abab"], ["ab", "b", "bba"]),
        ({"wildcard": "whole"}, ["whole"], ["whol", "wholes"]),
        ({"wildcard": r"a\*b*"}, ["a*b", "a*bc"], ["axb"]),
        ({"wildcard": r"\\*"}, ["\\", "\\a"], ["a"]),
        ({"exists": True}, ["", 0, None, False, ["a"], [[1]]], [{}, {"a": 1}, [], [{"a": 1}]]),
        ({"exists": False}, [{}, {"a": 1}, [], [{"a": 1}], [[]]], ["", 0, None, False, [None]]),
    ],
)
def test_operators(entry: Any, same: list[Any], other: list[Any]) -> None:
    for value in same:
        assert value_matches(entry, value), value
        assert matches({"v": ["no", entry]}, {"v": value}), value
    for value in other:
        assert not value_matches(entry, value), value
        assert not matches({"v": ["no", entry]}, {"v": value}), value


def test_only_exists_false_matches_a_name_that_is_missing() -> None:
    assert matches({"v": [{"exists": False}]}, {})
    assert matches({"v": [{"exists": False}, "a"]}, {"v": "a"})
    assert not matches({"v": [{"exists": False}, "a"]}, {"v": "b"})
    for entry in (
        {"exists": True},
        {"anything-but": "a"},
        {"anything-but": 5},
        {"anything-but": {"prefix": "a"}},
        {"prefix": ""},
        {"wildcard": "*"},
        None,
        "",
    ):
        assert not matches({"v": [entry]}, {})


def test_numeric_operators_do_not_match_dynamodb_numbers() -> None:
    assert not matches(image(Balance={"N": [{"numeric": ["=", 17.5]}]}))
    assert not matches(image(Balance={"N": [17.5]}))
    assert not matches(image(Balance={"N": [{"numeric": [">", 0]}]}))
    assert matches(image(Balance={"N": ["17.5"]}))
    assert matches({"dynamodb": {"SizeBytes": [{"numeric": [">", 20, "<", 30]}]}})


def test_large_numbers_are_compared_exactly() -> None:
    assert value_matches(2**53 + 1, 2**53 + 1)
    assert not value_matches(2**53 + 1, 2**53)
    assert not value_matches({"numeric": ["=", 2**53 + 1]}, 2**53)


# $or.


def test_or_takes_one_of_its_objects() -> None:
    pattern = {
        "eventName": ["INSERT"],
        "$or": [{"a": ["1"]}, {"b": ["2"], "c": ["3"]}, {"$or": [{"d": [4]}, {"e": [5]}]}],
    }
    base = {"eventName": "INSERT"}
    assert matches(pattern, {**base, "a": "1"})
    assert matches(pattern, {**base, "b": "2", "c": "3"})
    assert matches(pattern, {**base, "e": 5})
    assert not matches(pattern, {**base, "b": "2"})
    assert not matches(pattern, base)
    assert not matches(pattern, {"eventName": "REMOVE", "a": "1"})


def test_or_inside_a_map() -> None:
    pattern = image(**{"$or": [{"Open": {"BOOL": [False]}}, {"Empty": {"S": [""]}}]})
    assert matches(pattern)
    assert not matches(pattern, {"dynamodb": {"NewImage": {"Open": {"BOOL": True}}}})


def test_an_attribute_may_have_the_name_or() -> None:
    assert matches({"$or": ["a", {"prefix": "b"}]}, {"$or": "bc"})
    assert matches({"$or": [{"prefix": "a"}, {"suffix": "b"}]}, {"$or": "cb"})
    assert matches({"$or": {"S": ["a"]}}, {"$or": {"S": "a"}})


def test_or_needs_two_objects() -> None:
    refusal({"$or": []})
    refusal({"$or": [{"a": ["b"]}]})
    refusal({"$or": [{"a": ["b"]}, "c"]})
    refusal({"$or": [{"a": ["b"]}, {}]})


# Arrays and siblings.


def test_one_element_of_an_array_is_enough() -> None:
    assert matches(image(Tags={"SS": ["green"]}))
    assert matches(image(Tags={"SS": [{"anything-but": "green"}]}))
    assert not matches(image(Tags={"SS": ["red"]}))
    assert matches({"v": [3]}, {"v": [1, [2, [3]]]})
    assert not matches({"v": ["a"]}, {"v": [{"v": "a"}, ["b"]]})


def test_one_element_meets_all_conditions() -> None:
    def order(**members: Any) -> dict[str, Any]:
        return image(Orders={"L": {"M": members}})

    assert matches(order(id={"S": ["o1"]}, state={"S": ["open"]}))
    assert matches(order(id={"S": ["o2"]}, state={"S": ["closed"]}))
    assert not matches(order(id={"S": ["o1"]}, state={"S": ["closed"]}))


def test_siblings_do_not_leak() -> None:
    # As localstack did (issue 10716): the attribute of one name answered for another.
    assert not matches(image(AccountManager={"S": ["60 days"]}))
    assert not matches({"dynamodb": {"OldImage": {"AccountManager": {"S": ["Pat Candella"]}}}})
    assert not matches({"dynamodb": {"Keys": {"AccountManager": {"S": [{"exists": True}]}}}})
    assert not matches({"a": {"b": ["x"], "c": ["y"]}}, {"a": {"b": "x"}, "c": "y"})


def test_absence_is_asked_of_all_elements() -> None:
    def order(**members: Any) -> dict[str, Any]:
        return image(Orders={"L": {"M": members}})

    # The first order has no "by", but the second has.
    assert not matches(order(by={"S": [{"exists": False}]}))
    assert not matches(order(by={"S": [{"exists": False}]}, id={"S": ["o1"]}))
    assert matches(order(gone={"S": [{"exists": False}]}, id={"S": ["o1"]}))
    assert not matches(order(gone={"S": [{"exists": False}]}, id={"S": ["o3"]}))
    assert matches({"a": {"b": [{"exists": False}]}}, {"a": []})
    assert matches({"a": {"b": [{"exists": False}]}}, {"a": "text"})
    assert matches({"a": {"b": {"c": [{"exists": False}]}}}, {"a": [{"b": []}, {}]})


def test_existence_is_of_leaves() -> None:
    assert not matches(image(Address=[{"exists": True}]))
    assert matches(image(Address=[{"exists": False}]))
    assert matches(image(Address={"M": {"City": {"S": [{"exists": True}]}}}))


# What is refused.


@pytest.mark.parametrize(
    "pattern, reason",
    [
        ("", "The pattern is not valid JSON"),
        ("{", "The pattern is not valid JSON"),
        ('{"a":["b"]} x', "The pattern is not valid JSON"),
        ('{"a":[NaN]}', "The pattern is not valid JSON"),
        ('{"a":["\ud800"]}', "The pattern is not valid JSON"),
        ("[" * 4000, "The pattern is not valid JSON"),
        ("[]", "Filter is not an object"),
        ('"a"', "Filter is not an object"),
        ("null", "Filter is not an object"),
        ({}, "An object must not be empty"),
        ({"a": {}}, "An object must not be empty"),
        ({"a": []}, "A list must not be empty"),
        ({"a": "b"}, '"a" must be an object or a list'),
        ({"a": {"b": 5}}, '"b" must be an object or a list'),
        ({"a": None}, '"a" must be an object or a list'),
        ({"a": [{}]}, "An object must not be empty"),
        ({"a": [{"prefix": "a", "suffix": "b"}]}, "An operator is an object with one name"),
        ({"a": [{"regex": "a"}]}, "There is no operator regex"),
        ({"a": [{"cidr": "10.0.0.0/24"}]}, "There is no operator cidr"),
        ({"a": [{"exists": "true"}]}, "exists takes true or false"),
        ({"a": [{"exists": 1}]}, "exists takes true or false"),
        ({"a": [{"prefix": 1}]}, "prefix takes a text"),
        ({"a": [{"suffix": ["a"]}]}, "suffix takes a text"),
        ({"a": [{"prefix": {"suffix": "a"}}]}, "prefix does not go with: suffix"),
        ({"a": [{"prefix": {}}]}, "prefix does not go with: "),
        ({"a": [{"equals-ignore-case": 5}]}, "equals-ignore-case takes a text"),
        ({"a": [{"wildcard": 5}]}, "wildcard takes a text"),
        ({"a": [{"wildcard": "a**b"}]}, "Two wildcards side by side at position 1"),
        ({"a": [{"wildcard": "a\\b"}]}, "An escape of nothing special at position 1"),
        ({"a": [{"wildcard": "ab\\"}]}, "An escape of nothing special at position 2"),
        ({"a": [{"numeric": 5}]}, "numeric takes a list"),
        ({"a": [{"numeric": []}]}, "numeric takes comparisons, and there is none"),
        ({"a": [{"numeric": ["!=", 5]}]}, "numeric has no comparison !="),
        ({"a": [{"numeric": [["="], 5]}]}, "numeric has no comparison ['=']"),
        ({"a": [{"numeric": ["=", "5"]}]}, "= compares with a number"),
        ({"a": [{"numeric": ["=", True]}]}, "= compares with a number"),
        ({"a": [{"numeric": ["<"]}]}, "< compares with a number"),
        ({"a": [{"numeric": [">", 1, "<"]}]}, "< compares with a number"),
        ({"a": [{"numeric": [">", 1, ">", 2]}]}, "A range cannot end with >"),
        ({"a": [{"numeric": ["<", 2, ">", 1]}]}, "numeric takes one comparison or two"),
        ({"a": [{"numeric": ["=", 2, "<", 3]}]}, "numeric takes one comparison or two"),
        (
            {"a": [{"numeric": [">", 1, "<", 3, "<", 4]}]},
            "numeric takes one comparison or two",
        ),
        ({"a": [{"numeric": [">", 5, "<", 5]}]}, "A range must begin below its end"),
        ({"a": [{"anything-but": []}]}, "A list must not be empty"),
        (
            {"a": [{"anything-but": [True]}]},
            "anything-but takes texts and numbers only",
        ),
        (
            {"a": [{"anything-but": None}]},
            "anything-but takes texts and numbers only",
        ),
        (
            {"a": [{"anything-but": [{"prefix": "a"}]}]},
            "anything-but takes texts and numbers only",
        ),
        (
            {"a": [{"anything-but": ["a", 5]}]},
            "anything-but takes texts or numbers, not both",
        ),
        ({"a": [{"anything-but": {}}]}, "An operator is an object with one name"),
        ({"a": [{"anything-but": {"exists": True}}]}, "anything-but does not go with exists"),
        ({"a": [{"anything-but": {"prefix": ""}}]}, "anything-but takes no empty prefix or suffix"),
        ({"a": [{"anything-but": {"suffix": []}}]}, "A list must not be empty"),
        ({"a": [{"anything-but": {"prefix": 5}}]}, "prefix takes a text"),
        (
            {"a": [["b"]]},
            '"a" lists a list: only values and operators may be listed',
        ),
    ],
)
def test_invalid_patterns(pattern: Any, reason: str) -> None:
    assert refusal(pattern) == reason


def test_numbers_beyond_doubles_are_refused() -> None:
    for text in ("1e400", "-1e400", "9" * 400):
        refusal(f'{{"a":[{text}]}}')
        refusal(f'{{"a":[{{"numeric":["<",{text}]}}]}}')


def test_every_pattern_is_checked() -> None:
    with pytest.raises(InvalidRequest, match=r"^Invalid filter pattern definition\."):
        compile_filters(['{"a":["b"]}', '{"a":"b"}'])


# Bounds.


def nested(levels: int, inside: Any) -> Any:
    for _ in range(levels):
        inside = {"m": inside}
    return inside


def test_levels_are_bounded() -> None:
    assert matches(nested(100, ["x"]), nested(100, "x"))
    assert refusal(nested(101, ["x"])) == "The pattern has more than 100 levels"
    assert refusal(nested(600, ["x"])) == "The pattern has more than 100 levels"


def test_values_are_bounded() -> None:
    assert matches({"a": list(range(999)), "b": [0]}, {"a": 998, "b": 0})
    assert refusal({"a": list(range(999)), "b": [0, 1]}) == "The pattern has more than 1000 values"


def test_wildcards_are_bounded_over_the_pattern() -> None:
    half = {"wildcard": "*a" * 50}
    assert matches({"v": [half], "w": [half]}, {"v": "a" * 50, "w": "a" * 50})
    reason = "The pattern has too many wildcards"
    assert refusal({"v": [half], "w": [half, {"wildcard": "*"}]}) == reason
    assert refusal({"v": [{"anything-but": {"wildcard": ["*a" * 51, "*b" * 51]}}]}) == reason


def test_combinations_are_bounded() -> None:
    ten = {"$or": [{"a": [number]} for number in range(10)]}
    assert matches({"x": ten, "y": ten, "z": ten}, {"x": {"a": 1}, "y": {"a": 2}, "z": {"a": 3}})
    assert refusal({"x": ten, "y": ten, "z": ten, "w": {"$or": [{"a": [1]}, {"b": [1]}]}}) == (
        "$or makes more than 1000 combinations"
    )


def test_wildcards_cost_one_pass() -> None:
    # A matcher that tries again after a dead end does not come back from this in a lifetime.
    hostile = {"wildcard": "*a" * 99 + "*b"}
    filters = compile_filters([json.dumps({"v": [hostile]})])
    assert not filters.matches({"v": "a" * 400_000})
    assert filters.matches({"v": "a" * 400_000 + "b"})


def test_absence_in_long_arrays_costs_one_pass() -> None:
    # Asking every element about all the others would take minutes.
    pattern = {"l": {"m": {"x": {"S": [{"exists": False}]}, "y": {"S": ["last"]}}}}
    elements = [{"m": {"y": {"S": "no"}}} for _ in range(20_000)]
    assert not matches(pattern, {"l": elements})
    assert matches(pattern, {"l": [*elements, {"m": {"y": {"S": "last"}}}]})
