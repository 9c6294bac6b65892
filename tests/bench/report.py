"""From the figures of all rounds to a table, ratios and verdicts. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# by system, then by figure: one value for each round
Values = Mapping[str, Mapping[str, Sequence[float]]]

OURS = "us"
INTERPRETED = "us-interpreted"
# as shipped, and turned down to the cheapest policy that they have
RUST = ("vllm-router", "sglang-router")
RUST_RR = ("vllm-router-rr", "sglang-router-rr")
LIMIT = ("nginx", "haproxy")

COLUMNS = {
    "cpu_request_us": "CPU us/request",
    "cpu_chunk_us": "CPU us/chunk",
    "added_c1_p50_ms": "+p50 c=1 ms",
    "added_c1_p99_ms": "+p99 c=1 ms",
    "added_c64_p50_ms": "+p50 c=64 ms",
    "added_c64_p99_ms": "+p99 c=64 ms",
    "added_ttft_p50_ms": "+TTFT p50 ms",
    "added_ttft_p99_ms": "+TTFT p99 ms",
    "requests_per_s": "requests/s",
    "resident_idle_mib": "MiB idle",
    "resident_1000_mib": "MiB 1,000 streams",
}


@dataclass(frozen=True, slots=True)
class Goal:
    """``figure`` of ``ours``, divided by the least of ``against`` where given, is at most ``first``, later ``then``."""

    what: str
    figure: str
    against: tuple[str, ...]
    first: float
    then: float | None = None
    ours: str = OURS


GOALS = (
    Goal("CPU per request / faster Rust router", "cpu_request_us", RUST, 0.5),
    Goal("... with round_robin", "cpu_request_us", RUST_RR, 0.5),
    Goal("... interpreted", "cpu_request_us", RUST, 0.5, ours=INTERPRETED),
    Goal("CPU per request / better of nginx, HAProxy", "cpu_request_us", LIMIT, 3.0, 2.5),
    Goal("CPU per chunk / faster Rust router", "cpu_chunk_us", RUST, 0.8),
    Goal("... with round_robin", "cpu_chunk_us", RUST_RR, 0.8),
    Goal("... interpreted", "cpu_chunk_us", RUST, 0.8, ours=INTERPRETED),
    Goal("CPU per chunk / better of nginx, HAProxy", "cpu_chunk_us", LIMIT, 1.6, 1.4),
    Goal("added p50 at c=1, ms", "added_c1_p50_ms", (), 0.3),
    Goal("resident with 1,000 streams, MiB", "resident_1000_mib", (), 120),
)


# of twice the requests of one worker, while there are cores for two, the clients and the engine
WORKERS = "us-2w"
WORKERS_SHARE = 0.9
WORKERS_CORES = 5


def with_added(values: Values) -> dict[str, dict[str, list[float]]]:
    """The same with latencies added to the direct ones, round by round."""
    direct = values.get("direct", {})
    found: dict[str, dict[str, list[float]]] = {}
    for system, figures in values.items():
        found[system] = {name: list(each) for name, each in figures.items()}
        for name, each in figures.items():
            if system != "direct" and name.endswith("_ms") and name in direct:
                found[system][f"added_{name}"] = [a - b for a, b in zip(each, direct[name], strict=False)]
    return found


def summary(each: Sequence[float]) -> dict[str, float]:
    """Least, middle and greatest value."""
    return {
        "min": round(min(each), 4),
        "median": round(statistics.median(each), 4),
        "max": round(max(each), 4),
    }


def verdicts(values: Values, cores: int) -> list[dict[str, Any]]:
    """Each goal with what was reached; ``None`` where its peers were absent. Ratios are taken within rounds."""
    found = []
    for goal in GOALS:
        ours = values.get(goal.ours, {}).get(goal.figure, [])
        peers = [values[name][goal.figure] for name in goal.against if values.get(name, {}).get(goal.figure)]
        reached = list(ours)
        if goal.against:
            reached = (
                [mine / min(theirs) for mine, *theirs in zip(ours, *peers, strict=False)] if peers else []
            )
        figures = summary(reached) if reached else None
        found.append(
            {
                "what": goal.what,
                "target": f"<= {goal.first:g}" + (f", then {goal.then:g}" if goal.then is not None else ""),
                "reached": figures,
                "verdict": _verdict(goal, figures["median"]) if figures else "not measured",
            }
        )
    one, two = (values.get(name, {}).get("requests_per_s", []) for name in (OURS, WORKERS))
    share = summary([b / (2 * a) for a, b in zip(one, two, strict=False)]) if one and two else None
    if share is None:
        verdict = "not measured"
    elif share["median"] >= WORKERS_SHARE:
        verdict = "meets"
    elif cores < WORKERS_CORES:
        verdict = f"not to be judged on {cores} cores"
    else:
        verdict = f"misses ({share['median'] / WORKERS_SHARE:.2f} of the target)"
    found.append(
        {
            "what": "requests/s of 2 workers / twice those of 1",
            "target": f">= {WORKERS_SHARE:g}",
            "reached": share,
            "verdict": verdict,
        }
    )
    return found


def _verdict(goal: Goal, middle: float) -> str:
    if middle > goal.first:
        return f"misses ({middle / goal.first:.2f} of the target)"
    if goal.then is not None and middle > goal.then:
        return f"meets, not yet {goal.then:g}"
    return "meets"


def table(values: Values, titles: Mapping[str, str], missing: Mapping[str, str]) -> str:
    """A system a row, min - median - max where there is more than one round."""
    columns = [name for name in COLUMNS if any(name in figures for figures in values.values())]
    rows = [["system", *(COLUMNS[name] for name in columns)]]
    for system, figures in values.items():
        cells = [_cell(figures.get(name, ())) for name in columns]
        rows.append([titles.get(system, system), *cells])
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    lines += [f"{titles.get(system, system)}: {why}" for system, why in missing.items()]
    return "\n".join(lines)


def _cell(each: Sequence[float]) -> str:
    if not each:
        return "-"
    shown = [_number(one) for one in (min(each), statistics.median(each), max(each))]
    return shown[1] if len(each) == 1 else " - ".join(shown)


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def verdict_table(found: Sequence[Mapping[str, Any]]) -> str:
    """The goals, one a line."""
    lines = [f"{'target':<46}{'':<18}{'min - median - max':<24}verdict"]
    for row in found:
        figures = row["reached"]
        reached = " - ".join(_number(each) for each in figures.values()) if figures else "-"
        lines.append(f"{row['what']:<46}{row['target']:<18}{reached:<24}{row['verdict']}")
    return "\n".join(lines)
