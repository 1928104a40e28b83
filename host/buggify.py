"""Rare paths that a simulation may force, at places named in the code.

``if buggify("coordinator dies after prepare"):`` is False and costs one comparison, unless a
simulation has said who decides. Production never does.
"""

from __future__ import annotations

from collections.abc import Callable

_decide: Callable[[str], bool] | None = None


def buggify(place: str) -> bool:
    """Whether the rare thing shall happen at ``place`` now."""
    return _decide is not None and _decide(place)


def set_buggify(decide: Callable[[str], bool] | None) -> None:
    """For simulations and tests: who decides from now on (None: nobody, nothing happens)."""
    global _decide
    _decide = decide
