"""boto3's exceptions: applications catch them by class, and read what came with them."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError


def test_a_failed_condition_shows_the_item(client, table, key):
    item = {**key, "n": {"N": "1"}}
    client.put_item(TableName=table, Item=item)
    with pytest.raises(client.exceptions.ConditionalCheckFailedException) as caught:
        client.put_item(
            TableName=table,
            Item=key,
            ConditionExpression="attribute_not_exists(pk)",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    answer = caught.value.response
    assert answer["Error"]["Message"] == "The conditional request failed"
    assert answer["Item"] == item
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_a_table_that_is_not_there(client, fresh):
    with pytest.raises(client.exceptions.ResourceNotFoundException) as caught:
        client.get_item(TableName=fresh(), Key={"pk": {"S": "a"}})
    assert caught.value.response["Error"]["Message"] == "Requested resource not found"


def test_a_table_that_is_there_already(client, table):
    with pytest.raises(client.exceptions.ResourceInUseException):
        client.create_table(
            TableName=table,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        )


def test_a_validation_error_has_no_class_of_its_own(client, table, key):
    # The service model has none, here or on AWS: code reads the error's code.
    with pytest.raises(ClientError) as caught:
        client.update_item(TableName=table, Key=key, UpdateExpression="SET a = :missing")
    error = caught.value.response["Error"]
    assert error["Code"] == "ValidationException"
    assert ":missing" in error["Message"]


def test_a_wrong_key_is_a_validation_error(client, table):
    with pytest.raises(ClientError, match="The provided key element does not match the schema"):
        client.get_item(TableName=table, Key={"pk": {"N": "1"}, "sk": {"S": "s"}})


def test_tags_of_a_table_that_is_not_there(client, table):
    arn = client.describe_table(TableName=table)["Table"]["TableArn"] + "x"
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.tag_resource(ResourceArn=arn, Tags=[{"Key": "a", "Value": "b"}])


def test_what_is_not_built_says_so(client, table):
    # Never accepted and ignored: a client must learn that nothing happened.
    with pytest.raises(ClientError) as caught:
        client.execute_statement(Statement=f'SELECT * FROM "{table}"')
    assert caught.value.response["Error"]["Code"] == "UnknownOperationException"


def test_every_answer_names_its_request(client, table, key):
    # What people paste into bug reports, from answers and errors alike.
    good = client.get_item(TableName=table, Key=key)["ResponseMetadata"]["RequestId"]
    with pytest.raises(ClientError) as caught:
        client.get_item(TableName=table, Key={})
    bad = caught.value.response["ResponseMetadata"]["RequestId"]
    assert len(good) == len(bad) == 52
    assert good != bad
