"""Event source mappings as values: what may be set, within which bounds, in Lambda's words.

``check_settings`` is the one judge of ``MappingSettings``, wherever they come from: the Python API
makes the value itself, the HTTP subset goes through ``settings_from_lambda``. The values are shared
by the shard machine, the pollers and the API, and stored with a mapping, so fields are only added.

Sources: the Lambda API reference (CreateEventSourceMapping, EventSourceMappingConfiguration) and
the developer guide, "Lambda parameters for Amazon DynamoDB event source mappings". Where AWS's own
words could not be found, the message says what is wrong in plain ones. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from collections.abc import Mapping as Members
from typing import Any, Final
from urllib.parse import quote, unquote

import msgspec

from ..errors import InvalidRequest, MalformedRequest
from ..limits import (
    DESTINATION_CHARACTERS_MAX,
    FILTER_PATTERN_CHARACTERS_MAX,
    MAPPING_BATCH_RECORDS_MAX,
    MAPPING_BATCH_WINDOW_SECONDS_MAX,
    MAPPING_FILTERS_MAX,
    MAPPING_PARALLELIZATION_MAX,
    MAPPING_RECORD_AGE_SECONDS_MAX,
    MAPPING_RECORD_AGE_SECONDS_MIN,
    MAPPING_RETRY_ATTEMPTS_MAX,
    MAPPING_TUMBLING_WINDOW_SECONDS_MAX,
)
from .patterns import compile_filters

STARTING_POSITIONS: Final = ("TRIM_HORIZON", "LATEST")
DESTINATION_KINDS: Final = ("table", "directory", "callable")


class Destination(msgspec.Struct, frozen=True):
    """Where a batch goes that is given up."""

    #: ``table`` (of this database), ``directory`` (of the node) or ``callable`` (Python, by name).
    kind: str
    #: The table's name, the absolute path, or the registered name.
    name: str


class MappingSettings(msgspec.Struct, frozen=True):
    """What a mapping does with its stream. The defaults are Lambda's for DynamoDB streams."""

    #: BatchSize: records of one invocation at most, 1 to 10,000.
    batch_size: int = 100
    #: MaximumBatchingWindowInSeconds, 0 to 300: how long a batch that is not full may wait for
    #: more. Lambda takes whole seconds; from Python a fraction is fine.
    window_seconds: float = 0
    #: ParallelizationFactor: batches of one shard in flight at once, 1 to 10.
    parallelization_factor: int = 1
    #: StartingPosition: ``TRIM_HORIZON`` or ``LATEST``.
    starting_position: str = "TRIM_HORIZON"
    #: FilterCriteria: JSON patterns, of which a record must match one. None: every record matches.
    filters: tuple[str, ...] = ()
    #: BisectBatchOnFunctionError: a batch that failed is retried in halves.
    bisect_batch_on_function_error: bool = False
    #: MaximumRetryAttempts, after the first attempt: -1 (until the record expires) or 0 to 10,000.
    maximum_retry_attempts: int = -1
    #: MaximumRecordAgeInSeconds: -1 (until the stream trims the record) or 60 to 604,800.
    maximum_record_age_seconds: int = -1
    #: FunctionResponseTypes has ReportBatchItemFailures.
    report_batch_item_failures: bool = False
    #: TumblingWindowInSeconds, 0 (no windows) to 900.
    tumbling_window_seconds: int = 0
    #: DestinationConfig.OnFailure. None: what is given up is dropped.
    on_failure: Destination | None = None
    #: Enabled: whether the stream is polled at all.
    enabled: bool = True


class Mapping(msgspec.Struct, frozen=True):
    """An event source mapping as it is stored and described."""

    uuid: str
    namespace: str
    #: The trigger's name, or the Lambda function's.
    name: str
    #: A Lambda function (zip), or a handler registered in Python.
    is_function: bool
    table: str
    #: Empty: whatever stream the table has.
    stream_arn: str
    settings: MappingSettings
    #: Creating, Enabling, Enabled, Disabling, Disabled, Updating or Deleting.
    state: str
    state_transition_reason: str
    last_processing_result: str
    #: Milliseconds since 1970.
    last_modified_ms: int


