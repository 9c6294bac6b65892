"""The container engine, and how containers get GPUs. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.doctor.words import (
    CRITICAL,
    UNKNOWN,
    WARNING,
    Facts,
    Finding,
    finding,
    some,
)

_KIND = "nvidia.com/gpu"
_GENERATE = (
    "Run systemctl restart nvidia-cdi-refresh, or, with a toolkit older than 1.18, "
    "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
)


def findings(host: str, health: Facts, settings: Facts, gpus: list[str], needed: bool) -> Iterator[Finding]:
    """``gpus`` are those that are declared; ``needed`` says whether anything is to run in a container here."""
    engine = health["engine"]
    if not needed:
        return
    if engine["state"] != "up":
        yield _engine(host, engine)
    if settings["fleet_accelerator"] != "nvidia" or not gpus:
        return
    yield from _toolkit(host, health["cdi"]["toolkit"])
    if settings["fleet_gpu_mode"] == "cdi":
        if engine["state"] == "up" and not engine["cdi_directories"]:
            yield finding(
                "cdi_off",
                CRITICAL,
                host,
                "engine",
                f"Docker {engine['version']} does not read CDI specifications, by which containers get their GPUs here. "
                'Set "features": {"cdi": true} in /etc/docker/daemon.json (Docker 25 or later) and restart Docker, or set '
                "fleet_gpu_mode to device_request.",
            )
        yield from _cdi(host, health["cdi"], gpus)


def _engine(host: str, engine: Facts) -> Finding:
    why = engine["reason"]
    if engine["state"] == "absent":
        text = f"There is no container engine: {why}. Install Docker Engine, or set fleet_runtime to process."
        return finding("engine_absent", CRITICAL, host, "engine", text)
    if engine["state"] == "down":
        text = (
            f"The container engine does not run: {why}. Start it, and look at its log (journalctl -u docker)."
        )
        return finding("engine_down", CRITICAL, host, "engine", text)
    if engine["state"] == "silent":
        text = (
            f"The container engine hangs: {why}. Look at its log (journalctl -u docker) and at the disk that it lies on; "
            "what runs goes on until it is restarted."
        )
        return finding("engine_silent", CRITICAL, host, "engine", text)
    text = f"Nothing is known of the container engine: {why}. See that the user may ask it."
    return finding("engine_unknown", UNKNOWN, host, "engine", text)


def _toolkit(host: str, toolkit: Facts) -> Iterator[Finding]:
    if toolkit["state"] == "absent":
        text = (
            f"The NVIDIA Container Toolkit is missing: {toolkit['reason']}. Install nvidia-container-toolkit, or no "
            "container gets a GPU."
        )
        yield finding("toolkit_absent", CRITICAL, host, "toolkit", text)
    elif toolkit["state"] == "unknown":
        text = f"The version of the NVIDIA Container Toolkit is not known: {toolkit['reason']}. See whether it is whole."
        yield finding("toolkit_unknown", UNKNOWN, host, "toolkit", text)


def _cdi(host: str, cdi: Facts, gpus: list[str]) -> Iterator[Finding]:
    if cdi["state"] == "unknown":
        text = f"The CDI specifications cannot be seen: {cdi['reason']}. Look as root."
        yield finding("cdi_unknown", UNKNOWN, host, "toolkit", text)
        return
    named: set[str] = set()
    odd = False
    for spec in cdi["specs"]:
        if spec["reason"]:
            odd = True
            text = f"{spec['file']}: {spec['reason']}. Make it anew. {_GENERATE}."
            yield finding("cdi_unreadable", UNKNOWN, host, "toolkit", text, spec["file"])
        elif spec["kind"] == _KIND:
            named |= set(spec["devices"])
            yield from _gone(host, spec)
    missing = [gpu for gpu in gpus if gpu not in named]
    if missing and not odd:
        text = (
            f"No CDI specification names {_named(missing)}, so no container can be given "
            f"{'them' if missing[1:] else 'it'}. {_GENERATE}."
        )
        yield finding("cdi_device_missing", CRITICAL, host, "toolkit", text)


def _gone(host: str, spec: dict[str, Any]) -> Iterator[Finding]:
    if spec["missing"]:
        text = (
            f"{spec['file']} names {some(spec['missing'])}, which {'are' if spec['missing'][1:] else 'is'} not there: it "
            f"was made for another driver or other GPUs, and containers that ask for GPUs do not start. {_GENERATE}."
        )
        severity = CRITICAL if any(path.startswith("/dev/") for path in spec["missing"]) else WARNING
        yield finding("cdi_stale", severity, host, "toolkit", text, spec["file"])


def _named(gpus: list[str]) -> str:
    return f"GPU{'s' if gpus[1:] else ''} {some(gpus, 8)}"
