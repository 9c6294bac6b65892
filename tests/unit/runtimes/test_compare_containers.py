"""Containers against their wish, over documents that a real engine gave (``tests/tools/record_containers.py``)."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.containers.compare import differences, reason
from ansible_collections.modelyard.fleet.plugins.module_utils.containers.config import container_config

from tests.tools.record_containers import HERE, WISHES, assignment

Document = dict[str, Any]


def recorded(name: str) -> tuple[Document, Document, Document]:
    """The create body, the container's inspect document, the image's."""
    wish, container, image = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    return container_config(assignment(**(wish or {})), "f"), container, image


def found(name: str) -> dict[str, tuple[Any, Any]]:
    return {item["field"]: (item["wanted"], item["found"]) for item in differences(*recorded(name))}


def test_every_record_is_tested() -> None:
    assert {path.stem for path in Path(HERE).glob("*.json")} == {
        *WISHES, "started", "updated", "connected", "by_hand"
    }  # fmt: skip


@pytest.mark.parametrize("name", [*WISHES, "started"])
def test_what_was_made_from_a_wish_does_not_differ_from_it(name: str) -> None:
    assert differences(*recorded(name)) == []


@pytest.mark.parametrize("name", [*WISHES, "started"])
def test_a_newer_engine_says_the_same_in_other_words(name: str) -> None:
    wanted, container, image = recorded(name)
    host = container["HostConfig"]
    host |= {"NetworkMode": "bridge", "CapAdd": [], "PidsLimit": None, "OomKillDisable": False, "Binds": [],
             "MemorySwap": 0, "CapDrop": ["CAP_ALL"], "Dns": None, "Devices": host["Devices"] or None}  # fmt: skip
    host["Mounts"] = [{**item, "BindOptions": {}} for item in host.get("Mounts") or []]
    container["Config"] |= {"Volumes": container["Config"]["Volumes"] or None}
    assert differences(wanted, container, image) == []


@pytest.mark.parametrize("other", [name for name in WISHES if name != "plain"])
def test_each_wish_differs_from_the_plain_one_and_back(other: str) -> None:
    """Whatever is added in one direction is a removal in the other: both are found, in the same fields."""
    plain, plain_container, image = recorded("plain")
    wanted, container, _ = recorded(other)
    forth = {item["field"] for item in differences(plain, container, image)}
    back = {item["field"] for item in differences(wanted, plain_container, image)}
    assert forth
    assert forth - {"shm_size", "ipc"} == back - {"shm_size", "ipc"}


def test_what_docker_update_and_network_connect_change_is_found() -> None:
    assert found("updated") == {
        "cpus": (1.0, 0.5),
        "memory": (256 << 20, 128 << 20),
        "memory_swap": (None, 640 << 20),
        "pids_limit": (None, 99),
        "restart_policy": ("unless-stopped", "always"),
    }
    assert found("connected") == {"networks": (["bridge"], ["bridge", "recorded"])}


def test_a_container_made_by_hand_differs_in_everything_that_was_done_to_it() -> None:
    by_hand = found("by_hand")
    assert set(by_hand) >= {
        "cap_add", "cap_drop", "command", "cpus", "device_requests", "devices", "dns", "entrypoint", "extra_hosts",
        "groups", "healthcheck", "init", "log", "memory", "mounts", "network_mode", "pid_mode", "ports", "privileged",
        "read_only", "restart_policy", "security_opts", "shm_size", "stop_timeout", "tmpfs", "ulimits", "user",
        "labels.modelyard.fleet",
    }  # fmt: skip
    assert by_hand["mounts"] == (
        ["bind /tmp -> /cache rw", "bind /usr/share -> /models ro"],
        ["bind /usr/share -> /models rw", "bind /var/tmp -> /extra ro z"],
    )
    assert by_hand["device_requests"] == (None, ["any all [gpu]"])
    assert by_hand["ports"] == (["127.0.0.1:18100->8000/tcp"], ["0.0.0.0:18100->8000/tcp"])


def test_variables_are_compared_one_by_one_and_never_shown() -> None:
    by_hand = {name: pair for name, pair in found("by_hand").items() if name.startswith("env.")}
    # PATH comes from the image; BASE does too, with another value
    assert set(by_hand) == {"env.TOKEN", "env.EMPTY", "env.MORE", "env.BASE"}
    assert by_hand["env.TOKEN"] == ("sha256:31160254d129", "sha256:ae448ac86c4e")
    assert "secret-value" not in json.dumps(differences(*recorded("by_hand")))
    assert by_hand["env.MORE"][0] is None
    assert by_hand["env.EMPTY"][1] is None


def test_a_variable_that_is_no_longer_wished_is_a_difference() -> None:
    wanted, container, image = recorded("plain")
    wanted["Env"] = [entry for entry in wanted["Env"] if not entry.startswith("TOKEN=")]
    assert [item["field"] for item in differences(wanted, container, image)] == ["env.TOKEN"]


def test_another_image_under_the_same_name_is_a_difference_and_only_that() -> None:
    wanted, container, image = recorded("plain")
    newer = copy.deepcopy(image)
    newer["Id"] = "sha256:" + "7" * 64
    newer["Config"]["Env"] = ["BASE=newer", "PATH=/bin"]
    assert [item["field"] for item in differences(wanted, container, newer, running_image=image)] == ["image"]
    # without a word of the image that runs, what it brought along is not judged
    assert [item["field"] for item in differences(wanted, container, newer)] == ["image"]
    (difference,) = differences(wanted, container, newer)
    assert difference["wanted"].endswith("(sha256:777777777777)")


@pytest.mark.parametrize("said", ["Descriptor", "Manifests", "ImageManifestDescriptor"])
def test_engines_may_name_one_image_by_several_digests(said: str) -> None:
    wanted, container, image = recorded("plain")
    digest = container["Image"]
    image["Id"] = "sha256:" + "1" * 64
    if said == "ImageManifestDescriptor":
        container |= {said: {"digest": image["Id"]}, "Image": "sha256:" + "2" * 64}
    else:
        image[said] = {"digest": digest} if said == "Descriptor" else [{"ID": digest}]
    assert differences(wanted, container, image) == []


def test_a_pinned_image_stays_the_same_when_the_host_lost_its_name() -> None:
    wanted, container, image = recorded("plain")
    wanted["Image"] = container["Config"]["Image"] = "registry/engine@sha256:" + "3" * 64
    assert differences(wanted, container, None) == []
    wanted["Image"] = "registry/engine@sha256:" + "4" * 64
    assert [item["field"] for item in differences(wanted, container, None, image)] == ["image"]


def test_a_changed_wish_does_not_show_its_record_too() -> None:
    wanted, container, image = recorded("plain")
    wanted["Labels"] |= {"modelyard.hash": "newer", "modelyard.spec": "{}"}
    assert [item["field"] for item in differences(wanted, container, image)] == ["labels.modelyard.hash"]
    container["Config"]["Labels"]["modelyard.hash"] = "newer"
    assert [item["field"] for item in differences(wanted, container, image)] == ["labels.modelyard.spec"]


def test_differences_read_as_one_line_from_what_is_to_what_is_wished() -> None:
    line = reason(differences(*recorded("updated")))
    assert line.startswith("cpus: 0.5 -> 1.0; memory: 134217728 -> 268435456; memory_swap: 671088640 -> none")
    assert reason(differences(*recorded("by_hand"))).endswith("more")
    secrets = reason([item for item in differences(*recorded("by_hand")) if item["field"].startswith("env.")])
    assert secrets == "env.BASE changed; env.EMPTY added; env.MORE removed; env.TOKEN changed"
