"""The B+tree: committed rows in LMDB (or memory) under a memtable.

``btree.BTree`` is what the partition machine holds; ``interface.TreeStore`` is what it stands on.
"""

from __future__ import annotations

from .btree import BTree, Frozen
from .interface import TreeReader, TreeStore
from .layers import Snapshot

__all__ = ["BTree", "Frozen", "Snapshot", "TreeReader", "TreeStore"]
