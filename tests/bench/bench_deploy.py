"""An unchanged `deploy` over test hosts, beside the same wish as plain loops over `community.docker.docker_container`.

Each host is a container with SSH and a Docker engine of its own, each replica an echo engine in a container there.
Both ways find what they want already; what is measured is the wall-clock time of `ansible-playbook`, start included,
in turn and after one run that is not counted. `deploy` also plans, checks the registry, and asks every replica and the
proxy for a generation; the loops ask each container for its health, or (the column after) for nothing.

Needs a Docker engine, root or its group, and the collections of `make collections`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.bench.processes import prepare
from tests.hosts.inventories import write_inventory
from tests.hosts.lab import Lab
from tests.hosts.machine import Host
from tests.hosts.owner import sweep
from tests.parts import echo_image, wheelhouse
from tests.parts.building import PARTS, ensure, say_on_stderr
from tests.parts.errors import PartError

REPOSITORY = Path(__file__).resolve().parents[2]
PLAIN_PORT = 9000
_CHANGED = re.compile(r"^\S+\s+: ok=\d+\s+changed=(\d+)", re.MULTILINE)

WAYS = {
    "deploy": ("playbooks/deploy.yml", ()),
    "loops, health": ("tests/bench/loops/deploy.yml", ()),
    "loops": ("tests/bench/loops/deploy.yml", ("--skip-tags", "health")),
}


def wish(directory: Path, hosts: Sequence[Host], replicas: int) -> Path:
    """Write an inventory with so many replicas on each of `hosts`, for both ways; return it."""
    fleet = {
        "fleet_name": "bench",
        "fleet_accelerator": "cpu",
        "fleet_container_ulimits": {},  # the engines of the test hosts lack CAP_SYS_RESOURCE
        "fleet_proxy_listen": hosts[0].address,
        "fleet_proxy_wheelhouse": str(wheelhouse.directory()),
    }
    model = {
        "id": "echo",
        "engine": "echo",
        "image": echo_image.tag(),
        "placement": {"replicas": replicas * len(hosts), "gpus": 0},
        # all at once: between the sizes they are only brought up
        "rollout": {"min_ready": 0, "canary": 0, "step": "100%"},
    }
    write_inventory(directory, {"engine_hosts": hosts, "proxy_hosts": hosts[:1]}, [model], fleet)
    for host in hosts:
        place = directory / "host_vars" / f"{host.name}.yml"
        place.parent.mkdir(exist_ok=True)
        place.write_text(yaml.safe_dump({"containers": [plain(host, number) for number in range(replicas)]}))
    return directory


def plain(host: Host, number: int) -> dict[str, Any]:
    """One container of the loops."""
    return {
        "name": f"plain-{number}",
        "image": echo_image.tag(),
        "command": ["--model", "echo", "--host", "0.0.0.0", "--port", "8000", "--grace", "5"],
        "address": host.address,
        "port": PLAIN_PORT + number,
    }


def play(inventory: Path, playbook: str, more: Sequence[str] = ()) -> tuple[float, int]:
    """Seconds that a playbook took, and how many tasks changed something. ``RuntimeError`` when it fails."""
    begin = time.perf_counter()
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory), playbook, *more],
        cwd=REPOSITORY,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    took_s = time.perf_counter() - begin
    if done.returncode:
        raise RuntimeError(f"{playbook} failed:\n{(done.stdout + done.stderr)[-6000:]}")
    return took_s, sum(int(number) for number in _CHANGED.findall(done.stdout))


def measure(inventory: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each way, round by round. ``RuntimeError`` when one of them changed anything."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds + 1):
        for way, (playbook, more) in WAYS.items():
            took_s, changed = play(inventory, playbook, more)
            if number == 0:
                continue  # brings it up, or opens the connections
            if changed:
                raise RuntimeError(f"{way}: an unchanged wish changed {changed} tasks")
            found[way].append(took_s)
    return found


def row(hosts: int, replicas: int, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """The figures of one size: medians, least and greatest, and how many times faster than the loops with health."""
    ours, theirs = seconds["deploy"], seconds["loops, health"]
    return {
        "hosts": hosts,
        "replicas_per_host": replicas,
        "seconds": {
            way: {
                "min": round(min(each), 2),
                "median": round(statistics.median(each), 2),
                "max": round(max(each), 2),
            }
            for way, each in seconds.items()
        },
        "loops_over_deploy": round(statistics.median(b / a for a, b in zip(ours, theirs, strict=True)), 2),
    }


def line(cells: Sequence[str]) -> str:
    """One line of the table."""
    return "".join(cell.rjust(width) for cell, width in zip(cells, (6, 10, 24, 24, 24, 16), strict=True))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 3, 10])
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 4, 8], help="replicas of each host")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="1 and 3 hosts with 1 and 4 replicas, one round")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    if options.quick:
        options.hosts, options.replicas, options.rounds = [1, 3], [1, 4], 1
    prepare()  # so that the hosts go also when this is told to end
    try:
        ensure([name for name in PARTS if name != "plain"], say_on_stderr)
    except PartError as error:
        print(f"not measured: {error}")
        return
    sweep()
    results: list[dict[str, Any]] = []
    print(
        f"unchanged deploy, seconds as min - median - max of {options.rounds}, load {os.getloadavg()[0]:.1f}"
    )
    print(line(["hosts", "replicas", *WAYS, "times faster"]), flush=True)
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as name:
        for count in sorted(options.hosts):
            directory = Path(name, str(count))
            directory.mkdir()
            with Lab(directory, random.Random()) as lab:
                hosts = lab.start(*(f"host{number:02}" for number in range(count)))
                for host in hosts:
                    host.load_images([echo_image.tag()])
                for replicas in sorted(options.replicas):
                    inventory = wish(directory / "inventory", hosts, replicas)
                    play(inventory, "playbooks/site.yml")
                    found = row(count, replicas, measure(inventory, options.rounds))
                    results.append(found)
                    shown = [
                        " - ".join(f"{value:.1f}" for value in each.values())
                        for each in found["seconds"].values()
                    ]
                    cells = [str(count), str(count * replicas), *shown, f"{found['loops_over_deploy']:.1f}"]
                    print(line(cells), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"rounds": options.rounds, "cases": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
