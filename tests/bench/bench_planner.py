"""How long the planner takes on a large fleet.

    python -m tests.bench.bench_planner [--hosts 1000] [--gpus 8] [--models 500] [--json FILE]

Three plans: of an empty fleet, of the same wish once it runs, and of one changed model. A measurement, not a test: it
asserts what is planned, never how fast.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.planner.facts import Seen
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.plan import (
    Plan,
    make_plan,
    redacted_plan,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import (
    UP,
    Current,
    Host,
    Model,
    Source,
)

from modelyard.catalog import load_engines


def fleet(hosts: int, gpus: int, models: int) -> tuple[list[Host], list[Model]]:
    """A wish that fills about nine tenths of the GPUs; always the same one."""
    rng = random.Random(1)
    machines = [
        Host(
            name=f"gpu{at:04}",
            accelerator="nvidia",
            gpus=tuple(str(gpu) for gpu in range(gpus)),
            address=f"10.{at // 62500}.{at // 250 % 250}.{at % 250 + 1}",
        )
        for at in range(hosts)
    ]
    names = tuple(host.name for host in machines)
    left = hosts * gpus * 9 // 10
    wished = []
    for at in range(models):
        size = rng.choice([1, 1, 1, 2, 2, 4])
        replicas = max(1, left // (models - at) // size)
        left -= replicas * size
        wished.append(
            Model(
                id=f"model-{at:04}",
                name=f"Model {at}",
                task="generate",
                engine="vllm",
                hosts=names,
                pattern="engine_hosts",
                replicas=replicas,
                gpus=size,
                source=Source("hub", f"org/model-{at}", "0" * 40),
                args={"max_model_len": 8192, "gpu_memory_utilization": 0.9},
                env={"HF_TOKEN": "x"},
            )
        )
    return machines, wished


def running(plan: Plan) -> dict[str, list[Current]]:
    """The replicas that would be observed once the plan has been carried out, by host."""
    found: dict[str, list[Current]] = {}
    for item in redacted_plan(plan)["assignments"]:
        found.setdefault(item["host"], []).append(
            Current(
                replica=item["replica"],
                model=item["model"],
                host=item["host"],
                index=item["index"],
                state=UP,
                gpus=tuple(item["gpus"]),
                port=item["port"],
                runtime=item["runtime"],
                engine=item["engine"],
                hash=item["hash"],
                spec=item["spec"],
            )
        )
    return found


def measure(work: Callable[[], Plan], rounds: int) -> tuple[float, Plan]:
    """Best wall-clock seconds of some rounds, and the plan."""
    best, plan = float("inf"), {}
    for _ in range(rounds):
        begin = time.perf_counter()
        plan = work()
        best = min(best, time.perf_counter() - begin)
    return best, plan


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    engines = {name: engine.data for name, engine in load_engines().items()}
    hosts, models = fleet(options.hosts, options.gpus, options.models)

    def plan_of(wish: list[Model], now: dict[str, list[Current]]) -> Plan:
        return make_plan(wish, [Seen(host, tuple(now.get(host.name, ()))) for host in hosts], engines)

    results: dict[str, Any] = {"python": platform.python_version(), "cases": {}}
    print(f"{options.hosts} hosts x {options.gpus} GPUs x {options.models} models, best of {options.rounds}")
    empty_s, first = measure(lambda: plan_of(models, {}), options.rounds)
    now = running(first)
    same_s, second = measure(lambda: plan_of(models, now), options.rounds)
    changed = [replace(models[0], args={"max_model_len": 4096}), *models[1:]]
    one_s, third = measure(lambda: plan_of(changed, now), options.rounds)
    for name, seconds, plan in (
        ("empty fleet", empty_s, first),
        ("unchanged wish", same_s, second),
        ("one model changed", one_s, third),
    ):
        results["cases"][name] = {"seconds": round(seconds, 3), "counts": plan["counts"]}
        print(f"  {name:<20}{seconds:8.3f} s   {plan['counts']}")
    moved = sum(second["counts"][action] for action in ("start", "stop", "replace"))
    if moved:
        raise SystemExit(f"an unchanged wish moved {moved} replicas")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