def check_settings(settings: MappingSettings) -> None:
    """Raise ``InvalidRequest`` for the first kind of rule that is broken.

    Bounds of single members come first and are told together, as AWS's front does it; then the
    rules that Lambda itself looks at.
    """
    try:
        msgspec.convert(msgspec.to_builtins(settings), MappingSettings)
    except (msgspec.ValidationError, TypeError) as error:  # Only Python can make such a value.
        raise InvalidRequest(f"The settings have a wrong type: {error}") from None
    violations = [*_range_violations(settings), *_filter_violations(settings)]
    if violations:
        plural = "s" if len(violations) > 1 else ""
        raise InvalidRequest(
            f"{len(violations)} validation error{plural} detected: {'; '.join(violations)}"
        )
    age = settings.maximum_record_age_seconds
    if -1 < age < MAPPING_RECORD_AGE_SECONDS_MIN:
        # Word for word: hashicorp/terraform-provider-aws pull request 16113 quotes it.
        raise InvalidRequest(
            "MaximumRecordAgeInSeconds must be either -1 (forever) or between "
            f"{MAPPING_RECORD_AGE_SECONDS_MIN} and {MAPPING_RECORD_AGE_SECONDS_MAX} (inclusive)"
        )
    if settings.starting_position == "AT_TIMESTAMP":
        raise InvalidRequest(
            "Unsupported starting position AT_TIMESTAMP: DynamoDB streams can be read from "
            "TRIM_HORIZON or LATEST"
        )
    if len(settings.filters) > MAPPING_FILTERS_MAX:
        raise InvalidRequest(
            f"FilterCriteria has {len(settings.filters)} filters, at most {MAPPING_FILTERS_MAX} "
            "are allowed"
        )
    compile_filters(settings.filters)
    # State goes from one invocation of a shard to the next, which parallel batches do not have.
    if settings.tumbling_window_seconds and settings.parallelization_factor > 1:
        raise InvalidRequest(
            "TumblingWindowInSeconds cannot be used with a ParallelizationFactor greater than 1"
        )
    if settings.on_failure is not None:
        _check_destination(settings.on_failure)


def settings_from_lambda(
    members: Members[str, Any], current: MappingSettings | None = None
) -> MappingSettings:
    """The checked settings that the members of a request state.

    Without ``current`` it is a creation: members left out have Lambda's defaults, StartingPosition
    is required. With ``current`` it is an update: what is left out stays, and the position cannot
    be named. A null is a member left out. Members that are not settings (FunctionName,
    EventSourceArn, UUID, Tags) are the caller's and must not be among ``members``.
    """
    changes: dict[str, Any] = {}
    for name, value in members.items():
        if value is None:
            continue
        if name in _READERS:
            field, read = _READERS[name]
            changes[field] = read(name, value)
        elif name in _NEVER_APPLICABLE:
            raise InvalidRequest(f"{name} is not applicable to a DynamoDB stream")
        elif name in _UNSUPPORTED:
            if value not in _UNSUPPORTED[name]:
                raise InvalidRequest(f"{name} is not supported by millstream")
        else:
            raise InvalidRequest(f"Unknown parameter: {name}")
    if current is None:
        if "starting_position" not in changes:
            raise InvalidRequest(
                "1 validation error detected: Value null at 'startingPosition' failed to satisfy "
                "constraint: Member must not be null"
            )
        current = MappingSettings()
    elif "starting_position" in changes:
        raise InvalidRequest("StartingPosition cannot be changed after creation")
    settings = msgspec.structs.replace(current, **changes)
    check_settings(settings)
    return settings


def settings_to_lambda(
    settings: MappingSettings, region: str = "us-east-1", account: str = "000000000000"
) -> dict[str, Any]:
    """The members of an EventSourceMappingConfiguration that describe ``settings``.

    ``enabled`` is not among them: Lambda tells it as State. A window of a fraction of a second is
    told as the next whole one, since clients read an integer; a callable, which the API cannot
    set, is told as ``callable:NAME``. ``region`` and ``account`` complete the ARN of a table.
    """
    on_failure = settings.on_failure
    told = {} if on_failure is None else {"Destination": _told(on_failure, region, account)}
    members: dict[str, Any] = {
        "BatchSize": settings.batch_size,
        "MaximumBatchingWindowInSeconds": math.ceil(settings.window_seconds),
        "ParallelizationFactor": settings.parallelization_factor,
        "StartingPosition": settings.starting_position,
        "DestinationConfig": {"OnFailure": told},
        "MaximumRecordAgeInSeconds": settings.maximum_record_age_seconds,
        "BisectBatchOnFunctionError": settings.bisect_batch_on_function_error,
        "MaximumRetryAttempts": settings.maximum_retry_attempts,
        "TumblingWindowInSeconds": settings.tumbling_window_seconds,
        "FunctionResponseTypes": (
            ["ReportBatchItemFailures"] if settings.report_batch_item_failures else []
        ),
    }
    if settings.filters:
        members["FilterCriteria"] = {"Filters": [{"Pattern": each} for each in settings.filters]}
    return members


# Bounds.

