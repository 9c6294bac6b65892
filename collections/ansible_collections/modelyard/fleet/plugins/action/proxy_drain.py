"""Wait, from the controller, until a proxy has let go of replicas or uses them again; say what is waited for."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.modelyard.fleet.plugins.module_utils.draining import lacks
from ansible_collections.modelyard.fleet.plugins.modules.proxy_drain import SPEC
from ansible_collections.modelyard.fleet.plugins.plugin_utils.progress import Progress

PATIENCE_SILENT_S = 15.0
"""How long a proxy that is neither up nor surely down may be silent."""


class ActionModule(ActionBase):  # type: ignore[misc]
    """Looks with the module of the same name, in short calls."""

    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the last look and ``cut``; fail when the proxy does not follow."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, wish = self.validate_argument_spec(argument_spec=SPEC)
        host = (task_vars or {}).get("inventory_hostname", "proxy")
        progress = Progress(host)
        begun = quiet_since = time.monotonic()
        pause = 0.2
        while True:
            seen: dict[str, Any] = self._execute_module(
                module_name="modelyard.fleet.proxy_drain", module_args=wish, task_vars=task_vars
            )
            if seen.get("failed") or "state" not in seen:
                return result | seen
            now = time.monotonic()
            waited_s = now - begun
            if seen["generation"] < wish["generation"]:
                quiet_since = now  # until then replicas still get requests
            late = lacks(seen, wish, now - quiet_since)
            if late is None:
                break
            limit_s = self._limit_s(seen, wish)
            if limit_s is not None and waited_s >= limit_s:
                return result | {
                    "failed": True,
                    "msg": f"{host}: {late} after {waited_s:.0f} s. {_hint(seen, host)}",
                }
            progress.tell(f"waiting for the proxy: {late}")
            time.sleep(pause)
            pause = min(pause * 1.5, 2.0)
        cut = (
            {one: number for one, number in seen["in_flight"].items() if number}
            if wish["until"] == "drained"
            else {}
        )
        if cut:
            told = ", ".join(f"{number} on {one}" for one, number in sorted(cut.items()))
            progress.warn(f"requests that had not ended in time are cut now: {told}")
        return result | {**seen, "changed": False, "cut": cut, "waited_s": round(time.monotonic() - begun, 1)}

    @staticmethod
    def _limit_s(seen: dict[str, Any], wish: dict[str, Any]) -> float | None:
        """After how many seconds waiting ends in an error; None where each replica has its own limit."""
        if seen["state"] != "up":
            return PATIENCE_SILENT_S
        if wish["until"] == "drained" and seen["generation"] >= wish["generation"]:
            return None
        return float(wish["patience_s"])


def _hint(seen: dict[str, Any], host: str) -> str:
    if seen["state"] != "up":
        return (
            "Requests that it may have would be cut, so nothing was changed. Bring it back, or, when it is surely gone, "
            f"go on without it: -e without_proxies={host}"
        )
    return "Its log says why; see also GET /admin/registry and /admin/replicas there."
