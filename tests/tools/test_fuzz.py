"""A short, deterministic ``make fuzz``, and proof that it would see what it looks for."""

from __future__ import annotations

import random

import pytest

from millstream.tools import fuzz
from millstream.tools.fuzz_http import NotHttp, read_answers
from millstream.tools.fuzz_model import Model, Wrong, plain
from millstream.tools.fuzz_mutations import Members, Raw, mutate, render
from millstream.tools.fuzz_requests import ITEM_REQUESTS, TABLE, TABLE_REQUESTS

OPERATIONS = {
    "CreateTable", "UpdateTable", "DeleteTable", "DescribeTable", "ListTables", "DescribeLimits",
    "DescribeEndpoints", "TagResource", "UntagResource", "ListTagsOfResource", "PutItem", "GetItem",
    "UpdateItem", "DeleteItem", "Query", "Scan", "BatchGetItem", "BatchWriteItem",
}  # fmt: skip


def test_two_hundred_cases_are_right(tmp_path):
    # Time is not judged here: machines that test are busy. Nothing may hang all the same.
    limits = fuzz.Limits(cpu_seconds=30.0)
    fuzzer = fuzz.run(tmp_path, 11, cases=200, limits=limits, heavy=False)
    assert fuzzer.counts["cases"] == 200
    assert fuzzer.kinds["success"] > 20
    assert fuzzer.kinds["ValidationException"] > 20
    assert fuzzer.kinds["SerializationException"] > 5


def test_every_operation_is_fuzzed():
    assert {operation for operation, _ in [*ITEM_REQUESTS, *TABLE_REQUESTS]} >= OPERATIONS


def test_a_seed_says_everything():
    def bodies(seed):
        rng = random.Random(seed)
        return [render(mutate(rng, make(rng))) for _, make in ITEM_REQUESTS[:5]]

    assert bodies(1) == bodies(1)
    assert bodies(1) != bodies(2)


def test_bodies_may_be_what_json_cannot():
    assert render({"a": [Raw(b"1e999"), Members([("b", 1), ("b", None)])]}) == (
        b'{"a":[1e999,{"b":1,"b":null}]}'
    )


KEY = {"pk": {"S": "p"}, "sk": {"S": "s"}}
ITEM = {**KEY, "n": {"N": "1"}, "rank": {"N": "1"}, "group": {"S": "g"}}


def answering(items, by_rank=None, by_group=None):
    """Stands for a server that holds these."""

    def call(operation, members):
        assert operation == "Scan"
        found = {"by-rank": by_rank, "by-group": by_group}.get(members.get("IndexName"), items)
        if members["TableName"] != TABLE:
            found = []
        return 200, {"Items": found}

    return call


def test_the_model_is_content_with_what_was_sent():
    model = Model()
    body = render({"TableName": TABLE, "Item": {**ITEM, "n": {"N": "1.0e0"}}})
    model.succeeded("PutItem", body, {}, answering([]))
    model.check(answering([ITEM], [ITEM], [ITEM]))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (answering([]), "is gone"),
        (answering([{**ITEM, "n": {"N": "1.1"}}]), "differs in"),
        (answering([ITEM, {**ITEM, "sk": {"S": "t"}}]), "was never written"),
        (answering([ITEM, ITEM]), "twice"),
        (answering([ITEM], [], [ITEM]), "by-rank"),
        (answering([ITEM], [ITEM], [ITEM, ITEM]), "by-group"),
    ],
)
def test_the_model_sees_what_is_wrong(call, said):
    model = Model()
    model.succeeded("PutItem", render({"TableName": TABLE, "Item": ITEM}), {}, call)
    with pytest.raises(Wrong, match=said):
        model.check(call)


@pytest.mark.parametrize("text", ["1_000", "٣", "1 ", "0x1", "NaN", "", "１"])
def test_the_model_knows_what_a_number_is(text):
    with pytest.raises(Wrong, match="taken for a number"):
        plain({"N": text})


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-amz-crc32: 2745614147\r\n\r\n{}"


def test_answers_are_read_in_a_row():
    answers = read_answers(ANSWER + b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER)
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"{}")] * 2


@pytest.mark.parametrize(
    "data",
    [ANSWER[:-1], ANSWER[:-2] + b"[]", ANSWER[:20], b"what?\r\n\r\n", ANSWER + b"x"],
)
def test_anything_else_is_not_http(data):
    with pytest.raises(NotHttp):
        read_answers(data)
