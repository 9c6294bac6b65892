"""Whatever the containers are: the inventory that comes of them is in order, and holds no secret."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.errors import ConfigError
from modelyard.importing.docker import from_inspect
from modelyard.importing.files import texts
from modelyard.importing.gather import gather
from modelyard.inventory import HostView, Resolved, check, host_settings, patterns_of, wish_digest

from .samples import TOKEN, container

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)
MODELS = st.sampled_from(
    ["org/a", "Org/Model-7B.v2", "/models/x", "/data", "name", "../odd", "a/b/c", "ÄÖ/x", "", "s3://b/k"]
)
FLAGS = st.lists(
    st.one_of(
        st.sampled_from(
            ["--max-model-len", "4096", "--enforce-eager", "-tp", "2", "--port", "9000", "--served-model-name", "Chat/X",
             "--api-key", TOKEN, "--revision", "main", "--no-enable-prefix-caching", "-O3", "--hf-token", TOKEN,
             "--json.dotted", "--x=", "--", "-", '{"a": 1}', "{{ lookup('pipe', 'id') }}", "--task", "embed"]
        ),
        WORDS,
    ),
    max_size=10,
)  # fmt: skip
GPUS = st.sampled_from(
    [
        [],
        [{"Count": -1, "Capabilities": [["gpu"]]}],
        [{"DeviceIDs": ["0", "3"], "Capabilities": [["gpu"]]}],
        [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}],
        [{"DeviceIDs": ["GPU-5d1e"], "Capabilities": [["gpu"]]}],
    ]
)
BINDINGS = st.sampled_from(
    [None, [], [{"HostIp": "0.0.0.0", "HostPort": "8000"}], [{"HostIp": "127.0.0.1", "HostPort": "8101"}],
     [{"HostIp": "10.0.0.9", "HostPort": "7000"}, {"HostIp": "::", "HostPort": "7000"}]]
)  # fmt: skip
NAMES = st.dictionaries(
    st.sampled_from(["HF_TOKEN", "VLLM_X", "A B", "DB_PASSWORD", "NCCL_DEBUG"]), WORDS, max_size=4
)


@st.composite
def containers(draw: st.DrawFn) -> dict[str, Any]:
    item = container(draw(st.sampled_from(["a", "b", "c-1", "d_x"])), [draw(MODELS), *draw(FLAGS)])
    item["HostConfig"].update(
        DeviceRequests=draw(GPUS), NetworkMode=draw(st.sampled_from(["bridge", "host"]))
    )
    item["NetworkSettings"]["Ports"] = {"8000/tcp": draw(BINDINGS)}
    item["Config"]["Env"] = [f"{key}={value}" for key, value in draw(NAMES).items()] + [f"HF_TOKEN={TOKEN}"]
    return item


@settings(deadline=None)
@given(st.lists(containers(), max_size=5, unique_by=lambda item: str(item["Name"])))
def test_an_imported_inventory_is_in_order(items: list[dict[str, Any]]) -> None:
    try:
        made = gather(from_inspect(json.dumps(items), "input"), "here", None, None, local=True)
    except ConfigError:
        return
    files = texts(made, "docker")
    assert not any(TOKEN in text for text in files.values())
    models = _rendered(yaml.safe_load(files["group_vars/all/models.yml"])["models"])
    hosts = yaml.safe_load(files["hosts.yml"])["all"]["children"]["engine_hosts"]["hosts"]
    given_ = {
        key: value
        for key, value in {**hosts["here"], **yaml.safe_load(files["group_vars/all/fleet.yml"])}.items()
        if key.startswith("fleet_")
    }
    filled = host_settings(
        given_, name="here", ansible_host=None, local=True, inventory_dir="/i", python="python3"
    )
    view = {"here": HostView("here", given_, filled, runs_engines=True, runs_proxy=True)}
    patterns = {pattern: ["here"] for pattern in patterns_of(models)}
    found = check(models, view, Resolved(patterns, frozenset({"here", "engine_hosts"})))
    assert [str(problem) for problem in found] == []
    for model in models:
        assert {entry["wish"] for entry in model.get("adopt", ())} <= {wish_digest(model)}


def _rendered(value: Any) -> Any:
    """As Ansible renders it: literal text is bare, a variable of the vault empty."""
    if isinstance(value, str):
        if value.startswith("{% raw %}"):
            return value.removeprefix("{% raw %}").removesuffix("{% endraw %}")
        assert "{{" not in value or value.startswith("{{ vault_")
        return "" if value.startswith("{{ vault_") else value
    if isinstance(value, dict):
        return {key: _rendered(item) for key, item in value.items()}
    return [_rendered(item) for item in value] if isinstance(value, list) else value
