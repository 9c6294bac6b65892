"""A tiny random model in the cache directory, made by the engine's own libraries."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.parts import machine, vllm_image
from tests.parts.errors import PartError
from tests.parts.fingerprint import fingerprint

_SCRIPT = Path(__file__).parent / "model" / "tiny_llama.py"


def directory() -> Path:
    """Where the model's files lie once :func:`build_model` has run."""
    return machine.cache_directory() / f"tiny-llama-{fingerprint(vllm_image.tag(), _SCRIPT)}"


def is_built() -> bool:
    """Whether the model is there; it is put into place whole or not at all."""
    return directory().is_dir()


def build_model() -> None:
    """Make the model, 1 MB in about 10 seconds. The vLLM image must be there.

    The files come out of the container as a stream, so that it works with any engine and any user.
    """
    command = [
        "docker",
        "run",
        "--rm",
        "-i",
        "--network",
        "none",
        "--entrypoint",
        "python",
        vllm_image.tag(),
        "-",
    ]
    done = subprocess.run(command, input=_SCRIPT.read_bytes(), capture_output=True, timeout=300, check=False)
    if done.returncode != 0:
        raise PartError(f"The tiny model was not made:\n{done.stderr.decode(errors='replace')[-4000:]}")
    place = directory()
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=place.parent))
    try:
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
            tar.extractall(fresh, filter="data")
        if not (fresh / "model.safetensors").is_file():
            raise PartError(f"The tiny model has no weights: {sorted(p.name for p in fresh.iterdir())}")
        fresh.chmod(0o755)
        os.rename(fresh, place)  # noqa: PTH104
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
