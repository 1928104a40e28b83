"""What functions need and other rooms have: a catalog, an invoker, mappings."""

from __future__ import annotations

import importlib.util
import io
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from millstream.lambdas.functions import Function
from millstream.lambdas.results import Failed, Invocation, Result, Returned

SOURCE = "def handler(event, context):\n    return {'event': event}\n"
ROLE = "arn:aws:iam::123456789012:role/service"
FIELDS = {"runtime": "python3.12", "handler": "app.handler", "role": ROLE}


def package(source: str = SOURCE, **more: str) -> bytes:
    """A zip with ``app.py``, and whatever else is named."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, text in {"app.py": source, **more}.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return written.getvalue()


class FakeEntries:
    """The catalog's entries, in a dictionary that outlives who writes in it."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], bytes] = {}
        self.error: Exception | None = None

    def entries(self, kind: str) -> dict[str, bytes]:
        return {name: data for (of, name), data in self.rows.items() if of == kind}

    async def save_entry(self, kind: str, name: str, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        self.rows[kind, name] = data

    async def remove_entry(self, kind: str, name: str) -> None:
        await trio.lowlevel.checkpoint()
        self.rows.pop((kind, name), None)


class Context:
    """As much of a Lambda context as the tests' handlers look at."""

    def __init__(self, function: Function, invocation: Invocation) -> None:
        self.invocation = invocation
        self.environment = function.environment


class FakeInvoker:
    """Imports the handler and calls it, on the loop and in this process."""

    def __init__(self, function: Function, directory: Path) -> None:
        self.function = function
        self.directory = directory
        self.closed = 0
        self.invocations: list[tuple[Any, Invocation]] = []
        #: Set: invocations wait for it.
        self.gate: trio.Event | None = None

    async def invoke(
        self, event: Any, invocation: Invocation, transaction: object = None
    ) -> Result:
        assert not self.closed
        self.invocations.append((event, invocation))
        if self.gate is not None:
            await self.gate.wait()
        else:
            await trio.lowlevel.checkpoint()
        tail = f"START RequestId: {invocation.request_id}\n"
        try:
            handler = self._handler()
            return Returned(handler(event, Context(self.function, invocation)), tail)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises
            lines = traceback.format_tb(error.__traceback__)
            return Failed(type(error).__name__, str(error), lines, tail)

    def _handler(self) -> Callable[[Any, Any], Any]:
        module, _, name = self.function.handler.rpartition(".")
        spec = importlib.util.spec_from_file_location(module, self.directory / f"{module}.py")
        assert spec is not None and spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return getattr(loaded, name)

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        self.closed += 1


class Invokers:
    """A ``make_invoker`` that remembers what it has made."""

    def __init__(self) -> None:
        self.made: list[FakeInvoker] = []
        self.gate: trio.Event | None = None

    def __call__(self, function: Function, directory: Path) -> FakeInvoker:
        invoker = FakeInvoker(function, directory)
        invoker.gate = self.gate
        self.made.append(invoker)
        return invoker
