"""Of what ``drift`` found, what a doctor has to say: hosts, images, weights, proxies. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from ansible_collections.modelyard.fleet.plugins.module_utils.doctor.words import (
    CRITICAL,
    NOTE,
    UNKNOWN,
    WARNING,
    Finding,
    finding,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.edge_view.compare import AS_DECLARED, is_secret

_SEVERITIES = {"image": WARNING, "weights": CRITICAL, "proxy": CRITICAL, "edge": WARNING}


def findings(drift: Iterable[Finding], ours: Iterable[str]) -> Iterator[Finding]:
    """``ours`` are replicas that the doctor asks himself. All other differences are one note for each host."""
    asked = set(ours)
    others: Counter[str] = Counter()
    for item in drift:
        kind, host = item["kind"], item["host"]
        if kind == "host":
            yield finding(
                "host_unknown",
                UNKNOWN,
                host,
                "host",
                f"It does not answer: {item['found']}. Nothing is done to it.",
                host,
            )
        elif kind == "plan":
            yield finding(
                "wish_unmet", WARNING, host, "host", f"A wish cannot be met: {item['found']}", item["subject"]
            )
        elif (
            item["severity"] == "note"
            or (
                item["field"] == "state"
                and (kind == "edge" or (kind == "replica" and item["subject"] in asked))
            )
            or (kind == "edge" and item["field"] == "mode" and is_secret(item["subject"]))
        ):
            continue  # the doctor has a sentence of his own
        elif item["severity"] == "unknown":
            # what could not be compared is told as a replica's: its image, its weights ...
            shown = kind if kind in _SEVERITIES else "replica"
            text = f"{item['subject']}, {item['field']}: {item['found'] or 'nobody can tell'}. {_advice(item['what'])}"
            yield finding(f"{shown}_uncompared", UNKNOWN, host, shown, text, item["subject"])
        elif kind in _SEVERITIES:
            yield finding(f"{kind}_differs", _SEVERITIES[kind], host, kind, _sentence(item), item["subject"])
        else:
            others[host] += 1
    for host, count in sorted(others.items()):
        more = (
            f"{count} more difference{'s' if count > 1 else ''} from what is declared: see modelyard drift."
        )
        yield finding("drift", NOTE, host, "host", more)


def _sentence(item: Finding) -> str:
    found = "nothing" if item["found"] is None else item["found"]
    wanted = "nothing" if item["wanted"] is None else item["wanted"]
    advice = _advice(item["what"])
    if item["kind"] == "image":
        return (
            f"{item['subject']} runs with another image than declared: {found} in place of {wanted}. {advice}"
        )
    if item["kind"] == "weights":
        return f"Weights of {item['subject']}: {item['field']} is {found}, declared is {wanted}. {advice}"
    if item["kind"] == "edge":
        if item["wanted"] == AS_DECLARED:
            there = "missing" if item["found"] is None else found
            return f"{item['subject']}, {item['field']}: {there}, not as declared. {advice}"
        return f"{item['subject']}, {item['field']}: {found}, declared is {wanted}. {advice}"
    if item["field"] == "state":
        return f"The proxy is {found}. {advice}"
    return f"The proxy serves by {item['field']} {found}, and its file has {wanted}. {advice}"


def _advice(what: str) -> str:
    """What drift says is to be done, as a sentence."""
    return what[:1].upper() + what[1:] + "."
