"""Compare the wish with what was seen, and say what would change. Touches nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.modelyard.fleet.plugins.module_utils.planner import drains, launch
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.facts import Seen, see
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.plan import make_plan, redacted_plan
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.registry_model import proxy_entry
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import (
    Adoption,
    Model,
    Need,
    Pin,
)
from ansible_collections.modelyard.fleet.plugins.plugin_utils import memory
from ansible_collections.modelyard.fleet.plugins.plugin_utils.memory import source_of
from ansible_collections.modelyard.fleet.plugins.plugin_utils.output import table, write_json
from ansible_collections.modelyard.fleet.plugins.plugin_utils.values import data
from ansible_collections.modelyard.fleet.plugins.plugin_utils.wish import FACTS, Wish, read_wish

NO_NEED = Need()
COMPARED = "__fleet_compared"
MEMORY = "assignments.json"
GENERATION = "registry.json"
DRAINED = "drained.json"
UNPROVED = "unproved.json"
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
                "drained": {"type": "list", "elements": "dict"},
                "restart": {"type": "dict", "default": {}},
                "images": {"type": "dict", "default": {}},
                "without_host": {"type": "str", "default": ""},
                "fewer": {"type": "bool", "default": False},
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
        if wish.in_force.problems:
            raise AnsibleActionFail("\n".join(["Nothing was planned.", *wish.in_force.problems]))
        remembered = read_memory(wish.state_dir / MEMORY)
        entries = [_with_image(entry, data(args["images"])) for entry in entries_of(wish)]
        known = memory.read_known(wish.state_dir / MEMORY)
        facts = [variables["hostvars"][name].get(FACTS) for name in wish.hosts]
        configs = memory.configs_in(facts, known["weights"])
        models = [
            _of_this_run(model_of(entry, wish.patterns, memory.need_of(entry, configs)), args)
            for entry in entries
        ]
        seen, notes = _see(wish, variables["hostvars"], remembered, models)
        notes += [*wish.in_force.ended.values(), *(line for one in wish.in_force.held for line in _told(one))]
        drained = args["drained"]
        drained = read_drained(wish.state_dir / DRAINED) if drained is None else data(drained)
        proxies = {name: proxy_entry(host.settings) for name, host in wish.hosts.items() if host.runs_proxy}
        restart = [{"kind": kind, "name": str(name)} for kind, name in data(args["restart"]).items() if name]
        plan = make_plan(
            models,
            seen,
            wish.engines,
            proxies,
            notes,
            drained,
            restart,
            read_unproved(wish.state_dir / UNPROVED),
            _differs(variables["hostvars"], wish.hosts),
            known["footprints"],
        )
        if args["fewer"]:  # asked for: what cannot be placed is known
            plan["notes"], plan["problems"] = [*plan["notes"], *plan["problems"]], []
        clean = redacted_plan(plan)
        report = {
            **clean,
            "kind": "plan",
            "ok": not plan["problems"],
            "state_dir": str(wish.state_dir),
            "launches": _launches(wish, entries),
            "weights": _weights_names(
                [*(entry["source"] for entry in entries), *map(_declared, wish.declared)]
            ),
            "holds": list(wish.in_force.held),
            "ended_holds": sorted(wish.in_force.ended),
        }
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
            memory={
                "version": 1,
                "assignments": clean["assignments"],
                "footprints": plan["footprints"],
                "gpus": memory.gpus_seen(plan["hosts"], known["gpus"]),
                "weights": memory.configs_of(entries, configs),
            },
            memory_file=str(wish.state_dir / MEMORY),
            unproved_file=str(wish.state_dir / UNPROVED),
            drained_file=str(wish.state_dir / DRAINED),
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


def read_drained(path: Path) -> list[dict[str, Any]]:
    """What the operator has drained until further notice. A broken file stops the plan: what is worked on would get
    requests again.
    """
    try:
        return drains.read(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise AnsibleActionFail(
            f"{path} says what is drained and cannot be read ({error}). Restore it, or remove it and drain again what "
            "has to be."
        ) from error


def read_unproved(path: Path) -> dict[str, str]:
    """Hashes by replica that a run has started and not proved; empty when that is not known."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["unproved"]
        return {str(replica): str(value) for replica, value in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


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
    models: Iterable[Model],
) -> tuple[list[Seen], list[str]]:
    before: dict[str, list[Mapping[str, Any]]] = {}
    for item in remembered:
        before.setdefault(item["host"], []).append(item)
    # A runtime that no model asks for and no host uses need not answer.
    asked = {model["runtime"] for model in wish.models if model.get("runtime")}
    adoptions = [item for model in models for item in model.adopt]
    seen, notes = [], []
    for name, host in wish.hosts.items():
        if not host.runs_engines:
            continue
        facts, why = _facts(hostvars[name])
        if why:
            notes.append(f"{name}: {why}")
        runtimes = {host.settings["fleet_runtime"]} | asked
        here = [item for item in adoptions if item.host == name]
        seen.append(see(name, host.settings, facts, before.pop(name, []), runtimes=runtimes, adoptions=here))
    for name, items in sorted(before.items()):
        replicas = ", ".join(item["replica"] for item in items)
        notes.append(
            f"{name} is no longer an engine host of the inventory; not looked after any more: {replicas}"
        )
    return seen, notes


