"""Whether each wished replica runs, answers and generates. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.doctor.words import (
    CRITICAL,
    NOTE,
    UNKNOWN,
    WARNING,
    Facts,
    Finding,
    finding,
)

Row = dict[str, Any]


def findings(
    row: Row, probe: Row | None, generated: bool, observed: Facts, start_period_s: float, now: float | None
) -> Iterator[Finding]:
    """One wished replica on a host that answered.

    ``row`` is its row of ``fleet_status``, ``probe`` what ``replica_ready`` says of it; ``generated`` says whether it
    was asked to generate. ``observed`` is what ``fleet_facts`` says. ``now`` is the host's time.
    """
    host, name = str(row["host"]), str(row["replica"])
    log = f"Its log says why: modelyard logs {name}."

    def one(code: str, severity: str, text: str) -> Finding:
        return finding(code, severity, host, "replica", text, name)

    if row["state"] == "unknown":
        why = observed.get("status") or "its runtime tells nothing"
        yield one(
            "replica_unknown",
            UNKNOWN,
            f"Whether {name} runs is not known: {why}. Nothing is done to it until that is cleared.",
        )
    elif row["health"] == "not there":
        yield one("replica_missing", CRITICAL, f"{name} is wished and not there. Run deploy to start it.")
    elif row["state"] == "down":
        yield one("replica_down", CRITICAL, f"{name} has stopped. {log} Then run deploy to start it again.")
    elif probe is None:
        yield one("replica_unasked", UNKNOWN, f"{name} runs and could not be asked anything. Look again.")
    elif probe.get("ready"):
        yield from _generation(name, probe, generated, one)
    elif _loads(probe) and _age(row, now) < start_period_s:
        yield one(
            "replica_loading",
            WARNING,
            f"{name} is loading its model: {probe.get('error')}. Wait, then look again.",
        )
    else:
        yield one("replica_silent", CRITICAL, f"{name} runs and does not answer: {probe.get('error')}. {log}")
    if row["state"] == "up" and observed.get("lost"):
        yield one("replica_lost", WARNING, f"{name}: {observed['lost']}. Run deploy to replace it.")


def _generation(
    name: str, probe: Row, generated: bool, one: Callable[[str, str, str], Finding]
) -> Iterator[Finding]:
    if not generated:
        return
    if not probe.get("ok"):
        text = (
            f"{name} says that it is ready and does not generate: {probe.get('error')}. Its log may say why: "
            f"modelyard logs {name}. Drain it, then restart it."
        )
        yield one("generation_failed", CRITICAL, text)
    elif not probe.get("text"):
        yield one(
            "generation_unasked", NOTE, f"{name} hears or speaks: it is ready, and was not asked for more."
        )


def _loads(probe: Row) -> bool:
    """Whether it may be on its way: many engines open their port only when the model is loaded."""
    on_its_way = probe.get("live") or "refused" in str(probe.get("error")).lower()
    return bool(on_its_way and not probe.get("ended"))


def _age(row: Row, now: float | None) -> float:
    """Seconds since it was started; endless when that is not known."""
    try:
        began = datetime.fromisoformat(str(row.get("since")).replace("Z", "+00:00")[:19] + "+00:00")
    except ValueError:
        return float("inf")
    return float("inf") if now is None else now - began.timestamp()


def generations(rows: list[Row], probes: Mapping[str, Row], asked: bool) -> list[Row]:
    """How each wished replica took the question, for programs."""
    return [
        {
            "replica": row["replica"],
            "host": row["host"],
            "state": row["state"],
            "ready": bool(probe.get("ready")),
            "generated": bool(probe.get("ok") and probe.get("text")) if asked else None,
            "seconds": probe.get("generation_s"),
            "error": probe.get("error"),
        }
        for row in rows
        for probe in [probes.get(str(row["replica"])) or {}]
    ]
