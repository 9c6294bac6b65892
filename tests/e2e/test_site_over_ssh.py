"""A site from its first deployment on: real vLLM, real SSH, a host with a Docker engine of its own.

The tests are one story, told in the order in which they stand: each leaves the site as the next expects it.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from tests.e2e.rolling.streams import Streams
from tests.e2e.rolling.watch import Watch
from tests.e2e.site import PROXY_PORT, Run, Site
from tests.hosts import hub as stand_in
from tests.hosts.lab import Lab
from tests.hosts.machine import Host
from tests.parts import tiny_model, vllm_image, wheelhouse

pytestmark = pytest.mark.timeout(1500)  # a first run builds the parts, and three engines share two cores

REQUESTS = 200
AT_ONCE = 8
# Streams during the change; with many more a new engine comes up very slowly, for all share two cores.
STREAMS = int(os.environ.get("MODELYARD_STREAMS", "8"))
MODEL = "org/tiny"
OLD, NEW = "1" * 40, "2" * 40
"""Revisions of it."""


def tiny(identity: str, replicas: int, host: Host, **more: Any) -> dict[str, Any]:
    """A model as an operator declares it; where nothing else is said the weights lie on the host already."""
    return {
        "id": identity,
        "engine": "vllm",
        "source": {"path": str(host.models)},
        "placement": {"replicas": replicas, "gpus": 0},
        "args": {"dtype": "float32", "max_model_len": 512, "max_num_seqs": 32, "enforce_eager": True},
        "resources": {"memory": "3g", "shm_mib": 256},
        "smoke": {"prompt": "Say hello.", "max_tokens": 4},
        **more,
    }


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as the hub has it."""
    return tmp_path_factory.mktemp("hub") / MODEL


@pytest.fixture(scope="module")
def hub(lab: Lab, parts: None, repository: Path) -> Iterator[str]:
    """The URL of a hub that the hosts can reach."""
    shutil.copytree(tiny_model.directory(), repository)
    with stand_in.hub(repository.parents[1], lab.controller) as url:
        yield url


@pytest.fixture(scope="module")
def site(hub: str, start_hosts: Callable[..., list[Host]], tmp_path_factory: pytest.TempPathFactory) -> Site:
    """One host with two models, deployed by `site.yml`: `tiny` with two replicas, `steady` with one."""
    (host,) = start_hosts("alpha")
    fleet = {
        "fleet_name": "e2e",
        "fleet_accelerator": "cpu",
        "fleet_hub_endpoint": hub,
        "fleet_images": {"vllm": {"cpu": vllm_image.tag()}},
        # the engines of the test hosts lack CAP_SYS_RESOURCE
        "fleet_container_ulimits": {},
        "fleet_proxy_listen": host.address,
        "fleet_proxy_port": PROXY_PORT,
        "fleet_proxy_wheelhouse": str(wheelhouse.directory()),
    }
    source = {"hub": MODEL, "revision": OLD}
    models = {"tiny": tiny("tiny", 2, host, source=source), "steady": tiny("steady", 1, host)}
    site = Site(tmp_path_factory.mktemp("site"), fleet, [host], models)
    site.write()
    try:
        site.play("site")
    except AssertionError as error:
        pytest.fail(f"{error}\n{site.describe()}", pytrace=False)
    return site


def test_the_replicas_run_as_they_were_declared(site: Site) -> None:
    host = site.hosts[0]
    containers = site.containers(running=True)
    assert sorted(containers) == ["alpha.steady.0", "alpha.tiny.0", "alpha.tiny.1"]
    for container in containers.values():
        settings, limits = container["Config"], container["HostConfig"]
        assert settings["User"] == "1000:1000"
        assert settings["Image"] == vllm_image.tag()
        assert container["State"]["Health"]["Status"] == "healthy"
        assert limits["Memory"] == 3 * 1024**3
        assert limits["RestartPolicy"]["Name"] == "unless-stopped"
        published = [
            binding["HostIp"] for bindings in limits["PortBindings"].values() for binding in bindings
        ]
        assert published == [host.address], "an engine must be reached at the fleet's address only"
        assert "512" in settings["Cmd"], settings["Cmd"]


def test_openai_lists_the_models_and_chats_in_both_ways(site: Site) -> None:
    with site.client() as client:
        assert {model.id for model in client.models.list()} == {"tiny", "steady"}
        plain = chat(client, "tiny", "Say hello.")
        assert plain.usage is not None
        assert plain.usage.completion_tokens == 12
        text = plain.choices[0].message.content
        assert text
        pieces = [
            chunk.choices[0].delta.content or ""
            for chunk in client.chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": "Say hello."}],
                max_tokens=12,
                temperature=0,
                stream=True,
            )
            if chunk.choices
        ]
        assert len([piece for piece in pieces if piece]) > 1, "the stream came in one piece"
        assert "".join(pieces) == text


