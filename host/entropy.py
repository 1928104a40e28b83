"""The door to chance: identifiers and nonces come from here, so that a seed can replay them."""

from __future__ import annotations

import os
from typing import Protocol


class Entropy(Protocol):
    """A source of unpredictable bytes."""

    def token_bytes(self, count: int) -> bytes:
        """``count`` bytes."""
        ...


class RealEntropy:
    """The operating system's."""

    __slots__ = ()

    def token_bytes(self, count: int) -> bytes:
        return os.urandom(count)
