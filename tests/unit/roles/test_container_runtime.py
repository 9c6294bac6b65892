"""The role container_runtime on every platform: the same keys, templates that render, defaults as documented."""

from __future__ import annotations

import configparser
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.modelyard.fleet.plugins.module_utils.container_host import daemon_json

from tests.tools.role_readmes import ROOT

ROLE = ROOT / "roles" / "container_runtime"
PLATFORMS = sorted((ROLE / "vars" / "platforms").glob("*.yml"))
PASSWORD = "hunter2"
WISHES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "docker": {
        "container_runtime_packages": {"source": "docker", "version": "5:27.3.*", "repository": {"channel": "test"}},
        "container_runtime_daemon": {"log": {"max_size": "10m"}, "registry_mirrors": ["https://mirror.example.org"]},
        "container_runtime_proxies": {"https": f"http://me:{PASSWORD}@proxy:3128", "no_proxy": ["localhost", "10.0.0.0/8"]},
        "container_runtime_accelerator": "nvidia",
        "container_runtime_nvidia": {"version": "1.18*"},
    },
    "podman": {
        "container_runtime_packages": {"engine": "podman"},
        "container_runtime_daemon": {"registry_mirrors": ["http://mirror:5000/"]},
    },
    "legacy": {
        "container_runtime_packages": {"source": "docker", "repository": {"url": "https://mirror/docker", "key": "KEY"}},
        "container_runtime_accelerator": "nvidia",
        "container_runtime_gpu_mode": "device_request",
        "container_runtime_nvidia": {"repository": {"manage": False}},
        "container_runtime_daemon": {"settings": {"log-driver": "journald", "log-opts": {"tag": "x"}}},
    },
}  # fmt: skip


def _load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _shape(value: Any) -> Any:
    """The keys of nested dicts, with the types of what they hold."""
    if isinstance(value, dict):
        return {key: _shape(item) for key, item in value.items()}
    return type(value).__name__


class Stage:
    """The role's variables on one platform, as a run would have them."""

    def __init__(self, platform: Path, wish: dict[str, Any]) -> None:
        self._loader = DataLoader()
        self._loader.set_basedir(str(ROLE / "templates"))
        self.variables: dict[str, Any] = {
            "ansible_facts": {"distribution": "Rocky"},
            "inventory_hostname": "gpu01",
        }
        for path in (ROLE / "defaults" / "main.yml", ROLE / "vars" / "main.yml", platform):
            self.variables |= self._loader.load_from_file(str(path), trusted_as_template=True)
        self.variables |= wish

    def value(self, name: str) -> Any:
        return json.loads(json.dumps(self.render("{{ " + name + " }}")))

    def template(self, name: str, **more: Any) -> str:
        text = (ROLE / "templates" / name).read_text(encoding="utf-8")
        return str(self.render(text, **more))

    def render(self, text: str, **more: Any) -> Any:
        templar = Templar(loader=self._loader, variables=self.variables | more)
        return templar.template(trust_as_template(text))

    def repositories(self) -> dict[str, str]:
        suffix = {"apt": "sources", "dnf": "repo"}[self.value("__container_runtime_platform.package_manager")]
        return {
            one["name"]: self.template(f"repository.{suffix}.j2", __container_runtime_repository=one)
            for one in self.value("__container_runtime_repositories")
        }


def stages(wish: str) -> list[Stage]:
    return [Stage(path, WISHES[wish]) for path in PLATFORMS]


def test_there_is_a_file_for_each_platform_that_the_role_names() -> None:
    assert [path.stem for path in PLATFORMS] == ["debian-12", "redhat-9", "ubuntu-22.04", "ubuntu-24.04"]
    galaxy = _load(ROLE / "meta" / "main.yml")["galaxy_info"]["platforms"]
    assert sum(len(entry["versions"]) for entry in galaxy) == len(PLATFORMS)


@pytest.mark.parametrize("path", PLATFORMS, ids=lambda path: path.stem)
def test_every_platform_has_the_same_keys(path: Path) -> None:
    assert _shape(_load(path)) == _shape(_load(PLATFORMS[0]))


