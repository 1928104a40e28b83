"""Which worlds the tests run, from seed 1 on; ``SIM_WORLDS=200`` asks for more of them."""

from __future__ import annotations

import os

SEEDS = list(range(1, 1 + int(os.environ.get("SIM_WORLDS", "20"))))
#: What needs many worlds runs only when many were asked for.
MANY = len(SEEDS) >= 100
#: Worlds of transactions cost more: fewer of them, unless more were asked for.
TRANSACTION_SEEDS = SEEDS if len(SEEDS) > 20 else SEEDS[:6]
#: So do worlds of triggers, a little.
TRIGGER_SEEDS = SEEDS if len(SEEDS) > 20 else SEEDS[:10]
#: Worlds of regions are two or three nodes each; some crash for minutes of simulated time.
REGION_SEEDS = SEEDS if len(SEEDS) > 20 else [3, 6, 7, 17, 21]
