"""Who fetches weights from their source and who copies them from whom. Pure: what the hosts found in, their shares out."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

Share = dict[str, Any]

SSH = ("ssh", "ansible.builtin.ssh", "smart", "paramiko", "paramiko_ssh", "ansible.netcommon.libssh")
LOCAL = ("local", "ansible.builtin.local")


def shares(offers: Mapping[str, Mapping[str, Any]]) -> dict[str, Share]:
    """For each host ``pulls`` (destinations that it fetches from the source), ``copies`` (by destination: ``host``,
    ``directory`` and ``number`` there) and ``serve`` (``directories`` and the hosts it gives them ``to``).

    An offer is what a host said: its ``site``, how it is reached (``connection``) and the ``snapshots`` of its look. Hosts
    share what they fetch where they have the same site and are all reached by SSH, or all are this machine. Who has a
    snapshot whole gives it; where nobody has, the one with the most of it fetches it first. Givers take turns.
    """
    found: dict[str, Share] = {
        host: {"pulls": [], "copies": {}, "serve": {"directories": [], "to": []}} for host in offers
    }
    groups: dict[tuple[str, str, str], list[tuple[str, Mapping[str, Any]]]] = defaultdict(list)
    for host, offer in offers.items():
        for item in offer["snapshots"]:
            if item["in_place"]:
                continue
            if reach(offer) and offer["site"]:
                groups[offer["site"], reach(offer), _identity(item)].append((host, item))
            elif item["action"] == "fetch":
                found[host]["pulls"].append(item["destination"])
    pulls: Counter[str] = Counter()
    for members in groups.values():
        wanting = [(host, item) for host, item in members if item["action"] == "fetch"]
        givers = [(host, item) for host, item in members if item["action"] != "fetch"]
        if not wanting:
            continue
        if not givers:
            first = max(wanting, key=lambda one: (one[1]["fetchable"], one[1]["partial"], -pulls[one[0]]))
            pulls[first[0]] += 1
            found[first[0]]["pulls"].append(first[1]["destination"])
            givers, wanting = [first], [one for one in wanting if one is not first]
        for turn, (host, item) in enumerate(wanting):
            giver, theirs = givers[turn % len(givers)]
            serve = found[giver]["serve"]
            if theirs["destination"] not in serve["directories"]:
                serve["directories"].append(theirs["destination"])
            if host not in serve["to"]:
                serve["to"].append(host)
            found[host]["copies"][item["destination"]] = {
                "host": giver,
                "directory": theirs["destination"],
                "number": serve["directories"].index(theirs["destination"]),
            }
    return found


def reach(offer: Mapping[str, Any]) -> str:
    """``ssh``, ``local``, or empty for a host that others cannot copy from."""
    connection = str(offer["connection"])
    return "ssh" if connection in SSH else "local" if connection in LOCAL else ""


def peer(
    copy: Mapping[str, Any],
    offers: Mapping[str, Mapping[str, Any]],
    share: Mapping[str, Share],
    grants: Mapping[str, Mapping[str, Any]],
    size: int,
    key: str,
) -> dict[str, Any]:
    """How ``model_snapshot`` reaches the giver of one copy. ``grants``: by giver what ``weights_access`` said."""
    giver = copy["host"]
    offer = offers[giver]
    about = {"host": giver, "bytes": size}
    if reach(offer) == "local":
        return {**about, "directory": copy["directory"], "rate": rate(offer, share[giver])}
    grant = grants.get(giver, {})
    return {
        **about,
        "number": copy["number"],
        "address": offer["address"],
        "port": int(offer["port"]),
        "user": grant.get("user", ""),
        "host_keys": list(grant.get("host_keys", ())),
        "key": key,
    }


def rate(offer: Mapping[str, Any], share: Share) -> float:
    """Bytes per second for each host that copies from this one, so that together they keep to its limit; 0 is none."""
    return float(offer["mib_s"]) * 2**20 / max(1, len(share["serve"]["to"]))


def sizes(results: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Bytes by destination, out of results of ``model_snapshot``."""
    return {
        item["destination"]: int(item["bytes"])
        for result in results
        for item in result.get("snapshots") or ()
    }


def _identity(item: Mapping[str, Any]) -> str:
    return json.dumps(dict(item["source"]), sort_keys=True)
