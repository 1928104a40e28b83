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


class EntropyChance:
    """A source's bytes as numbers, for what asks for the methods of ``random.Random``."""

    __slots__ = ("_entropy",)

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy

    def random(self) -> float:
        """A number from 0 up to, not with, 1."""
        return self.randrange(1 << 53) / (1 << 53)

    def randrange(self, stop: int, /) -> int:
        """A number from 0 to ``stop`` - 1."""
        # Eight bytes more than are needed: the lower numbers are no likelier than others by 2**-64.
        count = stop.bit_length() // 8 + 9
        return int.from_bytes(self._entropy.token_bytes(count), "big") % stop
