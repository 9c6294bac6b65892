"""What a proxy thinks of each replica, looked at again and again while something else goes on."""

from __future__ import annotations

import re
import urllib.request

from tests.e2e.rolling.aside import Aside
from tests.e2e.site import Site

_STATE = re.compile(r"^modelyard_replica_state\{(?P<labels>.*)\} 1(?:\.0)?$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_PAUSE_S = 0.1


def states(site: Site) -> dict[str, str]:
    """Replica -> the proxy's word for its state, now."""
    with urllib.request.urlopen(f"{site.proxy}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    rows = (dict(_LABEL.findall(found["labels"])) for found in _STATE.finditer(page))
    return {row["replica"]: row["state"] for row in rows}


class Watch(Aside):
    """Looks ten times a second, from entering the context to leaving it; `seen` has one entry for each change."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.seen: list[dict[str, str]] = []
        self._site = site

    def away(self) -> list[frozenset[str]]:
        """Which replicas got no requests, one entry for each change."""
        found: list[frozenset[str]] = []
        everyone = {replica for look in self.seen for replica in look}
        for look in list(self.seen):
            out = frozenset(replica for replica in everyone if look.get(replica) not in ("ready", "busy"))
            if not found or found[-1] != out:
                found.append(out)
        return found

    def work(self) -> None:
        """Look."""
        while not self.over.wait(_PAUSE_S):
            look = states(self._site)
            if not self.seen or self.seen[-1] != look:
                self.seen.append(look)