# Member, as AWS spells it in a violation; field; least; greatest.
_RANGES: Final = (
    ("batchSize", "batch_size", 1, MAPPING_BATCH_RECORDS_MAX),
    ("maximumBatchingWindowInSeconds", "window_seconds", 0, MAPPING_BATCH_WINDOW_SECONDS_MAX),
    ("parallelizationFactor", "parallelization_factor", 1, MAPPING_PARALLELIZATION_MAX),
    (
        "maximumRecordAgeInSeconds",
        "maximum_record_age_seconds",
        -1,
        MAPPING_RECORD_AGE_SECONDS_MAX,
    ),
    ("maximumRetryAttempts", "maximum_retry_attempts", -1, MAPPING_RETRY_ATTEMPTS_MAX),
    (
        "tumblingWindowInSeconds",
        "tumbling_window_seconds",
        0,
        MAPPING_TUMBLING_WINDOW_SECONDS_MAX,
    ),
)


def _range_violations(settings: MappingSettings) -> list[str]:
    found = []
    for member, field, least, greatest in _RANGES:
        value = getattr(settings, field)
        if value != value:  # A window that is not a number is neither too small nor too large.
            found.append(_violation(value, member, "Member must be a number"))
        elif value < least:
            constraint = f"Member must have value greater than or equal to {least}"
            found.append(_violation(value, member, constraint))
        elif value > greatest:
            constraint = f"Member must have value less than or equal to {greatest}"
            found.append(_violation(value, member, constraint))
    if settings.starting_position not in (*STARTING_POSITIONS, "AT_TIMESTAMP"):
        constraint = "Member must satisfy enum value set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]"
        found.append(_violation(settings.starting_position, "startingPosition", constraint))
    return found


def _filter_violations(settings: MappingSettings) -> list[str]:
    constraint = f"Member must have length less than or equal to {FILTER_PATTERN_CHARACTERS_MAX}"
    return [
        _violation(pattern, f"filterCriteria.filters.{position}.member.pattern", constraint)
        for position, pattern in enumerate(settings.filters, 1)
        if len(pattern) > FILTER_PATTERN_CHARACTERS_MAX
    ]


def _violation(value: object, member: str, constraint: str) -> str:
    told = str(value)[:FILTER_PATTERN_CHARACTERS_MAX]
    return f"Value '{told}' at '{member}' failed to satisfy constraint: {constraint}"


# Destinations.

_TABLE_NAME = re.compile(r"[a-zA-Z0-9_.-]{3,255}")
_TABLE_ARN = re.compile(r"arn:aws[a-z-]*:dynamodb:[a-z0-9-]+:[0-9]{12}:table/([a-zA-Z0-9_.-]+)")


def _check_destination(destination: Destination) -> None:
    kind, name = destination.kind, destination.name
    if kind not in DESTINATION_KINDS:
        raise InvalidRequest(
            f"The destination's kind {kind!r} is not one of {', '.join(DESTINATION_KINDS)}"
        )
    if kind == "table" and not _TABLE_NAME.fullmatch(name):
        raise InvalidRequest(f"The destination {name!r} is not the name of a table")
    # A way up would make two spellings of one directory, and none is needed.
    if kind == "directory" and (
        not name.startswith("/") or "\0" in name or ".." in name.split("/")
    ):
        raise InvalidRequest(f"The destination {name!r} is not an absolute path")
    if not name or len(name) > DESTINATION_CHARACTERS_MAX:
        raise InvalidRequest(
            f"The destination's name must have 1 to {DESTINATION_CHARACTERS_MAX} characters"
        )


def _destination(text: str) -> Destination | None:
    """Of a destination as the API has it: a string. An empty one takes the destination away."""
    if not text:
        return None
    if len(text) > DESTINATION_CHARACTERS_MAX:
        where = "destinationConfig.onFailure.destination"
        constraint = f"Member must have length less than or equal to {DESTINATION_CHARACTERS_MAX}"
        raise InvalidRequest(f"1 validation error detected: {_violation(text, where, constraint)}")
    if table := _TABLE_ARN.fullmatch(text):
        return Destination("table", table.group(1))
    if text.startswith("file:///"):
        return Destination("directory", unquote(text[len("file://") :]))
    raise InvalidRequest(
        f"The destination {text} is not supported: millstream delivers to a table "
        "(arn:aws:dynamodb:REGION:ACCOUNT:table/NAME) or a directory (file:///ABSOLUTE/PATH), not "
        "to SQS, SNS, S3 or Kafka"
    )


def _told(destination: Destination, region: str, account: str) -> str:
    match destination.kind:
        case "table":
            return f"arn:aws:dynamodb:{region}:{account}:table/{destination.name}"
        case "directory":
            return f"file://{quote(destination.name)}"
        case _:
            return f"{destination.kind}:{destination.name}"


