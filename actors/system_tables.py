"""The partitions that belong to the node itself, each described as a table.

In the order in which a new data directory gets them.
"""

from __future__ import annotations

from typing import Final

from ..storage.table_state import TOKEN_TREE
from .catalog import CATALOG_TABLE
from .checkpoints import CHECKPOINTS_TABLE
from .ledger import LEDGER_TABLE

SYSTEM_TABLES: Final = (LEDGER_TABLE, CATALOG_TABLE, CHECKPOINTS_TABLE)
SYSTEM_LOGS: Final = frozenset(log for table in SYSTEM_TABLES for log in table.log_ids())
SYSTEM_TREES: Final = frozenset(table.tree for table in SYSTEM_TABLES) | {TOKEN_TREE}
