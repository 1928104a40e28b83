"""Bounds of a mapping's settings, and the way from and to the members of Lambda's API."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import InvalidRequest, MalformedRequest
from millstream.lambdas.settings import (
    Destination,
    MappingSettings,
    check_settings,
    settings_from_lambda,
    settings_to_lambda,
)

POSITION = {"StartingPosition": "TRIM_HORIZON"}
TABLE_ARN = "arn:aws:dynamodb:eu-west-1:123456789012:table/failures"


def refusal(**fields: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        check_settings(MappingSettings(**fields))
    return str(caught.value)


def lambda_refusal(members: dict[str, Any], kind: type[Exception] = InvalidRequest) -> str:
    with pytest.raises(kind) as caught:
        settings_from_lambda({**POSITION, **members})
    return str(caught.value)


def test_the_defaults_are_lambdas_and_allowed() -> None:
    check_settings(MappingSettings())
    assert settings_from_lambda(POSITION) == MappingSettings()


@pytest.mark.parametrize(
    "field, member, least, greatest",
    [
        ("batch_size", "batchSize", 1, 10_000),
        ("window_seconds", "maximumBatchingWindowInSeconds", 0, 300),
        ("parallelization_factor", "parallelizationFactor", 1, 10),
        ("maximum_record_age_seconds", "maximumRecordAgeInSeconds", -1, 604_800),
        ("maximum_retry_attempts", "maximumRetryAttempts", -1, 10_000),
        ("tumbling_window_seconds", "tumblingWindowInSeconds", 0, 900),
    ],
)
def test_each_range_ends_where_lambdas_does(
    field: str, member: str, least: int, greatest: int
) -> None:
    check_settings(MappingSettings(**{field: least}))
    check_settings(MappingSettings(**{field: greatest}))
    assert refusal(**{field: least - 1}) == (
        f"1 validation error detected: Value '{least - 1}' at '{member}' failed to satisfy "
        f"constraint: Member must have value greater than or equal to {least}"
    )
    assert refusal(**{field: greatest + 1}) == (
        f"1 validation error detected: Value '{greatest + 1}' at '{member}' failed to satisfy "
        f"constraint: Member must have value less than or equal to {greatest}"
    )


def test_violations_are_told_together() -> None:
    assert refusal(batch_size=0, parallelization_factor=11).startswith(
        "2 validation errors detected: Value '0' at 'batchSize' failed"
    )


@pytest.mark.parametrize("age", [0, 1, 59])
def test_an_age_is_forever_or_a_minute_at_least(age: int) -> None:
    check_settings(MappingSettings(maximum_record_age_seconds=60))
    assert refusal(maximum_record_age_seconds=age) == (
        "MaximumRecordAgeInSeconds must be either -1 (forever) or between 60 and 604800 (inclusive)"
    )


def test_a_stream_is_read_from_either_end() -> None:
    check_settings(MappingSettings(starting_position="LATEST"))
    assert "Unsupported starting position AT_TIMESTAMP" in refusal(starting_position="AT_TIMESTAMP")
    assert "enum value set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]" in refusal(
        starting_position="latest"
    )


def test_filters_are_few_short_and_valid() -> None:
    pattern = '{"eventName":["INSERT"]}'
    check_settings(MappingSettings(filters=(pattern,) * 5))
    assert refusal(filters=(pattern,) * 6) == (
        "FilterCriteria has 6 filters, at most 5 are allowed"
    )
    check_settings(MappingSettings(filters=(pattern + " " * (4096 - len(pattern)),)))
    assert refusal(filters=(pattern, pattern + " " * (4097 - len(pattern)))).endswith(
        "at 'filterCriteria.filters.2.member.pattern' failed to satisfy constraint: "
        "Member must have length less than or equal to 4096"
    )
    assert refusal(filters=("{",)).startswith("Invalid filter pattern definition.")


def test_tumbling_windows_have_one_lane() -> None:
    check_settings(MappingSettings(tumbling_window_seconds=1, window_seconds=300))
    check_settings(MappingSettings(parallelization_factor=2))
    assert "ParallelizationFactor" in refusal(tumbling_window_seconds=1, parallelization_factor=2)


@pytest.mark.parametrize(
    "fields",
    [
        {"batch_size": True},
        {"batch_size": 1.0},
        {"batch_size": "1"},
        {"window_seconds": float("nan")},
        {"window_seconds": None},
        {"enabled": 1},
        {"filters": "{}"},
        {"filters": (1,)},
        {"filters": object()},
        {"on_failure": "failures"},
        {"on_failure": Destination("table", 1)},  # type: ignore[arg-type]
    ],
)
def test_python_may_not_bring_other_types(fields: dict[str, Any]) -> None:
    refusal(**fields)


def test_a_window_may_be_a_fraction_of_a_second() -> None:
    settings = MappingSettings(window_seconds=0.25)
    check_settings(settings)
    assert settings_to_lambda(settings)["MaximumBatchingWindowInSeconds"] == 1


@pytest.mark.parametrize(
    "kind, name",
    [
        ("queue", "failures"),
        ("table", ""),
        ("table", "ab"),
        ("table", "a" * 256),
        ("table", "a/b"),
        ("directory", "failures"),
        ("directory", "/failures/../etc"),
        ("directory", "/failures\0"),
        ("directory", "/" + "a" * 350),
        ("callable", ""),
        ("callable", "a" * 351),
    ],
)
def test_destinations_that_cannot_be(kind: str, name: str) -> None:
    refusal(on_failure=Destination(kind, name))


@pytest.mark.parametrize(
    "destination",
    [
        Destination("table", "abc"),
        Destination("table", "a" * 255),
        Destination("directory", "/"),
        Destination("directory", "/var/..lib/failures"),
        Destination("callable", "give_up"),
    ],
)
def test_destinations_that_can_be(destination: Destination) -> None:
    check_settings(MappingSettings(on_failure=destination))


def test_all_members_come_in_and_go_out() -> None:
    members = {
        "BatchSize": 10,
        "MaximumBatchingWindowInSeconds": 2,
        "ParallelizationFactor": 1,
        "StartingPosition": "LATEST",
        "FilterCriteria": {"Filters": [{"Pattern": '{"a":["b"]}'}, {"Pattern": '{"a":["c"]}'}]},
        "BisectBatchOnFunctionError": True,
        "MaximumRetryAttempts": 3,
        "MaximumRecordAgeInSeconds": 3600,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "TumblingWindowInSeconds": 30,
        "DestinationConfig": {"OnFailure": {"Destination": TABLE_ARN}},
    }
    settings = settings_from_lambda({**members, "Enabled": False})
    assert settings == MappingSettings(
        batch_size=10,
        window_seconds=2,
        parallelization_factor=1,
        starting_position="LATEST",
        filters=('{"a":["b"]}', '{"a":["c"]}'),
        bisect_batch_on_function_error=True,
        maximum_retry_attempts=3,
        maximum_record_age_seconds=3600,
        report_batch_item_failures=True,
        tumbling_window_seconds=30,
        on_failure=Destination("table", "failures"),
        enabled=False,
    )
    assert settings_to_lambda(settings, "eu-west-1", "123456789012") == members


def test_what_is_not_set_is_told_as_lambda_tells_it() -> None:
    told = settings_to_lambda(MappingSettings())
    assert told["DestinationConfig"] == {"OnFailure": {}}
    assert told["FunctionResponseTypes"] == []
    assert "FilterCriteria" not in told


@given(
    st.builds(
        MappingSettings,
        batch_size=st.integers(1, 10_000),
        window_seconds=st.integers(0, 300),
        starting_position=st.sampled_from(["TRIM_HORIZON", "LATEST"]),
        filters=st.sampled_from([(), ('{"a":[1]}',), ('{"a":[1]}', '{"b":[{"exists":true}]}')]),
        bisect_batch_on_function_error=st.booleans(),
        maximum_retry_attempts=st.integers(-1, 10_000),
        maximum_record_age_seconds=st.just(-1) | st.integers(60, 604_800),
        report_batch_item_failures=st.booleans(),
        tumbling_window_seconds=st.integers(0, 900),
        on_failure=st.none()
        | st.just(Destination("table", "failures"))
        | st.builds(
            Destination,
            st.just("directory"),
            st.text(st.characters(exclude_characters="\0.", codec="utf-8"), max_size=20).map(
                lambda path: "/" + path
            ),
        ),
    )
)
def test_there_and_back(settings: MappingSettings) -> None:
    assert settings_from_lambda(settings_to_lambda(settings)) == settings


def test_a_creation_names_the_position() -> None:
    for members in ({}, {"StartingPosition": None}):
        with pytest.raises(InvalidRequest, match="Value null at 'startingPosition'"):
            settings_from_lambda(members)


def test_an_update_changes_what_it_names() -> None:
    current = MappingSettings(
        batch_size=7, window_seconds=0.5, on_failure=Destination("callable", "give_up")
    )
    changed = settings_from_lambda({"MaximumRetryAttempts": 1, "BatchSize": None}, current)
    assert changed == msgspec.structs.replace(current, maximum_retry_attempts=1)
    with pytest.raises(InvalidRequest, match="StartingPosition cannot be changed"):
        settings_from_lambda({"StartingPosition": "LATEST"}, current)
    with pytest.raises(InvalidRequest, match="batchSize"):
        settings_from_lambda({"BatchSize": 0}, current)


@pytest.mark.parametrize(
    "members",
    [
        {"FilterCriteria": {}},
        {"FilterCriteria": {"Filters": []}},
        {"FilterCriteria": {"Filters": None}},
        {"FunctionResponseTypes": []},
        {"DestinationConfig": {}},
        {"DestinationConfig": {"OnFailure": {}}},
        {"DestinationConfig": {"OnFailure": {"Destination": ""}, "OnSuccess": {}}},
    ],
)
def test_an_empty_member_takes_away(members: dict[str, Any]) -> None:
    current = MappingSettings(
        filters=('{"a":[1]}',),
        report_batch_item_failures=True,
        on_failure=Destination("table", "failures"),
    )
    changed = settings_from_lambda(members, current)
    gone = {
        "FilterCriteria": {"filters": ()},
        "FunctionResponseTypes": {"report_batch_item_failures": False},
        "DestinationConfig": {"on_failure": None},
    }[next(iter(members))]
    assert changed == msgspec.structs.replace(current, **gone)


@pytest.mark.parametrize(
    "members, path",
    [
        ({"BatchSize": "10"}, "BatchSize"),
        ({"BatchSize": 10.0}, "BatchSize"),
        ({"BatchSize": True}, "BatchSize"),
        ({"MaximumBatchingWindowInSeconds": 0.5}, "MaximumBatchingWindowInSeconds"),
        ({"Enabled": "true"}, "Enabled"),
        ({"BisectBatchOnFunctionError": 1}, "BisectBatchOnFunctionError"),
        ({"StartingPosition": 1}, "StartingPosition"),
        ({"FilterCriteria": []}, "FilterCriteria"),
        ({"FilterCriteria": {"Filters": {}}}, "FilterCriteria.Filters"),
        ({"FilterCriteria": {"Filters": ["{}"]}}, "FilterCriteria.Filters[0]"),
        (
            {"FilterCriteria": {"Filters": [{"Pattern": {"a": ["b"]}}]}},
            "FilterCriteria.Filters[0].Pattern",
        ),
        ({"FunctionResponseTypes": "ReportBatchItemFailures"}, "FunctionResponseTypes"),
        ({"FunctionResponseTypes": [1]}, "FunctionResponseTypes[]"),
        ({"DestinationConfig": "x"}, "DestinationConfig"),
        ({"DestinationConfig": {"OnFailure": "x"}}, "DestinationConfig.OnFailure"),
        (
            {"DestinationConfig": {"OnFailure": {"Destination": 1}}},
            "DestinationConfig.OnFailure.Destination",
        ),
    ],
)
def test_wrong_types(members: dict[str, Any], path: str) -> None:
    assert lambda_refusal(members, MalformedRequest).startswith(f"{path} must be a")


@pytest.mark.parametrize(
    "members, path",
    [
        ({"Batchsize": 1}, "Batchsize"),
        ({"FilterCriteria": {"Filter": []}}, "FilterCriteria.Filter"),
        (
            {"FilterCriteria": {"Filters": [{"Pattern": '{"a":[1]}', "Name": "x"}]}},
            "FilterCriteria.Filters[0].Name",
        ),
        ({"DestinationConfig": {"OnFail": {}}}, "DestinationConfig.OnFail"),
        (
            {"DestinationConfig": {"OnFailure": {"Arn": TABLE_ARN}}},
            "DestinationConfig.OnFailure.Arn",
        ),
    ],
)
def test_unknown_members(members: dict[str, Any], path: str) -> None:
    assert lambda_refusal(members) == f"Unknown parameter: {path}"


@pytest.mark.parametrize(
    "members, words",
    [
        ({"ScalingConfig": {"MaximumConcurrency": 2}}, "not applicable to a DynamoDB stream"),
        ({"Topics": ["t"]}, "not applicable to a DynamoDB stream"),
        ({"StartingPositionTimestamp": 1}, "not applicable to a DynamoDB stream"),
        (
            {"DestinationConfig": {"OnSuccess": {"Destination": TABLE_ARN}}},
            "OnSuccess is not applicable",
        ),
        ({"KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/a"}, "not supported"),
        ({"MetricsConfig": {"Metrics": ["EventCount"]}}, "not supported"),
    ],
)
def test_what_does_not_apply_is_refused(members: dict[str, Any], words: str) -> None:
    assert words in lambda_refusal(members)


def test_what_asks_for_nothing_is_let_through() -> None:
    members = {**POSITION, "KMSKeyArn": "", "MetricsConfig": {"Metrics": []}, "Topics": None}
    assert settings_from_lambda(members) == MappingSettings()


def test_response_types_are_one_at_most() -> None:
    assert "[ReportBatchItemFailures]" in lambda_refusal({"FunctionResponseTypes": ["Report"]})
    twice = ["ReportBatchItemFailures", "ReportBatchItemFailures"]
    assert "less than or equal to 1" in lambda_refusal({"FunctionResponseTypes": twice})


@pytest.mark.parametrize(
    "text, destination",
    [
        (TABLE_ARN, Destination("table", "failures")),
        (
            "arn:aws-cn:dynamodb:ddblocal:000000000000:table/a-b.c_d",
            Destination("table", "a-b.c_d"),
        ),
        ("file:///var/failures", Destination("directory", "/var/failures")),
        ("file:///var/with%20blank", Destination("directory", "/var/with blank")),
    ],
)
def test_destinations_of_the_api(text: str, destination: Destination) -> None:
    members = {**POSITION, "DestinationConfig": {"OnFailure": {"Destination": text}}}
    assert settings_from_lambda(members).on_failure == destination


@pytest.mark.parametrize(
    "text",
    [
        "arn:aws:sqs:us-east-1:123456789012:failures",
        "arn:aws:sns:us-east-1:123456789012:failures",
        "arn:aws:s3:::failures",
        "kafka://failures",
        "arn:aws:dynamodb:us-east-1:123456789012:table/failures/index/i",
        "arn:aws:dynamodb:us-east-1:123456789012:table/failures/stream/2026-01-01T00:00:00.000",
        "file://relative/path",
        "callable:give_up",
    ],
)
def test_other_services_are_refused_by_name(text: str) -> None:
    assert lambda_refusal({"DestinationConfig": {"OnFailure": {"Destination": text}}}) == (
        f"The destination {text} is not supported: millstream delivers to a table "
        "(arn:aws:dynamodb:REGION:ACCOUNT:table/NAME) or a directory (file:///ABSOLUTE/PATH), "
        "not to SQS, SNS, S3 or Kafka"
    )


def test_destinations_of_the_api_are_short_and_checked() -> None:
    for text in ("file:///" + "a" * 343, "file:///a/%2E%2E/b", "file:///a%00"):
        lambda_refusal({"DestinationConfig": {"OnFailure": {"Destination": text}}})


def test_a_callable_is_told_by_name() -> None:
    told = settings_to_lambda(MappingSettings(on_failure=Destination("callable", "give_up")))
    assert told["DestinationConfig"] == {"OnFailure": {"Destination": "callable:give_up"}}
