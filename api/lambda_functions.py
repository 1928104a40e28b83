"""Lambda's operations on functions: creating, describing, changing, deleting.

Each takes the store and a call, and gives an answer or raises. A function is Active when its
creation is answered and every update is Successful at once, so clients' waiters need not wait.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from ..actors.functions import Functions
from ..errors import InvalidRequest
from ..lambdas.function_settings import read_code, read_configuration, read_definition
from ..lambdas.functions import LATEST, Function, function_name_of
from ..limits import FUNCTIONS_PAGE_MAX
from .lambda_calls import Answer, Call, RunInThread, page, read_body

_json = msgspec.json.Encoder().encode


async def create_function(functions: Functions, call: Call, run: RunInThread) -> Answer:
    request = await read_body(call.payload, run)
    fields, package = await _away(run, read_definition, request)
    name = _name(functions, request["FunctionName"], None)
    function = await functions.create(call.caller.namespace, name, fields, package)
    return Answer(201, _json(describe(function)))


async def list_functions(functions: Functions, call: Call, run: RunInThread) -> Answer:
    if call.query.get("FunctionVersion", "ALL") != "ALL":
        raise InvalidRequest("FunctionVersion must be ALL")
    found, marker = page(
        functions.list(call.caller.namespace),
        lambda function: function.name,
        call.query,
        FUNCTIONS_PAGE_MAX,
    )
    answer: dict[str, Any] = {"Functions": [_summary(function) for function in found]}
    if marker is not None:
        answer["NextMarker"] = marker
    return Answer(200, _json(answer))


async def get_function(functions: Functions, call: Call, run: RunInThread) -> Answer:
    """``Code`` has no Location: the code is not given out again."""
    function = _find(functions, call)
    answer: dict[str, Any] = {
        "Configuration": describe(function),
        "Code": {"RepositoryType": "millstream"},
    }
    if function.tags:
        answer["Tags"] = function.tags
    return Answer(200, _json(answer))


async def get_function_configuration(
    functions: Functions, call: Call, run: RunInThread
) -> Answer:
    return Answer(200, _json(describe(_find(functions, call))))


async def update_function_code(functions: Functions, call: Call, run: RunInThread) -> Answer:
    name = _find(functions, call).name
    update = await _away(run, read_code, await read_body(call.payload, run))
    function = await functions.update_code(
        call.caller.namespace,
        name,
        update.package,
        fields=update.fields,
        revision_id=update.revision_id,
        dry_run=update.dry_run,
    )
    return Answer(200, _json(describe(function)))


async def update_function_configuration(
    functions: Functions, call: Call, run: RunInThread
) -> Answer:
    name = _find(functions, call).name
    fields, revision_id = read_configuration(await read_body(call.payload, run))
    function = await functions.update_configuration(
        call.caller.namespace, name, fields, revision_id=revision_id
    )
    return Answer(200, _json(describe(function)))


async def delete_function(functions: Functions, call: Call, run: RunInThread) -> Answer:
    name = _find(functions, call).name
    if "Qualifier" in call.query or call.name.endswith(f":{LATEST}"):
        raise InvalidRequest(
            "$LATEST version cannot be deleted without deleting the function."
        )
    await functions.delete(call.caller.namespace, name)
    return Answer(204)


def name_called(functions: Functions, call: Call) -> str:
    """The name of the function in a call's path, whether or not there is one."""
    return _name(functions, call.name, call.query.get("Qualifier"))


def describe(function: Function) -> dict[str, Any]:
    """The members of a FunctionConfiguration."""
    return {
        **_summary(function),
        "State": function.state,
        "LastUpdateStatus": "Successful",
    }


def _summary(function: Function) -> dict[str, Any]:
    """As ListFunctions tells it: without the state."""
    members: dict[str, Any] = {
        "FunctionName": function.name,
        "FunctionArn": function.arn,
        "Runtime": function.runtime,
        "Role": function.role,
        "Handler": function.handler,
        "CodeSize": function.code_size,
        "Description": function.description,
        "Timeout": function.timeout_seconds,
        "MemorySize": function.memory_mb,
        "LastModified": _moment(function.last_modified_ms),
        "CodeSha256": function.code_sha256,
        "Version": function.version,
        "TracingConfig": {"Mode": "PassThrough"},
        "RevisionId": function.revision_id,
        "PackageType": function.package_type,
        "Architectures": list(function.architectures),
        "EphemeralStorage": {"Size": function.ephemeral_storage_mb},
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{function.name}"},
    }
    if function.environment:
        members["Environment"] = {"Variables": function.environment}
    return members


def _find(functions: Functions, call: Call) -> Function:
    return functions.get(call.caller.namespace, name_called(functions, call))


def _name(functions: Functions, text: Any, qualifier: str | None) -> str:
    if type(text) is not str:
        raise InvalidRequest("FunctionName must be a string")
    return function_name_of(text, qualifier, functions.region, functions.account)


async def _away(run: RunInThread, read: Any, request: dict[str, Any]) -> Any:
    """``read(request)`` in a thread: there may be 50 MB of base64 in it."""
    return await run(read, request)


def _moment(milliseconds: int) -> str:
    """As Lambda writes it: ISO 8601 with milliseconds and a zone without colon."""
    seconds, rest = divmod(milliseconds, 1000)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:03d}+0000"
