"""Every message that a malformed expression gets, in DynamoDB's words.

Where a message was recorded on AWS (conformance suite, public issue threads) the test says no more;
where only another implementation's recording is known, dynalite's is meant.
"""

from __future__ import annotations

from typing import Any

import pytest

from millstream.errors import InvalidRequest
from millstream.expressions import (
    check_filter_keys,
    check_scalar_keys,
    check_update_keys,
    compile_expressions,
)

S = {"S": "x"}
ONE = {"N": "1"}
TWO = {"N": "2"}


def message(**request: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        compile_expressions(**request)
    return str(caught.value)


SYNTAX = [
    # Conformance suite, error-messages/updateItem and getItem.
    ({"update": "INVALID SYNTAX HERE"}, 'token: "INVALID", near: "INVALID SYNTAX"'),
    ({"projection": "!!! INVALID !!!"}, 'token: "!", near: "!!"'),
    # Recorded on AWS in issue threads and in the tests of others.
    ({"condition": "a-b"}, 'token: "-", near: "a-b"'),
    ({"filter": "a-b"}, 'token: "-", near: "a-b"'),
    ({"key_condition": "a-b"}, 'token: "-", near: "a-b"'),
    ({"condition": "foo"}, 'token: "<EOF>", near: "foo"'),
    ({"condition": "NOT #x"}, 'token: "<EOF>", near: "#x"'),
    ({"key_condition": "f()"}, 'token: ")", near: "()"'),
    ({"update": "SET _123 = :v"}, 'token: "_", near: "SET _123"'),
    ({"update": "SET MyStr = myNum Mystr2 myNum2"}, 'token: "Mystr2", near: "myNum Mystr2 myNum2"'),
    ({"update": "SET MyStr = my Num"}, 'token: "Num", near: "my Num"'),
    ({"update": "SET path = VALUE 1"}, 'token: "1", near: "VALUE 1"'),
    ({"update": "SET a = :x +"}, 'token: "<EOF>", near: "+"'),
    ({"update": "SET"}, 'token: "<EOF>", near: "SET"'),
    # By the same rule.
    ({"projection": "a,"}, 'token: "<EOF>", near: ","'),
    ({"projection": "a b"}, 'token: "b", near: "a b"'),
    ({"projection": "a[01]"}, 'token: "1", near: "01]"'),
    ({"projection": "a[:x]"}, 'token: ":x", near: "[:x]"'),
    ({"projection": "a[#x]"}, 'token: "#x", near: "[#x]"'),
    ({"projection": "add"}, 'token: "add", near: "add"'),
    ({"condition": "a = "}, 'token: "<EOF>", near: "="'),
    ({"condition": "a != :v"}, 'token: "!", near: "a !="'),
    ({"condition": "a IN ()"}, 'token: ")", near: "()"'),
    ({"condition": "a = :v)"}, 'token: ")", near: ":v)"'),
    ({"condition": "(a).b = :v"}, 'token: ".", near: ").b"'),
    ({"condition": "(a)"}, 'token: "<EOF>", near: ")"'),
    ({"condition": "(a) AND b = :v"}, 'token: "AND", near: ") AND b"'),
    ({"condition": ":a"}, 'token: "<EOF>", near: ":a"'),
    ({"condition": "a BETWEEN :x OR :y"}, 'token: "OR", near: ":x OR :y"'),
    ({"update": "SET :a = :b"}, 'token: ":a", near: "SET :a ="'),
    ({"update": "SET a = :b + :c + :d"}, 'token: "+", near: ":c + :d"'),
    ({"update": "SET a = (:b + :c) + :d"}, 'token: "+", near: ") + :d"'),
    ({"update": "SET a = if_not_exists(a, :b + :c)"}, 'token: "+", near: ":b + :c"'),
    ({"update": "ADD a b"}, 'token: "b", near: "a b"'),
    ({"update": "REMOVE a = :v"}, 'token: "=", near: "a = :v"'),
    ({"update": "SET # = :v"}, 'token: "#", near: "SET # ="'),
]


@pytest.mark.parametrize(("request_", "detail"), SYNTAX)
def test_syntax_error(request_: dict[str, str], detail: str) -> None:
    parameter = {
        "update": "UpdateExpression",
        "condition": "ConditionExpression",
        "filter": "FilterExpression",
        "projection": "ProjectionExpression",
        "key_condition": "KeyConditionExpression",
    }[next(iter(request_))]
    assert message(**request_) == f"Invalid {parameter}: Syntax error; {detail}"


REST = [
    # Empty, and the raw size.
    ("update", "", {}, "The expression can not be empty;"),
    ("key_condition", "", {}, "The expression can not be empty;"),
    (
        "condition",
        "a" * 4097,
        {},
        "Expression size has exceeded the maximum allowed size; expression size: 4097",
    ),
    # Parentheses.
    ("condition", "((attribute_not_exists(pk)))", {}, "The expression has redundant parentheses;"),
    ("condition", "((a)) = :s", {":s": S}, "The expression has redundant parentheses;"),
    ("condition", "((a = :s)) AND b = :s", {":s": S}, "The expression has redundant parentheses;"),
    ("update", "SET a = ((:n + :n))", {":n": ONE}, "The expression has redundant parentheses;"),
    ("condition", "((b(a)))", {}, "The expression has redundant parentheses;"),
    # Operators.
    (
        "condition",
        " AND ".join(["a=:n"] * 151),
        {":n": ONE},
        "The expression contains too many operators; operator count: 301",
    ),
    (
        "condition",
        f"a IN ({','.join([':n'] * 101)})",
        {":n": ONE},
        "The IN operator is provided with too many operands; number of operands: 101",
    ),
    # Functions.
    ("condition", "dog(a)", {}, "Invalid function name; function: dog"),
    ("condition", "SIZE(a) = :n", {":n": ONE}, "Invalid function name; function: SIZE"),
    ("update", "SET a = f(b, c, d)", {}, "Invalid function name; function: f"),
    (
        "condition",
        "if_not_exists(a, b) = :n",
        {":n": ONE},
        "The function is not allowed in a condition expression; function: if_not_exists",
    ),
    (
        "update",
        "SET a = size(b)",
        {},
        "The function is not allowed in an update expression; function: size",
    ),
    (
        "condition",
        "size(a)",
        {},
        "The function is not allowed to be used this way in an expression; function: size",
    ),
    (
        "condition",
        "(size(a))",
        {},
        "The function is not allowed to be used this way in an expression; function: size",
    ),
    (
        "condition",
        "a = :n AND NOT size(a)",
        {":n": ONE},
        "The function is not allowed to be used this way in an expression; function: size",
    ),
    (
        "condition",
        "attribute_exists(a) < :n",
        {":n": ONE},
        "The function is not allowed to be used this way in an expression; "
        "function: attribute_exists",
    ),
    (
        "condition",
        "begins_with(a, contains(b, :s))",
        {":s": S},
        "The function is not allowed to be used this way in an expression; function: contains",
    ),
    (
        "update",
        "SET a = list_append(list_append(:l, :l), :l)",
        {":l": {"L": []}},
        "The function is not allowed to be used this way in an expression; function: list_append",
    ),
    (
        "condition",
        "size(a, a) = :n",
        {":n": ONE},
        "Incorrect number of operands for operator or function; "
        "operator or function: size, number of operands: 2",
    ),
    (
        "update",
        "SET a = list_append(:l)",
        {":l": {"L": []}},
        "Incorrect number of operands for operator or function; "
        "operator or function: list_append, number of operands: 1",
    ),
    (
        "condition",
        "attribute_exists(:s)",
        {":s": S},
        "Operator or function requires a document path; operator or function: attribute_exists",
    ),
    (
        "update",
        "SET a = if_not_exists(:n, :n)",
        {":n": ONE},
        "Operator or function requires a document path; operator or function: if_not_exists",
    ),
    (
        "update",
        "SET a = if_not_exists(if_not_exists(a, :n), :n)",
        {":n": ONE},
        "Operator or function requires a document path; operator or function: if_not_exists",
    ),
    # Names.
    (
        "condition",
        "status = :s",
        {":s": S},
        "Attribute name is a reserved keyword; reserved keyword: status",
    ),
    ("projection", "pk, Name", {}, "Attribute name is a reserved keyword; reserved keyword: Name"),
    (
        "update",
        "SET a.size = :s",
        {":s": S},
        "Attribute name is a reserved keyword; reserved keyword: size",
    ),
    (
        "filter",
        "#missing = :s",
        {":s": S},
        "An expression attribute name used in the document path is not defined; "
        "attribute name: #missing",
    ),
    (
        "update",
        "SET attr1 = :v",
        {},
        "An expression attribute value used in expression is not defined; attribute value: :v",
    ),
    # Operands.
    (
        "condition",
        "a = a",
        {},
        "The first operand must be distinct from the remaining operands for this operator or "
        "function; operator: =, first operand: [a]",
    ),
    (
        "condition",
        "contains(a.b[1], a.b[1])",
        {},
        "The first operand must be distinct from the remaining operands for this operator or "
        "function; operator: contains, first operand: [a, b, [1]]",
    ),
    (
        "condition",
        "a < :o",
        {":o": {"BOOL": True}},
        "Incorrect operand type for operator or function; "
        "operator or function: <, operand type: BOOL",
    ),
    (
        "condition",
        ":o >= a",
        {":o": {"SS": ["a"]}},
        "Incorrect operand type for operator or function; "
        "operator or function: >=, operand type: SS",
    ),
    (
        "condition",
        "a BETWEEN :o AND :o",
        {":o": {"L": []}},
        "Incorrect operand type for operator or function; "
        "operator or function: BETWEEN, operand type: L",
    ),
    (
        "condition",
        "begins_with(a, :n)",
        {":n": ONE},
        "Incorrect operand type for operator or function; "
        "operator or function: begins_with, operand type: N",
    ),
    (
        "condition",
        "begins_with(size(a), :s)",
        {":s": S},
        "Incorrect operand type for operator or function; "
        "operator or function: begins_with, operand type: N",
    ),
    (
        "condition",
        "size(:n) = :n",
        {":n": ONE},
        "Incorrect operand type for operator or function; "
        "operator or function: size, operand type: N",
    ),
    (
        "condition",
        "size(size(a)) = :n",
        {":n": ONE},
        "Incorrect operand type for operator or function; "
        "operator or function: size, operand type: N",
    ),
    (
        "condition",
        "attribute_type(a, b)",
        {},
        "Incorrect operand type for operator or function; operator or function: attribute_type, "
        "operand type: {NS,SS,L,BS,N,M,B,BOOL,NULL,S}",
    ),
    (
        "condition",
        "attribute_type(a, :n)",
        {":n": ONE},
        "Incorrect operand type for operator or function; "
        "operator or function: attribute_type, operand type: N",
    ),
    (
        "condition",
        "attribute_type(a, :s)",
        {":s": {"S": "DOG"}},
        "Invalid attribute type name found; type: DOG, valid types: {B,NULL,SS,BOOL,L,BS,N,NS,S,M}",
    ),
    (
        "condition",
        "a BETWEEN :hi AND :lo",
        {":hi": TWO, ":lo": ONE},
        "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; "
        "lower bound operand: AttributeValue: {N:2}, upper bound operand: AttributeValue: {N:1}",
    ),
    (
        "condition",
        "a BETWEEN :lo AND :s",
        {":lo": ONE, ":s": S},
        "The BETWEEN operator requires same data type for lower and upper bounds; "
        "lower bound operand: AttributeValue: {N:1}, upper bound operand: AttributeValue: {S:x}",
    ),
    (
        "update",
        "SET a = b + :s",
        {":s": S},
        "Incorrect operand type for operator or function; operator or function: +, operand type: S",
    ),
    (
        "update",
        "SET a = list_append(a, :m)",
        {":m": {"M": {}}},
        "Incorrect operand type for operator or function; "
        "operator or function: list_append, operand type: M",
    ),
    (
        "update",
        "ADD a :l",
        {":l": {"L": []}},
        "Incorrect operand type for operator or function; operator: ADD, operand type: LIST",
    ),
    (
        "update",
        "DELETE a :n",
        {":n": ONE},
        "Incorrect operand type for operator or function; operator: DELETE, operand type: NUMBER",
    ),
    # Sections and paths.
    (
        "update",
        "SET a = :n REMOVE b SET c = :n",
        {":n": ONE},
        'The "SET" section can only be used once in an update expression;',
    ),
    (
        "update",
        "SET a = :n REMOVE a",
        {":n": ONE},
        "Two document paths overlap with each other; must remove or rewrite one of these paths; "
        "path one: [a], path two: [a]",
    ),
    (
        "update",
        "SET a[1][1] = :n, a[1] = :n",
        {":n": ONE},
        "Two document paths overlap with each other; must remove or rewrite one of these paths; "
        "path one: [a, [1], [1]], path two: [a, [1]]",
    ),
    (
        "projection",
        "x, a, a.b.c",
        {},
        "Two document paths overlap with each other; must remove or rewrite one of these paths; "
        "path one: [a], path two: [a, b, c]",
    ),
    (
        "projection",
        "a.c, a.b, a[1]",
        {},
        "Two document paths conflict with each other; must remove or rewrite one of these paths; "
        "path one: [a, c], path two: [a, [1]]",
    ),
    (
        "projection",
        "a[2147483648]",
        {},
        "List index is not within the allowable range; index: [2147483648]",
    ),
    (
        "projection",
        "a" + ".a" * 32,
        {},
        "The document path has too many nesting levels; nesting levels: 33",
    ),
    # Key conditions.
    (
        "key_condition",
        "c = :s OR p = :s",
        {":s": S},
        "Invalid operator used in KeyConditionExpression: OR",
    ),
    (
        "key_condition",
        "NOT NOT c = :s",
        {":s": S},
        "Invalid operator used in KeyConditionExpression: NOT",
    ),
    (
        "key_condition",
        "p = :s AND c <> :s",
        {":s": S},
        "Invalid operator used in KeyConditionExpression: <>",
    ),
    (
        "key_condition",
        "p = :s AND c IN (:s)",
        {":s": S},
        "Invalid operator used in KeyConditionExpression: IN",
    ),
    (
        "key_condition",
        "p = :s AND attribute_exists(c)",
        {":s": S},
        "Invalid operator used in KeyConditionExpression: attribute_exists",
    ),
    (
        "key_condition",
        "p = :s AND size(c) = :s",
        {":s": S},
        "KeyConditionExpressions cannot contain nested operations",
    ),
    (
        "key_condition",
        "p = :s AND :s BETWEEN c AND :s",
        {":s": S},
        "Invalid condition in KeyConditionExpression: "
        "BETWEEN operator must have the key attribute as its first operand",
    ),
    (
        "key_condition",
        "begins_with(:s, c)",
        {":s": S},
        "Invalid condition in KeyConditionExpression: "
        "begins_with operator must have the key attribute as its first operand",
    ),
    (
        "key_condition",
        "p = c",
        {},
        "Invalid condition in KeyConditionExpression: "
        "Multiple attribute names used in one condition",
    ),
    (
        "key_condition",
        ":s = :t",
        {":s": S, ":t": S},
        "Invalid condition in KeyConditionExpression: No key attribute specified",
    ),
    (
        "key_condition",
        "p = :s AND a.b < :s",
        {":s": S},
        "KeyConditionExpressions cannot have conditions on nested attributes",
    ),
    (
        "key_condition",
        "pk = :s AND sk > :n AND sk < :n",
        {":s": S, ":n": ONE},
        "KeyConditionExpressions must only contain one condition per key",
    ),
    (
        "key_condition",
        "pk = :s AND :n >= sk",
        {":s": S, ":n": {"BOOL": True}},
        "Incorrect operand type for operator or function; "
        "operator or function: >=, operand type: BOOL",
    ),
]
_PARAMETERS = {
    "update": "UpdateExpression",
    "condition": "ConditionExpression",
    "filter": "FilterExpression",
    "projection": "ProjectionExpression",
    "key_condition": "KeyConditionExpression",
}


@pytest.mark.parametrize(("language", "text", "values", "detail"), REST)
def test_rule(language: str, text: str, values: dict[str, Any], detail: str) -> None:
    found = message(**{language: text}, values=values or None)
    assert found == f"Invalid {_PARAMETERS[language]}: {detail}"


# The order of errors -----------------------------------------------------------------------------


def test_leaves_are_checked_in_the_order_of_the_text() -> None:
    # Conformance suite, validation-ordering/queryKeyCondition.
    operand = "operator or function: begins_with, operand type: N"
    undefined = "attribute value: :missing"
    values = {":n": ONE}
    assert undefined in message(
        key_condition="pk = :missing AND begins_with(sk, :n)", values=values
    )
    assert operand in message(key_condition="begins_with(sk, :n) AND pk = :missing", values=values)
    values = {":n": ONE, ":p": S}
    assert operand in message(
        key_condition="pk = :p AND begins_with(sk, :n) AND sk = :missing", values=values
    )


def test_syntax_comes_before_everything_else() -> None:
    assert "Syntax error" in message(condition="((status = :x)) AND dog(")


def test_within_a_leaf_the_undefined_comes_first() -> None:
    assert ":missing" in message(condition="size(:n) = :missing", values={":n": ONE})


def test_the_update_is_looked_at_before_the_condition() -> None:
    assert message(condition="bad!", update="bad!").startswith("Invalid UpdateExpression")


# Placeholders ------------------------------------------------------------------------------------


def test_unused_name() -> None:
    found = message(update="SET attr1 = :v", values={":v": S}, names={"#unused": "someattr"})
    assert found == (
        "Value provided in ExpressionAttributeNames unused in expressions: keys: {#unused}"
    )


def test_unused_values() -> None:
    found = message(update="SET attr1 = :v", values={":v": S, ":unused": S, ":more": S})
    assert found == (
        "Value provided in ExpressionAttributeValues unused in expressions: keys: {:unused, :more}"
    )


def test_a_placeholder_is_used_wherever_it_is_used() -> None:
    compile_expressions(
        update="SET #a = :v",
        condition="#b = :w",
        names={"#a": "a", "#b": "b"},
        values={":v": S, ":w": S},
    )


def test_names_without_an_expression() -> None:
    found = message(names={"#a": "a"})
    assert found == "ExpressionAttributeNames can only be specified when using expressions"


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ((), ""),
        (("ConditionExpression",), ": ConditionExpression is null"),
        (
            ("UpdateExpression", "ConditionExpression"),
            ": UpdateExpression and ConditionExpression are null",
        ),
    ],
)
def test_values_without_an_expression(parameters: tuple[str, ...], reason: str) -> None:
    wanted = "ExpressionAttributeValues can only be specified when using expressions" + reason
    assert message(values={":v": S}, value_expressions=parameters) == wanted
    # A projection cannot use a value.
    found = message(projection="a", values={":v": S}, value_expressions=parameters)
    assert found == wanted


