"""What a request costs in gateways, side by side in one run: nginx, HAProxy, the routers from PyPI, and ours.

    python -m tests.bench gateway [--quick] [--rounds 3] [--only us,nginx,...] [--json FILE]

Every system stands on loopback before the same three ports of a mock engine, with connections kept and access logs off.
Figures are taken in rounds, system after system within each, so that what drifts hits all alike. Absolute figures are
this machine's; what counts are the ratios. A system that cannot be had here is reported as absent.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from .cases import EVERY_ROUND, ONCE, Figures, Size, Target
from .load import Job
from .peers import PEERS, Absent
from .peers.start import start
from .processes import (
    EngineHandle,
    load,
    mock_engine,
    prepare,
    resident_mib,
)
from .report import summary, table, verdict_table, verdicts, with_added

QUICK = Size(plain_s=0.7, alone_s=0.3, chunks=50, stream_s=1.0)


class Bench:
    """One run: the systems that stand, those that do not, and what was measured."""

    def __init__(self, size: Size, say: Callable[[str], None]) -> None:
        self._size = size
        self._say = say
        self.targets: list[Target] = []
        self.missing: dict[str, str] = {}
        self.values: dict[str, dict[str, list[float]]] = {}

    def bring_up(self, names: Sequence[str], engine: EngineHandle, directory: Path, stack: ExitStack) -> None:
        """Start each system and note its memory before any load."""
        self.targets.append(Target("direct", engine.ports[0], None))
        for name in names:
            self._say(f"starting {name}")
            try:
                target = start(PEERS[name], engine, directory / name, stack)
            except Absent as exc:
                self.missing[name] = f"absent: {exc}"
                continue
            except RuntimeError as exc:
                self.missing[name] = f"failed: {exc}"
                continue
            assert target.pid is not None
            self.targets.append(target)
            self._note(target, {"resident_idle_mib": resident_mib(target.pid)})
        for target in list(self.targets):
            self._try(target, partial(self._warm, target))

    def _warm(self, target: Target) -> Figures:
        load(Job(target.port, 64, 10**9, seconds=0.3))
        load(Job(target.port, 8, 8, max_tokens=10))
        return {}

    def measure(self, rounds: int, engine: EngineHandle) -> None:
        """All cases, round by round."""
        for number in range(rounds):
            for case in (*EVERY_ROUND, *(ONCE if number == 0 else ())):
                self._say(f"round {number + 1} of {rounds}: {case.__name__.replace('_', ' ')}")
                # to and fro, so that none always comes after the same one
                for target in self.targets[:: -1 if number % 2 else 1]:
                    size = self._size.part(target.share)
                    self._try(target, partial(case, target, engine, size))

    def _try(self, target: Target, work: Callable[[], Figures]) -> None:
        try:
            self._note(target, work())
        except RuntimeError as exc:
            # one system's fault is its own row's: the others are measured on
            self.missing[target.name] = f"failed: {exc}"
            self.targets.remove(target)
            self._say(f"{target.name} failed: {exc}")

    def _note(self, target: Target, figures: Figures) -> None:
        row = self.values.setdefault(target.name, {})
        for name, value in figures.items():
            row.setdefault(name, []).append(value)


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    names = (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    return {
        "cores": os.cpu_count(),
        "processor": next(names, "unknown").partition(": ")[2],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": [round(each, 2) for each in os.getloadavg()],
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round of a smaller load")
    parser.add_argument("--rounds", type=int, help="default 3, or 1 with --quick")
    parser.add_argument("--only", default="", help=f"some of {','.join(PEERS)}")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    names = [name for name in options.only.split(",") if name] or list(PEERS)
    if unknown := [name for name in names if name not in PEERS]:
        parser.error(f"--only: {', '.join(unknown)}: not one of {', '.join(PEERS)}")
    rounds = options.rounds or (1 if options.quick else 3)
    prepare()
    bench = Bench(QUICK if options.quick else Size(), lambda line: print(line, file=sys.stderr, flush=True))
    facts = machine()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelyard-bench-")))
        engine = stack.enter_context(mock_engine())
        bench.bring_up(names, engine, directory, stack)
        bench.measure(rounds, engine)
    report(bench, facts, rounds, options.json)


def report(bench: Bench, facts: dict[str, Any], rounds: int, file: Path | None) -> None:
    """Print the tables and write the JSON."""
    values = with_added(bench.values)
    titles = {"direct": "direct", **{name: peer.title for name, peer in PEERS.items()}}
    found = verdicts(values, int(facts["cores"] or 1))
    print(f"{facts['cores']} cores, {facts['processor']}, load {facts['load_average']}, {rounds} rounds\n")
    print(table(values, titles, bench.missing))
    print()
    print(verdict_table(found))
    if file is None:
        return
    result = {
        "machine": facts,
        "rounds": rounds,
        "missing": bench.missing,
        "systems": {
            system: {name: {**summary(each), "values": each} for name, each in figures.items()}
            for system, figures in values.items()
        },
        "targets": found,
    }
    file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
