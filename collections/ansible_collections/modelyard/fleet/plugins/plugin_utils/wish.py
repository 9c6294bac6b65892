"""What the inventory wishes, read from the variables of a running play."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible_collections.modelyard.fleet.plugins.plugin_utils.values import Render, data, plain, renderer

try:
    from ansible_collections.modelyard.fleet.plugins.plugin_utils.held import HOLD_RESULT, InForce, in_force

    from modelyard import inventory as contract
    from modelyard.catalog import load_engines
except ImportError as error:
    _MISSING: ImportError | None = error
else:
    _MISSING = None

ENGINE_GROUP = "engine_hosts"
PROXY_GROUP = "proxy_hosts"
EDGE_GROUP = "edge"
_GROUPS = (ENGINE_GROUP, PROXY_GROUP, EDGE_GROUP)
FACTS = "__fleet_facts"
"""Where a play has what a host said of itself."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Models and hosts as the inventory gives them, and everything that is wrong with it.

    ``models`` are what is in force: held ones as their release had them, see ``in_force``; ``declared`` those of the
    inventory as they stand there.
    """

    models: list[dict[str, Any]]
    in_force: InForce
    hosts: Mapping[str, contract.HostView]
    patterns: Mapping[str, Sequence[str]]
    engines: Mapping[str, Mapping[str, Any]]
    problems: list[contract.Problem]
    state_dir: Path
    declared: Sequence[Mapping[str, Any]] = ()

    def capacity(
        self, gpus: Mapping[str, Any] | None = None, seen: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """GPUs by host and what models ask of them, without secrets; for a wish without problems. ``gpus`` and ``seen``:
        see ``modelyard.inventory.capacity``.
        """
        return contract.capacity(self.models, self.hosts, self.patterns, self.engines, gpus, seen)

    def needs(self) -> dict[str, Any]:
        """Images, weights and Python packages that the wish needs; for a wish without problems."""
        return contract.needs(self.models, self.hosts, self.patterns, self.engines)


def read_wish(task_vars: Mapping[str, Any], loader: Any) -> Wish:
    """Read models and hosts, check them on both levels. ``AnsibleError`` only for what no inventory can
    mend.
    """
    if _MISSING is not None:
        raise AnsibleError(
            f"The Python package modelyard cannot be imported by {sys.executable}: {_MISSING}. "
            "Run Ansible from the environment that modelyard[deploy] is installed in."
        )
    hostvars, groups = task_vars["hostvars"], task_vars["groups"]
    me = hostvars.raw_get(task_vars["inventory_hostname"])
    directory = me.get("inventory_dir")
    sources = contract.read_sources(Path(directory), Path.cwd()) if directory else contract.Sources()
    on_files = contract.check_files(directory, sources=sources) if directory else []

    unrendered: list[contract.Problem] = []
    models = _models(me, renderer(loader, me), unrendered)
    hosts = {
        name: _host(hostvars.raw_get(name), name, groups, loader, unrendered)
        for name in sorted({host for group in _GROUPS for host in groups.get(group, ())})
    }
    names = frozenset({*groups, *(host for members in groups.values() for host in members)})
    resolved = contract.Resolved(_patterns(models, groups, names, loader), names)
    engines = {name: engine.data for name, engine in load_engines().items()}
    on_values = contract.check(models, hosts, resolved, sources=sources, engines=engines)
    hidden = {problem.path for problem in unrendered}
    on_values = [problem for problem in on_values if problem.path not in hidden]
    located = [contract.locate(problem, sources) for problem in unrendered]
    settings = next(iter(hosts.values())).settings if hosts else {}
    state_dir = Path(str(settings.get("fleet_state_dir") or Path(str(directory or ".")) / ".modelyard"))
    problems = contract.merge(on_files, located, on_values)
    now = InForce(models if isinstance(models, list) else [])
    if not problems:
        told = (data(me.get(HOLD_RESULT)) or {}).get("holds")
        seen = {name: (hostvars.raw_get(name).get(FACTS) or {}).get("images") or {} for name in hosts}
        now = in_force(now.models, hosts, resolved.patterns, engines, state_dir, told, data(seen))
    return Wish(
        models=now.models,
        in_force=now,
        hosts=hosts,
        patterns=resolved.patterns,
        engines=engines,
        problems=problems,
        state_dir=state_dir,
        declared=tuple(models) if isinstance(models, list) and not problems else (),
    )


def _models(variables: Mapping[str, Any], render: Render, problems: list[contract.Problem]) -> Any:
    if "models" not in variables:
        close = get_close_matches("models", variables, n=1, cutoff=0.75)
        problems.append(
            contract.Problem(
                "no-models",
                "the inventory has no variable models.",
                ("models",),
                f"It has {close[0]}: rename that one."
                if close
                else "Declare them in group_vars/all/models.yml; an empty list is allowed.",
            )
        )
        return []

    def failed(path: tuple[Any, ...], why: str) -> None:
        problems.append(contract.Problem("template", f"cannot be rendered: {why}.", ("models", *path)))

    models = plain(variables["models"], failed, render)
    for at, problem in enumerate(problems):
        problems[at] = contract.named(problem, models)
    return models


def _host(
    variables: Mapping[str, Any],
    name: str,
    groups: Mapping[str, list[str]],
    loader: Any,
    problems: list[contract.Problem],
) -> contract.HostView:
    given = {}
    render = renderer(loader, variables)

    def value_of(key: str) -> Any:
        def failed(path: tuple[Any, ...], why: str) -> None:
            problems.append(
                contract.Problem("template", f"cannot be rendered: {why}.", (key, *path), host=name)
            )

        return plain(variables[key], failed, render)

    for key in variables:
        if key.startswith("fleet_"):
            found = value_of(key)
            if found is not None:
                given[str(key)] = found
    address = value_of("ansible_host") if "ansible_host" in variables else None
    local = "ansible_connection" in variables and value_of("ansible_connection") in (
        "local",
        "ansible.builtin.local",
    )
    return contract.HostView(
        name=name,
        given=given,
        settings=contract.host_settings(
            given,
            name=name,
            ansible_host=address,
            local=local,
            inventory_dir=variables.get("inventory_dir"),
            python=sys.executable,
        ),
        runs_engines=name in groups.get(ENGINE_GROUP, ()),
        runs_proxy=name in groups.get(PROXY_GROUP, ()),
    )


def _patterns(
    models: Any,
    groups: Mapping[str, list[str]],
    names: frozenset[str],
    loader: Any,
) -> dict[str, list[str]]:
    """Every host pattern that a model uses, resolved by Ansible itself and unaffected by ``--limit``."""
    manager = InventoryManager(loader, parse=False)
    for group, members in groups.items():
        manager.add_group(group)
        for host in members:
            manager.add_host(host, group=group)
    out: dict[str, list[str]] = {}
    for pattern in contract.patterns_of(models):
        if contract.unknown_terms(pattern, names):
            out[pattern] = []  # reported by the check; Ansible would only warn
        else:
            out[pattern] = sorted(str(host.name) for host in manager.get_hosts(pattern=pattern))
    return out
