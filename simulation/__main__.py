"""``python -m millstream.simulation --seed 1 --worlds 20``: one line a world, and last ones.

Each seed gives a world of items, one of transactions and one of triggers, unless ``--kind`` wants
one of them.

Ends with status 1 if a world failed, having said which and how to see it again.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
import traceback

import msgspec

from .world import KINDS, Report, SimulationFailed, run_world


def main(arguments: list[str] | None = None) -> int:
    """Run the worlds asked for; the process's exit status."""
    parser = argparse.ArgumentParser(prog="millstream.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first world")
    parser.add_argument("--worlds", type=int, default=20, help="how many, with consecutive seeds")
    parser.add_argument("--kind", choices=("all", *KINDS), default="all")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at a failure")
    parser.add_argument("--quiet", action="store_true", help="only failures and sums")
    parser.add_argument("--verbose", action="store_true", help="the nodes' logs, and stacks")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO if given.verbose else logging.CRITICAL + 1)
    kinds = KINDS if given.kind == "all" else (given.kind,)
    totals = {kind: Report(given.seed, kind, "") for kind in kinds}
    done, failed = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0)
    seeds = range(given.seed, given.seed + given.worlds)
    for seed, kind in itertools.product(seeds, kinds):
        done[kind] += 1
        try:
            report = run_world(seed, kind)
        except SimulationFailed as failure:
            failed[kind] += 1
            print(failure, flush=True)
            if given.verbose:
                traceback.print_exception(failure)
            if not given.keep_going:
                break
        else:
            if not given.quiet:
                print(report, flush=True)
            totals[kind] = _sum(totals[kind], report)
    for kind in kinds:
        summary = totals[kind].summary()
        print(f"{done[kind]} worlds of {kind}, {failed[kind]} failed: {summary}")
    return 1 if any(failed.values()) else 0


def _sum(total: Report, report: Report) -> Report:
    counts = {
        name: getattr(total, name) + getattr(report, name)
        for name in Report.__struct_fields__
        if name not in ("seed", "kind", "trace")
    }
    return msgspec.structs.replace(total, **counts)


if __name__ == "__main__":
    sys.exit(main())
