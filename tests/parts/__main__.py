"""``python -m tests.parts build [PART ...]``: build what the tests with containers need."""

from __future__ import annotations

import argparse
import sys

from tests.parts.building import PARTS, ensure, say_on_stderr
from tests.parts.errors import PartError


def main() -> int:
    """Run the command; 0 when all is there, 1 when a part cannot be built."""
    parser = argparse.ArgumentParser(prog="python -m tests.parts", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    build = verbs.add_parser("build", help="build parts that are not there yet, and what they need")
    build.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} or all (default: all)")
    verbs.add_parser("list", help="print each part's name, whether it is there, and its tag or place")
    arguments = parser.parse_args()
    try:
        if arguments.verb == "list":
            for part in PARTS.values():
                print(f"{part.name:8} {'ready' if part.is_built() else 'missing':8} {part.where()}")
            return 0
        wanted = arguments.parts or ["all"]
        unknown = [name for name in wanted if name != "all" and name not in PARTS]
        if unknown:
            parser.error(f"no part is called {', '.join(unknown)}; there are: {', '.join(PARTS)}, all")
        ensure(list(PARTS) if "all" in wanted else wanted, say_on_stderr)
    except PartError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
