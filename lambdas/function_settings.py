"""What requests say about a function, read and checked: CreateFunction and its two updates.

``read_definition``, ``read_configuration`` and ``read_code`` take the members of a request's JSON
and give checked fields of a ``Function``. What Lambda offers and a single node cannot do (layers,
a VPC, images, code in S3, versions) is refused by name, unless what is asked for is nothing:
infrastructure tools send the empty forms of everything. An unknown member is refused as well. Role,
Architectures and EphemeralStorage are kept and shown without effect, as the README says: AWS
demands the first, and zips of Python rarely mind the others.

Pure. Sources: the Lambda API reference and botocore's service model.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from ..errors import InvalidRequest, MalformedRequest
from ..limits import (
    FUNCTION_DESCRIPTION_CHARACTERS_MAX,
    FUNCTION_ENVIRONMENT_BYTES_MAX,
    FUNCTION_HANDLER_CHARACTERS_MAX,
    FUNCTION_MEMORY_MB_MAX,
    FUNCTION_MEMORY_MB_MIN,
    FUNCTION_ROLE_CHARACTERS_MAX,
    FUNCTION_STORAGE_MB_MAX,
    FUNCTION_STORAGE_MB_MIN,
    FUNCTION_TIMEOUT_SECONDS_MAX,
    TAG_KEY_CHARACTERS_MAX,
    TAG_VALUE_CHARACTERS_MAX,
    TAGS_MAX,
)
from .functions import raise_violations, violation

Fields = dict[str, Any]

_ROLE = r"arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+"
_HANDLER = r"[^\s]+"
_VARIABLE = r"[a-zA-Z]([a-zA-Z0-9_])+"
_RUNTIME = re.compile(r"python3\.[0-9]{1,2}")
#: Said to whoever asks for another one: those that AWS itself takes today.
_RUNTIMES = "[python3.9, python3.10, python3.11, python3.12, python3.13, python3.14]"
#: "Defined runtime environment variables" in the developer guide: the ones that are reserved.
RESERVED_VARIABLES: Final = frozenset({
    "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION", "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_RUNTIME_API", "AWS_REGION", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
    "LAMBDA_RUNTIME_DIR", "LAMBDA_TASK_ROOT", "_HANDLER", "_X_AMZN_TRACE_ID",
})  # fmt: skip

# What cannot be honoured, and what of it asks for nothing besides null and emptiness.
_UNSUPPORTED: Final[dict[str, tuple[Any, ...]]] = {
    "AcceleratorConfig": (),
    "CapacityProviderConfig": (),
    "CodeSigningConfigArn": (),
    "DeadLetterConfig": (),
    "DurableConfig": (),
    "FileSystemConfigs": (),
    "ImageConfig": (),
    "ImageUri": (),
    "KMSKeyArn": (),
    "Layers": (),
    "LoggingConfig": ({"LogFormat": "Text"},),
    "Publish": (False,),
    "PublishTo": (),
    "RuntimeConfig": (),
    "S3Bucket": (),
    "S3Key": (),
    "S3ObjectStorageMode": (),
    "S3ObjectVersion": (),
    "SnapStart": ({"ApplyOn": "None"},),
    "SourceKMSKeyArn": (),
    "TenancyConfig": (),
    "TracingConfig": ({"Mode": "PassThrough"},),
    "VpcConfig": ({"Ipv6AllowedForDualStack": False},),
}
_INSTEAD: Final = {
    "Publish": "there is one version, $LATEST",
    "S3Bucket": "give the code as ZipFile",
    "S3Key": "give the code as ZipFile",
    "ImageUri": "give the code as ZipFile",
}


def read_definition(request: dict[str, Any]) -> tuple[Fields, bytes]:
    """The fields that CreateFunction states (but FunctionName), and the zip.

    Raises InvalidRequest, or MalformedRequest where a member has the wrong JSON type.
    """
    members = _members(request, _CREATION, "FunctionName", "Code", "PackageType", "Tags")
    violations: list[str] = []
    code = members.pop("Code", None)
    package_type = members.pop("PackageType", "Zip")
    tags = _text_map("Tags", members.pop("Tags", {}))
    for name in ("FunctionName", "Role"):
        if name not in members:
            violations.append(_missing(name))
    if code is None:
        violations.append(_missing("Code"))
    members.pop("FunctionName", None)
    if package_type not in ("Zip", "Image"):
        constraint = "Member must satisfy enum value set: [Zip, Image]"
        violations.append(violation(package_type, "packageType", constraint))
    fields = _fields(members, violations)
    violations += _tag_violations(tags)
    raise_violations(violations)
    if package_type == "Image":
        raise _unsupported("PackageType Image", "give the code as a zip")
    if not fields.get("runtime") or not fields.get("handler"):
        raise InvalidRequest(
            "Runtime and Handler are mandatory parameters for functions created with deployment "
            "packages."
        )
    _check_tags(tags)
    fields["tags"] = tags
    if not isinstance(code, dict):
        raise MalformedRequest("Code must be a structure")
    given = _members(code, {}, "ZipFile", where="Code.")
    if given.get("ZipFile") is None:
        raise InvalidRequest("Please provide a source for function code.")
    return fields, _blob("Code.ZipFile", given["ZipFile"])


def read_configuration(request: dict[str, Any]) -> tuple[Fields, str | None]:
    """The fields that UpdateFunctionConfiguration changes, and the RevisionId it demands."""
    members = _members(request, _CONFIGURATION, "FunctionName", "RevisionId")
    revision_id = _optional_text("RevisionId", members.pop("RevisionId", None))
    members.pop("FunctionName", None)
    violations: list[str] = []
    fields = _fields(members, violations)
    raise_violations(violations)
    return fields, revision_id


class CodeUpdate(msgspec.Struct, frozen=True):
    """What UpdateFunctionCode asks for."""

    package: bytes
    fields: Fields
    revision_id: str | None
    dry_run: bool


def read_code(request: dict[str, Any]) -> CodeUpdate:
    """The new code."""
    members = _members(
        request, _CODE, "FunctionName", "RevisionId", "DryRun", "ZipFile"
    )
    revision_id = _optional_text("RevisionId", members.pop("RevisionId", None))
    dry_run = members.pop("DryRun", False)
    if type(dry_run) is not bool:
        raise MalformedRequest("DryRun must be a boolean")
    package = members.pop("ZipFile", None)
    members.pop("FunctionName", None)
    violations: list[str] = []
    fields = _fields(members, violations)
    raise_violations(violations)
    if package is None:
        raise InvalidRequest("Please provide a source for function code.")
    return CodeUpdate(_blob("ZipFile", package), fields, revision_id, dry_run)


def _members(
    request: dict[str, Any], readers: Readers, *others: str, where: str = ""
) -> dict[str, Any]:
    """The members that state something; what cannot be honoured is refused here."""
    members = {}
    for name, value in request.items():
        if name in _UNSUPPORTED:
            if value not in _UNSUPPORTED[name] and not _asks_for_nothing(value):
                raise _unsupported(where + name, _INSTEAD.get(name))
        elif name not in readers and name not in others:
            raise InvalidRequest(f"Unknown parameter: {where}{name[:64]}")
        elif value is not None:
            members[name] = value
    return members


def _asks_for_nothing(value: Any, depth: int = 0) -> bool:
    """Null, an empty text, list or structure, or a structure of nothing but those.

    ``False`` and 0 are values. No member has more than three levels.
    """
    if isinstance(value, dict):
        return depth < 3 and all(_asks_for_nothing(each, depth + 1) for each in value.values())
    return value is None or value in ("", [])


def _unsupported(name: str, instead: str | None) -> InvalidRequest:
    hint = "" if instead is None else f": {instead}"
    return InvalidRequest(f"{name} is not supported by millstream{hint}.")


def _missing(name: str) -> str:
    member = name[0].lower() + name[1:]
    return f"Value null at '{member}' failed to satisfy constraint: Member must not be null"


# Readers: each checks one member's JSON type, notes the constraints that it breaks, and gives the
# fields that it states. What only Lambda's own code checks is raised at once, as there.

Reader = Callable[[str, Any, list[str]], Fields]
Readers = dict[str, Reader]


def _fields(members: dict[str, Any], violations: list[str]) -> Fields:
    fields: Fields = {}
    later: list[InvalidRequest] = []
    for name, value in members.items():
        try:
            fields |= _READERS[name](name, value, violations)
        except InvalidRequest as error:
            later.append(error)
    # The constraints of the model are told before what the service behind it finds.
    raise_violations(violations)
    if later:
        raise later[0]
    return fields


def _text(field: str, most: int, pattern: str | None = None) -> Reader:
    compiled = None if pattern is None else re.compile(pattern, re.ASCII)

    def read(name: str, value: Any, violations: list[str]) -> Fields:
        text = _optional_text(name, value)
        assert text is not None
        member = name[0].lower() + name[1:]
        if compiled is not None and compiled.fullmatch(text) is None:
            constraint = f"Member must satisfy regular expression pattern: {pattern}"
            violations.append(violation(text, member, constraint))
        if len(text) > most:
            constraint = f"Member must have length less than or equal to {most}"
            violations.append(violation(text, member, constraint))
        return {field: text}

    return read


def _whole(field: str, least: int, most: int, member: str | None = None) -> Reader:
    def read(name: str, value: Any, violations: list[str]) -> Fields:
        if type(value) is not int:
            raise MalformedRequest(f"{name} must be an integer")
        path = member or name[0].lower() + name[1:]
        if value < least:
            constraint = f"Member must have value greater than or equal to {least}"
            violations.append(violation(value, path, constraint))
        elif value > most:
            constraint = f"Member must have value less than or equal to {most}"
            violations.append(violation(value, path, constraint))
        return {field: value}

    return read


def _runtime(name: str, value: Any, violations: list[str]) -> Fields:
    text = _optional_text(name, value)
    assert text is not None
    if _RUNTIME.fullmatch(text) is None:
        raise InvalidRequest(
            f"Value {text[:100]} at 'runtime' failed to satisfy constraint: Member must satisfy "
            f"enum value set: {_RUNTIMES} or be a valid ARN"
        )
    return {"runtime": text}


def _environment(name: str, value: Any, violations: list[str]) -> Fields:
    given = _structure(name, value, "Variables")
    variables = _text_map(f"{name}.Variables", given.get("Variables") or {})
    bad = [key for key in variables if re.fullmatch(_VARIABLE, key, re.ASCII) is None]
    reserved = sorted(key for key in variables if key in RESERVED_VARIABLES)
    if [key for key in bad if key not in RESERVED_VARIABLES]:
        # Values may be secrets, so they are not told, and AWS does not tell them either.
        violations.append(
            "Value at 'environment.variables' failed to satisfy constraint: Map keys must satisfy "
            f"constraint: [Member must satisfy regular expression pattern: {_VARIABLE}]"
        )
    began = (
        "Lambda was unable to configure your environment variables because the environment "
        "variables you have provided "
    )
    if reserved:
        raise InvalidRequest(
            f"{began}contains reserved keys that are currently not supported for modification. "
            f"Reserved keys used in this request: {', '.join(reserved)}"
        )
    if any("\0" in text for text in variables.values()):
        raise InvalidRequest(f"{began}contain a value with a NUL character.")
    if len(msgspec.json.encode(variables)) > FUNCTION_ENVIRONMENT_BYTES_MAX:
        raise InvalidRequest(f"{began}exceeded the 4KB limit.")
    return {"environment": variables}


def _architectures(name: str, value: Any, violations: list[str]) -> Fields:
    if type(value) is not list or not all(type(each) is str for each in value):
        raise MalformedRequest(f"{name} must be a list of strings")
    told = f"[{', '.join(value)}]"
    if len(value) != 1:
        side = "greater" if not value else "less"
        constraint = f"Member must have length {side} than or equal to 1"
        violations.append(violation(told, "architectures", constraint))
    elif value[0] not in ("x86_64", "arm64"):
        constraint = (
            "Member must satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64]]"
        )
        violations.append(violation(told, "architectures", constraint))
    return {"architectures": tuple(value)}


def _storage(name: str, value: Any, violations: list[str]) -> Fields:
    given = _structure(name, value, "Size")
    if given.get("Size") is None:
        violations.append(_missing("EphemeralStorage.Size").replace(".S", ".s"))
        return {}
    return _storage_size(f"{name}.Size", given["Size"], violations)


_storage_size = _whole(
    "ephemeral_storage_mb",
    FUNCTION_STORAGE_MB_MIN,
    FUNCTION_STORAGE_MB_MAX,
    "ephemeralStorage.size",
)

_CODE: Readers = {"Architectures": _architectures}
_CONFIGURATION: Readers = {
    "Runtime": _runtime,
    "Role": _text("role", FUNCTION_ROLE_CHARACTERS_MAX, _ROLE),
    "Handler": _text("handler", FUNCTION_HANDLER_CHARACTERS_MAX, _HANDLER),
    "Description": _text("description", FUNCTION_DESCRIPTION_CHARACTERS_MAX),
    "Timeout": _whole("timeout_seconds", 1, FUNCTION_TIMEOUT_SECONDS_MAX),
    "MemorySize": _whole("memory_mb", FUNCTION_MEMORY_MB_MIN, FUNCTION_MEMORY_MB_MAX),
    "Environment": _environment,
    "EphemeralStorage": _storage,
}
_CREATION: Readers = _CONFIGURATION | _CODE
_READERS = _CREATION


def _tag_violations(tags: dict[str, str]) -> list[str]:
    found = []
    if any(not 1 <= len(key) <= TAG_KEY_CHARACTERS_MAX for key in tags):
        found.append(
            violation(
                tags,
                "tags",
                "Map keys must satisfy constraint: [Member must have length less than or equal to "
                f"{TAG_KEY_CHARACTERS_MAX}, Member must have length greater than or equal to 1]",
            )
        )
    if any(len(value) > TAG_VALUE_CHARACTERS_MAX for value in tags.values()):
        found.append(
            violation(
                tags,
                "tags",
                "Map value must satisfy constraint: [Member must have length less than or equal "
                f"to {TAG_VALUE_CHARACTERS_MAX}, Member must have length greater than or equal "
                "to 0]",
            )
        )
    return found


def _check_tags(tags: dict[str, str]) -> None:
    if len(tags) > TAGS_MAX:
        raise InvalidRequest(f"Number of tags exceeds resource tag limit: {TAGS_MAX}.")
    if any(key.lower().startswith("aws:") for key in tags):
        raise InvalidRequest("Tag keys that begin with aws: are reserved.")


def _optional_text(name: str, value: Any) -> str | None:
    if value is not None and type(value) is not str:
        raise MalformedRequest(f"{name} must be a string")
    return value


def _structure(name: str, value: Any, *known: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise MalformedRequest(f"{name} must be a structure")
    for member in value:
        if member not in known:
            raise InvalidRequest(f"Unknown parameter: {name}.{member[:64]}")
    return value


def _text_map(name: str, value: Any) -> dict[str, str]:
    if type(value) is not dict or not all(type(each) is str for each in value.values()):
        raise MalformedRequest(f"{name} must be a map of strings")
    return value


def _blob(name: str, value: Any) -> bytes:
    if type(value) is not str:
        raise MalformedRequest(f"{name} must be a string of base64")
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        raise MalformedRequest(f"{name} is not base64") from None
