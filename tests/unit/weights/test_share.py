"""Who fetches and who copies from whom."""

from __future__ import annotations

from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils import weights_share


def offer(
    *snapshots: dict[str, Any], site: str = "s", connection: str = "ssh", **more: Any
) -> dict[str, Any]:
    return {
        "site": site, "connection": connection, "address": "192.0.2.1", "port": 22, "mib_s": 0.0,
        "snapshots": list(snapshots),
    } | more  # fmt: skip


def snapshot(name: str, action: str = "fetch", **more: Any) -> dict[str, Any]:
    return {
        "source": {"hub": name, "revision": "a"}, "destination": f"/w/{name}", "action": action,
        "in_place": False, "fetchable": True, "partial": 0, "bytes": 5,
    } | more  # fmt: skip


def pulls(found: dict[str, weights_share.Share]) -> dict[str, list[str]]:
    return {host: share["pulls"] for host, share in found.items() if share["pulls"]}


def givers(found: dict[str, weights_share.Share]) -> dict[str, str]:
    return {host: copy["host"] for host, share in found.items() for copy in share["copies"].values()}


def test_one_fetches_and_the_others_copy_from_it() -> None:
    found = weights_share.shares({name: offer(snapshot("m")) for name in "abc"})
    assert pulls(found) == {"a": ["/w/m"]}
    assert givers(found) == {"b": "a", "c": "a"}
    assert found["a"]["serve"] == {"directories": ["/w/m"], "to": ["b", "c"]}


def test_who_has_it_gives_it_and_nobody_fetches() -> None:
    offers = {name: offer(snapshot("m")) for name in "abcd"} | {
        "y": offer(snapshot("m", "keep")),
        "z": offer(snapshot("m", "own")),
    }
    found = weights_share.shares(offers)
    assert pulls(found) == {}
    assert givers(found) == {"a": "y", "b": "z", "c": "y", "d": "z"}


def test_the_one_with_the_most_of_it_goes_on_and_work_is_shared_among_hosts() -> None:
    found = weights_share.shares({"a": offer(snapshot("m")), "b": offer(snapshot("m", partial=7))})
    assert pulls(found) == {"b": ["/w/m"]}
    both = {name: offer(snapshot("m"), snapshot("n")) for name in "ab"}
    assert pulls(weights_share.shares(both)) == {"a": ["/w/m"], "b": ["/w/n"]}
    mounted = {"a": offer(snapshot("m", fetchable=False)), "b": offer(snapshot("m"))}
    assert pulls(weights_share.shares(mounted)) == {"b": ["/w/m"]}


def test_sites_and_hosts_that_cannot_be_reached_fetch_for_themselves() -> None:
    offers = {
        "a": offer(snapshot("m"), site="s"), "b": offer(snapshot("m"), site="t"),
        "c": offer(snapshot("m"), site=""), "d": offer(snapshot("m"), site=""),
        "e": offer(snapshot("m"), connection="community.docker.docker"),
        "f": offer(snapshot("m"), connection="local"), "g": offer(snapshot("m"), connection="local"),
    }  # fmt: skip
    found = weights_share.shares(offers)
    assert sorted(pulls(found)) == ["a", "b", "c", "d", "e", "f"]
    assert givers(found) == {"g": "f"}


def test_another_revision_and_what_is_read_in_place_are_no_gift() -> None:
    old = snapshot("m", "keep") | {"source": {"hub": "m", "revision": "b"}}
    found = weights_share.shares({"a": offer(old), "b": offer(snapshot("m"))})
    assert pulls(found) == {"b": ["/w/m"]}
    assert weights_share.shares({"a": offer(snapshot("m", in_place=True))})["a"]["pulls"] == []


def test_a_limit_is_shared_by_those_who_copy_at_once() -> None:
    offers = {name: offer(snapshot("m"), mib_s=10.0) for name in "abc"}
    found = weights_share.shares(offers)
    assert weights_share.rate(offers["a"], found["a"]) == 5 * 2**20
    there = weights_share.peer(
        found["b"]["copies"]["/w/m"], offers, found, {"a": {"user": "ops", "host_keys": ["k"]}}, 9, "/k"
    )
    assert there == {
        "host": "a", "bytes": 9, "number": 0, "address": "192.0.2.1", "port": 22, "user": "ops",
        "host_keys": ["k"], "key": "/k",
    }  # fmt: skip
