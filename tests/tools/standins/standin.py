#!/usr/bin/env python3
"""Answer as the tool whose name this file is called by. Standard library only, Python 3.9.

The scenario's ``faults`` have a list for each tool. The first that fits counts: ``args`` (words that must be among the
arguments), ``after`` and ``until`` (numbers of calls of this tool). What it does:

    mode: hang      say `stdout`, then answer no more; with `child: true` a child keeps the outputs open as well
    mode: say       print `stdout` and `stderr`, end with `code`
    mode: garbage   bytes that are no text
    mode: flood     print without end
    mode: lie       the true answer with each pair of `replace` put in place, cut to `cut` characters; `stderr`, `code`
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import render_amd
import render_bus
import render_nvidia

RENDER = {
    "nvidia-smi": render_nvidia.smi,
    "nv-fabricmanager": render_nvidia.fabric_manager,
    "amd-smi": render_amd.amd_smi,
    "rocm-smi": render_amd.rocm_smi,
    "lspci": render_bus.lspci,
    "dmesg": render_bus.dmesg,
    "journalctl": render_bus.journalctl,
}


def main() -> int:
    """Exit status."""
    own = Path(sys.argv[0])
    tool, arguments = own.name, sys.argv[1:]
    given = os.environ.get("MODELYARD_STANDIN")
    file = Path(given) if given else own.parent / "scenario.json"
    scenario = json.loads(file.read_text(encoding="utf-8"))
    call = _count(file.parent / f"{tool}.calls")
    fault = next((one for one in scenario.get("faults", {}).get(tool, ()) if _fits(one, arguments, call)), {})
    mode = fault.get("mode", "")
    if mode == "garbage":
        sys.stdout.buffer.write(bytes(range(256)) * 8)
        return int(fault.get("code", 0))
    while mode == "flood":
        sys.stdout.write("0, GPU-flood, " * 1000)
    if mode in ("say", "hang"):
        out, err, code = fault.get("stdout", ""), fault.get("stderr", ""), int(fault.get("code", 0))
    else:
        out, err, code = RENDER[tool](scenario, arguments)
    if mode == "lie":
        for old, new in fault.get("replace", ()):
            out = out.replace(old, new)
        out, err, code = (
            out[: fault.get("cut", len(out))],
            err + fault.get("stderr", ""),
            fault.get("code", code),
        )
    sys.stdout.write(out)
    sys.stderr.write(err)
    sys.stdout.flush()
    if mode == "hang":
        if fault.get("child"):
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
        time.sleep(30)
    return code


def _fits(fault: dict, arguments: list[str], call: int) -> bool:
    words = fault.get("args", "").split()
    return all(word in arguments for word in words) and fault.get("after", 0) < call <= fault.get(
        "until", call
    )


def _count(file: Path) -> int:
    """How often this tool has been called, this time included."""
    call = int(file.read_text(encoding="ascii")) + 1 if file.exists() else 1
    file.write_text(str(call), encoding="ascii")
    return call


if __name__ == "__main__":
    sys.exit(main())
