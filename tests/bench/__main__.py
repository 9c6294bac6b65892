"""All benchmarks in one go: tables on the terminal, JSON files for programs.

    python -m tests.bench [--out DIRECTORY] [NAME...]
    python -m tests.bench NAME [OPTION...]

Names are those of the modules `bench_<name>.py` beside this file; the options of one are shown by
`python -m tests.bench.bench_<name> --help`.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def _run(command: list[str]) -> int:
    """The exit code of one benchmark. It is told once when this program is told to stop, and then waited for."""
    with subprocess.Popen(command, start_new_session=True) as process:
        stopped = False

        def stop(*_: object) -> None:
            nonlocal stopped
            if not stopped:
                process.send_signal(signal.SIGINT)
            stopped = True

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            code = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if stopped:
        sys.exit("stopped")
    return code


def main() -> None:
    """Run each benchmark in a process of its own, so that none warms up another."""
    names = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*names, []], help=", ".join(names))
    parser.add_argument("--out", type=Path, default=Path(".cache/bench"), help="where the JSON files go")
    options, passed_on = parser.parse_known_args()
    if passed_on and len(options.names) != 1:
        parser.error(f"{' '.join(passed_on)}: options of a benchmark go with the name of one")
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
            *passed_on,
        ]
        if _run(command):
            failed.append(name)
    print(f"\nJSON: {options.out}")
    if failed:
        sys.exit(f"did not finish: {', '.join(failed)}")


if __name__ == "__main__":
    main()
