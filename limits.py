"""Every limit that millstream enforces, with its origin.

``D`` marks DynamoDB's documented limit, ``S`` our own sketch of the cost. Rooms append their block.
"""

from __future__ import annotations

# Items and values (D: "Service, account, and table quotas in Amazon DynamoDB").
ITEM_SIZE_BYTES_MAX = 409_600
PARTITION_KEY_BYTES_MAX = 2048
SORT_KEY_BYTES_MAX = 1024
NESTING_LEVELS_MAX = 32
NUMBER_DIGITS_MAX = 38
ATTRIBUTE_NAME_BYTES_MAX = 65_535
KEY_ATTRIBUTE_NAME_BYTES_MAX = 255

# Expressions (D).
EXPRESSION_BYTES_MAX = 4096
EXPRESSION_OPERATORS_MAX = 300
IN_OPERANDS_MAX = 100
PLACEHOLDER_BYTES_MAX = 255
SUBSTITUTIONS_BYTES_MAX = 2 * 1024 * 1024

# Requests (D).
PAGE_BYTES_MAX = 1024 * 1024
BATCH_GET_KEYS_MAX = 100
BATCH_WRITE_REQUESTS_MAX = 25
BATCH_BYTES_MAX = 16 * 1024 * 1024
SCAN_SEGMENTS_MAX = 1_000_000
LIST_TABLES_MAX = 100
TRANSACTION_ACTIONS_MAX = 100
TRANSACTION_BYTES_MAX = 4 * 1024 * 1024

# Numbers (D: "Supported data types", Number: 1E-130 to 9.99..E+125): the power of ten of the first
# digit.
NUMBER_MAGNITUDE_MAX = 125
NUMBER_MAGNITUDE_MIN = -130
