"""The environment variables of a worker process, as Lambda sets them.

Nothing else gets in: of the node's own environment only what programs need to run at all, which
``inherited`` names. What the caller gives for the function itself comes last, except that names
which Lambda reserves cannot be set.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import msgspec

from .context import log_group_name

#: Of the node's environment, what a program needs to find its tools, files and language.
INHERITED = (
    "PATH", "HOME", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TMPDIR", "USER", "LOGNAME",
    "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "SYSTEMROOT",
)  # fmt: skip


class Endpoint(msgspec.Struct, frozen=True):
    """How an SDK in a handler reaches the node."""

    url: str
    region: str
    access_key_id: str
    secret_access_key: str
    session_token: str = ""


class Setup(msgspec.Struct, frozen=True):
    """What of a function shows in its environment."""

    function_name: str
    version: str
    memory_limit_mb: int
    handler: str
    #: Where its code lies; the working directory, too.
    task_root: str
    runtime_directory: str
    log_stream_name: str = ""


def inherited(node: Mapping[str, str]) -> dict[str, str]:
    """What of the node's environment a worker may see."""
    return {name: node[name] for name in INHERITED if name in node}


def function_environment(
    setup: Setup,
    endpoint: Endpoint,
    own: Mapping[str, str],
    node: Mapping[str, str],
) -> dict[str, str]:
    """All of a worker's environment. ``own``: the function's; ``node``: the node's own."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    reserved = {
        "_HANDLER": setup.handler,
        "AWS_DEFAULT_REGION": endpoint.region,
        "AWS_REGION": endpoint.region,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{version}",
        "AWS_LAMBDA_FUNCTION_NAME": setup.function_name,
        "AWS_LAMBDA_FUNCTION_VERSION": setup.version,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(setup.memory_limit_mb),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": log_group_name(setup.function_name),
        "AWS_LAMBDA_LOG_STREAM_NAME": setup.log_stream_name or f"[{setup.version}]",
        "AWS_ACCESS_KEY_ID": endpoint.access_key_id,
        "AWS_SECRET_ACCESS_KEY": endpoint.secret_access_key,
        "LAMBDA_TASK_ROOT": setup.task_root,
        "LAMBDA_RUNTIME_DIR": setup.runtime_directory,
    }
    if endpoint.session_token:
        reserved["AWS_SESSION_TOKEN"] = endpoint.session_token
    # These a function may set itself, to reach another server or to live in another zone.
    given = {
        "AWS_ENDPOINT_URL_DYNAMODB": endpoint.url,
        "AWS_ENDPOINT_URL_DYNAMODB_STREAMS": endpoint.url,
        "AWS_ENDPOINT_URL_LAMBDA": endpoint.url,
        "TZ": ":UTC",
    }
    return {**inherited(node), **given, **own, **reserved}
