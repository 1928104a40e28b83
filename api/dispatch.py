"""From the name in X-Amz-Target to the function that serves it.

The item operations take a good request for granted. When one of them refuses, the first stage of
checks (``validation``) is caught up on before the refusal is told: what it finds comes first on
DynamoDB, whatever the operation saw. A request that succeeds never pays for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ..errors import InvalidRequest, MalformedRequest, ResourceNotFound
from . import validation
from .calls import Caller
from .errors import AccessDeniedException, UnknownOperationException
from .operations.batches import batch_get_item, batch_write_item
from .operations.global_tables import (
    create_global_table,
    describe_global_table,
    list_global_tables,
    update_global_table,
)
from .operations.global_tables_settings import (
    describe_global_table_settings,
    update_global_table_settings,
)
from .operations.items import delete_item, get_item, put_item, update_item
from .operations.queries import query
from .operations.replicas_scaling import (
    describe_table_replica_auto_scaling,
    update_table_replica_auto_scaling,
)
from .operations.scans import scan
from .operations.service import describe_endpoints, describe_limits
from .operations.streams import (
    describe_stream,
    get_records,
    get_shard_iterator,
    list_streams,
)
from .operations.tables import (
    create_table,
    delete_table,
    describe_table,
    list_tables,
    update_table,
)
from .operations.tables_tags import list_tags_of_resource, tag_resource, untag_resource
from .operations.transactions import transact_get_items, transact_write_items
from .operations.triggers import TRIGGER_OPERATIONS

if TYPE_CHECKING:
    from ..actors.mappings import Mappings
    from ..actors.tables import Tables

Operation = Callable[["Tables", Caller, bytes], Awaitable[bytes]]

_PREFIX = "DynamoDB_20120810."
_STREAMS_PREFIX = "DynamoDBStreams_20120810."

_ITEM_OPERATIONS: dict[str, Operation] = {
    "BatchGetItem": batch_get_item,
    "BatchWriteItem": batch_write_item,
    "DeleteItem": delete_item,
    "GetItem": get_item,
    "PutItem": put_item,
    "Query": query,
    "Scan": scan,
    "TransactGetItems": transact_get_items,
    "TransactWriteItems": transact_write_items,
    "UpdateItem": update_item,
}
# These go through the first stage themselves.
_TABLE_OPERATIONS: dict[str, Operation] = {
    "CreateGlobalTable": create_global_table,
    "CreateTable": create_table,
    "DeleteTable": delete_table,
    "DescribeEndpoints": describe_endpoints,
    "DescribeGlobalTable": describe_global_table,
    "DescribeGlobalTableSettings": describe_global_table_settings,
    "DescribeLimits": describe_limits,
    "DescribeTable": describe_table,
    "DescribeTableReplicaAutoScaling": describe_table_replica_auto_scaling,
    "ListGlobalTables": list_global_tables,
    "ListTables": list_tables,
    "ListTagsOfResource": list_tags_of_resource,
    "TagResource": tag_resource,
    "UntagResource": untag_resource,
    "UpdateGlobalTable": update_global_table,
    "UpdateGlobalTableSettings": update_global_table_settings,
    "UpdateTable": update_table,
    "UpdateTableReplicaAutoScaling": update_table_replica_auto_scaling,
}
_STREAM_OPERATIONS: dict[str, Operation] = {
    "DescribeStream": describe_stream,
    "GetRecords": get_records,
    "GetShardIterator": get_shard_iterator,
    "ListStreams": list_streams,
}


class Dispatcher:
    """All operations on one node's tables."""

    __slots__ = ("_item_operations", "_is_open", "_table_operations", "_tables", "_mappings")

    def __init__(
        self,
        tables: Tables,
        mappings: Callable[[], Awaitable[Mappings]] | None = None,
        *,
        is_open: bool = True,
    ) -> None:
        """``mappings`` gives them when they are asked for.

        ``is_open``: there are no credentials, so whoever is let in may do everything.
        """
        self._tables = tables
        self._mappings = mappings
        self._is_open = is_open
        self._item_operations = {
            _PREFIX + name: (name, operation) for name, operation in _ITEM_OPERATIONS.items()
        }
        self._table_operations = {
            _PREFIX + name: operation for name, operation in _TABLE_OPERATIONS.items()
        } | {
            _STREAMS_PREFIX + name: operation for name, operation in _STREAM_OPERATIONS.items()
        }

    async def dispatch(self, target: str, body: bytes, caller: Caller) -> bytes:
        """The JSON of the answer. ``target`` is the whole X-Amz-Target header.

        Raises UnknownOperationException for what is not served, and what the operation raises.
        """
        found = self._item_operations.get(target)
        if found is None:
            operation = self._table_operations.get(target)
            if operation is None:
                return await self._dispatch_trigger(target, body, caller)
            return await operation(self._tables, caller, body)
        name, operation = found
        try:
            return await operation(self._tables, caller, body)
        except (InvalidRequest, MalformedRequest, ResourceNotFound):
            validation.read(name, body)
            raise

    async def _dispatch_trigger(self, target: str, body: bytes, caller: Caller) -> bytes:
        """An operation of our own; what it does may run code."""
        operation = TRIGGER_OPERATIONS.get(target)
        if operation is None or self._mappings is None:
            raise UnknownOperationException()
        if not (self._is_open or caller.functions):
            raise AccessDeniedException(
                f"{target.partition('.')[2]} takes a profile that says millstream_functions = true"
            )
        return await operation(await self._mappings(), caller, body)
