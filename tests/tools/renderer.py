"""Templates with the filters of our collection. A process of its own renders them: one that has imported the collection
as a package, as tests do, cannot have Ansible find plugins in it any more.
"""

from __future__ import annotations

import atexit
import functools
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.tools.role_readmes import ROOT


class RenderError(Exception):
    """What Ansible says is wrong with a template."""


def render(text: str, variables: Mapping[str, Any], files: Sequence[Path] = (), basedir: Path = ROOT) -> Any:
    """A template as plain data. Raises ``RenderError``.

    ``files`` of variables may hold templates themselves; ``variables`` are data, and come before them. ``basedir`` is where
    lookups find files.
    """
    worker = _worker()
    assert worker.stdin is not None
    assert worker.stdout is not None
    question = {
        "text": text, "variables": variables, "files": [str(path) for path in files], "basedir": str(basedir)
    }  # fmt: skip
    worker.stdin.write(f"{json.dumps(question)}\n")
    worker.stdin.flush()
    answer = json.loads(worker.stdout.readline())
    if "error" in answer:
        raise RenderError(answer["error"])
    return answer["value"]


@functools.cache
def _worker() -> subprocess.Popen[str]:
    """The process that renders, for as long as this one lives."""
    started = subprocess.Popen(
        [sys.executable, "-m", __name__],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(started.communicate)  # closes its input, which ends it
    return started


def main() -> None:
    """Answer a question a line until there is none left."""
    from ansible.errors import AnsibleError
    from ansible.parsing.dataloader import DataLoader
    from ansible.plugins.loader import init_plugin_loader
    from ansible.template import Templar, trust_as_template

    init_plugin_loader([str(ROOT / "collections")])
    for line in sys.stdin:
        question = json.loads(line)
        loader = DataLoader()
        loader.set_basedir(question["basedir"])
        variables: dict[str, Any] = {}
        for path in question["files"]:
            variables |= loader.load_from_file(path, trusted_as_template=True)
        templar = Templar(loader=loader, variables=variables | question["variables"])
        try:
            answer = json.dumps({"value": templar.template(trust_as_template(question["text"]))})
        except AnsibleError as error:
            answer = json.dumps({"error": str(error)})
        print(answer, flush=True)


if __name__ == "__main__":
    main()
