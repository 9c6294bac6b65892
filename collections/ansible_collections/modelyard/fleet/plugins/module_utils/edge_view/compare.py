"""An edge host as it is against what is declared for it. Pure functions over plain data.

``seen`` is a result of the module ``edge_facts``, ``declared`` what the role says of this host (``tasks/look.yml``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.edge_view.look import PARTS
from ansible_collections.modelyard.fleet.plugins.module_utils.generations import NUMBER, digests

Facts = Mapping[str, Any]
Difference = dict[str, Any]
"""``subject`` (a unit, a configuration), ``field``, ``wanted`` and ``found`` (text, None: not there)."""

HIDDEN = "another one"
AS_DECLARED, _MISSING = "as declared", "missing"
_LONGEST = 100
# a line that somebody added by hand may carry what no declared one does
_SECRET = re.compile(r"pass|secret|token|key\b", re.IGNORECASE)


def answered(seen: Facts) -> bool:
    """Whether a host was looked at."""
    return "configurations" in seen


def service_differences(seen: Facts, declared: Facts) -> Iterator[Difference]:
    """Units that do not run, do not come back with the host, or whose file was changed."""
    for key, name in wanted_units(declared).items():
        unit = seen["units"].get(key)
        if unit is None:
            continue  # systemd said nothing: a problem tells so
        if unit["load"] != "loaded":
            yield _one(name, "state", "active", unit["load"])
            continue
        if unit["active"] not in ("active", "reloading"):
            yield _one(name, "state", "active", unit["active"])
        if unit["enabled"] != "enabled":
            yield _one(name, "starts with the host", "enabled", unit["enabled"])
        wanted, found = (declared.get("unit_files") or {}).get(name), seen["unit_files"].get(name)
        if wanted is not None and found is not None and wanted.strip() != found.strip():
            yield _one(name, "unit file", *lines_that_differ(wanted, found))


def is_secret(path: str) -> bool:
    """Whether a file of a configuration holds a key or a password."""
    return path.endswith((".pem", "/password.conf"))


def wanted_units(declared: Facts) -> dict[str, str]:
    """The units that are to run, by what they are for."""
    name = declared["name"]
    found = {"haproxy": f"{name}.service"}
    if declared["moves"]:
        found["address"] = f"{name}-address.service"
    if declared["acme"]:
        found["renewal"] = f"{name}-acme.timer"
    return found


def configuration_differences(seen: Facts, declared: Facts) -> Iterator[Difference]:
    """Files of the configurations that are missing, too many, changed or open to others; secrets only by their names."""
    for part in PARTS:
        texts = (declared.get("files") or {}).get(part)
        there = seen["configurations"][part]
        if texts is None or there["problem"]:
            continue  # not wished here, or nobody may look: a problem tells so
        if there["number"] is None:
            yield _one(part, "configuration", AS_DECLARED, None)
            continue
        texts = {name: text.replace(NUMBER, str(there["number"])) for name, text in texts.items()}
        wanted: dict[str, str] = {
            **digests(texts),
            **declared["secrets"][part],
            **(
                {name: one["digest"] for name, one in seen["gathered"].items() if one["digest"]}
                if part == "haproxy"
                else {}
            ),
        }
        unknown = {name for name, one in seen["gathered"].items() if not one["digest"]}
        for name in sorted((wanted.keys() | there["digests"].keys()) - unknown):
            if name not in there["digests"]:
                yield _one(part, name, AS_DECLARED, None)
            elif name not in wanted:
                yield _one(part, name, None, "there")
            elif wanted[name] != there["digests"][name]:
                shown = name in texts and name in there["texts"]
                values = (
                    lines_that_differ(texts[name], there["texts"][name]) if shown else (AS_DECLARED, HIDDEN)
                )
                yield _one(part, name, *values)
        for item in there["open"]:
            wanted_mode = "0700" if item["mode"][1] in "7" else "0600"
            yield _one(item["path"], "mode", wanted_mode, item["mode"])
    running, current = seen["haproxy"]["generation"], seen["configurations"]["haproxy"]["number"]
    if running is not None and current is not None and running != current:
        yield _one("haproxy", "generation in force", str(current), str(running))


def lines_that_differ(wanted: str, found: str) -> tuple[str, str]:
    """The first line in which two texts differ, on both sides, with how many there are; none that may hold a secret."""
    want, have = ([line.rstrip() for line in text.strip().splitlines()] for text in (wanted, found))
    more = max(len(want), len(have))
    pairs = [(at + 1, _at(want, at), _at(have, at)) for at in range(more) if _at(want, at) != _at(have, at)]
    if not pairs:
        return AS_DECLARED, "blanks or empty lines differ"
    line, one, other = pairs[0]
    rest = f" (and {len(pairs) - 1} more)" if len(pairs) > 1 else ""
    return f"line {line}: {_shown(one)}", f"line {line}: {_shown(other)}{rest}"


def _at(lines: list[str], place: int) -> str | None:
    return lines[place].strip() if place < len(lines) else None


def _shown(line: str | None) -> str:
    if line is None:
        return "nothing"
    if _SECRET.search(line):
        return "(not shown)"
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def unseen(seen: Facts, declared: Facts) -> list[str]:
    """What of a host that answered could not be looked at, and what of the wish cannot be told."""
    return [
        *seen["problems"],
        *(
            f"{part}: {one['problem']}"
            for part, one in sorted(seen["configurations"].items())
            if one["problem"]
        ),
        *(f"{name}: {one['problem']}" for name, one in sorted(seen["gathered"].items()) if one["problem"]),
        *([seen["addresses"]["reason"]] if seen["addresses"]["reason"] else []),
        *(
            []
            if "files" in declared
            else [
                "what is declared for it cannot be told: a variable of it is not known here, one of a vault maybe"
            ]
        ),
    ]


def _one(subject: str, field: str, wanted: str | None, found: str | None) -> Difference:
    return {"subject": subject, "field": field, "wanted": wanted, "found": found}
