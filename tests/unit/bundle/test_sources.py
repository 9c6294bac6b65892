"""Images, weights, wheels, collections and archives, without Docker, network or index."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.containers.names import names_of
from ansible_collections.modelyard.fleet.plugins.module_utils.sources import KINDS

from modelyard.bundle import galaxy, locks
from modelyard.bundle.archives import image_names, pack, unpack
from modelyard.bundle.choose import Options
from modelyard.bundle.choose import _weights as choose_weights
from modelyard.bundle.images import ImageSource, loaded_as, repository
from modelyard.bundle.manifest import BundleError
from modelyard.bundle.packages import platform_of
from modelyard.bundle.project import ProjectSource, taken
from modelyard.bundle.share import share, wheel_problems
from modelyard.bundle.weights import WeightsSource, identity
from tests.unit.bundle.made import Silent

HEX = "a1" * 32


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        (f"docker.io/vllm/vllm-openai@sha256:{HEX}", "docker.io/vllm/vllm-openai"),
        (f"registry:5000/a/b:v1@sha256:{HEX}", "registry:5000/a/b"),
        (f"127.0.0.1:5000/b@sha256:{HEX}", "127.0.0.1:5000/b"),
    ],
)
def test_both_halves_agree_on_the_name_of_a_pinned_image(reference: str, name: str) -> None:
    assert repository(reference) == name
    assert loaded_as(reference) == f"{name}:modelyard-{HEX}"
    assert names_of(reference) == (reference, loaded_as(reference))


@pytest.mark.parametrize(
    ("reference", "name"), [("a/b:v1", "a/b:v1"), ("host:5000/b", "host:5000/b:latest"), ("b", "b:latest")]
)
def test_other_images_keep_their_name(reference: str, name: str) -> None:
    assert loaded_as(reference) == name
    assert names_of(reference) == (reference,)


class Engine:
    """What of `docker` an image needs; `pulls` says whether the registry has it."""

    def __init__(self, there: set[str], *, pulls: bool = True, saves_as: str = "") -> None:
        self.there, self.pulls, self.saves_as = set(there), pulls, saves_as
        self.calls: list[str] = []

    def __call__(self, command: list[str], what: str) -> str:
        self.calls.append(" ".join(command[1:3] if command[1] == "image" else command[1:2]))
        last = command[-1]
        if command[1:3] == ["image", "inspect"]:
            if last not in self.there:
                raise BundleError(what, ["Error response from daemon: No such image: " + last])
            found = {"Id": f"sha256:{HEX}", "Size": 7, "Os": "linux", "Architecture": "amd64",
                     "RepoDigests": [f"a/b@sha256:{HEX}"]}  # fmt: skip
            return json.dumps(found)
        if command[1] == "pull":
            if not self.pulls:
                raise BundleError(what, ["manifest unknown"])
            self.there.add(last)
        if command[1] == "tag":
            self.there.add(last)
        if command[1] == "rmi":
            self.there.discard(last)
        if command[1] == "save":
            write_archive(Path(command[3]), [self.saves_as or last])
        return ""


def write_archive(place: Path, names: list[str]) -> None:
    text = json.dumps([{"Config": "x.json", "RepoTags": names, "Layers": []}]).encode()
    with tarfile.open(place, "w") as archive:
        info = tarfile.TarInfo("manifest.json")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))


def test_an_image_is_pulled_named_and_saved(tmp_path: Path) -> None:
    engine = Engine(set())
    reference = f"a/b@sha256:{HEX}"
    done = ImageSource(reference, ("m",), run=engine).collect(tmp_path, Silent())
    assert done.details == {
        "reference": reference, "loaded_as": f"a/b:modelyard-{HEX}", "id": f"sha256:{HEX}", "digest": reference,
        "platform": "linux/amd64",
    }  # fmt: skip
    assert image_names(done.place) == [f"a/b:modelyard-{HEX}"]
    assert engine.there == {reference}, "the name for the archive is taken back"


def test_an_image_that_is_there_is_not_pulled_and_its_digest_is_noted(tmp_path: Path) -> None:
    engine = Engine({"a/b:v1"}, pulls=False)
    done = ImageSource("a/b:v1", ("m",), run=engine).collect(tmp_path, Silent())
    assert "pull" not in engine.calls
    assert done.details["digest"] == f"a/b@sha256:{HEX}"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (ImageSource("a/b:v1", ("m",), run=Engine(set(), pulls=False)), "could not be pulled"),
        (ImageSource("a/b:v1", ("m",), run=Engine({"a/b:v1"}, saves_as="c:1")), "something else"),
        (ImageSource("a/b:v1", ("m",), "linux/arm64", run=Engine({"a/b:v1"})), "is here for linux/amd64"),
        (ImageSource("--privileged", ("m",), run=Engine(set())), "no reference"),
    ],
)
def test_an_image_that_cannot_be_had_is_told(source: ImageSource, told: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        source.collect(tmp_path, Silent())
    assert told in " ".join([caught.value.message, *caught.value.problems])


def test_no_secret_of_an_address_is_in_what_is_written() -> None:
    source = {"url": "https://me:s3cret@x/m.tar.gz?sig=s3cret", "sha256": HEX.upper()}
    wanted = WeightsSource(source, ("m",), Path("/c"), "http://hub")
    assert "s3cret" not in json.dumps([identity(source), wanted.name, wanted.path, dict(wanted.wish)])
    assert identity(source) == {"file": "m.tar.gz", "sha256": HEX}


def test_weights_from_a_directory_follow_its_links(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "x").write_bytes(b"weights")
    place = tmp_path / "snapshot"
    place.mkdir()
    (place / "model.safetensors").symlink_to(tmp_path / "blobs" / "x")
    (tmp_path / "s").mkdir()
    source = WeightsSource({"path": "/srv/m"}, ("m",), Path("/c"), "http://hub", given=place)
    done = source.collect(tmp_path / "s", Silent())
    found = done.place / "model.safetensors"
    assert (found.is_symlink(), found.read_bytes()) == (False, b"weights")


LOCK = """# made by a tool
one==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via x
two==2.0 ; sys_platform == 'win32' \\
    --hash=sha256:cc
