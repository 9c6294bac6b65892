"""The suite of real client libraries, against a real vLLM behind the proxy."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.vllm_engines import MODEL, proxy_for, vllm_engines

pytestmark = pytest.mark.timeout(900)
ROOT = Path(__file__).parents[2]


def test_the_clients_are_served(parts: None, tmp_path: Path) -> None:
    python = Path(os.environ.get("MODELYARD_CLIENTS_VENV", ROOT / ".venv-clients")) / "bin" / "python"
    assert python.exists(), f"{python} is missing; make test-clients installs the client libraries"
    with vllm_engines(1) as engines:
        endpoint = {"id": "vllm.0", "url": engines[0].url, "engine": "vllm", "served_name": MODEL}
        # clients know it by another name, so that the name must be rewritten both ways
        with proxy_for([endpoint], tmp_path, model="clients-name") as proxy:
            done = subprocess.run(
                [python, "-m", "pytest", "-c", "tests/clients/pytest.ini", "tests/clients", "-q"],
                cwd=ROOT,
                env=os.environ
                | {"MODELYARD_CLIENTS_URL": proxy.url, "MODELYARD_CLIENTS_VLLM_SHAPED": "clients-name"},
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
    assert done.returncode == 0, done.stdout[-6000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 15, done.stdout
