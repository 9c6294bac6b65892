"""What happens to a replica's containers in states that a healthy engine does not get into."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.containers import decide, reconcile
from ansible_collections.modelyard.fleet.plugins.module_utils.containers.decide import RefusedError, Seen
from ansible_collections.modelyard.fleet.plugins.module_utils.containers.engine import (
    ConflictError,
    EngineError,
    make_directory,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.containers.reconcile import (
    Reconciler,
    Wish,
    masked,
)

WISH = {"replica": "h.m.0", "hash": "new", "spec": {"env": {"TOKEN": "secret-value", "N": "1"}}}
NAME = "f-h.m.0"


def container(status: str = "running", name: str = NAME, **labels: str) -> dict[str, Any]:
    marks = {"modelyard.fleet": "f", "modelyard.replica": "h.m.0", "modelyard.hash": "new", **labels}
    return {
        "Id": name,
        "Name": f"/{name}",
        "State": {"Status": status, "ExitCode": 3},
        "Config": {"Labels": marks},
    }


@pytest.mark.parametrize(
    ("seen", "differences", "action", "reason"),
    [
        (Seen(), None, "start", "is not there yet"),
        (Seen(container()), [], "keep", "runs as wished"),
        (Seen(container("restarting")), [], "keep", "runs as wished"),
        (Seen(container("exited")), [], "start", "was exited (exit code 3)"),
        (Seen(container("dead")), [], "replace", "was dead"),
        (Seen(container(**{"modelyard.hash": "old", "modelyard.spec": "{"})), [], "replace", "its record cannot be read"),
        (Seen(container(), container(name="f-h.m.0.previous")), [], "keep",
         "runs as wished; what an earlier run left beside it goes"),
        (Seen(container(name="renamed")), [], "keep", "runs as wished; gets its name back"),
    ],
)  # fmt: skip
def test_the_step_towards_a_wish(seen: Seen, differences: Any, action: str, reason: str) -> None:
    step = decide.applied(WISH, seen, NAME, differences)
    assert (step.action, step.reason) == (action, reason)
    assert step.changes is (reason != "runs as wished")


@pytest.mark.parametrize("status", ["paused", "removing", "unknown", ""])
@pytest.mark.parametrize("place", ["current", "previous"])
def test_what_is_in_no_known_state_is_left_alone(status: str, place: str) -> None:
    left = decide.untouchable(Seen(**{place: container(status)}))
    assert left is not None
    assert "left alone" in left


def test_a_second_container_with_the_label_is_no_matter_for_guessing() -> None:
    with pytest.raises(RefusedError, match="copy carries the label of"):
        decide.applied(WISH, Seen(container(), strays=(container(name="copy"),)), NAME, [])


def test_a_run_that_died_while_it_put_back_left_the_replica_under_the_other_name() -> None:
    back = container(name="f-h.m.0.previous")
    assert decide.settled(Seen(previous=back)).current == back
    assert decide.put_back("h.m.0", decide.settled(Seen(previous=back)), NAME, "new").rename
    # one that does not run is not the replica
    assert decide.settled(Seen(previous=container("exited"))).current is None


@pytest.mark.parametrize("status", ["running", "exited"])
def test_what_could_not_be_replaced_goes_on(status: str) -> None:
    """Its restart policy was taken away before it was to be stopped, and nothing was kept yet."""
    old = container(status, **{"modelyard.hash": "old"}) | {"HostConfig": {"RestartPolicy": {"Name": "no"}}}
    assert decide.put_back("h.m.0", Seen(old), NAME, "new").action == "put_back"
    assert decide.put_back("h.m.0", Seen(old), NAME, "old").action == "keep"
    kept = container(status, **{"modelyard.hash": "old"}) | {
        "HostConfig": {"RestartPolicy": {"Name": "unless-stopped"}}
    }
    assert decide.put_back("h.m.0", Seen(kept), NAME, "new").action == "keep"


def test_the_grace_is_the_one_that_a_container_was_started_with() -> None:
    assert decide.grace_s(container(**{"modelyard.spec": json.dumps({"stop_timeout_s": 90})}), 5) == 90
    assert decide.grace_s({"Config": {"StopTimeout": 7}}, 5) == 7
    assert decide.grace_s({"Config": {"Labels": {"modelyard.spec": "{"}}}, 5) == 5


def test_values_of_the_environment_are_cut_out_of_errors() -> None:
    assert masked("bad value secret-value in line 1", WISH) == "bad value *** in line 1"


def test_a_directory_that_cannot_be_handed_over_is_an_error_with_the_path(tmp_path: Path) -> None:
    def refuse(path: Path, owner: int, group: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    with pytest.raises(EngineError, match=r"cache cannot be made a directory of user 77, group 78"):
        make_directory(tmp_path / "a" / "cache", 77, 78, 0o750, refuse)
    assert (tmp_path / "a").stat().st_mode & 0o755 == 0o755


class BusyEngine:
    """Answers as an engine that is still removing a container for a run that died; then as one that has."""

    def __init__(self, busy: int) -> None:
        self.left = busy
        self.there = True

    def another(self) -> BusyEngine:
        return self

    def close(self) -> None:
        pass

    def containers(self, *labels: str) -> list[dict[str, Any]]:
        found = container("exited")
        listed = {"Id": NAME, "Names": [f"/{NAME}"], "Labels": found["Config"]["Labels"], "State": "exited"}
        return [listed] if self.there else []

    def inspect(self, identity: str) -> dict[str, Any]:
        return container("exited")

    def set_restart(self, identity: str, name: str, policy: str) -> None:
        assert policy == "no"

    def stop(self, identity: str, name: str, grace_s: int) -> None:
        pass

    def remove(self, identity: str, name: str) -> None:
        self.left -= 1
        if self.left >= 0:
            raise ConflictError("removing f-h.m.0: removal is already in progress")
        self.there = False


@pytest.mark.parametrize(
    ("busy", "error"), [(2, ""), (99, "removing f-h.m.0: removal is already in progress")]
)
def test_a_busy_engine_is_asked_again_for_a_while(busy: int, error: str) -> None:
    engine, pauses = BusyEngine(busy), []
    reconciler = Reconciler(engine, Wish("f", Path("/home")), sleep=pauses.append)  # type: ignore[arg-type]
    (result,) = reconciler.run([], ["h.m.0"])
    assert (result["action"], result["error"]) == ("stop", error)
    assert pauses == [reconcile.PAUSE_S] * min(busy, reconcile.ATTEMPTS - 1)


@pytest.mark.parametrize(
    ("reference", "digests", "expected"),
    [
        ("vllm/vllm-openai:v1", ["vllm/vllm-openai@sha256:a"], "vllm/vllm-openai@sha256:a"),
        ("docker.io/vllm/vllm-openai:v1", ["vllm/vllm-openai@sha256:a"], "vllm/vllm-openai@sha256:a"),
        ("host:5000/x", ["other/x@sha256:b", "host:5000/x@sha256:a"], "host:5000/x@sha256:a"),
        ("host:5000/x:1@sha256:a", ["host:5000/x@sha256:a"], "host:5000/x@sha256:a"),
        ("built-here:1", [], None),
        ("built-here:1", ["elsewhere@sha256:a"], None),
    ],
)
def test_an_image_is_known_by_the_digest_of_its_own_registry(
    reference: str, digests: list[str], expected: str | None
) -> None:
    assert decide.repository_digest(reference, {"RepoDigests": digests}) == expected
