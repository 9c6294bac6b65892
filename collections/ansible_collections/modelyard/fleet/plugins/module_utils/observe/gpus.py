"""GPUs of the host as nvidia-smi lists them, and which of them somebody else computes on."""

from __future__ import annotations

from pathlib import Path
from shutil import which
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.observe.command import run


class Owner:
    """Tells processes of our replicas from others: by container id in the control group, or by ancestor."""

    def __init__(self, proc: str, container_ids: list[str], roots: list[int]) -> None:
        self.proc = proc
        self.container_ids = container_ids
        self.roots = set(roots)

    def is_ours(self, pid: int) -> bool:
        """Whether the process belongs to a replica; one that just ended counts as ours."""
        groups = self._groups(pid)
        return groups is None or self._holds(pid, groups)

    def has(self, pid: int) -> bool:
        """Whether the process surely belongs to a replica."""
        groups = self._groups(pid)
        return groups is not None and self._holds(pid, groups)

    def _groups(self, pid: int) -> str | None:
        try:
            return Path(self.proc, str(pid), "cgroup").read_text(encoding="utf-8")
        except OSError:
            return None

    def _holds(self, pid: int, groups: str) -> bool:
        if any(one in groups for one in self.container_ids):
            return True
        current: int | None = pid
        while current and current > 1:
            if current in self.roots:
                return True
            current = self._parent(current)
        return False

    def _parent(self, pid: int) -> int | None:
        try:
            stat = Path(self.proc, str(pid), "stat").read_text(encoding="utf-8", errors="replace")
            # the name in parentheses may hold spaces and parentheses itself
            return int(stat.rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return None


def devices(timeout: int, problems: list[str], owner: Owner) -> list[dict[str, Any]]:
    """Index, UUID, name, memory in MiB and foreign process ids of each GPU; empty without nvidia-smi."""
    if which("nvidia-smi") is None:
        return []
    code, out, err = run(
        ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"], timeout
    )
    if code != 0:
        problems.append("nvidia-smi: %s" % (err or out.strip() or f"exit status {code}"))
        return []
    found: dict[str, dict[str, Any]] = {}
    for line in out.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) < 4 or not fields[0].isdigit():
            continue
        found[fields[1]] = {
            "index": int(fields[0]),
            "uuid": fields[1],
            "name": ", ".join(fields[2:-1]),
            "memory_mib": int(fields[-1]) if fields[-1].isdigit() else None,
            "foreign_processes": [],
        }
    code, out, err = run(
        ["nvidia-smi", "--query-compute-apps=gpu_uuid,pid", "--format=csv,noheader,nounits"], timeout
    )
    if code != 0:
        problems.append("nvidia-smi, processes: %s" % (err or f"exit status {code}"))
        out = ""
    for line in out.splitlines():
        uuid, _, pid = (field.strip() for field in line.partition(","))
        if uuid in found and pid.isdigit() and not owner.is_ours(int(pid)):
            found[uuid]["foreign_processes"].append(int(pid))
    return sorted(found.values(), key=lambda device: device["index"])