def test_an_unknown_model_is_a_clear_error(site: Site) -> None:
    with site.client() as client, pytest.raises(openai.NotFoundError, match="no-such-model"):
        chat(client, "no-such-model", "Say hello.")


def test_a_second_run_changes_nothing(site: Site) -> None:
    before = site.identities()
    run = site.play("site")
    assert set(run.changed().values()) == {0}, run.changed()
    assert "alpha" in run.changed()
    assert site.identities() == before


def test_a_plan_of_what_runs_keeps_all_of_it(site: Site) -> None:
    assert {action for action, _ in site.changes().values()} == {"keep"}


def test_verify_generates_on_every_replica_and_through_the_proxy(site: Site) -> None:
    before = {replica: generated(site, replica) for replica in site.containers(running=True)}
    site.play("verify")
    after = {replica: generated(site, replica) for replica in before}
    assert all(after[replica] > before[replica] for replica in before), (before, after)


def test_a_killed_replica_costs_no_request_and_status_tells_the_truth(site: Site) -> None:
    victim, other = site.replicas("tiny")
    assert site.states() == {"alpha.steady.0": "up", victim: "up", other: "up"}

    under_way = threading.Event()
    answered: list[int] = []

    def ask(number: int) -> str:
        with site.client() as client:
            reply = chat(client, "tiny", f"Request {number}, please.")
        answered.append(number)
        if len(answered) >= REQUESTS // 5:
            under_way.set()
        assert reply.choices[0].message.content
        return str(reply.choices[0].finish_reason)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        replies = [pool.submit(ask, number) for number in range(REQUESTS)]
        assert under_way.wait(300), f"{len(answered)} of {REQUESTS} requests were answered in 300 s"
        left = REQUESTS - len(answered)
        site.kill(victim)
        failures = [str(error) for reply in replies if (error := reply.exception())]
    assert left > AT_ONCE, "the replica was killed too late to matter"
    assert failures == [], f"{len(failures)} of {REQUESTS} requests failed"

    assert site.states() == {"alpha.steady.0": "up", victim: "down", other: "up"}

    bystanders = site.identities(["alpha.steady.0", other])
    site.play("deploy")
    assert site.states() == {"alpha.steady.0": "up", victim: "up", other: "up"}
    assert site.identities(["alpha.steady.0", other]) == bystanders


@pytest.fixture(scope="module")
def first(site: Site) -> dict[str, Any]:
    """What its first release runs: replica -> how it was started. Asked for before the first change."""
    return launched(site)


def test_a_changed_argument_replaces_exactly_its_replicas_and_costs_no_request(
    site: Site, repository: Path, first: dict[str, Any]
) -> None:
    steady = site.identities(["alpha.steady.0"])
    tiny_before = site.identities(site.replicas("tiny"))
    (repository / "README.md").write_text("The second revision.\n")
    changed = copy.deepcopy(site.models)
    changed["tiny"]["args"]["max_model_len"] = 256
    changed["tiny"]["source"]["revision"] = NEW
    site.wish(changed)

    plan = site.changes()
    assert {replica: action for replica, (action, _) in plan.items()} == {
        "alpha.steady.0": "keep",
        "alpha.tiny.0": "replace",
        "alpha.tiny.1": "replace",
    }
    assert all("max_model_len" in reason or "max-model-len" in reason for _, reason in replaced(plan)), plan
    assert site.identities() == {**steady, **tiny_before}, "a plan must touch nothing"

    roll(site, lambda: site.play("deploy"), set(tiny_before))
    assert site.identities(["alpha.steady.0"]) == steady
    tiny_after = site.identities(site.replicas("tiny"))
    assert tiny_after.keys() == tiny_before.keys()
    assert not set(tiny_after.values()) & set(tiny_before.values())
    now = launched(site)
    for replica in tiny_after:
        assert "256" in now[replica]["command"]
        assert any(NEW[:12] in source for source in now[replica]["mounts"]), now[replica]
        assert any(OLD[:12] in source for source in first[replica]["mounts"]), first[replica]
    with site.client() as client:
        assert chat(client, "tiny", "Say hello.").choices[0].message.content
        with pytest.raises(openai.BadRequestError):
            chat(client, "tiny", "word " * 400)


def test_a_rollback_restores_arguments_and_weights_and_costs_no_request(
    site: Site, hub: str, first: dict[str, Any]
) -> None:
    steady = site.identities(["alpha.steady.0"])
    sent = fetched(hub)
    roll(site, lambda: site.play("rollback", model="tiny"), set(site.replicas("tiny")))
    assert launched(site) == first
    assert site.identities(["alpha.steady.0"]) == steady
    assert fetched(hub) == sent, "the earlier revision is still there"


