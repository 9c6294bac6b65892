"""What a roll knows while it goes on, as plain data, and what follows from it for the registry and the hosts.

The book of a roll: ``applied`` (ids that run as wished), ``draining`` (those of the step that is being made), ``stopped``
(gone for good), ``out`` (their state is not known, or nothing of them runs: they get no requests), ``halt`` (why the roll
ends), ``images`` (by id the ``image_id`` and ``digest`` that was started) and ``unproved`` (hashes, by id, that were
started and have not given their answers). Pure functions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

Book = dict[str, Any]
Row = Mapping[str, Any]


def empty_book() -> Book:
    """The book before the first step."""
    return {
        "applied": [],
        "draining": [],
        "stopped": [],
        "out": [],
        "put_back": [],
        "halt": [],
        "images": {},
        "unproved": {},
    }


def registry_at(plan: Row, book: Row) -> dict[str, Any]:
    """The registry's models at this moment of a roll: only what runs is listed, as it runs.

    What waits for its step keeps the endpoint that it has. Models themselves (aliases, policy, limits) are as wished
    from the first step on; one that nobody wishes any more stays until its last replica has stopped.
    """
    book = {**empty_book(), **book}
    before, applied = plan["rollout"]["before"], set(book["applied"])
    quiet, stopped = {*book["draining"], *book["out"]}, set(book["stopped"])
    actions = {change["replica"]: change["action"] for change in plan["changes"]}
    models: dict[str, Any] = {}
    listed: set[str] = set()
    for name, entry in plan["registry"]["models"].items():
        endpoints = []
        for endpoint in entry["endpoints"]:
            replica = endpoint["id"]
            listed.add(replica)
            if replica in stopped and replica not in applied:
                continue
            if replica in applied or actions.get(replica) in (None, "keep", "unknown"):
                endpoints.append(_state(endpoint, replica in quiet))
            elif replica in before:
                endpoints.append(_state({**endpoint, **before[replica]["endpoint"]}, replica in quiet))
        models[name] = {**entry, "endpoints": endpoints}
    for replica, was in sorted(before.items()):
        if replica not in listed and replica not in stopped:
            entry = models.setdefault(was["model"], _forgotten(was))
            entry["endpoints"].append(_state(_alike(was["endpoint"], entry), replica in quiet))
    return models


def used_of_step(plan: Row, book: Row, step: Row) -> list[str]:
    """Which of the step's replicas the registry of this moment lets proxies use."""
    asked = {*step["replicas"], *step["drain"]}
    return sorted(
        endpoint["id"]
        for entry in registry_at(plan, book).values()
        for endpoint in entry["endpoints"]
        if endpoint["id"] in asked and endpoint["state"] == "active"
    )


def _state(endpoint: Row, quiet: bool) -> dict[str, Any]:
    return {**endpoint, "state": "draining"} if quiet else dict(endpoint)


def _alike(endpoint: Row, entry: Row) -> dict[str, Any]:
    """An endpoint with the share and the limit of its neighbours."""
    extra = {
        key: value
        for other in entry["endpoints"][:1]
        for key, value in other.items()
        if key in ("weight", "max_in_flight")
    }
    return {**endpoint, **extra}


def _forgotten(was: Row) -> dict[str, Any]:
    """The entry of a model that is in the inventory no more."""
    return {"name": was["model"], "task": was["spec"].get("task", "generate"), "endpoints": []}


def begin(book: Row, step: Row, plan: Row) -> Book:
    """The step's replicas get no more requests, and what is about to be started is not proved."""
    book = {**empty_book(), **book}
    started = {item["replica"]: item["hash"] for item in of_step(plan["assignments"], step["replicas"])}
    return {**book, "draining": list(step["drain"]), "unproved": {**book["unproved"], **started}}


def settle(book: Row, step: Row, told: Mapping[str, Row | None], plan: Row) -> Book:
    """Count what the step's hosts have done; ``told`` is the last word of each, None of one that was not heard of.

    What is not surely running (again) gets no requests: it is ``out``.
    """
    hosts = {change["replica"]: change["host"] for change in plan["changes"]}
    out, applied, stopped = list(book["out"]), list(book["applied"]), list(book["stopped"])
    halt, back, images = list(book["halt"]), list(book["put_back"]), dict(book["images"])
    for host in step["hosts"]:
        word = told.get(host)
        mine = [one for one in (*step["replicas"], *step["stops"]) if hosts.get(one) == host]
        if word is None:
            out += mine
            halt.append(f"{host} was not heard of again: whether {_and(mine)} runs is not known")
            continue
        images.update(word.get("images") or {})
        if word.get("why"):
            halt.append(f"{host}: {word['why']}")
        for one in mine:
            if one in step["stops"]:
                (stopped if one in word["stopped"] else out).append(one)
            elif one in word["done"]:
                applied.append(one)
            elif one in word["put_back"]:
                back.append(one)
            else:
                out.append(one)
    unproved = {one: value for one, value in book["unproved"].items() if one not in applied}
    return {
        **book,
        "draining": [],
        "applied": applied,
        "stopped": stopped,
        "out": out,
        "put_back": back,
        "halt": halt,
        "images": images,
        "unproved": unproved,
    }


