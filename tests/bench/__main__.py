"""All benchmarks in one go: tables on the terminal, JSON files for programs.

    python -m tests.bench [--out DIRECTORY] [NAME...]

Names are those of the modules `bench_<name>.py` beside this file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Run each benchmark in a process of its own, so that none warms up another."""
    names = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*names, []], help=", ".join(names))
    parser.add_argument("--out", type=Path, default=Path(".cache/bench"), help="where the JSON files go")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.names or names:
        print(f"\n== {name}", flush=True)
        command = [
            sys.executable,
            "-m",
            f"tests.bench.bench_{name}",
            "--json",
            str(options.out / f"{name}.json"),
        ]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    print(f"\nJSON: {options.out}")
    if failed:
        sys.exit(f"did not finish: {', '.join(failed)}")


if __name__ == "__main__":
    main()
