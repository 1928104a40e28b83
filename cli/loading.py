"""Loading modules at the start of the process, quickly."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Imports inside, without the garbage collector, which would take a fifth of the start.

    What is loaded stays to the end: the collector is spared looking at it later, too.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