def test_a_removed_model_leaves_and_nothing_else_does(site: Site) -> None:
    steady = site.identities(["alpha.steady.0"])
    images = site.hosts[0].docker("images", "--quiet")
    site.wish({"steady": site.models["steady"]})
    assert {replica: action for replica, (action, _) in site.changes().items()} == {
        "alpha.steady.0": "keep",
        "alpha.tiny.0": "stop",
        "alpha.tiny.1": "stop",
    }

    site.play("deploy")
    assert site.identities() == steady
    assert site.hosts[0].docker("images", "--quiet") == images
    assert list(registry(site)["models"]) == ["steady"]
    with site.client() as client:
        assert [model.id for model in client.models.list()] == ["steady"]
        assert chat(client, "steady", "Say hello.").choices[0].message.content
        with pytest.raises(openai.NotFoundError):
            chat(client, "tiny", "Say hello.")


def test_a_second_host_takes_new_replicas_and_nothing_moves(
    site: Site, start_hosts: Callable[..., list[Host]]
) -> None:
    (beta,) = start_hosts("beta")
    steady = site.identities(["alpha.steady.0"])
    site.hosts.append(beta)
    site.models = {"steady": site.models["steady"], "tiny": tiny("tiny", 2, beta)}
    site.write()
    site.play("site")

    hosts = sorted(replica.split(".")[0] for replica in site.replicas("tiny"))
    assert hosts == ["alpha", "beta"], "replicas of one model spread over hosts"
    assert site.identities(["alpha.steady.0"]) == steady
    before = {replica: generated(site, replica) for replica in site.replicas("tiny")}
    with site.client() as client:
        for number in range(2 * AT_ONCE):
            chat(client, "tiny", f"Request {number}, please.")
    after = {replica: generated(site, replica) for replica in before}
    assert all(after[replica] > before[replica] for replica in before), (before, after)


def roll(site: Site, play: Callable[[], Run], replicas: set[str]) -> None:
    """Let a playbook run that moves `replicas`, with streams at all times: one after the other, and no stream breaks."""
    # no two engines need give the same text, so only its length is known
    streams = Streams(site.proxy, "tiny", STREAMS, wanted=None, more={"ignore_eos": True})
    with streams, Watch(site) as watch:
        streams.wait_for(STREAMS)
        play()
        streams.wait_for(2 * STREAMS)  # the moved ones have had their turn as well
    assert streams.tally.broken == [], f"of {streams.tally.whole} streams"
    assert max(len(out & replicas) for out in watch.away()) == 1, "one after the other"
    print(f"{STREAMS} streams at all times: {streams.tally.whole} whole, none broken")


def launched(site: Site) -> dict[str, Any]:
    """Replica -> image, command line and places of its container."""
    return {
        replica: {
            "image": container["Image"],
            "command": container["Config"]["Cmd"],
            "mounts": sorted(mount["Source"] for mount in container["Mounts"] if mount["Type"] == "bind"),
        }
        for replica, container in site.containers(running=True).items()
    }


def fetched(url: str) -> Any:
    """Bytes of each file that the hub at `url` has sent."""
    with urllib.request.urlopen(f"{url}/sent", timeout=30) as answer:
        return json.load(answer)


def chat(client: openai.OpenAI, model: str, text: str) -> Any:
    return client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": text}], max_tokens=12, temperature=0
    )


def replaced(plan: dict[str, tuple[str, str]]) -> list[tuple[str, str]]:
    return [(action, reason) for action, reason in plan.values() if action == "replace"]


def registry(site: Site) -> dict[str, Any]:
    """The registry that the proxy reads; JSON is YAML, and the role may write either."""
    found: dict[str, Any] = yaml.safe_load(site.hosts[0].run("cat", "/var/lib/modelyard/endpoints.yml"))
    return found


def generated(site: Site, replica: str) -> float:
    """How many tokens the engine of `replica` has generated, from its own metrics."""
    bindings = site.containers()[replica]["HostConfig"]["PortBindings"].values()
    (binding,) = [binding for each in bindings for binding in each]
    address = f"http://{binding['HostIp']}:{binding['HostPort']}/metrics"
    with urllib.request.urlopen(address, timeout=30) as reply:
        lines = reply.read().decode().splitlines()
    values = [
        float(line.rpartition(" ")[2]) for line in lines if line.startswith("vllm:generation_tokens_total")
    ]
    assert values, f"{address} has no count of generated tokens"
    return sum(values)