def test_the_values_that_hold_where_nothing_is_said_are_the_documented_ones() -> None:
    def documented(options: dict[str, Any]) -> dict[str, Any]:
        values = {}
        for name, option in options.items():
            assert option["description"], name
            if option["type"] == "dict" and "options" in option:
                values[name] = documented(option["options"])
            else:
                values[name] = option["default"]
        return values

    options = _load(ROLE / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = _load(ROLE / "vars" / "main.yml")["__container_runtime_defaults"]
    nested = {
        name.removeprefix("container_runtime_"): one for name, one in options.items() if one["type"] == "dict"
    }
    found = documented(nested)
    # Docker alone has a channel
    assert found["packages"]["repository"].keys() - found["nvidia"]["repository"].keys() == {"channel"}
    assert found == defaults


@pytest.mark.parametrize("wish", WISHES)
def test_every_template_renders_on_every_platform(wish: str) -> None:
    for stage in stages(wish):
        for text in stage.repositories().values():
            assert text.startswith("# Managed by Modelyard")
        for name in (
            "unattended-upgrades.j2",
            "proxies.env.j2",
            "proxies.conf.j2",
            "containers.conf.j2",
            "registries.conf.j2",
        ):
            text = stage.template(name)
            assert "{{" not in text
            assert "undefined" not in text.lower()
        daemon_json.render(stage.value("__container_runtime_settings"))


def test_repositories_are_signed_and_have_upstreams_addresses() -> None:
    debian, redhat, jammy, noble = (stage.repositories() for stage in stages("docker"))
    assert debian["docker"].splitlines()[1:] == [
        "Types: deb",
        "URIs: https://download.docker.com/linux/debian",
        "Suites: bookworm",
        "Components: test",
        "Signed-By: /etc/apt/keyrings/modelyard-docker.asc",
    ]
    assert debian["nvidia"].splitlines()[1:] == [
        "Types: deb",
        "URIs: https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH)",
        "Suites: /",
        "Signed-By: /etc/apt/keyrings/modelyard-nvidia.asc",
    ]
    assert "linux/ubuntu\nSuites: jammy" in jammy["docker"]
    assert "linux/ubuntu\nSuites: noble" in noble["docker"]
    rpm = {}
    for name in ("docker", "nvidia"):
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(redhat[name])
        rpm[name] = dict(parser[f"modelyard-{name}"])
    assert rpm["docker"]["baseurl"] == "https://download.docker.com/linux/centos/9/$basearch/test"
    assert rpm["docker"]["gpgkey"] == "file:///etc/pki/rpm-gpg/modelyard-docker.asc"
    assert (rpm["docker"]["gpgcheck"], rpm["docker"]["repo_gpgcheck"]) == ("1", "0")
    assert (rpm["nvidia"]["gpgcheck"], rpm["nvidia"]["repo_gpgcheck"]) == ("0", "1")


def test_a_mirror_and_its_key_take_the_place_of_upstreams() -> None:
    for stage in stages("legacy"):
        (docker,) = stage.value("__container_runtime_repositories")
        assert (docker["url"], docker["key"]) == ("https://mirror/docker", "KEY")


def test_packages_are_those_of_the_source_with_their_pins() -> None:
    wanted = [
        {one["name"]: one["version"] for one in stage.value("__container_runtime_wanted")}
        for stage in stages("docker")
    ]
    for one in wanted:
        assert one["docker-ce"] == one["docker-ce-cli"] == "5:27.3.*"
        assert one["containerd.io"] == one["python3-docker"] == ""
        assert one["nvidia-container-toolkit"] == "1.18*"
    assert "python3-dnf-plugin-versionlock" in wanted[1]
    assert [bool(stage.value("__container_runtime_own")) for stage in stages("nothing")] == [
        True,
        False,
        True,
        True,
    ]
    held = stages("nothing")[0].value("__container_runtime_held")
    assert held == ["docker.io", "containerd", "runc"]
    assert '"^docker\\.io$";' in stages("nothing")[0].template("unattended-upgrades.j2")


def test_settings_hold_what_is_wished_and_nothing_that_is_empty() -> None:
    logs = {"log-driver": "json-file", "log-opts": {"max-size": "50m", "max-file": "5"}}
    assert stages("nothing")[0].value("__container_runtime_settings") == {"live-restore": True, **logs}
    docker = stages("docker")[0].value("__container_runtime_settings")
    assert docker["log-opts"] == {"max-size": "10m", "max-file": "5"}
    assert docker["features"] == {"cdi": True}
    assert "runtimes" not in docker
    legacy = stages("legacy")[0].value("__container_runtime_settings")
    assert legacy["runtimes"] == {"nvidia": {"path": "nvidia-container-runtime", "args": []}}
    assert "features" not in legacy
    assert legacy["log-driver"] == "journald"


def test_proxies_stand_in_a_file_for_root_and_in_no_unit() -> None:
    stage = stages("docker")[0]
    assert stage.template("proxies.env.j2").splitlines()[1:] == [
        f'HTTPS_PROXY="http://me:{PASSWORD}@proxy:3128"',
        'NO_PROXY="localhost,10.0.0.0/8"',
    ]
    assert PASSWORD not in stage.template("proxies.conf.j2")
    assert stage.value("__container_runtime_proxies_mode") == "0600"
    open_to_all = Stage(PLATFORMS[0], {"container_runtime_proxies": {"http": "http://proxy:3128"}})
    assert open_to_all.value("__container_runtime_proxies_mode") == "0644"
    for path in (ROLE / "tasks").glob("*.yml"):
        for task in _load(path):
            if "proxies.env.j2" in json.dumps(task) or "proxies.conf.j2" in json.dumps(task):
                assert task["no_log"] == "{{ container_runtime_no_log | bool }}"


@pytest.mark.parametrize(
    ("platform", "wish", "look", "said"),
    [
        ("redhat-9", "nothing", {}, "has no Docker of its own"),
        ("debian-12", "docker", {"docker.io": {}}, "A Docker of another source is installed (docker.io)"),
        ("debian-12", "nothing", {"docker-ce": {}}, "container_runtime_packages.source to docker"),
        ("debian-12", "nothing", {"docker.io": {}}, ""),
    ],
)
def test_wishes_that_do_not_fit_are_said(platform: str, wish: str, look: dict[str, Any], said: str) -> None:
    stage = Stage(ROLE / "vars" / "platforms" / f"{platform}.yml", WISHES[wish])
    stage.variables["__container_runtime_look"] = {"packages": look, "engine": {"swarm": False}}
    broken = [rule["say"] for rule in stage.value("__container_runtime_rules") if rule["broken"]]
    assert (said in " ".join(broken)) if said else broken == []


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"container_runtime_accelerator": "nvidia"}, "older than CDI"),
        ({"container_runtime_accelerator": "nvidia", "container_runtime_gpu_mode": "device_request"}, ""),
        ({"container_runtime_packages": {"engine": "podman"}, "container_runtime_accelerator": "nvidia",
          "container_runtime_gpu_mode": "device_request"}, "Podman knows GPUs by CDI only"),
        ({"container_runtime_packages": {"engine": "podman"},
          "container_runtime_daemon": {"bip": "198.18.0.1/24"}}, "Podman has none"),
        ({"swarm": True}, "part of a Docker swarm"),
        ({"swarm": True, "container_runtime_daemon": {"live_restore": False}}, ""),
    ],
)  # fmt: skip
def test_wishes_that_contradict_each_other_are_said(wish: dict[str, Any], said: str) -> None:
    stage = Stage(ROLE / "vars" / "platforms" / "debian-12.yml", wish)
    look = {"packages": {}, "engine": {"swarm": wish.get("swarm", False)}}
    stage.variables["__container_runtime_look"] = look
    broken = [rule["say"] for rule in stage.value("__container_runtime_rules") if rule["broken"]]
    assert (said in " ".join(broken)) if said else broken == []