def test_empty_maps() -> None:
    assert message(condition="a = b", names={}) == "ExpressionAttributeNames must not be empty"
    assert message(condition="a = b", values={}) == "ExpressionAttributeValues must not be empty"


def test_keys_that_are_no_placeholders() -> None:
    assert message(condition="a = b", names={"a": "b"}) == (
        'ExpressionAttributeNames contains invalid key: Syntax error; key: "a"'
    )
    assert message(condition="a = b", values={":hi!there": S}) == (
        'ExpressionAttributeValues contains invalid key: Syntax error; key: ":hi!there"'
    )


def test_values_beyond_two_megabytes() -> None:
    with pytest.raises(InvalidRequest, match="ExpressionAttributeValues exceeds max size"):
        compile_expressions(
            condition="a = :v", values={":v": S}, values_size_bytes=2 * 1024 * 1024 + 1
        )


# Keys --------------------------------------------------------------------------------------------


def test_an_update_of_the_key() -> None:
    update = compile_expressions(update="SET pk = :v", values={":v": S}).update
    assert update is not None
    with pytest.raises(InvalidRequest) as caught:
        check_update_keys(update, ("pk", "sk"))
    assert str(caught.value) == (
        "One or more parameter values were invalid: "
        "Cannot update attribute pk. This attribute is part of the key"
    )
    check_update_keys(update, ("id",))


