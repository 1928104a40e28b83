"""A Lambda function as a value: its definition, its names, and the bytes it is stored as.

The store (``actors/functions.py``) owns the values; whoever runs a function is given one and the
directory of its code. ``function_settings`` makes them from requests. Pure. What is refused is
refused in Lambda's words (API reference; the constraints are the service model's).
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from ..errors import Corrupt, InvalidRequest, ResourceNotFound
from ..limits import (
    FUNCTION_MEMORY_MB_MIN,
    FUNCTION_NAME_CHARACTERS_MAX,
    FUNCTION_NAME_OR_ARN_CHARACTERS_MAX,
    FUNCTION_STORAGE_MB_MIN,
)

#: The only version that there is: nothing is published.
LATEST: Final = "$LATEST"

_NAME = re.compile(r"[a-zA-Z0-9-_]+")
_NAME_OR_ARN = re.compile(
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?"
    r"([a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-[0-9]:)?([0-9]{12}:)?(function:)?"
    r"(?P<name>[a-zA-Z0-9-_]+)(:(?P<qualifier>\$LATEST|[a-zA-Z0-9-_]+))?"
)
_PATTERN_TOLD = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?([a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?"
    r"(\d{12}:)?(function:)?([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?"
)


class Function(msgspec.Struct, frozen=True):
    """One function. Fields are only ever added, each with a default: old rows stay readable.

    ``environment`` and ``tags`` are the user's, and are not to be changed.
    """

    namespace: str
    name: str
    arn: str
    #: As it was asked for (``python3.12``). The code runs on the Python that millstream runs on.
    runtime: str
    #: ``module.function``, the module with dots or slashes.
    handler: str
    #: Kept and told; there is nobody to be here.
    role: str
    #: The SHA-256 of the zip in base64, as Lambda tells it; and the zip's size in bytes.
    code_sha256: str = ""
    code_size: int = 0
    description: str = ""
    timeout_seconds: int = 3
    memory_mb: int = FUNCTION_MEMORY_MB_MIN
    environment: dict[str, str] = {}
    tags: dict[str, str] = {}
    architectures: tuple[str, ...] = ("x86_64",)
    ephemeral_storage_mb: int = FUNCTION_STORAGE_MB_MIN
    version: str = LATEST
    package_type: str = "Zip"
    #: Always this: an answer is given when the function can be invoked.
    state: str = "Active"
    #: Milliseconds since the epoch.
    last_modified_ms: int = 0
    #: Another one after every change.
    revision_id: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Function).decode


def encode_function(function: Function) -> bytes:
    """The bytes of a catalog entry."""
    return _encode(function)


def decode_function(data: bytes) -> Function:
    """What ``encode_function`` has written. Raises Corrupt."""
    try:
        return _decode(data)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"a function's definition cannot be read: {error}") from None


def function_arn(region: str, account: str, name: str) -> str:
    """The function's Amazon resource name, unqualified."""
    return f"arn:aws:lambda:{region}:{account}:function:{name}"


def not_found(arn: str) -> ResourceNotFound:
    """What is said of a function that is not there."""
    return ResourceNotFound(f"Function not found: {arn}")


def function_name_of(text: str, qualifier: str | None, region: str, account: str) -> str:
    """The name in ``text``, which is a name, a partial ARN or a whole one.

    Account and region in an ARN are not compared with the node's: a node is one account's and one
    region's whole world. ``qualifier`` is the one given beside the name, if any.

    Raises:
        InvalidRequest: it is none of these.
        ResourceNotFound: it names a version or an alias, of which there are none.
    """
    found = _NAME_OR_ARN.fullmatch(text)
    violations = []
    if found is None:
        violations.append(
            violation(
                text,
                "functionName",
                f"Member must satisfy regular expression pattern: {_PATTERN_TOLD}",
            )
        )
    name = text if found is None else found["name"]
    if len(text) > FUNCTION_NAME_OR_ARN_CHARACTERS_MAX or (
        len(name) > FUNCTION_NAME_CHARACTERS_MAX
    ):
        most = FUNCTION_NAME_CHARACTERS_MAX
        if len(text) > FUNCTION_NAME_OR_ARN_CHARACTERS_MAX:
            most = FUNCTION_NAME_OR_ARN_CHARACTERS_MAX
        violations.append(
            violation(
                text, "functionName", f"Member must have length less than or equal to {most}"
            )
        )
    raise_violations(violations)
    assert found is not None
    assert _NAME.fullmatch(name) is not None
    inside = found["qualifier"]
    if inside is not None and qualifier is not None and inside != qualifier:
        raise InvalidRequest(
            "The derived qualifier from the function name does not match the specified qualifier."
        )
    wanted = inside if qualifier is None else qualifier
    if wanted not in (None, LATEST):
        raise not_found(f"{function_arn(region, account, name)}:{wanted}")
    return name


def violation(value: object, member: str, constraint: str) -> str:
    """One broken constraint, as AWS tells it."""
    # Beyond a thousand characters nobody reads an echo.
    return f"Value '{str(value)[:1000]}' at '{member}' failed to satisfy constraint: {constraint}"


def raise_violations(found: list[str]) -> None:
    """Raise InvalidRequest if there is something in ``found``."""
    if found:
        plural = "s" if len(found) > 1 else ""
        raise InvalidRequest(f"{len(found)} validation error{plural} detected: {'; '.join(found)}")
