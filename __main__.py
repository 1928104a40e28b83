"""``python -m millstream`` and the console script ``millstream``."""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> int:
    """Run the command line (default: the process's own) and return the exit code."""
    if not __debug__:
        # The asserts guard the data: a node that cannot notice that it is wrong must not run.
        print("millstream: refuses to run under python -O or PYTHONOPTIMIZE", file=sys.stderr)
        return 2
    from .cli.loading import loading

    with loading():
        from .cli.parser import build, parse

    found = parse(sys.argv[1:] if arguments is None else arguments)
    match found.command:
        case "serve":
            with loading():
                from .cli.serve import serve_command

            return serve_command(found)
        case "demo":
            from .demo.program import demo_command

            return demo_command(found.endpoint)
        case "scrub":
            from .cli.scrub import scrub_command

            return scrub_command(found)
        case "triggers":
            from .cli.triggers import triggers_command

            return triggers_command(found)
        case "regions":
            from .cli.regions import regions_command

            return regions_command(found)
        case _:
            build()[0].print_help()
            return 2


if __name__ == "__main__":
    sys.exit(main())
