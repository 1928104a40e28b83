"""The shapes state every member that the service model states, and no other."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.loaders import Loader

from millstream.api.shape_kinds import (
    AttributeValue,
    Blob,
    Boolean,
    Double,
    List,
    Map,
    Moment,
    Shape,
    String,
    Structure,
    Whole,
)
from millstream.api.shapes import OPERATIONS

MODEL = Loader().load_service_model("dynamodb", "service-2")
STREAMS_MODEL = Loader().load_service_model("dynamodbstreams", "service-2")
# The streams' own shapes come second: what both name is the same but for descriptions.
SHAPES = {**STREAMS_MODEL["shapes"], **MODEL["shapes"]}
INPUTS = {**STREAMS_MODEL["operations"], **MODEL["operations"]}
# The service refuses more than its documentation's most, which the model does not state.
BOUNDED_HERE = {"ListStreams.Limit", "DescribeStream.Limit", "GetRecords.Limit"}
# An older botocore knows less than we do; then only what it knows is compared.
IS_RECENT = "VectorIndexUpdates" in SHAPES["UpdateTableInput"]["members"]
# What DynamoDB requires though its model does not, and the other way round (see shapes.py).
REQUIRED_HERE = {"CreateTableInput": {"AttributeDefinitions", "KeySchema"}}
REQUIRED_ELSEWHERE = {"TagResourceInput", "UntagResourceInput", "ListTagsOfResourceInput"}


def compare(ours: Shape, name: str, path: str, seen: set[str]) -> None:
    theirs: dict[str, Any] = SHAPES[name]
    kind = theirs["type"]
    if name == "AttributeValue":
        assert isinstance(ours, AttributeValue), path
        return
    match ours:
        case Structure():
            assert kind == "structure", path
            members = set(theirs["members"])
            assert members <= set(ours.members), path
            if IS_RECENT:
                assert set(ours.members) == members, path
            if name in REQUIRED_ELSEWHERE:
                assert ours.required | {"ResourceArn"} == set(theirs["required"])
            else:
                required = set(theirs.get("required", [])) | REQUIRED_HERE.get(name, set())
                assert ours.required == required, path
            for member, reference in theirs["members"].items():
                compare(ours.members[member], reference["shape"], f"{path}.{member}", seen)
        case List():
            assert kind == "list", path
            compare(ours.element, theirs["member"]["shape"], f"{path}[]", seen)
        case Map():
            assert kind == "map", path
            compare(ours.element, theirs["value"]["shape"], f"{path}{{}}", seen)
        case String():
            assert kind == "string", path
            if IS_RECENT:
                assert set(ours.enum) == set(theirs.get("enum", [])), path
        case Whole():
            assert kind == ours.java.lower(), path
            assert ours.minimum == theirs.get("min"), path
            assert path in BOUNDED_HERE or ours.maximum == theirs.get("max"), path
        case Boolean():
            assert kind == "boolean", path
        case Blob():
            assert kind == "blob", path
        case Double():
            assert kind == "double", path
        case Moment():
            assert kind == "timestamp", path
        case _:
            pytest.fail(path)
    seen.add(name)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_members_are_the_service_models(operation: str) -> None:
    seen: set[str] = set()
    name = INPUTS[operation]["input"]["shape"]
    compare(OPERATIONS[operation], name, operation, seen)
    assert name in seen
