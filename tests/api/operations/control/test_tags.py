"""Tags: what is kept, what is refused, and the words about a bad ARN."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.api.errors import AccessDeniedException
from millstream.api.operations.tables import create_table
from millstream.api.operations.tables_tags import (
    list_tags_of_resource,
    tag_resource,
    untag_resource,
)
from millstream.errors import InvalidRequest, ResourceInUse, ResourceNotFound
from millstream.model.schema import Status

ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/things"
ENV = {"Key": "env", "Value": "test"}


@pytest.fixture
async def tagged(call: Any) -> Any:
    """A client with a table that has one tag."""
    await call(
        create_table,
        TableName="things",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
        Tags=[ENV],
    )
    return call


async def tags_of(call: Any) -> dict[str, str]:
    answer = await call(list_tags_of_resource, ResourceArn=ARN)
    return {tag["Key"]: tag["Value"] for tag in answer["Tags"]}


async def refusal(call: Any, **members: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        await call(tag_resource, **{"ResourceArn": ARN, "Tags": [ENV], **members})
    return str(caught.value)


async def test_tags_given_at_creation_are_listed(tagged: Any) -> None:
    assert await tagged(list_tags_of_resource, ResourceArn=ARN) == {"Tags": [ENV]}


async def test_tags_are_added_and_replaced(tagged: Any) -> None:
    tags = [{"Key": "env", "Value": "live"}, {"Key": "team", "Value": ""}]
    assert await tagged(tag_resource, ResourceArn=ARN, Tags=tags) is None
    assert await tags_of(tagged) == {"env": "live", "team": ""}


async def test_tags_are_removed(tagged: Any) -> None:
    assert await tagged(untag_resource, ResourceArn=ARN, TagKeys=["env", "absent"]) is None
    assert await tags_of(tagged) == {}


async def test_what_changes_nothing_is_no_change(tagged: Any, tables: Any) -> None:
    await tagged(tag_resource, ResourceArn=ARN, Tags=[ENV])
    await tagged(untag_resource, ResourceArn=ARN, TagKeys=["absent"])
    assert tables.changes == []


async def test_only_an_active_table_is_tagged(tagged: Any, tables: Any) -> None:
    tables.become("things", status=Status.UPDATING)
    with pytest.raises(ResourceInUse, match="Table is being updated: things"):
        await tagged(tag_resource, ResourceArn=ARN, Tags=[ENV])


async def test_no_arn(tagged: Any) -> None:
    for operation in (tag_resource, untag_resource, list_tags_of_resource):
        with pytest.raises(InvalidRequest, match="^Invalid TableArn$"):
            await tagged(operation)


async def test_a_bad_arn(tagged: Any) -> None:
    assert await refusal(tagged, ResourceArn="not-a-valid-arn") == (
        "Invalid TableArn: Invalid ResourceArn provided as input not-a-valid-arn"
    )


async def test_no_tags(tagged: Any) -> None:
    assert await refusal(tagged, Tags=None) == (
        "1 validation error detected: Value null at 'tags' failed to satisfy constraint: "
        "Member must not be null"
    )
    assert await refusal(tagged, Tags=[]) == "Atleast one Tag needs to be provided as Input."


async def test_no_tag_keys(tagged: Any) -> None:
    with pytest.raises(InvalidRequest, match="Atleast one Tag Key needs to be provided"):
        await tagged(untag_resource, ResourceArn=ARN, TagKeys=[])


async def test_lengths(tagged: Any) -> None:
    longest = {"Key": "k" * 128, "Value": "v" * 256}
    await tagged(tag_resource, ResourceArn=ARN, Tags=[longest])
    told = await refusal(
        tagged, Tags=[{"Key": "k" * 129, "Value": "v" * 257}, {"Key": "", "Value": ""}]
    )
    assert told.startswith("3 validation errors detected: Value 'kkk")
    assert "'tags.1.member.key' failed to satisfy constraint: Member must have length less" in told
    assert "'tags.1.member.value'" in told
    assert "'tags.2.member.key'" in told


async def test_at_most_fifty_tags(tagged: Any) -> None:
    tags = [{"Key": f"k{number}", "Value": ""} for number in range(49)]
    await tagged(tag_resource, ResourceArn=ARN, Tags=tags)
    assert "at most 50" in await refusal(tagged, Tags=[{"Key": "one more", "Value": ""}])
    # Replacing is still possible.
    await tagged(tag_resource, ResourceArn=ARN, Tags=[{"Key": "env", "Value": "live"}])


async def test_reserved_keys(tagged: Any) -> None:
    assert "reserved" in await refusal(tagged, Tags=[{"Key": "AWS:x", "Value": ""}])


async def test_a_key_twice(tagged: Any) -> None:
    assert "Duplicate tag key: env" in await refusal(tagged, Tags=[ENV, ENV])


async def test_characters(tagged: Any) -> None:
    await tagged(tag_resource, ResourceArn=ARN, Tags=[{"Key": "größe 1_.:/=+-@", "Value": "ok"}])
    assert "A tag may only hold" in await refusal(tagged, Tags=[{"Key": "a*b", "Value": ""}])
    assert "A tag may only hold" in await refusal(tagged, Tags=[{"Key": "a", "Value": "x\n"}])


async def test_a_table_that_is_not_there(call: Any) -> None:
    with pytest.raises(ResourceNotFound) as caught:
        await call(list_tags_of_resource, ResourceArn=ARN)
    # The missing letter is DynamoDB's.
    assert str(caught.value) == f"Requested resource not found: ResourcArn: {ARN} not found"


async def test_another_accounts_table_that_is_not_there(call: Any) -> None:
    arn = "arn:aws:dynamodb:us-east-1:123456789012:table/things"
    with pytest.raises(AccessDeniedException, match="dynamodb:ListTagsOfResource on resource"):
        await call(list_tags_of_resource, ResourceArn=arn)


async def test_there_is_no_second_page(tagged: Any) -> None:
    with pytest.raises(InvalidRequest, match="NextToken"):
        await tagged(list_tags_of_resource, ResourceArn=ARN, NextToken="x")
