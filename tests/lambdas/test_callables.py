"""What is awaited when it is called, and what is not."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from millstream.lambdas.callables import is_async


async def awaited(event: Any, context: Any) -> None: ...


def plain(event: Any, context: Any) -> None: ...


class Awaited:
    async def __call__(self, event: Any, context: Any) -> None: ...

    async def method(self, event: Any, context: Any) -> None: ...


class Plain:
    def __call__(self, event: Any, context: Any) -> None: ...


@pytest.mark.parametrize(
    "function", [awaited, functools.partial(awaited, None), Awaited(), Awaited().method]
)
def test_what_is_awaited(function: Any) -> None:
    assert is_async(function)


@pytest.mark.parametrize("function", [plain, functools.partial(plain, None), Plain(), Awaited, len])
def test_what_is_not(function: Any) -> None:
    assert not is_async(function)
