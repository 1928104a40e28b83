"""A trigger: a handler, the table whose changes it gets, and how it is called.

What Python code registers. Only the mapping's name, table and settings are ever stored; the
handler is found again, by the name, at the next start. Pure values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ..limits import (
    FUNCTION_MEMORY_MB_DEFAULT,
    HANDLER_TIMEOUT_SECONDS_DEFAULT,
)
from .settings import MappingSettings

LOOP, THREAD, PROCESS = "loop", "thread", "process"


class Trigger(msgspec.Struct, frozen=True):
    """One registered handler. ``isolation`` is ``loop``, ``thread`` or ``process``.

    ``on_failure`` is a Python callable that gets the document of a batch that was given up; its
    name is in ``settings``. ``stream_view`` is that of the stream which a table without one gets.
    """

    name: str
    table: str
    handler: Callable[..., Any]
    settings: MappingSettings
    isolation: str
    timeout_seconds: float = HANDLER_TIMEOUT_SECONDS_DEFAULT
    memory_limit_mb: int = FUNCTION_MEMORY_MB_DEFAULT
    on_failure: Callable[[dict[str, Any]], Any] | None = None
    stream_view: str = "NEW_AND_OLD_IMAGES"
