"""`modelyard bundle` as it is called: made from an inventory, verified, handed to this machine, and served from."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.integration.modules.conftest import serve_weights
from tests.integration.test_local_fleet import ROOT, Fleet, local_fleet

REVISION = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = random.Random(5).randbytes(200_000)
# pip must not find an index here, and nothing may be asked of the outside
CLOSED = {"PIP_NO_INDEX": "1", "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
OPEN = {"NO_PROXY": "127.0.0.1"}


def call(fleet: Fleet, *words: str, **more_environment: str) -> tuple[int, str, str]:
    own = {"MODELYARD_HOME": str(ROOT), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    environment = os.environ | own | CLOSED | more_environment
    more = [] if words[1] == "verify" else ["-i", str(fleet.inventory)]
    command = [sys.executable, "-m", "modelyard", *words, *more]
    done = subprocess.run(
        command, cwd=fleet.home, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def wish(fleet: Fleet, hub: str) -> None:
    """A model with weights, which is never started here: vLLM is not installed."""
    model = {"id": "tiny", "engine": "vllm", "source": {"hub": "org/tiny", "revision": REVISION},
             "placement": {"replicas": 1, "gpus": 0}}  # fmt: skip
    variables = fleet.inventory / "group_vars" / "all"
    (variables / "models.yml").write_text(yaml.safe_dump({"models": [model]}), encoding="utf-8")
    settings = yaml.safe_load((variables / "fleet.yml").read_text(encoding="utf-8")) or {}
    settings |= {"fleet_hub_endpoint": hub, "fleet_offline": False}
    (variables / "fleet.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The closed side is this machine; its ``bundle`` was made while there was a hub."""
    home = tmp_path_factory.mktemp("b")
    place = home / "hub" / "org" / "tiny"
    place.mkdir(parents=True)
    (place / "config.json").write_text("{}")
    (place / "model.safetensors").write_bytes(WEIGHTS)
    with local_fleet(home) as running:
        with serve_weights(home / "hub") as hub:
            wish(running, hub.url)
            create = ("bundle", "create", str(home / "bundle"), "--without", "wheels", "--json")
            code, out, err = call(running, *create, "--check", **OPEN)
            assert code == 0, out + err
            listed = {part["kind"]: part for part in json.loads(out)["parts"]}
            assert (listed["weights"]["bytes"], listed["weights"]["there"]) == (len(WEIGHTS) + 2, False)
            assert not (home / "bundle").exists()
            code, out, err = call(running, *create, **OPEN)
            assert code == 0, out + err
            assert {part["kind"] for part in json.loads(out)["parts"]} == {"weights", "project"}
        yield running


def test_a_bundle_is_verified_without_a_network(fleet: Fleet) -> None:
    code, out, _ = call(fleet, "bundle", "verify", str(fleet.home / "bundle"), "--json")
    found = json.loads(out)
    assert (code, found["ok"], found["faults"]) == (0, True, [])
    code, out, _ = call(
        fleet, "bundle", "verify", str(fleet.home / "bundle"), "--manifest-sha256", found["manifest_sha256"]
    )
    assert (code, "every file is as the manifest says" in out) == (0, True)
    code, _, err = call(fleet, "bundle", "verify", str(fleet.home / "bundle"), "--manifest-sha256", "0" * 64)
    assert (code, "another bundle" in err) == (1, True)


def test_a_finished_bundle_needs_no_network_to_be_found_finished(fleet: Fleet) -> None:
    code, out, err = call(fleet, "bundle", "create", str(fleet.home / "bundle"), "--without", "wheels")
    assert code == 0, err
    assert "nothing had to be collected" in out


def test_the_project_in_it_is_whole_and_without_inventories_of_anybody(fleet: Fleet) -> None:
    (archive,) = (fleet.home / "bundle" / "project").iterdir()
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert {
        "ansible.cfg",
        "playbooks/site.yml",
        "pyproject.toml",
        "proxy/modelyard/cli/main.py",
        "Makefile",
    } <= names
    assert {name.split("/")[1] for name in names if name.startswith("inventories/")} == {"example", "local"}


