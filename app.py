"""Finds the triggers that ``millstream serve --app MODULE:NAME`` names."""

from __future__ import annotations

import importlib
import os
import sys

from .errors import ConfigurationError
from .triggers import Triggers


def load_app(name: str) -> Triggers:
    """The ``Triggers`` that ``MODULE:NAME`` stands for; the working directory is importable.

    Raises ConfigurationError where there is none, with the reason. Whatever the module itself
    raises while it is imported passes, with its traceback.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise ConfigurationError(f"app: {name!r} is not of the form MODULE:NAME")
    directory = os.getcwd()
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigurationError(f"app: there is no module {error.name!r}") from None
    found = getattr(module, attribute, None)
    if not isinstance(found, Triggers):
        raise ConfigurationError(f"app: {module_name} has no Triggers called {attribute!r}")
    return found
