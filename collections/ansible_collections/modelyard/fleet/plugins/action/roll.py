"""The book of a roll: what each step has done, told as it goes. Runs on the controller and connects to nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.modelyard.fleet.plugins.module_utils import rolling
from ansible_collections.modelyard.fleet.plugins.plugin_utils.output import write_json
from ansible_collections.modelyard.fleet.plugins.plugin_utils.values import data

PROXY_WORD = "__roll_proxy"
HOST_WORD = "__roll_host"


class ActionModule(ActionBase):  # type: ignore[misc]
    """Arguments: ``phase``, ``plan`` (redacted), ``book`` (of the task before), ``step`` and ``proxies`` (names of the
    hosts whose word counts) and ``memory``, the file that says what was started and not proved: a run that is cut off
    leaves it behind.

    Phases: ``meet`` (who is there at all), ``begin`` a step, ``drained`` (have all proxies let go?), ``done`` (what have
    the engine hosts done?) and ``close`` (do all proxies use it?). A host that was lost on the way has said nothing in
    this step, so it counts as missing, unreachable or not.
    """

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the ``book``; its ``halt`` says why the roll ends here, if it does."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            argument_spec={
                "phase": {
                    "type": "str",
                    "choices": ["meet", "begin", "drained", "done", "close"],
                    "required": True,
                },
                "plan": {"type": "dict", "required": True},
                "book": {"type": "dict", "default": {}},
                "memory": {"type": "path"},
                "step": {"type": "dict", "default": {}},
                "proxies": {"type": "list", "elements": "str", "default": []},
            }
        )
        plan, book, step = data(args["plan"]), data(args["book"]), data(args["step"])
        self._vars = (task_vars or {})["hostvars"]
        self._show = Display().display
        before = book.get("unproved")
        book = getattr(self, f"_{args['phase']}")(plan, book or rolling.empty_book(), step, args["proxies"])
        if args["memory"] and book["unproved"] != before and not self._task.check_mode:
            write_json(args["memory"], {"version": 1, "unproved": book["unproved"]})
        return result | {"changed": False, "book": book}

    def _meet(self, plan: Any, book: Any, step: Any, proxies: list[str]) -> Any:
        silent = self._silent(0, proxies)
        if silent and plan["rollout"]["before"]:
            book = rolling.keep(
                book,
                [
                    f"{name}: its proxy is not known to have let go of replicas, so requests would be cut and nothing was "
                    "changed. Bring it back (or into --limit), or, when it is surely gone, go on with "
                    f"-e without_proxies={name}"
                    for name in silent
                ],
            )
        return {**book, "unproved": plan["unproved"], "began_at": time.time(), "took_s": []}

    def _begin(self, plan: Any, book: Any, step: Any, proxies: list[str]) -> Any:
        book = rolling.begin(book, step, plan) | {"step_at": time.time()}
        took = book["took_s"]
        left = f", about {_span(sum(took) / len(took) * (step['of'] - len(took)))} left" if took else ""
        self._show("")
        self._show(f"Step {step['number']} of {step['of']} ({step['kind']}){left}")
        for verb, ids in (("changes", step["replicas"]), ("stops", step["stops"])):
            if ids:
                self._show(f"  {verb}: {_some(ids)}")
        if step["drain"]:
            self._show(
                f"  draining on {len(proxies)} {'proxy' if len(proxies) == 1 else 'proxies'}: {_some(step['drain'])}"
            )
        return book

    def _drained(self, plan: Any, book: Any, step: Any, proxies: list[str]) -> Any:
        silent = self._silent(step["number"], proxies) if step["drain"] else []
        if silent:
            return rolling.keep(
                book, (self._why(name, "has not let go of the step's replicas") for name in silent)
            )
        since = f" after {time.time() - book['step_at']:.0f} s" if step["drain"] else ""
        self._show(
            f"  drained{since}, now on {_some(step['hosts'])}"
            if step["drain"]
            else f"  on {_some(step['hosts'])}"
        )
        return book

    def _done(self, plan: Any, book: Any, step: Any, proxies: list[str]) -> Any:
        told = {}
        for host in step["hosts"]:
            word = data(self._vars[host].get(HOST_WORD)) if host in self._vars else None
            told[host] = word if word and word.get("step") == step["number"] else None
        book = rolling.settle(book, step, told, plan)
        for host, word in told.items():
            if word and word["put_back"]:
                self._show(f"  {host}: put back to what it was: {_some(word['put_back'])}")
        return book

    def _close(self, plan: Any, book: Any, step: Any, proxies: list[str]) -> Any:
        silent = self._silent(-step["number"], proxies)
        if silent:
            book = rolling.keep(
                book, (self._why(name, "does not use the step's replicas") for name in silent)
            )
        took_s = time.time() - book["step_at"]
        book = {**book, "took_s": [*book["took_s"], took_s]}
        if book["halt"]:
            self._show("  the roll stops here; later replicas and hosts are as they were:")
            for line in book["halt"]:
                self._show(f"    {line}")
        else:
            self._show(f"  done in {_span(took_s)}; {step['of'] - step['number']} steps left")
        return book

    def _silent(self, number: int, proxies: Iterable[str]) -> list[str]:
        """Proxies that have not said the word of this number."""
        return [
            name
            for name in proxies
            if name not in self._vars or (data(self._vars[name].get(PROXY_WORD)) or {}).get("step") != number
        ]

    def _why(self, name: str, what: str) -> str:
        said = (data(self._vars[name].get(PROXY_WORD)) or {}).get("why") if name in self._vars else None
        return said or f"{name}: its proxy {what} (the host was lost on the way)"


def _some(names: list[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