def _differs(hostvars: Mapping[str, Any], hosts: Iterable[str]) -> dict[str, str]:
    """By replica, what the full comparison on its host has found, where there was one."""
    found: dict[str, str] = {}
    for name in hosts:
        compared = data(hostvars[name].get(COMPARED)) or {}
        found |= {row["replica"]: row["reason"] for row in compared.get("replicas") or [] if row["changed"]}
    return found


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


def entries_of(wish: Wish) -> list[dict[str, Any]]:
    """The models with defaults; for a wish without problems."""
    from modelyard.inventory import with_defaults  # read_wish has made sure that it is there

    return [
        {**with_defaults(model, wish.engines[model["engine"]]), "images": model.get("images", {})}
        for model in wish.models
    ]


def _with_image(entry: dict[str, Any], images: Mapping[str, Any]) -> dict[str, Any]:
    """The entry with the image that this run wants for its engine, if it wants another."""
    image = images.get(entry["engine"])
    return {**entry, "image": str(image), "images": {}} if image else entry


def _told(held: Mapping[str, Any]) -> list[str]:
    return [held["text"], *held["notes"]]


def _launches(wish: Wish, entries: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What a release of each model would be, for the record: no secrets, no routing."""
    from ansible_collections.modelyard.fleet.plugins.plugin_utils.held import images_of

    from modelyard.releases import config_hash, launch_of

    held = {one["model"]: one["release"] for one in wish.in_force.held}
    out = {}
    for model in entries:
        launch = launch_of(model)
        images = images_of(model, wish.hosts, wish.patterns, wish.engines)
        out[model["id"]] = {
            "launch": launch,
            "images": images,
            "config": config_hash(launch, images),
            "rollback_of": held.get(model["id"]),
        }
    return out


def _of_this_run(model: Model, args: Mapping[str, Any]) -> Model:
    """The model as this run wants it: away from a host, or with fewer replicas."""
    away = args["without_host"]
    if away in model.hosts:
        model = replace(model, hosts=tuple(host for host in model.hosts if host != away))
    if args["fewer"]:
        model = replace(model, rollout={**model.rollout, "min_ready": 0})
    return model


def model_of(data: Mapping[str, Any], patterns: Mapping[str, Sequence[str]], need: Need = NO_NEED) -> Model:
    """A model with defaults as the planner has it."""
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
        source=source_of(data["source"]),
        image=data["image"],
        images=data["images"],
        runtime=data["runtime"],
        args=data["args"],
        env={key: str(value) for key, value in data["env"].items()},
        resources=data["resources"],
        routing=data["routing"],
        smoke=data["smoke"],
        rollout=data["rollout"],
        golden=data["golden"],
        adopt=_adoptions(data),
        pins=tuple(Pin(item["host"], tuple(str(gpu) for gpu in item["gpus"])) for item in placement["pin"]),
        need=need,
    )


def _adoptions(data: Mapping[str, Any]) -> tuple[Adoption, ...]:
    """The containers that a model with defaults adopts, each with the number of the replica that it is."""
    from modelyard.inventory import wish_digest  # read_wish has made sure that it is there

    digest = wish_digest(data)
    return tuple(
        Adoption(
            model=data["id"],
            engine=data["engine"],
            host=item["host"],
            container=item["container"],
            index=index,
            port=item.get("port"),
            served_name=item.get("served_name"),
            accepted=item.get("wish", digest) == digest,
        )
        for index, item in enumerate(data["adopt"])
    )


def _declared(model: Mapping[str, Any]) -> Any:
    return model.get("source")


def _weights_names(sources: Iterable[Any]) -> list[str]:
    """Names of the directories that these sources have on every host."""
    return sorted({name for source in sources if (name := launch.weights_name(source_of(source)))})
