"""The counts of ``modelyard drift`` as Prometheus text, in a file that a collector may read at any moment."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from modelyard.cli.tables import rows

_MODE = 0o644  # the collector runs as another user, and nothing in it is secret


def metrics_text(result: Mapping[str, Any]) -> str:
    """Drift by host and kind, what is unknown by host, and when it was looked at (seconds since 1970).

    A host that was looked at has every kind, with 0 where nothing differs; one that did not answer has none: nobody
    knows.
    """
    findings = list(rows(result.get("findings")))
    hosts = sorted({str(host) for host in result.get("hosts") or []} | {str(one["host"]) for one in findings})
    kinds = [str(kind) for kind in result.get("kinds") or []]
    return "\n".join([*_lines(hosts, kinds, findings), *_when(str(result["checked_at"])), ""])


def _lines(hosts: list[str], kinds: list[str], findings: list[Mapping[str, Any]]) -> Iterator[str]:
    drift = Counter((str(one["host"]), str(one["kind"])) for one in findings if one["severity"] == "drift")
    unknown = Counter(str(one["host"]) for one in findings if one["severity"] == "unknown")
    silent = {str(one["host"]) for one in findings if one["severity"] == "unknown" and one["kind"] == "host"}
    yield "# HELP modelyard_drift Differences between what runs and what is declared."
    yield "# TYPE modelyard_drift gauge"
    for host in hosts:
        for kind in kinds:
            if host not in silent:
                yield f'modelyard_drift{{host="{_label(host)}",kind="{_label(kind)}"}} {drift[host, kind]}'
    yield "# HELP modelyard_drift_unknown Things that could not be looked at."
    yield "# TYPE modelyard_drift_unknown gauge"
    for host in hosts:
        yield f'modelyard_drift_unknown{{host="{_label(host)}"}} {unknown[host]}'


def _when(checked_at: str) -> Iterator[str]:
    yield "# HELP modelyard_drift_checked_timestamp_seconds When the fleet was looked at."
    yield "# TYPE modelyard_drift_checked_timestamp_seconds gauge"
    yield f"modelyard_drift_checked_timestamp_seconds {datetime.fromisoformat(checked_at).timestamp():.0f}"


def _label(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def write_text_file(path: Path, text: str) -> None:
    """Replace a file in one step: whoever reads it sees the old text or the new one. Raises ``OSError``."""
    # not named *.prom: a collector must not read a part of it
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), _MODE)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