def keep(book: Row, why: Iterable[str]) -> Book:
    """Nothing of the step was done: its replicas get requests again, and the roll ends."""
    return {**book, "draining": [], "halt": [*book["halt"], *why]}


def of_step(assignments: Iterable[Row], ids: Collection[str]) -> list[Row]:
    """The assignments of these replicas."""
    return [item for item in assignments if item["replica"] in ids]


def stops_of_step(plan: Row, step: Row, host: str) -> list[dict[str, str]]:
    """What the step stops on a host, as the role ``model_server`` takes it."""
    asked = {*step["replicas"], *step["stops"]}
    found = {item["replica"]: dict(item) for item in plan["hosts"][host]["stops"] if item["replica"] in asked}
    for replica in step["stops"]:
        was = plan["rollout"]["before"].get(replica)
        if was is not None and was["host"] == host:
            found.setdefault(replica, {"replica": replica, "runtime": was["runtime"]})
    return [found[replica] for replica in sorted(found)]


def ends_of(plan: Row, assignments: Iterable[Row]) -> list[dict[str, str]]:
    """Of replicas that failed, those that were not there before: they are stopped, for nothing can be put back."""
    before = plan["rollout"]["before"]
    return [
        {"replica": item["replica"], "runtime": item["runtime"]}
        for item in assignments
        if item["replica"] not in before
    ]


def not_back(plan: Row, ids: Iterable[str], facts: Row) -> list[str]:
    """Sentences about what was to be put back and is not what runs now; ``facts`` is what the host says of itself."""
    before = plan["rollout"]["before"]
    seen = {item["replica"]: item for item in facts.get("replicas") or []}
    adopted = {item["container_id"] for item in facts.get("adopted") or [] if item["state"] == "up"}

    def runs(one: str) -> bool:
        was, now = before[one], seen.get(one, {})
        if was.get("adopted"):
            return was["adopted"] in adopted
        return bool(now.get("state") == "up" and now.get("hash") == was["hash"])

    return [f"{one}: what ran before does not run" for one in ids if one in before and not runs(one)]


def to_confirm(plan: Row, host: str, book: Row, facts: Row) -> list[Row]:
    """Assignments of a host beside which nothing is to be kept any more: what the roll has applied, and what stays and
    still has something kept from a run that was cut off.
    """
    kept = {change["replica"] for change in plan["changes"] if change["action"] == "keep"}
    kept &= {item["replica"] for item in facts.get("replicas") or [] if item.get("previous")}
    return of_step(plan["hosts"][host]["replicas"], {*kept, *book["applied"]})


def earlier(plan: Row, ids: Iterable[str]) -> list[dict[str, Any]]:
    """What ran under these ids before the roll, as ``replica_ready`` takes it; only what can be asked."""
    before = plan["rollout"]["before"]
    return [
        {"replica": one, "runtime": before[one]["runtime"], "spec": before[one]["spec"]}
        for one in ids
        if one in before and before[one]["spec"].get("live_path")
    ]


def images_of(done: Row) -> dict[str, dict[str, str]]:
    """By replica, the image that a result of the module ``replicas`` says it was started from."""
    rows = done.get("replicas") or []
    return {
        row["replica"]: {"image_id": row["image_id"], "digest": row.get("image_digest") or ""}
        for row in rows
        if row.get("image_id")
    }


def failed_word(result: Row, step: Row, ids: Collection[str]) -> Book:
    """The last word of a host (see ``settle``) on which a task failed, before anything was put back.

    Where readiness was asked for, the result says which replicas are not well. Where changing them failed, none of them
    has proved anything, so all are put back; of stops the result says which have gone.
    """
    rows = {row.get("replica"): row for row in result.get("replicas") or [] if isinstance(row, Mapping)}
    asked = any("ok" in row for row in rows.values())
    failed = [one for one in ids if not asked or not rows.get(one, {}).get("ok")]
    return {
        "step": step["number"],
        "done": [one for one in ids if one not in failed],
        "stopped": [one for one in step["stops"] if asked or (one in rows and not rows[one].get("error"))],
        "failed": failed,
        "put_back": [],
        "why": str(result.get("msg") or "failed"),
    }


def _and(names: Iterable[str]) -> str:
    return ", ".join(names)
