"""The role ``edge`` without a host: its variables on one platform, its files rendered, and HAProxy to judge them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.parts.debian import Absent, Program, program
from tests.tools.renderer import render
from tests.tools.role_readmes import ROOT

ROLE = ROOT / "roles" / "edge"


def haproxy() -> Program | None:
    """HAProxy, installed or unpacked from the distribution's packages; None where it cannot be had."""
    try:
        return program("haproxy")
    except Absent:
        return None


class Stage:
    """The role's variables as a run would have them on a host that says it is ``distribution`` ``version``."""

    def __init__(self, wish: Mapping[str, Any], distribution: str = "Debian", version: str = "12.11") -> None:
        family = distribution if distribution in ("Debian", "RedHat") else "RedHat"
        self.variables: dict[str, Any] = {
            "ansible_facts": {
                "distribution": distribution,
                "os_family": "Debian" if distribution == "Ubuntu" else family,
                "distribution_version": version,
                "distribution_major_version": version.partition(".")[0],
            },
            "inventory_hostname": "edge01",
            "__edge_interface": "eth0",
        }
        self.variables |= wish

    def value(self, name: str) -> Any:
        """A variable as plain data."""
        return self.render("{{ " + name + " }}")

    def template(self, name: str) -> str:
        """One of the role's templates."""
        return str(self.render((ROLE / "templates" / name).read_text(encoding="utf-8")))

    def render(self, text: str) -> Any:
        """A template in the role's variables, as a task would have it."""
        files = [ROLE / "defaults" / "main.yml", ROLE / "vars" / "main.yml"]
        return render(text, self.variables, files, ROLE / "templates")

    def write(self, directory: Path, replace: Mapping[str, str] | None = None, generation: int = 7) -> Path:
        """HAProxy's configuration with its certificates in a directory; the path of the main file.

        ``replace`` changes what only a host has.
        """
        text = self.template("haproxy.cfg.j2").replace("@GENERATION@", str(generation))
        for old, new in (replace or {}).items():
            assert old in text, f"{old} is not in the configuration"
            text = text.replace(old, new)
        for name, content in self.value("__edge_certificate_files")["secrets"].items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        path = directory / "haproxy.cfg"
        path.write_text(text)
        return path