def test_what_is_noted_of_a_host_follows_everything_that_is_wished_of_it() -> None:
    def noted(**wish: Any) -> str:
        digest = Stage(PLATFORMS[0], wish).value("__container_runtime_wish")
        assert len(digest) == 64
        return str(digest)

    def proxy(password: str) -> dict[str, Any]:
        return {"container_runtime_proxies": {"https": f"http://me:{password}@proxy:3128"}}

    different = [
        noted(),
        noted(container_runtime_accelerator="nvidia"),
        noted(container_runtime_accelerator="nvidia", container_runtime_gpu_mode="device_request"),
        noted(container_runtime_accelerator="nvidia", container_runtime_nvidia={"version": "1.18*"}),
        noted(container_runtime_daemon={"live_restore": False}),
        noted(container_runtime_packages={"version": "5:27.3.*"}),
        noted(container_runtime_images=[{"archive": "/srv/images/vllm.tar"}]),
        noted(**proxy(PASSWORD)),
        noted(**proxy("another")),
    ]
    assert len(set(different)) == len(different)
    # what is said and is the default, and what does not concern the host, is no other wish
    assert noted(container_runtime_daemon={"live_restore": True}) == noted()
    assert noted(container_runtime_nvidia={"version": "1.18*"}) == noted()
    assert noted(container_runtime_accelerator="rocm") == noted()
    note = next(task for task in _load(ROLE / "tasks" / "main.yml") if "Note what" in task["name"])
    assert note["ansible.builtin.copy"]["mode"] == "0600"
    assert note["diff"] is False
