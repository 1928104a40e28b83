"""Text to tree to decision: DynamoDB's expression languages, and the legacy parameters.

Pure: no table, no clock, no storage. A request's expressions are compiled together
(``compile_expressions``), and the trees that come out decide about items. They are values that can
travel to a partition inside a command, next to the request's values.
"""

from .compiler import (
    Compiled,
    check_filter_keys,
    check_scalar_keys,
    check_update_keys,
    compile_expressions,
)
from .keyconditions import KeyCondition, KeyConstraint, KeyRange
from .legacy import (
    check_not_mixed,
    legacy_condition,
    legacy_filter,
    legacy_key_conditions,
    legacy_projection,
    legacy_update,
)
from .nodes import Condition, Projection
from .updates import Update, UpdateOutcome

__all__ = [
    "Compiled",
    "Condition",
    "KeyCondition",
    "KeyConstraint",
    "KeyRange",
    "Projection",
    "Update",
    "UpdateOutcome",
    "check_filter_keys",
    "check_not_mixed",
    "check_scalar_keys",
    "check_update_keys",
    "compile_expressions",
    "legacy_condition",
    "legacy_filter",
    "legacy_key_conditions",
    "legacy_projection",
    "legacy_update",
]