@pytest.mark.parametrize("harm", ["altered", "extra", "missing", "incomplete", "outside"])
def test_a_bundle_that_is_not_as_it_was_made_is_refused(fleet: Fleet, harm: str) -> None:
    bundle = fleet.home / "bundle"
    (file,) = bundle.glob("weights/*/model.safetensors")
    manifest = (bundle / "manifest.json").read_text()
    try:
        if harm == "altered":
            file.write_bytes(WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1]))
        elif harm == "extra":
            (bundle / "weights" / "stray").write_text("x")
        elif harm == "missing":
            file.unlink()
        elif harm == "incomplete":
            (bundle / ".incomplete").mkdir()
        else:
            document = json.loads(manifest)
            document["files"][0]["path"] = "weights/../../outside"
            (bundle / "manifest.json").write_text(json.dumps(document))
        assert call(fleet, "bundle", "verify", str(bundle))[0] == 1
        code, _, err = call(fleet, "bundle", "apply", str(bundle))
        assert code == 1
        assert "Traceback" not in err
    finally:
        file.write_bytes(WEIGHTS)
        (bundle / "manifest.json").write_text(manifest)
        (bundle / "weights" / "stray").unlink(missing_ok=True)
        if harm == "incomplete":
            (bundle / ".incomplete").rmdir()
    assert not (fleet.home / "home").exists()
    assert not (fleet.inventory / "group_vars" / "all" / "zz-bundle.yml").exists()


def test_apply_first_says_what_it_would_do(fleet: Fleet) -> None:
    code, out, err = call(fleet, "bundle", "apply", str(fleet.home / "bundle"), "--check")
    assert code == 0, err
    assert "Nothing was changed." in out
    assert not (fleet.home / "home" / "weights").exists()
    assert not (fleet.inventory / "group_vars" / "all" / "zz-bundle.yml").exists()


def test_applied_weights_are_what_a_deploy_looks_for(fleet: Fleet) -> None:
    code, out, err = call(fleet, "bundle", "apply", str(fleet.home / "bundle"))
    assert code == 0, out + err
    (place,) = (fleet.home / "home" / "weights").iterdir()
    assert (place / "model.safetensors").read_bytes() == WEIGHTS
    look: dict[str, Any] = {
        "snapshots": [{"model": "tiny", "source": {"hub": "org/tiny", "revision": REVISION}, "destination": str(place)}],
        "offline": True, "verify": "full",
    }  # fmt: skip
    module = "ansible_collections.modelyard.fleet.plugins.modules.model_snapshot"
    done = subprocess.run(
        [sys.executable, "-m", module], input=json.dumps({"ANSIBLE_MODULE_ARGS": look}), capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "collections")}, check=False,
    )  # fmt: skip
    assert json.loads(done.stdout)["snapshots"][0]["action"] == "keep", done.stdout
    before = place.stat().st_mtime_ns
    code, out, err = call(fleet, "bundle", "apply", str(fleet.home / "bundle"), "--json")
    assert (code, json.loads(out)["settings"]["changed"], place.stat().st_mtime_ns) == (0, False, before)


def test_a_model_that_the_bundle_does_not_hold_is_told_before_anything_is_touched(fleet: Fleet) -> None:
    models = fleet.inventory / "group_vars" / "all" / "models.yml"
    before = models.read_text()
    (zz := fleet.inventory / "group_vars" / "all" / "zz-bundle.yml").unlink(missing_ok=True)
    try:
        models.write_text(before.replace(REVISION, "f" * 40))
        code, _, err = call(fleet, "bundle", "apply", str(fleet.home / "bundle"))
    finally:
        models.write_text(before)
    assert code == 1
    assert "the bundle does not hold org/tiny at ffffffffffff" in err
    assert not zz.exists()


def test_one_file_for_all_hosts_is_not_hidden(fleet: Fleet) -> None:
    lone = fleet.inventory / "group_vars" / "all.yml"
    lone.write_text("{}\n")
    try:
        code, _, err = call(fleet, "bundle", "apply", str(fleet.home / "bundle"))
    finally:
        lone.unlink()
    assert (code, "would hide it" in err) == (1, True)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["create", "x", "--python", "3.9"], 2, "3.9"),
        (["create", "x", "--weights", "tiny"], 2, "MODEL=PATH"),
        (["create", "x", "--weights", "tinny=/tmp"], 1, "did you mean"),
        (["create", "x", "--weights", "tiny=/nowhere/at/all"], 1, "is not there"),
        (["create", "x", "--collection", "no.such_thing"], 1, "is not installed here"),
        (["verify", "nowhere"], 1, "is no directory"),
        (["apply", "nowhere"], 1, "is no directory"),
    ],
)
def test_wrong_calls_are_told_in_words(fleet: Fleet, words: list[str], code: int, told: str) -> None:
    found, out, err = call(fleet, "bundle", *words)
    assert (found, told in err) == (code, True), out + err
    assert not (fleet.home / "x").exists()