three==3.0 ; python_full_version >= '3.12' and platform_machine == 'x86_64' \\
    --hash=sha256:dd
"""


def test_a_lock_for_one_python() -> None:
    assert [one.name for one in locks.requirements(LOCK)] == ["one", "two", "three"]
    assert (
        locks.for_python(LOCK, "3.11", "x86_64")
        == "one==1.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
    )
    assert "three==3.0 \\\n    --hash=sha256:dd\n" in locks.for_python(LOCK, "3.12", "x86_64")
    assert "three" not in locks.for_python(LOCK, "3.12", "aarch64")
    assert locks.only(LOCK, {"two"}).startswith("two==2.0")


def test_the_projects_own_locks_are_read_whole() -> None:
    root = Path(__file__).parents[3] / "proxy" / "requirements"
    for name in ("serve", "deploy"):
        text = (root / f"{name}.txt").read_text()
        found = list(locks.requirements(text))
        assert len(found) == sum(
            "==" in line and not line.startswith((" ", "#")) for line in text.splitlines()
        )
        assert all("--hash=sha256:" in one.text for one in found)
        assert sum(one.text.count("--hash") for one in found) == text.count("--hash=")
    assert "supervisor==" in locks.only((root / "deploy.txt").read_text(), {"supervisor"})


@pytest.mark.parametrize(
    "path", ["inventories/production/group_vars/all/vault.yml", ".env", "proxy/.env", "roles/x/molecule/default/a.yml",
             "proxy/modelyard/__pycache__/a.pyc", "tests/x.py", ".git/config", "docsx/a"],
)  # fmt: skip
def test_secrets_and_tests_stay_at_home(path: str) -> None:
    assert not taken(path)


def test_the_project_is_packed_the_same_each_time(tmp_path: Path) -> None:
    (tmp_path / "root" / "playbooks").mkdir(parents=True)
    (tmp_path / "root" / "playbooks" / "site.yml").write_text("---\n")
    (tmp_path / "root" / "ansible.cfg").write_text("")
    (tmp_path / "root" / "playbooks" / "link.yml").symlink_to("/etc/passwd")
    source = ProjectSource(tmp_path / "root", "1")
    packed = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        packed.append(source.collect(tmp_path / name, Silent()).place)
    assert packed[0].read_bytes() == packed[1].read_bytes()
    with tarfile.open(packed[0]) as archive:
        assert archive.getnames() == ["modelyard-1/ansible.cfg", "modelyard-1/playbooks/site.yml"]


def installed(root: Path, name: str = "some.thing", needs: dict[str, str] | None = None) -> Path:
    namespace, _, short = name.partition(".")
    place = root / "ansible_collections" / namespace / short
    (place / "plugins").mkdir(parents=True)
    (place / "plugins" / "a.py").write_text("A = 1\n")
    digest = hashlib.sha256(b"A = 1\n").hexdigest()
    files = [
        {"name": ".", "ftype": "dir"},
        {"name": "plugins/a.py", "ftype": "file", "chksum_sha256": digest},
    ]
    (place / "FILES.json").write_text(json.dumps({"files": files}))
    info = {"namespace": namespace, "name": short, "version": "1.2.3", "dependencies": needs or {}}
    (place / "MANIFEST.json").write_text(json.dumps({"collection_info": info}))
    return place


def test_a_collection_comes_with_what_it_needs_and_is_installed_once(tmp_path: Path) -> None:
    installed(tmp_path, needs={"other.one": "*"})
    installed(tmp_path, "other.one")
    found = galaxy.find(["some.thing"], [tmp_path])
    assert [one.name for one in found] == ["some.thing", "other.one"]
    (tmp_path / "s").mkdir()
    archive = found[0].collect(tmp_path / "s", Silent()).place
    target = tmp_path / "closed"
    assert galaxy.install(archive, "some.thing", target, check=True) is True
    assert not target.exists()
    assert galaxy.install(archive, "some.thing", target, check=False) is True
    assert (target / "ansible_collections/some/thing/plugins/a.py").read_text() == "A = 1\n"
    assert galaxy.install(archive, "some.thing", target, check=False) is False


def test_a_collection_that_was_altered_or_is_another_is_refused(tmp_path: Path) -> None:
    place = installed(tmp_path)
    (tmp_path / "s").mkdir()
    archive = galaxy.find(["some.thing"], [tmp_path])[0].collect(tmp_path / "s", Silent()).place
    for name in ("modelyard.fleet", "other.thing"):
        with pytest.raises(BundleError, match="not the collection"):
            galaxy.install(archive, name, tmp_path / "closed", check=False)
    (place / "plugins" / "a.py").write_text("A = 2\n")
    with pytest.raises(BundleError, match="install the collection anew"):
        galaxy.find(["some.thing"], [tmp_path])[0].collect(tmp_path / "s", Silent())
    with pytest.raises(BundleError, match="not installed here"):
        galaxy.find(["no.such"], [tmp_path])


def odd(kind: bytes, name: str, link: str = "") -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        archive.addfile(info, io.BytesIO())

    return add


@pytest.mark.parametrize(
    "add",
    [
        odd(tarfile.REGTYPE, "../evil"),
        odd(tarfile.REGTYPE, "/etc/evil"),
        odd(tarfile.SYMTYPE, "link", "/etc"),
        odd(tarfile.LNKTYPE, "hard", "good"),
        odd(tarfile.CHRTYPE, "device"),
        odd(tarfile.FIFOTYPE, "pipe"),
        odd(tarfile.REGTYPE, "good"),
        odd(tarfile.REGTYPE, "good/below"),
    ],
)
def test_an_archive_is_unpacked_whole_and_safely_or_not_at_all(
    add: Callable[[tarfile.TarFile], None], tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        odd(tarfile.REGTYPE, "good")(archive)
        add(archive)
    target = tmp_path / "deep" / "target"
    target.mkdir(parents=True)
    (target / "before").write_text("x")
    with pytest.raises(BundleError):
        unpack(tmp_path / "a.tar.gz", target)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "a.tar.gz", "deep", "deep/target", "deep/target/before",
    ]  # fmt: skip


def test_what_is_packed_unpacks(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    pack(tmp_path / "a.tar.gz", [("sub/x", tmp_path / "x")])
    unpack(tmp_path / "a.tar.gz", tmp_path / "target")
    assert (tmp_path / "target" / "sub" / "x").read_text() == "x"


BUNDLE: dict[str, Any] = {
    "without": [],
    "images": [{"reference": "i:1", "loaded_as": "i:1", "archive": "/b/images/i.tar"}],
    "weights": [
        {"source": {"hub": "org/m", "revision": "r"}, "from": "/b/weights/m", "files": [{"path": "a"}]},
        {"source": {"path": "/srv/x.gguf", "file": "x.gguf"}, "from": "/b/weights/x", "files": [{"path": "x.gguf"}]},
    ],
}  # fmt: skip


def item(source: dict[str, str]) -> dict[str, Any]:
    return {"model": "m", "source": source, "destination": "/w/m", "owner": 1, "group": 1}


def test_a_host_gets_what_its_replicas_need() -> None:
    replicas = [
        {"model": "m", "spec": {"image": "i:1"}},
        {"model": "n", "spec": {"image": "i:2"}},
        {"model": "o", "spec": {"image": "i:3"}, "adopted": {"id": "x"}},
        {"model": "p", "spec": {"image": None}},
    ]
    weights = [
        item({"hub": "org/m", "revision": "r"}),
        item({"hub": "org/m", "revision": "other"}),
        item({"path": "/srv/x.gguf"}),
        item({"path": "/srv/y"}),
    ]
    found = share(BUNDLE, replicas, weights)
    assert [one["reference"] for one in found["images"]] == ["i:1"]
    assert found["missing"] == ["n: the image i:2 is not in the bundle"]
    assert [(one["from"], one["files"] is None, one["single"]) for one in found["weights"]] == [
        ("/b/weights/m", False, False), ("", True, False), ("/b/weights/x", False, True),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_weights_is_carried_or_left_to_the_hosts_in_words(tmp_path: Path, kind: str) -> None:
    source = {
        kind: "https://h/x?sig=SECRET",
        "revision": "r" * 40,
        "sha256": "a" * 64,
        "checksums": "{'a': 'b'}",
    }
    needs = {
        "images": [],
        "weights": [{"source": source, "models": ["m"]}],
        "hub_endpoint": "https://hub.example",
    }
    options = Options(pythons=(), own_python="3.11", machine="x86_64", without=("wheels",))
    notes: list[str] = []
    found = choose_weights(needs, options, tmp_path, notes)
    carried = kind in ("hub", "url")
    assert (len(found), len(notes)) == ((1, 0) if carried else (0, 1))
    if not carried and kind != "path":
        assert "SECRET" not in notes[0]
        assert "hub, url, path only" in notes[0]
        assert share(BUNDLE, [], [item(source)]) == {"images": [], "weights": [], "missing": []}
        with pytest.raises(BundleError, match="only"):
            choose_weights(needs, replace(options, given={"m": tmp_path}), tmp_path, notes)


def test_what_was_left_out_on_purpose_is_not_missing() -> None:
    bundle = BUNDLE | {"without": ["image", "weights"], "images": [], "weights": []}
    found = share(bundle, [{"model": "n", "spec": {"image": "i:2"}}], [item({"hub": "o/m", "revision": "r"})])
    assert found == {"images": [], "weights": [], "missing": []}


def test_wheels_have_to_fit_the_host() -> None:
    wheels = {"proxies": {"pythons": ["3.11"], "machine": "x86_64"}}
    assert wheel_problems(wheels, "proxies", "3.11.2", "x86_64", []) == []
    assert "--python 3.12" in wheel_problems(wheels, "proxies", "3.12.1", "x86_64", [])[0]
    assert "aarch64" in wheel_problems(wheels, "proxies", "3.11.1", "aarch64", [])[0]
    assert "no wheels" in wheel_problems(wheels, "processes", "3.11.1", "x86_64", [])[0]
    assert wheel_problems({}, "proxies", "3.9", "x", ["wheels"]) == []


def test_packages_are_for_what_has_apt() -> None:
    assert platform_of('ID=debian\nVERSION_ID="12"\n') == "debian-12"
    assert platform_of('ID=ubuntu\nVERSION_ID="24.04"\n') == "ubuntu-24.04"
    with pytest.raises(BundleError, match="Debian and Ubuntu only"):
        platform_of('ID="rhel"\nVERSION_ID="9.4"\n')