# Members of the API.


def _whole(name: str, value: Any) -> int:
    if type(value) is not int:
        raise MalformedRequest(f"{name} must be an integer")
    return value


def _boolean(name: str, value: Any) -> bool:
    if type(value) is not bool:
        raise MalformedRequest(f"{name} must be a boolean")
    return value


def _string(name: str, value: Any) -> str:
    if type(value) is not str:
        raise MalformedRequest(f"{name} must be a string")
    return value


def _list(name: str, value: Any) -> list[Any]:
    if type(value) is not list:
        raise MalformedRequest(f"{name} must be a list")
    return value


def _structure(name: str, value: Any, *known: str) -> dict[str, Any]:
    """Its members that are not null."""
    if type(value) is not dict:
        raise MalformedRequest(f"{name} must be a structure")
    for member in value:
        if member not in known:
            raise InvalidRequest(f"Unknown parameter: {name}.{member}")
    return {member: each for member, each in value.items() if each is not None}


def _filters(name: str, value: Any) -> tuple[str, ...]:
    filters = _list(f"{name}.Filters", _structure(name, value, "Filters").get("Filters", []))
    patterns = []
    for position, each in enumerate(filters):
        path = f"{name}.Filters[{position}]"
        # An absent pattern is no JSON, which the check of all patterns says.
        pattern = _structure(path, each, "Pattern").get("Pattern", "")
        patterns.append(_string(f"{path}.Pattern", pattern))
    return tuple(patterns)


def _response_types(name: str, value: Any) -> bool:
    types = [_string(f"{name}[]", each) for each in _list(name, value)]
    if len(types) > 1:
        constraint = "Member must have length less than or equal to 1"
        told = f"[{', '.join(types)}]"
        raise InvalidRequest(
            f"1 validation error detected: {_violation(told, 'functionResponseTypes', constraint)}"
        )
    if types and types != ["ReportBatchItemFailures"]:
        constraint = (
            "Member must satisfy constraint: "
            "[Member must satisfy enum value set: [ReportBatchItemFailures]]"
        )
        told = f"[{types[0]}]"
        raise InvalidRequest(
            f"1 validation error detected: {_violation(told, 'functionResponseTypes', constraint)}"
        )
    return bool(types)


def _on_failure(name: str, value: Any) -> Destination | None:
    config = _structure(name, value, "OnFailure", "OnSuccess")
    if _structure(f"{name}.OnSuccess", config.get("OnSuccess", {}), "Destination"):
        raise InvalidRequest("DestinationConfig.OnSuccess is not applicable to a DynamoDB stream")
    path = f"{name}.OnFailure"
    failure = _structure(path, config.get("OnFailure", {}), "Destination")
    return _destination(_string(f"{path}.Destination", failure.get("Destination", "")))


# Member: the field that it sets, and how it is read.
_READERS: Final[dict[str, tuple[str, Callable[[str, Any], Any]]]] = {
    "BatchSize": ("batch_size", _whole),
    "MaximumBatchingWindowInSeconds": ("window_seconds", _whole),
    "ParallelizationFactor": ("parallelization_factor", _whole),
    "StartingPosition": ("starting_position", _string),
    "FilterCriteria": ("filters", _filters),
    "BisectBatchOnFunctionError": ("bisect_batch_on_function_error", _boolean),
    "MaximumRetryAttempts": ("maximum_retry_attempts", _whole),
    "MaximumRecordAgeInSeconds": ("maximum_record_age_seconds", _whole),
    "FunctionResponseTypes": ("report_batch_item_failures", _response_types),
    "TumblingWindowInSeconds": ("tumbling_window_seconds", _whole),
    "DestinationConfig": ("on_failure", _on_failure),
    "Enabled": ("enabled", _boolean),
}
_NEVER_APPLICABLE: Final = frozenset({
    "AmazonManagedKafkaEventSourceConfig",
    "DocumentDBEventSourceConfig",
    "ProvisionedPollerConfig",
    "Queues",
    "ScalingConfig",
    "SelfManagedEventSource",
    "SelfManagedKafkaEventSourceConfig",
    "SourceAccessConfigurations",
    "StartingPositionTimestamp",
    "Topics",
})  # fmt: skip
# Members that only a whole AWS could honour, with the values that ask for nothing.
_UNSUPPORTED: Final[dict[str, tuple[Any, ...]]] = {
    "KMSKeyArn": ("",),
    "LoggingConfig": ({},),
    "MetricsConfig": ({}, {"Metrics": []}),
}