def test_a_step_into_the_key() -> None:
    condition = compile_expressions(condition="pk.a = b").condition
    assert condition is not None
    with pytest.raises(InvalidRequest) as caught:
        check_scalar_keys(condition, ("pk",))
    assert str(caught.value) == (
        "Key attributes must be scalars; list random access '[]' and map lookup '.' "
        "are not allowed: Key: pk"
    )
    check_scalar_keys(condition, ("b",))
    with pytest.raises(InvalidRequest, match="IndexKey: pk"):
        check_scalar_keys(condition, (), ("pk",))


def test_a_filter_on_the_key() -> None:
    filter_ = compile_expressions(filter="NOT (a = b AND pk = c)").filter
    assert filter_ is not None
    with pytest.raises(InvalidRequest) as caught:
        check_filter_keys(filter_, ("pk", "sk"))
    assert str(caught.value) == (
        "Filter Expression can only contain non-primary key attributes: Primary key attribute: pk"
    )


# The memory --------------------------------------------------------------------------------------


def test_contents_are_checked_with_every_request() -> None:
    text = "a BETWEEN :x AND :y"
    compile_expressions(condition=text, values={":x": ONE, ":y": TWO})
    assert "upper bound" in message(condition=text, values={":x": TWO, ":y": ONE})
    compile_expressions(condition="attribute_type(a, :x)", values={":x": {"S": "SS"}})
    assert "type: DOG" in message(condition="attribute_type(a, :x)", values={":x": {"S": "DOG"}})


def test_types_of_values_are_part_of_what_is_remembered() -> None:
    compile_expressions(condition="a < :x", values={":x": ONE})
    assert "operand type: BOOL" in message(condition="a < :x", values={":x": {"BOOL": True}})


def test_the_same_request_is_compiled_once() -> None:
    first = compile_expressions(condition="a = :x", values={":x": ONE})
    assert compile_expressions(condition="a = :x", values={":x": TWO}) is first


def test_large_requests_are_compiled_every_time() -> None:
    names = {"#a": "x" * 9000}
    first = compile_expressions(condition="#a = b", names=names)
    again = compile_expressions(condition="#a = b", names=names)
    assert again == first
    assert again is not first


def test_values_that_were_never_looked_at_are_refused_all_the_same() -> None:
    found = message(projection="a", values={":v": [{"not": "a value"}]})
    assert found == "ExpressionAttributeValues can only be specified when using expressions"
