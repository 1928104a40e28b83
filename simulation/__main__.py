"""``python -m millstream.simulation --seed 1 --worlds 20``: one line a world, and a last one.

Ends with status 1 if a world failed, having said which and how to see it again.
"""

from __future__ import annotations

import argparse
import logging
import sys
import traceback

import msgspec

from .world import Report, SimulationFailed, run_world


def main(arguments: list[str] | None = None) -> int:
    """Run the worlds asked for; the process's exit status."""
    parser = argparse.ArgumentParser(prog="millstream.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first world")
    parser.add_argument("--worlds", type=int, default=20, help="how many, with consecutive seeds")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at a failure")
    parser.add_argument("--verbose", action="store_true", help="the nodes' logs, and stacks")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO if given.verbose else logging.CRITICAL + 1)
    total = Report(given.seed, "")
    failed = 0
    for seed in range(given.seed, given.seed + given.worlds):
        try:
            report = run_world(seed)
        except SimulationFailed as failure:
            failed += 1
            print(failure, flush=True)
            if given.verbose:
                traceback.print_exception(failure)
            if not given.keep_going:
                break
        else:
            print(report, flush=True)
            total = _sum(total, report)
    done = given.worlds if given.keep_going else seed - given.seed + 1
    print(f"{done} worlds, {failed} failed: {total.summary()}")
    return 1 if failed else 0


def _sum(total: Report, report: Report) -> Report:
    counts = {
        name: getattr(total, name) + getattr(report, name)
        for name in Report.__struct_fields__
        if name not in ("seed", "trace")
    }
    return msgspec.structs.replace(total, **counts)


if __name__ == "__main__":
    sys.exit(main())
