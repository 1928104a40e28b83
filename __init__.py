"""millstream: a durable DynamoDB-compatible database in one process.

The facade. Everything is loaded on first use (PEP 562), so that ``import millstream`` costs nothing.
"""

from __future__ import annotations

__version__ = "0.1.0"
