"""Lambda's operations on event source mappings of functions.

Mappings of handlers that are registered in Python are not shown: they are the program's, which
would contradict whatever was changed here. What a mapping does, and what may be set, is
``lambdas/settings``'s.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ..actors.functions import Functions
from ..errors import InvalidRequest, MalformedRequest, ResourceInUse
from ..lambdas.functions import function_name_of
from ..lambdas.settings import Mapping, settings_from_lambda, settings_to_lambda
from ..limits import MAPPINGS_PAGE_MAX
from .lambda_calls import Answer, Call, Mappings, RunInThread, page, read_body
from .lambda_errors import ResourceInUseException, ResourceNotFoundException

_json = msgspec.json.Encoder().encode
_STREAM_ARN = re.compile(
    r"arn:aws[a-z-]*:dynamodb:[a-z0-9-]+:[0-9]{12}:table/[a-zA-Z0-9_.-]{3,255}/stream/[^/\s]{1,64}"
)
_NOT_FOUND = "The resource you requested does not exist."


class MappingOperations:
    """The operations, on one node's mappings and functions."""

    __slots__ = ("_functions", "_mappings")

    def __init__(self, functions: Functions, mappings: Mappings) -> None:
        self._functions = functions
        self._mappings = mappings

    async def create(self, call: Call, run: RunInThread) -> Answer:
        request = await read_body(call.payload, run)
        name = self._function(call, request.pop("FunctionName", None))
        stream_arn = request.pop("EventSourceArn", None)
        _refuse_tags(request)
        if type(stream_arn) is not str or _STREAM_ARN.fullmatch(stream_arn) is None:
            raise InvalidRequest("Unrecognized event source.")
        settings = settings_from_lambda(request)
        mapping = await self._mappings.create(
            call.caller.namespace, name, stream_arn, settings
        )
        return Answer(202, _json(self._describe(mapping)))

    async def list(self, call: Call, run: RunInThread) -> Answer:
        found = [
            mapping
            for mapping in self._mappings.list(call.caller.namespace)
            if mapping.is_function
        ]
        wanted = call.query.get("FunctionName")
        if wanted is not None:
            name = self._name(wanted)
            found = [mapping for mapping in found if mapping.name == name]
        source = call.query.get("EventSourceArn")
        if source is not None:
            found = [mapping for mapping in found if mapping.stream_arn == source]
        found.sort(key=lambda mapping: mapping.uuid)
        shown, marker = page(found, lambda mapping: mapping.uuid, call.query, MAPPINGS_PAGE_MAX)
        answer: dict[str, Any] = {"EventSourceMappings": [self._describe(each) for each in shown]}
        if marker is not None:
            answer["NextMarker"] = marker
        return Answer(200, _json(answer))

    async def get(self, call: Call, run: RunInThread) -> Answer:
        return Answer(200, _json(self._describe(self._find(call))))

    async def update(self, call: Call, run: RunInThread) -> Answer:
        mapping = self._find(call)
        request = await read_body(call.payload, run)
        if request.pop("UUID", None) not in (None, mapping.uuid):
            raise InvalidRequest("The UUID in the body is not the one in the path.")
        wanted = request.pop("FunctionName", None)
        name = None if wanted is None else self._function(call, wanted)
        settings = settings_from_lambda(request, mapping.settings)
        try:
            mapping = await self._mappings.update(
                call.caller.namespace, mapping.uuid, settings, name
            )
        except ResourceInUse:
            raise _in_use("update") from None
        return Answer(202, _json(self._describe(mapping)))

    async def delete(self, call: Call, run: RunInThread) -> Answer:
        mapping = self._find(call)
        try:
            mapping = await self._mappings.delete(call.caller.namespace, mapping.uuid)
        except ResourceInUse:
            raise _in_use("delete") from None
        return Answer(202, _json(self._describe(mapping)))

    def _find(self, call: Call) -> Mapping:
        mapping = self._mappings.get(call.caller.namespace, call.name.lower())
        if mapping is None or not mapping.is_function:
            raise ResourceNotFoundException(_NOT_FOUND)
        return mapping

    def _function(self, call: Call, text: Any) -> str:
        """The name of a function that is there."""
        if text is None:
            raise InvalidRequest(
                "1 validation error detected: Value null at 'functionName' failed to satisfy "
                "constraint: Member must not be null"
            )
        if type(text) is not str:
            raise MalformedRequest("FunctionName must be a string")
        return self._functions.get(call.caller.namespace, self._name(text)).name

    def _name(self, text: str) -> str:
        functions = self._functions
        return function_name_of(text, None, functions.region, functions.account)

    def _describe(self, mapping: Mapping) -> dict[str, Any]:
        functions = self._functions
        arn = f"arn:aws:lambda:{functions.region}:{functions.account}:event-source-mapping"
        return {
            "UUID": mapping.uuid,
            **settings_to_lambda(mapping.settings, functions.region, functions.account),
            "EventSourceArn": mapping.stream_arn,
            "EventSourceMappingArn": f"{arn}:{mapping.uuid}",
            "FunctionArn": functions.arn(mapping.name),
            "LastModified": mapping.last_modified_ms / 1000,
            "LastProcessingResult": mapping.last_processing_result,
            "State": mapping.state,
            "StateTransitionReason": mapping.state_transition_reason,
        }


def _refuse_tags(request: dict[str, Any]) -> None:
    if request.pop("Tags", None):
        raise InvalidRequest("Tags of event source mappings are not supported by millstream.")


def _in_use(verb: str) -> ResourceInUseException:
    return ResourceInUseException(f"Cannot {verb} the event source mapping because it is in use.")
