"""Compare the wish with what was seen, and say what would change. Touches nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.facts import Seen, see
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.plan import make_plan, redacted_plan
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.registry_model import proxy_entry
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import Model, Source
from ansible_collections.modelyard.fleet.plugins.plugin_utils.output import table, write_json
from ansible_collections.modelyard.fleet.plugins.plugin_utils.values import data
from ansible_collections.modelyard.fleet.plugins.plugin_utils.wish import Wish, read_wish

FACTS = "__fleet_facts"
MEMORY = "assignments.json"
GENERATION = "registry.json"
_REMEMBERED = ("replica", "model", "host", "index", "gpus", "port", "runtime", "engine", "hash", "spec")


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller only; needs no connection."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return ``plan`` (with secrets), ``report`` (without), ``ok`` and what is remembered; show the report."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            argument_spec={
                "result_file": {"type": "path"},
                "format": {"type": "str", "choices": ["table", "json", "none"], "default": "table"},
            }
        )
        try:
            return self._run(result, args, task_vars or {})
        except AnsibleError as error:
            Display().error(str(error.message))  # the task's own result may be hidden by no_log
            raise

    def _run(
        self,
        result: dict[str, Any],
        args: Mapping[str, Any],
        variables: Mapping[str, Any],
    ) -> dict[str, Any]:
        wish = read_wish(variables, self._loader)
        if wish.problems:
            raise AnsibleActionFail(
                "\n".join(["The inventory has problems; nothing was planned.", *map(str, wish.problems)])
            )
        remembered = read_memory(wish.state_dir / MEMORY)
        seen, notes = _see(wish, variables["hostvars"], remembered)
        models = [_model(model, wish.patterns) for model in _with_defaults(wish)]
        proxies = {name: proxy_entry(host.settings) for name, host in wish.hosts.items() if host.runs_proxy}
        plan = make_plan(models, seen, wish.engines, proxies, notes)
        clean = redacted_plan(plan)
        report = {**clean, "kind": "plan", "ok": not plan["problems"], "state_dir": str(wish.state_dir)}
        if args["result_file"]:
            write_json(args["result_file"], report)
        display = Display()
        if args["format"] == "json":
            display.display(json.dumps(report, indent=2, sort_keys=True))
        elif args["format"] == "table":
            for line, colour in table(report):
                display.display(line, color=colour)
        result.update(
            changed=False,
            ok=report["ok"],
            plan=plan,
            report=report,
            memory={"version": 1, "assignments": clean["assignments"]},
            memory_file=str(wish.state_dir / MEMORY),
            generation=read_generation(wish.state_dir / GENERATION),
            generation_file=str(wish.state_dir / GENERATION),
        )
        return result


def read_memory(path: Path) -> list[dict[str, Any]]:
    """The assignments of the last deploy; empty before the first one. A broken file stops the plan: without
    it, what runs on a host that does not answer would be forgotten.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        assignments: list[dict[str, Any]] = list(data["assignments"])
        if data["version"] != 1:
            raise ValueError(f"its version is {data['version']!r}, not 1")
        for item in assignments:
            for key in _REMEMBERED:
                item[key]  # each is needed for a host that does not answer
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AnsibleActionFail(
            f"{path} remembers what the last deploy applied and cannot be read ({error}). "
            "Restore it from a backup; if every host answers, it may be removed, since all that runs is then seen."
        ) from error
    return assignments


def read_generation(path: Path) -> int:
    """The generation of the registry that was written last; 0 when that is not known, which costs nothing while the
    proxies still have their registry.
    """
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["generation"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _see(
    wish: Wish,
    hostvars: Mapping[str, Any],
    remembered: Iterable[Mapping[str, Any]],
) -> tuple[list[Seen], list[str]]:
    before: dict[str, list[Mapping[str, Any]]] = {}
    for item in remembered:
        before.setdefault(item["host"], []).append(item)
    # A runtime that no model asks for and no host uses need not answer.
    asked = {model["runtime"] for model in wish.models if model.get("runtime")}
    seen, notes = [], []
    for name, host in wish.hosts.items():
        if not host.runs_engines:
            continue
        facts, why = _facts(hostvars[name])
        if why:
            notes.append(f"{name}: {why}")
        runtimes = {host.settings["fleet_runtime"]} | asked
        seen.append(see(name, host.settings, facts, before.pop(name, []), runtimes=runtimes))
    for name, items in sorted(before.items()):
        replicas = ", ".join(item["replica"] for item in items)
        notes.append(
            f"{name} is no longer an engine host of the inventory; not looked after any more: {replicas}"
        )
    return seen, notes


def _facts(variables: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """What the host said, or None and why not."""
    if FACTS not in variables:
        return None, ""
    facts = data(variables[FACTS])
    if not isinstance(facts, dict):
        return None, ""
    if "replicas" in facts:
        return facts, ""
    why = str(facts.get("msg") or "it could not be observed").strip()
    return None, why.splitlines()[0] if why else ""


def _with_defaults(wish: Wish) -> list[dict[str, Any]]:
    from modelyard.inventory import with_defaults  # read_wish has made sure that it is there

    return [with_defaults(model, wish.engines[model["engine"]]) for model in wish.models]


def _model(data: Mapping[str, Any], patterns: Mapping[str, Sequence[str]]) -> Model:
    placement = data["placement"]
    return Model(
        id=data["id"],
        name=data["name"],
        task=data["task"],
        engine=data["engine"],
        hosts=tuple(patterns[placement["hosts"]]),
        pattern=placement["hosts"],
        replicas=placement["replicas"],
        gpus=placement["gpus"],
        source=_source(data["source"]),
        image=data["image"],
        runtime=data["runtime"],
        args=data["args"],
        env={key: str(value) for key, value in data["env"].items()},
        resources=data["resources"],
        routing=data["routing"],
        smoke=data["smoke"],
    )


def _source(data: Mapping[str, Any] | None) -> Source | None:
    for kind, pin in (("hub", "revision"), ("path", None), ("url", "sha256")):
        if data and kind in data:
            return Source(kind, data[kind], data[pin] if pin else None)
    return None
