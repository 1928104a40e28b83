"""millstream: a durable DynamoDB-compatible database in one process.

The facade. ``open_database`` gives a ``Database`` inside a trio program, ``open_regions`` several
that replicate each other's tables; ``serve`` runs a node that AWS SDKs can use; the errors are
those of ``millstream.errors``. Everything is loaded on first use (PEP 562), so that ``import
millstream`` costs nothing and has no side effect.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .changes import Change, changes_of
    from .config import Settings
    from .database import Database, Table, open_database
    from .definitions import Index
    from .errors import (
        Ambiguous,
        ConditionFailed,
        ConfigurationError,
        Conflict,
        Corrupt,
        DirectoryInUse,
        IdempotentParameterMismatch,
        InvalidRequest,
        ItemCollectionTooLarge,
        LimitExceeded,
        LinkError,
        LinkLost,
        LinkRefused,
        MalformedRequest,
        MillstreamError,
        OutcomeUnknown,
        RequestError,
        ResourceInUse,
        ResourceNotFound,
        StaleReplica,
        StorageError,
        Throttled,
        TransactionCanceled,
        TransactionConflict,
        TransactionInProgress,
        Trimmed,
        Unavailable,
        WrongFormat,
    )
    from .globaltables.policies import by_attribute
    from .regions import Regions, open_regions
    from .service import run_service as serve
    from .sessions import BoundedStaleness, Session
    from .transaction import Transaction
    from .triggers import Triggers

__version__ = "0.1.0"

__all__ = [
    "Database", "Index", "Regions", "Settings", "Table", "Transaction", "Triggers", "Change",
    "BoundedStaleness", "Session", "by_attribute", "changes_of", "open_database", "open_regions",
    "serve",
    "Ambiguous", "ConditionFailed", "ConfigurationError", "Conflict", "Corrupt", "DirectoryInUse",
    "IdempotentParameterMismatch", "InvalidRequest", "ItemCollectionTooLarge", "LimitExceeded",
    "LinkError", "LinkLost", "LinkRefused", "MalformedRequest", "MillstreamError", "OutcomeUnknown",
    "RequestError", "ResourceInUse", "ResourceNotFound", "StaleReplica", "StorageError",
    "Throttled", "TransactionCanceled", "TransactionConflict", "TransactionInProgress", "Trimmed",
    "Unavailable", "WrongFormat",
]  # fmt: skip

# Module and attribute of each name that is not an error.
_HOMES = {
    "Database": ("database", "Database"),
    "Settings": ("config", "Settings"),
    "open_database": ("database", "open_database"),
    "open_regions": ("regions", "open_regions"),
    "Regions": ("regions", "Regions"),
    "serve": ("service", "run_service"),
    "Index": ("definitions", "Index"),
    "BoundedStaleness": ("sessions", "BoundedStaleness"),
    "Session": ("sessions", "Session"),
    "by_attribute": ("globaltables.policies", "by_attribute"),
    "Table": ("database", "Table"),
    "Transaction": ("transaction", "Transaction"),
    "Triggers": ("triggers", "Triggers"),
    "Change": ("changes", "Change"),
    "changes_of": ("changes", "changes_of"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module_name, attribute = _HOMES.get(name, ("errors", name))
    if not __debug__ and module_name in ("database", "regions", "service", "transaction"):
        # The asserts guard the data: a node that cannot notice that it is wrong must not run.
        raise RuntimeError("millstream refuses to run under python -O or PYTHONOPTIMIZE")
    value = getattr(importlib.import_module("." + module_name, __name__), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
