"""Whether a run makes a release of a model, and how it ended. Pure: over the plan's report and the roll's book."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelyard.releases.records import APPLIED, FAILED, PUT_BACK, Release
from modelyard.releases.store import Store

Row = Mapping[str, Any]

_MOVES = ("start", "replace", "stop")
_LONGEST_NOTE = 400


def outcome_of(model: str, plan: Row, book: Row) -> tuple[str | None, str]:
    """Outcome and note for one model; None when its turn never came.

    ``book`` lists replicas that are ``applied``, ``stopped``, ``put_back`` and ``out`` (of unknown state), and under
    ``halt`` why the roll ended early. An empty one stands for a run in which all went well.
    """
    changes = [one for one in plan["changes"] if one["model"] == model]
    moving = {one["replica"] for one in changes if one["action"] in _MOVES}
    silent = sorted(one["replica"] for one in changes if one["action"] == "unknown")
    done = moving & {*book.get("applied", ()), *book.get("stopped", ())} if book else moving
    if done == moving:
        return APPLIED, f"not on {', '.join(silent)}, of unknown state" if silent else ""
    back, out = moving & {*book.get("put_back", ())}, moving & {*book.get("out", ())}
    if not done and not back and not out:
        return None, ""
    told = [str(line) for line in book.get("halt", ())]
    for what, ids in (("applied", done), ("put back", back), ("not known to run", out)):
        if ids:
            told.append(f"{what}: {', '.join(sorted(ids))}")
    return (PUT_BACK if back and not done and not out else FAILED), "; ".join(told)[:_LONGEST_NOTE]


def is_due(store: Store, candidate: Release) -> bool:
    """Whether this is a release: another launch or placement than was applied last, or an attempt that failed."""
    if candidate.outcome != APPLIED:
        return True
    last = store.applied
    if last is None:
        return candidate.replicas > 0
    return (candidate.config, candidate.replicas, candidate.hosts) != (last.config, last.replicas, last.hosts)


def candidate(
    store: Store, plan: Row, outcome: str, note: str, seen: Row, *, at: str, who: str, commits: Row
) -> Release:
    """The release of ``store.model`` that this plan makes.

    ``seen`` says by replica the ``digest`` and ``image_id`` that it runs, where that was observed.
    """
    wish = plan["launches"][store.model]
    mine = [one for one in plan["assignments"] if one["model"] == store.model and one["wished"]]
    images = {host: dict(image) for host, image in wish["images"].items()}
    for item in mine:
        found, image = seen.get(item["replica"]) or {}, images.get(item["host"])
        if image is not None:
            image.update({key: found[key] for key in ("digest", "image_id") if found.get(key)})
    hosts = tuple(sorted({one["host"] for one in mine}))
    return Release(
        number=store.next_number,
        model=store.model,
        at=at,
        who=who,
        outcome=outcome,
        launch=wish["launch"],
        images={host: image for host, image in images.items() if host in hosts} or images,
        config=wish["config"],
        replicas=len(mine),
        hosts=hosts,
        commits=commits,
        note=note,
        rollback_of=wish["rollback_of"],
    )
