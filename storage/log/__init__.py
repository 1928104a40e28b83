"""The log: a dense, conditional, durable run of entries per partition, behind one interface."""

from __future__ import annotations

from .entry import EntryHeader, chain_hash, decode_entry, encode_entry
from .interface import Append, Entry, LogEngine

__all__ = [
    "Append",
    "Entry",
    "EntryHeader",
    "LogEngine",
    "chain_hash",
    "decode_entry",
    "encode_entry",
]
